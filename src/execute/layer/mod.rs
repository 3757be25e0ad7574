//! A vector layer on GeoServer, whatever it comes from: feature type, styles, tile layer; and its removal.

mod described;
mod styles;
mod tiles;

use std::collections::HashSet;

use futures_util::future::join_all;

use self::described::Described;
pub(super) use self::styles::StyleFiles;
pub(super) use self::tiles::Tiled;
use super::groups::taken_out_of;
use super::presentation::Presented;
use super::{Ctx, Step, StepEnd, Stepped};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{Boxes, Change, Freshness, GeoServer, Newcomer, PostgisStore, Source};
use crate::job::{Description, GeoserverSetting, Preview, ServiceType, Spatial, StyleRef};
use crate::name::{GeoName, PgIdent};
use crate::postgres::Table;
use crate::transfer::Fetched;

/// A layer of a relation, as a feature job or a live layer job says it.
pub(super) struct VectorLayer<'a> {
    pub(super) workspace: &'a GeoName,
    pub(super) name: &'a GeoName,
    pub(super) store: GeoName,
    /// The relation that GeoServer reads.
    pub(super) native_name: &'a PgIdent,
    /// Where the slave's own database has it; none for a layer of another database.
    pub(super) table: Option<Table>,
    pub(super) description: &'a Description,
    pub(super) service_type: ServiceType,
    pub(super) spatial: &'a Spatial,
    pub(super) viewsql: Option<&'a str>,
    pub(super) styles: &'a [StyleRef],
    pub(super) setting: &'a GeoserverSetting,
    pub(super) preview: &'a Preview,
    /// Identifies the data where the database cannot: it changes with each publication of data.
    pub(super) publication: Option<String>,
}

impl VectorLayer<'_> {
    /// Identifies what maps of the layer show: its data, and a digest of the rest.
    fn shown(&self, data: &str) -> String {
        let styles: Vec<_> = self
            .styles
            .iter()
            .map(|style| (&style.name, style.is_default, style.file.as_ref().and_then(|file| file.md5.as_ref())))
            .collect();
        let rest = crate::plan::hex_md5(format!("{} {:?} {styles:?}", self.native_name, self.viewsql).as_bytes());
        format!("{data} {rest}")
    }

    /// The layer as previews and the CDN see it.
    pub(super) fn presented(&self) -> Presented<'_> {
        Presented {
            workspace: self.workspace,
            name: self.name,
            is_spatial: self.spatial.is_spatial,
            bbox: self.spatial.bbox,
            crs: self.spatial.crs.as_deref(),
            preview: self.preview,
        }
    }
}

/// The boxes of a layer whose job states them.
pub(super) fn boxes(spatial: &Spatial, crs: &str) -> Option<Boxes> {
    let bbox = spatial.bbox.filter(|_| spatial.override_bbox)?;
    Some(Boxes { native: bbox, lat_lon: bbox, crs: crs.to_owned() })
}

