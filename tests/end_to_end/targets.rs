//! Several GeoServers.

use borg_slave::state_repo::Vcs;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_geoserver_that_is_down_is_completed_without_touching_the_other() {
    let world = World::start_with(Vcs::Hg, 2).await;
    let [up, down] = [&world.doubles[0], &world.doubles[1]];
    let (roads, tracks) = (Layer::new("w", "roads").style("night", "#000000"), Layer::new("w", "tracks"));
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();

    down.stop();
    let roads = roads.title("Roads anew").rows(20);
    world.publish(&roads).await;
    world.publish(&tracks).await;
    world.commit("roads anew and tracks");
    let outcome = world.pull().failed().says(&down.url()).says(&roads.job_file()).says(&tracks.job_file());
    not_a_word(&outcome, &format!("{}: ", up.url()));
    assert_eq!(up.layer("w", "roads").unwrap().title, "Roads anew");
    assert!(up.layer("w", "tracks").is_some());
    assert_eq!(count(&world, "w", "roads").await, 20);
    let steps = world.state(&roads.job_file())["steps"].as_array().unwrap().clone();
    let failed: Vec<_> = steps.iter().filter(|step| step["outcome"] == "failed").map(|step| &step["target"]).collect();
    assert!(!failed.is_empty() && failed.iter().all(|target| **target == json!(down.url())), "{steps:#?}");

    // Twice down: what was finished on the other is not forgotten.
    up.clear_requests();
    world.pull().failed();
    let before = relations(&world, &["w"]).await;
    down.resume();
    world.pull().succeeded();
    assert_eq!(up.requests(), []);
    assert_eq!(relations(&world, &["w"]).await, before);
    assert_eq!(down.layer("w", "roads").unwrap().title, "Roads anew");
    assert_eq!(down.layer("w", "tracks").unwrap().default_style, Some("w:tracks".to_owned()));
    assert_eq!(down.styles("w"), up.styles("w"));

    // A removal does not take the table away while a GeoServer may still read it.
    down.stop();
    world.remove(&tracks);
    world.commit("remove tracks");
    world.pull().failed().says(&down.url());
    assert_eq!(count(&world, "w", "tracks").await, 10);
    down.resume();
    world.pull().succeeded();
    assert!(up.layer("w", "tracks").is_none() && down.layer("w", "tracks").is_none());
    assert!(!relations(&world, &["w"]).await.contains_key("w.tracks"));
}
