//! Whether the journal can be used; looked at, and left as it is.

use std::path::Path;

use rusqlite::{OpenFlags, TransactionBehavior};

use super::{FILE_NAME, Journal, connect, read_only_failure, sqlite_error};
use crate::error::{Error, ErrorKind, Result};

impl Journal {
    /// Looks whether the journal in `dir` is whole and can be written; answers how many jobs it knows, `None`
    /// when there is none yet. May wait ten seconds for a process that is writing.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`].
    pub fn try_out(dir: &Path) -> Result<Option<i64>> {
        let path = dir.join(FILE_NAME);
        let Some(journal) = Self::open_read_only(dir)? else { return Ok(None) };
        let (verdict, jobs): (String, i64) = journal.read(|transaction| {
            let verdict = transaction.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
            let jobs = transaction.query_row("select count(*) from job", [], |row| row.get(0))?;
            Ok((verdict, jobs))
        })?;
        if verdict != "ok" {
            return Err(Error::new(ErrorKind::Io, "the journal is damaged").subject(path.display().to_string()).source(verdict).hint(
                "move it, and the files beside it that begin with its name, away and run again: every job is applied again, which is harmless but takes its time",
            ));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let tried = connect(&path, flags).and_then(|mut connection| {
            if connection.is_readonly("main")? {
                return Err(read_only_failure());
            }
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback()
        });
        tried.map_err(|source| sqlite_error(&path, "cannot write to the journal", source))?;
        Ok(Some(jobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_tried_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Journal::try_out(dir.path()).unwrap(), None);
        assert!(!dir.path().join(FILE_NAME).exists());
        drop(Journal::open(dir.path()).unwrap());
        assert_eq!(Journal::try_out(dir.path()).unwrap(), Some(0));
        let path = dir.path().join(FILE_NAME);
        // Behind the header, the first page is nothing any more.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100..4096].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let error = Journal::try_out(dir.path()).unwrap_err();
        assert!(error.one_line().contains("damaged"), "{}", error.one_line());
    }
}
