//! Removal of what others hold: layers that are in layer groups, and stores with all their layers.
//!
//! GeoServer refuses to delete a resource whose layer is in a group. Its recursive deletions are no
//! way out: that of a layer refuses the first time when the layer is a cascaded one, that of a store
//! takes some layers out of their groups before it refuses, and both delete a group that they take
//! the last layer from. So layers are taken out of their groups here, before anything is deleted.

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

/// A layer group that holds some of the layers that are to go.
pub(super) struct Group {
    name: String,
    address: String,
    /// All members, and the style of each, as they are to be told.
    before: Vec<(Value, Value)>,
    /// Those that stay.
    after: Vec<(Value, Value)>,
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
}

impl Writer<'_> {
    async fn remove_store(&mut self, kind: StoreKind, workspace: &GeoName, store: &GeoName) -> Result<Change> {
        let key = (workspace.clone(), store.clone());
        self.catalog.stores.remove(&key);
        self.catalog.feature_types.remove(&key);
        let place = ["workspaces", workspace.as_str(), kind.stores(), store.as_str()];
        let item = path(&place, "json");
        // A list of the layers of a store that is not there would answer 500.
        let doing = format!("read the store {workspace}:{store}");
        if self.server.find(&format!("{item}?quietOnNotFound=true"), &doing).await?.is_none() {
            return Ok(Change::Unchanged);
        }
        let layers = self.layers_of(kind, workspace, store).await?;
        self.take_out_of_groups(workspace, &layers, &format!("the store {workspace}:{store}")).await?;
        let answer = self.server.delete(&format!("{item}?recurse=true")).await?;
        if !answer.is_missing() {
            answer.ok(&format!("remove the store {workspace}:{store}"))?;
        }
        for layer in &layers {
            if let Ok(layer) = GeoName::new("layer", layer.as_str()) {
                self.catalog.layer_gone(workspace, &layer);
            }
        }
        self.catalog.layers.retain(|(place, layer), _| place != workspace || !layers.contains(layer.as_str()));
        Ok(Change::Updated)
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

    /// Takes a layer out of its groups, and gives these back.
    pub(super) async fn take_layer_out_of_groups(
        &mut self,
        workspace: &GeoName,
        layer: &GeoName,
    ) -> Result<Vec<Group>> {
        let layers = BTreeSet::from([layer.to_string()]);
        self.take_out_of_groups(workspace, &layers, &format!("the layer {workspace}:{layer}")).await
    }

    async fn take_out_of_groups(
        &mut self,
        workspace: &GeoName,
        layers: &BTreeSet<String>,
        what: &str,
    ) -> Result<Vec<Group>> {
        let groups = self.groups_with(workspace, layers).await?;
        let emptied = names(groups.iter().filter(|group| group.after.is_empty()));
        if !emptied.is_empty() {
            let message = format!("{what} is to go, but nothing else would be left in the layer group {emptied}");
            return Err(Error::new(ErrorKind::GeoServer, message)
                .subject(self.server.name())
                .hint("remove the layer group or give it other layers first, on the master"));
        }
        for group in &groups {
            let doing = format!("take {what} out of the layer group {}", group.name);
            self.set_members(group, &group.after, &doing).await?;
        }
        if !groups.is_empty() {
            tracing::warn!(what, groups = names(groups.iter()), "taken out of layer groups");
        }
        Ok(groups)
    }

    /// Puts layers that are there again back into the groups they were taken out of, in their places.
    pub(super) async fn put_back_into_groups(&mut self, groups: &[Group]) -> Result<()> {
        for group in groups {
            let doing = format!("put a layer that was made anew back into the layer group {}", group.name);
            self.set_members(group, &group.before, &doing).await?;
        }
        Ok(())
    }

    async fn set_members(&mut self, group: &Group, members: &[(Value, Value)], doing: &str) -> Result<()> {
        let (members, styles): (Vec<_>, Vec<_>) = members.iter().cloned().unzip();
        // For another number of members GeoServer wants as many styles.
        let document = json!({"layerGroup": {"publishables": {"published": members}, "styles": {"style": styles}}});
        // What is remembered of its members is no longer so.
        for groups in self.catalog.groups.values_mut() {
            groups.entry(group.name.clone()).and_modify(|members| *members = None);
        }
        self.server.put(&group.address, &document).await?.ok(doing).map(|_| ())
    }

    /// The layer groups, of the workspace and global, that hold one of `layers`.
    async fn groups_with(&mut self, workspace: &GeoName, layers: &BTreeSet<String>) -> Result<Vec<Group>> {
        let mut holding = Vec::new();
        if layers.is_empty() {
            return Ok(holding);
        }
        let members: BTreeSet<String> = layers.iter().map(|layer| format!("{workspace}:{layer}")).collect();
        for place in [Some(workspace), None] {
            for name in self.groups_that_hold(place, |held| !held.is_group && members.contains(&held.label)).await? {
                if let Some(group) = self.read_group(place, &name).await?.document() {
                    holding.extend(without(group, &members, name.clone(), item(place, &name)));
                }
            }
        }
        Ok(holding)
    }
}

/// A group as it is and as it is to be without `layers`; None when it holds none of them.
fn without(group: &Value, layers: &BTreeSet<String>, name: String, address: String) -> Option<Group> {
    let styles = json::many(&group["styles"]["style"]);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (index, member) in json::many(&group["publishables"]["published"]).iter().enumerate() {
        let label = json::text(&member["name"]);
        // A group may have the name of a layer.
        let is_group = member["@type"] == "layerGroup";
        let style = styles.get(index).map(|style| json::text(&style["name"])).unwrap_or_default();
        let told = (
            json!({"@type": if is_group { "layerGroup" } else { "layer" }, "name": label}),
            // An empty one is the member's own.
            if style.is_empty() { json!("") } else { json!({"name": style}) },
        );
        if is_group || !layers.contains(&label) {
            after.push(told.clone());
        }
        before.push(told);
    }
    (after.len() < before.len()).then_some(Group { name, address, before, after })
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
        let told = without(&group, &layers, "g".into(), "address".into()).unwrap();
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
        assert!(without(&single, &layers, "g".into(), "address".into()).unwrap().after.is_empty());
        assert!(without(&single, &["kmi:z".to_owned()].into(), "g".into(), "address".into()).is_none());
    }
}
