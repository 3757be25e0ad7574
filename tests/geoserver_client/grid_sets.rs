//! Grid sets: GeoServer's own, and the project's.

use borg_slave::geoserver::Change;
use borg_slave::name::GeoName;

use super::tile_layers::{capabilities, grid_sets_alone, tile, tiles};
use super::{SAME, Target, target};

/// Removes the grid sets, and before them the tile layers that name them.
pub(super) async fn remove(t: &Target) {
    let (_, names) = t.raw("GET", "../gwc/rest/layers.json", None).await;
    for label in names.as_array().unwrap().iter().filter_map(|label| label.as_str()) {
        if let Some(name) = label.strip_prefix(&format!("{}:", t.workspace)) {
            t.server.remove_tile_layer(&t.workspace, &GeoName::new("layer", name).unwrap()).await.unwrap();
        }
    }
    for name in ["gda94", "mercator"] {
        t.raw("DELETE", &format!("../gwc/rest/gridsets/{name}.xml"), None).await;
    }
    t.server.forget().await;
}

#[tokio::test]
async fn grid_sets_are_made_once_and_used_from_then_on() {
    let _alone = grid_sets_alone().await;
    let t = target("grid_sets").await;
    t.ready().await;
    t.lines("roads", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap();
    remove(&t).await;

    let sets = t.server.ensure_grid_sets(false).await.unwrap();
    assert_eq!((sets.geographic.as_str(), sets.web_mercator.as_str()), ("EPSG:4326", "EPSG:900913"));
    t.server.ensure_tile_layer(&tiles(&t, "roads")).await.unwrap();
    assert_eq!(tile(&t, "roads", "EPSG:4326", [0, 1, 0]).await.0, 200);

    let made = t.server.ensure_grid_sets(true).await.unwrap();
    assert_eq!((made.geographic.as_str(), made.web_mercator.as_str()), ("gda94", "mercator"));
    assert_eq!(made.change, Change::Created);
    let before = t.server.requests();
    assert_eq!(t.server.ensure_grid_sets(true).await.unwrap().change, Change::Unchanged);
    assert_eq!(t.server.requests().since(before).reads, 0, "the list is remembered");
    t.server.forget().await;
    assert_eq!(t.server.ensure_grid_sets(true).await.unwrap().change, Change::Unchanged);
    assert_eq!(t.server.requests().since(before).writes, 0);

    // The tile layer moves to the new grid sets, and both serve.
    assert_eq!(t.server.ensure_tile_layer(&tiles(&t, "roads")).await.unwrap(), Change::Updated);
    assert_eq!(tile(&t, "roads", "gda94", [0, 1, 0]).await, (200, "MISS".into()));
    assert_eq!(tile(&t, "roads", "gda94", [0, 1, 0]).await, (200, "HIT".into()));
    assert_eq!(tile(&t, "roads", "mercator", [4, 13, 9]).await, (200, "MISS".into()));
    let (status, text) = capabilities(&t).await;
    assert_eq!(status, 200);
    assert!(text.contains(&t.qualified("roads")));
    remove(&t).await;
    assert_eq!(capabilities(&t).await.0, 200);
}
