//! How jobs begin and end.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, ToSql, Transaction, params};

use super::jobs::{Begun, JobOutcome, NewJob, State};
use super::reports::{self, NewReport};
use super::{Durability, Journal, Moment, sqlite_error, steps};
use crate::error::{Error, ErrorKind, Result};

impl Journal {
    /// Notes that a job is being tried, and tells what earlier attempts at the same content and
    /// action achieved. With other content or another action the job starts afresh; that is durable,
    /// so that the superseded outcome cannot come back with the old content.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] or [`ErrorKind::Busy`] when the journal cannot be written.
    pub fn begin_job(&self, job: &NewJob) -> Result<Begun> {
        let mut inner = self.lock();
        let (known, same) = known_and_same(&inner.connection, job)
            .map_err(|source| sqlite_error(&self.path, "cannot read the journal", source))?;
        let durability = if known && !same { Durability::PowerLoss } else { Durability::Kill };
        self.write_locked(&mut inner, durability, |transaction| self.begin(transaction, job, same))
    }

    /// As [`Journal::begin_job`], for jobs that begin at the same time: one transaction, and one flush
    /// of the disk if any of them supersedes an outcome of other content.
    ///
    /// # Errors
    ///
    /// As [`Journal::begin_job`].
    pub fn begin_jobs(&self, jobs: &[&NewJob]) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut inner = self.lock();
        let mut supersedes = false;
        let same: Vec<bool> = jobs
            .iter()
            .map(|job| {
                let (known, same) = known_and_same(&inner.connection, job)?;
                supersedes |= known && !same;
                Ok(same)
            })
            .collect::<rusqlite::Result<_>>()
            .map_err(|source| sqlite_error(&self.path, "cannot read the journal", source))?;
        let durability = if supersedes { Durability::PowerLoss } else { Durability::Kill };
        self.write_locked(&mut inner, durability, |transaction| {
            for (job, same) in jobs.iter().zip(same) {
                self.begin(transaction, job, same)?;
            }
            Ok(())
        })
    }

    fn begin(&self, transaction: &Transaction<'_>, job: &NewJob, same: bool) -> rusqlite::Result<Begun> {
        let mut begin = transaction.prepare(include_str!("sql/begin-job.sql"))?;
        let (now, run) = (Moment::now(), self.current_run());
        let params = with_job(job, &[&now, &run]);
        let (id, attempts): (i64, u32) = begin.query_row(&*params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        if same {
            steps::keep_succeeded(transaction, id)?;
        } else {
            steps::drop_all(transaction, id)?;
        }
        Ok(Begun { attempts, previous: steps::of_job(transaction, id)? })
    }

    /// Saves how a job that was begun ended. Durable.
    ///
    /// # Errors
    ///
    /// As [`Journal::begin_job`]; [`ErrorKind::Bug`] when the job was not begun.
    pub fn finish_job(&self, job_file: &str, outcome: &JobOutcome) -> Result<()> {
        self.finish_jobs(&[(job_file, outcome)])
    }

    /// As [`Journal::finish_job`], for jobs that ended at the same time: they share one flush of the
    /// disk, which on a busy disk takes milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Journal::finish_job`]; the others are saved when one was not begun.
    pub fn finish_jobs(&self, ends: &[(&str, &JobOutcome)]) -> Result<()> {
        self.finish_and_report(ends, &[])
    }

    /// As [`Journal::finish_jobs`], and keeps what the master is to be told about it: both or nothing.
    ///
    /// # Errors
    ///
    /// As [`Journal::finish_jobs`].
    pub fn finish_and_report(&self, ends: &[(&str, &JobOutcome)], reports: &[NewReport]) -> Result<()> {
        for (job_file, outcome) in ends {
            check_end(job_file, outcome.state)?;
        }
        if ends.is_empty() {
            return Ok(());
        }
        let unknown = self.write(Durability::PowerLoss, |transaction| {
            let now = Moment::now();
            let mut finish = transaction.prepare(include_str!("sql/finish-job.sql"))?;
            let mut unknown = None;
            for (job_file, outcome) in ends {
                let next_try = outcome.next_try.map(Moment);
                let values = params![
                    job_file,
                    outcome.state,
                    outcome.message,
                    outcome.hint,
                    now,
                    next_try,
                    outcome.waits_for_others
                ];
                if finish.execute(values)? == 0 {
                    unknown = Some(*job_file);
                }
            }
            reports::put(transaction, reports)?;
            Ok(unknown)
        })?;
        match unknown {
            Some(job_file) => Err(Error::new(ErrorKind::Bug, "a job is finished that was not begun").subject(job_file)),
            None => Ok(()),
        }
    }

    /// Saves the outcomes of jobs that need no steps, such as filtered ones, all in one transaction:
    /// thousands cost one flush of the disk. Steps of earlier attempts are dropped; what is deployed
    /// stays noted. What is noted already is not written again. Durable.
    ///
    /// # Errors
    ///
    /// As [`Journal::begin_job`].
    pub fn settle_jobs(&self, jobs: &[(NewJob, JobOutcome)]) -> Result<()> {
        for (job, outcome) in jobs {
            check_end(&job.job_file, outcome.state)?;
        }
        if jobs.is_empty() {
            return Ok(());
        }
        self.write(Durability::PowerLoss, |transaction| {
            let now = Moment::now();
            let run = self.current_run();
            let mut settle = transaction.prepare(include_str!("sql/settle-job.sql"))?;
            for (job, outcome) in jobs {
                let params =
                    with_job(job, &[&outcome.state, &outcome.message, &outcome.hint, &now as &dyn ToSql, &run]);
                let changed: Option<i64> = settle.query_row(&*params, |row| row.get(0)).optional()?;
                if let Some(id) = changed {
                    steps::drop_all(transaction, id)?;
                }
            }
            Ok(())
        })
    }

    /// Takes out of a job's message the `note` that its preview is missing, and lets the `steps` for it count as done:
    /// the picture has come since.
    ///
    /// # Errors
    ///
    /// As [`Journal::begin_job`].
    pub fn preview_came(&self, job_file: &str, note: &str, steps: &[&str]) -> Result<()> {
        self.write(Durability::Kill, |transaction| {
            let message: Option<Option<String>> = transaction
                .query_row("select message from job where job_file = ?1", [job_file], |row| row.get(0))
                .optional()?;
            let Some(message) = message else { return Ok(()) };
            let rest = message.map(|message| {
                let joined = message.replacen(note, "", 1).replace("; ; ", "; ");
                joined.trim_start_matches("; ").trim_end_matches("; ").to_owned()
            });
            let rest = rest.filter(|rest| !rest.is_empty());
            transaction.execute("update job set message = ?2 where job_file = ?1", params![job_file, rest])?;
            let mut done = transaction.prepare(
                "update step set outcome = 'done', message = null \
                 where job = (select id from job where job_file = ?1) and step = ?2 and outcome = 'failed'",
            )?;
            for step in steps {
                done.execute([job_file, *step])?;
            }
            Ok(())
        })
    }

    fn current_run(&self) -> Option<i64> {
        Some(self.run.load(Ordering::Relaxed)).filter(|&run| run != 0)
    }
}

/// The parameters of a statement that writes a job down: the job's own, then `others`.
fn with_job<'a>(job: &'a NewJob, others: &[&'a dyn ToSql]) -> Vec<&'a dyn ToSql> {
    let own: [&dyn ToSql; 7] =
        [&job.job_file, &job.kind, &job.action, &job.content_md5, &job.revision, &job.job_id, &job.job_batch_id];
    own.into_iter().chain(others.iter().copied()).collect()
}

/// Whether the file is known, and with this very content and action.
fn known_and_same(connection: &Connection, job: &NewJob) -> rusqlite::Result<(bool, bool)> {
    connection
        .prepare("select content_md5 = ?2 and action = ?3 from job where job_file = ?1")?
        .query_row(params![job.job_file, job.content_md5, job.action], |row| Ok((true, row.get(0)?)))
        .optional()
        .map(|found| found.unwrap_or((false, false)))
}

fn check_end(job_file: &str, state: State) -> Result<()> {
    if matches!(state, State::Running | State::Forgotten) {
        return Err(Error::new(ErrorKind::Bug, format!("a job cannot end {state}")).subject(job_file));
    }
    Ok(())
}
