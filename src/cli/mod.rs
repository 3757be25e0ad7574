//! The command line: one file per subcommand, and what they print.

mod args;
mod check;
mod exit;
mod filter;
mod hook;
mod import_status;
mod manual;
mod poll;
mod progress;
mod report;
mod signals;
mod status;
mod sync;
mod table;

use std::io::{IsTerminal, Write};

use clap::Parser;
use tokio_util::sync::CancellationToken;

pub use self::args::Cli;
use self::args::{Command, Global, HookName};
use crate::config::{self, Loaded, Place, ProcessEnv, Settings};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::state_repo::PULLED_BY_SLAVE;
use crate::telemetry::{self, Level, LogWriter};

/// Runs the program; the value is the exit status.
#[must_use]
pub fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => {
            let wrong = refusal.use_stderr();
            let _ = refusal.print();
            return if wrong { exit::USAGE } else { exit::APPLIED };
        }
    };
    let status = match dispatch(&cli) {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            exit::of(&error)
        }
    };
    telemetry::flush();
    status
}

fn dispatch(cli: &Cli) -> Result<u8> {
    if let Command::Hook { hook: HookName::Deny, .. } = cli.command {
        say(hook::DENY_TEXT);
        return Ok(exit::FAILED);
    }
    if matches!(cli.command, Command::Hook { .. }) && std::env::var_os(PULLED_BY_SLAVE).is_some() {
        // Whoever pulls here applies what it brings itself, and holds the run lock meanwhile.
        return Ok(exit::APPLIED);
    }
    match &cli.command {
        // These describe the program, whatever its settings.
        Command::Completions { shell } => return manual::completions(*shell),
        Command::Manpage { dir } => return manual::manpage(dir.as_deref()),
        _ => {}
    }
    let session = Session::start(&cli.global)?;
    session.run(&cli.command)
}

/// What every command has at hand: settings, the log, and the signal to stop.
struct Session {
    settings: Settings,
    place: Place,
    global: Global,
    log: LogWriter,
    level: Level,
    draws: bool,
    stop: CancellationToken,
}

impl Session {
    fn start(global: &Global) -> Result<Self> {
        let working_directory = std::env::current_dir().context(ErrorKind::Io, "cannot find the working directory")?;
        let place = Place { env_file: global.env_file.clone(), working_directory };
        let Loaded { settings, warnings, .. } = config::load(&ProcessEnv, &place)?;
        let draws = std::io::stderr().is_terminal() && global.log_format == telemetry::LogFormat::Plain;
        let (log, level) = telemetry::start(global.log_format, settings.debug || global.verbose, draws)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(Self { settings, place, global: global.clone(), log, level, draws, stop: CancellationToken::new() })
    }

    fn run(&self, command: &Command) -> Result<u8> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context(ErrorKind::Io, "cannot start the runtime")?;
        let signals = signals::Signals::default();
        let status = runtime.block_on(async {
            signals.watch(&self.stop)?;
            let status = match command {
                Command::Hook { hook, rest } => hook::run(self, *hook, rest).await,
                Command::Poll(args) => poll::run(self, args).await,
                Command::Sync(args) => sync::run(self, args).await,
                Command::Status(args) => status::run(self, args).await,
                Command::Report(args) => report::run(self, args).await,
                Command::Check => check::run(self).await,
                Command::Filter { job_files } => filter::run(self, job_files).await,
                Command::ImportStatus { dir, dry_run } => import_status::run(self, dir, *dry_run).await,
                Command::Completions { .. } | Command::Manpage { .. } => Ok(exit::APPLIED),
            };
            telemetry::written(&self.stop).await;
            status
        });
        // A blocking call that hangs (a dead NFS mount) must not keep the process.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        match (signals.received(), status) {
            (Some(by_signal), Err(error)) if error.kind() != ErrorKind::Stopped => {
                complain(&error);
                Ok(by_signal)
            }
            (Some(by_signal), _) => Ok(by_signal),
            (None, status) => status,
        }
    }
}

/// Prints data that a command was asked for.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // The reader has seen enough, as `head` has.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context(ErrorKind::Io, "cannot write to standard output"),
    }
}

/// Tells the operator something on standard error.
fn say(text: &str) {
    telemetry::write(format!("{text}\n").as_bytes());
}

fn complain(error: &Error) {
    say(&error.paragraph());
}
