//! Stores of upstream WMS: what is written, what is kept secret, how they go.

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{Change, StoreKind, WmsStore};
use secrecy::SecretString;
use serde_json::json;

use super::wms_layers::{Kept, group, members, wms_layer, wms_store};
use super::{Target, geo, target};
use crate::support::upstream::{Mood, UpstreamWms};

async fn shown(t: &Target, store: &str) -> serde_json::Value {
    let (status, mut body) = t.raw("GET", &format!("workspaces/{{w}}/wmsstores/{store}.json"), None).await;
    assert_eq!(status, 200);
    body["wmsStore"].take()
}

#[tokio::test]
async fn a_wms_store_is_written_only_when_something_differs() {
    let t = target("wmsstore").await;
    t.ready().await;
    let upstream = UpstreamWms::start(&["roads"]).await;
    let mut store = WmsStore {
        username: Some("bob".into()),
        password: Some(SecretString::from("s3cret")),
        read_timeout: Some(20),
        ..wms_store(&t, "up", &upstream)
    };
    let (change, fingerprint) = t.server.ensure_wms_store(&store, None).await.unwrap();
    assert_eq!(change, Change::Created);
    let before = t.server.requests();
    assert_eq!(t.server.ensure_wms_store(&store, None).await.unwrap().0, Change::Unchanged);
    assert_eq!(t.server.requests(), before, "the handle remembers");

    t.server.forget().await;
    let before = t.server.requests();
    let (change, same) = t.server.ensure_wms_store(&store, Some(&fingerprint)).await.unwrap();
    assert_eq!((change, &same), (Change::Unchanged, &fingerprint));
    assert_eq!(t.server.requests().since(before).writes, 0);

    // Changed by hand.
    let path = "workspaces/{w}/wmsstores/up.json";
    let by_hand = json!({"wmsStore": {"maxConnections": 2, "enabled": false}});
    assert_eq!(t.raw("PUT", path, Some(by_hand)).await.0, 200);
    t.server.forget().await;
    assert_eq!(t.server.ensure_wms_store(&store, Some(&fingerprint)).await.unwrap().0, Change::Updated);
    let now = shown(&t, "up").await;
    assert_eq!(
        [&now["maxConnections"], &now["readTimeout"], &now["connectTimeout"], &now["enabled"], &now["user"]],
        [&json!(6), &json!(20), &json!(30), &json!(true), &json!("bob")]
    );
    assert!(now["password"].as_str().unwrap().starts_with("crypt1:"));

    // The password that GeoServer shows tells nothing.
    store.password = Some(SecretString::from("other"));
    let (change, other) = t.server.ensure_wms_store(&store, Some(&fingerprint)).await.unwrap();
    assert_eq!(change, Change::Updated);
    assert_ne!(other, fingerprint);
    upstream.mood(Mood::Wants("bob", "other"));
    assert_eq!(
        t.server.publish_wms_layer(&wms_layer(&t, "up", "roads"), &Kept::default()).await.unwrap(),
        Change::Created
    );

    // Without a user nothing is secret, and no memory is needed.
    upstream.mood(Mood::Well);
    (store.username, store.password) = (None, None);
    assert_eq!(t.server.ensure_wms_store(&store, Some(&other)).await.unwrap().0, Change::Updated);
    t.server.forget().await;
    assert_eq!(t.server.ensure_wms_store(&store, None).await.unwrap().0, Change::Unchanged);
    upstream.asked();
    t.server.refresh_wms_store(&t.workspace, &store.name).await.unwrap();
    t.raw("GET", "workspaces/{w}/wmsstores/up/wmslayers.json?list=available", None).await;
    let asked = upstream.asked();
    // GeoServer sends an empty user where there once was one ("Og==" is a colon).
    let says_nothing = |said: &Option<String>| said.as_deref().is_none_or(|said| said == "Basic Og==");
    assert!(!asked.is_empty() && asked.iter().all(|asked| says_nothing(&asked.authorization)), "{asked:?}");

    // A new address.
    store.capabilities_url = format!("{}?key=a%20b", upstream.url());
    assert_eq!(t.server.ensure_wms_store(&store, None).await.unwrap().0, Change::Updated);
    assert_eq!(shown(&t, "up").await["capabilitiesURL"], store.capabilities_url);
}

