//! Tile layers: what GeoServer's tile cache keeps of a layer or group.

use crate::error::Result;
use crate::execute::{Ctx, JobEnd, Step, Stepped, succeeded};
use crate::geoserver::{Change, GeoServer, Member, TileLayer};
use crate::job::{EmptyGwcJob, GeoserverSetting, JobKind};
use crate::name::GeoName;

/// Whose tile layer it is, and what it is to be like.
pub(in crate::execute) struct Tiled<'a> {
    pub(in crate::execute) workspace: &'a GeoName,
    pub(in crate::execute) name: &'a GeoName,
    pub(in crate::execute) setting: &'a GeoserverSetting,
    /// Tiles of features beside those of pictures.
    pub(in crate::execute) vector_formats: bool,
    /// Identifies what the tiles show. Tiles of another content are emptied.
    pub(in crate::execute) content: String,
    /// The layer was made in this pass: there are no tiles yet.
    pub(in crate::execute) is_new: bool,
}

impl Ctx<'_> {
    /// Makes sure that there is a tile layer as the job says, or none, and that neither it nor the groups
    /// that show the layer hold old tiles.
    pub(in crate::execute) async fn tile_layer(&self, server: &GeoServer, tiled: &Tiled<'_>) -> Result<Stepped<()>> {
        let (workspace, name) = (tiled.workspace, tiled.name);
        let change = if tiled.setting.create_cache_layer {
            self.grid_sets(server).await?;
            let wanted = TileLayer {
                workspace: workspace.clone(),
                name: name.clone(),
                vector_formats: tiled.vector_formats,
                expire_cache: tiled.setting.server_cache_expire.unwrap_or(0),
                expire_clients: tiled.setting.client_cache_expire.unwrap_or(0),
            };
            server.ensure_tile_layer(&wanted).await?
        } else {
            server.remove_tile_layer(workspace, name).await?
        };
        let key = Self::fact_key("tiles", workspace, name);
        if self.recall(server, &key).as_ref() == Some(&tiled.content) {
            return Ok(((), super::step_end(change), None));
        }
        let mut message = None;
        if !tiled.is_new {
            server.truncate_tiles(workspace, name).await?;
            for group in self.old_maps_of_groups(server, workspace, name).await? {
                server.truncate_tiles(workspace, &group).await?;
            }
            message = Some("old tiles were removed".to_owned());
        }
        self.remember(server, &key, Some(tiled.content.clone()));
        Ok(((), super::step_end(change), message))
    }

    /// Forgets what the tiles of a layer or group show, before that becomes another content: from then on they
    /// may be drawn of either.
    pub(in crate::execute) async fn tiles_may_be_old(
        &self,
        server: &GeoServer,
        workspace: &GeoName,
        name: &GeoName,
        content: &str,
    ) -> Result<()> {
        let key = Self::fact_key("tiles", workspace, name);
        if self.recall(server, &key).as_deref() == Some(content) { Ok(()) } else { self.forget(server, &key).await }
    }

    /// The groups that show a layer, or group, that has changed or is about to. What the CDN has of them is
    /// purged at the end of the run, once for all their members.
    pub(in crate::execute) async fn old_maps_of_groups(
        &self,
        server: &GeoServer,
        workspace: &GeoName,
        name: &GeoName,
    ) -> Result<Vec<GeoName>> {
        let member = match self.file.kind {
            JobKind::LayerGroup => Member::Group(workspace.clone(), name.clone()),
            _ => Member::Layer(workspace.clone(), name.clone()),
        };
        let groups = server.groups_that_show(&member).await?;
        for group in &groups {
            self.note_purge(workspace, group).await?;
        }
        Ok(groups)
    }

    /// Notes what is to be purged of groups that something is about to leave: nobody can tell afterwards which
    /// they were.
    pub(in crate::execute) async fn note_groups_to_leave(
        &self,
        server: &GeoServer,
        workspace: &GeoName,
        name: &GeoName,
    ) -> Result<()> {
        if self.run.parts.cdn.is_some() {
            self.old_maps_of_groups(server, workspace, name).await?;
        }
        Ok(())
    }

    /// Empties a tile layer and waits until that has been done.
    pub(in crate::execute) async fn empty_tiles(&self, job: &EmptyGwcJob) -> Result<JobEnd> {
        let limit = self.run.parts.choices.step_limit;
        self.note_purge(&job.workspace, &job.name).await?;
        self.on_each(&self.unfinished_geoservers(), |server| async move {
            self.step(
                Step::EmptyTiles,
                Some(server.name()),
                Box::pin(async {
                    let change = server.empty_tiles(&job.workspace, &job.name, limit, &self.run.stop).await?;
                    let message = (change == Change::Unchanged).then(|| "there is no tile layer".to_owned());
                    Ok(((), crate::execute::layer::step_end(change), message))
                }),
            )
            .await
        })
        .await?;
        let mut notes = Vec::new();
        self.purge(&job.workspace, &job.name, &mut notes).await;
        Ok(succeeded(&notes))
    }

    /// Makes sure, once per pass, of the grid sets that tile layers use.
    async fn grid_sets(&self, server: &GeoServer) -> Result<()> {
        let key = (server.name().to_owned(), "grid sets".to_owned());
        let create = self.run.parts.choices.create_grid_sets;
        let make = async { Ok(server.ensure_grid_sets(create).await?.change != Change::Unchanged) };
        self.run.geoserver_steps.once(key, make).await.map(drop)
    }
}
