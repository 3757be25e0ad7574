//! GeoServers that share the data directory of the first, and read it again once that was written.
//!
//! While a GeoServer reads its data directory again, some of its maps fail, and a large catalog takes long. So
//! the followers do it at the end of a run, and during a long one every now and then. What readers would get an
//! error for until then, a column that is gone, they are told at once, layer by layer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::{Event, Run};
use crate::error::Result;
use crate::geoserver::GeoServer;

/// The target under which the journal keeps which GeoServers are still to read their data directory.
pub const RELOAD: &str = "reload";

/// How long what the first GeoServer was told may be unknown to the others while a run goes on.
const LAG: Duration = Duration::from_secs(5 * 60);

/// How many writes to the first GeoServer the others have taken up.
#[derive(Debug, Default)]
pub(super) struct TakenUp(AtomicU64);

impl TakenUp {
    /// Waits until `lag` has passed and the others do not know all of `writes`; gives what these are now.
    async fn lags(&self, lag: Duration, writes: impl Fn() -> u64) -> u64 {
        loop {
            tokio::time::sleep(lag).await;
            let now = writes();
            if now > self.known() {
                return now;
            }
        }
    }

    fn known(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Run {
    /// Notes, before anything is written, that the others will have to read it.
    pub(super) async fn begin_writing(&self) -> Result<()> {
        for follower in &self.parts.followers {
            self.background.facts.set(RELOAD, follower.name(), Some("due"));
            let (target, key) = (RELOAD.to_owned(), follower.name().to_owned());
            self.write(Event::Fact { target, key, value: Some("due".to_owned()) }).await?;
        }
        Ok(())
    }

    /// How often the first GeoServer was written to.
    fn writes(&self) -> u64 {
        self.parts.geoservers.iter().map(|server| server.requests().writes).sum()
    }

    /// Lets the others read every now and then what the first has been told meanwhile; never ends.
    pub(super) async fn keep_followers_up(&self) {
        if self.parts.followers.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let writes = self.taken_up.lags(LAG, || self.writes()).await;
            let outcomes = join_all(self.parts.followers.iter().map(GeoServer::reload)).await;
            // The end of the run tries again, and says what fails then.
            if outcomes.iter().all(Result::is_ok) {
                self.taken_up.0.store(writes, Ordering::Relaxed);
            }
        }
    }

    /// Lets the others read what the first has written, in this run or in an earlier one.
    pub(super) async fn reload_followers(&self) {
        let written = self.writes() > self.taken_up.known();
        for follower in &self.parts.followers {
            let was_due = self.background.reload_due.contains(follower.name());
            if (written || was_due)
                && let Err(error) = follower.reload().await
            {
                self.emit(Event::TargetFailed { target: follower.name().to_owned(), error });
                continue;
            }
            self.is_reloaded(follower.name());
        }
        // Who shares the directory no longer would stay due for ever.
        for due in self.background.reload_due.iter().filter(|_| !self.parts.geoservers.is_empty()) {
            if !self.parts.followers.iter().any(|follower| follower.name() == due) {
                self.is_reloaded(due);
            }
        }
    }

    fn is_reloaded(&self, follower: &str) {
        let (target, key) = (RELOAD.to_owned(), follower.to_owned());
        self.emit(Event::Fact { target, key, value: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn however_much_is_written_the_others_read_it_once_in_a_while_and_only_then() {
        let (taken_up, begin, lag) = (TakenUp::default(), Instant::now(), Duration::from_millis(20));
        assert_eq!(taken_up.lags(lag, || 1000).await, 1000);
        assert!(begin.elapsed() >= lag);
        taken_up.0.store(1000, Ordering::Relaxed);
        let nothing_new = tokio::time::timeout(lag * 5, taken_up.lags(lag, || 1000)).await;
        assert!(nothing_new.is_err(), "nothing is read again that is known");
        assert_eq!(taken_up.lags(lag, || 1001).await, 1001);
    }
}
