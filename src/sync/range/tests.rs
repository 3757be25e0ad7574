//! What a pass finds to do, in clones of all kinds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use git2::{IndexAddOption, Repository, ResetType, Signature};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{self, Place};
use crate::execute::{Event, Step};
use crate::journal::{Forget, JobOutcome, NewJob, StepOutcome, StepRecord};
use crate::plan::Work;
use crate::state_repo::OpenOptions;
use crate::sync::{Summary, Watcher, run};

const ROADS: &str = "a/layers/ws.roads.json";
const LAKES: &str = "a/layers/ws.lakes.json";
const MOVED: &str = "b/layers/ws.roads.json";
const META: &str = "a/layers/ws.roads.meta.json";

/// A clone with a journal, and the settings of both.
struct Slave {
    dir: TempDir,
    git: Repository,
    settings: Settings,
    journal: Journal,
}

impl Slave {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let git = empty_clone(&dir.path().join("clone"));
        let journal = Journal::open(&dir.path().join("status")).unwrap();
        let mut slave = Self { settings: settings(&dir.path().join("clone"), &[]), dir, git, journal };
        slave.set(&[]);
        slave
    }

    fn set(&mut self, more: &[(&str, &str)]) {
        let status = self.dir.path().join("status");
        let channels = [("LISTEN_CHANNELS", "a,b"), ("SYNC_STATUS_PATH", status.to_str().unwrap())];
        let all: Vec<_> = channels.iter().chain(more).copied().collect();
        self.settings = settings(&self.root(), &all);
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("clone")
    }

    /// Commits files, or their absence.
    fn commit(&self, files: &[(&str, Option<&str>)]) -> String {
        commit(&self.git, files)
    }

    /// Puts another clone in the place of this one.
    fn swap(&mut self) {
        std::fs::rename(self.root(), self.dir.path().join("old")).unwrap();
        self.git = empty_clone(&self.root());
    }

    async fn repository(&self) -> StateRepo {
        StateRepo::open(OpenOptions::new(self.root())).await.unwrap()
    }

    async fn prepare(&self, request: &Request) -> Result<Prepared> {
        prepare(&self.settings, &mut self.repository().await, Some(&self.journal), request).await
    }

    /// What a plain `sync` would do, as `action path`.
    async fn would(&self) -> Vec<String> {
        jobs(&self.prepare(&Request::default()).await.unwrap())
    }

    /// Makes a pass whose jobs all end in `state`.
    async fn pass(&self, request: &Request, state: State) -> Vec<String> {
        let prepared = self.prepare(request).await.unwrap();
        if !prepared.plan.jobs.is_empty() {
            prepared.coverage.begin(&self.journal).unwrap();
        }
        self.journal.drop_jobs(&prepared.plan.gone).unwrap();
        for job in &prepared.plan.jobs {
            let new = NewJob {
                job_file: job.file.path.clone(),
                kind: job.file.kind.as_str(),
                action: job.action_name(),
                content_md5: job.content_md5.clone(),
                revision: job.revision.clone(),
                job_id: None,
                job_batch_id: None,
            };
            self.journal.begin_job(&new).unwrap();
            let fetched = StepRecord {
                step: Step::Metadata.as_str().to_owned(),
                target: None,
                outcome: StepOutcome::Done,
                message: None,
                started: jiff::Timestamp::now(),
                duration_ms: 1,
            };
            self.journal.record_step(&job.file.path, &fetched).unwrap();
            self.journal.finish_job(&job.file.path, &JobOutcome::plain(state)).unwrap();
        }
        prepared.end(&self.settings, &self.journal, &Summary::default()).unwrap();
        jobs(&prepared)
    }

    async fn sync(&self) -> Vec<String> {
        self.pass(&Request::default(), State::Succeeded).await
    }

    fn cursor(&self) -> String {
        self.journal.cursor().unwrap().unwrap()
    }
}

fn settings(root: &std::path::Path, more: &[(&str, &str)]) -> Settings {
    let mut env: BTreeMap<String, String> = BTreeMap::from([("SLAVE_NAME".into(), "slave".into())]);
    env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    config::load(&env, &Place { env_file: None, working_directory: root.to_owned() }).unwrap().settings
}

fn empty_clone(root: &std::path::Path) -> Repository {
    let mut options = git2::RepositoryInitOptions::new();
    options.initial_head("main");
    Repository::init_opts(root, &options).unwrap()
}

