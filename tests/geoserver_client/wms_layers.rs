//! Layers of upstream WMS: made, changed and moved in place, healed, and removed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use borg_slave::error::{ErrorKind, Result};
use borg_slave::geoserver::{AccessRules, Boxes, Change, Place, Places, RequestCount, WmsLayer, WmsStore};
use borg_slave::name::GeoName;
use serde_json::{Value, json};

use super::{DATA, Target, geo, only, target};
use crate::support::upstream::{Mood, UpstreamLayer, UpstreamWms};

pub(super) fn wms_store(t: &Target, name: &str, upstream: &UpstreamWms) -> WmsStore {
    WmsStore {
        workspace: t.workspace.clone(),
        name: geo(name),
        capabilities_url: upstream.url(),
        username: None,
        password: None,
        max_connections: None,
        read_timeout: None,
        connect_timeout: None,
    }
}

/// A layer that is called as it is at the upstream.
pub(super) fn wms_layer(t: &Target, store: &str, name: &str) -> WmsLayer {
    WmsLayer {
        workspace: t.workspace.clone(),
        store: geo(store),
        name: geo(name),
        native_name: name.into(),
        title: format!("Title of {name} – ü 道"),
        abstract_text: "First\r\nsecond <line> & more".into(),
        keywords: vec!["one, two".into(), "back\\slash".into()],
        srs: None,
        boxes: None,
    }
}

/// Places and rules as somebody keeps them who forgets them with the layer's publication.
#[derive(Default)]
pub(super) struct Kept {
    places: Mutex<Vec<Place>>,
    rules: Mutex<Option<String>>,
    stand_in: Mutex<Option<GeoName>>,
}

impl Places for Kept {
    fn kept(&self) -> Vec<Place> {
        self.places.lock().unwrap().clone()
    }

    async fn keep(&self, places: Vec<Place>) -> Result<()> {
        self.places.lock().unwrap().extend(places);
        Ok(())
    }

    fn kept_rules(&self) -> Option<String> {
        self.rules.lock().unwrap().clone()
    }

    async fn keep_rules(&self, rules: String) -> Result<()> {
        *self.rules.lock().unwrap() = Some(rules);
        Ok(())
    }

    fn stand_in(&self) -> Option<GeoName> {
        self.stand_in.lock().unwrap().clone()
    }

    async fn keep_stand_in(&self, layer: &GeoName) -> Result<()> {
        *self.stand_in.lock().unwrap() = Some(layer.clone());
        Ok(())
    }
}

/// A layer group of layers of the workspace.
pub(super) async fn group(t: &Target, name: &str, layers: &[&str]) {
    let published: Vec<Value> =
        layers.iter().map(|layer| json!({"@type": "layer", "name": t.qualified(layer)})).collect();
    let document = json!({"layerGroup": {"name": name, "mode": "SINGLE", "publishables": {"published": published}}});
    assert_eq!(t.raw("POST", "workspaces/{w}/layergroups.json", Some(document)).await.0, 201);
}

