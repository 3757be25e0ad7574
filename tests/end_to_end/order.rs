//! Jobs that wait for each other, and what cannot be published at all.

use borg_slave::state_repo::Vcs;

use super::{count, is_state};
use crate::support::world::{Layer, World};

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_waits_for_its_publication_does_not_hold_up_foreign_keys() {
    let world = World::start(Vcs::Hg).await;
    let zones = Layer::new("plan", "zones");
    let parcels = Layer::new("plan", "parcels").dump(|dump| dump.references("plan_data", "zones", ""));
    let newer = parcels.clone().title("Parcels, newer");
    world.publish(&parcels).await;
    world.publish(&zones).await;
    world.publish_meta(&newer);
    world.commit("publish both, and newer metadata of one");
    world.pull().succeeded();
    assert_eq!((count(&world, "plan", "parcels").await, count(&world, "plan", "zones").await), (10, 10));
    assert_eq!(world.geoserver().layer("plan", "parcels").unwrap().title, "Parcels, newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_published_again_by_hand_keeps_its_newer_metadata() {
    let world = World::start(Vcs::Hg).await;
    let roads = Layer::new("plan", "roads").title("Roads");
    world.publish(&roads).await;
    world.commit("publish");
    world.pull().succeeded();
    world.publish_meta(&roads.clone().title("Roads, newer"));
    world.commit("newer metadata");
    world.pull().succeeded();
    let title = || world.geoserver().layer("plan", "roads").unwrap().title;
    assert_eq!(title(), "Roads, newer");
    world.slave(&["sync", "--file", &roads.job_file()]).succeeded().says(&roads.meta_file());
    assert_eq!(title(), "Roads, newer");
    world.slave(&["status", "forget", &roads.job_file()]).succeeded();
    world.slave(&["sync"]).succeeded();
    assert_eq!(title(), "Roads, newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sql_view_keeps_the_columns_of_its_query_over_republications() {
    let world = World::start(Vcs::Hg).await;
    let view = Layer::new("plan", "areas")
        .field("viewsql", "select id, version, st_x(geom) as east, geom from plan.areas".into());
    for version in [1, 2] {
        world.publish(&view.clone().dump(|dump| dump.version(version))).await;
        world.commit("publish");
        world.pull().succeeded();
        is_state(&world, &view, "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_geoserver_cannot_publish_is_refused_by_name() {
    let world = World::start(Vcs::Hg).await;
    world.publish(&Layer::new("plan", "it's here")).await;
    world.commit("publish");
    world.pull().failed().says("it's here: GeoServer cannot publish a table with an apostrophe in its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_disagree_about_their_store_are_told() {
    let world = World::start(Vcs::Hg).await;
    let connections = |name: &str, number: u8| {
        Layer::new("plan", name).field("geoserver_setting", serde_json::json!({"max connections": number}))
    };
    for layer in [connections("a", 5), connections("b", 5), connections("c", 6)] {
        world.publish(&layer).await;
    }
    world.commit("publish");
    world.pull().succeeded();
    let told = ["a", "b", "c"].iter().filter(|name| {
        let status = world.slave(&["status", &format!("geoserver/layers/plan.{name}.json")]);
        status.text().contains("has set max connections otherwise")
    });
    // Which comes first is open, so that one or two of them differ from it.
    let told = told.count();
    assert!(told == 1 || told == 2, "{told}");
}
