//! The GeoServer client against a GeoServer and a PostGIS: what it converges, and at what price.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use borg_slave::geoserver::{
    Change, Endpoint, FeatureType, Freshness, GeoServer, LayerStyles, PostgisStore, ProjectionPolicy, Style,
    default_store_parameters,
};
use borg_slave::name::GeoName;
use secrecy::SecretString;
use serde_json::Value;

use crate::support::geoserver::{GeoServerDouble, Options, Version};
use crate::support::postgres::PrivatePostgres;
use crate::support::real_geoserver::RealGeoServer;

mod access_rules;
mod exchange;
mod feature_types;
mod grid_sets;
mod layer_groups;
mod maps;
mod stores;
mod styles;
mod tile_layers;
mod upstream;
mod wire;
mod wms_layers;
mod wms_stores;

const SAME: Freshness = Freshness { data_changed: false, columns_changed: false, boxes_were_given: false };
const DATA: Freshness = Freshness { data_changed: true, columns_changed: false, boxes_were_given: false };
const COLUMNS: Freshness = Freshness { data_changed: true, columns_changed: true, boxes_were_given: false };

/// A workspace of a test's own on the GeoServer under test, and a schema of the same name. Both go
/// at the end.
struct Target {
    url: String,
    username: String,
    password: String,
    server: GeoServer,
    workspace: GeoName,
    store: GeoName,
    database: tokio_postgres::Config,
    sql: tokio_postgres::Client,
    double: Option<GeoServerDouble>,
}

/// A cluster that takes any password: these tests change the one that a store has.
fn trusting_postgres() -> &'static PrivatePostgres {
    static SERVER: OnceLock<PrivatePostgres> = OnceLock::new();
    SERVER.get_or_init(PrivatePostgres::start_trusting)
}

async fn target(name: &str) -> Target {
    target_at(name, RealGeoServer::from_env().await).await
}

/// A target on a double of each version that is imitated, or on the real GeoServer.
async fn of_each_version(name: &str) -> Vec<Target> {
    if let Some(real) = RealGeoServer::from_env().await {
        return vec![target_at(name, Some(real)).await];
    }
    let mut targets = Vec::new();
    for version in [Version::V2_26, Version::V2_18] {
        let double = GeoServerDouble::start_with(Options { version, ..Options::default() });
        targets.push(target_on(name, None, Some(double)).await);
    }
    targets
}

/// A target on `real`, else on a double of its own.
async fn target_at(name: &str, real: Option<RealGeoServer>) -> Target {
    let double = if real.is_some() { None } else { Some(GeoServerDouble::start()) };
    target_on(name, real, double).await
}

async fn target_on(name: &str, real: Option<RealGeoServer>, double: Option<GeoServerDouble>) -> Target {
    let (url, username, password) = match (&real, &double) {
        (Some(real), _) => (real.url().to_owned(), real.username().to_owned(), real.password().to_owned()),
        (None, Some(double)) => (double.url(), "admin".to_owned(), "geoserver".to_owned()),
        (None, None) => unreachable!("one of them is there"),
    };
    let server = client(&url, &username, &password, Duration::from_secs(60));

    let postgres = trusting_postgres();
    let gis = postgres.database().await;
    let mut database = tokio_postgres::Config::new();
    database.host("127.0.0.1").port(postgres.port()).user("postgres").dbname(gis.name());
    let (sql, connection) = database.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let workspace = GeoName::workspace(format!("t{}_{name}", std::process::id())).unwrap();
    let target = Target {
        url,
        username,
        password,
        server,
        store: geo(&format!("{workspace}_ds")),
        workspace,
        database,
        sql,
        double,
    };
    target.execute("create schema {s}").await;
    target
}

fn client(url: &str, username: &str, password: &str, time_limit: Duration) -> GeoServer {
    GeoServer::new(Endpoint {
        url: url.parse().unwrap(),
        username: username.into(),
        password: SecretString::from(password),
        time_limit,
    })
    .unwrap()
}

fn geo(name: &str) -> GeoName {
    GeoName::new("test", name).unwrap()
}

impl Target {
    /// Runs SQL; `{s}` is the test's schema.
    async fn execute(&self, sql: &str) {
        self.sql.batch_execute(&sql.replace("{s}", self.workspace.as_str())).await.unwrap();
    }

    /// A table of ten lines from (115, -32) to (116 + `shift`, -31).
    async fn lines(&self, name: &str, shift: f64) {
        self.execute(&format!(
            "create table {{s}}.\"{name}\" (id serial primary key, label text, geom geometry(LineString, 4326));
             insert into {{s}}.\"{name}\" (label, geom)
             select 'r' || i, st_setsrid(st_makeline(st_point(115, -32), st_point(116 + {shift}, -31)), 4326)
             from generate_series(1, 10) i"
        ))
        .await;
    }

    fn postgis_store(&self, password: &str) -> PostgisStore {
        let mut parameters: BTreeMap<String, String> =
            default_store_parameters().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let host = match &self.database.get_hosts()[0] {
            tokio_postgres::config::Host::Tcp(host) => host.clone(),
            host => panic!("GeoServer connects over TCP, not to {host:?}"),
        };
        for (key, value) in [
            ("host", host),
            ("port", self.database.get_ports()[0].to_string()),
            ("database", self.database.get_dbname().unwrap().to_owned()),
            ("schema", self.workspace.as_str().to_owned()),
            ("user", self.database.get_user().unwrap().to_owned()),
        ] {
            parameters.insert(key.to_owned(), value);
        }
        PostgisStore {
            workspace: self.workspace.clone(),
            name: self.store.clone(),
            description: Some("made by a test".into()),
            parameters,
            password: Some(SecretString::from(password)),
        }
    }

