//! Feature types: what is read of the database when one is made, kept, and read again.

use super::catalog::{Bounds, Catalog, Id, Layer, Resource, Store, StyleRef};
use super::crs;
use super::doc::El;
use super::http::{Answer, Fault, Format, Reply, in_href, in_location};
use super::postgis::{self, Attribute, Link, Silence};
use super::rest::Target;
use super::{State, Version};

pub(crate) async fn all(state: &State, at: &Target<'_>, ws: &str, store: Option<&str>) -> Answer {
    at.negotiate()?;
    let found = match store {
        Some(name) => {
            let found = state.cat().store(ws, name).cloned();
            Some(found.ok_or_else(|| Fault::Missing(format!("No such data store: {ws},{name}")))?)
        }
        None => None,
    };
    match at.method() {
        "GET" => list(state, at, ws, found).await,
        "POST" => match found {
            Some(store) => create(state, at, ws, store).await,
            None => {
                let doc = at.req.document("featureType")?;
                let said = doc.find("store").and_then(|el| el.text_of("name")).unwrap_or_default();
                let said = said.rsplit(':').next().unwrap_or_default().to_owned();
                let found = state.cat().store(ws, &said).cloned();
                let store = found.ok_or_else(|| Fault::Missing(format!("No such data store: {ws},{said}")))?;
                create(state, at, ws, store).await
            }
        },
        _ => Err(Fault::Method("GET,POST")),
    }
}

async fn list(state: &State, at: &Target<'_>, ws: &str, store: Option<Store>) -> Answer {
    let configured: Vec<(String, String)> = {
        let cat = state.cat();
        let ws_id = cat.ws_id(ws).ok_or_else(|| Fault::Missing(format!("No such workspace: {ws}")))?;
        let mut list: Vec<(String, String)> = cat
            .resources
            .iter()
            .filter(|held| {
                held.ws == ws_id && !held.remote && store.as_ref().is_none_or(|store| held.store == store.id)
            })
            .map(|held| (held.name.clone(), held.native_name.clone()))
            .collect();
        list.sort();
        list
    };
    let kind = at.req.param("list").unwrap_or("configured");
    let Some(store) = store.filter(|_| kind != "configured").or(None) else {
        let here = match at.req.segments().get(4) {
            Some(store) if at.req.raw_path.contains("/datastores/") => format!("/datastores/{}", in_href(store)),
            _ => String::new(),
        };
        let entries = configured.into_iter().map(|(name, _)| {
            let href = format!("{}/rest/workspaces/{}{here}/featuretypes/{}", at.req.base, in_href(ws), in_href(&name));
            (name, href)
        });
        return at.show(&El::index("featureTypes", "featureType", entries.collect()));
    };
    let gone = || Fault::Missing(format!("Could not load datastore: {}", store.name));
    let link = store.link().ok_or_else(gone)?;
    let mut names = postgis::relations(&link, kind == "available_with_geom").await.map_err(|_| gone())?;
    if kind == "all" {
        names.extend(configured.iter().map(|(_, native)| native.clone()));
        names.sort();
        names.dedup();
    } else {
        names.retain(|name| !configured.iter().any(|(_, native)| native == name));
    }
    if at.req.format(at.ext, false)? == Format::Xml {
        let list = names.iter().fold(El::new("list"), |list, name| list.with("featureTypeName", name));
        return Ok(Reply::text(200, "application/xml", list.to_xml()));
    }
    let body = serde_json::json!({ "list": { "string": names } });
    Ok(Reply::text(200, "application/json", super::rest::json_text(at.req, &body)))
}

fn refused_attributes(what: &str) -> Fault {
    Fault::Refused(400, format!("Trying to create new feature type inside the store, but no {what} specified"))
}

