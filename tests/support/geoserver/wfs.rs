//! WFS over the attributes as last read: a column that is gone fails as it does with GeoServer.

use std::fmt::Write as _;

use borg_slave::name::quote_ident;
use serde_json::{Value, json};

use super::State;
use super::catalog::{Resource, Store};
use super::crs;
use super::doc::escape;
use super::feature_type::cached_attributes;
use super::http::{Answer, Fault, Reply, encode};
use super::postgis::{self, Attribute, Link, Silence};
use super::security::{self, Access};
use super::wms::Ows;

/// An exception report of OWS.
pub(crate) fn report(ows: &Ows<'_>, version: &str, code: &str, locator: &str, text: &str) -> String {
    let base = &ows.req.base;
    let locator = if locator.is_empty() { String::new() } else { format!(" locator=\"{locator}\"") };
    let (ns, path) = match version {
        "2.0.0" => ("http://www.opengis.net/ows/1.1", "1.1.0/owsAll.xsd"),
        _ => ("http://www.opengis.net/ows", "1.0.0/owsExceptionReport.xsd"),
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ows:ExceptionReport xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:ows=\"{ns}\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" version=\"{version}\" \
         xsi:schemaLocation=\"{ns} {base}/schemas/ows/{path}\">\n  <ows:Exception exceptionCode=\"{code}\"{locator}>\n    \
         <ows:ExceptionText>{text}</ows:ExceptionText>\n  </ows:Exception>\n</ows:ExceptionReport>\n"
    )
}

fn refused(ows: &Ows<'_>, code: &str, locator: &str, text: &str) -> Fault {
    Fault::Other(Reply::text(400, "application/xml", report(ows, "2.0.0", code, locator, text)))
}

pub(crate) async fn answer(state: &State, ows: &Ows<'_>, request: &str) -> Answer {
    match request {
        "getcapabilities" => Ok(capabilities(state, ows)),
        "describefeaturetype" => describe(state, ows).await,
        "getfeature" => features(state, ows).await,
        _ => Err(refused(ows, "OperationNotSupported", "", "No such operation")),
    }
}

fn type_name<'a>(ows: &'a Ows<'_>) -> &'a str {
    ows.req.param("typeNames").or(ows.req.param("typeName")).unwrap_or_default()
}

async fn describe(state: &State, ows: &Ows<'_>) -> Answer {
    let name = type_name(ows);
    let (found, uri, prefix) = {
        let cat = state.cat();
        let ws = name.split_once(':').map(|(ws, _)| ws).or(ows.ws).unwrap_or_default();
        let uri = cat.workspace(ws).map(|ws| ws.uri.clone()).unwrap_or_default();
        (ows.find(&cat, name), uri, ws.to_owned())
    };
    let bare = name.split_once(':').map_or(name, |(_, bare)| bare);
    let Some((resource, _, _)) = found else {
        let text = format!("Could not find type: {{{uri}}}{bare}");
        return Err(refused(ows, "InvalidParameterValue", "DescribeFeatureType", &text));
    };
    let attributes = cached_attributes(state, &resource).await.map_err(|silence| broken(ows, &resource, silence))?;
    let mut elements = String::new();
    // GML has a name of its own.
    for attribute in attributes.iter().filter(|attribute| attribute.name != "name") {
        let _ = writeln!(
            elements,
            "          <xsd:element maxOccurs=\"1\" minOccurs=\"{}\" name=\"{}\" nillable=\"{}\" type=\"{}\"/>",
            i32::from(attribute.required),
            escape(&attribute.name),
            !attribute.required,
            schema_type(attribute)
        );
    }
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><xsd:schema xmlns:gml=\"http://www.opengis.net/gml/3.2\" \
         xmlns:{prefix}=\"{uri}\" xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" elementFormDefault=\"qualified\" targetNamespace=\"{uri}\">\n  \
         <xsd:import namespace=\"http://www.opengis.net/gml/3.2\" schemaLocation=\"{}/schemas/gml/3.2.1/gml.xsd\"/>\n  \
         <xsd:complexType name=\"{bare}Type\">\n    <xsd:complexContent>\n      \
         <xsd:extension base=\"gml:AbstractFeatureType\">\n        <xsd:sequence>\n{elements}        </xsd:sequence>\n      \
         </xsd:extension>\n    </xsd:complexContent>\n  </xsd:complexType>\n  <xsd:element name=\"{bare}\" \
         substitutionGroup=\"gml:AbstractFeature\" type=\"{prefix}:{bare}Type\"/>\n</xsd:schema>\n",
        ows.req.base
    );
    Ok(Reply::text(200, "application/gml+xml; version=3.2", body)
        .header("Content-Disposition", &format!("inline; filename={}.xsd", name.replace(':', "-"))))
}

