//! The whole way: a commit on the master, a pull in the slave's clone, and what readers then see.

use borg_slave::state_repo::Vcs;
use serde_json::json;

use crate::support::world::{Layer, World};

async fn count(world: &World, relation: &str) -> i64 {
    let admin = world.database.admin().await;
    admin.query_one(&format!("select count(*) from {relation}"), &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_head_takes_nothing_away() {
    let world = World::start(Vcs::Hg).await;
    let fork = world.master.head();
    let first = Layer::new("cadastre", "first");
    world.publish(&first).await;
    world.commit("on the first head");
    world.pull().succeeded();

    world.master.update(fork.as_str());
    let second = Layer::new("cadastre", "second");
    world.publish(&second).await;
    world.commit("on a second head");
    world.pull().succeeded();
    assert_eq!((count(&world, "cadastre.first").await, count(&world, "cadastre.second").await), (10, 10));

    world.master.merge("first(head() and not .)");
    world.geoserver().clear_requests();
    world.pull().succeeded();
    assert_eq!((count(&world, "cadastre.first").await, count(&world, "cadastre.second").await), (10, 10));
    assert_eq!(world.geoserver().requests(), [], "both heads were applied before the merge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_publishes_updates_and_removes_a_layer() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let world = World::start(vcs).await;
        let roads = Layer::new("cadastre", "roads").rows(50).style("night", "#000080");
        world.publish(&roads).await;
        world.commit("publish roads");
        world.pull().succeeded();

        assert_eq!(count(&world, "cadastre.roads").await, 50);
        let layer = world.geoserver().layer("cadastre", "roads").unwrap();
        assert_eq!(layer.title, "roads of cadastre");
        assert_eq!(layer.abstract_text, roads.abstract_text);
        assert_eq!(layer.default_style.as_deref(), Some("cadastre:roads"));
        assert_eq!(layer.styles, ["cadastre:roads.night"]);
        assert_eq!(layer.srs, "EPSG:4283");

        // The same again asks GeoServer for nothing.
        world.geoserver().clear_requests();
        world.pull().succeeded();
        world.slave(&["sync"]).succeeded();
        assert_eq!(world.geoserver().requests(), []);

        let roads =
            roads.title("Roads, new").rows(60).styles(&[("builtin", &crate::support::world::sld("r", "#ff0000"))]);
        world.publish(&roads).await;
        world.commit("publish roads again");
        world.pull().succeeded();
        assert_eq!(count(&world, "cadastre.roads").await, 60);
        let layer = world.geoserver().layer("cadastre", "roads").unwrap();
        assert_eq!(layer.title, "Roads, new");
        assert_eq!(world.geoserver().styles("cadastre"), ["roads"]);

        world.remove(&roads);
        world.commit("remove roads");
        world.pull().succeeded();
        assert!(world.geoserver().layer("cadastre", "roads").is_none());
        assert!(world.geoserver().styles("cadastre").is_empty());
        let admin = world.database.admin().await;
        let left = admin
            .query_one("select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace where nspname like 'cadastre%'", &[])
            .await
            .unwrap();
        assert_eq!(left.get::<_, i64>(0), 0);
        assert_eq!(world.state(&roads.job_file())["state"], json!("succeeded"));
    }
}
