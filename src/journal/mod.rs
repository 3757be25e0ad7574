//! What is known of each job file, kept in `journal.sqlite3` in the status directory
//! (`SYNC_STATUS_PATH`), and the lock that lets one run at a time work.
//!
//! A job's outcome is keyed by its file and holds the MD5 of the file's content and its action: same
//! content and finished means nothing to do; changed means starting afresh. Steps are saved as they
//! end, so a run that was killed goes on where it stood.
//!
//! # What survives what
//!
//! The database is in WAL mode, so a torn write is never seen.
//!
//! - *The process is killed*: everything that a method has returned from is there.
//! - *The power fails*: everything up to the last durable write is there. Durable are
//!   [`Journal::finish_job`], [`Journal::settle_jobs`], [`Journal::set_cursor`], [`Journal::forget`],
//!   [`Journal::drop_jobs`], [`Journal::clear_marker`], [`Journal::finish_run`], and [`Journal::begin_job`] when it supersedes
//!   an outcome of other content; each waits for one flush of the disk. The write-ahead log is one
//!   file, so such a flush brings every earlier step and marker to the disk as well. Steps and
//!   markers that are lost with the power are done again, which is harmless.
//!
//! On a busy two-core virtual machine a step or marker costs 20 to 70 µs and a flush 3 ms. Jobs that
//! end at the same time share one through [`Journal::finish_jobs`];
//! thousands of outcomes that need no steps go through [`Journal::settle_jobs`] and cost one flush.
//!
//! # Where the directory may be
//!
//! On a local disk. WAL needs memory shared between the processes, which network file systems do not
//! offer across machines. The run lock is `flock`, which Linux passes on to an NFS server as a
//! byte-range lock and which so works there too, given a lock service; but a lock held by a client
//! that lost its network is only freed when the server gives the client up.

mod complaint;
mod forget;
mod inspect;
mod jobs;
mod lock;
mod markers;
mod outcomes;
mod pages;
mod reports;
mod runs;
mod schema;
mod steps;
mod trouble;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::error::{Error, ErrorKind, Result, io_error};

use complaint::{is_busy, is_refusal, read_only_failure, sqlite_error};
pub use forget::{Forget, Forgotten};
pub use jobs::{Begun, Deployed, JobOutcome, JobRecord, Known, NewJob, Selection, State, Which};
pub use lock::{Holder, RunLock, Wait};
pub use pages::{Listed, Order, Page};
pub use reports::{Backlog, NewReport, Report};
pub use runs::{RunOutcome, RunRecord, RunSummary};
pub use steps::{StepOutcome, StepRecord};
pub use trouble::Trouble;

/// Name of the database in the status directory.
const FILE_NAME: &str = "journal.sqlite3";

/// How long a statement waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of each job, and what was pushed where.
///
/// Opened once per process. Methods block, for microseconds, or for one flush of the disk where they
/// are durable (see the [module](self)), or while another process writes; other tasks of a runtime with several
/// threads go on meanwhile.
pub struct Journal {
    path: PathBuf,
    read_only: bool,
    inner: Mutex<Inner>,
    /// The run that this process started; 0 before [`Journal::start_run`].
    run: AtomicI64,
}

struct Inner {
    connection: Connection,
    /// What `pragma synchronous` stands at.
    durability: Durability,
}

/// What a write must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// The end of the process: the kernel has it.
    Kill,
    /// The end of the power: the disk has it.
    PowerLoss,
}