fn commit(git: &Repository, files: &[(&str, Option<&str>)]) -> String {
    let root = git.workdir().unwrap();
    for (path, content) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
    }
    let mut index = git.index().unwrap();
    index.add_all(["*"], IndexAddOption::DEFAULT, None).unwrap();
    index.write().unwrap();
    let tree = git.find_tree(index.write_tree().unwrap()).unwrap();
    let who = Signature::now("master", "master@example.org").unwrap();
    let parent = git.head().ok().map(|head| head.peel_to_commit().unwrap());
    let parents: Vec<_> = parent.iter().collect();
    git.commit(Some("HEAD"), &who, &who, "change", &tree, &parents).unwrap().to_string()
}

fn publish(job: u32) -> String {
    format!(r#"{{"job_id": {job}, "meta": {{"file": "m:/a.json", "md5": "0cc175b9c0f1b6a831c399e269772661"}}}}"#)
}

fn jobs(prepared: &Prepared) -> Vec<String> {
    let word = |job: &plan::PlannedJob| match &job.work {
        Work::Superseded(_) => "superseded",
        // Its publication is in the same pass, and decides.
        Work::Run(_) if !job.unless.is_empty() => "superseded",
        _ => job.action_name(),
    };
    prepared.plan.jobs.iter().map(|job| format!("{} {}", word(job), job.file.path)).collect()
}

fn from(revision: &str) -> Request {
    Request { from: Some(revision.into()), ..Request::default() }
}

/// A slave that has applied two layers.
async fn with_two_layers() -> Slave {
    let slave = Slave::new();
    slave.commit(&[(ROADS, Some(&publish(1))), (LAKES, Some(&publish(2)))]);
    assert_eq!(slave.sync().await.len(), 2);
    assert_eq!(slave.would().await, [""; 0]);
    slave
}

#[tokio::test]
async fn an_empty_clone_unpublishes_nothing() {
    let mut slave = with_two_layers().await;
    slave.swap();
    for request in [Request::default(), from("null")] {
        let refused = slave.prepare(&request).await.unwrap_err();
        assert!(refused.to_string().contains("holds no changesets"), "{refused}");
    }
    // The right one again, though with another history: all of it is known.
    slave.commit(&[(LAKES, Some(&publish(2)))]);
    slave.commit(&[(ROADS, Some(&publish(1)))]);
    assert_eq!(slave.sync().await, [""; 0]);
    assert_eq!(slave.cursor(), slave.git.head().unwrap().target().unwrap().to_string());
}

#[tokio::test]
async fn branches_that_are_gone_unpublish_nothing() {
    let slave = with_two_layers().await;
    slave.git.find_reference("refs/heads/main").unwrap().delete().unwrap();
    let refused = slave.prepare(&Request::default()).await.unwrap_err();
    assert!(refused.to_string().contains("holds no changesets"), "{refused}");
}

#[tokio::test]
async fn a_clone_of_another_master_unpublishes_nothing_unless_told_to() {
    let mut slave = with_two_layers().await;
    slave.swap();
    let base = slave.commit(&[("a/layers/other.rivers.json", Some(&publish(7)))]);
    slave.commit(&[("a/layers/other.hills.json", Some(&publish(8)))]);
    let base = Revision::parse(&base).unwrap();
    for begin in [None, Some(Revision::null()), Some(base)] {
        let refused = slave.prepare(&Request { begin, ..Request::default() }).await.unwrap_err();
        let text = refused.paragraph();
        assert!(text.contains("lacks 2 job files") && text.contains(LAKES) && text.contains("--from null"), "{text}");
    }
    // The operator knows better.
    assert_eq!(
        slave.pass(&from("null"), State::Succeeded).await,
        [
            "publish a/layers/other.hills.json",
            "publish a/layers/other.rivers.json",
            "remove a/layers/ws.lakes.json",
            "remove a/layers/ws.roads.json"
        ]
    );
    assert_eq!(slave.would().await, [""; 0]);
}

#[tokio::test]
async fn where_the_history_is_lost_what_is_there_is_compared_and_a_hook_names_what_goes() {
    let mut slave = with_two_layers().await;
    slave.swap();
    let base = slave.commit(&[(LAKES, Some(&publish(2)))]);
    slave.commit(&[(LAKES, Some(&publish(3)))]);
    let refused = slave.prepare(&Request::default()).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("lacks the job file {ROADS}")), "{refused}");
    // The range that was named is done, and nothing beyond it.
    let changed = slave.prepare(&from(&base)).await.unwrap();
    assert_eq!((jobs(&changed), changed.moves_cursor), (vec![format!("publish {LAKES}")], false));
    let pulled = Request { begin: Some(Revision::parse(&base).unwrap()), ..Request::default() };
    assert_eq!(slave.pass(&pulled, State::Succeeded).await, [format!("publish {LAKES}"), format!("remove {ROADS}")]);
}

