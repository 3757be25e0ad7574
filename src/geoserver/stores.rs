//! PostGIS stores.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::error::Result;
use crate::name::GeoName;

use super::Change;
use super::client::{GeoServer, Writer, path};
use super::json;
use super::layers::Source;
use super::secrets;

/// The key under which GeoServer keeps a store's password.
const PASSWORD_KEY: &str = "passwd";

/// What to look at when a store cannot be created.
pub(super) const NAME_TAKEN: &str =
    "stores of all kinds (PostGIS, WMS, coverages) share their names within a workspace; and the workspace must exist";

/// A PostGIS store as it is to be.
#[derive(Clone)]
pub struct PostgisStore {
    /// The workspace it is in.
    pub workspace: GeoName,
    /// Its name.
    pub name: GeoName,
    /// What people read about it.
    pub description: Option<String>,
    /// Connection parameters under GeoServer's own keys: `host`, `port`, `database`, `schema`,
    /// `user`, `max connections`, ... `dbtype` and `namespace` are added when they are left out.
    pub parameters: BTreeMap<String, String>,
    /// The database password.
    pub password: Option<SecretString>,
}

impl fmt::Debug for PostgisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PostgisStore");
        shown.field("workspace", &self.workspace.as_str()).field("name", &self.name.as_str());
        for key in ["host", "port", "database", "schema"] {
            shown.field(key, &self.parameters.get(key));
        }
        shown.finish_non_exhaustive()
    }
}

/// The connection parameters of a store where nothing else is said, under GeoServer's own keys.
#[must_use]
pub fn default_store_parameters() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("Connection timeout", "20"),
        ("validate connections", "true"),
        ("max connections", "10"),
        ("min connections", "1"),
        ("fetch size", "1000"),
        ("Loose bbox", "true"),
        ("Estimated extends", "true"),
        ("Expose primary keys", "true"),
        // A prepared statement on a view fails once after the view was replaced.
        ("preparedStatements", "false"),
        ("Max open prepared statements", "50"),
        ("encode functions", "false"),
        ("Support on the fly geometry simplification", "true"),
        ("Evictor run periodicity", "300"),
        ("Evictor tests per run", "3"),
        ("Max connection idle time", "300"),
        ("Test while idle", "true"),
        ("create database", "false"),
    ])
}

impl PostgisStore {
    /// The fingerprint that [`GeoServer::ensure_postgis_store`] gives back, for a store whose parameters hold
    /// `dbtype` and `namespace`.
    ///
    /// # Errors
    ///
    /// When it cannot be computed.
    pub fn fingerprint(&self) -> Result<String> {
        Wanted { store: self, parameters: self.parameters.clone(), password: self.password.clone() }.fingerprint()
    }
}

impl GeoServer {
    /// Makes sure that a PostGIS store is there with exactly these parameters, and gives back the
    /// fingerprint of what GeoServer now has. The caller keeps it and hands it in as `last_pushed`
    /// the next time: GeoServer shows passwords only encrypted, so that reading cannot tell whether
    /// the password is the right one.
    ///
    /// Writing a store drops its connection pool; so it is written only when something differs. The
    /// fingerprint is a keyed hash (HMAC-SHA-256, the password being the key) and shows no parameter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`](crate::error::ErrorKind::GeoServer) when GeoServer refuses, as when a
    /// store of another kind has that name; [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable)
    /// and [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) as for every request. Whether the
    /// database can be reached is not found out here: GeoServer accepts any parameters.
    pub async fn ensure_postgis_store(
        &self,
        store: &PostgisStore,
        last_pushed: Option<&str>,
    ) -> Result<(Change, String)> {
        self.writer().await.ensure_store(store, last_pushed).await
    }
}

