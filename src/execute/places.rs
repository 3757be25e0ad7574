//! Places in layer groups that layers have left for a moment, and access rules that went with them: on record,
//! until the layers have both back.

use super::Ctx;
use crate::error::Result;
use crate::geoserver::{GeoServer, Place, Places};
use crate::name::GeoName;

/// The places of one layer in the groups of one GeoServer, and its access rules, as the journal keeps them.
pub(super) struct KeptPlaces<'a> {
    ctx: &'a Ctx<'a>,
    target: String,
    rules_target: String,
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
}

impl KeptPlaces<'_> {
    /// The facts are kept under `workspace:layer/workspace:group`: no name holds a slash.
    fn keys(&self) -> Vec<String> {
        let keys = self.ctx.run.background.facts.keys(&self.target).into_iter();
        keys.filter(|key| key.split_once('/').is_some_and(|(layer, _)| layer == self.layer)).collect()
    }

    /// The layer has its places and rules back, or is gone for good. Tells whether there were any places.
    pub(super) async fn forget(&self) -> Result<bool> {
        self.ctx.forget_of(&self.rules_target, &self.layer).await?;
        let keys = self.keys();
        for key in &keys {
            self.ctx.forget_of(&self.target, key).await?;
        }
        Ok(!keys.is_empty())
    }
}

impl<'a> Ctx<'a> {
    pub(super) fn places(&'a self, server: &GeoServer, workspace: &GeoName, layer: &GeoName) -> KeptPlaces<'a> {
        KeptPlaces {
            ctx: self,
            target: target(server),
            rules_target: format!("rules on {}", server.name()),
            layer: format!("{workspace}:{layer}"),
        }
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

fn target(server: &GeoServer) -> String {
    format!("places on {}", server.name())
}
