//! Slaves that take a part of the layers.

use borg_slave::state_repo::Vcs;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_takes_a_part_and_a_wider_one_takes_only_the_rest() {
    let world = World::any(Vcs::Hg).await;
    let (first, second) = (world.workspace("aaa"), world.workspace("bbb"));
    let mut layers = vec![Layer::new(&first, "roads"), Layer::new(&first, "tracks"), Layer::new(&second, "owners")];
    // Points to a layer that is not taken.
    let schema = format!("{second}_data");
    layers.push(Layer::new(&first, "parcels").dump(|dump| dump.references(&schema, "owners", "")));
    for layer in &layers {
        world.publish(layer).await;
    }
    let never = Layer::new(&second, "never");
    let files = world.publish(&never).await;
    world.commit("layers");
    world.set("FEATURE_FILTER", &format!("|job| job.workspace == \"{first}\""));
    world.pull().succeeded().says("left out");
    for layer in &layers {
        is_state(&world, layer, if layer.workspace == second { "filtered" } else { "succeeded" });
    }
    assert!(world.rest().layer(&second, "owners").await.is_none());
    assert_eq!(count(&world, &first, "parcels").await, 10);
    let note = world.state(&layers[3].job_file())["message"].as_str().unwrap().to_owned();
    assert!(note.contains(&format!("{schema}.owners")), "{note}");
    let outcome = world.slave(&["filter"]).succeeded();
    let line = |layer: &Layer| {
        let text = outcome.stdout.lines().find(|line| line.contains(&layer.job_file())).unwrap_or_default().to_owned();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    assert_eq!((line(&layers[0]), line(&layers[2])), ("taken".to_owned(), "refused".to_owned()));

    // What was never taken goes without a word, and without its metadata.
    world.remove(&never);
    fs::remove_file(files.meta).unwrap();
    world.commit("remove what was left out");
    clear_requests(&world);
    world.pull().succeeded();
    is_state(&world, &never, "filtered");
    no_requests(&world);

    let before = relations(&world, &[&first]).await;
    world.set("FEATURE_FILTER", "true");
    world.slave(&["sync"]).succeeded();
    is_state(&world, &layers[2], "succeeded");
    assert_eq!(count(&world, &second, "owners").await, 10);
    assert_eq!(relations(&world, &[&first]).await, before);
    for double in &world.doubles {
        assert!(double.requests().iter().all(|request| !request.path.contains(&format!("/{first}"))));
    }

    // What was taken once is removed even if the filter no longer takes it.
    world.set("FEATURE_FILTER", "false");
    world.remove(&layers[0]);
    world.commit("remove roads");
    world.pull().succeeded();
    assert!(world.rest().layer(&first, "roads").await.is_none());
    if world.doubles.is_empty() {
        world.rest().drop_workspace(&first).await;
        world.rest().drop_workspace(&second).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_fails_the_job_it_was_asked_about() {
    let world = World::start(Vcs::Hg).await;
    world.publish(&Layer::new("w", "odd")).await;
    world.publish(&Layer::new("w", "plain")).await;
    world.commit("layers");
    world.set("FEATURE_FILTER", "job.name != \"odd\" || parse_int(job.name) > 0");
    world.pull().failed().says("FEATURE_FILTER").says("line 1");
    is_state(&world, &Layer::new("w", "odd"), "failed");
    is_state(&world, &Layer::new("w", "plain"), "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_refused_keeps_nothing_that_another_channel_removes() {
    let world = World::start(Vcs::Hg).await;
    world.set("LISTEN_CHANNELS", "geoserver,internal");
    world.set("FEATURE_FILTER", "!job.job_file.starts_with(\"internal/\")");
    let (roads, tracks) = (Layer::new("w", "roads"), Layer::new("w", "tracks"));
    for layer in [&roads, &tracks] {
        world.publish(layer).await;
    }
    world.commit("two layers");
    world.pull().succeeded();

    // Both move to a channel whose layers are not taken here; one of its documents cannot be had at first.
    let internal = |layer: &Layer| layer.job_file().replacen("geoserver", "internal", 1);
    let move_there = |layer: &Layer| {
        let document = fs::read_to_string(world.master.path().join(layer.job_file())).unwrap();
        world.master.write(internal(layer), &document);
        world.remove(layer);
        document
    };
    move_there(&roads);
    let document = move_there(&tracks);
    world.master.write(internal(&tracks), document.replace(".meta.json", ".nowhere.json"));
    world.commit("they move");
    world.pull().failed().says(&internal(&tracks));
    assert_eq!(world.state(&internal(&roads))["state"], json!("filtered"));
    assert!(world.geoserver().layer("w", "roads").is_none());
    assert!(world.geoserver().layer("w", "tracks").is_some(), "nobody knows yet");
    world.master.write(internal(&tracks), document);
    world.commit("mended");
    world.pull().succeeded();
    assert_eq!(world.state(&internal(&tracks))["state"], json!("filtered"));
    assert!(world.geoserver().layer("w", "tracks").is_none());
    assert_eq!(relations(&world, &["w"]).await.len(), 0);
}