#[tokio::test]
async fn what_the_filters_never_took_does_not_keep_a_clone_from_being_used() {
    let mut slave = Slave::new();
    slave.commit(&[(ROADS, Some(&publish(1)))]);
    slave.pass(&Request::default(), State::Filtered).await;
    slave.swap();
    slave.commit(&[(LAKES, Some(&publish(2)))]);
    assert_eq!(slave.sync().await, [format!("publish {LAKES}")]);
}

#[tokio::test]
async fn a_layer_of_another_channel_survives_a_removal_that_is_done_again() {
    let mut slave = with_two_layers().await;
    slave.commit(&[(ROADS, None), (MOVED, Some(&publish(1)))]);
    assert_eq!(slave.sync().await, [format!("publish {MOVED}"), format!("superseded {ROADS}")]);
    slave.journal.forget(Forget::Files(&[ROADS.to_owned()])).unwrap();
    assert_eq!(slave.would().await, [format!("superseded {ROADS}")]);
    // What b publishes is nothing to a slave that no longer listens there.
    slave.set(&[("LISTEN_CHANNELS", "a")]);
    assert_eq!(slave.would().await, [format!("remove {ROADS}")]);
}

#[tokio::test]
async fn a_channel_that_comes_later_is_brought_in_wholly() {
    let mut slave = Slave::new();
    slave.set(&[("LISTEN_CHANNELS", "a")]);
    slave.commit(&[(LAKES, Some(&publish(2))), (MOVED, Some(&publish(1)))]);
    assert_eq!(slave.sync().await, [format!("publish {LAKES}")]);
    slave.set(&[]);
    assert_eq!(slave.pass(&Request::default(), State::Succeeded).await, [format!("publish {MOVED}")]);
    assert_eq!(slave.would().await, [""; 0]);
    // Nothing goes with a channel. Who listens to it again learns what happened meanwhile.
    slave.set(&[("LISTEN_CHANNELS", "a")]);
    assert_eq!(slave.sync().await, [""; 0]);
    slave.commit(&[(MOVED, None), ("b/layers/ws.hills.json", Some(&publish(3)))]);
    assert_eq!(slave.sync().await, [""; 0]);
    slave.set(&[]);
    assert_eq!(slave.sync().await, ["publish b/layers/ws.hills.json".to_owned(), format!("remove {MOVED}")]);
}

#[tokio::test]
async fn filters_that_were_changed_meanwhile_are_asked_again() {
    let mut slave = Slave::new();
    slave.set(&[("FEATURE_FILTER", "false")]);
    slave.commit(&[(ROADS, Some(&publish(1)))]);
    slave.pass(&Request::default(), State::Filtered).await;
    // A daemon that has begun with other settings than those that were asked.
    let patience = Patience {
        pauses: vec![std::time::Duration::from_secs(60)],
        failed_rest: true,
        settings_stand: true,
        leave_loose_ends: false,
    };
    let request = Request { patience: Some(patience), ..Request::default() };
    assert_eq!(jobs(&slave.prepare(&request).await.unwrap()), [""; 0]);
    let file = slave.root().join("roads.rhai");
    std::fs::write(&file, "true").unwrap();
    slave.set(&[("FEATURE_FILTER", "roads.rhai")]);
    assert_eq!(slave.pass(&request, State::Filtered).await, [format!("publish {ROADS}")]);
    assert_eq!(slave.would().await, [""; 0]);
    std::fs::write(&file, "job.name == \"roads\"").unwrap();
    assert_eq!(slave.would().await, [format!("publish {ROADS}")]);
}

#[tokio::test]
async fn an_auxiliary_file_that_comes_back_is_done_again() {
    let slave = with_two_layers().await;
    let meta = r#"{"action": "meta", "meta": {"file": "m:/a.json", "md5": "0cc175b9c0f1b6a831c399e269772661"}}"#;
    slave.commit(&[(META, Some(meta))]);
    assert_eq!(slave.sync().await, [format!("meta {META}")]);
    slave.commit(&[(META, None)]);
    assert_eq!(slave.sync().await, [""; 0]);
    slave.commit(&[(META, Some(meta))]);
    assert_eq!(slave.sync().await, [format!("meta {META}")]);
}