impl Writer<'_> {
    /// The data stores of a workspace.
    pub(super) async fn data_stores(&mut self, workspace: &GeoName) -> Result<Vec<GeoName>> {
        let list = path(&["workspaces", workspace.as_str(), "datastores"], "json");
        let doing = format!("list the stores of the workspace {workspace}");
        let document = self.server.find(&list, &doing).await?.unwrap_or_default();
        let names = json::names(&document["dataStores"]["dataStore"]);
        Ok(names.filter_map(|name| GeoName::new("store", name).ok()).collect())
    }

    /// Whether a data store reads `source`.
    pub(super) async fn reads(&mut self, workspace: &GeoName, store: &GeoName, source: Source<'_>) -> Result<bool> {
        let item = path(&["workspaces", workspace.as_str(), "datastores", store.as_str()], "json");
        let doing = format!("read the store {workspace}:{store}");
        let document = self.server.find(&format!("{item}?quietOnNotFound=true"), &doing).await?.unwrap_or_default();
        let shown = parameters(&document["dataStore"]);
        let is = |key: &str, value: &str| shown.get(key).is_some_and(|shown| shown == value);
        let Source { host, port, database, schema } = source;
        Ok(is("host", host) && is("port", port) && is("database", database) && is("schema", schema))
    }

    async fn ensure_store(&mut self, store: &PostgisStore, last_pushed: Option<&str>) -> Result<(Change, String)> {
        let key = (store.workspace.clone(), store.name.clone());
        let mut parameters = store.parameters.clone();
        parameters.entry("dbtype".into()).or_insert_with(|| "postgis".into());
        if !parameters.contains_key("namespace")
            && let Some(uri) = self.namespace(&store.workspace).await?
        {
            parameters.insert("namespace".into(), uri);
        }
        let password = match (&store.password, parameters.remove(PASSWORD_KEY)) {
            (Some(password), _) => Some(password.clone()),
            (None, inline) => inline.map(SecretString::from),
        };
        let wanted = Wanted { store, parameters, password };
        let fingerprint = wanted.fingerprint()?;
        if self.catalog.stores.get(&key) == Some(&fingerprint) {
            return Ok((Change::Unchanged, fingerprint));
        }
        let change = self.converge_store(&wanted, last_pushed == Some(fingerprint.as_str())).await?;
        self.catalog.stores.insert(key, fingerprint.clone());
        Ok((change, fingerprint))
    }

    async fn converge_store(&mut self, wanted: &Wanted<'_>, pushed_before: bool) -> Result<Change> {
        let (workspace, name) = (wanted.store.workspace.as_str(), wanted.store.name.as_str());
        let item = path(&["workspaces", workspace, "datastores", name], "json");
        let quiet = format!("{item}?quietOnNotFound=true");
        let doing = format!("read the store {workspace}:{name}");
        let mut current = self.server.find(&quiet, &doing).await?;
        if current.is_none() {
            let list = path(&["workspaces", workspace, "datastores"], "json");
            let answer = self.server.post(&list, &wanted.document()).await?;
            if answer.is_success() {
                self.catalog
                    .feature_types
                    .insert((wanted.store.workspace.clone(), wanted.store.name.clone()), BTreeSet::new());
                return Ok(Change::Created);
            }
            // Somebody else may have been faster.
            current = self.server.find(&quiet, &doing).await?;
            if current.is_none() {
                return Err(secrets::without_password(answer, wanted.password.as_ref())
                    .error(&format!("cannot create the store {workspace}:{name}"))
                    .hint(NAME_TAKEN));
            }
        }
        let current = current.unwrap_or_default();
        if pushed_before && !wanted.differs(&current["dataStore"]) {
            return Ok(Change::Unchanged);
        }
        let answer = self.server.put(&item, &wanted.document()).await?;
        secrets::without_password(answer, wanted.password.as_ref())
            .ok(&format!("update the store {workspace}:{name}"))?;
        Ok(Change::Updated)
    }
}

/// A store with all that is sent.
struct Wanted<'a> {
    store: &'a PostgisStore,
    parameters: BTreeMap<String, String>,
    password: Option<SecretString>,
}

