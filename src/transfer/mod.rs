//! Brings the files that jobs name into the cache, whole and verified.
//!
//! A [`Transfer`] is asked for one file at a time and fetches many at once: requests for the same host
//! that wait are fetched by one `rsync`, several of which run at once over one SSH connection, and each
//! file is handed over as soon as it is complete.
//!
//! ```text
//! fetch → cached? → shared or local? → another slave (SYNC_SERVER) → the master → verify → place
//!                                       └── dispatch → connection → rsync | copy (SFTP, ssh)
//! ```
//!
//! The other way go previews: `preview` gives a picture its place, `send` brings it to the master over
//! the same connections.

mod cache;
mod checksum;
mod complaint;
mod connection;
mod copy;
mod dispatch;
mod fetch;
mod location;
mod preview;
mod remote_shell;
mod room;
mod rsync;
mod send;
mod ssh_command;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub use cache::CacheName;
pub use checksum::Md5;
pub use location::{Location, Remote};
pub use preview::PreviewName;
pub use send::Destination;
pub use ssh_command::{Family, HostKeyPolicy, SshCommand};

use cache::Cache;
use checksum::Stamp;
use connection::Connections;
use dispatch::Engine;
use location::{Peer, normal_path};
use room::{Place, Room};
use waiting::Item;

use crate::error::{Error, ErrorKind, Result};

/// What is told of a file that is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What the file is: [`Request::what`].
    pub what: String,
    /// Its path on the other side; its name in the cache once it is here.
    pub file: String,
    /// Bytes received so far, resumed ones included.
    pub bytes: u64,
    /// Its length in bytes, where that is known.
    pub total: Option<u64>,
    /// Bytes in a second, where that is known.
    pub rate: Option<u64>,
    /// Where it came from, once it is here whole; told once for each file.
    pub arrived: Option<Origin>,
}

/// Is told how files come in. Called often and must return at once.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// Another slave that files are taken from first.
#[derive(Debug, Clone)]
pub struct SyncServer {
    /// `user@host` or `host` (setting `SYNC_SERVER`).
    pub remote: String,
    /// The directory there (setting `SYNC_PATH`).
    pub path: String,
}

/// How files are transferred.
#[derive(Clone)]
pub struct Options {
    /// The SSH command as an argument vector (setting `BORG_SSH`).
    pub ssh: Vec<String>,
    /// Where files end up (setting `CACHE_PATH`).
    pub cache_path: PathBuf,
    /// How many transfers run at once; 0 counts as 1.
    pub parallel: usize,
    /// How many bytes of dumps may be here before they are used; a larger dump comes alone.
    pub ahead: u64,
    /// Another slave that files are taken from first.
    pub sync_server: Option<SyncServer>,
    /// The master's files are mounted here at the same path (setting `SHARE_LAYER_DATA`).
    pub share_layer_data: bool,
    /// How long a connection may be silent before it is given up; zero: for ever.
    pub idle_timeout: Duration,
    /// How long one run of `rsync` may take at most.
    pub time_limit: Duration,
    /// Ends everything when it is cancelled.
    pub stop: CancellationToken,
    /// Is told how files come in.
    pub progress: Option<ProgressFn>,
}

/// A file that is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the job says it is.
    pub location: Location,
    /// Its name in the cache.
    pub cache_name: CacheName,
    /// The checksum that its content must have; without it any content will do.
    pub md5: Option<Md5>,
    /// What it is, for messages and progress: "dump", "metadata", "style roads".
    pub what: String,
    /// Whether it must survive a power cut once it has its name in the cache.
    pub durable: bool,
}

/// Where a file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was in the cache.
    Cache,
    /// From the machine that the job names.
    Master,
    /// From the other slave.
    SyncServer,
    /// It is read in place and belongs to the master.
    Shared,
    /// Copied on this machine.
    Local,
}

/// A file that is there, whole and verified.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// The checksum of its content.
    pub md5: Md5,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where it came from.
    pub from: Origin,
    /// While this lives, no other content takes the place of this file.
    #[expect(dead_code, reason = "it is held, not read")]
    lease: Option<Arc<()>>,
    /// While this lives, other dumps may have to wait.
    place: Option<Arc<Place>>,
    /// What the file was when it was verified, if others may change it.
    stamp: Option<Stamp>,
}

impl Fetched {
    /// Fails when the file is no longer the one that was verified. Only a shared one can change, which is the
    /// master's: whoever has read it asks afterwards, before it makes use of what it has read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Checksum`] when it was changed, replaced or deleted.
    pub fn check_unchanged(&self) -> Result<()> {
        let Some(stamp) = self.stamp else { return Ok(()) };
        match Stamp::of(&self.path) {
            Ok(now) if now == stamp => Ok(()),
            Err(error) if error.kind() != ErrorKind::Missing => Err(error),
            _ => Err(Error::new(ErrorKind::Checksum, "the file was changed while it was read")
                .subject(self.path.display().to_string())
                .hint("the master publishes it anew in this moment; the next run takes it")),
        }
    }

    /// Lets others come in although this file stays: whoever has it waits for them.
    pub fn lets_others_come(&self) {
        if let Some(place) = &self.place {
            place.leave();
        }
    }
}

/// Fetches files. Cheap to clone; all clones share queues, slots and connections.
#[derive(Clone)]
pub struct Transfer {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").finish_non_exhaustive()
    }
}

