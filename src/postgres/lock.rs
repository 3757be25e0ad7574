//! One advisory lock per table, held from the first move to the last.
//!
//! A killed run leaves sessions behind that the server ends only when it notices. The next run, which
//! may start at once, waits here until the last of them is gone instead of working beside it. The
//! locks belong to one session of their own: when the process dies, they die.

use std::collections::HashSet;

use deadpool_postgres::{ClientWrapper, Object};

use super::connect::{Attempts, Database};
use super::{Table, failure};
use crate::error::{Error, ErrorKind, Result};

const TRY_SQL: &str = include_str!("sql/try_lock_table.sql");
const RELEASE_SQL: &str = include_str!("sql/unlock_table.sql");

/// The session that holds the locks, and the tables that it holds.
pub(super) struct LockSession {
    pub(super) client: Option<ClientWrapper>,
    pub(super) held: HashSet<Table>,
}

impl Database {
    /// Takes the lock of `table`, or keeps it when this database has it already.
    pub(super) async fn hold(&self, table: &Table) -> Result<()> {
        let mut attempts = Attempts::new(self);
        loop {
            match self.try_hold(table).await {
                Err(error) if attempts.may_retry(&error) => attempts.pause().await?,
                other => return other,
            }
        }
    }

    async fn try_hold(&self, table: &Table) -> Result<()> {
        let label = table.label();
        let mut locks = self.shared.locks.lock().await;
        if locks.client.as_ref().is_none_or(|client| client.is_closed()) {
            // A lost session has lost its locks.
            locks.held.clear();
            locks.client = Some(Object::take(self.client().await?));
        }
        if locks.held.contains(table) {
            return Ok(());
        }
        let Some(client) = locks.client.as_ref() else {
            return Err(Error::new(ErrorKind::Bug, "the lock session is gone"));
        };
        let row = client
            .query_one(TRY_SQL, &[&table.schema.as_str(), &table.name.as_str()])
            .await
            .map_err(failure::doing("cannot lock the table for replacement", &label))?;
        if row.get::<_, bool>(0) {
            locks.held.insert(table.clone());
            return Ok(());
        }
        let holder: Option<i32> = row.get(1);
        Err(Error::new(
            ErrorKind::Busy,
            match holder {
                Some(pid) => format!("another borg-slave works on this table (server process {pid})"),
                None => "another borg-slave works on this table".into(),
            },
        )
        .subject(label)
        .hint("wait for the other run; if none is there, end the session with select pg_terminate_backend(<server process>)"))
    }

    /// Adds to a [`ErrorKind::Busy`] error which sessions hold the table or its view.
    pub(super) async fn name_holders(&self, error: Error, table: &Table) -> Error {
        if error.kind() != ErrorKind::Busy {
            return error;
        }
        let names = [&table.schema, &table.data_schema, &table.outdated_schema, &table.name].map(|name| name.as_str());
        let Ok(client) = self.client().await else { return error };
        let found = client
            .query(include_str!("sql/holders.sql"), &[&names[0], &names[1], &names[2], &names[3]])
            .await
            .unwrap_or_default();
        let holders: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        if holders.is_empty() {
            return error;
        }
        Error::new(ErrorKind::Busy, format!("{}; held by {}", error.message(), holders.join(", ")))
            .subject(table.label())
            .source(error)
            .hint("wait for these sessions, or end one with select pg_terminate_backend(<server process>)")
    }

    /// Gives back the lock that [`Database::load`] took, when the table will not be swapped by this
    /// run after all. What was loaded stays for the next run. [`Database::swap`] and
    /// whatever fails release by themselves.
    pub async fn release(&self, table: &Table) {
        let mut locks = self.shared.locks.lock().await;
        if locks.held.remove(table)
            && let Some(client) = locks.client.as_ref()
        {
            // A failure is of no consequence: the lock ends with its session.
            let _ = client.query(RELEASE_SQL, &[&table.schema.as_str(), &table.name.as_str()]).await;
        }
    }
}
