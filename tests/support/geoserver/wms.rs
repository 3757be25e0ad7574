//! WMS: pictures that say only that a picture could be drawn, errors with status 200, capabilities.

use super::State;
use super::catalog::{Catalog, Member, Resource, Store, StyleRef};
use super::doc::{El, escape};
use super::http::{Answer, Fault, Reply, Req};
use super::postgis::{self, Silence};
use super::security::{self, Access};
use super::{feature_type, png, wfs};

/// A request for a service: of the whole server, or of one workspace.
pub(crate) struct Ows<'a> {
    pub(crate) req: &'a Req,
    pub(crate) ws: Option<&'a str>,
}

impl Ows<'_> {
    pub(crate) fn param(&self, name: &str) -> &str {
        self.req.param(name).unwrap_or_default()
    }

    /// Where the service lies: `{BASE}/` or `{BASE}/ws/`.
    pub(crate) fn here(&self) -> String {
        self.ws.map_or_else(|| format!("{}/", self.req.base), |ws| format!("{}/{ws}/", self.req.base))
    }

    /// A published resource by `ws:name` or bare name, and what the rules say about it.
    pub(crate) fn find(&self, cat: &Catalog, name: &str) -> Option<(Resource, StyleRef, Access)> {
        let layer = match (self.ws, name.split_once(':')) {
            (Some(ws), _) => cat.layer_in(ws, name.strip_prefix(&format!("{ws}:")).unwrap_or(name)),
            (None, _) => cat.layer_named(name),
        }?;
        let resource = cat.resource(layer.resource)?;
        if !resource.enabled {
            return None;
        }
        let access = security::access(cat, self.req.user.as_deref(), &cat.ws_name(resource.ws), &resource.name);
        (access != Access::Hidden).then(|| (resource.clone(), layer.default_style.clone(), access))
    }

    /// A feature type as WFS finds it: one whose layer is gone is served too.
    pub(crate) fn find_type(&self, cat: &Catalog, name: &str) -> Option<(Resource, Access)> {
        if let Some((resource, _, access)) = self.find(cat, name) {
            return Some((resource, access));
        }
        let (ws, bare) = name.split_once(':').or(self.ws.map(|ws| (ws, name)))?;
        let id = cat.ws_id(ws)?;
        let resource = cat.resources.iter().find(|held| held.ws == id && held.name == bare && held.enabled)?;
        let access = security::access(cat, self.req.user.as_deref(), ws, bare);
        (access != Access::Hidden).then(|| (resource.clone(), access))
    }
}

pub(crate) async fn answer(state: &State, req: &Req, segments: &[String]) -> Answer {
    const SERVICES: [&str; 3] = ["wms", "wfs", "ows"];
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (ws, service, rest) = match parts.as_slice() {
        [service, rest @ ..] if SERVICES.contains(service) => (None, *service, rest),
        [ws, service, rest @ ..] if SERVICES.contains(service) => (Some(*ws), *service, rest),
        _ => return Err(Fault::Unmapped),
    };
    if ws.is_some_and(|ws| state.cat().ws_id(ws).is_none()) {
        return Err(Fault::Unmapped);
    }
    let ows = Ows { req, ws };
    let said = ows.param("service").to_uppercase();
    let service = if service == "ows" { said } else { service.to_uppercase() };
    let request = if rest == ["reflect"] { "getmap".to_owned() } else { ows.param("request").to_lowercase() };
    match (service.as_str(), request.as_str()) {
        ("WMS", "getmap") => map(state, &ows).await,
        ("WMS", "getcapabilities") => Ok(capabilities(&state.cat(), &ows)),
        ("WMS", "getlegendgraphic") => legend(state, &ows),
        ("WMS", "getfeatureinfo") => info(state, &ows).await,
        ("WFS", request) => wfs::answer(state, &ows, request).await,
        _ => {
            let text = "No service: ( ows )";
            Ok(Reply::text(
                200,
                "application/xml",
                wfs::report(&ows, "1.0.0", "InvalidParameterValue", "service", text),
            ))
        }
    }
}

