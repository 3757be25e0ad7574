//! One run at a time: refused, waited for, freed by the kernel.

use std::path::Path;
use std::time::Duration;

use borg_slave::error::ErrorKind;
use borg_slave::journal::{Holder, RunLock, Wait};
use tokio_util::sync::CancellationToken;

use super::{Second, part, say, stay};

#[tokio::test]
async fn a_second_run_is_refused_with_the_name_of_the_first() {
    if let Some(dir) = part() {
        return hold(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    assert_eq!(RunLock::holder(dir.path()).unwrap(), None);
    let mut first = Second::start("run_lock::a_second_run_is_refused_with_the_name_of_the_first", dir.path());
    first.next().unwrap();
    let holder = RunLock::holder(dir.path()).unwrap().unwrap();
    assert_eq!((holder.pid, holder.what.as_str()), (Some(first.child.id()), "hook pretxnchangegroup"));
    let refused = RunLock::acquire(dir.path(), "sync", Wait::No, &stop).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    let by = format!("held by the run of pid {} (hook pretxnchangegroup), started ", first.child.id());
    assert!(refused.message().starts_with(&by), "{refused}");

    // The kernel frees it; what the dead one wrote means nothing.
    first.kill();
    assert_eq!(RunLock::holder(dir.path()).unwrap(), None);
    let lock = RunLock::acquire(dir.path(), "sync", Wait::No, &stop).await.unwrap();
    assert_eq!(RunLock::holder(dir.path()).unwrap().unwrap().what, "sync");
    drop(lock);
    assert_eq!(RunLock::holder(dir.path()).unwrap(), None);
}

#[tokio::test]
async fn a_second_run_waits_for_the_first_and_says_so_once() {
    if let Some(dir) = part() {
        return hold(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let mut first = Second::start("run_lock::a_second_run_waits_for_the_first_and_says_so_once", dir.path());
    first.next().unwrap();
    let pid = first.child.id();
    let mut told = Vec::new();
    // It is killed because it was told of: so the wait is seen to begin, and to end.
    let mut tell = |holder: &Holder| {
        told.push(holder.pid);
        first.kill();
    };
    let waiting = RunLock::acquire(dir.path(), "sync", Wait::Yes(&mut tell), &stop);
    let _lock = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(told, [Some(pid)]);
}

async fn hold(dir: &Path) {
    let lock = RunLock::acquire(dir, "hook pretxnchangegroup", Wait::No, &CancellationToken::new()).await;
    say("held");
    stay();
    drop(lock);
}

#[tokio::test]
async fn a_wait_ends_when_the_run_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let _first = RunLock::acquire(dir.path(), "poll", Wait::No, &stop).await.unwrap();
    let mut tell = |_: &_| stop.cancel();
    let waiting = RunLock::acquire(dir.path(), "sync", Wait::Yes(&mut tell), &stop);
    let stopped = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Stopped);
}

#[tokio::test]
async fn a_child_does_not_keep_the_lock() {
    if part().is_some() {
        say("here");
        return stay();
    }
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let lock = RunLock::acquire(dir.path(), "sync", Wait::No, &stop).await.unwrap();
    let mut child = Second::start("run_lock::a_child_does_not_keep_the_lock", dir.path());
    child.next().unwrap();
    // Closing without unlocking is what a killed holder does.
    let path = dir.path().join("run.lock");
    let open_here = std::fs::read_dir(format!("/proc/{}/fd", child.child.id()))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .any(|open| open == path);
    assert!(!open_here, "the child inherited the lock file");
    drop(lock);
    assert!(RunLock::acquire(dir.path(), "poll", Wait::No, &stop).await.is_ok());
}

#[tokio::test]
async fn somebody_who_looks_does_not_make_a_run_fail() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    drop(RunLock::acquire(dir.path(), "sync", Wait::No, &stop).await.unwrap());
    let looker = std::fs::File::open(dir.path().join("run.lock")).unwrap();
    looker.lock_shared().unwrap();
    let look = async {
        tokio::task::yield_now().await;
        drop(looker);
    };
    let (lock, ()) = tokio::join!(RunLock::acquire(dir.path(), "sync", Wait::No, &stop), look);
    assert!(lock.is_ok(), "{lock:?}");
}