async fn create(state: &State, at: &Target<'_>, ws: &str, store: Store) -> Answer {
    let doc = at.req.document("featureType")?;
    let given = |name: &str| doc.text_of(name).filter(|text| !text.is_empty());
    // An empty name is one, of a table that is not there.
    let Some(name) = doc.text_of("name").or_else(|| given("nativeName")) else {
        return Err(refused_attributes("feature type name was"));
    };
    let mut new = blank(&store, &name, given("nativeName").unwrap_or_else(|| name.clone()));
    let mut doc_fields = doc.clone();
    // Published enabled, whatever is said.
    doc_fields.kids.retain(|kid| kid.name != "enabled");
    merge(&mut new, &doc_fields);
    let link = store.link().ok_or_else(|| Fault::Unexpected(String::new()))?;
    let client = postgis::connect(&link).await.map_err(|_| Fault::Unexpected(String::new()))?;
    let whole = new.native_box.is_some() && new.latlon_box.is_some();
    let attributes = match postgis::attributes(&client, &link, &new).await {
        Ok(attributes) => attributes,
        Err(Silence::Unreachable) => return Err(Fault::Unexpected(String::new())),
        Err(Silence::Sql(_)) => {
            // With all boxes given the SQL is first run after the feature type was saved, and before its layer is.
            if whole {
                let mut cat = state.cat();
                new.id = cat.next();
                cat.resources.push(new);
            }
            return Err(Fault::Unexpected("Error occurred building feature type".to_owned()));
        }
    };
    if attributes.is_empty() {
        return Err(refused_attributes("attributes were"));
    }
    fill(&mut new, &client, &link, &attributes, doc.find("srs").is_some()).await?;
    let mut cat = state.cat();
    if let Some(taken) = cat.resource_name_taken(store.ws, store.id, &name, 0) {
        return Err(Fault::Unexpected(taken));
    }
    cat.attributes.insert((store.id, new.cache_key()), attributes.clone());
    add(&mut cat, new, &attributes);
    let location = format!(
        "{}/rest/workspaces/{}/datastores/{}/featuretypes/{}",
        at.req.base,
        in_location(ws),
        in_location(&store.name),
        in_location(&name)
    );
    Ok(Reply::text(201, "text/plain", "").header("Location", &location))
}

fn blank(store: &Store, name: &str, native_name: String) -> Resource {
    Resource {
        id: 0,
        ws: store.ws,
        store: store.id,
        remote: false,
        name: name.to_owned(),
        title: Some(native_name.clone()),
        keywords: vec!["features".to_owned(), native_name.clone()],
        native_name,
        description: None,
        abstract_text: None,
        native_crs: None,
        srs: String::new(),
        native_box: None,
        latlon_box: None,
        policy: "FORCE_DECLARED".to_owned(),
        enabled: true,
        advertised: None,
        metadata: vec![],
        modified: false,
    }
}

