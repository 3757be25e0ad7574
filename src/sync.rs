//! One pass: changes → jobs → plan → execute → journal → cursor.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{HookOnFailure, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::{self, Background, Event, Facts, JobEnd, Note, StepEnd};
use crate::job::{self, JobKind};
use crate::journal::{JobOutcome, Journal, Known, NewJob, RunOutcome, RunSummary, State, StepOutcome, StepRecord};
use crate::plan::{self, Again, Candidate, Plan};
use crate::state_repo::{ChangeKind, Revision, StateRepo};

/// How many events are taken together at most.
const EVENTS_AT_ONCE: usize = 1024;

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
}

/// How a pass ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Jobs whose effects are all there.
    pub succeeded: usize,
    /// Jobs that this slave's filters do not take.
    pub filtered: usize,
    /// Jobs left for a later version.
    pub waiting: usize,
    /// Jobs that were done already.
    pub done_before: usize,
    /// The failed jobs with their errors.
    pub failed: Vec<(String, Error)>,
    /// How long the jobs took.
    pub took: Duration,
}

impl Summary {
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
            message: None,
        }
    }
}

/// Sees a pass as it goes: the terminal, the log.
pub trait Watcher: Send {
    /// The pass begins with this plan.
    fn begins(&mut self, prepared: &Prepared);
    /// Something happened; `job_file` is the job's path, where the event is about a job.
    fn sees(&mut self, job_file: Option<&str>, event: &Event);
    /// Who is told how transfers go, if anybody is.
    fn transfers(&mut self) -> Option<crate::wire::Meter> {
        None
    }
    /// The pass has ended.
    fn ends(&mut self, summary: &Summary);
}

/// Finds out what a pass has to do; reads the repository and the journal, changes nothing.
///
/// # Errors
///
/// When the repository or the journal cannot be read, or a named revision or file is not there.
pub async fn prepare(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: Option<&Journal>,
    request: &Request,
) -> Result<Prepared> {
    let to = match &request.to {
        Some(name) => named_revision(repository, "--to", name).await?,
        None => repository.tip().await?,
    };
    let noted = journal.map(Journal::cursor).transpose()?.flatten();
    let cursor = match &noted {
        Some(name) => repository.resolve(name).await?,
        None => None,
    };
    let from = match (&request.from, &cursor, &request.begin) {
        (Some(name), _, _) => named_revision(repository, "--from", name).await?,
        (None, Some(cursor), _) => repository.fork_point(cursor, &to).await?,
        (None, None, Some(begin)) => begin.clone(),
        (None, None, None) => Revision::null(),
    };
    if cursor.is_none() && !from.is_null() && request.from.is_none() {
        tracing::warn!(
            from = %from,
            "nothing is known to be applied yet: only the new changesets are; `borg-slave sync --from null` applies what was in the clone before"
        );
    }
    let touched = journal.map(Journal::touched_since_cursor).transpose()?.unwrap_or_default();
    let applied_is_gone = noted.is_some() && cursor.is_none();
    // Where nothing has changed, only what is unfinished matters, however many jobs are known.
    let nothing_new = request.files.is_empty() && from == to && touched.is_empty() && !applied_is_gone;
    let known = match journal {
        Some(journal) if nothing_new => journal.unfinished()?,
        Some(journal) => journal.digest()?,
        None => HashMap::new(),
    };
    let (candidates, again) = if request.files.is_empty() {
        let mut candidates = changed_files(settings, repository, &from, &to).await?;
        let mut more = left_over(settings, &known, request.retry_failed, &candidates);
        // The changesets that were applied are gone again: any job may be of one of them.
        let in_doubt = if applied_is_gone { known.keys().cloned().collect() } else { touched };
        let in_range: HashSet<&str> = candidates.iter().map(|candidate| candidate.file.path.as_str()).collect();
        more.extend(in_doubt.into_iter().filter(|path| !in_range.contains(path.as_str())));
        candidates.extend(named_again(settings, repository, journal, &to, &more).await?);
        (candidates, Again::Never)
    } else {
        (named_files(settings, repository, &to, &request.files).await?, Again::Always)
    };
    let mut plan = plan::plan(candidates, &known, again);
    if !settings.include.is_empty() {
        plan.jobs.retain(|job| settings.include.contains(&job.file.path));
        for job in &mut plan.jobs {
            job.after.clear();
        }
    }
    let whole = request.files.is_empty() && settings.include.is_empty();
    let moves_cursor = whole && (request.from.is_none() || cursor.is_none()) && cursor.as_ref() != Some(&to);
    Ok(Prepared { from, to, plan, moves_cursor })
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
    prepared: Prepared,
    watcher: &mut dyn Watcher,
    stop: &CancellationToken,
) -> Result<Summary> {
    let clock = Instant::now();
    let mut summary = Summary { done_before: prepared.plan.done.len(), ..Summary::default() };
    watcher.begins(&prepared);
    let Prepared { from, to, plan, moves_cursor } = prepared;
    if !plan.jobs.is_empty() {
        // What can be refused is refused before anything is written down.
        let parts = crate::wire::parts(settings, watcher.transfers(), stop)?;
        let again = !request.files.is_empty();
        let background = background(settings, repository, journal, &to, &plan, again).await?;
        if moves_cursor && request.begin.as_ref() == Some(&from) && journal.cursor()?.is_none() && !from.is_null() {
            // Git keeps the commits even if a job fails: the next run starts where this one does.
            journal.set_cursor(from.as_str())?;
        }
        let run = journal.start_run(&request.trigger, Some(from.as_str()), Some(to.as_str()))?;
        let ledger: Vec<Entry> = plan.jobs.iter().map(Entry::of).collect();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let executing = tokio::spawn(execute::execute(plan, parts, background, sender, stop.clone()));
        let mut written = Ok(());
        let mut notes: Vec<Note> = Vec::new();
        // What happened at the same time shares the flushes of the disk.
        while receiver.recv_many(&mut notes, EVENTS_AT_ONCE).await > 0 {
            for Note { event, .. } in &notes {
                let job = job_of(event).and_then(|job| ledger.get(job));
                watcher.sees(job.map(|job| job.job_file.as_str()), event);
            }
            let outcome = write_down(journal, &ledger, &notes);
            let is_written = outcome.is_ok();
            if let Err(error) = outcome
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
                if let Event::JobEnded { job, end } = event {
                    let job_file = ledger.get(job).map(|job| job.job_file.clone()).unwrap_or_default();
                    count(&mut summary, job_file, end);
                }
            }
        }
        if let Err(panic) = executing.await {
            return Err(Error::new(ErrorKind::Bug, "the execution of the plan crashed").source(panic));
        }
        written?;
        journal.finish_run(run, &summary.for_history())?;
    }
    let kept =
        summary.failed.is_empty() || (settings.hook_on_failure == HookOnFailure::Accept && !summary.was_stopped());
    if moves_cursor && kept && !settings.rollback {
        journal.set_cursor(to.as_str())?;
    }
    summary.took = clock.elapsed();
    watcher.ends(&summary);
    Ok(summary)
}

