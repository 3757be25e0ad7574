//! Takes over what the Python slave knew of its jobs (its `.sync_status` folder).
//!
//! # What the status files are worth
//!
//! The Python slave worked in Mercurial's hook and wrote its statuses whether or not the pull was then
//! rolled back. So a status may be about content that is at the tip, about newer content whose pull was
//! rolled back, or about older content. The journal identifies work by the MD5 of the job file and its
//! action, as the status files do: whatever succeeded is recorded under the content that it was, and is
//! recognised if that content is at the tip or comes back with a pull.
//!
//! Only when every job file of the tip is known as done does the cursor go to the tip. Otherwise it is set before
//! the first changeset: the next pass, a pull's too, looks at everything and does what is not known as done.

mod status_file;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use self::status_file::PythonStatus;
use super::coverage::Coverage;
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result, io_error};
use crate::job::{self, Action, JobFile, JobKind, Parsed};
use crate::journal::{JobOutcome, Journal, Known, NewJob, State};
use crate::plan::hex_md5;
use crate::state_repo::{Revision, StateRepo};

/// What becomes of one job file or status file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Known as done from now on: the tip holds what the Python slave applied.
    Taken,
    /// The Python slave applied other content than the tip's: what it applied is recorded, the tip's
    /// content runs unless a pull brings what was applied.
    Changed,
    /// The Python slave failed; the text says why.
    Failed(String),
    /// The Python slave said "succeeded" but did not do it; the text says what it left out.
    NotDone(&'static str),
    /// A job file of the tip that the Python slave wrote nothing about: filtered, or never met.
    NotRecorded,
    /// A removal that was applied, or an auxiliary file that has been deleted since.
    Past,
    /// Applied, but the tip has no such file: its pull was rolled back, or its removal is not on record.
    NotAtTip,
    /// The journal knows the job already, and better.
    Known,
    /// Not about a job of a channel that this slave listens to.
    Foreign,
    /// The status file cannot be read; the text says why. Its job runs.
    Unreadable(String),
}

/// What importing comes to.
#[derive(Debug)]
pub struct Takeover {
    /// What becomes of each status file and of each job file of the tip, by path.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Every job of the tip is known as done.
    pub complete: bool,
    /// What the journal is to know of each job.
    records: Vec<(NewJob, JobOutcome)>,
    cursor: Option<Revision>,
    /// The Python slave did what it did on what the settings name.
    coverage: Coverage,
}

/// What a job file of the tip asks for.
struct AtTip {
    md5: String,
    action: Option<Action>,
    /// A group that holds feature layers.
    groups_features: bool,
}

/// Finds out what can be taken over from `dir`; changes nothing.
///
/// # Errors
///
/// [`ErrorKind::Usage`] when `dir` is no folder or holds no status file; otherwise when the folder, the
/// repository or the journal cannot be read.
pub async fn prepare(
    settings: &Settings,
    repository: &mut StateRepo,
    journal: Option<&Journal>,
    dir: &Path,
) -> Result<Takeover> {
    let mut verdicts = BTreeMap::new();
    let statuses = read_folder(dir, &mut verdicts)?;
    if statuses.is_empty() && !verdicts.values().any(|verdict| matches!(verdict, Verdict::Unreadable(_))) {
        return Err(Error::new(ErrorKind::Usage, "the folder holds no status file of the Python slave")
            .subject(dir.display().to_string())
            .hint("name the folder that it kept them in: `.sync_status` beside its code, or what its SYNC_STATUS_PATH says; it has a folder for each channel, such as `geoserver/layers`"));
    }
    let tip = repository.tip().await?;
    let at_tip = job_files_of(settings, repository, &tip).await?;
    let known = journal.map(Journal::digest).transpose()?.unwrap_or_default();
    let mut records = Vec::new();
    for (path, status) in &statuses {
        let Some(file) = job::classify(path, &settings.channels) else {
            verdicts.insert(path.clone(), Verdict::Foreign);
            continue;
        };
        if known.contains_key(path) {
            verdicts.insert(path.clone(), Verdict::Known);
            continue;
        }
        let (verdict, record) = judge(&file, status, at_tip.get(path), &tip);
        verdicts.insert(path.clone(), verdict);
        records.extend(record);
    }
    let mut complete = true;
    let mut overlooked = false;
    for (path, job) in &at_tip {
        let is_known = known.get(path).is_some_and(|known| is_done(known, job));
        if !is_known && verdicts.get(path) != Some(&Verdict::Taken) {
            complete = false;
            overlooked |= !known.contains_key(path);
            verdicts.entry(path.clone()).or_insert(Verdict::NotRecorded);
        }
    }
    let cursor = match journal.map(Journal::cursor).transpose()?.flatten() {
        None if complete => Some(tip),
        None => Some(Revision::null()),
        // The journal counts these as applied, and nobody has ever looked at them.
        Some(_) if overlooked => Some(Revision::null()),
        Some(_) => None,
    };
    Ok(Takeover { verdicts, complete, records, cursor, coverage: Coverage::read(settings, journal)? })
}

impl Takeover {
    /// Writes into the journal what was found. The caller holds the run lock.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written.
    pub fn record(&self, journal: &Journal) -> Result<()> {
        self.coverage.begin(journal)?;
        journal.settle_jobs(&self.records)?;
        match &self.cursor {
            Some(cursor) => journal.set_cursor(cursor.as_str()),
            None => Ok(()),
        }
    }
}

