//! Layers: styles by reference, accepted unseen.

use super::State;
use super::catalog::{Catalog, Id, Layer, Member, StyleRef};
use super::doc::El;
use super::http::{Answer, Fault, Reply, in_href, latin1};
use super::rest::Target;
use super::workspace::DATE;

pub(crate) const UNMARSHALLABLE: &str = "Unable to marshal reference with no id or name.";

pub(crate) fn all(state: &State, at: &Target<'_>, ws: Option<&str>) -> Answer {
    at.negotiate()?;
    if at.method() != "GET" {
        return Err(Fault::Method("GET"));
    }
    let mut names: Vec<String> = {
        let cat = state.cat();
        cat.layers
            .iter()
            .map(|layer| cat.layer_names(layer))
            .filter(|(layer_ws, _)| ws.is_none_or(|ws| ws == layer_ws))
            .map(|(layer_ws, name)| if ws.is_some() { name } else { format!("{layer_ws}:{name}") })
            .collect()
    };
    names.sort();
    let here = ws.map_or_else(|| "layers".to_owned(), |ws| format!("workspaces/{}/layers", in_href(ws)));
    let base = &at.req.base;
    let entries = names.into_iter().map(|name| (name.clone(), format!("{base}/rest/{here}/{}", in_href(&name))));
    at.show(&El::index("layers", "layer", entries.collect()))
}

fn find<'a>(cat: &'a Catalog, ws: Option<&str>, name: &str) -> Option<&'a Layer> {
    match ws {
        Some(ws) => cat.layer_in(ws, name),
        None => cat.layer_named(name),
    }
}

