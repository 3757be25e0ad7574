//! GeoServers that share the data directory of the first, and read it again once that was written.

use super::{Event, Run};
use crate::error::Result;

/// The target under which the journal keeps which GeoServers are still to read their data directory.
pub const RELOAD: &str = "reload";

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

    /// Lets the others read what the first has written, in this run or in an earlier one.
    pub(super) async fn reload_followers(&self) {
        let written = self.parts.geoservers.iter().any(|server| server.requests().writes > 0);
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
