//! `borg-slave poll`: rounds, what wakes them, and how the daemon ends.

#![allow(clippy::disallowed_methods, reason = "tests act as an operator does")]

mod code;
mod failing;
mod life;
mod page;
mod settings;
mod waking;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;
use rustix::process::Signal;

use crate::robustness::processes::{self, Running};
use crate::support::world::{Layer, Outcome, World};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon of a world, which tells what it does.
struct Daemon {
    running: Running,
}

impl Daemon {
    /// Starts `borg-slave poll` with debug messages.
    fn start(world: &World, arguments: &[&str]) -> Self {
        let words: Vec<&str> = ["poll", "--verbose"].iter().chain(arguments).copied().collect();
        Self { running: Running::start(world.slave_command(&words)) }
    }

    /// Starts one that makes a round only when something wakes it, and waits for its first round.
    #[track_caller]
    fn asleep(world: &World) -> Self {
        let daemon = Self::start(world, &["--interval", "3600"]);
        daemon.rounds(1);
        daemon
    }

    fn count(&self, text: &str) -> usize {
        self.running.stderr().matches(text).count()
    }

    /// Waits until `text` has been said `count` times.
    #[track_caller]
    fn says(&self, text: &str, count: usize) {
        until(
            || self.count(text) >= count,
            || format!("{text:?} is not said {count} times:\n{}", self.running.stderr()),
        );
    }

    /// Waits until so many rounds have ended.
    #[track_caller]
    fn rounds(&self, count: usize) {
        self.says("the round ended", count);
    }

    fn signal(&self, signal: Signal) {
        processes::kill(self.running.pid(), signal);
    }

    /// Ends it as a service manager does.
    #[track_caller]
    fn end(mut self) -> Outcome {
        self.signal(Signal::TERM);
        let outcome = self.running.end(PATIENCE);
        assert_eq!(outcome.code, Some(143), "{}", outcome.text());
        outcome
    }
}

/// Waits until `holds`; `otherwise` says what is wrong when it does not come.
#[track_caller]
fn until(mut holds: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a layer stands as `state`.
#[track_caller]
fn becomes(world: &World, layer: &Layer, state: &str) {
    let file = layer.job_file();
    until(|| world.state(&file)["state"] == state, || format!("{file} is {}", world.state(&file)));
}

/// A world with one layer committed; nothing is pulled.
async fn world(vcs: Vcs) -> (World, Layer) {
    let world = World::start(vcs).await;
    let roads = Layer::new("cadastre", "roads");
    world.publish(&roads).await;
    world.commit("roads");
    (world, roads)
}

/// Brings the changesets without telling the slave.
fn pull_without_hook(world: &World) {
    match world.master.vcs() {
        Vcs::Hg => world.master.run_in(&world.clone, ["hg", "pull", "-q", "--config", "hooks.pretxnchangegroup.borg="]),
        Vcs::Git => {
            world.master.run_in(&world.clone, ["git", "-c", "core.hooksPath=/dev/null", "pull", "-q", "--ff-only"])
        }
    };
}

/// Takes the slave's hooks out of the clone.
fn remove_hooks(world: &World) {
    match world.master.vcs() {
        Vcs::Hg => {
            let hgrc = world.clone.join(".hg/hgrc");
            let text = fs::read_to_string(&hgrc).unwrap();
            fs::write(&hgrc, text.split("[hooks]").next().unwrap()).unwrap();
        }
        Vcs::Git => fs::remove_dir_all(world.clone.join(".git/hooks")).unwrap(),
    }
}

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn start(world: &World) -> Self {
        let path = world.master.beside("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// Waits for a message that begins with `text`; returns all that came until then.
    #[track_caller]
    fn hears(&self, text: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let count = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{text}: {error}; {heard:?}"));
            heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            if heard.last().is_some_and(|last| last.starts_with(text)) {
                return heard;
            }
        }
    }
}
