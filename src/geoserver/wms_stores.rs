//! Stores of other servers' WMS.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::name::GeoName;

use super::Change;
use super::client::{GeoServer, Writer, path};
use super::json;
use super::secrets;
use super::stores::NAME_TAKEN;

/// What GeoServer sets where a new store does not say anything else.
const MAX_CONNECTIONS: u32 = 6;
const READ_TIMEOUT: u32 = 60;
const CONNECT_TIMEOUT: u32 = 30;

/// A store of an upstream WMS as it is to be.
#[derive(Clone)]
pub struct WmsStore {
    /// The workspace it is in.
    pub workspace: GeoName,
    /// Its name.
    pub name: GeoName,
    /// The address of the upstream's capabilities. May hold an API key.
    pub capabilities_url: String,
    /// The user to sign in as, when the upstream wants one.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<SecretString>,
    /// Connections to the upstream at a time; 6 when nothing is said.
    pub max_connections: Option<u32>,
    /// How many seconds GeoServer waits for an answer; 60 when nothing is said.
    pub read_timeout: Option<u32>,
    /// How many seconds GeoServer waits for a connection; 30 when nothing is said.
    pub connect_timeout: Option<u32>,
}

impl fmt::Debug for WmsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WmsStore")
            .field("workspace", &self.workspace.as_str())
            .field("name", &self.name.as_str())
            .field("capabilities_url", &secrets::bare_address(&self.capabilities_url))
            .finish_non_exhaustive()
    }
}

impl WmsStore {
    /// The fingerprint that [`GeoServer::ensure_wms_store`] gives back.
    ///
    /// # Errors
    ///
    /// When it cannot be computed.
    pub fn fingerprint(&self) -> Result<String> {
        fingerprint(self)
    }
}

impl GeoServer {
    /// Makes sure that a WMS store is there as told, and gives back the fingerprint of what GeoServer
    /// now has. The caller keeps it and hands it in as `last_pushed` the next time: GeoServer shows
    /// passwords only encrypted.
    ///
    /// Only what differs is written, because with every write GeoServer forgets the upstream's
    /// capabilities. The fingerprint is a keyed hash (HMAC-SHA-256; password and address are the key)
    /// and shows nothing of either.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`](crate::error::ErrorKind::GeoServer) when GeoServer refuses, as when a
    /// store of another kind has that name; [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable)
    /// and [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) as for every request. Whether the
    /// upstream can be reached is not found out here: GeoServer does not ask it before the first layer.
    pub async fn ensure_wms_store(&self, store: &WmsStore, last_pushed: Option<&str>) -> Result<(Change, String)> {
        self.writer().await.ensure_wms_store(store, last_pushed).await
    }

    /// The address of a store's capabilities and the user that signs in there; None when there is no such
    /// store. The password GeoServer keeps to itself.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn wms_store_address(
        &self,
        workspace: &GeoName,
        store: &GeoName,
    ) -> Result<Option<(String, Option<String>)>> {
        let item = path(&["workspaces", workspace.as_str(), "wmsstores", store.as_str()], "json");
        let doing = format!("read the store {workspace}:{store}");
        let found = self.find(&format!("{item}?quietOnNotFound=true"), &doing).await?;
        Ok(found.map(|document| {
            let text = |key: &str| json::text(&document["wmsStore"][key]);
            (text("capabilitiesURL"), Some(text("user")).filter(|user| !user.is_empty()))
        }))
    }

    /// Makes GeoServer ask the upstream for its capabilities again, the next time it needs them. It
    /// reads them once and does not see what the upstream adds later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`](crate::error::ErrorKind::GeoServer) when the store is not there;
    /// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable) and
    /// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) as for every request.
    pub async fn refresh_wms_store(&self, workspace: &GeoName, store: &GeoName) -> Result<()> {
        let writer = self.writer().await;
        writer.refresh_wms_store(workspace, store).await
    }
}

