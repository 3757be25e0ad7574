//! Several GeoServers and every kind of job; and several that share one data directory.

use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::geoserver::{GeoServerDouble, Request};
use crate::support::rest::Rest;

/// Publishes one of every kind in `w`, on a layer of `up` that is there already; gives the job files.
async fn every_kind(world: &World) -> Vec<String> {
    let roads = Layer::new("w", "roads").field("geoserver_setting", json!({"create_cache_layer": true}));
    world.publish(&roads).await;
    world.publish_workspace("w", 1);
    world.master.write("geoserver/layers.properties", "mode=HIDE\n*.*.r=*\nw.roads.r=ROLE_ONE\n");
    vec![
        roads.job_file(),
        "geoserver/layers.properties".to_owned(),
        world.publish_wms_store("w", "cascade"),
        world.publish_wms_layer("w", "cascade", "photo", "up:photo", &json!({})),
        world.publish_live_store("w", "live", "up"),
        world.publish_live_layer("w", "live", "live_photo", &json!({"table": "photo"})),
        world.publish_group("w", "all", &[("publish", "roads"), ("wms_layer", "photo")], &json!({})),
    ]
}

/// A world whose GeoServers hold the layer that others cascade and read live.
async fn world_with(servers: usize) -> World {
    let world = World::start_with(Vcs::Hg, servers).await;
    world.set("GEOSERVER_CREATE_GRIDSETS", "false");
    world.publish(&Layer::new("up", "photo")).await;
    world.commit("the upstream's own layer");
    world.pull().succeeded();
    world
}

/// All that a GeoServer holds of `w`.
async fn held(server: &GeoServerDouble, password: &str) -> String {
    let rest = Rest::new(&server.url(), "admin", password);
    let (layers, stores, cascades) = (rest.layers("w").await, rest.stores("w").await, rest.wms_stores("w").await);
    let (group, rules, tiles) = (rest.group("w", "all").await, rest.rules().await, rest.tile_layer("w", "roads").await);
    format!("{layers:?} {stores:?} {cascades:?} {group:?} {rules:?} {}", tiles.is_some())
}

fn writes(server: &GeoServerDouble) -> Vec<Request> {
    server.requests().into_iter().filter(|request| request.method != "GET").collect()
}

fn reloads(server: &GeoServerDouble) -> usize {
    server.requests().iter().filter(|request| request.path.starts_with("/rest/reload")).count()
}

