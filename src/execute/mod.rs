//! Runs a plan: every job is an async function that performs its steps in order.
//!
//! Jobs run concurrently. A step that several jobs need (a workspace, a store, a schema) is performed
//! once and awaited by the others. Restores are bounded by a semaphore, transfers by the transfer
//! module, writes to a GeoServer by its client. What happens is told as [`Event`]s; this module
//! writes nothing down itself, but waits where a kill would leave a record of what is no longer so.

mod access_rules;
mod background;
mod events;
mod facts;
mod feature;
mod followers;
mod groups;
mod layer;
mod live;
mod metadata;
mod parts;
mod places;
mod presentation;
mod previews;
mod removal;
mod removals;
mod schemas;
mod shared;
mod stores;
mod tables;
mod targets;
mod wms;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub use self::background::{Background, Shown};
use self::events::Ended;
pub use self::events::{Event, JobAbout, JobEnd, Note, PreviewOf, Step, StepEnd};
pub use self::facts::Facts;
pub use self::followers::RELOAD;
pub use self::groups::{INCOMPLETE_GROUPS, LEFT_GROUPS};
pub use self::metadata::complete;
pub use self::parts::{CdnParts, Choices, Parts, Previews};
pub use self::previews::{PREVIEWS, preview_is_due};
use self::removals::{Removals, Role};
use self::shared::Shared;
use self::tables::Tables;
use crate::error::{Error, ErrorKind, Result};
use crate::filter::Verdict;
use crate::geoserver::{AccessRules, UpstreamLayers};
use crate::job::{Action, Document, Job, JobFile, JobKind};
use crate::name::GeoName;
use crate::plan::{Plan, PlannedJob, Work};

/// How long running steps may take to reach a safe point once the run is asked to stop. Container
/// engines kill after 10 s.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// Targets in the journal under which stands what is still to be done when all jobs are, as far as these
/// settings do it.
pub fn loose_ends(settings: &crate::config::Settings) -> impl Iterator<Item = &'static str> {
    let cdn = settings.fastly.is_some().then_some(presentation::CDN);
    let reload = (!settings.skip.gs).then_some(followers::RELOAD);
    cdn.into_iter().chain(reload)
}

/// The name of the database among targets, beside the addresses of GeoServers.
pub const DATABASE: &str = "database";

/// How many previews are drawn at once: people want maps of the same GeoServers.
const DRAWINGS: usize = 2;

