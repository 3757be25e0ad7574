//! Settings become adapters: the only file that knows both.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cdn::{Cdn, CdnOptions};
use crate::config::{
    DatabaseSettings, Fastly, FilterSource, GeoServerSettings, Settings, SslMode as ConfiguredSslMode,
    StatusPageSettings,
};
use crate::error::{Result, io_error};
use crate::execute::{CdnParts, Choices, Parts, Previews};
use crate::filter::{Filter, FilterText, Filters};
use crate::geoserver::{Endpoint, ExchangeFn, GeoServer};
use crate::postgres::{ConnectOptions, Database, SslMode};
use crate::report::Master;
use crate::status_page;
use crate::transfer::{self, Transfer};

/// Who is told how transfers and requests go.
#[derive(Clone, Default)]
pub struct Meters {
    /// Is told how files come in.
    pub transfers: Option<transfer::ProgressFn>,
    /// Is told of every request to a GeoServer.
    pub requests: Option<ExchangeFn>,
}

/// How long the database may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the master's database may take to accept a connection.
const MASTER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a purge of the CDN may take.
const CDN_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections beyond one for each restore: short statements of other jobs.
const SPARE_CONNECTIONS: usize = 4;

/// Everything that jobs work with. Nothing is connected to yet.
///
/// # Errors
///
/// When a filter does not compile or an adapter refuses its options.
pub fn parts(settings: &Settings, meters: Meters, stop: &CancellationToken) -> Result<Parts> {
    let database = if settings.skip.db { None } else { Some(database(settings, stop)?) };
    let mut geoservers = if settings.skip.gs { Vec::new() } else { geoservers(settings, meters.requests.as_ref())? };
    // Each would write the same objects into the one directory, behind the others' backs.
    let followers = if settings.geoserver_sharing_data_dir && !geoservers.is_empty() {
        geoservers.split_off(1)
    } else {
        Vec::new()
    };
    let data_dirs = geoservers.iter().zip(&settings.geoservers);
    let data_dirs = data_dirs.map(|(server, settings)| (server.name().to_owned(), settings.data_dir.clone())).collect();
    Ok(Parts {
        transfer: transfer(settings, meters.transfers, stop)?,
        database,
        geoservers,
        followers,
        previews: Some(Previews {
            root: settings.preview_path.clone(),
            slave_name: settings.slave_name.clone(),
            is_shared: settings.share_preview_data,
        }),
        cdn: settings.fastly.as_ref().map(cdn).transpose()?,
        filters: filters(settings)?,
        choices: choices(settings, data_dirs),
    })
}

/// The way files come.
///
/// # Errors
///
/// When the SSH command cannot be understood.
pub fn transfer(
    settings: &Settings,
    progress: Option<transfer::ProgressFn>,
    stop: &CancellationToken,
) -> Result<Transfer> {
    Transfer::new(transfer::Options {
        ssh: settings.file_ssh.clone(),
        cache_path: settings.cache_path.clone(),
        parallel: settings.limits.downloads,
        ahead: settings.limits.ahead,
        sync_server: settings
            .sync_server
            .as_ref()
            .map(|server| transfer::SyncServer { remote: server.remote.clone(), path: server.path.clone() }),
        share_layer_data: settings.share_layer_data,
        idle_timeout: settings.limits.transfer_idle,
        time_limit: settings.limits.step,
        stop: stop.clone(),
        progress,
    })
}

/// The slave's database.
///
/// # Errors
///
/// When the TLS options cannot be used.
pub fn database(settings: &Settings, stop: &CancellationToken) -> Result<Database> {
    let options = connection(&settings.database, CONNECT_TIMEOUT);
    let database = Database::new(options, settings.limits.restores + SPARE_CONNECTIONS, stop.clone())?;
    Ok(database.with_restore_limit(settings.limits.step))
}

