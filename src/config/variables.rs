//! Every variable that the program reads: the one place where their names stand.
//!
//! The loader takes literal defaults from here, and a test holds `docs/settings.md` and
//! `examples/complete.env` to this table.

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// The heading it stands under in the documentation.
    pub group: &'static str,
    /// What counts when it is not set.
    pub default: DefaultValue,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// A value that the loader accepts.
    pub example: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
}

/// What counts when a variable is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing: the feature is off.
    Nothing,
    /// This very text.
    Literal(&'static str),
    /// Found out at start, in the way that the text tells.
    Computed(&'static str),
}

impl DefaultValue {
    /// The text that stands in the documentation; `–` when there is no default.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Nothing => "–",
            Self::Literal(text) | Self::Computed(text) => text,
        }
    }
}

/// Finds a variable by its exact name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

use DefaultValue::{Computed, Literal, Nothing};

/// Declares one constant for each variable, and the table of them all.
macro_rules! variables {
    (@secret) => { false };
    (@secret secret) => { true };
    ($($group:literal { $($name:ident: $default:expr, $example:literal, $meaning:literal $(, $secret:ident)?;)* })*) => {
        $($(
            #[doc = $meaning]
            pub const $name: Variable = Variable {
                name: stringify!($name),
                group: $group,
                default: $default,
                meaning: $meaning,
                example: $example,
                secret: variables!(@secret $($secret)?),
            };
        )*)*

        /// All variables, in the order of the documentation.
        pub const VARIABLES: &[Variable] = &[$($($name,)*)*];
    };
}