/// How long files are kept that were begun for a job that failed.
const BEGUN_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs all jobs of `plan`; returns when every one has ended. Each job ends with one
/// [`Event::JobEnded`], whatever happens to it; when `stop` is cancelled, jobs end early with
/// [`ErrorKind::Stopped`].
pub async fn execute(
    plan: Plan,
    parts: Parts,
    background: Background,
    events: mpsc::UnboundedSender<Note>,
    stop: CancellationToken,
) {
    let count = plan.jobs.len();
    let ended = (0..count).map(|_| watch::Sender::new(None)).collect();
    let free = plan.jobs.iter().filter(|job| job.after.is_empty()).count();
    let jobs_of = |kind| (0..count).filter(|&index| plan.jobs[index].file.kind == kind).collect();
    let run = Arc::new(Run {
        roles_jobs: jobs_of(JobKind::Auth),
        rules_jobs: jobs_of(JobKind::AccessRules),
        rules: if parts.choices.skip.rules { Ok(None) } else { access_rules::merged(&background.access_rules) },
        upstreams: Mutex::new(HashMap::new()),
        stores: Mutex::new(HashMap::new()),
        capabilities: Shared::new(),
        inspections: Semaphore::new(parts.choices.parallel_restores.max(1)),
        restores: Semaphore::new(parts.choices.parallel_restores.max(1)),
        tables: Tables::new(count),
        removals: Removals::new(plan.jobs.iter().map(Role::from).collect(), free),
        drawings: Semaphore::new(DRAWINGS),
        database_steps: Shared::new(),
        geoserver_steps: Shared::new(),
        levels: tokio::sync::Mutex::new(schemas::Levels::known(&background.facts)),
        filtered_layers: Mutex::new(background.filtered_layers.clone()),
        waiting_layers: Mutex::new(background.waiting_layers.clone()),
        purged: Mutex::default(),
        purge_failure: Mutex::default(),
        taken_up: followers::TakenUp::default(),
        parts,
        background,
        events,
        stop,
        ended,
        failed: AtomicBool::new(false),
    });
    if run.begin_writing().await.is_err() {
        return;
    }
    let job_files: Vec<String> = plan.jobs.iter().map(|job| job.file.path.clone()).collect();
    let mut jobs = JoinSet::new();
    let mut index_of = HashMap::new();
    for (index, job) in plan.jobs.into_iter().enumerate() {
        let run_of_job = Arc::clone(&run);
        let handle = jobs.spawn(async move { run_of_job.job(index, job).await });
        index_of.insert(handle.id(), index);
    }
    let all_jobs = async {
        while let Some(finished) = jobs.join_next_with_id().await {
            if let Err(panic) = finished
                && let Some(&job) = index_of.get(&panic.id())
            {
                run.emit(Event::JobEnded { job, end: JobEnd::Failed(crashed(&job_files[job], panic)) });
                run.mark_ended(job, Ended::Failed);
            }
        }
    };
    tokio::select! {
        () = all_jobs => {}
        () = run.keep_followers_up() => {}
    }
    if !run.stop.is_cancelled() {
        let rest = async {
            run.purge_what_is_due().await;
            run.make_previews_that_are_due().await;
            run.reload_followers().await;
        };
        // What is left out here is on record as due.
        tokio::select! {
            () = rest => {}
            () = run.stopped_for_long() => {}
        }
    }
    run.parts.transfer.close().await;
    // What was begun for a failed job is gone on with; nobody else works in there.
    let keep = if run.failed.load(Ordering::Relaxed) { BEGUN_KEPT } else { Duration::ZERO };
    if let Err(error) = run.parts.transfer.sweep(keep).await {
        tracing::warn!(error = error.one_line(), "old incoming files could not be removed");
    }
}

/// The setting that leaves out jobs of this kind altogether.
#[must_use]
pub fn left_out_by(skip: &crate::config::Skip, file: &JobFile, action: &str) -> Option<&'static str> {
    match file.kind {
        JobKind::Auth if skip.auth => Some("SKIP_AUTH"),
        JobKind::Auth => skip.db.then_some("SKIP_DB"),
        JobKind::Workspace => skip.db.then_some("SKIP_DB"),
        JobKind::AccessRules if skip.rules => Some("SKIP_RULES"),
        // A feature is in the database as well.
        JobKind::Feature if action != Action::EmptyGwc.as_str() => {
            (skip.gs && skip.db).then_some("SKIP_DB and SKIP_GS")
        }
        _ => skip.gs.then_some("SKIP_GS"),
    }
}

/// The steps that a job of this kind takes on a GeoServer; it has done its part there when all went well. A
/// bad style or a missing member fails a step and not those after it.
#[must_use]
pub fn steps_on_geoserver(kind: JobKind, action: Option<Action>) -> &'static [Step] {
    match (kind, action) {
        (JobKind::AccessRules, _) => &[Step::AccessRules],
        (JobKind::Auth | JobKind::Workspace, _) => &[],
        (_, Some(Action::EmptyGwc)) => &[Step::EmptyTiles],
        (JobKind::WmsStore | JobKind::LiveStore, Some(Action::Remove)) => &[Step::RemoveStore],
        (JobKind::LayerGroup, Some(Action::Remove)) => &[Step::RemoveGroup],
        (_, Some(Action::Remove)) => &[Step::RemoveLayer],
        (JobKind::WmsStore | JobKind::LiveStore, _) => &[Step::Store],
        (JobKind::LayerGroup, _) => &[Step::LayerGroup, Step::TileLayer],
        (JobKind::WmsLayer, _) => &[Step::WmsLayer, Step::TileLayer],
        (JobKind::Feature | JobKind::LiveLayer, _) => &[Step::FeatureType, Step::Styles, Step::TileLayer],
    }
}

/// The job of this name crashes when it is tried first, so that tests see what that does to others.
#[cfg(test)]
pub(crate) const CRASHES_ONCE: &str = "crashes once";

