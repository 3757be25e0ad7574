//! Workspaces: schemas and the roles that may read them.

use super::field::Fields;
use super::{Access, JobFile};
use crate::error::Result;
use crate::name::PgIdent;

/// The schemas of a workspace, and who may read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceJob {
    /// The workspace's name: `workspace` or `name` of the document, else the file's.
    pub name: String,
    /// Holds the views that GeoServer and people read.
    pub schema: PgIdent,
    /// Holds the tables.
    pub data_schema: PgIdent,
    /// Where tables were once kept while they were replaced.
    pub outdated_schema: PgIdent,
    /// Who may read; always stated.
    pub access: Access,
}

impl WorkspaceJob {
    pub(super) fn read(file: &JobFile, fields: &Fields<'_>) -> Result<Self> {
        let access = Access::read(fields)?;
        if !access.is_stated {
            return Err(fields.missing("auth_level"));
        }
        let name = match fields.text("workspace")? {
            Some(name) => Some(name),
            None => fields.text("name")?,
        };
        Ok(Self {
            name: name.unwrap_or_else(|| file.stem.clone()),
            schema: fields.need_pg("schema")?,
            data_schema: fields.need_pg("data_schema")?,
            outdated_schema: fields.need_pg("outdated_schema")?,
            access,
        })
    }
}
