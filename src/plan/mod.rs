//! What a pass is going to do: pure, printable, made before anything is touched.
//!
//! The plan is made from the changed files of the range and from what the journal knows of them.
//! It says for each job file whether it runs, is done already, or cannot run, and which jobs must
//! have ended before it begins. Only true dependencies order jobs (`order`): the files that concern one
//! layer run after each other (publish, metadata, tile cache, removal), layers after their stores, groups
//! after their members; foreign keys are known only once a dump is there and are waited for while the
//! plan is executed.

mod order;
mod patience;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use md5::{Digest as _, Md5};

use crate::error::Error;
use crate::job::{self, Action, Document, JobFile, Parsed};
use crate::journal::{Known, State};

use self::order::{Subject, subject};
pub use self::patience::Patience;

/// A changed file of the state repository that is a job file.
#[derive(Debug)]
pub struct Candidate {
    /// What the path says.
    pub file: JobFile,
    /// The file was deleted; `content` is what it held before.
    pub deleted: bool,
    /// The document.
    pub content: Vec<u8>,
    /// The revision that `content` was read at.
    pub revision: String,
}

/// What is to be done, in the order in which jobs are started.
#[derive(Debug, Default)]
pub struct Plan {
    /// The jobs that run.
    pub jobs: Vec<PlannedJob>,
    /// Job files whose content is applied already, or left out by settings that have not changed.
    pub done: Vec<String>,
    /// Job files that have failed and rest until their time has come.
    pub postponed: Vec<String>,
    /// Files that have been deleted and leave nothing to do: what is known of them is of no use any more.
    pub gone: Vec<String>,
}

/// One job of the plan.
#[derive(Debug)]
pub struct PlannedJob {
    /// What the path says.
    pub file: JobFile,
    /// What is done; unknown when the document cannot be read.
    pub action: Option<Action>,
    /// MD5 of the document, hexadecimal; with the action it identifies the work.
    pub content_md5: String,
    /// The revision the document was read at.
    pub revision: String,
    /// How often this very work was tried before.
    pub attempts: u32,
    /// The work itself.
    pub work: Work,
    /// Indices of jobs that must have ended, well or badly, before this one begins.
    pub after: Vec<usize>,
    /// Indices and files of jobs that publish what this one removes: it does nothing if one of them takes
    /// effect, which the filters decide. They are among those that it follows.
    pub unless: Vec<(usize, String)>,
    /// As `unless`, of jobs that publish a layer of another kind by the same name: where one takes effect, only
    /// what is not that layer goes.
    pub replaced_by: Vec<(usize, String)>,
    /// The file of a job that has published a layer of another kind by the same name before.
    pub replaced_before: Option<String>,
}

/// The work of a planned job.
#[derive(Debug)]
pub enum Work {
    /// Run this document.
    Run(Box<Document>),
    /// Another job of the plan makes it pointless; the text says which and why.
    Superseded(String),
    /// The document cannot be read; the job fails with this error.
    Invalid(Error),
}

impl PlannedJob {
    /// The action's name for people and for the journal.
    #[must_use]
    pub fn action_name(&self) -> &'static str {
        self.action.map_or("unreadable", Action::as_str)
    }

    /// Whether this very work is what is known.
    fn is_of(&self, known: &Known) -> bool {
        known.content_md5 == self.content_md5 && known.action == self.action_name()
    }
}

/// Which files a plan takes although the journal says they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// None: what succeeded is not redone.
    Never,
    /// All: the operator named them.
    Always,
}

