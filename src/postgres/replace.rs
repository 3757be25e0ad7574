//! The three moves that replace a table while it is being read.

use std::collections::HashSet;

use deadpool_postgres::Transaction;

use super::bookkeeping::{self, State};
use super::connect::{Attempts, Database};
use super::foreign_keys;
use super::restore::{LoadProgress, Restored};
use super::views::{self, Replacement};
use super::{Archive, Table, failure};
use crate::error::{Error, ErrorKind, Result};
use crate::name::PgIdent;

/// A short transaction asks for a lock this long. Readers that come meanwhile queue behind it, so it
/// gives up soon and tries again. What it does takes moments; on storage that hangs it is not waited for
/// without end.
const LOCK_SQL: &str =
    "set local lock_timeout = '500ms'; set local statement_timeout = '10min'; set local search_path = ''";

/// What a swap has changed for readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swapped {
    /// The view's columns differ in name, type or order from before.
    pub columns_changed: bool,
    /// There was no view before.
    pub first_time: bool,
}

impl Database {
    /// Moves 1 and 2: puts the published table aside, where readers go on with it, and loads `archive`
    /// beside it, without foreign keys. `progress` is called about once a second.
    ///
    /// Whatever an earlier run left behind is taken up: the same content that is loaded already
    /// ([`Archive::with_md5`]) is not loaded again, anything half made goes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] when readers or another run did not let the table go in time,
    /// [`ErrorKind::Archive`] when the dump is damaged, [`ErrorKind::Database`] when other objects
    /// stand in the way. The old table stays published.
    pub async fn load(
        &self,
        table: &Table,
        archive: &Archive,
        progress: impl Fn(LoadProgress) + Send + Sync,
    ) -> Result<()> {
        self.ensure_bookkeeping().await?;
        self.hold(table).await?;
        let loaded = self.load_held(table, archive, &progress).await;
        if loaded.is_err() {
            if let Err(error) = self.move_back(table).await {
                tracing::warn!(table = table.label(), %error, "the published table stays in the outdated schema");
            }
            self.release(table).await;
        }
        loaded
    }

    async fn load_held(
        &self,
        table: &Table,
        archive: &Archive,
        progress: &(impl Fn(LoadProgress) + Send + Sync),
    ) -> Result<()> {
        let mut clashes = 0_u32;
        loop {
            if self.move_aside(table, archive.md5()).await? == Aside::Loaded {
                return Ok(());
            }
            match self.restore(table, archive, progress).await? {
                Restored::Done => break,
                // A killed run's restore was committed after the first move had looked.
                Restored::Clash(_) if clashes == 0 => clashes += 1,
                Restored::Clash(error) => return Err(error),
            }
        }
        let finished = self.finish_load(table, archive).await;
        if finished.is_err() {
            self.take_away_unfinished(table).await;
        }
        finished
    }

    async fn finish_load(&self, table: &Table, archive: &Archive) -> Result<()> {
        self.check_restored(table).await?;
        // Without statistics the first readers get bad plans and GeoServer an empty estimated extent.
        let analyze = format!("analyze {}", table.data_sql());
        self.run_long(&analyze, "cannot collect statistics of the loaded table", &table.label()).await?;
        self.record_loaded(table, archive.md5()).await
    }

    /// Move 1.
    async fn move_aside(&self, table: &Table, md5: Option<&str>) -> Result<Aside> {
        let mut attempts = Attempts::new(self);
        loop {
            match self.try_move_aside(table, md5).await {
                Err(error) if attempts.may_retry(&error) => attempts.pause().await?,
                Err(error) => return Err(self.name_holders(error, table).await),
                Ok(aside) => return Ok(aside),
            }
        }
    }

