//! GeoWebCache, under `/gwc`: tile layers and tiles.

mod grid_sets;
mod seeding;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use self::grid_sets::gridset;
use self::seeding::{mass_truncate, seed};
use super::State;
use super::catalog::Catalog;
use super::doc::{El, escape, java_double};
use super::http::{Answer, Fault, Reply, Req, encode, split_ext};
use super::security::{self, Access};
use super::xml;

const XML: &str = "application/xml;charset=UTF-8";
const ACCEPT: &str = "application/json, application/xml, text/xml, text/json, application/xml;charset=UTF-8, \
                      text/xml;charset=UTF-8, application/*+xml;charset=UTF-8, application/*+json";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const BUILT_IN: [&str; 4] = ["EPSG:4326", "EPSG:900913", "GlobalCRS84Pixel", "GlobalCRS84Geometric"];

#[derive(Clone, Debug)]
struct TileLayer {
    id: String,
    doc: El,
    /// Grid sets that were there when the document was put: they serve on when they are deleted.
    resolved: Vec<String>,
    /// The area of each grid set's tiles: computed on first use from the box of the layer, and then kept.
    areas: BTreeMap<String, [f64; 4]>,
}

#[derive(Clone, Debug)]
struct Task {
    layer: String,
    id: u64,
    /// How often it is reported running: a truncation is done at once, a seed is seen running once.
    running: usize,
    /// The state that it is reported in last: 2 for done, -1 for aborted.
    end: i64,
    seed: bool,
}

#[derive(Debug)]
pub(crate) struct Gwc {
    layers: BTreeMap<String, TileLayer>,
    gridsets: BTreeMap<String, El>,
    tasks: Vec<Task>,
    last_task: u64,
    tiles: BTreeSet<(String, String)>,
    /// What a mass truncation starts besides emptying the tiles; nothing by default, as observed.
    slow: Option<(usize, i64)>,
}

fn list(name: &str, item: &str, texts: &[&str]) -> El {
    texts.iter().fold(El::new(name), |list, text| list.with(item, text))
}

impl Gwc {
    pub(crate) fn fresh() -> Self {
        Self {
            layers: BTreeMap::new(),
            gridsets: BTreeMap::new(),
            tasks: vec![],
            last_task: 0,
            tiles: BTreeSet::new(),
            slow: None,
        }
    }

    /// Every mass truncation starts a task that is seen running so often, and then in the state `end`.
    pub(crate) fn slow_truncations(&mut self, running: usize, end: i64) {
        self.slow = Some((running, end));
    }

    /// The tile layer that comes with a layer or group.
    pub(crate) fn add(&mut self, label: &str, kind: &str) {
        let subsets = ["EPSG:4326", "EPSG:900913"]
            .iter()
            .fold(El::new("gridSubsets"), |list, set| list.kid(El::new("gridSubset").with("gridSetName", set)));
        let filters = if kind == "LayerInfoImpl" {
            El::new("parameterFilters")
                .kid(El::new("styleParameterFilter").with("key", "STYLES").with("defaultValue", ""))
        } else {
            El::new("parameterFilters")
        };
        self.last_task += 1;
        let id = format!("{kind}--{:x}:{:x}", self.last_task, 0x7ff0 + self.last_task);
        let doc = El::new("GeoServerLayer")
            .with("enabled", true)
            .with("inMemoryCached", true)
            .with("name", label)
            .kid(list("mimeFormats", "string", &["image/png", "image/jpeg"]))
            .kid(subsets)
            .kid(list("metaWidthHeight", "int", &["4", "4"]))
            .with("expireCache", 0)
            .with("expireClients", 0)
            .kid(filters)
            .with("gutter", 0);
        self.layers.insert(label.to_owned(), TileLayer { id, doc, resolved: vec![], areas: BTreeMap::new() });
    }

    pub(crate) fn drop(&mut self, label: &str) {
        self.layers.remove(label);
        self.truncate(label);
    }

    /// Forgets the tiles of a layer.
    pub(crate) fn truncate(&mut self, label: &str) {
        self.tiles.retain(|(layer, _)| layer != label);
    }

