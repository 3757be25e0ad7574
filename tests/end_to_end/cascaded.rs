//! Layers of other houses' WMS servers, with the moods that those have.

use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::geoserver::GeoServerDouble;
use crate::support::upstream::{Mood, UpstreamWms};

const PASSWORD: &str = "upstr3am-s3cret";

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_answer_fails_its_layers_only() {
    let world = World::any(Vcs::Hg).await;
    let w = world.workspace("moods");
    let rest = world.rest();
    world.set("STEP_TIMEOUT", "3");
    let upstream = UpstreamWms::start(&["photo", "relief"]).await;
    upstream.mood(Mood::Hangs);
    let store = world.publish_wms_store_of(&w, "cascade", &upstream.url());
    let photo = world.publish_wms_layer(&w, "cascade", "photo", "photo", &json!({}));
    let relief = world.publish_wms_layer(&w, "cascade", "relief", "relief", &json!({}));
    let roads = Layer::new(&w, "roads");
    world.publish(&roads).await;
    world.commit("a hanging upstream");
    let clock = Instant::now();
    let pulling = tokio::task::spawn_blocking({
        let mut command = world.pull_command();
        move || crate::support::world::outcome(&mut command)
    });
    // While it hangs, GeoServer's catalog answers, and the layer that needs no upstream comes.
    while rest.layer(&w, "roads").await.is_none() {
        let asked = Instant::now();
        rest.workspaces().await;
        assert!(asked.elapsed() < Duration::from_secs(2), "the catalog is locked");
        assert!(clock.elapsed() < Duration::from_secs(60));
    }
    let outcome = pulling.await.unwrap().failed();
    assert!(clock.elapsed() < Duration::from_secs(25), "{:?}", clock.elapsed());
    assert!(outcome.text().contains("does not answer within"), "{}", outcome.text());
    for (job, state) in
        [(&store, "succeeded"), (&photo, "failed"), (&relief, "failed"), (&roads.job_file(), "succeeded")]
    {
        assert_eq!(world.state(job)["state"], json!(state), "{job}");
    }
    assert!(upstream.asked().len() <= 2, "asked once for all of its layers");

    // One layer is there, the other is called otherwise.
    upstream.mood(Mood::Well);
    upstream.rename("relief", "reliefs");
    world.pull().failed().says("\"relief\"").says("reliefs").says("1 job failed");
    assert_eq!(world.state(&photo)["state"], json!("succeeded"));
    upstream.rename("reliefs", "relief");
    for mood in [Mood::Status(503), Mood::Says(b"<html>maintenance</html>".to_vec())] {
        upstream.mood(mood);
        let outcome = world.pull().failed().says(&relief);
        not_a_word(&outcome, &photo);
    }
    upstream.mood(Mood::Well);
    world.pull().succeeded();
    assert_eq!(rest.layers(&w).await, ["photo", "relief", "roads"]);
    for job in [&photo, &relief] {
        assert_eq!(world.state(job)["state"], json!("succeeded"));
    }
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascaded_layer_moves_with_its_groups_and_rules() {
    let world = World::any(Vcs::Hg).await;
    let (w, rest) = (world.workspace("moves"), world.rest());
    let upstream = UpstreamWms::start(&["photo", "relief"]).await;
    world.publish_wms_store_of(&w, "first", &upstream.url());
    world.publish_wms_store_of(&w, "second", &upstream.url());
    world.publish_wms_layer(&w, "first", "photo", "photo", &json!({"auth_level": 2}));
    world.publish_wms_layer(&w, "first", "relief", "relief", &json!({}));
    world.publish_group(&w, "both", &[("wms_layer", "photo"), ("wms_layer", "relief")], &json!({}));
    let before = rest.rules().await;
    let mut rules = before.clone();
    rules.insert(format!("{w}.photo.r"), "ROLE_ONE".into());
    let text = |rules: &BTreeMap<String, String>| {
        let lines = rules.iter().map(|(rule, roles)| format!("{rule}={roles}\n"));
        std::iter::once("mode=HIDE\n".to_owned()).chain(lines).collect::<String>()
    };
    world.master.write("geoserver/layers.properties", text(&rules));
    world.commit("cascade");
    world.pull().succeeded();
    let members = Some(vec![format!("{w}:photo"), format!("{w}:relief")]);
    assert_eq!((rest.group(&w, "both").await, rest.rules().await), (members.clone(), rules.clone()));

    // The first store goes in the same commit.
    for name in ["photo", "relief"] {
        world.publish_wms_layer(&w, "second", name, "photo", &json!({"title": "Moved"}));
    }
    world.master.remove(format!("geoserver/wms_stores/{w}.first.json"));
    world.commit("move");
    world.pull().succeeded();
    assert_eq!(rest.wms_stores(&w).await, ["second"]);
    for name in ["photo", "relief"] {
        assert_eq!(rest.wms_layer(&w, name).await, Some((format!("{w}:second"), "photo".to_owned())));
    }
    assert_eq!((rest.group(&w, "both").await, rest.rules().await), (members, rules));

    if let Some(double) = world.doubles.first() {
        tiles_are_of_what_is_published_last(&world, double, &w);
    }

    // The store goes with its layers, which have no removals of their own.
    world.master.remove(format!("geoserver/layergroups/{w}.both.json"));
    world.master.remove(format!("geoserver/wms_stores/{w}.second.json"));
    world.commit("remove the store");
    world.pull().succeeded();
    assert_eq!((rest.wms_stores(&w).await, rest.layers(&w).await), (vec![], vec![]));
    for name in ["photo", "relief"] {
        world.master.remove(format!("geoserver/wms_layers/{w}.{name}.json"));
    }
    world.master.write("geoserver/layers.properties", text(&before));
    world.commit("remove the layers afterwards");
    world.pull().succeeded();
    rest.drop_workspace(&w).await;
}

/// Of a layer and a group that were cascaded as `relief` and `both` through the store `second`.
fn tiles_are_of_what_is_published_last(world: &World, double: &GeoServerDouble, w: &str) {
    let truncations = || double.requests().iter().filter(|request| request.path.contains("masstruncate")).count();
    let more = json!({"title": "Moved", "job_id": null, "geoserver_setting": {"create_cache_layer": true}});
    let cached = json!({"geoserver_setting": {"create_cache_layer": true}});
    let both = [("wms_layer", "photo"), ("wms_layer", "relief")];
    let relief = world.publish_wms_layer(w, "second", "relief", "photo", &more);
    let group = world.publish_group(w, "both", &both, &cached);
    world.commit("with tiles");
    world.pull().succeeded();

    // The upstream's pictures may be others, also where no `job_id` tells so.
    double.clear_requests();
    world.publish_wms_layer(w, "second", "relief", "photo", &more);
    world.commit("again");
    world.pull().succeeded();
    assert!(truncations() >= 2, "the layer's and its group's");

    // What was published in between, and whose tiles could not be emptied, leaves none behind.
    let first = [&relief, &group].map(|file| fs::read(world.master.path().join(file)).unwrap());
    double.fail_on(Some("masstruncate"));
    world.publish_wms_layer(w, "second", "relief", "relief", &more);
    world.publish_group(w, "both", &both[..1], &cached);
    world.commit("others");
    world.pull().failed().says(&relief).says(&group);
    double.fail_on(None);
    double.clear_requests();
    for (file, content) in [&relief, &group].into_iter().zip(first) {
        world.master.write(file, content);
    }
    world.commit("back");
    world.pull().succeeded();
    assert!(truncations() >= 2, "the layer's, and those of the group, which lacked the layer in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascaded_layer_that_comes_back_has_its_groups_again() {
    let world = World::any(Vcs::Hg).await;
    let (w, rest) = (world.workspace("back"), world.rest());
    let upstream = UpstreamWms::start(&["photo", "relief"]).await;
    let cascade = || world.publish_wms_store_of(&w, "up", &upstream.url());
    let layer = |name: &str| world.publish_wms_layer(&w, "up", name, name, &json!({}));
    world.publish(&Layer::new(&w, "roads")).await;
    world.commit("what is read live");
    world.pull().succeeded();
    let store = cascade();
    let photo = layer("photo");
    layer("relief");
    world.publish_live_store(&w, "live", &w);
    world.publish_live_layer(&w, "live", "tracks", &json!({"table": "roads"}));
    let all = [("wms_layer", "photo"), ("publish", "roads"), ("wms_layer", "relief"), ("publish", "tracks")];
    world.publish_group(&w, "all", &all, &json!({}));
    world.commit("a group");
    world.pull().succeeded();
    let holds = async |names: &[&str]| {
        let names = names.iter().map(|name| format!("{w}:{name}")).collect::<Vec<_>>();
        assert_eq!(rest.group(&w, "all").await, Some(names));
    };
    world.master.remove(&photo);
    world.commit("one goes");
    world.pull().succeeded();
    holds(&["roads", "relief", "tracks"]).await;
    layer("photo");
    world.commit("it comes back");
    world.pull().succeeded();
    holds(&["photo", "roads", "relief", "tracks"]).await;

    // With their stores, by whose removal alone they go.
    world.master.remove(&store);
    world.master.remove(format!("geoserver/live_stores/{w}.live.json"));
    world.commit("the stores go with all they hold");
    world.pull().succeeded();
    holds(&["roads"]).await;
    let record = world.state(&store);
    assert!(record.to_string().contains("taken out of the layer group all"), "{record:#}");
    cascade();
    layer("photo");
    layer("relief");
    world.publish_live_store(&w, "live", &w);
    world.publish_live_layer(&w, "live", "tracks", &json!({"table": "roads", "title": "Back"}));
    world.commit("they come back");
    world.pull().succeeded();
    holds(&["photo", "roads", "relief", "tracks"]).await;
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_documents_and_passwords() {
    let world = World::start(Vcs::Hg).await;
    world.set("DEBUG", "true");
    let upstream = UpstreamWms::start(&["photo"]).await;
    upstream.mood(Mood::Wants("reader", PASSWORD));
    // Before 2016-03-30 all stood in the job file.
    let store = json!({"action": "publish", "workspace": "w", "name": "cascade", "capability_url": upstream.url(),
        "username": "reader", "password": PASSWORD, "job_id": 3, "publish_time": "2016-03-01 01:12:44"});
    let layer = json!({"action": "publish", "workspace": "w", "name": "photo", "native_name": "photo", "store": "cascade",
        "title": "Old", "abstract": "of old", "job_id": 4});
    world.master.write("geoserver/wms_stores/w.cascade.json", store.to_string());
    world.master.write("geoserver/wms_layers/w.photo.json", layer.to_string());
    world.commit("old documents");
    let outcome = world.pull().succeeded();
    not_a_word(&outcome, PASSWORD);
    assert_eq!(world.geoserver().layer("w", "photo").unwrap().title, "Old");

    // What fails does not tell it either; the layer alone does not know it, and comes nevertheless.
    upstream.mood(Mood::Status(500));
    let mut wrong = layer.clone();
    wrong["title"] = json!("Newer");
    world.master.write("geoserver/wms_layers/w.photo.json", wrong.to_string());
    world.commit("newer");
    not_a_word(&world.pull().failed(), PASSWORD);
    upstream.mood(Mood::Wants("reader", PASSWORD));
    not_a_word(&world.pull().succeeded(), PASSWORD);
    assert_eq!(world.geoserver().layer("w", "photo").unwrap().title, "Newer");

    // Another store of the same user has an old password: each is asked with its own.
    let again = |mut document: Value, job: i64| {
        document["job_id"] = json!(job);
        document
    };
    let (mut store_of_old, mut layer_of_old) = (again(store.clone(), 7), again(layer.clone(), 8));
    for (field, value) in [("name", "outdated"), ("password", "0ld")] {
        store_of_old[field] = json!(value);
    }
    for (field, value) in [("name", "other"), ("store", "outdated")] {
        layer_of_old[field] = json!(value);
    }
    let outdated = ["geoserver/wms_stores/w.outdated.json", "geoserver/wms_layers/w.other.json"];
    world.master.write(outdated[0], store_of_old.to_string());
    world.master.write(outdated[1], layer_of_old.to_string());
    world.master.write("geoserver/wms_stores/w.cascade.json", again(store.clone(), 5).to_string());
    world.master.write("geoserver/wms_layers/w.photo.json", again(layer.clone(), 6).to_string());
    world.commit("two passwords");
    not_a_word(&world.pull().failed(), PASSWORD);
    assert_eq!(world.state("geoserver/wms_layers/w.photo.json")["state"], json!("succeeded"));
    let record = world.state(outdated[1]);
    assert_eq!(record["state"], json!("failed"));
    assert!(record.to_string().contains("refuses"), "{record:#}");
    for file in outdated {
        world.master.remove(file);
    }
    for arguments in [&["status", "--json"][..], &["status"], &["check"]] {
        not_a_word(&world.slave(arguments), PASSWORD);
    }
    let written: Vec<PathBuf> = files_below(&world.clone)
        .into_iter()
        .filter(|path| {
            !path.components().any(|part| part.as_os_str() == ".hg") && !path.starts_with(world.clone.join("geoserver"))
        })
        .filter(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(PASSWORD))
        .collect();
    assert_eq!(written, Vec::<PathBuf>::new());

    // Removals as they were then: the document with another action.
    for (file, mut document) in [("wms_layers/w.photo", layer), ("wms_stores/w.cascade", store)] {
        document["action"] = json!("remove");
        world.master.write(format!("geoserver/{file}.json"), document.to_string());
    }
    world.commit("remove");
    world.pull().succeeded();
    assert!(world.geoserver().wms_stores("w").is_empty() && world.geoserver().layer("w", "photo").is_none());
}