impl Ctx<'_> {
    /// Does a layer's part on GeoServers; each has its own outcome. Gives back the style files, for which
    /// there is no more use; nothing where the layer has nothing to show, because the settings leave out its
    /// table.
    pub(super) async fn publish_on_geoservers(
        &self,
        layer: &VectorLayer<'_>,
        store: Option<&PostgisStore>,
        servers: &[&GeoServer],
        styles: StyleFiles,
        notes: &mut Vec<String>,
    ) -> Result<Option<Vec<Fetched>>> {
        let described = self.describe(layer).await?;
        if let Some(warning) = &described.warning {
            notes.push(warning.clone());
        }
        let outcome = self.on_each(servers, |server| self.publish_on(server, layer, store, &described, &styles)).await;
        let is_shown = outcome?.into_iter().all(|shown| shown);
        Ok(is_shown.then(|| styles.into_fetched()))
    }

    /// Brings workspace, store, feature type and styles of a layer to what the job says, on one GeoServer;
    /// false when the settings leave out the table that it shows.
    async fn publish_on(
        &self,
        server: &GeoServer,
        layer: &VectorLayer<'_>,
        store: Option<&PostgisStore>,
        described: &Described,
        files: &StyleFiles,
    ) -> Result<bool> {
        self.after_rules().await;
        let target = Some(server.name());
        self.step(Step::Workspace, target, Box::pin(self.shared_workspace(server, layer.workspace))).await?;
        if let Some(store) = store {
            self.step(Step::Store, target, Box::pin(self.shared_store(server, store))).await?;
        }
        let data_key = Self::fact_key("data", layer.workspace, layer.name);
        let data_md5 = match &layer.table {
            Some(_) => self.published_data(layer).await?,
            // Nobody tells whether the data of another database are others: each publication may mean it.
            None => layer.publication.clone(),
        };
        let data_changed = data_md5.is_some() && self.recall(server, &data_key) != data_md5;
        // Names alone do not tell that a column has another type.
        let columns_key = Self::fact_key("columns", layer.workspace, layer.name);
        let columns = crate::plan::hex_md5(described.columns.as_bytes());
        let columns_changed = match &layer.table {
            Some(_) => !described.columns.is_empty() && self.recall(server, &columns_key).as_ref() != Some(&columns),
            None => data_changed,
        };
        let boxes_key = Self::fact_key("boxes", layer.workspace, layer.name);
        let tiles_key = Self::fact_key("tiles", layer.workspace, layer.name);
        // A job about metadata alone does not say which data are there: those that were.
        let data = data_md5.clone().or_else(|| layer.publication.clone()).or_else(|| {
            let tiles = self.recall(server, &tiles_key)?;
            Some(tiles.split_once(' ')?.0.to_owned())
        });
        let content = layer.shown(data.as_deref().unwrap_or("unknown"));
        self.tiles_may_be_old(server, layer.workspace, layer.name, &content).await?;
        let change = self
            .step(
                Step::FeatureType,
                target,
                Box::pin(async {
                    if data_changed {
                        self.forget(server, &data_key).await?;
                    }
                    let places = self.places(server, layer.workspace, layer.name);
                    if self.replaces_another() || places.are_kept() {
                        let room = server.make_room(Newcomer::FeatureType(&described.feature_type), &places).await;
                        if let Err(error) = room {
                            return self.without_its_table(layer, error);
                        }
                    }
                    self.layer_rules(server, layer.workspace, layer.name).await?;
                    let given = described.feature_type.boxes.is_some();
                    let boxes_were_given = self.recall(server, &boxes_key).is_some();
                    if given && !boxes_were_given {
                        self.note(server.name(), &boxes_key, "given".to_owned()).await?;
                    }
                    let freshness = Freshness { data_changed, columns_changed, boxes_were_given };
                    match server.publish_feature_type(&described.feature_type, freshness).await {
                        Ok(change) => {
                            let change = change.max(server.settle(layer.workspace, layer.name, &places).await?);
                            let names = (layer.workspace, layer.name);
                            let change = self.has_places_back(server, &places, names, change).await?;
                            if boxes_were_given && !given {
                                self.remember(server, &boxes_key, None);
                            }
                            Ok((Some(change), step_end(change), None))
                        }
                        Err(error) => self.without_its_table(layer, error),
                    }
                }),
            )
            .await?;
        let Some(change) = change else { return Ok(false) };
        if data_changed {
            self.remember(server, &data_key, data_md5.clone());
        }
        let in_store = Self::fact_key("in store", layer.workspace, layer.name);
        if layer.table.is_none() {
            // A removal may have nothing but the layer's name.
            self.remember(server, &in_store, Some(layer.store.to_string()));
        } else {
            self.forget(server, &in_store).await?;
        }
        if self.recall(server, &columns_key).as_ref() != Some(&columns) {
            self.remember(server, &columns_key, Some(columns));
        }
        let bad_styles = self.step(Step::Styles, target, Box::pin(self.styles_on(server, layer, files))).await?;
        let tiled = Tiled {
            workspace: layer.workspace,
            name: layer.name,
            setting: layer.setting,
            vector_formats: layer.service_type == ServiceType::Wfs,
            content,
            is_new: change == Change::Created,
        };
        let tiles = self.step(Step::TileLayer, target, Box::pin(self.tile_layer(server, &tiled))).await;
        let failures = bad_styles.into_iter().chain(tiles.err());
        Error::all(failures.collect()).map_or(Ok(true), Err)
    }

    /// What is to be made of an error that may mean that the settings leave out the layer's table. Whether it is
    /// there could not be seen before.
    fn without_its_table(&self, layer: &VectorLayer<'_>, error: Error) -> Result<Stepped<Option<Change>>> {
        if error.kind() == ErrorKind::Missing && layer.table.is_some() && self.run.parts.database.is_none() {
            return Ok((None, StepEnd::Skipped, Some(format!("SKIP_DB is set: {}", error.one_line()))));
        }
        Err(error)
    }

    async fn published_data(&self, layer: &VectorLayer<'_>) -> Result<Option<String>> {
        match (&self.run.parts.database, &layer.table) {
            (Some(database), Some(table)) => database.published_md5(table).await,
            _ => Ok(None),
        }
    }

    /// Forgets which data of a layer the GeoServers were told of, before they change.
    pub(super) async fn forget_data(&self, workspace: &GeoName, layer: &GeoName) -> Result<()> {
        for server in &self.run.parts.geoservers {
            self.forget(server, &Self::fact_key("data", workspace, layer)).await?;
        }
        Ok(())
    }

    /// Tells every GeoServer that the layer's columns are not what they were. A GeoServer that cannot be
    /// told now is told by its own steps, which compare the columns, or when it reads its data directory.
    pub(super) async fn forget_schema_everywhere(&self, workspace: &GeoName, layer: &GeoName) {
        let Ok(store) = self.store_of_workspace(workspace) else { return };
        let parts = &self.run.parts;
        let servers = parts.geoservers.iter().map(|server| (server, false));
        let tell = servers.chain(parts.followers.iter().map(|follower| (follower, true))).map(|(server, follows)| {
            let store = &store;
            async move {
                let reset = if follows {
                    server.reset_feature_type_unwritten(workspace, store, layer).await
                } else {
                    server.reset_feature_type(workspace, store, layer).await
                };
                if let Err(error) = reset {
                    tracing::debug!(
                        target = server.name(),
                        error = error.one_line(),
                        "the cached schema was not reset"
                    );
                }
            }
        });
        join_all(tell).await;
    }

    /// Takes a layer, its feature type and its own styles from one GeoServer; with a `source` also from another
    /// store that reads it.
    pub(super) async fn remove_from(
        &self,
        server: &GeoServer,
        (workspace, store, layer): (&GeoName, &GeoName, &GeoName),
        source: Option<Source<'_>>,
        styles: &[GeoName],
    ) -> Result<()> {
        let owned_key = Self::fact_key("styles", workspace, layer);
        let owned = self.recall(server, &owned_key).unwrap_or_default();
        let styles: Vec<String> = owned
            .split('\n')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .chain(styles.iter().map(GeoName::to_string))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let is_replaced = self.replaced_by.is_some();
        for kind in ["data", "columns", "boxes", "tiles"].into_iter().filter(|kind| !(is_replaced && *kind == "tiles"))
        {
            self.forget(server, &Self::fact_key(kind, workspace, layer)).await?;
        }
        for style in &styles {
            self.forget(server, &Self::fact_key("style", workspace, style)).await?;
        }
        let removed = self.step(
            Step::RemoveLayer,
            Some(server.name()),
            Box::pin(async {
                let mut groups = Vec::new();
                if !is_replaced {
                    self.forget_places_of(server, workspace, layer).await?;
                    self.note_groups_to_leave(server, workspace, layer).await?;
                    groups = self.note_who_leaves(server, workspace, layer).await?;
                }
                let (change, kept) = server.remove_layer(workspace, store, layer, source, &styles).await?;
                let left = taken_out_of(&groups).filter(|_| change != Change::Unchanged);
                let said: Vec<String> = left.into_iter().chain(styles::that_stay(workspace, &kept)).collect();
                Ok((kept, step_end(change), Some(said.join("; ")).filter(|said| !said.is_empty())))
            }),
        );
        let kept = removed.await?;
        for style in &styles {
            self.evict_style(workspace, layer, style);
        }
        // Only now: until they are gone, the layer's own styles are known by this alone, and its store.
        self.remember(server, &owned_key, styles::owned(kept.into_iter().map(|(name, _)| name)));
        self.remember(server, &Self::fact_key("in store", workspace, layer), None);
        Ok(())
    }
}

/// How a step ended that brought GeoServer to what it is to be.
pub(super) fn step_end(change: Change) -> StepEnd {
    if change == Change::Unchanged { StepEnd::Unchanged } else { StepEnd::Done }
}
