//! A layer that takes the place of another one by the same name, because GeoServer cannot make the one of the
//! other: a relation's that of another server's, or the other way round, or a cascaded one that cannot be changed.
//!
//! GeoServer has one layer by each name, deletes none that is in a group, and keeps no group without layers. So
//! the new one comes twice: first by a name of its own, as a stand-in that takes the old one's places in layer
//! groups, and by its right name when the old one is gone. Who reads a group sees the old one or the new one at
//! every moment; the name itself is without a layer for as long as it takes GeoServer to make one.

use std::collections::BTreeSet;

use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::access_rules::{AccessRules, NAME_WITHOUT_DOT};
use super::client::{GeoServer, Writer, path};
use super::feature_types::FeatureType;
use super::places::{Place, Places};
use super::removal::is_layer;
use super::wms_layers::WmsLayer;
use super::{Change, json};

/// What a stand-in is called: the layer's name and this.
const STAND_IN: &str = "__new";

/// A layer that takes the place of another one.
#[derive(Debug, Clone, Copy)]
pub enum Newcomer<'a> {
    /// A relation's.
    FeatureType(&'a FeatureType),
    /// Another server's.
    WmsLayer(&'a WmsLayer),
}

impl Newcomer<'_> {
    fn names(&self) -> (&GeoName, &GeoName) {
        match self {
            Self::FeatureType(wanted) => (&wanted.workspace, &wanted.name),
            Self::WmsLayer(wanted) => (&wanted.workspace, &wanted.name),
        }
    }
}

/// What bears the name.
enum Old {
    FeatureType { store: GeoName },
    WmsLayer,
}

impl GeoServer {
    /// Takes away the layer of another kind that bears the newcomer's name, which is to be published next; does
    /// nothing where there is none. `places` keeps its places in layer groups and its access rules until
    /// [`GeoServer::settle`], and what is in there from an earlier call, which was killed or failed, is gone on with.
    ///
    /// # Errors
    ///
    /// When the newcomer cannot be made (the old layer then stays); [`ErrorKind::GeoServer`] when access rules
    /// would be lost; [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request.
    pub async fn make_room(&self, newcomer: Newcomer<'_>, places: &impl Places) -> Result<Change> {
        let mut writer = self.writer().await;
        writer.give_back_rules(newcomer, places).await?;
        let (workspace, name) = newcomer.names();
        let old = match newcomer {
            Newcomer::FeatureType(_) => writer.has_wms_layer(workspace, name).await?.then_some(Old::WmsLayer),
            Newcomer::WmsLayer(_) => {
                writer.store_of_type(workspace, name).await?.map(|store| Old::FeatureType { store })
            }
        };
        let Some(old) = old else { return Ok(Change::Unchanged) };
        tracing::info!(layer = %format!("{workspace}:{name}"), "the layer becomes one of another kind");
        writer.replace(newcomer, &old, places).await.map(|()| Change::Updated)
    }

    /// Puts a layer that is there into the places that are kept for it, and removes what stood in for it. Sends
    /// nothing when nothing is kept.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn settle(&self, workspace: &GeoName, layer: &GeoName, places: &impl Places) -> Result<Change> {
        self.writer().await.settle(workspace, layer, places).await
    }

    /// Removes what stands in for a layer that is to be removed; nothing when nothing does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when a layer group would be left empty, and as for every request.
    pub async fn remove_stand_in(&self, workspace: &GeoName, places: &impl Places) -> Result<Change> {
        match places.stand_in() {
            Some(stand_in) => self.writer().await.remove_any_layer(workspace, &stand_in).await,
            None => Ok(Change::Unchanged),
        }
    }
}

