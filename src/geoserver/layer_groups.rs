//! Layer groups: several layers that are drawn as one.
//!
//! GeoServer is touchy about them: members can only be changed together with as many styles, empty
//! styles only in JSON, a member that is not there or a group that is not there is an internal error,
//! and the box is computed only on creation, wrongly when a member is empty.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::answer::Answer;
use super::catalog::Held;
use super::client::{GeoServer, Writer, path};
use super::extents::{self, Extent, WORLD, around, read_bounds, write_bounds};
use super::json;
use document::members;

/// A layer group as it is to be. It is drawn as a single layer, each member in its own default style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerGroup {
    /// The workspace it is in; that of all its members too.
    pub workspace: GeoName,
    /// Its name.
    pub name: GeoName,
    /// What people read first.
    pub title: String,
    /// What people read next; may be empty.
    pub abstract_text: String,
    /// The reference system to tell its box in, as in `EPSG:4326`. GeoServer does not transform that
    /// box: it is told in EPSG:4326 when this is neither geographic nor web mercator.
    pub srs: String,
    /// The members, the lowest first. At least one.
    pub members: Vec<Member>,
}

/// A member of a layer group: its workspace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A layer of whatever kind.
    Layer(GeoName, GeoName),
    /// Another layer group.
    Group(GeoName, GeoName),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(workspace, name) => write!(f, "{workspace}:{name}"),
            Self::Group(workspace, name) => write!(f, "the group {workspace}:{name}"),
        }
    }
}

/// A layer group as GeoServer answers it.
pub(super) enum Found {
    Absent,
    /// It is there, but refers to a style or member that is gone.
    Broken,
    Readable(Value),
}

impl Found {
    pub(super) fn document(&self) -> Option<&Value> {
        match self {
            Self::Readable(document) => Some(document),
            Self::Absent | Self::Broken => None,
        }
    }
}

impl GeoServer {
    /// Which of the members this GeoServer has. One or two requests per workspace and run, and one or two
    /// more per call where some are missing.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn existing_members(&self, members: &[Member]) -> Result<Vec<bool>> {
        let mut writer = self.writer().await;
        let mut found = Vec::with_capacity(members.len());
        let mut read = BTreeSet::new();
        for member in members {
            found.push(writer.has_member(member, &mut read).await?);
        }
        Ok(found)
    }

    /// Whether the list of a workspace's layers, or of its groups, has this one. One request per workspace,
    /// kind and run; unlike [`GeoServer::existing_members`], what another program makes meanwhile may be
    /// missed.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn lists(&self, member: &Member) -> Result<bool> {
        let mut writer = self.writer().await;
        Ok(match member {
            Member::Layer(workspace, name) => writer.layer_names(workspace).await?.contains(name.as_str()),
            Member::Group(workspace, name) => writer.groups(Some(workspace)).await?.contains_key(name.as_str()),
        })
    }

    /// Publishes a layer group, or brings it to what is told in place; one that is broken is repaired.
    /// All members must be there.
    ///
    /// Its box is made here, around the boxes that GeoServer shows for the members, nested groups
    /// included: GeoServer computes one only when it creates a group, never when members change, and
    /// takes empty layers for a place. Where no member has a place it is the world; and it does not
    /// shrink while a member cannot be read. Tiles outside of a group's box are refused.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Dependency`] when members are missing; [`ErrorKind::Document`] when there are
    /// none, or some are of other workspaces; [`ErrorKind::GeoServer`] when GeoServer refuses or does
    /// not take the group; [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request.
    pub async fn publish_layer_group(&self, wanted: &LayerGroup) -> Result<Change> {
        self.writer().await.publish_group(wanted).await
    }

    /// The layer groups of a layer's or group's workspace that show it, nested ones and those around them.
    /// Groups are read once per run.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn groups_that_show(&self, member: &Member) -> Result<Vec<GeoName>> {
        let workspace = member.workspace();
        let mut writer = self.writer().await;
        let mut found: Vec<GeoName> = Vec::new();
        let mut inside = vec![member.held()];
        while let Some(held) = inside.pop() {
            for name in writer.groups_that_hold(Some(workspace), |member| *member == held).await? {
                // A group may hold the layer in several ways.
                if let Ok(name) = GeoName::new("group", name)
                    && !found.contains(&name)
                {
                    inside.push(Held { is_group: true, label: format!("{workspace}:{name}") });
                    found.push(name);
                }
            }
        }
        Ok(found)
    }

    /// The layer groups of a layer's or group's workspace that have it as a member of their own. Groups are read
    /// once per run.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn groups_with_member(&self, member: &Member) -> Result<Vec<GeoName>> {
        let held = member.held();
        let names = self.writer().await.groups_that_hold(Some(member.workspace()), |member| *member == held).await?;
        Ok(names.into_iter().filter_map(|name| GeoName::new("group", name).ok()).collect())
    }

    /// Removes a layer group; its members stay. What is not there, is removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Dependency`] when it is in other groups, which are named;
    /// [`ErrorKind::GeoServer`] when GeoServer refuses; [`ErrorKind::Unreachable`] and
    /// [`ErrorKind::Denied`] as for every request.
    pub async fn remove_layer_group(&self, workspace: &GeoName, name: &GeoName) -> Result<Change> {
        self.writer().await.remove_group(workspace, name).await
    }
}