fn schema_type(attribute: &Attribute) -> String {
    if let Some((shape, _)) = &attribute.geometry {
        let shape = match shape.as_str() {
            "MultiPolygon" => "MultiSurface",
            "Polygon" => "Surface",
            "LineString" => "Curve",
            "MultiLineString" => "MultiCurve",
            other => other,
        };
        return format!("gml:{shape}PropertyType");
    }
    let name = match attribute.kind.as_str() {
        "int2" => "short",
        "int4" => "int",
        "int8" => "long",
        "float4" => "float",
        "float8" => "double",
        "numeric" => "decimal",
        "bool" => "boolean",
        "date" => "date",
        "timestamp" | "timestamptz" => "dateTime",
        "time" | "timetz" => "time",
        _ => "string",
    };
    format!("xsd:{name}")
}

/// A failed statement, in the words that a GML or hits request gives.
fn broken(ows: &Ows<'_>, resource: &Resource, silence: Silence) -> Fault {
    let message = match silence {
        Silence::Sql(message) => message,
        Silence::Unreachable => "The connection attempt failed.".to_owned(),
    };
    if ows.param("version") == "1.0.0" {
        let name = &resource.name;
        let bounds = format!("java.io.IOException: Error occured calculating bounds for {name}");
        let text = format!(
            "error:java.lang.RuntimeException: {bounds}\njava.lang.RuntimeException: {bounds}\n{bounds}\n\
             Error occured calculating bounds for {name}\nERROR: {}\n  Position: 92",
            escape(&message)
        );
        let body = format!(
            "<?xml version=\"1.0\" ?>\n<ServiceExceptionReport\n   version=\"1.2.0\"\n   \
             xmlns=\"http://www.opengis.net/ogc\"\n   xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"\n   \
             xsi:schemaLocation=\"http://www.opengis.net/ogc http://schemas.opengis.net/wfs/1.0.0/OGC-exception.xsd\">\n   \
             <ServiceException>\n       {text}\n</ServiceException></ServiceExceptionReport>"
        );
        return Fault::Other(Reply::text(200, "text/xml;charset=utf-8", body));
    }
    // Escaped twice, as it comes.
    let message = escape(&escape(&message));
    let text =
        format!("java.lang.RuntimeException: java.io.IOException\njava.io.IOExceptionERROR: {message}\n  Position: 51");
    refused(ows, "NoApplicableCode", "", &text)
}

fn link_of(state: &State, resource: &Resource) -> Result<Link, Silence> {
    let cat = state.cat();
    cat.stores.iter().find(|store| store.id == resource.store).and_then(Store::link).ok_or(Silence::Unreachable)
}

