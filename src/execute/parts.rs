//! What a pass works with: the services, and the choices of the operator.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use crate::cdn::Cdn;
use crate::filter::Filters;
use crate::geoserver::GeoServer;
use crate::postgres::Database;
use crate::transfer::Transfer;

/// What jobs work with, built from the settings.
#[derive(Debug)]
pub struct Parts {
    /// Brings files.
    pub transfer: Transfer,
    /// The slave's database; `None` leaves it out.
    pub database: Option<Database>,
    /// The GeoServers; none leaves them out.
    pub geoservers: Vec<GeoServer>,
    /// GeoServers that share the data directory of the first: they read it again once that was written.
    pub followers: Vec<GeoServer>,
    /// Previews of layers, where they are wanted.
    pub previews: Option<Previews>,
    /// The CDN that is told when a layer has changed.
    pub cdn: Option<CdnParts>,
    /// Which jobs this slave takes.
    pub filters: Filters,
    /// Choices of the operator.
    pub choices: Choices,
}

/// Where previews go.
#[derive(Debug, Clone)]
pub struct Previews {
    /// The directory that holds them.
    pub root: PathBuf,
    /// The slave's folder in it.
    pub slave_name: String,
    /// It is the master's own directory, mounted here: nothing is sent.
    pub is_shared: bool,
}

/// The CDN, and which of its addresses stand for a layer.
#[derive(Debug)]
pub struct CdnParts {
    /// Sends purges.
    pub client: Cdn,
    /// What to purge for a layer.
    pub addresses: crate::config::Fastly,
}

/// Choices of the operator that shape jobs.
#[derive(Debug, Clone)]
pub struct Choices {
    /// What the operator leaves out.
    pub skip: crate::config::Skip,
    /// Make the grid sets `gda94` and `mercator` where a GeoServer lacks them.
    pub create_grid_sets: bool,
    /// Where the data directory of a GeoServer is on this machine, by the GeoServer's name.
    pub data_dirs: HashMap<String, PathBuf>,
    /// The longest that the removal of tiles may take.
    pub step_limit: Duration,
    /// Namespace URI of a workspace, with `{}` for the workspace.
    pub workspace_namespace: crate::config::Template,
    /// Name of a workspace's PostGIS store, with `{}` for the workspace.
    pub datastore_name: crate::config::Template,
    /// Spatial reference system where none is found, `EPSG:n`.
    pub default_crs: String,
    /// Connection parameters that every PostGIS store shares: host, port, database, user.
    pub store_connection: BTreeMap<String, String>,
    /// Password of the PostGIS stores.
    pub store_password: Option<secrecy::SecretString>,
    /// How many restores run at once.
    pub parallel_restores: usize,
    /// Keep fetched files, because other slaves take them from here.
    pub keep_cached_files: bool,
}
