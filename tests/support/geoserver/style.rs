//! Styles: a record and a body, sent together or in two steps.

use super::catalog::{Catalog, Id, Layer, Style, StyleRef};
use super::doc::El;
use super::http::{Answer, Fault, Format, Reply, in_href, in_location, latin1};
use super::layer::with_file_name;
use super::rest::Target;
use super::sld::{self, Bad};
use super::workspace::DATE;
use super::{State, Version};

const SLD: &str = "application/vnd.ogc.sld+xml";
const SE: &str = "application/vnd.ogc.se+xml";

pub(crate) fn all(state: &State, at: &Target<'_>, ws: Option<&str>) -> Answer {
    at.req.format(at.ext, true)?;
    match at.method() {
        "GET" => list(state, at, ws),
        "POST" => match at.req.media().as_str() {
            SLD | SE => create_raw(state, at, ws),
            "application/zip" => create_raw(state, at, ws),
            _ => create_record(state, at, ws),
        },
        _ => Err(Fault::Method("GET,POST")),
    }
}

fn list(state: &State, at: &Target<'_>, ws: Option<&str>) -> Answer {
    let mut names: Vec<String> = {
        let cat = state.cat();
        let id = ws_id(&cat, ws)?;
        cat.styles.iter().filter(|style| style.ws == id).map(|style| style.name.clone()).collect()
    };
    names.sort();
    let here = ws.map_or_else(|| "styles".to_owned(), |ws| format!("workspaces/{}/styles", in_href(ws)));
    let base = &at.req.base;
    let entries = names.into_iter().map(|name| (name.clone(), format!("{base}/rest/{here}/{}", in_href(&name))));
    at.show(&El::index("styles", "style", entries.collect()))
}

fn ws_id(cat: &Catalog, ws: Option<&str>) -> Result<Option<Id>, Fault> {
    match ws {
        Some(ws) => Ok(Some(cat.ws_id(ws).ok_or_else(|| Fault::Missing(format!("Workspace {ws} not found")))?)),
        None => Ok(None),
    }
}

fn at_path(ws: Option<&str>) -> String {
    ws.map_or_else(|| "styles".to_owned(), |ws| format!("workspaces/{}/styles", in_location(ws)))
}

fn create_raw(state: &State, at: &Target<'_>, ws: Option<&str>) -> Answer {
    let se = at.req.media() == SE;
    let zip = at.req.media() == "application/zip";
    let mut cat = state.cat();
    let id = ws_id(&cat, ws)?;
    let given = at.req.param("name").map(str::to_owned);
    if let Some(name) = given.as_ref().filter(|name| cat.style_in(id, name).is_some()) {
        return Err(Fault::Refused(403, format!("Style {name} already exists.")));
    }
    let (name, body) = if zip {
        (given.unwrap_or_default(), sld::built_in("generic"))
    } else {
        let root = sld::check(&at.req.body, se, !at.req.flag("raw")).map_err(|bad| {
            // The older version keeps an empty file of what it could not write.
            if let (Bad::Root, Version::V2_18, false, Some(name)) = (&bad, at.req.version, se, &given) {
                cat.style_files.insert((id, format!("{name}.sld")), String::new());
            }
            Fault::Unexpected(bad_message(bad))
        })?;
        let name = given.unwrap_or_else(|| sld::style_name(&root));
        (name, stored_body(at, &root, se))
    };
    if at.req.version == Version::V2_18 && cat.style_files.contains_key(&(id, format!("{name}.sld"))) {
        return Err(Fault::Refused(403, format!("Style file {name}.sld already exists.")));
    }
    if cat.style_in(id, &name).is_some() {
        return Err(Fault::Refused(403, format!("Style {name} already exists.")));
    }
    let filename = format!("{name}.sld");
    let version = if se { "1.1.0" } else { "1.0.0" }.to_owned();
    cat.style_files.insert((id, filename.clone()), body);
    let style = Style { id: cat.next(), ws: id, name: name.clone(), version, filename, modified: false };
    cat.styles.push(style);
    Ok(Reply::created(&format!("{}/rest/{}/{}", at.req.base, at_path(ws), in_location(&name)), &name))
}

/// SLD 1.1 and what is sent raw is kept as it is, other bodies are parsed and rewritten.
fn stored_body(at: &Target<'_>, root: &El, se: bool) -> String {
    if se || at.req.flag("raw") {
        String::from_utf8_lossy(&at.req.body).into_owned()
    } else {
        sld::rewrite(root, true, false)
    }
}

fn bad_message(bad: Bad) -> String {
    match bad {
        Bad::Xml(err) => err.sax(),
        Bad::Root => "Error writing style".to_owned(),
        Bad::Cast => "java.lang.RuntimeException: Parsing failed for UserStyle: java.lang.ClassCastException: class \
                      java.util.HashMap cannot be cast to class org.geotools.api.util.InternationalString"
            .to_owned(),
    }
}

