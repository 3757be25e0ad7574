//! The history of runs.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rusqlite::params;

use super::{Durability, Journal, Moment, jobs, words};
use crate::error::{Error, ErrorKind, Result};

/// How many runs are kept.
const KEPT: i64 = 500;

words! {
    /// How a run ended.
    RunOutcome {
        /// It is going on.
        Running = "running",
        /// All was applied.
        Succeeded = "succeeded",
        /// Some job failed, or the run itself did.
        Failed = "failed",
        /// A signal stopped it in good order.
        Stopped = "stopped",
        /// It was killed.
        Interrupted = "interrupted",
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// How it ended.
    pub outcome: RunOutcome,
    /// Jobs that were applied.
    pub succeeded: u32,
    /// Jobs that failed.
    pub failed: u32,
    /// Jobs that needed nothing.
    pub unchanged: u32,
    /// What an operator should know; why the run itself failed.
    pub message: Option<String>,
}

/// A run in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// Its number; later runs have greater ones.
    pub id: i64,
    /// What started it, such as `hook pretxnchangegroup`.
    pub trigger: String,
    /// The revision that it started after; `None` for a first run.
    pub from: Option<String>,
    /// The revision that it went up to.
    pub to: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; `None` when it is going on or was killed.
    pub finished: Option<Timestamp>,
    /// What it came to so far.
    pub summary: RunSummary,
}

impl Journal {
    /// Notes that a run begins, and that what is recorded as running was interrupted: the caller
    /// holds the run lock, so nobody else is at work. Jobs that begin from now on bear its number.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] or [`ErrorKind::Busy`] when the journal cannot be written.
    pub fn start_run(&self, trigger: &str, from: Option<&str>, to: Option<&str>) -> Result<i64> {
        let id = self.write(Durability::Kill, |transaction| {
            jobs::interrupt_running(transaction)?;
            transaction.execute("update run set outcome = 'interrupted' where outcome = 'running'", [])?;
            transaction.execute(
                "insert into run (started_by, from_revision, to_revision, started, outcome) values (?1, ?2, ?3, ?4, ?5)",
                params![trigger, from, to, Moment::now(), RunOutcome::Running],
            )?;
            let id = transaction.last_insert_rowid();
            transaction.execute("delete from run where id <= ?1", [id - KEPT])?;
            Ok(id)
        })?;
        self.run.store(id, Ordering::Relaxed);
        Ok(id)
    }

    /// Saves what run `id` came to. Durable.
    ///
    /// # Errors
    ///
    /// As [`Journal::start_run`]; [`ErrorKind::Bug`] when there is no such run.
    pub fn finish_run(&self, id: i64, summary: &RunSummary) -> Result<()> {
        let known = self.write(Durability::PowerLoss, |transaction| {
            transaction.execute(
                "update run set outcome = ?2, succeeded = ?3, failed = ?4, unchanged = ?5, message = ?6, finished = ?7 \
                 where id = ?1",
                params![
                    id,
                    summary.outcome,
                    summary.succeeded,
                    summary.failed,
                    summary.unchanged,
                    summary.message,
                    Moment::now()
                ],
            )
        })?;
        if known == 0 {
            return Err(Error::new(ErrorKind::Bug, format!("run {id} is finished that was not started")));
        }
        Ok(())
    }

    /// The last `count` runs, the newest first; at most 500 are kept.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the journal cannot be read.
    pub fn last_runs(&self, count: u32) -> Result<Vec<RunRecord>> {
        let mut runs: Vec<RunRecord> = self.read(|transaction| {
            let mut statement = transaction.prepare(
                "select id, started_by, from_revision, to_revision, started, finished, \
                 outcome, succeeded, failed, unchanged, message from run order by id desc limit ?1",
            )?;
            let runs = statement.query_map([count], |row| {
                Ok(RunRecord {
                    id: row.get(0)?,
                    trigger: row.get(1)?,
                    from: row.get(2)?,
                    to: row.get(3)?,
                    started: row.get::<_, Moment>(4)?.0,
                    finished: row.get::<_, Option<Moment>>(5)?.map(|moment| moment.0),
                    summary: RunSummary {
                        outcome: row.get(6)?,
                        succeeded: row.get(7)?,
                        failed: row.get(8)?,
                        unchanged: row.get(9)?,
                        message: row.get(10)?,
                    },
                })
            })?;
            runs.collect()
        })?;
        if runs.iter().any(|run| run.summary.outcome == RunOutcome::Running) && !self.is_run_alive() {
            for run in runs.iter_mut().filter(|run| run.summary.outcome == RunOutcome::Running) {
                run.summary.outcome = RunOutcome::Interrupted;
            }
        }
        Ok(runs)
    }
}
