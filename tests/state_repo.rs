//! The state repository against real Mercurial and Git.

#![allow(clippy::unwrap_used, reason = "a step that fails ends the test")]

mod following;
mod in_hooks;
mod reading;

use std::path::Path;
use std::time::Duration;

use borg_slave::state_repo::{ChangeKind, OpenOptions, Revision, StateRepo, Vcs};

/// Makes one test per VCS out of each `async fn(Vcs)` of the file.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod hg { $(#[tokio::test] async fn $test() { super::$test(super::Vcs::Hg).await; })* }
        mod git { $(#[tokio::test] async fn $test() { super::$test(super::Vcs::Git).await; })* }
    };
}
use on_both;

fn options(root: &Path) -> OpenOptions {
    let mut options = OpenOptions::new(root);
    options.time_limit = Duration::from_secs(60);
    options
}

async fn open(root: &Path) -> StateRepo {
    StateRepo::open(options(root)).await.expect("the repository opens")
}

/// The changes as lines of a letter and a path.
async fn changes(repo: &mut StateRepo, from: &Revision, to: &Revision) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'M',
        ChangeKind::Removed => 'R',
    };
    let changes = repo.changes(from, to).await.expect("the changes can be read");
    changes.into_iter().map(|change| format!("{} {}", letter(change.kind), change.path)).collect()
}

async fn content(repo: &mut StateRepo, at: &Revision, path: &str) -> Option<Vec<u8>> {
    repo.contents(at, &[path.to_owned()]).await.expect("the file can be read").remove(0)
}
