//! From variables to settings: reading, checking, and telling all problems together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::filter_source::{self, FilterSource};
use super::place::{env_file_of, is_repository};
use super::settings::{Filters, HookOnFailure, Limits, Settings, Skip};
use super::values::{Origin, Values};
use super::variables::{self as v, Variable};
use super::{Env, Place, dotenv, load_servers, misspelt};
use crate::error::{Error, ErrorKind, Result};

/// One day, in seconds.
const DAY: u64 = 86_400;

/// As the makers of disks count it, in bytes.
pub(super) const GIGABYTE: u64 = 1_000_000_000;

/// What a load gives.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What the operator should know though it stops nothing; a line each.
    pub warnings: Vec<String>,
    /// The `.env` file that was read, when there is one.
    pub env_file: Option<PathBuf>,
}

/// Reads and checks all settings. The environment wins over the `.env` file, which is the one that
/// `place` names, else `.env` in the clone, else `code/.env` in the clone. An empty value counts as
/// unset.
///
/// # Errors
///
/// [`ErrorKind::Settings`] with every problem found: the variable, where its value came from, what
/// was found (never a secret) and what is allowed.
pub fn load(env: &impl Env, place: &Place) -> Result<Loaded> {
    let (mut values, root, env_file) = given(env, place)?;
    if !is_repository(&root) {
        values.refuse(
            &v::STATE_REPOSITORY_ROOT,
            &root.display().to_string(),
            "is no Mercurial or Git repository",
            "the directory of a clone",
        );
    }
    let settings = settings(&mut values, root);
    match settings {
        Some(settings) if values.problems.is_empty() => {
            Ok(Loaded { settings, warnings: values.problems.warnings, env_file })
        }
        _ => Err(values.problems.into_error()),
    }
}

/// The files of filters that the settings name, there or not, and whatever else is wrong; none where the settings
/// cannot be found.
#[must_use]
pub fn filter_files(env: &impl Env, place: &Place) -> Vec<PathBuf> {
    let Ok((values, root, _)) = given(env, place) else { return Vec::new() };
    let named = [&v::FEATURE_FILTER, &v::WMS_FILTER, &v::LAYERGROUP_FILTER].into_iter();
    named.filter_map(|variable| values.text(variable)).filter_map(|text| filter_source::file(&text, &root)).collect()
}

/// What is given, the clone that it is about, and the file that was read.
fn given(env: &impl Env, place: &Place) -> Result<(Values, PathBuf, Option<PathBuf>)> {
    let mut values = Values::of_environment(env);
    for name in env.names() {
        if let Some(warning) = misspelt::in_environment(&name) {
            values.problems.warn(warning);
        }
    }
    let mut env_file = None;
    if let Some(named) = &place.env_file {
        let path = place.resolve(named);
        read_file(&mut values, &path)?;
        env_file = Some(path);
    }
    let mut root = state_repository_root(&values, place)?;
    if env_file.is_none()
        && let Some(path) = env_file_of(&root)
    {
        read_file(&mut values, &path)?;
        env_file = Some(path);
        // The file may name the clone itself.
        root = state_repository_root(&values, place)?;
    }
    Ok((values, root, env_file))
}

fn read_file(values: &mut Values, path: &Path) -> Result<()> {
    let parsed = dotenv::read(path).map_err(|source| {
        Error::new(ErrorKind::Settings, "cannot read the file of settings")
            .subject(path.display().to_string())
            .source(source)
            .hint("check the path (--env-file) and that the user that runs borg-slave may read it")
    })?;
    for fault in &parsed.faults {
        let place = format!("{}:{}", path.display(), fault.line);
        match (&fault.name, &fault.lambda) {
            (Some(name), Some(lambda)) if name.ends_with("_FILTER") => {
                values.problems.add_to(format!("{name} ({place})"), filter_source::lambda_remedy(name, lambda));
            }
            (Some(name), _) => values.problems.add_to(format!("{name} ({place})"), &fault.text),
            (None, _) => values.problems.add_to(place, &fault.text),
        }
    }
    values.add_file(path, &parsed);
    for entry in &parsed.entries {
        if let Some(warning) = misspelt::in_file(&entry.name, &format!("{}:{}", path.display(), entry.line)) {
            values.problems.warn(warning);
        }
    }
    let holds_secret = parsed
        .entries
        .iter()
        .any(|entry| !entry.value.is_empty() && v::find(&entry.name).is_some_and(|variable| variable.secret));
    if holds_secret && is_open_to_everybody(path) {
        values.problems.warn(format!(
            "{} holds a secret and everybody on this machine can read it; chmod 600 keeps it to its owner",
            path.display()
        ));
    }
    Ok(())
}

