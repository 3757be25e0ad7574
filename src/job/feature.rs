//! Features: tables that are restored from a dump and published as layers.

use super::document::FileRef;
use super::field::Fields;
use super::settings::{ConnectionParameters, GeoserverSetting};
use super::style::{self, StyleRef};
use super::{Access, Action, Description, JobFile, Preview, ServiceType, Spatial};
use crate::error::Result;
use crate::name::{GeoName, PgIdent};

/// The schemas of a workspace and the table of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Holds the view that GeoServer and people read.
    pub schema: PgIdent,
    /// Holds the table.
    pub data_schema: PgIdent,
    /// Where tables were once kept while they were replaced.
    pub outdated_schema: PgIdent,
    /// The table, and the view over it.
    pub table: PgIdent,
}

impl Database {
    /// Reads the schemas, each of which must be given.
    fn read(fields: &Fields<'_>, table: PgIdent) -> Result<Self> {
        Ok(Self {
            schema: fields.need_pg("schema")?,
            data_schema: fields.need_pg("data_schema")?,
            outdated_schema: fields.need_pg("outdated_schema")?,
            table,
        })
    }

    /// Reads the schemas; those that are not given follow from the workspace.
    pub(super) fn read_or_derive(fields: &Fields<'_>, workspace: &GeoName, table: PgIdent) -> Result<Self> {
        let schema = |name, ending| match fields.pg(name)? {
            Some(schema) => Ok(schema),
            None => PgIdent::new(name, format!("{workspace}{ending}")),
        };
        Ok(Self {
            schema: schema("schema", "")?,
            data_schema: schema("data_schema", "_data")?,
            outdated_schema: schema("outdated_schema", "_outdated")?,
            table,
        })
    }
}

/// A layer to publish, or whose metadata is to be brought up to date.
#[derive(Debug, Clone)]
pub struct FeatureJob {
    /// [`Action::Publish`] or [`Action::Meta`].
    pub action: Action,
    /// The workspace.
    pub workspace: GeoName,
    /// The layer's name.
    pub name: GeoName,
    /// The channel that the job file belongs to.
    pub channel: Option<String>,
    /// The number of the publication; always there when publishing.
    pub job_id: Option<i64>,
    /// The batch of the publication.
    pub job_batch_id: Option<String>,
    /// When the master published, as it wrote it.
    pub publish_time: Option<String>,
    /// Title, abstract and keywords.
    pub description: Description,
    /// The service for which the layer is published.
    pub service_type: ServiceType,
    /// Schemas and table.
    pub database: Database,
    /// The dump; always there when publishing with [`sync_postgres_data`](Self::sync_postgres_data).
    pub data: Option<FileRef>,
    /// The styles in the order of the document.
    pub styles: Vec<StyleRef>,
    /// Geometry, reference system and boxes.
    pub spatial: Spatial,
    /// The query of an SQL view, when the layer is one.
    pub viewsql: Option<String>,
    /// The relation that GeoServer reads, when it is not named as the layer.
    pub native_table: Option<PgIdent>,
    /// Who may read.
    pub access: Access,
    /// Whether the table is to be brought up to date.
    pub sync_postgres_data: bool,
    /// Whether GeoServer is to be brought up to date.
    pub sync_geoserver_data: bool,
    /// Where the preview goes and what it can be drawn from.
    pub preview: Preview,
    /// Tile layer and cache settings.
    pub geoserver_setting: GeoserverSetting,
    /// When the layer was published first, as the master wrote it.
    pub publication_date: Option<String>,
    /// When the layer was modified, as the master wrote it.
    pub modified: Option<String>,
    connection_overrides: ConnectionParameters,
}

impl FeatureJob {
    /// The connection parameters of the workspace's store that this job sets itself.
    #[must_use]
    pub fn connection_overrides(&self) -> &ConnectionParameters {
        &self.connection_overrides
    }

    pub(super) fn read(file: &JobFile, action: Action, fields: &Fields<'_>) -> Result<Self> {
        let publishing = action == Action::Publish;
        let workspace = fields.need_workspace()?;
        let name = fields.need_geo("name", "layer")?;
        let table = fields.need_pg("name")?;
        let sync_postgres_data = fields.boolean("sync_postgres_data")?.unwrap_or(true);
        let needs_data = publishing && sync_postgres_data;
        let job_id = fields.integer("job_id")?;
        if publishing && job_id.is_none() {
            return Err(fields.missing("job_id"));
        }
        let data = match fields.get("data") {
            Some(field) => Some(FileRef::read(&field)?),
            None => FileRef::read_old(fields, "dump_path", "data_md5")?,
        };
        if needs_data && data.is_none() {
            return Err(fields.missing("data"));
        }
        let geoserver_setting = GeoserverSetting::read(fields)?;
        Ok(Self {
            action,
            job_id,
            job_batch_id: fields.text("job_batch_id")?,
            publish_time: fields.text("publish_time")?,
            channel: file.channel.clone(),
            description: Description::read(fields, name.as_str())?,
            service_type: ServiceType::read(fields)?,
            database: if needs_data {
                Database::read(fields, table)?
            } else {
                Database::read_or_derive(fields, &workspace, table)?
            },
            data,
            styles: style::read(fields, &name)?,
            spatial: Spatial::read(fields)?,
            viewsql: fields.text("viewsql")?,
            native_table: fields.pg("table")?,
            access: Access::read(fields)?,
            sync_postgres_data,
            sync_geoserver_data: fields.boolean("sync_geoserver_data")?.unwrap_or(true),
            preview: Preview::read(fields)?,
            connection_overrides: ConnectionParameters::read(fields, &geoserver_setting, false),
            geoserver_setting,
            publication_date: fields.text("publication_date")?,
            modified: fields.text("modified")?,
            workspace,
            name,
        })
    }
}
