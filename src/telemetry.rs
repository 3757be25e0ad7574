//! Logging: where lines go and what they look like.
//!
//! Logs are talk and go to standard error; data that a command was asked for goes to standard
//! output. On a terminal a pass draws its own progress, so only warnings are logged there.

mod journald;
mod outlet;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};

use clap::ValueEnum;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

pub use self::outlet::{flush, write, written};
use crate::error::{Context, ErrorKind, Result};

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable lines.
    Plain,
    /// One JSON object a line.
    Json,
}

/// Writes log lines to standard error, above a progress display when one is drawn.
#[derive(Clone, Default)]
pub struct LogWriter {
    above: Arc<Mutex<Option<indicatif::MultiProgress>>>,
}

impl LogWriter {
    /// From now on lines appear above this display.
    pub fn draw_above(&self, display: Option<indicatif::MultiProgress>) {
        if let Ok(mut above) = self.above.lock() {
            *above = display;
        }
    }
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogWriter")
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let display = self.above.lock().ok().and_then(|above| above.clone());
        match display {
            Some(display) => display.suspend(|| std::io::stderr().write_all(line))?,
            None => write(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // Nobody waits for that before the end.
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

/// Whether standard error takes colours: a terminal, and `NO_COLOR` (<https://no-color.org>) is not set.
#[must_use]
pub fn is_coloured() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// What is logged; it can change while the program runs.
#[derive(Clone)]
pub struct Level {
    put: Arc<dyn Fn(EnvFilter) + Send + Sync>,
    progress_is_drawn: bool,
}

impl Level {
    /// From now on `debug` messages are logged, or only the usual ones; `RUST_LOG` overrides it.
    pub fn set(&self, debug: bool) {
        (self.put)(filter(debug, self.progress_is_drawn));
    }
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Level")
    }
}

fn filter(debug: bool, progress_is_drawn: bool) -> EnvFilter {
    let level = match (debug, progress_is_drawn) {
        (true, _) => "borg_slave=debug,warn",
        (false, true) => "warn",
        (false, false) => "borg_slave=info,warn",
    };
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level))
}

/// Starts logging; `RUST_LOG` overrides the level.
///
/// # Errors
///
/// [`ErrorKind::Bug`] when logging was started before.
pub fn start(format: LogFormat, debug: bool, progress_is_drawn: bool) -> Result<(LogWriter, Level)> {
    let writer = LogWriter::default();
    let (wanted, handle) = reload::Layer::new(filter(debug, progress_is_drawn));
    let registry = tracing_subscriber::registry().with(wanted);
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_writer(writer.clone());
    let started = match format {
        LogFormat::Plain if journald::reads_standard_error() => {
            registry.with(lines.with_ansi(false).event_format(journald::Prefixed::new())).try_init()
        }
        LogFormat::Plain => registry.with(lines.with_ansi(is_coloured())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // It fails only once there is no subscriber any more, and then there is no log.
    let put = Arc::new(move |filter| _ = handle.reload(filter));
    started.context(ErrorKind::Bug, "logging was started twice")?;
    outlet::open(format)?;
    Ok((writer, Level { put, progress_is_drawn }))
}