    pub(crate) fn rename(&mut self, old: &str, new: &str) {
        if let Some(mut layer) = self.layers.remove(old) {
            for kid in layer.doc.kids.iter_mut().filter(|kid| kid.name == "name") {
                kid.text = new.to_owned();
            }
            self.layers.insert(new.to_owned(), layer);
        }
    }

    pub(crate) fn rename_workspace(&mut self, old: &str, new: &str) {
        let labels: Vec<String> =
            self.layers.keys().filter(|label| label.starts_with(&format!("{old}:"))).cloned().collect();
        for label in labels {
            let renamed = label.replacen(old, new, 1);
            self.rename(&label, &renamed);
        }
    }

    pub(crate) fn layer_xml(&self, label: &str) -> Option<String> {
        self.layers.get(label).map(|layer| write(layer).to_xml())
    }

    fn has_gridset(&self, name: &str) -> bool {
        self.gridsets.contains_key(name) || BUILT_IN.contains(&name)
    }

    fn gridsets_of(layer: &TileLayer) -> Vec<String> {
        let sets = layer.doc.find("gridSubsets").map(|sets| sets.kids.clone()).unwrap_or_default();
        sets.iter().filter_map(|set| set.text_of("gridSetName")).collect()
    }

    fn broken(&self, layer: &TileLayer) -> bool {
        Self::gridsets_of(layer).iter().any(|set| !self.has_gridset(set) && !layer.resolved.contains(set))
    }

    fn report(&mut self, layer: Option<&str>) -> serde_json::Value {
        let rows: Vec<_> = self
            .tasks
            .iter()
            .filter(|task| layer.is_none_or(|layer| task.layer == layer))
            .map(|task| {
                let tiles = if task.seed { 8 } else { -1 };
                match task.running {
                    0 => json!([-1, tiles, -2, task.id, task.end]),
                    _ => json!([-1, tiles, -1, task.id, 1]),
                }
            })
            .collect();
        if let Some(layer) = layer {
            // What is done is reported once.
            self.tasks.retain(|task| task.layer != layer || task.running > 0);
            for task in self.tasks.iter_mut().filter(|task| task.layer == layer) {
                task.running -= 1;
            }
        }
        json!({ "long-array-array": rows })
    }

    fn start(&mut self, layer: &str, count: u64, running: usize, end: i64, seed: bool) {
        for _ in 0..count {
            self.last_task += 1;
            self.tasks.push(Task { layer: layer.to_owned(), id: self.last_task, running, end, seed });
        }
    }
}

/// The document in full: what was left out of a PUT is empty, 0 or false.
fn write(layer: &TileLayer) -> El {
    let doc = &layer.doc;
    let text = |name: &str, default: &str| doc.text_of(name).filter(|text| !text.is_empty()).unwrap_or(default.into());
    let el = |name: &str| doc.find(name).cloned().unwrap_or_else(|| El::new(name));
    let group = layer.id.starts_with("LayerGroupInfoImpl");
    let meta = doc.find("metaWidthHeight").cloned().unwrap_or_else(|| list("metaWidthHeight", "int", &["0", "0"]));
    El::new("GeoServerLayer")
        .with("id", &layer.id)
        .with("enabled", text("enabled", "false"))
        .with_opt("inMemoryCached", doc.text_of("inMemoryCached"))
        .with("name", text("name", ""))
        .kid(el("mimeFormats"))
        .kid(subsets(layer))
        .kid(meta)
        .with("expireCache", text("expireCache", "0"))
        .with("expireClients", text("expireClients", "0"))
        .kid(if group { El::new("parameterFilters") } else { el("parameterFilters") })
        .with("gutter", text("gutter", "0"))
        .kid(El::new("cacheWarningSkips"))
}

fn subsets(layer: &TileLayer) -> El {
    let mut list = El::new("gridSubsets");
    for set in Gwc::gridsets_of(layer) {
        let subset = El::new("gridSubset").with("gridSetName", &set);
        list = list.kid(match layer.areas.get(&set) {
            Some(area) => subset.kid(El::new("extent").kid(
                area.iter().fold(El::new("coords"), |coords, number| coords.with("double", java_double(*number))),
            )),
            None => subset,
        });
    }
    list
}

