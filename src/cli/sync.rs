//! `sync`: one pass, by hand; and what the hooks share with it.

use std::time::{Duration, Instant};

use super::args::SyncArgs;
use super::{Session, exit, print, progress, say, table};
use crate::error::{ErrorKind, Result};
use crate::journal::{Journal, RunLock, Wait};
use crate::state_repo::hook_input::HookEnv;
use crate::state_repo::{OpenOptions, StateRepo};
use crate::sync::{self, Request, Summary};

/// How long one call of the VCS may take.
const VCS_TIME_LIMIT: Duration = Duration::from_secs(600);

/// How long a pull that is about to end is left alone before it is looked at again.
const PULL_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(session: &Session, args: &SyncArgs) -> Result<u8> {
    let request = Request {
        trigger: "sync".into(),
        from: args.from.clone(),
        to: args.to.clone(),
        begin: None,
        files: args.files.clone(),
        retry_failed: args.retry_failed,
        patience: None,
    };
    if args.dry_run {
        return dry_run(session, &request).await;
    }
    let until = Instant::now() + VCS_TIME_LIMIT;
    let mut is_told = false;
    let (lock, mut repository) = loop {
        let Some(lock) = lock(session, &request.trigger).await? else { return Ok(exit::LOCKED) };
        let mut repository = open_repository(session, None).await?;
        let journal = Journal::open(&session.settings.sync_status_path)?;
        if Instant::now() > until || !sync::is_ahead_of_a_pull(&mut repository, &journal).await? {
            break (lock, repository);
        }
        // Not with the lock in hand: the pull may have a hook to run that waits for it.
        repository.close().await;
        drop(lock);
        if session.global.no_wait {
            super::complain(&sync::pull_is_ending());
            return Ok(exit::LOCKED);
        }
        if !std::mem::replace(&mut is_told, true) {
            say("borg-slave: waiting for a pull to end whose changesets are applied already");
        }
        tokio::time::sleep(PULL_PAUSE).await;
    };
    let outcome = pass(session, &mut repository, &request).await;
    repository.close().await;
    drop(lock);
    let summary = outcome?;
    Ok(if summary.is_complete() { exit::APPLIED } else { exit::FAILED })
}

/// Prepares and runs one pass; the caller holds the lock.
pub(super) async fn pass(session: &Session, repository: &mut StateRepo, request: &Request) -> Result<Summary> {
    // A filter that does not compile is told now, and not when the next change comes.
    crate::wire::filters(&session.settings)?;
    let journal = Journal::open(&session.settings.sync_status_path)?;
    let prepared = sync::prepare(&session.settings, repository, Some(&journal), request).await?;
    let mut watcher = progress::watcher(session);
    sync::run(&session.settings, repository, &journal, request, prepared, watcher.as_mut(), &session.stop).await
}

async fn dry_run(session: &Session, request: &Request) -> Result<u8> {
    let mut repository = open_repository(session, None).await?;
    let journal = Journal::open_read_only(&session.settings.sync_status_path)?;
    let prepared = sync::prepare(&session.settings, &mut repository, journal.as_ref(), request).await;
    repository.close().await;
    print(&table::plan(&prepared?))?;
    Ok(exit::APPLIED)
}

/// Opens the state repository; a hook gives the environment that shows the pending changesets.
pub(super) async fn open_repository(session: &Session, hook_env: Option<HookEnv>) -> Result<StateRepo> {
    if !session.settings.skip.gs {
        // While the VCS starts. What goes wrong is told when somebody needs them.
        drop(tokio::task::spawn_blocking(crate::http::tls));
    }
    StateRepo::open(OpenOptions {
        branch: session.settings.state_branch.clone(),
        ssh: session.settings.state_ssh.clone(),
        hook_env,
        time_limit: VCS_TIME_LIMIT,
        stop: session.stop.clone(),
        ..OpenOptions::new(&session.settings.state_repository_root)
    })
    .await
}

/// The run lock; `None` when another run holds it and nobody wants to wait.
pub(super) async fn lock(session: &Session, doing: &str) -> Result<Option<RunLock>> {
    let mut tell = |holder: &crate::journal::Holder| say(&format!("borg-slave: waiting for {holder}"));
    let wait = if session.global.no_wait { Wait::No } else { Wait::Yes(&mut tell) };
    match RunLock::acquire(&session.settings.sync_status_path, doing, wait, &session.stop).await {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == ErrorKind::Busy => {
            super::complain(&error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
