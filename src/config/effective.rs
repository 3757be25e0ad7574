//! The settings as an operator may see them.

use std::path::Path;
use std::time::Duration;

use super::Fastly;
use super::load::GIGABYTE;
use super::load_servers::{self, DatabaseVariables};
use super::settings::{DatabaseSettings, GeoServerSettings, Settings};
use super::variables::{self as v, VARIABLES};

/// What stands for a secret that is set.
const SET: &str = "(set)";

/// What stands for a variable without value.
const NOT_SET: &str = "(not set)";

impl Settings {
    /// Each variable with the value that counts, in the order of the documentation. A secret is
    /// `(set)`; what has no value is `(not set)`.
    #[must_use]
    pub fn effective(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::with_capacity(VARIABLES.len());
        rows.extend([
            (v::SLAVE_NAME.name, self.slave_name.clone()),
            (v::LISTEN_CHANNELS.name, self.channels.join(",")),
            (v::HOOK_ON_FAILURE.name, self.hook_on_failure.as_str().into()),
            (v::POLL_INTERVAL.name, seconds(self.poll_interval)),
            (v::DEBUG.name, self.debug.to_string()),
            (v::INCLUDE.name, if self.include.is_empty() { NOT_SET.into() } else { self.include.join(",") }),
            (v::ROLLBACK.name, self.rollback.to_string()),
            (v::STATE_REPOSITORY_ROOT.name, path(&self.state_repository_root)),
            (v::STATE_BRANCH.name, optional(self.state_branch.as_ref())),
            (v::CODE_BRANCH.name, optional(self.code_branch.as_ref())),
            (v::CODE_PATH.name, optional(self.code_path.as_deref().map(path))),
            (v::CODE_BUILD.name, command(&self.code_build)),
            (v::BORG_SSH.name, command(&self.borg_ssh)),
            (v::BORG_STATE_SSH.name, command(&self.state_ssh)),
            (v::BORGCOLLECTOR_SSH.name, command(&self.file_ssh)),
            (v::SYNC_SERVER.name, optional(self.sync_server.as_ref().map(|server| &server.remote))),
            (v::SYNC_PATH.name, optional(self.sync_server.as_ref().map(|server| &server.path))),
            (v::CACHE_PATH.name, path(&self.cache_path)),
            (v::SYNC_STATUS_PATH.name, path(&self.sync_status_path)),
            (v::PREVIEW_PATH.name, path(&self.preview_path)),
            (v::SHARE_LAYER_DATA.name, self.share_layer_data.to_string()),
            (v::SHARE_PREVIEW_DATA.name, self.share_preview_data.to_string()),
            (v::KEEP_CACHED_FILES.name, self.keep_cached_files.to_string()),
            (v::PARALLEL_DOWNLOADS.name, self.limits.downloads.to_string()),
            (v::DOWNLOAD_AHEAD.name, (self.limits.ahead / GIGABYTE).to_string()),
            (v::TRANSFER_TIMEOUT.name, seconds(self.limits.transfer_idle)),
            (v::STEP_TIMEOUT.name, seconds(self.limits.step)),
            (v::GEOSERVER_URL.name, self.each(|server| server.url.to_string())),
            (v::GEOSERVER_USERNAME.name, self.each(|server| server.username.clone())),
            (v::GEOSERVER_PASSWORD.name, SET.into()),
            (v::GEOSERVER_DATA_DIR.name, self.each(|server| path(&server.data_dir))),
            (v::GEOSERVER_SHARING_DATA_DIR.name, self.geoserver_sharing_data_dir.to_string()),
            (v::GEOSERVER_CREATE_GRIDSETS.name, self.geoserver_create_gridsets.to_string()),
            (v::GEOSERVER_WORKSPACE_NAMESPACE.name, self.workspace_namespace.to_string()),
            (v::GEOSERVER_DATASTORE_NAMESPACE.name, self.datastore_name.to_string()),
            (v::GEOSERVER_DEFAULT_CRS.name, self.default_crs.clone()),
            (v::GEOSERVER_TIMEOUT.name, seconds(self.geoserver_timeout)),
        ]);
        rows.extend(database(&load_servers::SLAVE, Some(&self.database)));
        rows.extend([(v::PARALLEL_RESTORES.name, self.limits.restores.to_string())]);
        rows.extend(database(&load_servers::MASTER, self.master.as_ref()));
        let page = self.status_page.as_ref();
        rows.extend([
            (v::STATUS_LISTEN.name, optional(page.map(|page| page.listen))),
            (v::STATUS_TOKEN.name, optional(page.and_then(|page| page.token.as_ref()).map(|_| SET))),
            (v::FEATURE_FILTER.name, optional(self.filters.feature.as_ref())),
            (v::WMS_FILTER.name, optional(self.filters.wms.as_ref())),
            (v::LAYERGROUP_FILTER.name, optional(self.filters.layergroup.as_ref())),
            (v::SKIP_AUTH.name, self.skip.auth.to_string()),
            (v::SKIP_RULES.name, self.skip.rules.to_string()),
            (v::SKIP_DB.name, self.skip.db.to_string()),
            (v::SKIP_GS.name, self.skip.gs.to_string()),
        ]);
        rows.extend(fastly(self.fastly.as_ref()));
        rows
    }

    /// A value of every GeoServer; once when they all have the same.
    fn each(&self, value: impl Fn(&GeoServerSettings) -> String) -> String {
        let mut values: Vec<_> = self.geoservers.iter().map(value).collect();
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            values.truncate(1);
        }
        values.join(",")
    }
}

fn fastly(of: Option<&Fastly>) -> [(&'static str, String); 5] {
    [
        (v::FASTLY_PURGE_URL.name, optional(of.map(|fastly| &fastly.purge_url))),
        (v::FASTLY_SERVICEID.name, optional(of.map(|fastly| &fastly.service_id))),
        (v::FASTLY_API_TOKEN.name, optional(of.map(|_| SET))),
        (v::FASTLY_SURROGATE_KEY.name, optional(of.map(|fastly| list(&fastly.surrogate_keys)))),
        (v::FASTLY_SOFT_PURGE.name, optional(of.map(|fastly| fastly.soft))),
    ]
}

fn database(names: &DatabaseVariables, of: Option<&DatabaseSettings>) -> [(&'static str, String); 8] {
    [
        (names.host.name, optional(of.map(|of| &of.host))),
        (names.port.name, optional(of.map(|of| of.port))),
        (names.database.name, optional(of.map(|of| &of.database))),
        (names.schema.name, optional(of.and_then(|of| of.schema.as_ref()))),
        (names.username.name, optional(of.and_then(|of| of.username.as_ref()))),
        (names.password.name, optional(of.and_then(|of| of.password.as_ref()).map(|_| SET))),
        (names.ssl_mode.name, optional(of.map(|of| of.ssl_mode))),
        (names.ssl_root_cert.name, optional(of.and_then(|of| of.ssl_root_cert.as_deref()).map(path))),
    ]
}

fn list(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOT_SET.into(), |value| value.to_string())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn seconds(duration: Duration) -> String {
    duration.as_secs().to_string()
}

/// The words as one line, in quotes only where a shell needs them.
fn command(words: &[String]) -> String {
    let is_plain =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:@%+,".contains(c));
    let quoted: Vec<_> =
        words.iter().map(|word| if is_plain(word) { word.into() } else { shell_words::quote(word) }).collect();
    quoted.join(" ")
}
