//! Removal of what others hold: layers that are in layer groups, and stores with all their layers.
//!
//! GeoServer refuses to delete a resource whose layer is in a group. Its recursive deletions are no
//! way out: that of a cascaded layer may leave a group behind that holds what is gone, that of a store
//! takes some layers out of their groups before it refuses, and both delete a group that they take
//! the last layer from. So layers are taken out of their groups here, before anything is deleted.
//!
//! It also deletes one after the other a layer, the access rules of the layer, and the feature type.
//! In between WFS serves the type to whom the next wider rule lets in: clients that asked without a
//! pause got features in 2.26 and 2.18. It serves none that is disabled; so a type whose layer has
//! rules of its own is disabled before it is deleted.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::client::{GeoServer, Writer, path};
use super::json;
use super::layer_groups::item;

/// Which kind a store is of. Stores of all kinds share their names within a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// A PostGIS or other data store, which holds feature types.
    Data,
    /// Another server's WMS, which holds cascaded layers.
    Wms,
}

impl StoreKind {
    fn stores(self) -> &'static str {
        match self {
            Self::Data => "datastores",
            Self::Wms => "wmsstores",
        }
    }

    fn resources(self) -> &'static str {
        match self {
            Self::Data => "featuretypes",
            Self::Wms => "wmslayers",
        }
    }
}

/// A member of a group and its style, as they are told to GeoServer.
pub(super) type ToldMember = (Value, Value);

/// A layer group that holds some of the layers that are to go.
pub(super) struct Group {
    pub(super) workspace: Option<GeoName>,
    pub(super) name: String,
    /// All members.
    pub(super) before: Vec<ToldMember>,
    /// Those that stay.
    after: Vec<ToldMember>,
}

impl GeoServer {
    /// Removes a store and all layers that it holds, with their tile layers and access rules. A store
    /// that is not there, is removed. Styles stay.
    ///
    /// Layers that are in layer groups are taken out of them. But GeoServer deletes a group that it
    /// takes the last layer from; so that is an error here, which names the groups, and nothing is
    /// removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses or a layer group would be left empty;
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request.
    pub async fn remove_store(&self, kind: StoreKind, workspace: &GeoName, store: &GeoName) -> Result<Change> {
        self.writer().await.remove_store(kind, workspace, store).await
    }

    /// The layers that a store holds; none where there is no store.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn layers_of_store(&self, kind: StoreKind, workspace: &GeoName, store: &GeoName) -> Result<Vec<GeoName>> {
        let mut writer = self.writer().await;
        if !writer.has_store(kind, workspace, store).await? {
            return Ok(Vec::new());
        }
        let names = writer.layers_of(kind, workspace, store).await?.into_iter();
        Ok(names.filter_map(|name| GeoName::new("layer", name).ok()).collect())
    }
}

