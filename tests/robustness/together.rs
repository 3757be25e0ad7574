//! Two runs at once, pulls that are taken back afterwards, and disks that are full.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use borg_slave::state_repo::Vcs;
use serde_json::json;

use super::processes::Running;
use crate::support::world::{Layer, World, outcome};

const PATIENCE: Duration = Duration::from_secs(30);

async fn version(world: &World, relation: &str) -> i32 {
    let admin = world.database.admin().await;
    admin.query_one(&format!("select min(version) from {relation}"), &[]).await.unwrap().get(0)
}

fn roads(version: i32) -> Layer {
    Layer::new("cadastre", "roads").dump(|dump| dump.version(version))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_waits_says_so_and_does_nothing_twice() {
    let world = World::start(Vcs::Hg).await;
    world.publish(&roads(1)).await;
    world.commit("one");
    world.pull().succeeded();
    world.publish(&roads(2)).await;
    world.commit("two");
    world.geoserver().clear_requests();
    world.geoserver().hang(true);
    let mut pull = Running::start(world.pull_command());
    pull.slave();
    // The lock is taken before the first request hangs.
    loop {
        let refused = world.slave(&["sync", "--no-wait"]);
        if refused.code == Some(3) {
            refused.says("hook pretxnchangegroup");
            let round = world.slave(&["poll", "--once", "--no-wait"]);
            assert_eq!(round.code, Some(3), "{}", round.text());
            break;
        }
        assert!(pull.ends_within(Duration::from_millis(20)).is_none(), "{}", refused.text());
    }
    let mut sync = Running::start(world.slave_command(&["sync"]));
    sync.says("waiting for", PATIENCE);
    world.geoserver().hang(false);
    pull.end(PATIENCE).succeeded();
    sync.end(PATIENCE).succeeded();
    // The second one began while the first one's changesets were not yet permanent.
    assert_eq!(version(&world, "cadastre.roads").await, 2);
    let updates = world.geoserver().requests();
    let updates = updates.iter().filter(|request| request.method == "PUT" && request.path.contains("recalculate"));
    assert_eq!(updates.count(), 1);
    assert_eq!(world.state(&roads(2).job_file())["attempts"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_another_hook_takes_back_afterwards_is_made_good_by_the_next_one() {
    let world = World::start(Vcs::Hg).await;
    let (lakes, hills) = (Layer::new("cadastre", "lakes"), Layer::new("cadastre", "hills"));
    world.publish(&roads(1)).await;
    world.publish(&lakes).await;
    world.commit("one");
    world.pull().succeeded();

    let first = std::fs::read(world.master.path().join(roads(1).job_file())).unwrap();
    let kept = std::fs::read(world.master.path().join(lakes.job_file())).unwrap();
    world.publish(&roads(2)).await;
    world.publish(&hills).await;
    world.remove(&lakes);
    world.commit("two");
    // It runs after ours, in the same transaction.
    let mut refused = world.pull_command();
    refused.args(["--config", "hooks.pretxnchangegroup.zz=false"]);
    outcome(&mut refused).failed().says("zz hook");
    assert_eq!(version(&world, "cadastre.roads").await, 2);

    // The master has changed its mind: in the end nothing differs from what the clone had all along.
    world.master.write(roads(1).job_file(), &first);
    world.master.write(lakes.job_file(), &kept);
    world.master.remove(hills.job_file());
    world.commit("as before");
    world.pull().succeeded();
    assert_eq!(version(&world, "cadastre.roads").await, 1);
    assert_eq!(version(&world, "cadastre.lakes").await, 1);
    let mut layers = world.geoserver().layers("cadastre");
    layers.sort();
    assert_eq!(layers, ["lakes", "roads"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refused_pull_did_in_part_is_made_good_when_the_master_takes_it_back() {
    let world = World::start(Vcs::Hg).await;
    let lakes = Layer::new("cadastre", "lakes");
    world.publish(&roads(1)).await;
    world.publish(&lakes).await;
    world.commit("one");
    world.pull().succeeded();
    let first = std::fs::read(world.master.path().join(roads(1).job_file())).unwrap();
    let kept = std::fs::read(world.master.path().join(lakes.job_file())).unwrap();

    world.publish(&roads(2)).await;
    world.remove(&lakes);
    world.master.write("geoserver/layers/cadastre.broken.json", "{");
    world.commit("two");
    world.pull().failed();
    assert_eq!(version(&world, "cadastre.roads").await, 2);
    assert!(world.geoserver().layer("cadastre", "lakes").is_none());

    world.master.write(roads(1).job_file(), &first);
    world.master.write(lakes.job_file(), &kept);
    world.master.remove("geoserver/layers/cadastre.broken.json");
    world.commit("as before");
    world.pull().succeeded();
    assert_eq!(version(&world, "cadastre.roads").await, 1);
    assert!(world.geoserver().layer("cadastre", "lakes").is_some());
    assert_eq!(version(&world, "cadastre.lakes").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_by_hand_leaves_alone_what_a_refused_pull_has_done() {
    let world = World::start(Vcs::Hg).await;
    world.publish(&roads(1)).await;
    world.commit("one");
    world.pull().succeeded();
    world.publish(&roads(2)).await;
    world.publish(&Layer::new("cadastre", "lakes")).await;
    let bad = Layer::new("cadastre", "bad");
    let dump = world.publish(&bad).await.dump;
    let hidden = dump.with_extension("hidden");
    std::fs::rename(&dump, &hidden).unwrap();
    world.commit("two");
    world.pull().failed();
    for arguments in [&["sync"][..], &["sync", "--retry-failed"]] {
        world.slave(arguments).succeeded().says("pull again");
        assert_eq!(version(&world, "cadastre.roads").await, 2);
        assert!(world.geoserver().layer("cadastre", "lakes").is_some());
    }
    std::fs::rename(&hidden, &dump).unwrap();
    world.pull().succeeded();
    assert!(world.geoserver().layer("cadastre", "bad").is_some());
    assert_eq!(version(&world, "cadastre.roads").await, 2);
}

/// The variable that leaves out what needs a file system of its own.
const WITHOUT_TMPFS: &str = "BORG_TEST_WITHOUT_TMPFS";

/// A file system of so many kilobytes; gone when dropped.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    /// `None` where mounting is not allowed and the environment says that this is known.
    fn mount(path: &'a Path, kilobytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let done = run(&["mount", "-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tmpfs", path.to_str().unwrap()]);
        assert!(
            done || super::number_from_env(WITHOUT_TMPFS) == Some(1),
            "this test mounts a small tmpfs, which needs root; {WITHOUT_TMPFS}=1 leaves it out"
        );
        done.then_some(Self(path))
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        run(&["umount", "-l", self.0.to_str().unwrap()]);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests set the machine up with plain commands")]
fn run(words: &[&str]) -> bool {
    Command::new(words[0]).args(&words[1..]).status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_journal_is_named_and_loses_nothing() {
    let world = World::start(Vcs::Hg).await;
    let dir = world.master.beside("status");
    let Some(disk) = Tmpfs::mount(&dir, 512) else {
        super::report("left out: this user may not mount a tmpfs");
        return;
    };
    world.set("SYNC_STATUS_PATH", dir.to_str().unwrap());
    world.publish(&roads(1)).await;
    world.commit("one");
    world.pull().succeeded();
    world.publish(&roads(2)).await;
    world.commit("two");
    let ballast = dir.join("ballast");
    // With more and more room the run gets further before it meets the end of the disk.
    let mut failures = 0;
    for free in [0, 8, 40, 56, 72, 88, 120] {
        let _ = std::fs::remove_file(&ballast);
        // Writes until the disk is full; `dd` fails then, as it should.
        run(&["dd", "if=/dev/zero", &format!("of={}", ballast.display()), "bs=1k", "status=none"]);
        let file = std::fs::OpenOptions::new().write(true).open(&ballast).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_sub(free * 1024)).unwrap();
        let pull = world.pull();
        if pull.code == Some(0) {
            break;
        }
        pull.says("free space on");
        failures += 1;
        if free == 0 {
            // Not on record, hence not begun.
            assert_eq!(version(&world, "cadastre.roads").await, 1);
        }
    }
    assert!(failures > 0);
    std::fs::remove_file(ballast).unwrap();
    world.pull().succeeded();
    assert_eq!(version(&world, "cadastre.roads").await, 2);
    assert_eq!(world.state(&roads(2).job_file())["state"], json!("succeeded"));
    super::report(&format!("{failures} pulls met a full disk"));
    drop(disk);
}
