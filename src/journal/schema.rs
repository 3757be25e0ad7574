//! The tables, and how an older journal is brought up to date.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::Failure;
use crate::error::{Error, ErrorKind};

/// The steps from an empty file to the present tables; `user_version` counts those that were taken.
/// A published one is never changed: add the next.
const MIGRATIONS: &[&str] = &[
    include_str!("sql/0001-journal.sql"),
    include_str!("sql/0002-reports.sql"),
    include_str!("sql/0003-waits-for-others.sql"),
];

/// Marks the file as ours: "borg" in ASCII.
const APPLICATION_ID: i32 = 0x626f_7267;

/// Takes the steps that are missing, all or none.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Failure> {
    if check(connection, path)? == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let version = check(&transaction, path)?;
    for migration in &MIGRATIONS[version..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()?;
    Ok(())
}

/// The number of steps that were taken; refuses a file of a newer version or of another program.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<usize, Failure> {
    let (version, application, tables): (i64, i32, bool) = connection.query_row(
        "select user_version, application_id, exists (select 1 from sqlite_schema) \
         from pragma_user_version, pragma_application_id",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let is_empty = version == 0 && application == 0 && !tables;
    if !is_empty && application != APPLICATION_ID {
        return Err(Error::new(ErrorKind::Io, "the file is a database of another program, not a journal")
            .subject(path.display().to_string())
            .hint("move it away, or let SYNC_STATUS_PATH name a directory of borg-slave's own")
            .into());
    }
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            format!("a newer borg-slave wrote the journal (format {version}; this version knows up to {})", MIGRATIONS.len()),
        )
        .subject(path.display().to_string())
        .hint("install the newer version again, or move the journal away: then every job is applied again, which is harmless")
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_journal_is_left_alone_with_the_remedy() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("pragma application_id = 1651470951; pragma user_version = 99").unwrap();
        let Err(Failure::Ours(error)) = check(&connection, Path::new("/s/journal.sqlite3")) else { panic!("accepted") };
        insta::assert_snapshot!(error.paragraph(), @r"
        Error: /s/journal.sqlite3: a newer borg-slave wrote the journal (format 99; this version knows up to 3)
          Hint: install the newer version again, or move the journal away: then every job is applied again, which is harmless
        ");
    }

    #[test]
    fn the_database_of_another_program_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("create table theirs (x)").unwrap();
        let Err(Failure::Ours(error)) = migrate(&mut connection, Path::new("/s/journal.sqlite3")) else {
            panic!("accepted")
        };
        assert!(error.to_string().contains("another program"), "{error}");
    }
}