/// The layers in a group, in order.
pub(super) async fn members(t: &Target, group: &str) -> Vec<String> {
    let (status, body) = t.raw("GET", &format!("workspaces/{{w}}/layergroups/{group}.json"), None).await;
    assert_eq!(status, 200, "{group}");
    let published = &body["layerGroup"]["publishables"]["published"];
    let published = published.as_array().cloned().unwrap_or_else(|| vec![published.clone()]);
    let bare = |member: &Value| member["name"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    published.iter().map(bare).collect()
}

/// A workspace with the WMS stores `up` and `other` of one upstream.
pub(super) async fn cascade(name: &str, layers: &[&str]) -> (Target, UpstreamWms) {
    cascade_on(target(name).await, layers).await
}

/// As [`cascade`].
pub(super) async fn cascade_on(t: Target, layers: &[&str]) -> (Target, UpstreamWms) {
    t.ready().await;
    let upstream = UpstreamWms::start(layers).await;
    for store in ["up", "other"] {
        t.server.ensure_wms_store(&wms_store(&t, store, &upstream), None).await.unwrap();
    }
    (t, upstream)
}

async fn shown(t: &Target, layer: &str) -> Value {
    let (status, mut body) = t.raw("GET", &format!("workspaces/{{w}}/wmslayers/{layer}.json"), None).await;
    assert_eq!(status, 200, "{layer}");
    body["wmsLayer"].take()
}

/// Publishes, and says what that did and with how many requests.
async fn publish(t: &Target, layer: &WmsLayer) -> (Change, RequestCount) {
    let before = t.server.requests();
    let change = t.server.publish_wms_layer(layer, &Kept::default()).await.unwrap();
    (change, t.server.requests().since(before))
}

/// An access rule of a layer, as it goes with the layer when GeoServer deletes it.
pub(super) async fn restrict(t: &Target, layer: &str) -> String {
    let rule = format!("{}.{layer}.r", t.workspace);
    assert_eq!(t.raw("POST", "security/acl/layers.json", Some(json!({rule.as_str(): "ROLE_STAFF"}))).await.0, 200);
    rule
}

pub(super) async fn is_restricted(t: &Target, rule: &str) -> bool {
    t.raw("GET", "security/acl/layers.json", None).await.1[rule] == "ROLE_STAFF"
}

#[tokio::test]
async fn a_wms_layer_is_created_once_and_updated_in_place() {
    let (t, upstream) = cascade("wmslayer", &["roads"]).await;
    let mut layer = wms_layer(&t, "up", "roads");
    assert_eq!(publish(&t, &layer).await, (Change::Created, RequestCount { reads: 1, writes: 1 }));
    let now = shown(&t, "roads").await;
    assert_eq!(now["title"], layer.title);
    assert_eq!(now["abstract"], "First\nsecond <line> & more");
    assert_eq!(now["keywords"]["string"], json!(["one, two", "back slash"]));
    assert_eq!(now["latLonBoundingBox"]["minx"], 110);
    assert_eq!(now["srs"], "EPSG:4326");
    let rule = restrict(&t, "roads").await;

    upstream.asked();
    assert_eq!(publish(&t, &layer).await, (Change::Unchanged, RequestCount { reads: 1, writes: 0 }));
    assert!(upstream.asked().is_empty());

    layer.title = String::new();
    layer.abstract_text = String::new();
    layer.keywords = vec!["only".into()];
    assert_eq!(publish(&t, &layer).await, (Change::Updated, RequestCount { reads: 1, writes: 1 }));
    let now = shown(&t, "roads").await;
    assert_eq!((&now["title"], &now["abstract"]), (&json!("roads"), &json!("")));
    assert_eq!(only(&now["keywords"]["string"]), "only");
    assert_eq!(now["enabled"], true);
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);

    layer.srs = Some("EPSG:3857".into());
    layer.boxes = Some(Boxes {
        native: [12_800_000.5, -3_800_000.0, 12_900_000.0, -3_700_000.0],
        lat_lon: [115.0, -32.5, 116.0, -31.000_25],
        crs: "EPSG:3857".into(),
    });
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);
    let now = shown(&t, "roads").await;
    assert_eq!(now["latLonBoundingBox"]["maxy"], -31.000_25);
    assert_eq!(now["enabled"], true);

    // Somebody has switched it off.
    assert_eq!(t.raw("PUT", "workspaces/{w}/wmslayers/roads.json", Some(json!({"wmsLayer": {}}))).await.0, 200);
    assert_eq!(shown(&t, "roads").await["enabled"], false);
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);
    assert_eq!(shown(&t, "roads").await["enabled"], true);
    assert!(is_restricted(&t, &rule).await);
}

