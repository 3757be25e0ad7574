//! Layer groups: nested, with members that fail, are refused, or go.

use std::time::Duration;

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::dumps::truncated;
use crate::support::rest::Rest;
use crate::support::upstream::{Mood, UpstreamWms};

/// A group's members as GeoServer names them.
fn members(w: &str, names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| format!("{w}:{name}")).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_groups_come_and_go_in_one_commit() {
    let world = World::any(Vcs::Hg).await;
    let w = world.workspace("nested");
    world.publish(&Layer::new(&w, "roads")).await;
    // The outermost comes first by name.
    let a = world.publish_group(&w, "a_outer", &[("group", "b_middle"), ("publish", "roads")], &json!({}));
    let b = world.publish_group(&w, "b_middle", &[("group", "c_inner")], &json!({}));
    let c = world.publish_group(&w, "c_inner", &[("publish", "roads")], &json!({}));
    world.commit("nested groups");
    world.pull().succeeded();
    let rest = world.rest();
    assert_eq!(rest.group(&w, "a_outer").await, members(&w, &["b_middle", "roads"]));
    assert_eq!(rest.group(&w, "b_middle").await, members(&w, &["c_inner"]));
    // The inner one cannot go while the middle one holds it: told, and left as it is.
    world.master.remove(&c);
    world.commit("the inner one goes");
    world.pull().failed().says(&c).says("b_middle");
    assert_eq!(rest.group(&w, "b_middle").await, members(&w, &["c_inner"]));
    // With those that hold it, it goes, whatever the order.
    world.master.remove(&a);
    world.master.remove(&b);
    world.commit("the others go too");
    world.pull().succeeded();
    for name in ["a_outer", "b_middle", "c_inner"] {
        assert_eq!(rest.group(&w, name).await, None, "{name}");
    }
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fails_is_named_and_follows() {
    let world = World::any(Vcs::Hg).await;
    let w = world.workspace("failing");
    world.publish(&Layer::new(&w, "roads")).await;
    let bad = Layer::new(&w, "bad");
    let published = world.publish(&bad).await;
    fs::rename(truncated(&published.dump), &published.dump).unwrap();
    refer_again(&world, &bad, &published.dump);
    let group = world.publish_group(&w, "all", &[("publish", "bad"), ("publish", "roads")], &json!({}));
    let outer = world.publish_group(&w, "around", &[("group", "all"), ("publish", "roads")], &json!({}));
    // A group that is left out by the filters is no excuse for a layer of its name.
    world.set("LAYERGROUP_FILTER", "job.name != \"bad\"");
    world.publish_group(&w, "bad", &[("publish", "roads")], &json!({}));
    world.commit("a group with a bad member");
    world.pull().failed().says(&group).says(&format!("{w}:bad"));
    let rest = world.rest();
    assert_eq!(rest.group(&w, "all").await, members(&w, &["roads"]));
    assert_eq!(rest.group(&w, "around").await, members(&w, &["all", "roads"]));
    let record = world.state(&group);
    assert_eq!(record["state"], json!("failed"));
    assert!(record["message"].as_str().unwrap().contains(&format!("{w}:bad")), "{record:#}");
    assert_eq!(world.state(&outer)["state"], json!("succeeded"));
    world.publish(&bad).await;
    world.commit("mended");
    world.pull().succeeded();
    assert_eq!(rest.group(&w, "all").await, members(&w, &["bad", "roads"]));
    assert_eq!(world.state(&group)["state"], json!("succeeded"));
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_the_filter_refuses_is_left_out_with_a_note() {
    let world = World::any(Vcs::Hg).await;
    let w = world.workspace("refused");
    world.set("FEATURE_FILTER", "job.name != \"tracks\"");
    world.publish(&Layer::new(&w, "roads")).await;
    let published = world.publish(&Layer::new(&w, "tracks")).await;
    let group = world.publish_group(&w, "all", &[("publish", "tracks"), ("publish", "roads")], &json!({}));
    let none = world.publish_group(&w, "none", &[("publish", "tracks")], &json!({}));
    let around = world.publish_group(&w, "around", &[("group", "none"), ("publish", "roads")], &json!({}));
    world.commit("groups");
    world.pull().succeeded();
    assert_eq!(world.rest().group(&w, "all").await, members(&w, &["roads"]));
    assert_eq!(world.rest().group(&w, "around").await, members(&w, &["roads"]));
    assert_eq!([&none, &around].map(|job| world.state(job)["state"].clone()), ["filtered", "succeeded"]);
    let record = world.state(&group);
    assert_eq!(record["state"], json!("succeeded"));
    assert!(record["message"].as_str().unwrap().contains(&format!("{w}:tracks")), "{record:#}");
    // A wider filter takes the layer. It fails at first, which the filters are no excuse for any more.
    world.set("FEATURE_FILTER", "true");
    let dump = &published.dump;
    let away = dump.with_extension("away");
    fs::rename(dump, &away).unwrap();
    world.slave(&["sync"]).failed().says(&group);
    assert_eq!(world.state(&group)["state"], json!("failed"));
    fs::rename(&away, dump).unwrap();
    // With it the group is whole, whichever run has brought it.
    world.slave(&["sync", "--file", &format!("geoserver/layers/{w}.tracks.json")]).succeeded();
    world.slave(&["sync"]).succeeded();
    assert_eq!(world.rest().group(&w, "all").await, members(&w, &["tracks", "roads"]));
    assert_eq!(world.rest().group(&w, "none").await, members(&w, &["tracks"]));
    assert_eq!(world.rest().group(&w, "around").await, members(&w, &["none", "roads"]));
    world.rest().drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_go_from_groups_that_stay_but_not_the_last_one() {
    let world = World::any(Vcs::Hg).await;
    let w = world.workspace("going");
    let (roads, tracks) = (Layer::new(&w, "roads"), Layer::new(&w, "tracks"));
    world.publish(&roads).await;
    world.publish(&tracks).await;
    let group = world.publish_group(&w, "all", &[("publish", "tracks"), ("publish", "roads")], &json!({}));
    world.commit("a group");
    world.pull().succeeded();
    world.remove(&tracks);
    world.commit("a member goes");
    world.pull().succeeded();
    let rest = world.rest();
    assert_eq!(rest.group(&w, "all").await, members(&w, &["roads"]));
    assert_eq!(rest.layers(&w).await, ["roads"]);
    let record = world.state(&tracks.job_file());
    assert!(record.to_string().contains("taken out of the layer group all"), "{record:#}");

    // It has its place again with the pull that brings it back, although the group's document is as it was.
    world.publish(&tracks).await;
    world.commit("the member comes back");
    world.pull().succeeded();
    assert_eq!(rest.group(&w, "all").await, members(&w, &["tracks", "roads"]));
    // Also when it was removed by a pull that was refused, so that its own file is as it was.
    let files = [tracks.job_file(), tracks.meta_file()];
    let documents = files.clone().map(|file| fs::read(world.master.path().join(file)).ok());
    let bad = Layer::new(&w, "bad");
    fs::remove_file(world.publish(&bad).await.dump).unwrap();
    world.remove(&tracks);
    world.commit("it goes, and a mistake");
    world.pull().failed();
    assert_eq!(rest.group(&w, "all").await, members(&w, &["roads"]));
    world.remove(&bad);
    for (file, document) in files.iter().zip(documents) {
        if let Some(document) = document {
            world.master.write(file, document);
        }
    }
    world.commit("all taken back");
    world.pull().succeeded();
    assert_eq!(rest.group(&w, "all").await, members(&w, &["tracks", "roads"]));
    // Or when it comes back in the same commit, as a layer of another kind.
    world.remove(&tracks);
    world.publish_live_store(&w, "live", &w);
    let live = world.publish_live_layer(&w, "live", "tracks", &json!({"table": "roads"}));
    world.commit("it is read live");
    world.pull().succeeded();
    assert_eq!(rest.group(&w, "all").await, members(&w, &["tracks", "roads"]));
    world.master.remove(&live);
    world.commit("it goes for good");
    world.pull().succeeded();
    assert_eq!(rest.layers(&w).await, ["roads"]);

    world.remove(&roads);
    world.commit("the last member goes");
    let outcome = world.pull().failed().says(&roads.job_file()).says("the layer group");
    assert!(outcome.text().contains("all"));
    assert_eq!(rest.group(&w, "all").await, members(&w, &["roads"]));
    assert_eq!(rest.layers(&w).await, ["roads"]);
    assert_eq!(count(&world, &w, "roads").await, 10);
    world.master.remove(&group);
    world.commit("and the group");
    world.pull().succeeded();
    assert_eq!((rest.group(&w, "all").await, rest.layers(&w).await), (None, vec![]));
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_in_a_circle_are_refused_and_the_rest_is_done() {
    let world = World::any(Vcs::Hg).await;
    let w = world.workspace("circle");
    world.publish(&Layer::new(&w, "roads")).await;
    let a = world.publish_group(&w, "a", &[("group", "b"), ("publish", "roads")], &json!({}));
    let b = world.publish_group(&w, "b", &[("group", "a"), ("publish", "roads")], &json!({}));
    let fine = world.publish_group(&w, "fine", &[("publish", "roads")], &json!({}));
    world.commit("a circle");
    world.pull().failed().says("in a circle").says(&a).says(&b);
    assert_eq!(world.state(&fine)["state"], json!("succeeded"));
    world.publish_group(&w, "b", &[("publish", "roads")], &json!({}));
    world.commit("no circle");
    world.pull().succeeded();
    let rest = world.rest();
    assert_eq!(rest.group(&w, "a").await, members(&w, &["b", "roads"]));
    // A circle that closes over two passes.
    world.publish_group(&w, "b", &[("group", "a"), ("publish", "roads")], &json!({}));
    world.commit("a circle again");
    world.pull().failed().says(&b);
    assert_eq!(rest.group(&w, "b").await, members(&w, &["roads"]));
    rest.drop_workspace(&w).await;
}

/// Looks at a group until it is told to stop; tells what its members were, as often as they changed.
fn watch(rest: Rest, w: &str, group: &'static str) -> (tokio::task::JoinHandle<Vec<Vec<String>>>, Arc<AtomicBool>) {
    let (w, stop) = (w.to_owned(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let watching = tokio::spawn(async move {
        let mut seen: Vec<Vec<String>> = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let members = rest.group(&w, group).await.unwrap_or_default();
            if seen.last() != Some(&members) {
                seen.push(members);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen
    });
    (watching, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_become_of_another_kind_keep_their_groups() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let world = World::any(vcs).await;
        let (w, rest) = (world.workspace("kinds"), world.rest());
        let upstream = UpstreamWms::start(&["photo", "roads"]).await;
        world.publish_wms_store_of(&w, "up", &upstream.url());
        world.publish_live_store(&w, "live", &w);
        let (photo, roads, base) = (Layer::new(&w, "photo"), Layer::new(&w, "roads"), Layer::new(&w, "base"));
        for layer in [&photo, &roads, &base] {
            world.publish(layer).await;
        }
        world.publish_group(&w, "alone", &[("publish", "photo")], &json!({}));
        world.publish_group(&w, "both", &[("publish", "photo"), ("publish", "roads")], &json!({}));
        world.commit("layers and groups");
        world.pull().succeeded();
        let are_whole = async || {
            assert_eq!(rest.group(&w, "alone").await, members(&w, &["photo"]));
            assert_eq!(rest.group(&w, "both").await, members(&w, &["photo", "roads"]));
            assert_eq!(rest.layers(&w).await, ["base", "photo", "roads"]);
        };
        are_whole().await;
        let (watching, stop) = watch(world.rest(), &w, "alone");

        world.remove(&photo);
        let live = world.publish_live_layer(&w, "live", "photo", &json!({"table": "base"}));
        world.commit("photo is read live");
        world.pull().succeeded();
        are_whole().await;
        assert_eq!([&photo.job_file(), &live].map(|file| world.state(file)["state"].clone()), ["succeeded"; 2]);
        assert!(world.state(&photo.job_file()).to_string().contains(&live), "{:#}", world.state(&photo.job_file()));
        assert_eq!(rest.styles(&w).await, ["base", "roads"], "its style went with it");

        // While the upstream does not answer, all is as it was.
        upstream.mood(Mood::Status(503));
        world.master.remove(&live);
        world.remove(&roads);
        for name in ["photo", "roads"] {
            world.publish_wms_layer(&w, "up", name, name, &json!({}));
        }
        world.commit("both are cascaded");
        // Git has the commits then, and the slave goes on by itself.
        let again = || if vcs == Vcs::Git { world.slave(&["sync"]) } else { world.pull() };
        if vcs == Vcs::Git {
            world.pull();
        }
        again().failed();
        are_whole().await;
        assert_eq!(rest.wms_layer(&w, "photo").await, None);
        upstream.mood(Mood::Well);
        again().succeeded();
        are_whole().await;
        for name in ["photo", "roads"] {
            assert_eq!(rest.wms_layer(&w, name).await, Some((format!("{w}:up"), name.to_owned())));
        }
        assert_eq!(rest.styles(&w).await, ["base"]);

        // An upstream that is gone for good, and with it its store.
        upstream.mood(Mood::Status(503));
        for name in ["photo", "roads"] {
            world.master.remove(format!("geoserver/wms_layers/{w}.{name}.json"));
        }
        world.master.remove(format!("geoserver/wms_stores/{w}.up.json"));
        world.publish(&photo).await;
        world.publish_live_layer(&w, "live", "roads", &json!({"table": "base"}));
        world.commit("harvested and live");
        world.pull().succeeded();
        are_whole().await;
        assert_eq!((rest.wms_stores(&w).await, count(&world, &w, "photo").await), (vec![], 10));
        stop.store(true, Ordering::Relaxed);
        let seen = watching.await.unwrap();
        let one = |members: &Vec<String>| members.len() == 1;
        assert!(seen.iter().all(one), "the group is never without a layer: {seen:?}");

        if vcs == Vcs::Hg {
            // What becomes a table and nothing else leaves no layer.
            let extra = Layer::new(&w, "extra").field("sync_geoserver_data", json!(false));
            let live = world.publish_live_layer(&w, "live", "extra", &json!({"table": "base"}));
            world.commit("one more");
            world.pull().succeeded();
            world.master.remove(&live);
            world.publish(&extra).await;
            world.commit("a table only");
            world.pull().succeeded();
            assert_eq!(count(&world, &w, "extra").await, 10);
            are_whole().await;
        }
        rest.drop_workspace(&w).await;
    }
}