fn create_record(state: &State, at: &Target<'_>, ws: Option<&str>) -> Answer {
    let doc = at.req.document("style")?;
    let mut cat = state.cat();
    let id = ws_id(&cat, ws)?;
    let null = |what: &str| Fault::Unexpected(format!("Style {what} must not be null"));
    let name = doc.text_of("name").filter(|name| !name.is_empty()).ok_or_else(|| null("name"))?;
    let filename = doc.text_of("filename").filter(|name| !name.is_empty()).ok_or_else(|| null("fileName"))?;
    if cat.style_in(id, &name).is_some() {
        let place = ws.map(|ws| format!(" in workspace {ws}")).unwrap_or_default();
        return Err(Fault::Unexpected(format!("Style named '{name}' already exists{place}")));
    }
    let version = doc.find("languageVersion").and_then(|el| el.text_of("version"));
    let style = Style {
        id: cat.next(),
        ws: id,
        name: name.clone(),
        version: version.unwrap_or_else(|| "1.0.0".to_owned()),
        filename,
        modified: false,
    };
    cat.styles.push(style);
    Ok(Reply::text(201, "text/plain;charset=iso-8859-1", latin1(&name)))
}

fn write(cat: &Catalog, style: &Style) -> El {
    let ws = style.ws.map(|ws| El::new("workspace").with("name", cat.ws_name(ws)));
    El::new("style")
        .with("name", &style.name)
        .kids_opt(ws)
        .with("format", "sld")
        .kid(El::new("languageVersion").with("version", &style.version))
        .with("filename", &style.filename)
        .with("dateCreated", DATE)
        .with_opt("dateModified", style.modified.then_some(DATE))
}

pub(crate) fn one(state: &State, at: &Target<'_>, ws: Option<&str>, name: &str) -> Answer {
    let format = at.req.format(at.ext, true)?;
    // A bare plus in the path of a style is a space; an escaped one is a plus.
    let spaced = at.req.raw_path.rsplit('/').next().is_some_and(|last| last.contains('+'));
    let name = if spaced { name.replace('+', " ") } else { name.to_owned() };
    let name = name.as_str();
    match at.method() {
        "GET" => get(state, at, ws, name, format),
        "PUT" => match at.req.media().as_str() {
            SLD | SE => put_body(state, at, ws, name),
            _ => put_record(state, at, ws, name),
        },
        "DELETE" if format == Format::Sld => Err(Fault::NotAcceptable),
        "DELETE" => delete(state, at, ws, name),
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}

fn find<'a>(cat: &'a Catalog, ws: Option<&str>, name: &str) -> Option<&'a Style> {
    match ws {
        Some(ws) => cat.style_in(Some(cat.ws_id(ws)?), name),
        None => cat.style_in(None, name),
    }
}

fn get(state: &State, at: &Target<'_>, ws: Option<&str>, name: &str, format: Format) -> Answer {
    let (doc, style, body) = {
        let cat = state.cat();
        let Some(style) = find(&cat, ws, name) else {
            return Err(Fault::Missing(match ws {
                Some(ws) => format!("No such style {name} in workspace {ws}"),
                None => format!("No such style: {name}"),
            }));
        };
        let body = cat.style_files.get(&(style.ws, style.filename.clone())).cloned();
        (write(&cat, style), style.clone(), body)
    };
    match format {
        Format::Sld | Format::Se => {
            let Some(body) = body else {
                let folder = ws.map_or_else(|| "styles".to_owned(), |ws| format!("workspaces/{ws}/styles"));
                return Err(Fault::Unexpected(format!("File not found {{DATA_DIR}}/{folder}/{}", style.filename)));
            };
            let newer = style.version == "1.1.0";
            match (format, newer) {
                (Format::Sld, true) => match sld::check(body.as_bytes(), true, false) {
                    Ok(root) => Ok(Reply::text(200, SLD, sld::rewrite(&root, false, true))),
                    Err(_) => Err(Fault::Unexpected(String::new())),
                },
                (Format::Sld, false) => Ok(Reply::text(200, SLD, body)),
                _ => Ok(Reply::text(200, SE, body)),
            }
        }
        Format::Unsaid => Ok(Reply::new(500)),
        _ => with_file_name(at, at.show(&doc)),
    }
}

