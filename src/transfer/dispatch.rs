//! The queue of each host: what waits is fetched together.
//!
//! Requests that come while a connection is made, or while all slots are taken, end up in the same
//! batch, so a run of a hundred layers costs a few runs of `rsync`. Each file is handed to whoever waits
//! for it as soon as it is complete, not when its batch ends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, partial_of};
use super::complaint::{Failure, Verdict, each_file, judge, local};
use super::connection::{Connections, stopped};
use super::copy::{self, Job, Step};
use super::location::Peer;
use super::remote_shell::with_session;
use super::rsync::{Line, Run};
use super::ssh_command::SshCommand;
use super::{Progress, ProgressFn};
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

/// A file that somebody waits for.
pub(super) struct Item {
    /// Absolute path on the other side.
    pub(super) path: String,
    /// Where to put it when it is complete.
    pub(super) arrived: PathBuf,
    /// What it is, for progress.
    pub(super) what: String,
    pub(super) reply: oneshot::Sender<Result<(), Failure>>,
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

/// Those who still wait, by path on the other side.
struct Waiting {
    items: HashMap<String, Vec<Item>>,
    staging: PathBuf,
    progress: Option<ProgressFn>,
    /// The file that is being received, and its length.
    current: Option<(String, Option<u64>)>,
    arrived: usize,
}

impl Batch {
    fn new(engine: Arc<Engine>, peer: Peer, items: Vec<Item>, busy: Arc<Mutex<HashSet<String>>>) -> Self {
        let staging = engine.cache.staging(&peer);
        let mut by_path: HashMap<String, Vec<Item>> = HashMap::new();
        for item in items {
            by_path.entry(item.path.clone()).or_default().push(item);
        }
        let all = by_path.keys().cloned().collect();
        let waiting = Waiting {
            items: by_path,
            staging: staging.clone(),
            progress: engine.progress.clone(),
            current: None,
            arrived: 0,
        };
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
            let before = (self.items.arrived, self.partial_bytes());
            let Err(failure) = self.attempt().await else { break };
            if (self.items.arrived, self.partial_bytes()) > before {
                delays = new_delays();
            }
            let delay = if failure.kind.retry() == Retry::Soon && attempt < TRIES { delays.next() } else { None };
            let Some(delay) = delay else {
                self.items.fail_all(&failure);
                break;
            };
            tracing::warn!(
                host = %self.peer, files = self.items.items.len(), reason = %failure.message, detail = %failure.detail,
                "a transfer broke; it goes on in {} ms", delay.as_millis()
            );
            // Others may use the slot while this host is left in peace.
            permit = None;
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => { self.items.fail_all(&stopped()); break; }
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
        self.items.items.keys().filter_map(length).sum()
    }

