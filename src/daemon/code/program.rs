//! The file that this program runs from, and the one that takes its place.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::journal::RunLock;
use crate::process::{self, Cmd};

/// The environment variable that tells a new program where the daemon's lock is.
pub(in crate::daemon) const LOCK_VARIABLE: &str = "BORG_SLAVE_DAEMON_LOCK";

/// What the kernel shows for the file of a running program, also when its name belongs to another file by now.
const RUNNING: &str = "/proc/self/exe";

/// How long a new program may take to say who it is.
const TRIAL_LIMIT: Duration = Duration::from_secs(60);

/// The running program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Where it is started from; may be a link that one day leads to another file.
    pub(super) path: PathBuf,
    /// Its file, free of links.
    pub(super) file: PathBuf,
    arguments: Vec<OsString>,
}

/// What tells one file from another, and from what it was before.
type Identity = (u64, u64, u64, i64, i64);

impl Program {
    pub(super) fn of_this_process() -> Result<Self> {
        let failed = "cannot find the file of the running program";
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let file = existing(std::env::current_exe().context(ErrorKind::Io, failed)?);
        let called = arguments.first().map(PathBuf::from).filter(|name| name.is_absolute());
        let path = called.filter(|name| name.canonicalize().is_ok_and(|name| name == file));
        Ok(Self { path: path.unwrap_or_else(|| file.clone()), file, arguments })
    }

    /// Whether there is another file in its place.
    pub(super) fn is_replaced(&self) -> bool {
        let now = identity(&self.path);
        now.is_some() && now != identity(Path::new(RUNNING))
    }

    /// Sees whether the file can be started in the place of this program, with the settings that it would find;
    /// returns what it calls itself.
    pub(super) async fn try_out(&self, stop: &CancellationToken) -> Result<String> {
        let trial =
            |arguments: &[OsString]| Cmd::new(&self.path).args(arguments).time_limit(TRIAL_LIMIT).stop(stop).run();
        let wrap = |error: Error| {
            if error.kind() == ErrorKind::Stopped {
                return error;
            }
            Error::new(ErrorKind::Process, "the new program cannot be started, the old one goes on")
                .subject(self.path.display().to_string())
                .source(error)
        };
        let version = trial(&["--version".into()]).await.and_then(process::Finished::success).map_err(wrap)?;
        let version = version.stdout_text().trim().to_owned();
        if !version.starts_with("borg-slave ") {
            return Err(wrap(Error::new(ErrorKind::Process, format!("it calls itself {version:?}"))));
        }
        let mut arguments: Vec<OsString> = self.arguments.iter().skip(1).cloned().collect();
        arguments.push("--can-start".into());
        trial(&arguments).await.and_then(process::Finished::success).map_err(wrap)?;
        Ok(version)
    }

    /// Puts the file in the place of this program, with the lock and the same arguments; comes back only when that
    /// fails, or when this program was asked to end: nothing would tell the new one.
    pub(super) async fn take_over(&self, lock: &RunLock, stop: &CancellationToken) -> Error {
        crate::telemetry::flush();
        // That may have taken a while, in which a signal has come that nobody has looked at.
        tokio::task::yield_now().await;
        if stop.is_cancelled() {
            return Error::new(ErrorKind::Stopped, "stopped before the new program took over");
        }
        process::replace_by(&self.path, &self.arguments, LOCK_VARIABLE, lock.as_fd())
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
}

/// The kernel marks a file whose name is gone or belongs to another one.
fn existing(file: PathBuf) -> PathBuf {
    match file.to_str().and_then(|name| name.strip_suffix(" (deleted)")) {
        Some(name) if !file.exists() => PathBuf::from(name),
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Wait;

    #[tokio::test]
    async fn who_is_asked_to_end_at_the_last_moment_is_not_replaced() {
        let (dir, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let lock = RunLock::acquire_for_daemon(dir.path(), None, Wait::No, &stop).await.unwrap();
        let path = dir.path().join("no such program");
        let program = Program { file: path.clone(), path, arguments: vec!["borg-slave".into()] };
        assert_eq!(program.take_over(&lock, &stop).await.kind(), ErrorKind::Process);
        stop.cancel();
        assert_eq!(program.take_over(&lock, &stop).await.kind(), ErrorKind::Stopped);
    }
}
