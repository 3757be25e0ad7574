//! Layer groups, with their touchy styles list.

use super::State;
use super::catalog::{Bounds, Catalog, Group, Id, Member, StyleRef};
use super::doc::El;
use super::http::{Answer, Fault, Reply, in_href, in_location};
use super::layer::{UNMARSHALLABLE, read_ref};
use super::rest::Target;
use super::workspace::DATE;

const DIFFERENT: &str = "Layer group has different number of styles than layers";

pub(crate) fn member_label(cat: &Catalog, member: &Member) -> String {
    match member {
        Member::Layer(id) => {
            cat.layer(*id).map(|layer| cat.layer_names(layer)).map(|(ws, name)| format!("{ws}:{name}"))
        }
        Member::Group(id) => cat.groups.iter().find(|group| group.id == *id).map(|group| cat.group_label(group)),
    }
    .unwrap_or_default()
}

fn ws_id(cat: &Catalog, ws: Option<&str>) -> Result<Option<Id>, Fault> {
    match ws {
        Some(ws) => Ok(Some(cat.ws_id(ws).ok_or_else(|| Fault::Missing(format!("Workspace {ws} not found")))?)),
        None => Ok(None),
    }
}

pub(crate) fn all(state: &State, at: &Target<'_>, ws: Option<&str>) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let mut names: Vec<String> = {
                let cat = state.cat();
                let id = ws_id(&cat, ws)?;
                cat.groups.iter().filter(|group| group.ws == id).map(|group| group.name.clone()).collect()
            };
            names.sort();
            let here =
                ws.map_or_else(|| "layergroups".to_owned(), |ws| format!("workspaces/{}/layergroups", in_href(ws)));
            let base = &at.req.base;
            let entries =
                names.into_iter().map(|name| (name.clone(), format!("{base}/rest/{here}/{}", in_href(&name))));
            at.show(&El::index("layerGroups", "layerGroup", entries.collect()))
        }
        "POST" => {
            let doc = at.req.document("layerGroup")?;
            let name = create(&mut state.cat(), ws, &doc)?;
            // The workspace is left out of the Location.
            Ok(Reply::created(&format!("{}/rest/layergroups/{}", at.req.base, in_location(&name)), &name))
        }
        _ => Err(Fault::Method("GET,POST")),
    }
}

/// Members by name; the name of the first that is not there.
fn read_members(cat: &Catalog, doc: &El) -> Option<Result<Vec<Member>, String>> {
    let find = |name: &str, group: bool| {
        if group {
            cat.group_named(name).map(|group| Member::Group(group.id))
        } else {
            cat.layer_named(name).map(|layer| Member::Layer(layer.id))
        }
        .ok_or_else(|| name.to_owned())
    };
    if let Some(list) = doc.find("publishables") {
        let members = list
            .all("published")
            .map(|el| find(&el.text_of("name").unwrap_or_default(), el.get_attr("type") == Some("layerGroup")));
        return Some(members.collect());
    }
    let list = doc.find("layers")?;
    Some(list.all("layer").map(|el| find(&el.text_of("name").unwrap_or_else(|| el.text.clone()), false)).collect())
}

/// A style of a group: by name, or nothing for the member's own.
fn read_style(cat: &Catalog, el: &El) -> StyleRef {
    if el.kids.is_empty() && el.text.is_empty() {
        return StyleRef::None;
    }
    if el.kids.is_empty() {
        return cat.style_named(&el.text, None).map_or(StyleRef::None, |style| StyleRef::Style(style.id));
    }
    match read_ref(cat, el) {
        StyleRef::Missing => StyleRef::None,
        style => style,
    }
}

