//! No secret shows anywhere, however unusual it is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use borg_slave::state_repo::Vcs;

use crate::support::world::{Layer, World};

const GEOSERVER_PASSWORD: &str = r#"ge'o "se$HOMErver\ pa ss`x`"#;
const DATABASE_PASSWORD: &str = r#"da'ta "ba$PATHse\ pa ss%41"#;

/// Command lines of all processes, looked at until it is dropped.
struct CommandLines {
    seen: Arc<Mutex<BTreeSet<String>>>,
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl CommandLines {
    fn watch() -> Self {
        let (seen, done) = (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::<AtomicBool>::default());
        let (lines, stop) = (Arc::clone(&seen), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    if let Ok(line) = std::fs::read(entry.path().join("cmdline")) {
                        lines.lock().unwrap().insert(String::from_utf8_lossy(&line).replace('\0', " "));
                    }
                }
                std::thread::yield_now();
            }
        });
        Self { seen, done, thread: Some(thread) }
    }

    fn text(mut self) -> String {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.seen.lock().unwrap().iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

/// The forms in which a password may leak.
fn forms(secret: &str) -> Vec<String> {
    let debug = format!("{secret:?}");
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    vec![
        secret.to_owned(),
        debug.trim_matches('"').to_owned(),
        debug.trim_matches('"').replace('\\', "\\\\"),
        url.replace('+', "%20"),
        url,
        secret.replace('\'', "''"),
        secret.replace('\'', r"\'"),
        secret.replace('\'', r"'\''"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_no_file_and_no_command_line_holds_a_secret() {
    let world = World::start(Vcs::Hg).await;
    let role = format!("odd_{}", world.database.name());
    let admin = world.database.admin().await;
    let password = borg_slave::name::quote_literal(DATABASE_PASSWORD);
    let grants = format!(
        "create role {role} login createrole password {password}; grant create on database {} to {role}; \
         alter schema public owner to {role}",
        world.database.name()
    );
    admin.batch_execute(&grants).await.unwrap();
    world.geoserver().set_password(GEOSERVER_PASSWORD);
    world.set("GEOSERVER_PASSWORD", GEOSERVER_PASSWORD);
    world.set("GEOSERVER_PGSQL_USERNAME", &role);
    world.set("GEOSERVER_PGSQL_PASSWORD", DATABASE_PASSWORD);
    world.set("DEBUG", "true");
    let lines = CommandLines::watch();
    let mut said = String::new();

    let tracks = Layer::new("parks", "tracks").dump(|dump| dump.rows(20_000));
    world.publish(&tracks).await;
    world.commit("publish");
    said += &world.pull().succeeded().text();
    for arguments in [
        &["check"][..],
        &["filter"],
        &["status", "--json"],
        &["status", "geoserver/layers/parks.tracks.json"],
        &["sync", "--file", "geoserver/layers/parks.tracks.json"],
        &["--log-format", "json", "sync", "--file", "geoserver/layers/parks.tracks.json"],
    ] {
        said += &world.slave(arguments).succeeded().text();
    }
    // Failures talk more than successes.
    world.publish(&tracks.clone().title("new").dump(|dump| dump.rows(3))).await;
    world.commit("publish again");
    world.geoserver().set_password("another");
    said += &world.pull().failed().text();
    world.geoserver().stop();
    said += &world.pull().failed().text();
    admin.batch_execute(&format!("alter role {role} password 'another'")).await.unwrap();
    said += &world.pull().failed().text();
    said += &world.slave(&["status"]).text();

    let seen = lines.text();
    assert!(seen.contains("pg_restore") && seen.contains("rsync"), "the watch saw the children:\n{seen}");
    let mut places = vec![("the output".to_owned(), said), ("a command line".to_owned(), seen)];
    let status_dir = world.clone.join("code/.sync_status");
    for entry in std::fs::read_dir(&status_dir).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        places.push((entry.path().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    for (place, text) in &places {
        for secret in [GEOSERVER_PASSWORD, DATABASE_PASSWORD] {
            for form in forms(secret) {
                let at = text.find(&form).map(|at| text[..at].lines().last().unwrap_or_default().to_owned());
                assert!(at.is_none(), "{place} holds {form:?} behind {at:?}");
            }
        }
    }
}
