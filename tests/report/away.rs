//! A master that is away, silent, or not there at all never stops a sync.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use borg_slave::journal::Journal;
use borg_slave::state_repo::Vcs;
use serde_json::{Value, json};

use super::{Monitor, closed_port};
use crate::support::world::World;

fn workspace(world: &World, name: &str) {
    world.publish_workspace(name, 1);
    world.commit("publish a workspace");
}

fn waiting(world: &World) -> usize {
    let journal = Journal::open_read_only(&world.clone.join("code/.sync_status")).unwrap().unwrap();
    journal.reports(0, 1000).unwrap().len()
}

fn json_of(world: &World, arguments: &[&str]) -> Value {
    let outcome = world.slave(arguments).succeeded();
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_wait_for_a_master_that_is_down_and_come_in_later() {
    let (world, monitor) = (World::start(Vcs::Hg).await, Monitor::start().await);
    monitor.follow(&world);
    world.set("MASTER_PGSQL_PORT", &closed_port().to_string());
    workspace(&world, "a");
    let outcome = world.pull().succeeded().says("reports to the master have to wait").says("MASTER_PGSQL_HOST");
    assert_eq!(outcome.stderr.matches("have to wait").count(), 1, "{}", outcome.text());
    world.slave(&["sync", "--file", "geoserver/workspaces/a.json"]).succeeded();
    let idle = world.slave(&["sync"]).succeeded();
    assert!(!idle.text().contains("have to wait"), "{}", idle.text());
    assert_eq!(waiting(&world), 2, "the newest state of the job and of the run");
    world.slave(&["status"]).succeeded().says("2 reports wait for the master").says("cannot be told since");
    world.slave(&["report"]).succeeded().says("task/workspace/publish/a").says("2 reports wait");
    let told = json_of(&world, &["report", "--json"]);
    assert_eq!((&told["waiting"], &told["refused"]), (&json!(2), &json!(0)), "{told}");
    assert!(told["failure"].as_str().is_some_and(|reason| reason.contains("Connection refused")), "{told}");
    assert!(told["since"].is_string() && told["failing_since"].is_string(), "{told}");
    let reports = told["reports"].as_array().unwrap();
    assert_eq!(reports.len(), 2, "{told}");
    assert!(reports.iter().any(|report| report["subject"] == "task/workspace/publish/a"), "{told}");
    world.slave(&["report", "--flush"]).failed().says("MASTER_PGSQL_HOST");
    world.slave(&["check"]).failed().says("PROBLEM  master's database");

    monitor.is_up(&world);
    // A run with nothing else to do delivers what is left.
    world.slave(&["sync"]).succeeded();
    let rows = monitor.rows("select task_name, sync_succeed from monitor_tasksyncstatus").await;
    assert_eq!(rows, [r#"{"task_name":"a","sync_succeed":true}"#]);
    assert_eq!(waiting(&world), 0);
    let told = json_of(&world, &["report", "--json"]);
    assert_eq!((&told["waiting"], &told["since"], &told["reports"]), (&json!(0), &json!(null), &json!([])), "{told}");
    let told = json_of(&world, &["report", "--flush", "--json"]);
    assert_eq!((&told["delivered"], &told["refused"]), (&json!(0), &json!([])), "{told}");
    assert!(!world.slave(&["status"]).text().contains("reports"));

    // A daemon that can make no pass says why, once, and when it can again.
    let round = || world.slave(&["poll", "--once"]);
    let told = async || {
        let rows = monitor.rows("select last_poll_time, last_sync_time, last_sync_message from monitor_slaveserver");
        serde_json::from_str::<Value>(&rows.await[0]).unwrap()
    };
    world.set("STATE_BRANCH", "gone");
    round().failed();
    let first = told().await;
    let said = first["last_sync_message"].as_str().unwrap();
    assert!(said.contains("no pass can be made") && said.contains("gone"), "{said}");
    round().failed();
    let second = told().await;
    assert_eq!(second["last_sync_time"], first["last_sync_time"]);
    assert_eq!(waiting(&world), 0);
    world.set("STATE_BRANCH", "");
    round().succeeded();
    let last = told().await;
    assert!(last["last_sync_message"].as_str().unwrap().contains("passes are made again"), "{last}");
    assert!(last["last_poll_time"].is_string(), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_master_holds_nobody_up_and_a_kill_while_waiting_for_it_loses_nothing() {
    let (world, monitor) = (World::start(Vcs::Hg).await, Monitor::start().await);
    workspace(&world, "a");
    let clock = Instant::now();
    world.pull().succeeded();
    let undisturbed = clock.elapsed();

    // Accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    monitor.follow(&world);
    world.set("MASTER_PGSQL_PORT", &silent.local_addr().unwrap().port().to_string());
    workspace(&world, "b");
    let clock = Instant::now();
    let said = world.pull().succeeded().says("have to wait").text();
    // Who loses patience first: the pass that has ended, or, on a busy machine, the connection.
    assert!(said.contains("does not answer") || said.contains("did not answer in time"), "{said}");
    let held_up = clock.elapsed().saturating_sub(undisturbed);
    assert!(held_up < Duration::from_secs(6), "{held_up:?} more than {undisturbed:?}");

    // The outcome is on record, nothing is delivered: killed.
    let mut slave = world.slave_command(&["sync", "--file", "geoserver/workspaces/a.json"]);
    let mut slave = slave.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let ended = || {
        let journal = Journal::open_read_only(&world.clone.join("code/.sync_status")).unwrap().unwrap();
        journal.reports(0, 10).unwrap().iter().any(|report| report.subject == "task/workspace/publish/a")
    };
    while !ended() {
        assert!(Instant::now() < until && slave.try_wait().unwrap().is_none(), "it ended before it was seen");
        tokio::task::yield_now().await;
    }
    slave.kill().unwrap();
    slave.wait().unwrap();
    monitor.is_up(&world);
    world.slave(&["report", "--flush"]).succeeded().says("3 reports delivered");
    let rows = monitor.rows("select task_name, sync_succeed from monitor_tasksyncstatus order by 1").await;
    assert_eq!(rows, [r#"{"task_name":"a","sync_succeed":true}"#, r#"{"task_name":"b","sync_succeed":true}"#]);
    assert_eq!(world.state("geoserver/workspaces/a.json")["state"], json!("succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_master_nothing_is_kept() {
    let world = World::start(Vcs::Hg).await;
    workspace(&world, "a");
    world.pull().succeeded();
    assert_eq!(waiting(&world), 0);
    world.slave(&["report"]).succeeded().says("MASTER_PGSQL_HOST is not set");
    assert_eq!(json_of(&world, &["report", "--json"])["master"], json!(null));
    world.slave(&["report", "--flush"]).succeeded().says("MASTER_PGSQL_HOST is not set");
}
