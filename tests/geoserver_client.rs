//! The GeoServer client against a GeoServer and a PostGIS: what it converges, and at what price.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{
    Boxes, Change, Endpoint, FeatureType, Freshness, GeoServer, LayerStyles, PostgisStore, ProjectionPolicy,
    RequestCount, SqlView, Style, Version, ViewGeometry, default_store_parameters,
};
use borg_slave::name::GeoName;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::geoserver::GeoServerDouble;
use crate::support::postgres::PrivatePostgres;
use crate::support::real_geoserver::RealGeoServer;

const SAME: Freshness = Freshness { data_changed: false, columns_changed: false };
const DATA: Freshness = Freshness { data_changed: true, columns_changed: false };
const COLUMNS: Freshness = Freshness { data_changed: true, columns_changed: true };

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
    _double: Option<GeoServerDouble>,
}

/// A cluster that takes any password: these tests change the one that a store has.
fn trusting_postgres() -> &'static PrivatePostgres {
    static SERVER: OnceLock<PrivatePostgres> = OnceLock::new();
    SERVER.get_or_init(PrivatePostgres::start_trusting)
}

async fn target(name: &str) -> Target {
    let real = RealGeoServer::from_env().await;
    let double = if real.is_some() { None } else { Some(GeoServerDouble::start()) };
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
        _double: double,
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

fn columns(feature_type: &Value) -> Vec<&str> {
    let attributes = feature_type["attributes"]["attribute"].as_array().unwrap();
    attributes.iter().map(|attribute| attribute["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_version_is_told_and_wrong_credentials_are_named() {
    let t = target("version").await;
    assert!(t.server.version().await.unwrap() >= Version { major: 2, minor: 18, patch: 0 });

    let intruder = client(&t.url, "admin", "hunter2", Duration::from_secs(20));
    let error = intruder.version().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let told = format!("{} {error:?}", error.paragraph());
    assert!(told.contains("GEOSERVER_USERNAME") && told.contains(&t.url), "{told}");
    assert!(!told.contains("hunter2"), "{told}");

    let elsewhere = client(&format!("{}/nowhere", t.url), &t.username, &t.password, Duration::from_secs(20));
    let error = elsewhere.version().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert!(error.paragraph().contains("GEOSERVER_URL"), "{}", error.paragraph());
}

#[tokio::test]
async fn a_workspace_gets_its_namespace_and_keeps_it() {
    let t = target("workspace").await;
    let uri = |text: &str| format!("http://{}.{text}", t.workspace);
    assert_eq!(t.server.ensure_workspace(&t.workspace, &uri("a")).await.unwrap(), Change::Created);
    t.server.forget().await;
    assert_eq!(t.server.ensure_workspace(&t.workspace, &uri("a")).await.unwrap(), Change::Unchanged);
    let sent = t.server.requests();
    assert_eq!(t.server.ensure_workspace(&t.workspace, &uri("a")).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests(), sent, "what was read once is remembered");
    assert_eq!(t.server.ensure_workspace(&t.workspace, &uri("b")).await.unwrap(), Change::Updated);
    let (_, shown) = t.raw("GET", "namespaces/{w}.json", None).await;
    assert_eq!(shown["namespace"]["uri"], uri("b"));

    let other = GeoName::workspace(format!("{}_2", t.workspace)).unwrap();
    let error = t.server.ensure_workspace(&other, &uri("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert!(error.paragraph().contains("GEOSERVER_WORKSPACE_NAMESPACE"), "{}", error.paragraph());
}

#[tokio::test]
async fn a_store_is_written_only_when_something_differs_and_keeps_all_its_parameters() {
    let t = target("store").await;
    let fingerprint = t.ready().await;
    let password = t.database.get_password().map_or("any".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    let store = t.postgis_store(&password);

    t.server.forget().await;
    let before = t.server.requests();
    let (change, same) = t.server.ensure_postgis_store(&store, Some(&fingerprint)).await.unwrap();
    assert_eq!((change, &same), (Change::Unchanged, &fingerprint));
    assert_eq!(t.server.requests().since(before).writes, 0);

    // GeoServer cannot tell whether it has this password; so without a memory it is written.
    t.server.forget().await;
    let (change, _) = t.server.ensure_postgis_store(&store, None).await.unwrap();
    assert_eq!(change, Change::Updated);

    // Somebody changed a parameter by hand.
    let path = "workspaces/{w}/datastores/{s}.json";
    let (_, mut document) = t.raw("GET", path, None).await;
    let entries = document["dataStore"]["connectionParameters"]["entry"].as_array_mut().unwrap();
    let fetch = entries.iter_mut().find(|entry| entry["@key"] == "fetch size").unwrap();
    fetch["$"] = json!("7");
    assert_eq!(t.raw("PUT", path, Some(document)).await.0, 200);
    t.server.forget().await;
    let (change, _) = t.server.ensure_postgis_store(&store, Some(&fingerprint)).await.unwrap();
    assert_eq!(change, Change::Updated);

    let (_, shown) = t.raw("GET", path, None).await;
    let entries = shown["dataStore"]["connectionParameters"]["entry"].as_array().unwrap();
    let shown: BTreeMap<&str, &str> =
        entries.iter().map(|entry| (entry["@key"].as_str().unwrap(), entry["$"].as_str().unwrap())).collect();
    for (key, value) in default_store_parameters() {
        assert_eq!(shown.get(key), Some(&value), "{key}");
    }
    assert_eq!(shown["namespace"], format!("http://{}.example", t.workspace));
    assert!(shown["passwd"].starts_with("crypt1:"), "the password is there, encrypted");

    let (change, other) = t.server.ensure_postgis_store(&t.postgis_store("another"), Some(&fingerprint)).await.unwrap();
    assert_eq!(change, Change::Updated);
    assert_ne!(other, fingerprint);
}

#[tokio::test]
async fn a_layer_is_first_published_with_one_request_each_and_then_left_alone() {
    let t = target("publish").await;
    t.ready().await;
    t.lines("roads.night", 0.0).await;
    t.lines("tracks", 0.0).await;
    let publish = async |name: &str, styles: Vec<Style>| {
        let change = t.server.publish_feature_type(&t.lines_type(name), SAME).await.unwrap();
        let outcome = t.server.publish_styles(&t.styles(name, styles)).await.unwrap();
        assert!(outcome.failed.is_empty() && outcome.kept.is_empty(), "{outcome:?}");
        (change, outcome)
    };
    let _ = publish("tracks", vec![]).await;
    let before = t.server.requests();
    let (change, outcome) = publish("roads.night", vec![style("roads.night"), style("roads.night.thin")]).await;
    assert_eq!((change, outcome.change), (Change::Created, Change::Updated));
    assert_eq!(outcome.pushed, ["roads.night", "roads.night.thin"]);
    let sent = t.server.requests().since(before);
    assert_eq!(sent, RequestCount { reads: 1, writes: 4 }, "type, two styles and layer; one read to verify");

    let layer = t.layer("roads.night").await;
    assert_eq!(layer["defaultStyle"]["name"], t.qualified("roads.night"));
    assert_eq!(layer["styles"]["style"]["name"], t.qualified("roads.night.thin"));
    let shown = t.feature_type("roads.night").await;
    assert_eq!(shown["title"], "Title of roads.night – ü 道");
    assert_eq!(shown["abstract"], "First line\nsecond <line> & more");
    assert_eq!(shown["keywords"]["string"], json!(["roads, tracks", "back slash"]));
    assert_eq!(numbers(&shown["latLonBoundingBox"]), [115.0, -32.0, 116.0, -31.0]);
    assert_eq!(columns(&shown), ["id", "label", "geom"]);

    let before = t.server.requests();
    let (change, outcome) = publish("roads.night", vec![pushed("roads.night"), pushed("roads.night.thin")]).await;
    assert_eq!((change, outcome.change), (Change::Unchanged, Change::Unchanged));
    let sent = t.server.requests().since(before);
    assert_eq!(sent, RequestCount { reads: 2, writes: 0 }, "type and layer are read");
}

#[tokio::test]
async fn an_update_in_place_keeps_the_layer_and_sends_what_differs() {
    let t = target("update").await;
    t.ready().await;
    t.lines("roads", 0.0).await;
    let first = t.lines_type("roads");
    t.server.publish_feature_type(&first, SAME).await.unwrap();
    t.raw("PUT", "workspaces/{w}/layers/roads.json", Some(json!({"layer": {"path": "/kept"}}))).await;

    let other = FeatureType { title: "Streets".into(), keywords: vec![], enabled: false, ..first.clone() };
    assert_eq!(t.server.publish_feature_type(&other, SAME).await.unwrap(), Change::Updated);
    let shown = t.feature_type("roads").await;
    assert_eq!((&shown["title"], &shown["enabled"]), (&json!("Streets"), &json!(false)));
    assert!(shown["keywords"]["string"].is_null(), "{}", shown["keywords"]);
    assert_eq!(t.server.publish_feature_type(&other, SAME).await.unwrap(), Change::Unchanged);

    let boxes =
        Boxes { native: [100.0, -40.0, 120.0, -20.0], lat_lon: [100.0, -40.0, 120.0, -20.0], crs: "EPSG:4326".into() };
    let given = FeatureType { boxes: Some(boxes), ..first.clone() };
    assert_eq!(t.server.publish_feature_type(&given, SAME).await.unwrap(), Change::Updated);
    assert_eq!(t.server.publish_feature_type(&given, DATA).await.unwrap(), Change::Unchanged, "given boxes stay");
    assert_eq!(numbers(&t.feature_type("roads").await["nativeBoundingBox"]), [100.0, -40.0, 120.0, -20.0]);
    assert_eq!(t.layer("roads").await["path"], "/kept");
}

#[tokio::test]
async fn new_data_give_new_boxes_and_new_columns_are_seen() {
    let t = target("fresh").await;
    t.ready().await;
    t.lines("a", 0.0).await;
    t.lines("b", 2.0).await;
    t.execute("alter table {s}.b rename label to name_of; alter table {s}.b add extra int; create view {s}.roads as select * from {s}.a").await;
    let first = t.lines_type("roads");
    t.server.publish_feature_type(&first, SAME).await.unwrap();

    t.execute("insert into {s}.a (geom) select st_setsrid(st_makeline(st_point(110, -32), st_point(116, -31)), 4326)")
        .await;
    assert_eq!(t.server.publish_feature_type(&first, DATA).await.unwrap(), Change::Updated);
    assert_eq!(numbers(&t.feature_type("roads").await["latLonBoundingBox"]), [110.0, -32.0, 116.0, -31.0]);

    t.execute("drop view {s}.roads; create view {s}.roads as select * from {s}.b").await;
    t.server.reset_feature_type(&t.workspace, &t.store, &first.name).await.unwrap();
    let shown = t.feature_type("roads").await;
    assert_eq!(columns(&shown), ["id", "name_of", "geom", "extra"]);
    let second =
        FeatureType { columns: ["id", "name_of", "geom", "extra"].map(str::to_owned).to_vec(), ..first.clone() };
    assert_eq!(t.server.publish_feature_type(&second, COLUMNS).await.unwrap(), Change::Updated);
    assert_eq!(numbers(&t.feature_type("roads").await["latLonBoundingBox"]), [115.0, -32.0, 118.0, -31.0]);

    // A change that nobody told of is seen by its columns.
    t.execute("drop view {s}.roads; create view {s}.roads as select * from {s}.a").await;
    assert_eq!(t.server.publish_feature_type(&first, SAME).await.unwrap(), Change::Updated);
    assert_eq!(columns(&t.feature_type("roads").await), ["id", "label", "geom"]);

    // A wrong picture of the relation is not taken for success.
    let wrong = FeatureType { columns: vec!["gid".into()], ..first };
    let error = t.server.publish_feature_type(&wrong, COLUMNS).await.unwrap_err();
    assert!(error.message().contains("id, label"), "{}", error.paragraph());
    t.server.reset_feature_type(&t.workspace, &t.store, &geo("nowhere")).await.unwrap();
}

#[tokio::test]
async fn a_missing_relation_is_named_and_makes_no_table() {
    let t = target("missing").await;
    t.ready().await;
    let error = t.server.publish_feature_type(&t.lines_type("nowhere"), SAME).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert!(error.paragraph().contains("sees no relation \"nowhere\""), "{}", error.paragraph());
    let made = t.sql.query("select 1 from pg_tables where schemaname = $1", &[&t.workspace.as_str()]).await.unwrap();
    assert!(made.is_empty());
}

#[tokio::test]
async fn an_sql_view_is_published_changed_and_never_left_half_made() {
    let t = target("sqlview").await;
    t.ready().await;
    t.lines("roads", 0.0).await;
    let view = |sql: &str| FeatureType {
        sql_view: Some(SqlView {
            sql: sql.replace("{s}", t.workspace.as_str()),
            geometry: Some(ViewGeometry { column: "geom".into(), kind: "LINESTRING".into(), srid: 4326 }),
            key_column: Some("id".into()),
        }),
        columns: vec![],
        boxes: Some(Boxes { native: [1.0, 2.0, 3.0, 4.0], lat_lon: [1.0, 2.0, 3.0, 4.0], crs: "EPSG:4326".into() }),
        ..t.lines_type("some")
    };
    let error = t.server.publish_feature_type(&view("selct"), SAME).await.unwrap_err();
    assert!(error.paragraph().contains("psql"), "{}", error.paragraph());
    let (status, _) = t.raw("GET", "workspaces/{w}/featuretypes/some.json", None).await;
    assert_eq!(status, 404, "what the failure left is gone");

    let good = view("select id, geom from {s}.roads where id < 5;\n");
    assert_eq!(t.server.publish_feature_type(&good, SAME).await.unwrap(), Change::Created);
    assert_eq!(columns(&t.feature_type("some").await), ["id", "geom"]);
    assert_eq!(t.server.publish_feature_type(&good, SAME).await.unwrap(), Change::Unchanged);

    let more = view("select id, label, geom from {s}.roads");
    assert_eq!(t.server.publish_feature_type(&more, SAME).await.unwrap(), Change::Updated);
    assert_eq!(columns(&t.feature_type("some").await), ["id", "label", "geom"]);
    let error = t.server.publish_feature_type(&view("selct"), SAME).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert_eq!(t.server.publish_feature_type(&more, SAME).await.unwrap(), Change::Updated, "it is repaired");

    let plain = FeatureType { native_name: "roads".into(), ..t.lines_type("some") };
    assert_eq!(t.server.publish_feature_type(&plain, SAME).await.unwrap(), Change::Updated);
    let shown = t.feature_type("some").await;
    assert_eq!((&shown["nativeName"], &shown["metadata"]), (&json!("roads"), &Value::Null));
    assert_eq!(numbers(&shown["nativeBoundingBox"]), [115.0, -32.0, 116.0, -31.0]);
}

#[tokio::test]
async fn a_type_of_another_store_is_moved_with_its_layer() {
    let t = target("move").await;
    t.ready().await;
    t.lines("roads", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap();
    t.style(&t.styles("roads", vec![style("roads")])).await;
    let live = geo("live");
    let store = PostgisStore { name: live.clone(), ..t.postgis_store("any") };
    t.server.ensure_postgis_store(&store, None).await.unwrap();

    let moved = FeatureType { store: live.clone(), ..t.lines_type("roads") };
    assert_eq!(t.server.publish_feature_type(&moved, SAME).await.unwrap(), Change::Updated);
    assert_eq!(t.feature_type("roads").await["store"]["name"], t.qualified("live"));
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads"));
    assert_eq!(t.server.publish_feature_type(&moved, SAME).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap(), Change::Updated);
}

#[tokio::test]
async fn what_others_changed_meanwhile_is_met_where_it_is() {
    let t = target("meanwhile").await;
    t.ready().await;
    t.lines("roads", 0.0).await;
    let roads = t.lines_type("roads");
    let item = "workspaces/{w}/datastores/{s}/featuretypes/roads.json?recurse=true";
    // Made by another since the list was read.
    let document = json!({"featureType": {"name": "roads"}});
    t.raw("POST", "workspaces/{w}/datastores/{s}/featuretypes.json", Some(document)).await;
    assert_eq!(t.server.publish_feature_type(&roads, SAME).await.unwrap(), Change::Updated);
    // Deleted by another since.
    assert_eq!(t.raw("DELETE", item, None).await.0, 200);
    assert_eq!(t.server.publish_feature_type(&roads, SAME).await.unwrap(), Change::Created);
    // Its layer alone was deleted.
    assert_eq!(t.raw("DELETE", "workspaces/{w}/layers/roads.json", None).await.0, 200);
    assert_eq!(t.server.publish_feature_type(&roads, SAME).await.unwrap(), Change::Created);
    assert!(t.server.layer_exists(&t.workspace, &roads.name).await.unwrap());

    // A style that was removed and one that was added.
    let styles = t.styles("roads", vec![style("roads")]);
    t.style(&styles).await;
    assert_eq!(t.raw("DELETE", "workspaces/{w}/styles/roads.json?recurse=true", None).await.0, 200);
    let outcome = t.server.publish_styles(&styles).await.unwrap();
    assert_eq!((outcome.failed.len(), outcome.pushed.len()), (0, 1), "{outcome:?}");
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads"));
}

#[tokio::test]
async fn a_bad_style_fails_alone_and_says_why() {
    let t = target("badstyle").await;
    t.ready().await;
    t.lines("roads", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap();
    let bad = |name: &str, text: &str| Style { sld: text.as_bytes().to_vec(), ..style(name) };

    let wanted = LayerStyles {
        default: Some("roads".into()),
        ..t.styles(
            "roads",
            vec![bad("roads", "<StyledLayerDescriptor version='1.0.0'><a>"), style("roads.x"), bad("a/b", "")],
        )
    };
    let outcome = t.server.publish_styles(&wanted).await.unwrap();
    let failed: Vec<_> = outcome.failed.iter().map(|(name, error)| (name.as_str(), error.kind())).collect();
    assert_eq!(failed, [("roads", ErrorKind::Document), ("a/b", ErrorKind::Document)]);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads.x"), "the first good one");

    // Well-formed, but only GeoServer sees that there is nothing in it.
    let wanted = t.styles("roads", vec![bad("roads", "<StyledLayerDescriptor version='1.0.0'/>"), pushed("roads.x")]);
    let outcome = t.server.publish_styles(&wanted).await.unwrap();
    let failed: Vec<_> = outcome.failed.iter().map(|(name, error)| (name.as_str(), error.kind())).collect();
    assert_eq!(failed, [("roads", ErrorKind::GeoServer)]);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads.x"));

    // A default that was good stays in its old form.
    let outcome = t.server.publish_styles(&t.styles("roads", vec![style("roads"), pushed("roads.x")])).await.unwrap();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads"));
    let outcome =
        t.server.publish_styles(&t.styles("roads", vec![bad("roads", "<x/>"), pushed("roads.x")])).await.unwrap();
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads"));
}

#[tokio::test]
async fn the_version_of_a_style_is_told_to_geoserver() {
    let t = target("sld").await;
    t.ready().await;
    t.lines("roads", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap();
    let version = async |sld: Vec<u8>| {
        let style = Style { sld, ..style("roads") };
        let outcome = t.server.publish_styles(&t.styles("roads", vec![style])).await.unwrap();
        assert!(outcome.failed.is_empty(), "{outcome:?}");
        let (_, shown) = t.raw("GET", "workspaces/{w}/styles/roads.json", None).await;
        shown["style"]["languageVersion"]["version"].as_str().unwrap().to_owned()
    };
    assert_eq!(version(sld("1.1.0", "#0000AA")).await, "1.1.0");
    assert_eq!(version(sld("1.0.0", "#0000AA")).await, "1.0.0");
    let mut marked = b"\xef\xbb\xbf".to_vec();
    marked.extend(sld("1.1.0", "#00AAAA"));
    assert_eq!(version(marked).await, "1.1.0");
}

#[tokio::test]
async fn stale_styles_go_by_their_exact_name_unless_they_are_used() {
    let t = target("stale").await;
    t.ready().await;
    for name in ["roads", "roads_major"] {
        t.lines(name, 0.0).await;
        t.server.publish_feature_type(&t.lines_type(name), SAME).await.unwrap();
    }
    let all = vec![style("roads"), style("roads.old"), style("roads.shared")];
    t.style(&t.styles("roads", all)).await;
    let majors = vec![style("roads_major"), style("roads.shared")];
    t.style(&t.styles("roads_major", majors)).await;

    let stale: Vec<String> = ["roads.old", "roads.shared", "roads.never"].map(str::to_owned).to_vec();
    let wanted = LayerStyles { stale: stale.clone(), ..t.styles("roads", vec![pushed("roads")]) };
    let outcome = t.server.publish_styles(&wanted).await.unwrap();
    assert_eq!(outcome.change, Change::Updated);
    assert_eq!(outcome.kept.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["roads.shared"]);
    assert_eq!(t.server.publish_styles(&wanted).await.unwrap().change, Change::Unchanged);
    let (_, shown) = t.raw("GET", "workspaces/{w}/styles.json", None).await;
    let mut names: Vec<_> =
        shown["styles"]["style"].as_array().unwrap().iter().map(|style| style["name"].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["roads", "roads.shared", "roads_major"]);

    // Without any style left, the layer still is drawn.
    let none = LayerStyles { stale: vec!["roads".into()], ..t.styles("roads", vec![]) };
    assert_eq!(t.server.publish_styles(&none).await.unwrap().change, Change::Updated);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], "generic");
    assert_eq!(t.raw("GET", "workspaces/{w}/styles/roads.json", None).await.0, 404);
}

#[tokio::test]
async fn a_removed_layer_leaves_nothing_and_takes_no_group_with_it() {
    let t = target("remove").await;
    t.ready().await;
    for name in ["roads", "roads.night", "rail"] {
        t.lines(name, 0.0).await;
        t.server.publish_feature_type(&t.lines_type(name), SAME).await.unwrap();
        t.style(&t.styles(name, vec![style(name)])).await;
    }
    let remove = async |name: &str| t.server.remove_layer(&t.workspace, &t.store, &geo(name), &[name.to_owned()]).await;
    assert_eq!(remove("roads.night").await.unwrap(), Change::Updated);
    assert_eq!(remove("roads.night").await.unwrap(), Change::Unchanged);
    assert!(t.server.layer_exists(&t.workspace, &geo("roads")).await.unwrap(), "its neighbour stays");
    assert_eq!(t.raw("GET", "workspaces/{w}/styles/roads.json", None).await.0, 200);
    assert_eq!(t.raw("GET", "workspaces/{w}/styles/roads.night.json", None).await.0, 404);

    let member = |name: &str| json!({"@type": "layer", "name": t.qualified(name)});
    for (group, members) in [("both", vec![member("roads"), member("rail")]), ("only", vec![member("rail")])] {
        let styles: Vec<&str> = members.iter().map(|_| "").collect();
        let document = json!({"layerGroup": {"name": group, "mode": "SINGLE", "publishables": {"published": members}, "styles": {"style": styles}}});
        assert_eq!(t.raw("POST", "workspaces/{w}/layergroups.json", Some(document)).await.0, 201);
    }
    assert_eq!(remove("roads").await.unwrap(), Change::Updated);
    assert!(!t.server.layer_exists(&t.workspace, &geo("roads")).await.unwrap());
    let (_, group) = t.raw("GET", "workspaces/{w}/layergroups/both.json", None).await;
    assert_eq!(group["layerGroup"]["publishables"]["published"]["name"], t.qualified("rail"));

    let error = remove("rail").await.unwrap_err();
    assert!(error.message().contains("both, only"), "{}", error.paragraph());
    assert!(t.server.layer_exists(&t.workspace, &geo("rail")).await.unwrap());
}

#[tokio::test]
async fn a_table_without_geometry_is_published() {
    let t = target("plain").await;
    t.ready().await;
    t.execute("create table {s}.codes (code int primary key, meaning text)").await;
    let codes = FeatureType { columns: vec!["code".into(), "meaning".into()], ..t.lines_type("codes") };
    assert_eq!(t.server.publish_feature_type(&codes, SAME).await.unwrap(), Change::Created);
    assert_eq!(t.server.publish_feature_type(&codes, SAME).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.publish_feature_type(&codes, DATA).await.unwrap(), Change::Unchanged);
}

#[tokio::test]
async fn many_at_once_write_one_after_the_other() {
    let t = target("many").await;
    t.ready().await;
    for index in 0..8 {
        t.lines(&format!("l{index}"), 0.0).await;
    }
    let before = t.server.requests();
    let publish = async |name: String| {
        let change = t.server.publish_feature_type(&t.lines_type(&name), SAME).await.unwrap();
        let outcome = t.server.publish_styles(&t.styles(&name, vec![style(&name)])).await.unwrap();
        assert!(outcome.failed.is_empty(), "{outcome:?}");
        change
    };
    let changes = futures_util::future::join_all((0..8).map(|index| publish(format!("l{index}")))).await;
    assert_eq!(changes, [Change::Created; 8]);
    let sent = t.server.requests().since(before);
    assert_eq!(sent, RequestCount { reads: 8 + 1, writes: 3 * 8 }, "the styles are listed once");
}

/// A server that takes one connection after the other and does with each what `answers` says: an
/// answer, or None to hang up.
async fn scripted(answers: Vec<Option<&'static str>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/geoserver", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    url
}

const NOT_READY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const ABOUT: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
                     {\"about\":{\"resource\":[{\"@name\":\"GeoServer\",\"Version\":\"2.25.1\"}]}}";
const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const ABSENT: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn reads_are_repeated_over_lost_connections_and_gateways() {
    let url = scripted(vec![None, Some(NOT_READY), Some(ABOUT)]).await;
    let server = client(&url, "admin", "geoserver", Duration::from_secs(20));
    assert_eq!(server.version().await.unwrap().to_string(), "2.25.1");
    assert_eq!(server.requests(), RequestCount { reads: 3, writes: 0 });
}

#[tokio::test]
async fn a_creation_that_may_have_arrived_is_not_repeated() {
    let url = scripted(vec![Some(ABSENT), None, Some(CREATED)]).await;
    let server = client(&url, "admin", "geoserver", Duration::from_secs(20));
    let error = server.ensure_workspace(&geo("kmi"), "http://kmi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(server.requests(), RequestCount { reads: 1, writes: 1 });
}

#[tokio::test]
async fn a_silent_server_is_left_after_the_time_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/geoserver", listener.local_addr().unwrap());
    let server = client(&url, "admin", "hunter2", Duration::from_millis(300));
    let error = server.version().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let told = error.paragraph();
    assert!(told.contains("within 0.3 s") && told.contains("lock"), "{told}");
    assert_eq!(server.requests().reads, 1, "what hangs is not asked again at once");
    assert!(!format!("{told} {error:?}").contains("hunter2"));

    drop(listener);
    let error = server.version().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.paragraph().contains("GEOSERVER_URL"), "{}", error.paragraph());
}