/// A service exception: status 200, in the form that was asked for.
fn exception(ows: &Ows<'_>, code: Option<&str>, locator: Option<&str>, text: &str) -> Reply {
    match ows.param("exceptions") {
        "application/json" => {
            let body = serde_json::json!({
                "version": ows.param("version"),
                "exceptions": [{
                    "code": code.unwrap_or("noCode"),
                    "locator": locator.unwrap_or("noLocator"),
                    "text": text,
                }],
            });
            return Reply::text(200, "application/json;charset=utf-8", body.to_string());
        }
        "application/vnd.ogc.se_inimage" => return Reply::text(200, "image/png", png::png(64, 64, [255, 0, 0])),
        _ => {}
    }
    let code = code.map(|code| format!(" code=\"{code}\"")).unwrap_or_default();
    let locator = locator.map(|locator| format!(" locator=\"{locator}\"")).unwrap_or_default();
    let inner = format!(
        "   <ServiceException{code}{locator}>\n      {}\n</ServiceException></ServiceExceptionReport>",
        escape(text)
    );
    let base = &ows.req.base;
    if ows.param("version") == "1.3.0" {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ServiceExceptionReport version=\"1.3.0\" \
             xmlns=\"http://www.opengis.net/ogc\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
             xsi:schemaLocation=\"http://www.opengis.net/ogc {base}/schemas/wms/1.3.0/exceptions_1_3_0.xsd\">{inner}"
        );
        return Reply::text(200, "text/xml;charset=utf-8", body);
    }
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?><!DOCTYPE ServiceExceptionReport SYSTEM \
         \"{base}/schemas/wms/1.1.1/WMS_exception_1_1_1.dtd\"> <ServiceExceptionReport version=\"1.1.1\" >{inner}"
    );
    Reply::text(200, "application/vnd.ogc.se_xml;charset=utf-8", body)
}

/// What a map is drawn of, groups taken apart.
fn drawn(cat: &Catalog, ows: &Ows<'_>, names: &[&str]) -> Result<Vec<(Resource, StyleRef)>, Fault> {
    let refuse =
        |code: Option<&str>, locator: Option<&str>, text: &str| Fault::Other(exception(ows, code, locator, text));
    let mut list = vec![];
    for name in names {
        let group = match ows.ws {
            Some(ws) => cat.group_in(cat.ws_id(ws), name.strip_prefix(&format!("{ws}:")).unwrap_or(name)),
            None => cat.group_named(name),
        };
        if let Some(group) = group {
            for (at, member) in group.members.iter().enumerate() {
                let label = super::group::member_label(cat, member);
                let bare = label.split_once(':').map_or(label.as_str(), |(_, bare)| bare);
                if group.styles.get(at) == Some(&StyleRef::Missing) {
                    let text = format!(
                        "Could not find a style for layer {bare}, either none was specified or no default style is available for it"
                    );
                    return Err(refuse(Some("NoDefaultStyle"), None, &text));
                }
                if let Member::Group(_) = member {
                    list.extend(drawn(cat, ows, &[&label])?);
                } else if let Some((resource, style, _)) = ows.find(cat, &label) {
                    list.push((resource, style));
                }
            }
            continue;
        }
        let Some((resource, style, access)) = ows.find(cat, name) else {
            return Err(refuse(Some("LayerNotDefined"), Some("layers"), &format!("Could not find layer {name}")));
        };
        if matches!(access, Access::Challenge { .. }) {
            return Err(security::challenge(ows.req));
        }
        list.push((resource, style));
    }
    Ok(list)
}

