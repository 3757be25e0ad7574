//! A pass that has nothing to do costs next to nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use borg_slave::journal::{JobOutcome, Journal, NewJob, State};
use borg_slave::plan::hex_md5;
use borg_slave::state_repo::Vcs;
use serde_json::json;

use crate::support::world::{World, outcome};

const JOBS: usize = 5_000;

/// Processor time of the process itself, without its children. Ticks of the kernel are 10 ms.
fn own_cpu_time(command: &mut Command) -> Duration {
    // Into a file: nobody reads while it runs.
    let mut stderr = tempfile::tempfile().unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(stderr.try_clone().unwrap()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    // Not waited for yet: the kernel still knows its times.
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let mut said = String::new();
    std::io::Seek::rewind(&mut stderr).unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.into_raw(), 0, "{said}");
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_without_change_asks_nobody_and_takes_no_time() {
    let world = World::start(Vcs::Hg).await;
    // Nobody answers there, so whoever asks fails.
    world.geoserver().stop();
    world.set("GEOSERVER_PGSQL_PORT", "1");
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        let path = format!("geoserver/layers/ws{}.layer{number}.json", number % 50);
        let document = json!({
            "job_id": number, "job_batch_id": "20161105_0100", "action": "publish",
            "data": { "file": format!("borg@master-001:/var/borg/{number}.db"), "md5": hex_md5(path.as_bytes()) },
            "meta": { "file": format!("borg@master-001:/var/borg/{number}.meta.json"), "md5": hex_md5(path.as_bytes()) },
        })
        .to_string();
        world.master.write(&path, &document);
        jobs.push((path, hex_md5(document.as_bytes())));
    }
    let tip = world.commit("publish 5000 layers");
    outcome(&mut world.master.command(&world.clone, ["hg", "pull", "-q", "--config", "hooks.pretxnchangegroup.borg="]))
        .succeeded();
    {
        let journal = Journal::open(&world.clone.join("code/.sync_status")).unwrap();
        let known: Vec<_> = jobs
            .iter()
            .map(|(job_file, content_md5)| {
                let job = NewJob {
                    job_file: job_file.clone(),
                    kind: "feature",
                    action: "publish",
                    content_md5: content_md5.clone(),
                    revision: tip.as_str().to_owned(),
                    job_id: None,
                    job_batch_id: None,
                };
                (job, JobOutcome::plain(State::Succeeded))
            })
            .collect();
        journal.settle_jobs(&known).unwrap();
        for part in ["database", world.geoserver_url()] {
            journal.set_marker("parts", part, "whole").unwrap();
        }
    }
    // Everything is in the range and done already; then the cursor stands at the tip.
    let first = own_cpu_time(&mut world.slave_command(&["sync"]));
    let measure = |arguments: &[&str], env: &[(&str, &str)]| {
        let runs = 5;
        let total: Duration =
            (0..runs).map(|_| own_cpu_time(world.slave_command(arguments).envs(env.iter().copied()))).sum();
        total / runs
    };
    let sync = measure(&["sync"], &[]);
    let hook_env = [("HG_NODE", tip.as_str()), ("HG_NODE_LAST", tip.as_str()), ("HG_HOOKTYPE", "pretxnchangegroup")];
    let hook = measure(&["hook", "pretxnchangegroup"], &hook_env);
    println!("5,000 done jobs in the range {first:?}; without change: sync {sync:?}, hook {hook:?}");
    // A build for tests is several times slower than one for use.
    let limit = if cfg!(debug_assertions) { 4 } else { 1 };
    assert!(sync < Duration::from_millis(50) * limit, "sync {sync:?}");
    assert!(hook < Duration::from_millis(50) * limit, "hook {hook:?}");
    assert!(first < Duration::from_millis(500) * limit, "all done already: {first:?}");
    assert_eq!(world.geoserver().requests(), []);
}