fn layer_json(layer: &TileLayer) -> serde_json::Value {
    let doc = write(layer);
    let mut map = serde_json::Map::new();
    for kid in &doc.kids {
        let value = match kid.name.as_str() {
            "gridSubsets" => Gwc::gridsets_of(layer)
                .iter()
                .map(|set| match layer.areas.get(set) {
                    Some(area) => json!({"gridSetName": set, "extent": {"coords": area}}),
                    None => json!({"gridSetName": set}),
                })
                .collect(),
            "mimeFormats" | "metaWidthHeight" | "parameterFilters" | "cacheWarningSkips" => {
                kid.kids.iter().map(El::json).collect()
            }
            _ => kid.json(),
        };
        map.insert(kid.name.clone(), value);
    }
    json!({ "GeoServerLayer": map })
}

pub(crate) fn answer(state: &State, req: &Req) -> Answer {
    let segments = req.segments();
    let mut parts: Vec<String> = segments[2..].to_vec();
    let mut ext = None;
    if let Some(last) = parts.last_mut() {
        let (name, found) = split_ext(last);
        // Names in GWC paths are decoded a second time.
        (*last, ext) = (name.replace('+', " "), found);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let xml = ext.as_deref() == Some("xml");
    let mut cat = state.cat();
    match (req.method.as_str(), parts.as_slice()) {
        ("GET", ["layers"]) => {
            let names: Vec<String> = cat.gwc.layers.keys().cloned().collect();
            Ok(index(req, xml, "layers", "layer", &names))
        }
        (_, ["layers"]) => Err(Fault::Method("GET")),
        (_, ["layers", label]) => layer(&mut cat, req, xml, label),
        ("GET", ["gridsets"]) => {
            let names = BUILT_IN.iter().map(|name| (*name).to_owned()).chain(cat.gwc.gridsets.keys().cloned());
            let names: Vec<String> = names.collect();
            Ok(index(req, xml, "gridSets", "gridSet", &names))
        }
        (_, ["gridsets", name]) => gridset(&mut cat, req, xml, name),
        ("GET", ["seed"]) => {
            let body = cat.gwc.report(None).to_string();
            Ok(Reply::text(200, "application/json", body))
        }
        ("POST", ["seed"]) => Err(Fault::Unexpected("Chunk [] is not a valid entry".to_owned())),
        (_, ["seed", label]) => seed(&mut cat, req, ext.as_deref(), label),
        (_, ["masstruncate"]) => mass_truncate(&mut cat, req),
        ("POST", ["reload"]) => {
            let body = format!(
                "<html>\n<head>\n<title>GWC Reload</title>\n</head>\n<body>\n<p>TileLayerConfiguration reloaded. Read {} \
                 layers from configuration resources.</p>\n</body></html>",
                cat.gwc.layers.len()
            );
            Ok(Reply::text(200, "text/plain;charset=iso-8859-1", body))
        }
        _ => Err(Fault::Unmapped),
    }
}

fn index(req: &Req, xml: bool, root: &str, item: &str, names: &[String]) -> Reply {
    if !xml {
        return Reply::text(200, "application/json", json!(names).to_string());
    }
    let folder = root.to_lowercase();
    let mut body = format!("{DECLARATION}<{root}>");
    for name in names {
        let href = format!("{}/gwc/rest/{folder}/{}.xml", req.base, encode(name, b"-._~!$&'()*+,;=:@"));
        body.push_str(&format!(
            "\n  <{item}>\n    <name>{0}</name>\n    <atom:link xmlns:atom=\"http://www.w3.org/2005/Atom\" \
             rel=\"alternate\" href=\"{1}\" type=\"text/xml\"/>\n  </{item}>",
            escape(name),
            escape(&href)
        ));
    }
    body = if names.is_empty() { format!("{DECLARATION}<{root}/>") } else { format!("{body}\n</{root}>") };
    Reply::text(200, "application/xml", body)
}

fn read(req: &Req) -> Result<El, Fault> {
    let broken = || Fault::Unexpected(String::new());
    match req.media().as_str() {
        "text/xml" | "application/xml" => xml::parse(&xml::decode(&req.body)).map_err(|_| broken()),
        "application/json" | "text/json" => {
            let value: serde_json::Value = serde_json::from_slice(&req.body).map_err(|_| broken())?;
            let (name, value) = value.as_object().and_then(|map| map.iter().next()).ok_or_else(broken)?;
            Ok(El::from_json(name, value))
        }
        _ => Err(Fault::MediaType(ACCEPT)),
    }
}

/// `LayerInfoImpl` or `LayerGroupInfoImpl`, if the catalog has one of that name.
fn in_catalog(cat: &Catalog, label: &str) -> Option<&'static str> {
    if cat.layer_named(label).is_some() {
        return Some("LayerInfoImpl");
    }
    cat.group_named(label).map(|_| "LayerGroupInfoImpl")
}

