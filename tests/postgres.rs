//! The slave's database, against a real PostgreSQL with PostGIS and real dumps.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use borg_slave::error::{Error, ErrorKind, Result};
use borg_slave::name::PgIdent;
use borg_slave::postgres::{Access, Archive, ConnectOptions, Database, LoadProgress, SslMode, Swapped, Table};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::dumps::{Dump, truncated};
use crate::support::postgres::{PrivatePostgres, TestDatabase, command, succeed};

mod connection;
mod dependents;
mod foreign_keys;
mod interruption;
mod replacement;
mod roles;
mod roles_script;

/// All that is there of layer `roads` when nothing is under way.
const AT_REST: &str = "v ws.roads, r ws_data.roads, S ws_data.roads_id_seq";

fn ident(name: &str) -> PgIdent {
    PgIdent::new("name", name).unwrap()
}

fn table_in(schema: &str, name: &str) -> Table {
    Table {
        schema: ident(schema),
        data_schema: ident(&format!("{schema}_data")),
        outdated_schema: ident(&format!("{schema}_outdated")),
        name: ident(name),
    }
}

fn table(name: &str) -> Table {
    table_in("ws", name)
}

/// A dump of 30,000 rows that is large enough to be loaded by two sessions.
fn large(name: &str) -> Dump {
    let digits = "md5(random()::text)";
    Dump::new(name).rows(30_000).column(&format!("noise text default {digits} || {digits} || {digits}"))
}

/// A database with the schemas of workspace `ws`.
struct World {
    db: TestDatabase,
    database: Database,
    admin: Client,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with_schema("ws").await
    }

    async fn with_schema(schema: &str) -> Self {
        let db = PrivatePostgres::start().database().await;
        let database = db.open();
        let table = table_in(schema, "x");
        database.ensure_schemas(&[&table.schema, &table.data_schema, &table.outdated_schema]).await.unwrap();
        let admin = db.admin().await;
        Self { db, database, admin, dir: tempfile::tempdir().unwrap() }
    }

    async fn file(&self, dump: &Dump) -> PathBuf {
        dump.write(self.dir.path()).await
    }

    async fn archive(&self, dump: &Dump, table: &Table) -> Archive {
        inspect(&self.file(dump).await, table).await.unwrap()
    }

    async fn publish(&self, dump: &Dump, table: &Table) -> Result<Swapped> {
        let archive = self.archive(dump, table).await;
        publish(&self.database, &archive, table, "md5").await
    }

    /// Content and number of rows that readers of the view see.
    async fn seen(&self, table: &Table) -> (i32, i64) {
        let sql = format!("select max(version), count(*) from {}.{}", table.schema.quoted(), table.name.quoted());
        let row = self.admin.query_one(&sql, &[]).await.unwrap();
        (row.get(0), row.get(1))
    }

    async fn run(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn text(&self, sql: &str) -> String {
        let row = self.admin.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// What lies in the schemas, but for indexes: nothing may be left over.
    async fn relations(&self) -> String {
        self.text(
            "select string_agg(relkind::text || ' ' || nspname || '.' || relname, ', ' order by nspname, relname)
               from pg_class join pg_namespace n on n.oid = relnamespace
              where nspname like 'ws%' and relkind in ('r', 'v', 'S', 'm')",
        )
        .await
    }

    async fn foreign_keys(&self) -> String {
        self.text(
            "select string_agg(conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(oid), '\n' order by oid)
               from pg_constraint where contype = 'f'",
        )
        .await
    }
}

async fn inspect(file: &Path, table: &Table) -> Result<Archive> {
    Archive::inspect(file, table, &CancellationToken::new()).await
}

async fn publish(database: &Database, archive: &Archive, table: &Table, md5: &str) -> Result<Swapped> {
    database.load(table, archive, |_| ()).await?;
    database.add_foreign_keys(table, archive, &[]).await?;
    database.swap(table, Some(md5)).await
}
