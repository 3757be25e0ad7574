//! Feature types: made, updated in place, never half made.

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{Boxes, Change, FeatureType, PostgisStore, RequestCount, SqlView, Style, ViewGeometry};
use serde_json::Value;
use serde_json::json;

use super::{COLUMNS, DATA, SAME, columns, geo, numbers, only, pushed, style, target};

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
    assert_eq!(sent, RequestCount { reads: 0, writes: 4 }, "type, two styles and layer");

    let layer = t.layer("roads.night").await;
    assert_eq!(layer["defaultStyle"]["name"], t.qualified("roads.night"));
    assert_eq!(only(&layer["styles"]["style"])["name"], t.qualified("roads.night.thin"));
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
    assert_eq!(error.kind(), ErrorKind::Missing);
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
    assert_eq!(sent, RequestCount { reads: 1, writes: 3 * 8 }, "the styles are listed once");
}
