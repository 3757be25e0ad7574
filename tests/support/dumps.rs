//! Real `pg_dump` archives of small tables, as a master writes them.
//!
//! ```ignore
//! let file = Dump::new("roads").rows(1000).geometry("LineString").version(2).write(dir).await;
//! ```
//!
//! Every table has `id serial primary key`, `label text` (with letters beyond ASCII), `version integer`
//! (the same in all rows, to tell contents apart), `geom` with a GiST index, an index on `label`, and
//! comments.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use borg_slave::name::{quote_ident, quote_literal};

use super::postgres::{PrivatePostgres, TestDatabase, bin_dir, command, succeed};

/// A dump to be written.
#[derive(Debug, Clone)]
pub(crate) struct Dump {
    schema: String,
    name: String,
    rows: u32,
    version: i32,
    geometry: Option<String>,
    first_columns: Vec<String>,
    columns: Vec<String>,
    without: Vec<String>,
    keys: Vec<Key>,
    extra_sql: Vec<String>,
    more: Vec<String>,
    format: &'static str,
}

#[derive(Debug, Clone)]
struct Key {
    column: String,
    schema: String,
    table: String,
    options: String,
}

impl Dump {
    /// Ten points in table `name` of schema `ws_data`.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            schema: "ws_data".into(),
            name: name.into(),
            rows: 10,
            version: 1,
            geometry: Some("Point".into()),
            first_columns: Vec::new(),
            columns: Vec::new(),
            without: Vec::new(),
            keys: Vec::new(),
            extra_sql: Vec::new(),
            more: Vec::new(),
            format: "c",
        }
    }

    /// Puts the table into another schema.
    pub(crate) fn schema(mut self, schema: &str) -> Self {
        self.schema = schema.into();
        self
    }

    /// How many rows; their ids are 1 to `rows`.
    pub(crate) fn rows(mut self, rows: u32) -> Self {
        self.rows = rows;
        self
    }

    /// The value of column `version` in every row.
    pub(crate) fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    /// `Point`, `LineString` or `Polygon`, in EPSG:4283.
    pub(crate) fn geometry(mut self, kind: &str) -> Self {
        self.geometry = Some(kind.into());
        self
    }

    /// No geometry column.
    pub(crate) fn without_geometry(mut self) -> Self {
        self.geometry = None;
        self
    }

    /// One more column behind the others: `"depth integer default 3"`.
    pub(crate) fn column(mut self, definition: &str) -> Self {
        self.columns.push(definition.into());
        self
    }

    /// One more column before the others.
    pub(crate) fn first_column(mut self, definition: &str) -> Self {
        self.first_columns.push(definition.into());
        self
    }

    /// Leaves a column out (`label`).
    pub(crate) fn without(mut self, column: &str) -> Self {
        self.without.push(column.into());
        self
    }

    /// A column `<table>_id` with the foreign key `<name>_<table>_fkey` to `id` of another table; row n
    /// points to n. `options` follows the key: `"on delete cascade deferrable"`.
    pub(crate) fn references(mut self, schema: &str, table: &str, options: &str) -> Self {
        let (schema, table, options) = (schema.into(), table.into(), options.into());
        self.keys.push(Key { column: format!("{table}_id"), schema, table, options });
        self
    }

    /// Runs SQL on the source before dumping; `{}` is the table.
    pub(crate) fn sql(mut self, sql: &str) -> Self {
        self.extra_sql.push(sql.into());
        self
    }

    /// Dumps one more relation (`ws_data.other`, made by [`Dump::sql`]) into the same archive.
    pub(crate) fn also(mut self, pattern: &str) -> Self {
        self.more.push(pattern.into());
        self
    }

    /// Dumps the whole schema: functions and types come along.
    pub(crate) fn whole_schema(mut self) -> Self {
        self.more.push(String::new());
        self
    }

    /// Writes a tar archive instead of a custom one.
    pub(crate) fn tar(mut self) -> Self {
        self.format = "t";
        self
    }

    /// Writes plain SQL instead of an archive.
    pub(crate) fn plain(mut self) -> Self {
        self.format = "p";
        self
    }

    /// Builds the table in a scratch database of the process's server and dumps it into `dir`.
    pub(crate) async fn write(&self, dir: &Path) -> PathBuf {
        /// One scratch database per process; the dumps use the same schemas in it, one after the other.
        static MASTER: Mutex<Option<TestDatabase>> = Mutex::const_new(None);
        let mut master = MASTER.lock().await;
        if master.is_none() {
            *master = Some(PrivatePostgres::start().database().await);
        }
        let scratch = master.as_ref().unwrap();
        let admin = scratch.admin().await;
        admin
            .batch_execute(&self.source_sql())
            .await
            .unwrap_or_else(|error| panic!("{error:?}\n{}", self.source_sql()));
        let extension = if self.format == "t" { "tar" } else { "db" };
        let file = dir.join(format!("{}-{}.{extension}", borg_slave::name::file_name(&self.name), unique()));
        let mut dump = command(&bin_dir().join("pg_dump"));
        dump.arg("-h").arg(PrivatePostgres::start().socket_dir()).args(["-U", "postgres", "-d", scratch.name()]);
        dump.args(["-p", &PrivatePostgres::start().port().to_string(), "-F", self.format, "-f"]).arg(&file);
        if self.more.iter().any(String::is_empty) {
            dump.arg("-n").arg(quote_ident(&self.schema));
        } else {
            dump.arg("-t").arg(self.table());
            for pattern in &self.more {
                dump.arg("-t").arg(pattern);
            }
        }
        succeed(&dump.output().unwrap(), "pg_dump");
        let mut schemas: Vec<&str> = self.keys.iter().map(|key| key.schema.as_str()).collect();
        schemas.push(&self.schema);
        for schema in schemas {
            admin.batch_execute(&format!("drop schema if exists {} cascade", quote_ident(schema))).await.unwrap();
        }
        file
    }

    fn table(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }

    fn source_sql(&self) -> String {
        let table = self.table();
        let mut sql = format!("create schema if not exists {};", quote_ident(&self.schema));
        for key in &self.keys {
            let (schema, target) = (quote_ident(&key.schema), quote_ident(&key.table));
            sql += &format!(
                "create schema if not exists {schema};create table if not exists {schema}.{target} (id integer primary key);\
                 insert into {schema}.{target} select generate_series(1, {}) on conflict do nothing;",
                self.rows
            );
        }
        let mut columns = self.first_columns.clone();
        columns.push("id serial primary key".into());
        let label = !self.without.iter().any(|column| column == "label");
        if label {
            columns.push("label text not null default 'Straße'".into());
        }
        columns.push(format!("version integer not null default {} check (version >= 0)", self.version));
        if let Some(geometry) = &self.geometry {
            columns.push(format!("geom public.geometry({geometry},4283)"));
        }
        columns.extend(self.columns.iter().cloned());
        for key in &self.keys {
            columns.push(format!(
                "{} integer constraint {} references {}.{} (id) {}",
                quote_ident(&key.column),
                quote_ident(&format!("{}_{}_fkey", self.name, key.table)),
                quote_ident(&key.schema),
                quote_ident(&key.table),
                key.options
            ));
        }
        sql += &format!("create table {table} ({});", columns.join(", "));
        let mut names = vec!["version".to_owned()];
        let mut values = vec![self.version.to_string()];
        if label {
            names.push("label".into());
            values.push("'Straße 道路 ' || n".into());
        }
        if let Some(geometry) = &self.geometry {
            let point = "public.st_makepoint(115 + (n % 1000) / 100.0, -32 + (n / 1000) / 100.0)";
            let shape = match geometry.as_str() {
                "LineString" => format!("public.st_makeline({point}, public.st_translate({point}, 0.01, 0.01))"),
                "Polygon" => format!("public.st_expand({point}, 0.01)"),
                _ => point.to_owned(),
            };
            names.push("geom".into());
            values.push(format!("public.st_setsrid({shape}, 4283)"));
        }
        for key in &self.keys {
            names.push(quote_ident(&key.column));
            values.push("n".into());
        }
        // A deferred key would keep the table from being changed further in this transaction.
        sql += &format!(
            "set constraints all immediate;insert into {table} ({}) select {} from generate_series(1, {}) as n;",
            names.join(", "),
            values.join(", "),
            self.rows
        );
        if self.geometry.is_some() {
            sql += &format!("create index on {table} using gist (geom);");
        }
        if label {
            sql += &format!("create index on {table} (label);");
        }
        sql += &format!("comment on table {table} is {};", quote_literal("Straßen; it's \"all\""));
        sql += &format!("comment on column {table}.version is 'which content';");
        for extra in &self.extra_sql {
            sql += &extra.replace("{}", &table);
            sql.push(';');
        }
        sql
    }
}

/// The first half of a dump, as an interrupted transfer leaves it.
pub(crate) fn truncated(file: &Path) -> PathBuf {
    let bytes = std::fs::read(file).unwrap();
    let half = file.with_extension("half");
    // The table of contents stands first and stays whole: only the rows are cut.
    std::fs::write(&half, &bytes[..bytes.len() - bytes.len() / 3]).unwrap();
    half
}

fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
