//! The outbox: what the master is still to be told, the newest state of each subject.
//!
//! A report about a job is written by the transaction that writes the job's outcome, so that a kill
//! between the two loses nothing. What a report says is the caller's business.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Durability, Journal, Moment};
use crate::error::Result;

/// Names in table `fact` of since when, and why, reports could not be delivered.
const FAILING_SINCE: &str = "reports failing since";
const FAILURE: &str = "reports failure";

/// A report to be kept until it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReport {
    /// What it is about; it takes the place of an earlier report about the same.
    pub subject: String,
    /// What it says.
    pub payload: String,
    /// Subjects of earlier reports that it makes void.
    pub voids: Vec<String>,
}

/// A report that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its number: later reports have greater ones, and none is used twice.
    pub id: i64,
    /// What it is about.
    pub subject: String,
    /// What it says.
    pub payload: String,
    /// Since when there is something to tell about the subject.
    pub since: Timestamp,
    /// Why the master refused it, when it has.
    pub refused: Option<String>,
}

/// How much waits, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// How many reports wait.
    pub count: u64,
    /// How many of them the master has refused.
    pub refused: u64,
    /// Since when the oldest waits.
    pub since: Timestamp,
    /// Since when the master cannot be told anything, and why; nothing when the last try went well.
    pub failing: Option<(Timestamp, String)>,
}

impl Journal {
    /// Keeps reports, in their order. Survives the end of the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) or [`ErrorKind::Busy`](crate::error::ErrorKind::Busy)
    /// when the journal cannot be written.
    pub fn put_reports(&self, reports: &[NewReport]) -> Result<()> {
        self.write(Durability::Kill, |transaction| put(transaction, reports))
    }

    /// Up to `limit` reports with numbers above `after`, the oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn reports(&self, after: i64, limit: u32) -> Result<Vec<Report>> {
        self.read(|transaction| {
            if !has_outbox(transaction)? {
                return Ok(Vec::new());
            }
            let mut reports = transaction.prepare(
                "select id, subject, payload, since, refused from report where id > ?1 order by id limit ?2",
            )?;
            let reports = reports.query_map(params![after, limit], |row| {
                Ok(Report {
                    id: row.get(0)?,
                    subject: row.get(1)?,
                    payload: row.get(2)?,
                    since: row.get::<_, Moment>(3)?.0,
                    refused: row.get(4)?,
                })
            })?;
            reports.collect()
        })
    }

    /// How much waits; nothing when everything is delivered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn backlog(&self) -> Result<Option<Backlog>> {
        self.read(|transaction| {
            if !has_outbox(transaction)? {
                return Ok(None);
            }
            let (count, refused, since): (i64, i64, Option<Moment>) =
                transaction.query_row("select count(*), count(refused), min(since) from report", [], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?;
            let fact = |name: &str| -> rusqlite::Result<Option<String>> {
                transaction.query_row("select value from fact where name = ?1", [name], |row| row.get(0)).optional()
            };
            let failing = match (fact(FAILING_SINCE)?.and_then(|at| at.parse().ok()), fact(FAILURE)?) {
                (Some(at), Some(reason)) => Some((at, reason)),
                _ => None,
            };
            Ok(since.map(|since| Backlog {
                count: count.unsigned_abs(),
                refused: refused.unsigned_abs(),
                since: since.0,
                failing,
            }))
        })
    }

    /// Takes delivered reports out, unless newer ones have taken their places, and notes why the
    /// master refused others (number and reason).
    ///
    /// # Errors
    ///
    /// As [`Journal::put_reports`].
    pub fn settle_reports(&self, delivered: &[i64], refused: &[(i64, String)]) -> Result<()> {
        // When the power takes this away, the same is told once more.
        self.write(Durability::Kill, |transaction| {
            let mut delete = transaction.prepare("delete from report where id = ?1")?;
            for id in delivered {
                delete.execute([id])?;
            }
            let mut mark = transaction.prepare("update report set refused = ?2 where id = ?1")?;
            for (id, reason) in refused {
                mark.execute(params![id, reason])?;
            }
            transaction.execute("delete from fact where name in (?1, ?2)", [FAILING_SINCE, FAILURE]).map(drop)
        })
    }

    /// Notes that the master cannot be told anything, and why.
    ///
    /// # Errors
    ///
    /// As [`Journal::put_reports`].
    pub fn reports_failed(&self, reason: &str) -> Result<()> {
        self.write(Durability::Kill, |transaction| {
            transaction.execute(
                "insert or ignore into fact (name, value) values (?1, ?2)",
                [FAILING_SINCE, &Timestamp::now().to_string()],
            )?;
            transaction
                .execute("insert or replace into fact (name, value) values (?1, ?2)", [FAILURE, reason])
                .map(drop)
        })
    }
}

