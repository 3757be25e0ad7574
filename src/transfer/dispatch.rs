//! The queue of each host: what waits is fetched together.
//!
//! Requests that come while a connection is made, or while all slots are taken, end up in the same
//! batch, so a run of a hundred layers costs a few runs of `rsync`. Each file is handed to whoever waits
//! for it as soon as it is complete, not when its batch ends.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ProgressFn;
use super::cache::{Cache, partial_of};
use super::complaint::{Failure, Verdict, judge};
use super::connection::{Connections, stopped};
use super::copy::{self, Job};
use super::location::Peer;
use super::remote_shell::with_session;
use super::room::Room;
use super::rsync::{Line, Run};
use super::ssh_command::SshCommand;
use super::waiting::{Item, Waiting, staged};
use crate::error::{ErrorKind, Result, Retry};

/// How long a batch waits for requests that come in the same moment.
const GATHER: Duration = Duration::from_millis(5);

/// Fewest and most files that one batch takes of those that wait.
const BATCH_FILES: (usize, usize) = (64, 256);

/// How often a batch is tried again while nothing arrives, and how often at all.
const FRUITLESS_TRIES: usize = 3;
const TRIES: usize = 20;

/// What all queues share.
pub(super) struct Engine {
    pub(super) ssh: Arc<SshCommand>,
    pub(super) connections: Connections,
    pub(super) cache: Cache,
    pub(super) slots: Arc<Semaphore>,
    pub(super) room: Arc<Room>,
    pub(super) idle: Duration,
    pub(super) time_limit: Duration,
    pub(super) stop: CancellationToken,
    pub(super) progress: Option<ProgressFn>,
    /// Hosts that have no `rsync`.
    pub(super) without_rsync: Mutex<HashSet<Peer>>,
}

/// Serves one host until nobody can ask any more.
pub(super) async fn serve(engine: Arc<Engine>, peer: Peer, mut queue: mpsc::UnboundedReceiver<Item>) {
    let mut waiting: VecDeque<Item> = VecDeque::new();
    // Two runs must not write the same staged file.
    let busy: Arc<Mutex<HashSet<String>>> = Arc::default();
    let mut batches = JoinSet::new();
    let mut open = true;
    loop {
        let ready = {
            let busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.iter().filter(|item| !busy.contains(&item.path)).count()
        };
        if ready == 0 {
            tokio::select! {
                item = queue.recv(), if open => match item {
                    Some(item) => waiting.push_back(item),
                    None => open = false,
                },
                Some(_) = batches.join_next(), if !batches.is_empty() => {}
                else => return,
            }
            continue;
        }
        // Whoever asks while the connection is made comes along; the batch itself reports a failure.
        if !engine.without_rsync(&peer) {
            let _ = engine.connections.up(&peer).await;
        }
        let Ok(permit) = Arc::clone(&engine.slots).acquire_owned().await else { return };
        tokio::time::sleep(GATHER).await;
        while let Ok(item) = queue.try_recv() {
            waiting.push_back(item);
        }
        let batch = take_batch(&mut waiting, &busy, engine.slots.available_permits() + 1);
        if !batch.is_empty() {
            batches.spawn(Batch::new(Arc::clone(&engine), peer.clone(), batch, Arc::clone(&busy)).run(permit));
        }
        while batches.try_join_next().is_some() {}
    }
}

/// Takes this slot's share of what waits, all waiters of a path together.
fn take_batch(waiting: &mut VecDeque<Item>, busy: &Mutex<HashSet<String>>, free_slots: usize) -> Vec<Item> {
    let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.retain(|item| !item.reply.is_closed());
    let share = waiting.len().div_ceil(free_slots).clamp(BATCH_FILES.0, BATCH_FILES.1);
    let mut taken = HashSet::new();
    let mut batch = Vec::new();
    let mut left = VecDeque::new();
    for item in waiting.drain(..) {
        let fits = taken.contains(&item.path) || (taken.len() < share && !busy.contains(&item.path));
        if fits {
            taken.insert(item.path.clone());
            batch.push(item);
        } else {
            left.push_back(item);
        }
    }
    *waiting = left;
    busy.extend(taken);
    batch
}

impl Engine {
    fn without_rsync(&self, peer: &Peer) -> bool {
        self.without_rsync.lock().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }
}

/// How a try to fetch a batch ended whose connection held.
enum End {
    /// Whoever waited for a file that was asked for knows what became of it.
    Settled,
    /// There was too little room for the next file, which has so many bytes.
    NoRoom(u64),
}

struct Batch {
    engine: Arc<Engine>,
    peer: Peer,
    staging: PathBuf,
    all: Vec<String>,
    busy: Arc<Mutex<HashSet<String>>>,
    items: Waiting,
    /// Cancelled when the run is stopped, or nobody waits for the batch any more.
    stop: CancellationToken,
}

impl Batch {
    fn new(engine: Arc<Engine>, peer: Peer, items: Vec<Item>, busy: Arc<Mutex<HashSet<String>>>) -> Self {
        let staging = engine.cache.staging(&peer);
        let waiting = Waiting::new(items, staging.clone(), engine.progress.clone(), Arc::clone(&engine.room));
        let all = waiting.paths();
        let stop = engine.stop.child_token();
        Self { engine, peer, staging, all, busy, items: waiting, stop }
    }