pub(crate) fn one(state: &State, at: &Target<'_>, ws: Option<&str>, name: &str) -> Answer {
    at.negotiate()?;
    let label = ws.map_or_else(|| name.to_owned(), |ws| format!("{ws}:{name}"));
    match at.method() {
        "GET" => {
            let doc = {
                let cat = state.cat();
                let layer = find(&cat, ws, name);
                write(&cat, layer.ok_or_else(|| Fault::Missing(format!("No such layer: {label}")))?, &at.req.base)?
            };
            with_file_name(at, at.show(&doc))
        }
        "PUT" => {
            let doc = at.req.document("layer")?;
            let mut cat = state.cat();
            let Some(id) = find(&cat, ws, name).map(|layer| layer.id) else {
                return Err(Fault::Unexpected(
                    "Cannot invoke \"org.geoserver.catalog.LayerInfo.getResource()\" because \"original\" is null"
                        .to_owned(),
                ));
            };
            put(&mut cat, id, &doc);
            Ok(Reply::new(200))
        }
        "DELETE" => {
            let mut cat = state.cat();
            let Some((id, resource)) = find(&cat, ws, name).map(|layer| (layer.id, layer.resource)) else {
                return Err(Fault::Missing(label));
            };
            if at.req.flag("recurse") {
                cat.drop_resource(resource);
                return Ok(Reply::new(200));
            }
            if let Some(group) = cat.held_by(&Member::Layer(id)) {
                let message = format!("Unable to delete layer referenced by layer group '{group}'");
                return Err(Fault::Unexpected(message));
            }
            cat.drop_layer(id);
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}

/// An extension that was cut off without being a format: the answer is given a harmless file name.
pub(crate) fn with_file_name(at: &Target<'_>, answer: Answer) -> Answer {
    match at.ext {
        Some("json" | "xml" | "html" | "sld") | None => answer,
        Some(_) => Ok(answer?.header("Content-Disposition", "inline;filename=f.txt")),
    }
}

pub(crate) fn read_ref(cat: &Catalog, el: &El) -> StyleRef {
    let ws = el.find("workspace").map(|ws| ws.text_of("name").unwrap_or_else(|| ws.text.clone()));
    let name = el.text_of("name").unwrap_or_default();
    cat.style_named(&name, ws.as_deref().filter(|ws| !ws.is_empty()))
        .map_or(StyleRef::Missing, |style| StyleRef::Style(style.id))
}

fn put(cat: &mut Catalog, id: Id, doc: &El) {
    let default_style = doc.find("defaultStyle").map(|el| read_ref(cat, el));
    let styles: Option<Vec<StyleRef>> =
        doc.find("styles").map(|list| list.all("style").map(|el| read_ref(cat, el)).collect());
    let label = cat.layer(id).map(|layer| cat.layer_names(layer)).unwrap_or_default();
    let Some(layer) = cat.layers.iter_mut().find(|layer| layer.id == id) else { return };
    if let Some(style) = default_style {
        let changed = layer.default_style != style;
        layer.default_style = style;
        if changed {
            cat.gwc.truncate(&format!("{}:{}", label.0, label.1));
        }
    }
    if let Some(styles) = styles {
        layer.styles.clear();
        for style in styles {
            if !layer.styles.contains(&style) {
                layer.styles.push(style);
            }
        }
    }
    if let Some(path) = doc.text_of("path") {
        layer.path = Some(path);
    }
    if let Some(queryable) = doc.text_of("queryable") {
        layer.queryable = queryable == "true";
    }
    if let Some(opaque) = doc.text_of("opaque") {
        layer.opaque = opaque == "true";
    }
    if let Some(attribution) = doc.find("attribution") {
        layer.attribution = attribution
            .kids
            .iter()
            .filter(|kid| kid.name == "title" || kid.name == "href")
            .map(|kid| (kid.name.clone(), kid.text.clone()))
            .collect();
    }
    layer.modified = true;
}

fn write_ref(cat: &Catalog, name: &str, style: Id, base: &str) -> Option<El> {
    let style = cat.style(style)?;
    let el = El::new(name).with("name", cat.style_label(style));
    Some(match style.ws.map(|ws| cat.ws_name(ws)) {
        Some(ws) => {
            let href = format!("{base}/rest/workspaces/{ws}/styles/{}", style.name);
            el.with("workspace", &ws).href(href)
        }
        None => el.href(format!("{base}/rest/styles/{}", style.name)),
    })
}

fn write(cat: &Catalog, layer: &Layer, base: &str) -> Result<El, Fault> {
    let broken = || Fault::Unexpected(UNMARSHALLABLE.to_owned());
    let resource = cat.resource(layer.resource).ok_or_else(broken)?;
    let (ws, name) = cat.layer_names(layer);
    let default_style = match &layer.default_style {
        StyleRef::Style(id) => write_ref(cat, "defaultStyle", *id, base).ok_or_else(broken)?,
        StyleRef::None => El::new("defaultStyle").with("name", "").href(format!("{base}/rest/styles/")),
        StyleRef::Missing => return Err(broken()),
    };
    let mut styles = El::new("styles").attr("class", "linked-hash-set");
    for style in &layer.styles {
        let StyleRef::Style(id) = style else { return Err(broken()) };
        styles = styles.kid(write_ref(cat, "style", *id, base).ok_or_else(broken)?);
    }
    let (class, href) = if resource.remote {
        let store = cat.wms_stores.iter().find(|store| store.id == resource.store).map(|store| store.name.clone());
        ("wmsLayer", format!("wmsstores/{}/wmslayers", store.unwrap_or_default()))
    } else {
        let store = cat.stores.iter().find(|store| store.id == resource.store).map(|store| store.name.clone());
        ("featureType", format!("datastores/{}/featuretypes", store.unwrap_or_default()))
    };
    let mut attribution = El::new("attribution");
    for (key, value) in &layer.attribution {
        attribution = attribution.with(key, value);
    }
    Ok(El::new("layer")
        .with("name", &name)
        .with_opt("path", layer.path.as_ref())
        .with("type", if resource.remote { "WMS" } else { "VECTOR" })
        .kid(default_style)
        .kids_opt((!layer.styles.is_empty()).then_some(styles))
        .kid(
            El::new("resource")
                .attr("class", class)
                .with("name", format!("{ws}:{name}"))
                .href(format!("{base}/rest/workspaces/{ws}/{href}/{}", in_href(&name))),
        )
        .with_opt("queryable", layer.modified.then_some(layer.queryable))
        .with_opt("opaque", layer.modified.then_some(layer.opaque))
        .kid(attribution.with("logoWidth", 0).with("logoHeight", 0))
        .with("dateCreated", DATE)
        .with_opt("dateModified", layer.modified.then_some(DATE)))
}

/// `/layers/{layer}/styles`: the alternates, names without prefix.
pub(crate) fn styles(state: &State, at: &Target<'_>, name: &str) -> Answer {
    at.negotiate()?;
    let missing = || Fault::Missing(format!("No such layer: {name}"));
    match at.method() {
        "GET" => {
            let entries = {
                let cat = state.cat();
                let layer = cat.layer_named(name).ok_or_else(missing)?;
                let named = layer.styles.iter().filter_map(|style| match style {
                    StyleRef::Style(id) => cat.style(*id).map(|style| style.name.clone()),
                    _ => None,
                });
                let here = format!("{}/rest/layers/{name}/styles", at.req.base);
                named.map(|style| (style.clone(), format!("{here}/{}", in_href(&style)))).collect()
            };
            at.show(&El::index("styles", "style", entries))
        }
        "POST" => {
            let doc = at.req.document("style")?;
            let mut cat = state.cat();
            let id = cat.layer_named(name).map(|layer| layer.id).ok_or_else(missing)?;
            let said = doc.text_of("name").unwrap_or_default();
            let StyleRef::Style(style) = read_ref(&cat, &doc) else {
                return Err(Fault::Text(404, "Not Found".to_owned()));
            };
            if let Some(layer) = cat.layers.iter_mut().find(|layer| layer.id == id) {
                if at.req.flag("default") {
                    layer.default_style = StyleRef::Style(style);
                } else if !layer.styles.contains(&StyleRef::Style(style)) {
                    layer.styles.push(StyleRef::Style(style));
                }
                layer.modified = true;
            }
            Ok(Reply::text(201, "text/plain;charset=iso-8859-1", latin1(&said)))
        }
        _ => Err(Fault::Method("GET,POST")),
    }
}