impl Writer<'_> {
    async fn ensure_wms_store(&mut self, store: &WmsStore, last_pushed: Option<&str>) -> Result<(Change, String)> {
        let key = (store.workspace.clone(), store.name.clone());
        let fingerprint = fingerprint(store)?;
        if self.catalog.stores.get(&key) == Some(&fingerprint) {
            return Ok((Change::Unchanged, fingerprint));
        }
        let change = self.converge_wms_store(store, last_pushed == Some(fingerprint.as_str())).await?;
        self.catalog.stores.insert(key, fingerprint.clone());
        Ok((change, fingerprint))
    }

    async fn converge_wms_store(&mut self, store: &WmsStore, pushed_before: bool) -> Result<Change> {
        let (workspace, name) = (store.workspace.as_str(), store.name.as_str());
        let item = path(&["workspaces", workspace, "wmsstores", name], "json");
        let quiet = format!("{item}?quietOnNotFound=true");
        let doing = format!("read the store {workspace}:{name}");
        let mut current = self.server.find(&quiet, &doing).await?;
        if current.is_none() {
            let mut fields = differing(&Value::Null, store, false);
            fields.insert("name".into(), json!(name));
            fields.insert("type".into(), json!("WMS"));
            let list = path(&["workspaces", workspace, "wmsstores"], "json");
            let answer = self.server.post(&list, &json!({"wmsStore": fields})).await?;
            if answer.is_success() {
                return Ok(Change::Created);
            }
            // Somebody else may have been faster.
            current = self.server.find(&quiet, &doing).await?;
            if current.is_none() {
                return Err(secrets::without_addresses(secrets::without_password(answer, store.password.as_ref()))
                    .error(&format!("cannot create the store {workspace}:{name}"))
                    .hint(NAME_TAKEN));
            }
        }
        let fields = differing(&current.unwrap_or_default()["wmsStore"], store, pushed_before);
        if fields.is_empty() {
            return Ok(Change::Unchanged);
        }
        // GeoServer keeps what is not told.
        let answer = self.server.put(&item, &json!({"wmsStore": fields})).await?;
        secrets::without_addresses(secrets::without_password(answer, store.password.as_ref()))
            .ok(&format!("update the store {workspace}:{name}"))?;
        Ok(Change::Updated)
    }

    pub(super) async fn refresh_wms_store(&self, workspace: &GeoName, store: &GeoName) -> Result<()> {
        let item = path(&["workspaces", workspace.as_str(), "wmsstores", store.as_str()], "json");
        let doing = format!("have the capabilities of the store {workspace}:{store} read again");
        self.server.put(&item, &json!({"wmsStore": {}})).await?.ok(&doing).map(|_| ())
    }
}

/// The fields to write for `current`, GeoServer's answer, to be as wanted.
fn differing(current: &Value, store: &WmsStore, pushed_before: bool) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, wanted: Value| {
        fields.insert(key.to_owned(), wanted);
    };
    if current["enabled"] != true {
        put("enabled", json!(true));
    }
    let user = store.username.as_deref().unwrap_or_default();
    for (key, wanted) in [("capabilitiesURL", store.capabilities_url.as_str()), ("user", user)] {
        if json::text(&current[key]) != wanted {
            put(key, json!(wanted));
        }
    }
    for (key, wanted) in [
        ("maxConnections", store.max_connections.unwrap_or(MAX_CONNECTIONS)),
        ("readTimeout", store.read_timeout.unwrap_or(READ_TIMEOUT)),
        ("connectTimeout", store.connect_timeout.unwrap_or(CONNECT_TIMEOUT)),
    ] {
        if json::text(&current[key]) != wanted.to_string() {
            put(key, json!(wanted));
        }
    }
    // Without a user GeoServer sends no password, whichever it has; and an empty one is shown encrypted.
    let password = store.password.as_ref().map_or("", |password| password.expose_secret());
    let has_none = current["password"].is_null();
    if !user.is_empty() && (!pushed_before || fields.contains_key("user") || (has_none && !password.is_empty())) {
        fields.insert("password".to_owned(), json!(password));
    } else if user.is_empty() && fields.contains_key("user") {
        fields.insert("password".to_owned(), json!(""));
    }
    fields
}

fn fingerprint(store: &WmsStore) -> Result<String> {
    let secret = store.password.as_ref().map_or("", |password| password.expose_secret());
    // The address may hold an API key.
    let key = json!([secret, store.capabilities_url]).to_string();
    let limits = [store.max_connections, store.read_timeout, store.connect_timeout];
    secrets::fingerprint(&format!("wms store:{key}"), &json!([store.username, limits]))
}
