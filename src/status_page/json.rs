//! The documents that programs read: of `/api/…` and of `status --json`.
//!
//! Times are in UTC (RFC 3339), durations in milliseconds. `openapi.json` describes them; a test compares.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::monitor::{Life, PassEnd, PullEnd, Round};
use super::site::{About, Overview};
use super::verdict::Verdict;
use crate::journal::{Backlog, JobRecord, Report, RunRecord, State, StepRecord};

/// A job and its steps.
#[derive(Debug, Serialize)]
pub struct Job<'a> {
    job_file: &'a str,
    kind: &'a str,
    action: &'a str,
    state: &'a str,
    message: Option<&'a str>,
    hint: Option<&'a str>,
    revision: &'a str,
    content_md5: &'a str,
    job_id: Option<i64>,
    job_batch_id: Option<&'a str>,
    attempts: u32,
    first_seen: Timestamp,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    next_try: Option<Timestamp>,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Serialize)]
struct Step<'a> {
    step: &'a str,
    target: Option<&'a str>,
    outcome: &'a str,
    message: Option<&'a str>,
    started: Timestamp,
    duration_ms: u64,
}

impl<'a> From<&'a JobRecord> for Job<'a> {
    fn from(record: &'a JobRecord) -> Self {
        Self {
            job_file: &record.job_file,
            kind: &record.kind,
            action: &record.action,
            state: record.state.as_str(),
            message: record.message.as_deref(),
            hint: record.hint.as_deref(),
            revision: &record.revision,
            content_md5: &record.content_md5,
            job_id: record.job_id,
            job_batch_id: record.job_batch_id.as_deref(),
            attempts: record.attempts,
            first_seen: record.first_seen,
            started: record.started,
            finished: record.finished,
            next_try: record.next_try,
            steps: record.steps.iter().map(Step::from).collect(),
        }
    }
}

impl<'a> From<&'a StepRecord> for Step<'a> {
    fn from(step: &'a StepRecord) -> Self {
        Self {
            step: &step.step,
            target: step.target.as_deref(),
            outcome: step.outcome.as_str(),
            message: step.message.as_deref(),
            started: step.started,
            duration_ms: step.duration_ms,
        }
    }
}

/// A page of jobs.
#[derive(Debug, Serialize)]
pub(super) struct Jobs<'a> {
    pub(super) found: u64,
    pub(super) page: u64,
    pub(super) pages: u64,
    pub(super) jobs: Vec<Job<'a>>,
}

/// The slave as a whole.
#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    slave: &'a str,
    version: &'a str,
    now: Timestamp,
    health: &'a str,
    sentences: Vec<&'a str>,
    clone: String,
    channels: &'a [String],
    geoservers: &'a [String],
    master: Option<&'a str>,
    daemon: Daemon<'a>,
    applied_revision: Option<&'a str>,
    jobs: BTreeMap<&'static str, u64>,
    reports: Option<Reports<'a>>,
    last_run: Option<Run<'a>>,
}

#[derive(Debug, Serialize)]
struct Daemon<'a> {
    begun: Timestamp,
    rounds: u64,
    under_way_since: Option<Timestamp>,
    last_round: Option<RoundOf<'a>>,
    last_pull: Option<Timestamp>,
    unreachable_since: Option<Timestamp>,
    level: Option<Timestamp>,
    lag_ms: u64,
    next_round: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct RoundOf<'a> {
    why: &'a str,
    begun: Timestamp,
    ended: Timestamp,
    pull: Option<&'static str>,
    pull_message: Option<&'a str>,
    pass: &'static str,
    pass_message: Option<&'a str>,
}

impl<'a> Status<'a> {
    pub(super) fn of(about: &'a About, overview: &'a Overview, verdict: &'a Verdict, now: Timestamp) -> Self {
        Self {
            slave: &about.slave_name,
            version: env!("CARGO_PKG_VERSION"),
            now,
            health: verdict.level.as_str(),
            sentences: verdict.sentences.iter().map(String::as_str).collect(),
            clone: about.clone.display().to_string(),
            channels: &about.channels,
            geoservers: &about.geoservers,
            master: about.master.as_deref(),
            daemon: Daemon::of(&overview.life, now),
            applied_revision: overview.cursor.as_deref(),
            jobs: State::ALL.iter().map(|state| (state.as_str(), overview.count(*state))).collect(),
            reports: overview.backlog.as_ref().map(Reports::from),
            last_run: overview.runs.first().map(Run::from),
        }
    }
}