fn without_geometry(cat: &Catalog, label: &str) -> bool {
    let resource = cat.layer_named(label).and_then(|layer| cat.resource(layer.resource));
    let native = resource.and_then(|resource| resource.native_box.as_ref());
    native.is_some_and(|native| native.crs.is_none())
}

/// The box of a layer or group, in longitude and latitude.
fn box_of(cat: &Catalog, label: &str) -> Option<[f64; 4]> {
    let bounds = match cat.layer_named(label) {
        Some(layer) => cat.resource(layer.resource)?.latlon_box.clone()?,
        None => cat.group_named(label)?.bounds.clone()?,
    };
    Some([bounds.minx, bounds.miny, bounds.maxx, bounds.maxy])
}

/// Computes the areas of a layer's tiles, unless they have been.
fn settle(cat: &mut Catalog, label: &str) {
    let Some(area) = box_of(cat, label) else { return };
    if let Some(layer) = cat.gwc.layers.get_mut(label)
        && layer.areas.is_empty()
    {
        layer.areas = Gwc::gridsets_of(layer).into_iter().map(|set| (set, area)).collect();
    }
}

/// Whether a tile of `gda94` is outside of the layer's area; other grid sets are not imitated.
fn out_of_range(cat: &Catalog, layer: &TileLayer, req: &Req) -> Option<bool> {
    let area = layer.areas.get("gda94").filter(|_| req.param("tilematrixset") == Some("gda94"))?;
    let resolutions = cat.gwc.gridsets.get("gda94")?.find("resolutions")?;
    let level: usize = req.param("tilematrix")?.strip_prefix("gda94:")?.parse().ok()?;
    let width: f64 = cat.gwc.gridsets.get("gda94")?.text_of("tileWidth")?.parse().ok()?;
    let size = resolutions.kids.get(level)?.text.parse::<f64>().ok()? * width;
    let (col, row): (f64, f64) = (req.param("tilecol")?.parse().ok()?, req.param("tilerow")?.parse().ok()?);
    let (west, north) = (col.mul_add(size, -180.0), row.mul_add(-size, 90.0));
    Some(west > area[2] || west + size < area[0] || north < area[1] || north - size > area[3])
}

