//! The journal and the run lock, with real processes that are killed.
//!
//! A test that needs a second process starts this test binary again for the same test, with the part
//! that it plays in an environment variable.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as the tests do")]

mod refusals;
mod run_lock;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use borg_slave::error::{Error, ErrorKind};
use borg_slave::journal::{
    Forget, JobOutcome, Journal, NewJob, RunLock, RunOutcome, RunSummary, Selection, State, StepOutcome, StepRecord,
    Wait, Which,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

const ROADS: &str = "dpaw/layers/cadastre.roads.json";
const LAKES: &str = "dpaw/layers/hydro.lakes.json";
const GS1: &str = "http://gs1/geoserver";
const GS2: &str = "http://gs2/geoserver";

/// Names the directory that the second process works in; set only there.
const PART: &str = "BORG_SLAVE_TEST_JOURNAL_DIR";

/// The directory to play the second process in; `None` in the test itself.
fn part() -> Option<PathBuf> {
    std::env::var_os(PART).map(PathBuf::from)
}

/// A second process, killed at the latest when it is dropped.
struct Second {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Second {
    fn start(test: &str, dir: &Path) -> Self {
        Self::start_through(&[], test, dir)
    }

    /// Starts it through a program that changes what it may do.
    #[expect(clippy::disallowed_methods, reason = "the child is killed by its number, which the door does not tell")]
    fn start_through(wrapper: &[&str], test: &str, dir: &Path) -> Self {
        let this = std::env::current_exe().unwrap();
        let name = format!("journal::{test}");
        let words = wrapper.iter().map(|word| (*word).into()).chain([this.into_os_string()]).collect::<Vec<_>>();
        let mut child = std::process::Command::new(&words[0])
            .args(&words[1..])
            .args([name.as_str(), "--exact", "--nocapture", "--test-threads=1"])
            .env(PART, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// The next thing said with [`say`]; `None` when it has ended.
    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            // The harness prints the test's name before it, on the same line.
            if let Some((_, said)) = line.split_once("said:") {
                // A line that the kill cut off was not said.
                return said.strip_suffix('\n').map(str::to_owned);
            }
            line.clear();
        }
        None
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the first process something.
#[expect(clippy::print_stdout, reason = "standard output is the pipe between the two")]
fn say(what: impl std::fmt::Display) {
    println!("said:{what}");
}

/// Stays until the first process is done with this one.
fn stay() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn job(job_file: &str, content_md5: &str) -> NewJob {
    NewJob {
        job_file: job_file.to_owned(),
        kind: "feature",
        action: "publish",
        content_md5: content_md5.to_owned(),
        revision: "4f1c".to_owned(),
        job_id: Some(41),
        job_batch_id: Some("20161105_0100".to_owned()),
    }
}

fn step(step: &str, target: Option<&str>, outcome: StepOutcome) -> StepRecord {
    StepRecord {
        step: step.to_owned(),
        target: target.map(str::to_owned),
        outcome,
        message: None,
        started: Timestamp::from_second(1_772_366_467).unwrap(),
        duration_ms: 12,
    }
}

fn apply(journal: &Journal, job_file: &str, md5: &str, state: State) {
    journal.begin_job(&job(job_file, md5)).unwrap();
    journal.finish_job(job_file, &JobOutcome::plain(state)).unwrap();
}

fn files(journal: &Journal, which: Which) -> Vec<String> {
    let jobs = journal.jobs(Selection { which, files: &[] }).unwrap();
    jobs.into_iter().map(|job| job.job_file).collect()
}

fn summary(outcome: RunOutcome) -> RunSummary {
    RunSummary { outcome, succeeded: 1, failed: 2, unchanged: 3, message: None }
}

#[test]
fn what_was_acknowledged_survives_sigkill_at_any_moment() {
    if let Some(dir) = part() {
        return write_for_ever(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashSet::new();
    let mut random = Random::new();
    for round in 0..30 {
        let mut writer = Second::start("what_was_acknowledged_survives_sigkill_at_any_moment", dir.path());
        for _ in 0..=random.below(40) {
            acknowledged.insert(writer.next().expect("the writer ended by itself"));
        }
        // Anywhere inside the next job, not only where it speaks.
        let moment = Instant::now() + Duration::from_micros(random.below(3000));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        writer.kill();
        while let Some(job_file) = writer.next() {
            acknowledged.insert(job_file);
        }

        let journal = Journal::open(dir.path()).unwrap();
        let raw = rusqlite::Connection::open(journal.path()).unwrap();
        let verdict: String = raw.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok", "round {round}");
        let jobs = journal.jobs(Selection::default()).unwrap();
        let complete: HashSet<String> = jobs
            .iter()
            .filter(|job| job.state == State::Succeeded && job.steps.len() == 3 && job.deployed.is_some())
            .map(|job| job.job_file.clone())
            .collect();
        let lost: Vec<_> = acknowledged.difference(&complete).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} lost");
        // What was cut off is one job, which is not taken for finished.
        let torn: Vec<_> = jobs.iter().filter(|job| !complete.contains(&job.job_file)).collect();
        assert!(torn.iter().all(|job| job.state != State::Succeeded), "round {round}: {torn:?}");
        // The cursor follows the outcome that it stands for.
        if let Some(cursor) = journal.cursor().unwrap() {
            assert!(complete.contains(&cursor), "round {round}: the cursor is ahead at {cursor}");
        }
    }
}

fn write_for_ever(dir: &Path) {
    let journal = Journal::open(dir).unwrap();
    journal.start_run("sync", None, None).unwrap();
    let first = journal.digest().unwrap().len();
    for number in first.. {
        let job_file = format!("dpaw/layers/w.layer{number}.json");
        journal.begin_job(&job(&job_file, "aaaa")).unwrap();
        for target in [None, Some(GS1), Some(GS2)] {
            journal.record_step(&job_file, &step("layer", target, StepOutcome::Done)).unwrap();
        }
        journal.set_marker(GS1, &job_file, "aaaa").unwrap();
        journal.finish_job(&job_file, &JobOutcome::plain(State::Succeeded)).unwrap();
        say(&job_file);
        journal.set_cursor(&job_file).unwrap();
    }
}

/// Numbers that differ from run to run: xorshift, seeded by the clock.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(u64::try_from(Timestamp::now().as_microsecond()).unwrap() | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn the_same_content_is_taken_up_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let begun = journal.begin_job(&job(ROADS, "aaaa")).unwrap();
    assert_eq!((begun.attempts, begun.previous.len()), (1, 0));
    journal.record_step(ROADS, &step("restore", None, StepOutcome::Running)).unwrap();
    journal.record_step(ROADS, &step("restore", None, StepOutcome::Done)).unwrap();
    journal.record_step(ROADS, &step("layer", Some(GS1), StepOutcome::Unchanged)).unwrap();
    journal.record_step(ROADS, &step("layer", Some(GS2), StepOutcome::Failed)).unwrap();
    journal.record_step(ROADS, &step("preview", None, StepOutcome::Skipped)).unwrap();
    let down = Error::new(ErrorKind::Unreachable, "connection refused").subject(GS2).hint("start it");
    journal.finish_job(ROADS, &JobOutcome::because(State::Failed, &down)).unwrap();
    let failed = journal.job(ROADS).unwrap().unwrap();
    assert_eq!(failed.message.as_deref(), Some("http://gs2/geoserver: connection refused"));
    assert_eq!(failed.hint.as_deref(), Some("start it"));
    assert_eq!(failed.steps.len(), 4);
    assert_eq!(failed.deployed, None);

    // Another process, as the next run is.
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    let begun = journal.begin_job(&job(ROADS, "aaaa")).unwrap();
    assert_eq!(begun.attempts, 2);
    assert_eq!(
        begun.previous,
        [step("restore", None, StepOutcome::Done), step("layer", Some(GS1), StepOutcome::Unchanged)]
    );
    let running = journal.job(ROADS).unwrap().unwrap();
    assert_eq!((running.state, running.message, running.steps), (State::Running, None, begun.previous));
}

#[test]
fn other_content_or_another_action_starts_afresh_and_keeps_what_is_deployed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.begin_job(&job(ROADS, "aaaa")).unwrap();
    journal.record_step(ROADS, &step("restore", None, StepOutcome::Done)).unwrap();
    journal.finish_job(ROADS, &JobOutcome::plain(State::Succeeded)).unwrap();

    let begun = journal.begin_job(&NewJob { job_id: Some(42), ..job(ROADS, "bbbb") }).unwrap();
    assert_eq!((begun.attempts, begun.previous.len()), (1, 0));
    journal.record_step(ROADS, &step("restore", None, StepOutcome::Done)).unwrap();
    journal.finish_job(ROADS, &JobOutcome::plain(State::Failed)).unwrap();
    let record = journal.job(ROADS).unwrap().unwrap();
    assert_eq!(record.content_md5, "bbbb");
    let deployed = record.deployed.unwrap();
    assert_eq!((deployed.content_md5.as_str(), deployed.job_id), ("aaaa", Some(41)));

    let removal = NewJob { action: "remove", ..job(ROADS, "bbbb") };
    let begun = journal.begin_job(&removal).unwrap();
    assert_eq!((begun.attempts, begun.previous.len()), (1, 0));
    journal.finish_job(ROADS, &JobOutcome::plain(State::Succeeded)).unwrap();
    assert_eq!(journal.job(ROADS).unwrap().unwrap().deployed, None);
}

#[test]
fn what_was_not_begun_cannot_end_or_take_steps() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let succeeded = JobOutcome::plain(State::Succeeded);
    assert_eq!(journal.finish_job(ROADS, &succeeded).unwrap_err().kind(), ErrorKind::Bug);
    let done = step("restore", None, StepOutcome::Done);
    assert_eq!(journal.record_step(ROADS, &done).unwrap_err().kind(), ErrorKind::Bug);
    journal.begin_job(&job(ROADS, "aaaa")).unwrap();
    assert_eq!(journal.finish_job(ROADS, &JobOutcome::plain(State::Running)).unwrap_err().kind(), ErrorKind::Bug);
    assert_eq!(journal.finish_run(7, &summary(RunOutcome::Succeeded)).unwrap_err().kind(), ErrorKind::Bug);
}

#[test]
fn jobs_that_need_nothing_are_settled_together() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    apply(&journal, ROADS, "aaaa", State::Succeeded);
    let filtered = |job_file| (job(job_file, "bbbb"), JobOutcome::plain(State::Filtered));
    journal.settle_jobs(&[filtered(ROADS), filtered(LAKES)]).unwrap();
    let first = journal.jobs(Selection::default()).unwrap();
    assert!(first.iter().all(|job| job.state == State::Filtered && job.attempts == 0 && job.finished.is_some()));
    assert_eq!(first[0].deployed.as_ref().unwrap().content_md5, "aaaa", "the filter does not undo what is deployed");
    // The same again is not written again.
    journal.settle_jobs(&[filtered(ROADS), filtered(LAKES)]).unwrap();
    assert_eq!(journal.jobs(Selection::default()).unwrap(), first);
    journal.settle_jobs(&[(job(LAKES, "cccc"), JobOutcome::plain(State::Succeeded))]).unwrap();
    assert_eq!(journal.job(LAKES).unwrap().unwrap().deployed.unwrap().content_md5, "cccc");
}

#[test]
fn the_selection_lists_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for (job_file, state) in
        [("d", State::Interrupted), ("c", State::Failed), ("b", State::Succeeded), ("a", State::Filtered)]
    {
        apply(&journal, job_file, "aaaa", state);
    }
    assert_eq!(files(&journal, Which::All), ["a", "b", "c", "d"]);
    assert_eq!(files(&journal, Which::Failed), ["c", "d"]);
    assert_eq!(files(&journal, Which::Succeeded), ["b"]);
    journal.begin_job(&job("e", "aaaa")).unwrap();
    apply(&journal, "f", "aaaa", State::Succeeded);
    journal.forget(Forget::Files(&["f".to_owned()])).unwrap();
    apply(&journal, "g", "aaaa", State::Waiting);
    let mut unfinished: Vec<_> =
        journal.unfinished().unwrap().into_iter().map(|(file, known)| (file, known.state)).collect();
    unfinished.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [State::Failed, State::Interrupted, State::Running, State::Forgotten, State::Waiting];
    assert_eq!(unfinished, ["c", "d", "e", "f", "g"].map(str::to_owned).into_iter().zip(expected).collect::<Vec<_>>());
    let wanted = ["b".to_owned(), "c".to_owned(), "it's \"unknown\"".to_owned()];
    let found = journal.jobs(Selection { which: Which::Failed, files: &wanted }).unwrap();
    assert_eq!(found.iter().map(|job| job.job_file.as_str()).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn a_forgotten_job_runs_afresh_and_unknown_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.begin_job(&job(ROADS, "aaaa")).unwrap();
    journal.record_step(ROADS, &step("restore", None, StepOutcome::Done)).unwrap();
    journal.finish_job(ROADS, &JobOutcome::plain(State::Succeeded)).unwrap();
    apply(&journal, LAKES, "aaaa", State::Failed);

    let result = journal.forget(Forget::Files(&[ROADS.to_owned(), "typo".to_owned()])).unwrap();
    assert_eq!((result.forgotten, result.unknown), (vec![ROADS.to_owned()], vec!["typo".to_owned()]));
    let record = journal.job(ROADS).unwrap().unwrap();
    assert_eq!((record.state, record.steps.len(), record.attempts), (State::Forgotten, 0, 0));
    assert!(record.deployed.is_some(), "the layer is still there");
    let known = &journal.digest().unwrap()[ROADS];
    assert_eq!((known.content_md5.as_str(), known.state), ("", State::Forgotten), "equal to no content");
    let begun = journal.begin_job(&job(ROADS, "aaaa")).unwrap();
    assert_eq!((begun.attempts, begun.previous.len()), (1, 0));

    let result = journal.forget(Forget::Failed).unwrap();
    assert_eq!((result.forgotten, result.unknown.len()), (vec![LAKES.to_owned()], 0));
    assert_eq!(files(&journal, Which::All), [ROADS, LAKES]);
}

#[test]
fn markers_are_kept_per_target_and_cleared_by_their_exact_key() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for target in [GS1, GS2] {
        for key in ["style w:roads", "style w:roads_old", "store w:ds", "style W:roads"] {
            journal.set_marker(target, key, "1").unwrap();
        }
    }
    journal.set_marker(GS1, "style w:roads", "2").unwrap();
    assert_eq!(journal.marker(GS1, "style w:roads").unwrap().as_deref(), Some("2"));
    assert_eq!(journal.marker(GS2, "style w:roads").unwrap().as_deref(), Some("1"));
    journal.clear_marker(GS1, "style w:roads").unwrap();
    assert_eq!(journal.marker(GS1, "style w:roads").unwrap(), None);
    assert_eq!(journal.marker(GS1, "style w:roads_old").unwrap().as_deref(), Some("1"));
    journal.clear_marker(GS2, "style").unwrap();
    let left = journal.markers().unwrap();
    assert_eq!(left.iter().filter(|((target, _), _)| target == GS1).count(), 3);
    assert_eq!(left.len(), 7);
}