async fn map(state: &State, ows: &Ows<'_>) -> Answer {
    let refuse = |code: Option<&str>, text: &str| Ok(exception(ows, code, None, text));
    let names: Vec<&str> = ows.param("layers").split(',').filter(|name| !name.is_empty()).collect();
    let list = {
        let cat = state.cat();
        let list = drawn(&cat, ows, &names)?;
        for style in ows.param("styles").split(',').filter(|style| !style.is_empty()) {
            let local = ows.ws.and_then(|ws| cat.style_in(cat.ws_id(ws), style));
            if local.is_none() && cat.style_named(style, None).is_none() {
                return refuse(Some("StyleNotDefined"), &format!("No such style: {style}"));
            }
        }
        list
    };
    let format = ows.req.param("format").unwrap_or("image/png");
    if !["image/png", "image/png8", "image/jpeg", "image/gif"].contains(&format) {
        return refuse(Some("InvalidFormat"), &format!("There is no support for creating maps in {format} format"));
    }
    if list.iter().any(|(_, style)| *style == StyleRef::Missing) {
        let npe = "Cannot invoke \"org.geoserver.catalog.StyleInfo.getStyle()\" because \"defaultStyle\" is null";
        return refuse(None, &format!("java.lang.NullPointerException: {npe}\n{npe}"));
    }
    let mut is_blank = list.iter().all(|(resource, _)| !resource.remote);
    for (resource, _) in list.iter().filter(|(resource, _)| !resource.remote) {
        let drawn = draw(state, ows, resource).await;
        is_blank &= drawn == Ok(false);
        if let Err(message) = drawn {
            let shown: Vec<&str> = names
                .iter()
                .map(|name| ows.ws.and_then(|ws| name.strip_prefix(&format!("{ws}:"))).unwrap_or(name))
                .collect();
            let text = format!(
                "Rendering process failed. Layers: {}org.postgresql.util.PSQLException: ERROR: {message}\n  Position: \
                 98\nERROR: {message}\n  Position: 98",
                shown.join(", ")
            );
            return refuse(Some("internalError"), &text);
        }
    }
    let side = |name: &str| ows.param(name).parse().unwrap_or(100u32).clamp(1, 2048);
    let file = names.join("_").replace(':', "-");
    if format == "image/jpeg" {
        let jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9".to_vec();
        return Ok(
            Reply::text(200, "image/jpeg", jpeg).header("Content-Disposition", &format!("inline; filename={file}.jpg"))
        );
    }
    let hue = file.bytes().fold(0u8, u8::wrapping_add);
    let colour = if is_blank { [255, 255, 255] } else { [hue, 64, 128] };
    Ok(Reply::text(200, "image/png", png::png(side("width"), side("height"), colour))
        .header("Content-Disposition", &format!("inline; filename={file}.png")))
}

/// Reads what a map would read: the geometry column as it was called when the attributes were last read. Tells whether
/// anything is to be seen; where the map's reference system is not the column's, that is any geometry.
async fn draw(state: &State, ows: &Ows<'_>, resource: &Resource) -> Result<bool, String> {
    let text = |silence: Silence| match silence {
        Silence::Sql(message) => message,
        Silence::Unreachable => "The connection attempt failed.".to_owned(),
    };
    let attributes = feature_type::cached_attributes(state, resource).await.map_err(text)?;
    let shape = attributes.iter().find_map(|attribute| Some((attribute, attribute.geometry.as_ref()?.1)));
    let Some((column, srid)) = shape else { return Ok(true) };
    let link = {
        let cat = state.cat();
        cat.stores.iter().find(|store| store.id == resource.store).and_then(Store::link)
    };
    let link = link.ok_or_else(|| "The connection attempt failed.".to_owned())?;
    let client = postgis::connect(&link).await.map_err(text)?;
    let name = borg_slave::name::quote_ident(&column.name);
    let edges: Vec<f64> = ows.param("bbox").split(',').filter_map(|edge| edge.parse().ok()).collect();
    let seen = match edges[..] {
        [minx, miny, maxx, maxy] if column.kind == "geometry" && ows.param("srs") == format!("EPSG:{srid}") => {
            format!("{name} && public.st_makeenvelope({minx}, {miny}, {maxx}, {maxy}, {srid})")
        }
        _ => format!("{name} is not null"),
    };
    let sql = format!("select count(*) from {} where {seen}", postgis::source(&link, resource));
    client.query_one(&sql, &[]).await.map(|row| row.get::<_, i64>(0) > 0).map_err(|err| text(err.into()))
}

fn legend(state: &State, ows: &Ows<'_>) -> Answer {
    let name = ows.param("layer");
    if ows.find(&state.cat(), name).is_none() {
        return Ok(exception(ows, None, None, &format!("{name} layer does not exist.")));
    }
    Ok(Reply::text(200, "image/png", png::png(20, 20, [0, 0, 0]))
        .header("Content-Disposition", "inline; filename=geoserver-GetLegendGraphic.image"))
}

async fn info(state: &State, ows: &Ows<'_>) -> Answer {
    let name = ows.param("query_layers");
    let Some((resource, _, _)) = ows.find(&state.cat(), name) else {
        return Ok(exception(ows, Some("LayerNotDefined"), Some("layers"), &format!("Could not find layer {name}")));
    };
    let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    let edges: Vec<f64> = ows.param("bbox").split(',').map(number).collect();
    let [minx, miny, maxx, maxy] = edges[..] else { return Ok(exception(ows, None, None, "Missing bbox")) };
    let x = minx + (maxx - minx) * number(ows.param("x")) / number(ows.param("width")).max(1.0);
    let y = maxy - (maxy - miny) * number(ows.param("y")) / number(ows.param("height")).max(1.0);
    let reach = (maxx - minx) / number(ows.param("width")).max(1.0) * 8.0;
    wfs::near(state, ows, &resource, x, y, reach).await
}

