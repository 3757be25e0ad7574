//! The daemon: pull, apply, sleep; and what wakes it before its time.
//!
//! A round begins when the interval has passed, when a failed job's pause is over, when somebody else has brought
//! changesets into the clone, when the settings have changed, and on `SIGUSR1`. While a round runs, the
//! daemon listens on: settings are checked at once and are in force from the next round on.

mod code;
mod ends;
mod measure;
mod round;
mod schedule;
mod settings;
mod supervisor;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::code::check_code;
use self::code::{Code, LOCK_VARIABLE};
use self::measure::{Measured, ends_of};
use self::round::{Outcome, Round};
pub use self::schedule::RETRY_PAUSES;
use self::schedule::{BackOff, Cause, Told};
use self::settings::{InForce, Look};
pub use self::settings::{Load, Named};
use self::supervisor::Supervisor;
use self::watch::{Places, Watch, clone_print};
use crate::config::Settings;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::journal::{Holder, RunLock, Wait};
use crate::plan::Patience;
use crate::status_page::{Monitor, StatusPage};
use crate::sync::Watcher;

/// What the daemon is asked to do.
pub struct Options {
    /// What is in force at first.
    pub settings: Settings,
    /// Where that comes from: files, there or not.
    pub env_files: Vec<PathBuf>,
    /// Reads the settings again.
    pub load: Load,
    /// Names the files of filters that the settings name which are there now, whether they are accepted or not.
    pub filter_files: Named,
    /// Hears of new settings that have come into force.
    pub in_force: Box<dyn Fn(&Settings) + Send + Sync>,
    /// Who sees each pass.
    pub watcher: Box<dyn Fn() -> Box<dyn Watcher> + Send + Sync>,
    /// Pause between rounds, instead of what the settings say.
    pub interval: Option<Duration>,
    /// Pauses between the tries of a failed job; never empty.
    pub pauses: Vec<Duration>,
    /// Wait for another daemon of the clone to end, or in a single round for whoever works on the clone.
    pub waits: bool,
    /// Ends the daemon.
    pub stop: CancellationToken,
}

/// How one round went.
#[derive(Debug)]
pub enum Once {
    /// Everything is applied, but what filters and settings leave out.
    Applied,
    /// Some jobs failed or have failed before and rest, or the CDN could not be told.
    Failed,
}

/// Makes one round.
///
/// # Errors
///
/// [`ErrorKind::Busy`] when somebody else works on the clone and nobody wants to wait; when the clone cannot be pulled,
/// or the pass not be made.
pub async fn once(options: Options) -> Result<Once> {
    let in_force = InForce::begin(options.settings, Vec::new(), options.load, options.filter_files)?;
    let patience =
        Patience { pauses: options.pauses, failed_rest: true, settings_stand: false, leave_loose_ends: false };
    let settings = in_force.get().clone();
    let round = Round { settings, pulls: true, patience, waits: options.waits, stop: options.stop };
    let Outcome { pull, pass, .. } = round.run((options.watcher)()).await;
    let summary = pass?.summary;
    pull.unwrap_or(Ok(()))?;
    Ok(if summary.is_complete() && summary.postponed == 0 { Once::Applied } else { Once::Failed })
}

/// Runs until it is stopped.
///
/// # Errors
///
/// [`ErrorKind::Busy`] when another daemon works on the clone and nobody wants to wait; when the status
/// directory cannot be used, the status page not be served, or a filter does not compile. What goes wrong in a round is logged, and the next one comes.
pub async fn run(options: Options) -> Result<()> {
    let mut daemon = Daemon::begin(options).await?;
    daemon.supervisor.keep_watchdog_content();
    daemon.serve().await;
    daemon.supervisor.stopping();
    daemon.page.end().await;
    tracing::info!(rounds = daemon.rounds, "the daemon ends");
    Ok(())
}

struct Daemon {
    supervisor: Supervisor,
    /// The program itself; a round that is under way has it.
    code: Option<Code>,
    monitor: Arc<Monitor>,
    page: StatusPage,
    in_force: InForce,
    hear_settings: Box<dyn Fn(&Settings) + Send + Sync>,
    watcher: Box<dyn Fn() -> Box<dyn Watcher> + Send + Sync>,
    interval: Option<Duration>,
    pauses: Vec<Duration>,
    stop: CancellationToken,
    reload: Signal,
    poll: Signal,
    watch: Option<Watch>,
    /// The clone as the last pass found it.
    clone_print: u64,
    back_off: BackOff,
    unreachable_since: Option<Instant>,
    /// Since when every pull has met somebody else at work, or a lock that was left behind.
    busy_since: Option<Instant>,
    pull_trouble: Told,
    pass_trouble: Told,
    watch_trouble: Told,
    pull_at: Instant,
    retry_at: Option<Instant>,
    /// How often what no single job is about has failed in a row, and when it is tried again.
    loose_ends: (u32, Option<Instant>),
    /// Somebody has asked for the settings to be read, and that is still to be done.
    reload_asked: bool,
    settings_trouble: Told,
    /// A pass has been made with the settings in force.
    settings_stand: bool,
    rounds: u64,
    last_sign: Instant,
}

