//! The program follows its own branch: `CODE_BRANCH` is fetched, built, and takes the place of the daemon that runs.
//!
//! Nothing of this is allowed to stop the daemon. What goes wrong is told, and the round goes on with the program
//! that runs. The process stays the same one, and with it the daemon's lock, so that neither a service manager nor a
//! second daemon that waits notices anything.

mod checkout;
mod program;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::checkout::Checkout;
pub(super) use self::program::LOCK_VARIABLE;
use self::program::Program;
use super::schedule::{BackOff, Told};
use super::supervisor::Supervisor;
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, RunLock};
use crate::process::Cmd;
use crate::report;
use crate::state_repo::mask_credentials;

/// How long building the program may take.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// How much of what a failed build has printed is told, in bytes.
const BUILD_TAIL_BYTES: usize = 4096;

/// After a build that failed, unless the branch or the command is another one before; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(3600);

const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);

/// What the daemon knows of the program that it is.
pub(super) struct Code {
    /// Stays locked as long as this process is the daemon, whatever program it is.
    lock: RunLock,
    program: Result<Program>,
    back_off: BackOff,
    fetch_at: Instant,
    trouble: Told,
    failed: Option<FailedBuild>,
}

struct FailedBuild {
    revision: String,
    /// What the build said.
    reason: String,
    command: Vec<String>,
    failures: u32,
    again_at: Instant,
}

impl Code {
    pub(super) fn new(lock: RunLock) -> Self {
        Self {
            lock,
            program: Program::of_this_process(),
            back_off: BackOff::default(),
            fetch_at: Instant::now(),
            trouble: Told::default(),
            failed: None,
        }
    }

    /// What an operator who asks for the daemon's state should know.
    pub(super) fn complaint(&self) -> Option<String> {
        let failed = self.failed.as_ref()?;
        Some(format!("the program could not be built from {}", short(&failed.revision)))
    }

    /// Brings the program up to date. Does not come back when a new one has taken the place of this one.
    pub(super) async fn follow(&mut self, settings: &Settings, supervisor: &Supervisor, stop: &CancellationToken) {
        let Some(branch) = &settings.code_branch else {
            self.failed = None;
            put_on_record(settings, None, false);
            return;
        };
        let rests = Instant::now() < self.fetch_at;
        match self.step(branch, settings, supervisor, stop).await {
            Ok(_) if self.failed.is_some() => {
                put_on_record(settings, self.failed.as_ref().map(|failed| &*failed.reason), true);
            }
            // What was told of the remote may still be so.
            Ok(is_known) if rests || !is_known => {}
            Ok(_) => {
                self.trouble.is_over();
                put_on_record(settings, None, true);
            }
            Err(error) if error.kind() == ErrorKind::Stopped => {}
            Err(error) => {
                // A remote that is away now and then is worth no word of its own.
                put_on_record(settings, Some(&error.one_line()), error.kind() != ErrorKind::Unreachable);
                super::tell(&mut self.trouble, "the program is not brought up to date", &error);
            }
        }
    }

    /// False when another daemon is at it, or the program cannot be built.
    async fn step(
        &mut self,
        branch: &str,
        settings: &Settings,
        supervisor: &Supervisor,
        stop: &CancellationToken,
    ) -> Result<bool> {
        let program = self.program.as_ref().map_err(Error::copy)?.clone();
        let checkout = Checkout::find(settings, &program.file)?;
        // Daemons of several clones may share the checkout: one of them builds, and all begin what it has built.
        let Some(turn) = checkout.turn()? else { return Ok(false) };
        let now = Instant::now();
        let fetches = now >= self.fetch_at;
        if fetches {
            if let Err(error) = checkout.bring_to(branch, &settings.borg_ssh, stop).await {
                if error.kind() == ErrorKind::Unreachable {
                    self.fetch_at = now + self.back_off.failed(settings.poll_interval);
                }
                return Err(error);
            }
            self.back_off.answered();
        }
        let revision = checkout.head()?;
        if checkout.built().as_deref() != Some(&*revision) {
            // What is checked out while the remote is away may be anything.
            if !fetches || !self.build(&checkout, &revision, settings, supervisor, stop).await? {
                return Ok(false);
            }
            checkout.was_built(&revision)?;
            if !program.is_replaced() {
                tracing::info!(program = %program.path.display(), "the build has left the program as it was");
            }
        }
        self.failed = None;
        drop(turn);
        if program.is_replaced() {
            let version = program.try_out(stop).await?;
            tracing::info!(program = %program.path.display(), "a new program takes over: {version}");
            supervisor.status("a new program takes over");
            return Err(program.take_over(&self.lock, stop).await);
        }
        Ok(true)
    }

