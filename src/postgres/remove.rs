//! Removing a layer: its view and its tables, and nothing of anybody else.

use super::bookkeeping::{self, State};
use super::connect::{Attempts, Database};
use super::{Table, failure};
use crate::error::Result;

impl Database {
    /// Removes the view and the tables of a layer; `false` when nothing of it was there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`](crate::error::ErrorKind::Database) when other objects (views, foreign
    /// keys of other tables) depend on them: they are named and nothing is removed.
    /// [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) when readers did not let them go in time.
    pub async fn remove(&self, table: &Table) -> Result<bool> {
        self.ensure_bookkeeping().await?;
        self.hold(table).await?;
        let mut attempts = Attempts::new(self);
        let removed = loop {
            match self.try_remove(table).await {
                Err(error) if attempts.may_retry(&error) => {
                    if let Err(stopped) = attempts.pause().await {
                        break Err(stopped);
                    }
                }
                Err(error) => break Err(self.name_holders(error, table).await),
                Ok(removed) => break Ok(removed),
            }
        };
        self.release(table).await;
        removed
    }

    async fn try_remove(&self, table: &Table) -> Result<bool> {
        let label = table.label();
        let failed = failure::doing("cannot remove the layer's view and table", &label);
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute("set local lock_timeout = '500ms'; set local search_path = ''").await.map_err(failed)?;
        let state = State::read(&tx, table).await?;
        state.check_kinds(table)?;
        let mut sql = Vec::new();
        if state.view.is_some() {
            let view = table.view_sql();
            // Locks the view before the table below it, as readers do.
            sql.push(format!("lock table {view} in access exclusive mode"));
            sql.push(format!("drop view {view}"));
        }
        for (relation, name) in [(state.data, table.data_sql()), (state.outdated, table.outdated_sql())] {
            if let Some(relation) = relation {
                super::foreign_keys::drop_lone_twins(&tx, table, relation.oid).await?;
                sql.push(format!("drop table {name}"));
            }
        }
        for statement in &sql {
            tx.batch_execute(statement).await.map_err(failed)?;
        }
        bookkeeping::forget(&tx, table).await?;
        tx.commit().await.map_err(failed)?;
        Ok(!sql.is_empty())
    }
}