#[tokio::test]
async fn a_wms_stores_name_may_be_taken_and_its_secrets_stay_hidden() {
    let t = target("wmstaken").await;
    t.ready().await;
    let store = WmsStore {
        name: t.store.clone(),
        capabilities_url: "http://bob:hunter2@127.0.0.1:1/wms?key=hunter2".into(),
        username: Some("bob".into()),
        password: Some(SecretString::from("hunter2")),
        ..wms_store(&t, "x", &UpstreamWms::start(&[]).await)
    };
    let error = t.server.ensure_wms_store(&store, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert!(error.paragraph().contains("share their names"), "{}", error.paragraph());

    let store = WmsStore { name: geo("secret"), ..store };
    let (_, fingerprint) = t.server.ensure_wms_store(&store, None).await.unwrap();
    let refused = t.server.publish_wms_layer(&wms_layer(&t, "secret", "roads"), &Kept::default()).await.unwrap_err();
    let told = format!("{store:?} {fingerprint} {error:?} {refused:?} {}", refused.paragraph());
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_wms_store_goes_with_its_layers_but_no_group_does() {
    let t = target("wmsgone").await;
    t.ready().await;
    let upstream = UpstreamWms::start(&["a", "b", "c"]).await;
    for store in ["up", "other"] {
        t.server.ensure_wms_store(&wms_store(&t, store, &upstream), None).await.unwrap();
    }
    for (store, layer) in [("up", "a"), ("up", "b"), ("other", "c")] {
        t.server.publish_wms_layer(&wms_layer(&t, store, layer), &Kept::default()).await.unwrap();
    }
    group(&t, "mixed", &["a", "c", "b"]).await;
    group(&t, "both", &["a", "b"]).await;
    let remove = async || t.server.remove_store(StoreKind::Wms, &t.workspace, &geo("up")).await;

    let error = remove().await.unwrap_err();
    assert!(error.message().contains("both") && !error.message().contains("mixed"), "{}", error.message());
    assert_eq!(members(&t, "mixed").await, ["a", "c", "b"], "nothing is half removed");

    assert_eq!(t.raw("DELETE", "workspaces/{w}/layergroups/both.json", None).await.0, 200);
    assert_eq!(remove().await.unwrap(), Change::Updated);
    assert_eq!(members(&t, "mixed").await, ["c"]);
    for gone in ["wmsstores/up", "wmslayers/a", "layers/b"] {
        assert_eq!(t.raw("GET", &format!("workspaces/{{w}}/{gone}.json"), None).await.0, 404, "{gone}");
    }
    let before = t.server.requests();
    assert_eq!(remove().await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests().since(before).writes, 0);
    // A store of that name that is made again is really made.
    let again = t.server.ensure_wms_store(&wms_store(&t, "up", &upstream), None).await.unwrap();
    assert_eq!(again.0, Change::Created);
    // Nor is there one in a workspace that is not there.
    let elsewhere = geo("no_such_workspace");
    assert_eq!(t.server.remove_store(StoreKind::Wms, &elsewhere, &geo("up")).await.unwrap(), Change::Unchanged);
}

#[tokio::test]
async fn a_postgis_store_goes_with_its_layers() {
    let t = target("pggone").await;
    t.ready().await;
    for name in ["a", "b"] {
        t.lines(name, 0.0).await;
        t.server.publish_feature_type(&t.lines_type(name), super::DATA).await.unwrap();
    }
    let upstream = UpstreamWms::start(&["c"]).await;
    t.server.ensure_wms_store(&wms_store(&t, "up", &upstream), None).await.unwrap();
    t.server.publish_wms_layer(&wms_layer(&t, "up", "c"), &Kept::default()).await.unwrap();
    group(&t, "g", &["a", "c", "b"]).await;
    assert_eq!(t.server.remove_store(StoreKind::Data, &t.workspace, &t.store).await.unwrap(), Change::Updated);
    assert_eq!(members(&t, "g").await, ["c"]);
    assert_eq!(t.raw("GET", "workspaces/{w}/datastores/{s}.json", None).await.0, 404);
    assert_eq!(t.server.remove_store(StoreKind::Data, &t.workspace, &t.store).await.unwrap(), Change::Unchanged);
    // The handle knows that the layers are gone.
    t.server.ensure_postgis_store(&t.postgis_store("any"), None).await.unwrap();
    assert_eq!(t.server.publish_feature_type(&t.lines_type("a"), super::DATA).await.unwrap(), Change::Created);
}
