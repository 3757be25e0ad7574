//! Layers: their styles, and their removal.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::catalog::LayerState;
use super::client::{GeoServer, Writer, path};
use super::json;
use super::styles::KeptStyle;

/// The styles that a layer is to have, by the names that GeoServer's layer document has for them.
pub(super) struct AssignedStyles {
    /// None leaves the one that is there.
    pub(super) default: Option<String>,
    pub(super) alternates: BTreeSet<String>,
}

impl AssignedStyles {
    /// All styles, the default first.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.default.iter().chain(&self.alternates)
    }

    fn are_those_of(&self, state: &LayerState) -> bool {
        match state {
            LayerState::New => self.default.is_none() && self.alternates.is_empty(),
            LayerState::Read { default, alternates } => {
                (self.default.is_none() || *default == self.default) && *alternates == self.alternates
            }
            LayerState::Broken => false,
        }
    }
}

/// What a data store reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// The database server, as GeoServer is told it.
    pub host: &'a str,
    /// Its port.
    pub port: &'a str,
    /// The database.
    pub database: &'a str,
    /// The schema in it.
    pub schema: &'a str,
}

impl<'a> Source<'a> {
    /// What a store with these connection parameters reads; None where they do not say.
    #[must_use]
    pub fn of(parameters: &'a BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| parameters.get(key).map(String::as_str);
        Some(Self { host: get("host")?, port: get("port")?, database: get("database")?, schema: get("schema")? })
    }
}

impl GeoServer {
    /// Whether a layer is in the catalog.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn layer_exists(&self, workspace: &GeoName, layer: &GeoName) -> Result<bool> {
        let address = format!("{}?quietOnNotFound=true", item(workspace, layer));
        let answer = self.get(&address).await?;
        if answer.is_missing() {
            return Ok(false);
        }
        // A layer that refers to a style that is gone answers 500, but it is there.
        if answer.status.is_server_error() {
            return Ok(true);
        }
        answer.ok(&format!("look for the layer {workspace}:{layer}")).map(|_| true)
    }

    /// The styles of a layer; None when it is not there.
    pub(super) async fn read_layer(&self, workspace: &GeoName, layer: &GeoName) -> Result<Option<LayerState>> {
        let answer = self.get(&format!("{}?quietOnNotFound=true", item(workspace, layer))).await?;
        if answer.is_missing() {
            return Ok(None);
        }
        if answer.status.is_server_error() {
            // `Unable to marshal reference with no id or name`: a style it refers to is gone.
            return Ok(Some(LayerState::Broken));
        }
        let document = answer.json(&format!("read the layer {workspace}:{layer}"))?;
        Ok(Some(state(&document["layer"])))
    }

    /// Makes sure that a layer has the styles that it was given: GeoServer accepts one that is not there, and
    /// the layer vanishes from its maps.
    pub(super) async fn verify_layer_styles(
        &self,
        workspace: &GeoName,
        layer: &GeoName,
        given: &AssignedStyles,
    ) -> Result<()> {
        let shown = match self.read_layer(workspace, layer).await? {
            Some(state) if given.are_those_of(&state) => return Ok(()),
            Some(LayerState::Read { default, .. }) => default.unwrap_or_else(|| "none".to_owned()),
            Some(_) => "one that is gone".to_owned(),
            None => {
                return Err(Error::new(ErrorKind::GeoServer, "the layer is gone while it is published")
                    .subject(format!("{} {workspace}:{layer}", self.name()))
                    .hint("another program or person is changing the same layer; let only one of them do it"));
            }
        };
        self.writer().await.catalog.styles.remove(workspace);
        Err(Error::new(
            ErrorKind::GeoServer,
            format!("GeoServer has not taken the layer's styles: its default style is {shown}"),
        )
        .subject(format!("{} {workspace}:{layer}", self.name()))
        .hint("somebody may have removed a style meanwhile; run again"))
    }

    /// Removes a layer with its feature type, and then the styles that are its own. What is not
    /// there, is removed.
    ///
    /// A layer that is in layer groups is taken out of them. But GeoServer deletes a group that it
    /// takes the last layer from; so that is an error here, which names the groups. A style that
    /// something else uses stays; it is given back with what GeoServer says.
    ///
    /// A layer of that name that the told store does not have is removed from another one of the workspace, if
    /// that reads `source`: the store had another name when the layer was published.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses or a layer group would be left empty;
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request.
    pub async fn remove_layer(
        &self,
        workspace: &GeoName,
        store: &GeoName,
        layer: &GeoName,
        source: Option<Source<'_>>,
        private_styles: &[String],
    ) -> Result<(Change, Vec<KeptStyle>)> {
        self.writer().await.remove_layer(workspace, store, layer, source, private_styles).await
    }
}