struct Inner {
    engine: Arc<Engine>,
    sync_server: Option<(Peer, String)>,
    /// The log has been told that the other slave lacks a file.
    lack_is_told: AtomicBool,
    share_layer_data: bool,
    queues: Mutex<HashMap<Peer, mpsc::UnboundedSender<Item>>>,
    /// One fetch at a time for each name in the cache.
    names: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Which content somebody is using under each name in the cache.
    leases: Mutex<HashMap<String, (Md5, Weak<()>)>>,
}

impl Transfer {
    /// Checks the options. Neither disk nor network is touched before the first fetch.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] naming `BORG_SSH`, `SYNC_SERVER` or `SYNC_PATH`.
    pub fn new(options: Options) -> Result<Self> {
        let ssh = Arc::new(SshCommand::parse(&options.ssh)?);
        let sync_server = match &options.sync_server {
            Some(server) => {
                let wrong = |name: &str, value: &str, reason: String| {
                    Error::new(ErrorKind::Settings, format!("{value:?} cannot be used: {reason}")).subject(name)
                };
                let peer = Peer::parse(&server.remote).map_err(|reason| {
                    wrong("SYNC_SERVER", &server.remote, reason).hint("expected is user@host of another slave")
                })?;
                let path = normal_path(server.path.trim_end_matches('/')).map_err(|reason| {
                    wrong("SYNC_PATH", &server.path, reason)
                        .hint("expected is the absolute path of the other slave's CACHE_PATH")
                })?;
                Some((peer, path))
            }
            None => None,
        };
        let parallel = options.parallel.max(1);
        let engine = Engine {
            connections: Connections::new(Arc::clone(&ssh), options.idle_timeout, options.stop.clone()),
            ssh,
            cache: Cache::new(options.cache_path),
            slots: Arc::new(Semaphore::new(parallel)),
            room: Room::new(options.ahead),
            idle: options.idle_timeout,
            time_limit: options.time_limit,
            stop: options.stop,
            progress: options.progress,
            without_rsync: Mutex::new(HashSet::new()),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                engine: Arc::new(engine),
                sync_server,
                lack_is_told: AtomicBool::new(false),
                share_layer_data: options.share_layer_data,
                queues: Mutex::default(),
                names: Mutex::default(),
                leases: Mutex::default(),
            }),
        })
    }

    /// Brings one file here, or finds it here. Ask for many at once: they travel together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`] when it is not there, [`ErrorKind::Denied`] when the other side refuses our
    /// key or the file, or shows an unknown host key, [`ErrorKind::Unreachable`] when it could not be
    /// reached for several tries, [`ErrorKind::Checksum`] when the content is not the promised one,
    /// [`ErrorKind::Io`] when this machine's disk fails or is full, [`ErrorKind::Stopped`] when the run
    /// was stopped.
    pub async fn fetch(&self, request: Request) -> Result<Fetched> {
        let (what, file) = (request.what.clone(), request.cache_name.as_str().to_owned());
        let fetched = self.inner.fetch(request).await?;
        if let Some(tell) = &self.inner.engine.progress {
            let Fetched { bytes, from, .. } = fetched;
            tell(Progress { what, file, bytes, total: Some(bytes), rate: None, arrived: Some(from) });
        }
        Ok(fetched)
    }

    /// Brings a file to another place: `root/relative` becomes `relative` below `to`. Directories that
    /// are missing there are made; a file of that name is replaced in one go.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`] when the file is not here, [`ErrorKind::Denied`] when the other side refuses
    /// our key or the right to write, [`ErrorKind::Unreachable`] when it could not be reached for several
    /// tries, [`ErrorKind::Io`] when a disk fails or is full, [`ErrorKind::Stopped`] when the run was stopped.
    pub async fn send(&self, root: &Path, relative: &Path, to: &Destination) -> Result<()> {
        self.inner.engine.send(root, relative, to).await
    }

    /// Removes a file from the cache after its use. A shared file, which is the master's, stays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when it cannot be removed.
    pub fn discard(&self, fetched: &Fetched) -> Result<()> {
        if fetched.from == Origin::Shared {
            return Ok(());
        }
        match std::fs::remove_file(&fetched.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::error::io_error(&fetched.path, "cannot remove the cached file", source))
            }
            _ => Ok(()),
        }
    }

    /// Removes what earlier runs have left in the cache under these names, unless somebody uses it now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when a file cannot be removed.
    pub fn discard_leftovers(&self, names: &[CacheName]) -> Result<()> {
        for name in names {
            let leases = self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner);
            if leases.get(name.as_str()).is_some_and(|(_, lease)| lease.strong_count() > 0) {
                continue;
            }
            let path = self.inner.engine.cache.path(name.as_str());
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(crate::error::io_error(&path, "cannot remove the cached file", source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what was begun and has not grown for `keep`; answers how many bytes that freed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when a directory cannot be read or a file not removed.
    pub async fn sweep(&self, keep: Duration) -> Result<u64> {
        let cache = self.inner.engine.cache.clone();
        blocking(move || cache.sweep(keep)).await
    }

    /// Ends the shared connections. A fetch after that makes new ones.
    pub async fn close(&self) {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.inner.engine.connections.close().await;
    }
}

/// Runs `work`, which waits for the disk, on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|panic| Error::new(ErrorKind::Bug, "a thread that reads files ended unexpectedly").source(panic))?
}