impl<'a> Daemon<'a> {
    fn of(life: &'a Life, now: Timestamp) -> Self {
        Self {
            begun: life.begun,
            rounds: life.rounds,
            under_way_since: life.under_way.map(|(_, since)| since),
            last_round: life.last_round.as_ref().map(RoundOf::from),
            last_pull: life.last_pull,
            unreachable_since: life.unreachable_since,
            level: life.level,
            lag_ms: u64::try_from(life.lag(now).as_millis()).unwrap_or(u64::MAX),
            next_round: life.next_round,
        }
    }
}

impl<'a> From<&'a Round> for RoundOf<'a> {
    fn from(round: &'a Round) -> Self {
        let (pull, pull_message) = match &round.pull {
            None => (None, None),
            Some(PullEnd::Ok) => (Some("ok"), None),
            Some(PullEnd::Unreachable(reason)) => (Some("unreachable"), Some(reason.as_str())),
            Some(PullEnd::Failed(reason)) => (Some("failed"), Some(reason.as_str())),
        };
        let (pass, pass_message) = match &round.pass {
            PassEnd::Applied => ("applied", None),
            PassEnd::Incomplete => ("incomplete", None),
            PassEnd::Failed(reason) => ("failed", Some(reason.as_str())),
            PassEnd::Stopped => ("stopped", None),
        };
        Self { why: round.why, begun: round.begun, ended: round.ended, pull, pull_message, pass, pass_message }
    }
}

#[derive(Debug, Serialize)]
struct Reports<'a> {
    waiting: u64,
    refused: u64,
    since: Timestamp,
    failing_since: Option<Timestamp>,
    failing_message: Option<&'a str>,
}

impl<'a> From<&'a Backlog> for Reports<'a> {
    fn from(backlog: &'a Backlog) -> Self {
        let failing = backlog.failing.as_ref();
        Self {
            waiting: backlog.count,
            refused: backlog.refused,
            since: backlog.since,
            failing_since: failing.map(|(since, _)| *since),
            failing_message: failing.map(|(_, reason)| reason.as_str()),
        }
    }
}

/// A run of the history.
#[derive(Debug, Serialize)]
pub(super) struct Run<'a> {
    id: i64,
    trigger: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
    started: Timestamp,
    finished: Option<Timestamp>,
    outcome: &'a str,
    succeeded: u32,
    failed: u32,
    unchanged: u32,
    message: Option<&'a str>,
}

impl<'a> From<&'a RunRecord> for Run<'a> {
    fn from(run: &'a RunRecord) -> Self {
        Self {
            id: run.id,
            trigger: &run.trigger,
            from: run.from.as_deref(),
            to: run.to.as_deref(),
            started: run.started,
            finished: run.finished,
            outcome: run.summary.outcome.as_str(),
            succeeded: run.summary.succeeded,
            failed: run.summary.failed,
            unchanged: run.summary.unchanged,
            message: run.summary.message.as_deref(),
        }
    }
}

/// The history.
#[derive(Debug, Serialize)]
pub(super) struct Runs<'a> {
    pub(super) runs: Vec<Run<'a>>,
}

/// A page of reports.
#[derive(Debug, Serialize)]
pub(super) struct ReportPage<'a> {
    pub(super) next_after: Option<i64>,
    pub(super) reports: Vec<Waiting<'a>>,
}

/// A report that waits for the master.
#[derive(Debug, Serialize)]
pub(super) struct Waiting<'a> {
    id: i64,
    subject: &'a str,
    since: Timestamp,
    refused: Option<&'a str>,
}

impl<'a> From<&'a Report> for Waiting<'a> {
    fn from(report: &'a Report) -> Self {
        let Report { id, subject, since, refused, .. } = report;
        Self { id: *id, subject, since: *since, refused: refused.as_deref() }
    }
}

/// A page of previews.
#[derive(Debug, Serialize)]
pub(super) struct Previews {
    pub(super) found: u64,
    pub(super) page: u64,
    pub(super) pages: u64,
    pub(super) previews: Vec<Preview>,
}

/// The picture of a layer.
#[derive(Debug, Serialize)]
pub(super) struct Preview {
    pub(super) job_file: String,
    pub(super) picture: String,
    pub(super) drawn: Timestamp,
}
