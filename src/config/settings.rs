//! The settings as types. No field of them can print a secret.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::{Fastly, FilterSource, Template};
use crate::name::PgIdent;

/// Everything that the operator can set, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name in the master's monitor and first directory of the previews.
    pub slave_name: String,
    /// The clone of the state repository, absolute.
    pub state_repository_root: PathBuf,
    /// Branch to pull; the repository's own choice when not set.
    pub state_branch: Option<String>,
    /// The slave that files come from first.
    pub sync_server: Option<SyncServer>,
    /// Branch of the program's own checkout that is brought up to date before each poll round.
    pub code_branch: Option<String>,
    /// That checkout, absolute; found by the daemon when not set.
    pub code_path: Option<PathBuf>,
    /// Command that builds the program there, program first.
    pub code_build: Vec<String>,
    /// SSH command as set by `BORG_SSH`, program first.
    pub borg_ssh: Vec<String>,
    /// SSH command for the state repository, program first.
    pub state_ssh: Vec<String>,
    /// SSH command for files, program first.
    pub file_ssh: Vec<String>,
    /// Channels to take, in the order given, each once; never empty.
    pub channels: Vec<String>,
    /// The GeoServers, in the order given; never empty.
    pub geoservers: Vec<GeoServerSettings>,
    /// Whether the GeoServers share one data directory.
    pub geoserver_sharing_data_dir: bool,
    /// Make the grid sets of the organisation where a GeoServer lacks them.
    pub geoserver_create_gridsets: bool,
    /// Namespace URI of a workspace.
    pub workspace_namespace: Template,
    /// Name of a workspace's PostGIS store.
    pub datastore_name: Template,
    /// `EPSG:<number>` for layers where no other is found.
    pub default_crs: String,
    /// How long GeoServer may take to answer one request.
    pub geoserver_timeout: Duration,
    /// This slave's database.
    pub database: DatabaseSettings,
    /// The master's database; none: no reports.
    pub master: Option<DatabaseSettings>,
    /// Where the daemon serves its status page; none: nowhere.
    pub status_page: Option<StatusPageSettings>,
    /// What is left out.
    pub skip: Skip,
    /// Which jobs are taken.
    pub filters: Filters,
    /// What a hook does when a job failed.
    pub hook_on_failure: HookOnFailure,
    /// Time between the daemon's rounds.
    pub poll_interval: Duration,
    /// Directory of fetched files, absolute.
    pub cache_path: PathBuf,
    /// Directory of the journal, absolute.
    pub sync_status_path: PathBuf,
    /// Directory of preview images, absolute.
    pub preview_path: PathBuf,
    /// The master's download directory is mounted here at the same path.
    pub share_layer_data: bool,
    /// The master's preview directory is mounted here at the same path.
    pub share_preview_data: bool,
    /// Fetched files stay after use, for the slaves that feed on this one.
    pub keep_cached_files: bool,
    /// Bounds on parallel and hanging work.
    pub limits: Limits,
    /// The CDN to purge after a layer changed.
    pub fastly: Option<Fastly>,
    /// Debug log.
    pub debug: bool,
    /// Only these job files (paths in the repository), and the pull is refused afterwards; empty: all.
    pub include: Vec<String>,
    /// Run everything, then refuse the pull.
    pub rollback: bool,
}

/// Another slave that files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncServer {
    /// `user@host`; neither begins with `-`, so neither can be taken for an option.
    pub remote: String,
    /// Directory there, absolute, without a trailing slash.
    pub path: String,
}

/// One GeoServer.
#[derive(Debug, Clone)]
pub struct GeoServerSettings {
    /// Its address without credentials, query and trailing slash (only a bare host keeps the `/` of its path).
    pub url: Url,
    /// Login.
    pub username: String,
    /// Password of the login.
    pub password: SecretString,
    /// Its data directory, absolute.
    pub data_dir: PathBuf,
}

impl GeoServerSettings {
    /// The address of `path` below this GeoServer (`rest/layers`; a leading slash changes nothing).
    #[must_use]
    pub fn address(&self, path: &str) -> String {
        format!("{}/{}", self.url.as_str().trim_end_matches('/'), path.trim_start_matches('/'))
    }
}

/// Where the status page is served, and to whom.
#[derive(Debug, Clone)]
pub struct StatusPageSettings {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What callers must present; set where the address is not this machine's own.
    pub token: Option<SecretString>,
}

/// How to reach a database.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// Host name, address, or absolute directory of a Unix socket.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Schema; of the master's database always there, and of the slave's without meaning.
    pub schema: Option<PgIdent>,
    /// User; the operating system's when not set.
    pub username: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// How the connection is encrypted.
    pub ssl_mode: SslMode,
    /// Certificate authorities to trust, an existing file; the system's when not set.
    pub ssl_root_cert: Option<PathBuf>,
}

/// How a database connection is encrypted, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// When the server can.
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, with a certificate of a trusted authority.
    VerifyCa,
    /// Always, with a certificate of a trusted authority for this host.
    VerifyFull,
}

impl SslMode {
    /// All modes.
    pub const ALL: [Self; 5] = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// The mode as libpq spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skip {
    /// Roles.
    pub auth: bool,
    /// Access rules.
    pub rules: bool,
    /// The database.
    pub db: bool,
    /// GeoServer.
    pub gs: bool,
}

/// The filters as written; none: the default of its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Features, live stores and layers, workspaces.
    pub feature: Option<FilterSource>,
    /// WMS stores and layers.
    pub wms: Option<FilterSource>,
    /// Layer groups.
    pub layergroup: Option<FilterSource>,
}

/// What a hook does when a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookOnFailure {
    /// The pull is rolled back.
    Refuse,
    /// The changesets come in; failed jobs are retried later.
    Accept,
}

impl HookOnFailure {
    /// The value of the variable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Accept => "accept",
        }
    }
}

/// Bounds on parallel and hanging work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Transfers at the same time, 1..=16.
    pub downloads: usize,
    /// Bytes of dumps that may be here before they are restored.
    pub ahead: u64,
    /// Restores at the same time, 1..=32.
    pub restores: usize,
    /// How long a transfer may go without a byte.
    pub transfer_idle: Duration,
    /// How long one restore or one transfer may take.
    pub step: Duration,
}