impl Journal {
    /// Opens the journal in `dir`; makes directory and database when they are not there, and brings
    /// an older database up to date.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when directory or file cannot be read and written, the disk is full or the
    /// file is damaged; [`ErrorKind::Unsupported`] when a newer version wrote it; [`ErrorKind::Busy`]
    /// when another process keeps it locked for ten seconds.
    pub fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)
            .map_err(|source| io_error(dir, "cannot make the status directory (SYNC_STATUS_PATH)", source))?;
        let path = dir.join(FILE_NAME);
        let is_new = !path.exists();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = patiently(&path, || {
            let mut connection = connect(&path, flags)?;
            if connection.is_readonly("main")? {
                return Err(read_only_failure().into());
            }
            // Two processes that make the same database at once are told "busy" here without a wait.
            connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            connection.execute_batch("pragma foreign_keys = on; pragma synchronous = normal")?;
            schema::migrate(&mut connection, &path)?;
            Ok(connection)
        })?;
        if is_new {
            // The name of a new file is durable only when its directory is.
            File::open(dir)
                .and_then(|handle| handle.sync_all())
                .map_err(|source| io_error(dir, "cannot flush the status directory to disk", source))?;
        }
        Ok(Self::with(path, connection, false))
    }

    /// Opens the journal in `dir` for reading only, also while a run is going on or when the user may
    /// not write there; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`]; writing to such a journal is an [`ErrorKind::Bug`].
    pub fn open_read_only(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE_NAME);
        if !path.try_exists().map_err(|source| io_error(&path, "cannot read the journal", source))? {
            return Ok(None);
        }
        let connection = patiently(&path, || {
            let plain = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let opened = connect(&path, plain).map_err(Failure::from).and_then(|connection| {
                let version = schema::check(&connection, &path)?;
                Ok((connection, version))
            });
            let (connection, version) = match opened {
                // Reading a database in WAL mode makes a -wal and a -shm file. Where that is not
                // allowed and nobody has it open, the database file alone is the whole journal.
                Err(Failure::Sqlite(source)) if is_refusal(&source) && !wal_of(&path).exists() => {
                    let connection = connect_immutable(&path)?;
                    let version = schema::check(&connection, &path)?;
                    (connection, version)
                }
                other => other?,
            };
            // A file that was just made and has no tables yet holds nothing.
            Ok((version > 0).then_some(connection))
        })?;
        Ok(connection.map(|connection| Self::with(path, connection, true)))
    }

    fn with(path: PathBuf, connection: Connection, read_only: bool) -> Self {
        let inner = Inner { connection, durability: Durability::Kill };
        Self { path, read_only, inner: Mutex::new(inner), run: AtomicI64::new(0) }
    }

    /// The file that the journal is kept in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody is applying jobs at this moment; only a reader has to ask.
    fn is_run_alive(&self) -> bool {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        // In doubt a job is shown as it is recorded.
        !self.read_only || RunLock::holder(dir).map_or(true, |holder| holder.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in the middle of a write rolled its transaction back.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in one transaction for reading, so that it sees one state of things.
    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut inner = self.lock();
        let result = inner.connection.transaction().and_then(|transaction| work(&transaction));
        result.map_err(|source| sqlite_error(&self.path, "cannot read the journal", source))
    }

    /// Runs `work` in one transaction for writing.
    fn write<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.write_locked(&mut self.lock(), durability, work)
    }

    fn write_locked<T>(
        &self,
        inner: &mut Inner,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        if self.read_only {
            return Err(Error::new(ErrorKind::Bug, "the journal was opened for reading only")
                .subject(self.path.display().to_string()));
        }
        waiting(|| inner.write(durability, work))
            .map_err(|source| sqlite_error(&self.path, "cannot write to the journal", source))
    }
}

