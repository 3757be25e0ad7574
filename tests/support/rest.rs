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
