//! Places in layer groups that layers have left for a moment, and access rules that went with them: on record,
//! until the layers have both back.

use super::Ctx;
use crate::error::Result;
use crate::geoserver::{Change, GeoServer, Place, Places};
use crate::name::GeoName;

/// The places of one layer in the groups of one GeoServer, and its access rules, as the journal keeps them.
pub(super) struct KeptPlaces<'a> {
    ctx: &'a Ctx<'a>,
    target: String,
    rules_target: String,
    stand_in_target: String,
    layer: String,
}

impl Places for KeptPlaces<'_> {
    fn kept(&self) -> Vec<Place> {
        let facts = &self.ctx.run.background.facts;
        let kept = self.keys().into_iter().filter_map(|key| {
            let group = key.split_once('/')?.1.to_owned();
            Some(Place { group, members: facts.get(&self.target, &key)? })
        });
        kept.collect()
    }

    async fn keep(&self, places: Vec<Place>) -> Result<()> {
        for Place { group, members } in places {
            self.ctx.note(&self.target, &format!("{}/{group}", self.layer), members).await?;
        }
        Ok(())
    }

    fn kept_rules(&self) -> Option<String> {
        // Else the master says which rules there are to be, and may have changed them meanwhile.
        let nobody_else_knows = matches!(self.ctx.run.rules, Ok(None));
        let kept = self.ctx.run.background.facts.get(&self.rules_target, &self.layer);
        kept.filter(|_| nobody_else_knows)
    }

    async fn keep_rules(&self, rules: String) -> Result<()> {
        self.ctx.note(&self.rules_target, &self.layer, rules).await
    }

    fn stand_in(&self) -> Option<GeoName> {
        let kept = self.ctx.run.background.facts.get(&self.stand_in_target, &self.layer)?;
        GeoName::new("layer", kept).ok()
    }

    async fn keep_stand_in(&self, layer: &GeoName) -> Result<()> {
        self.ctx.note(&self.stand_in_target, &self.layer, layer.to_string()).await
    }
}

impl KeptPlaces<'_> {
    /// Something is kept: an earlier try has not come to its end, or this one has just begun.
    pub(super) fn are_kept(&self) -> bool {
        let facts = &self.ctx.run.background.facts;
        let is_kept = |target| facts.get(target, &self.layer).is_some();
        is_kept(&self.rules_target) || is_kept(&self.stand_in_target) || !self.keys().is_empty()
    }

    /// The facts are kept under `workspace:layer/workspace:group`: no name holds a slash.
    fn keys(&self) -> Vec<String> {
        let keys = self.ctx.run.background.facts.keys(&self.target).into_iter();
        keys.filter(|key| key.split_once('/').is_some_and(|(layer, _)| layer == self.layer)).collect()
    }

    /// The layer has its places and rules back, or is gone for good. Tells whether there were any places.
    pub(super) async fn forget(&self) -> Result<bool> {
        self.ctx.forget_of(&self.rules_target, &self.layer).await?;
        self.ctx.forget_of(&self.stand_in_target, &self.layer).await?;
        let keys = self.keys();
        for key in &keys {
            self.ctx.forget_of(&self.target, key).await?;
        }
        Ok(!keys.is_empty())
    }
}

impl<'a> Ctx<'a> {
    /// The layer that this job publishes is to take the place of one of another kind, if there is one.
    pub(super) fn replaces_another(&self) -> bool {
        self.run.background.replaces.contains(&self.file.path)
    }

    /// A layer goes for good, and what stands in for it.
    pub(super) async fn forget_places_of(
        &self,
        server: &GeoServer,
        workspace: &GeoName,
        layer: &GeoName,
    ) -> Result<()> {
        let places = self.places(server, workspace, layer);
        server.remove_stand_in(workspace, &places).await?;
        places.forget().await.map(drop)
    }

    /// A layer has its places back; gives what has become of it.
    pub(super) async fn has_places_back(
        &self,
        server: &GeoServer,
        places: &KeptPlaces<'_>,
        (workspace, layer): (&GeoName, &GeoName),
        change: Change,
    ) -> Result<Change> {
        if !places.forget().await? {
            return Ok(change);
        }
        // Meanwhile tiles of its groups may have been drawn without it: it does not count as new.
        self.forget(server, &Self::fact_key("tiles", workspace, layer)).await?;
        Ok(Change::Updated)
    }

    pub(super) fn places(&'a self, server: &GeoServer, workspace: &GeoName, layer: &GeoName) -> KeptPlaces<'a> {
        KeptPlaces {
            ctx: self,
            target: target(server),
            rules_target: format!("rules on {}", server.name()),
            stand_in_target: stand_ins_on(server),
            layer: format!("{workspace}:{layer}"),
        }
    }

    /// Workspace and name of the layers for which something stands in, and what.
    pub(super) fn stand_ins(&self, server: &GeoServer) -> Vec<(String, String, String)> {
        let (facts, target) = (&self.run.background.facts, stand_ins_on(server));
        let all = facts.keys(&target).into_iter().filter_map(|key| {
            let (workspace, layer) = key.split_once(':')?;
            Some((workspace.to_owned(), layer.to_owned(), facts.get(&target, &key)?))
        });
        all.collect()
    }

    /// Forgets the places in a group that is published as its document says, before it is: layers that have
    /// left it meanwhile are not to come back.
    pub(super) async fn forget_places_in(
        &self,
        server: &GeoServer,
        workspace: &GeoName,
        group: &GeoName,
    ) -> Result<()> {
        let target = target(server);
        let group = format!("{workspace}:{group}");
        for key in self.run.background.facts.keys(&target) {
            if key.split_once('/').is_some_and(|(_, of)| of == group) {
                self.forget_of(&target, &key).await?;
            }
        }
        Ok(())
    }
}

fn stand_ins_on(server: &GeoServer) -> String {
    format!("stand-ins on {}", server.name())
}

fn target(server: &GeoServer) -> String {
    format!("places on {}", server.name())
}
