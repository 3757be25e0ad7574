//! What the slave remembers in the database about what it published there.
//!
//! The record is written by the transaction that publishes, so it cannot disagree with the tables;
//! and it names the table by its object id, so that it says nothing about a table that somebody else
//! put into its place.

use deadpool_postgres::Transaction;

use super::connect::Database;
use super::{Table, failure};
use crate::error::Result;

const WHAT: &str = "cannot use the slave's own records (schema borg_slave)";

/// What is where, seen by one statement.
#[derive(Debug)]
pub(super) struct State {
    pub(super) view: Option<Relation>,
    pub(super) data: Option<Relation>,
    pub(super) outdated: Option<Relation>,
    pub(super) view_reads_data: bool,
    pub(super) view_reads_outdated: bool,
    pub(super) published_md5: Option<String>,
    pub(super) loaded_oid: Option<u32>,
    pub(super) loaded_md5: Option<String>,
}

/// A relation that was found under one of the three names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relation {
    pub(super) oid: u32,
    /// `pg_class.relkind`: `r` is a table, `v` a view.
    pub(super) kind: char,
}

impl State {
    pub(super) async fn read(tx: &Transaction<'_>, table: &Table) -> Result<Self> {
        let names = [&table.schema, &table.data_schema, &table.outdated_schema, &table.name].map(|name| name.as_str());
        let label = table.label();
        let failed = failure::doing(WHAT, &label);
        let question = tx.prepare_cached(include_str!("sql/table_state.sql")).await.map_err(failed)?;
        let row = tx.query_one(&question, &[&names[0], &names[1], &names[2], &names[3]]).await.map_err(failed)?;
        let relation = |oid: usize| -> Option<Relation> {
            let kind: Option<String> = row.get(oid + 1);
            Some(Relation { oid: row.get::<_, Option<u32>>(oid)?, kind: kind?.chars().next()? })
        };
        Ok(Self {
            view: relation(0),
            data: relation(2),
            outdated: relation(4),
            view_reads_data: row.get(6),
            view_reads_outdated: row.get(7),
            published_md5: row.get(8),
            loaded_oid: row.get(9),
            loaded_md5: row.get(10),
        })
    }

    /// Whether the table in the data schema is the whole content `md5`, loaded but not published yet.
    pub(super) fn is_loaded(&self, md5: Option<&str>) -> bool {
        let data = self.data.map(|data| data.oid);
        !self.view_reads_data
            && data.is_some()
            && self.loaded_oid == data
            && md5.is_some()
            && self.loaded_md5.as_deref() == md5
    }
}

impl Database {
    /// Makes the slave's own schema and table, once.
    pub(super) async fn ensure_bookkeeping(&self) -> Result<()> {
        let make = || async {
            let mut client = self.client().await?;
            let subject = format!("database {}", self.shared.options.database);
            let tx = self.setup(&mut client, WHAT, &subject).await?;
            let there = "select pg_catalog.to_regclass('borg_slave.published') is not null";
            let there: bool = tx.query_one(there, &[]).await.map_err(failure::doing(WHAT, &subject))?.get(0);
            if !there {
                tx.batch_execute(include_str!("sql/bookkeeping.sql")).await.map_err(failure::doing(WHAT, &subject))?;
            }
            tx.commit().await.map_err(failure::doing(WHAT, &subject))
        };
        self.shared.bookkeeping.get_or_try_init(make).await.copied()
    }

    /// The md5 of the content that readers of `table` see; nothing when that is not known for sure,
    /// because the slave did not publish it or somebody has replaced table or view since.
    ///
    /// # Errors
    ///
    /// As any question to the database.
    pub async fn published_md5(&self, table: &Table) -> Result<Option<String>> {
        let client = self.client().await?;
        let label = table.label();
        let there = "select pg_catalog.to_regclass('borg_slave.published') is not null";
        let there: bool = client.query_one(there, &[]).await.map_err(failure::doing(WHAT, &label))?.get(0);
        if !there {
            return Ok(None);
        }
        let failed = failure::doing(WHAT, &label);
        let question = client.prepare_cached(include_str!("sql/published_md5.sql")).await.map_err(failed)?;
        let names = [&table.schema, &table.data_schema, &table.name].map(|name| name.as_str());
        let row = client.query_opt(&question, &[&names[0], &names[1], &names[2]]).await.map_err(failed)?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// Records that `oid` holds the whole content of a dump.
    pub(super) async fn record_loaded(&self, table: &Table, md5: Option<&str>) -> Result<()> {
        let client = self.client().await?;
        client
            .execute(
                include_str!("sql/record_loaded.sql"),
                &[&table.schema.as_str(), &table.data_schema.as_str(), &table.name.as_str(), &md5],
            )
            .await
            .map_err(failure::doing(WHAT, &table.label()))?;
        Ok(())
    }
}

/// Records that readers see `oid` now.
pub(super) async fn record_published(tx: &Transaction<'_>, table: &Table, oid: u32, md5: Option<&str>) -> Result<()> {
    tx.execute(include_str!("sql/record_published.sql"), &[&table.schema.as_str(), &table.name.as_str(), &oid, &md5])
        .await
        .map_err(failure::doing(WHAT, &table.label()))?;
    Ok(())
}

/// Records that `oid` is being replaced; the foreign keys of such a table need not hold any more.
pub(super) async fn record_aside(tx: &Transaction<'_>, table: &Table, oid: u32) -> Result<()> {
    tx.execute(include_str!("sql/record_aside.sql"), &[&table.schema.as_str(), &table.name.as_str(), &oid])
        .await
        .map_err(failure::doing(WHAT, &table.label()))?;
    Ok(())
}

/// Records that the published table is back in its place.
pub(super) async fn record_back(tx: &Transaction<'_>, table: &Table) -> Result<()> {
    tx.execute(
        "update borg_slave.published set outdated_oid = null where schema_name = $1 and name = $2",
        &[&table.schema.as_str(), &table.name.as_str()],
    )
    .await
    .map_err(failure::doing(WHAT, &table.label()))?;
    Ok(())
}

/// Forgets the table.
pub(super) async fn forget(tx: &Transaction<'_>, table: &Table) -> Result<()> {
    tx.execute(
        "delete from borg_slave.published where schema_name = $1 and name = $2",
        &[&table.schema.as_str(), &table.name.as_str()],
    )
    .await
    .map_err(failure::doing(WHAT, &table.label()))?;
    Ok(())
}