    /// Builds the program; false when it cannot be built as it is.
    async fn build(
        &mut self,
        checkout: &Checkout,
        revision: &str,
        settings: &Settings,
        supervisor: &Supervisor,
        stop: &CancellationToken,
    ) -> Result<bool> {
        let command = &settings.code_build;
        let before = self.failed.take().filter(|failed| failed.revision == revision && failed.command == *command);
        if let Some(failed) = &before
            && Instant::now() < failed.again_at
        {
            self.failed = before;
            return Ok(false);
        }
        let what = format!("building the program from {}", short(revision));
        tracing::info!(checkout = %checkout.root.display(), "{what}");
        supervisor.status(&what);
        let clock = Instant::now();
        match run(command, checkout, stop).await {
            Ok(()) => {
                tracing::info!(took_s = clock.elapsed().as_secs(), "the program is built");
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Stopped => Err(error),
            Err(error) => {
                let failures = before.as_ref().map_or(1, |failed| failed.failures + 1);
                let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE);
                let error = Error::new(ErrorKind::Process, format!("the program cannot be built from {}", short(revision)))
                    .subject(checkout.root.display().to_string())
                    .hint("CODE_BUILD is the command; it is tried again when CODE_BRANCH moves or CODE_BUILD changes, and now and then; the old program goes on")
                    .source(error);
                if before.is_none() {
                    tracing::error!("{}", error.paragraph());
                } else {
                    tracing::debug!("{error}");
                }
                let again_at = Instant::now() + pause;
                self.failed = Some(FailedBuild {
                    revision: revision.to_owned(),
                    reason: error.one_line(),
                    command: command.clone(),
                    failures,
                    again_at,
                });
                Ok(false)
            }
        }
    }
}

/// Keeps what goes wrong for `status` and the messages about runs; the master is told at once when it is `worth`
/// that and news.
fn put_on_record(settings: &Settings, about: Option<&str>, worth: bool) {
    let noted = Journal::open(&settings.sync_status_path).and_then(|journal| {
        let before = journal.set_program_trouble(about)?;
        let is_news = before.as_ref().map(|before| before.about.as_str()) != about;
        match crate::wire::master(settings) {
            Some(master) if is_news && worth => report::program_followed(&journal, &master, about),
            _ => Ok(()),
        }
    });
    if let Err(error) = noted {
        tracing::warn!(error = error.one_line(), "how the program follows its branch could not be noted");
    }
}

/// Looks whether the program could be brought up to date, and changes nothing; says in words what is there.
///
/// # Errors
///
/// What the daemon would tell.
pub async fn check_code(branch: &str, settings: &Settings, stop: &CancellationToken) -> Result<String> {
    let program = Program::of_this_process()?;
    Checkout::find(settings, &program.file)?.look(branch, &settings.borg_ssh, stop).await
}

async fn run(command: &[String], checkout: &Checkout, stop: &CancellationToken) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or_else(|| {
        Error::new(ErrorKind::Settings, "is empty").subject("CODE_BUILD").hint("set it to a command such as `make`")
    })?;
    let build = Cmd::new(program).args(arguments).cwd(&checkout.root).stderr_tail(BUILD_TAIL_BYTES);
    // Its output is talk, of which only the last words count.
    let mut last: Vec<u8> = Vec::new();
    let finished = build
        .time_limit(BUILD_LIMIT)
        .stop(stop)
        .run_lines(|line| {
            last.extend(line.iter().chain(b"\n"));
            if last.len() > 2 * BUILD_TAIL_BYTES {
                last.drain(..last.len() - BUILD_TAIL_BYTES);
            }
        })
        .await?;
    if finished.status.success() {
        return Ok(());
    }
    let error = finished.failure();
    let last = String::from_utf8_lossy(&last).trim_end().to_owned();
    let said = if finished.stderr.is_empty() { &last } else { &finished.stderr };
    Err(if said.is_empty() { error } else { error.source(mask_credentials(said)) })
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
