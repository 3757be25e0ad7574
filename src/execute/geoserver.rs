//! A feature layer's part on one GeoServer: workspace, store, feature type, styles; and its removal.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::join_all;

use super::{Ctx, Step, StepEnd, Stepped};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{
    Boxes, Change, FeatureType, Freshness, GeoServer, LayerStyles, PostgisStore, ProjectionPolicy, SqlView, Style,
    ViewGeometry, default_store_parameters,
};
use crate::job::{FeatureJob, FeatureRemoval, StyleRef};
use crate::name::GeoName;
use crate::postgres::Table;
use crate::transfer::{CacheName, Fetched};

/// Spatial reference ids that GeoServer cannot look up: six digits beginning with 90, made by some
/// desktop programs for systems they could not name.
const NON_STANDARD_SRIDS: std::ops::RangeInclusive<i32> = 900_000..=909_999;

/// What a feature type is to be, the same for every GeoServer.
pub(super) struct Described {
    feature_type: FeatureType,
    /// The relation's columns with their types, as one text; empty where there is no database.
    columns: String,
    /// What the operator should know about how it was found.
    pub(super) warning: Option<String>,
}

/// The style files of a layer, by the style's name in GeoServer.
#[derive(Default)]
pub(super) struct StyleFiles {
    files: HashMap<String, (Vec<u8>, Fetched)>,
    /// Files that could not be had; the layer is published with its other styles.
    missing: HashMap<String, Error>,
}

impl StyleFiles {
    pub(super) fn into_fetched(self) -> Vec<Fetched> {
        self.files.into_values().map(|(_, fetched)| fetched).collect()
    }
}

/// How a publication on one GeoServer went.
pub(super) struct Published {
    /// Styles that GeoServer refused; the layer is published with the others.
    pub(super) bad_styles: Vec<Error>,
}