/// The job files that a request names, or all of the tip.
///
/// # Errors
///
/// When the repository cannot be read or a named file is not there.
pub async fn job_files(settings: &Settings, repository: &mut StateRepo, request: &Request) -> Result<Vec<Candidate>> {
    let tip = repository.tip().await?;
    if request.files.is_empty() {
        changed_files(settings, repository, &Revision::null(), &tip).await
    } else {
        named_files(settings, repository, &tip, &request.files).await
    }
}

async fn named_revision(repository: &mut StateRepo, option: &str, name: &str) -> Result<Revision> {
    repository.resolve(name).await?.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "there is no such revision in the state repository")
            .subject(format!("{option} {name}"))
            .hint("name a changeset by its hash, number, tag or branch; `null` is before the first one")
    })
}

async fn changed_files(
    settings: &Settings,
    repository: &mut StateRepo,
    from: &Revision,
    to: &Revision,
) -> Result<Vec<Candidate>> {
    if from == to {
        return Ok(Vec::new());
    }
    let changes = repository.changes(from, to).await?;
    let (mut present, mut deleted) = (Vec::new(), Vec::new());
    for change in changes {
        if let Some(file) = job::classify(&change.path, &settings.channels) {
            if change.kind == ChangeKind::Removed { deleted.push(file) } else { present.push(file) }
        }
    }
    let mut candidates = read(repository, to, present, false).await?;
    candidates.extend(read(repository, from, deleted, true).await?);
    Ok(candidates)
}

async fn read(
    repository: &mut StateRepo,
    revision: &Revision,
    files: Vec<job::JobFile>,
    deleted: bool,
) -> Result<Vec<Candidate>> {
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let contents = repository.contents(revision, &paths).await?;
    // A file that cannot be read becomes a job that fails by name, not one that is skipped.
    Ok(files
        .into_iter()
        .zip(contents)
        .map(|(file, content)| Candidate {
            file,
            deleted,
            content: content.unwrap_or_default(),
            revision: revision.as_str().to_owned(),
        })
        .collect())
}

