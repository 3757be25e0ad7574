//! One round: pull, and apply what is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::watch::clone_print;
use crate::config::Settings;
use crate::error::{ErrorKind, Result};
use crate::journal::{Holder, Journal, RunLock, Wait};
use crate::plan::Patience;
use crate::report::{self, Courier};
use crate::state_repo::{OpenOptions, PullHooks, StateRepo};
use crate::sync::{self, Request, Summary, Watcher};

/// How long one call of the VCS may take.
const VCS_TIME_LIMIT: Duration = Duration::from_secs(600);

/// How long a pull waits for an hg that is at work in the clone.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// How long a pull that is about to end is left alone before it is looked at again.
const PULL_PAUSE: Duration = Duration::from_millis(100);

/// What a round is to do.
pub(super) struct Round {
    pub(super) settings: Arc<Settings>,
    /// Asks the master first.
    pub(super) pulls: bool,
    pub(super) patience: Patience,
    /// Waits for whoever works on the clone.
    pub(super) waits: bool,
    pub(super) stop: CancellationToken,
}

/// What it came to.
pub(super) struct Outcome {
    /// How the pull went; `None` when there was none.
    pub(super) pull: Option<Result<()>>,
    /// How the pass went.
    pub(super) pass: Result<Pass>,
    /// The clone as the pass found it.
    pub(super) clone_print: u64,
}

/// What a pass came to.
pub(super) struct Pass {
    pub(super) summary: Summary,
    /// When the first of the failed jobs is to be tried again.
    pub(super) next_try: Option<Timestamp>,
}

impl Round {
    pub(super) async fn run(self, watcher: Box<dyn Watcher>) -> Outcome {
        let outcome = self.make(watcher).await;
        if let Err(error) = self.tell_master(&outcome.pass).await {
            // A journal that cannot be used is what the pass itself complains of.
            tracing::debug!("the master cannot be told how the pass went: {error}");
        }
        outcome
    }

    /// Tells the master why no pass can be made, each reason once, and that they are made again; and delivers what
    /// waits, which else is part of a pass.
    async fn tell_master(&self, pass: &Result<Pass>) -> Result<()> {
        let Some(master) = crate::wire::master(&self.settings) else { return Ok(()) };
        let (about, tells_itself) = match pass {
            // Neither says anything about the next one.
            Err(error) if matches!(error.kind(), ErrorKind::Stopped | ErrorKind::Busy) => return Ok(()),
            Err(error) => {
                let hint = error.hint_text().map(|hint| format!(". Hint: {hint}")).unwrap_or_default();
                (Some(error.one_line() + hint.as_str()), false)
            }
            Ok(Pass { summary, .. }) => (None, summary.had_jobs()),
        };
        let about = about.as_deref();
        let dir = &self.settings.sync_status_path;
        let journal = Journal::open(dir)?;
        let is_news = journal.pass_trouble()?.as_ref().map(|before| before.about.as_str()) != about;
        if is_news {
            if !tells_itself {
                report::passes_made(&journal, &master, about)?;
            }
            journal.set_pass_trouble(about)?;
        }
        if (about.is_some() || is_news)
            && let Some(backlog) = journal.backlog()?
        {
            let quiet = !is_news && backlog.failing.is_some();
            Courier::start(master, Journal::open(dir)?, quiet).finish().await;
        }
        Ok(())
    }

    async fn make(&self, mut watcher: Box<dyn Watcher>) -> Outcome {
        let root = &self.settings.state_repository_root;
        let mut repository = match self.open().await {
            Ok(repository) => repository,
            Err(error) => {
                let pull = self.pulls.then(|| Err(error.copy()));
                return Outcome { pull, pass: Err(error), clone_print: clone_print(root) };
            }
        };
        // Without the run lock: a pull by hand that is under way has a hook that wants it.
        let pull = if self.pulls { Some(repository.pull(PullHooks::Skip).await.map(drop)) } else { None };
        // Whoever pulls from now on is noticed by the number that follows.
        let clone_print = clone_print(root);
        // What is in the clone is applied, also while the master cannot be reached.
        let pass = self.pass(&mut repository, watcher.as_mut()).await;
        repository.close().await;
        Outcome { pull, pass, clone_print }
    }

    async fn pass(&self, repository: &mut StateRepo, watcher: &mut dyn Watcher) -> Result<Pass> {
        let lock = self.turn(repository).await?;
        let outcome = self.apply(repository, watcher).await;
        drop(lock);
        outcome
    }

    /// Waits for the run lock, and until no pull is about to end whose changesets are applied already.
    async fn turn(&self, repository: &mut StateRepo) -> Result<RunLock> {
        let until = Instant::now() + VCS_TIME_LIMIT;
        loop {
            let mut tell = |holder: &Holder| tracing::info!("waiting for {holder}");
            let dir = &self.settings.sync_status_path;
            let wait = if self.waits { Wait::Yes(&mut tell) } else { Wait::No };
            let lock = RunLock::acquire(dir, "poll", wait, &self.stop).await?;
            if Instant::now() > until || !sync::is_ahead_of_a_pull(repository, &Journal::open(dir)?).await? {
                return Ok(lock);
            }
            if !self.waits {
                return Err(sync::pull_is_ending());
            }
            // Not with the lock in hand: the pull may have a hook to run that waits for it.
            drop(lock);
            tokio::time::sleep(PULL_PAUSE).await;
        }
    }

    async fn apply(&self, repository: &mut StateRepo, watcher: &mut dyn Watcher) -> Result<Pass> {
        let journal = Journal::open(&self.settings.sync_status_path)?;
        let begun = Timestamp::now();
        let request = Request {
            trigger: "poll".into(),
            retry_failed: true,
            patience: Some(self.patience.clone()),
            ..Request::default()
        };
        if let Some(master) = crate::wire::master(&self.settings) {
            report::polled(&journal, &master)?;
        }
        let prepared = sync::prepare(&self.settings, repository, Some(&journal), &request).await?;
        let summary = sync::run(&self.settings, repository, &journal, &request, prepared, watcher, &self.stop).await?;
        // A time that has come meanwhile counts; one that had come before is of a job that this pass has left out.
        Ok(Pass { summary, next_try: journal.next_try(begun)? })
    }

    async fn open(&self) -> Result<StateRepo> {
        StateRepo::open(OpenOptions {
            branch: self.settings.state_branch.clone(),
            ssh: self.settings.state_ssh.clone(),
            lock_wait: if self.waits { LOCK_WAIT } else { Duration::ZERO },
            time_limit: VCS_TIME_LIMIT,
            stop: self.stop.clone(),
            ..OpenOptions::new(&self.settings.state_repository_root)
        })
        .await
    }
}
