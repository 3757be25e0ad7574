//! Delivers in the background of a pass, and never holds it up for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Master;
use super::deliver::{Delivery, silent};
use crate::error::Error;
use crate::journal::Journal;

/// Between two deliveries: what happens meanwhile shares a transaction.
const BREATH: Duration = Duration::from_secs(1);

/// After a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);

const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the end of a pass waits for a master that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the end of a pass waits for a master that answers, but has much to take in.
const LONGEST_END: Duration = Duration::from_secs(15);

/// Delivers reports while a pass runs.
#[derive(Debug)]
pub struct Courier {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    master: Master,
    journal: Journal,
    /// There is something to deliver.
    wake: Notify,
    /// The pass has ended: once more, and then no more.
    closing: CancellationToken,
    batches: AtomicU64,
    told: AtomicBool,
}

impl Courier {
    /// Starts with what earlier passes left. `journal` is a connection of the courier's own. A `quiet`
    /// courier does not log what goes wrong: a pass that has nothing to do need not say again what the
    /// one before has said.
    #[must_use]
    pub fn start(master: Master, journal: Journal, quiet: bool) -> Self {
        let shared = Arc::new(Shared {
            master,
            journal,
            wake: Notify::new(),
            closing: CancellationToken::new(),
            batches: AtomicU64::new(0),
            told: AtomicBool::new(quiet),
        });
        let task = tokio::spawn(carry(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// There is something new.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Delivers what is left, as long as the master answers: one that does not is waited for no longer
    /// than three seconds. The rest stays for the next pass.
    pub async fn finish(mut self) {
        self.shared.closing.cancel();
        let end = Instant::now() + LONGEST_END;
        loop {
            let batches = self.shared.batches.load(Ordering::Relaxed);
            let until = end.min(Instant::now() + PATIENCE);
            tokio::select! {
                _ = &mut self.task => return,
                () = sleep_until(until) => {}
            }
            let answers = self.shared.batches.load(Ordering::Relaxed) > batches;
            if !answers || Instant::now() >= end {
                self.task.abort();
                if !answers {
                    self.shared.failed(&silent(&self.shared.master));
                }
                return;
            }
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Tells once in a pass that reports have to wait, and notes why.
    fn failed(&self, error: &Error) {
        if let Err(error) = self.journal.reports_failed(&error.one_line()) {
            tracing::warn!(error = error.one_line(), "the journal cannot be written");
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            let hint = error.hint_text().map(|hint| format!(". Hint: {hint}")).unwrap_or_default();
            tracing::warn!("reports to the master have to wait: {}{hint}", error.one_line(),);
        }
    }
}

async fn carry(shared: Arc<Shared>) {
    let mut delivery = Delivery::new(&shared.master, &shared.journal);
    let mut pause = FIRST_PAUSE;
    loop {
        let is_last = shared.closing.is_cancelled();
        let batch = || _ = shared.batches.fetch_add(1, Ordering::Relaxed);
        let failed = match delivery.all(batch).await {
            Ok(delivered) => {
                if let Some((subject, reason)) = delivered.refused.first()
                    && !shared.told.swap(true, Ordering::Relaxed)
                {
                    let count = delivered.refused.len();
                    tracing::warn!(
                        "the master refuses {count} of the reports, the first is {subject}: {reason}; `borg-slave report` lists them"
                    );
                }
                false
            }
            Err(error) => {
                shared.failed(&error);
                true
            }
        };
        if is_last {
            return;
        }
        if failed {
            tokio::select! {
                () = sleep(pause) => {}
                () = shared.closing.cancelled() => {}
            }
            pause = LONGEST_PAUSE.min(pause * 2);
            continue;
        }
        pause = FIRST_PAUSE;
        tokio::select! {
            () = sleep(BREATH) => {}
            () = shared.closing.cancelled() => {}
        }
        tokio::select! {
            () = shared.wake.notified() => {}
            () = shared.closing.cancelled() => {}
        }
    }
}
