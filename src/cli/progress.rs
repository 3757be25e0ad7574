//! A pass as the operator sees it: a bar and a line per job on a terminal, log lines elsewhere.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{HumanBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use super::{Session, say, table};
use crate::error::Error;
use crate::execute::{Event, JobEnd, StepEnd};
use crate::postgres::LoadProgress;
use crate::sync::{Prepared, Summary, Watcher};
use crate::telemetry::{LogFormat, LogWriter, is_coloured};
use crate::transfer::Progress;
use crate::wire::Meters;

/// How often the log tells how a long restore goes.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What a pass looks like where standard error goes.
#[derive(Debug, Clone)]
pub(super) enum Look {
    /// Drawn on a terminal.
    Drawn(LogWriter),
    /// Log lines for people.
    Lines,
    /// Log lines for programs.
    Json,
}

impl Look {
    pub(super) fn of(session: &Session) -> Self {
        match session.global.log_format {
            _ if session.draws => Self::Drawn(session.log.clone()),
            LogFormat::Json => Self::Json,
            LogFormat::Plain => Self::Lines,
        }
    }

    fn watcher(&self) -> Box<dyn Watcher> {
        match self {
            Self::Drawn(log) => Box::new(Terminal::new(log.clone())),
            Self::Json => Box::new(JsonLog),
            Self::Lines => Box::new(Log::default()),
        }
    }
}

/// The watcher that fits where standard error goes.
pub(super) fn watcher(session: &Session) -> Box<dyn Watcher> {
    Look::of(session).watcher()
}

/// As [`watcher`], for somebody who comes back every minute: a pass that did nothing says nothing.
pub(super) fn quiet_watcher(look: &Look) -> Box<dyn Watcher> {
    Box::new(Quiet { inner: look.watcher() })
}

/// Keeps silent about passes in which nothing happens.
struct Quiet {
    inner: Box<dyn Watcher>,
}

impl Watcher for Quiet {
    fn begins(&mut self, prepared: &Prepared) {
        self.inner.begins(prepared);
    }

    fn sees(&mut self, job_file: Option<&str>, event: &Event) {
        self.inner.sees(job_file, event);
    }

    fn meters(&mut self) -> Meters {
        self.inner.meters()
    }

    fn ends(&mut self, summary: &Summary) {
        if summary.succeeded + summary.filtered + summary.waiting + summary.failed.len() + summary.due.len() > 0 {
            self.inner.ends(summary);
        }
    }
}

/// The reasons that were told already, with the job that met each of them first.
#[derive(Default)]
struct Told(HashMap<String, String>);

impl Told {
    /// Notes the reason of `job_file`'s failure; answers who failed for the same reason before.
    fn before(&mut self, job_file: &str, error: &Error) -> Option<&str> {
        let reason = table::reason(job_file, error);
        let mut is_new = false;
        let first = self.0.entry(reason).or_insert_with(|| {
            is_new = true;
            job_file.to_owned()
        });
        (!is_new).then_some(first.as_str())
    }
}

/// How fast rows are loaded, by job: what was loaded when each was first heard of. A restore that waits
/// for its turn says nothing, so the wait does not count.
#[derive(Default)]
struct Restores(HashMap<usize, (Instant, LoadProgress)>);

impl Restores {
    /// What there is to say about a restore that has come to `progress`.
    fn text(&mut self, job: usize, progress: LoadProgress) -> String {
        let (since, first) = *self.0.entry(job).or_insert_with(|| (Instant::now(), progress));
        loaded(first, progress, since.elapsed())
    }
}

