//! Ctrl-C and `TERM`: the first asks the run to come to a safe point, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit;
use crate::error::{Context, ErrorKind, Result};

/// Which signal has asked the run to stop.
#[derive(Debug, Default, Clone)]
pub(super) struct Signals(Arc<AtomicU8>);

impl Signals {
    /// Cancels `stop` when a signal arrives.
    pub(super) fn watch(&self, stop: &CancellationToken) -> Result<()> {
        let listen = |kind| signal(kind).context(ErrorKind::Io, "cannot listen for signals");
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let (received, stop) = (Arc::clone(&self.0), stop.clone());
        tokio::spawn(async move {
            loop {
                let status = tokio::select! {
                    _ = interrupt.recv() => exit::INTERRUPTED,
                    _ = terminate.recv() => exit::TERMINATED,
                };
                if received.swap(status, Ordering::SeqCst) != 0 {
                    crate::telemetry::flush();
                    // Children die with this process; every state on disk can be resumed from.
                    std::process::exit(status.into());
                }
                tracing::warn!("asked to stop: running steps are brought to a safe point; once more ends them at once");
                stop.cancel();
            }
        });
        Ok(())
    }

    /// The exit status that the signal asks for, if one came.
    pub(super) fn received(&self) -> Option<u8> {
        Some(self.0.load(Ordering::SeqCst)).filter(|status| *status != 0)
    }
}
