//! Upstream WMS servers and their layers.

use secrecy::SecretString;
use std::fmt;

use super::field::Fields;
use super::settings::{ConnectionParameters, GeoserverSetting};
use super::{Access, Description, Preview, Spatial};
use crate::error::Result;
use crate::name::GeoName;

/// An upstream WMS to publish as a store.
#[derive(Clone)]
pub struct WmsStoreJob {
    /// The workspace.
    pub workspace: GeoName,
    /// The store's name.
    pub name: GeoName,
    /// The address of the upstream's capabilities.
    pub capability_url: String,
    /// The user to sign in as, when the upstream wants one.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<SecretString>,
    /// Cache settings, and limits of the connection such as `max_connections`.
    pub geoserver_setting: GeoserverSetting,
    /// The members of the setting that are about the connection.
    pub connection: ConnectionParameters,
}

impl fmt::Debug for WmsStoreJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a user's password or an API key.
        let address = self.capability_url.split('?').next().unwrap_or_default();
        let host = address.rsplit_once('@').map_or(address, |(_, host)| host);
        f.debug_struct("WmsStoreJob")
            .field("workspace", &self.workspace)
            .field("name", &self.name)
            .field("capability_url", &host)
            .field("connection", &self.connection)
            .field("geoserver_setting", &self.geoserver_setting)
            .finish_non_exhaustive()
    }
}

impl WmsStoreJob {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let geoserver_setting = GeoserverSetting::read(fields)?;
        Ok(Self {
            workspace: fields.need_workspace()?,
            name: fields.need_geo("name", "store")?,
            capability_url: fields.need_text("capability_url")?,
            username: fields.text("username")?,
            password: fields.text("password")?.map(SecretString::from),
            connection: geoserver_setting.parameters(),
            geoserver_setting,
        })
    }
}

/// A layer of an upstream WMS.
#[derive(Debug, Clone)]
pub struct WmsLayerJob {
    /// The workspace.
    pub workspace: GeoName,
    /// The layer's name here.
    pub name: GeoName,
    /// The layer's name at the upstream, as it stands in its capabilities.
    pub native_name: String,
    /// The store that the layer belongs to.
    pub store: GeoName,
    /// The number of the publication, when the document has one.
    pub job_id: Option<i64>,
    /// Title, abstract and keywords.
    pub description: Description,
    /// Reference system and boxes.
    pub spatial: Spatial,
    /// Who may read.
    pub access: Access,
    /// Where the preview goes and what it can be drawn from.
    pub preview: Preview,
    /// Tile layer and cache settings.
    pub geoserver_setting: GeoserverSetting,
}

impl WmsLayerJob {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let name = fields.need_geo("name", "layer")?;
        Ok(Self {
            workspace: fields.need_workspace()?,
            native_name: fields.text("native_name")?.unwrap_or_else(|| name.to_string()),
            store: fields.need_geo("store", "store")?,
            job_id: fields.integer("job_id")?,
            description: Description::read(fields, name.as_str())?,
            spatial: Spatial::read(fields)?,
            access: Access::read(fields)?,
            preview: Preview::read(fields)?,
            geoserver_setting: GeoserverSetting::read(fields)?,
            name,
        })
    }
}