    /// Tries to fetch all that is still waited for. An error is one of the whole batch.
    async fn attempt(&mut self) -> Result<(), Failure> {
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        self.items.current = None;
        self.engine.cache.prepare(Some(&self.peer)).map_err(Failure::from)?;
        if self.engine.without_rsync(&self.peer) {
            return self.copy().await;
        }
        let link = self.engine.connections.up(&self.peer).await?;
        self.items.park_leftovers();
        let paths: Vec<String> = self.items.items.keys().cloned().collect();
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
                if self.items.items.is_empty() { Ok(()) } else { Err(failure) }
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
        let jobs: Vec<Job> = self.items.items.keys().map(job).collect();
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

impl Waiting {
    fn begins(&mut self, path: String, bytes: Option<u64>) {
        self.current = Some((path, bytes));
        self.progress(0, None);
    }

    fn progress(&self, bytes: u64, rate: Option<u64>) {
        if let (Some(tell), Some((path, total))) = (&self.progress, &self.current) {
            for item in self.items.get(path).into_iter().flatten() {
                tell(Progress { what: item.what.clone(), file: path.clone(), bytes, total: *total, rate });
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begins { path, bytes } => self.begins(path, bytes),
            Step::Progress { bytes, rate } => self.progress(bytes, rate),
            Step::Whole { path } => {
                if let Some(partial) = partial_of(&staged(&self.staging, &path)) {
                    self.hand_over(&path, &partial);
                }
            }
            Step::Failed { path, failure } => self.reply(&path, &Err(failure)),
        }
    }

    /// The file that began last has been received: rsync has begun another.
    fn previous_is_whole(&mut self) {
        if let Some((path, _)) = self.current.take() {
            self.hand_over(&path, &staged(&self.staging, &path));
        }
    }

    /// Hands over everything that is whole in the staging directory.
    fn collect_arrived(&mut self) {
        let paths: Vec<String> = self.items.keys().cloned().collect();
        for path in paths {
            self.hand_over(&path, &staged(&self.staging, &path));
        }
    }

    /// Moves the whole file `from` to where its waiters want it and tells them. Without such a file
    /// nothing happens.
    fn hand_over(&mut self, path: &str, from: &Path) {
        let about = std::fs::symlink_metadata(from);
        if !about.is_ok_and(|about| about.is_file()) {
            return;
        }
        let Some(items) = self.items.remove(path) else { return };
        let last = items.len() - 1;
        for (index, item) in items.into_iter().enumerate() {
            let result = if index == last {
                std::fs::rename(from, &item.arrived)
            } else {
                let _ = std::fs::remove_file(&item.arrived);
                std::fs::hard_link(from, &item.arrived)
            };
            let result = result.map_err(|source| {
                crate::error::io_error(&item.arrived, "cannot move the file that arrived", source).into()
            });
            let _ = item.reply.send(result);
        }
        self.arrived += 1;
    }

    /// A whole file left by a killed run becomes the basis of this one, so that a file found in its place
    /// afterwards is one that this run received.
    fn park_leftovers(&self) {
        for path in self.items.keys() {
            let staged = staged(&self.staging, path);
            if std::fs::symlink_metadata(&staged).is_ok_and(|about| about.is_file())
                && let Some(partial) = partial_of(&staged)
            {
                let _ = partial.parent().map(std::fs::create_dir_all);
                let _ = std::fs::rename(&staged, partial);
            }
        }
    }

    fn drop_partials(&self) {
        for partial in self.items.keys().filter_map(|path| partial_of(&staged(&self.staging, path))) {
            let _ = std::fs::remove_file(partial);
        }
    }

    /// Tells those who still wait what rsync said about their file.
    fn settle(&mut self, stderr: &str) {
        let said = each_file(stderr);
        let here = local(stderr);
        let paths: Vec<String> = self.items.keys().cloned().collect();
        for path in paths {
            let failure = said.get(&path).or(here.as_ref()).cloned().unwrap_or_else(|| {
                if staged(&self.staging, &path).is_dir() || stderr.is_empty() {
                    Failure::new(ErrorKind::Missing, "this is no regular file")
                } else {
                    let last = stderr.lines().rev().find(|line| line.contains(&path)).unwrap_or(stderr);
                    Failure::new(ErrorKind::Process, "rsync did not deliver the file").detail(last)
                }
            });
            self.reply(&path, &Err(failure));
        }
    }

    fn reply(&mut self, path: &str, result: &Result<(), Failure>) {
        for item in self.items.remove(path).into_iter().flatten() {
            let _ = item.reply.send(result.clone());
        }
    }

    fn fail_all(&mut self, failure: &Failure) {
        for (_, items) in self.items.drain() {
            for item in items {
                let _ = item.reply.send(Err(failure.clone()));
            }
        }
    }

    fn nobody_waits(&self) -> bool {
        self.items.values().flatten().all(|item| item.reply.is_closed())
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

/// Where the other side's file `path` is received.
fn staged(staging: &Path, path: &str) -> PathBuf {
    staging.join(path.trim_start_matches('/'))
}

/// Whether a program could not be started because there is none.
fn is_not_found(error: &crate::error::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::NotFound)
}