impl Daemon {
    /// Waits for its turn.
    async fn begin(options: Options) -> Result<Self> {
        // Unheard, each of these would end the process.
        let listen = |kind| signal(kind).context(ErrorKind::Io, "cannot listen for signals");
        let (reload, poll) = (listen(SignalKind::hangup())?, listen(SignalKind::user_defined1())?);
        let supervisor = Supervisor::of_this_process();
        let mut in_force = InForce::begin(options.settings, options.env_files, options.load, options.filter_files)?;
        let mut tell = |holder: &Holder| {
            let text = format!("another daemon works on this clone: waiting for {holder} to end");
            tracing::warn!("{text}");
            supervisor.status(&text);
        };
        let wait = if options.waits { Wait::Yes(&mut tell) } else { Wait::No };
        // It stays with this process, so that two daemons never pull in turn.
        let inherited = crate::process::inherited(LOCK_VARIABLE);
        let dir = in_force.get().sync_status_path.clone();
        let code = Code::new(RunLock::acquire_for_daemon(&dir, inherited, wait, &options.stop).await?);
        // That may have taken days.
        let look = in_force.look_calmly(true, &options.stop).await;
        let now = Instant::now();
        let monitor = Arc::new(Monitor::default());
        let page = StatusPage::start(crate::wire::status_page(in_force.get()), Arc::clone(&monitor))?;
        let mut daemon = Self {
            supervisor,
            code: Some(code),
            hear_settings: options.in_force,
            monitor,
            page,
            in_force,
            watcher: options.watcher,
            interval: options.interval,
            pauses: options.pauses,
            stop: options.stop,
            reload,
            poll,
            watch: None,
            clone_print: 0,
            back_off: BackOff::default(),
            unreachable_since: None,
            busy_since: None,
            pull_trouble: Told::default(),
            pass_trouble: Told::default(),
            watch_trouble: Told::default(),
            pull_at: now,
            retry_at: None,
            loose_ends: (0, None),
            reload_asked: false,
            settings_trouble: Told::default(),
            settings_stand: false,
            rounds: 0,
            last_sign: now,
        };
        (daemon.hear_settings)(daemon.in_force.get());
        daemon.follow_settings(look, false);
        Ok(daemon)
    }

    fn interval(&self) -> Duration {
        self.interval.unwrap_or(self.in_force.get().poll_interval)
    }

    async fn serve(&mut self) {
        self.listen();
        tracing::info!(
            clone = %self.in_force.get().state_repository_root.display(),
            interval_s = self.interval().as_secs_f64(),
            "the daemon begins"
        );
        let mut cause = Some(Cause::Start);
        while let Some(why) = cause {
            let asked = self.reload_asked;
            let look = self.in_force.look_calmly(asked, &self.stop).await;
            let why = self.follow_settings(look, asked).unwrap_or(why);
            let wanted = self.round(why).await;
            if self.stop.is_cancelled() {
                return;
            }
            self.listen();
            cause = match wanted {
                Some(wanted) => Some(wanted),
                None => self.idle().await,
            };
        }
    }

    /// Makes one round and hears meanwhile what comes in; returns what asks for another one at once.
    async fn round(&mut self, why: Cause) -> Option<Cause> {
        let clock = Instant::now();
        self.rounds += 1;
        tracing::debug!(round = self.rounds, ?why, "the round begins");
        let pulls = why.pulls(clock >= self.pull_at, self.unreachable_since.is_some());
        let round = Round {
            settings: self.in_force.get().clone(),
            pulls,
            patience: Patience {
                pauses: self.pauses.clone(),
                // Whoever mends the settings wants to see whether that helps.
                failed_rest: why != Cause::Settings,
                settings_stand: self.settings_stand && why != Cause::Settings,
                leave_loose_ends: why != Cause::Settings && self.loose_ends.1.is_some_and(|at| clock < at),
            },
            waits: true,
            stop: self.stop.clone(),
        };
        let leaves_loose_ends = round.patience.leave_loose_ends;
        self.monitor.round_begins(why.as_str());
        let (mut code, supervisor) = (self.code.take(), self.supervisor.clone());
        let measured = Measured::around((self.watcher)(), &self.monitor);
        let mut running = Box::pin(async move {
            if let Some(code) = code.as_mut().filter(|_| round.pulls) {
                code.follow(&round.settings, &supervisor, &round.stop).await;
                supervisor.status("a round is under way");
            }
            (round.run(measured).await, code)
        });
        self.supervisor.status("a round is under way");
        self.supervisor.ready();
        let mut wanted = None;
        let (mut outcome, code) = loop {
            tokio::select! {
                ended = &mut running => break ended,
                _ = self.reload.recv() => wanted = self.settings_changed(true).or(wanted),
                _ = self.poll.recv() => wanted = wanted.or(Some(Cause::Signal)),
                () = settled(self.watch.as_ref()) => wanted = self.settings_changed(false).or(wanted),
                () = moment(self.in_force.look_again_at()) => wanted = self.settings_changed(false).or(wanted),
            }
        };
        drop(running);
        self.code = code;
        outcome.pull = outcome.pull.map(|pull| ends::not_busy_for_ever(pull, &mut self.busy_since, Instant::now()));
        let (pull, pass) = ends_of(&outcome);
        self.monitor.round_ended(pull, pass);
        self.clone_print = outcome.clone_print;
        self.settings_stand = wanted != Some(Cause::Settings) && (self.settings_stand || outcome.pass.is_ok());
        self.after_pull(outcome.pull);
        self.after_pass(outcome.pass, leaves_loose_ends);
        tracing::debug!(round = self.rounds, took_ms = clock.elapsed().as_millis(), "the round ended");
        match &self.watch {
            // What was written while the round ran is looked at when it has settled.
            Some(watch) => {
                watch.stir();
                wanted
            }
            None => wanted.or_else(|| self.whatever_is_new(false)),
        }
    }