/// Keeps reports within the transaction that makes them true.
pub(super) fn put(transaction: &Transaction<'_>, reports: &[NewReport]) -> rusqlite::Result<()> {
    let mut void = transaction.prepare("delete from report where subject = ?1")?;
    let mut insert = transaction.prepare(
        "insert or replace into report (subject, payload, since) \
         values (?1, ?2, coalesce((select since from report where subject = ?1), ?3))",
    )?;
    for report in reports {
        for subject in &report.voids {
            void.execute([subject])?;
        }
        insert.execute(params![report.subject, report.payload, Moment::now()])?;
    }
    Ok(())
}

/// A journal that an older version wrote, opened for reading only, has no outbox.
fn has_outbox(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    transaction.query_row("select exists (select 1 from sqlite_schema where name = 'report')", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(subject: &str, payload: &str, voids: &[&str]) -> NewReport {
        let voids = voids.iter().map(|&subject| subject.to_owned()).collect();
        NewReport { subject: subject.into(), payload: payload.into(), voids }
    }

    fn waiting(journal: &Journal) -> Vec<(String, String)> {
        journal.reports(0, 100).unwrap().into_iter().map(|report| (report.subject, report.payload)).collect()
    }

    #[test]
    fn the_newest_report_about_a_subject_comes_last_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.put_reports(&[report("a", "1", &[]), report("b", "1", &[]), report("c", "1", &[])]).unwrap();
        let first = journal.reports(0, 1).unwrap().pop().unwrap();
        journal.put_reports(&[report("a", "2", &["c"])]).unwrap();
        assert_eq!(waiting(&journal), [("b".into(), "1".into()), ("a".into(), "2".into())]);
        assert_eq!(journal.backlog().unwrap().unwrap().since, first.since, "it waits since the first one");
        // The first one was just being delivered.
        journal.settle_reports(&[first.id], &[]).unwrap();
        assert_eq!(waiting(&journal).len(), 2);
    }

    #[test]
    fn a_number_is_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let mut before = 0;
        for _ in 0..3 {
            journal.put_reports(&[report("a", "1", &[])]).unwrap();
            let id = journal.reports(0, 1).unwrap()[0].id;
            assert!(id > before);
            journal.settle_reports(&[id], &[]).unwrap();
            before = id;
        }
        assert_eq!(journal.backlog().unwrap(), None);
    }

    #[test]
    fn a_failure_is_known_until_something_is_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.put_reports(&[report("a", "1", &[]), report("b", "1", &[])]).unwrap();
        journal.reports_failed("refused").unwrap();
        let since = journal.backlog().unwrap().unwrap().failing.unwrap().0;
        journal.reports_failed("timed out").unwrap();
        assert_eq!(journal.backlog().unwrap().unwrap().failing, Some((since, "timed out".into())));
        let ids: Vec<i64> = journal.reports(0, 9).unwrap().iter().map(|report| report.id).collect();
        journal.settle_reports(&ids[..1], &[(ids[1], "too long".into())]).unwrap();
        let backlog = journal.backlog().unwrap().unwrap();
        assert_eq!((backlog.count, backlog.refused, backlog.failing), (1, 1, None));
    }
}
