//! Which parts of the slave (database, GeoServers) have all jobs, and what one that comes in later lacks.
//!
//! A job that succeeded while a part was left out, or before it was there, has nothing on record for it. The
//! journal notes which parts have everything; only where one is not among them, the records are looked through.

use std::collections::{HashMap, HashSet};

use crate::config::Settings;
use crate::error::Result;
use crate::execute::{self, DATABASE, Step};
use crate::job::{self, Action, JobFile, JobKind};
use crate::journal::{JobRecord, Journal, Selection, State};

/// The target under which the journal keeps which parts have everything.
const PARTS: &str = "parts";

/// What the parts lack that these settings use.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// All parts that the settings use.
    used: Vec<String>,
    /// Those of them that may lack something.
    pending: Vec<String>,
    /// Job files that ended without some pending part.
    lacking: HashSet<String>,
}

impl Coverage {
    /// Looks what is there; reads a few lines when nothing has been added.
    pub(super) fn read(settings: &Settings, journal: Option<&Journal>) -> Result<Self> {
        let used = parts(settings);
        let Some(journal) = journal else { return Ok(Self { used, ..Self::default() }) };
        // Jobs on record without a note of what is complete: each part may lack something.
        if !journal.has_markers(PARTS)? && journal.is_empty()? {
            return Ok(Self { used, ..Self::default() });
        }
        let mut pending = Vec::new();
        for part in &used {
            if journal.marker(PARTS, part)?.is_none() {
                pending.push(part.clone());
            }
        }
        let mut coverage = Self { used, pending, lacking: HashSet::new() };
        if coverage.is_pending() {
            coverage.lacking = coverage.lacking_jobs(settings, journal)?;
        }
        Ok(coverage)
    }

    /// Some part may lack something.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Job files that are to be done where they are not done yet.
    pub(super) fn lacking(&self) -> &HashSet<String> {
        &self.lacking
    }

    /// On record before the jobs of a run begin, or before jobs are taken over that were done elsewhere: what
    /// is left out lacks them from now on.
    pub(super) fn begin(&self, journal: &Journal) -> Result<()> {
        let known: Vec<String> = journal
            .markers()?
            .into_iter()
            .filter(|((target, _), _)| target == PARTS)
            .map(|((_, part), _)| part)
            .collect();
        if known.is_empty() && !self.is_pending() {
            // Nothing was ever done without one of these.
            return self.used.iter().try_for_each(|part| journal.set_marker(PARTS, part, "whole"));
        }
        known.iter().filter(|part| !self.used.contains(part)).try_for_each(|part| journal.clear_marker(PARTS, part))
    }

    /// A whole pass has ended that did, or keeps as failed, what the parts lacked.
    pub(super) fn end(&self, journal: &Journal) -> Result<()> {
        self.pending.iter().try_for_each(|part| journal.set_marker(PARTS, part, "whole"))
    }

    fn lacking_jobs(&self, settings: &Settings, journal: &Journal) -> Result<HashSet<String>> {
        let records = journal.jobs(Selection::default())?;
        let files: HashMap<&str, JobFile> = records
            .iter()
            .filter_map(|record| Some((record.job_file.as_str(), job::classify(&record.job_file, &settings.channels)?)))
            .collect();
        let published: HashSet<(JobKind, &str)> = records
            .iter()
            .filter(|record| record.action == Action::Publish.as_str())
            .filter_map(|record| files.get(record.job_file.as_str()).map(|file| (file.kind, file.stem.as_str())))
            .collect();
        let lacking = records.iter().filter(|record| {
            let Some(file) = files.get(record.job_file.as_str()) else { return false };
            let action = action(record);
            // What was removed from one channel may be published by another.
            let is_superseded = action == Some(Action::Remove) && published.contains(&(file.kind, file.stem.as_str()));
            matches!(record.state, State::Succeeded | State::Failed) && !is_superseded && self.lacks(record, file.kind)
        });
        Ok(lacking.map(|record| record.job_file.clone()).collect())
    }

    fn lacks(&self, record: &JobRecord, kind: JobKind) -> bool {
        let action = action(record);
        // A GeoServer that is new has no old tiles.
        let is_for_geoserver =
            action != Some(Action::EmptyGwc) && !execute::steps_on_geoserver(kind, action).is_empty();
        let finished = finished_on(record, kind);
        let mut servers = self.pending.iter().filter(|part| *part != DATABASE);
        self.lacks_database(record, kind) || is_for_geoserver && servers.any(|server| !finished.contains(server))
    }

    fn lacks_database(&self, record: &JobRecord, kind: JobKind) -> bool {
        self.pending.iter().any(|part| part == DATABASE)
            && kind == JobKind::Feature
            && match action(record) {
                Some(Action::Publish) => !went_well(record, Step::Schemas, None),
                Some(Action::Remove) => !went_well(record, Step::RemoveTable, None),
                _ => false,
            }
    }

    /// The job is a removal that was carried out, and only GeoServers that have come in since may hold what
    /// it removed.
    pub(super) fn is_removed_elsewhere(&self, record: &JobRecord, kind: JobKind) -> bool {
        action(record) == Some(Action::Remove)
            && record.state == State::Succeeded
            && self.lacking.contains(&record.job_file)
            && !self.lacks_database(record, kind)
    }

    /// Where a job that is tried again need not be done again.
    pub(super) fn finished(&self, record: &JobRecord, kind: JobKind) -> HashSet<String> {
        // GeoServer is to see the data that come now.
        if self.lacks_database(record, kind) { HashSet::new() } else { finished_on(record, kind) }
    }
}

/// The parts that the settings use, by the names of their targets.
fn parts(settings: &Settings) -> Vec<String> {
    let database = (!settings.skip.db).then(|| DATABASE.to_owned());
    let servers = match (settings.skip.gs, settings.geoserver_sharing_data_dir) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => settings.geoservers.len(),
    };
    let servers = settings.geoservers.iter().take(servers);
    database.into_iter().chain(servers.map(|server| server.url.as_str().trim_end_matches('/').to_owned())).collect()
}

fn action(record: &JobRecord) -> Option<Action> {
    [Action::Publish, Action::Remove, Action::Meta, Action::EmptyGwc]
        .into_iter()
        .find(|action| action.as_str() == record.action)
}

fn went_well(record: &JobRecord, step: Step, target: Option<&str>) -> bool {
    record
        .steps
        .iter()
        .any(|taken| taken.step == step.as_str() && taken.target.as_deref() == target && taken.outcome.is_success())
}

/// The targets on which earlier tries of the same job did everything.
fn finished_on(record: &JobRecord, kind: JobKind) -> HashSet<String> {
    let needed = execute::steps_on_geoserver(kind, action(record));
    let targets: HashSet<&str> = record.steps.iter().filter_map(|step| step.target.as_deref()).collect();
    let finished =
        targets.into_iter().filter(|target| needed.iter().all(|&step| went_well(record, step, Some(target))));
    let database = went_well(record, Step::RemoveTable, None).then_some(DATABASE);
    finished.chain(database).map(str::to_owned).collect()
}