#[tokio::test]
async fn a_wms_layer_moves_between_stores_and_native_layers_in_place() {
    let (t, upstream) = cascade("wmsmove", &["roads", "tracks"]).await;
    let mut layer = wms_layer(&t, "up", "roads");
    publish(&t, &layer).await;
    let rule = restrict(&t, "roads").await;
    let id = shown(&t, "roads").await["dateCreated"].clone();

    layer.store = geo("other");
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);
    layer.native_name = "tracks".into();
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);
    let now = shown(&t, "roads").await;
    assert_eq!(now["store"]["name"], t.qualified("other"));
    assert_eq!((&now["nativeName"], &now["enabled"], &now["dateCreated"]), (&json!("tracks"), &json!(true), &id));
    assert!(is_restricted(&t, &rule).await);
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);

    // Both at once, to a native layer that GeoServer has not seen yet.
    upstream.add("paths");
    (layer.store, layer.native_name) = (geo("up"), "paths".into());
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);
    assert_eq!(shown(&t, "roads").await["nativeName"], "paths");
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);
    assert!(is_restricted(&t, &rule).await);

    // The removal of the layer that it was does not remove the layer that it is.
    let gone = t.server.remove_wms_layer(&t.workspace, Some(&geo("other")), &geo("roads")).await.unwrap();
    assert_eq!(gone, Change::Unchanged);
    let gone = t.server.remove_wms_layer(&t.workspace, Some(&geo("up")), &geo("roads")).await.unwrap();
    assert_eq!(gone, Change::Updated);
}

