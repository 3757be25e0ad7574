//! Everything that is done in the slave's PostGIS database.
//!
//! - [`connect`](ConnectOptions): one lazy pool, TLS as libpq's `sslmode` says, errors with the remedy.
//! - [`preflight`](Database::preflight): are server and client programs fit for the work?
//! - [`access`](Database::apply_access): extension, schemas and the two roles.
//! - [`archive`](Archive): what a dump holds, and the refusal of what it may not hold.
//! - [`session`](Session): one connection to another database, the master's.
//! - `roles_script`: the organisation's roles, through `psql`.
//! - `pulse`: a server that falls silent in the middle of a run ends what waits for it.
//! - `replace`: the three moves that replace a table under its readers' feet:
//!
//! ```text
//!            data_schema      outdated_schema     view schema.name reads
//! at rest    old              –                   old
//! move 1     –                old                 old   (views follow the table, not its name)
//! move 2     new              old                 old   (pg_restore, foreign keys)
//! move 3     new              –                   new   (one short transaction)
//! ```
//!
//! Each move looks at what is there first, so a run that was killed anywhere is continued by simply
//! starting again. What is published is recorded in schema `borg_slave` by the transaction that
//! publishes it.

mod access;
mod archive;
mod bookkeeping;
mod connect;
mod failure;
mod foreign_keys;
mod inquire;
mod lock;
mod preflight;
mod programs;
mod psql_script;
mod pulse;
mod reading;
mod remove;
mod replace;
mod restore;
mod roles_script;
mod script;
mod session;
mod toc;
mod views;

use crate::name::PgIdent;

pub use access::Access;
pub use archive::{Archive, ForeignKey};
pub use connect::{ConnectOptions, Database, SslMode};
pub use inquire::Column;
pub use preflight::{ToolVersion, Versions};
pub use replace::Swapped;
pub use restore::LoadProgress;
pub use session::{Advice, Session};

/// A published table and the three schemas it moves through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// The schema of the view that readers use.
    pub schema: PgIdent,
    /// The schema of the table that the view reads.
    pub data_schema: PgIdent,
    /// The schema in which the replaced table waits for its end.
    pub outdated_schema: PgIdent,
    /// The name of view and table.
    pub name: PgIdent,
}

impl Table {
    /// The view, quoted for SQL.
    fn view_sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// The table, quoted for SQL.
    fn data_sql(&self) -> String {
        qualified(&self.data_schema, &self.name)
    }

    /// The replaced table, quoted for SQL.
    fn outdated_sql(&self) -> String {
        qualified(&self.outdated_schema, &self.name)
    }

    /// How messages name the layer's relation.
    fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

fn qualified(schema: &PgIdent, name: &PgIdent) -> String {
    format!("{}.{}", schema.quoted(), name.quoted())
}