fn layer(cat: &mut Catalog, req: &Req, xml: bool, label: &str) -> Answer {
    let unknown = || Fault::Text(404, format!("Unknown layer: {label}"));
    match req.method.as_str() {
        "GET" => {
            let layer = cat.gwc.layers.get(label).ok_or_else(unknown)?;
            Ok(if xml {
                Reply::text(200, XML, format!("{DECLARATION}{}", write(layer).to_xml()))
            } else {
                Reply::text(200, "application/json", layer_json(layer).to_string())
            })
        }
        "DELETE" => {
            cat.gwc.layers.get(label).ok_or_else(unknown)?;
            cat.gwc.drop(label);
            Ok(Reply::text(200, XML, format!("{label} deleted")))
        }
        "PUT" | "POST" => {
            let doc = read(req)?;
            let Some(name) = doc.text_of("name").filter(|name| !name.is_empty()) else {
                return Err(Fault::Text(400, "Layer name not provided".to_owned()));
            };
            let mismatch =
                "There is a mismatch between the name of the  layer in the submission and the URL you specified.";
            if name != label {
                return Err(Fault::Text(400, mismatch.to_owned()));
            }
            let Some(kind) = in_catalog(cat, label) else {
                return Err(Fault::Text(404, format!("GeoServer Layer or LayerGroup '{label}' not found")));
            };
            if kind == "LayerInfoImpl" && !label.contains(':') {
                return Err(Fault::Text(400, mismatch.to_owned()));
            }
            if without_geometry(cat, label) {
                // It says so and does nothing.
                return Ok(Reply::text(200, XML, "layer saved"));
            }
            if !cat.gwc.layers.contains_key(label) {
                if req.method == "POST" {
                    let body = format!(
                        "Layer {label} is not known by the configuration.Maybe it was loaded from another source, or \
                         you're trying to add a new layer and need to do an HTTP PUT ?"
                    );
                    return Ok(Reply::text(400, XML, body));
                }
                cat.gwc.add(label, kind);
            }
            let mut layer = TileLayer { id: String::new(), doc, resolved: vec![], areas: BTreeMap::new() };
            layer.resolved = Gwc::gridsets_of(&layer).into_iter().filter(|set| cat.gwc.has_gridset(set)).collect();
            if let Some(held) = cat.gwc.layers.get_mut(label) {
                layer.id = held.id.clone();
                *held = layer;
            }
            Ok(if req.method == "POST" {
                Reply::new(200).header("Warning", "299: Deprecated API. Use PUT instead.")
            } else {
                Reply::text(200, XML, "layer saved")
            })
        }
        _ => Err(Fault::Method("GET,POST,PUT,DELETE")),
    }
}

/// `/gwc/service/..`: tiles that are remembered as cached, so that truncation can be seen.
pub(crate) fn service(state: &State, req: &Req) -> Answer {
    let page = |message: &str| {
        let body =
            format!("<html>\n<head>\n<title>GWC Error</title>\n</head>\n<body>\n<h4>400: {message}</h4></body></html>");
        Ok(Reply::text(400, "text/html", body))
    };
    let mut cat = state.cat();
    if req.param("request").is_some_and(|request| request.eq_ignore_ascii_case("GetCapabilities")) {
        // One layer with an unknown grid set breaks the service for all.
        if cat.gwc.layers.values().any(|layer| cat.gwc.broken(layer)) {
            return page("Cannot invoke \"org.geowebcache.grid.GridSubset.getName()\" because \"gridSubset\" is null");
        }
        let labels: Vec<String> = cat.gwc.layers.keys().cloned().collect();
        labels.iter().for_each(|label| settle(&mut cat, label));
        let layers: String = cat
            .gwc
            .layers
            .keys()
            .map(|name| format!("<Layer><ows:Identifier>{}</ows:Identifier></Layer>", escape(name)))
            .collect();
        return Ok(Reply::text(200, "application/xml", format!("<Capabilities>{layers}</Capabilities>")));
    }
    let label = req.param("layers").or(req.param("layer")).unwrap_or_default().to_owned();
    settle(&mut cat, &label);
    let Some(layer) = cat.gwc.layers.get(&label) else { return page(&format!("Unknown layer {label}")) };
    if out_of_range(&cat, layer, req) == Some(true) {
        return page("Row is out of range");
    }
    if cat.gwc.broken(layer) {
        return page("Cannot invoke \"org.geowebcache.grid.GridSubset.getSRS()\" because \"gridSubset\" is null");
    }
    let sets = Gwc::gridsets_of(layer);
    // What is cached everybody gets, as GeoServer comes; what is not is drawn as the one who asks.
    let key = (label, req.raw_query.clone());
    if !cat.gwc.tiles.contains(&key)
        && let Some(layer) = cat.layer_named(&key.0)
    {
        let (ws, name) = cat.layer_names(layer);
        if security::access(&cat, req.user.as_deref(), &ws, &name) != Access::Open {
            return page(&format!("Could not find layer {}", key.0));
        }
    }
    let hit = !cat.gwc.tiles.insert(key);
    Ok(Reply::text(200, "image/png", super::png::png(256, 256, [0, 0, 0]))
        .header("geowebcache-cache-result", if hit { "HIT" } else { "MISS" })
        .header("geowebcache-gridset", sets.first().map_or("", String::as_str))
        .header("Content-Disposition", "inline; filename=geoserver-dispatch.image"))
}