    async fn run(mut self, permit: OwnedSemaphorePermit) {
        let mut permit = Some(permit);
        let new_delays = || {
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(500))
                .with_jitter()
                .with_max_times(FRUITLESS_TRIES)
                .build()
        };
        let mut delays = new_delays();
        let mut broken = 0;
        let (mut only_small, mut lacking) = (false, 0);
        while !self.items.is_empty() {
            let before = (self.items.arrived(), self.partial_bytes());
            let ended = self.attempt(only_small).await;
            self.items.give_room_back();
            let failure = match ended {
                Ok(End::Settled) if !only_small => break,
                Ok(ended) => {
                    // What needs no room goes on; the rest waits, and others may use the slot meanwhile.
                    only_small = false;
                    if let End::NoRoom(bytes) = ended {
                        (only_small, lacking) = (!self.items.small_paths().is_empty(), bytes);
                    }
                    if !only_small {
                        drop(permit.take());
                        self.until_room(lacking).await;
                        permit = Arc::clone(&self.engine.slots).acquire_owned().await.ok();
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            if failure.disk_full {
                drop(permit.take());
                if self.until_disk_is_freed().await {
                    permit = Arc::clone(&self.engine.slots).acquire_owned().await.ok();
                    continue;
                }
            }
            broken += 1;
            if (self.items.arrived(), self.partial_bytes()) > before {
                delays = new_delays();
            }
            let delay = if failure.kind.retry() == Retry::Soon && broken < TRIES { delays.next() } else { None };
            let Some(delay) = delay else {
                self.items.fail_all(&failure, &self.peer);
                break;
            };
            tracing::warn!(
                host = %self.peer, files = self.items.paths().len(), reason = %failure.message, detail = %failure.detail,
                "a transfer broke; it goes on in {} ms", delay.as_millis()
            );
            // Others may use the slot while this host is left in peace.
            permit = None;
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => { self.items.fail_all(&stopped(), &self.peer); break; }
            }
            permit = Arc::clone(&self.engine.slots).acquire_owned().await.ok();
        }
        drop(permit);
    }

    async fn until_room(&self, bytes: u64) {
        tokio::select! {
            () = self.engine.room.has_room_for(bytes) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Waits until all dumps that are here have been used; false when that cannot help.
    async fn until_disk_is_freed(&self) -> bool {
        tracing::warn!(host = %self.peer, "the disk of CACHE_PATH is full: the transfer waits for the restores that are under way");
        tokio::select! {
            freed = self.engine.room.is_empty() => freed,
            () = self.stop.cancelled() => false,
        }
    }

    fn partial_bytes(&self) -> u64 {
        let length = |path: &String| {
            let partial = partial_of(&staged(&self.staging, path))?;
            std::fs::metadata(partial).ok().map(|about| about.len())
        };
        self.items.paths().iter().filter_map(length).sum()
    }

    /// What is to be asked for: all that is still waited for, or what of it needs no room.
    fn wanted(&self, only_small: bool) -> Vec<String> {
        if only_small { self.items.small_paths() } else { self.items.paths() }
    }

    /// Tries to fetch what is wanted. An error is one of the whole batch.
    async fn attempt(&mut self, only_small: bool) -> Result<End, Failure> {
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        self.items.start_over();
        self.engine.cache.prepare(Some(&self.peer)).map_err(Failure::from)?;
        if self.engine.without_rsync(&self.peer) {
            return self.copy(only_small).await;
        }
        let link = self.engine.connections.up(&self.peer).await?;
        self.items.park_leftovers();
        let wanted = self.wanted(only_small);
        let paths: Vec<&str> = wanted.iter().map(String::as_str).collect();
        // Cancelled when rsync says nothing for too long, or begins a file that there is no room for.
        let mut no_room = None;
        let silent = self.stop.child_token();
        let run = Run {
            ssh: self.engine.ssh.for_rsync(&link.options),
            peer: &self.peer,
            staging: &self.staging,
            paths: &paths,
            idle: self.engine.idle,
            time_limit: self.engine.time_limit,
            stop: &silent,
        };
        let (waiting, stop) = (&mut self.items, &self.stop);
        let heard = Mutex::new(Instant::now());
        let run = run.run(|line| {
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            match line {
                Line::Begins { path, bytes } => {
                    waiting.previous_is_whole();
                    if let Some(bytes) = waiting.begins(path, Some(bytes)) {
                        no_room = Some(bytes);
                        silent.cancel();
                    }
                }
                Line::Progress { bytes, rate } => {
                    waiting.progress(bytes, rate);
                    if waiting.nobody_waits() {
                        stop.cancel();
                    }
                }
                Line::Other => {}
            }
        });
        let finished = watch(run, &heard, self.engine.idle, &silent).await;
        self.items.collect_arrived();
        if let Some(bytes) = no_room.filter(|_| !self.stop.is_cancelled()) {
            return Ok(End::NoRoom(bytes));
        }
        if silent.is_cancelled() && !self.stop.is_cancelled() {
            self.engine.connections.lost(&self.peer, &link).await;
            return Err(Failure::new(
                ErrorKind::Unreachable,
                "the other side sent nothing for too long and was given up",
            )
            .hint("check the load and the disks of the other side; begun files are resumed"));
        }
        let finished = match finished {
            Ok(finished) => finished,
            Err(error) if is_not_found(&error) => return self.without_rsync_from_now(only_small).await,
            Err(error) => return Err(error.into()),
        };
        match judge(finished.status.code(), &finished.stderr) {
            Verdict::EachFile => {
                self.items.settle(&wanted, &finished.stderr);
                Ok(End::Settled)
            }
            Verdict::NoRsync => self.without_rsync_from_now(only_small).await,
            Verdict::Failed(failure) => {
                if failure.kind == ErrorKind::Unreachable {
                    self.engine.connections.lost(&self.peer, &link).await;
                }
                if failure.kind == ErrorKind::Io {
                    // What cannot be finished shall not fill the disk.
                    self.items.drop_partials();
                }
                if self.items.is_empty() { Ok(End::Settled) } else { Err(failure) }
            }
        }
    }

    async fn without_rsync_from_now(&mut self, only_small: bool) -> Result<End, Failure> {
        tracing::warn!(host = %self.peer, "rsync is missing there or here: files are copied one by one, which is slower; install rsync on both sides");
        self.engine.without_rsync.lock().unwrap_or_else(PoisonError::into_inner).insert(self.peer.clone());
        self.copy(only_small).await
    }

    /// Fetches without `rsync`.
    async fn copy(&mut self, only_small: bool) -> Result<End, Failure> {
        let job = |path: &String| {
            let staged = staged(&self.staging, path);
            let may_resume = self.items.may_resume(path);
            Job { path: path.clone(), partial: partial_of(&staged).unwrap_or(staged), may_resume }
        };
        let jobs: Vec<Job> = self.wanted(only_small).iter().map(job).collect();
        // Cancelled when a file begins that there is no room for.
        let mut no_room = None;
        let enough = self.stop.child_token();
        if self.engine.ssh.needs_program.is_none() {
            let (send, mut steps) = mpsc::unbounded_channel();
            let sftp_jobs = jobs.clone();
            let work = with_session(&self.engine.ssh, &self.peer, self.engine.idle, &enough, move |session, stop| {
                copy::by_sftp(session, &sftp_jobs, stop, |step| {
                    // The batch has gone when nobody listens; the stop token ends the copy then.
                    let _ = send.send(step);
                })
            });
            tokio::pin!(work);
            let result = loop {
                tokio::select! {
                    biased;
                    Some(step) = steps.recv() => if let Some(bytes) = self.items.step(step) {
                        no_room = Some(bytes);
                        enough.cancel();
                    },
                    result = &mut work => break result,
                }
            };
            while let Ok(step) = steps.try_recv() {
                let _ = self.items.step(step);
            }
            if let Some(bytes) = no_room.filter(|_| !self.stop.is_cancelled()) {
                return Ok(End::NoRoom(bytes));
            }
            match result {
                Err(failure) if failure.kind == ErrorKind::Unsupported => {
                    tracing::debug!(host = %self.peer, reason = %failure.message, "the ssh program is used instead of the library");
                }
                other => return other.map(|()| End::Settled),
            }
        }
        let link = self.engine.connections.up(&self.peer).await?;
        let engine = Arc::clone(&self.engine);
        let waiting = &mut self.items;
        let result = copy::by_program(&engine.ssh, &link.options, &self.peer, &jobs, engine.idle, &enough, |step| {
            if let Some(bytes) = waiting.step(step) {
                no_room = Some(bytes);
                enough.cancel();
            }
        })
        .await;
        if result.as_ref().is_err_and(|failure| failure.kind == ErrorKind::Unreachable) {
            engine.connections.lost(&self.peer, &link).await;
        }
        if let Some(bytes) = no_room.filter(|_| !self.stop.is_cancelled()) {
            return Ok(End::NoRoom(bytes));
        }
        result.map(|()| End::Settled)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for path in &self.all {
            busy.remove(path);
        }
    }
}

/// Waits for `run`, and cancels `silent` when nothing was `heard` from it for twice the time that a
/// connection may be silent: ssh notices a dead connection, but not a stuck disk on the other side.
/// Twice, because this side reads a long begun file without a word before it resumes.
async fn watch<T>(
    run: impl Future<Output = T>,
    heard: &Mutex<Instant>,
    idle: Duration,
    silent: &CancellationToken,
) -> T {
    tokio::pin!(run);
    if idle.is_zero() {
        return run.await;
    }
    loop {
        let last = *heard.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = last + idle * 2;
        tokio::select! {
            result = &mut run => return result,
            () = tokio::time::sleep_until(deadline.into()), if !silent.is_cancelled() => {
                if *heard.lock().unwrap_or_else(PoisonError::into_inner) == last {
                    silent.cancel();
                }
            }
        }
    }
}

/// Whether a program could not be started because there is none.
fn is_not_found(error: &crate::error::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::NotFound)
}
