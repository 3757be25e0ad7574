//! Brings one GeoServer to what it is told, over its REST interface.
//!
//! Everything here converges: what is there is read and compared, then created or updated in place.
//! Nothing that exists is deleted to be made again, because GeoServer drops a layer's access rules,
//! its styles and its tile layer together with the layer. A call that failed half-way is repeated as
//! it is and ends where it should.
//!
//! GeoServer holds one write lock for its whole catalog, so that writing in parallel gains nothing:
//! a [`GeoServer`] writes one thing after the other, whoever calls it, and remembers the lists it
//! has read, so that the first publication of a layer costs one request each for the feature type,
//! every style, the layer, and its verification.
//!
//! One file per resource: `workspaces`, `stores`, `feature_types`, `layers`, `styles`, `wms_stores`,
//! `wms_layers`, `layer_groups`, `tile_layers`, `grid_sets`, `access_rules`, and `maps` for pictures of
//! layers; `removal` takes away stores and what is in layer groups, `exchange` lets a layer take the place of one of
//! another kind, and `upstream` asks a cascaded
//! server itself. Below them stand `client` (requests, time limits, repetition), `answer` (what
//! GeoServer's answers mean), `json` (how GeoServer writes JSON), `fields` (what all documents have in
//! common), `extents` (where a layer's data are), `secrets`, and `catalog` (what a handle remembers).

mod access_rules;
mod answer;
mod catalog;
mod client;
mod exchange;
mod extents;
mod feature_types;
mod fields;
mod grid_sets;
mod json;
mod layer_groups;
mod layers;
mod maps;
mod places;
mod reload;
mod removal;
mod secrets;
mod sld;
mod stores;
mod styles;
mod tile_layers;
mod upstream;
mod version;
mod wms_layers;
mod wms_stores;
mod workspaces;

pub use access_rules::{AccessRules, CatalogMode, write_access_rules_file};
pub use client::{Endpoint, Exchange, ExchangeFn, GeoServer, RequestCount};
pub use exchange::Newcomer;
pub use feature_types::{Boxes, FeatureType, Freshness, ProjectionPolicy, SqlView, ViewGeometry};
pub use grid_sets::GridSets;
pub use layer_groups::{LayerGroup, Member};
pub use layers::Source;
pub use maps::{MapLink, MapRequest, Picture};
pub use places::{Place, Places};
pub use removal::StoreKind;
pub use stores::{PostgisStore, default_store_parameters};
pub use styles::{KeptStyle, LayerStyles, Style, StylesOutcome};
pub use tile_layers::TileLayer;
pub use upstream::{UpstreamLayers, upstream_layers};
pub use version::Version;
pub use wms_layers::WmsLayer;
pub use wms_stores::WmsStore;

/// What a call did to GeoServer. Ordered, so that the changes of several calls fold with `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// GeoServer already was as told; nothing was written.
    Unchanged,
    /// Something that did not exist was made.
    Created,
    /// Something that existed was changed in place, or removed.
    Updated,
}