impl Inner {
    fn write<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.durability != durability {
            self.connection.execute_batch(match durability {
                Durability::Kill => "pragma synchronous = normal",
                Durability::PowerLoss => "pragma synchronous = full",
            })?;
            self.durability = durability;
        }
        // Immediate: a transaction that starts as a reader cannot wait for another writer.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

/// Why opening failed: SQLite says so, or we do.
enum Failure {
    Sqlite(rusqlite::Error),
    Ours(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sqlite(source)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// Tries `open` until it is no longer told that another process is in the way.
fn patiently<T>(path: &Path, mut open: impl FnMut() -> Result<T, Failure>) -> Result<T> {
    let started = Instant::now();
    waiting(|| {
        loop {
            match open() {
                Ok(value) => return Ok(value),
                Err(Failure::Ours(error)) => return Err(error),
                Err(Failure::Sqlite(source)) if is_busy(&source) && started.elapsed() < BUSY_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Failure::Sqlite(source)) => return Err(sqlite_error(path, "cannot open the journal", source)),
            }
        }
    })
}

/// Runs `work`, which may wait for another process or the disk; meanwhile the other tasks of the runtime go on.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        // Nobody else could go on, or there is nobody else.
        _ => work(),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn connect_immutable(path: &Path) -> rusqlite::Result<Connection> {
    // Every byte but the unreserved ones is escaped: `?`, `#` and `%` mean something in a URI.
    let escaped = percent_encoding::percent_encode(path.as_os_str().as_encoded_bytes(), URI_PATH);
    let uri = format!("file:{escaped}?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

const URI_PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-');

fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// An enum whose values are words in the database and on the screen.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What the word stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl rusqlite::types::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                Self::from_word(value.as_str()?).ok_or(rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}
use words;

/// A time as the database keeps it: microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy)]
struct Moment(jiff::Timestamp);

impl Moment {
    fn now() -> Self {
        Self(jiff::Timestamp::now())
    }
}

impl ToSql for Moment {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_microsecond().into())
    }
}

impl FromSql for Moment {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        jiff::Timestamp::from_microsecond(value.as_i64()?).map(Self).map_err(FromSqlError::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.set_cursor("before").unwrap();
        // SQLite answers a file that may not grow as it answers a disk that cannot give more.
        journal.lock().connection.execute_batch("pragma max_page_count = 1").unwrap();
        let error = journal.set_marker("target", "key", &"long".repeat(10_000)).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Io, "cannot write to the journal: the disk is full"));
        assert!(error.hint_text().unwrap().contains("df -h"));
        assert_eq!(journal.cursor().unwrap().as_deref(), Some("before"));
        assert_eq!(journal.marker("target", "key").unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_waits_for_another_process_keeps_no_other_task_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let other_process = Connection::open(journal.path()).unwrap();
        other_process.execute_batch("begin immediate").unwrap();
        let waits = tokio::spawn(async move { journal.set_marker("target", "key", "value") });
        // It can only be lifted by the one worker that there is.
        tokio::spawn(async move { other_process.execute_batch("rollback") }).await.unwrap().unwrap();
        waits.await.unwrap().unwrap();
    }

    #[test]
    fn outcomes_wait_for_the_disk_and_steps_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let synchronous =
            || -> i64 { journal.lock().connection.query_row("pragma synchronous", [], |row| row.get(0)).unwrap() };
        let (normal, full) = (1, 2);
        let job = |content_md5: &str| NewJob {
            job_file: "roads".to_owned(),
            kind: "feature",
            action: "publish",
            content_md5: content_md5.to_owned(),
            revision: "4f1c".to_owned(),
            job_id: None,
            job_batch_id: None,
        };
        journal.begin_job(&job("aaaa")).unwrap();
        assert_eq!(synchronous(), normal, "nothing is superseded");
        journal.finish_job("roads", &JobOutcome::plain(State::Succeeded)).unwrap();
        assert_eq!(synchronous(), full);
        journal.set_marker("target", "key", "value").unwrap();
        assert_eq!(synchronous(), normal);
        journal.begin_job(&job("bbbb")).unwrap();
        assert_eq!(synchronous(), full, "the old outcome must not come back");
        journal.begin_job(&job("bbbb")).unwrap();
        assert_eq!(synchronous(), normal);
        journal.clear_marker("target", "key").unwrap();
        assert_eq!(synchronous(), full);
    }

    #[test]
    fn a_path_keeps_its_meaning_in_a_uri() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("50% of #1?mode=memory");
        std::fs::create_dir(&odd).unwrap();
        let path = odd.join(FILE_NAME);
        Connection::open(&path).unwrap().execute_batch("create table here (x)").unwrap();
        let found = connect_immutable(&path).unwrap().prepare("select x from here").is_ok();
        assert!(found);
    }
}
