//! Groups of layers.

use super::Description;
use super::describe::read_crs;
use super::field::{Field, Fields};
use super::settings::GeoserverSetting;
use crate::error::Result;
use crate::name::GeoName;

/// A group to publish.
#[derive(Debug, Clone)]
pub struct LayerGroupJob {
    /// The workspace.
    pub workspace: GeoName,
    /// The group's name.
    pub name: GeoName,
    /// Title, abstract and keywords.
    pub description: Description,
    /// The reference system of the group's box, as `EPSG:n`.
    pub srs: String,
    /// The members, the lowest first, as in the document. At least one.
    pub members: Vec<GroupMember>,
    /// Groups that must be published before this one.
    pub dependent_groups: Vec<GroupRef>,
    /// Tile layer and cache settings.
    pub geoserver_setting: GeoserverSetting,
}

/// What a member of a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// A layer of an upstream WMS (`wms_layer`).
    WmsLayer,
    /// A feature layer (`publish`).
    Feature,
    /// Another group (`group`).
    Group,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// What it is.
    pub kind: MemberKind,
    /// Its workspace.
    pub workspace: GeoName,
    /// Its name.
    pub name: GeoName,
    /// The store of a WMS layer, when the document says it.
    pub store: Option<GeoName>,
}

/// Another group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupRef {
    /// Its workspace.
    pub workspace: GeoName,
    /// Its name.
    pub name: GeoName,
}

impl LayerGroupJob {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let name = fields.need_geo("name", "group")?;
        let list = fields.need("layers")?;
        let members = list.list()?.iter().map(GroupMember::read).collect::<Result<Vec<_>>>()?;
        if members.is_empty() {
            return Err(list.refuse("is empty: GeoServer refuses a group without members"));
        }
        let dependent_groups = match fields.get("dependent_groups") {
            Some(field) => field.list()?.iter().map(GroupRef::read).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Self {
            workspace: fields.need_workspace()?,
            description: Description::read(fields, name.as_str())?,
            srs: read_crs(fields, "srs")?.ok_or_else(|| fields.missing("srs"))?,
            members,
            dependent_groups,
            geoserver_setting: GeoserverSetting::read(fields)?,
            name,
        })
    }
}

impl GroupMember {
    fn read(field: &Field<'_>) -> Result<Self> {
        let word = field.need("type")?;
        let kind = match word.text()?.as_str() {
            "wms_layer" => MemberKind::WmsLayer,
            "publish" => MemberKind::Feature,
            "group" => MemberKind::Group,
            _ => return Err(word.refuse("names no type of member, which are: wms_layer, publish, group")),
        };
        let store = field.get("store")?.filter(|store| store.value() != "");
        Ok(Self {
            kind,
            workspace: field.need("workspace")?.workspace()?,
            name: field.need("name")?.geo("member")?,
            store: store.map(|store| store.geo("store")).transpose()?,
        })
    }
}

impl GroupRef {
    fn read(field: &Field<'_>) -> Result<Self> {
        Ok(Self { workspace: field.need("workspace")?.workspace()?, name: field.need("name")?.geo("group")? })
    }
}
