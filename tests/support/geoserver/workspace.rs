//! Workspaces and the namespaces that go with them.

use super::catalog::{Catalog, Workspace};
use super::doc::El;
use super::http::{Answer, Fault, Reply, in_href, in_location};
use super::rest::Target;
use super::{State, Version};

pub(crate) const DATE: &str = "2026-01-01 00:00:00.000 UTC";

pub(crate) fn all(state: &State, at: &Target<'_>) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let mut names: Vec<String> = state.cat().workspaces.iter().map(|ws| ws.name.clone()).collect();
            names.sort();
            let base = &at.req.base;
            let entries =
                names.into_iter().map(|name| (name.clone(), format!("{base}/rest/workspaces/{}", in_href(&name))));
            at.show(&El::index("workspaces", "workspace", entries.collect()))
        }
        "POST" => {
            let doc = at.req.document("workspace")?;
            let name = doc.text_of("name").unwrap_or_default();
            let mut cat = state.cat();
            if cat.workspaces.iter().any(|ws| ws.name == name) {
                let status = if at.req.version == Version::V2_18 { 401 } else { 409 };
                return Err(Fault::Refused(status, format!("Workspace '{name}' already exists")));
            }
            let uri = format!("http://{name}");
            add(&mut cat, &name, &uri, doc.text_of("isolated").as_deref() == Some("true"));
            if name.contains(' ') {
                // The namespace fails after the workspace was made.
                return Err(Fault::Unexpected(format!("Invalid URI syntax for '{uri}' in namespace '{name}'")));
            }
            Ok(Reply::created(&format!("{}/rest/workspaces/{}", at.req.base, in_location(&name)), &name))
        }
        _ => Err(Fault::Method("GET,POST")),
    }
}

fn add(cat: &mut Catalog, name: &str, uri: &str, isolated: bool) {
    let id = cat.next();
    // The first one of all; when that goes, there is none.
    if !std::mem::replace(&mut cat.had_workspace, true) {
        cat.default_workspace = Some(id);
    }
    cat.workspaces.push(Workspace { id, name: name.to_owned(), uri: uri.to_owned(), isolated, modified: false });
}

fn write(ws: &Workspace, base: &str, path_name: &str) -> El {
    let link = |kind: &str| format!("{base}/rest/workspaces/{path_name}/{kind}");
    El::new("workspace")
        .with("name", &ws.name)
        .with("isolated", ws.isolated)
        .with("dateCreated", DATE)
        .with_opt("dateModified", ws.modified.then_some(DATE))
        .kid(El::new("dataStores").href(link("datastores")))
        .kid(El::new("coverageStores").href(link("coveragestores")))
        .kid(El::new("wmsStores").href(link("wmsstores")))
        .kid(El::new("wmtsStores").href(link("wmtsstores")))
}

pub(crate) fn one(state: &State, at: &Target<'_>, name: &str) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let doc = state.cat().workspace(name).map(|ws| write(ws, &at.req.base, name));
            at.show(&doc.ok_or_else(|| Fault::Missing(format!("No such workspace: '{name}' found")))?)
        }
        "PUT" => {
            let doc = at.req.document("workspace")?;
            let mut cat = state.cat();
            let Some(id) = cat.ws_id(name) else {
                return Err(Fault::Refused(404, format!("Can't change a non existant workspace ({name})")));
            };
            let renamed = doc.text_of("name").filter(|new| new != name && !new.is_empty());
            if let Some(new) = &renamed {
                rename(&mut cat, name, new);
            }
            if let Some(ws) = cat.workspaces.iter_mut().find(|ws| ws.id == id) {
                ws.modified = true;
                if let Some(new) = renamed {
                    ws.name = new;
                }
                if let Some(isolated) = doc.text_of("isolated") {
                    ws.isolated = isolated == "true";
                }
            }
            Ok(Reply::new(200))
        }
        "DELETE" => {
            let mut cat = state.cat();
            let Some(id) = cat.ws_id(name) else {
                return Err(Fault::Refused(404, format!("Workspace '{name}' not found")));
            };
            let full =
                cat.stores.iter().any(|store| store.ws == id) || cat.wms_stores.iter().any(|store| store.ws == id);
            if full && !at.req.flag("recurse") {
                return Err(Fault::Refused(403, "Workspace not empty".to_owned()));
            }
            cat.drop_workspace(id, at.req.version == Version::V2_18);
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}