#[test]
fn the_cursor_and_the_last_500_runs_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.cursor().unwrap(), None);
    journal.set_cursor("4f1c").unwrap();
    journal.set_cursor("5a2d").unwrap();
    for number in 1..=503 {
        assert_eq!(journal.start_run("poll", Some("4f1c"), Some("5a2d")).unwrap(), number);
    }
    journal.finish_run(503, &summary(RunOutcome::Failed)).unwrap();
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.cursor().unwrap().as_deref(), Some("5a2d"));
    let runs = journal.last_runs(1000).unwrap();
    assert_eq!((runs.len(), runs[0].id, runs[499].id), (500, 503, 4));
    assert_eq!(runs[0].summary, summary(RunOutcome::Failed));
    assert_eq!((runs[0].from.as_deref(), runs[0].to.as_deref()), (Some("4f1c"), Some("5a2d")));
    // Each start found the one before it unfinished.
    assert_eq!(runs[1].summary.outcome, RunOutcome::Interrupted);
    assert_eq!(journal.last_runs(2).unwrap().len(), 2);
}

#[tokio::test]
async fn a_job_of_a_dead_run_is_shown_as_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let lock = RunLock::acquire(dir.path(), "sync", Wait::No, &stop).await.unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let run = journal.start_run("sync", None, None).unwrap();
    journal.begin_job(&job(ROADS, "aaaa")).unwrap();
    let reader = Journal::open_read_only(dir.path()).unwrap().unwrap();
    let record = reader.job(ROADS).unwrap().unwrap();
    assert_eq!((record.state, record.run), (State::Running, Some(run)));
    assert_eq!(reader.last_runs(1).unwrap()[0].summary.outcome, RunOutcome::Running);

    drop((journal, lock));
    assert_eq!(reader.job(ROADS).unwrap().unwrap().state, State::Interrupted);
    assert_eq!(files(&reader, Which::Failed), [ROADS]);
    assert_eq!(reader.last_runs(1).unwrap()[0].summary.outcome, RunOutcome::Interrupted);

    let journal = Journal::open(dir.path()).unwrap();
    journal.start_run("sync", None, None).unwrap();
    assert_eq!(journal.digest().unwrap()[ROADS].state, State::Interrupted);
}

