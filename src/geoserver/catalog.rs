//! What a handle remembers of its GeoServer: the lists it has read, kept true by its own writes.
//!
//! Somebody else may change the catalog meanwhile. So what is remembered only saves requests; when
//! an answer contradicts it, it is forgotten and read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::name::GeoName;

use super::access_rules::ShownRules;
use super::extents::Extent;

/// The lists that have been read.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Workspace → namespace URI.
    pub(super) namespaces: HashMap<GeoName, String>,
    /// Workspace and store → fingerprint of what was last compared or pushed.
    pub(super) stores: HashMap<(GeoName, GeoName), String>,
    /// Workspace and store → names of its feature types.
    pub(super) feature_types: HashMap<(GeoName, GeoName), BTreeSet<String>>,
    /// Workspace → names of its styles, without the workspace.
    pub(super) styles: HashMap<GeoName, BTreeSet<String>>,
    /// Workspace and layer → its styles as just read or made; taken out by whoever uses them.
    pub(super) layers: HashMap<(GeoName, GeoName), LayerState>,
    /// The access rules, forgotten whenever something is removed whose rules GeoServer drops with it.
    pub(super) access_rules: Option<ShownRules>,
    /// Workspace → names of its layers, of whatever kind.
    pub(super) layer_names: HashMap<GeoName, BTreeSet<String>>,
    /// Workspace and layer → where its data are.
    pub(super) extents: HashMap<(GeoName, GeoName), Extent>,
    /// Workspace, none for the global ones → its layer groups, and their members where those were read.
    pub(super) groups: HashMap<Option<GeoName>, BTreeMap<String, Option<Vec<Held>>>>,
    /// The tile layers.
    pub(super) tile_layers: Option<TileLayers>,
    /// The names of the grid sets.
    pub(super) grid_sets: Option<BTreeSet<String>>,
}

/// A member of a layer group that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Whether it is a group itself.
    pub(super) is_group: bool,
    /// `workspace:name`, or the bare name of what is global.
    pub(super) label: String,
}

/// The list of tile layers, by `workspace:name`.
#[derive(Debug, Default)]
pub(super) struct TileLayers {
    /// Those in the list.
    pub(super) listed: BTreeSet<String>,
    /// Those about which the list is no longer to be trusted: whether a new layer gets a tile layer
    /// is a setting of GeoServer.
    pub(super) unsure: BTreeSet<String>,
}

impl Catalog {
    /// A layer was made; to be called by whoever makes one, of whatever kind.
    pub(super) fn layer_made(&mut self, workspace: &GeoName, layer: &GeoName) {
        self.layer_changed(workspace, layer);
        if let Some(names) = self.layer_names.get_mut(workspace) {
            names.insert(layer.as_str().to_owned());
        }
        self.tile_layer_unsure(workspace, layer);
    }

    /// A layer's data or boxes are others.
    pub(super) fn layer_changed(&mut self, workspace: &GeoName, layer: &GeoName) {
        self.extents.remove(&(workspace.clone(), layer.clone()));
    }

    /// A layer was removed; to be called by whoever removes one, of whatever kind.
    pub(super) fn layer_gone(&mut self, workspace: &GeoName, layer: &GeoName) {
        self.layer_changed(workspace, layer);
        if let Some(names) = self.layer_names.get_mut(workspace) {
            names.remove(layer.as_str());
        }
        self.tile_layer_unsure(workspace, layer);
        // GeoServer drops its rules with it.
        if self.access_rules.as_ref().is_some_and(|shown| shown.are_about_layer(workspace.as_str(), layer.as_str())) {
            self.access_rules = None;
        }
    }

    /// Layer or group got or lost a tile layer, who knows.
    pub(super) fn tile_layer_unsure(&mut self, workspace: &GeoName, name: &GeoName) {
        if let Some(tiles) = &mut self.tile_layers {
            tiles.unsure.insert(format!("{workspace}:{name}"));
        }
    }
}

/// The styles of a layer as GeoServer answers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LayerState {
    /// The layer was made a moment ago: it has a style of GeoServer's choice and no other.
    New,
    /// What a read showed; names are qualified (`workspace:style`) when the style is in a workspace.
    Read {
        /// The default style.
        default: Option<String>,
        /// The other styles.
        alternates: BTreeSet<String>,
    },
    /// The layer refers to a style that is gone; GeoServer answers 500 until it gets others.
    Broken,
}
