//! Upstream WMS servers as stores, and their layers.

use std::sync::PoisonError;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::layer::{Tiled, boxes};
use super::presentation::Presented;
use super::{Ctx, JobEnd, Step, Stepped, succeeded};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{Change, GeoServer, Newcomer, UpstreamLayers, WmsLayer, WmsStore, upstream_layers};
use crate::job::{WmsLayerJob, WmsStoreJob};
use crate::name::GeoName;

/// The longest that an upstream may take to tell its capabilities. GeoServer itself would wait for a
/// minute, and let nobody else write meanwhile.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(30);

/// How an upstream is reached.
#[derive(Clone)]
pub(super) struct Upstream {
    address: String,
    username: Option<String>,
    /// None also where only GeoServer knows it.
    password: Option<SecretString>,
}

impl Ctx<'_> {
    /// Publishes an upstream WMS as a store.
    pub(super) async fn publish_wms_store(&self, job: &WmsStoreJob) -> Result<JobEnd> {
        let seconds = |name: &str| -> Result<Option<u32>> {
            let Some(value) = job.connection.0.get(name) else { return Ok(None) };
            value.trim().parse().map(Some).map_err(|_| {
                Error::new(ErrorKind::Document, format!("the field `geoserver_setting.{name}` is no whole number"))
                    .subject(&self.file.path)
                    .hint("correct the store on the master and publish it again")
            })
        };
        let store = WmsStore {
            workspace: job.workspace.clone(),
            name: job.name.clone(),
            capabilities_url: job.capability_url.clone(),
            username: job.username.clone(),
            password: job.password.clone(),
            max_connections: seconds("max_connections")?,
            read_timeout: seconds("read_timeout")?,
            connect_timeout: seconds("connect_timeout")?,
        };
        let upstream = Upstream {
            address: job.capability_url.clone(),
            username: job.username.clone(),
            password: job.password.clone(),
        };
        let key = (job.workspace.clone(), job.name.clone());
        self.run.upstreams.lock().unwrap_or_else(PoisonError::into_inner).insert(key, upstream);
        self.on_each(&self.unfinished_geoservers(), |server| {
            let store = &store;
            async move {
                let target = Some(server.name());
                self.step(Step::Workspace, target, Box::pin(self.shared_workspace(server, &job.workspace))).await?;
                self.step(Step::Store, target, Box::pin(self.wms_store_on(server, store))).await
            }
        })
        .await?;
        Ok(JobEnd::Succeeded(None))
    }

    async fn wms_store_on(&self, server: &GeoServer, store: &WmsStore) -> Result<Stepped<()>> {
        let fact = Self::fact_key("store", &store.workspace, &store.name);
        if self.recall(server, &fact) != Some(store.fingerprint()?) {
            self.forget(server, &fact).await?;
        }
        let (change, fingerprint) = server.ensure_wms_store(store, self.recall(server, &fact).as_deref()).await?;
        if self.recall(server, &fact).as_deref() != Some(fingerprint.as_str()) {
            self.remember(server, &fact, Some(fingerprint));
        }
        Ok(((), super::layer::step_end(change), None))
    }

    /// Publishes a layer of an upstream WMS.
    pub(super) async fn publish_wms_layer(&self, job: &WmsLayerJob) -> Result<JobEnd> {
        let spatial = &job.spatial;
        let wanted = WmsLayer {
            workspace: job.workspace.clone(),
            store: job.store.clone(),
            name: job.name.clone(),
            native_name: job.native_name.clone(),
            title: job.description.title.clone(),
            abstract_text: job.description.abstract_text.clone(),
            keywords: job.description.keywords.clone(),
            srs: spatial.crs.clone(),
            boxes: boxes(spatial, spatial.crs.as_deref().unwrap_or(&self.run.parts.choices.default_crs)),
        };
        // Whether the upstream's pictures are others is known to nobody but who publishes.
        let content = &format!("{} {} {}", job.store, job.native_name, self.publication(job.job_id));
        self.note_purge(&job.workspace, &job.name).await?;
        self.on_each(&self.unfinished_geoservers(), |server| {
            let wanted = &wanted;
            async move {
                self.after_rules().await;
                let target = Some(server.name());
                self.step(Step::Upstream, target, Box::pin(self.ask_upstream(server, job))).await?;
                self.tiles_may_be_old(server, &job.workspace, &job.name, content).await?;
                let change = self.step(Step::WmsLayer, target, Box::pin(self.wms_layer_on(server, wanted))).await?;
                let tiled = Tiled {
                    workspace: &job.workspace,
                    name: &job.name,
                    setting: &job.geoserver_setting,
                    vector_formats: false,
                    content: content.clone(),
                    is_new: change == Change::Created,
                };
                self.step(Step::TileLayer, target, Box::pin(self.tile_layer(server, &tiled))).await
            }
        })
        .await?;
        let mut notes = Vec::new();
        let presented = Presented {
            workspace: &job.workspace,
            name: &job.name,
            is_spatial: true,
            bbox: spatial.bbox,
            crs: spatial.crs.as_deref(),
            preview: &job.preview,
        };
        self.present(&presented, &mut notes).await;
        Ok(succeeded(&notes))
    }

    async fn wms_layer_on(&self, server: &GeoServer, wanted: &WmsLayer) -> Result<Stepped<Change>> {
        let places = self.places(server, &wanted.workspace, &wanted.name);
        if self.replaces_another() {
            server.make_room(Newcomer::WmsLayer(wanted), &places).await?;
        }
        self.layer_rules(server, &wanted.workspace, &wanted.name).await?;
        let change = server.publish_wms_layer(wanted, &places).await?;
        let change = self.has_places_back(server, &places, (&wanted.workspace, &wanted.name), change).await?;
        Ok((change, super::layer::step_end(change), None))
    }

    /// Finds out whether the upstream answers and has the layer, before GeoServer asks for it.
    async fn ask_upstream(&self, server: &GeoServer, job: &WmsLayerJob) -> Result<Stepped<()>> {
        let upstream = self.upstream(server, &job.workspace, &job.store).await?;
        let (username, password) = (upstream.username.as_deref(), upstream.password.as_ref());
        // What one password opens another does not, nor none.
        let digest = password.map(|password| openssl::sha::sha256(password.expose_secret().as_bytes()));
        let key = format!("{} {} {digest:?}", upstream.address, username.unwrap_or_default());
        let limit = UPSTREAM_LIMIT.min(self.run.parts.choices.step_limit);
        let asked = self.run.capabilities.once(key, upstream_layers(&upstream.address, username, password, limit));
        let layers: UpstreamLayers = match asked.await {
            // It answers at once, and GeoServer may know the password.
            Err(error) if error.kind() == ErrorKind::Denied && password.is_none() => {
                return Ok(((), super::StepEnd::Unchanged, Some("it wants a password that only GeoServer has".into())));
            }
            asked => asked?,
        };
        layers.require(&job.native_name)?;
        Ok(((), super::StepEnd::Unchanged, None))
    }

    /// How the upstream of a store is reached: as a job of this pass says, else as GeoServer shows it.
    async fn upstream(&self, server: &GeoServer, workspace: &GeoName, store: &GeoName) -> Result<Upstream> {
        let key = (workspace.clone(), store.clone());
        let told = self.run.upstreams.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(upstream) = told {
            return Ok(upstream);
        }
        let shown = server.wms_store_address(workspace, store).await?.ok_or_else(|| {
            Error::new(ErrorKind::Dependency, "the WMS store that the layer belongs to is not published here")
                .subject(format!("{workspace}:{store}"))
                .hint("publish the store on the master; `borg-slave status` shows its job if that failed or was filtered out")
        })?;
        Ok(Upstream { address: shown.0, username: shown.1, password: None })
    }
}