#[test]
fn a_reader_sees_whole_jobs_while_another_process_writes() {
    if let Some(dir) = part() {
        return write_for_ever(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(Journal::open_read_only(dir.path()).unwrap().is_none());
    let mut writer = Second::start("a_reader_sees_whole_jobs_while_another_process_writes", dir.path());
    writer.next().unwrap();
    let reader = Journal::open_read_only(dir.path()).unwrap().unwrap();
    let mut seen = 0;
    for _ in 0..100 {
        let jobs = reader.jobs(Selection { which: Which::Succeeded, files: &[] }).unwrap();
        assert!(jobs.iter().all(|job| job.steps.len() == 3));
        assert!(jobs.len() >= seen);
        seen = jobs.len();
        writer.next().unwrap();
    }
    assert!(seen >= 99, "the reader stood still at {seen}");
    assert_eq!(reader.set_cursor("4f1c").unwrap_err().kind(), ErrorKind::Bug);
}

#[test]
fn processes_that_make_the_journal_at_once_all_get_it() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let dir = dir.path().join(round.to_string());
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (dir, start) = (&dir, &start);
                scope.spawn(move || {
                    start.wait();
                    let journal = Journal::open(dir).unwrap();
                    apply(&journal, &number.to_string(), "aaaa", State::Succeeded);
                });
            }
        });
        assert_eq!(Journal::open(&dir).unwrap().digest().unwrap().len(), 8);
    }
}
