//! Who may read a schema when its layers come, change and go in different passes.

use borg_slave::state_repo::Vcs;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_strictest_layer_of_a_workspace_decides_whenever_it_was_published() {
    let world = World::start(Vcs::Git).await;
    world.set("FEATURE_FILTER", "true");
    let caves = Layer::new("vault", "caves").auth_level(2);
    let box_of_two = json!([115.0, -33.0, 125.0, -31.0]);
    let caves = caves.field("override_bbox", json!(true)).field("bbox", box_of_two);
    let lakes = Layer::new("vault", "lakes").auth_level(0);
    let pass = |message: &str| {
        world.commit(message);
        world.pull().succeeded();
    };
    world.publish(&caves).await;
    pass("caves, restricted");
    assert!(may_read(&world, "vault", "vault", "caves").await);
    assert!(!may_read(&world, "sso_access", "vault", "caves").await);
    let given = world.geoserver().layer("vault", "caves").unwrap().latlon_box.unwrap();
    assert_eq!((given.miny, given.maxy), (-33.0, -31.0));

    world.publish(&lakes).await;
    pass("lakes, open to all");
    assert!(!may_read(&world, "sso_access", "vault", "caves").await, "a later layer opens nothing");

    // Metadata alone open it, and give the boxes back to GeoServer.
    let caves = caves.auth_level(1).field("override_bbox", json!(false));
    world.publish_meta(&caves);
    pass("caves, open to staff");
    assert!(may_read(&world, "sso_access", "vault", "caves").await);
    assert!(may_read(&world, "sso_access", "vault", "lakes").await);
    assert_ne!(world.geoserver().layer("vault", "caves").unwrap().latlon_box.unwrap(), given);

    world.publish_meta(&caves.clone().auth_level(2));
    pass("caves, restricted again");
    assert!(!may_read(&world, "sso_access", "vault", "lakes").await);
    world.remove(&caves);
    pass("caves are gone");
    world.publish_meta(&lakes.clone().title("Lakes"));
    pass("and have no more say");
    assert!(may_read(&world, "sso_access", "vault", "lakes").await);
}
