//! What a GeoServer's catalog holds, asked over REST: real ones and the double are looked at alike.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// A GeoServer and its administrator.
pub(crate) struct Rest {
    http: Client,
    url: String,
    username: String,
    password: String,
}

/// A layer and its feature type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) title: String,
    pub(crate) abstract_text: String,
    pub(crate) srs: String,
    pub(crate) keywords: Vec<String>,
    pub(crate) default_style: Option<String>,
    /// Sorted.
    pub(crate) styles: Vec<String>,
    /// The columns that clients see.
    pub(crate) attributes: Vec<String>,
}

impl Rest {
    pub(crate) fn new(url: &str, username: &str, password: &str) -> Self {
        let http = Client::builder().no_proxy().build().unwrap();
        Self { http, url: url.to_owned(), username: username.to_owned(), password: password.to_owned() }
    }

    async fn send(&self, method: Method, path: &str) -> (StatusCode, String) {
        let url = format!("{}/rest/{path}", self.url);
        let request = self.http.request(method, url).basic_auth(&self.username, Some(&self.password));
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn get(&self, segments: &[&str]) -> Option<Value> {
        let path = format!("{}.json", path(segments));
        match self.send(Method::GET, &path).await {
            (StatusCode::OK, text) => Some(serde_json::from_str(&text).unwrap()),
            (StatusCode::NOT_FOUND, _) => None,
            (status, text) => panic!("{path}: {status}: {text}"),
        }
    }

    /// The names of a listing, sorted; none when there is no such thing.
    async fn names(&self, segments: &[&str], outer: &str, inner: &str) -> Vec<String> {
        let listing = self.get(segments).await.unwrap_or_default();
        let mut names: Vec<_> = many(&listing[outer][inner]).iter().map(|item| text(&item["name"])).collect();
        names.sort();
        names
    }

    /// As in `2.26.2`.
    pub(crate) async fn version(&self) -> String {
        let about = self.get(&["about", "version"]).await.unwrap();
        let parts = many(&about["about"]["resource"]);
        text(&parts.iter().find(|part| part["@name"] == "GeoServer").unwrap()["Version"])
    }

    pub(crate) async fn workspaces(&self) -> Vec<String> {
        self.names(&["workspaces"], "workspaces", "workspace").await
    }

    pub(crate) async fn stores(&self, workspace: &str) -> Vec<String> {
        self.names(&["workspaces", workspace, "datastores"], "dataStores", "dataStore").await
    }

    pub(crate) async fn layers(&self, workspace: &str) -> Vec<String> {
        self.names(&["workspaces", workspace, "layers"], "layers", "layer").await
    }

    pub(crate) async fn styles(&self, workspace: &str) -> Vec<String> {
        self.names(&["workspaces", workspace, "styles"], "styles", "style").await
    }

    pub(crate) async fn layer(&self, workspace: &str, name: &str) -> Option<Seen> {
        let layer = self.get(&["workspaces", workspace, "layers", name]).await?;
        let layer = &layer["layer"];
        let store = format!("{workspace}_ds");
        let kind = self.get(&["workspaces", workspace, "datastores", &store, "featuretypes", name]).await?;
        let kind = &kind["featureType"];
        let mut styles: Vec<_> = many(&layer["styles"]["style"]).iter().map(|style| text(&style["name"])).collect();
        styles.sort();
        Some(Seen {
            title: text(&kind["title"]),
            abstract_text: text(&kind["abstract"]),
            srs: text(&kind["srs"]),
            keywords: many(&kind["keywords"]["string"]).iter().map(text).collect(),
            default_style: layer["defaultStyle"]["name"].as_str().map(str::to_owned),
            styles,
            attributes: many(&kind["attributes"]["attribute"]).iter().map(|column| text(&column["name"])).collect(),
        })
    }

    pub(crate) async fn wms_stores(&self, workspace: &str) -> Vec<String> {
        self.names(&["workspaces", workspace, "wmsstores"], "wmsStores", "wmsStore").await
    }

    /// Store and native name of a cascaded layer.
    pub(crate) async fn wms_layer(&self, workspace: &str, name: &str) -> Option<(String, String)> {
        let layer = self.get(&["workspaces", workspace, "wmslayers", name]).await?;
        let layer = &layer["wmsLayer"];
        Some((text(&layer["store"]["name"]), text(&layer["nativeName"])))
    }

    /// The members of a layer group, in order.
    pub(crate) async fn group(&self, workspace: &str, name: &str) -> Option<Vec<String>> {
        let group = self.get(&["workspaces", workspace, "layergroups", name]).await?;
        Some(
            many(&group["layerGroup"]["publishables"]["published"])
                .iter()
                .map(|member| text(&member["name"]))
                .collect(),
        )
    }

    /// Formats and grid sets of a tile layer, sorted.
    pub(crate) async fn tile_layer(&self, workspace: &str, name: &str) -> Option<(Vec<String>, Vec<String>)> {
        let path = format!("../gwc/rest/layers/{}.json", path(&[&format!("{workspace}:{name}")]));
        let layer: Value = match self.send(Method::GET, &path).await {
            (StatusCode::OK, text) => serde_json::from_str(&text).unwrap(),
            _ => return None,
        };
        let layer = &layer["GeoServerLayer"];
        let mut formats: Vec<String> = many(&layer["mimeFormats"]).iter().map(text).collect();
        let mut grids: Vec<String> =
            many(&layer["gridSubsets"]).iter().map(|grid| text(&grid["gridSetName"])).collect();
        formats.sort();
        grids.sort();
        Some((formats, grids))
    }

    /// The access rules; the roles of each sorted.
    pub(crate) async fn rules(&self) -> std::collections::BTreeMap<String, String> {
        let rules = self.get(&["security", "acl", "layers"]).await.unwrap();
        let sorted = |roles: &Value| {
            let roles = text(roles);
            let mut roles: Vec<&str> = roles.split(',').collect();
            roles.sort_unstable();
            roles.join(",")
        };
        rules.as_object().unwrap().iter().map(|(rule, roles)| (rule.clone(), sorted(roles))).collect()
    }

    /// Adds an access rule, as an administrator does.
    pub(crate) async fn add_rule(&self, rule: &str, roles: &str) {
        let url = format!("{}/rest/security/acl/layers.json", self.url);
        let request = self.http.post(url).basic_auth(&self.username, Some(&self.password));
        let answer = request.json(&serde_json::json!({ rule: roles })).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{rule}");
    }

    /// Takes a workspace away with all it holds.
    pub(crate) async fn drop_workspace(&self, workspace: &str) {
        let _ = self.send(Method::DELETE, &format!("{}?recurse=true", path(&["workspaces", workspace]))).await;
    }
}

/// What stays as it is in a path segment.
const SEGMENT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn path(segments: &[&str]) -> String {
    let encoded = segments.iter().map(|text| utf8_percent_encode(text, &SEGMENT).to_string());
    encoded.collect::<Vec<_>>().join("/")
}

/// GeoServer writes a list of one now as a list, now as the one.
fn many(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        one => vec![one.clone()],
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
