//! Workspaces and stores, which many jobs share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use futures_util::future::join_all;
use secrecy::SecretString;

use super::{Ctx, StepEnd, Stepped};
use crate::error::{ErrorKind, Result};
use crate::geoserver::{Change, GeoServer, PostgisStore, default_store_parameters};
use crate::job::{ConnectionParameters, FeatureJob};
use crate::name::{GeoName, PgIdent};

impl Ctx<'_> {
    /// Makes sure of a workspace, once per pass.
    pub(super) async fn shared_workspace(&self, server: &GeoServer, workspace: &GeoName) -> Result<Stepped<()>> {
        let key = (server.name().to_owned(), format!("workspace {workspace}"));
        let uri = self.run.parts.choices.workspace_namespace.fill(workspace.as_str());
        let make = async { Ok(server.ensure_workspace(workspace, &uri).await? != Change::Unchanged) };
        let changed = self.run.geoserver_steps.once(key, make).await?;
        self.mind_version(server).await?;
        Ok(((), if changed { StepEnd::Done } else { StepEnd::Unchanged }, None))
    }

    /// Warns of a GeoServer that is too old, once per pass; it may still be good for most of what is asked of it.
    async fn mind_version(&self, server: &GeoServer) -> Result<()> {
        let look = async {
            match server.supported_version().await {
                Err(error) if error.kind() == ErrorKind::Unsupported => tracing::warn!("{}", error.paragraph()),
                // One that does not tell its version is told of by those who need it.
                _ => {}
            }
            Ok(false)
        };
        self.run.geoserver_steps.once((server.name().to_owned(), "version".to_owned()), look).await.map(drop)
    }

    /// Makes sure of a PostGIS store, once per pass; the first that asks decides what it is like.
    pub(super) async fn shared_store(&self, server: &GeoServer, store: &PostgisStore) -> Result<Stepped<()>> {
        let fact = Self::fact_key("store", &store.workspace, &store.name);
        let key = (server.name().to_owned(), fact.clone());
        let make = async {
            if self.recall(server, &fact) != Some(store.fingerprint()?) {
                self.forget(server, &fact).await?;
            }
            let (change, fingerprint) =
                server.ensure_postgis_store(store, self.recall(server, &fact).as_deref()).await?;
            if self.recall(server, &fact).as_deref() != Some(fingerprint.as_str()) {
                self.remember(server, &fact, Some(fingerprint));
            }
            Ok(change != Change::Unchanged)
        };
        let changed = self.run.geoserver_steps.once(key.clone(), make).await?;
        let message = self.differing_settings(key, store);
        Ok(((), if changed { StepEnd::Done } else { StepEnd::Unchanged }, message))
    }

    /// Makes workspace and store while the layer's data are on their way. How that went, the steps tell that need
    /// them.
    pub(super) async fn prepare_stores(&self, servers: &[&GeoServer], store: &PostgisStore) {
        self.after_rules().await;
        join_all(servers.iter().map(async |server| {
            if self.shared_workspace(server, &store.workspace).await.is_ok() {
                let _ = self.shared_store(server, store).await;
            }
        }))
        .await;
    }

    /// Says what of `store` is not as the job says, because another job of this pass came first.
    fn differing_settings(&self, key: (String, String), store: &PostgisStore) -> Option<String> {
        let mut stores = self.run.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let first = stores.entry(key).or_insert_with(|| store.parameters.clone());
        let names = first.keys().chain(store.parameters.keys()).collect::<BTreeSet<_>>().into_iter();
        let differing: Vec<&str> =
            names.filter(|name| first.get(*name) != store.parameters.get(*name)).map(String::as_str).collect();
        (!differing.is_empty()).then(|| {
            format!("another layer of the workspace has set {} otherwise, and came first", differing.join(", "))
        })
    }

    /// The name of a workspace's store on the slave's database.
    pub(super) fn store_of_workspace(&self, workspace: &GeoName) -> Result<GeoName> {
        GeoName::new("store", self.run.parts.choices.datastore_name.fill(workspace.as_str()))
    }

    /// The store of a workspace on the slave's database.
    pub(super) fn workspace_store(&self, job: &FeatureJob, name: &GeoName) -> PostgisStore {
        let overrides = job.connection_overrides();
        let connection = self.connection(&job.database.schema, overrides);
        let password = self.run.parts.choices.store_password.clone();
        self.postgis_store(&job.workspace, name, connection, password, overrides)
    }

    /// How a store reaches a schema of the slave's database, where the job does not say otherwise.
    pub(super) fn connection(&self, schema: &PgIdent, overrides: &ConnectionParameters) -> BTreeMap<String, String> {
        let mut connection = self.run.parts.choices.store_connection.clone();
        connection.insert("schema".into(), schema.to_string());
        let given = overrides.0.iter().filter(|(key, _)| *key != "passwd");
        connection.extend(given.map(|(key, value)| (key.clone(), value.clone())));
        connection
    }

    /// A PostGIS store with the usual parameters, where the job does not say otherwise.
    pub(super) fn postgis_store(
        &self,
        workspace: &GeoName,
        name: &GeoName,
        connection: BTreeMap<String, String>,
        mut password: Option<SecretString>,
        overrides: &ConnectionParameters,
    ) -> PostgisStore {
        let defaults = default_store_parameters();
        let mut parameters: BTreeMap<String, String> =
            defaults.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        parameters.extend(connection);
        parameters.insert("dbtype".into(), "postgis".into());
        let namespace = self.run.parts.choices.workspace_namespace.fill(workspace.as_str());
        parameters.insert("namespace".into(), namespace);
        for (key, value) in &overrides.0 {
            if key == "passwd" {
                password = Some(value.clone().into());
            } else {
                parameters.insert(key.clone(), value.clone());
            }
        }
        PostgisStore { workspace: workspace.clone(), name: name.clone(), description: None, parameters, password }
    }
}
