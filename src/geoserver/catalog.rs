//! What a handle remembers of its GeoServer: the lists it has read, kept true by its own writes.
//!
//! Somebody else may change the catalog meanwhile. So what is remembered only saves requests; when
//! an answer contradicts it, it is forgotten and read again.

use std::collections::{BTreeSet, HashMap};

use crate::name::GeoName;

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
