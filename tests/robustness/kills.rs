//! Killed at fifty random moments, a slave comes to the same state as one that was left alone.

use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;
use rustix::process::Signal;
use serde_json::Value;

use super::processes::{self, Running};
use super::{number_from_env, report, snapshot};
use crate::support::world::{Layer, World, outcome, sld};

/// How often a pull is killed; `BORG_TEST_KILLS` says otherwise.
const KILLS: u32 = 50;

/// The latest moment of a kill: on a slow machine the test shall not take for ever.
const LATEST: Duration = Duration::from_secs(3);

/// Which processes of a pull are killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// The slave alone; Mercurial sees a failed hook.
    Slave,
    /// Mercurial alone; the slave goes on without it.
    Mercurial,
    /// Everything that the pull has started.
    Tree,
}

/// A small generator, so that a failure can be had again by its seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn from_env() -> Self {
        Self(number_from_env("BORG_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1))
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What the master publishes, in two variants that come in turn: layers come and go, change their
/// data, columns, styles, titles and readers.
struct Scene<'a> {
    world: &'a World,
    prefix: &'static str,
    /// The job files of each variant, by path; written once, since dumps take their time.
    variants: [Vec<(String, String)>; 2],
    round: u64,
}

impl<'a> Scene<'a> {
    async fn new(world: &'a World, prefix: &'static str) -> Self {
        let mut scene = Self { world, prefix, variants: [Vec::new(), Vec::new()], round: 0 };
        for variant in 0..2 {
            let mut paths = Vec::new();
            for layer in scene.layers(variant) {
                world.publish(&layer).await;
                paths.push(layer.job_file());
            }
            let parks = scene.parks(variant);
            world.publish_meta(&parks);
            paths.push(parks.meta_file());
            let closed = format!("{prefix}_closed");
            world.publish_workspace(&closed, if variant == 0 { 1 } else { 2 });
            paths.push(format!("geoserver/workspaces/{closed}.json"));
            let read = |path: String| {
                let text = std::fs::read_to_string(world.master.path().join(&path)).unwrap();
                (path, text)
            };
            scene.variants[variant] = paths.into_iter().map(read).collect();
        }
        for (path, _) in scene.variants.iter().flatten() {
            let _ = std::fs::remove_file(world.master.path().join(path));
        }
        scene
    }

    fn parks(&self, variant: usize) -> Layer {
        Layer::new(self.prefix, "parks").title(["Parks", "Parks and gardens"][variant])
    }

    fn layers(&self, variant: usize) -> Vec<Layer> {
        let layer = |name: &str| Layer::new(self.prefix, name);
        let colour = ["#112233", "#445566"][variant];
        let version = i32::try_from(variant).unwrap() + 1;
        let roads = layer("roads").rows([30, 40][variant]).styles(&[("builtin", &sld("roads", colour))]);
        let towns = layer("towns").dump(|dump| dump.version(version));
        let closed = Layer::new(&format!("{}_closed", self.prefix), "caves").auth_level([1, 2][variant]);
        let mut layers = vec![roads.dump(|dump| dump.version(version)), closed];
        // The same rows and title in both variants: only its metadata job changes.
        layers.push(layer("parks"));
        if variant == 0 {
            layers.push(towns.style("night", "#000080").dump(|dump| dump.column("depth integer default 3")));
            layers.push(layer("rivers"));
        } else {
            layers.push(towns.dump(|dump| dump.without("label").column("depth text default 'deep'")));
            layers.extend(["lakes", "hills"].map(|name| layer(name).style("night", "#000080")));
        }
        layers
    }

    /// Commits the next variant as new jobs.
    fn next(&mut self) {
        let variant = usize::try_from(self.round % 2).unwrap();
        let master = &self.world.master;
        for (path, _) in &self.variants[1 - variant] {
            if !self.variants[variant].iter().any(|(kept, _)| kept == path) && master.path().join(path).exists() {
                master.remove(path);
            }
        }
        for (path, text) in &self.variants[variant] {
            let mut document: Value = serde_json::from_str(text).unwrap();
            // Every third time the very same file comes back.
            if !self.round.is_multiple_of(3) && document.get("job_id").is_some() {
                document["job_id"] = Value::from(1000 + self.round);
            }
            master.write(path, document.to_string());
        }
        self.round += 1;
        self.world.commit(&format!("round {}", self.round));
    }
}

/// What an operator does before the next pull when `hg` was killed: it says so itself.
pub(super) fn recover(world: &World) {
    let store = world.clone.join(".hg/store");
    if store.join("journal").exists() {
        outcome(&mut world.master.command(&world.clone, ["hg", "recover", "-q"]));
    }
}

async fn world() -> World {
    let world = World::start(Vcs::Hg).await;
    world.set("CACHE_PATH", world.clone.join("dumps").to_str().unwrap());
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_end_in_the_state_of_a_slave_that_was_left_alone() {
    let mut chance = Chance::from_env();
    let seed = chance.0;
    let wanted = number_from_env("BORG_TEST_KILLS").map_or(KILLS, |kills| u32::try_from(kills).unwrap());
    let (killed, calm) = (world().await, world().await);
    let mut scene = Scene::new(&killed, "wildlayers").await;
    scene.next();
    let clock = Instant::now();
    killed.pull().succeeded();
    let first = clock.elapsed();

    let (mut kills, mut log) = (0, Vec::new());
    // The moments are spread over less than what a whole pull takes, so that most of them hit.
    let spread = u64::try_from((first * 3 / 4).min(LATEST).as_micros()).unwrap();
    while kills < wanted {
        scene.next();
        loop {
            recover(&killed);
            let mut pull = Running::start(killed.pull_command());
            let delay = Duration::from_micros(chance.below(spread));
            if let Some(status) = pull.ends_within(delay) {
                let ended = pull.end(Duration::ZERO);
                if !status.success() {
                    // Whoever was killed before may still hold the lock of the clone.
                    assert!(ended.text().contains("recover"), "seed {seed}, {log:#?}: {}", ended.text());
                    continue;
                }
                break;
            }
            if kills == wanted {
                pull.end(Duration::from_secs(60)).succeeded();
                break;
            }
            let victim = match chance.below(5) {
                0 | 1 => Victim::Slave,
                2 | 3 => Victim::Tree,
                // Less often: the slave goes on, and the next one has to wait for it.
                _ => Victim::Mercurial,
            };
            let pids = match victim {
                Victim::Slave => pull.slaves(),
                Victim::Mercurial => vec![pull.pid()],
                Victim::Tree => pull.tree(),
            };
            for &pid in &pids {
                processes::kill(pid, Signal::KILL);
            }
            if pids.is_empty() {
                // Too early or too late for the slave.
                pull.end(Duration::from_secs(60));
                continue;
            }
            kills += 1;
            log.push(format!("round {}: {victim:?} after {delay:?}", scene.round));
            pull.end(Duration::from_secs(60));
        }
    }
    recover(&killed);
    if scene.round % 2 == 1 {
        scene.next();
    }
    let rounds = scene.round;
    killed.pull().succeeded();

    let mut calm_scene = Scene::new(&calm, "tamelayers").await;
    for _ in 0..2 {
        calm_scene.next();
        calm.pull().succeeded();
    }
    processes::nothing_is_left(&killed, Duration::from_secs(10)).await;
    let (wild, tame) = (snapshot::of(&killed, "wildlayers").await, snapshot::of(&calm, "tamelayers").await);
    if wild != tame {
        let only = |one: &str, other: &str| {
            let other: Vec<_> = other.lines().collect();
            one.lines().filter(|line| !other.contains(line)).take(20).map(str::to_owned).collect::<Vec<_>>()
        };
        let (more, less) = (only(&wild, &tame), only(&tame, &wild));
        // The difference first and the rest on few lines: what keeps the output may keep little of it.
        panic!("only after kills: {more:#?}\nonly without: {less:#?}\nseed {seed}, {rounds} rounds\n{log:?}\n{wild:?}");
    }
    snapshot::is_finished(&killed);
    let outdated =
        "select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace where nspname like '%\\_outdated'";
    let admin = killed.database.admin().await;
    assert_eq!(admin.query_one(outdated, &[]).await.unwrap().get::<_, i64>(0), 0, "seed {seed}");
    report(&format!("{kills} kills in {rounds} rounds, seed {seed}, the first pull took {first:?}"));
}
