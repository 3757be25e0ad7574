//! Asked to stop, a run comes to a safe point in time; asked twice, it ends at once.

use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;
use rustix::process::Signal;

use super::processes::{self, Running};
use crate::support::sshd::{Fate, Proxy};
use crate::support::world::{Layer, World, outcome};

/// From the first signal to the end: the grace and what ending takes on a busy machine.
const IN_TIME: Duration = Duration::from_secs(15);

/// How long a pass may take to get to where it is held up.
const PATIENCE: Duration = Duration::from_secs(30);

async fn rows(world: &World, relation: &str) -> i64 {
    let admin = world.database.admin().await;
    admin.query_one(&format!("select count(*) from {relation}"), &[]).await.unwrap().get(0)
}

/// A world with layer `cadastre.roads` of 10 rows published, and 20 rows committed.
async fn world() -> World {
    let world = World::start(Vcs::Hg).await;
    let roads = Layer::new("cadastre", "roads");
    world.publish(&roads).await;
    world.commit("ten");
    world.pull().succeeded();
    world.publish(&roads.rows(20)).await;
    world.commit("twenty");
    world
}

/// Whether the clone has the master's newest changeset.
fn is_pulled(world: &World) -> bool {
    let tip = world.master.run_in(&world.clone, ["hg", "log", "-r", "tip", "-T", "{node}"]);
    tip.trim() == world.master.head().as_str()
}

/// The changesets come in without the hook; `sync` is for the test to run.
fn pull_without_hook(world: &World) {
    world.master.run_in(&world.clone, ["hg", "pull", "-q", "--config", "hooks.pretxnchangegroup.borg="]);
}