impl Writer<'_> {
    pub(super) async fn settle(
        &mut self,
        workspace: &GeoName,
        layer: &GeoName,
        places: &impl Places,
    ) -> Result<Change> {
        let stand_in = places.stand_in();
        let change = self.put_back_into_groups(workspace, layer, &places.kept(), stand_in.as_ref()).await?;
        Ok(match stand_in {
            Some(stand_in) => change.max(self.remove_any_layer(workspace, &stand_in).await?),
            None => change,
        })
    }

    /// Gives a layer back the rules that it lost when it was deleted, where nobody else knows them.
    pub(super) async fn give_back_rules(&mut self, newcomer: Newcomer<'_>, places: &impl Places) -> Result<()> {
        let (workspace, name) = newcomer.names();
        if let Some(rules) = places.kept_rules() {
            let rules = AccessRules::parse(&rules)?;
            self.add_rules(workspace.as_str(), name.as_str(), &rules).await?;
        }
        Ok(())
    }

    /// Deletes a cascaded layer that GeoServer cannot change, for one that it has been found to be able to make.
    pub(super) async fn replace_wms_layer(&mut self, newcomer: &WmsLayer, places: &impl Places) -> Result<()> {
        self.replace(Newcomer::WmsLayer(newcomer), &Old::WmsLayer, places).await
    }

    async fn replace(&mut self, newcomer: Newcomer<'_>, old: &Old, places: &impl Places) -> Result<()> {
        let (workspace, name) = newcomer.names();
        let rules = self.rules_naming(workspace.as_str(), name.as_str()).await?;
        if !rules.can_be_posted() {
            // Such rules cannot be written over REST, and without them the layer might be open to all.
            return Err(Error::new(
                ErrorKind::GeoServer,
                "GeoServer cannot change the layer in place, and its access rules would be lost if it were made anew",
            )
            .subject(format!("{} {workspace}:{name}", self.server.name()))
            .hint(NAME_WITHOUT_DOT));
        }
        if rules.count() > 0 {
            places.keep_rules(rules.properties(None)).await?;
        }
        self.let_stand_in(newcomer, old, &rules, places).await?;
        match old {
            Old::FeatureType { store } => drop(self.remove_layer_of(workspace, store, name).await?),
            Old::WmsLayer => drop(self.remove_wms_layer(workspace, None, name).await?),
        }
        if rules.count() > 0 {
            self.add_rules(workspace.as_str(), name.as_str(), &rules).await?;
        }
        Ok(())
    }

    /// Puts a stand-in into the groups in which the layer is. It also shows that the newcomer can be made at all.
    async fn let_stand_in(
        &mut self,
        newcomer: Newcomer<'_>,
        old: &Old,
        rules: &AccessRules,
        places: &impl Places,
    ) -> Result<()> {
        let (workspace, name) = newcomer.names();
        let groups = self.groups_with(workspace, &BTreeSet::from([name.to_string()])).await?;
        let can_be_made = matches!((newcomer, old), (Newcomer::WmsLayer(_), Old::WmsLayer));
        if groups.is_empty() && can_be_made {
            return Ok(());
        }
        let kept = groups.iter().map(|group| Place::new(group.workspace.as_ref(), &group.name, &group.before));
        places.keep(kept.collect()).await?;
        let stand_in = match places.stand_in() {
            Some(stand_in) => stand_in,
            None => {
                let stand_in = self.free_name(workspace, name).await?;
                places.keep_stand_in(&stand_in).await?;
                stand_in
            }
        };
        let its_rules = rules.of_stand_in(workspace.as_str(), name.as_str(), stand_in.as_str());
        if its_rules.count() > 0 {
            self.add_rules(workspace.as_str(), stand_in.as_str(), &its_rules).await?;
        }
        if let Err(error) = self.make_stand_in(newcomer, &stand_in).await {
            let has_answered = !matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Denied | ErrorKind::Stopped);
            // Where it may be there all the same, or be there soon, nobody is let in.
            if has_answered && matches!(self.is_there(workspace, &stand_in).await, Ok(false)) {
                self.drop_rules(&its_rules).await;
            }
            return Err(error);
        }
        let (old, new) = (format!("{workspace}:{name}"), format!("{workspace}:{stand_in}"));
        for mut group in groups {
            for member in group.before.iter_mut().filter(|member| is_layer(member, |label| label == old)) {
                member.0["name"] = json!(new);
            }
            let doing = format!("let {new} stand in for {old} in the layer group {}", group.name);
            self.set_members(group.workspace.as_ref(), &group.name, &group.before, &doing).await?;
        }
        Ok(())
    }

    async fn make_stand_in(&mut self, newcomer: Newcomer<'_>, name: &GeoName) -> Result<()> {
        match newcomer {
            Newcomer::FeatureType(wanted) => {
                let mut wanted = FeatureType { name: name.clone(), ..wanted.clone() };
                if wanted.sql_view.is_some() {
                    // A store has one query by each name.
                    wanted.native_name = name.to_string();
                }
                self.create_feature_type(&wanted).await.map(drop)
            }
            Newcomer::WmsLayer(wanted) => {
                self.create_wms_layer(&WmsLayer { name: name.clone(), ..wanted.clone() }).await.map(drop)
            }
        }
    }

    /// A name that no layer of the workspace has.
    async fn free_name(&mut self, workspace: &GeoName, layer: &GeoName) -> Result<GeoName> {
        let names = self.layer_names(workspace).await?;
        let mut name = format!("{layer}{STAND_IN}");
        while names.contains(&name) {
            name.push('_');
        }
        GeoName::new("layer", name)
    }

    /// The store that a feature type is in; None where there is none by that name.
    async fn store_of_type(&mut self, workspace: &GeoName, name: &GeoName) -> Result<Option<GeoName>> {
        let item = path(&["workspaces", workspace.as_str(), "featuretypes", name.as_str()], "json");
        let answer = self.server.get(&format!("{item}?quietOnNotFound=true")).await?;
        if answer.is_missing() {
            return Ok(None);
        }
        if answer.status.is_server_error() {
            // Its columns cannot be read, and with them GeoServer shows nothing of it.
            for store in self.data_stores(workspace).await? {
                if self.feature_types(workspace, &store).await?.contains(name.as_str()) {
                    return Ok(Some(store));
                }
            }
            return Ok(None);
        }
        let document = answer.json(&format!("read the feature type {workspace}:{name}"))?;
        let store = json::text(&document["featureType"]["store"]["name"]);
        let store = store.strip_prefix(&format!("{workspace}:")).unwrap_or(&store);
        GeoName::new("store", store).map(Some)
    }

    async fn has_wms_layer(&mut self, workspace: &GeoName, name: &GeoName) -> Result<bool> {
        Ok(self.find_wms_layer(workspace, name).await?.is_some())
    }

    /// Whether there is a layer of whatever kind by that name.
    async fn is_there(&mut self, workspace: &GeoName, name: &GeoName) -> Result<bool> {
        Ok(self.store_of_type(workspace, name).await?.is_some() || self.has_wms_layer(workspace, name).await?)
    }

    /// Removes a layer, of whatever kind; out of its groups, where it is in any.
    async fn remove_any_layer(&mut self, workspace: &GeoName, name: &GeoName) -> Result<Change> {
        match self.store_of_type(workspace, name).await? {
            Some(store) => self.remove_layer_of(workspace, &store, name).await,
            None => self.remove_wms_layer(workspace, None, name).await,
        }
    }
}
