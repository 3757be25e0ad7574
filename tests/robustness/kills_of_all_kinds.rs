//! Killed at random moments of a pass that holds every kind of job, a slave comes to the same state as one
//! that was left alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::kills::{Chance, recover};
use super::processes::{self, Running};
use super::{number_from_env, report, snapshot};
use crate::support::upstream::{UpstreamLayer, UpstreamWms};
use crate::support::world::{Layer, World, outcome};

/// How often a pull is killed; `BORG_TEST_KILLS` says otherwise.
const KILLS: u32 = 15;

/// What the master publishes, in two variants: everything comes, changes, moves, and half of it goes.
async fn publish(world: &World, w: &str, variant: usize) {
    let tiles = json!({"create_cache_layer": true, "server_cache_expire": 60 + variant, "client_cache_expire": 60});
    let colour = ["#112233", "#445566"][variant];
    let version = i32::try_from(variant).unwrap() + 1;
    let roads = Layer::new(w, "roads").style("night", colour).field("geoserver_setting", tiles.clone());
    world.publish(&roads.dump(|dump| dump.version(version))).await;
    world.publish(&Layer::new(w, "plain")).await;
    for store in ["cascade", "cascade_2"] {
        world.publish_wms_store(w, store);
    }
    let store = ["cascade", "cascade_2"][variant];
    let title = ["Photo", "Photo, moved"][variant];
    let native = format!("{w}_up:photo");
    world.publish_wms_layer(w, store, "photo", &native, &json!({"title": title, "geoserver_setting": tiles}));
    world.publish_live_store(w, "live", &format!("{w}_up"));
    world.publish_live_layer(w, "live", "live_photo", &json!({"table": "photo", "title": title}));
    let inner: &[(&str, &str)] =
        [&[("publish", "roads"), ("wms_layer", "photo")][..], &[("wms_layer", "photo")]][variant];
    world.publish_group(w, "inner", inner, &json!({"geoserver_setting": tiles}));
    world.publish_group(w, "outer", &[("publish", "live_photo"), ("group", "inner"), ("publish", "plain")], &json!({}));
    world.publish_workspace(w, [1, 2][variant]);
    let rules = ["GROUP_A", "GROUP_A,GROUP_B"][variant];
    world.master.write(
        "geoserver/layers.properties",
        format!("mode=HIDE\n*.*.r=*\n{w}.roads.r={rules}\n{w}.photo.r={rules}\n"),
    );
    let sql = format!(
        "do $$ begin create role {w}_reader; exception when duplicate_object then null; end $$; -- {variant}\n"
    );
    world.master.write("slave_roles.sql", sql);
    for (folder, name) in [("layers", "roads"), ("layergroups", "inner")] {
        let document = json!({"job_id": world.next_job(), "action": "empty_gwc", "workspace": w, "name": name});
        world.master.write(format!("geoserver/{folder}/{w}.{name}.empty_gwc.json"), document.to_string());
    }
    // What is in one variant only.
    if variant == 0 {
        world.publish_group(w, "passing", &[("publish", "plain")], &json!({}));
        world.publish_live_layer(w, "live", "passing_photo", &json!({"table": "photo"}));
        world.publish_wms_layer(
            w,
            "cascade",
            "passing_map",
            &native,
            &json!({"geoserver_setting": {"create_cache_layer": true}}),
        );
    } else {
        for file in ["layergroups/*.passing", "live_layers/*.passing_photo", "wms_layers/*.passing_map"] {
            let file = format!("geoserver/{}.json", file.replace('*', w));
            if world.master.path().join(&file).exists() {
                world.master.remove(file);
            }
        }
    }
}

/// The parts of the catalog that [`snapshot::of`] does not tell, and the journal.
fn rest(world: &World, w: &str) -> String {
    let double = world.geoserver();
    let mut text = String::new();
    let mut stores = double.wms_stores(w);
    stores.sort();
    let _ = writeln!(text, "{stores:?}\n{:#?}", double.rules());
    for group in ["inner", "outer", "passing"] {
        let _ = writeln!(text, "{group}: {:?}", double.group(w, group));
    }
    for layer in ["roads", "plain", "photo", "live_photo", "inner", "outer", "passing_map"] {
        let document = double.tile_layer(&format!("{w}:{layer}")).unwrap_or_else(|| "none".to_owned());
        let kept = document.lines().filter(|line| !line.contains("<id>")).collect::<Vec<_>>().join("\n");
        let _ = writeln!(text, "tiles of {layer}: {kept}");
    }
    let outcome = world.slave(&["status", "--json"]);
    let records: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.text()));
    let states: BTreeMap<&str, (&Value, &Value, &Value)> = records
        .iter()
        .map(|record| (record["job_file"].as_str().unwrap(), (&record["state"], &record["action"], &record["message"])))
        .collect();
    let _ = writeln!(text, "{states:#?}");
    text.replace(w, "*")
}