/// How to connect to a database.
fn connection(configured: &DatabaseSettings, connect_timeout: Duration) -> ConnectOptions {
    ConnectOptions {
        host: configured.host.clone(),
        port: configured.port,
        database: configured.database.clone(),
        username: configured.username.clone(),
        password: configured.password.clone(),
        ssl_mode: match configured.ssl_mode {
            ConfiguredSslMode::Disable => SslMode::Disable,
            ConfiguredSslMode::Prefer => SslMode::Prefer,
            ConfiguredSslMode::Require => SslMode::Require,
            ConfiguredSslMode::VerifyCa => SslMode::VerifyCa,
            ConfiguredSslMode::VerifyFull => SslMode::VerifyFull,
        },
        ssl_root_cert: configured.ssl_root_cert.clone(),
        connect_timeout,
        application_name: "borg-slave".into(),
    }
}

/// The master that reports go to, when there is one.
#[must_use]
pub fn master(settings: &Settings) -> Option<Master> {
    let configured = settings.master.as_ref()?;
    let branch = settings.code_branch.clone().or_else(|| own_branch(&settings.state_repository_root));
    let branch = branch.as_deref().or(option_env!("BORG_SLAVE_BRANCH")).unwrap_or("release");
    Some(Master {
        options: connection(configured, MASTER_TIMEOUT),
        schema: configured.schema.clone()?,
        slave_name: settings.slave_name.clone(),
        channels: settings.channels.join(","),
        code_version: format!("{} ({branch})", env!("CARGO_PKG_VERSION")),
    })
}

/// The branch of the checkout that this program runs from; the clone of the state repository is none.
fn own_branch(state_repository: &Path) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let checkout = program.ancestors().skip(1).find(|dir| dir.join(".git").exists() || dir.join(".hg").exists())?;
    if checkout == state_repository {
        return None;
    }
    let read = |file: &str| std::fs::read_to_string(checkout.join(file)).ok();
    let git = read(".git/HEAD").and_then(|head| head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned));
    git.or_else(|| read(".hg/branch").map(|branch| branch.trim().to_owned()))
}

/// Where the status page is served, when it is, and what it is about.
#[must_use]
pub fn status_page(settings: &Settings) -> Option<status_page::Options> {
    let StatusPageSettings { listen, token } = settings.status_page.clone()?;
    let geoservers = if settings.skip.gs { &[] } else { settings.geoservers.as_slice() };
    Some(status_page::Options {
        listen,
        token,
        about: status_page::About {
            slave_name: settings.slave_name.clone(),
            clone: settings.state_repository_root.clone(),
            channels: settings.channels.clone(),
            geoservers: geoservers.iter().map(|server| server.address("").trim_end_matches('/').to_owned()).collect(),
            master: settings.master.as_ref().map(|master| connection(master, MASTER_TIMEOUT).place()),
            status_path: settings.sync_status_path.clone(),
            preview_path: settings.preview_path.clone(),
        },
    })
}

/// The GeoServers, in the order of the settings.
///
/// # Errors
///
/// When the HTTP client cannot be built.
pub fn geoservers(settings: &Settings, observer: Option<&ExchangeFn>) -> Result<Vec<GeoServer>> {
    let endpoint = |server: &GeoServerSettings| Endpoint {
        url: server.url.clone(),
        username: server.username.clone(),
        password: server.password.clone(),
        time_limit: settings.geoserver_timeout,
    };
    settings.geoservers.iter().map(|server| GeoServer::observed(endpoint(server), observer.cloned())).collect()
}

/// The CDN.
fn cdn(settings: &Fastly) -> Result<CdnParts> {
    let options = CdnOptions { token: settings.api_token.clone(), soft: settings.soft, time_limit: CDN_TIMEOUT };
    Ok(CdnParts { client: Cdn::new(options)?, addresses: settings.clone() })
}

/// Whether the CDN that is purged answers; `None` where there is none.
pub async fn cdn_answers(settings: &Settings) -> Option<Result<String>> {
    let settings = settings.fastly.as_ref()?;
    let address = settings.purge_urls("workspace", "name").into_iter().next()?;
    Some(match cdn(settings) {
        Ok(cdn) => cdn.client.answers(&address).await,
        Err(error) => Err(error),
    })
}