#[tokio::test]
async fn up_to_what_is_applied_already_nothing_is_done() {
    let slave = with_two_layers().await;
    let old = slave.cursor();
    slave.commit(&[("a/layers/ws.hills.json", Some(&publish(3)))]);
    slave.sync().await;
    let applied = slave.cursor();
    for to in [&old, "null"] {
        let request = Request { to: Some(to.to_owned()), ..Request::default() };
        assert_eq!(slave.pass(&request, State::Succeeded).await, [""; 0]);
        assert_eq!(slave.cursor(), applied);
    }
    // The master has taken a changeset back: a push that names an older one means it.
    let old = Revision::parse(&old).unwrap();
    let pushed = Request {
        to: Some(old.as_str().into()),
        begin: Some(Revision::parse(&applied).unwrap()),
        ..Request::default()
    };
    assert_eq!(jobs(&slave.prepare(&pushed).await.unwrap()), ["remove a/layers/ws.hills.json"]);
    let commit = slave.git.revparse_single(old.as_str()).unwrap();
    slave.git.reset(&commit, ResetType::Hard, None).unwrap();
    assert_eq!(slave.would().await, ["remove a/layers/ws.hills.json"]);
}

#[tokio::test]
async fn a_range_moves_the_cursor_only_where_all_before_it_is_applied() {
    let slave = Slave::new();
    let first = slave.commit(&[(ROADS, Some(&publish(1)))]);
    slave.commit(&[(LAKES, Some(&publish(2)))]);
    assert_eq!(slave.pass(&from(&first), State::Succeeded).await, [format!("publish {LAKES}")]);
    assert_eq!(slave.journal.cursor().unwrap(), None);
    assert_eq!(slave.pass(&from("null"), State::Succeeded).await, [format!("publish {ROADS}")]);
    let all = slave.cursor();
    let last = slave.commit(&[("a/layers/ws.hills.json", Some(&publish(3)))]);
    slave.pass(&from(&all), State::Succeeded).await;
    assert_eq!(slave.cursor(), last);
}

#[tokio::test]
async fn removals_of_long_ago_are_forgotten() {
    let slave = with_two_layers().await;
    slave.commit(&[(ROADS, None), (LAKES, Some(r#"{"action": "remove"}"#))]);
    slave.sync().await;
    let mut repository = slave.repository().await;
    let tip = repository.tip().await.unwrap();
    crate::sync::drop_past_jobs(&mut repository, &slave.journal, &tip).await.unwrap();
    assert_eq!(slave.journal.digest().unwrap().len(), 2);
    let database = rusqlite::Connection::open(slave.journal.path()).unwrap();
    database.execute("update job set finished = finished - 31 * 86400 * 1000000", []).unwrap();
    crate::sync::drop_past_jobs(&mut repository, &slave.journal, &tip).await.unwrap();
    // The other one is still to be seen at the tip.
    assert_eq!(slave.journal.digest().unwrap().into_keys().collect::<Vec<_>>(), [LAKES]);
}

struct Nobody;

impl Watcher for Nobody {
    fn begins(&mut self, _: &Prepared) {}
    fn sees(&mut self, _: Option<&str>, _: &Event) {}
    fn ends(&mut self, _: &Summary) {}
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_ends_the_pass_and_not_who_asked_for_it() {
    let slave = Slave::new();
    slave.commit(&[(ROADS, Some("{"))]);
    let prepared = slave.prepare(&Request::default()).await.unwrap();
    let database = rusqlite::Connection::open(slave.journal.path()).unwrap();
    database.execute_batch("create trigger full before insert on job begin select raise(abort, 'full'); end").unwrap();
    let stop = CancellationToken::new();
    let mut repository = slave.repository().await;
    let request = Request::default();
    let ended = run(&slave.settings, &mut repository, &slave.journal, &request, prepared, &mut Nobody, &stop).await;
    assert!(ended.unwrap_err().to_string().contains("journal"));
    assert!(!stop.is_cancelled());
}

#[test]
fn what_can_be_removed() {
    let can = |path| lost::can_be_removed(&job::classify(path, &["a".to_owned()]).unwrap());
    assert!(can(ROADS) && can("a/layergroups/ws.g.json"));
    assert!(!can(META) && !can("a/layers.properties") && !can("a/workspaces/ws.json") && !can("slave_roles.sql"));
}