impl Wanted<'_> {
    /// The document that creates or replaces the store. A PUT replaces the parameters as a whole, so
    /// that it carries all of them, the password too.
    fn document(&self) -> Value {
        let mut entries: Vec<Value> =
            self.parameters.iter().map(|(key, value)| json!({"@key": key, "$": value})).collect();
        if let Some(password) = &self.password {
            entries.push(json!({"@key": PASSWORD_KEY, "$": password.expose_secret()}));
        }
        json!({"dataStore": {
            "name": self.store.name.as_str(),
            "description": self.store.description.as_deref().unwrap_or(""),
            "type": "PostGIS",
            "enabled": true,
            "connectionParameters": {"entry": entries},
        }})
    }

    /// Whether what GeoServer shows is not what is wanted. Parameters that GeoServer has beyond the
    /// wanted ones do not count: saving a store in the web interface adds every default.
    fn differs(&self, current: &Value) -> bool {
        let shown = parameters(current);
        current["enabled"] == false
            || json::text(&current["type"]) != "PostGIS"
            || json::text(&current["description"]) != self.store.description.as_deref().unwrap_or("")
            || self.parameters.iter().any(|(key, value)| shown.get(key.as_str()) != Some(value))
            || self.password.is_some() != shown.contains_key(PASSWORD_KEY)
    }

    fn fingerprint(&self) -> Result<String> {
        let secret = self.password.as_ref().map_or("", |password| password.expose_secret());
        secrets::fingerprint(&format!("store:{secret}"), &json!([self.store.description, self.parameters]))
    }
}

/// The connection parameters that GeoServer shows of a store.
fn parameters(store: &Value) -> BTreeMap<&str, String> {
    let entries = json::many(&store["connectionParameters"]["entry"]).iter();
    entries.filter_map(|entry| Some((entry["@key"].as_str()?, json::text(entry)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(password: &str, host: &str) -> PostgisStore {
        PostgisStore {
            workspace: GeoName::workspace("kmi").unwrap(),
            name: GeoName::new("store", "kmi_ds").unwrap(),
            description: None,
            parameters: BTreeMap::from([("host".into(), host.into()), ("port".into(), "5432".into())]),
            password: Some(SecretString::from(password)),
        }
    }

    fn wanted(store: &PostgisStore) -> Wanted<'_> {
        Wanted { store, parameters: store.parameters.clone(), password: store.password.clone() }
    }

    #[test]
    fn the_fingerprint_tells_passwords_and_parameters_apart_and_shows_neither() {
        let fingerprint = |password: &str, host: &str| wanted(&store(password, host)).fingerprint().unwrap();
        assert_eq!(fingerprint("secret", "db"), fingerprint("secret", "db"));
        assert_ne!(fingerprint("secret", "db"), fingerprint("secret2", "db"));
        assert_ne!(fingerprint("secret", "db"), fingerprint("secret", "db2"));
        assert_eq!(fingerprint("", "db").len(), 64);
    }

    #[test]
    fn a_store_differs_by_what_is_told_and_not_by_what_geoserver_adds() {
        let store = store("secret", "db");
        let shown = |host: &str, enabled: bool| {
            json!({"type": "PostGIS", "enabled": enabled, "connectionParameters": {"entry": [
                {"@key": "host", "$": host}, {"@key": "port", "$": 5432},
                {"@key": "passwd", "$": "crypt1:xyz"}, {"@key": "Batch insert size", "$": "1"},
            ]}})
        };
        assert!(!wanted(&store).differs(&shown("db", true)));
        assert!(wanted(&store).differs(&shown("db2", true)));
        assert!(wanted(&store).differs(&shown("db", false)));
        assert!(wanted(&store).differs(&json!({"type": "PostGIS", "connectionParameters": ""})));
    }

    #[test]
    fn the_password_does_not_show() {
        let store = store("hunter2", "db");
        assert!(!format!("{store:?}").contains("hunter2"));
    }
}