/// The targets on which steps of a job failed.
fn failed_targets(world: &World, job_file: &str) -> Vec<String> {
    let steps = world.state(job_file)["steps"].as_array().unwrap().clone();
    let failed = steps.iter().filter(|step| step["outcome"] == "failed");
    failed.map(|step| step["target"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_kinds_of_jobs_are_completed_on_the_geoserver_that_was_down() {
    let world = world_with(2).await;
    let [up, down] = [&world.doubles[0], &world.doubles[1]];
    let jobs = every_kind(&world).await;
    world.commit("every kind");
    down.stop();
    world.pull().failed().says(&down.url());
    for job in &jobs {
        let failed = failed_targets(&world, job);
        assert!(!failed.is_empty() && failed.iter().all(|target| *target == down.url()), "{job}: {failed:?}");
        assert_eq!(world.state(job)["state"], json!("failed"), "{job}");
    }
    let whole = held(up, "geoserver").await;
    assert!(whole.contains("live_photo") && whole.contains("ROLE_ONE") && whole.contains("w:roads"), "{whole}");
    up.clear_requests();
    down.resume();
    world.pull().succeeded();
    assert_eq!(writes(up), []);
    // The upstream is asked for its capabilities: that is its other role here.
    let asked: Vec<_> = up.requests().into_iter().filter(|request| request.path.contains("/rest/")).collect();
    assert_eq!(asked, []);
    assert_eq!(held(down, "geoserver").await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_and_one_that_hangs_do_not_hold_up_the_third() {
    let world = world_with(3).await;
    let [well, locked, hanging] = [&world.doubles[0], &world.doubles[1], &world.doubles[2]];
    let jobs = every_kind(&world).await;
    world.commit("every kind");
    locked.set_password("other");
    hanging.hang(true);
    world.set("GEOSERVER_TIMEOUT", "2");
    let clock = Instant::now();
    let outcome = world.pull().failed().says(&locked.url()).says(&hanging.url());
    let took = clock.elapsed();
    not_a_word(&outcome, "\"geoserver\"");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let whole = held(well, "geoserver").await;
    assert!(whole.contains("live_photo") && whole.contains("ROLE_ONE") && whole.contains("w:roads"), "{whole}");
    for job in &jobs {
        let mut failed = failed_targets(&world, job);
        failed.sort();
        failed.dedup();
        let mut expected = vec![locked.url(), hanging.url()];
        expected.sort();
        assert_eq!(failed, expected, "{job}");
    }
    hanging.hang(false);
    world.set("GEOSERVER_PASSWORD", "geoserver,other,geoserver");
    world.set("GEOSERVER_USERNAME", "admin,admin,admin");
    well.clear_requests();
    world.pull().succeeded();
    assert_eq!(writes(well), []);
    assert_eq!(held(locked, "other").await, whole);
    assert_eq!(held(hanging, "geoserver").await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_the_data_directory_is_only_reloaded() {
    let world = World::start_with(Vcs::Hg, 2).await;
    world.set("GEOSERVER_SHARING_DATA_DIR", "true");
    let [first, other] = [&world.doubles[0], &world.doubles[1]];
    for layer in ["roads", "tracks"] {
        world.publish(&Layer::new("w", layer)).await;
    }
    world.commit("two layers");
    world.pull().succeeded();
    assert!(first.layer("w", "roads").is_some());
    assert_eq!((reloads(other), writes(other).len(), reloads(first)), (1, 1, 0));

    // Nothing to do, nothing to reload; and also where a job finds everything done.
    clear_requests(&world);
    world.pull().succeeded();
    world.slave(&["sync"]).succeeded();
    world.slave(&["sync", "--file", "geoserver/layers/w.roads.json"]).succeeded();
    assert_eq!((other.requests(), writes(first)), (vec![], vec![]));

    // Other columns are told at once, since the others answer WFS with an error until they know them.
    world.publish(&Layer::new("w", "roads").dump(|dump| dump.column("depth integer default 3"))).await;
    world.commit("roads with a column more");
    world.pull().succeeded();
    let told: Vec<String> = writes(other).into_iter().map(|request| request.path).collect();
    let reset = "/rest/workspaces/w/datastores/w_ds/featuretypes/roads/reset.json";
    assert_eq!((told.len(), told[0].as_str(), reloads(other)), (2, reset, 1), "{told:?}");

    // A reload that fails fails the pass; the next does that and nothing else.
    other.fail_next(1, 500);
    world.publish(&Layer::new("w", "roads").rows(20).dump(|dump| dump.column("depth integer default 3"))).await;
    world.commit("roads anew");
    let before = tip(&world);
    world.pull().failed().says(&other.url());
    assert_eq!(tip(&world), before);
    clear_requests(&world);
    world.pull().succeeded();
    assert_eq!((reloads(other), first.requests()), (1, vec![]));
    assert_ne!(tip(&world), before);
    clear_requests(&world);
    world.slave(&["sync"]).succeeded();
    no_requests(&world);
    assert_eq!(other.requests(), []);

    // Down, and then asked no more: what is due is not kept for ever.
    other.stop();
    world.publish(&Layer::new("w", "roads").rows(30).dump(|dump| dump.column("depth integer default 3"))).await;
    world.commit("roads once more");
    world.pull().failed().says(&other.url());
    world.set("GEOSERVER_URL", &first.url());
    world.pull().succeeded();
    let before = runs(&world);
    world.slave(&["sync"]).succeeded();
    assert_eq!(runs(&world), before, "nothing is left to do");
}

/// How many runs the journal knows.
fn runs(world: &World) -> i64 {
    let journal = rusqlite::Connection::open(world.clone.join("code/.sync_status/journal.sqlite3")).unwrap();
    journal.query_row("select count(*) from run", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_writing_and_reloading_is_made_good() {
    let world = World::start_with(Vcs::Hg, 2).await;
    world.set("GEOSERVER_SHARING_DATA_DIR", "true");
    let [first, other] = [&world.doubles[0], &world.doubles[1]];
    world.publish(&Layer::new("w", "roads")).await;
    world.commit("roads");
    other.hang(true);
    let mut pull = world.pull_command().spawn().unwrap();
    // The reload is what it hangs in, once all jobs have ended.
    let until = Instant::now() + Duration::from_secs(20);
    while world.state(&Layer::new("w", "roads").job_file())["state"] != json!("succeeded") {
        assert!(Instant::now() < until, "the job does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_slave_of(&pull);
    pull.wait().unwrap();
    other.hang(false);
    clear_requests(&world);
    world.pull().succeeded();
    assert_eq!((reloads(other), writes(first)), (1, vec![]));
}

/// Kills the slave that a pull has started.
fn kill_slave_of(pull: &std::process::Child) {
    let mut pids = vec![pull.id()];
    let mut index = 0;
    while index < pids.len() {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pids[index])).unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        index += 1;
    }
    let slave = pids
        .iter()
        .rev()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().starts_with("borg-slave"));
    let pid = rustix::process::Pid::from_raw(i32::try_from(*slave.unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
