//! Feature types: tables, views and SQL views published as layers.

mod document;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::answer::Answer;
use super::catalog::LayerState;
use super::client::{GeoServer, Writer, path};
use super::json;
use super::version::Version;

/// A feature type as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureType {
    /// The workspace it is in.
    pub workspace: GeoName,
    /// The store that its relation is in.
    pub store: GeoName,
    /// Its name, which is also the layer's.
    pub name: GeoName,
    /// The relation in the store's schema; for an SQL view, the name GeoServer gives to that.
    pub native_name: String,
    /// What people read first; the name when empty.
    pub title: String,
    /// What people read next; may be empty.
    pub abstract_text: String,
    /// Keywords, in order.
    pub keywords: Vec<String>,
    /// The declared reference system, as in `EPSG:4326`.
    pub srs: String,
    /// How the declared reference system is used.
    pub projection_policy: ProjectionPolicy,
    /// The boxes to show; GeoServer computes them when there are none.
    pub boxes: Option<Boxes>,
    /// The query, when this is an SQL view and not a relation.
    pub sql_view: Option<SqlView>,
    /// The relation's columns as the database has them. GeoServer caches a relation's columns, and
    /// these tell whether its cache is stale. Empty when they are not known.
    pub columns: Vec<String>,
    /// Whether the layer is served.
    pub enabled: bool,
}

/// How GeoServer uses the declared reference system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProjectionPolicy {
    /// The declared system is the one the data are in, whatever they say.
    #[default]
    ForceDeclared,
    /// Data are reprojected from their own system to the declared one.
    ReprojectToDeclared,
    /// Data are served in their own system.
    KeepNative,
}

impl ProjectionPolicy {
    fn as_str(self) -> &'static str {
        match self {
            Self::ForceDeclared => "FORCE_DECLARED",
            Self::ReprojectToDeclared => "REPROJECT_TO_DECLARED",
            Self::KeepNative => "NONE",
        }
    }
}

/// The boxes of a layer, each as minimum x, minimum y, maximum x, maximum y.
#[derive(Debug, Clone, PartialEq)]
pub struct Boxes {
    /// In the units of `crs`.
    pub native: [f64; 4],
    /// In degrees of longitude and latitude (EPSG:4326, longitude first).
    pub lat_lon: [f64; 4],
    /// The reference system of `native`, as in `EPSG:28350`.
    pub crs: String,
}

/// A query that GeoServer serves as if it were a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlView {
    /// The query, with or without a semicolon at its end.
    pub sql: String,
    /// Its geometry column, when it has one.
    pub geometry: Option<ViewGeometry>,
    /// The column that gives features a stable identity.
    pub key_column: Option<String>,
}

/// The geometry column of an SQL view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewGeometry {
    /// The column's name.
    pub column: String,
    /// Its type, as in `MULTIPOLYGON`; one that GeoServer does not know becomes `Geometry`.
    pub kind: String,
    /// Its SRID.
    pub srid: i32,
}

/// What has happened to the relation since it was last published to this GeoServer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// Its rows are others: the boxes are computed again, unless they are given.
    pub data_changed: bool,
    /// Its columns are others: GeoServer's cached columns are dropped.
    pub columns_changed: bool,
    /// Boxes were given when it was last published: GeoServer computes its own where none are given now.
    pub boxes_were_given: bool,
}

/// What GeoServer answers about a feature type.
enum Found {
    Absent,
    /// It is in the catalog, but its columns cannot be read.
    Broken(Answer),
    Readable(Value),
}

