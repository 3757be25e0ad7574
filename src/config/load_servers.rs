//! The settings that say how to reach a server: GeoServers, databases, another slave, the CDN.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use url::Url;

use super::problem::without_credentials;
use super::settings::{DatabaseSettings, GeoServerSettings, SslMode, StatusPageSettings, SyncServer};
use super::values::Values;
use super::variables::{self as v, Variable};
use super::{Fastly, Template};
use crate::name::PgIdent;

/// Directory of files on another slave unless `SYNC_PATH` says otherwise.
const SYNC_PATH_DEFAULT: &str = "/opt/dpaw-borg-state/code/dumps";

pub(super) fn sync_server(values: &mut Values) -> Option<SyncServer> {
    let remote = values.read(&v::SYNC_SERVER, "user@host", |text| {
        // Letters, digits and a few signs only: both parts reach SSH and rsync as arguments.
        let plain = |part: &str, signs: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '[')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
        };
        match text.split_once('@') {
            Some((user, host)) if plain(user, "._-+") && !user.starts_with('[') => {
                let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let usable = address.map_or_else(|| plain(host, "._-"), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
                if usable { Ok(text.to_owned()) } else { Err("has no usable host".to_owned()) }
            }
            _ => Err("is not user@host".to_owned()),
        }
    });
    let path = values.read(&v::SYNC_PATH, "an absolute path without `..`, wildcards and control characters", |text| {
        let bad = |c: char| c.is_control() || matches!(c, '*' | '?' | '[');
        if !text.starts_with('/') || text.contains(bad) || text.split('/').any(|part| part == "..") {
            return Err("is no such path".to_owned());
        }
        Ok(if text.len() > 1 { text.trim_end_matches('/').to_owned() } else { text.to_owned() })
    });
    if values.given(&v::SYNC_SERVER).is_none() && path.is_some() {
        values.problems.warn("SYNC_PATH has no effect without SYNC_SERVER");
    }
    Some(SyncServer { remote: remote?, path: path.unwrap_or_else(|| SYNC_PATH_DEFAULT.to_owned()) })
}

/// Shortest token that keeps strangers out, in characters.
const TOKEN_CHARS: usize = 16;

pub(super) fn status_page(values: &mut Values) -> Option<StatusPageSettings> {
    let listen = values.read(
        &v::STATUS_LISTEN,
        "an address and a port, as 127.0.0.1:8081, [::1]:8081 or 0.0.0.0:8081",
        |text| {
            match text.strip_prefix("localhost:") {
                Some(port) => port.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(|_| ()),
                None => text.parse().map_err(|_| ()),
            }
            .map_err(|()| "is no address with a port".to_owned())
        },
    );
    if values.given(&v::STATUS_LISTEN).is_none() && values.given(&v::STATUS_TOKEN).is_some() {
        values.problems.warn("STATUS_TOKEN has no effect without STATUS_LISTEN: no status page is served");
    }
    values.given(&v::STATUS_LISTEN)?;
    let allowed = "at least 16 letters, digits and signs without white space; `openssl rand -hex 24` makes one";
    let token = values.read(&v::STATUS_TOKEN, allowed, |text| {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds white space or what is not ASCII".to_owned());
        }
        if text.len() < TOKEN_CHARS { Err("is too short".to_owned()) } else { Ok(SecretString::from(text)) }
    });
    let listen = listen?;
    if !listen.ip().to_canonical().is_loopback() && values.given(&v::STATUS_TOKEN).is_none() {
        values.refuse(
            &v::STATUS_LISTEN,
            &listen.to_string(),
            "can be reached from other machines, and STATUS_TOKEN is not set",
            "an address of this machine alone, such as 127.0.0.1:8081, or any with a STATUS_TOKEN (`openssl rand -hex 24` makes one)",
        );
    }
    Some(StatusPageSettings { listen, token })
}

pub(super) fn geoservers(values: &mut Values) -> Option<Vec<GeoServerSettings>> {
    let urls = urls(values)?;
    let usernames = one_or_each(values, &v::GEOSERVER_USERNAME, urls.len());
    let passwords = one_or_each(values, &v::GEOSERVER_PASSWORD, urls.len());
    let data_dirs = one_or_each(values, &v::GEOSERVER_DATA_DIR, urls.len()).and_then(|dirs| {
        let relative = dirs.iter().find(|dir| !dir.starts_with('/'));
        if let Some(dir) = relative {
            values.refuse(&v::GEOSERVER_DATA_DIR, dir, "is relative", "an absolute path");
            return None;
        }
        Some(dirs)
    });
    let logins = usernames?.into_iter().zip(passwords?).zip(data_dirs?);
    Some(
        urls.into_iter()
            .zip(logins)
            .map(|(url, ((username, password), data_dir))| GeoServerSettings {
                url,
                username,
                password: SecretString::from(password),
                data_dir: PathBuf::from(data_dir),
            })
            .collect(),
    )
}