fn mode(doc: &El) -> Result<Option<String>, Fault> {
    let Some(mode) = doc.text_of("mode") else { return Ok(None) };
    if ["SINGLE", "OPAQUE_CONTAINER", "NAMED", "CONTAINER", "EO"].contains(&mode.as_str()) {
        return Ok(Some(mode));
    }
    Err(Fault::Unexpected(format!(
        "\n---- Debugging information ----\ncause-exception     : java.lang.IllegalArgumentException\n\
         cause-message       : No enum constant org.geoserver.catalog.LayerGroupInfo.Mode.{mode}\n\
         class               : org.geoserver.catalog.LayerGroupInfo$Mode\n\
         required-type       : org.geoserver.catalog.LayerGroupInfo$Mode\n\
         converter-type      : com.thoughtworks.xstream.converters.enums.EnumConverter\n\
         line number         : 1\nclass[1]            : org.geoserver.catalog.impl.LayerGroupInfoImpl\n\
         required-type[1]    : org.geoserver.catalog.impl.LayerGroupInfoImpl\n\
         converter-type[1]   : org.geoserver.config.util.XStreamPersister$LayerGroupInfoConverter\n\
         version             : 2.26.2\n-------------------------------"
    )))
}

fn create(cat: &mut Catalog, ws: Option<&str>, doc: &El) -> Result<String, Fault> {
    let unexpected = |message: &str| Fault::Unexpected(message.to_owned());
    let id = ws_id(cat, ws)?;
    let mode = mode(doc)?;
    let no_styles = || unexpected("Cannot invoke \"java.util.List.get(int)\" because \"styles\" is null");
    let members = read_members(cat, doc).ok_or_else(|| {
        unexpected(
            "Cannot invoke \"java.util.List.isEmpty()\" because the return value of \
             \"org.geoserver.catalog.LayerGroupInfo.getLayers()\" is null",
        )
    })?;
    if members.as_ref().is_ok_and(Vec::is_empty) {
        return Err(Fault::Refused(400, "layer group must not be empty".to_owned()));
    }
    let members = members.map_err(|_| no_styles())?;
    let styles = match doc.find("styles").filter(|list| !list.kids.is_empty()) {
        Some(list) => list.all("style").map(|el| read_style(cat, el)).collect::<Vec<_>>(),
        None => vec![StyleRef::None; members.len()],
    };
    if styles.len() < members.len() {
        return Err(Fault::Unexpected(format!("Index {0} out of bounds for length {0}", styles.len())));
    }
    if styles.len() > members.len() {
        return Err(unexpected(DIFFERENT));
    }
    let name = doc.text_of("name").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| unexpected("Layer group name must not be null"))?;
    if cat.group_in(id, &name).is_some() {
        let place = ws.map(|ws| format!(" in workspace {ws}")).unwrap_or_default();
        return Err(Fault::Unexpected(format!("Layer group named '{name}' already exists{place}")));
    }
    foreign(cat, ws, &members)?;
    let bounds = match doc.find("bounds") {
        Some(el) => Some(Bounds::read(el)),
        None => bounds_of(cat, &members),
    };
    let group = Group {
        id: cat.next(),
        ws: id,
        name: name.clone(),
        mode: mode.unwrap_or_else(|| "SINGLE".to_owned()),
        title: doc.text_of("title"),
        abstract_text: doc.text_of("abstractTxt"),
        keywords: keywords(doc).unwrap_or_default(),
        members,
        styles,
        bounds,
        enabled: true,
        modified: false,
        trimmed: false,
        loose: false,
    };
    let label = cat.group_label(&group);
    cat.groups.push(group);
    cat.gwc.add(&label, "LayerGroupInfoImpl");
    Ok(name)
}

fn keywords(doc: &El) -> Option<Vec<String>> {
    doc.find("keywords").map(|list| list.all("string").map(|word| word.text.clone()).collect())
}

fn foreign(cat: &Catalog, ws: Option<&str>, members: &[Member]) -> Result<(), Fault> {
    let Some(ws) = ws else { return Ok(()) };
    for member in members {
        let label = member_label(cat, member);
        let home = label.split_once(':').map_or("", |(home, _)| home);
        if !home.is_empty() && home != ws {
            return Err(Fault::Unexpected(format!(
                "Layer group within a workspace ({ws}) can not contain resources from other workspace: {home}"
            )));
        }
    }
    Ok(())
}