    /// Sleeps until there is a reason for a round; `None` when the daemon is to end.
    async fn idle(&mut self) -> Option<Cause> {
        loop {
            let (deadline, because) = match self.retry_at {
                Some(at) if at < self.pull_at => (at, Cause::Retry),
                _ => (self.pull_at, Cause::Interval),
            };
            self.monitor.sleeps_until(deadline.into_std());
            let cause = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                // Each of these ends the waiting for files to settle, and so has to look at all of them.
                _ = self.reload.recv() => self.whatever_is_new(true),
                () = settled(self.watch.as_ref()) => self.whatever_is_new(false),
                () = moment(self.in_force.look_again_at()) => self.whatever_is_new(false),
                _ = self.poll.recv() => Some(Cause::Signal),
                () = tokio::time::sleep_until(deadline) => Some(self.whatever_is_new(false).unwrap_or(because)),
            };
            if cause.is_some() {
                return cause;
            }
        }
    }

    fn whatever_is_new(&mut self, asked: bool) -> Option<Cause> {
        if let Some(cause) = self.settings_changed(asked) {
            return Some(cause);
        }
        (clone_print(&self.in_force.get().state_repository_root) != self.clone_print).then_some(Cause::Clone)
    }

    /// Looks at the files of settings, and takes over what they say.
    fn settings_changed(&mut self, asked: bool) -> Option<Cause> {
        if asked && !self.reload_asked {
            self.supervisor.reloading();
            self.reload_asked = true;
        }
        let look = self.in_force.look(self.reload_asked, Instant::now());
        self.follow_settings(look, self.reload_asked)
    }

    /// Takes over what a look has found; says it when somebody has `asked` for it.
    fn follow_settings(&mut self, look: Look, asked: bool) -> Option<Cause> {
        let cause = match look {
            Look::Unsettled => return None,
            Look::Same => {
                if asked {
                    tracing::info!("the settings were read again: nothing has changed");
                }
                None
            }
            Look::New(warnings) => {
                self.settings_trouble.is_over();
                self.settings_stand = false;
                (self.hear_settings)(self.in_force.get());
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!(interval_s = self.interval().as_secs_f64(), "new settings are in force");
                self.page.follow(crate::wire::status_page(self.in_force.get()));
                self.listen();
                Some(Cause::Settings)
            }
            Look::Refused { error, is_new } => {
                if is_new || asked {
                    self.settings_trouble.is_over();
                }
                let text = error.paragraph();
                if self.settings_trouble.is_news(&text, Instant::now()) {
                    tracing::error!("the settings were changed and are refused; the old ones stay in force. {text}");
                } else {
                    tracing::debug!("the settings are refused as before: {error}");
                }
                // What mends them may be written elsewhere.
                self.listen();
                None
            }
        };
        if asked {
            self.reload_asked = false;
            self.supervisor.ready();
        }
        cause
    }

    /// Listens to the places that matter now.
    fn listen(&mut self) {
        let places = Places::of(&self.in_force.get().state_repository_root, &self.in_force.files());
        if self.watch.as_ref().is_some_and(|watch| watch.is_of(&places)) {
            return;
        }
        match Watch::start(&places) {
            Ok(watch) => {
                // What was written before it listened.
                watch.stir();
                self.watch = Some(watch);
                self.watch_trouble.is_over();
            }
            Err(error) => {
                self.watch = None;
                tell(&mut self.watch_trouble, "changes are seen with the next round only", &error);
            }
        }
    }
}

/// Waits until something has settled that is listened to; for ever where nothing is.
async fn settled(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.settled().await,
        None => std::future::pending().await,
    }
}

/// Waits until then; for ever without a time.
async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn tell(told: &mut Told, what: &str, error: &Error) {
    let text = error.paragraph();
    if told.is_news(&text, Instant::now()) {
        tracing::error!("{what}: {text}");
    } else {
        tracing::debug!("{what}: {error}");
    }
}