/// The addresses, each checked; `None` when one is unusable.
fn urls(values: &mut Values) -> Option<Vec<Url>> {
    let text = values.text(&v::GEOSERVER_URL)?;
    let mut urls: Vec<Url> = Vec::new();
    let mut sound = true;
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let trouble = match url(part) {
            Ok(url) if urls.contains(&url) => "stands there twice".to_owned(),
            Ok(url) => {
                urls.push(url);
                continue;
            }
            Err(trouble) => trouble,
        };
        sound = false;
        values.refuse(&v::GEOSERVER_URL, part, &trouble, "http(s)://host[:port]/path, several joined by commas");
    }
    if sound && urls.is_empty() {
        values.refuse(&v::GEOSERVER_URL, &text, "names no GeoServer", "http(s)://host[:port]/path");
        return None;
    }
    sound.then_some(urls)
}

fn url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("is no address ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "holds credentials, which would show up in logs; put them in GEOSERVER_USERNAME and GEOSERVER_PASSWORD"
                .into(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment".into());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if let Some(end) = ["/rest", "/web", "/ows", "/wms", "/wfs", "/gwc"].into_iter().find(|end| path.ends_with(end)) {
        return Err(format!("ends in {end}; the address of GeoServer itself ends before that"));
    }
    url.set_path(&path);
    Ok(url)
}

/// Reads one value for all of `count` GeoServers, or exactly one for each.
fn one_or_each(values: &mut Values, variable: &Variable, count: usize) -> Option<Vec<String>> {
    let text = values.text(variable)?;
    // The only password there can be may hold a comma.
    if variable.secret && count == 1 {
        return Some(vec![text]);
    }
    let mut parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
    if parts.len() > 1 && parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    // An empty entry is no accident to be dropped: all that follow would go to the wrong server.
    if let Some(at) = parts.iter().position(String::is_empty) {
        let trouble = format!("is empty for GeoServer {} of {count}", at + 1);
        values.refuse(variable, &text, &trouble, "one for all, or one for each GeoServer");
        return None;
    }
    if parts.len() == 1 {
        return Some(vec![parts.swap_remove(0); count]);
    }
    if parts.len() == count {
        return Some(parts);
    }
    let trouble = format!("has {} entries for {count} in GEOSERVER_URL", parts.len());
    values.refuse(variable, &text, &trouble, "one for all, or one for each GeoServer, joined by commas");
    None
}

/// The variables of one database.
pub(super) struct DatabaseVariables {
    pub(super) host: Variable,
    pub(super) port: Variable,
    pub(super) database: Variable,
    pub(super) schema: Variable,
    pub(super) username: Variable,
    pub(super) password: Variable,
    pub(super) ssl_mode: Variable,
    pub(super) ssl_root_cert: Variable,
}

/// This slave's database.
pub(super) const SLAVE: DatabaseVariables = DatabaseVariables {
    host: v::GEOSERVER_PGSQL_HOST,
    port: v::GEOSERVER_PGSQL_PORT,
    database: v::GEOSERVER_PGSQL_DATABASE,
    schema: v::GEOSERVER_PGSQL_SCHEMA,
    username: v::GEOSERVER_PGSQL_USERNAME,
    password: v::GEOSERVER_PGSQL_PASSWORD,
    ssl_mode: v::GEOSERVER_PGSQL_SSLMODE,
    ssl_root_cert: v::GEOSERVER_PGSQL_SSLROOTCERT,
};

/// The master's database.
pub(super) const MASTER: DatabaseVariables = DatabaseVariables {
    host: v::MASTER_PGSQL_HOST,
    port: v::MASTER_PGSQL_PORT,
    database: v::MASTER_PGSQL_DATABASE,
    schema: v::MASTER_PGSQL_SCHEMA,
    username: v::MASTER_PGSQL_USERNAME,
    password: v::MASTER_PGSQL_PASSWORD,
    ssl_mode: v::MASTER_PGSQL_SSLMODE,
    ssl_root_cert: v::MASTER_PGSQL_SSLROOTCERT,
};

pub(super) fn slave(values: &mut Values, root: &Path) -> Option<DatabaseSettings> {
    if values.given(&SLAVE.schema).is_some() {
        values.problems.warn(format!(
            "{} has no effect: jobs name their schemas, or these follow from the workspace",
            SLAVE.schema.name
        ));
    }
    database(values, root, &SLAVE)
}