impl Ctx<'_> {
    fn fact_key(kind: &str, workspace: &GeoName, name: &GeoName) -> String {
        format!("{kind} {workspace}:{name}")
    }

    fn remember(&self, server: &GeoServer, key: &str, value: Option<String>) {
        self.run.background.facts.set(server.name(), key, value.as_deref());
        self.run.emit(super::Event::Fact { target: server.name().to_owned(), key: key.to_owned(), value });
    }

    /// Forgets a fact before what it tells is changed: a kill in between must not leave it standing.
    async fn forget(&self, server: &GeoServer, key: &str) -> Result<()> {
        if self.recall(server, key).is_none() {
            return Ok(());
        }
        self.run.background.facts.set(server.name(), key, None);
        let (target, key) = (server.name().to_owned(), key.to_owned());
        self.run.write(super::Event::Fact { target, key, value: None }).await
    }

    /// Forgets which data the GeoServers were told of, before they change.
    pub(super) async fn forget_data(&self, job: &FeatureJob) -> Result<()> {
        for server in &self.run.parts.geoservers {
            self.forget(server, &Self::fact_key("data", &job.workspace, &job.name)).await?;
        }
        Ok(())
    }

    fn recall(&self, server: &GeoServer, key: &str) -> Option<String> {
        self.run.background.facts.get(server.name(), key)
    }

    /// Notes which styles are the layer's, before any of them is made.
    async fn own(&self, server: &GeoServer, key: &str, names: String) -> Result<()> {
        self.run.background.facts.set(server.name(), key, Some(&names));
        let (target, key) = (server.name().to_owned(), key.to_owned());
        self.run.write(super::Event::Fact { target, key, value: Some(names) }).await
    }

    /// An earlier run did all of this very job's steps on `target`.
    pub(super) fn is_finished(&self, target: &str) -> bool {
        self.run.background.finished_targets.get(&self.file.path).is_some_and(|targets| targets.contains(target))
    }

    /// What GeoServer is to show, from the job and from the relation that is there now.
    pub(super) async fn describe(&self, job: &FeatureJob, table: &Table) -> Result<Described> {
        let native_name = job.native_table.clone().unwrap_or_else(|| table.name.clone());
        let (mut columns, mut with_types) = (Vec::new(), String::new());
        let mut registered = None;
        if native_name.as_str().contains('\'') {
            // It answers 500, "Error occurred building feature type".
            return Err(Error::new(
                ErrorKind::Document,
                "GeoServer cannot publish a table with an apostrophe in its name",
            )
            .subject(native_name.as_str())
            .hint("rename the layer on the master and publish it again"));
        }
        if let Some(database) = &self.run.parts.database {
            let label = format!("{}.{native_name}", table.schema);
            let found = database.columns(&table.schema, &native_name).await?;
            if found.is_none() && job.viewsql.is_none() {
                // GeoServer would make an empty table of its own.
                return Err(Error::new(ErrorKind::Missing, "the relation that the layer reads is not there")
                    .subject(label)
                    .hint("publish the layer with its data first (`borg-slave status` shows that job)"));
            }
            // An SQL view has the columns of its query, whatever the relation has.
            let found = found.filter(|_| job.viewsql.is_none()).unwrap_or_default();
            with_types = found.iter().map(|column| format!("{} {}\n", column.name, column.type_name)).collect();
            columns = found.into_iter().map(|column| column.name).collect();
            if let Some(column) = &job.spatial.column {
                registered = database.srid(&table.schema, &native_name, column).await?.filter(|srid| *srid > 0);
            }
        }
        let usable = registered.filter(|srid| !NON_STANDARD_SRIDS.contains(srid));
        let default = &self.run.parts.choices.default_crs;
        let (srs, warning) = match (&job.spatial.crs, usable) {
            (Some(crs), _) => (crs.clone(), None),
            (None, Some(srid)) => (format!("EPSG:{srid}"), None),
            (None, None) if job.spatial.is_spatial => {
                let reason = registered.map_or("no reference system is registered".to_owned(), |srid| {
                    format!("the registered SRID {srid} is not a standard one")
                });
                (default.clone(), Some(format!("{reason}; {default} (GEOSERVER_DEFAULT_CRS) is declared")))
            }
            (None, None) => (default.clone(), None),
        };
        let declared = srs.strip_prefix("EPSG:").and_then(|code| code.parse().ok());
        let geometry = job.spatial.column.as_ref().zip(registered.or(declared)).map(|(column, srid)| ViewGeometry {
            column: column.clone(),
            kind: job.spatial.geometry_type.clone().unwrap_or_else(|| "Geometry".to_owned()),
            srid,
        });
        let sql_view = job.viewsql.as_ref().map(|sql| SqlView { sql: sql.clone(), geometry, key_column: None });
        let overriding = job.spatial.bbox.filter(|_| job.spatial.override_bbox);
        let boxes = overriding.map(|bbox| Boxes { native: bbox, lat_lon: bbox, crs: srs.clone() });
        let feature_type = FeatureType {
            workspace: job.workspace.clone(),
            store: GeoName::new("store", self.run.parts.choices.datastore_name.fill(job.workspace.as_str()))?,
            name: job.name.clone(),
            native_name: native_name.as_str().to_owned(),
            title: job.description.title.clone(),
            abstract_text: job.description.abstract_text.clone(),
            keywords: job.description.keywords.clone(),
            srs,
            projection_policy: ProjectionPolicy::ForceDeclared,
            enabled: true,
            boxes,
            sql_view,
            columns,
        };
        Ok(Described { feature_type, columns: with_types, warning })
    }

    /// Fetches the style files that some GeoServer does not have yet.
    pub(super) async fn style_files(&self, job: &FeatureJob, servers: &[&GeoServer]) -> Result<StyleFiles> {
        let mut wanted = Vec::new();
        for style in job.styles.iter().filter(|style| style.file.is_some()) {
            for server in servers {
                if !self.has_style(server, job, style).await {
                    wanted.push(style);
                    break;
                }
            }
        }
        if wanted.is_empty() {
            return Ok(StyleFiles::default());
        }
        self.step(
            Step::StyleFiles,
            None,
            Box::pin(async {
                let fetched = join_all(wanted.iter().map(|style| self.style_file(job, style))).await;
                let mut files = StyleFiles::default();
                for (style, fetched) in wanted.iter().zip(fetched) {
                    let name = style.geoserver_name().to_string();
                    match fetched {
                        Ok(file) => drop(files.files.insert(name, file)),
                        Err(error) => drop(files.missing.insert(name, error)),
                    }
                }
                let mut message = format!("{} of {} files", files.files.len(), wanted.len());
                for error in files.missing.values() {
                    message.push_str("; ");
                    message.push_str(&error.one_line());
                }
                let end = if files.missing.is_empty() { StepEnd::Done } else { StepEnd::Failed };
                Ok((files, end, Some(message)))
            }),
        )
        .await
    }

    async fn style_file(&self, job: &FeatureJob, style: &StyleRef) -> Result<(Vec<u8>, Fetched)> {
        let name = CacheName::style(job.workspace.as_str(), job.name.as_str(), &style.name)?;
        let Some(file) = &style.file else {
            return Err(Error::new(ErrorKind::Bug, "a style without a file was to be fetched").subject(&style.name));
        };
        let what = format!("style {}", style.name);
        let fetched = super::metadata::fetch(&self.run.parts.transfer, file, name, &what).await?;
        let content = tokio::fs::read(&fetched.path)
            .await
            .map_err(|source| crate::error::io_error(&fetched.path, "cannot read the style file", source))?;
        Ok((content, fetched))
    }

    /// This very style file was pushed to `server`, and a style of its name is still there.
    async fn has_style(&self, server: &GeoServer, job: &FeatureJob, style: &StyleRef) -> bool {
        self.was_pushed(server, job, style)
            && server.has_style(&job.workspace, style.geoserver_name().as_str()).await.unwrap_or(false)
    }

    fn was_pushed(&self, server: &GeoServer, job: &FeatureJob, style: &StyleRef) -> bool {
        let md5 = style.file.as_ref().and_then(|file| file.md5.as_ref());
        let key = Self::fact_key("style", &job.workspace, style.geoserver_name());
        md5.is_some() && self.recall(server, &key).as_ref() == md5
    }

    /// Brings workspace, store, feature type and styles of a layer to what the job says, on one GeoServer.
    pub(super) async fn publish_on(
        &self,
        server: &GeoServer,
        job: &FeatureJob,
        described: &Described,
        files: &StyleFiles,
    ) -> Result<Published> {
        let target = Some(server.name());
        self.step(Step::Workspace, target, Box::pin(self.shared_workspace(server, &job.workspace))).await?;
        self.step(Step::Store, target, Box::pin(self.shared_store(server, job, described))).await?;
        let data_key = Self::fact_key("data", &job.workspace, &job.name);
        let data_md5 = self.published_data(job).await?;
        let data_changed = data_md5.is_some() && self.recall(server, &data_key) != data_md5;
        // Names alone do not tell that a column has another type.
        let columns_key = Self::fact_key("columns", &job.workspace, &job.name);
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
        let bad_styles = self.step(Step::Styles, target, Box::pin(self.styles_on(server, job, files))).await?;
        Ok(Published { bad_styles })
    }

    async fn published_data(&self, job: &FeatureJob) -> Result<Option<String>> {
        match &self.run.parts.database {
            Some(database) => database.published_md5(&super::feature::table(job)).await,
            None => Ok(None),
        }
    }

    async fn shared_workspace(&self, server: &GeoServer, workspace: &GeoName) -> Result<Stepped<()>> {
        let key = (server.name().to_owned(), format!("workspace {workspace}"));
        let uri = self.run.parts.choices.workspace_namespace.fill(workspace.as_str());
        let make = async { Ok(server.ensure_workspace(workspace, &uri).await? != Change::Unchanged) };
        let changed = self.run.geoserver_steps.once(key, make).await?;
        Ok(((), if changed { StepEnd::Done } else { StepEnd::Unchanged }, None))
    }

    async fn shared_store(&self, server: &GeoServer, job: &FeatureJob, described: &Described) -> Result<Stepped<()>> {
        let store = &described.feature_type.store;
        let fact = Self::fact_key("store", &job.workspace, store);
        let key = (server.name().to_owned(), fact.clone());
        let make = async {
            let spec = self.postgis_store(job, store);
            let (change, fingerprint) =
                server.ensure_postgis_store(&spec, self.recall(server, &fact).as_deref()).await?;
            if self.recall(server, &fact).as_deref() != Some(fingerprint.as_str()) {
                self.remember(server, &fact, Some(fingerprint));
            }
            Ok(change != Change::Unchanged)
        };
        let changed = self.run.geoserver_steps.once(key, make).await?;
        Ok(((), if changed { StepEnd::Done } else { StepEnd::Unchanged }, None))
    }

    fn postgis_store(&self, job: &FeatureJob, name: &GeoName) -> PostgisStore {
        let choices = &self.run.parts.choices;
        let defaults = default_store_parameters();
        let mut parameters: BTreeMap<String, String> =
            defaults.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        parameters.extend(choices.store_connection.clone());
        parameters.insert("dbtype".into(), "postgis".into());
        parameters.insert("schema".into(), job.database.schema.to_string());
        parameters.insert("namespace".into(), choices.workspace_namespace.fill(job.workspace.as_str()));
        let mut password = choices.store_password.clone();
        for (key, value) in &job.connection_overrides().0 {
            if key == "passwd" {
                password = Some(value.clone().into());
            } else {
                parameters.insert(key.clone(), value.clone());
            }
        }
        PostgisStore { workspace: job.workspace.clone(), name: name.clone(), description: None, parameters, password }
    }

    /// Styles of the layer: those of the job are there, those it had before and has no more are gone.
    async fn styles_on(&self, server: &GeoServer, job: &FeatureJob, files: &StyleFiles) -> Result<Stepped<Vec<Error>>> {
        let owned_key = Self::fact_key("styles", &job.workspace, &job.name);
        let current: Vec<&StyleRef> = job.styles.iter().filter(|style| style.file.is_some()).collect();
        let current_names: HashSet<&str> = current.iter().map(|style| style.geoserver_name().as_str()).collect();
        let had = self.recall(server, &owned_key).unwrap_or_default();
        let had: Vec<String> = had.split('\n').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let kept_for_removal =
            job.styles.iter().filter(|style| style.file.is_none()).map(|style| style.geoserver_name().to_string());
        let stale: Vec<String> = had
            .iter()
            .cloned()
            .chain(kept_for_removal)
            .filter(|name| !current_names.contains(name.as_str()))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let styles = current
            .iter()
            .map(|style| {
                let name = style.geoserver_name().to_string();
                // Files that no GeoServer lacks were not fetched.
                let fetched = files.files.get(&name).map(|(content, _)| content.clone());
                let pushed_before = fetched.is_none() || self.was_pushed(server, job, style);
                Style { name, sld: fetched.unwrap_or_default(), pushed_before }
            })
            .collect();
        let default = current.iter().find(|style| style.is_default).map(|style| style.geoserver_name().to_string());
        let wanted = LayerStyles {
            workspace: job.workspace.clone(),
            layer: job.name.clone(),
            styles,
            default,
            stale: stale.clone(),
        };
        for style in wanted.styles.iter().filter(|style| !style.pushed_before) {
            self.forget(server, &format!("style {}:{}", job.workspace, style.name)).await?;
        }
        let owned = current.iter().map(|style| style.geoserver_name().to_string()).collect::<Vec<_>>().join("\n");
        if current_names.iter().any(|name| !had.iter().any(|had| had == name)) {
            // Whatever is made from here on is this layer's, also when the run ends in the middle.
            let mut all = had.clone();
            all.extend(
                current_names.iter().filter(|name| !had.iter().any(|had| had == *name)).map(|name| (*name).to_owned()),
            );
            self.own(server, &owned_key, all.join("\n")).await?;
        }
        let outcome = server.publish_styles(&wanted).await?;
        for style in &current {
            let name = style.geoserver_name();
            let md5 = style.file.as_ref().and_then(|file| file.md5.clone());
            if outcome.pushed.iter().any(|pushed| pushed == name.as_str()) {
                self.remember(server, &Self::fact_key("style", &job.workspace, name), md5);
            }
        }
        for name in &stale {
            self.remember(server, &format!("style {}:{name}", job.workspace), None);
            self.evict_style(&job.workspace, &job.name, name);
        }
        if self.recall(server, &owned_key).unwrap_or_default() != owned {
            self.remember(server, &owned_key, Some(owned));
        }
        // A file that could not be had says more than what GeoServer makes of its absence.
        let refused = outcome.failed.into_iter().filter(|(name, _)| !files.missing.contains_key(name));
        let lacking = current.iter().filter(|style| !self.was_pushed(server, job, style));
        let missing = lacking.filter_map(|style| {
            let name = style.geoserver_name().to_string();
            let error = files.missing.get(&name)?.copy();
            Some((name, error))
        });
        let failed: Vec<Error> = missing
            .chain(refused)
            .map(|(name, error)| error.within(&format!("style {}:{name}", job.workspace)))
            .collect();
        let end = if failed.is_empty() { step_end(outcome.change) } else { StepEnd::Failed };
        let message = (!failed.is_empty()).then(|| failed.iter().map(Error::one_line).collect::<Vec<_>>().join("; "));
        Ok((failed, end, message))
    }

    /// Tells every GeoServer that the layer's columns are not what they were. A GeoServer that cannot be
    /// told now is told by its own steps, which compare the columns.
    pub(super) async fn forget_schema_everywhere(&self, job: &FeatureJob) {
        let store = self.run.parts.choices.datastore_name.fill(job.workspace.as_str());
        let Ok(store) = GeoName::new("store", store) else { return };
        let tell = self.run.parts.geoservers.iter().map(|server| {
            let store = &store;
            async move {
                if let Err(error) = server.reset_feature_type(&job.workspace, store, &job.name).await {
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

    /// Removes what the cache holds of a style that GeoServer knows as `style`.
    fn evict_style(&self, workspace: &GeoName, layer: &GeoName, style: &str) {
        let own_name =
            style.strip_prefix(layer.as_str()).map_or(style, |rest| rest.strip_prefix('.').unwrap_or("builtin"));
        self.evict(CacheName::style(workspace.as_str(), layer.as_str(), own_name));
    }

    /// Takes the layer, its feature type and its own styles from one GeoServer.
    pub(super) async fn remove_from(&self, server: &GeoServer, job: &FeatureRemoval) -> Result<()> {
        let owned_key = Self::fact_key("styles", &job.workspace, &job.name);
        let owned = self.recall(server, &owned_key).unwrap_or_default();
        let styles: Vec<String> = owned
            .split('\n')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .chain(job.styles.iter().map(GeoName::to_string))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let store = GeoName::new("store", self.run.parts.choices.datastore_name.fill(job.workspace.as_str()))?;
        self.step(
            Step::RemoveLayer,
            Some(server.name()),
            Box::pin(async {
                let change = server.remove_layer(&job.workspace, &store, &job.name, &styles).await?;
                Ok(((), step_end(change), None))
            }),
        )
        .await?;
        for style in &styles {
            self.remember(server, &format!("style {}:{style}", job.workspace), None);
            self.evict_style(&job.workspace, &job.name, style);
        }
        self.remember(server, &owned_key, None);
        for kind in ["data", "columns"] {
            self.remember(server, &Self::fact_key(kind, &job.workspace, &job.name), None);
        }
        Ok(())
    }
}

fn step_end(change: Change) -> StepEnd {
    if change == Change::Unchanged { StepEnd::Unchanged } else { StepEnd::Done }
}
