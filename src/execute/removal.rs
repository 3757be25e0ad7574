//! Removal of stores, of layers that are no features, and of groups.

use std::collections::BTreeSet;

use super::groups::taken_out_of;
use super::removals::Obstacle;
use super::{Ctx, JobEnd, Step, StepEnd, succeeded};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{Change, GeoServer, Member, StoreKind};
use crate::job::{Action, Document, JobKind, Removal};
use crate::name::GeoName;

impl Ctx<'_> {
    /// Looks whether GeoServers that have come in since a removal was carried out hold what was removed; when
    /// none does, that is all.
    ///
    /// What a GeoServer holds that comes in, nobody knows: it may be new, or a copy of another one, or have been
    /// away for a while. So it is asked for every removal that ever was, but by one list for each workspace, and
    /// what costs more (the metadata, a request for each layer, the CDN) is left to those that are found.
    pub(super) async fn removed_before(&self, document: &Document) -> Result<Option<JobEnd>> {
        if document.action() != Action::Remove || !self.run.background.removed_before.contains(&self.file.path) {
            return Ok(None);
        }
        // Where there are more dots, only the metadata tell where the workspace ends.
        let is_named = document.metadata().is_none() || self.file.stem.matches('.').count() == 1;
        let Some(complete) = is_named.then(|| document.clone().complete_without_metadata().ok()).flatten() else {
            return Ok(None);
        };
        let Some((workspace, name)) = complete.job.workspace_and_name() else { return Ok(None) };
        let (member, step) = match self.file.kind {
            JobKind::LayerGroup => (Member::Group(workspace.clone(), name.clone()), Step::RemoveGroup),
            JobKind::Feature | JobKind::WmsLayer | JobKind::LiveLayer => {
                (Member::Layer(workspace.clone(), name.clone()), Step::RemoveLayer)
            }
            // A store is looked for before it is removed.
            _ => return Ok(None),
        };
        let servers = self.unfinished_geoservers();
        let held = self.on_each(&servers, |server| {
            let member = &member;
            async move {
                // A layer that this slave has published there may have left its styles.
                let is_known = ["data", "columns", "tiles", "styles", "in store"]
                    .iter()
                    .any(|kind| self.recall(server, &Self::fact_key(kind, workspace, name)).is_some());
                Ok(is_known || server.lists(member).await?)
            }
        });
        if held.await?.contains(&true) {
            return Ok(None);
        }
        for server in servers {
            let look = Box::pin(async { Ok(((), StepEnd::Unchanged, Some("it is not there".to_owned()))) });
            self.step(step, Some(server.name()), look).await?;
        }
        Ok(Some(JobEnd::Superseded("removed before; GeoServers that have come in since do not have it".to_owned())))
    }

    /// Takes away what a store, layer or group job has made.
    pub(super) async fn remove(&self, job: &Removal) -> Result<JobEnd> {
        if let Some(other) = self.replaced_by {
            self.leave_to_another(other, &job.workspace, &job.name, &job.styles).await?;
            return Ok(JobEnd::Succeeded(Some(format!("{other} has taken its place"))));
        }
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
            self.forget_who_left().await?;
        }
        let mut notes = Vec::new();
        if is_layer {
            self.purge(&job.workspace, &job.name, &mut notes).await;
            self.remove_preview(&job.workspace, &job.name).await;
        }
        Ok(succeeded(&notes))
    }

    /// Leaves the name of a layer that is to go to the one of another kind that bears it now, with its groups and
    /// all else that goes by the name; only styles go that no other kind has.
    pub(super) async fn leave_to_another(
        &self,
        other: &str,
        workspace: &GeoName,
        layer: &GeoName,
        styles: &[GeoName],
    ) -> Result<()> {
        let is_cascaded = other.split('/').nth(1) == Some("wms_layers");
        let store = self.store_of_workspace(workspace)?;
        self.on_each(&self.unfinished_geoservers(), |server| {
            let store = &store;
            async move {
                let places = self.places(server, workspace, layer);
                if places.are_kept() {
                    // What was to take its place has not come to its end, and is taken back.
                    server.settle(workspace, layer, &places).await?;
                    places.forget().await?;
                }
                if is_cascaded && self.file.kind != JobKind::WmsLayer {
                    return self.remove_from(server, (workspace, store, layer), None, styles).await;
                }
                // A feature may be for the database alone, and then nothing has taken the place.
                let in_store = self.recall(server, &Self::fact_key("in store", workspace, layer));
                if let Some(store) = in_store.filter(|_| self.file.kind == JobKind::LiveLayer) {
                    let store = GeoName::new("store", store)?;
                    return self.remove_from(server, (workspace, &store, layer), None, styles).await;
                }
                let look = Box::pin(async {
                    let change = match self.file.kind {
                        JobKind::WmsLayer => server.remove_wms_layer(workspace, None, layer).await?,
                        _ => Change::Unchanged,
                    };
                    Ok(((), super::layer::step_end(change), Some(format!("{other} has taken its place"))))
                });
                self.step(Step::RemoveLayer, Some(server.name()), look).await
            }
        })
        .await
        .map(drop)
    }

    async fn remove_everywhere(&self, servers: &[&GeoServer], job: &Removal) -> Result<()> {
        self.on_each(servers, |server| async move {
            match job.kind {
                JobKind::LiveLayer => {
                    let Some(store) = self.live_store_of(server, job).await? else { return Ok(()) };
                    let layer = (&job.workspace, &store, &job.name);
                    self.remove_from(server, layer, None, &job.styles).await
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
                let mut groups = Vec::new();
                let change = match job.kind {
                    JobKind::WmsStore | JobKind::LiveStore => {
                        let kind = if job.kind == JobKind::WmsStore { StoreKind::Wms } else { StoreKind::Data };
                        for layer in server.layers_of_store(kind, workspace, name).await? {
                            self.note_purge(workspace, &layer).await?;
                            self.note_groups_to_leave(server, workspace, &layer).await?;
                            groups.extend(self.note_who_leaves(server, workspace, &layer).await?);
                        }
                        groups.sort();
                        groups.dedup();
                        server.remove_store(kind, workspace, name).await?
                    }
                    JobKind::WmsLayer => {
                        self.forget_places_of(server, workspace, name).await?;
                        self.note_groups_to_leave(server, workspace, name).await?;
                        groups = self.note_who_leaves(server, workspace, name).await?;
                        server.remove_wms_layer(workspace, job.store.as_ref(), name).await?
                    }
                    JobKind::LayerGroup => {
                        self.note_groups_to_leave(server, workspace, name).await?;
                        server.remove_layer_group(workspace, name).await?
                    }
                    other => {
                        return Err(Error::new(ErrorKind::Bug, format!("a removal of {other} took a wrong turn"))
                            .subject(&self.file.path));
                    }
                };
                let message = taken_out_of(&groups).filter(|_| change != Change::Unchanged);
                Ok(((), super::layer::step_end(change), message))
            }),
        )
        .await
    }
}
