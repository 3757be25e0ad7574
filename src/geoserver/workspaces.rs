//! Workspaces and their namespaces, which GeoServer keeps as pairs.

use serde_json::json;

use crate::error::Result;
use crate::name::GeoName;

use super::Change;
use super::client::{GeoServer, Writer, path};
use super::json;

impl GeoServer {
    /// Makes sure that a workspace is there and that its namespace has the URI `namespace_uri`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`](crate::error::ErrorKind::GeoServer) when GeoServer refuses, as when
    /// another workspace has that URI; [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable)
    /// and [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) as for every request.
    pub async fn ensure_workspace(&self, name: &GeoName, namespace_uri: &str) -> Result<Change> {
        self.writer().await.ensure_workspace(name, namespace_uri).await
    }
}

impl Writer<'_> {
    async fn ensure_workspace(&mut self, name: &GeoName, uri: &str) -> Result<Change> {
        if self.namespace(name).await?.is_none() {
            // Makes the workspace too, and with the right URI at once.
            let document = json!({"namespace": {"prefix": name.as_str(), "uri": uri}});
            let answer = self.server.post("namespaces.json", &document).await?;
            if answer.is_success() {
                self.catalog.namespaces.insert(name.clone(), uri.to_owned());
                return Ok(Change::Created);
            }
            // Somebody else may have been faster.
            if self.namespace(name).await?.is_none() {
                return Err(answer.error(&format!("cannot create the workspace {name} with namespace {uri}")).hint(
                    "each workspace needs a namespace URI of its own: GEOSERVER_WORKSPACE_NAMESPACE holds {} for its name",
                ));
            }
        }
        if self.catalog.namespaces.get(name).is_some_and(|current| current == uri) {
            return Ok(Change::Unchanged);
        }
        let document = json!({"namespace": {"prefix": name.as_str(), "uri": uri}});
        let doing = format!("set the namespace of the workspace {name} to {uri}");
        self.server.put(&path(&["namespaces", name.as_str()], "json"), &document).await?.ok(&doing)?;
        self.catalog.namespaces.insert(name.clone(), uri.to_owned());
        Ok(Change::Updated)
    }

    /// The namespace URI of a workspace, when that is there.
    pub(super) async fn namespace(&mut self, workspace: &GeoName) -> Result<Option<String>> {
        if let Some(uri) = self.catalog.namespaces.get(workspace) {
            return Ok(Some(uri.clone()));
        }
        let path = format!("{}?quietOnNotFound=true", path(&["namespaces", workspace.as_str()], "json"));
        let Some(document) = self.server.find(&path, &format!("read the workspace {workspace}")).await? else {
            return Ok(None);
        };
        let uri = json::text(&document["namespace"]["uri"]);
        self.catalog.namespaces.insert(workspace.clone(), uri.clone());
        Ok(Some(uri))
    }
}
