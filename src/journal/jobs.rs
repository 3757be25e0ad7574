//! What is known of jobs: the records, all of them or selected ones.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Row, Transaction};

use super::steps::{self, StepRecord};
use super::{Journal, Moment, words};
use crate::error::{Error, ErrorKind, Result};

words! {
    /// Where a job stands.
    State {
        /// Its steps are being taken.
        Running = "running",
        /// Applied wholly.
        Succeeded = "succeeded",
        /// Some step failed for some target; the message says why.
        Failed = "failed",
        /// This slave's filters do not take it.
        Filtered = "filtered",
        /// Left out by the settings, such as `SKIP_GS`; the first run without them does it.
        Waiting = "waiting",
        /// The run ended in the middle of it: stopped or killed.
        Interrupted = "interrupted",
        /// An operator wants it to run again.
        Forgotten = "forgotten",
    }
}

impl State {
    /// Whether the job was tried and is not applied: it has to be tried again.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Interrupted)
    }

    /// The state as people read it.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Running => "unfinished",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Filtered => "filtered out",
            Self::Waiting => "for later",
            Self::Interrupted => "interrupted",
            Self::Forgotten => "forgotten",
        }
    }
}

/// What is told of a job before it is tried.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Path in the state repository; the key.
    pub job_file: String,
    /// Type of job, such as `feature`.
    pub kind: &'static str,
    /// `publish`, `remove`, `meta` or `empty_gwc`.
    pub action: &'static str,
    /// MD5 of the job file's content, in hexadecimal digits.
    pub content_md5: String,
    /// The revision that the content was read at.
    pub revision: String,
    /// The master's number of the job, when the document has one.
    pub job_id: Option<i64>,
    /// The master's batch that the job belongs to, when the document has one.
    pub job_batch_id: Option<String>,
}

#[cfg(test)]
impl NewJob {
    /// A job of which only the file matters.
    pub(crate) fn of_file(job_file: &str) -> Self {
        Self {
            job_file: job_file.to_owned(),
            kind: "feature",
            action: "publish",
            content_md5: "0".to_owned(),
            revision: "1".to_owned(),
            job_id: None,
            job_batch_id: None,
        }
    }
}

/// What is known when a job begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// How often this content has been tried, this time included.
    pub attempts: u32,
    /// Steps that earlier attempts at the same content and action took with success. They need not
    /// be taken again; a job to be done wholly anew is forgotten first.
    pub previous: Vec<StepRecord>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutcome {
    /// Anything but [`State::Running`] and [`State::Forgotten`].
    pub state: State,
    /// What an operator should know; the reason of a failure.
    pub message: Option<String>,
    /// What an operator should do.
    pub hint: Option<String>,
    /// When it is tried again by itself.
    pub next_try: Option<Timestamp>,
    /// It failed because another job had: it is tried again whenever anything else is.
    pub waits_for_others: bool,
}

impl JobOutcome {
    /// An end in `state` that needs no words.
    #[must_use]
    pub fn plain(state: State) -> Self {
        Self { state, message: None, hint: None, next_try: None, waits_for_others: false }
    }

    /// An end in `state` for the reason that `error` gives.
    #[must_use]
    pub fn because(state: State, error: &Error) -> Self {
        Self {
            message: Some(error.one_line()),
            hint: error.hint_text().map(str::to_owned),
            waits_for_others: error.kind() == ErrorKind::Dependency,
            ..Self::plain(state)
        }
    }
}

/// All that is known of a job file.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Path in the state repository.
    pub job_file: String,
    /// Type of job, such as `feature`.
    pub kind: String,
    /// `publish`, `remove`, `meta` or `empty_gwc`.
    pub action: String,
    /// MD5 of the job file's content; empty when forgotten.
    pub content_md5: String,
    /// The revision that the content was read at.
    pub revision: String,
    /// The master's number of the job.
    pub job_id: Option<i64>,
    /// The master's batch.
    pub job_batch_id: Option<String>,
    /// Where it stands.
    pub state: State,
    /// What an operator should know.
    pub message: Option<String>,
    /// What an operator should do.
    pub hint: Option<String>,
    /// How often this content has been tried.
    pub attempts: u32,
    /// When the file was first met.
    pub first_seen: Timestamp,
    /// When the latest attempt began.
    pub started: Option<Timestamp>,
    /// When the latest attempt ended.
    pub finished: Option<Timestamp>,
    /// When it is tried again by itself.
    pub next_try: Option<Timestamp>,
    /// The run that touched it last.
    pub run: Option<i64>,
    /// Steps in the order in which they were first taken.
    pub steps: Vec<StepRecord>,
    /// What the last success left in place, until a removal succeeds.
    pub deployed: Option<Deployed>,
}

impl JobRecord {
    /// The message, without the job's own name at its beginning.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let message = self.message.as_deref()?;
        Some(message.strip_prefix(self.job_file.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message))
    }
}

/// What the last successful attempt left in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// MD5 of the job file's content.
    pub content_md5: String,
    /// The revision of that content.
    pub revision: String,
    /// The master's number of that job.
    pub job_id: Option<i64>,
    /// The master's batch of that job.
    pub job_batch_id: Option<String>,
    /// When it was finished.
    pub at: Timestamp,
}

/// As much of a job as planning needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// MD5 of the job file's content; empty when forgotten, so that it equals no content.
    pub content_md5: String,
    /// `publish`, `remove`, `meta` or `empty_gwc`.
    pub action: String,
    /// Where it stands.
    pub state: State,
    /// How often this content has been tried.
    pub attempts: u32,
    /// When it is tried again by itself.
    pub next_try: Option<Timestamp>,
    /// It failed because another job had.
    pub waits_for_others: bool,
}

