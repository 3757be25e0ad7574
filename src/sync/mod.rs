//! One pass: changes → jobs → plan → execute → journal → cursor.

mod background;
mod coverage;
mod ledger;
mod lost;
mod range;
mod reports;
mod standing;
pub mod takeover;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{HookOnFailure, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::{self, Event, JobEnd, Note};
use crate::journal::{Journal, RunOutcome, RunSummary};
use crate::plan::{Patience, Plan};
use crate::report::{self, Courier};
use crate::state_repo::{Revision, StateRepo};
use crate::wire::Meters;

use self::coverage::Coverage;
use self::ledger::{Entry, job_of, learn, outcome, write_down};
pub use self::range::{job_files, prepare};
use self::reports::Files;
use self::standing::Standing;

/// How many events are taken together at most.
const EVENTS_AT_ONCE: usize = 1024;

/// How long `status` tells of what was removed.
const PAST_JOBS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a pass is asked to do.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Who asks, for the journal and the log: `sync`, `hook post-merge`.
    pub trigger: String,
    /// Changes after this revision, instead of after what was last applied.
    pub from: Option<String>,
    /// Changes up to this revision, instead of the tip.
    pub to: Option<String>,
    /// Where to begin when nothing was applied yet: the parent of a hook's first new changeset.
    pub begin: Option<Revision>,
    /// Only these files of the tip, whatever is known of them.
    pub files: Vec<String>,
    /// The failed jobs as well.
    pub retry_failed: bool,
    /// Failed jobs rest until their time has come; without it all of them are tried that are met.
    pub patience: Option<Patience>,
}

/// What a pass is going to do, and where it leads.
#[derive(Debug)]
pub struct Prepared {
    /// The revision that was applied before; null before the first.
    pub from: Revision,
    /// The revision that will have been applied.
    pub to: Revision,
    /// The jobs.
    pub plan: Plan,
    /// The cursor moves to `to` when the pass succeeds.
    moves_cursor: bool,
    /// Earlier runs have left something to do that no single job is about.
    loose_ends: bool,
    /// What a GeoServer, or the database, that came in later lacks.
    coverage: Coverage,
    /// What jobs are chosen by, and whether that has changed.
    standing: Standing,
    /// The pass does all that is to be done.
    is_whole: bool,
}

impl Prepared {
    /// Everything up to `applied` is applied, and nothing else is asked for.
    fn nothing(applied: &Revision) -> Self {
        Self {
            from: applied.clone(),
            to: applied.clone(),
            plan: Plan::default(),
            moves_cursor: false,
            loose_ends: false,
            coverage: Coverage::default(),
            standing: Standing::default(),
            is_whole: false,
        }
    }

    /// Writes down what holds from now on, the jobs having ended.
    fn end(&self, settings: &Settings, journal: &Journal, summary: &Summary) -> Result<()> {
        // What rests has failed, and is found again only where the cursor has not passed it.
        let all_is_well = summary.failed.is_empty() && summary.postponed == 0;
        let kept = all_is_well || (settings.hook_on_failure == HookOnFailure::Accept && !summary.was_stopped());
        if self.is_whole && kept {
            self.coverage.end(journal)?;
        }
        if settings.rollback {
            return Ok(());
        }
        if self.is_whole && !summary.was_stopped() {
            self.standing.filters_were_asked(journal)?;
        }
        if self.is_whole && kept {
            self.standing.channels_are_taken(journal)?;
        }
        if self.moves_cursor && kept { journal.set_cursor(self.to.as_str()) } else { Ok(()) }
    }
}

/// How a pass ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Jobs whose effects are all there.
    pub succeeded: usize,
    /// Jobs that this slave's filters do not take.
    pub filtered: usize,
    /// Jobs that the settings leave out.
    pub waiting: usize,
    /// Jobs that were done already.
    pub done_before: usize,
    /// GeoServers and the CDN that could not be told of what changed; among the failed or the due as well.
    pub loose_ends: usize,
    /// Jobs that rest until their time has come.
    pub postponed: usize,
    /// The failed jobs with their errors, and GeoServers that could not be told of what changed.
    pub failed: Vec<(String, Error)>,
    /// What could not be told to others that readers are shown things by, and why; no job fails for it.
    pub due: Vec<(String, Error)>,
    /// How long the jobs took.
    pub took: Duration,
}

