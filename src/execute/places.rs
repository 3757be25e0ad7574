//! Places in layer groups that layers have left for a moment: on record, until the layers are back in them.

use super::Ctx;
use crate::error::Result;
use crate::geoserver::{GeoServer, Place, Places};
use crate::name::GeoName;

/// The places of one layer in the groups of one GeoServer, as the journal keeps them.
pub(super) struct KeptPlaces<'a> {
    ctx: &'a Ctx<'a>,
    target: String,
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
}

impl KeptPlaces<'_> {
    /// The facts are kept under `workspace:layer/workspace:group`: no name holds a slash.
    fn keys(&self) -> Vec<String> {
        let keys = self.ctx.run.background.facts.keys(&self.target).into_iter();
        keys.filter(|key| key.split_once('/').is_some_and(|(layer, _)| layer == self.layer)).collect()
    }

    /// The layer is back in its places, or gone for good. Tells whether there were any.
    pub(super) async fn forget(&self) -> Result<bool> {
        let keys = self.keys();
        for key in &keys {
            self.ctx.forget_of(&self.target, key).await?;
        }
        Ok(!keys.is_empty())
    }
}

impl<'a> Ctx<'a> {
    pub(super) fn places(&'a self, server: &GeoServer, workspace: &GeoName, layer: &GeoName) -> KeptPlaces<'a> {
        KeptPlaces { ctx: self, target: target(server), layer: format!("{workspace}:{layer}") }
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
