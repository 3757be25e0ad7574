//! Tables and lists as text: the plan, the summary, the status.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::error::Error;
use crate::journal::{JobRecord, State};
use crate::plan::{Plan, Work};
use crate::sync::{Prepared, Summary};

/// The first digits of a hash, as people read it.
const SHORT: usize = 12;

/// How many jobs are named that failed for the same reason as another.
const NAMED: usize = 5;

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
            Work::Run(_) if !job.unless.is_empty() => {
                let paths: Vec<&str> = job.unless.iter().map(|(_, path)| path.as_str()).collect();
                format!("  (only where the filters refuse {})", paths.join(" and "))
            }
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
    match (plan.jobs.len(), plan.done.len()) {
        (0, 0) => "nothing to do".into(),
        (0, done) => format!("nothing to do, {} done already", plural(done)),
        (jobs, 0) => format!("{} to do", plural(jobs)),
        (jobs, done) => format!("{} to do, {done} done already", plural(jobs)),
    }
}

fn plural(count: usize) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
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
    row("still due", summary.due.len());
    if text.is_empty() {
        return "Nothing to do.\n".into();
    }
    let mut text = format!("Finished in {:.1} s\n{text}", summary.took.as_secs_f64());
    if !summary.failed.is_empty() {
        text.push_str("Failed:\n");
        for same in by_reason(&summary.failed) {
            let _ = writeln!(text, "  {}\n    {}", same.jobs[0], reason(same.jobs[0], same.error));
            if let Some(hint) = same.error.hint_text() {
                let _ = writeln!(text, "    Hint: {hint}");
            }
            if let Some(others) = same.others() {
                let _ = writeln!(text, "    {others}");
            }
        }
    }
    for (what, error) in &summary.due {
        let _ = writeln!(text, "Still due:\n  {what}\n    {}", error.one_line());
        if let Some(hint) = error.hint_text() {
            let _ = writeln!(text, "    Hint: {hint}");
        }
    }
    text
}

/// Jobs that failed for the same reason.
pub(super) struct SameReason<'a> {
    pub(super) error: &'a Error,
    /// Never empty.
    pub(super) jobs: Vec<&'a str>,
}

impl SameReason<'_> {
    /// Which jobs it is the same for, besides the first; `None` when there are none.
    pub(super) fn others(&self) -> Option<String> {
        match &self.jobs[1..] {
            [] => None,
            [other] => Some(format!("The same for {other}")),
            others if others.len() <= NAMED => {
                Some(format!("The same for {} other jobs: {}", others.len(), others.join(", ")))
            }
            others => {
                Some(format!("The same for {} other jobs; `borg-slave status --failed` names them", others.len()))
            }
        }
    }
}

/// Why a job failed, on one line that does not begin with the job's own name.
pub(super) fn reason(job_file: &str, error: &Error) -> String {
    let line = error.one_line();
    let own = line.strip_prefix(job_file).and_then(|rest| rest.strip_prefix(": "));
    own.map(str::to_owned).unwrap_or(line)
}

/// The failed jobs, those that failed for the same reason together.
pub(super) fn by_reason(failed: &[(String, Error)]) -> Vec<SameReason<'_>> {
    let mut reasons: Vec<SameReason<'_>> = Vec::new();
    let mut places = HashMap::new();
    for (job_file, error) in failed {
        let place = *places.entry((reason(job_file, error), error.hint_text())).or_insert(reasons.len());
        match reasons.get_mut(place) {
            Some(reason) => reason.jobs.push(job_file),
            None => reasons.push(SameReason { error, jobs: vec![job_file] }),
        }
    }
    reasons
}

/// One line a job.
pub(super) fn jobs(records: &[JobRecord]) -> String {
    let mut text = String::new();
    let mut before = None;
    for record in records {
        let when = record.finished.or(record.started).map_or_else(String::new, local_time);
        let _ =
            writeln!(text, "{:<12} {:<10} {:<19} {}", record.state.in_words(), record.action, when, record.job_file);
        let said = (record.state, record.message.as_deref(), record.hint.as_deref());
        if before.replace(said) == Some(said) && record.message.is_some() {
            let _ = writeln!(text, "{:13}the same", "");
            continue;
        }
        if let Some(reason) = record.reason() {
            let _ = writeln!(text, "{:13}{reason}", "");
        }
        if record.state == State::Failed
            && let Some(hint) = &record.hint
        {
            let _ = writeln!(text, "{:13}Hint: {hint}", "");
        }
        if let Some(at) = record.next_try {
            let _ = writeln!(text, "{:13}The daemon tries it again at {}", "", local_time(at));
        }
    }
    let count = |wanted: State| records.iter().filter(|record| record.state == wanted).count();
    let _ = writeln!(
        text,
        "{}: {} succeeded, {} failed, {} filtered out, {} left for later, {} unfinished",
        plural(records.len()),
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
    line("state", record.state.in_words());
    line("job", &format!("{} {}", record.action, record.kind));
    line("revision", short(&record.revision));
    line("attempts", &record.attempts.to_string());
    if let Some(at) = record.started {
        line("started", &local_time(at));
    }
    if let Some(at) = record.finished {
        line("finished", &local_time(at));
    }
    if let Some(at) = record.next_try {
        line("next try", &local_time(at));
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
            step.outcome.in_words(),
            step.duration_ms,
            step.step
        );
    }
    text
}

fn local_time(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_keeps_many_jobs_from_being_applied_is_told_once() {
        let down = || {
            Error::new(ErrorKind::Unreachable, "cannot connect")
                .subject("database gis at db:5432")
                .source("Connection refused")
                .hint("check that PostgreSQL runs")
        };
        let mut failed: Vec<_> = (0..100).map(|number| (format!("layers/ws.l{number}.json"), down())).collect();
        failed.push(("layers/ws.bad.json".into(), Error::new(ErrorKind::Document, "`meta` is missing")));
        for name in ["a", "b", "c"] {
            failed.push((format!("layers/ws.{name}.json"), Error::new(ErrorKind::Io, "the disk is full")));
        }
        let summary = Summary { succeeded: 2, failed, took: Duration::from_millis(1234), ..Summary::default() };
        insta::assert_snapshot!(super::summary(&summary), @r"
        Finished in 1.2 s
          succeeded             2
          failed              104
        Failed:
          layers/ws.l0.json
            database gis at db:5432: cannot connect: Connection refused
            Hint: check that PostgreSQL runs
            The same for 99 other jobs; `borg-slave status --failed` names them
          layers/ws.bad.json
            `meta` is missing
          layers/ws.a.json
            the disk is full
            The same for 2 other jobs: layers/ws.b.json, layers/ws.c.json
        ");
    }
}