impl Summary {
    /// All is done that was to be done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.due.is_empty()
    }

    /// There was something to do, so that the run has said itself how that went.
    #[must_use]
    pub fn had_jobs(&self) -> bool {
        self.succeeded + self.filtered + self.waiting + self.failed.len() > 0
    }

    /// The run was asked to stop before it was finished.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        self.failed.iter().any(|(_, error)| error.kind() == ErrorKind::Stopped)
    }
}

impl Summary {
    fn for_history(&self) -> RunSummary {
        let outcome = match (self.was_stopped(), self.failed.is_empty()) {
            (true, _) => RunOutcome::Stopped,
            (false, false) => RunOutcome::Failed,
            (false, true) => RunOutcome::Succeeded,
        };
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        RunSummary {
            outcome,
            succeeded: number(self.succeeded),
            failed: number(self.failed.len()),
            unchanged: number(self.done_before),
            message: self.due.first().map(|(what, error)| format!("{what}: {}", error.one_line())),
        }
    }
}

/// Sees a pass as it goes: the terminal, the log.
pub trait Watcher: Send {
    /// The pass begins with this plan.
    fn begins(&mut self, prepared: &Prepared);
    /// Something happened; `job_file` is the job's path, where the event is about a job.
    fn sees(&mut self, job_file: Option<&str>, event: &Event);
    /// Who is told how transfers and requests go, if anybody is.
    fn meters(&mut self) -> Meters {
        Meters::default()
    }
    /// The pass has ended.
    fn ends(&mut self, summary: &Summary);
}

/// Whether what was last applied is about to come in: its hook has ended, its pull has not. Until
/// then the tip is older than what is published.
///
/// # Errors
///
/// When the repository or the journal cannot be read.
pub async fn is_ahead_of_a_pull(repository: &mut StateRepo, journal: &Journal) -> Result<bool> {
    if !repository.is_being_written() {
        return Ok(false);
    }
    match journal.cursor()? {
        Some(cursor) => Ok(repository.resolve(&cursor).await?.is_none()),
        None => Ok(false),
    }
}

/// What somebody is told who does not want to wait for the end of such a pull.
#[must_use]
pub fn pull_is_ending() -> Error {
    Error::new(ErrorKind::Busy, "a pull whose changesets are applied already is about to end")
        .hint("run again in a moment, or without --no-wait")
}

