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
        let waiting = Waiting::new(items, staging.clone(), engine.progress.clone());
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
        for attempt in 1..=TRIES {
            let before = (self.items.arrived(), self.partial_bytes());
            let Err(failure) = self.attempt().await else { break };
            if (self.items.arrived(), self.partial_bytes()) > before {
                delays = new_delays();
            }
            let delay = if failure.kind.retry() == Retry::Soon && attempt < TRIES { delays.next() } else { None };
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

    fn partial_bytes(&self) -> u64 {
        let length = |path: &String| {
            let partial = partial_of(&staged(&self.staging, path))?;
            std::fs::metadata(partial).ok().map(|about| about.len())
        };
        self.items.paths().iter().filter_map(length).sum()
    }

    /// Tries to fetch all that is still waited for. An error is one of the whole batch.
    async fn attempt(&mut self) -> Result<(), Failure> {
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        self.items.start_over();
        self.engine.cache.prepare(Some(&self.peer)).map_err(Failure::from)?;
        if self.engine.without_rsync(&self.peer) {
            return self.copy().await;
        }
        let link = self.engine.connections.up(&self.peer).await?;
        self.items.park_leftovers();
        let paths = self.items.paths();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        // Cancelled when rsync says nothing for too long.
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
                    waiting.begins(path, Some(bytes));
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
            Err(error) if is_not_found(&error) => return self.without_rsync_from_now().await,
            Err(error) => return Err(error.into()),
        };
        match judge(finished.status.code(), &finished.stderr) {
            Verdict::EachFile => {
                self.items.settle(&finished.stderr);
                Ok(())
            }
            Verdict::NoRsync => self.without_rsync_from_now().await,
            Verdict::Failed(failure) => {
                if failure.kind == ErrorKind::Unreachable {
                    self.engine.connections.lost(&self.peer, &link).await;
                }
                if failure.kind == ErrorKind::Io {
                    // What cannot be finished shall not fill the disk.
                    self.items.drop_partials();
                }
                if self.items.is_empty() { Ok(()) } else { Err(failure) }
            }
        }
    }

    async fn without_rsync_from_now(&mut self) -> Result<(), Failure> {
        tracing::warn!(host = %self.peer, "rsync is missing there or here: files are copied one by one, which is slower; install rsync on both sides");
        self.engine.without_rsync.lock().unwrap_or_else(PoisonError::into_inner).insert(self.peer.clone());
        self.copy().await
    }

    /// Fetches without `rsync`.
    async fn copy(&mut self) -> Result<(), Failure> {
        let job = |path: &String| {
            let staged = staged(&self.staging, path);
            Job { path: path.clone(), partial: partial_of(&staged).unwrap_or(staged) }
        };
        let jobs: Vec<Job> = self.items.paths().iter().map(job).collect();
        if self.engine.ssh.needs_program.is_none() {
            let (send, mut steps) = mpsc::unbounded_channel();
            let sftp_jobs = jobs.clone();
            let work =
                with_session(&self.engine.ssh, &self.peer, self.engine.idle, &self.stop, move |session, stop| {
                    copy::by_sftp(session, &sftp_jobs, stop, |step| {
                        // The batch has gone when nobody listens; the stop token ends the copy then.
                        let _ = send.send(step);
                    })
                });
            tokio::pin!(work);
            let result = loop {
                tokio::select! {
                    biased;
                    Some(step) = steps.recv() => self.items.step(step),
                    result = &mut work => break result,
                }
            };
            while let Ok(step) = steps.try_recv() {
                self.items.step(step);
            }
            match result {
                Err(failure) if failure.kind == ErrorKind::Unsupported => {
                    tracing::debug!(host = %self.peer, reason = %failure.message, "the ssh program is used instead of the library");
                }
                other => return other,
            }
        }
        let link = self.engine.connections.up(&self.peer).await?;
        let engine = Arc::clone(&self.engine);
        let waiting = &mut self.items;
        let result = copy::by_program(&engine.ssh, &link.options, &self.peer, &jobs, engine.idle, &self.stop, |step| {
            waiting.step(step);
        })
        .await;
        if result.as_ref().is_err_and(|failure| failure.kind == ErrorKind::Unreachable) {
            engine.connections.lost(&self.peer, &link).await;
        }
        result
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
