//! Processes of a world: who descends from whom, and whether any is left.

#![allow(clippy::disallowed_methods, reason = "tests start and end the program as an operator does")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::world::{Outcome, World, program};

/// A command that runs in a process group of its own, its output kept in files.
pub(crate) struct Running {
    child: Child,
    stdout: tempfile::NamedTempFile,
    stderr: tempfile::NamedTempFile,
}

impl Running {
    /// Starts `command` as a shell with job control does.
    pub(crate) fn start(mut command: Command) -> Self {
        let (stdout, stderr) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        command.process_group(0).stdin(Stdio::null());
        command.stdout(stdout.reopen().unwrap()).stderr(stderr.reopen().unwrap());
        Self { child: command.spawn().unwrap(), stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended within `limit`.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end; the test fails when that takes longer than `limit`.
    #[track_caller]
    pub(crate) fn end(&mut self, limit: Duration) -> Outcome {
        let Some(status) = self.ends_within(limit) else {
            panic!("it still runs after {limit:?}:\n{}", self.outcome(None).text());
        };
        self.outcome(status.code())
    }

    /// What it has printed so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.stderr.path()).unwrap()
    }

    fn outcome(&self, code: Option<i32>) -> Outcome {
        Outcome { code, stdout: fs::read_to_string(self.stdout.path()).unwrap(), stderr: self.stderr() }
    }

    /// Waits until it has printed `text` to standard error.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.stderr().contains(text) {
            assert!(Instant::now() < until, "{text:?} is not said:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Itself and everything that descends from it, as far as it can be seen now.
    pub(crate) fn tree(&self) -> Vec<u32> {
        let parents = parents();
        let mut tree = vec![self.pid()];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        tree
    }

    /// The `borg-slave` processes among them.
    pub(crate) fn slaves(&self) -> Vec<u32> {
        let program = program().canonicalize().unwrap();
        let runs = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        self.tree().into_iter().filter(runs).collect()
    }

    /// Waits for a `borg-slave` below it.
    #[track_caller]
    pub(crate) fn slave(&self) -> u32 {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(&pid) = self.slaves().first() {
                return pid;
            }
            assert!(Instant::now() < until, "no borg-slave is started");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal to its whole process group, as ^C on a terminal does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(raw(self.pid()), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in self.tree() {
            kill(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Sends a signal to a process, which may have ended.
pub(crate) fn kill(pid: u32, signal: Signal) {
    let _ = rustix::process::kill_process(raw(pid), signal);
}

fn parents() -> Vec<(u32, u32)> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name stands in parentheses and may hold any character.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_whitespace();
        let state = fields.next();
        if state != Some("Z")
            && let Some(parent) = fields.next().and_then(|parent| parent.parse().ok())
        {
            parents.push((pid, parent));
        }
    }
    parents
}

/// Waits until nothing of the world runs any more: neither a process nor a session of the database.
pub(crate) async fn nothing_is_left(world: &World, limit: Duration) {
    let home = format!("HOME={}", world.master.beside("home").display());
    let until = Instant::now() + limit;
    let admin = world.database.admin().await;
    loop {
        let processes: Vec<String> = parents()
            .into_iter()
            .filter(|(pid, _)| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.split(|&byte| byte == 0).any(|entry| entry == home.as_bytes())
            })
            .map(|(pid, _)| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                format!("{pid} {}", String::from_utf8_lossy(&words).replace('\0', " "))
            })
            .collect();
        let sessions: i64 = admin
            .query_one(
                "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'borg-slave%'",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        if processes.is_empty() && sessions == 0 {
            return;
        }
        assert!(Instant::now() < until, "left after {limit:?}: {sessions} sessions, {processes:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