/// Capabilities, with the layers that may be seen: broken ones are left out, the document stays whole.
fn capabilities(cat: &Catalog, ows: &Ows<'_>) -> Reply {
    let new = ows.req.param("version").is_none_or(|version| version == "1.3.0");
    let mut names: Vec<String> = cat
        .layers
        .iter()
        .filter(|layer| layer.default_style != StyleRef::Missing && !layer.styles.contains(&StyleRef::Missing))
        .map(|layer| cat.layer_names(layer))
        .filter(|(ws, _)| ows.ws.is_none_or(|only| only == ws))
        .map(|(ws, name)| format!("{ws}:{name}"))
        .collect();
    names.sort();
    let mut list = El::new("Layer").with("Title", "GeoServer Web Map Service");
    list = list.with(if new { "CRS" } else { "SRS" }, "EPSG:4326");
    for label in names {
        let Some((resource, style, access)) = ows.find(cat, &label) else { continue };
        if access == (Access::Challenge { listed: false }) {
            continue;
        }
        let shown = if ows.ws.is_some() { resource.name.clone() } else { label.clone() };
        let mut layer = El::new("Layer").attr("queryable", "1").with("Name", shown);
        layer = layer.with("Title", resource.title.clone().unwrap_or_default());
        layer = layer.with("Abstract", resource.abstract_text.clone().unwrap_or_default());
        layer =
            layer.kid(resource.keywords.iter().fold(El::new("KeywordList"), |list, word| list.with("Keyword", word)));
        layer = layer.with(if new { "CRS" } else { "SRS" }, &resource.srs);
        if let Some(bounds) = &resource.latlon_box {
            layer = layer.kid(if new {
                El::new("EX_GeographicBoundingBox")
                    .with("westBoundLongitude", bounds.minx)
                    .with("eastBoundLongitude", bounds.maxx)
                    .with("southBoundLatitude", bounds.miny)
                    .with("northBoundLatitude", bounds.maxy)
            } else {
                El::new("LatLonBoundingBox")
                    .attr("minx", &bounds.minx.to_string())
                    .attr("miny", &bounds.miny.to_string())
                    .attr("maxx", &bounds.maxx.to_string())
                    .attr("maxy", &bounds.maxy.to_string())
            });
        }
        if let StyleRef::Style(id) = style
            && let Some(style) = cat.style(id)
        {
            let legend = El::new("LegendURL").attr("width", "20").attr("height", "20").with("Format", "image/png");
            layer = layer.kid(El::new("Style").with("Name", cat.style_label(style)).kid(legend));
        }
        list = list.kid(layer);
    }
    let service = El::new("Service").with("Name", if new { "WMS" } else { "OGC:WMS" });
    let service = service.with("Title", "").with("Abstract", "").with("KeywordList", "");
    let get_map = El::new("GetMap").with("Format", "image/png");
    let request = El::new("Request").kid(get_map);
    let capability = El::new("Capability").kid(request).kid(list);
    let base = &ows.req.base;
    // Element names of OGC documents are written as they are.
    let inner: String = [service, capability].iter().map(|el| el.to_xml().replace("EX__", "EX_") + "\n").collect();
    let (media, file, body) = if new {
        let head = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><WMS_Capabilities version=\"1.3.0\" updateSequence=\"1\" \
             xmlns=\"http://www.opengis.net/wms\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:schemaLocation=\"http://www.opengis.net/wms \
             {base}/schemas/wms/1.3.0/capabilities_1_3_0.xsd\">"
        );
        ("text/xml", "getcapabilities_1.3.0.xml", format!("{head}\n{inner}</WMS_Capabilities>\n"))
    } else {
        let head = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE WMT_MS_Capabilities SYSTEM \
             \"{base}/schemas/wms/1.1.1/WMS_MS_Capabilities.dtd\">\n<WMT_MS_Capabilities version=\"1.1.1\" updateSequence=\"1\">"
        );
        ("application/vnd.ogc.wms_xml", "getcapabilities_1.1.1.xml", format!("{head}\n{inner}</WMT_MS_Capabilities>\n"))
    };
    Reply::text(200, media, body)
        .header("Cache-Control", "max-age=0, must-revalidate")
        .header("Content-Disposition", &format!("inline; filename={file}"))
}
