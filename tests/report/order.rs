//! Whenever the master is told, in the end it knows the same.

use borg_slave::journal::{JobOutcome, Journal, NewJob, State, StepOutcome, StepRecord};
use borg_slave::report::{self, About, Master};
use jiff::Timestamp;

use super::Monitor;

/// A small generator: the same outcomes each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One job's end.
struct End {
    job_file: String,
    kind: &'static str,
    action: &'static str,
    state: State,
    about: About,
    number: i64,
}

fn ends(count: i64) -> Vec<End> {
    let mut chance = Chance(20_161_105);
    (0..count)
        .map(|number| {
            let name = format!("layer_{}", chance.below(6));
            let (kind, action) = match chance.below(8) {
                0..=3 => ("feature", "publish"),
                4..=5 => ("feature", "remove"),
                6 => ("feature", "meta"),
                _ => ("wms_store", "publish"),
            };
            let state = if chance.below(3) == 0 { State::Failed } else { State::Succeeded };
            let about = About {
                task_name: format!("w:{name}"),
                spatial_type: (chance.below(2) == 0).then(|| "POINT".to_owned()),
                preview_file: (chance.below(2) == 0).then(|| format!("slave/geoserver/w/{name}.png")),
                name: name.clone(),
            };
            End { job_file: format!("geoserver/{kind}/w.{name}.json"), kind, action, state, about, number }
        })
        .collect()
}

/// Writes an end down as a pass does; the moment is the outcome's own.
fn write_down(journal: &Journal, end: &End, master: &Master) {
    let at = Timestamp::from_second(1_700_000_000 + end.number).unwrap();
    let batch = format!("batch {}", end.number);
    journal
        .begin_job(&NewJob {
            job_file: end.job_file.clone(),
            kind: end.kind,
            action: end.action,
            content_md5: format!("{:032}", end.number),
            revision: "4f1c".to_owned(),
            job_id: Some(end.number),
            job_batch_id: Some(batch),
        })
        .unwrap();
    let step = StepRecord {
        step: "restore".into(),
        target: None,
        outcome: StepOutcome::Done,
        message: None,
        started: at,
        duration_ms: 1,
    };
    journal.record_step(&end.job_file, &step).unwrap();
    let outcome = JobOutcome { message: Some(format!("outcome {}", end.number)), ..JobOutcome::plain(end.state) };
    let job = journal.job(&end.job_file).unwrap().unwrap();
    let mut reports = report::job_ended(&job, end.action, &outcome, at, &end.about);
    reports.push(report::run_note(master, at, "Ended", std::iter::once(end.job_file.clone())));
    journal.finish_and_report(&[(&end.job_file, &outcome)], &reports).unwrap();
}

fn journal() -> (tempfile::TempDir, Journal) {
    // In memory: what is durable elsewhere makes no difference here but time.
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    (dir, journal)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_away_for_200_outcomes_knows_what_an_undisturbed_one_does() {
    let (undisturbed, away, sometimes) = (Monitor::start().await, Monitor::start().await, Monitor::start().await);
    let ((_a, at_once), (_b, late), (_c, mixed)) = (journal(), journal(), journal());
    let mut chance = Chance(7);
    let master = undisturbed.master();
    for end in ends(200) {
        write_down(&at_once, &end, &master);
        report::deliver(&undisturbed.master(), &at_once).await.unwrap();
        write_down(&late, &end, &master);
        write_down(&mixed, &end, &master);
        if chance.below(9) == 0 {
            report::deliver(&sometimes.master(), &mixed).await.unwrap();
        }
    }
    let backlog = late.backlog().unwrap().unwrap();
    assert!(backlog.count < 40, "only the newest state of each subject waits: {backlog:?}");
    report::deliver(&away.master(), &late).await.unwrap();
    report::deliver(&sometimes.master(), &mixed).await.unwrap();
    let expected = undisturbed.everything().await;
    assert!(expected.len() > 10, "{expected:#?}");
    assert_eq!(away.everything().await, expected);
    assert_eq!(sometimes.everything().await, expected);
    for journal in [&at_once, &late, &mixed] {
        assert_eq!(journal.backlog().unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_deliver_at_once_register_once_and_leave_the_newest() {
    let monitor = Monitor::start().await;
    let (dir, first) = journal();
    let second = Journal::open(dir.path()).unwrap();
    for end in ends(20) {
        let (master, other) = (monitor.master(), monitor.master());
        write_down(&first, &end, &master);
        let (one, two) = tokio::join!(report::deliver(&master, &first), report::deliver(&other, &second));
        one.unwrap();
        two.unwrap();
    }
    let undisturbed = Monitor::start().await;
    let (_dir, alone) = journal();
    ends(20).iter().for_each(|end| write_down(&alone, end, &monitor.master()));
    report::deliver(&undisturbed.master(), &alone).await.unwrap();
    assert_eq!(monitor.everything().await, undisturbed.everything().await);
    assert_eq!(monitor.rows("select 1 from monitor_slaveserver").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_registers_the_slave_and_is_told_again() {
    let monitor = Monitor::start().await;
    let (_dir, journal) = journal();
    report::polled(&journal, &monitor.master()).unwrap();
    report::deliver(&monitor.master(), &journal).await.unwrap();
    let other = Master {
        channels: "geoserver,dpaw".into(),
        code_version: "0.2.0 (a-branch-with-a-rather-long-name)".into(),
        ..monitor.master()
    };
    report::polled(&journal, &other).unwrap();
    report::deliver(&other, &journal).await.unwrap();
    let rows = monitor
        .rows(
            "select name, listen_channels, code_version, register_time <= last_poll_time + '1 second'::interval as known, \
             now() - last_poll_time < '1 minute'::interval as recent from monitor_slaveserver",
        )
        .await;
    assert_eq!(
        rows,
        [
            r#"{"name":"slave","listen_channels":"geoserver,dpaw","code_version":"0.2.0 (a-branch-with-a-rather-l…","known":true,"recent":true}"#
        ]
    );
}
