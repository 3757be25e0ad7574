//! Removals, and the emptying of tile caches: jobs that need little more than names.

use super::feature::Database;
use super::field::Fields;
use super::settings::{ConnectionParameters, GeoserverSetting};
use super::style;
use super::{Job, JobFile, JobKind};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{GeoName, PgIdent};

/// A layer to remove with its styles and its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureRemoval {
    /// The workspace.
    pub workspace: GeoName,
    /// The layer's name.
    pub name: GeoName,
    /// Schemas and table.
    pub database: Database,
    /// GeoServer's names of the styles that the document knows of.
    pub styles: Vec<GeoName>,
    /// The connection parameters of the workspace's store that the document sets itself.
    pub connection: ConnectionParameters,
}

/// A store, a layer that is no feature, or a group to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What is removed.
    pub kind: JobKind,
    /// The workspace.
    pub workspace: GeoName,
    /// The name.
    pub name: GeoName,
    /// The store of a layer, when the document says it.
    pub store: Option<GeoName>,
    /// GeoServer's names of a live layer's styles that the document knows of.
    pub styles: Vec<GeoName>,
}

/// A layer or group whose tile cache is to be emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptyGwcJob {
    /// What has the tile cache.
    pub kind: JobKind,
    /// The workspace.
    pub workspace: GeoName,
    /// The name.
    pub name: GeoName,
}

impl FeatureRemoval {
    pub(super) fn read(file: &JobFile, fields: &Fields<'_>) -> Result<Self> {
        let (workspace, name) = names(file, fields)?;
        let table = PgIdent::new("name", name.as_str())?;
        let database = Database::read_or_derive(fields, &workspace, table)?;
        // What is unreadable about it does not hinder a removal.
        let setting = GeoserverSetting::read(fields).unwrap_or_default();
        let connection = ConnectionParameters::read(fields, &setting, false);
        Ok(Self { database, styles: styles(fields, &name), connection, workspace, name })
    }
}

impl Removal {
    pub(super) fn read(file: &JobFile, fields: &Fields<'_>) -> Result<Self> {
        let (workspace, name) = names(file, fields)?;
        let store = match file.kind {
            JobKind::WmsLayer => fields.geo("store", "store")?,
            JobKind::LiveLayer => fields.geo("datastore", "store")?,
            _ => None,
        };
        let styles = if file.kind == JobKind::LiveLayer { styles(fields, &name) } else { Vec::new() };
        Ok(Self { kind: file.kind, workspace, name, store, styles })
    }
}

impl EmptyGwcJob {
    pub(super) fn read(file: &JobFile, fields: &Fields<'_>) -> Result<Self> {
        let (workspace, name) = names(file, fields)?;
        Ok(Self { kind: file.kind, workspace, name })
    }
}

/// Workspace and name: of the document, else those that the file is named after.
fn names(file: &JobFile, fields: &Fields<'_>) -> Result<(GeoName, GeoName)> {
    let named_after = file.named_after();
    let derive = |field: &str, pick: fn((&str, &str)) -> String| {
        named_after.map(pick).ok_or_else(|| {
            Error::new(
                ErrorKind::Document,
                format!("the field `{field}` is missing, and the file is not named `<workspace>.<name>.json`"),
            )
            .subject(file.path.as_str())
            .hint("remove the layer by hand if it is still published, or publish and remove it again on the master")
        })
    };
    let workspace = match fields.get("workspace") {
        Some(field) => field.workspace()?,
        None => GeoName::workspace(derive("workspace", |(workspace, _)| workspace.to_owned())?)
            .map_err(|error| error.subject(file.path.as_str()))?,
    };
    let name = match fields.get("name") {
        Some(field) => field.geo("name")?,
        None => GeoName::new("name", derive("name", |(_, name)| name.to_owned())?)
            .map_err(|error| error.subject(file.path.as_str()))?,
    };
    Ok((workspace, name))
}

/// The styles that the document names; what is unreadable about them does not hinder a removal.
fn styles(fields: &Fields<'_>, layer: &GeoName) -> Vec<GeoName> {
    let styles = style::read(fields, layer).unwrap_or_default();
    styles.iter().map(|style| style.geoserver_name().clone()).collect()
}

/// What the organisation's roles are called in reports.
const ROLES_TASK: &str = "postgres and geoserver auth";

/// What access rules are called in reports.
const ACCESS_RULES_TASK: &str = "geoserver access rules";

impl JobFile {
    /// What the job is called in reports as far as the file's name tells, see [`Job::task_name`].
    #[must_use]
    pub fn task_name(&self) -> String {
        match (self.kind, self.named_after()) {
            (JobKind::Auth, _) => ROLES_TASK.to_owned(),
            (JobKind::AccessRules, _) => ACCESS_RULES_TASK.to_owned(),
            (JobKind::Workspace, _) | (_, None) => self.stem.clone(),
            (_, Some((workspace, name))) => format!("{workspace}:{name}"),
        }
    }
}

impl Job {
    /// The workspace and name that the job is about; none for access rules and roles, and a workspace has
    /// its own name only.
    #[must_use]
    pub fn workspace_and_name(&self) -> Option<(&GeoName, &GeoName)> {
        match self {
            Self::Feature(job) => Some((&job.workspace, &job.name)),
            Self::FeatureRemoval(job) => Some((&job.workspace, &job.name)),
            Self::WmsStore(job) => Some((&job.workspace, &job.name)),
            Self::WmsLayer(job) => Some((&job.workspace, &job.name)),
            Self::LiveStore(job) => Some((&job.workspace, &job.name)),
            Self::LiveLayer(job) => Some((&job.workspace, &job.name)),
            Self::LayerGroup(job) => Some((&job.workspace, &job.name)),
            Self::Removal(job) => Some((&job.workspace, &job.name)),
            Self::EmptyGwc(job) => Some((&job.workspace, &job.name)),
            Self::Workspace(_) | Self::AccessRules { .. } | Self::Auth { .. } => None,
        }
    }

    /// What the job is called in reports: `workspace:name`, the schema of a workspace, and fixed names for
    /// access rules and roles.
    #[must_use]
    pub fn task_name(&self) -> String {
        match (self, self.workspace_and_name()) {
            (_, Some((workspace, name))) => format!("{workspace}:{name}"),
            (Self::Workspace(job), _) => job.schema.to_string(),
            (Self::Auth { .. }, _) => ROLES_TASK.to_owned(),
            _ => ACCESS_RULES_TASK.to_owned(),
        }
    }
}