/// One execution of a plan.
struct Run {
    parts: Parts,
    background: Background,
    events: mpsc::UnboundedSender<Note>,
    stop: CancellationToken,
    /// Dumps whose tables of contents are read at the same time.
    inspections: Semaphore,
    restores: Semaphore,
    tables: Tables,
    removals: Removals,
    /// Maps that are drawn at the same time.
    drawings: Semaphore,
    /// Steps in the database, by what they make.
    database_steps: Shared<String, ()>,
    /// Steps in a GeoServer, by target and what they make.
    geoserver_steps: Shared<(String, String), bool>,
    /// What the PostGIS stores of this pass were made with, by target and store.
    stores: Mutex<HashMap<(String, String), BTreeMap<String, String>>>,
    /// What upstream WMS servers offer, by address, user and a digest of the password.
    capabilities: Shared<String, UpstreamLayers>,
    /// How the upstreams of this pass's WMS stores are reached.
    upstreams: Mutex<HashMap<(GeoName, GeoName), wms::Upstream>>,
    /// Jobs that make roles.
    roles_jobs: Vec<usize>,
    /// Jobs that set access rules.
    rules_jobs: Vec<usize>,
    /// The access rules of all channels, where they are not left out.
    rules: Result<Option<AccessRules>>,
    /// Who may read the schemas.
    levels: tokio::sync::Mutex<schemas::Levels>,
    /// What the filters refused, in this pass or before.
    filtered_layers: Mutex<HashSet<Shown>>,
    /// What is for later, since this pass or before.
    waiting_layers: Mutex<HashSet<Shown>>,
    /// Purges that this run has sent, by the key under which they are due.
    purged: Mutex<HashSet<String>>,
    /// Why a purge of this run has failed, the last of them.
    purge_failure: Mutex<Option<Error>>,
    /// What GeoServers that share the data directory know of what was written.
    taken_up: followers::TakenUp,
    /// How each job has ended.
    ended: Vec<watch::Sender<Option<Ended>>>,
    /// Some job has failed.
    failed: AtomicBool,
}

/// What a step gives its job, how it ended, and what there is to say about it.
type Stepped<T> = (T, StepEnd, Option<String>);

/// A job being run, for its steps.
struct Ctx<'a> {
    run: &'a Run,
    job: usize,
    file: &'a JobFile,
    /// Identifies the job's document.
    content_md5: &'a str,
    /// The file whose layer, of another kind, bears the name of the one that this job removes.
    replaced_by: Option<&'a str>,
}

impl Run {
    fn emit(&self, event: Event) {
        if matches!(event, Event::JobEnded { end: JobEnd::Failed(_), .. }) {
            self.failed.store(true, Ordering::Relaxed);
        }
        // The receiver lives as long as the run; if it is gone, nobody wants to know.
        let _ = self.events.send(Note { event, written: None });
    }

    /// Tells an event that must be on record before anything else is done.
    async fn write(&self, event: Event) -> Result<()> {
        let (written, answer) = oneshot::channel();
        let _ = self.events.send(Note { event, written: Some(written) });
        answer.await.map_err(|_| stopped())
    }

    /// Returns some time after the run is stopped. Steps end by themselves then; this is for those that hang.
    async fn stopped_for_long(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    }

    fn mark_ended(&self, job: usize, end: Ended) {
        if let Some(ended) = self.ended.get(job) {
            ended.send_replace(Some(end));
        }
        self.removals.ends(job, end == Ended::Failed);
    }

    /// Waits until the jobs have ended, well or badly.
    async fn wait_for(&self, jobs: &[usize]) {
        for &job in jobs {
            if let Some(ended) = self.ended.get(job) {
                // The sender lives in `self`, so waiting cannot fail.
                let _ = ended.subscribe().wait_for(Option::is_some).await;
            }
        }
    }

