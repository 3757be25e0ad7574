//! A PostgreSQL of this test, with the tables that the recordings read.
//!
//! It is not the cluster that other tests share: recorded store documents log in as `postgres` with
//! whatever password they hold, so this one trusts everybody on the loopback interface.

use tokio_postgres::{Client, Config, NoTls};

use crate::support::postgres::PrivatePostgres;

/// A cluster in a directory of its own, on a free port of the loopback interface.
pub(crate) struct Scratch {
    pub(crate) port: u16,
    _postgres: PrivatePostgres,
}

impl Scratch {
    pub(crate) async fn start() -> Self {
        let postgres = PrivatePostgres::start_trusting();
        let scratch = Self { port: postgres.port(), _postgres: postgres };
        let admin = scratch.client("postgres").await;
        admin.batch_execute("create database recorded_template").await.expect("a database");
        let template = scratch.client("recorded_template").await;
        template.batch_execute(include_str!("../recorded/tables.sql")).await.expect("the tables");
        scratch
    }

    pub(crate) async fn client(&self, database: &str) -> Client {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await.expect("a session");
        tokio::spawn(connection);
        client
    }

    /// A fresh copy of the tables.
    pub(crate) async fn database(&self, name: &str) -> Client {
        let admin = self.client("postgres").await;
        // The session that filled the template may be just about to end.
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while let Err(err) = admin.batch_execute(&format!("create database {name} template recorded_template")).await {
            assert!(std::time::Instant::now() < limit, "cannot copy the tables: {err}");
        }
        self.client(name).await
    }
}