/// Makes the plan for `candidates`, given what is `known` of each job file.
#[must_use]
pub fn plan(candidates: Vec<Candidate>, known: &HashMap<String, Known>, again: Again) -> Plan {
    let mut plan = Plan::default();
    let mut done = Vec::new();
    for candidate in candidates {
        let content_md5 = hex_md5(&candidate.content);
        let (action, work) = match job::parse(&candidate.file, &candidate.content, candidate.deleted) {
            Ok(Parsed::Nothing { .. }) => {
                if candidate.deleted {
                    // It may come back with the same content, and mean something again.
                    plan.gone.push(candidate.file.path);
                }
                continue;
            }
            Ok(Parsed::Job(document)) => (Some(document.action()), Work::Run(Box::new(document))),
            Err(error) => (None, Work::Invalid(error)),
        };
        let known = known.get(&candidate.file.path);
        let is_done = again == Again::Never && is_done(known, &content_md5, action);
        let mut job = PlannedJob {
            file: candidate.file,
            action,
            content_md5,
            revision: candidate.revision,
            attempts: 0,
            work,
            after: Vec::new(),
            unless: Vec::new(),
            replaced_by: Vec::new(),
            replaced_before: None,
        };
        job.attempts = known.filter(|known| job.is_of(known)).map_or(0, |known| known.attempts);
        if is_done { done.push(job) } else { plan.jobs.push(job) }
    }
    // A publication brings its own metadata, which newer metadata of the same range has to follow again.
    let published: HashSet<Subject> =
        plan.jobs.iter().filter(|job| job.action == Some(Action::Publish)).map(subject).collect();
    for job in done {
        if job.action == Some(Action::Meta) && published.contains(&subject(&job)) {
            plan.jobs.push(job);
        } else {
            plan.done.push(job.file.path);
        }
    }
    order::arrange(&mut plan.jobs);
    supersede_removals(&mut plan.jobs, known);
    replace_removals(&mut plan.jobs, known);
    plan
}

impl Plan {
    /// Takes out what is to rest, given what is `known` of each job file and that it is `now`.
    pub fn postpone(&mut self, known: &HashMap<String, Known>, patience: &Patience, now: Timestamp) {
        patience::postpone(self, known, patience, now);
    }
}

/// Nothing is left to do for a job that ended well with this very content and action.
fn is_done(known: Option<&Known>, content_md5: &str, action: Option<Action>) -> bool {
    known.is_some_and(|known| {
        known.content_md5 == content_md5
            && Some(known.action.as_str()) == action.map(Action::as_str)
            && matches!(known.state, State::Succeeded)
    })
}

/// A layer that moves from one channel to another is removed here and published there: taking it
/// away after (or just before) it was published would lose it.
///
/// It counts also what an earlier run has published: the two changes may come one after the other.
fn supersede_removals(jobs: &mut [PlannedJob], known: &HashMap<String, Known>) {
    let mut publishing: HashMap<Subject, Vec<usize>> = HashMap::new();
    for (index, job) in jobs.iter().enumerate() {
        // One that cannot be read fails, and leaves what it has published before.
        let leaves = job.action.is_none() && known.get(&job.file.path).is_some_and(Known::is_published);
        if job.action == Some(Action::Publish) || leaves {
            publishing.entry(subject(job)).or_default().push(index);
        }
    }
    // What becomes of those in the plan is not yet known.
    let planned: HashSet<String> = jobs.iter().map(|job| job.file.path.clone()).collect();
    let before: HashMap<&str, &String> = known
        .iter()
        .filter(|(path, known)| known.is_published() && !planned.contains(*path))
        .filter_map(|(path, _)| Some((path.split_once('/')?.1, path)))
        .collect();
    for index in 0..jobs.len() {
        let job = &jobs[index];
        if job.action != Some(Action::Remove) {
            continue;
        }
        let rivals = publishing.get(&subject(job)).map(Vec::as_slice).unwrap_or_default();
        let inside_channel = job.file.path.split_once('/').map_or("", |(_, path)| path);
        // One that stands behind it would be waited for in vain.
        let path = before.get(inside_channel).copied().or_else(|| {
            let later = rivals.iter().find(|&&rival| rival > index)?;
            Some(&jobs[*later].file.path)
        });
        match path {
            Some(path) => jobs[index].work = Work::Superseded(superseded_by(path)),
            None => {
                jobs[index].unless = rivals.iter().map(|&rival| (rival, jobs[rival].file.path.clone())).collect();
            }
        }
    }
}