fn is_open_to_everybody(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn state_repository_root(values: &Values, place: &Place) -> Result<PathBuf> {
    if let Some(given) = values.text(&v::STATE_REPOSITORY_ROOT) {
        let root = place.resolve(given);
        // Free of `..` and links, so that a clone has one name; a missing one is told about later.
        return Ok(root.canonicalize().unwrap_or(root));
    }
    place.repository().ok_or_else(|| {
        Error::new(ErrorKind::Settings, "no state repository at or above the working directory")
            .subject(place.working_directory.display().to_string())
            .hint("start borg-slave inside the clone of the state repository, or set STATE_REPOSITORY_ROOT to it, in the environment or in a file given with --env-file")
    })
}

/// Everything below the root; `None` when something that has no stand-in is unusable.
fn settings(values: &mut Values, root: PathBuf) -> Option<Settings> {
    let slave_name = slave_name(values);
    let state_branch = branch(values, &v::STATE_BRANCH);
    let code_branch = branch(values, &v::CODE_BRANCH);
    let code_path = values.text(&v::CODE_PATH).map(|given| root.join(given));
    let code_build = values.command(&v::CODE_BUILD);
    let sync_server = load_servers::sync_server(values);
    let borg_ssh = values.command(&v::BORG_SSH);
    let state_ssh = values.command(&v::BORG_STATE_SSH).or_else(|| borg_ssh.clone());
    let file_ssh = values.command(&v::BORGCOLLECTOR_SSH).or_else(|| borg_ssh.clone());
    let channels = channels(values);
    let geoservers = load_servers::geoservers(values);
    let workspace_namespace =
        values.template(&v::GEOSERVER_WORKSPACE_NAMESPACE, |filled| url::Url::parse(filled).is_ok());
    let datastore_name =
        values.template(&v::GEOSERVER_DATASTORE_NAMESPACE, |filled| crate::name::GeoName::new("store", filled).is_ok());
    let default_crs = default_crs(values);
    let geoserver_timeout = seconds(values, &v::GEOSERVER_TIMEOUT, DAY);
    let database = load_servers::slave(values, &root);
    let master = load_servers::master(values, &root);
    let status_page = load_servers::status_page(values);
    let skip = Skip {
        auth: values.boolean(&v::SKIP_AUTH),
        rules: values.boolean(&v::SKIP_RULES),
        db: values.boolean(&v::SKIP_DB),
        gs: values.boolean(&v::SKIP_GS),
    };
    let filters = Filters {
        feature: filter(values, &v::FEATURE_FILTER, &root),
        wms: filter(values, &v::WMS_FILTER, &root),
        layergroup: filter(values, &v::LAYERGROUP_FILTER, &root),
    };
    let hook_on_failure = values.read(&v::HOOK_ON_FAILURE, "refuse or accept", |text| {
        [HookOnFailure::Refuse, HookOnFailure::Accept]
            .into_iter()
            .find(|choice| text.eq_ignore_ascii_case(choice.as_str()))
            .ok_or_else(|| "is not known".to_owned())
    });
    let poll_interval = seconds(values, &v::POLL_INTERVAL, 7 * DAY);
    let limits = limits(values);
    let fastly = load_servers::fastly(values);
    Some(Settings {
        cache_path: directory(values, &v::CACHE_PATH, &root, "dumps"),
        sync_status_path: directory(values, &v::SYNC_STATUS_PATH, &root, ".sync_status"),
        preview_path: directory(values, &v::PREVIEW_PATH, &root, "previews"),
        share_layer_data: values.boolean(&v::SHARE_LAYER_DATA),
        share_preview_data: values.boolean(&v::SHARE_PREVIEW_DATA),
        keep_cached_files: values.boolean(&v::KEEP_CACHED_FILES),
        geoserver_sharing_data_dir: values.boolean(&v::GEOSERVER_SHARING_DATA_DIR),
        geoserver_create_gridsets: values.boolean(&v::GEOSERVER_CREATE_GRIDSETS),
        debug: values.boolean(&v::DEBUG),
        include: values.list(&v::INCLUDE),
        rollback: values.boolean(&v::ROLLBACK),
        state_repository_root: root,
        state_branch,
        code_branch,
        code_path,
        code_build: code_build?,
        sync_server,
        master,
        status_page,
        skip,
        filters,
        fastly,
        channels,
        slave_name: slave_name?,
        borg_ssh: borg_ssh?,
        state_ssh: state_ssh?,
        file_ssh: file_ssh?,
        geoservers: geoservers?,
        workspace_namespace: workspace_namespace?,
        datastore_name: datastore_name?,
        default_crs: default_crs?,
        geoserver_timeout: geoserver_timeout?,
        database: database?,
        hook_on_failure: hook_on_failure?,
        poll_interval: poll_interval?,
        limits: limits?,
    })
}

fn slave_name(values: &mut Values) -> Option<String> {
    let allowed = "a name without `/` and control characters that does not begin with `.` or `-`";
    let check = |text: &str| {
        if is_path_segment(text) { Ok(text.to_owned()) } else { Err("is no usable name".to_owned()) }
    };
    if values.given(&v::SLAVE_NAME).is_some() {
        return values.read(&v::SLAVE_NAME, allowed, check);
    }
    // The kernel's own word; asking through libc would need unsafe code.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = check(host.trim()).ok();
    if host.is_none() {
        values.problems.add(&v::SLAVE_NAME, &Origin::Default, "this machine has no host name; set the variable");
    }
    host
}

/// Whether `text` can be one directory below another.
fn is_path_segment(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(['.', '-']) && !text.contains(|c: char| c == '/' || c.is_control())
}

fn branch(values: &mut Values, variable: &Variable) -> Option<String> {
    values.read(variable, "a branch: no white space, not beginning with `-`", |text| {
        if text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            Err("is no branch".to_owned())
        } else {
            Ok(text.to_owned())
        }
    })
}