    async fn job(&self, index: usize, job: PlannedJob) {
        let mut voice = self.tables.voice();
        if job.file.kind != JobKind::Feature || job.action != Some(Action::Publish) || !job.after.is_empty() {
            // Before it waits for anybody: a job that waits in silence would be waited for by those it waits for.
            voice.loads_nothing();
            voice.swapped();
        }
        self.wait_for(&job.after).await;
        if !job.after.is_empty() {
            self.removals.begins();
        }
        let work = async {
            // A kill must not leave a changed world behind an earlier success of the same content.
            self.write(Event::JobStarted { job: index }).await?;
            #[cfg(test)]
            assert!(job.attempts > 0 || job.file.stem != CRASHES_ONCE, "as the test wants it");
            match job.work {
                Work::Invalid(error) => Err(error),
                Work::Superseded(why) => Ok(JobEnd::Superseded(why)),
                Work::Run(document) => {
                    let replaced = self.superseded(&job.replaced_by)?;
                    let ended = self.ended_with(&job.replaced_by, Ended::Succeeded);
                    match self.superseded(&job.unless)?.or(replaced.filter(|_| ended.is_none())) {
                        Some(end) => Ok(end),
                        None => {
                            let replaced_by = ended.or(job.replaced_before.as_deref());
                            let (file, content_md5) = (&job.file, job.content_md5.as_str());
                            let ctx = Ctx { run: self, job: index, file, content_md5, replaced_by };
                            Box::pin(ctx.document(*document, &mut voice)).await
                        }
                    }
                }
            }
        };
        let end = tokio::select! {
            biased;
            end = work => end,
            () = self.stopped_for_long() => Err(stopped()),
        };
        let end = end.unwrap_or_else(JobEnd::Failed);
        if let Some(shown) = Shown::by(&job.file) {
            let mut waiting = self.waiting_layers.lock().unwrap_or_else(PoisonError::into_inner);
            match end {
                JobEnd::Waiting(_) => waiting.insert(shown),
                _ => waiting.remove(&shown),
            };
        }
        let ended = Ended::from(&end);
        self.emit(Event::JobEnded { job: index, end });
        self.mark_ended(index, ended);
    }

    /// The file of one of these jobs that has ended so.
    fn ended_with<'p>(&self, jobs: &'p [(usize, String)], wanted: Ended) -> Option<&'p str> {
        let mut ends = jobs.iter().filter(|(job, _)| self.ended.get(*job).is_some());
        ends.find(|(job, _)| *self.ended[*job].borrow() == Some(wanted)).map(|(_, path)| path.as_str())
    }

    /// How a removal ends because of jobs that publish the same and have ended; none when they are all
    /// refused by the filters, so that it is to be carried out.
    fn superseded(&self, publications: &[(usize, String)]) -> Result<Option<JobEnd>> {
        let ended = |wanted| self.ended_with(publications, wanted);
        if let Some(path) = ended(Ended::Succeeded) {
            return Ok(Some(JobEnd::Superseded(crate::plan::superseded_by(path))));
        }
        if let Some(path) = ended(Ended::Failed) {
            return Err(Error::new(
                ErrorKind::Dependency,
                format!("{path} publishes the same name and has failed, so that this is not to go yet"),
            )
            .hint("mend that job; this one follows with the next run"));
        }
        Ok(ended(Ended::Waiting).map(|path| {
            JobEnd::Waiting(format!("{path} publishes the same name and is left for later; this follows with it"))
        }))
    }
}

/// The end of a job that went well.
fn succeeded(notes: &[String]) -> JobEnd {
    JobEnd::Succeeded((!notes.is_empty()).then(|| notes.join("; ")))
}

/// A fault of this program in one job; the others go on.
fn crashed(job_file: &str, panic: JoinError) -> Error {
    let said = panic.try_into_panic().ok().and_then(|said| {
        let text = said.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| said.downcast_ref::<String>().cloned())
    });
    Error::new(ErrorKind::Bug, "internal error: the job crashed")
        .subject(job_file)
        .source(said.unwrap_or_else(|| "it did not say why".to_owned()))
        .hint("this is a fault of borg-slave: report it with this message and what stands before it in the log; other jobs are not affected, and the next run tries again")
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the run was asked to stop before the job was finished")
}

