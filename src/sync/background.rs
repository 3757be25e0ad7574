//! What earlier runs and the repository's tip tell a pass.

use std::collections::{HashMap, HashSet};

use super::coverage::Coverage;
use super::lost::was_never_taken;
use super::range::read;
use crate::config::Settings;
use crate::error::Result;
use crate::execute::{self, Background, Facts, Shown};
use crate::job::{self, Action, JobFile, JobKind};
use crate::journal::{Journal, Known, State};
use crate::plan::{Candidate, Plan};
use crate::state_repo::{Revision, StateRepo};

/// Gathers what the jobs of `plan` need to know before they start.
///
/// # Errors
///
/// When the journal or the repository cannot be read.
pub(super) async fn background(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: &Journal,
    tip: &Revision,
    plan: &Plan,
    coverage: &Coverage,
    again: bool,
) -> Result<Background> {
    let mut finished = HashMap::new();
    let mut removed_before = HashSet::new();
    let known = journal.digest()?;
    for job in &plan.jobs {
        // What succeeded everywhere and runs nevertheless has to be done anew, everywhere.
        let resumes = known.get(&job.file.path).is_some_and(|known| {
            known.content_md5 == job.content_md5
                && known.action == job.action_name()
                && (known.state != State::Succeeded || coverage.lacking().contains(&job.file.path))
        });
        if resumes
            && !again
            && let Some(record) = journal.job(&job.file.path)?
        {
            finished.insert(job.file.path.clone(), coverage.finished(&record, job.file.kind));
            if coverage.is_removed_elsewhere(&record, job.file.kind) {
                removed_before.insert(job.file.path.clone());
            }
        }
    }
    let mut never_taken = HashSet::new();
    for job in plan.jobs.iter().filter(|job| job.action == Some(Action::Remove)) {
        if known.get(&job.file.path).is_some_and(|known| known.state == State::Filtered)
            && journal.job(&job.file.path)?.is_some_and(|record| was_never_taken(&record))
        {
            never_taken.insert(job.file.path.clone());
        }
    }
    follow_publications(plan, &mut finished);
    let layers_in = |state: State| {
        let in_state = known.iter().filter(move |(_, known)| known.state == state);
        let files = in_state.filter_map(|(path, _)| job::classify(path, &settings.channels));
        files.filter_map(|file| Shown::by(&file)).collect()
    };
    let files: Vec<JobFile> =
        repository.files(tip).await?.iter().filter_map(|path| job::classify(path, &settings.channels)).collect();
    let markers = journal.markers()?;
    let reload_due = markers.iter().filter(|((target, _), _)| target == execute::RELOAD);
    let reload_due = reload_due.map(|((_, server), _)| server.clone()).collect();
    let mut group_files: HashMap<String, Vec<String>> = HashMap::new();
    for file in files.iter().filter(|file| file.kind == JobKind::LayerGroup && file.companion.is_none()) {
        group_files.entry(file.stem.clone()).or_default().push(file.path.clone());
    }
    Ok(Background {
        facts: Facts::new(markers),
        finished_targets: finished,
        workspace_levels: workspace_levels(repository, tip, &files).await?,
        removed_before,
        replaces: replacing(plan, &files, &known, &never_taken, (settings, journal))?,
        filtered_layers: layers_in(State::Filtered),
        waiting_layers: layers_in(State::Waiting),
        never_taken,
        reload_due,
        group_files,
        access_rules: access_rules(repository, tip, &files).await?,
    })
}

/// The job files whose layers take the place of those of another kind: the slave has made one by the same name, or
/// is not done with taking it away, and the tip has it no longer. What the filters have never let in is somebody else's.
fn replacing(
    plan: &Plan,
    tip: &[JobFile],
    known: &HashMap<String, Known>,
    never_taken: &HashSet<String>,
    (settings, journal): (&Settings, &Journal),
) -> Result<HashSet<String>> {
    let publications = plan.jobs.iter().filter(|job| job.action == Some(Action::Publish)).map(|job| &job.file);
    let publications: Vec<&JobFile> =
        publications.filter(|file| matches!(Shown::by(file), Some(Shown::Layer(_)))).collect();
    let names: HashSet<&str> = publications.iter().map(|file| file.stem.as_str()).collect();
    let stays: HashSet<(JobKind, &str)> =
        tip.iter().filter(|file| file.companion.is_none()).map(|file| (file.kind, file.stem.as_str())).collect();
    let removals = plan.jobs.iter().filter(|job| job.action == Some(Action::Remove)).map(|job| &job.file.path);
    let removals: HashSet<&String> = removals.filter(|path| !never_taken.contains(*path)).collect();
    let mut going: HashMap<String, Vec<JobKind>> = HashMap::new();
    for path in known.keys().chain(removals.iter().copied()) {
        let Some(file) = job::classify(path, &settings.channels) else { continue };
        if !names.contains(file.stem.as_str())
            || stays.contains(&(file.kind, &file.stem))
            || !matches!(Shown::by(&file), Some(Shown::Layer(_)))
        {
            continue;
        }
        let is_there = match known.get(path) {
            _ if removals.contains(path) => true,
            Some(known) if known.state == State::Filtered => {
                !journal.job(path)?.is_some_and(|record| was_never_taken(&record))
            }
            Some(known) => known.action != Action::Remove.as_str() || known.state != State::Succeeded,
            None => false,
        };
        if is_there {
            going.entry(file.stem).or_default().push(file.kind);
        }
    }
    let is_another =
        |file: &&JobFile| going.get(&file.stem).is_some_and(|kinds| kinds.iter().any(|&kind| kind != file.kind));
    Ok(publications.into_iter().filter(is_another).map(|file| file.path.clone()).collect())
}

/// The access rules of the channels.
async fn access_rules(repository: &mut StateRepo, tip: &Revision, files: &[JobFile]) -> Result<Vec<(String, String)>> {
    let files = files.iter().filter(|file| file.kind == JobKind::AccessRules).cloned().collect();
    let text = |candidate: Candidate| (candidate.file.path, String::from_utf8_lossy(&candidate.content).into_owned());
    Ok(read(repository, tip, files, false).await?.into_iter().map(text).collect())
}

/// The access levels that the workspaces' own documents give; they decide over what layers say.
async fn workspace_levels(
    repository: &mut StateRepo,
    tip: &Revision,
    files: &[JobFile],
) -> Result<HashMap<String, job::AuthLevel>> {
    let files = files.iter().filter(|file| file.kind == JobKind::Workspace).cloned().collect();
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

/// Newer metadata must have the last word wherever their layer is published again.
fn follow_publications(plan: &Plan, finished: &mut HashMap<String, HashSet<String>>) {
    let published = plan.jobs.iter().filter(|job| job.action == Some(Action::Publish));
    for layer in published.filter(|job| job.file.kind == JobKind::Feature) {
        let done = finished.get(&layer.file.path).cloned().unwrap_or_default();
        let metadata = plan.jobs.iter().filter(|job| {
            job.action == Some(Action::Meta) && job.file.kind == layer.file.kind && job.file.stem == layer.file.stem
        });
        for job in metadata {
            if let Some(finished) = finished.get_mut(&job.file.path) {
                finished.retain(|target| done.contains(target));
            }
        }
    }
}
