//! Access rules: who may read what, at every moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::real_geoserver::rules_alone;

const FILE: &str = "geoserver/layers.properties";

/// Asks for a protected layer without logging in, again and again: its features, and tiles of it.
struct Anonymous {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Anonymous {
    fn asks_for(world: &World, layer: &str) -> Self {
        let ways = [
            format!("ows?service=WFS&version=1.0.0&request=GetFeature&typeName={layer}&maxFeatures=1"),
            format!(
                "gwc/service/wms?service=WMS&version=1.1.1&request=GetMap&layers={layer}&styles=&bbox=90,-90,180,0&\
                 width=256&height=256&srs=EPSG:4326&format=image/png"
            ),
            format!(
                "gwc/service/wmts?service=WMTS&version=1.0.0&request=GetTile&layer={layer}&style=&\
                 tilematrixset=EPSG:4326&tilematrix=EPSG:4326:1&tilerow=1&tilecol=3&format=image/png"
            ),
        ]
        .map(|way| format!("{}/{way}", world.geoserver_url()));
        let (stop, asked, seen) = (Arc::default(), Arc::default(), Arc::default());
        let (until, count, open): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) =
            (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            for way in ways.iter().cycle() {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok(answer) = http.get(way).send().await {
                    let is_image = answer.headers().get("content-type").is_some_and(|kind| kind == "image/png");
                    if is_image || answer.text().await.is_ok_and(|text| text.contains("FeatureCollection")) {
                        open.fetch_add(1, Ordering::Relaxed);
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
                // Leaves the machine to the others.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { stop, asked, seen, task }
    }

    /// How often it asked, and how often it was let in.
    async fn ends(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        (self.asked.load(Ordering::Relaxed), self.seen.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_layer_is_closed_at_every_moment() {
    let world = World::any(Vcs::Hg).await;
    let _alone = rules_alone().await;
    let (rest, w) = (world.rest(), world.workspace("w"));
    world.set("GEOSERVER_CREATE_GRIDSETS", "false");
    let cached = |layer: Layer| layer.field("geoserver_setting", json!({"create_cache_layer": true}));
    let (secret, open) = (cached(Layer::new(&w, "secret")), cached(Layer::new(&w, "open")));
    world.publish(&secret).await;
    world.publish(&open).await;
    let rules = |more: &str| format!("mode=HIDE\n*.*.r=*\n{w}.secret.r=ROLE_ONE\n{more}");
    world.master.write(FILE, rules(""));
    let closed = Anonymous::asks_for(&world, &format!("{w}:secret"));
    let free = Anonymous::asks_for(&world, &format!("{w}:open"));
    world.commit("a protected layer");
    world.pull().succeeded();

    // The rules change, and with them the layer.
    for round in 0..2 {
        let others = format!("{w}.other_{round}.r=ROLE_TWO\n{w}.secret.w=ROLE_{round}\n");
        world.master.write(FILE, rules(&others).replace("ROLE_ONE", &format!("ROLE_ONE,ROLE_{round}")));
        world.publish(&secret.clone().rows(20 + round)).await;
        world.commit("rules change");
        world.pull().succeeded();
        assert_eq!(rest.rules().await[&format!("{w}.secret.r")], format!("ROLE_{round},ROLE_ONE"));
    }
    // The layer goes, and comes back in a later pass that brings no rules.
    world.remove(&secret);
    world.commit("the layer goes");
    world.pull().succeeded();
    assert_eq!(rest.layers(&w).await, ["open"]);
    world.publish(&secret).await;
    world.commit("the layer comes back");
    world.pull().succeeded();
    assert_eq!(rest.layers(&w).await, ["open", "secret"]);
    let expected =
        [("*.*.r", "*"), ("w.other_1.r", "ROLE_TWO"), ("w.secret.r", "ROLE_1,ROLE_ONE"), ("w.secret.w", "ROLE_1")];
    let expected: BTreeMap<String, String> = expected
        .into_iter()
        .map(|(rule, roles)| (rule.replacen("w.", &format!("{w}."), 1), roles.to_owned()))
        .collect();
    assert_eq!(rest.rules().await, expected);
    let ((asked, seen), (_, free)) = (closed.ends().await, free.ends().await);
    assert_eq!(seen, 0, "of {asked} requests");
    assert!(asked > 100 && free > 0, "{asked} requests, {free} of the open layer answered");
    eprintln!("{asked} requests for the closed layer, none let in; {free} of the open layer answered");
    world.master.write(FILE, "mode=HIDE\n*.*.r=*\n*.*.w=GROUP_ADMIN,ADMIN\n");
    world.commit("the rules of a new GeoServer");
    world.pull().succeeded();
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_two_channels_are_one() {
    let world = World::start(Vcs::Hg).await;
    world.set("LISTEN_CHANNELS", "geoserver,internal");
    let internal = "internal/layers.properties";
    world.master.write(FILE, "mode=HIDE\n*.*.r=*\na.one.r=ROLE_A\n");
    world.master.write(internal, "mode=HIDE\nb.two.r=ROLE_B\n");
    world.commit("rules of two channels");
    world.pull().succeeded();
    let both = world.rest().rules().await;
    assert_eq!(both.keys().collect::<Vec<_>>(), ["*.*.r", "a.one.r", "b.two.r"]);

    // One of them changes: the other's rules stay.
    world.master.write(internal, "mode=HIDE\nb.three.r=ROLE_B\n");
    world.commit("rules of one channel");
    world.pull().succeeded();
    assert_eq!(world.rest().rules().await.keys().collect::<Vec<_>>(), ["*.*.r", "a.one.r", "b.three.r"]);

    let before = world.rest().rules().await;
    // Contradictions, mistakes and emptiness are told by file and line, and change nothing.
    for (content, says) in [
        ("mode=HIDE\na.one.r=ROLE_OTHER\n", vec![FILE, internal, "a.one.r"]),
        ("mode=HIDE\nb.two.r=ROLE_B\nb.x.y.z=ROLE_B\n", vec![internal, "line 3"]),
        ("", vec![internal]),
        ("# all gone\n", vec![internal]),
    ] {
        world.master.write(internal, content);
        world.commit("a mistake");
        let outcome = world.pull().failed();
        for what in says {
            assert!(outcome.text().contains(what), "{what:?} is not in:\n{}", outcome.text());
        }
        assert_eq!(world.rest().rules().await, before);
    }
    world.master.write(internal, "mode=HIDE\nb.four.r=ROLE_B\n");
    world.commit("mended");
    world.pull().succeeded();
    assert_eq!(world.rest().rules().await.keys().collect::<Vec<_>>(), ["*.*.r", "a.one.r", "b.four.r"]);

    // A channel that no longer has rules of its own.
    world.master.remove(internal);
    world.commit("no rules of this channel");
    world.pull().succeeded();
    assert_eq!(world.rest().rules().await.keys().collect::<Vec<_>>(), ["*.*.r", "a.one.r"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_are_left_out_follow_later() {
    let world = World::start(Vcs::Hg).await;
    let before = world.rest().rules().await;
    world.set("SKIP_RULES", "true");
    world.master.write(FILE, "mode=HIDE\n*.*.r=*\nw.roads.r=ROLE_A\n");
    world.publish(&Layer::new("w", "roads")).await;
    world.commit("rules and a layer");
    world.pull().succeeded();
    assert_eq!(world.rest().rules().await, before);
    let record = world.state(FILE);
    assert_eq!(record["state"], json!("waiting"));
    assert!(record["message"].as_str().unwrap().contains("SKIP_RULES"), "{record:#}");
    world.set("SKIP_RULES", "false");
    world.slave(&["sync"]).succeeded();
    assert_eq!(world.rest().rules().await["w.roads.r"], "ROLE_A");
    assert_eq!(world.state(FILE)["state"], json!("succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_already_goes_on_when_the_rules_cannot_be_read() {
    let world = World::start(Vcs::Hg).await;
    let (roads, fresh) = (Layer::new("w", "roads"), Layer::new("w", "fresh"));
    world.master.write(FILE, "mode=HIDE\n*.*.r=*\nw.roads.r=ROLE_A\n");
    world.publish(&roads).await;
    world.publish_group("w", "network", &[("publish", "roads")], &json!({}));
    world.commit("rules and a layer");
    world.pull().succeeded();
    world.master.write(FILE, "mode=HIDE\nw.roads.r\n");
    let network = world.publish_group("w", "network", &[("publish", "roads")], &json!({"title": "anew"}));
    world.publish(&roads.clone().rows(20)).await;
    world.publish(&fresh).await;
    world.commit("a mistake");
    world.pull().failed().says("line 2");
    // What would be made anew might be open to everybody.
    is_state(&world, &fresh, "failed");
    assert!(world.geoserver().layer("w", "fresh").is_none());
    is_state(&world, &roads, "succeeded");
    assert_eq!(world.state(&network)["state"], json!("succeeded"), "{:#}", world.state(&network));
}
