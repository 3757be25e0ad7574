//! Live stores and layers: relations of other databases, which GeoServer reads itself.

use std::collections::BTreeMap;

use super::layer::VectorLayer;
use super::{Ctx, JobEnd, Step, succeeded};
use crate::error::Result;
use crate::job::{LiveLayerJob, LiveStoreJob};

impl Ctx<'_> {
    /// Makes a store on another database.
    pub(super) async fn publish_live_store(&self, job: &LiveStoreJob) -> Result<JobEnd> {
        let connection = BTreeMap::from([
            ("host".to_owned(), job.host.clone()),
            ("port".to_owned(), job.port.to_string()),
            ("database".to_owned(), job.database.clone()),
            ("schema".to_owned(), job.schema.to_string()),
            ("user".to_owned(), job.user.clone()),
        ]);
        let store = self.postgis_store(&job.workspace, &job.name, connection, job.passwd.clone(), job.connection());
        self.on_each(&self.unfinished_geoservers(), |server| {
            let store = &store;
            async move {
                let target = Some(server.name());
                self.step(Step::Workspace, target, Box::pin(self.shared_workspace(server, &job.workspace))).await?;
                self.step(Step::Store, target, Box::pin(self.shared_store(server, store))).await
            }
        })
        .await?;
        Ok(JobEnd::Succeeded(None))
    }

    /// Publishes a relation of a live store as a layer.
    pub(super) async fn publish_live_layer(&self, job: &LiveLayerJob) -> Result<JobEnd> {
        let layer = VectorLayer {
            workspace: &job.workspace,
            name: &job.name,
            store: job.datastore.clone(),
            native_name: &job.table,
            table: None,
            description: &job.description,
            service_type: job.service_type,
            spatial: &job.spatial,
            viewsql: job.viewsql.as_deref(),
            styles: &job.styles,
            setting: &job.geoserver_setting,
            preview: &job.preview,
            publication: Some(self.publication(job.job_id)),
        };
        let servers = self.unfinished_geoservers();
        self.note_purge(&job.workspace, &job.name).await?;
        let styles = self.style_files(&layer, &servers).await?;
        let mut notes = Vec::new();
        let fetched = self.publish_on_geoservers(&layer, None, &servers, styles, &mut notes).await?.unwrap_or_default();
        self.present(&layer.presented(), &mut notes).await;
        if !self.run.parts.choices.keep_cached_files {
            self.discard(&fetched);
            // A run that was killed after it had used them.
            for style in &job.styles {
                self.evict_style(&job.workspace, &job.name, style.geoserver_name().as_str());
            }
        }
        Ok(succeeded(&notes))
    }
}