impl Ctx<'_> {
    /// Completes a document with its metadata, asks the filter, and runs the job.
    async fn document(&self, document: Document, voice: &mut tables::Voice<'_>) -> Result<JobEnd> {
        if let Some(setting) = left_out_by(&self.run.parts.choices.skip, self.file, document.action().as_str()) {
            return Ok(JobEnd::Waiting(format!("{setting} is set; the first run without it does the job")));
        }
        if document.action() == Action::Remove && self.run.background.never_taken.contains(&self.file.path) {
            // Whoever made what bears its name, it was not this job.
            return Ok(JobEnd::Filtered("the filters have never taken it: nothing is removed".to_owned()));
        }
        if let Some(end) = self.removed_before(&document).await? {
            return Ok(end);
        }
        let complete = self.complete(document).await?;
        self.run.emit(Event::JobKnown { job: self.job, about: JobAbout::of(&complete.job) });
        if complete.action == Action::EmptyGwc && complete.only_names {
            // The filters would miss what they ask for: what they said of the layer holds for its tiles.
            if Shown::named(self.file.kind, &self.file.stem).is_some_and(|shown| self.is_filtered(&shown)) {
                let reason = "the filters do not take its layer, so that there are no tiles to empty";
                return Ok(JobEnd::Filtered(reason.to_owned()));
            }
        } else if complete.action != Action::Remove {
            // What is to go must go, even if the filter has changed since it came.
            if let Verdict::Refused { reason } = self.run.parts.filters.accepts(self.file.kind, &complete.facts)? {
                // Before the job's voice is heard, so that whoever waits for its table finds it here.
                self.leave_out();
                return Ok(JobEnd::Filtered(reason));
            }
            self.take();
        }
        match complete.job {
            Job::Feature(job) => Box::pin(self.publish_feature(&job, voice)).await,
            Job::FeatureRemoval(job) => Box::pin(self.remove_feature(&job)).await,
            Job::Workspace(job) => Box::pin(self.workspace(&job)).await,
            Job::WmsStore(job) => Box::pin(self.publish_wms_store(&job)).await,
            Job::WmsLayer(job) => Box::pin(self.publish_wms_layer(&job)).await,
            Job::LiveStore(job) => Box::pin(self.publish_live_store(&job)).await,
            Job::LiveLayer(job) => Box::pin(self.publish_live_layer(&job)).await,
            Job::LayerGroup(job) => Box::pin(self.publish_group(&job)).await,
            Job::Removal(job) => Box::pin(self.remove(&job)).await,
            Job::EmptyGwc(job) => Box::pin(self.empty_tiles(&job)).await,
            Job::AccessRules { content } => Box::pin(self.access_rules(&content)).await,
            Job::Auth { sql } => Box::pin(self.roles(&sql)).await,
        }
    }

    /// Tells one publication from another: masters need not give a `job_id` to what is no feature.
    fn publication(&self, job_id: Option<i64>) -> String {
        job_id.map_or_else(|| self.content_md5.to_owned(), |id| id.to_string())
    }

    /// Tells the other jobs that this slave does not take what this one is about.
    fn leave_out(&self) {
        if let Some(shown) = Shown::by(self.file) {
            self.run.filtered_layers.lock().unwrap_or_else(PoisonError::into_inner).insert(shown);
        }
    }

    /// Tells the other jobs that this slave takes what this one is about, whatever was before.
    fn take(&self) {
        if let Some(shown) = Shown::by(self.file) {
            self.run.filtered_layers.lock().unwrap_or_else(PoisonError::into_inner).remove(&shown);
        }
    }

    /// Waits for the jobs of this pass that set access rules: what they protect must not be made before.
    async fn after_rules(&self) {
        self.run.wait_for(&self.run.rules_jobs).await;
    }

    /// Performs one step: tells when it begins, how it ends, and how long it took.
    ///
    /// The work is boxed, because all jobs of a pass are in memory and few are at any one step.
    async fn step<T>(
        &self,
        step: Step,
        target: Option<&str>,
        work: Pin<Box<impl Future<Output = Result<Stepped<T>>>>>,
    ) -> Result<T> {
        if self.run.stop.is_cancelled() {
            return Err(stopped());
        }
        let (job, target) = (self.job, target.map(str::to_owned));
        let (started, clock) = (Timestamp::now(), Instant::now());
        self.run.emit(Event::StepStarted { job, step, target: target.clone() });
        let result = work.await;
        let (end, message, outcome) = match result {
            Ok((value, end, message)) => (end, message, Ok(value)),
            Err(error) => (StepEnd::Failed, Some(error.one_line()), Err(error)),
        };
        let took = clock.elapsed();
        self.run.emit(Event::StepEnded { job, step, target, end, message, started, took });
        outcome
    }
}