impl Writer<'_> {
    async fn remove_store(&mut self, kind: StoreKind, workspace: &GeoName, store: &GeoName) -> Result<Change> {
        let key = (workspace.clone(), store.clone());
        self.catalog.stores.remove(&key);
        self.catalog.feature_types.remove(&key);
        let item = path(&["workspaces", workspace.as_str(), kind.stores(), store.as_str()], "json");
        if !self.has_store(kind, workspace, store).await? {
            return Ok(Change::Unchanged);
        }
        let layers = self.layers_of(kind, workspace, store).await?;
        self.take_out_of_groups(workspace, &layers, &format!("the store {workspace}:{store}")).await?;
        let mut closed = Vec::new();
        let deleted = async {
            if kind == StoreKind::Data {
                for layer in &layers {
                    closed.extend(self.close_type(workspace, store, layer).await?);
                }
            }
            let answer = self.server.delete(&format!("{item}?recurse=true")).await?;
            if answer.is_missing() {
                Ok(())
            } else {
                answer.ok(&format!("remove the store {workspace}:{store}")).map(|_| ())
            }
        }
        .await;
        if let Err(error) = deleted {
            for address in closed {
                self.open_type(&address).await;
            }
            return Err(error);
        }
        for layer in &layers {
            if let Ok(layer) = GeoName::new("layer", layer.as_str()) {
                self.catalog.layer_gone(workspace, &layer);
            }
        }
        self.catalog.layers.retain(|(place, layer), _| place != workspace || !layers.contains(layer.as_str()));
        Ok(Change::Updated)
    }

    /// Asked before its layers are: the list of those of a store that is not there would answer 500.
    async fn has_store(&mut self, kind: StoreKind, workspace: &GeoName, store: &GeoName) -> Result<bool> {
        let item = path(&["workspaces", workspace.as_str(), kind.stores(), store.as_str()], "json");
        let doing = format!("read the store {workspace}:{store}");
        Ok(self.server.find(&format!("{item}?quietOnNotFound=true"), &doing).await?.is_some())
    }

    async fn layers_of(&mut self, kind: StoreKind, workspace: &GeoName, store: &GeoName) -> Result<BTreeSet<String>> {
        let list = path(&["workspaces", workspace.as_str(), kind.stores(), store.as_str(), kind.resources()], "json");
        let doing = format!("list the layers of the store {workspace}:{store}");
        let document = self.server.find(&list, &doing).await?.unwrap_or_default();
        let list = match kind {
            StoreKind::Data => &document["featureTypes"]["featureType"],
            StoreKind::Wms => &document["wmsLayers"]["wmsLayer"],
        };
        Ok(json::names(list).collect())
    }

    /// Disables a type whose layer has access rules of its own, before it is deleted. Gives its address
    /// when it was enabled: when the deletion fails, it is to be opened again.
    pub(super) async fn close_type(
        &mut self,
        workspace: &GeoName,
        store: &GeoName,
        layer: &str,
    ) -> Result<Option<String>> {
        if !self.has_rules_of_its_own(workspace.as_str(), layer).await? {
            return Ok(None);
        }
        let segments = ["workspaces", workspace.as_str(), "datastores", store.as_str(), "featuretypes", layer];
        let address = path(&segments, "json");
        // Answers an error when its columns cannot be read; then WFS has nothing to serve.
        let answer = self.server.get(&format!("{address}?quietOnNotFound=true")).await?;
        if !answer.is_success() {
            return Ok(None);
        }
        let doing = format!("close the layer {workspace}:{layer} before it is removed");
        if answer.json(&doing)?["featureType"]["enabled"] == false {
            return Ok(None);
        }
        self.server.put(&address, &json!({"featureType": {"enabled": false}})).await?.ok(&doing)?;
        Ok(Some(address))
    }

    /// Enables a type that is not deleted after all. Whoever calls has an error to tell already.
    pub(super) async fn open_type(&mut self, address: &str) {
        let opened = self.server.put(address, &json!({"featureType": {"enabled": true}})).await;
        if let Err(error) = opened.and_then(|answer| answer.ok("open the layer that was not removed").map(|_| ())) {
            tracing::warn!(reason = %error.one_line(), "a layer that was to be removed stays disabled");
        }
    }

    /// Takes a layer out of its groups; tells whether it was in any.
    pub(super) async fn take_layer_out_of_groups(&mut self, workspace: &GeoName, layer: &GeoName) -> Result<bool> {
        let layers = BTreeSet::from([layer.to_string()]);
        self.take_out_of_groups(workspace, &layers, &format!("the layer {workspace}:{layer}")).await
    }

    async fn take_out_of_groups(&mut self, workspace: &GeoName, layers: &BTreeSet<String>, what: &str) -> Result<bool> {
        let groups = self.groups_to_leave(workspace, layers, what).await?;
        self.leave_groups(&groups, what).await?;
        Ok(!groups.is_empty())
    }

    /// The groups that hold some of `layers`, and each something else as well.
    async fn groups_to_leave(
        &mut self,
        workspace: &GeoName,
        layers: &BTreeSet<String>,
        what: &str,
    ) -> Result<Vec<Group>> {
        let groups = self.groups_with(workspace, layers).await?;
        let emptied = names(groups.iter().filter(|group| group.after.is_empty()));
        if emptied.is_empty() {
            return Ok(groups);
        }
        let message = format!("{what} is to go, but nothing else would be left in the layer group {emptied}");
        Err(Error::new(ErrorKind::GeoServer, message)
            .subject(self.server.name())
            .hint("remove the layer group or give it other layers first, on the master"))
    }

    async fn leave_groups(&mut self, groups: &[Group], what: &str) -> Result<()> {
        for group in groups {
            let doing = format!("take {what} out of the layer group {}", group.name);
            self.set_members(group.workspace.as_ref(), &group.name, &group.after, &doing).await?;
        }
        if !groups.is_empty() {
            tracing::warn!(what, groups = names(groups.iter()), "taken out of layer groups");
        }
        Ok(())
    }

    /// Gives a group other members.
    pub(super) async fn set_members(
        &mut self,
        workspace: Option<&GeoName>,
        name: &str,
        members: &[ToldMember],
        doing: &str,
    ) -> Result<()> {
        let (members, styles): (Vec<_>, Vec<_>) = members.iter().cloned().unzip();
        // For another number of members GeoServer wants as many styles.
        let document = json!({"layerGroup": {"publishables": {"published": members}, "styles": {"style": styles}}});
        // What is remembered of its members is no longer so.
        for groups in self.catalog.groups.values_mut() {
            groups.entry(name.to_owned()).and_modify(|members| *members = None);
        }
        self.server.put(&item(workspace, name), &document).await?.ok(doing).map(|_| ())
    }

    /// The layer groups, of the workspace and global, that hold one of `layers`.
    pub(super) async fn groups_with(&mut self, workspace: &GeoName, layers: &BTreeSet<String>) -> Result<Vec<Group>> {
        let mut holding = Vec::new();
        if layers.is_empty() {
            return Ok(holding);
        }
        let members: BTreeSet<String> = layers.iter().map(|layer| format!("{workspace}:{layer}")).collect();
        for place in [Some(workspace), None] {
            for name in self.groups_that_hold(place, |held| !held.is_group && members.contains(&held.label)).await? {
                if let Some(group) = self.read_group(place, &name).await?.document() {
                    holding.extend(without(group, &members, place, name.clone()));
                }
            }
        }
        Ok(holding)
    }
}