/// Fields of a document replace those held, one by one; keywords as a whole.
pub(crate) fn merge(held: &mut Resource, doc: &El) {
    for kid in &doc.kids {
        let text = kid.text.clone();
        match kid.name.as_str() {
            "name" if !text.is_empty() => held.name = text,
            "nativeName" if !text.is_empty() => held.native_name = text,
            "title" => held.title = Some(text),
            "description" => held.description = Some(text),
            "abstract" => held.abstract_text = Some(text),
            "keywords" => held.keywords = kid.all("string").map(|word| word.text.clone()).collect(),
            "nativeCRS" => held.native_crs = (!text.is_empty()).then(|| crs::wkt(&text)),
            "srs" if !text.is_empty() => held.srs = text,
            "nativeBoundingBox" => held.native_box = Some(Bounds::read(kid)),
            "latLonBoundingBox" => held.latlon_box = Some(Bounds::read(kid)),
            "projectionPolicy" => held.policy = text,
            "enabled" => held.enabled = text == "true",
            "advertised" => held.advertised = Some(text == "true"),
            "metadata" => {
                held.metadata = kid.all("entry").cloned().collect();
                for entry in &mut held.metadata {
                    for table in &mut entry.kids {
                        for sql in table.kids.iter_mut().filter(|kid| kid.name == "sql") {
                            sql.text = format!("{}\n", sql.text.trim_end_matches('\n'));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// Computes what the document left out.
async fn fill(
    new: &mut Resource,
    client: &tokio_postgres::Client,
    link: &Link,
    attributes: &[Attribute],
    srs_given: bool,
) -> Result<(), Fault> {
    let misconfigured = || Fault::Unexpected("This is unexpected, the layer srs seems to be mis-configured".to_owned());
    let source = postgis::source(link, new);
    let geometry = attributes.iter().find_map(|held| held.geometry.clone().map(|(_, srid)| (held.name.clone(), srid)));
    let Some((column, mut native)) = geometry else {
        if !srs_given {
            new.srs = "EPSG:404000".to_owned();
        }
        new.native_box.get_or_insert_with(|| Bounds::empty(None));
        let world = Some("EPSG:4326".to_owned());
        new.latlon_box.get_or_insert(match srs_given {
            true => Bounds::empty(world),
            false => Bounds { minx: -1.0, maxx: 0.0, miny: -1.0, maxy: 0.0, crs: world },
        });
        return Ok(());
    };
    if native == 0 {
        native = postgis::srid_of_data(client, &source, &column).await.unwrap_or(0);
    }
    if !srs_given {
        new.srs = format!("EPSG:{native}");
    }
    let declared = crs::srid(&new.srs).ok_or_else(misconfigured)?;
    if declared != native && !postgis::known_srid(client, declared).await {
        return Err(misconfigured());
    }
    match (&new.native_box, &new.latlon_box) {
        (Some(_), Some(_)) => {}
        (None, Some(latlon)) => new.native_box = Some(latlon.clone()),
        (Some(given), None) => new.latlon_box = Some(latlon(client, given, declared).await),
        (None, None) => {
            let crs = Some(format!("EPSG:{native}"));
            let bounds = match postgis::extent(client, &source, &column).await {
                Ok(Some([minx, maxx, miny, maxy])) => Bounds { minx, maxx, miny, maxy, crs },
                Ok(None) => Bounds::empty(crs),
                Err(_) => return Err(Fault::Unexpected("Error occurred building feature type".to_owned())),
            };
            new.latlon_box = Some(latlon(client, &bounds, declared).await);
            new.native_box = Some(bounds);
        }
    }
    Ok(())
}

/// The box in longitude and latitude, taken to be in the declared system.
async fn latlon(client: &tokio_postgres::Client, bounds: &Bounds, declared: i32) -> Bounds {
    let same = Bounds { crs: Some("EPSG:4326".to_owned()), ..bounds.clone() };
    if declared == 4326 || bounds.maxx < bounds.minx {
        return same;
    }
    postgis::transform(client, bounds, declared, 4326).await.unwrap_or(same)
}

/// Puts the feature type in the catalog, with its layer and, if it has a geometry, its tile layer.
fn add(cat: &mut Catalog, mut new: Resource, attributes: &[Attribute]) {
    let id = cat.next();
    new.id = id;
    let label = format!("{}:{}", cat.ws_name(new.ws), new.name);
    let shape = attributes.iter().find_map(|held| held.geometry.as_ref().map(|(shape, _)| shape.to_lowercase()));
    let style = match shape.as_deref() {
        Some(shape) if shape.contains("point") => "point",
        Some(shape) if shape.contains("line") || shape.contains("curve") => "line",
        Some(shape) if shape.contains("polygon") || shape.contains("surface") => "polygon",
        _ => "generic",
    };
    cat.resources.push(new);
    let default_style = cat.built_in(style);
    add_layer(cat, id, default_style);
    if shape.is_some() {
        cat.gwc.add(&label, "LayerInfoImpl");
    }
}

pub(crate) fn add_layer(cat: &mut Catalog, resource: Id, default_style: StyleRef) {
    let id = cat.next();
    cat.layers.push(Layer {
        id,
        resource,
        path: None,
        default_style,
        styles: vec![],
        queryable: true,
        opaque: false,
        attribution: vec![],
        modified: false,
    });
}

fn find(cat: &Catalog, ws: &str, store: Option<&str>, name: &str) -> Result<Resource, Fault> {
    let store = match store {
        Some(store) => Some(
            cat.store(ws, store)
                .map(|found| (found.id, store))
                .ok_or_else(|| Fault::Missing(format!("No such data store: {ws},{store}")))?,
        ),
        None => None,
    };
    let ws_id = cat.ws_id(ws);
    cat.resources
        .iter()
        .find(|held| {
            Some(held.ws) == ws_id && !held.remote && held.name == name && store.is_none_or(|(id, _)| held.store == id)
        })
        .cloned()
        .ok_or_else(|| {
            Fault::Missing(match store {
                Some((_, store)) => format!("No such feature type: {ws},{store},{name}"),
                None => format!("No such feature type: {ws},{name}"),
            })
        })
}

/// The attribute list as last read; read now if it is not held.
pub(crate) async fn cached_attributes(state: &State, resource: &Resource) -> Result<Vec<Attribute>, Silence> {
    let key = (resource.store, resource.cache_key());
    let (held, link) = {
        let cat = state.cat();
        let link = cat.stores.iter().find(|store| store.id == resource.store).and_then(Store::link);
        (cat.attributes.get(&key).cloned(), link)
    };
    if let Some(held) = held {
        return Ok(held);
    }
    let link = link.ok_or(Silence::Unreachable)?;
    let client = postgis::connect(&link).await?;
    let attributes = postgis::attributes(&client, &link, resource).await?;
    if attributes.is_empty() {
        return Err(Silence::Sql(format!("relation \"{}.{}\" does not exist", link.schema, resource.native_name)));
    }
    state.cat().attributes.insert(key, attributes.clone());
    Ok(attributes)
}

pub(crate) async fn one(state: &State, at: &Target<'_>, ws: &str, store: Option<&str>, name: &str) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let resource = find(&state.cat(), ws, store, name)?;
            let attributes = cached_attributes(state, &resource)
                .await
                .map_err(|_| Fault::Unexpected("Could not get native attributes".to_owned()))?;
            let doc = write(&state.cat(), &resource, &attributes, &at.req.base);
            at.show(&doc)
        }
        "PUT" => put(state, at, ws, store, name).await,
        "DELETE" => {
            let resource = find(&state.cat(), ws, store, name)?;
            if at.req.flag("recurse") {
                drop_layer_and_rules(state, &resource).await;
            }
            let mut cat = state.cat();
            delete(&mut cat, &resource, at.req.flag("recurse"), "feature type referenced by layer(s)")
        }
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}

/// GeoServer deletes the layer, then the layer's rules, and then the type, and serves other requests meanwhile.
async fn drop_layer_and_rules(state: &State, resource: &Resource) {
    let had_rules = {
        let mut cat = state.cat();
        let layer = cat.layers.iter().find(|layer| layer.resource == resource.id).map(|layer| layer.id);
        let Some(layer) = layer.filter(|layer| cat.held_by(&super::catalog::Member::Layer(*layer)).is_none()) else {
            return;
        };
        let before = cat.acl.len();
        cat.drop_layer(layer);
        cat.acl.len() < before
    };
    if had_rules {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Deletes a resource unless its layer is there (no recurse) or held by a group (with recurse).
pub(crate) fn delete(cat: &mut Catalog, resource: &Resource, recurse: bool, referenced: &str) -> Answer {
    let layer = cat.layers.iter().find(|layer| layer.resource == resource.id).map(|layer| layer.id);
    if let Some(layer) = layer {
        if !recurse {
            return Err(Fault::Refused(403, referenced.to_owned()));
        }
        if let Some(group) = cat.held_by(&super::catalog::Member::Layer(layer)) {
            let message = format!("Unable to delete layer referenced by layer group '{group}'");
            return Err(Fault::Unexpected(message));
        }
    }
    cat.drop_resource(resource.id);
    Ok(Reply::new(200))
}

async fn put(state: &State, at: &Target<'_>, ws: &str, store: Option<&str>, name: &str) -> Answer {
    let doc = at.req.document("featureType")?;
    let (held, link) = {
        let cat = state.cat();
        let held = find(&cat, ws, store, name)?;
        let link = cat.stores.iter().find(|store| store.id == held.store).and_then(Store::link);
        (held, link)
    };
    let mut new = held.clone();
    merge(&mut new, &doc);
    let recalculate = at.req.param("recalculate").unwrap_or_default().to_lowercase();
    let boxes_given = doc.find("latLonBoundingBox").is_some();
    let moved = new.srs != held.srs || (doc.find("nativeBoundingBox").is_some() && !boxes_given);
    let native = recalculate.contains("nativebbox");
    if (native || recalculate.contains("latlonbbox") || (moved && !boxes_given))
        && let Some(link) = link
        && let Ok(client) = postgis::connect(&link).await
    {
        refresh_boxes(&mut new, &client, &link, native).await;
    }
    let mut cat = state.cat();
    if let Some(store) = doc.find("store").and_then(|store| store.text_of("name")) {
        let bare = store.rsplit(':').next().unwrap_or(&store);
        new.store = cat.store(ws, bare).map_or(held.store, |store| store.id);
    }
    if let Some(taken) = cat.resource_name_taken(new.ws, new.store, &new.name, new.id) {
        return Err(Fault::Unexpected(taken));
    }
    new.advertised.get_or_insert(true);
    new.modified = true;
    store_changed(&mut cat, &held, new);
    Ok(Reply::new(200))
}

async fn refresh_boxes(new: &mut Resource, client: &tokio_postgres::Client, link: &Link, native: bool) {
    if native {
        let attributes = postgis::attributes(client, link, new).await.unwrap_or_default();
        let column = attributes.iter().find(|held| held.geometry.is_some()).map(|held| held.name.clone());
        if let Some(column) = column
            && let Ok(found) = postgis::extent(client, &postgis::source(link, new), &column).await
        {
            let crs = new.native_box.as_ref().and_then(|held| held.crs.clone()).or_else(|| Some(new.srs.clone()));
            new.native_box = Some(match found {
                Some([minx, maxx, miny, maxy]) => Bounds { minx, maxx, miny, maxy, crs },
                None => Bounds::empty(crs),
            });
        }
    }
    if let (Some(bounds), Some(declared)) = (&new.native_box, crs::srid(&new.srs)) {
        new.latlon_box = Some(latlon(client, bounds, declared).await);
    }
}

/// Saves a changed resource: its attribute list is forgotten; rules and tile layer follow a new name.
pub(crate) fn store_changed(cat: &mut Catalog, held: &Resource, new: Resource) {
    cat.attributes.remove(&(held.store, held.cache_key()));
    cat.attributes.remove(&(new.store, new.cache_key()));
    if held.name != new.name {
        let ws = cat.ws_name(held.ws);
        cat.gwc.rename(&format!("{ws}:{}", held.name), &format!("{ws}:{}", new.name));
        for mode in ["r", "w", "a"] {
            if let Some(roles) = cat.acl.remove(&format!("{ws}.{}.{mode}", held.name)) {
                cat.acl.insert(format!("{ws}.{}.{mode}", new.name), roles);
            }
        }
    }
    if let Some(slot) = cat.resource_mut(held.id) {
        *slot = new;
    }
}

pub(crate) fn reset(state: &State, at: &Target<'_>, ws: &str, store: Option<&str>, name: &str) -> Answer {
    if at.req.version == Version::V2_18 {
        return Err(Fault::Unmapped);
    }
    match at.method() {
        "POST" | "PUT" => {
            let mut cat = state.cat();
            let held = find(&cat, ws, store, name)?;
            cat.attributes.remove(&(held.store, held.cache_key()));
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Method("POST,PUT")),
    }
}

/// The fields that feature types and cascaded layers have in common, as far as `enabled`.
pub(crate) fn write_common(root: &str, ws: &str, held: &Resource, base: &str) -> El {
    let keywords = (!held.keywords.is_empty())
        .then(|| held.keywords.iter().fold(El::new("keywords"), |list, word| list.with("string", word)));
    El::new(root)
        .with("name", &held.name)
        .with("nativeName", &held.native_name)
        .kid(El::new("namespace").with("name", ws).href(format!("{base}/rest/namespaces/{ws}")))
        .with_opt("title", held.title.as_ref())
        .with_opt("description", held.description.as_ref())
        .with_opt("abstract", held.abstract_text.as_ref())
        .kids_opt(keywords)
        .with_opt("nativeCRS", held.native_crs.as_ref())
        .with("srs", &held.srs)
        .kids_opt(held.native_box.as_ref().map(|bounds| bounds.write("nativeBoundingBox")))
        .kids_opt(held.latlon_box.as_ref().map(|bounds| bounds.write("latLonBoundingBox")))
        .with("projectionPolicy", &held.policy)
        .with("enabled", held.enabled)
        .with_opt("advertised", held.advertised)
}

fn write(cat: &Catalog, held: &Resource, attributes: &[Attribute], base: &str) -> El {
    let ws = cat.ws_name(held.ws);
    let store = cat.stores.iter().find(|store| store.id == held.store).map(|store| store.name.clone());
    let store = store.unwrap_or_default();
    let mut list = El::new("attributes");
    for attribute in attributes {
        list = list.kid(
            El::new("attribute")
                .with("name", &attribute.name)
                .with("minOccurs", i32::from(attribute.required))
                .with("maxOccurs", 1)
                .with("nillable", !attribute.required)
                .with("binding", attribute.binding()),
        );
    }
    let metadata = (!held.metadata.is_empty())
        .then(|| held.metadata.iter().fold(El::new("metadata"), |list, entry| list.kid(entry.clone())));
    write_common("featureType", &ws, held, base)
        .kids_opt(metadata)
        .kid(
            El::new("store")
                .attr("class", "dataStore")
                .with("name", format!("{ws}:{store}"))
                .href(format!("{base}/rest/workspaces/{ws}/datastores/{store}")),
        )
        .with("serviceConfiguration", false)
        .with_opt("simpleConversionEnabled", held.modified.then_some(false))
        .with("maxFeatures", 0)
        .with("numDecimals", 0)
        .with("padWithZeros", false)
        .with("forcedDecimal", false)
        .with("overridingServiceSRS", false)
        .with("skipNumberMatched", false)
        .with("circularArcPresent", false)
        .with_opt("encodeMeasures", held.modified.then_some(false))
        .kid(list)
}