/// What becomes of one status, and what the journal is to know of it.
fn judge(
    file: &JobFile,
    status: &PythonStatus,
    at_tip: Option<&AtTip>,
    tip: &Revision,
) -> (Verdict, Option<(NewJob, JobOutcome)>) {
    let record = |action: Action, state: State, message: String| {
        let job = NewJob {
            job_file: file.path.clone(),
            kind: file.kind.as_str(),
            action: action.as_str(),
            content_md5: status.md5.clone(),
            revision: tip.as_str().to_owned(),
            job_id: None,
            job_batch_id: None,
        };
        Some((job, JobOutcome { message: Some(message), ..JobOutcome::plain(state) }))
    };
    if let Some(left_out) = left_out(file.kind, at_tip) {
        return (Verdict::NotDone(left_out), None);
    }
    let same = at_tip.is_some_and(|job| {
        job.md5 == status.md5 && job.action.is_some() && (status.action.is_none() || status.action == job.action)
    });
    let action = status.action.or_else(|| at_tip.and_then(|job| job.action).filter(|_| same));
    if let Some(why) = &status.failure {
        let message = format!("the Python slave failed at it: {why}");
        let record = match action {
            Some(action) if same => record(action, State::Failed, message),
            // Nothing in the repository would bring it up again.
            Some(Action::Remove) if at_tip.is_none() => record(Action::Remove, State::Interrupted, message),
            _ => None,
        };
        return (Verdict::Failed(why.clone()), record);
    }
    let Some(action) = action else { return (Verdict::Changed, None) };
    let at = status.at.as_ref().map(|at| format!(" on {at}")).unwrap_or_default();
    let record = record(action, State::Succeeded, format!("applied by the Python slave{at}"));
    let verdict = match at_tip {
        Some(_) if same => Verdict::Taken,
        Some(_) => Verdict::Changed,
        None if action == Action::Remove || file.companion.is_some() => Verdict::Past,
        None => Verdict::NotAtTip,
    };
    (verdict, record)
}

/// What the Python slave reported as done without doing it.
fn left_out(kind: JobKind, at_tip: Option<&AtTip>) -> Option<&'static str> {
    match kind {
        JobKind::AccessRules => Some("the Python slave applied no access rules"),
        JobKind::Auth => Some("the Python slave applied no roles"),
        JobKind::LayerGroup if at_tip.is_some_and(|job| job.groups_features) => {
            Some("the Python slave left feature layers out of groups")
        }
        _ => None,
    }
}

fn is_done(known: &Known, job: &AtTip) -> bool {
    known.content_md5 == job.md5
        && Some(known.action.as_str()) == job.action.map(Action::as_str)
        && matches!(known.state, State::Succeeded | State::Filtered)
}

/// The jobs of the tip.
async fn job_files_of(
    settings: &Settings,
    repository: &mut StateRepo,
    tip: &Revision,
) -> Result<HashMap<String, AtTip>> {
    let files: Vec<JobFile> =
        repository.files(tip).await?.iter().filter_map(|path| job::classify(path, &settings.channels)).collect();
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let contents = repository.contents(tip, &paths).await?;
    let mut jobs = HashMap::new();
    for (file, content) in files.into_iter().zip(contents) {
        let content = content.unwrap_or_default();
        let action = match job::parse(&file, &content, false) {
            Ok(Parsed::Nothing { .. }) => continue,
            Ok(Parsed::Job(document)) => Some(document.action()),
            // It fails by name when it runs.
            Err(_) => None,
        };
        let groups_features = file.kind == JobKind::LayerGroup && has_feature_members(&content);
        jobs.insert(file.path, AtTip { md5: hex_md5(&content), action, groups_features });
    }
    Ok(jobs)
}

fn has_feature_members(group: &[u8]) -> bool {
    let group: serde_json::Value = serde_json::from_slice(group).unwrap_or_default();
    let members = group.get("layers").and_then(serde_json::Value::as_array);
    members.is_some_and(|members| members.iter().any(|member| member.get("type").is_some_and(|kind| kind == "publish")))
}

/// The status files below `dir`, by job file; what is none, or cannot be read, becomes a verdict.
fn read_folder(dir: &Path, verdicts: &mut BTreeMap<String, Verdict>) -> Result<BTreeMap<String, PythonStatus>> {
    let cannot = |path: &Path, source| io_error(path, "cannot read the status folder", source);
    if !dir.is_dir() {
        return Err(Error::new(ErrorKind::Usage, "there is no such folder")
            .subject(dir.display().to_string())
            .hint("name the `.sync_status` folder of the Python slave: `borg-slave import-status code/.sync_status`"));
    }
    let mut statuses = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|source| cannot(&folder, source))? {
            let entry = entry.map_err(|source| cannot(&folder, source))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|source| cannot(&path, source))?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap_or(&path);
            let text = name.to_string_lossy().into_owned();
            if is_our_own(&text) {
                continue;
            }
            // Beside the status files stand reports that did not reach the master (`failed_response_*.sql`).
            if name.to_str().is_none() || !is_about_a_job(&text) {
                verdicts.insert(text, Verdict::Foreign);
                continue;
            }
            let status = std::fs::read(&path).map_err(|error| format!("cannot be read: {error}"));
            match status.and_then(|content| status_file::read(&content)) {
                Ok(Some(status)) => drop(statuses.insert(text, status)),
                Ok(None) => drop(verdicts.insert(text, Verdict::Unreadable("the file is empty".into()))),
                Err(why) => drop(verdicts.insert(text, Verdict::Unreadable(why))),
            }
        }
    }
    Ok(statuses)
}

/// Journal and locks, which by default are kept where the Python slave kept its files.
fn is_our_own(name: &str) -> bool {
    name.starts_with("journal.sqlite3") || ["run.lock", "daemon.lock"].contains(&name)
}

/// A path that is a job file for a slave that listens to its channel.
fn is_about_a_job(path: &str) -> bool {
    let channel = path.split('/').next().unwrap_or_default().to_owned();
    job::classify(path, &[channel]).is_some()
}