/// Rules and tile layers follow a new name.
fn rename(cat: &mut Catalog, old: &str, new: &str) {
    let rules = std::mem::take(&mut cat.acl);
    cat.acl = rules
        .into_iter()
        .map(|(rule, roles)| match rule.strip_prefix(&format!("{old}.")) {
            Some(rest) => (format!("{new}.{rest}"), roles),
            None => (rule, roles),
        })
        .collect();
    cat.gwc.rename_workspace(old, new);
}

pub(crate) fn default(state: &State, at: &Target<'_>) -> Answer {
    if at.method() != "PUT" {
        return one(state, at, "default");
    }
    at.negotiate()?;
    let doc = at.req.document("workspace")?;
    let name = doc.text_of("name").unwrap_or_default();
    let mut cat = state.cat();
    let Some(id) = cat.ws_id(&name) else {
        return Err(Fault::Refused(404, format!("No such workspace: '{name}' found")));
    };
    cat.default_workspace = Some(id);
    if let Some(ws) = cat.workspaces.iter_mut().find(|ws| ws.id == id) {
        ws.modified = true;
    }
    Ok(Reply::new(200))
}

pub(crate) fn namespaces(state: &State, at: &Target<'_>) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let mut names: Vec<String> = state.cat().workspaces.iter().map(|ws| ws.name.clone()).collect();
            names.sort();
            let base = &at.req.base;
            let entries =
                names.into_iter().map(|name| (name.clone(), format!("{base}/rest/namespaces/{}", in_href(&name))));
            at.show(&El::index("namespaces", "namespace", entries.collect()))
        }
        "POST" => {
            let doc = at.req.document("namespace")?;
            let prefix = doc.text_of("prefix").unwrap_or_default();
            let Some(uri) = doc.text_of("uri") else { return Err(Fault::Unexpected(String::new())) };
            let mut cat = state.cat();
            if cat.workspaces.iter().any(|ws| ws.name == prefix) {
                return Err(Fault::Unexpected(format!("Namespace with prefix '{prefix}' already exists.")));
            }
            if cat.workspaces.iter().any(|ws| ws.uri == uri) {
                return Err(Fault::Unexpected(format!("Namespace with URI '{uri}' already exists.")));
            }
            add(&mut cat, &prefix, &uri, false);
            Ok(Reply::created(&format!("{}/rest/namespaces/{}", at.req.base, in_location(&prefix)), &prefix))
        }
        _ => Err(Fault::Method("GET,POST")),
    }
}

pub(crate) fn namespace(state: &State, at: &Target<'_>, prefix: &str) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let doc = state.cat().workspace(prefix).map(|ws| {
                El::new("namespace").with("prefix", &ws.name).with("uri", &ws.uri).with("isolated", ws.isolated)
            });
            at.show(&doc.ok_or_else(|| Fault::Missing(format!("No such namespace: '{prefix}' found")))?)
        }
        "PUT" => {
            let doc = at.req.document("namespace")?;
            let mut cat = state.cat();
            let Some(ws) = cat.workspaces.iter_mut().find(|ws| ws.name == prefix) else {
                return Err(Fault::Refused(404, format!("Can't change a non existant namespace ({prefix})")));
            };
            if let Some(uri) = doc.text_of("uri") {
                ws.uri = uri;
            }
            ws.modified = true;
            Ok(Reply::new(200))
        }
        "DELETE" => {
            let mut cat = state.cat();
            let Some(id) = cat.ws_id(prefix) else {
                return Err(Fault::Refused(404, format!("Namespace '{prefix}' not found")));
            };
            cat.drop_workspace(id, false);
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}