fn channels(values: &mut Values) -> Vec<String> {
    let channels = values.list(&v::LISTEN_CHANNELS);
    if channels.is_empty() || !channels.iter().all(|channel| is_path_segment(channel)) {
        let text = values.text(&v::LISTEN_CHANNELS).unwrap_or_default();
        values.refuse(
            &v::LISTEN_CHANNELS,
            &text,
            "is no list of channels",
            "a comma list of top folders of the state repository",
        );
    }
    channels
}

fn default_crs(values: &mut Values) -> Option<String> {
    values.read(&v::GEOSERVER_DEFAULT_CRS, "EPSG:<number>", |text| {
        let number = text
            .split_once(':')
            .filter(|(authority, _)| authority.eq_ignore_ascii_case("EPSG"))
            .and_then(|(_, number)| number.parse::<u32>().ok())
            .filter(|number| (1..=999_999).contains(number));
        number.map(|number| format!("EPSG:{number}")).ok_or_else(|| "is no reference system".to_owned())
    })
}

fn seconds(values: &mut Values, variable: &Variable, most: u64) -> Option<Duration> {
    values.number(variable, &(1..=most), "seconds").map(Duration::from_secs)
}

fn limits(values: &mut Values) -> Option<Limits> {
    let downloads = values.number(&v::PARALLEL_DOWNLOADS, &(1..=16), "");
    let ahead =
        values.number(&v::DOWNLOAD_AHEAD, &(1..=100_000), "gigabytes").map(|gigabytes: u64| gigabytes * GIGABYTE);
    let restores = if values.given(&v::PARALLEL_RESTORES).is_some() {
        values.number(&v::PARALLEL_RESTORES, &(1..=32), "")
    } else {
        Some(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
    };
    let transfer_idle = seconds(values, &v::TRANSFER_TIMEOUT, DAY);
    let step = seconds(values, &v::STEP_TIMEOUT, 7 * DAY);
    Some(Limits {
        downloads: downloads?,
        ahead: ahead?,
        restores: restores?,
        transfer_idle: transfer_idle?,
        step: step?,
    })
}

fn filter(values: &mut Values, variable: &Variable, root: &Path) -> Option<FilterSource> {
    let given = values.given(variable)?.clone();
    match filter_source::read(variable.name, &given.text, root) {
        Ok(source) => Some(source),
        Err(trouble) => {
            values.problems.add(variable, &given.origin, trouble);
            None
        }
    }
}

fn directory(values: &mut Values, variable: &Variable, root: &Path, default: &str) -> PathBuf {
    values.text(variable).map_or_else(|| root.join("code").join(default), |given| root.join(given))
}

#[cfg(test)]
mod tests;