/// A pipe that holds as much as it can, and whoever could read it.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    use std::io::Write as _;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while writer.write(b".").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_reads_standard_error_holds_up_neither_a_run_nor_its_end() {
    let world = world().await;
    pull_without_hook(&world);
    let start = |arguments: &[&str]| {
        let (reader, writer) = full_pipe();
        let mut command = world.slave_command(arguments);
        command.env("DEBUG", "true").stderr(writer).stdout(std::process::Stdio::null());
        (reader, command.spawn().unwrap())
    };
    let end = |child: &mut std::process::Child| {
        let until = Instant::now() + PATIENCE;
        loop {
            match child.try_wait().unwrap() {
                Some(status) => return status.code(),
                None if Instant::now() > until => {
                    child.kill().unwrap();
                    return None;
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    };
    let (_unread, mut sync) = start(&["sync"]);
    let until = Instant::now() + PATIENCE;
    while rows(&world, "cadastre.roads").await != 20 || !world.slave(&["--no-wait", "sync"]).text().contains("Some(0)")
    {
        assert!(Instant::now() < until, "the run is held up");
    }
    // It only waits for a while for whoever might read what it has said.
    processes::kill(sync.id(), Signal::TERM);
    assert_eq!(end(&mut sync), Some(143));
    let (_unread, mut daemon) = start(&["poll", "--interval", "3600"]);
    let lock = world.clone.join("code/.sync_status/daemon.lock");
    let until = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&lock).unwrap_or_default().is_empty() {
        assert!(Instant::now() < until, "the daemon does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    processes::kill(daemon.id(), Signal::TERM);
    assert_eq!(end(&mut daemon), Some(143));
}

/// Waits until a session of the slave waits for a lock, or `pg_restore` does.
async fn waits_for_lock(world: &World) {
    let admin = world.database.admin().await;
    let query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let until = Instant::now() + PATIENCE;
    while admin.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < until, "nobody waits for a lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_during_a_restore_that_hangs_rolls_the_pull_back_and_the_next_one_completes() {
    let world = world().await;
    // The name is taken by a transaction that does not end: `CREATE TABLE` in pg_restore waits for it.
    let blocker = world.database.admin().await;
    world.publish(&Layer::new("cadastre", "lakes")).await;
    world.commit("lakes");
    blocker.batch_execute("begin; create table cadastre_data.lakes (id integer)").await.unwrap();
    let mut pull = Running::start(world.pull_command());
    waits_for_lock(&world).await;
    processes::kill(pull.slave(), Signal::TERM);
    pull.end(IN_TIME).failed().says("asked to stop").says("143");
    assert!(!is_pulled(&world));
    processes::nothing_is_left(&world, Duration::from_secs(5)).await;
    blocker.batch_execute("rollback").await.unwrap();
    world.pull().succeeded();
    assert!(is_pulled(&world));
    assert_eq!((rows(&world, "cadastre.roads").await, rows(&world, "cadastre.lakes").await), (20, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_during_a_swap_that_readers_hold_up_leaves_the_old_content() {
    let world = world().await;
    pull_without_hook(&world);
    let reader = world.database.admin().await;
    reader.batch_execute("begin; select count(*) from cadastre.roads").await.unwrap();
    let mut sync = Running::start(world.slave_command(&["sync"]));
    waits_for_lock(&world).await;
    processes::kill(sync.pid(), Signal::INT);
    assert_eq!(sync.end(IN_TIME).code, Some(130));
    reader.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&world, "cadastre.roads").await, 10);
    world.slave(&["sync"]).succeeded();
    assert_eq!(rows(&world, "cadastre.roads").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_geoserver_that_hangs_does_not_keep_a_run_that_is_asked_to_stop() {
    let world = world().await;
    pull_without_hook(&world);
    world.geoserver().hang(true);
    let mut sync = Running::start(world.slave_command(&["sync", "--verbose"]));
    sync.says("step=swap", PATIENCE);
    processes::kill(sync.pid(), Signal::TERM);
    assert_eq!(sync.end(IN_TIME).code, Some(143));

    let mut sync = Running::start(world.slave_command(&["sync", "--verbose"]));
    sync.says("step=schemas", PATIENCE);
    processes::kill(sync.pid(), Signal::TERM);
    sync.says("asked to stop", PATIENCE);
    let clock = Instant::now();
    processes::kill(sync.pid(), Signal::TERM);
    assert_eq!(sync.end(Duration::from_secs(3)).code, Some(143));
    assert!(clock.elapsed() < Duration::from_secs(3));
    world.geoserver().hang(false);
    processes::nothing_is_left(&world, Duration::from_secs(5)).await;
    world.slave(&["sync"]).succeeded();
    assert_eq!(rows(&world, "cadastre.roads").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_stalls_does_not_keep_a_run_that_is_asked_to_stop() {
    let world = world().await;
    pull_without_hook(&world);
    let proxy = Proxy::start(world.sshd.port(), [Fate::Stall(6000)]).await;
    world.set("BORG_SSH", &shell_words::join(world.sshd.ssh_command_via(&proxy)));
    let mut sync = Running::start(world.slave_command(&["sync"]));
    proxy.fulfilled().await;
    let clock = Instant::now();
    processes::kill(sync.pid(), Signal::TERM);
    assert_eq!(sync.end(IN_TIME).code, Some(143));
    super::report(&format!("a stalled transfer was given up {:?} after TERM", clock.elapsed()));
    processes::nothing_is_left(&world, Duration::from_secs(5)).await;
    world.slave(&["sync"]).succeeded();
    assert_eq!(rows(&world, "cadastre.roads").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_on_a_pull_rolls_it_back_and_the_next_one_completes() {
    let world = world().await;
    let reader = world.database.admin().await;
    reader.batch_execute("begin; select count(*) from cadastre.roads").await.unwrap();
    let mut pull = Running::start(world.pull_command());
    waits_for_lock(&world).await;
    pull.signal_group(Signal::INT);
    pull.end(IN_TIME).failed();
    processes::nothing_is_left(&world, IN_TIME).await;
    assert!(!is_pulled(&world));
    reader.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&world, "cadastre.roads").await, 10);
    assert!(!world.clone.join(".hg/store/journal").exists());
    outcome(&mut world.pull_command()).succeeded();
    assert!(is_pulled(&world));
    assert_eq!(rows(&world, "cadastre.roads").await, 20);
}