async fn features(state: &State, ows: &Ows<'_>) -> Answer {
    let name = type_name(ows);
    let found = ows.find_type(&state.cat(), name);
    let Some((resource, access)) = found.filter(|(resource, _)| !resource.remote) else {
        return Err(refused(ows, "InvalidParameterValue", "typeName", &format!("Feature type {name} unknown")));
    };
    if matches!(access, Access::Challenge { .. }) {
        return Err(security::challenge(ows.req));
    }
    let json_wanted = ows.param("outputFormat").contains("json");
    let keyed = resource.virtual_table().is_some_and(|table| table.find("keyColumn").is_some());
    if ows.req.param("startIndex").is_some() && !keyed {
        let text = "java.lang.RuntimeExceptionCannot do natural order without a primary key, please add it or specify a \
                    manual sort over existing attributes";
        let body = report(ows, "2.0.0", "NoApplicableCode", "", text);
        return Err(Fault::Other(Reply::text(400, "application/xml;charset=utf-8", body)));
    }
    let fail = |silence| broken(ows, &resource, silence);
    let link = link_of(state, &resource).map_err(fail)?;
    let attributes = cached_attributes(state, &resource).await.map_err(fail)?;
    let client = postgis::connect(&link).await.map_err(fail)?;
    let source = postgis::source(&link, &resource);
    let total: i64 =
        client.query_one(&format!("select count(*) from {source}"), &[]).await.map_err(|err| fail(err.into()))?.get(0);
    if ows.param("resultType").eq_ignore_ascii_case("hits") {
        return Ok(hits(ows, name, total));
    }
    let count = ows.req.param("count").or(ows.req.param("maxFeatures")).and_then(|count| count.parse::<i64>().ok());
    let limit = count.map_or_else(String::new, |count| format!(" limit {count}"));
    let rows = read(&client, &attributes, &format!("{source}{limit}")).await;
    let rows = rows.map_err(|silence| match (json_wanted, silence) {
        (true, Silence::Sql(message)) => {
            let message = escape(&escape(&message));
            let text = format!(
                "java.lang.RuntimeExceptionorg.postgresql.util.PSQLException: ERROR: {message}\n  Position: 13\n\
                 ERROR: {message}\n  Position: 13"
            );
            let body = report(ows, "2.0.0", "NoApplicableCode", "", &text);
            Fault::Other(Reply::text(400, "application/xml;charset=utf-8", body))
        }
        (_, silence) => fail(silence),
    })?;
    if json_wanted {
        let body = collection(&resource, &attributes, &rows, Some(total));
        let file = name.split_once(':').map_or(name, |(_, bare)| bare);
        return Ok(Reply::text(200, "application/json;charset=utf-8", body.to_string())
            .header("Content-Disposition", &format!("inline; filename={file}.json")));
    }
    Ok(gml(ows, &resource, &rows, total))
}

fn hits(ows: &Ows<'_>, name: &str, total: i64) -> Reply {
    let stamp = super::workspace::DATE;
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><wfs:FeatureCollection xmlns:xs=\"http://www.w3.org/2001/XMLSchema\"";
    let (media, body) = if ows.param("version").starts_with('2') {
        let next = format!(
            "{}wfs?RESULTTYPE=results&amp;REQUEST=GetFeature&amp;VERSION=2.0.0&amp;TYPENAMES={}&amp;SERVICE=WFS&amp;STARTINDEX=0",
            ows.here(),
            encode(name, b"-._*")
        );
        let rest = format!(
            "xmlns:fes=\"http://www.opengis.net/fes/2.0\" xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
             xmlns:gml=\"http://www.opengis.net/gml/3.2\" xmlns:ows=\"http://www.opengis.net/ows/1.1\" \
             xmlns:xlink=\"http://www.w3.org/1999/xlink\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
             next=\"{next}\" numberMatched=\"{total}\" numberReturned=\"0\" timeStamp=\"{stamp}\" \
             xsi:schemaLocation=\"http://www.opengis.net/wfs/2.0 http://schemas.opengis.net/wfs/2.0/wfs.xsd\"/>"
        );
        ("text/xml", format!("{head} {rest}"))
    } else {
        let rest = format!(
            "xmlns:wfs=\"http://www.opengis.net/wfs\" xmlns:gml=\"http://www.opengis.net/gml\" \
             xmlns:ogc=\"http://www.opengis.net/ogc\" xmlns:ows=\"http://www.opengis.net/ows\" \
             xmlns:xlink=\"http://www.w3.org/1999/xlink\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
             numberOfFeatures=\"{total}\" timeStamp=\"{stamp}\" \
             xsi:schemaLocation=\"http://www.opengis.net/wfs http://schemas.opengis.net/wfs/1.1.0/wfs.xsd\"/>"
        );
        ("text/xml; subtype=gml/3.1.1", format!("{head} {rest}"))
    };
    Reply::text(200, media, body).header("Content-Disposition", "inline; filename=geoserver-GetFeature.text")
}

