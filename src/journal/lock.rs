//! The lock that lets one run at a time work in a clone.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result, io_error};

/// Name of the lock file in the status directory.
const FILE_NAME: &str = "run.lock";

/// Name of the file that the one daemon of a clone locks as long as it lives.
const DAEMON_FILE_NAME: &str = "daemon.lock";

/// How long a lock is tried before it counts as held. Somebody who only looks whether it is held has
/// it for some microseconds, and a new holder needs as long to write who it is.
const GRACE: Duration = Duration::from_millis(100);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Longest text that is read from a lock file, in bytes.
const TEXT_LIMIT: u64 = 4096;

/// The right to run; given back when dropped, and by the kernel when the process ends in any way.
///
/// It is an `flock` on `run.lock`, so there is no stale lock to break after a kill: what the file
/// says only tells who has the lock, not that it is held. The file is never removed, since somebody may be
/// waiting at it. Child processes do not inherit the lock (the file is opened close-on-exec), so an
/// orphaned one does not keep it.
#[derive(Debug)]
#[must_use]
pub struct RunLock {
    file: File,
}

/// Who has the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process; as its own PID namespace counts when it runs in a container. `None` when the file
    /// does not tell.
    pub pid: Option<u32>,
    /// What it does, such as `hook pretxnchangegroup`.
    pub what: String,
    /// Since when.
    pub started: Option<Timestamp>,
}

/// What to do when another run has the lock.
pub enum Wait<'a> {
    /// Give up.
    No,
    /// Wait; the function is called once, when the wait begins.
    Yes(&'a mut (dyn FnMut(&Holder) + Send)),
}

impl RunLock {
    /// Takes the lock of the status directory `dir`, which is made when it is not there, for doing `what`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] when another run has it and `wait` says no; [`ErrorKind::Stopped`] when
    /// `stop` is cancelled while waiting; [`ErrorKind::Io`] when the file cannot be opened or locked.
    pub async fn acquire(dir: &Path, what: &str, wait: Wait<'_>, stop: &CancellationToken) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        Self::acquire_file(open(dir, &path)?, &path, what, wait, stop).await
    }

    /// Takes the right to be the daemon of the status directory `dir`. It does not keep others from running.
    /// `inherited` is the lock file as the program that this process was before has left it open: then the right
    /// was never given back.
    ///
    /// # Errors
    ///
    /// As [`RunLock::acquire`].
    pub async fn acquire_for_daemon(
        dir: &Path,
        inherited: Option<File>,
        wait: Wait<'_>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let path = dir.join(DAEMON_FILE_NAME);
        let file = match inherited.filter(|file| is_same_file(file, &path)) {
            Some(file) => file,
            None => open(dir, &path)?,
        };
        Self::acquire_file(file, &path, "poll", wait, stop).await
    }

    async fn acquire_file(
        mut file: File,
        path: &Path,
        what: &str,
        mut wait: Wait<'_>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(2);
        let mut is_told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(cannot_lock(path, source)),
            }
            if !is_told && started.elapsed() >= GRACE {
                let holder = Holder::read(&mut file);
                match &mut wait {
                    Wait::No => return Err(busy(path, &holder)),
                    Wait::Yes(tell) => tell(&holder),
                }
                is_told = true;
            }
            // Waiting in the kernel could not be given up when the run is stopped.
            tokio::select! {
                () = stop.cancelled() => {
                    return Err(Error::new(ErrorKind::Stopped, "stopped while waiting for another run")
                        .subject(path.display().to_string()));
                }
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let holder = Holder { pid: Some(std::process::id()), what: what.to_owned(), started: Some(Timestamp::now()) };
        holder.write(&mut file).map_err(|source| io_error(path, "cannot write to the run lock", source))?;
        Ok(Self { file })
    }

    /// Who has the lock of the status directory `dir` at this moment, if somebody has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the file is there and cannot be read.
    pub fn holder(dir: &Path) -> Result<Option<Holder>> {
        holder_of(&dir.join(FILE_NAME))
    }

    /// The daemon of the status directory `dir`, if one runs.
    ///
    /// # Errors
    ///
    /// As [`RunLock::holder`].
    pub fn daemon(dir: &Path) -> Result<Option<Holder>> {
        holder_of(&dir.join(DAEMON_FILE_NAME))
    }
}

fn holder_of(path: &Path) -> Result<Option<Holder>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error(path, "cannot read the run lock", source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(Holder::read(&mut file))),
        Err(TryLockError::Error(source)) => Err(cannot_lock(path, source)),
    }
}

