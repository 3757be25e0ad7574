//! Cascaded WMS: stores of other servers' capabilities, read once and kept, and their layers.

use std::time::Duration;

use super::State;
use super::catalog::{Bounds, Catalog, Resource, StyleRef, WmsStore};
use super::crs;
use super::data_store::cipher;
use super::doc::El;
use super::feature_type::{add_layer, delete, merge, store_changed, write_common};
use super::http::{Answer, Fault, Format, Reply, in_href, in_location};
use super::rest::Target;
use super::workspace::DATE;
use super::xml;

/// A layer of the remote capabilities.
#[derive(Clone, Debug)]
pub(crate) struct RemoteLayer {
    name: String,
    title: String,
    abstract_text: String,
    keywords: Vec<String>,
    bounds: Option<Bounds>,
    /// Such a layer cannot be changed by the path that names the store.
    has_style: bool,
    /// One of its styles has no legend. Such a layer cannot be changed at all.
    lacks_legend: bool,
}

fn no_store(ws: &str, name: &str) -> Fault {
    Fault::Missing(format!("No such wms store: {ws},{name}"))
}

fn find<'a>(cat: &'a Catalog, ws: &str, name: &str) -> Option<&'a WmsStore> {
    let ws = cat.ws_id(ws)?;
    cat.wms_stores.iter().find(|store| store.ws == ws && store.name == name)
}

pub(crate) fn all(state: &State, at: &Target<'_>, ws: &str) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let mut names: Vec<String> = {
                let cat = state.cat();
                let id = cat.ws_id(ws).ok_or_else(|| Fault::Missing(format!("No such workspace : {ws}")))?;
                cat.wms_stores.iter().filter(|store| store.ws == id).map(|store| store.name.clone()).collect()
            };
            names.sort();
            let here = format!("{}/rest/workspaces/{}/wmsstores", at.req.base, in_href(ws));
            let entries = names.into_iter().map(|name| (name.clone(), format!("{here}/{}", in_href(&name))));
            at.show(&El::index("wmsStores", "wmsStore", entries.collect()))
        }
        "POST" => {
            let doc = at.req.document("wmsStore")?;
            let mut cat = state.cat();
            let ws_id =
                cat.ws_id(ws).ok_or_else(|| Fault::Unexpected("Store must be part of a workspace".to_owned()))?;
            let name = doc.text_of("name").filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| Fault::Unexpected("Store name must not be null".to_owned()))?;
            if cat.store_name_taken(ws_id, &name, 0) {
                return Err(Fault::Unexpected(format!("Store '{name}' already exists in workspace '{ws}'")));
            }
            let mut store = WmsStore {
                id: cat.next(),
                ws: ws_id,
                name: name.clone(),
                description: None,
                enabled: true,
                url: String::new(),
                user: None,
                password: None,
                max_connections: "6".to_owned(),
                read_timeout: "60".to_owned(),
                connect_timeout: "30".to_owned(),
                modified: false,
            };
            update(&mut store, &doc);
            cat.wms_stores.push(store);
            let location =
                format!("{}/rest/workspaces/{}/wmsstores/{}", at.req.base, in_location(ws), in_location(&name));
            Ok(Reply::created(&location, &name))
        }
        _ => Err(Fault::Method("GET,POST")),
    }
}

/// Field by field: what is not given stays, what is given empty is emptied.
fn update(store: &mut WmsStore, doc: &El) {
    for kid in &doc.kids {
        let text = kid.text.clone();
        match kid.name.as_str() {
            "name" if !text.is_empty() => store.name = text,
            "description" => store.description = Some(text),
            "enabled" => store.enabled = text == "true",
            "capabilitiesURL" => store.url = text,
            "user" => store.user = Some(text),
            "password" if text.starts_with("crypt1:") => {}
            "password" => store.password = Some(text),
            "maxConnections" => store.max_connections = text,
            "readTimeout" => store.read_timeout = text,
            "connectTimeout" => store.connect_timeout = text,
            _ => {}
        }
    }
}

