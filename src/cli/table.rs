//! Tables and lists as text: the plan, the summary, the status.

use std::fmt::Write as _;

use crate::journal::{JobRecord, State, StepOutcome};
use crate::plan::{Plan, Work};
use crate::sync::{Prepared, Summary};

/// The first digits of a hash, as people read it.
const SHORT: usize = 12;

pub(super) fn short(revision: &str) -> &str {
    revision.get(..SHORT).unwrap_or(revision)
}

/// What a pass would do.
pub(super) fn plan(prepared: &Prepared) -> String {
    let Prepared { from, to, plan, .. } = prepared;
    let from = if from.is_null() { "the beginning".to_owned() } else { short(from.as_str()).to_owned() };
    let mut text = format!("From {from} to {}: {}\n", short(to.as_str()), counts(plan));
    for job in &plan.jobs {
        let note = match &job.work {
            Work::Run(document) if document.metadata().is_some() => {
                "  (filter and names are decided by its metadata)".to_owned()
            }
            Work::Run(_) => String::new(),
            Work::Superseded(why) => format!("  ({why})"),
            Work::Invalid(error) => format!("  would fail: {}", error.one_line()),
        };
        let _ = writeln!(text, "  {:<10} {:<11} {}{note}", job.action_name(), job.file.kind.as_str(), job.file.path);
    }
    text
}

fn counts(plan: &Plan) -> String {
    let plural = |count: usize| if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") };
    match (plan.jobs.len(), plan.done.len()) {
        (0, 0) => "nothing to do".into(),
        (0, done) => format!("nothing to do, {} done already", plural(done)),
        (jobs, 0) => format!("{} to do", plural(jobs)),
        (jobs, done) => format!("{} to do, {done} done already", plural(jobs)),
    }
}

/// The table at the end of a pass, the failed jobs last.
pub(super) fn summary(summary: &Summary) -> String {
    let mut text = String::new();
    let mut row = |name: &str, count: usize| {
        if count > 0 {
            let _ = writeln!(text, "  {name:<16} {count:>6}");
        }
    };
    row("succeeded", summary.succeeded);
    row("done before", summary.done_before);
    row("filtered out", summary.filtered);
    row("left for later", summary.waiting);
    row("failed", summary.failed.len());
    if text.is_empty() {
        return "Nothing to do.\n".into();
    }
    let mut text = format!("Finished in {:.1} s\n{text}", summary.took.as_secs_f64());
    if !summary.failed.is_empty() {
        text.push_str("Failed:\n");
        for (job_file, error) in &summary.failed {
            let _ = writeln!(text, "  {job_file}\n    {}", error.one_line());
            if let Some(hint) = error.hint_text() {
                let _ = writeln!(text, "    Hint: {hint}");
            }
        }
    }
    text
}

/// One line a job.
pub(super) fn jobs(records: &[JobRecord]) -> String {
    let mut text = String::new();
    for record in records {
        let when = record.finished.or(record.started).map_or_else(String::new, local_time);
        let _ = writeln!(text, "{:<12} {:<10} {:<19} {}", state(record.state), record.action, when, record.job_file);
        if let Some(message) = &record.message {
            let _ = writeln!(text, "{:13}{message}", "");
        }
        if record.state == State::Failed
            && let Some(hint) = &record.hint
        {
            let _ = writeln!(text, "{:13}Hint: {hint}", "");
        }
    }
    let count = |wanted: State| records.iter().filter(|record| record.state == wanted).count();
    let _ = writeln!(
        text,
        "{} jobs: {} succeeded, {} failed, {} filtered out, {} left for later, {} unfinished",
        records.len(),
        count(State::Succeeded),
        count(State::Failed),
        count(State::Filtered),
        count(State::Waiting),
        count(State::Running) + count(State::Interrupted) + count(State::Forgotten),
    );
    text
}

/// Everything that is known of one job.
pub(super) fn job(record: &JobRecord) -> String {
    let mut text = format!("{}\n", record.job_file);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("state", state(record.state));
    line("job", &format!("{} {}", record.action, record.kind));
    line("revision", short(&record.revision));
    line("attempts", &record.attempts.to_string());
    if let Some(at) = record.started {
        line("started", &local_time(at));
    }
    if let Some(at) = record.finished {
        line("finished", &local_time(at));
    }
    if let Some(message) = &record.message {
        line("message", message);
    }
    if let Some(hint) = &record.hint {
        line("hint", hint);
    }
    for step in &record.steps {
        let target = step.target.as_deref().map(|target| format!(" on {target}")).unwrap_or_default();
        let message = step.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "    {:<10} {:>7} ms  {}{target}{message}",
            outcome(step.outcome),
            step.duration_ms,
            step.step
        );
    }
    text
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Running => "unfinished",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Filtered => "filtered out",
        State::Waiting => "for later",
        State::Interrupted => "interrupted",
        State::Forgotten => "forgotten",
    }
}

fn outcome(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Done => "done",
        StepOutcome::Unchanged => "unchanged",
        StepOutcome::Failed => "failed",
        StepOutcome::Skipped => "skipped",
        StepOutcome::Running => "unfinished",
    }
}

fn local_time(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