impl Writer<'_> {
    /// `read` holds the lists that were read while members were looked for: what they lack is not there.
    async fn has_member(&mut self, member: &Member, read: &mut BTreeSet<(bool, GeoName)>) -> Result<bool> {
        loop {
            let (is_group, workspace, is_known, found) = match member {
                Member::Layer(workspace, name) => {
                    let is_known = self.catalog.layer_names.contains_key(workspace);
                    (false, workspace, is_known, self.layer_names(workspace).await?.contains(name.as_str()))
                }
                Member::Group(workspace, name) => {
                    let place = Some(workspace.clone());
                    let is_known = self.catalog.groups.contains_key(&place);
                    (true, workspace, is_known, self.groups(place.as_ref()).await?.contains_key(name.as_str()))
                }
            };
            let list = (is_group, workspace.clone());
            if !is_known {
                read.insert(list.clone());
            }
            if found || !read.insert(list) {
                return Ok(found);
            }
            // What is remembered saves requests, but another's work must not look missing.
            if is_group {
                self.catalog.groups.remove(&Some(workspace.clone()));
            } else {
                self.catalog.layer_names.remove(workspace);
            }
        }
    }

    /// The names of a workspace's layers; none when there is no workspace.
    pub(super) async fn layer_names(&mut self, workspace: &GeoName) -> Result<&BTreeSet<String>> {
        if !self.catalog.layer_names.contains_key(workspace) {
            let list = path(&["workspaces", workspace.as_str(), "layers"], "json");
            let document = self.server.find(&list, &format!("list the layers of the workspace {workspace}")).await?;
            let names = json::names(&document.unwrap_or_default()["layers"]["layer"]).collect();
            self.catalog.layer_names.insert(workspace.clone(), names);
        }
        Ok(self.catalog.layer_names.entry(workspace.clone()).or_default())
    }

    /// The layer groups of a workspace, or the global ones; none when there is no workspace.
    async fn groups(&mut self, workspace: Option<&GeoName>) -> Result<&mut BTreeMap<String, Option<Vec<Held>>>> {
        let place = workspace.cloned();
        if !self.catalog.groups.contains_key(&place) {
            let list = match workspace {
                Some(workspace) => path(&["workspaces", workspace.as_str(), "layergroups"], "json"),
                None => path(&["layergroups"], "json"),
            };
            let document = self.server.find(&list, "list the layer groups").await?.unwrap_or_default();
            let groups = json::names(&document["layerGroups"]["layerGroup"]).map(|name| (name, None)).collect();
            self.catalog.groups.insert(place.clone(), groups);
        }
        Ok(self.catalog.groups.entry(place).or_default())
    }

    /// Reads a group, and remembers its members.
    pub(super) async fn read_group(&mut self, workspace: Option<&GeoName>, name: &str) -> Result<Found> {
        let answer = self.server.get(&format!("{}?quietOnNotFound=true", item(workspace, name))).await?;
        let found = if answer.is_missing() {
            Found::Absent
        } else if answer.status.is_server_error() {
            // `Unable to marshal reference with no id or name`.
            Found::Broken
        } else {
            Found::Readable(answer.json(&format!("read the layer group {name}"))?["layerGroup"].take())
        };
        let members = found.document().map(members);
        if let Some(groups) = self.catalog.groups.get_mut(&workspace.cloned()) {
            match &found {
                Found::Absent => drop(groups.remove(name)),
                Found::Broken | Found::Readable(_) => drop(groups.insert(name.to_owned(), members)),
            }
        }
        Ok(found)
    }

    /// The members of a group, read once. None when there is no such group, and none inside when it
    /// is broken.
    pub(super) async fn group_members(
        &mut self,
        workspace: Option<&GeoName>,
        name: &str,
    ) -> Result<Option<Option<Vec<Held>>>> {
        if let Some(Some(Some(members))) =
            self.catalog.groups.get(&workspace.cloned()).map(|groups| groups.get(name).cloned())
        {
            return Ok(Some(Some(members)));
        }
        Ok(match self.read_group(workspace, name).await? {
            Found::Absent => None,
            found => Some(found.document().map(members)),
        })
    }

    /// The layer groups of a workspace, or the global ones, that hold something; every group is read
    /// once in a run. Broken ones do not tell.
    pub(super) async fn groups_that_hold(
        &mut self,
        workspace: Option<&GeoName>,
        is_it: impl Fn(&Held) -> bool,
    ) -> Result<Vec<String>> {
        let mut holding = Vec::new();
        let names: Vec<String> = self.groups(workspace).await?.keys().cloned().collect();
        for name in names {
            let Some(Some(members)) = self.group_members(workspace, &name).await? else { continue };
            if members.iter().any(&is_it) {
                holding.push(name);
            }
        }
        Ok(holding)
    }

    async fn publish_group(&mut self, wanted: &LayerGroup) -> Result<Change> {
        wanted.check()?;
        let place = Some(&wanted.workspace);
        let label = format!("{}:{}", wanted.workspace, wanted.name);
        let mut refused: Option<Answer> = None;
        // A second round is needed only when somebody else changes the catalog meanwhile.
        for _ in 0..2 {
            let listed = self.groups(place).await?.contains_key(wanted.name.as_str());
            let found = if listed { self.read_group(place, wanted.name.as_str()).await? } else { Found::Absent };
            let bounds = self.group_bounds(wanted, &found).await?;
            if found.document().is_some_and(|current| wanted.is(current, bounds.as_ref())) {
                return Ok(Change::Unchanged);
            }
            let (answer, change) = match found {
                Found::Absent => {
                    let list = path(&["workspaces", wanted.workspace.as_str(), "layergroups"], "json");
                    (self.server.post(&list, &wanted.document(true, bounds.as_ref())).await?, Change::Created)
                }
                Found::Broken | Found::Readable(_) => {
                    let document = wanted.document(false, bounds.as_ref());
                    (self.server.put(&item(place, wanted.name.as_str()), &document).await?, Change::Updated)
                }
            };
            if answer.is_success() {
                if change == Change::Created {
                    self.catalog.tile_layer_unsure(&wanted.workspace, &wanted.name);
                    self.groups(place).await?.insert(wanted.name.as_str().to_owned(), None);
                }
                // GeoServer answers 200 also to what breaks a group.
                let shown = self.read_group(place, wanted.name.as_str()).await?;
                if shown.document().is_some_and(|shown| wanted.is(shown, bounds.as_ref())) {
                    return Ok(change);
                }
                return Err(Error::new(ErrorKind::GeoServer, "GeoServer has not taken the layer group as it was told")
                    .subject(format!("{} {label}", self.server.name()))
                    .hint("another program or person may be changing the same group; run again"));
            }
            self.catalog.groups.remove(&Some(wanted.workspace.clone()));
            self.forget_members(wanted);
            refused = Some(answer);
        }
        let doing = format!("cannot publish the layer group {label}");
        Err(refused.map_or_else(|| Error::new(ErrorKind::Bug, doing.as_str()), |answer| answer.error(&doing)))
    }

    /// What is remembered of the members may be the reason of a refusal.
    fn forget_members(&mut self, wanted: &LayerGroup) {
        for member in &wanted.members {
            if let Member::Layer(workspace, layer) = member {
                self.catalog.layer_changed(workspace, layer);
                self.catalog.layer_names.remove(workspace);
            }
        }
    }

    /// The box to tell; none to leave the one that a group has.
    async fn group_bounds(&mut self, wanted: &LayerGroup, found: &Found) -> Result<Option<Value>> {
        let mut whole = Extent::Nowhere;
        let mut unreadable = false;
        let mut missing = Vec::new();
        for member in &wanted.members {
            // A loop ends at the group itself; GeoServer then says so.
            let mut seen = BTreeSet::from([format!("{}:{}", wanted.workspace, wanted.name)]);
            let extent = self.member_extent(&member.held(), &mut seen).await?;
            match extent {
                Extent::Missing => missing.push(member.to_string()),
                Extent::Unreadable => unreadable = true,
                Extent::Nowhere | Extent::Box(_) => {}
            }
            whole = whole.and(extent);
        }
        if !missing.is_empty() {
            return Err(Error::new(
                ErrorKind::Dependency,
                format!("members of the layer group are not on this GeoServer: {}", missing.join(", ")),
            )
            .subject(format!("{} {}:{}", self.server.name(), wanted.workspace, wanted.name))
            .hint(
                "they must be published before the group: `borg-slave status` shows whether their jobs have failed",
            ));
        }
        let current = found.document().map(|document| &document["bounds"]);
        let known = match whole {
            Extent::Box(known) => Some(known),
            _ => None,
        };
        let rectangle = match (known, unreadable, current) {
            (Some(known), false, _) => known,
            (Some(known), true, Some(current)) => match read_bounds(current) {
                Some(current) => around(known, current),
                None => return Ok(None),
            },
            (Some(known), true, None) => known,
            (None, true, Some(current)) if extents::read(current).is_some() => return Ok(None),
            (None, ..) => WORLD,
        };
        Ok(Some(write_bounds(rectangle, &wanted.srs)))
    }

    async fn remove_group(&mut self, workspace: &GeoName, name: &GeoName) -> Result<Change> {
        // GeoServer answers 500 to the removal of what is not there.
        if !self.groups(Some(workspace)).await?.contains_key(name.as_str()) {
            return Ok(Change::Unchanged);
        }
        let label = format!("{workspace}:{name}");
        let held = Held { is_group: true, label: label.clone() };
        // Asked first: GeoServer has been seen to delete a nested group and leave the outer one broken.
        let mut names = self.groups_that_hold(Some(workspace), |other| *other == held).await?;
        names.extend(self.groups_that_hold(None, |other| *other == held).await?);
        if !names.is_empty() {
            return Err(Error::new(
                ErrorKind::Dependency,
                format!("the layer group is in other layer groups: {}", names.join(", ")),
            )
            .subject(format!("{} {label}", self.server.name()))
            .hint("remove those groups or take this one out of them first, on the master"));
        }
        let answer = self.server.delete(&item(Some(workspace), name.as_str())).await?;
        let mut change = Change::Updated;
        if !answer.is_success() {
            // Somebody else may have been faster.
            if !matches!(self.read_group(Some(workspace), name.as_str()).await?, Found::Absent) {
                return Err(answer.error(&format!("cannot remove the layer group {label}")));
            }
            change = Change::Unchanged;
        }
        self.groups(Some(workspace)).await?.remove(name.as_str());
        self.catalog.tile_layer_unsure(workspace, name);
        Ok(change)
    }
}

pub(super) fn item(workspace: Option<&GeoName>, name: &str) -> String {
    match workspace {
        Some(workspace) => path(&["workspaces", workspace.as_str(), "layergroups", name], "json"),
        None => path(&["layergroups", name], "json"),
    }
}
