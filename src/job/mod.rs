//! Job files: which they are, what they ask for, and what they mean as typed values.
//!
//! Everything here is pure; the caller reads the files. The way of a job file through this module:
//!
//! ```text
//! path ──classify──▶ JobFile ──parse(content)──▶ Document ──complete(metadata)──▶ Complete { job, facts }
//! ```
//!
//! A document is *thin* when it points to a metadata file on the master; [`Document::metadata`] says what
//! has to be fetched before [`Document::complete`]. Older documents carry everything themselves, and all
//! generations that real repositories hold are read:
//!
//! - before 2016-02-17 layers had `dump_path`/`data_md5` and `style_path`/`style_md5` for `data` and `styles`;
//! - before 2016-03-18 layers, and before 2016-03-30 WMS stores and layers, had no `meta`;
//! - before 2017-11-27 a removal was the publish document with `action: remove`.
//!
//! Rules that hold for every field: `null` is the same as absent; unknown fields are ignored; a boolean may
//! be written `true`, `1`, `"true"` or `"1"` (and so on), an integer as a string of digits, and a text as a
//! number, as older masters did.

mod access;
mod describe;
mod document;
mod facts;
mod feature;
mod field;
mod json;
mod layergroup;
mod live;
mod path;
mod removal;
mod settings;
mod style;
#[cfg(test)]
mod tests;
mod wms;
mod workspace;

pub use access::{Access, AuthLevel};
pub use describe::{Description, OwsResource, Preview, ServiceType, Spatial};
pub use document::{Complete, Document, FileRef, Parsed, parse};
pub use feature::{Database, FeatureJob};
pub use layergroup::{GroupMember, GroupRef, LayerGroupJob, MemberKind};
pub use live::{LiveLayerJob, LiveStoreJob};
pub use path::{Companion, JobFile, classify};
pub use removal::{EmptyGwcJob, FeatureRemoval, Removal};
pub use settings::{ConnectionParameters, GeoserverSetting};
pub use style::StyleRef;
pub use wms::{WmsLayerJob, WmsStoreJob};
pub use workspace::WorkspaceJob;

use std::fmt;

/// What a job is about; the folder or the name of its file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKind {
    /// A table published as a layer (`layers`).
    Feature,
    /// An upstream WMS (`wms_stores`).
    WmsStore,
    /// A layer of an upstream WMS (`wms_layers`).
    WmsLayer,
    /// A database that GeoServer reads itself (`live_stores`).
    LiveStore,
    /// A table of a live store (`live_layers`).
    LiveLayer,
    /// A group of layers (`layergroups`).
    LayerGroup,
    /// The schemas and roles of a workspace (`workspaces`).
    Workspace,
    /// GeoServer's access rules (`layers.properties`).
    AccessRules,
    /// The roles of the organisation (`slave_roles.sql`).
    Auth,
}

impl JobKind {
    /// The job type as filters, the journal and the master's tables spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Feature => "feature",
            Self::WmsStore => "wms_store",
            Self::WmsLayer => "wms_layer",
            Self::LiveStore => "live_store",
            Self::LiveLayer => "live_layer",
            Self::LayerGroup => "layergroup",
            Self::Workspace => "workspace",
            Self::AccessRules => "access_rules",
            Self::Auth => "auth",
        }
    }

    /// The actions that a document of this kind may ask for.
    #[must_use]
    pub fn actions(self) -> &'static [Action] {
        match self {
            Self::Feature => &[Action::Publish, Action::Remove, Action::Meta, Action::EmptyGwc],
            Self::WmsStore | Self::LiveStore => &[Action::Publish, Action::Remove],
            Self::WmsLayer | Self::LiveLayer | Self::LayerGroup => &[Action::Publish, Action::Remove, Action::EmptyGwc],
            Self::Workspace | Self::AccessRules | Self::Auth => &[Action::Publish],
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Make it, or bring it up to date.
    Publish,
    /// Take it away.
    Remove,
    /// Bring everything but the data up to date.
    Meta,
    /// Empty its tile cache.
    EmptyGwc,
}

impl Action {
    /// The action as documents and the master's tables spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Remove => "remove",
            Self::Meta => "meta",
            Self::EmptyGwc => "empty_gwc",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Publish, Self::Remove, Self::Meta, Self::EmptyGwc].into_iter().find(|action| action.as_str() == word)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One job, all its fields checked.
#[derive(Debug, Clone)]
pub enum Job {
    /// Publish a layer, or bring its metadata up to date ([`FeatureJob::action`] says which).
    Feature(Box<FeatureJob>),
    /// Remove a layer with its table.
    FeatureRemoval(FeatureRemoval),
    /// Make a workspace's schemas and roles.
    Workspace(WorkspaceJob),
    /// Publish an upstream WMS.
    WmsStore(WmsStoreJob),
    /// Publish a layer of an upstream WMS.
    WmsLayer(Box<WmsLayerJob>),
    /// Publish a live store.
    LiveStore(LiveStoreJob),
    /// Publish a table of a live store.
    LiveLayer(Box<LiveLayerJob>),
    /// Publish a group.
    LayerGroup(LayerGroupJob),
    /// Remove a store, a layer that is no feature, or a group.
    Removal(Removal),
    /// Empty the tile cache of a layer or group.
    EmptyGwc(EmptyGwcJob),
    /// Make GeoServer's layer rules exactly these (text of `layers.properties`).
    AccessRules {
        /// The file as it stands in the repository.
        content: String,
    },
    /// Run this script of roles with `psql`.
    Auth {
        /// The file as it stands in the repository.
        sql: String,
    },
}
