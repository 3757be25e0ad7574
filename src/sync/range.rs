//! What a pass has to do: the job files of a range of revisions, and those that earlier runs left.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::coverage::Coverage;
use super::lost::{self, Lost};
use super::standing::Standing;
use super::{Prepared, Request};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::{self, Shown};
use crate::job::{self, JobFile, JobKind};
use crate::journal::{Journal, Known, State};
use crate::plan::{self, Again, Candidate, Patience};
use crate::state_repo::{ChangeKind, Revision, StateRepo};

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
    if let (Some(cursor), true) = (&cursor, is_asked_to_stop_early(request))
        && to != *cursor
        && repository.is_ancestor(&to, cursor).await?
    {
        tracing::warn!(to = %to, applied = %cursor, "this is applied already, and more: nothing is done");
        return Ok(Prepared::nothing(cursor));
    }
    if let Some(applied) = noted.as_ref().filter(|_| to.is_null() && request.files.is_empty())
        && !cursor.as_ref().is_some_and(Revision::is_null)
    {
        return Err(lost::empty_clone(repository.root(), applied));
    }
    let from = match (&request.from, &cursor, &request.begin) {
        (Some(name), _, _) => named_revision(repository, "--from", name).await?,
        (None, Some(cursor), _) => repository.fork_point(cursor, &to).await?,
        (None, None, Some(begin)) => begin.clone(),
        (None, None, None) => Revision::null(),
    };
    if noted.is_none() && !from.is_null() && request.from.is_none() {
        tracing::warn!(
            from = %from,
            "nothing is known to be applied yet: only the new changesets are; `borg-slave sync --from null` applies what was in the clone before"
        );
    }
    let touched = journal.map(Journal::touched_since_cursor).transpose()?.unwrap_or_default();
    // The changesets that were applied are gone again: any job may be of one of them.
    let lost = noted.as_deref().filter(|_| cursor.is_none()).map(|applied| Lost::of(applied, request, &from));
    let all_in_doubt = lost.as_ref().is_some_and(Lost::puts_all_in_doubt);
    // Where nothing has changed, only what is unfinished matters, however many jobs are known.
    let coverage = Coverage::read(settings, journal)?;
    let standing = journal.map(|journal| Standing::read(settings, journal)).transpose()?.unwrap_or_default();
    let new_channels = if request.from.is_none() { standing.new_channels() } else { BTreeSet::new() };
    let nothing_new = request.files.is_empty()
        && from == to
        && touched.is_empty()
        && lost.is_none()
        && new_channels.is_empty()
        && !standing.filters_differ()
        && !coverage.is_pending();
    let mut known = match journal {
        Some(journal) if nothing_new => journal.unfinished()?,
        Some(journal) => journal.digest()?,
        None => HashMap::new(),
    };
    let (mut candidates, again) = if request.files.is_empty() {
        let mut candidates = changed_files(settings, repository, &from, &to).await?;
        candidates.extend(files_of_channels(settings, repository, &to, &new_channels, &candidates).await?);
        let mut more = left_over(settings, &known, request, standing.filters_differ(), &candidates);
        let is_of_new_channel =
            |path: &&String| path.split_once('/').is_some_and(|(channel, _)| new_channels.contains(channel));
        let mut in_doubt: Vec<String> = known.keys().filter(is_of_new_channel).cloned().collect();
        if all_in_doubt {
            in_doubt.extend(known.keys().cloned());
        } else {
            in_doubt.extend(touched);
        }
        let others: BTreeSet<&str> = more.iter().chain(&in_doubt).map(String::as_str).collect();
        let anew = done_anew(settings, repository, journal, &to, &candidates, &others).await?;
        // Their success is not the last word.
        known.retain(|path, known| {
            let is_lacking = known.state == State::Succeeded && coverage.lacking().contains(path);
            !is_lacking && !anew.contains(path)
        });
        more.extend(anew);
        more.extend(coverage.lacking().iter().cloned());
        let in_range: HashSet<String> = candidates.iter().map(|candidate| candidate.file.path.clone()).collect();
        more.extend(in_doubt);
        more.retain(|path| !in_range.contains(path.as_str()));
        if from == to && request.from.is_none() && lost.is_none() {
            leave_refused_pulls(repository, journal, &mut more).await?;
        }
        let (mut again, by_name) = named_again(settings, repository, journal, &to, &more).await?;
        if let Some(lost) = &lost {
            let here = candidates.iter().chain(&again).filter(|candidate| !candidate.deleted);
            let mut known_ones = here.filter(|candidate| known.contains_key(&candidate.file.path));
            let knows_others = known_ones.any(|candidate| lost::can_be_removed(&candidate.file));
            lost.check(repository.root(), &by_name, knows_others)?;
            if !all_in_doubt {
                again.retain(|candidate| !by_name.contains(&candidate.file.path));
            }
        }
        add_newer_metadata(settings, repository, &to, &mut again).await?;
        again.retain(|candidate| !in_range.contains(candidate.file.path.as_str()));
        candidates.extend(again);
        (candidates, Again::Never)
    } else {
        let mut named = named_files(settings, repository, &to, &request.files).await?;
        add_newer_metadata(settings, repository, &to, &mut named).await?;
        (named, Again::Always)
    };
    if !settings.include.is_empty() {
        candidates.retain(|candidate| settings.include.contains(&candidate.file.path));
    }
    if candidates.iter().any(|candidate| candidate.deleted) {
        // Whether a layer goes depends on what the other channels publish.
        if let Some(journal) = journal.filter(|_| nothing_new) {
            known = journal.digest()?;
        }
        // What nobody listens to any more keeps no layer.
        known.retain(|path, _| job::classify(path, &settings.channels).is_some());
    }
    let mut plan = plan::plan(candidates, &known, again);
    if let Some(patience) = &request.patience {
        let settings_stand = patience.settings_stand && !standing.filters_differ();
        let patience = Patience { settings_stand, ..patience.clone() };
        plan.postpone(&known, &patience, jiff::Timestamp::now());
    }
    let whole = request.files.is_empty() && settings.include.is_empty();
    let moves_cursor = whole && reaches_on(request, &from, cursor.as_ref()) && cursor.as_ref() != Some(&to);
    let mut loose_ends = false;
    if let Some(journal) = journal
        && !request.patience.as_ref().is_some_and(|patience| patience.leave_loose_ends)
    {
        for target in execute::loose_ends(settings) {
            loose_ends |= journal.has_markers(target)?;
        }
        if !settings.skip.gs {
            let now = jiff::Timestamp::now();
            let previews = journal.marker_values(execute::PREVIEWS)?;
            loose_ends |= previews.iter().any(|value| execute::preview_is_due(value, now));
        }
    }
    let is_whole = whole && request.from.is_none();
    Ok(Prepared { from, to, plan, moves_cursor, loose_ends, coverage, standing, is_whole })
}

