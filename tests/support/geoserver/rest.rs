//! What lies where below `/rest`, under the one lock.

use super::doc::El;
use super::http::{Answer, Fault, Format, Reply, Req, split_ext};
use super::{
    State, about, data_dir, data_store, feature_type, group, layer, lock, security, style, wms_store, workspace,
};

/// Where a request goes: decoded names, and the extension of the last one.
pub(crate) struct Target<'a> {
    pub(crate) req: &'a Req,
    pub(crate) ext: Option<&'a str>,
}

impl Target<'_> {
    pub(crate) fn method(&self) -> &str {
        &self.req.method
    }

    /// The document in the format that was asked for, JSON when nothing was said.
    pub(crate) fn show(&self, el: &El) -> Answer {
        Ok(match self.req.format(self.ext, false)? {
            Format::Xml => Reply::text(200, "application/xml", el.to_xml()),
            Format::Html => Reply::text(200, "text/html", html(el)),
            _ => Reply::text(200, "application/json", json_text(self.req, &el.to_json())),
        })
    }

    /// Extension and Accept are checked before anything is done, for writes too.
    pub(crate) fn negotiate(&self) -> Result<(), Fault> {
        self.req.format(self.ext, false).map(|_| ())
    }
}

/// JSON as text; 2.18 escapes slashes, and gives keywords and styles as lists also when there is but one.
pub(crate) fn json_text(req: &Req, value: &serde_json::Value) -> String {
    if req.version != super::Version::V2_18 {
        return value.to_string();
    }
    let mut value = value.clone();
    if let Some(document) = value.as_object_mut().and_then(|root| root.values_mut().next()) {
        for (outer, inner) in [("keywords", "string"), ("styles", "style")] {
            if let Some(one) =
                document.get_mut(outer).and_then(|list| list.get_mut(inner)).filter(|one| !one.is_array())
            {
                *one = serde_json::Value::Array(vec![one.take()]);
            }
        }
    }
    value.to_string().replace('/', "\\/")
}

fn html(el: &El) -> String {
    format!(
        "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n    \
         \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n<head>\n    \
         <title>GeoServer Configuration</title>\n</head>\n<body>\n\n{} \"{}\"\n</body>\n</html>\n",
        el.name,
        el.text_of("name").unwrap_or_default()
    )
}

pub(crate) async fn answer(state: &State, req: &Req) -> Answer {
    let segments = req.segments();
    let mut parts: Vec<&str> = segments.iter().skip(1).map(String::as_str).collect();
    if parts.first() == Some(&"about") {
        return about::answer(req, &parts[1..]);
    }
    let secured = parts.first().is_some_and(|part| ["security", "resource"].contains(part));
    let (name, ext) = split_ext(parts.last().copied().unwrap_or_default());
    if let Some(last) = parts.last_mut().filter(|_| !secured) {
        *last = &name;
    }
    let at = Target { req, ext: ext.as_deref() };
    let pace = lock(&state.pace).of(req);
    let (read, write);
    if req.method == "GET" {
        read = state.rest.read().await;
        tokio::time::sleep(pace).await;
        let answer = locked(state, &at, &parts).await;
        drop(read);
        answer
    } else {
        write = state.rest.write().await;
        tokio::time::sleep(pace).await;
        if req.method == "PUT" && parts.as_slice() == ["security", "acl", "layers.json"] {
            security::change_rules(state, req).await;
        }
        let answer = locked(state, &at, &parts).await;
        drop(write);
        answer
    }
}