/// Job files that the range does not hold but that are still to be done: interrupted ones, failed
/// ones when asked for, and those that an older version left for this one.
fn left_over(
    settings: &Settings,
    known: &HashMap<String, Known>,
    retry_failed: bool,
    candidates: &[Candidate],
) -> BTreeSet<String> {
    let in_range: HashSet<&str> = candidates.iter().map(|candidate| candidate.file.path.as_str()).collect();
    known
        .iter()
        .filter(|(path, known)| match known.state {
            // A run that retried an old job may have been killed: no new change would bring it up again.
            State::Running | State::Interrupted | State::Forgotten => true,
            State::Failed => retry_failed,
            State::Waiting => {
                job::classify(path, &settings.channels).is_some_and(|file| execute::applies(file.kind, &known.action))
            }
            State::Succeeded | State::Filtered => false,
        } && !in_range.contains(path.as_str()))
        .map(|(path, _)| path.clone())
        .collect()
}

/// Reads jobs again that the journal knows: at the tip, or, if they were deleted, where they last were.
async fn named_again(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: Option<&Journal>,
    tip: &Revision,
    paths: &BTreeSet<String>,
) -> Result<Vec<Candidate>> {
    let files: Vec<_> = paths.iter().filter_map(|path| job::classify(path, &settings.channels)).collect();
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let contents = repository.contents(tip, &wanted).await?;
    let mut candidates = Vec::new();
    for (file, content) in files.into_iter().zip(contents) {
        if let Some(content) = content {
            candidates.push(Candidate { file, deleted: false, content, revision: tip.as_str().to_owned() });
            continue;
        }
        let record = journal.map(|journal| journal.job(&file.path)).transpose()?.flatten();
        let Some(record) = record else { continue };
        match repository.resolve(&record.revision).await? {
            Some(revision) => candidates.extend(read(repository, &revision, vec![file], true).await?),
            None if record.action == job::Action::Remove.as_str() => {}
            // Rolled back with its pull; what is to go follows from the file's name.
            None => candidates.push(Candidate { file, deleted: true, content: Vec::new(), revision: record.revision }),
        }
    }
    Ok(candidates)
}

async fn named_files(
    settings: &Settings,
    repository: &mut StateRepo,
    tip: &Revision,
    paths: &[String],
) -> Result<Vec<Candidate>> {
    let mut files = Vec::new();
    for path in paths {
        files.push(job::classify(path, &settings.channels).ok_or_else(|| {
            Error::new(ErrorKind::Usage, "this is no job file of a channel that this slave listens to")
                .subject(path)
                .hint(format!(
                    "name it as it stands in the repository, such as `{}/layers/workspace.name.json`",
                    settings.channels.first().map_or("geoserver", String::as_str)
                ))
        })?);
    }
    let contents = repository.contents(tip, paths).await?;
    files
        .into_iter()
        .zip(contents)
        .map(|(file, content)| match content {
            Some(content) => Ok(Candidate { file, deleted: false, content, revision: tip.as_str().to_owned() }),
            None => Err(Error::new(ErrorKind::Usage, "the state repository has no such file at its tip")
                .subject(file.path)
                .hint("a removal is applied by `borg-slave sync` with the range that holds it")),
        })
        .collect()
}

async fn background(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: &Journal,
    tip: &Revision,
    plan: &Plan,
    again: bool,
) -> Result<Background> {
    let mut finished = HashMap::new();
    let known = journal.digest()?;
    for job in &plan.jobs {
        let same = known
            .get(&job.file.path)
            .is_some_and(|known| known.content_md5 == job.content_md5 && known.action == job.action_name());
        if same
            && !again
            && let Some(record) = journal.job(&job.file.path)?
        {
            finished.insert(job.file.path.clone(), finished_targets(&record.steps));
        }
    }
    let filtered_layers = known
        .iter()
        .filter(|(_, known)| known.state == State::Filtered)
        .filter_map(|(path, _)| job::classify(path, &settings.channels))
        .filter(|file| file.kind == JobKind::Feature)
        .map(|file| file.stem)
        .collect();
    Ok(Background {
        facts: Facts::new(journal.markers()?),
        finished_targets: finished,
        workspace_levels: workspace_levels(settings, repository, tip).await?,
        filtered_layers,
    })
}

/// The access levels that the workspaces' own documents give; they decide over what layers say.
async fn workspace_levels(
    settings: &Settings,
    repository: &mut StateRepo,
    tip: &Revision,
) -> Result<HashMap<String, job::AuthLevel>> {
    let files: Vec<_> = repository
        .files(tip)
        .await?
        .iter()
        .filter_map(|path| job::classify(path, &settings.channels))
        .filter(|file| file.kind == JobKind::Workspace)
        .collect();
    let mut levels = HashMap::new();
    for candidate in read(repository, tip, files, false).await? {
        let job = job::parse(&candidate.file, &candidate.content, false).ok().and_then(|parsed| match parsed {
            job::Parsed::Job(document) => document.complete(None).ok(),
            job::Parsed::Nothing { .. } => None,
        });
        // A workspace document that cannot be read fails as a job of its own.
        if let Some(job::Complete { job: job::Job::Workspace(workspace), .. }) = job {
            levels.insert(workspace.schema.as_str().to_owned(), workspace.access.level);
        }
    }
    Ok(levels)
}

