//! A pass as the operator sees it: a bar and a line per job on a terminal, log lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Session, say, table};
use crate::execute::{Event, JobEnd, StepEnd};
use crate::sync::{Prepared, Summary, Watcher};
use crate::telemetry::LogWriter;

/// The watcher that fits where standard error goes.
pub(super) fn watcher(session: &Session) -> Box<dyn Watcher> {
    if session.draws { Box::new(Terminal::new(session.log.clone())) } else { Box::new(Log) }
}

/// Draws on a terminal.
struct Terminal {
    log: LogWriter,
    display: MultiProgress,
    bar: ProgressBar,
    began: Instant,
}

impl Terminal {
    fn new(log: LogWriter) -> Self {
        let display = MultiProgress::new();
        let bar = display.add(ProgressBar::hidden());
        Self { log, display, bar, began: Instant::now() }
    }

    fn line(&self, text: &str) {
        // A terminal that is gone does not stop a pass.
        let _ = self.display.println(text);
    }
}

impl Watcher for Terminal {
    fn begins(&mut self, prepared: &Prepared) {
        let jobs = prepared.plan.jobs.len();
        if jobs == 0 {
            return;
        }
        self.log.draw_above(Some(self.display.clone()));
        self.bar = self.display.add(ProgressBar::new(u64::try_from(jobs).unwrap_or(u64::MAX)));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} jobs  {elapsed}  {msg}") {
            self.bar.set_style(style);
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
        self.began = Instant::now();
    }

    fn sees(&mut self, job_file: Option<&str>, event: &Event) {
        let Some(job_file) = job_file else { return };
        match event {
            Event::StepStarted { step, .. } => self.bar.set_message(format!("{step}: {}", stem(job_file))),
            Event::JobEnded { end, .. } => {
                self.line(&finished(job_file, end));
                self.bar.inc(1);
            }
            _ => {}
        }
    }

    fn transfers(&mut self) -> Option<crate::wire::Meter> {
        let bar = self.bar.clone();
        Some(std::sync::Arc::new(move |progress: crate::transfer::Progress| {
            bar.set_message(received(&progress));
        }))
    }

    fn ends(&mut self, summary: &Summary) {
        self.bar.finish_and_clear();
        self.log.draw_above(None);
        say(table::summary(summary).trim_end());
    }
}

/// Writes log lines.
struct Log;

impl Watcher for Log {
    fn begins(&mut self, prepared: &Prepared) {
        let jobs = prepared.plan.jobs.len();
        if jobs > 0 {
            tracing::info!(from = %prepared.from, to = %prepared.to, jobs, done_before = prepared.plan.done.len(), "the pass begins");
        }
    }

    fn sees(&mut self, job_file: Option<&str>, event: &Event) {
        let Some(job_file) = job_file else { return };
        match event {
            Event::StepEnded { step, target, end, message, took, .. } => {
                let (target, message) = (target.as_deref().unwrap_or(""), message.as_deref().unwrap_or(""));
                let took_ms = took.as_millis();
                if *end == StepEnd::Failed {
                    tracing::warn!(job = job_file, %step, target, took_ms, message, "step failed");
                } else {
                    tracing::debug!(job = job_file, %step, target, took_ms, message, "step ended");
                }
            }
            Event::JobEnded { end, .. } => match end {
                JobEnd::Succeeded(message) => {
                    tracing::info!(job = job_file, message = message.as_deref().unwrap_or(""), "succeeded");
                }
                JobEnd::Filtered(reason) => tracing::info!(job = job_file, reason, "filtered out"),
                JobEnd::Waiting(reason) => tracing::warn!(job = job_file, reason, "left for a later version"),
                JobEnd::Failed(error) => {
                    tracing::error!(
                        job = job_file,
                        error = error.one_line(),
                        hint = error.hint_text().unwrap_or(""),
                        "failed"
                    );
                }
            },
            _ => {}
        }
    }

    fn ends(&mut self, summary: &Summary) {
        let failed = summary.failed.len();
        if summary.succeeded + summary.filtered + summary.waiting + failed == 0 {
            tracing::info!("nothing to do");
            return;
        }
        tracing::info!(
            succeeded = summary.succeeded,
            done_before = summary.done_before,
            filtered = summary.filtered,
            left_for_later = summary.waiting,
            failed,
            took_ms = summary.took.as_millis(),
            "the pass ended"
        );
        for (job_file, error) in &summary.failed {
            tracing::error!(job = job_file, error = error.one_line(), "not applied");
        }
    }
}

/// How far a transfer is: file, bytes, rate and time left.
fn received(progress: &crate::transfer::Progress) -> String {
    let file = stem(&progress.file);
    let bytes = indicatif::HumanBytes(progress.bytes);
    let mut text = match progress.total {
        Some(total) => format!("{file}: {bytes} of {}", indicatif::HumanBytes(total)),
        None => format!("{file}: {bytes}"),
    };
    if let Some(rate) = progress.rate.filter(|rate| *rate > 0) {
        text.push_str(&format!(", {}/s", indicatif::HumanBytes(rate)));
        if let Some(total) = progress.total {
            let left = total.saturating_sub(progress.bytes) / rate;
            text.push_str(&format!(", {} left", indicatif::HumanDuration(Duration::from_secs(left))));
        }
    }
    text
}

fn finished(job_file: &str, end: &JobEnd) -> String {
    match end {
        JobEnd::Succeeded(None) => format!("  ok        {job_file}"),
        JobEnd::Succeeded(Some(message)) => format!("  ok        {job_file}  ({message})"),
        JobEnd::Filtered(reason) => format!("  filtered  {job_file}  ({reason})"),
        JobEnd::Waiting(reason) => format!("  later     {job_file}  ({reason})"),
        JobEnd::Failed(error) => format!("  FAILED    {job_file}\n            {}", error.one_line()),
    }
}

/// The part of a job file's path that people call it by.
fn stem(job_file: &str) -> &str {
    job_file.rsplit('/').next().unwrap_or(job_file)
}