impl AsFd for RunLock {
    /// The locked file: a process that has it open keeps the lock.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(dir: &Path, path: &Path) -> Result<File> {
    std::fs::create_dir_all(dir)
        .map_err(|source| io_error(dir, "cannot make the status directory (SYNC_STATUS_PATH)", source))?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(|source| io_error(path, "cannot open the run lock", source))
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let identity = |about: std::io::Result<std::fs::Metadata>| about.ok().map(|about| (about.dev(), about.ino()));
    let known = identity(file.metadata());
    known.is_some() && known == identity(std::fs::metadata(path))
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // What stands there counts only while the lock is held; emptying it keeps readers from wondering.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

impl Holder {
    fn write(&self, file: &mut File) -> std::io::Result<()> {
        let text = serde_json::json!({
            "pid": self.pid,
            "what": self.what,
            "started": self.started.map(|started| started.to_string()),
        });
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{text}\n").as_bytes())
    }

    /// What the file tells, as much of it as can be made out.
    fn read(file: &mut File) -> Self {
        let mut text = Vec::new();
        let read = file.rewind().and_then(|()| file.take(TEXT_LIMIT).read_to_end(&mut text));
        let value: serde_json::Value = read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self {
            pid: value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()),
            what: value["what"].as_str().unwrap_or_default().to_owned(),
            started: value["started"].as_str().and_then(|started| started.parse().ok()),
        }
    }

    fn describe(&self, now: &Zoned) -> String {
        let mut text = match self.pid {
            Some(pid) => format!("the run of pid {pid}"),
            None => "another run".to_owned(),
        };
        if !self.what.is_empty() {
            text.push_str(&format!(" ({})", self.what));
        }
        if let Some(started) = self.started {
            let started = started.to_zoned(now.time_zone().clone());
            let format = if started.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
            text.push_str(&format!(", started {}", started.strftime(format)));
        }
        text
    }
}

impl fmt::Display for Holder {
    /// `the run of pid 4711 (hook pretxnchangegroup), started 12:01:07`, in local time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(&Timestamp::now().to_zoned(TimeZone::system())))
    }
}

fn busy(path: &Path, holder: &Holder) -> Error {
    Error::new(ErrorKind::Busy, format!("held by {holder}")).subject(path.display().to_string()).hint(
        "let it end, or leave out --no-wait to wait for it; do not remove the file: the lock ends with its process",
    )
}

fn cannot_lock(path: &Path, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot lock the file")
        .subject(PathBuf::from(path).display().to_string())
        .source(source)
        .hint("let SYNC_STATUS_PATH name a directory on a local disk; on NFS the server's lock service has to run")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> Holder {
        Holder {
            pid: Some(4711),
            what: "hook pretxnchangegroup".to_owned(),
            started: Some("2026-03-01T12:01:07Z".parse().unwrap()),
        }
    }

    #[test]
    fn a_holder_is_told_with_the_date_only_when_it_is_not_of_today() {
        let same_day = "2026-03-01T23:00:00[UTC]".parse().unwrap();
        let next_day = "2026-03-02T00:30:00[UTC]".parse().unwrap();
        insta::assert_snapshot!(hook().describe(&same_day), @"the run of pid 4711 (hook pretxnchangegroup), started 12:01:07");
        insta::assert_snapshot!(hook().describe(&next_day), @"the run of pid 4711 (hook pretxnchangegroup), started 2026-03-01 12:01:07");
    }

    #[tokio::test]
    async fn who_inherits_the_open_file_has_the_lock_and_nobody_else() {
        let (dir, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let take = |file| RunLock::acquire_for_daemon(dir.path(), file, Wait::No, &stop);
        let first = take(None).await.unwrap();
        let same = File::from(first.as_fd().try_clone_to_owned().unwrap());
        let heir = take(Some(same)).await.unwrap();
        let another = tempfile::tempfile().unwrap();
        assert_eq!(take(Some(another)).await.unwrap_err().kind(), ErrorKind::Busy);
        // `first` is gone without giving anything back, as a program that was replaced.
        std::mem::forget(first);
        assert_eq!(take(None).await.unwrap_err().kind(), ErrorKind::Busy);
        drop(heir);
        drop(take(None).await.unwrap());
    }

    #[test]
    fn a_file_that_says_nothing_still_names_somebody() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"{\"pid\": 47").unwrap();
        let now = "2026-03-01T23:00:00[UTC]".parse().unwrap();
        assert_eq!(Holder::read(&mut file).describe(&now), "another run");
    }

    #[test]
    fn a_shorter_text_replaces_a_longer_one_wholly() {
        let mut file = tempfile::tempfile().unwrap();
        hook().write(&mut file).unwrap();
        let brief = Holder { what: "sync".to_owned(), ..hook() };
        brief.write(&mut file).unwrap();
        assert_eq!(Holder::read(&mut file), brief);
    }
}