fn put_body(state: &State, at: &Target<'_>, ws: Option<&str>, name: &str) -> Answer {
    let se = at.req.media() == SE;
    let mut cat = state.cat();
    let Some((id, key)) = find(&cat, ws, name).map(|style| (style.id, (style.ws, style.filename.clone()))) else {
        return Err(Fault::Refused(
            400,
            "Invalid style:Cannot invoke \"org.geoserver.catalog.StyleInfo.getFormat()\" because \"style\" is null"
                .to_owned(),
        ));
    };
    let root = sld::check(&at.req.body, se, !at.req.flag("raw"))
        .map_err(|bad| Fault::Refused(400, format!("Invalid style:{}", bad_message(bad))))?;
    let body = stored_body(at, &root, se);
    cat.style_files.insert(key, body);
    if let Some(style) = cat.styles.iter_mut().find(|style| style.id == id) {
        // The older version goes on taking it for what it was made as.
        if at.req.version != Version::V2_18 {
            style.version = if se { "1.1.0" } else { "1.0.0" }.to_owned();
        }
        style.modified = true;
    }
    let labels: Vec<String> = cat
        .layers
        .iter()
        .filter(|layer| layer.default_style == StyleRef::Style(id))
        .map(|layer| cat.layer_names(layer))
        .map(|(ws, name)| format!("{ws}:{name}"))
        .collect();
    for label in labels {
        cat.gwc.truncate(&label);
    }
    Ok(Reply::new(200))
}

fn put_record(state: &State, at: &Target<'_>, ws: Option<&str>, name: &str) -> Answer {
    let doc = at.req.document("style")?;
    let mut cat = state.cat();
    let Some(held) = find(&cat, ws, name).cloned() else {
        return Err(Fault::Unexpected(
            "java.lang.NullPointerException: Cannot invoke \"Object.getClass()\" because \"obj\" is null".to_owned(),
        ));
    };
    let mut new = held.clone();
    if let Some(renamed) = doc.text_of("name").filter(|renamed| !renamed.is_empty() && *renamed != held.name) {
        if cat.style_in(held.ws, &renamed).is_some() {
            return Err(Fault::Unexpected(format!("Style named '{renamed}' already exists")));
        }
        // The file is renamed with the record.
        new.filename = format!("{renamed}.sld");
        if let Some(body) = cat.style_files.remove(&(held.ws, held.filename.clone())) {
            cat.style_files.insert((held.ws, new.filename.clone()), body);
        }
        new.name = renamed;
    }
    if let Some(filename) = doc.text_of("filename") {
        new.filename = filename;
    }
    if let Some(version) = doc.find("languageVersion").and_then(|el| el.text_of("version")) {
        new.version = version;
    }
    new.modified = true;
    if let Some(slot) = cat.styles.iter_mut().find(|style| style.id == held.id) {
        *slot = new;
    }
    Ok(Reply::new(200))
}

fn uses(layer: &Layer, style: &StyleRef) -> bool {
    layer.default_style == *style || layer.styles.contains(style)
}

fn delete(state: &State, at: &Target<'_>, ws: Option<&str>, name: &str) -> Answer {
    let mut cat = state.cat();
    let Some(id) = find(&cat, ws, name).map(|style| style.id) else {
        return Err(Fault::Missing(format!("Style {name} not found")));
    };
    let held = StyleRef::Style(id);
    if cat.layers.iter().any(|layer| uses(layer, &held)) && !at.req.flag("recurse") {
        return Err(Fault::Refused(403, "Can't delete style referenced by existing layers.".to_owned()));
    }
    if let Some(group) = cat.groups.iter().find(|group| group.styles.contains(&held)) {
        let message = format!("Unable to delete style referenced by layer group '{}'", group.name);
        return Err(Fault::Unexpected(message));
    }
    let fallbacks: Vec<(Id, StyleRef)> = cat
        .layers
        .iter()
        .filter(|layer| layer.default_style == held)
        .map(|layer| (layer.id, fallback(&cat, layer, &held)))
        .collect();
    for layer in &mut cat.layers {
        if !uses(layer, &held) {
            continue;
        }
        // An alternate moves up, or the built-in style for the geometry.
        if let Some((_, style)) = fallbacks.iter().find(|(id, _)| *id == layer.id) {
            layer.default_style = style.clone();
            layer.styles.retain(|alternate| alternate != style);
        }
        layer.styles.retain(|style| *style != held);
        layer.modified = true;
    }
    cat.drop_style(id);
    Ok(Reply::new(200))
}

fn fallback(cat: &Catalog, layer: &Layer, gone: &StyleRef) -> StyleRef {
    if let Some(alternate) = layer.styles.iter().find(|style| *style != gone) {
        return alternate.clone();
    }
    let shape = cat
        .resource(layer.resource)
        .and_then(|resource| cat.attributes.get(&(resource.store, resource.cache_key())))
        .and_then(|list| list.iter().find_map(|held| held.geometry.as_ref().map(|(shape, _)| shape.to_lowercase())))
        .unwrap_or_default();
    let name = ["point", "line", "polygon"].into_iter().find(|name| shape.contains(name)).unwrap_or("generic");
    cat.built_in(name)
}
