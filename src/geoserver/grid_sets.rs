//! Grid sets: the pyramids that tiles are cut from.
//!
//! A tile layer that names a grid set that does not exist breaks the tiles of that layer and the
//! capabilities of the whole tile service. So no name is used before GeoServer has listed it.

use std::collections::BTreeSet;

use reqwest::Method;

use crate::error::{Error, ErrorKind, Result};

use super::Change;
use super::client::{GeoServer, Writer, path};

/// A grid set that is preferred, its definition, and the one that every GeoServer has.
struct Preferred {
    name: &'static str,
    /// As in a `geowebcache.xml`.
    definition: &'static str,
    built_in: &'static str,
}

/// 1024 pixels and the names of the levels (`gda94:0`, ...) are what map clients of this grid set
/// ask for.
const GEOGRAPHIC: Preferred =
    Preferred { name: "gda94", definition: include_str!("grid_sets/gda94.xml"), built_in: "EPSG:4326" };

const WEB_MERCATOR: Preferred =
    Preferred { name: "mercator", definition: include_str!("grid_sets/mercator.xml"), built_in: "EPSG:900913" };

/// The grid sets that tile layers get on one GeoServer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridSets {
    /// `gda94`, or GeoServer's own `EPSG:4326`.
    pub geographic: String,
    /// `mercator`, or GeoServer's own `EPSG:900913`.
    pub web_mercator: String,
    /// Whether grid sets were made.
    pub change: Change,
}

impl GeoServer {
    /// Finds out which grid sets tile layers get, after one request for a run. With `create`, `gda94`
    /// and `mercator` are made where they are missing; those that are there are never changed, because
    /// tiles were cut from them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses or has none of the grid sets;
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request.
    pub async fn ensure_grid_sets(&self, create: bool) -> Result<GridSets> {
        let mut writer = self.writer().await;
        let mut change = Change::Unchanged;
        if create {
            for preferred in [GEOGRAPHIC, WEB_MERCATOR] {
                if !writer.known_grid_sets().await?.contains(preferred.name) {
                    writer.make_grid_set(&preferred).await?;
                    change = Change::Created;
                }
            }
        }
        Ok(GridSets { change, ..writer.grid_sets().await? })
    }
}

impl Writer<'_> {
    /// The grid sets to use.
    pub(super) async fn grid_sets(&mut self) -> Result<GridSets> {
        let subject = self.server.name().to_owned();
        let known = self.known_grid_sets().await?;
        let choose = |preferred: &Preferred| {
            let found = [preferred.name, preferred.built_in].into_iter().find(|name| known.contains(*name));
            found.map(str::to_owned).ok_or_else(|| {
                Error::new(
                    ErrorKind::GeoServer,
                    format!("GeoServer has neither the grid set {} nor {}", preferred.name, preferred.built_in),
                )
                .subject(subject.as_str())
                .hint("make one of them in GeoServer's web interface, under Tile Caching, Gridsets")
            })
        };
        let (geographic, web_mercator) = (choose(&GEOGRAPHIC)?, choose(&WEB_MERCATOR)?);
        Ok(GridSets { geographic, web_mercator, change: Change::Unchanged })
    }

    async fn known_grid_sets(&mut self) -> Result<&BTreeSet<String>> {
        if self.catalog.grid_sets.is_none() {
            let names = self.server.gwc_names("gridsets", "list the grid sets").await?;
            self.catalog.grid_sets = Some(names);
        }
        Ok(self.catalog.grid_sets.get_or_insert_default())
    }

    async fn make_grid_set(&mut self, preferred: &Preferred) -> Result<()> {
        let body = preferred.definition.as_bytes().to_vec();
        let address = path(&["gwc", "rest", "gridsets", preferred.name], "xml");
        let doing = format!("make the grid set {}", preferred.name);
        self.server.send(Method::PUT, &address, Some(("text/xml", body))).await?.ok(&doing)?;
        self.catalog.grid_sets = None;
        if self.known_grid_sets().await?.contains(preferred.name) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::GeoServer, format!("GeoServer has not made the grid set {}", preferred.name))
            .subject(self.server.name())
            .hint("look in GeoServer's log; or make it in the web interface, under Tile Caching, Gridsets"))
    }
}

impl GeoServer {
    /// A list of the tile cache, which is an array of names.
    pub(super) async fn gwc_names(&self, list: &str, doing: &str) -> Result<BTreeSet<String>> {
        let document = self.get(&path(&["gwc", "rest", list], "json")).await?.json(doing)?;
        let names = document.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(definition: &str, list: &str) -> Vec<f64> {
        let inside =
            definition.split(&format!("<{list}>")).nth(1).unwrap().split(&format!("</{list}>")).next().unwrap();
        inside.split("<double>").skip(1).map(|rest| rest.split('<').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn every_level_halves_the_one_above_and_the_first_holds_the_world() {
        for (preferred, tile, tiles_across) in [(GEOGRAPHIC, 1024.0, 2.0), (WEB_MERCATOR, 256.0, 1.0)] {
            let resolutions = numbers(preferred.definition, "resolutions");
            let extent = numbers(preferred.definition, "coords");
            let width = extent[2] - extent[0];
            assert!((resolutions[0] * tile * tiles_across - width).abs() < width * 1e-12, "{}", preferred.name);
            for pair in resolutions.windows(2) {
                assert!((pair[0] / pair[1] - 2.0).abs() < 1e-12, "{}: {pair:?}", preferred.name);
            }
            let levels = preferred.definition.matches("<string>").count();
            assert_eq!(resolutions.len(), levels);
            assert!(preferred.definition.contains(&format!("<string>{}:{}</string>", preferred.name, levels - 1)));
            assert!(preferred.definition.contains(&format!("<name>{}</name>", preferred.name)));
        }
    }
}