#[tokio::test]
async fn a_layer_that_comes_to_the_upstream_later_is_found() {
    let (t, upstream) = cascade("wmslate", &["roads"]).await;
    publish(&t, &wms_layer(&t, "up", "roads")).await;
    upstream.add("late");
    assert_eq!(
        publish(&t, &wms_layer(&t, "up", "late")).await,
        (Change::Created, RequestCount { reads: 1, writes: 3 })
    );
    let error = t.server.publish_wms_layer(&wms_layer(&t, "up", "never"), &Kept::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert!(error.paragraph().contains("as seen from GeoServer's host"), "{}", error.paragraph());
}

#[tokio::test]
async fn a_name_that_a_feature_has_is_refused_with_the_remedy() {
    let (t, _upstream) = cascade("wmskind", &["roads"]).await;
    t.lines("roads", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("roads"), DATA).await.unwrap();
    let error = t.server.publish_wms_layer(&wms_layer(&t, "up", "roads"), &Kept::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    let told = error.paragraph();
    assert!(told.contains("feature") && told.contains("on the master"), "{told}");
    // Nor does the removal of a WMS layer touch the feature.
    let gone = t.server.remove_wms_layer(&t.workspace, None, &geo("roads")).await.unwrap();
    assert_eq!(gone, Change::Unchanged);
    assert_eq!(t.layer("roads").await["type"], "VECTOR");
}

#[tokio::test]
async fn names_may_have_spaces_dots_and_any_letters() {
    let native = "ns:Wege & Straßen <道>.v1";
    let (t, upstream) = cascade("wmsnames", &[native, "plain"]).await;
    publish(&t, &wms_layer(&t, "up", "plain")).await;
    let store = "up & away.1 ü";
    t.server.ensure_wms_store(&wms_store(&t, store, &upstream), None).await.unwrap();
    let mut layer = wms_layer(&t, store, "plain.night & day 道");
    layer.native_name = native.into();
    assert_eq!(publish(&t, &layer).await.0, Change::Created);
    layer.title = "new".into();
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);
    assert_ne!(shown(&t, "plain").await["title"], "new");
    let gone = t.server.remove_wms_layer(&t.workspace, Some(&geo(store)), &layer.name).await.unwrap();
    assert_eq!(gone, Change::Updated);
    let gone = t.server.remove_store(borg_slave::geoserver::StoreKind::Wms, &t.workspace, &geo(store)).await.unwrap();
    assert_eq!(gone, Change::Updated);
    assert_eq!(shown(&t, "plain").await["title"], wms_layer(&t, "up", "plain").title);
}

#[tokio::test]
async fn an_upstream_that_fails_is_told_without_its_key() {
    let (t, upstream) = cascade("wmsdown", &["roads"]).await;
    let store =
        WmsStore { capabilities_url: format!("{}?key=hunter2", upstream.url()), ..wms_store(&t, "up", &upstream) };
    t.server.ensure_wms_store(&store, None).await.unwrap();
    upstream.mood(Mood::Status(500));
    let error = t.server.publish_wms_layer(&wms_layer(&t, "up", "roads"), &Kept::default()).await.unwrap_err();
    let told = format!("{} {error:?}", error.paragraph());
    assert!(told.contains("500") && !told.contains("hunter2"), "{told}");
    upstream.mood(Mood::Well);
    assert_eq!(publish(&t, &wms_layer(&t, "up", "roads")).await.0, Change::Created);
}

#[tokio::test]
async fn a_wms_layer_is_taken_out_of_its_groups_but_not_the_last_of_one() {
    let (t, _upstream) = cascade("wmsgroups", &["a", "b"]).await;
    for name in ["a", "b"] {
        publish(&t, &wms_layer(&t, "up", name)).await;
    }
    group(&t, "two", &["a", "b"]).await;
    group(&t, "one", &["a"]).await;
    let remove = async || t.server.remove_wms_layer(&t.workspace, Some(&geo("up")), &geo("a")).await;
    let error = remove().await.unwrap_err();
    assert!(error.message().contains("one") && !error.message().contains("two"), "{}", error.message());
    assert_eq!(members(&t, "two").await, ["a", "b"]);
    assert_eq!(t.raw("DELETE", "workspaces/{w}/layergroups/one.json", None).await.0, 200);
    if let Some(double) = &t.double {
        double.clear_requests();
    }
    assert_eq!(remove().await.unwrap(), Change::Updated);
    assert_eq!(members(&t, "two").await, ["b"]);
    if let Some(double) = &t.double {
        // GeoServer may delete it without a word about the group, and what it holds.
        let written = double.requests().into_iter().filter(|request| request.method != "GET");
        let written: Vec<String> = written.map(|request| request.method).collect();
        assert_eq!(written, ["PUT", "DELETE"], "out of the group first");
    }
    assert_eq!(remove().await.unwrap(), Change::Unchanged);
    let elsewhere = t.server.remove_wms_layer(&geo("no_such_workspace"), None, &geo("a")).await.unwrap();
    assert_eq!(elsewhere, Change::Unchanged);
}

#[tokio::test]
async fn a_layer_that_the_upstream_renames_is_followed() {
    let (t, upstream) = cascade("wmsrename", &["roads", "other"]).await;
    let mut layer = wms_layer(&t, "up", "roads");
    publish(&t, &layer).await;
    publish(&t, &wms_layer(&t, "up", "other")).await;
    group(&t, "g", &["other", "roads"]).await;
    let rule = restrict(&t, "roads").await;

    // GeoServer still has the capabilities with the old name.
    upstream.rename("roads", "roads_2");
    layer.native_name = "roads_2".into();
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);

    // Now it has those with the new name only.
    upstream.rename("roads_2", "roads_3");
    t.server.refresh_wms_store(&t.workspace, &geo("up")).await.unwrap();
    t.raw("GET", "workspaces/{w}/wmsstores/up/wmslayers.json?list=available", None).await;
    layer.native_name = "roads_3".into();
    assert_eq!(publish(&t, &layer).await.0, Change::Created);

    let now = shown(&t, "roads").await;
    assert_eq!((&now["nativeName"], &now["enabled"]), (&json!("roads_3"), &json!(true)));
    assert!(is_restricted(&t, &rule).await);
    assert_eq!(members(&t, "g").await, ["other", "roads"]);
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);
}