pub(super) fn master(values: &mut Values, root: &Path) -> Option<DatabaseSettings> {
    if values.given(&MASTER.host).is_some() {
        return database(values, root, &MASTER);
    }
    let idle = [&MASTER.database, &MASTER.username, &MASTER.password]
        .into_iter()
        .find(|variable| values.given(variable).is_some());
    if let Some(variable) = idle {
        values.problems.warn(format!(
            "{} has no effect without {}: nothing is reported to the master",
            variable.name, MASTER.host.name
        ));
    }
    None
}

pub(super) fn database(values: &mut Values, root: &Path, of: &DatabaseVariables) -> Option<DatabaseSettings> {
    let host = values.read(&of.host, "a host name, an address, or the absolute directory of a Unix socket", |text| {
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | ',');
        if text.contains(bad) || (text.contains('/') && !text.starts_with('/')) {
            return Err("is no single host".to_owned());
        }
        Ok(text.to_owned())
    });
    let port = values.number(&of.port, &(1..=u16::MAX), "");
    if values.value(&of.database).is_none() {
        let origin = values.given(&of.host).map(|given| given.origin.clone());
        values.problems.add_to(
            of.database.name,
            format!(
                "is not set, and {} is ({}); allowed: the name of the database there",
                of.host.name,
                origin.map(|origin| origin.to_string()).unwrap_or_default()
            ),
        );
    }
    let name = |text: &str| PgIdent::new("name", text).map_err(|_| "is no usable PostgreSQL name".to_owned());
    let database = values.read(&of.database, "a plain name of at most 63 bytes", |text| {
        // libpq reads such a name as a whole connection string, an option parser as an option.
        if text.starts_with('-') || text.contains('=') || text.contains("://") {
            return Err("is no plain name".to_owned());
        }
        name(text)
    });
    let schema = values.read(&of.schema, "at most 63 bytes", name);
    let modes = SslMode::ALL.map(SslMode::as_str).join(", ");
    let ssl_mode = values.read(&of.ssl_mode, &modes, |text| {
        SslMode::ALL
            .into_iter()
            .find(|mode| text.eq_ignore_ascii_case(mode.as_str()))
            .ok_or_else(|| "is not known".to_owned())
    });
    let ssl_root_cert =
        values.read(&of.ssl_root_cert, "an existing file; a relative path counts from the clone", |text| {
            let path = root.join(text);
            if path.is_file() { Ok(path) } else { Err("is not there".to_owned()) }
        });
    Some(DatabaseSettings {
        username: values.text(&of.username),
        password: values.text(&of.password).map(SecretString::from),
        ssl_root_cert,
        host: host?,
        port: port?,
        database: database?.as_str().to_owned(),
        schema,
        ssl_mode: ssl_mode?,
    })
}

/// The CDN, when all four of its variables are set.
pub(super) fn fastly(values: &mut Values) -> Option<Fastly> {
    let soft = values.boolean(&v::FASTLY_SOFT_PURGE);
    let needed = [v::FASTLY_PURGE_URL, v::FASTLY_SERVICEID, v::FASTLY_API_TOKEN, v::FASTLY_SURROGATE_KEY];
    let missing: Vec<_> =
        needed.iter().filter(|variable| values.given(variable).is_none()).map(|variable| variable.name).collect();
    if !missing.is_empty() {
        if missing.len() < needed.len() {
            values.problems.warn(format!("the CDN is not purged, not set: {}", missing.join(", ")));
        }
        return None;
    }
    let purge_url = values.read(
        &v::FASTLY_PURGE_URL,
        "an https address with `{}` for service id, key, workspace and name, in this order",
        |text| {
            let template = Template::parse(text, 4).map_err(|fault| format!("is no template: {fault}"))?;
            let filled = Url::parse(&template.fill("x")).map_err(|error| format!("gives no address ({error})"))?;
            // The API token travels with every purge.
            let loopback = matches!(filled.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            if filled.scheme() != "https" && !(filled.scheme() == "http" && loopback) {
                return Err("would send the API token unencrypted".to_owned());
            }
            if without_credentials(text) != text {
                return Err("holds credentials".to_owned());
            }
            Ok(template)
        },
    );
    let keys = values.list(&v::FASTLY_SURROGATE_KEY);
    let surrogate_keys = values.read(&v::FASTLY_SURROGATE_KEY, "keys with `{}` for workspace and name", |_| {
        if keys.is_empty() {
            return Err("names no key".to_owned());
        }
        keys.iter().map(|key| Template::parse(key, 2).map_err(|fault| format!("is no template: {fault}"))).collect()
    });
    Some(Fastly {
        service_id: values.text(&v::FASTLY_SERVICEID)?,
        api_token: SecretString::from(values.text(&v::FASTLY_API_TOKEN)?),
        purge_url: purge_url?,
        surrogate_keys: surrogate_keys?,
        soft,
    })
}