fn write(store: &WmsStore, ws: &str, base: &str) -> El {
    let here = format!("{base}/rest/workspaces/{ws}");
    let pooling = El::new("metadata").kid(El::leaf("entry", true).attr("key", "useConnectionPooling"));
    let password = store.password.as_ref().map(|clear| cipher(clear));
    El::new("wmsStore")
        .with("name", &store.name)
        .with_opt("description", store.description.as_ref())
        .with("enabled", store.enabled)
        .kid(El::new("workspace").with("name", ws).href(here.clone()))
        .kids_opt(store.modified.then_some(pooling))
        .with("_default", false)
        .with("dateCreated", DATE)
        .with_opt("dateModified", store.modified.then_some(DATE))
        .with("disableOnConnFailure", false)
        .with_opt("capabilitiesURL", (!store.url.is_empty()).then_some(&store.url))
        .with_opt("user", store.user.as_ref())
        .with_opt("password", password)
        .with("maxConnections", &store.max_connections)
        .with("readTimeout", &store.read_timeout)
        .with("connectTimeout", &store.connect_timeout)
        .kid(El::new("wmslayers").href(format!("{here}/wmsstores/{}/wmslayers", store.name)))
}

pub(crate) fn one(state: &State, at: &Target<'_>, ws: &str, name: &str) -> Answer {
    at.negotiate()?;
    let missing = || no_store(ws, name);
    match at.method() {
        "GET" => {
            let doc = find(&state.cat(), ws, name).map(|store| write(store, ws, &at.req.base));
            at.show(&doc.ok_or_else(missing)?)
        }
        "PUT" => {
            let doc = at.req.document("wmsStore")?;
            let mut cat = state.cat();
            let mut store = find(&cat, ws, name).cloned().ok_or_else(missing)?;
            update(&mut store, &doc);
            if cat.store_name_taken(store.ws, &store.name, store.id) {
                let message = format!("Store '{}' already exists in workspace '{ws}'", store.name);
                return Err(Fault::Unexpected(message));
            }
            store.modified = true;
            cat.remote.remove(&store.id);
            if let Some(slot) = cat.wms_stores.iter_mut().find(|held| held.id == store.id) {
                *slot = store;
            }
            Ok(Reply::new(200))
        }
        "DELETE" => {
            let mut cat = state.cat();
            let id = find(&cat, ws, name).map(|store| store.id).ok_or_else(missing)?;
            if cat.resources.iter().any(|held| held.store == id) && !at.req.flag("recurse") {
                return Err(Fault::Refused(401, "wmsstore not empty".to_owned()));
            }
            if let Some(group) = cat.group_in_the_way(id) {
                let message = format!("Unable to delete layer referenced by layer group '{group}'");
                return Err(Fault::Unexpected(message));
            }
            cat.drop_store(id);
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}

/// The remote capabilities: as kept, or fetched now. The error is the message that creating a layer gives.
async fn remote(state: &State, store: &WmsStore) -> Result<Vec<RemoteLayer>, String> {
    if let Some(kept) = state.cat().remote.get(&store.id) {
        return Ok(kept.clone());
    }
    let seconds = |text: &str| Duration::from_secs(text.parse().unwrap_or(60));
    let url = url::Url::parse(&store.url).map_err(|_| String::new())?;
    let shown = format!("{}://{}{}", url.scheme(), url.authority(), url.path());
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(seconds(&store.read_timeout))
        .connect_timeout(seconds(&store.connect_timeout))
        .build()
        .map_err(|err| err.to_string())?;
    let mut url = url;
    let wanted = [("request", "GetCapabilities"), ("service", "WMS")];
    for (key, value) in wanted {
        if !url.query_pairs().any(|(held, _)| held.eq_ignore_ascii_case(key)) {
            url.query_pairs_mut().append_pair(key, value);
        }
    }
    let (host, port) = (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or(80));
    let mut request = client.get(url);
    if let Some(user) = store.user.as_ref().filter(|user| !user.is_empty()) {
        request = request.basic_auth(user, store.password.as_ref());
    }
    let answer = request.send().await.map_err(|err| {
        if err.is_timeout() {
            "Read timed out".to_owned()
        } else {
            format!("Connect to {host}:{port} [/{host}] failed: Connection refused")
        }
    })?;
    if !answer.status().is_success() {
        return Err(format!(
            "Server returned HTTP error code {} for URL {shown}?REQUEST=GetCapabilities&VERSION=1.3.0&SERVICE=WMS",
            answer.status().as_u16()
        ));
    }
    let body = answer.bytes().await.map_err(|_| "Read timed out".to_owned())?;
    let root = xml::parse(&xml::decode(&body)).map_err(|err| err.message)?;
    if !["WMS_Capabilities", "WMT_MS_Capabilities"].contains(&root.name.as_str()) {
        return Err(format!("Not capabilities: {}", root.name));
    }
    let mut found = vec![];
    collect(&root, &mut found);
    state.cat().remote.insert(store.id, found.clone());
    Ok(found)
}

fn collect(el: &El, found: &mut Vec<RemoteLayer>) {
    for kid in &el.kids {
        if kid.name == "Layer"
            && let Some(name) = kid.text_of("Name")
        {
            found.push(RemoteLayer {
                name,
                title: kid.text_of("Title").unwrap_or_default(),
                abstract_text: kid.text_of("Abstract").unwrap_or_default(),
                keywords: kid
                    .find("KeywordList")
                    .map(|list| list.all("Keyword").map(|word| word.text.clone()).collect())
                    .unwrap_or_default(),
                bounds: remote_bounds(kid),
                has_style: kid.find("Style").is_some(),
                lacks_legend: kid.all("Style").any(|style| style.find("LegendURL").is_none()),
            });
        }
        collect(kid, found);
    }
}

fn remote_bounds(layer: &El) -> Option<Bounds> {
    let crs = Some("EPSG:4326".to_owned());
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse().ok()).unwrap_or(0.0);
    if let Some(el) = layer.find("EX_GeographicBoundingBox") {
        let edge = |name: &str| number(el.text_of(name).as_deref());
        return Some(Bounds {
            minx: edge("westBoundLongitude"),
            maxx: edge("eastBoundLongitude"),
            miny: edge("southBoundLatitude"),
            maxy: edge("northBoundLatitude"),
            crs,
        });
    }
    let el = layer.find("LatLonBoundingBox")?;
    let edge = |name: &str| number(el.get_attr(name));
    Some(Bounds { minx: edge("minx"), maxx: edge("maxx"), miny: edge("miny"), maxy: edge("maxy"), crs })
}

pub(crate) async fn layers(state: &State, at: &Target<'_>, ws: &str, store: Option<&str>) -> Answer {
    at.negotiate()?;
    let found = store.and_then(|name| find(&state.cat(), ws, name).cloned());
    match at.method() {
        "GET" => {
            if let (Some(name), None) = (store, &found) {
                return Err(no_store(ws, name));
            }
            list(state, at, ws, found).await
        }
        "POST" => {
            let doc = at.req.document("wmsLayer")?;
            let store = found.or_else(|| {
                let said = doc.find("store")?.text_of("name")?;
                find(&state.cat(), ws, said.rsplit(':').next()?).cloned()
            });
            create(state, at, ws, &doc, store).await
        }
        _ => Err(Fault::Method("GET,POST")),
    }
}

async fn list(state: &State, at: &Target<'_>, ws: &str, store: Option<WmsStore>) -> Answer {
    let configured: Vec<(String, String)> = {
        let cat = state.cat();
        let ws_id = cat.ws_id(ws);
        let mut list: Vec<(String, String)> = cat
            .resources
            .iter()
            .filter(|held| held.remote && Some(held.ws) == ws_id)
            .filter(|held| store.as_ref().is_none_or(|store| store.id == held.store))
            .map(|held| (held.name.clone(), held.native_name.clone()))
            .collect();
        list.sort();
        list
    };
    if at.req.param("list") == Some("available")
        && let Some(store) = store
    {
        let gone = |_| Fault::Unexpected(format!("Could not load wms store: {}", store.name));
        let mut names: Vec<String> =
            remote(state, &store).await.map_err(gone)?.into_iter().map(|held| held.name).collect();
        names.retain(|name| !configured.iter().any(|(_, native)| native == name));
        names.sort();
        if at.req.format(at.ext, false)? == Format::Xml {
            let names: String = names.iter().map(|name| format!("    <wmsLayerName>{name}</wmsLayerName>\n")).collect();
            let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><list>\n{names}</list>\n\n");
            return Ok(Reply::text(200, "application/xml", body));
        }
        let body = serde_json::json!({ "list": { "string": names } });
        return Ok(Reply::text(200, "application/json", body.to_string()));
    }
    let here = match &store {
        Some(store) => format!("{}/rest/workspaces/{ws}/wmsstores/{}/wmslayers", at.req.base, in_href(&store.name)),
        None => format!("{}/rest/workspaces/{ws}/wmslayers", at.req.base),
    };
    let entries = configured.into_iter().map(|(name, _)| (name.clone(), format!("{here}/{}", in_href(&name))));
    at.show(&El::index("wmsLayers", "wmsLayer", entries.collect()))
}

async fn create(state: &State, at: &Target<'_>, ws: &str, doc: &El, store: Option<WmsStore>) -> Answer {
    let store = store.ok_or_else(|| Fault::Unexpected("WMS store not set.".to_owned()))?;
    let given = |name: &str| doc.text_of(name).filter(|text| !text.is_empty());
    let name = given("name").or_else(|| given("nativeName"));
    let name = name.ok_or_else(|| Fault::Unexpected("Resource name must not be null".to_owned()))?;
    let native = given("nativeName").unwrap_or_else(|| name.clone());
    let layers = remote(state, &store).await.map_err(Fault::Unexpected)?;
    let Some(found) = layers.into_iter().find(|layer| layer.name == native) else {
        let message = format!("Could not find layer {native} in the server capabilitiles document");
        return Err(Fault::Unexpected(message));
    };
    let mut new = Resource {
        id: 0,
        ws: store.ws,
        store: store.id,
        remote: true,
        name: name.clone(),
        native_name: native,
        title: Some(found.title),
        description: Some(found.abstract_text.clone()),
        abstract_text: Some(found.abstract_text),
        keywords: found.keywords,
        native_crs: Some(crs::wkt("EPSG:4326")),
        srs: "EPSG:4326".to_owned(),
        native_box: found.bounds.clone(),
        latlon_box: found.bounds,
        policy: "FORCE_DECLARED".to_owned(),
        enabled: true,
        advertised: None,
        metadata: vec![],
        modified: false,
    };
    let mut fields = doc.clone();
    fields.kids.retain(|kid| kid.name != "enabled");
    merge(&mut new, &fields);
    let mut cat = state.cat();
    if let Some(taken) = cat.resource_name_taken(store.ws, store.id, &name, 0) {
        return Err(Fault::Unexpected(taken));
    }
    let id = cat.next();
    new.id = id;
    cat.resources.push(new);
    add_layer(&mut cat, id, StyleRef::None);
    cat.gwc.add(&format!("{ws}:{name}"), "LayerInfoImpl");
    // The Location lies under the path that was posted to.
    let through = if at.req.raw_path.contains("/wmsstores/") {
        format!("wmsstores/{}/", in_location(&store.name))
    } else {
        String::new()
    };
    let ws = in_location(ws);
    let location = format!("{}/rest/workspaces/{ws}/{through}wmslayers/{}", at.req.base, in_location(&name));
    Ok(Reply::created(&location, &name))
}

pub(crate) async fn layer(state: &State, at: &Target<'_>, ws: &str, store: Option<&str>, name: &str) -> Answer {
    at.negotiate()?;
    let (held, held_store) = {
        let cat = state.cat();
        let ws_id = cat.ws_id(ws);
        let found = store.and_then(|store| find(&cat, ws, store).cloned());
        if store.is_some() && found.is_none() {
            return Err(Fault::Unexpected(
                "Cannot invoke \"org.geoserver.catalog.StoreInfo.getWorkspace()\" because \"store\" is null".to_owned(),
            ));
        }
        let held = cat
            .resources
            .iter()
            .find(|held| {
                held.remote
                    && Some(held.ws) == ws_id
                    && held.name == name
                    && found.as_ref().is_none_or(|store| store.id == held.store)
            })
            .cloned()
            .ok_or_else(|| Fault::Missing(format!("No such cascaded wms: {ws},{name}")))?;
        let store = cat.wms_stores.iter().find(|store| store.id == held.store).cloned();
        (held, store)
    };
    match at.method() {
        "GET" => {
            let store = held_store.map(|store| store.name).unwrap_or_default();
            let metadata = (!held.metadata.is_empty())
                .then(|| held.metadata.iter().fold(El::new("metadata"), |list, entry| list.kid(entry.clone())));
            let reference = El::new("store")
                .attr("class", "wmsStore")
                .with("name", format!("{ws}:{store}"))
                .href(format!("{}/rest/workspaces/{ws}/wmsstores/{store}", at.req.base));
            let doc = write_common("wmsLayer", ws, &held, &at.req.base)
                .kids_opt(metadata)
                .kid(reference)
                .with("serviceConfiguration", false)
                .with_opt("simpleConversionEnabled", held.modified.then_some(false))
                .with("forcedRemoteStyle", "")
                .with("preferredFormat", "image/png")
                .with("metadataBBoxRespected", false);
            at.show(&doc)
        }
        "PUT" => {
            let doc = at.req.document("wmsLayer")?;
            let mut new = held.clone();
            merge(&mut new, &doc);
            let remote_layers = match &held_store {
                Some(store) => remote(state, store).await.unwrap_or_default(),
                None => vec![],
            };
            // A layer is changed by way of its remote styles.
            match (remote_layers.iter().find(|layer| layer.name == held.native_name), store) {
                (Some(native), None) if !native.lacks_legend => {}
                (Some(native), Some(_)) if !native.has_style => {}
                (_, None) => {
                    return Err(Fault::Unexpected("java.lang.reflect.InvocationTargetException".to_owned()));
                }
                (_, Some(_)) => {
                    return Err(Fault::Unexpected(
                        "\n---- Debugging information ----\ncause-exception     : java.lang.UnsupportedOperationException\n\
                         cause-message       : null\n-------------------------------"
                            .to_owned(),
                    ));
                }
            }
            // By the path without the store, what is not said to be enabled is not.
            if store.is_none() && doc.find("enabled").is_none() {
                new.enabled = false;
            }
            if let Some(said) = doc.find("store").and_then(|store| store.text_of("name"))
                && let Some(other) = find(&state.cat(), ws, said.rsplit(':').next().unwrap_or(&said))
            {
                new.store = other.id;
            }
            // The capabilities are read again with every change, whether that works or not.
            if let Some(store) = &held_store {
                state.cat().remote.remove(&store.id);
                let _ = remote(state, store).await;
            }
            let mut cat = state.cat();
            if let Some(taken) = cat.resource_name_taken(new.ws, new.store, &new.name, new.id) {
                return Err(Fault::Unexpected(taken));
            }
            new.advertised.get_or_insert(true);
            new.modified = true;
            store_changed(&mut cat, &held, new);
            Ok(Reply::new(200))
        }
        "DELETE" => delete(&mut state.cat(), &held, at.req.flag("recurse"), "wms layer referenced by layer(s)"),
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}
