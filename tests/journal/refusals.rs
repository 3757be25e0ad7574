//! A journal that cannot be read or written: damaged, of a newer version, out of reach.

use borg_slave::error::{Error, ErrorKind};
use borg_slave::journal::{JobOutcome, Journal, State};

use super::{ROADS, Second, apply, job, part, say};

#[test]
fn a_damaged_journal_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.sqlite3");
    std::fs::write(&path, "not a database ".repeat(1000)).unwrap();
    let told = |error: Error| error.paragraph().replace(&dir.path().display().to_string(), "/status");
    let text = told(Journal::open(dir.path()).unwrap_err());
    assert_eq!(told(Journal::open_read_only(dir.path()).unwrap_err()), text);
    insta::assert_snapshot!(text, @r"
        Error: /status/journal.sqlite3: the journal is damaged or is no journal
          Caused by: file is not a database
          Caused by: Error code 26: file is not a database
          Hint: move /status/journal.sqlite3, and journal.sqlite3-wal and journal.sqlite3-shm beside it, away and run again: a new journal is begun and every job is applied again, which is harmless but takes its time
        ");
    std::fs::rename(&path, dir.path().join("damaged")).unwrap();
    assert!(Journal::open(dir.path()).unwrap().digest().unwrap().is_empty());
}

#[test]
fn damage_in_the_middle_is_told_when_it_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let names: Vec<String> = (0..500).map(|number| format!("dpaw/layers/w.layer{number}.json")).collect();
    let jobs: Vec<_> = names.iter().map(|name| (job(name, "aaaa"), JobOutcome::plain(State::Filtered))).collect();
    journal.settle_jobs(&jobs).unwrap();
    let path = journal.path().to_owned();
    drop(journal);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let error = journal.digest().unwrap_err();
    assert!(error.message().contains("damaged"), "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("every job is applied again"));
}

#[test]
fn a_journal_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = Journal::open(dir.path()).unwrap().path().to_owned();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&path).unwrap();
    for error in [Journal::open(dir.path()).unwrap_err(), Journal::open_read_only(dir.path()).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_user_who_may_only_read_sees_the_status_and_is_told_why_it_cannot_run() {
    if let Some(dir) = part() {
        let seen = Journal::open_read_only(&dir).unwrap().unwrap().job(ROADS).unwrap().unwrap().state;
        let refused = Journal::open(&dir).unwrap_err();
        return say(format_args!("{seen}; {}; {}", refused.kind() == ErrorKind::Io, refused.hint_text().unwrap()));
    }
    let dir = tempfile::tempdir().unwrap();
    let permissions = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    apply(&Journal::open(dir.path()).unwrap(), ROADS, "aaaa", State::Succeeded);
    std::fs::set_permissions(dir.path().join("journal.sqlite3"), permissions(0o444)).unwrap();
    std::fs::set_permissions(dir.path(), permissions(0o555)).unwrap();
    // Permissions do not bind root.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let wrapper: &[&str] = if rustix::process::getuid().is_root() { &nobody } else { &[] };
    let test = "refusals::a_user_who_may_only_read_sees_the_status_and_is_told_why_it_cannot_run";
    let said = Second::start_through(wrapper, test, dir.path()).next();
    std::fs::set_permissions(dir.path(), permissions(0o755)).unwrap();
    // Somebody who may write has it open: now there is a log beside it that must be read as well.
    std::fs::set_permissions(dir.path().join("journal.sqlite3"), permissions(0o644)).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    apply(&journal, ROADS, "aaaa", State::Failed);
    std::fs::set_permissions(dir.path(), permissions(0o555)).unwrap();
    let said_meanwhile = Second::start_through(wrapper, test, dir.path()).next();
    std::fs::set_permissions(dir.path(), permissions(0o755)).unwrap();
    assert!(said_meanwhile.expect("the reader failed").starts_with("failed; "));
    let said = said.expect("the reader failed").replace(&dir.path().display().to_string(), "/status");
    insta::assert_snapshot!(said, @"succeeded; true; give the user that runs borg-slave the right to read and write /status and the journal files in it, and check that its file system is not mounted read-only");
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Journal::open(&file.join("status")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("SYNC_STATUS_PATH"), "{error}");
}
