//! Outcomes of the steps inside a job, each for its target.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::{Durability, Journal, Moment, words};
use crate::error::{Error, ErrorKind, Result};

words! {
    /// How a step ended for a target.
    StepOutcome {
        /// It is being taken.
        Running = "running",
        /// It changed something.
        Done = "done",
        /// It found everything as it should be.
        Unchanged = "unchanged",
        /// It failed; the message says why.
        Failed = "failed",
        /// It was not taken, because an earlier one failed or it does not apply.
        Skipped = "skipped",
    }
}

impl StepOutcome {
    /// Whether the step need not be taken again for the same content.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Done | Self::Unchanged)
    }

    /// The outcome as people read it.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Running => "unfinished",
        }
    }
}

/// One step of a job, for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Name of the step.
    pub step: String,
    /// URL of the GeoServer that it is about; `None` for a step that has no target.
    pub target: Option<String>,
    /// How it ended.
    pub outcome: StepOutcome,
    /// What an operator should know; the reason of a failure.
    pub message: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in milliseconds; 0 while it is running.
    pub duration_ms: u64,
}

impl Journal {
    /// Saves a step of a job that was begun, in place of what was saved for the same step and target.
    /// Survives the end of the process; the power only with the job's end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] or [`ErrorKind::Busy`] when the journal cannot be written;
    /// [`ErrorKind::Bug`] when the job was not begun.
    pub fn record_step(&self, job_file: &str, step: &StepRecord) -> Result<()> {
        self.record_steps(&[(job_file, step)])
    }

    /// As [`Journal::record_step`], for steps that ended at the same time: they share one transaction.
    ///
    /// # Errors
    ///
    /// As [`Journal::record_step`]; the others are saved when a job was not begun.
    pub fn record_steps(&self, ends: &[(&str, &StepRecord)]) -> Result<()> {
        let unknown = self.write(Durability::Kill, |transaction| {
            let mut record = transaction.prepare(include_str!("sql/record-step.sql"))?;
            let mut unknown = None;
            for (job_file, step) in ends {
                let known = record.execute(params![
                    job_file,
                    step.step,
                    step.target.as_deref().unwrap_or_default(),
                    step.outcome,
                    step.message,
                    Moment(step.started),
                    i64::try_from(step.duration_ms).unwrap_or(i64::MAX),
                ])?;
                if known == 0 {
                    unknown = Some(*job_file);
                }
            }
            Ok(unknown)
        })?;
        match unknown {
            Some(job_file) => {
                Err(Error::new(ErrorKind::Bug, "a step is recorded of a job that was not begun").subject(job_file))
            }
            None => Ok(()),
        }
    }
}

/// Drops the steps of a job that did not succeed, and all steps on a target where one did not: what is left
/// of them would look as if all had.
pub(super) fn keep_succeeded(transaction: &Transaction<'_>, job: i64) -> rusqlite::Result<usize> {
    transaction.execute(
        "delete from step where job = ?1 and (outcome not in ('done', 'unchanged') or target in
            (select target from step where job = ?1 and target != '' and outcome not in ('done', 'unchanged')))",
        [job],
    )
}

/// Drops all steps of a job.
pub(super) fn drop_all(transaction: &Transaction<'_>, job: i64) -> rusqlite::Result<usize> {
    transaction.execute("delete from step where job = ?1", [job])
}

/// The steps of one job in their order.
pub(super) fn of_job(transaction: &Transaction<'_>, job: i64) -> rusqlite::Result<Vec<StepRecord>> {
    Ok(by_job(transaction, std::iter::once(job))?.remove(&job).unwrap_or_default())
}

/// The steps of several jobs, each in their order.
pub(super) fn by_job(
    transaction: &Transaction<'_>,
    jobs: impl Iterator<Item = i64>,
) -> rusqlite::Result<HashMap<i64, Vec<StepRecord>>> {
    let mut statement = transaction.prepare(
        "select step, target, outcome, message, started, duration_ms from step where job = ?1 order by position",
    )?;
    let steps = |job| Ok((job, statement.query_map([job], step_record)?.collect::<rusqlite::Result<_>>()?));
    jobs.map(steps).collect()
}

fn step_record(row: &Row<'_>) -> rusqlite::Result<StepRecord> {
    let target: String = row.get(1)?;
    Ok(StepRecord {
        step: row.get(0)?,
        target: Some(target).filter(|target| !target.is_empty()),
        outcome: row.get(2)?,
        message: row.get(3)?,
        started: row.get::<_, Moment>(4)?.0,
        duration_ms: u64::try_from(row.get::<_, i64>(5)?).unwrap_or_default(),
    })
}