/// Rows of the columns as cached, each as one JSON array of values in order.
async fn read(
    client: &tokio_postgres::Client,
    attributes: &[Attribute],
    tail: &str,
) -> Result<Vec<Vec<Value>>, Silence> {
    let columns: Vec<String> = attributes
        .iter()
        .map(|attribute| {
            let column = quote_ident(&attribute.name);
            if attribute.geometry.is_some() {
                return format!(
                    "json_build_object('shape', st_asgeojson({column}::geometry, 15, 0)::json, 'box', \
                     json_build_array(st_xmin({column}::geometry), st_ymin({column}::geometry), \
                     st_xmax({column}::geometry), st_ymax({column}::geometry)))"
                );
            }
            match attribute.kind.as_str() {
                "date" => format!("to_json(to_char({column}, 'YYYY-MM-DD\"Z\"'))"),
                "timestamp" => format!("to_json(to_char({column}, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))"),
                "timestamptz" => {
                    format!("to_json(to_char({column} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))")
                }
                _ => format!("to_json({column})"),
            }
        })
        .collect();
    let sql = format!("select json_build_array({})::text from {tail}", columns.join(", "));
    let rows = client.query(&sql, &[]).await?;
    Ok(rows.iter().filter_map(|row| serde_json::from_str(row.get::<_, &str>(0)).ok()).collect())
}

fn collection(resource: &Resource, attributes: &[Attribute], rows: &[Vec<Value>], total: Option<i64>) -> Value {
    let key = resource.virtual_table().and_then(|table| table.text_of("keyColumn"));
    let mut all: Option<[f64; 4]> = None;
    let features: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let mut properties = serde_json::Map::new();
            let mut id = format!("fid-{:x}_{number}", resource.id);
            let (mut shape, mut column, mut bounds) = (Value::Null, Value::Null, Value::Null);
            for (attribute, value) in attributes.iter().zip(row) {
                if attribute.geometry.is_some() {
                    (shape, column, bounds) = (value["shape"].clone(), json!(attribute.name), value["box"].clone());
                    continue;
                }
                if key.as_deref() == Some(&attribute.name) {
                    id = value.to_string();
                }
                properties.insert(attribute.name.clone(), value.clone());
            }
            if let Ok([x0, y0, x1, y1]) = serde_json::from_value::<[f64; 4]>(bounds.clone()) {
                let sum = all.get_or_insert([x0, y0, x1, y1]);
                *sum = [sum[0].min(x0), sum[1].min(y0), sum[2].max(x1), sum[3].max(y1)];
            }
            json!({
                "type": "Feature",
                "id": format!("{}.{id}", resource.name),
                "geometry": shape,
                "geometry_name": column,
                "properties": properties,
                "bbox": bounds,
            })
        })
        .collect();
    let srid = crs::srid(&resource.srs).unwrap_or(0);
    let mut body = json!({
        "type": "FeatureCollection",
        "features": features,
        "totalFeatures": total.map_or(json!("unknown"), |total| json!(total)),
        "numberReturned": rows.len(),
        "timeStamp": super::workspace::DATE,
        "crs": {"type": "name", "properties": {"name": format!("urn:ogc:def:crs:EPSG::{srid}")}},
        "bbox": all,
    });
    if let Some(total) = total {
        body["numberMatched"] = json!(total);
    }
    body
}