impl GeoServer {
    /// Publishes a feature type and its layer, or brings them to what is told in place.
    ///
    /// The relation must exist. A type of that name in another store of the workspace is moved to
    /// the told store in place: its layer keeps styles, access rules and tile layer. A type that
    /// GeoServer has left behind half-made after a failure is repaired or removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`] when there is no such relation; [`ErrorKind::GeoServer`] when GeoServer
    /// refuses, cannot read the relation, or still shows columns that the relation does not have;
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`]
    /// as for every request.
    pub async fn publish_feature_type(&self, wanted: &FeatureType, freshness: Freshness) -> Result<Change> {
        let mut writer = self.writer().await;
        // A second round is needed only when somebody else changes the catalog meanwhile.
        for _ in 0..2 {
            if !writer.feature_types(&wanted.workspace, &wanted.store).await?.contains(wanted.name.as_str())
                && let Some(change) = writer.create_feature_type(wanted).await?
            {
                return Ok(change);
            }
            if let Some(change) = writer.update_feature_type(wanted, freshness).await? {
                return Ok(change);
            }
            writer.forget_feature_type(wanted);
        }
        Err(Error::new(ErrorKind::GeoServer, "the feature type appears and disappears while it is published")
            .subject(format!("{} {}:{}", self.name(), wanted.workspace, wanted.name))
            .hint("another program or person is changing the same layer; let only one of them do it"))
    }

    /// Makes GeoServer forget the cached columns of one feature type, so that the next request reads
    /// them from the database. The call to make right after a table was replaced: until then WFS
    /// fails for columns that are gone, so that it does not queue behind the writers. A type that does
    /// not exist is success.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn reset_feature_type(&self, workspace: &GeoName, store: &GeoName, name: &GeoName) -> Result<()> {
        let doing = format!("reset the cached columns of {workspace}:{name}");
        let segments = ["workspaces", workspace.as_str(), "datastores", store.as_str(), "featuretypes", name.as_str()];
        let answer = if self.version().await? >= Version::RESETS_ONE_FEATURE_TYPE {
            // Not the store's or the catalog's reset: with a thousand layers the next capabilities
            // request after those takes half a minute.
            self.put(&path(&[&segments[..], &["reset"]].concat(), "json"), &json!({})).await?
        } else {
            self.put(&path(&segments, "json"), &json!({"featureType": {}})).await?
        };
        if answer.is_missing() { Ok(()) } else { answer.ok(&doing).map(|_| ()) }
    }

    /// As [`GeoServer::reset_feature_type`], but never by writing the data directory, which others may have
    /// written since this GeoServer has read it. A GeoServer that knows no other way is left as it is.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn reset_feature_type_unwritten(
        &self,
        workspace: &GeoName,
        store: &GeoName,
        name: &GeoName,
    ) -> Result<()> {
        if self.version().await? < Version::RESETS_ONE_FEATURE_TYPE {
            return Ok(());
        }
        self.reset_feature_type(workspace, store, name).await
    }
}

impl Writer<'_> {
    /// The names of a store's feature types.
    pub(super) async fn feature_types(
        &mut self,
        workspace: &GeoName,
        store: &GeoName,
    ) -> Result<&mut BTreeSet<String>> {
        let key = (workspace.clone(), store.clone());
        if !self.catalog.feature_types.contains_key(&key) {
            let list = path(&["workspaces", workspace.as_str(), "datastores", store.as_str(), "featuretypes"], "json");
            let answer = self.server.get(&list).await?;
            let doing = format!("list the feature types of the store {workspace}:{store}");
            // GeoServer answers a missing store with 500.
            let document = answer.json(&doing).map_err(|error| match error.kind() {
                ErrorKind::GeoServer => error.hint("the store must exist before its layers"),
                _ => error,
            })?;
            let names = json::names(&document["featureTypes"]["featureType"]).collect();
            self.catalog.feature_types.insert(key.clone(), names);
        }
        Ok(self.catalog.feature_types.entry(key).or_default())
    }

    fn forget_feature_type(&mut self, wanted: &FeatureType) {
        self.catalog.feature_types.remove(&(wanted.workspace.clone(), wanted.store.clone()));
        self.catalog.layers.remove(&(wanted.workspace.clone(), wanted.name.clone()));
    }

    /// Creates the type. None when it is there after all and is to be updated.
    pub(super) async fn create_feature_type(&mut self, wanted: &FeatureType) -> Result<Option<Change>> {
        let list = path(
            &["workspaces", wanted.workspace.as_str(), "datastores", wanted.store.as_str(), "featuretypes"],
            "json",
        );
        let answer = self.server.post(&list, &document::whole(wanted)).await?;
        if !answer.is_success() {
            return self.after_failed_creation(wanted, &answer).await.map(|()| None);
        }
        self.feature_types(&wanted.workspace, &wanted.store).await?.insert(wanted.name.as_str().to_owned());
        self.catalog.layers.insert((wanted.workspace.clone(), wanted.name.clone()), LayerState::New);
        self.catalog.layer_made(&wanted.workspace, &wanted.name);
        if !wanted.enabled {
            // GeoServer ignores this when it creates.
            let change = json!({"featureType": {"enabled": false}});
            self.server.put(&item(wanted), &change).await?.ok("disable the feature type")?;
        }
        Ok(Some(Change::Created))
    }

    /// Looks at what a failed creation has left. Success when there is a type to be updated.
    async fn after_failed_creation(&mut self, wanted: &FeatureType, answer: &Answer) -> Result<()> {
        let failed = || {
            let error = answer.error(&format!("cannot create the feature type {}:{}", wanted.workspace, wanted.name));
            match answer.status.as_u16() {
                400 if wanted.sql_view.is_none() => {
                    let failed = format!(
                        "GeoServer sees no relation {:?} through the store {}",
                        wanted.native_name, wanted.store
                    );
                    Error::new(ErrorKind::Missing, failed)
                        .subject(format!("{}:{}", wanted.workspace, wanted.name))
                        .source(error)
                        .hint("check that its schema and database are those that the table was restored to")
                }
                500 if wanted.sql_view.is_some() => {
                    error.hint("run the SQL view's query in psql as the store's user; correct it on the master")
                }
                500 if answer.body.is_empty() => error.hint(format!(
                    "GeoServer cannot connect to the database of the store {}: check GEOSERVER_PGSQL_HOST, _PORT, \
                     _DATABASE, _USERNAME and _PASSWORD as seen from GeoServer's host",
                    wanted.store
                )),
                _ => error,
            }
        };
        self.forget_feature_type(wanted);
        match self.find_feature_type(wanted, Scope::Workspace).await? {
            Found::Absent => Err(failed()),
            Found::Readable(_) => Ok(()),
            Found::Broken(_) => {
                let left_here =
                    self.feature_types(&wanted.workspace, &wanted.store).await?.contains(wanted.name.as_str());
                // A failed SQL view stays in the catalog without a layer, and would be in the way.
                if left_here
                    && wanted.sql_view.is_some()
                    && self.server.read_layer(&wanted.workspace, &wanted.name).await?.is_none()
                {
                    let doing = "remove the feature type that a failed creation has left";
                    self.delete_type(&wanted.workspace, &wanted.store, &wanted.name).await?.ok(doing)?;
                    self.forget_feature_type(wanted);
                    return Err(failed());
                }
                Ok(())
            }
        }
    }

    /// Updates the type in place. None when it is not there.
    async fn update_feature_type(&mut self, wanted: &FeatureType, freshness: Freshness) -> Result<Option<Change>> {
        let mut reset = false;
        if freshness.columns_changed {
            self.server.reset_feature_type(&wanted.workspace, &wanted.store, &wanted.name).await?;
            reset = true;
        }
        // Found by workspace and name, because it may be in another store.
        let mut current = match self.find_feature_type(wanted, Scope::Workspace).await? {
            Found::Absent => return Ok(None),
            Found::Readable(current) => current,
            Found::Broken(_) => {
                reset = true;
                self.repair_feature_type(wanted).await?
            }
        };
        if !reset && document::columns_are_stale(&current, wanted, freshness) {
            self.server.reset_feature_type(&wanted.workspace, &wanted.store, &wanted.name).await?;
            reset = true;
            current = self.readable_feature_type(wanted).await?;
        }
        let mut change = if reset { Change::Updated } else { Change::Unchanged };

        let update = document::update(&current, wanted, freshness);
        if !update.is_empty() {
            let name = json::text(&current["store"]["name"]);
            let store = name.strip_prefix(&format!("{}:", wanted.workspace)).unwrap_or(&name);
            let mut address = path(
                &["workspaces", wanted.workspace.as_str(), "datastores", store, "featuretypes", wanted.name.as_str()],
                "json",
            );
            if update.recalculate {
                address.push_str("?recalculate=nativebbox,latlonbbox");
            }
            let doing = format!("update the feature type {}:{}", wanted.workspace, wanted.name);
            self.server.put(&address, &update.document()).await?.ok(&doing)?;
            self.catalog.layer_changed(&wanted.workspace, &wanted.name);
            change = Change::Updated;
            if update.moves {
                let old = GeoName::new("store", store)?;
                tracing::info!(layer = %format!("{}:{}", wanted.workspace, wanted.name), from = store, to = %wanted.store, "feature type moved");
                self.catalog.feature_types.remove(&(wanted.workspace.clone(), old));
            }
            // GeoServer answers 200 to a query that fails and to a relation that is not there.
            if update.changes_source {
                current = self.readable_feature_type(wanted).await?;
            }
        }
        self.feature_types(&wanted.workspace, &wanted.store).await?.insert(wanted.name.as_str().to_owned());
        if reset || change == Change::Updated {
            document::check_columns(&current, wanted).map_err(|error| error.subject(self.subject(wanted)))?;
        }
        self.ensure_layer(wanted, change).await.map(Some)
    }

    /// Makes sure that the type has its layer. One without is left by a deletion of the layer alone.
    async fn ensure_layer(&mut self, wanted: &FeatureType, change: Change) -> Result<Change> {
        if let Some(state) = self.server.read_layer(&wanted.workspace, &wanted.name).await? {
            self.catalog.layers.insert((wanted.workspace.clone(), wanted.name.clone()), state);
            return Ok(change);
        }
        // A layer cannot be made but together with its type.
        let doing = format!("remove the feature type {}:{}, whose layer is gone", wanted.workspace, wanted.name);
        self.delete_type(&wanted.workspace, &wanted.store, &wanted.name).await?.ok(&doing)?;
        self.forget_feature_type(wanted);
        match self.create_feature_type(wanted).await? {
            Some(change) => Ok(change),
            None => Err(Error::new(ErrorKind::GeoServer, "the feature type has no layer, and making it again fails")
                .subject(self.subject(wanted))
                .hint("remove the layer in GeoServer's web interface and run again")),
        }
    }

    /// Tries what heals a type whose columns cannot be read: dropping the cache, then telling all.
    async fn repair_feature_type(&mut self, wanted: &FeatureType) -> Result<Value> {
        self.server.reset_feature_type(&wanted.workspace, &wanted.store, &wanted.name).await?;
        if let Found::Readable(current) = self.find_feature_type(wanted, Scope::Workspace).await? {
            return Ok(current);
        }
        let doing = format!("repair the feature type {}:{}", wanted.workspace, wanted.name);
        self.server.put(&item(wanted), &document::whole(wanted)).await?.ok(&doing)?;
        self.readable_feature_type(wanted).await
    }

    async fn readable_feature_type(&mut self, wanted: &FeatureType) -> Result<Value> {
        let answer = match self.find_feature_type(wanted, Scope::Store).await? {
            Found::Readable(current) => return Ok(current),
            Found::Absent => {
                return Err(Error::new(ErrorKind::GeoServer, "the feature type is gone while it is published")
                    .subject(self.subject(wanted))
                    .hint("another program or person is changing the same layer; let only one of them do it"));
            }
            Found::Broken(answer) => answer,
        };
        Err(answer.error(&format!("GeoServer cannot read the columns of {}:{}", wanted.workspace, wanted.name)).hint(
            match wanted.sql_view {
                Some(_) => "run the SQL view's query in psql as the store's user; correct it on the master".to_owned(),
                None => format!(
                    "check in psql, as the store's user, that the relation {:?} is there and may be read",
                    wanted.native_name
                ),
            },
        ))
    }

    async fn find_feature_type(&mut self, wanted: &FeatureType, scope: Scope) -> Result<Found> {
        let (workspace, name) = (wanted.workspace.as_str(), wanted.name.as_str());
        let address = match scope {
            Scope::Workspace => path(&["workspaces", workspace, "featuretypes", name], "json"),
            Scope::Store => item(wanted),
        };
        let answer = self.server.get(&format!("{address}?quietOnNotFound=true")).await?;
        if answer.is_missing() {
            Ok(Found::Absent)
        } else if answer.status.is_server_error() {
            Ok(Found::Broken(answer))
        } else {
            let doing = format!("read the feature type {workspace}:{name}");
            Ok(Found::Readable(answer.json(&doing)?["featureType"].take()))
        }
    }

    /// Deletes a type together with its layer.
    pub(super) async fn delete_type(&mut self, workspace: &GeoName, store: &GeoName, name: &GeoName) -> Result<Answer> {
        let address = path(
            &["workspaces", workspace.as_str(), "datastores", store.as_str(), "featuretypes", name.as_str()],
            "json",
        );
        self.server.delete(&format!("{address}?recurse=true")).await
    }

    fn subject(&self, wanted: &FeatureType) -> String {
        format!("{} {}:{}", self.server.name(), wanted.workspace, wanted.name)
    }
}

/// Where a feature type is looked for.
#[derive(Clone, Copy)]
enum Scope {
    /// In every store of the workspace.
    Workspace,
    /// In the told store only.
    Store,
}

fn item(wanted: &FeatureType) -> String {
    path(
        &[
            "workspaces",
            wanted.workspace.as_str(),
            "datastores",
            wanted.store.as_str(),
            "featuretypes",
            wanted.name.as_str(),
        ],
        "json",
    )
}