async fn world(w: &str) -> World {
    let world = World::start(Vcs::Hg).await;
    world.set("CACHE_PATH", world.clone.join("dumps").to_str().unwrap());
    world.set("GEOSERVER_CREATE_GRIDSETS", "true");
    world.publish(&Layer::new(&format!("{w}_up"), "photo")).await;
    world.commit("what is cascaded");
    world.pull().succeeded();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_of_all_kinds_survives_kills() {
    let mut chance = Chance::from_env();
    let seed = chance.0;
    let wanted = number_from_env("BORG_TEST_KILLS").map_or(KILLS, |kills| u32::try_from(kills).unwrap());
    let (killed, calm) = (world("wildkinds").await, world("tamekinds").await);
    let mut spread = Duration::ZERO;
    for variant in 0..2 {
        publish(&calm, "tamekinds", variant).await;
        calm.commit("calm");
        let clock = Instant::now();
        calm.pull().succeeded();
        spread = spread.max(clock.elapsed());
    }
    let spread = u64::try_from(spread.as_micros()).unwrap();
    let (mut kills, mut log, mut round) = (0, Vec::new(), 0);
    while kills < wanted || round % 2 == 1 {
        publish(&killed, "wildkinds", round % 2).await;
        killed.commit(&format!("round {round}"));
        // Several in a row, so that what one leaves is interrupted again.
        for _ in 0..4 {
            if kills == wanted {
                break;
            }
            recover(&killed);
            let mut pull = Running::start(killed.pull_command());
            let delay = Duration::from_micros(chance.below(spread));
            if pull.ends_within(delay).is_some() {
                pull.end(Duration::ZERO);
                continue;
            }
            let everything = chance.below(2) == 0;
            let pids = if everything { pull.tree() } else { pull.slaves() };
            for &pid in &pids {
                processes::kill(pid, Signal::KILL);
            }
            kills += u32::from(!pids.is_empty());
            log.push(format!("round {round}, all {everything}, after {delay:?}"));
            pull.end(Duration::from_secs(60));
        }
        recover(&killed);
        let calmed = outcome(&mut killed.pull_command());
        assert_eq!(calmed.code, Some(0), "seed {seed}, {log:#?}: {}", calmed.text());
        round += 1;
    }
    processes::nothing_is_left(&killed, Duration::from_secs(10)).await;
    snapshot::is_finished(&killed);
    let wild = snapshot::of(&killed, "wildkinds").await + rest(&killed, "wildkinds").as_str();
    let tame = snapshot::of(&calm, "tamekinds").await + rest(&calm, "tamekinds").as_str();
    if wild != tame {
        let differing: Vec<_> = wild.lines().zip(tame.lines()).filter(|(left, right)| left != right).take(20).collect();
        panic!("seed {seed}, {kills} kills\n{log:#?}\n{differing:#?}\n{wild}");
    }
    report(&format!("{kills} kills in {round} rounds, seed {seed}"));
}

/// GeoServer drops a layer's access rules with the layer, and nobody but it knew those that were made by hand.
#[tokio::test(flavor = "multi_thread")]
async fn rules_made_by_hand_survive_a_kill_while_their_layer_is_made_anew() {
    let world = World::start(Vcs::Hg).await;
    world.set("SKIP_RULES", "true");
    let upstream = UpstreamWms::start(&[]).await;
    // GeoServer cannot change a layer of such a style.
    upstream.add_layer(UpstreamLayer { name: "photo".into(), styled: true, legend: false });
    world.publish_wms_store_of("w", "cascade", &upstream.url());
    world.publish_wms_layer("w", "cascade", "photo", "photo", &json!({}));
    world.commit("cascade");
    world.pull().succeeded();
    world.rest().add_rule("w.photo.r", "ROLE_STAFF").await;

    world.publish_wms_layer("w", "cascade", "photo", "photo", &json!({"title": "Anew"}));
    world.commit("another title");
    world.geoserver().delay(Duration::from_millis(300));
    let mut pull = Running::start(world.pull_command());
    while world.geoserver().layer("w", "photo").is_some() {
        assert!(pull.ends_within(Duration::from_millis(2)).is_none(), "{}", pull.stderr());
    }
    for pid in pull.slaves() {
        processes::kill(pid, Signal::KILL);
    }
    pull.end(Duration::from_secs(60)).failed();
    world.geoserver().delay(Duration::ZERO);
    recover(&world);
    world.pull().succeeded();
    assert_eq!(world.geoserver().layer("w", "photo").unwrap().title, "Anew");
    assert_eq!(world.rest().rules().await["w.photo.r"], "ROLE_STAFF");
}
