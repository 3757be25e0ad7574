//! A private PostgreSQL with PostGIS: one cluster per test process, a fresh database per test.
//!
//! ```ignore
//! let server = PrivatePostgres::start();           // the first call starts it, the others share it
//! let db = server.database().await;                // fresh, with PostGIS, owned by role `borg`
//! let database = db.open();                        // the code under test, as `borg` over TCP with a password
//! let admin = db.admin().await;                    // a superuser's session over the Unix socket
//! ```
//!
//! The cluster ends, and its directory goes, with the test process, however that ends.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use borg_slave::postgres::{ConnectOptions, Database, SslMode};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

/// The role that the code under test connects as: no superuser, may create roles, owns its databases.
pub(crate) const ROLE: &str = "borg";

/// The password of [`ROLE`].
pub(crate) const PASSWORD: &str = "s3cr'et";

const TEMPLATE: &str = "template_postgis";

/// How long the cluster may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running cluster.
#[derive(Debug)]
pub(crate) struct PrivatePostgres {
    dir: PathBuf,
    port: u16,
    next: AtomicU32,
    _guard: Guard,
}

/// A database of one test.
#[derive(Debug, Clone)]
pub(crate) struct TestDatabase {
    name: String,
    port: u16,
    dir: PathBuf,
}

impl PrivatePostgres {
    /// The cluster of this process, without TLS.
    pub(crate) fn start() -> &'static Self {
        static SERVER: OnceLock<PrivatePostgres> = OnceLock::new();
        SERVER.get_or_init(|| Self::start_with(&[]))
    }

    /// A cluster of its own with settings (`ssl=on`); it ends when it is dropped.
    pub(crate) fn start_with(settings: &[String]) -> Self {
        Self::launch(settings, "scram-sha-256")
    }

    /// A cluster of its own that asks nobody on the loopback interface for a password.
    pub(crate) fn start_trusting() -> Self {
        Self::launch(&[], "trust")
    }

    #[expect(clippy::zombie_processes, reason = "the guard ends the server, init reaps it")]
    fn launch(settings: &[String], host_authentication: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("borg-pg-").tempdir().unwrap().keep();
        give_to_postgres(&dir);
        let bin = bin_dir();
        let data = dir.join("data");
        succeed(
            &as_postgres(&bin.join("initdb"))
                .arg("-D")
                .arg(&data)
                .args(["-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"])
                .args(["--auth-local=trust", &format!("--auth-host={host_authentication}")])
                .output()
                .unwrap(),
            "initdb",
        );
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let guard = Guard::watch(&dir);
        let mut command = as_postgres(&bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-p").arg(port.to_string()).arg("-k").arg(&dir);
        let defaults = [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=off",
            "shared_buffers=64MB",
            "max_connections=200",
            "autovacuum=off",
            "jit=off",
        ];
        for setting in defaults.iter().copied().chain(settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let server = Self { dir, port, next: AtomicU32::new(0), _guard: guard };
        let started = Instant::now();
        while !server.psql("postgres", "select 1").status.success() {
            if child.try_wait().unwrap().is_some() || started.elapsed() > START_LIMIT {
                panic!("PostgreSQL does not start:\n{}", std::fs::read_to_string(server.dir.join("log")).unwrap());
            }
            std::thread::yield_now();
        }
        let escaped = PASSWORD.replace('\'', "''");
        let setup = format!("create role {ROLE} login createrole password '{escaped}'; create role sso_other");
        succeed(&server.psql("postgres", &setup), "create roles");
        succeed(&server.psql("postgres", &format!("create database {TEMPLATE} owner {ROLE}")), "create the template");
        succeed(&server.psql(TEMPLATE, "create extension postgis"), "create the extension");
        server
    }

    /// A fresh database with PostGIS, owned by [`ROLE`].
    pub(crate) async fn database(&self) -> TestDatabase {
        self.database_from(TEMPLATE).await
    }

    /// A fresh database without PostGIS, owned by [`ROLE`].
    pub(crate) async fn empty_database(&self) -> TestDatabase {
        self.database_from("template0").await
    }

    async fn database_from(&self, template: &str) -> TestDatabase {
        let name = format!("test_{}", self.next.fetch_add(1, Ordering::Relaxed));
        let database = TestDatabase { name: name.clone(), port: self.port, dir: self.dir.clone() };
        let admin = TestDatabase { name: "postgres".into(), ..database.clone() }.admin().await;
        admin.batch_execute(&format!("create database {name} template {template} owner {ROLE}")).await.unwrap();
        database
    }

    /// The TCP port on 127.0.0.1, which is also the number of the Unix socket.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.dir
    }

    fn psql(&self, database: &str, sql: &str) -> Output {
        command(&bin_dir().join("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", &self.port.to_string()])
            .arg("-h")
            .arg(&self.dir)
            .args(["-d", database, "-c", sql])
            .output()
            .unwrap()
    }
}

