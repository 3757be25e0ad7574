//! Who holds the clone's lock.
//!
//! Mercurial's lock is a symbolic link whose target names its owner: `host/namespace:pid`, where namespace is
//! the inode of the PID namespace in hexadecimal digits. A lock of this host and namespace whose
//! process is gone is broken by the next hg; a lock of another host or container never is, because nobody there can be asked.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::state_repo::complaint::mask_credentials;

/// The lock on the work tree, which hg takes first.
fn of_work_tree(root: &Path) -> PathBuf {
    root.join(".hg/wlock")
}

/// The lock on the changesets. In an `hg share` they lie where `sharedpath` tells: the `.hg` of another clone, absolute
/// or (`share --relative`) seen from the own one.
fn of_changesets(root: &Path) -> PathBuf {
    let own = root.join(".hg");
    let shared = std::fs::read_to_string(own.join("sharedpath")).unwrap_or_default();
    own.join(shared.trim_end_matches('\n')).join("store/lock")
}

/// The error for an hg that waited for the lock in vain.
pub(super) fn held(root: &Path, stderr: &str) -> Error {
    let owner = [of_work_tree(root), of_changesets(root)].iter().find_map(|lock| std::fs::read_link(lock).ok());
    let owner = owner.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
    let subject = root.display().to_string();
    let error = match owner.rsplit_once(':') {
        Some((place, pid)) if place == here() => {
            Error::new(ErrorKind::Busy, format!("process {pid} holds the clone's lock"))
                .hint("another `hg pull` or its hook is at work there; the next run tries again")
        }
        Some((place, pid)) => Error::new(
            ErrorKind::Busy,
            format!("process {pid} on another host or in another container ({place}) holds the clone's lock"),
        )
        .hint(
            "if that container or machine is gone, so that no hg works on this clone any more, \
                 run in the clone: hg debuglocks --force-free-lock --force-free-wlock",
        ),
        None => Error::new(ErrorKind::Busy, "another hg held the clone's lock")
            .hint("another `hg pull` or its hook was at work there; the next run tries again"),
    };
    error.subject(subject).source(mask_credentials(stderr))
}

/// Whether a process of this host and container holds the lock on the changesets. A lock that its
/// owner has left behind, and one that nobody here can ask about, is not.
pub(super) fn is_held(root: &Path) -> bool {
    let Ok(owner) = std::fs::read_link(of_changesets(root)) else { return false };
    match owner.to_string_lossy().rsplit_once(':') {
        Some((place, pid)) => place == here() && Path::new("/proc").join(pid).exists(),
        None => false,
    }
}

/// What this process would write before the colon.
fn here() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    // Mercurial leaves the namespace out where it cannot learn it.
    match std::fs::metadata("/proc/self/ns/pid") {
        Ok(namespace) => format!("{host}/{:x}", namespace.ino()),
        Err(_) => host.to_owned(),
    }
}