/// Rows, rate and time left of a load that went from `first` to `now` in `took`. How many rows there
/// are nobody knows, but how much of the dump is read.
fn loaded(first: LoadProgress, now: LoadProgress, took: Duration) -> String {
    let mut text = format!("{} rows", HumanCount(now.rows));
    if now.read == Some(1.0) {
        return text + ", now indexes and constraints";
    }
    if let Some(rate) = rate(now.rows.saturating_sub(first.rows), took) {
        text.push_str(&format!(", {} rows/s", HumanCount(rate)));
        if let (Some(before), Some(read)) = (first.read, now.read)
            && read > before
            && let Ok(left) = Duration::try_from_secs_f64(took.as_secs_f64() * (1.0 - read) / (read - before))
        {
            let left = Duration::from_secs(left.as_secs());
            text.push_str(&format!(", {} left for the rows", HumanDuration(left)));
        }
    }
    text
}

/// Rows in a second; nothing in the first moments, when it would mislead.
fn rate(rows: u64, took: Duration) -> Option<u64> {
    (took >= Duration::from_millis(900))
        .then(|| rows.saturating_mul(1000) / u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

/// Draws on a terminal.
struct Terminal {
    log: LogWriter,
    display: MultiProgress,
    bar: ProgressBar,
    told: Told,
    restores: Restores,
    coloured: bool,
}

impl Terminal {
    fn new(log: LogWriter) -> Self {
        let display = MultiProgress::new();
        let bar = display.add(ProgressBar::hidden());
        Self { log, display, bar, told: Told::default(), restores: Restores::default(), coloured: is_coloured() }
    }

    fn line(&self, text: &str) {
        // A terminal that is gone does not stop a pass.
        let _ = self.display.println(text);
    }

    /// A word at the beginning of a line, in its colour where colours are wanted.
    fn word(&self, word: &str, colour: AnsiColor) -> String {
        let style = if self.coloured { Style::new().fg_color(Some(colour.into())) } else { Style::new() };
        format!("{style}{word:<9}{style:#}")
    }

    fn finished(&mut self, job_file: &str, end: &JobEnd) -> String {
        match end {
            JobEnd::Succeeded(None) => format!("  {} {job_file}", self.word("ok", AnsiColor::Green)),
            JobEnd::Succeeded(Some(message)) | JobEnd::Superseded(message) => {
                format!("  {} {job_file}  ({message})", self.word("ok", AnsiColor::Green))
            }
            JobEnd::Filtered(reason) => format!("  {} {job_file}  ({reason})", self.word("filtered", AnsiColor::Cyan)),
            JobEnd::Waiting(reason) => format!("  {} {job_file}  ({reason})", self.word("later", AnsiColor::Cyan)),
            JobEnd::Failed(error) => {
                let word = self.word("FAILED", AnsiColor::Red);
                match self.told.before(job_file, error) {
                    Some(first) => format!("  {word} {job_file}  (as {})", stem(first)),
                    None => format!("  {word} {job_file}\n            {}", table::reason(job_file, error)),
                }
            }
        }
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
        // The message is cut where the line ends: a bar that wraps leaves its old lines behind.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} jobs  {elapsed}  {wide_msg}") {
            self.bar.set_style(style);
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn sees(&mut self, job_file: Option<&str>, event: &Event) {
        let Some(job_file) = job_file else { return };
        match event {
            Event::StepStarted { step, .. } => {
                self.bar.set_message(format!("{step}: {}", stem(job_file)));
            }
            Event::StepProgress { job, step, progress } => {
                let text = self.restores.text(*job, *progress);
                self.bar.set_message(format!("{step}: {}: {text}", stem(job_file)));
            }
            Event::JobEnded { end, .. } => {
                let line = self.finished(job_file, end);
                self.line(&line);
                self.bar.inc(1);
            }
            _ => {}
        }
    }

    fn meters(&mut self) -> Meters {
        let bar = self.bar.clone();
        let draw = move |progress: Progress| {
            if progress.arrived.is_none() {
                bar.set_message(received(&progress));
            }
        };
        Meters { transfers: Some(std::sync::Arc::new(draw)), ..Meters::default() }
    }

    fn ends(&mut self, summary: &Summary) {
        self.bar.finish_and_clear();
        self.log.draw_above(None);
        say(table::summary(summary).trim_end());
    }
}

/// Writes log lines for people: each reason in full once while the pass runs, and at its end.
#[derive(Default)]
struct Log {
    told: Told,
    restores: Restores,
    spoken: HashMap<usize, Instant>,
}

impl Watcher for Log {
    fn begins(&mut self, prepared: &Prepared) {
        log_beginning(prepared);
    }

    fn sees(&mut self, job_file: Option<&str>, event: &Event) {
        let Some(job_file) = job_file else { return };
        match event {
            Event::StepStarted { job, step: crate::execute::Step::Restore, .. } => {
                self.spoken.insert(*job, Instant::now());
            }
            Event::StepProgress { job, step, progress } => {
                let text = self.restores.text(*job, *progress);
                let last = self.spoken.entry(*job).or_insert_with(Instant::now);
                if last.elapsed() >= LOG_INTERVAL {
                    *last = Instant::now();
                    tracing::info!("{job_file}: {step}: {text}");
                }
            }
            Event::StepEnded { .. } => log_step(job_file, event),
            Event::JobEnded { end: JobEnd::Failed(error), .. } => match self.told.before(job_file, error) {
                Some(first) => tracing::error!("{job_file} failed as {first} did"),
                None => tracing::error!("{job_file} failed: {}", table::reason(job_file, error)),
            },
            Event::JobEnded { end, .. } => match end {
                JobEnd::Succeeded(None) => tracing::info!("{job_file} succeeded"),
                JobEnd::Succeeded(Some(message)) | JobEnd::Superseded(message) => {
                    tracing::info!("{job_file} succeeded: {message}");
                }
                JobEnd::Filtered(reason) => tracing::info!("{job_file} is filtered out: {reason}"),
                JobEnd::Waiting(reason) => tracing::warn!("{job_file} is left for later: {reason}"),
                JobEnd::Failed(_) => {}
            },
            _ => {}
        }
    }

    fn ends(&mut self, summary: &Summary) {
        log_end(summary);
        for same in table::by_reason(&summary.failed) {
            let reason = table::reason(same.jobs[0], same.error);
            let sentences = [Some(reason), same.error.hint_text().map(|hint| format!("Hint: {hint}")), same.others()];
            let text: Vec<String> =
                sentences.into_iter().flatten().map(|text| text.trim_end_matches('.').to_owned()).collect();
            tracing::error!("not applied: {}: {}", same.jobs[0], text.join(". "));
        }
    }
}

/// Writes log lines for programs: every job with its reason, as fields.
struct JsonLog;

impl Watcher for JsonLog {
    fn begins(&mut self, prepared: &Prepared) {
        log_beginning(prepared);
    }

    fn sees(&mut self, job_file: Option<&str>, event: &Event) {
        let Some(job) = job_file else { return };
        match event {
            Event::StepEnded { .. } => log_step(job, event),
            Event::JobEnded { end, .. } => match end {
                JobEnd::Succeeded(None) => tracing::info!(job, "succeeded"),
                JobEnd::Succeeded(Some(reason)) | JobEnd::Superseded(reason) => {
                    tracing::info!(job, reason, "succeeded");
                }
                JobEnd::Filtered(reason) => tracing::info!(job, reason, "filtered out"),
                JobEnd::Waiting(reason) => tracing::warn!(job, reason, "left out by the settings"),
                JobEnd::Failed(error) => {
                    tracing::error!(job, error = error.one_line(), hint = error.hint_text(), "failed");
                }
            },
            _ => {}
        }
    }

    fn ends(&mut self, summary: &Summary) {
        log_end(summary);
    }
}

fn log_beginning(prepared: &Prepared) {
    let jobs = prepared.plan.jobs.len();
    if jobs > 0 {
        let (from, to) = (table::short(prepared.from.as_str()), table::short(prepared.to.as_str()));
        tracing::info!(from, to, jobs, done_before = prepared.plan.done.len(), "the pass begins");
    }
}

fn log_step(job: &str, event: &Event) {
    if let Event::StepEnded { step, target, end, message, took, .. } = event {
        let (target, message) = (target.as_deref(), message.as_deref());
        let (failed, took_ms) = (*end == StepEnd::Failed, milliseconds(*took));
        // The job that fails with it is told in full.
        tracing::debug!(job, %step, target, failed, took_ms, message, "step ended");
    }
}

/// As a number in JSON, where wider ones become strings.
fn milliseconds(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

fn log_end(summary: &Summary) {
    let failed = summary.failed.len();
    for (what, error) in &summary.due {
        let hint = error.hint_text().map(|hint| format!(". Hint: {hint}")).unwrap_or_default();
        tracing::error!("{what}: {}{hint}", error.one_line());
    }
    if summary.succeeded + summary.filtered + summary.waiting + failed + summary.due.len() == 0 {
        tracing::info!("nothing to do");
        return;
    }
    tracing::info!(
        succeeded = summary.succeeded,
        done_before = summary.done_before,
        filtered = summary.filtered,
        left_for_later = summary.waiting,
        failed,
        took_ms = milliseconds(summary.took),
        "the pass ended"
    );
}

/// How far a transfer is: file, bytes, rate and time left.
fn received(progress: &Progress) -> String {
    let file = stem(&progress.file);
    let bytes = HumanBytes(progress.bytes);
    let mut text = match progress.total {
        Some(total) => format!("{}: {file}: {bytes} of {}", progress.what, HumanBytes(total)),
        None => format!("{}: {file}: {bytes}", progress.what),
    };
    if let Some(rate) = progress.rate.filter(|rate| *rate > 0) {
        text.push_str(&format!(", {}/s", HumanBytes(rate)));
        if let Some(total) = progress.total {
            let left = total.saturating_sub(progress.bytes) / rate;
            text.push_str(&format!(", {} left", HumanDuration(Duration::from_secs(left))));
        }
    }
    text
}

/// The part of a job file's path that people call it by.
fn stem(job_file: &str) -> &str {
    job_file.rsplit('/').next().unwrap_or(job_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_transfer_tells_bytes_rate_and_time_left() {
        let progress = |total, rate| Progress {
            what: "dump".into(),
            file: "/var/borg/roads.db".into(),
            bytes: 300 << 20,
            total,
            rate,
            arrived: None,
        };
        let lines = [
            received(&progress(Some(1 << 30), Some(10 << 20))),
            received(&progress(Some(1 << 30), None)),
            received(&progress(None, Some(10 << 20))),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        dump: roads.db: 300.00 MiB of 1.00 GiB, 10.00 MiB/s, 72 seconds left
        dump: roads.db: 300.00 MiB of 1.00 GiB
        dump: roads.db: 300.00 MiB, 10.00 MiB/s
        ");
    }

    #[test]
    fn a_restore_tells_rows_rate_and_time_left_once_they_are_known() {
        let at = |rows, read| LoadProgress { rows, read };
        let (first, second) = (at(100_000, Some(0.1)), Duration::from_secs(1));
        let lines = [
            loaded(first, first, Duration::from_millis(10)),
            loaded(first, at(1_300_000, Some(0.3)), 10 * second),
            loaded(at(0, None), at(1_200_000, None), 10 * second),
            loaded(first, at(1_300_000, Some(0.1)), 10 * second),
            loaded(first, at(5_000_000, Some(1.0)), 60 * second),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        100,000 rows
        1,300,000 rows, 120,000 rows/s, 35 seconds left for the rows
        1,200,000 rows, 120,000 rows/s
        1,300,000 rows, 120,000 rows/s
        5,000,000 rows, now indexes and constraints
        ");
    }

    #[test]
    fn a_reason_is_told_once() {
        let mut told = Told::default();
        let error = |text: &str| Error::new(ErrorKind::Unreachable, text);
        assert_eq!(told.before("a", &error("down")), None);
        assert_eq!(told.before("b", &error("down")), Some("a"));
        assert_eq!(told.before("c", &error("full")), None);
    }
}