    async fn try_move_aside(&self, table: &Table, md5: Option<&str>) -> Result<Aside> {
        let label = table.label();
        let failed = failure::doing("cannot put the old table aside", &label);
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute(LOCK_SQL).await.map_err(failed)?;
        let state = State::read(&tx, table).await?;
        state.check_kinds(table)?;
        if state.is_loaded(md5) {
            return Ok(Aside::Loaded);
        }
        let Some(data) = state.data else {
            if let Some(outdated) = state.outdated {
                bookkeeping::record_aside(&tx, table, outdated.oid).await?;
                tx.commit().await.map_err(failed)?;
            }
            return Ok(Aside::Load);
        };
        match state.outdated {
            // The view reads the older one: what lies in the data schema was never published.
            Some(outdated) if !state.view_reads_data => {
                foreign_keys::point_back(&tx, table, data.oid, outdated.oid).await?;
                tx.batch_execute(&format!("drop table {}", table.data_sql())).await.map_err(failed)?;
            }
            other => {
                if let Some(outdated) = other {
                    foreign_keys::point_forward(&tx, table, outdated.oid, data.oid).await?;
                    tx.batch_execute(&format!("drop table {}", table.outdated_sql())).await.map_err(failed)?;
                }
                // Also a table that nobody reads (a first publication was interrupted) is only put
                // aside: it may be the only copy, and foreign keys may point to it already.
                set_schema(&tx, table, data.oid, &table.outdated_schema).await?;
                bookkeeping::record_aside(&tx, table, data.oid).await?;
            }
        }
        tx.commit().await.map_err(failed)?;
        Ok(Aside::Load)
    }

    /// Drops a table of which a restore that failed has left a part.
    pub(super) async fn drop_unfinished(&self, table: &Table) -> Result<()> {
        let mut attempts = Attempts::new(self);
        while let Err(error) = self.try_drop_unfinished(table).await {
            if !attempts.may_retry(&error) {
                return Err(error);
            }
            attempts.pause().await?;
        }
        Ok(())
    }

