//! Version, workspaces and PostGIS stores.

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{Change, Version, default_store_parameters};
use borg_slave::name::GeoName;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{client, target};

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
