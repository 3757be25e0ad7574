//! PostGIS stores: taken without connecting, parameters replaced as a whole.

use super::catalog::Store;
use super::doc::El;
use super::http::{Answer, Fault, Reply, in_href, in_location};
use super::rest::Target;
use super::workspace::DATE;
use super::{State, Version};

const CIPHER: &str = "crypt1:";

pub(crate) fn all(state: &State, at: &Target<'_>, ws: &str) -> Answer {
    at.negotiate()?;
    match at.method() {
        "GET" => {
            let mut names: Vec<String> = {
                let cat = state.cat();
                let id = cat.ws_id(ws).ok_or_else(|| Fault::Missing(format!("No such workspace : {ws}")))?;
                cat.stores.iter().filter(|store| store.ws == id).map(|store| store.name.clone()).collect()
            };
            names.sort();
            let entries = names.into_iter().map(|name| {
                let href = format!("{}/rest/workspaces/{}/datastores/{}", at.req.base, in_href(ws), in_href(&name));
                (name, href)
            });
            at.show(&El::index("dataStores", "dataStore", entries.collect()))
        }
        "POST" => create(state, at, ws),
        _ => Err(Fault::Method("GET,POST")),
    }
}

fn create(state: &State, at: &Target<'_>, ws: &str) -> Answer {
    let doc = at.req.document("dataStore")?;
    let mut cat = state.cat();
    let said = doc.find("workspace").and_then(|el| el.text_of("name"));
    if let Some(said) = said.filter(|said| said != ws) {
        return Err(Fault::Refused(403, format!("Expected workspace {ws} but client specified {said}")));
    }
    let Some(params) = doc.find("connectionParameters") else {
        return Err(Fault::Unexpected(
            "Cannot invoke \"java.util.Map.containsKey(Object)\" because the return value of \
             \"org.geoserver.catalog.DataStoreInfo.getConnectionParameters()\" is null"
                .to_owned(),
        ));
    };
    let Some(name) = doc.text_of("name").filter(|name| !name.is_empty()) else {
        return Err(Fault::Unexpected("Store name must not be null".to_owned()));
    };
    let Some((ws_id, uri)) = cat.workspace(ws).map(|found| (found.id, found.uri.clone())) else {
        return Err(Fault::Unexpected("Store must be part of a workspace".to_owned()));
    };
    if cat.store_name_taken(ws_id, &name, 0) {
        return Err(Fault::Unexpected(format!("Store '{name}' already exists in workspace '{ws}'")));
    }
    let mut params = read_params(params, &[]);
    if !params.iter().any(|(key, _)| key == "namespace") {
        params.push(("namespace".to_owned(), uri));
    }
    let id = cat.next();
    cat.stores.push(Store {
        id,
        ws: ws_id,
        name: name.clone(),
        description: doc.text_of("description"),
        enabled: doc.text_of("enabled").is_none_or(|enabled| enabled == "true"),
        params,
        modified: false,
    });
    let location = format!("{}/rest/workspaces/{}/datastores/{}", at.req.base, in_location(ws), in_location(&name));
    Ok(Reply::created(&location, &name))
}

/// Parameters as `<entry key="host">` or as `<host>`; a password given as cipher text is the one we hold.
fn read_params(el: &El, held: &[(String, String)]) -> Vec<(String, String)> {
    el.kids
        .iter()
        .map(|kid| {
            let key = kid.get_attr("key").unwrap_or(&kid.name).to_owned();
            let mut value = kid.text.clone();
            if key == "passwd" {
                if value.starts_with(CIPHER) {
                    value = held.iter().find(|(name, _)| *name == key).map(|(_, old)| old.clone()).unwrap_or_default();
                }
                value = value.strip_prefix("plain:").unwrap_or(&value).to_owned();
            }
            (key, value)
        })
        .collect()
}

/// Cipher text stand-in: its length follows the block size, as base64 of 8-byte blocks with salt.
pub(crate) fn cipher(clear: &str) -> String {
    let blocks = clear.len() / 8 + 1;
    format!("{CIPHER}{}", openssl::base64::encode_block(&vec![0x5a; 8 + 8 * blocks]))
}

fn write(store: &Store, base: &str, ws: &str) -> El {
    let mut params = El::new("connectionParameters");
    for (key, value) in &store.params {
        let shown = if key == "passwd" { cipher(value) } else { value.clone() };
        params = params.kid(El::leaf("entry", shown).attr("key", key));
    }
    let here = format!("{base}/rest/workspaces/{ws}");
    El::new("dataStore")
        .with("name", &store.name)
        .with_opt("description", store.description.as_ref())
        .with("type", "PostGIS")
        .with("enabled", store.enabled)
        .kid(El::new("workspace").with("name", ws).href(here.clone()))
        .kid(params)
        .with("_default", false)
        .with("dateCreated", DATE)
        .with_opt("dateModified", store.modified.then_some(DATE))
        .with("disableOnConnFailure", false)
        .kid(El::new("featureTypes").href(format!("{here}/datastores/{}/featuretypes", store.name)))
}

pub(crate) fn one(state: &State, at: &Target<'_>, ws: &str, name: &str) -> Answer {
    at.negotiate()?;
    let missing = || Fault::Missing(format!("No such datastore: {ws},{name}"));
    match at.method() {
        "GET" => {
            let doc = state.cat().store(ws, name).map(|store| write(store, &at.req.base, ws));
            at.show(&doc.ok_or_else(missing)?)
        }
        "PUT" => {
            let doc = at.req.document("dataStore")?;
            let mut cat = state.cat();
            let (id, ws_id) = cat.store(ws, name).map(|store| (store.id, store.ws)).ok_or_else(missing)?;
            if let Some(new) = doc.text_of("name").filter(|new| !new.is_empty())
                && cat.store_name_taken(ws_id, &new, id)
            {
                return Err(Fault::Unexpected(format!("Store '{new}' already exists in workspace '{ws}'")));
            }
            if let Some(store) = cat.stores.iter_mut().find(|store| store.id == id) {
                if let Some(new) = doc.text_of("name").filter(|new| !new.is_empty()) {
                    store.name = new;
                }
                if let Some(description) = doc.text_of("description") {
                    store.description = Some(description);
                }
                if let Some(enabled) = doc.text_of("enabled") {
                    store.enabled = enabled == "true";
                }
                if let Some(params) = doc.find("connectionParameters") {
                    store.params = read_params(params, &store.params);
                }
                store.modified = true;
            }
            cat.forget_store(id);
            Ok(Reply::new(200))
        }
        "DELETE" => {
            let mut cat = state.cat();
            let id = cat.store(ws, name).map(|store| store.id).ok_or_else(missing)?;
            let held: Vec<u64> = cat.resources.iter().filter(|held| held.store == id).map(|held| held.id).collect();
            if !held.is_empty() && !at.req.flag("recurse") {
                return Err(Fault::Refused(403, "Unable to delete non-empty store.".to_owned()));
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

/// Since 2.2x only: 2.18 knows no reset of one store.
pub(crate) fn reset(state: &State, at: &Target<'_>, ws: &str, name: &str) -> Answer {
    if at.req.version == Version::V2_18 {
        return Err(Fault::Unmapped);
    }
    match at.method() {
        "POST" | "PUT" => {
            let mut cat = state.cat();
            let id = cat.store(ws, name).map(|store| store.id);
            cat.forget_store(id.ok_or_else(|| Fault::Missing(format!("No such datastore: {ws},{name}")))?);
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Method("POST,PUT")),
    }
}