/// The feature nearest to a place, for GetFeatureInfo.
pub(crate) async fn near(state: &State, ows: &Ows<'_>, resource: &Resource, x: f64, y: f64, reach: f64) -> Answer {
    let fail = |silence| broken(ows, resource, silence);
    let link = link_of(state, resource).map_err(fail)?;
    let attributes = cached_attributes(state, resource).await.map_err(fail)?;
    let client = postgis::connect(&link).await.map_err(fail)?;
    let source = postgis::source(&link, resource);
    let tail = match attributes.iter().find(|attribute| attribute.geometry.is_some()) {
        Some(attribute) => {
            let column = quote_ident(&attribute.name);
            let place = format!("st_setsrid(st_makepoint({x}, {y}), st_srid({column}))");
            format!(
                "{source} where st_dwithin({column}, {place}, {reach}) order by st_distance({column}, {place}) limit 1"
            )
        }
        None => format!("{source} limit 0"),
    };
    let rows = read(&client, &attributes, &tail).await.map_err(fail)?;
    let body = collection(resource, &attributes, &rows, None);
    Ok(Reply::text(200, "application/json;charset=utf-8", body.to_string())
        .header("Content-Disposition", "inline; filename=geoserver-GetFeatureInfo.application"))
}

fn gml(ows: &Ows<'_>, resource: &Resource, rows: &[Vec<Value>], total: i64) -> Reply {
    let members: String = (0..rows.len())
        .map(|number| format!("<wfs:member><{0} gml:id=\"{0}.fid-{number}\"/></wfs:member>", escape(&resource.name)))
        .collect();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><wfs:FeatureCollection xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
         xmlns:gml=\"http://www.opengis.net/gml/3.2\" numberMatched=\"{total}\" numberReturned=\"{}\" \
         timeStamp=\"{}\">{members}</wfs:FeatureCollection>",
        rows.len(),
        super::workspace::DATE
    );
    let media = if ows.param("version").starts_with('2') { "application/gml+xml; version=3.2" } else { "text/xml" };
    Reply::text(200, media, body)
}

fn capabilities(state: &State, ows: &Ows<'_>) -> Reply {
    let cat = state.cat();
    let mut labels: Vec<String> = cat
        .layers
        .iter()
        .map(|layer| cat.layer_names(layer))
        .filter(|(ws, _)| ows.ws.is_none_or(|only| only == ws))
        .map(|(ws, name)| format!("{ws}:{name}"))
        .collect();
    labels.sort();
    let mut list = String::new();
    for label in labels {
        let Some((resource, _, access)) = ows.find(&cat, &label).filter(|(held, _, _)| !held.remote) else { continue };
        if access == (Access::Challenge { listed: false }) {
            continue;
        }
        let words: String =
            resource.keywords.iter().map(|word| format!("<ows:Keyword>{}</ows:Keyword>", escape(word))).collect();
        let corners = resource.latlon_box.as_ref().map_or_else(String::new, |bounds| {
            format!(
                "<ows:WGS84BoundingBox><ows:LowerCorner>{} {}</ows:LowerCorner><ows:UpperCorner>{} {}</ows:UpperCorner>\
                 </ows:WGS84BoundingBox>",
                bounds.minx, bounds.miny, bounds.maxx, bounds.maxy
            )
        });
        let _ = write!(
            list,
            "<FeatureType><Name>{}</Name><Title>{}</Title><Abstract>{}</Abstract><ows:Keywords>{words}</ows:Keywords>\
             <DefaultCRS>urn:ogc:def:crs:EPSG::{}</DefaultCRS>{corners}</FeatureType>",
            escape(&label),
            escape(resource.title.as_deref().unwrap_or_default()),
            escape(resource.abstract_text.as_deref().unwrap_or_default()),
            crs::srid(&resource.srs).unwrap_or(0)
        );
    }
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><wfs:WFS_Capabilities version=\"2.0.0\" \
         xmlns=\"http://www.opengis.net/wfs/2.0\" xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
         xmlns:ows=\"http://www.opengis.net/ows/1.1\"><FeatureTypeList>{list}</FeatureTypeList></wfs:WFS_Capabilities>"
    );
    Reply::text(200, "application/xml", body)
        .header("Cache-Control", "max-age=0, must-revalidate")
        .header("Content-Disposition", "inline; filename=geoserver-GetCapabilities.application")
}
