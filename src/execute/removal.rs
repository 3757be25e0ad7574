//! Removal of stores, of layers that are no features, and of groups.

use std::collections::BTreeSet;

use super::removals::Obstacle;
use super::{Ctx, JobEnd, Step, succeeded};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{GeoServer, StoreKind};
use crate::job::{JobKind, Removal};
use crate::name::GeoName;

impl Ctx<'_> {
    /// Takes away what a store, layer or group job has made.
    pub(super) async fn remove(&self, job: &Removal) -> Result<JobEnd> {
        let servers = self.unfinished_geoservers();
        let is_layer = matches!(job.kind, JobKind::WmsLayer | JobKind::LiveLayer | JobKind::LayerGroup);
        if is_layer {
            self.note_purge(&job.workspace, &job.name).await?;
        }
        let removals = &self.run.removals;
        loop {
            let seen = removals.seen(Obstacle::Groups);
            match self.remove_everywhere(&servers, job).await {
                // A group goes once the groups that hold it are gone or have let go of it.
                Err(error) if error.kind() == ErrorKind::Dependency => {
                    if !removals.worth_another_try(seen).await {
                        return Err(error);
                    }
                }
                outcome => break outcome?,
            }
        }
        if job.kind == JobKind::LayerGroup {
            self.keep_absent(&BTreeSet::new());
        }
        let mut notes = Vec::new();
        if is_layer {
            self.purge(&job.workspace, &job.name, &mut notes).await;
            self.remove_preview(&job.workspace, &job.name).await;
        }
        Ok(succeeded(&notes))
    }

    async fn remove_everywhere(&self, servers: &[&GeoServer], job: &Removal) -> Result<()> {
        self.on_each(servers, |server| async move {
            match job.kind {
                JobKind::LiveLayer => {
                    let Some(store) = self.live_store_of(server, job).await? else { return Ok(()) };
                    let layer = (&job.workspace, &store, &job.name);
                    self.remove_from(server, layer, &job.styles).await
                }
                _ => self.remove_one(server, job).await,
            }
        })
        .await
        .map(drop)
    }

    /// The store that a live layer is in: as its document says, else as it was published. None when there
    /// is no such layer.
    async fn live_store_of(&self, server: &GeoServer, job: &Removal) -> Result<Option<GeoName>> {
        if let Some(store) = &job.store {
            return Ok(Some(store.clone()));
        }
        if let Some(store) = self.recall(server, &Self::fact_key("in store", &job.workspace, &job.name)) {
            return GeoName::new("store", store).map(Some);
        }
        if !server.layer_exists(&job.workspace, &job.name).await? {
            return Ok(None);
        }
        Err(Error::new(ErrorKind::Missing, "which store the live layer is in is not known, so that it stays")
            .subject(format!("{}:{}", job.workspace, job.name))
            .hint("its metadata are gone from the master; remove the layer by hand in GeoServer, and run again"))
    }

    async fn remove_one(&self, server: &GeoServer, job: &Removal) -> Result<()> {
        let (workspace, name) = (&job.workspace, &job.name);
        self.forget(server, &Self::fact_key("tiles", workspace, name)).await?;
        let (step, fact) = match job.kind {
            JobKind::WmsStore | JobKind::LiveStore => (Step::RemoveStore, Some("store")),
            JobKind::LayerGroup => (Step::RemoveGroup, None),
            _ => (Step::RemoveLayer, None),
        };
        if let Some(fact) = fact {
            self.forget(server, &Self::fact_key(fact, workspace, name)).await?;
        }
        self.step(
            step,
            Some(server.name()),
            Box::pin(async {
                if step != Step::RemoveStore {
                    self.note_groups_to_leave(server, workspace, name).await?;
                }
                let change = match job.kind {
                    JobKind::WmsStore => server.remove_store(StoreKind::Wms, workspace, name).await?,
                    JobKind::LiveStore => server.remove_store(StoreKind::Data, workspace, name).await?,
                    JobKind::WmsLayer => {
                        self.places(server, workspace, name).forget().await?;
                        server.remove_wms_layer(workspace, job.store.as_ref(), name).await?
                    }
                    JobKind::LayerGroup => server.remove_layer_group(workspace, name).await?,
                    other => {
                        return Err(Error::new(ErrorKind::Bug, format!("a removal of {other} took a wrong turn"))
                            .subject(&self.file.path));
                    }
                };
                Ok(((), super::layer::step_end(change), None))
            }),
        )
        .await
    }
}
