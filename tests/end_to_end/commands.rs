//! The commands that people type, and what they exit with.

use borg_slave::journal::{RunLock, Wait};
use borg_slave::state_repo::Vcs;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::support::world::outcome;

/// All files outside of the VCS's own directory, with their contents.
fn files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let own = |path: &PathBuf| path.starts_with(world.clone.join(".hg")) || path.starts_with(world.clone.join(".git"));
    let files = files_below(&world.clone).into_iter().filter(|path| !own(path));
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[track_caller]
fn exits(outcome: Outcome, code: i32) -> Outcome {
    assert_eq!(outcome.code, Some(code), "{}", outcome.text());
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_failures_stay_in_the_journal_until_they_are_retried() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let world = World::start(vcs).await;
        world.set("HOOK_ON_FAILURE", "accept");
        let (good, bad) = (Layer::new("w", "good"), Layer::new("w", "bad"));
        world.publish(&good).await;
        let dump = world.publish(&bad).await.dump;
        let hidden = dump.with_extension("hidden");
        fs::rename(&dump, &hidden).unwrap();
        let first = world.commit("good and bad");
        world.pull().succeeded().says(&bad.job_file()).says("sync --retry-failed");
        assert_eq!(tip(&world), first.as_str());
        is_state(&world, &bad, "failed");

        // It is not in the range any more; a plain run leaves it, and a pull too.
        exits(world.slave(&["sync"]), 0);
        let more = Layer::new("w", "more");
        world.publish(&more).await;
        world.commit("more");
        world.pull().succeeded();
        is_state(&world, &bad, "failed");
        assert_eq!(world.state(&bad.job_file())["attempts"], json!(1));

        exits(world.slave(&["sync", "--retry-failed"]), 1).says(&bad.job_file());
        assert_eq!(world.state(&bad.job_file())["attempts"], json!(2));
        fs::rename(&hidden, &dump).unwrap();
        clear_requests(&world);
        exits(world.slave(&["sync", "--retry-failed"]), 0);
        is_state(&world, &bad, "succeeded");
        assert_eq!(count(&world, "w", "bad").await, 10);
        let requests = world.geoserver().requests();
        assert!(requests.iter().all(|request| !request.path.contains("good") && !request.path.contains("more")));
        clear_requests(&world);
        exits(world.slave(&["sync", "--retry-failed"]), 0);
        no_requests(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_touches_nothing_and_says_what_would_be_done() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let world = World::start(vcs).await;
        let (roads, tracks) = (Layer::new("w", "roads"), Layer::new("w", "tracks"));
        world.publish(&roads).await;
        world.publish_workspace("w", 1);
        world.master.write("geoserver/layers/w.broken.json", "{");
        world.commit("first");
        world.set("ROLLBACK", "false");
        // Brings the changesets without the hook.
        let fetch: &[&str] = match vcs {
            Vcs::Hg => &["hg", "pull", "-q", "--config", "hooks.pretxnchangegroup.borg="],
            Vcs::Git => &["git", "-c", "core.hooksPath=/dev/null", "pull", "-q"],
        };
        world.master.run_in(&world.clone, fetch);
        let before = files(&world);
        clear_requests(&world);
        let outcome = exits(world.slave(&["sync", "--dry-run"]), 0);
        for what in ["3 jobs to do", "publish", "workspace", &roads.job_file(), "would fail", "w.broken.json"] {
            assert!(outcome.stdout.contains(what), "{what:?} is not in:\n{}", outcome.text());
        }
        assert_eq!(files(&world).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert_eq!(files(&world), before);
        no_requests(&world);
        assert!(relations(&world, &["w"]).await.is_empty());
        let admin = world.database.admin().await;
        let schemas = "select count(*) from pg_namespace where nspname in ('w', 'w_data', 'borg_slave')";
        assert_eq!(admin.query_one(schemas, &[]).await.unwrap().get::<_, i64>(0), 0);

        // And it changes nothing about what is done later.
        exits(world.slave(&["sync"]), 1).says("w.broken.json");
        is_state(&world, &roads, "succeeded");
        world.publish(&tracks).await;
        world.master.remove("geoserver/layers/w.broken.json");
        world.commit("second");
        world.master.run_in(&world.clone, fetch);
        let before = files(&world);
        world.geoserver().clear_requests();
        exits(world.slave(&["sync", "--dry-run", "--retry-failed"]), 0).says(&tracks.job_file());
        assert_eq!(files(&world), before, "nor the journal, when there is one");
        no_requests(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_single_files() {
    let world = World::start(Vcs::Hg).await;
    let layers: Vec<Layer> = ["one", "two", "three"].iter().map(|name| Layer::new("w", name)).collect();
    let mut revisions = Vec::new();
    for layer in &layers {
        world.publish(layer).await;
        revisions.push(world.commit(&layer.name));
    }
    world.master.run_in(&world.clone, ["hg", "pull", "-q", "--config", "hooks.pretxnchangegroup.borg="]);
    let [one, two, three] = [0, 1, 2].map(|index| revisions[index].as_str());

    exits(world.slave(&["sync", "--from", one, "--to", two]), 0);
    assert_eq!(states(&world).keys().collect::<Vec<_>>(), [&layers[1].job_file()]);
    // Up to somewhere in the middle, then the rest: what was done out of order is not done again.
    exits(world.slave(&["sync", "--from", "null", "--to", two]), 0);
    assert_eq!(states(&world).len(), 2);
    exits(world.slave(&["sync", "--to", three]), 0);
    let all = status(&world);
    assert!(all.values().all(|record| record["state"] == "succeeded" && record["attempts"] == 1), "{all:#?}");
    assert_eq!(all.len(), 3);
    exits(world.slave(&["sync", "--dry-run"]), 0).says("nothing to do");
    exits(world.slave(&["sync", "--to", one]), 0).says("applied already");
    exits(world.slave(&["sync", "--dry-run"]), 0).says("nothing to do");

    // One file by name runs whatever is known of it, and no other.
    let file = layers[0].job_file();
    exits(world.slave(&["sync", "--file", &file]), 0);
    let all = status(&world);
    assert_eq!((&all[&file]["attempts"], &all[&layers[1].job_file()]["attempts"]), (&json!(2), &json!(1)));

    // Where the clone is lost, nothing is.
    let (clone, lost) = (world.clone.join(".hg"), world.master.beside("lost"));
    fs::rename(&clone, &lost).unwrap();
    world.master.run_in(&world.clone, ["hg", "init"]);
    clear_requests(&world);
    for arguments in [&["sync"][..], &["sync", "--from", "null"], &["poll", "--once"]] {
        exits(world.slave(arguments), 1).says("holds no changesets");
    }
    no_requests(&world);
    // Nor where another master's is in its place.
    world
        .master
        .run_in(&world.clone, ["hg", "--config", "ui.username=x", "commit", "-qm", "other", "--addremove", "README"]);
    exits(world.slave(&["sync"]), 1).says("lacks 3 job files");
    fs::remove_dir_all(&clone).unwrap();
    fs::rename(&lost, &clone).unwrap();

    exits(world.slave(&["sync", "--file", "geoserver/layers/w.four.json"]), 2).says("w.four.json");
    exits(world.slave(&["sync", "--file", "README"]), 2).says("README");
    exits(world.slave(&["sync", "--from", "nowhere"]), 2).says("--from nowhere");
    exits(world.slave(&["sync", "--to", "--verbose"]), 2);
    exits(world.slave(&["sink"]), 2);
    exits(world.slave(&["--help"]), 0);
    world.set("GEOSERVER_URL", "gopher://nowhere");
    exits(world.slave(&["sync"]), 2).says("GEOSERVER_URL");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_and_forgets() {
    let world = World::start(Vcs::Git).await;
    world.set("HOOK_ON_FAILURE", "accept");
    exits(world.slave(&["status"]), 0).says("0 jobs");
    assert!(!world.clone.join("code").exists(), "looking makes no journal");
    let (good, bad) = (Layer::new("w", "good"), Layer::new("w", "bad"));
    world.publish(&good).await;
    let dump = world.publish(&bad).await.dump;
    let hidden = dump.with_extension("hidden");
    fs::rename(&dump, &hidden).unwrap();
    world.commit("good and bad");
    world.pull().succeeded();

    let (good_file, bad_file) = (good.job_file(), bad.job_file());
    let all = exits(world.slave(&["status"]), 0).says(&good_file).says(&bad_file).says("1 succeeded, 1 failed");
    assert_eq!(all.stderr, "");
    let failed = exits(world.slave(&["status", "--failed"]), 0).says(&bad_file).says("bad.db");
    not_a_word(&failed, &good_file);
    not_a_word(&exits(world.slave(&["status", "--succeeded"]), 0).says(&good_file), &bad_file);
    let one = exits(world.slave(&["status", &good_file]), 0);
    for step in ["metadata", "dump", "restore", "swap", "feature type", "styles", &world.geoserver().url()] {
        assert!(one.stdout.contains(step), "{step:?} is not in:\n{}", one.text());
    }
    let records: Vec<Value> =
        serde_json::from_str(&exits(world.slave(&["status", "--json", "--failed"]), 0).stdout).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["job_file"], json!(bad_file));
    assert!(records[0]["hint"].is_string());
    exits(world.slave(&["status", "geoserver/layers/w.unknown.json"]), 1).says("nothing is known");
    exits(world.slave(&["status", "--failed", "--succeeded"]), 2);
    // No password in any of it.
    let json = world.slave(&["status", "--json"]);
    not_a_word(&json, crate::support::postgres::PASSWORD);

    fs::rename(&hidden, &dump).unwrap();
    exits(world.slave(&["status", "forget", "geoserver/layers/w.unknown.json"]), 1);
    exits(world.slave(&["status", "forget"]), 2);
    exits(world.slave(&["status", "forget", "--failed"]), 0).says(&bad_file);
    exits(world.slave(&["sync"]), 0);
    is_state(&world, &bad, "succeeded");
    clear_requests(&world);
    exits(world.slave(&["status", "forget", &good_file]), 0);
    exits(world.slave(&["sync"]), 0);
    is_state(&world, &good, "succeeded");
    assert!(world.geoserver().requests().iter().any(|request| request.path.contains("good")));
}

#[tokio::test(flavor = "multi_thread")]
async fn local_commits_are_refused() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let world = World::start(vcs).await;
        let before = tip(&world);
        fs::write(world.clone.join("mine"), "a local change").unwrap();
        let words: &[&str] = match vcs {
            Vcs::Hg => &["hg", "commit", "-A", "-m", "mine"],
            Vcs::Git => &["git", "commit", "--allow-empty", "-m", "mine"],
        };
        outcome(&mut world.master.command(&world.clone, words)).failed().says("this clone belongs to a slave");
        assert_eq!(tip(&world), before);
        exits(world.slave(&["hook", "deny"]), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time() {
    let world = World::start(Vcs::Hg).await;
    let dir = world.clone.join("code/.sync_status");
    let stop = CancellationToken::new();
    let lock = RunLock::acquire(&dir, "a test", Wait::No, &stop).await.unwrap();
    exits(world.slave(&["sync", "--no-wait"]), 3).says("a test");
    exits(world.slave(&["--no-wait", "sync", "--retry-failed"]), 3);
    // Looking needs no lock.
    exits(world.slave(&["sync", "--dry-run", "--no-wait"]), 0);
    exits(world.slave(&["status"]), 0);

    // Without the option it waits, says so, and goes on when it can.
    world.publish(&Layer::new("w", "roads")).await;
    world.commit("roads");
    let mut pull = world.pull_command();
    let pulling = tokio::task::spawn_blocking(move || outcome(&mut pull));
    world.slave(&["sync", "--no-wait"]);
    drop(lock);
    pulling.await.unwrap().succeeded();
    is_state(&world, &Layer::new("w", "roads"), "succeeded");
}
