//! The cursor, and small facts about what was pushed to a target.

use rusqlite::OptionalExtension;

use super::{Durability, Journal};
use crate::error::Result;

impl Journal {
    /// The last revision whose changes were all taken up; `None` before the first run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn cursor(&self) -> Result<Option<String>> {
        self.read(|transaction| {
            transaction.query_row("select value from fact where name = 'cursor'", [], |row| row.get(0)).optional()
        })
    }

    /// Moves the cursor to `revision`, after everything up to there was saved. Durable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) or [`ErrorKind::Busy`](crate::error::ErrorKind::Busy)
    /// when the journal cannot be written.
    pub fn set_cursor(&self, revision: &str) -> Result<()> {
        self.write(Durability::PowerLoss, |transaction| {
            transaction.execute("insert or replace into fact (name, value) values ('cursor', ?1)", [revision])?;
            transaction.execute(
                "insert or replace into fact (name, value) select 'cursor run', coalesce(max(id), 0) from run",
                [],
            )
        })
        .map(drop)
    }

    /// Job files that runs have worked on since the cursor moved: what those brought about may belong
    /// to changesets that never came in. Usually none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn touched_since_cursor(&self) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut touched = transaction.prepare(
                "select job_file from job \
                 where run > (select coalesce(max(cast(value as integer)), 0) from fact where name = 'cursor run')",
            )?;
            touched.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// All that is noted, as `((target, key), value)`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn markers(&self) -> Result<Vec<((String, String), String)>> {
        self.read(|transaction| {
            let mut all = transaction.prepare("select target, key, value from marker")?;
            all.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.collect()
        })
    }

    /// Whether anything is noted about `target`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn has_markers(&self, target: &str) -> Result<bool> {
        self.read(|transaction| {
            transaction.query_row("select exists (select 1 from marker where target = ?1)", [target], |row| row.get(0))
        })
    }

    /// The keys under which something is noted about `target`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn marker_keys(&self, target: &str) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut keys = transaction.prepare("select key from marker where target = ?1")?;
            keys.query_map([target], |row| row.get(0))?.collect()
        })
    }

    /// What is noted about `target`, under whatever keys.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn marker_values(&self, target: &str) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut values = transaction.prepare("select value from marker where target = ?1")?;
            values.query_map([target], |row| row.get(0))?.collect()
        })
    }

    /// What was noted under `key` about `target`, such as the MD5 of the style that a GeoServer has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn marker(&self, target: &str, key: &str) -> Result<Option<String>> {
        self.read(|transaction| {
            transaction
                .query_row("select value from marker where target = ?1 and key = ?2", [target, key], |row| row.get(0))
                .optional()
        })
    }

    /// Notes `value` under `key` about `target`, once it is true there. Survives the end of the
    /// process; the power only with the next durable write.
    ///
    /// Whoever is about to change the target calls [`Journal::clear_marker`] first: a push that is
    /// killed before it is noted would otherwise leave a marker that tells what was there before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) or [`ErrorKind::Busy`](crate::error::ErrorKind::Busy)
    /// when the journal cannot be written.
    pub fn set_marker(&self, target: &str, key: &str, value: &str) -> Result<()> {
        self.write(Durability::Kill, |transaction| {
            transaction
                .execute("insert or replace into marker (target, key, value) values (?1, ?2, ?3)", [target, key, value])
        })
        .map(drop)
    }

    /// Drops what was noted under exactly `key` about `target`. Durable when there was something.
    ///
    /// # Errors
    ///
    /// As [`Journal::set_marker`].
    pub fn clear_marker(&self, target: &str, key: &str) -> Result<()> {
        // Nothing noted is the usual case at a first publication: it needs no flush.
        if self.marker(target, key)?.is_none() {
            return Ok(());
        }
        self.write(Durability::PowerLoss, |transaction| {
            transaction.execute("delete from marker where target = ?1 and key = ?2", [target, key])
        })
        .map(drop)
    }
}