async fn locked(state: &State, at: &Target<'_>, parts: &[&str]) -> Answer {
    match *parts {
        ["security", ref rest @ ..] => security::answer(state, at.req, rest),
        ["resource", ref rest @ ..] => data_dir::resource(&mut state.cat(), at.req, rest),
        ["reset"] => match at.method() {
            "POST" | "PUT" => {
                let mut cat = state.cat();
                cat.attributes.clear();
                cat.remote.clear();
                Ok(Reply::new(200))
            }
            _ => Err(Fault::Method("POST,PUT")),
        },
        ["reload"] => match at.method() {
            "POST" | "PUT" => {
                let mut cat = state.cat();
                cat.attributes.clear();
                cat.remote.clear();
                // Such a workspace was never written to disk.
                let odd: Vec<u64> = cat.workspaces.iter().filter(|ws| ws.name.contains('/')).map(|ws| ws.id).collect();
                for id in odd {
                    cat.drop_workspace(id, false);
                }
                Ok(Reply::new(200))
            }
            _ => Err(Fault::Method("POST,PUT")),
        },
        ["workspaces"] => workspace::all(state, at),
        ["workspaces", "default"] => workspace::default(state, at),
        ["workspaces", ws] => workspace::one(state, at, ws),
        ["namespaces"] => workspace::namespaces(state, at),
        ["namespaces", prefix] => workspace::namespace(state, at, prefix),
        ["workspaces", ws, "datastores"] => data_store::all(state, at, ws),
        ["workspaces", ws, "datastores", store] => data_store::one(state, at, ws, store),
        ["workspaces", ws, "datastores", store, "reset"] => data_store::reset(state, at, ws, store),
        ["workspaces", ws, "datastores", store, "featuretypes"] => feature_type::all(state, at, ws, Some(store)).await,
        ["workspaces", ws, "datastores", store, "featuretypes", name] => {
            feature_type::one(state, at, ws, Some(store), name).await
        }
        ["workspaces", ws, "datastores", store, "featuretypes", name, "reset"] => {
            feature_type::reset(state, at, ws, Some(store), name)
        }
        ["workspaces", ws, "featuretypes"] => feature_type::all(state, at, ws, None).await,
        ["workspaces", ws, "featuretypes", name] => feature_type::one(state, at, ws, None, name).await,
        ["workspaces", ws, "featuretypes", name, "reset"] => feature_type::reset(state, at, ws, None, name),
        ["layers"] => layer::all(state, at, None),
        ["layers", name] => layer::one(state, at, None, name),
        ["layers", name, "styles"] => layer::styles(state, at, name),
        ["workspaces", ws, "layers"] => layer::all(state, at, Some(ws)),
        ["workspaces", ws, "layers", name] => layer::one(state, at, Some(ws), name),
        ["styles"] => style::all(state, at, None),
        ["styles", name] => style::one(state, at, None, name),
        ["workspaces", ws, "styles"] => style::all(state, at, Some(ws)),
        ["workspaces", ws, "styles", name] => style::one(state, at, Some(ws), name),
        ["layergroups"] => group::all(state, at, None),
        ["layergroups", name] => group::one(state, at, None, name),
        ["workspaces", ws, "layergroups"] => group::all(state, at, Some(ws)),
        ["workspaces", ws, "layergroups", name] => group::one(state, at, Some(ws), name),
        ["workspaces", ws, "wmsstores"] => wms_store::all(state, at, ws),
        ["workspaces", ws, "wmsstores", store] => wms_store::one(state, at, ws, store),
        ["workspaces", ws, "wmsstores", store, "wmslayers"] => wms_store::layers(state, at, ws, Some(store)).await,
        ["workspaces", ws, "wmsstores", store, "wmslayers", name] => {
            wms_store::layer(state, at, ws, Some(store), name).await
        }
        ["workspaces", ws, "wmslayers"] => wms_store::layers(state, at, ws, None).await,
        ["workspaces", ws, "wmslayers", name] => wms_store::layer(state, at, ws, None, name).await,
        ["workspaces", _, "coveragestores"] if at.method() == "GET" => at.show(&El::new("coverageStores")),
        ["workspaces", _, "coverages"] if at.method() == "GET" => at.show(&El::new("coverages")),
        ["workspaces", _, "wmtsstores"] if at.method() == "GET" => at.show(&El::new("wmtsStores")),
        ["workspaces", ws, "coveragestores", name] => {
            at.negotiate()?;
            Err(Fault::Missing(format!("No such coverage store: {ws},{name}")))
        }
        ["workspaces", ws, "wmtsstores", name] => {
            at.negotiate()?;
            Err(Fault::Missing(format!("No such wmts store: {ws},{name}")))
        }
        _ => Err(Fault::Unmapped),
    }
}