#[tokio::test]
async fn a_layer_with_styles_without_a_legend_is_made_anew_and_not_lost() {
    let (t, upstream) = cascade("wmslegend", &["other"]).await;
    upstream.add_layer(UpstreamLayer { name: "roads".into(), styled: true, legend: false });
    let mut layer = wms_layer(&t, "up", "roads");
    publish(&t, &layer).await;
    if t.double.is_some() {
        // A real one's rules are those of other tests as well.
        let w = &t.workspace;
        let rules = format!("mode=HIDE\n*.*.r=*\n{w}.roads\\\\.night.r=ROLE_OTHER\n{w}.roads.w=ROLE_OTHER\n");
        t.server.apply_access_rules(&AccessRules::parse(&rules).unwrap(), None).await.unwrap();
    }
    let rule = restrict(&t, "roads").await;
    layer.title = "new".into();

    // While the upstream is down, the layer stays.
    t.server.refresh_wms_store(&t.workspace, &geo("up")).await.unwrap();
    upstream.mood(Mood::Status(503));
    let error = t.server.publish_wms_layer(&layer, &Kept::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert_eq!(shown(&t, "roads").await["title"], wms_layer(&t, "up", "roads").title);
    upstream.mood(Mood::Well);

    assert_eq!(publish(&t, &layer).await.0, Change::Created);
    assert_eq!(shown(&t, "roads").await["title"], "new");
    assert!(is_restricted(&t, &rule).await);
    if t.double.is_some() {
        let rules = t.raw("GET", "security/acl/layers.json", None).await.1;
        assert_eq!(rules.as_object().unwrap().len(), 4, "{rules}");
    }
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);

    // A layer without styles is changed in place.
    upstream.add_layer(UpstreamLayer { name: "plain".into(), styled: false, legend: false });
    let mut layer = wms_layer(&t, "up", "plain");
    assert_eq!(publish(&t, &layer).await.0, Change::Created);
    layer.title = "new".into();
    assert_eq!(publish(&t, &layer).await.0, Change::Updated);

    // A wrong native name changes nothing.
    let wrong = WmsLayer { store: geo("other"), native_name: "never".into(), ..layer.clone() };
    let error = t.server.publish_wms_layer(&wrong, &Kept::default()).await.unwrap_err();
    assert!(error.message().contains("never"), "{}", error.message());
    assert_eq!(publish(&t, &layer).await.0, Change::Unchanged);
}

#[tokio::test]
async fn a_layer_that_is_made_anew_has_its_groups_and_rules_back_after_a_kill() {
    let (t, upstream) = cascade("wmskill", &["other"]).await;
    upstream.add_layer(UpstreamLayer { name: "roads".into(), styled: true, legend: false });
    let mut layer = wms_layer(&t, "up", "roads");
    publish(&t, &layer).await;
    publish(&t, &wms_layer(&t, "up", "other")).await;
    group(&t, "first", &["roads", "other"]).await;
    group(&t, "last", &["other", "roads"]).await;
    group(&t, "alone", &["roads"]).await;
    let rule = restrict(&t, "roads").await;
    let kept = Arc::new(Kept::default());
    for (title, moment) in [("new", "first"), ("newer", "last"), ("newest", "the layer")] {
        layer.title = title.into();
        if let Some(double) = &t.double {
            double.delay(Duration::from_millis(600));
        }
        let (server, wanted, places) = (t.server.clone(), layer.clone(), Arc::clone(&kept));
        let publishing = tokio::spawn(async move { server.publish_wms_layer(&wanted, &*places).await });
        let is_gone = async || match moment {
            "the layer" => t.raw("GET", "workspaces/{w}/wmslayers/roads.json", None).await.0 == 404,
            group => !members(&t, group).await.contains(&"roads".to_owned()),
        };
        while !publishing.is_finished() && !is_gone().await {}
        publishing.abort();
        let _ = publishing.await;
        if let Some(double) = &t.double {
            double.delay(Duration::ZERO);
            assert_eq!(members(&t, "first").await, ["roads__new", "other"], "killed too late for a test");
        }
        // What was under way ends before this does.
        t.raw("PUT", "workspaces/{w}/wmslayers/other.json", Some(json!({"wmsLayer": {"enabled": true}}))).await;
        // Another slave process, which knows what was kept.
        t.server.forget().await;
        t.server.publish_wms_layer(&layer, &*kept).await.unwrap();
        assert_eq!(shown(&t, "roads").await["title"], title);
        assert_eq!(members(&t, "first").await, ["roads", "other"], "{title}");
        assert_eq!(members(&t, "last").await, ["other", "roads"], "{title}");
        assert_eq!(members(&t, "alone").await, ["roads"], "{title}");
        assert_eq!(t.raw("GET", "workspaces/{w}/layers/roads__new.json", None).await.0, 404, "{title}");
        assert!(is_restricted(&t, &rule).await, "{title}");
        kept.places.lock().unwrap().clear();
        kept.rules.lock().unwrap().take();
        kept.stand_in.lock().unwrap().take();
    }
}