/// Whether somebody has named where to stop. `pre-receive` names what the branch becomes, which may lie behind
/// what is applied: then the master takes changesets back.
fn is_asked_to_stop_early(request: &Request) -> bool {
    request.to.is_some() && request.from.is_none() && request.begin.is_none()
}

/// Whether everything up to `to` is applied when the jobs of the range are.
fn reaches_on(request: &Request, from: &Revision, cursor: Option<&Revision>) -> bool {
    match (&request.from, cursor) {
        (None, _) => true,
        // What came before it was never applied; from null, that is nothing.
        (Some(_), None) => from.is_null(),
        // What was added and taken away again after an earlier one is not seen from there.
        (Some(_), Some(cursor)) => from == cursor,
    }
}

/// The job files of channels that are listened to from now on, but for those in the range.
async fn files_of_channels(
    settings: &Settings,
    repository: &mut StateRepo,
    to: &Revision,
    channels: &BTreeSet<&str>,
    in_range: &[Candidate],
) -> Result<Vec<Candidate>> {
    if channels.is_empty() {
        return Ok(Vec::new());
    }
    let in_range: HashSet<&str> = in_range.iter().map(|candidate| candidate.file.path.as_str()).collect();
    let files = repository.files(to).await?;
    let files = files.iter().filter(|path| !in_range.contains(path.as_str()));
    let files: Vec<_> = files
        .filter_map(|path| job::classify(path, &settings.channels))
        .filter(|file| file.channel.as_deref().is_some_and(|channel| channels.contains(channel)))
        .collect();
    let names = channels.iter().copied().collect::<Vec<_>>().join(", ");
    tracing::info!(channels = names, jobs = files.len(), "new in LISTEN_CHANNELS: all that is there is taken");
    read(repository, to, files, false).await
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

pub(super) async fn read(
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

/// Leaves out the jobs of pulls that were refused: their changesets are not here, but normally come again with
/// the next pull. To bring back what was before would take away what readers see already.
async fn leave_refused_pulls(
    repository: &mut StateRepo,
    journal: Option<&Journal>,
    paths: &mut BTreeSet<String>,
) -> Result<()> {
    let Some(journal) = journal else { return Ok(()) };
    let mut is_here: HashMap<String, bool> = HashMap::new();
    let mut refused = Vec::new();
    for path in paths.iter() {
        let Some(record) = journal.job(path)? else { continue };
        let here = match is_here.get(&record.revision) {
            Some(here) => *here,
            None => {
                let here = repository.resolve(&record.revision).await?.is_some();
                is_here.insert(record.revision, here);
                here
            }
        };
        if !here {
            refused.push(path.clone());
        }
    }
    if !refused.is_empty() {
        tracing::warn!(
            jobs = refused.len(),
            "jobs of a pull that was refused are left as they are: pull again to go on with them, or name a range with --from to go back behind them"
        );
        paths.retain(|path| !refused.contains(path));
    }
    Ok(())
}

/// Adds the metadata files of layers that are published again. A master deletes a layer's `.meta.json` when
/// it publishes the layer: one that stands beside the job file is newer and must have the last word.
async fn add_newer_metadata(
    settings: &Settings,
    repository: &mut StateRepo,
    tip: &Revision,
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    let there: HashSet<&str> = candidates.iter().map(|candidate| candidate.file.path.as_str()).collect();
    let layers = candidates.iter().filter(|candidate| {
        candidate.file.kind == JobKind::Feature && candidate.file.companion.is_none() && !candidate.deleted
    });
    let paths: Vec<String> = layers
        .filter_map(|candidate| Some(format!("{}.meta.json", candidate.file.path.strip_suffix(".json")?)))
        .filter(|path| !there.contains(path.as_str()))
        .collect();
    if paths.is_empty() {
        return Ok(());
    }
    let contents = repository.contents(tip, &paths).await?;
    for (path, content) in paths.iter().zip(contents) {
        if let (Some(file), Some(content)) = (job::classify(path, &settings.channels), content) {
            candidates.push(Candidate { file, deleted: false, content, revision: tip.as_str().to_owned() });
        }
    }
    Ok(())
}

/// Job files that the range does not hold but that are still to be done: interrupted ones, failed
/// ones when asked for, and those that the settings left out and no longer do.
fn left_over(
    settings: &Settings,
    known: &HashMap<String, Known>,
    request: &Request,
    filters_differ: bool,
    candidates: &[Candidate],
) -> BTreeSet<String> {
    let in_range: HashSet<&str> = candidates.iter().map(|candidate| candidate.file.path.as_str()).collect();
    known
        .iter()
        .filter(|(path, known)| match known.state {
            // A run that retried an old job may have been killed: no new change would bring it up again.
            State::Running | State::Interrupted | State::Forgotten => true,
            State::Failed => request.retry_failed,
            State::Waiting => job::classify(path, &settings.channels)
                .is_some_and(|file| execute::left_out_by(&settings.skip, &file, &known.action).is_none()),
            State::Filtered => filters_differ,
            State::Succeeded => false,
        } && !in_range.contains(path.as_str()))
        .map(|(path, _)| path.clone())
        .collect()
}

/// Jobs that are done anew because of what these candidates, and the `others` that the range does not hold, bring:
/// groups that were published without one of them or have lost it since, and the access rules of the other channels
/// when those of one are gone.
async fn done_anew(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: Option<&Journal>,
    tip: &Revision,
    candidates: &[Candidate],
    others: &BTreeSet<&str>,
) -> Result<BTreeSet<String>> {
    let mut anew = BTreeSet::new();
    if candidates.iter().any(|candidate| candidate.deleted && candidate.file.kind == JobKind::AccessRules) {
        let files = repository.files(tip).await?;
        anew.extend(files.into_iter().filter(|path| {
            job::classify(path, &settings.channels).is_some_and(|file| file.kind == JobKind::AccessRules)
        }));
    }
    let Some(journal) = journal else { return Ok(anew) };
    if candidates.is_empty() && others.is_empty() {
        return Ok(anew);
    }
    if !journal.has_markers(execute::INCOMPLETE_GROUPS)? && !journal.has_markers(execute::LEFT_GROUPS)? {
        return Ok(anew);
    }
    let published = candidates.iter().filter(|candidate| !candidate.deleted).map(|candidate| candidate.file.clone());
    // What was left out may be taken now, and what a refused pull has removed may be here again.
    let files = repository.files(tip).await?;
    let here = files.iter().filter(|path| others.contains(path.as_str()));
    let here = here.filter_map(|path| job::classify(path, &settings.channels));
    let stems: HashSet<String> = published.chain(here).filter(is_shown).map(|file| file.stem).collect();
    for ((target, key), members) in journal.markers()? {
        if !members.split(',').any(|member| stems.contains(member)) {
            continue;
        }
        if target == execute::INCOMPLETE_GROUPS {
            anew.insert(key);
        } else if target == execute::LEFT_GROUPS
            && let Some((job_file, _)) = key.rsplit_once('/')
            && files.iter().any(|path| path == job_file)
        {
            anew.insert(job_file.to_owned());
        }
    }
    Ok(anew)
}

/// Whether a layer group may hold what the file publishes.
fn is_shown(file: &JobFile) -> bool {
    Shown::by(file).is_some()
}

/// Reads jobs again that the journal knows: at the tip, or, if they were deleted, where they last were. Returns
/// also which of them are to be removed although nothing tells so but that the tip has no such file.
async fn named_again(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: Option<&Journal>,
    tip: &Revision,
    paths: &BTreeSet<String>,
) -> Result<(Vec<Candidate>, Vec<String>)> {
    let files: Vec<_> = paths.iter().filter_map(|path| job::classify(path, &settings.channels)).collect();
    let (mut candidates, mut by_name) = (Vec::new(), Vec::new());
    // A clone without changesets says nothing of what is to go.
    if files.is_empty() || tip.is_null() {
        return Ok((candidates, by_name));
    }
    let wanted: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let contents = repository.contents(tip, &wanted).await?;
    for (file, content) in files.into_iter().zip(contents) {
        if let Some(content) = content {
            candidates.push(Candidate { file, deleted: false, content, revision: tip.as_str().to_owned() });
            continue;
        }
        let record = journal.map(|journal| journal.job(&file.path)).transpose()?.flatten();
        let Some(record) = record else { continue };
        match repository.resolve(&record.revision).await? {
            Some(revision) => candidates.extend(read(repository, &revision, vec![file], true).await?),
            None if record.action == job::Action::Remove.as_str() || lost::was_never_taken(&record) => {}
            // Rolled back with its pull; what is to go follows from the file's name.
            None => {
                if lost::can_be_removed(&file) {
                    by_name.push(file.path.clone());
                }
                candidates.push(Candidate { file, deleted: true, content: Vec::new(), revision: record.revision });
            }
        }
    }
    Ok((candidates, by_name))
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

#[cfg(test)]
mod tests;
