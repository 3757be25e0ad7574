//! Reports to the master: a second database plays it, with tables as Django makes them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the program is run as an operator runs it")]

use borg_slave::name::PgIdent;
use borg_slave::postgres::ConnectOptions;
use borg_slave::report::Master;

use crate::support::postgres::{PASSWORD, PrivatePostgres, ROLE, TestDatabase};
use crate::support::world::World;

mod away;
mod order;
mod refusals;
mod rows;

/// The schema of the monitor tables.
const SCHEMA: &str = "the \"monitor\"";

/// The master's database.
struct Monitor {
    database: TestDatabase,
    admin: tokio_postgres::Client,
}

impl Monitor {
    /// A master whose tables the slave's user owns.
    async fn start() -> Self {
        let database = PrivatePostgres::start().empty_database().await;
        let owner = database.client().await;
        let quoted = PgIdent::new("schema", SCHEMA).unwrap().quoted();
        owner.batch_execute(&format!("create schema {quoted}; set search_path = {quoted}")).await.unwrap();
        owner.batch_execute(include_str!("report/django.sql")).await.unwrap();
        let admin = database.admin().await;
        admin.batch_execute(&format!("set search_path = {quoted}; set timezone = 'UTC'")).await.unwrap();
        Self { database, admin }
    }

    /// As a library user sees it.
    fn master(&self) -> Master {
        Master {
            options: ConnectOptions {
                // Without a password: to prove one takes its time.
                host: PrivatePostgres::start().socket_dir().to_str().unwrap().to_owned(),
                ..self.database.options()
            },
            schema: PgIdent::new("schema", SCHEMA).unwrap(),
            slave_name: "slave".to_owned(),
            channels: "geoserver".to_owned(),
            code_version: "0.1.0 (test)".to_owned(),
        }
    }

    /// Makes it the world's master.
    fn follow(&self, world: &World) {
        for (name, value) in [
            ("SLAVE_NAME", "o'slave"),
            ("MASTER_PGSQL_HOST", "127.0.0.1"),
            ("MASTER_PGSQL_DATABASE", self.database.name()),
            ("MASTER_PGSQL_SCHEMA", SCHEMA),
            ("MASTER_PGSQL_USERNAME", ROLE),
            ("MASTER_PGSQL_PASSWORD", PASSWORD),
        ] {
            world.set(name, value);
        }
        self.is_up(world);
    }

    fn is_up(&self, world: &World) {
        world.set("MASTER_PGSQL_PORT", &PrivatePostgres::start().port().to_string());
    }

    /// The rows of a query, each as one text.
    async fn rows(&self, query: &str) -> Vec<String> {
        let sql = format!("select row_to_json(found)::text from ({query}) as found");
        self.admin.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Everything but what the database numbers itself.
    async fn everything(&self) -> Vec<String> {
        let mut all = Vec::new();
        for table in ["monitor_publishsyncstatus", "monitor_tasksyncstatus"] {
            all.push(table.to_owned());
            all.extend(
                self.rows(&format!(
                    "select to_jsonb(t) - 'id' - 'slave_server_id' as row, s.name from {table} t \
                     join monitor_slaveserver s on s.id = slave_server_id order by 1"
                ))
                .await,
            );
        }
        all.extend(self.rows("select name, listen_channels, last_poll_time, last_sync_time, last_sync_message from monitor_slaveserver").await);
        all
    }
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
