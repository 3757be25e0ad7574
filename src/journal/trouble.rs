//! What keeps the daemon from its work, for `status` and the master.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use super::{Durability, Journal};
use crate::error::Result;

/// Name in table `fact`: why the program is not the newest one.
const OF_PROGRAM: &str = "program trouble";

/// Name in table `fact`: why no pass can be made.
const OF_PASSES: &str = "pass trouble";

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Timestamp,
    /// What went wrong, on one line.
    pub about: String,
}

impl Journal {
    /// What keeps the program from being brought up to date, if anything does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn program_trouble(&self) -> Result<Option<Trouble>> {
        self.read(|transaction| read(transaction, OF_PROGRAM))
    }

    /// Notes what keeps the program from being brought up to date, or that nothing does; answers what was on
    /// record before. Trouble that goes on keeps its time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) or [`ErrorKind::Busy`](crate::error::ErrorKind::Busy)
    /// when the journal cannot be written.
    pub fn set_program_trouble(&self, about: Option<&str>) -> Result<Option<Trouble>> {
        self.set(OF_PROGRAM, about)
    }

    /// Why the daemon can make no pass, as the master was told; nothing when it can.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn pass_trouble(&self) -> Result<Option<Trouble>> {
        self.read(|transaction| read(transaction, OF_PASSES))
    }

    /// Notes why the daemon can make no pass, or that it can, as [`Journal::set_program_trouble`] does.
    ///
    /// # Errors
    ///
    /// As [`Journal::set_program_trouble`].
    pub fn set_pass_trouble(&self, about: Option<&str>) -> Result<Option<Trouble>> {
        self.set(OF_PASSES, about)
    }

    fn set(&self, name: &str, about: Option<&str>) -> Result<Option<Trouble>> {
        let before = self.read(|transaction| read(transaction, name))?;
        if before.as_ref().map(|trouble| trouble.about.as_str()) == about {
            return Ok(before);
        }
        self.write(Durability::Kill, |transaction| match about {
            Some(about) => {
                let since = before.as_ref().map_or_else(Timestamp::now, |before| before.since);
                let value = format!("{since} {about}");
                transaction.execute("insert or replace into fact (name, value) values (?1, ?2)", [name, &value])
            }
            None => transaction.execute("delete from fact where name = ?1", [name]),
        })?;
        Ok(before)
    }
}

fn read(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<Trouble>> {
    let value: Option<String> =
        transaction.query_row("select value from fact where name = ?1", [name], |row| row.get(0)).optional()?;
    Ok(value.and_then(|value| {
        let (since, about) = value.split_once(' ')?;
        Some(Trouble { since: since.parse().ok()?, about: about.to_owned() })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_keeps_its_time_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.set_program_trouble(None).unwrap(), None);
        assert_eq!(journal.set_program_trouble(Some("no branch")).unwrap(), None);
        let first = journal.program_trouble().unwrap().unwrap();
        assert_eq!(journal.set_program_trouble(Some("no build")).unwrap(), Some(first.clone()));
        let second = journal.program_trouble().unwrap().unwrap();
        assert_eq!(second, Trouble { since: first.since, about: "no build".to_owned() });
        assert_eq!(journal.set_pass_trouble(Some("no clone")).unwrap(), None);
        assert_eq!(journal.set_program_trouble(None).unwrap(), Some(second));
        assert_eq!(journal.program_trouble().unwrap(), None);
        assert_eq!(journal.pass_trouble().unwrap().unwrap().about, "no clone");
    }
}