/// Runs what was prepared and writes down how it went, as it goes.
///
/// # Errors
///
/// When the adapters cannot be built or the journal cannot be written; failed jobs are no error
/// here, they stand in the summary.
pub async fn run(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: &Journal,
    request: &Request,
    mut prepared: Prepared,
    watcher: &mut dyn Watcher,
    stop: &CancellationToken,
) -> Result<Summary> {
    let clock = Instant::now();
    // What ends this pass alone does not end who has asked for it.
    let stop = &stop.child_token();
    let mut summary = Summary {
        done_before: prepared.plan.done.len(),
        postponed: prepared.plan.postponed.len(),
        ..Summary::default()
    };
    watcher.begins(&prepared);
    let plan = std::mem::take(&mut prepared.plan);
    let has_jobs = !plan.jobs.is_empty();
    let Prepared { from, to, coverage, .. } = &prepared;
    journal.drop_jobs(&plan.gone)?;
    // What earlier runs could not deliver is delivered even if there is nothing to do.
    let master = crate::wire::master(settings);
    let reports = master.is_some();
    let mut files = match &master {
        Some(master) if has_jobs => {
            let how = format!("{}, revision {} to {}", request.trigger, from.short(), to.short());
            let program = settings.code_branch.as_ref().map(|_| journal.program_trouble()).transpose()?.flatten();
            Some(Files::of(&plan, how, master.clone(), program))
        }
        _ => None,
    };
    let courier = match (master, journal.backlog()?) {
        (Some(master), backlog) if !plan.jobs.is_empty() || backlog.is_some() => {
            let quiet = plan.jobs.is_empty() && backlog.is_some_and(|backlog| backlog.failing.is_some());
            Some(Courier::start(master, Journal::open(&settings.sync_status_path)?, quiet))
        }
        _ => None,
    };
    if !plan.jobs.is_empty() || prepared.loose_ends {
        // What can be refused is refused before anything is written down.
        let parts = crate::wire::parts(settings, watcher.meters(), stop)?;
        let again = !request.files.is_empty();
        let background = background::background(settings, repository, journal, to, &plan, coverage, again).await?;
        if prepared.moves_cursor
            && request.begin.as_ref() == Some(from)
            && journal.cursor()?.is_none()
            && !from.is_null()
        {
            // Git keeps the commits even if a job fails: the next run starts where this one does.
            journal.set_cursor(from.as_str())?;
        }
        let run = journal.start_run(&request.trigger, Some(from.as_str()), Some(to.as_str()))?;
        if !plan.jobs.is_empty() {
            coverage.begin(journal)?;
        }
        let mut ledger: Vec<Entry> = plan.jobs.iter().map(|job| Entry::of(job, reports)).collect();
        if let Some(files) = &files {
            journal.put_reports(&[files.begin()])?;
            courier.iter().for_each(Courier::wake);
        }
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let executing = tokio::spawn(execute::execute(plan, parts, background, sender, stop.clone()));
        let mut written = Ok(());
        let mut notes: Vec<Note> = Vec::new();
        // What happened at the same time shares the flushes of the disk.
        while receiver.recv_many(&mut notes, EVENTS_AT_ONCE).await > 0 {
            for Note { event, .. } in &notes {
                let job = job_of(event).and_then(|job| ledger.get(job));
                watcher.sees(job.map(|entry| entry.job.job_file.as_str()), event);
                learn(&mut ledger, event);
                if let Event::JobEnded { job, end } = event
                    && let Some(files) = &mut files
                {
                    files.ended(*job, &outcome(end));
                }
            }
            let result = write_down(journal, &ledger, &notes, request.patience.as_ref());
            let is_written = result.is_ok();
            if let Err(error) = result
                && written.is_ok()
            {
                // Work that nobody can remember is pointless; what runs comes to a safe point.
                stop.cancel();
                written = Err(error);
            }
            for Note { event, written: waiting } in notes.drain(..) {
                if is_written {
                    // Who has given up waiting needs no answer.
                    let _ = waiting.map(|waiting| waiting.send(()));
                }
                match event {
                    Event::JobEnded { job, end } => {
                        let job_file = ledger.get(job).map(|entry| entry.job.job_file.clone()).unwrap_or_default();
                        count(&mut summary, job_file, end);
                        courier.iter().for_each(Courier::wake);
                    }
                    Event::TargetFailed { target, error } => {
                        summary.loose_ends += 1;
                        summary.failed.push((target, error));
                    }
                    Event::PreviewCame { of, path } if reports => {
                        let told =
                            report::preview_came(journal, (&of.kind, &of.action), &of.layer, &of.task_name, &path);
                        written = written.and(told);
                    }
                    Event::StaysDue { what, error } => {
                        summary.loose_ends += 1;
                        summary.due.push((what, error));
                    }
                    _ => {}
                }
            }
        }
        if let Err(panic) = executing.await {
            return Err(Error::new(ErrorKind::Bug, "the execution of the plan crashed").source(panic));
        }
        written?;
        if let Some(files) = &files {
            journal.put_reports(&[files.end(&summary)])?;
        }
        journal.finish_run(run, &summary.for_history())?;
    }
    prepared.end(settings, journal, &summary)?;
    if prepared.is_whole && has_jobs && !summary.was_stopped() {
        drop_past_jobs(repository, journal, &prepared.to).await?;
    }
    summary.took = clock.elapsed();
    watcher.ends(&summary);
    if let Some(courier) = courier {
        courier.finish().await;
    }
    Ok(summary)
}

/// Forgets removals and auxiliary jobs of long ago whose files are gone; else the journal would only ever grow.
async fn drop_past_jobs(repository: &mut StateRepo, journal: &Journal, tip: &Revision) -> Result<()> {
    let before = jiff::Timestamp::now().checked_sub(PAST_JOBS_KEPT).unwrap_or(jiff::Timestamp::MIN);
    let mut past = journal.past_jobs(before)?;
    if past.is_empty() {
        return Ok(());
    }
    let there: HashSet<String> = repository.files(tip).await?.into_iter().collect();
    past.retain(|path| !there.contains(path));
    journal.drop_jobs(&past)
}

fn count(summary: &mut Summary, job_file: String, end: JobEnd) {
    match end {
        JobEnd::Succeeded(_) | JobEnd::Superseded(_) => summary.succeeded += 1,
        JobEnd::Filtered(_) => summary.filtered += 1,
        JobEnd::Waiting(_) => summary.waiting += 1,
        JobEnd::Failed(error) => summary.failed.push((job_file, error)),
    }
}