/// The members of a group that GeoServer shows, as they are told to it.
pub(super) fn told_members(group: &Value) -> Vec<ToldMember> {
    let styles = json::many(&group["styles"]["style"]);
    let members = json::many(&group["publishables"]["published"]).iter().enumerate();
    let told = members.map(|(index, member)| {
        // A group may have the name of a layer.
        let kind = if member["@type"] == "layerGroup" { "layerGroup" } else { "layer" };
        let style = styles.get(index).map(|style| json::text(&style["name"])).unwrap_or_default();
        // An empty one is the member's own.
        let style = if style.is_empty() { json!("") } else { json!({"name": style}) };
        (json!({"@type": kind, "name": json::text(&member["name"])}), style)
    });
    told.collect()
}

/// Whether a member is the layer of this label.
pub(super) fn is_layer((member, _): &ToldMember, is_it: impl Fn(&str) -> bool) -> bool {
    member["@type"] == "layer" && member["name"].as_str().is_some_and(is_it)
}

/// A group as it is and as it is to be without `layers`; None when it holds none of them.
fn without(group: &Value, layers: &BTreeSet<String>, workspace: Option<&GeoName>, name: String) -> Option<Group> {
    let before = told_members(group);
    let after: Vec<ToldMember> =
        before.iter().filter(|member| !is_layer(member, |label| layers.contains(label))).cloned().collect();
    (after.len() < before.len()).then(|| Group { workspace: workspace.cloned(), name, before, after })
}

fn names<'a>(groups: impl Iterator<Item = &'a Group>) -> String {
    groups.map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_keeps_its_other_members_in_order_with_their_styles() {
        let layer = |name: &str| json!({"@type": "layer", "name": name, "href": "x"});
        let inner = json!({"@type": "layerGroup", "name": "kmi:a", "href": "x"});
        let group = json!({
            "publishables": {"published": [layer("kmi:a"), inner, layer("kmi:b"), layer("kmi:c"), layer("x:a")]},
            "styles": {"style": ["", "", {"name": "kmi:night", "href": "x"}, {"name": "line"}, ""]},
        });
        let layers: BTreeSet<String> = ["kmi:a", "kmi:c"].map(str::to_owned).into();
        let told = without(&group, &layers, None, "g".into()).unwrap();
        assert_eq!(
            told.after,
            [
                (json!({"@type": "layerGroup", "name": "kmi:a"}), json!("")),
                (json!({"@type": "layer", "name": "kmi:b"}), json!({"name": "kmi:night"})),
                (json!({"@type": "layer", "name": "x:a"}), json!("")),
            ]
        );
        assert_eq!(told.before.len(), 5);
        assert_eq!(told.before[3].1, json!({"name": "line"}));

        let single = json!({"publishables": {"published": layer("kmi:a")}, "styles": {"style": ""}});
        assert!(without(&single, &layers, None, "g".into()).unwrap().after.is_empty());
        assert!(without(&single, &["kmi:z".to_owned()].into(), None, "g".into()).is_none());
    }
}