impl TestDatabase {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How [`ROLE`] connects: TCP with a password, no TLS.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions {
            host: "127.0.0.1".into(),
            port: self.port,
            database: self.name.clone(),
            username: Some(ROLE.into()),
            password: Some(PASSWORD.into()),
            ssl_mode: SslMode::Disable,
            ssl_root_cert: None,
            connect_timeout: Duration::from_secs(10),
            application_name: "borg-slave test".into(),
        }
    }

    /// The code under test, connected as [`ROLE`].
    pub(crate) fn open(&self) -> Database {
        Database::new(self.options(), 4, CancellationToken::new()).unwrap()
    }

    /// As [`TestDatabase::open`], giving up on locks after `patience`.
    pub(crate) fn open_with_patience(&self, patience: Duration) -> Database {
        Database::with_patience(self.options(), 4, CancellationToken::new(), patience).unwrap()
    }

    /// A superuser's session.
    pub(crate) async fn admin(&self) -> tokio_postgres::Client {
        self.session("postgres").await
    }

    /// A session of [`ROLE`]'s.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        self.session(ROLE).await
    }

    async fn session(&self, user: &str) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.dir).port(self.port).dbname(&self.name).user(user);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// Ends the cluster and removes its directory when its standard input ends, that is when the test
/// process has ended in whatever way, or when this value is dropped.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn watch(dir: &Path) -> Self {
        let script = r#"
            cat >/dev/null
            pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
            if [ -n "$pid" ]; then
                kill -QUIT "$pid"
                while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
            fi
            rm -rf "$1"
        "#;
        // In a session of its own: ^C on the tests shall not end the guard before its work.
        let child = command(Path::new("setsid"))
            .args(["sh", "-c", script, "guard"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
    }
}

/// The directory of the server's programs, which distributions keep off `PATH`.
pub(crate) fn bin_dir() -> PathBuf {
    let output = command(Path::new("pg_config")).arg("--bindir").output();
    if let Ok(output) = output
        && output.status.success()
    {
        let dir = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        if dir.join("initdb").exists() {
            return dir;
        }
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed")
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|dir| dir.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL's server programs are installed")
}

/// PostgreSQL refuses to run as root: then its own user runs it.
fn as_postgres(program: &Path) -> std::process::Command {
    if !rustix::process::geteuid().is_root() {
        return command(program);
    }
    let mut setpriv = command(Path::new("setpriv"));
    setpriv.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    setpriv
}

fn give_to_postgres(dir: &Path) {
    if rustix::process::geteuid().is_root() {
        let output = command(Path::new("chown")).arg("postgres").arg(dir).output().unwrap();
        succeed(&output, "chown");
    }
}

#[expect(clippy::disallowed_methods, reason = "services of tests outlive the call that starts them")]
pub(crate) fn command(program: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

pub(crate) fn succeed(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}
