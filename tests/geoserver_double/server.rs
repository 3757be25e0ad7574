//! A PostgreSQL of this test, with the tables that the recordings read.

use std::time::{Duration, Instant};

use borg_slave::process::{Cmd, Running};
use tokio_postgres::{Client, Config, NoTls};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A cluster in a directory of its own, on a free port of the loopback interface.
pub(crate) struct Scratch {
    pub(crate) port: u16,
    _postgres: Running,
    _dir: tempfile::TempDir,
}

fn as_postgres(args: &[&str]) -> Cmd {
    Cmd::new("setpriv").args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]).args(args)
}

impl Scratch {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let data = data.to_str().expect("a plain path");
        let owner = Cmd::new("chown").args(["postgres", dir.path().to_str().expect("a plain path")]).run().await;
        owner.and_then(borg_slave::process::Finished::success).expect("the directory is given to postgres");
        let initdb = format!("{BIN}/initdb");
        let made = as_postgres(&[&initdb, "-D", data, "-A", "trust", "-U", "postgres", "-N"]).run().await;
        made.and_then(borg_slave::process::Finished::success).expect("initdb");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port").port();
        let number = port.to_string();
        let postgres = format!("{BIN}/postgres");
        let running = as_postgres(&[
            &postgres,
            "-D",
            data,
            "-p",
            &number,
            "-h",
            "127.0.0.1",
            "-k",
            "",
            "-F",
            "-c",
            "log_min_messages=panic",
        ])
        .start()
        .expect("postgres");
        let scratch = Self { port, _postgres: running, _dir: dir };
        let limit = Instant::now() + Duration::from_secs(30);
        while scratch.open("postgres").await.is_none() {
            assert!(Instant::now() < limit, "postgres does not answer");
            tokio::task::yield_now().await;
        }
        let admin = scratch.client("postgres").await;
        admin.batch_execute("create database recorded_template").await.expect("a database");
        let template = scratch.client("recorded_template").await;
        template.batch_execute(include_str!("../recorded/tables.sql")).await.expect("the tables");
        scratch
    }

    async fn open(&self, database: &str) -> Option<Client> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    pub(crate) async fn client(&self, database: &str) -> Client {
        self.open(database).await.expect("a session")
    }

    /// A fresh copy of the tables.
    pub(crate) async fn database(&self, name: &str) -> Client {
        let admin = self.client("postgres").await;
        // The session that filled the template may be just about to end.
        let limit = Instant::now() + Duration::from_secs(10);
        while let Err(err) = admin.batch_execute(&format!("create database {name} template recorded_template")).await {
            assert!(Instant::now() < limit, "cannot copy the tables: {err}");
        }
        self.client(name).await
    }
}