/// The filters, compiled.
///
/// # Errors
///
/// When a filter file cannot be read or a filter does not compile.
pub fn filters(settings: &Settings) -> Result<Filters> {
    // A portable slave has no access rules of its own, so it takes only what may be seen by staff.
    let portable = settings.sync_server.is_some();
    let unset = |portable_filter: fn() -> Filter| if portable { portable_filter() } else { Filter::all() };
    let configured = &settings.filters;
    Ok(Filters {
        feature: filter("FEATURE_FILTER", configured.feature.as_ref(), || unset(Filter::portable_default))?,
        wms: filter("WMS_FILTER", configured.wms.as_ref(), || unset(Filter::none))?,
        layergroup: filter("LAYERGROUP_FILTER", configured.layergroup.as_ref(), || unset(Filter::none))?,
    })
}

fn filter(name: &str, source: Option<&FilterSource>, unset: impl FnOnce() -> Filter) -> Result<Filter> {
    match source {
        None => Ok(unset()),
        Some(FilterSource::Expression(text)) => Filter::compile(name, FilterText::Expression(text)),
        Some(FilterSource::File(path)) => Filter::compile(name, FilterText::File(path, &filter_text(name, path)?)),
        Some(FilterSource::Read { path, text }) => Filter::compile(name, FilterText::File(path, text)),
    }
}

fn filter_text(name: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| io_error(path, &format!("cannot read the filter of {name}"), source))
}

/// What the filters are, in one text: it differs when they do, wherever they are written.
///
/// # Errors
///
/// When a file of a filter cannot be read.
pub fn filters_text(settings: &Settings) -> Result<String> {
    let configured = &settings.filters;
    let text = |name, source: &Option<FilterSource>| match source {
        None => Ok(None),
        Some(FilterSource::File(path)) => filter_text(name, path).map(Some),
        Some(FilterSource::Expression(text) | FilterSource::Read { text, .. }) => Ok(Some(text.clone())),
    };
    let texts = [
        text("FEATURE_FILTER", &configured.feature)?,
        text("WMS_FILTER", &configured.wms)?,
        text("LAYERGROUP_FILTER", &configured.layergroup)?,
    ];
    // Where none is set, it depends on where the files come from.
    Ok(format!("{} {texts:?}", settings.sync_server.is_some()))
}

/// Reads the files of filters into the settings and compiles all, so that a later edit of a file is
/// taken over with the settings or not at all.
///
/// # Errors
///
/// As [`filters`].
pub fn read_filters(settings: &mut Settings) -> Result<()> {
    let configured = &mut settings.filters;
    for (name, source) in [
        ("FEATURE_FILTER", &mut configured.feature),
        ("WMS_FILTER", &mut configured.wms),
        ("LAYERGROUP_FILTER", &mut configured.layergroup),
    ] {
        if let Some(FilterSource::File(path)) = source {
            let (path, text) = (path.clone(), filter_text(name, path)?);
            *source = Some(FilterSource::Read { path, text });
        }
    }
    filters(settings).map(drop)
}

fn choices(settings: &Settings, data_dirs: HashMap<String, PathBuf>) -> Choices {
    let database = &settings.database;
    let mut store_connection = BTreeMap::from([
        ("host".to_owned(), database.host.clone()),
        ("port".to_owned(), database.port.to_string()),
        ("database".to_owned(), database.database.clone()),
    ]);
    if let Some(user) = &database.username {
        store_connection.insert("user".to_owned(), user.clone());
    }
    Choices {
        skip: settings.skip,
        create_grid_sets: settings.geoserver_create_gridsets,
        data_dirs,
        step_limit: settings.limits.step,
        workspace_namespace: settings.workspace_namespace.clone(),
        datastore_name: settings.datastore_name.clone(),
        default_crs: settings.default_crs.clone(),
        store_connection,
        store_password: database.password.clone(),
        parallel_restores: settings.limits.restores,
        keep_cached_files: settings.keep_cached_files,
    }
}
