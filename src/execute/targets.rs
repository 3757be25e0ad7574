//! What a job does on every GeoServer, each with an outcome of its own.

use futures_util::future::join_all;

use super::Ctx;
use crate::error::{Error, Result};
use crate::geoserver::GeoServer;

impl Ctx<'_> {
    /// An earlier run did all of this very job's steps on `target`.
    pub(super) fn is_finished(&self, target: &str) -> bool {
        self.run.background.finished_targets.get(&self.file.path).is_some_and(|targets| targets.contains(target))
    }

    /// The GeoServers on which this very job is still to be done.
    pub(super) fn unfinished_geoservers(&self) -> Vec<&GeoServer> {
        self.run.parts.geoservers.iter().filter(|server| !self.is_finished(server.name())).collect()
    }

    /// Does `work` on each of `servers`, at the same time; one that fails does not hold up the others.
    pub(super) async fn on_each<'s, T, W>(
        &self,
        servers: &[&'s GeoServer],
        work: impl Fn(&'s GeoServer) -> W,
    ) -> Result<Vec<T>>
    where
        W: Future<Output = Result<T>>,
    {
        let outcomes = join_all(servers.iter().map(|server| Box::pin(work(server)))).await;
        let (mut values, mut failures) = (Vec::new(), Vec::new());
        for (server, outcome) in servers.iter().zip(outcomes) {
            match outcome {
                Ok(value) => values.push(value),
                // With one GeoServer there is no doubt about which it is.
                Err(error) if self.run.parts.geoservers.len() == 1 => failures.push(error),
                Err(error) => failures.push(error.within(server.name())),
            }
        }
        match Error::all(failures) {
            Some(error) => Err(error),
            None => Ok(values),
        }
    }
}
