//! Live stores and layers: databases that GeoServer reads itself.

use secrecy::SecretString;

use super::field::Fields;
use super::settings::{ConnectionParameters, GeoserverSetting};
use super::style::{self, StyleRef};
use super::{Access, Description, Preview, ServiceType, Spatial};
use crate::error::Result;
use crate::name::{GeoName, PgIdent};

/// A database to publish as a store.
#[derive(Debug, Clone)]
pub struct LiveStoreJob {
    /// The workspace.
    pub workspace: GeoName,
    /// The store's name.
    pub name: GeoName,
    /// The database server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The schema that the store shows.
    pub schema: PgIdent,
    /// The user to sign in as.
    pub user: String,
    /// That user's password; none when the server wants none.
    pub passwd: Option<SecretString>,
    /// Cache settings and connection parameters as the document has them.
    pub geoserver_setting: GeoserverSetting,
    connection: ConnectionParameters,
}

impl LiveStoreJob {
    /// All connection parameters that the job gives, those of the fields above among them.
    #[must_use]
    pub fn connection(&self) -> &ConnectionParameters {
        &self.connection
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let geoserver_setting = GeoserverSetting::read(fields)?;
        let port = fields.need("port")?;
        let port = u16::try_from(port.integer()?)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| port.refuse("is no port, expected 1 to 65535"))?;
        Ok(Self {
            workspace: fields.need_workspace()?,
            name: fields.need_geo("name", "store")?,
            host: fields.need_text("host")?,
            port,
            database: fields.need_text("database")?,
            schema: fields.need_pg("schema")?,
            user: fields.need_text("user")?,
            passwd: fields.text("passwd")?.map(SecretString::from),
            connection: ConnectionParameters::read(fields, &geoserver_setting, true),
            geoserver_setting,
        })
    }
}

/// A table of a live store to publish as a layer.
#[derive(Debug, Clone)]
pub struct LiveLayerJob {
    /// The workspace.
    pub workspace: GeoName,
    /// The layer's name.
    pub name: GeoName,
    /// The live store that the layer belongs to.
    pub datastore: GeoName,
    /// The relation that GeoServer reads; the layer's name when the document has none.
    pub table: PgIdent,
    /// The number of the publication, when the document has one.
    pub job_id: Option<i64>,
    /// Title, abstract and keywords.
    pub description: Description,
    /// The service for which the layer is published.
    pub service_type: ServiceType,
    /// The styles in the order of the document.
    pub styles: Vec<StyleRef>,
    /// Geometry, reference system and boxes.
    pub spatial: Spatial,
    /// The query of an SQL view, when the layer is one.
    pub viewsql: Option<String>,
    /// Who may read.
    pub access: Access,
    /// Where the preview goes and what it can be drawn from.
    pub preview: Preview,
    /// Tile layer and cache settings.
    pub geoserver_setting: GeoserverSetting,
}

impl LiveLayerJob {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let name = fields.need_geo("name", "layer")?;
        Ok(Self {
            workspace: fields.need_workspace()?,
            datastore: fields.need_geo("datastore", "store")?,
            table: match fields.pg("table")? {
                Some(table) => table,
                None => fields.need_pg("name")?,
            },
            job_id: fields.integer("job_id")?,
            description: Description::read(fields, name.as_str())?,
            service_type: ServiceType::read(fields)?,
            styles: style::read(fields, &name)?,
            spatial: Spatial::read(fields)?,
            viewsql: fields.text("viewsql")?,
            access: Access::read(fields)?,
            preview: Preview::read(fields)?,
            geoserver_setting: GeoserverSetting::read(fields)?,
            name,
        })
    }
}