impl Writer<'_> {
    /// Sets default style and alternates when `before` is not so already; what was sent then is to be
    /// verified. No default leaves the one that the layer has.
    pub(super) async fn set_layer_styles(
        &mut self,
        workspace: &GeoName,
        layer: &GeoName,
        before: &LayerState,
        wanted: AssignedStyles,
    ) -> Result<Option<AssignedStyles>> {
        if wanted.are_those_of(before) {
            return Ok(None);
        }
        let mut fields = serde_json::Map::new();
        if let Some(default) = &wanted.default {
            fields.insert("defaultStyle".into(), json!({"name": default}));
        }
        let others: Vec<Value> = wanted.alternates.iter().map(|name| json!({"name": name})).collect();
        fields.insert("styles".into(), if others.is_empty() { json!("") } else { json!({"style": others}) });
        let doing = format!("give the layer {workspace}:{layer} its styles");
        self.server.put(&item(workspace, layer), &json!({"layer": fields})).await?.ok(&doing)?;
        Ok(Some(wanted))
    }

    async fn remove_layer(
        &mut self,
        workspace: &GeoName,
        store: &GeoName,
        layer: &GeoName,
        source: Option<Source<'_>>,
        private_styles: &[String],
    ) -> Result<(Change, Vec<KeptStyle>)> {
        let mut change = self.remove_layer_of(workspace, store, layer).await?;
        if change == Change::Unchanged
            && let Some(source) = source
            && let Some(other) = self.other_store_with(workspace, store, layer, source).await?
        {
            tracing::info!(layer = %format!("{workspace}:{layer}"), store = %other, "the layer to be removed is in another store");
            change = self.remove_layer_of(workspace, &other, layer).await?;
        }
        let (removed, kept) = self.remove_styles(workspace, private_styles.iter()).await?;
        Ok((change.max(removed), kept))
    }

    pub(super) async fn remove_layer_of(
        &mut self,
        workspace: &GeoName,
        store: &GeoName,
        layer: &GeoName,
    ) -> Result<Change> {
        self.catalog.layers.remove(&(workspace.clone(), layer.clone()));
        if let Some(names) = self.catalog.feature_types.get_mut(&(workspace.clone(), store.clone())) {
            names.remove(layer.as_str());
        }
        let closed = self.close_type(workspace, store, layer.as_str()).await?;
        self.catalog.layer_gone(workspace, layer);
        let removed = self.remove_type(workspace, store, layer).await;
        if let (Err(_), Some(address)) = (&removed, closed) {
            self.open_type(&address).await;
        }
        removed
    }

    /// The store of the workspace, other than the told one, that has a layer and reads `source`.
    async fn other_store_with(
        &mut self,
        workspace: &GeoName,
        store: &GeoName,
        layer: &GeoName,
        source: Source<'_>,
    ) -> Result<Option<GeoName>> {
        for other in self.data_stores(workspace).await? {
            if other == *store || !self.feature_types(workspace, &other).await?.contains(layer.as_str()) {
                continue;
            }
            return Ok(self.reads(workspace, &other, source).await?.then_some(other));
        }
        Ok(None)
    }

    /// Deletes the type and its layer, out of its groups if need be.
    async fn remove_type(&mut self, workspace: &GeoName, store: &GeoName, layer: &GeoName) -> Result<Change> {
        let answer = self.delete_type(workspace, store, layer).await?;
        if answer.is_success() {
            return Ok(Change::Updated);
        }
        if answer.is_missing() {
            // Without its type a layer is not left; with another kind of resource it is not ours.
            return Ok(Change::Unchanged);
        }
        let failed = format!("cannot remove the layer {workspace}:{layer}");
        if !self.take_layer_out_of_groups(workspace, layer).await? {
            return Err(answer.error(&failed));
        }
        let again = self.delete_type(workspace, store, layer).await?;
        if !again.is_success() && !again.is_missing() {
            return Err(again.error(&failed));
        }
        Ok(Change::Updated)
    }
}

fn item(workspace: &GeoName, layer: &GeoName) -> String {
    path(&["workspaces", workspace.as_str(), "layers", layer.as_str()], "json")
}

/// Reads a layer document; `{"name": "ws:style"}` is how GeoServer names a style of a workspace.
fn state(layer: &Value) -> LayerState {
    let default = json::text(&layer["defaultStyle"]["name"]);
    LayerState::Read {
        default: Some(default).filter(|name| !name.is_empty()),
        alternates: json::names(&layer["styles"]["style"]).collect(),
    }
}
