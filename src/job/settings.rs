//! What a job says about the store, the tile layer and caches.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

use super::field::{Field, Fields};
use crate::error::Result;

/// The connection parameters of a PostGIS store, by GeoServer's names; a job may give each of them.
const CONNECTION_PARAMETERS: [&str; 26] = [
    "host",
    "port",
    "database",
    "schema",
    "user",
    "passwd",
    "dbtype",
    "Connection timeout",
    "validate connections",
    "max connections",
    "min connections",
    "fetch size",
    "Loose bbox",
    "Estimated extends",
    "Expose primary keys",
    "preparedStatements",
    "Max open prepared statements",
    "encode functions",
    "Support on the fly geometry simplification",
    "Evictor run periodicity",
    "Evictor tests per run",
    "Max connection idle time",
    "Test while idle",
    "create database",
    "Primary key metadata table",
    "Batch insert size",
];

/// The settings that are about the tile layer and caches, never about a connection.
const CACHE_SETTINGS: [&str; 3] = ["create_cache_layer", "server_cache_expire", "client_cache_expire"];

/// The job's `geoserver_setting`.
#[derive(Clone, Default, PartialEq)]
pub struct GeoserverSetting {
    /// Whether the layer gets a tile layer.
    pub create_cache_layer: bool,
    /// Seconds after which cached tiles expire on the server.
    pub server_cache_expire: Option<i64>,
    /// Seconds for which clients may keep tiles.
    pub client_cache_expire: Option<i64>,
    /// The whole setting as the document has it, null members left out.
    pub all: Map<String, Value>,
}

impl GeoserverSetting {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let Some(field) = fields.get("geoserver_setting").map(Field::unpacked).transpose()?.flatten() else {
            return Ok(Self::default());
        };
        let members = field.object()?;
        let all = members.iter().filter_map(|(name, field)| Some((name.clone(), field.as_ref()?.value().clone())));
        // An expiry that was never filled in on the master is written as an empty text.
        let seconds = |name| -> Result<Option<i64>> {
            let given = field.get(name)?.filter(|field| field.value().as_str() != Some(""));
            given.map(|field| field.integer()).transpose()
        };
        Ok(Self {
            create_cache_layer: field.get("create_cache_layer")?.map_or(Ok(false), |field| field.boolean())?,
            server_cache_expire: seconds("server_cache_expire")?,
            client_cache_expire: seconds("client_cache_expire")?,
            all: all.collect(),
        })
    }

    /// Every member that is no cache setting, as the text that GeoServer wants.
    pub(super) fn parameters(&self) -> ConnectionParameters {
        let members = self.all.iter().filter(|(name, _)| !CACHE_SETTINGS.contains(&name.as_str()));
        ConnectionParameters(members.filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect())
    }
}

impl fmt::Debug for GeoserverSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A setting may hold a password.
        f.debug_struct("GeoserverSetting")
            .field("create_cache_layer", &self.create_cache_layer)
            .field("server_cache_expire", &self.server_cache_expire)
            .field("client_cache_expire", &self.client_cache_expire)
            .field("all", &self.all.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Connection parameters by GeoServer's names. May hold a password, which `Debug` does not show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectionParameters(pub BTreeMap<String, String>);

impl ConnectionParameters {
    /// The parameters of a PostGIS store that the job gives: first its own fields of those names, then
    /// `geoserver_setting`, which wins.
    ///
    /// For a live store every further member of `geoserver_setting` is a parameter too; a layer's setting
    /// is about the layer, so that only known parameters are taken from it.
    pub(super) fn read(fields: &Fields<'_>, setting: &GeoserverSetting, is_store: bool) -> Self {
        let own = CONNECTION_PARAMETERS.iter().filter_map(|name| {
            let value = scalar(fields.get(name)?.value())?;
            Some(((*name).to_owned(), value))
        });
        let mut all: BTreeMap<_, _> = own.collect();
        let setting = setting.parameters().0;
        all.extend(setting.into_iter().filter(|(name, _)| is_store || CONNECTION_PARAMETERS.contains(&name.as_str())));
        Self(all)
    }
}

impl fmt::Debug for ConnectionParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| (name, if is_secret(name) { "***" } else { value }));
        f.debug_map().entries(shown).finish()
    }
}

/// Whether a field of this name holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["passw", "secret", "token"].iter().any(|part| name.contains(part))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
