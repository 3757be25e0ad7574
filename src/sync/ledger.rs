//! Events become records of the journal.

use jiff::Timestamp;

use super::reports::Subject;
use crate::error::{ErrorKind, Result};
use crate::execute::{self, Event, JobEnd, Note, StepEnd};
use crate::job::Action;
use crate::journal::{JobOutcome, Journal, NewJob, State, StepOutcome, StepRecord};
use crate::plan::{self, Patience};

/// What the journal needs to know of a planned job.
pub(super) struct Entry {
    pub(super) job: NewJob,
    /// What the master is told about; nothing when it is told nothing.
    pub(super) subject: Option<Subject>,
    /// How often it will have been tried.
    attempts: u32,
}

impl Entry {
    /// `reports`: the master is told how the job ends.
    pub(super) fn of(job: &plan::PlannedJob, reports: bool) -> Self {
        let document = match &job.work {
            plan::Work::Run(document) => Some(document),
            plan::Work::Superseded(_) | plan::Work::Invalid(_) => None,
        };
        Self {
            job: NewJob {
                job_file: job.file.path.clone(),
                kind: job.file.kind.as_str(),
                action: job.action_name(),
                content_md5: job.content_md5.clone(),
                revision: job.revision.clone(),
                job_id: document.and_then(|document| document.job_id()),
                job_batch_id: document.and_then(|document| document.job_batch_id()),
            },
            subject: reports.then(|| Subject::of(&job.file, job.action.map(Action::as_str))),
            attempts: job.attempts.saturating_add(1),
        }
    }
}

/// The index of the job that an event is about, if it is about one.
pub(super) fn job_of(event: &Event) -> Option<usize> {
    match event {
        Event::JobStarted { job }
        | Event::JobKnown { job, .. }
        | Event::PreviewSent { job, .. }
        | Event::StepStarted { job, .. }
        | Event::StepProgress { job, .. }
        | Event::Loaded { job, .. }
        | Event::StepEnded { job, .. }
        | Event::JobEnded { job, .. } => Some(*job),
        Event::Fact { .. } | Event::PreviewCame { .. } | Event::TargetFailed { .. } | Event::StaysDue { .. } => None,
    }
}

/// Writes down what happened: beginnings first and ends last, each of the two in one transaction,
/// and what lies between in its order.
pub(super) fn write_down(
    journal: &Journal,
    ledger: &[Entry],
    notes: &[Note],
    patience: Option<&Patience>,
) -> Result<()> {
    let events = || notes.iter().map(|note| &note.event);
    let begun = events().filter_map(|event| match event {
        Event::JobStarted { job } => ledger.get(*job).map(|entry| &entry.job),
        _ => None,
    });
    journal.begin_jobs(&begun.collect::<Vec<_>>())?;
    for event in events() {
        write_step(journal, job_of(event).and_then(|job| ledger.get(job)), event)?;
    }
    let mut ended = Vec::new();
    let mut reports = Vec::new();
    for event in events() {
        let Event::JobEnded { job, end } = event else { continue };
        let Some(entry) = ledger.get(*job) else { continue };
        let mut outcome = outcome(end);
        if outcome.state == State::Failed {
            outcome.next_try = patience.map(|patience| patience.next_try(Timestamp::now(), entry.attempts));
        }
        // Of one that was superseded there is nothing to tell.
        if let Some(subject) = entry.subject.as_ref().filter(|_| !matches!(end, JobEnd::Superseded(_))) {
            reports.extend(subject.ended(journal, &entry.job.job_file, &outcome)?);
        }
        ended.push((entry.job.job_file.as_str(), outcome));
    }
    let ended: Vec<_> = ended.iter().map(|(job_file, outcome)| (*job_file, outcome)).collect();
    journal.finish_and_report(&ended, &reports)
}

/// Takes down what an event tells about its job for the master.
pub(super) fn learn(ledger: &mut [Entry], event: &Event) {
    let Some(subject) = job_of(event).and_then(|job| ledger.get_mut(job)).and_then(|entry| entry.subject.as_mut())
    else {
        return;
    };
    match event {
        Event::JobKnown { about, .. } => subject.is_known(about),
        Event::PreviewSent { path, .. } => subject.has_preview(path),
        _ => {}
    }
}

fn write_step(journal: &Journal, job: Option<&Entry>, event: &Event) -> Result<()> {
    match (event, job) {
        (Event::StepEnded { step, target, end, message, started, took, .. }, Some(job)) => {
            let record = StepRecord {
                step: step.as_str().to_owned(),
                target: target.clone(),
                outcome: match end {
                    StepEnd::Done => StepOutcome::Done,
                    StepEnd::Unchanged => StepOutcome::Unchanged,
                    StepEnd::Failed => StepOutcome::Failed,
                    StepEnd::Skipped => StepOutcome::Skipped,
                },
                message: message.clone(),
                started: *started,
                duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            };
            journal.record_step(&job.job.job_file, &record)
        }
        (Event::Fact { target, key, value: Some(value) }, _) => journal.set_marker(target, key, value),
        (Event::PreviewCame { of, .. }, _) => journal.preview_came(
            &of.job_file,
            &of.note,
            &[execute::Step::Preview.as_str(), execute::Step::SendPreview.as_str()],
        ),
        (Event::Fact { target, key, value: None }, _) => journal.clear_marker(target, key),
        _ => Ok(()),
    }
}

pub(super) fn outcome(end: &JobEnd) -> JobOutcome {
    let plain = |state, message: Option<&String>| JobOutcome { message: message.cloned(), ..JobOutcome::plain(state) };
    match end {
        JobEnd::Succeeded(message) => plain(State::Succeeded, message.as_ref()),
        JobEnd::Superseded(why) => plain(State::Succeeded, Some(why)),
        JobEnd::Filtered(reason) => plain(State::Filtered, Some(reason)),
        JobEnd::Waiting(reason) => plain(State::Waiting, Some(reason)),
        JobEnd::Failed(error) if error.kind() == ErrorKind::Stopped => JobOutcome::because(State::Interrupted, error),
        JobEnd::Failed(error) => JobOutcome::because(State::Failed, error),
    }
}
