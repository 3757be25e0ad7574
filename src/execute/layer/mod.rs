//! A vector layer on GeoServer, whatever it comes from: feature type, styles, tile layer; and its removal.

mod described;
mod styles;

use std::collections::HashSet;

use futures_util::future::join_all;

use self::described::Described;
pub(super) use self::styles::StyleFiles;
use super::{Ctx, Step, StepEnd};
use crate::error::{Error, Result};
use crate::geoserver::{Change, Freshness, GeoServer, PostgisStore};
use crate::job::{Access, Description, GeoserverSetting, Preview, ServiceType, Spatial, StyleRef};
use crate::name::{GeoName, PgIdent};
use crate::postgres::Table;
use crate::transfer::Fetched;

/// A layer of a relation, as a feature job or a live layer job says it.
#[expect(dead_code, reason = "tile layers and previews read the rest")]
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
    pub(super) access: Access,
    pub(super) setting: &'a GeoserverSetting,
    pub(super) preview: &'a Preview,
    /// Identifies the data where the database cannot: it changes with each publication.
    pub(super) publication: Option<i64>,
}

/// What the steps of one GeoServer have done to a layer.
struct Published {
    /// Styles that GeoServer refused; the layer is published with the others.
    bad_styles: Vec<Error>,
}

impl Ctx<'_> {
    /// An earlier run did all of this very job's steps on `target`.
    pub(super) fn is_finished(&self, target: &str) -> bool {
        self.run.background.finished_targets.get(&self.file.path).is_some_and(|targets| targets.contains(target))
    }

    /// The GeoServers on which this very job is still to be done.
    pub(super) fn unfinished_geoservers(&self) -> Vec<&GeoServer> {
        self.run.parts.geoservers.iter().filter(|server| !self.is_finished(server.name())).collect()
    }

    /// Does a layer's part on GeoServers; each has its own outcome. Gives back the style files, for which
    /// there is no more use.
    pub(super) async fn publish_on_geoservers(
        &self,
        layer: &VectorLayer<'_>,
        store: &PostgisStore,
        servers: &[&GeoServer],
        styles: StyleFiles,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Fetched>> {
        let described = self.describe(layer).await?;
        if let Some(warning) = &described.warning {
            notes.push(warning.clone());
        }
        let work = servers.iter().map(|server| Box::pin(self.publish_on(server, layer, store, &described, &styles)));
        let outcomes = join_all(work).await;
        let mut failures = Vec::new();
        for (server, outcome) in servers.iter().zip(outcomes) {
            match outcome {
                Ok(Published { bad_styles }) => failures.extend(bad_styles),
                Err(error) if servers.len() == 1 => failures.push(error),
                Err(error) => failures.push(error.within(server.name())),
            }
        }
        match Error::all(failures) {
            Some(error) => Err(error),
            None => Ok(styles.into_fetched()),
        }
    }

    /// Brings workspace, store, feature type and styles of a layer to what the job says, on one GeoServer.
    async fn publish_on(
        &self,
        server: &GeoServer,
        layer: &VectorLayer<'_>,
        store: &PostgisStore,
        described: &Described,
        files: &StyleFiles,
    ) -> Result<Published> {
        let target = Some(server.name());
        self.step(Step::Workspace, target, Box::pin(self.shared_workspace(server, layer.workspace))).await?;
        self.step(Step::Store, target, Box::pin(self.shared_store(server, store))).await?;
        let data_key = Self::fact_key("data", layer.workspace, layer.name);
        let data_md5 = self.published_data(layer).await?;
        let data_changed = data_md5.is_some() && self.recall(server, &data_key) != data_md5;
        // Names alone do not tell that a column has another type.
        let columns_key = Self::fact_key("columns", layer.workspace, layer.name);
        let columns = crate::plan::hex_md5(described.columns.as_bytes());
        let columns_changed =
            !described.columns.is_empty() && self.recall(server, &columns_key).as_ref() != Some(&columns);
        self.step(
            Step::FeatureType,
            target,
            Box::pin(async {
                if data_changed {
                    self.forget(server, &data_key).await?;
                }
                let freshness = Freshness { data_changed, columns_changed };
                let change = server.publish_feature_type(&described.feature_type, freshness).await?;
                Ok(((), step_end(change), None))
            }),
        )
        .await?;
        if data_changed {
            self.remember(server, &data_key, data_md5);
        }
        if self.recall(server, &columns_key).as_ref() != Some(&columns) {
            self.remember(server, &columns_key, Some(columns));
        }
        let bad_styles = self.step(Step::Styles, target, Box::pin(self.styles_on(server, layer, files))).await?;
        Ok(Published { bad_styles })
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
    /// told now is told by its own steps, which compare the columns.
    pub(super) async fn forget_schema_everywhere(&self, workspace: &GeoName, layer: &GeoName) {
        let Ok(store) = self.store_of_workspace(workspace) else { return };
        let tell = self.run.parts.geoservers.iter().map(|server| {
            let store = &store;
            async move {
                if let Err(error) = server.reset_feature_type(workspace, store, layer).await {
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

    /// Takes a layer, its feature type and its own styles from one GeoServer.
    pub(super) async fn remove_from(
        &self,
        server: &GeoServer,
        (workspace, store, layer): (&GeoName, &GeoName, &GeoName),
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
        for kind in ["data", "columns"] {
            self.forget(server, &Self::fact_key(kind, workspace, layer)).await?;
        }
        for style in &styles {
            self.forget(server, &format!("style {workspace}:{style}")).await?;
        }
        self.step(
            Step::RemoveLayer,
            Some(server.name()),
            Box::pin(async {
                let change = server.remove_layer(workspace, store, layer, &styles).await?;
                Ok(((), step_end(change), None))
            }),
        )
        .await?;
        for style in &styles {
            self.evict_style(workspace, layer, style);
        }
        // Only now: until the styles are gone, they are known as the layer's own by this alone.
        self.remember(server, &owned_key, None);
        Ok(())
    }
}

/// How a step ended that brought GeoServer to what it is to be.
pub(super) fn step_end(change: Change) -> StepEnd {
    if change == Change::Unchanged { StepEnd::Unchanged } else { StepEnd::Done }
}