/// A layer that becomes one of another kind is removed here and published there, in this pass or in an earlier one:
/// its name is no longer its own.
fn replace_removals(jobs: &mut [PlannedJob], known: &HashMap<String, Known>) {
    let mut publishing: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, job) in jobs.iter().enumerate() {
        if job.action == Some(Action::Publish) && order::is_layer(job.file.kind) {
            publishing.entry(&job.file.stem).or_default().push(index);
        }
    }
    let planned: HashSet<&str> = jobs.iter().map(|job| job.file.path.as_str()).collect();
    let is_removal = |job: &PlannedJob| job.action == Some(Action::Remove) && order::is_layer(job.file.kind);
    let mut before: HashMap<String, Vec<(job::JobKind, &String)>> = HashMap::new();
    if jobs.iter().any(is_removal) {
        for (path, known) in known.iter().filter(|(path, _)| !planned.contains(path.as_str())) {
            let file = path.split_once('/').and_then(|(channel, _)| job::classify(path, &[channel.to_owned()]));
            if known.is_published()
                && let Some(file) = file.filter(|file| order::is_layer(file.kind) && file.companion.is_none())
            {
                before.entry(file.stem).or_default().push((file.kind, path));
            }
        }
    }
    let replaced: Vec<_> = jobs
        .iter()
        .enumerate()
        .filter(|(_, job)| is_removal(job))
        .map(|(index, job)| {
            let others = publishing.get(job.file.stem.as_str()).into_iter().flatten();
            let others = others.filter(|&&other| other < index && jobs[other].file.kind != job.file.kind);
            let by = others.map(|&other| (other, jobs[other].file.path.clone())).collect();
            let earlier = before.get(&job.file.stem).into_iter().flatten();
            let earlier = earlier.filter(|(kind, _)| *kind != job.file.kind).map(|(_, path)| (*path).clone()).min();
            (index, by, earlier)
        })
        .collect();
    for (index, by, before) in replaced {
        jobs[index].replaced_by = by;
        jobs[index].replaced_before = before;
    }
}

/// Why a removal does nothing.
pub(crate) fn superseded_by(path: &str) -> String {
    format!("nothing is removed: {path} publishes the same name")
}