impl Known {
    /// What the file publishes is there, as far as it was last heard of.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.action == "publish" && self.state == State::Succeeded
    }
}

/// Which jobs to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection<'a> {
    /// By outcome.
    pub which: Which,
    /// These files; all when empty. A file that is not known is left out.
    pub files: &'a [String],
}

/// Which outcomes to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// Failed and interrupted.
    Failed,
    /// Succeeded.
    Succeeded,
}

impl Journal {
    /// What is known of one job file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the journal cannot be read.
    pub fn job(&self, job_file: &str) -> Result<Option<JobRecord>> {
        let files = [job_file.to_owned()];
        Ok(self.jobs(Selection { which: Which::All, files: &files })?.pop())
    }

    /// What is known of the selected jobs, in the order of their files.
    ///
    /// A job that is recorded as running although no run is going on is shown as interrupted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the journal cannot be read.
    pub fn jobs(&self, selection: Selection<'_>) -> Result<Vec<JobRecord>> {
        let files = (!selection.files.is_empty()).then(|| json_list(selection.files));
        let mut jobs = self.read(|transaction| {
            let mut statement = transaction.prepare(include_str!("sql/select-jobs.sql"))?;
            let jobs: Vec<(i64, JobRecord)> =
                statement.query_map([files], |row| Ok((row.get(0)?, job_record(row)?)))?.collect::<Result<_, _>>()?;
            let mut steps = steps::by_job(transaction, jobs.iter().map(|(id, _)| *id))?;
            let with_steps = jobs.into_iter().map(|(id, mut job)| {
                job.steps = steps.remove(&id).unwrap_or_default();
                job
            });
            Ok(with_steps.collect::<Vec<_>>())
        })?;
        if jobs.iter().any(|job| job.state == State::Running) && !self.is_run_alive() {
            for job in jobs.iter_mut().filter(|job| job.state == State::Running) {
                job.state = State::Interrupted;
            }
        }
        jobs.retain(|job| match selection.which {
            Which::All => true,
            Which::Failed => job.state.is_failure(),
            Which::Succeeded => job.state == State::Succeeded,
        });
        Ok(jobs)
    }

    /// Content, action and state of every job that is known, by file: one query for planning. It takes
    /// half a millisecond per thousand jobs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the journal cannot be read.
    pub fn digest(&self) -> Result<HashMap<String, Known>> {
        self.known("select job_file, content_md5, action, state, attempts, next_try, waits_for_others from job")
    }

    /// No job is known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the journal cannot be read.
    pub fn is_empty(&self) -> Result<bool> {
        self.read(|transaction| transaction.query_row("select not exists (select 1 from job)", [], |row| row.get(0)))
    }

    /// The part of the [digest](Journal::digest) that has to be tried again whatever has changed:
    /// failed, interrupted, forgotten and, before [`Journal::start_run`], running jobs, and those that
    /// wait for a version that applies them. It costs nothing when there are none, however many jobs
    /// are known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the journal cannot be read.
    pub fn unfinished(&self) -> Result<HashMap<String, Known>> {
        self.known(
            "select job_file, content_md5, action, state, attempts, next_try, waits_for_others from job \
             where state in ('running', 'failed', 'interrupted', 'forgotten', 'waiting')",
        )
    }

    fn known(&self, query: &str) -> Result<HashMap<String, Known>> {
        self.read(|transaction| {
            let mut known = HashMap::new();
            let mut statement = transaction.prepare(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?.to_owned());
                let entry = Known {
                    content_md5: text(1)?,
                    action: text(2)?,
                    state: row.get(3)?,
                    attempts: row.get(4)?,
                    next_try: row.get::<_, Option<Moment>>(5)?.map(|moment| moment.0),
                    waits_for_others: row.get(6)?,
                };
                known.insert(text(0)?, entry);
            }
            Ok(known)
        })
    }

    /// When the first of the failed jobs is to be tried again, of those whose time has not come at `now`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the journal cannot be read.
    pub fn next_try(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        self.read(|transaction| {
            transaction
                .prepare("select min(next_try) from job where state = 'failed' and next_try > ?1")?
                .query_row([Moment(now)], |row| row.get::<_, Option<Moment>>(0))
                .map(|moment| moment.map(|moment| moment.0))
        })
    }
}

/// Marks what a dead run left in the middle.
pub(super) fn interrupt_running(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    transaction.execute("update job set state = 'interrupted' where state = 'running'", [])
}

pub(super) fn json_list(files: &[String]) -> String {
    serde_json::Value::from(files).to_string()
}

pub(super) fn job_record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let time = |column: &str| row.get::<_, Option<Moment>>(column).map(|moment| moment.map(|moment| moment.0));
    let deployed = match (row.get("deployed_content_md5")?, time("deployed_at")?) {
        (Some(content_md5), Some(at)) => Some(Deployed {
            content_md5,
            revision: row.get("deployed_revision")?,
            job_id: row.get("deployed_job_id")?,
            job_batch_id: row.get("deployed_job_batch_id")?,
            at,
        }),
        _ => None,
    };
    Ok(JobRecord {
        job_file: row.get("job_file")?,
        kind: row.get("kind")?,
        action: row.get("action")?,
        content_md5: row.get("content_md5")?,
        revision: row.get("revision")?,
        job_id: row.get("job_id")?,
        job_batch_id: row.get("job_batch_id")?,
        state: row.get("state")?,
        message: row.get("message")?,
        hint: row.get("hint")?,
        attempts: row.get("attempts")?,
        first_seen: row.get::<_, Moment>("first_seen")?.0,
        started: time("started")?,
        finished: time("finished")?,
        next_try: time("next_try")?,
        run: row.get("run")?,
        steps: Vec::new(),
        deployed,
    })
}
