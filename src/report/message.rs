//! Reports as their readers see them: plain text, several lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::local_time;
use crate::journal::{JobOutcome, JobRecord, StepOutcome};

/// How many files of a run are named.
const FILES: usize = 500;

/// Job file, when, each step with its outcome, and the targets with theirs.
pub(super) fn of_job(job: &JobRecord, action: &str, outcome: &JobOutcome, at: Timestamp) -> String {
    let mut text = format!("{}: {action} {}\n", job.job_file, outcome.state);
    let _ = writeln!(text, "Ended {} in attempt {}", local_time(at), job.attempts);
    match (job.job_id, &job.job_batch_id) {
        (Some(id), Some(batch)) => _ = writeln!(text, "Job {id} of batch {batch}, revision {}", job.revision),
        (Some(id), None) => _ = writeln!(text, "Job {id}, revision {}", job.revision),
        (None, _) => _ = writeln!(text, "Revision {}", job.revision),
    }
    if let Some(message) = &outcome.message {
        let own = message.strip_prefix(job.job_file.as_str()).and_then(|rest| rest.strip_prefix(": "));
        let _ = writeln!(text, "{}", own.unwrap_or(message));
    }
    if let Some(hint) = &outcome.hint {
        let _ = writeln!(text, "Hint: {hint}");
    }
    if !job.steps.is_empty() {
        text.push_str("Steps:\n");
    }
    let mut targets: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    for step in &job.steps {
        let word = if step.outcome == StepOutcome::Running { "unfinished" } else { step.outcome.as_str() };
        let on = step.target.as_deref().map(|target| format!(" on {target}")).unwrap_or_default();
        let message = step.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        let started = local_time(step.started);
        let _ = writeln!(text, "  {}{on}: {word}, {started}, {} ms{message}", step.step, step.duration_ms);
        if let Some(target) = &step.target {
            let (steps, failed) = targets.entry(target).or_default();
            *steps += 1;
            if !step.outcome.is_success() {
                failed.push(&step.step);
            }
        }
    }
    if !targets.is_empty() {
        text.push_str("Targets:\n");
    }
    for (target, (steps, failed)) in targets {
        let _ = match failed.as_slice() {
            [] => writeln!(text, "  {target}: succeeded, steps: {steps}"),
            failed => writeln!(text, "  {target}: failed ({})", failed.join(", ")),
        };
    }
    text
}

/// `head`, and a line for each file; of very many only the first.
pub(super) fn of_run(head: &str, files: impl ExactSizeIterator<Item = String>) -> String {
    let more = files.len().saturating_sub(FILES);
    let mut text = format!("{head}\n");
    for file in files.take(FILES) {
        let _ = writeln!(text, "  {file}");
    }
    if more > 0 {
        let _ = writeln!(text, "  … and {more} more files");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{State, StepRecord};

    #[test]
    fn a_job_is_told_step_by_step_and_target_by_target() {
        let at = Timestamp::UNIX_EPOCH;
        let step = |step: &str, target: Option<&str>, outcome, message: Option<&str>| StepRecord {
            step: step.into(),
            target: target.map(str::to_owned),
            outcome,
            message: message.map(str::to_owned),
            started: at,
            duration_ms: 12,
        };
        let job = JobRecord {
            job_file: "geoserver/layers/w.roads.json".into(),
            kind: "feature".into(),
            action: "publish".into(),
            content_md5: String::new(),
            revision: "4f1c".into(),
            job_id: Some(41),
            job_batch_id: Some("20161105_0100".into()),
            state: State::Running,
            message: None,
            hint: None,
            attempts: 2,
            first_seen: at,
            started: Some(at),
            finished: None,
            next_try: None,
            run: None,
            steps: vec![
                step("metadata", None, StepOutcome::Done, None),
                step("styles", Some("http://a"), StepOutcome::Unchanged, Some("2 styles")),
                step("styles", Some("http://b"), StepOutcome::Failed, Some("it is down")),
            ],
            deployed: None,
        };
        let message = Some("geoserver/layers/w.roads.json: it is down".into());
        let outcome = JobOutcome { message, hint: Some("start it".into()), ..JobOutcome::plain(State::Failed) };
        let text = of_job(&job, "publish", &outcome, at);
        insta::assert_snapshot!(text.replace(&local_time(at), "<time>"), @r"
        geoserver/layers/w.roads.json: publish failed
        Ended <time> in attempt 2
        Job 41 of batch 20161105_0100, revision 4f1c
        it is down
        Hint: start it
        Steps:
          metadata: done, <time>, 12 ms
          styles on http://a: unchanged, <time>, 12 ms: 2 styles
          styles on http://b: failed, <time>, 12 ms: it is down
        Targets:
          http://a: succeeded, steps: 1
          http://b: failed (styles)
        ");
    }

    #[test]
    fn of_very_many_files_the_first_are_named() {
        let text = of_run("Ended", (0..FILES + 2).map(|number| format!("{number}")));
        assert!(text.ends_with("  499\n  … and 2 more files\n"), "{text}");
    }
}