/// The box around the members, in the system of the first; boxes in other systems are left out.
fn bounds_of(cat: &Catalog, members: &[Member]) -> Option<Bounds> {
    let mut sum: Option<Bounds> = None;
    for member in members {
        let next = match member {
            Member::Layer(id) => {
                cat.layer(*id).and_then(|layer| cat.resource(layer.resource)).and_then(|held| held.native_box.clone())
            }
            Member::Group(id) => cat.groups.iter().find(|group| group.id == *id).and_then(|group| group.bounds.clone()),
        };
        let Some(next) = next else { continue };
        match &mut sum {
            None => sum = Some(next),
            Some(sum) if sum.crs == next.crs && next.maxx >= next.minx => {
                sum.minx = sum.minx.min(next.minx);
                sum.maxx = sum.maxx.max(next.maxx);
                sum.miny = sum.miny.min(next.miny);
                sum.maxy = sum.maxy.max(next.maxy);
            }
            Some(_) => {}
        }
    }
    sum
}

pub(crate) fn one(state: &State, at: &Target<'_>, ws: Option<&str>, name: &str) -> Answer {
    at.negotiate()?;
    let mut cat = state.cat();
    let id = ws_id(&cat, ws)?;
    let held = cat.group_in(id, name).cloned();
    match at.method() {
        "GET" => {
            let held = held.ok_or_else(|| {
                let place = ws.map(|ws| format!(" in workspace {ws}")).unwrap_or_default();
                Fault::Missing(format!("No such layer group {name}{place}"))
            })?;
            let doc = write(&cat, &held, &at.req.base)?;
            drop(cat);
            at.show(&doc)
        }
        "PUT" => {
            let doc = at.req.document("layerGroup")?;
            let Some(held) = held else {
                let message = if doc.find("name").is_some() {
                    "Cannot invoke \"org.geoserver.catalog.LayerGroupInfo.getName()\" because \"original\" is null"
                } else {
                    "java.lang.NullPointerException: Cannot invoke \"Object.getClass()\" because \"obj\" is null"
                };
                return Err(Fault::Unexpected(message.to_owned()));
            };
            let new = changed(&cat, ws, &held, &doc, at.req.media().contains("json"))?;
            if let Some(slot) = cat.groups.iter_mut().find(|group| group.id == held.id) {
                *slot = new;
            }
            Ok(Reply::new(200))
        }
        "DELETE" => {
            let held = held.ok_or_else(|| {
                Fault::Unexpected(
                    "Cannot invoke \"org.geoserver.catalog.LayerGroupInfo.getWorkspace()\" because \"lg\" is null"
                        .to_owned(),
                )
            })?;
            if let Some(outer) = cat.held_by(&Member::Group(held.id)) {
                let message = format!("Unable to delete layer group referenced by layer group '{outer}'");
                return Err(Fault::Unexpected(message));
            }
            cat.drop_group(held.id);
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}

fn changed(cat: &Catalog, ws: Option<&str>, held: &Group, doc: &El, json: bool) -> Result<Group, Fault> {
    if doc.text_of("name").is_some_and(|name| name != held.name) {
        return Err(Fault::Refused(403, "Can't change name of a layer group".to_owned()));
    }
    let mut new = held.clone();
    if let Some(mode) = mode(doc)? {
        new.mode = mode;
    }
    new.title = doc.text_of("title").or(new.title);
    new.abstract_text = doc.text_of("abstractTxt").or(new.abstract_text);
    if let Some(words) = keywords(doc) {
        new.keywords = words;
    }
    if let Some(members) = read_members(cat, doc) {
        new.members = members.map_err(|name| {
            Fault::Unexpected(format!(
                "Layer group {} references a layer ({name}) without a proper Resource attached",
                held.name
            ))
        })?;
        foreign(cat, ws, &new.members)?;
    }
    match doc.find("styles") {
        Some(list) if list.kids.is_empty() => {
            if held.loose {
                return Err(Fault::Unexpected("java.util.ConcurrentModificationException".to_owned()));
            }
            new.loose = true;
            new.styles.clear();
        }
        Some(list) => {
            // An empty element is the member's own style in JSON; in XML it breaks the group.
            new.styles = list
                .all("style")
                .map(|el| match read_style(cat, el) {
                    StyleRef::None if !json => StyleRef::Missing,
                    style => style,
                })
                .collect();
        }
        None => {}
    }
    if !(new.loose && new.styles.is_empty()) && new.styles.len() != new.members.len() {
        return Err(Fault::Unexpected(DIFFERENT.to_owned()));
    }
    if let Some(path) = circle(cat, &new, &new, &format!("/{}", new.name)) {
        return Err(Fault::Unexpected(format!("Layer group is in a loop: {path}")));
    }
    if let Some(el) = doc.find("bounds") {
        new.bounds = Some(Bounds::read(el));
    }
    if let Some(enabled) = doc.text_of("enabled") {
        new.enabled = enabled == "true";
    }
    new.modified = true;
    Ok(new)
}

fn circle(cat: &Catalog, top: &Group, here: &Group, path: &str) -> Option<String> {
    here.members.iter().find_map(|member| {
        let Member::Group(id) = member else { return None };
        let group = cat.groups.iter().find(|group| group.id == *id)?;
        let path = format!("{path}/{}", group.name);
        if *id == top.id { Some(path) } else { circle(cat, top, group, &path) }
    })
}

fn write(cat: &Catalog, held: &Group, base: &str) -> Result<El, Fault> {
    let broken = || Fault::Unexpected(UNMARSHALLABLE.to_owned());
    let mut members = El::new("publishables");
    for member in &held.members {
        let label = member_label(cat, member);
        let (kind, folder) = match member {
            Member::Layer(_) => ("layer", "layers"),
            Member::Group(_) => ("layerGroup", "layergroups"),
        };
        let href = match label.split_once(':') {
            Some((ws, name)) => format!("{base}/rest/workspaces/{ws}/{folder}/{name}"),
            None => format!("{base}/rest/{folder}/{label}"),
        };
        members = members.kid(El::new("published").attr("type", kind).with("name", &label).href(href));
    }
    let mut styles = El::new("styles");
    for style in &held.styles {
        styles = styles.kid(match style {
            StyleRef::None => El::new("style"),
            StyleRef::Missing => return Err(broken()),
            StyleRef::Style(id) => {
                let style = cat.style(*id).ok_or_else(broken)?;
                let here = style.ws.map_or_else(String::new, |ws| format!("workspaces/{}/", cat.ws_name(ws)));
                El::new("style")
                    .with("name", cat.style_label(style))
                    .href(format!("{base}/rest/{here}styles/{}", style.name))
            }
        });
    }
    let ws = held.ws.map(|ws| El::new("workspace").with("name", cat.ws_name(ws)));
    let words = (!held.keywords.is_empty())
        .then(|| held.keywords.iter().fold(El::new("keywords"), |list, word| list.with("string", word)));
    Ok(El::new("layerGroup")
        .with("name", &held.name)
        .with("mode", &held.mode)
        .with_opt("title", held.title.as_ref())
        .with_opt("abstractTxt", held.abstract_text.as_ref())
        .with_opt("enabled", held.modified.then_some(held.enabled))
        .with_opt("advertised", held.modified.then_some(true))
        .kids_opt(ws)
        .kid(members)
        .kids_opt((!held.styles.is_empty()).then_some(styles))
        .kids_opt(held.bounds.as_ref().map(|bounds| bounds.write("bounds")))
        .kids_opt(words)
        .with("dateCreated", DATE)
        .with_opt("dateModified", (held.modified || held.trimmed).then_some(DATE)))
}