/// What the journal needs to know of a planned job.
struct Entry {
    job_file: String,
    kind: &'static str,
    action: &'static str,
    content_md5: String,
    revision: String,
    job_id: Option<i64>,
    job_batch_id: Option<String>,
}

impl Entry {
    fn of(job: &plan::PlannedJob) -> Self {
        let document = match &job.work {
            plan::Work::Run(document) => Some(document),
            plan::Work::Superseded(_) | plan::Work::Invalid(_) => None,
        };
        Self {
            job_file: job.file.path.clone(),
            kind: job.file.kind.as_str(),
            action: job.action_name(),
            content_md5: job.content_md5.clone(),
            revision: job.revision.clone(),
            job_id: document.and_then(|document| document.job_id()),
            job_batch_id: document.and_then(|document| document.job_batch_id()),
        }
    }

    fn new_job(&self) -> NewJob<'_> {
        NewJob {
            job_file: &self.job_file,
            kind: self.kind,
            action: self.action,
            content_md5: &self.content_md5,
            revision: &self.revision,
            job_id: self.job_id,
            job_batch_id: self.job_batch_id.as_deref(),
        }
    }
}

/// The targets on which an earlier try of the same job did everything.
fn finished_targets(steps: &[StepRecord]) -> HashSet<String> {
    let last = execute::Step::Styles.as_str();
    let finished = steps.iter().filter(|step| step.step == last && step.outcome.is_success());
    finished.filter_map(|step| step.target.clone()).collect()
}

fn job_of(event: &Event) -> Option<usize> {
    match event {
        Event::JobStarted { job }
        | Event::StepStarted { job, .. }
        | Event::StepProgress { job, .. }
        | Event::StepEnded { job, .. }
        | Event::JobEnded { job, .. } => Some(*job),
        Event::Fact { .. } => None,
    }
}

/// Writes down what happened: beginnings first and ends last, each of the two in one transaction,
/// and what lies between in its order.
fn write_down(journal: &Journal, ledger: &[Entry], notes: &[Note]) -> Result<()> {
    let events = || notes.iter().map(|note| &note.event);
    let begun = events().filter_map(|event| match event {
        Event::JobStarted { job } => ledger.get(*job).map(Entry::new_job),
        _ => None,
    });
    journal.begin_jobs(&begun.collect::<Vec<_>>())?;
    for event in events() {
        write_step(journal, job_of(event).and_then(|job| ledger.get(job)), event)?;
    }
    let ended = events().filter_map(|event| match event {
        Event::JobEnded { job, end } => Some((ledger.get(*job)?.job_file.as_str(), outcome(end))),
        _ => None,
    });
    let ended: Vec<_> = ended.collect();
    journal.finish_jobs(&ended.iter().map(|(job_file, outcome)| (*job_file, outcome)).collect::<Vec<_>>())
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
                },
                message: message.clone(),
                started: *started,
                duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            };
            journal.record_step(&job.job_file, &record)
        }
        (Event::Fact { target, key, value: Some(value) }, _) => journal.set_marker(target, key, value),
        (Event::Fact { target, key, value: None }, _) => journal.clear_marker(target, key),
        _ => Ok(()),
    }
}

fn outcome(end: &JobEnd) -> JobOutcome {
    let plain = |state, message: Option<&String>| JobOutcome { message: message.cloned(), ..JobOutcome::plain(state) };
    match end {
        JobEnd::Succeeded(message) => plain(State::Succeeded, message.as_ref()),
        JobEnd::Filtered(reason) => plain(State::Filtered, Some(reason)),
        JobEnd::Waiting(reason) => plain(State::Waiting, Some(reason)),
        JobEnd::Failed(error) if error.kind() == ErrorKind::Stopped => JobOutcome::because(State::Interrupted, error),
        JobEnd::Failed(error) => JobOutcome::because(State::Failed, error),
    }
}

fn count(summary: &mut Summary, job_file: String, end: JobEnd) {
    match end {
        JobEnd::Succeeded(_) => summary.succeeded += 1,
        JobEnd::Filtered(_) => summary.filtered += 1,
        JobEnd::Waiting(_) => summary.waiting += 1,
        JobEnd::Failed(error) => summary.failed.push((job_file, error)),
    }
}