    async fn try_drop_unfinished(&self, table: &Table) -> Result<()> {
        let label = table.label();
        let failed = failure::doing("cannot drop what is loaded in part", &label);
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute(LOCK_SQL).await.map_err(failed)?;
        let state = State::read(&tx, table).await?;
        state.check_kinds(table)?;
        let Some(data) = state.data else { return Ok(()) };
        if state.view_reads_data || state.loaded_oid == Some(data.oid) {
            return Ok(());
        }
        tx.batch_execute(&format!("drop table {}", table.data_sql())).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Undoes move 1 when nothing could be loaded: who names the table itself, as foreign keys of
    /// other dumps do, finds it again.
    async fn move_back(&self, table: &Table) -> Result<()> {
        let label = table.label();
        let failed = failure::doing("cannot put the old table back", &label);
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute(LOCK_SQL).await.map_err(failed)?;
        let state = State::read(&tx, table).await?;
        let Some(outdated) = state.outdated.filter(|_| state.data.is_none() && state.view_reads_outdated) else {
            return Ok(());
        };
        set_schema(&tx, table, outdated.oid, &table.data_schema).await?;
        bookkeeping::record_back(&tx, table).await?;
        tx.commit().await.map_err(failed)
    }

    /// Adds the foreign keys that the dump brings to the loaded table, but for those that point to a
    /// table (schema, name) in `leave_out`. The tables that they point to must be there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Dependency`] when a table that is pointed to is missing, [`ErrorKind::Database`]
    /// when the data violate a foreign key; both name the constraint and the two tables.
    pub async fn add_foreign_keys(
        &self,
        table: &Table,
        archive: &Archive,
        leave_out: &[(String, String)],
    ) -> Result<()> {
        let added = self.add_keys(table, archive, &leave_out.iter().collect()).await;
        if added.is_err() {
            self.release(table).await;
        }
        added
    }

    async fn add_keys(&self, table: &Table, archive: &Archive, leave_out: &HashSet<&(String, String)>) -> Result<()> {
        self.hold(table).await?;
        for key in archive.foreign_keys().iter().filter(|key| !leave_out.contains(&key.references)) {
            let mut attempts = Attempts::new(self);
            while let Err(error) = self.add_foreign_key(table, key).await {
                if !attempts.may_retry(&error) {
                    return Err(error);
                }
                attempts.pause().await?;
            }
        }
        Ok(())
    }

    /// Move 3: the loaded table becomes what the view reads and what foreign keys of other tables
    /// point to, and the old one goes, in one short transaction. `md5` is recorded as published.
    ///
    /// Foreign keys are validated before the transaction, while everybody reads on; only those of a
    /// table that is itself being replaced are not, because its rows are about to go.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] when readers did not let the old table go in time, [`ErrorKind::Database`]
    /// when a foreign key would be violated or an object that depends on the view cannot be kept; the
    /// object is named. The old table stays published, the loaded one stays loaded.
    pub async fn swap(&self, table: &Table, md5: Option<&str>) -> Result<Swapped> {
        self.ensure_bookkeeping().await?;
        self.hold(table).await?;
        let mut attempts = Attempts::new(self);
        let swapped = loop {
            match self.try_swap(table, md5).await {
                Err(error) if attempts.may_retry(&error) => {
                    if let Err(stopped) = attempts.pause().await {
                        break Err(stopped);
                    }
                }
                Err(error) => break Err(self.name_holders(error, table).await),
                Ok(swapped) => break Ok(swapped),
            }
        };
        self.release(table).await;
        swapped
    }

    async fn try_swap(&self, table: &Table, md5: Option<&str>) -> Result<Swapped> {
        self.prepare_foreign_keys(table).await?;
        let label = table.label();
        let failed = failure::doing("cannot publish the loaded table", &label);
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute(LOCK_SQL).await.map_err(failed)?;
        let before = State::read(&tx, table).await?;
        before.check_kinds(table)?;
        if before.view.is_some() {
            // Locks view and old table in the order in which readers take them.
            let lock = format!("lock table {} in access exclusive mode", table.view_sql());
            tx.batch_execute(&lock).await.map_err(failed)?;
            // From here on readers wait, so the locks on other tables must come at once.
            tx.batch_execute("set local lock_timeout = '200ms'").await.map_err(failed)?;
        }
        if before.view_reads_data && (md5.is_none() || md5 == before.published_md5.as_deref()) {
            // A run was killed after this very transaction.
            return Ok(Swapped { columns_changed: false, first_time: false });
        }
        let other_content = md5.is_some() && before.loaded_md5.is_some() && before.loaded_md5.as_deref() != md5;
        let data =
            before.data.filter(|data| before.loaded_oid == Some(data.oid) && !other_content).ok_or_else(|| {
                Error::new(ErrorKind::Database, "the table is not the one that was loaded to be published")
                    .subject(table.data_sql())
                    .hint("somebody has changed or dropped it since it was loaded; run again")
            })?;
        if let Some(old) = before.outdated {
            foreign_keys::switch(&tx, table, old.oid, data.oid).await?;
        }
        let replacement = Replacement {
            view: before.view.map(|view| view.oid),
            old: before.outdated.map(|old| old.oid),
            new: data.oid,
        };
        let columns_changed = views::replace(&tx, table, &replacement).await?;
        if before.outdated.is_some() {
            drop_old(&tx, table).await?;
        }
        bookkeeping::record_published(&tx, table, data.oid, md5).await?;
        tx.commit().await.map_err(failed)?;
        Ok(Swapped { columns_changed, first_time: before.view.is_none() })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Aside {
    /// The place is free.
    Load,
    /// The wanted content is loaded already.
    Loaded,
}

/// Moves a table with its extended statistics, which PostgreSQL leaves behind: they would stand in the way
/// of those that the next dump brings.
async fn set_schema(tx: &Transaction<'_>, table: &Table, oid: u32, schema: &PgIdent) -> Result<()> {
    let label = table.label();
    let failed = failure::doing("cannot move the old table to the other schema", &label);
    let statements = tx.query(include_str!("sql/set_schema.sql"), &[&oid, &schema.as_str()]).await.map_err(failed)?;
    for statement in statements {
        tx.batch_execute(statement.get(0)).await.map_err(failed)?;
    }
    Ok(())
}

async fn drop_old(tx: &Transaction<'_>, table: &Table) -> Result<()> {
    tx.batch_execute(&format!("drop table {}", table.outdated_sql()))
        .await
        .map_err(failure::doing("cannot drop the replaced table", &table.label()))
}

impl State {
    /// Refuses to touch anything that is not of the kind that the slave makes.
    pub(super) fn check_kinds(&self, table: &Table) -> Result<()> {
        for (relation, kind, word, name) in [
            (self.view, 'v', "view", table.view_sql()),
            (self.data, 'r', "table", table.data_sql()),
            (self.outdated, 'r', "table", table.outdated_sql()),
        ] {
            if relation.is_some_and(|relation| relation.kind != kind) {
                return Err(Error::new(
                    ErrorKind::Database,
                    format!("there is something else than a {word} of that name"),
                )
                .subject(name)
                .hint("rename or drop it by hand: the slave does not drop what it did not make"));
            }
        }
        Ok(())
    }
}
