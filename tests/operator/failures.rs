//! Everything that goes wrong at night: one paragraph that names what, where and what to do, and the
//! right exit status.

use std::path::{Path, PathBuf};

use borg_slave::state_repo::Vcs;

use super::look::{any_order, normal};
use crate::support::postgres::PrivatePostgres;
use crate::support::sshd::{Knobs, Sshd};
use crate::support::world::{Layer, Outcome, World, outcome};

/// A world whose clone holds three layers in two workspaces that are not applied yet.
async fn three_layers() -> World {
    let world = World::start(Vcs::Hg).await;
    for (workspace, name) in [("cadastre", "roads"), ("cadastre", "lots"), ("parks", "tracks")] {
        world.publish(&Layer::new(workspace, name)).await;
    }
    world.commit("publish three layers");
    bring_in(&world);
    world
}

/// Pulls without running the slave.
fn bring_in(world: &World) {
    let arguments = ["hg", "pull", "--config", "hooks.pretxnchangegroup.borg="];
    outcome(&mut world.master.command(&world.clone, arguments)).succeeded();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs `sync` with settings that stand in the environment.
fn sync_with(world: &World, settings: &[(&str, &str)]) -> Outcome {
    outcome(world.slave_command(&["sync"]).envs(settings.iter().copied()))
}

macro_rules! told {
    ($world:expr, $name:expr, $outcome:expr) => {{
        let outcome = $outcome;
        insta::assert_snapshot!($name, any_order(&normal(&$world, &outcome)));
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_are_told_together_at_start() {
    let world = World::start(Vcs::Hg).await;
    told!(
        world,
        "wrong_settings",
        sync_with(
            &world,
            &[
                ("GEOSERVER_PGSQL_PORT", "many"),
                ("POLL_INTERVAL", "0"),
                ("GEOSERVER_URL", "ftp://admin:hunter2@gis/geoserver"),
                ("HOOK_ON_FAILURE", "shrug"),
                ("GEOSERVER_PASWORD", "hunter2"),
            ]
        )
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let nowhere = elsewhere.path().join("nowhere").display().to_string();
    told!(world, "no_repository", sync_with(&world, &[("STATE_REPOSITORY_ROOT", elsewhere.path().to_str().unwrap())]));
    told!(world, "no_directory", sync_with(&world, &[("STATE_REPOSITORY_ROOT", &nowhere)]));
    world.set("FEATURE_FILTER", "job.auth_level ==");
    told!(world, "filter_does_not_compile", world.slave(&["sync"]));
    world.set("FEATURE_FILTER", "lambda job: job['auth_level'] == 0 and job['workspace'] in ['cadastre', 'parks']");
    told!(world, "python_lambda", world.slave(&["sync"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_on_a_job_fails_that_job() {
    let world = three_layers().await;
    world.set("FEATURE_FILTER", "job.name != \"lots\" || job.no_such_field > 3");
    told!(world, "filter_fails_on_a_job", world.slave(&["sync"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_let_us_work_is_told_once() {
    let world = three_layers().await;
    let closed = free_port().to_string();
    let down = sync_with(&world, &[("GEOSERVER_PGSQL_PORT", &closed)]);
    insta::assert_snapshot!("database_down", any_order(&normal(&world, &down).replace(&closed, "<closed port>")));
    told!(world, "database_password", sync_with(&world, &[("GEOSERVER_PGSQL_PASSWORD", "wrong")]));
    told!(world, "database_missing", sync_with(&world, &[("GEOSERVER_PGSQL_DATABASE", "nowhere")]));
    let empty = PrivatePostgres::start().empty_database().await;
    let refused = sync_with(&world, &[("GEOSERVER_PGSQL_DATABASE", empty.name())]);
    insta::assert_snapshot!(
        "database_without_postgis",
        any_order(&normal(&world, &refused).replace(empty.name(), "<empty>"))
    );
    world.slave(&["sync"]).succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_geoserver_that_does_not_answer_is_told_once() {
    let world = three_layers().await;
    world.geoserver().stop();
    told!(world, "geoserver_down", world.slave(&["sync"]));
    world.geoserver().resume();
    told!(world, "geoserver_password", sync_with(&world, &[("GEOSERVER_PASSWORD", "wrong")]));
    world.geoserver().hang(true);
    world.geoserver().clear_requests();
    told!(world, "geoserver_hangs", sync_with(&world, &[("GEOSERVER_TIMEOUT", "1")]));
    // Two requests wait in vain; then nothing is asked any more.
    assert!(world.geoserver().requests().len() <= 2, "{:?}", world.geoserver().requests());
    world.geoserver().hang(false);
    world.slave(&["sync"]).succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_cannot_be_reached_is_told_once() {
    let world = three_layers().await;
    let refusing = Sshd::start_with(Knobs { refuse_keys: true, ..Knobs::default() }).await;
    let with = |ssh: &[String]| sync_with(&world, &[("BORG_SSH", &shell_words::join(ssh))]);
    told!(world, "ssh_key_refused", with(&refusing.ssh_command()));
    let gone = Sshd::start().await;
    let (command, port) = (gone.ssh_command(), gone.port().to_string());
    drop(gone);
    insta::assert_snapshot!(
        "ssh_port_closed",
        any_order(&normal(&world, &with(&command)).replace(&port, "<closed port>"))
    );
    let changed = Sshd::start().await;
    changed.change_known_key();
    let port = changed.port().to_string();
    insta::assert_snapshot!(
        "ssh_host_key_changed",
        any_order(&normal(&world, &with(&changed.ssh_command())).replace(&port, "<ssh port>"))
    );
    world.slave(&["sync"]).succeeded();
}

/// A `PATH` with all programs but one.
fn path_without(program: &str, dir: &Path) -> String {
    for at in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in std::fs::read_dir(at).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_name() != program {
                // The first of a name wins, as on `PATH`.
                let _ = std::os::unix::fs::symlink(entry.path(), dir.join(entry.file_name()));
            }
        }
    }
    dir.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_named() {
    let world = three_layers().await;
    let dir = tempfile::tempdir().unwrap();
    told!(world, "no_pg_restore", sync_with(&world, &[("PATH", &path_without("pg_restore", dir.path()))]));
    // Without rsync the files come by SFTP.
    let dir = tempfile::tempdir().unwrap();
    told!(world, "no_rsync", sync_with(&world, &[("PATH", &path_without("rsync", dir.path()))]));
}

/// A file system of one megabyte that is unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mount = crate::support::postgres::command(Path::new("mount"))
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(&at)
            .output()
            .unwrap();
        assert!(mount.status.success(), "this test mounts a small tmpfs, which needs root: {mount:?}");
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = crate::support::postgres::command(Path::new("umount")).arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_cannot_be_written_is_named() {
    let world = World::start(Vcs::Hg).await;
    let noise = "alter table {} add noise bytea; update {} set noise = \
                 (select string_agg(decode(md5(n || random()::text), 'hex'), '') from generate_series(1, 4096) as n)";
    let big = Layer::new("parks", "photos").dump(|dump| dump.rows(40).sql(noise));
    world.publish(&big).await;
    world.commit("publish a big layer");
    bring_in(&world);
    // Nobody, not even root, may make a directory there.
    told!(world, "cache_not_writable", sync_with(&world, &[("CACHE_PATH", "/sys/borg")]));
    let small = Small::mount(world.clone.parent().unwrap().join("small"));
    let mut full = sync_with(&world, &[("CACHE_PATH", small.0.to_str().unwrap())]);
    // Whether the schemas were ready before the disk was full is a matter of chance.
    full.stderr = full.stderr.lines().filter(|line| !line.contains("changed the roles")).collect::<Vec<_>>().join("\n");
    told!(world, "cache_full", full);
    drop(small);
    world.slave(&["sync"]).succeeded();
}