/// MD5 of `bytes` in lower-case hexadecimal, the form that job files and the old status files use.
#[must_use]
pub fn hex_md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISH: &str = r#"{"job_id": 1, "meta": {"file": "m:/a.json", "md5": "0cc175b9c0f1b6a831c399e269772661"}}"#;

    fn candidate(path: &str, content: &str) -> Candidate {
        let file = job::classify(path, &["geoserver".to_owned()]).unwrap();
        Candidate { file, deleted: false, content: content.into(), revision: "f00".into() }
    }

    fn succeeded(path: &str, content: &str, action: &str) -> (String, Known) {
        let known = Known {
            content_md5: hex_md5(content.as_bytes()),
            action: action.into(),
            state: State::Succeeded,
            attempts: 1,
            next_try: None,
            waits_for_others: false,
        };
        (path.to_owned(), known)
    }

    fn paths(plan: &Plan) -> Vec<&str> {
        plan.jobs.iter().map(|job| job.file.path.as_str()).collect()
    }

    #[test]
    fn what_succeeded_is_not_done_again_unless_its_content_changed() {
        let path = "geoserver/layers/ws.roads.json";
        let known = HashMap::from([succeeded(path, PUBLISH, "publish")]);
        let again = plan(vec![candidate(path, PUBLISH)], &known, Again::Never);
        assert_eq!((paths(&again), &again.done), (vec![], &vec![path.to_owned()]));
        let changed = PUBLISH.replace('1', "2");
        assert_eq!(paths(&plan(vec![candidate(path, &changed)], &known, Again::Never)), [path]);
        assert_eq!(paths(&plan(vec![candidate(path, PUBLISH)], &known, Again::Always)), [path]);
    }

    #[test]
    fn newer_metadata_follows_a_publication_that_is_tried_again() {
        let (layer, meta) = ("geoserver/layers/ws.roads.json", "geoserver/layers/ws.roads.meta.json");
        let known = HashMap::from([succeeded(meta, PUBLISH, "meta")]);
        let plan = plan(vec![candidate(meta, PUBLISH), candidate(layer, PUBLISH)], &known, Again::Never);
        assert_eq!(paths(&plan), [layer, meta]);
        assert_eq!(plan.jobs[1].after, [0]);
    }

    #[test]
    fn a_layer_that_moves_to_another_channel_is_not_removed() {
        let there = candidate("geoserver/layers/ws.roads.json", PUBLISH);
        let gone = Candidate {
            file: job::classify("other/layers/ws.roads.json", &["other".to_owned()]).unwrap(),
            deleted: true,
            ..candidate("geoserver/layers/ws.roads.json", PUBLISH)
        };
        let plan = plan(vec![gone, there], &HashMap::new(), Again::Never);
        // Only the filter knows whether it is published there.
        assert!(matches!(plan.jobs[1].work, Work::Run(_)), "{:?}", plan.jobs[1]);
        assert_eq!(plan.jobs[1].unless, [(0, "geoserver/layers/ws.roads.json".to_owned())]);
        assert_eq!(plan.jobs[1].after, [0]);
    }

    fn gone(path: &str) -> Candidate {
        Candidate {
            file: job::classify(path, &["other".to_owned(), "geoserver".to_owned()]).unwrap(),
            deleted: true,
            ..candidate("geoserver/layers/ws.roads.json", PUBLISH)
        }
    }

    #[test]
    fn a_layer_that_moved_to_another_channel_before_is_not_removed() {
        let known = HashMap::from([
            succeeded("geoserver/layers/ws.roads.json", PUBLISH, "publish"),
            // What is removed was published once.
            succeeded("other/layers/ws.roads.json", PUBLISH, "publish"),
        ]);
        let plan_of = |path: &str| plan(vec![gone(path)], &known, Again::Never).jobs.remove(0);
        assert!(matches!(plan_of("other/layers/ws.roads.json").work, Work::Superseded(_)));
        assert!(matches!(plan_of("geoserver/layers/ws.roads.json").work, Work::Superseded(_)));
        assert!(matches!(plan_of("other/layers/ws.lakes.json").work, Work::Run(_)));
    }

    #[test]
    fn a_layer_that_goes_from_all_channels_goes() {
        let paths = ["geoserver/layers/ws.roads.json", "other/layers/ws.roads.json"];
        let known = paths.iter().map(|path| succeeded(path, PUBLISH, "publish")).collect();
        for job in plan(paths.map(gone).into(), &known, Again::Never).jobs {
            assert!(matches!(job.work, Work::Run(_)) && job.unless.is_empty(), "{job:?}");
        }
    }

    #[test]
    fn what_a_broken_document_published_before_supersedes_a_removal_still() {
        let known = HashMap::from([succeeded("geoserver/layers/ws.roads.json", PUBLISH, "publish")]);
        let broken = candidate("geoserver/layers/ws.roads.json", "{");
        let plan = plan(vec![gone("other/layers/ws.roads.json"), broken], &known, Again::Never);
        assert_eq!(plan.jobs[1].unless, [(0, "geoserver/layers/ws.roads.json".to_owned())]);
    }

    #[test]
    fn an_auxiliary_file_that_is_deleted_is_done_when_it_comes_back() {
        let path = "geoserver/layers/ws.roads.empty_gwc.json";
        let mut known = HashMap::from([succeeded(path, "{}", "empty_gwc")]);
        let deleted = plan(vec![Candidate { deleted: true, ..candidate(path, "{}") }], &known, Again::Never);
        assert_eq!((paths(&deleted), &deleted.gone), (vec![], &vec![path.to_owned()]));
        known.retain(|path, _| !deleted.gone.contains(path));
        assert_eq!(paths(&plan(vec![candidate(path, "{}")], &known, Again::Never)), [path]);
    }

    #[test]
    fn removals_come_last_and_an_unreadable_document_fails_by_name() {
        let plan = plan(
            vec![
                Candidate { deleted: true, ..candidate("geoserver/layers/a.gone.json", PUBLISH) },
                candidate("geoserver/layers/b.broken.json", "{"),
            ],
            &HashMap::new(),
            Again::Never,
        );
        assert_eq!(paths(&plan), ["geoserver/layers/b.broken.json", "geoserver/layers/a.gone.json"]);
        assert!(matches!(plan.jobs[0].work, Work::Invalid(_)));
    }
}
