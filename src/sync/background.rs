//! What earlier runs and the repository's tip tell a pass.

use std::collections::{HashMap, HashSet};

use super::range::read;
use crate::config::Settings;
use crate::error::Result;
use crate::execute::{self, Background, Facts};
use crate::job::{self, Action, JobFile, JobKind};
use crate::journal::{Journal, State, StepRecord};
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
    again: bool,
) -> Result<Background> {
    let mut finished = HashMap::new();
    let known = journal.digest()?;
    for job in &plan.jobs {
        // What succeeded and runs nevertheless has to be done anew, everywhere.
        let same = known.get(&job.file.path).is_some_and(|known| {
            known.content_md5 == job.content_md5 && known.action == job.action_name() && known.state != State::Succeeded
        });
        if same
            && !again
            && let Some(record) = journal.job(&job.file.path)?
        {
            finished.insert(job.file.path.clone(), finished_targets(job.file.kind, job.action, &record.steps));
        }
    }
    let filtered_layers = known
        .iter()
        .filter(|(_, known)| known.state == State::Filtered)
        .filter_map(|(path, _)| job::classify(path, &settings.channels))
        .map(|file| file.stem)
        .collect();
    let files: Vec<JobFile> =
        repository.files(tip).await?.iter().filter_map(|path| job::classify(path, &settings.channels)).collect();
    let markers = journal.markers()?;
    let reload_due = markers.iter().filter(|((target, _), _)| target == execute::RELOAD);
    let reload_due = reload_due.map(|((_, server), _)| server.clone()).collect();
    Ok(Background {
        facts: Facts::new(markers),
        finished_targets: finished,
        workspace_levels: workspace_levels(repository, tip, &files).await?,
        filtered_layers,
        reload_due,
        access_rules: access_rules(repository, tip, &files).await?,
    })
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

/// The targets on which an earlier try of the same job did everything: it came to the last step, and none
/// on the way has failed, as a style may without holding up what follows.
fn finished_targets(kind: JobKind, action: Option<Action>, steps: &[StepRecord]) -> HashSet<String> {
    let last = execute::last_step(kind, action).as_str();
    let mut finished = HashSet::new();
    for target in steps.iter().filter_map(|step| step.target.as_ref()) {
        let mut there = steps.iter().filter(|step| step.target.as_ref() == Some(target));
        if there.clone().any(|step| step.step == last) && there.all(|step| step.outcome.is_success()) {
            finished.insert(target.clone());
        }
    }
    finished
}