variables! {
    "This slave" {
        SLAVE_NAME: Computed("host name"), "slave-003",
            "name in the master's monitor; no `/`, it becomes a directory of previews";
        LISTEN_CHANNELS: Literal("geoserver"), "geoserver,internal",
            "comma list of the channels (top folders of the state repository) to take; of a new one everything is taken, with one that goes nothing is removed";
        HOOK_ON_FAILURE: Literal("refuse"), "accept",
            "`refuse`: a failed job rolls the pull back; `accept`: the changesets come in, failed jobs stay in the journal and are retried";
        POLL_INTERVAL: Literal("60"), "60",
            "seconds between the daemon's rounds, 1 to 604800";
        DEBUG: Literal("false"), "true",
            "debug log";
        INCLUDE: Nothing, "geoserver/layers/cadastre.roads.json",
            "comma list of job files: only these, and the pull is refused afterwards";
        ROLLBACK: Literal("false"), "true",
            "run everything, then refuse the pull";
    }
    "State repository" {
        STATE_REPOSITORY_ROOT: Computed("the nearest repository at or above the working directory, the program's own checkout left out"), "/opt/dpaw-borg-state",
            "the clone (Mercurial or Git, detected); a relative path counts from the working directory";
        STATE_BRANCH: Computed("`default` (Mercurial), the checked-out branch (Git)"), "default",
            "branch to pull";
        CODE_BRANCH: Nothing, "main",
            "branch of the program's own checkout; brought up to date before each poll round";
        CODE_PATH: Computed("the checkout that holds the running program's file, else `code` in the clone"), "/opt/borg-slave",
            "the program's own checkout (Git), for CODE_BRANCH; a relative path counts from the clone";
        CODE_BUILD: Literal("cargo build --release --locked"), "make install",
            "command that builds the program in CODE_PATH once CODE_BRANCH has moved, split as a shell would split it; one hour at most";
    }
    "Files and SSH" {
        BORG_SSH: Literal("ssh -i /etc/id_rsa_borg -o StrictHostKeyChecking=no -o KeepAlive=yes -o ServerAliveInterval=30 -o ConnectTimeout=3600 -o ConnectionAttempts=5"), "ssh -i /etc/id_rsa_borg -o BatchMode=yes -o ConnectTimeout=10",
            "SSH command for repository and files, split as a shell would split it";
        BORG_STATE_SSH: Computed("BORG_SSH"), "ssh -i /etc/id_rsa_borg_state -o BatchMode=yes",
            "SSH command for the repository";
        BORGCOLLECTOR_SSH: Computed("BORG_SSH"), "ssh -i /etc/id_rsa_borg_files -o BatchMode=yes",
            "SSH command for files";
        SYNC_SERVER: Nothing, "borg@slave-001.example.org",
            "`user@host` of another slave: files come from there first";
        SYNC_PATH: Computed("`/opt/dpaw-borg-state/code/dumps` when SYNC_SERVER is set"), "/opt/dpaw-borg-state/code/dumps",
            "directory of files on SYNC_SERVER, an absolute path";
        CACHE_PATH: Computed("`code/dumps` in the clone"), "code/dumps",
            "where fetched files are kept; a relative path counts from the clone";
        SYNC_STATUS_PATH: Computed("`code/.sync_status` in the clone"), "code/.sync_status",
            "where the journal is kept; a relative path counts from the clone";
        PREVIEW_PATH: Computed("`code/previews` in the clone"), "code/previews",
            "where preview images are kept; a relative path counts from the clone";
        SHARE_LAYER_DATA: Literal("false"), "true",
            "the master's download directory is mounted at the same path: read there, no rsync";
        SHARE_PREVIEW_DATA: Literal("false"), "true",
            "the master's preview directory is mounted at the same path: write there, no rsync";
        KEEP_CACHED_FILES: Literal("false"), "true",
            "keep fetched files after use; true on a slave that others name as their SYNC_SERVER";
        PARALLEL_DOWNLOADS: Literal("2"), "4",
            "transfers at the same time, 1 to 16";
        DOWNLOAD_AHEAD: Literal("20"), "100",
            "gigabytes of dumps that may lie in CACHE_PATH before they are restored, 1 to 100000; downloads wait beyond that";
        TRANSFER_TIMEOUT: Literal("60"), "120",
            "seconds without a byte after which a transfer is given up, 1 to 86400";
        STEP_TIMEOUT: Literal("21600"), "43200",
            "seconds that one restore or one transfer may take, 1 to 604800";
    }
    "GeoServer" {
        GEOSERVER_URL: Literal("http://localhost:8080/geoserver"), "http://gs1.example.org:8080/geoserver,http://gs2.example.org:8080/geoserver",
            "comma list of GeoServers, without credentials";
        GEOSERVER_USERNAME: Literal("admin"), "admin",
            "one for all, or a comma list with one for each GeoServer";
        GEOSERVER_PASSWORD: Literal("geoserver"), "change-me",
            "one for all, or a comma list with one for each GeoServer (then no password may hold a comma)", secret;
        GEOSERVER_DATA_DIR: Literal("/opt/geoserver/data_dir"), "/opt/geoserver/data_dir",
            "data directory, an absolute path; one for all, or a comma list with one for each GeoServer";
        GEOSERVER_SHARING_DATA_DIR: Literal("false"), "true",
            "the GeoServers share one data directory: write to the first, reload the others";
        GEOSERVER_CREATE_GRIDSETS: Literal("false"), "true",
            "make the grid sets `gda94` and `mercator` where a GeoServer lacks them; otherwise tile layers use its EPSG:4326 and EPSG:900913";
        GEOSERVER_WORKSPACE_NAMESPACE: Literal("http://{}.dpaw.wa.gov.au"), "http://{}.example.org",
            "namespace URI of a workspace; `{}` is the workspace";
        GEOSERVER_DATASTORE_NAMESPACE: Literal("{}_ds"), "{}_ds",
            "name of a workspace's PostGIS store; `{}` is the workspace";
        GEOSERVER_DEFAULT_CRS: Literal("EPSG:4326"), "EPSG:4283",
            "coordinate reference system where none is found";
        GEOSERVER_TIMEOUT: Literal("120"), "300",
            "seconds that GeoServer may take to answer a request, 1 to 86400";
    }
    "This slave's database" {
        GEOSERVER_PGSQL_HOST: Literal("localhost"), "localhost",
            "host, or directory of the Unix socket; the GeoServer stores connect to it too";
        GEOSERVER_PGSQL_PORT: Literal("5432"), "5432",
            "port";
        GEOSERVER_PGSQL_DATABASE: Literal("borg_slave"), "borg_slave",
            "database";
        GEOSERVER_PGSQL_SCHEMA: Nothing, "publish",
            "no effect, read for the sake of old files: jobs name their schemas, or these follow from the workspace";
        GEOSERVER_PGSQL_USERNAME: Nothing, "borg",
            "user";
        GEOSERVER_PGSQL_PASSWORD: Nothing, "change-me",
            "password", secret;
        GEOSERVER_PGSQL_SSLMODE: Literal("prefer"), "verify-full",
            "`disable`, `prefer`, `require`, `verify-ca` or `verify-full`, as libpq means them";
        GEOSERVER_PGSQL_SSLROOTCERT: Nothing, "certs/slave-database-ca.pem",
            "file of the certificate authorities to trust; a relative path counts from the clone";
        PARALLEL_RESTORES: Computed("number of CPUs, at least 2, at most 4"), "4",
            "restores at the same time, 1 to 32";
    }
    "Master's database (reports)" {
        MASTER_PGSQL_HOST: Nothing, "master-001.example.org",
            "host; not set: no reports";
        MASTER_PGSQL_PORT: Literal("5432"), "5432",
            "port";
        MASTER_PGSQL_DATABASE: Nothing, "borgcollector",
            "database; needed when MASTER_PGSQL_HOST is set";
        MASTER_PGSQL_SCHEMA: Literal("public"), "public",
            "schema of the monitor tables";
        MASTER_PGSQL_USERNAME: Nothing, "borg_monitor",
            "user";
        MASTER_PGSQL_PASSWORD: Nothing, "change-me",
            "password", secret;
        MASTER_PGSQL_SSLMODE: Literal("prefer"), "require",
            "`disable`, `prefer`, `require`, `verify-ca` or `verify-full`, as libpq means them";
        MASTER_PGSQL_SSLROOTCERT: Nothing, "certs/master-database-ca.pem",
            "file of the certificate authorities to trust; a relative path counts from the clone";
    }
    "Status page" {
        STATUS_LISTEN: Nothing, "127.0.0.1:8081",
            "address and port where the daemon serves its status page; port 0 takes a free one; not set: no page";
        STATUS_TOKEN: Nothing, "change-me-for-a-long-random-text",
            "what callers must present, at least 16 characters; needed when STATUS_LISTEN can be reached from other machines", secret;
    }
    "What is taken" {
        FEATURE_FILTER: Computed("everything; with SYNC_SERVER: `allow_authenticated` is true or `auth_level` is 0 or 1"), "get(job, \"auth_level\", -1) in [0, 1]",
            "Rhai expression, or path of a `.rhai` file (relative to the clone): which features, live stores and layers, and workspaces";
        WMS_FILTER: Computed("everything; with SYNC_SERVER: nothing"), "get(job, \"workspace\", \"\") == \"cadastre\"",
            "Rhai expression, or path of a `.rhai` file (relative to the clone): which WMS stores and layers";
        LAYERGROUP_FILTER: Computed("everything; with SYNC_SERVER: nothing"), "true",
            "Rhai expression, or path of a `.rhai` file (relative to the clone): which layer groups";
        SKIP_AUTH: Literal("false"), "true",
            "leave out roles";
        SKIP_RULES: Literal("false"), "true",
            "leave out access rules";
        SKIP_DB: Literal("false"), "true",
            "leave out the database";
        SKIP_GS: Literal("false"), "true",
            "leave out GeoServer";
    }
    "CDN (Fastly)" {
        FASTLY_PURGE_URL: Nothing, "https://api.fastly.com/service/{}/purge/{}",
            "address of a purge; `{}` slots in order: service id, key, workspace, name";
        FASTLY_SERVICEID: Nothing, "SU1Z0isxPaozGVKXdv0eY",
            "service id";
        FASTLY_API_TOKEN: Nothing, "change-me",
            "API token", secret;
        FASTLY_SURROGATE_KEY: Nothing, "{}:{}",
            "comma list of surrogate keys to purge; `{}` slots in order: workspace, name";
        FASTLY_SOFT_PURGE: Literal("false"), "true",
            "mark as stale instead of removing";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_a_secret_is_marked_by_its_name() {
        let names: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        assert_eq!(names.len(), VARIABLES.len());
        for variable in VARIABLES {
            let sounds_secret = variable.name.ends_with("PASSWORD") || variable.name.ends_with("TOKEN");
            assert_eq!(variable.secret, sounds_secret, "{}", variable.name);
        }
    }
}