    /// Workspace and store, ready for layers. Gives back the store's fingerprint.
    async fn ready(&self) -> String {
        let uri = format!("http://{}.example", self.workspace);
        assert_eq!(self.server.ensure_workspace(&self.workspace, &uri).await.unwrap(), Change::Created);
        let password = self.database.get_password().map_or("any".into(), |bytes| String::from_utf8_lossy(bytes));
        let (change, fingerprint) =
            self.server.ensure_postgis_store(&self.postgis_store(&password), None).await.unwrap();
        assert_eq!(change, Change::Created);
        fingerprint
    }

    fn lines_type(&self, name: &str) -> FeatureType {
        FeatureType {
            workspace: self.workspace.clone(),
            store: self.store.clone(),
            name: geo(name),
            native_name: name.into(),
            title: format!("Title of {name} – ü 道"),
            abstract_text: "First line\r\nsecond <line> & \u{1}more".into(),
            keywords: vec!["roads, tracks".into(), "back\\slash".into()],
            srs: "EPSG:4326".into(),
            projection_policy: ProjectionPolicy::ForceDeclared,
            boxes: None,
            sql_view: None,
            columns: vec!["id".into(), "label".into(), "geom".into()],
            enabled: true,
        }
    }

    fn styles(&self, layer: &str, styles: Vec<Style>) -> LayerStyles {
        LayerStyles { workspace: self.workspace.clone(), layer: geo(layer), styles, default: None, stale: vec![] }
    }

    /// Publishes styles that nothing is wrong with.
    async fn style(&self, wanted: &LayerStyles) {
        let outcome = self.server.publish_styles(wanted).await.unwrap();
        assert!(outcome.failed.is_empty() && outcome.kept.is_empty(), "{outcome:?}");
    }

    /// A request of the test's own. The status, and the body when that is JSON.
    async fn raw(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let path = path.replace("{w}", self.workspace.as_str()).replace("{s}", self.store.as_str());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http
            .request(method.parse().unwrap(), format!("{}/rest/{path}", self.url))
            .basic_auth(&self.username, Some(&self.password));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn feature_type(&self, name: &str) -> Value {
        let (status, body) = self.raw("GET", &format!("workspaces/{{w}}/featuretypes/{name}.json"), None).await;
        assert_eq!(status, 200, "{name}");
        body["featureType"].clone()
    }

    async fn layer(&self, name: &str) -> Value {
        let (status, body) = self.raw("GET", &format!("workspaces/{{w}}/layers/{name}.json"), None).await;
        assert_eq!(status, 200, "{name}");
        body["layer"].clone()
    }

    fn qualified(&self, name: &str) -> String {
        format!("{}:{name}", self.workspace)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let url = format!("{}/rest/workspaces/{}.json?recurse=true", self.url, self.workspace);
        let (username, password) = (self.username.clone(), self.password.clone());
        let (database, schema) = (self.database.clone(), self.workspace.clone());
        // In a thread of its own, because the test's runtime may be about to end in a panic.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let http = reqwest::Client::builder().no_proxy().build().unwrap();
                let _ = http.delete(url).basic_auth(username, Some(password)).send().await;
                if let Ok((sql, connection)) = database.connect(tokio_postgres::NoTls).await {
                    tokio::spawn(connection);
                    let _ = sql.batch_execute(&format!("drop schema if exists {schema} cascade")).await;
                }
            });
        });
        let _ = cleaner.join();
    }
}

fn sld(version: &str, color: &str) -> Vec<u8> {
    let (parameter, prefix) = match version {
        "1.0.0" => ("CssParameter", "sld"),
        _ => ("SvgParameter", "se"),
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- version="9" -->
<sld:StyledLayerDescriptor xmlns:sld="http://www.opengis.net/sld" xmlns:se="http://www.opengis.net/se" version="{version}">
  <sld:NamedLayer><{prefix}:Name>lines</{prefix}:Name><sld:UserStyle><{prefix}:FeatureTypeStyle><{prefix}:Rule>
    <{prefix}:LineSymbolizer><{prefix}:Stroke><{prefix}:{parameter} name="stroke">{color}</{prefix}:{parameter}></{prefix}:Stroke></{prefix}:LineSymbolizer>
  </{prefix}:Rule></{prefix}:FeatureTypeStyle></sld:UserStyle></sld:NamedLayer>
</sld:StyledLayerDescriptor>"#
    )
    .into_bytes()
}

fn style(name: &str) -> Style {
    Style { name: name.into(), sld: sld("1.0.0", "#AA0000"), pushed_before: false }
}

fn pushed(name: &str) -> Style {
    Style { pushed_before: true, ..style(name) }
}

fn numbers(bounds: &Value) -> [f64; 4] {
    ["minx", "miny", "maxx", "maxy"].map(|key| bounds[key].as_f64().unwrap())
}

/// A collection of one: 2.26 gives the one, 2.18 a list.
fn only(value: &Value) -> &Value {
    match value.as_array().map(Vec::as_slice) {
        Some([one]) => one,
        _ => value,
    }
}

fn columns(feature_type: &Value) -> Vec<&str> {
    let attributes = feature_type["attributes"]["attribute"].as_array().unwrap();
    attributes.iter().map(|attribute| attribute["name"].as_str().unwrap()).collect()
}
