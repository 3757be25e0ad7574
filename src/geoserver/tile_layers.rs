//! Tile layers: what GeoWebCache, GeoServer's tile cache, keeps for a layer or a group.
//!
//! Its REST interface stands beside GeoServer's, under `/gwc/rest`, and does not take part in the
//! lock of the catalog. A PUT creates and replaces; what its document leaves out becomes empty, zero
//! or false.

use std::collections::BTreeSet;
use std::time::Duration;

use quick_xml::escape::escape;
use reqwest::Method;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::catalog::TileLayers;
use super::client::{GeoServer, Writer, path};
use super::extents::{Extent, Rectangle, covers, read_bounds};
use super::grid_sets::GridSets;
use super::json;

/// Formats of every tile layer.
const IMAGES: [&str; 2] = ["image/png", "image/jpeg"];

/// Formats of tiles that hold features, from GeoServer's vector tiles extension. A GeoServer without
/// it takes the names and serves the images.
const FEATURES: [&str; 4] = [
    "application/json;type=geojson",
    "application/json;type=topojson",
    "application/vnd.mapbox-vector-tile",
    "application/json;type=utfgrid",
];

/// Pixels that are drawn around a tile and cut off again, so that labels and symbols are not cut at
/// its edges.
const GUTTER: i64 = 100;

/// How much a layer may reach beyond the area of its tiles before that is told anew, in degrees. The
/// area is computed in the grid set's own datum.
const SLACK: f64 = 1e-6;

/// The longest and the shortest time between two looks at the tasks of a layer.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// A tile layer as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileLayer {
    /// The workspace of the layer or group.
    pub workspace: GeoName,
    /// The layer's or group's name.
    pub name: GeoName,
    /// Whether there are GeoJSON, TopoJSON, vector tiles (MVT) and UTFGrid beside PNG and JPEG.
    pub vector_formats: bool,
    /// Seconds after which a cached tile is drawn again; 0 for never.
    pub expire_cache: i64,
    /// Seconds for which clients may keep a tile; 0 for what the layer itself says.
    pub expire_clients: i64,
}

impl GeoServer {
    /// Makes sure that a layer, of whatever kind, or group has this tile layer. It must be published.
    ///
    /// The area of the tiles is that of the layer. GeoServer computes it when the tile layer is first
    /// used and then keeps it, so that tiles of data added elsewhere are refused; so it is told anew
    /// when the layer reaches beyond it. A layer without geometry has no tiles: nothing is done.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when the layer is not published, or GeoServer refuses or does not take
    /// the settings; [`ErrorKind::Unsupported`] for a name that its tile cache cannot address;
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request.
    pub async fn ensure_tile_layer(&self, wanted: &TileLayer) -> Result<Change> {
        self.writer().await.ensure_tile_layer(wanted).await
    }

    /// Removes the tile layer of a layer or group, and its tiles. What is not there, is removed.
    ///
    /// # Errors
    ///
    /// As [`GeoServer::ensure_tile_layer`].
    pub async fn remove_tile_layer(&self, workspace: &GeoName, name: &GeoName) -> Result<Change> {
        let label = format!("{workspace}:{name}");
        if !self.writer().await.may_have_tile_layer(&label).await? {
            return Ok(Change::Unchanged);
        }
        let item = address("layers", workspace, name, "xml")?;
        // The list may be older than a layer that was made since. To look costs GeoServer three times as much
        // as to remove what may not be there. The tile cache does not wait for those who write to the catalog.
        let answer = self.delete(&item).await?;
        let missing = answer.is_missing();
        if !missing {
            answer.ok(&format!("remove the tile layer of {label}"))?;
        }
        self.writer().await.forget_tile_layer(&label);
        Ok(if missing { Change::Unchanged } else { Change::Updated })
    }

    /// Empties the tiles of a layer or group, in all formats, styles and grid sets. Success when
    /// there is no tile layer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses; [`ErrorKind::Unreachable`] and
    /// [`ErrorKind::Denied`] as for every request.
    pub async fn truncate_tiles(&self, workspace: &GeoName, name: &GeoName) -> Result<()> {
        self.truncate(workspace, name).await.map(|_| ())
    }

    /// Empties the tiles of a layer or group and waits until no truncation of it is under way, those
    /// included that GeoServer has started by itself, as after a change of a style. Other writers do
    /// not wait meanwhile. No tile layer is no change.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses, gives up a truncation, or is not done within
    /// `time_limit`; [`ErrorKind::Stopped`] when `stop` is raised; [`ErrorKind::Unreachable`] and
    /// [`ErrorKind::Denied`] as for every request.
    pub async fn empty_tiles(
        &self,
        workspace: &GeoName,
        name: &GeoName,
        time_limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Change> {
        let subject = format!("{} {workspace}:{name}", self.name());
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                Err(Error::new(ErrorKind::Stopped, "stopped while tiles were emptied").subject(subject))
            }
            outcome = tokio::time::timeout(time_limit, self.truncate_and_wait(workspace, name)) => {
                outcome.unwrap_or_else(|_| {
                    let limit = time_limit.as_secs_f64();
                    Err(Error::new(ErrorKind::GeoServer, format!("tiles are still being removed after {limit} s"))
                        .subject(subject)
                        .hint("GeoServer goes on with it; run again later. A slow or remote disk under its tile cache is the usual cause"))
                })
            }
        }
    }

    async fn truncate_and_wait(&self, workspace: &GeoName, name: &GeoName) -> Result<Change> {
        let label = format!("{workspace}:{name}");
        if !self.writer().await.may_have_tile_layer(&label).await? {
            return Ok(Change::Unchanged);
        }
        // The tiles are out of the way when the request is answered. What is left to wait for are the
        // tasks that GeoServer has started by itself, if it can be asked for those of this layer.
        let status = address("seed", workspace, name, "json").ok();
        // A task that has ended is reported once: how earlier ones ended is of no interest.
        let earlier = match &status {
            Some(status) => self.truncations(status).await?,
            None => None,
        };
        let change = self.truncate(workspace, name).await?;
        let (Some(status), Some(earlier), Change::Updated) = (status, earlier, change) else { return Ok(change) };
        let ended: BTreeSet<i64> = earlier.iter().filter(|task| task.has_ended()).map(|task| task.id).collect();
        let mut pause = PAUSES[0];
        loop {
            let tasks = self.truncations(&status).await?.unwrap_or_default();
            let tasks: Vec<&Task> = tasks.iter().filter(|task| !ended.contains(&task.id)).collect();
            if tasks.iter().any(|task| task.state == Task::ABORTED) {
                return Err(Error::new(ErrorKind::GeoServer, "GeoServer has given up removing tiles")
                    .subject(format!("{} {label}", self.name()))
                    .hint(
                        "GeoServer's log tells why; a full or read-only disk under its tile cache is the usual cause",
                    ));
            }
            if tasks.iter().all(|task| task.has_ended()) {
                return Ok(Change::Updated);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Empties a tile layer. Unchanged when there is none.
    async fn truncate(&self, workspace: &GeoName, name: &GeoName) -> Result<Change> {
        let label = format!("{workspace}:{name}");
        if !self.writer().await.may_have_tile_layer(&label).await? {
            return Ok(Change::Unchanged);
        }
        let body = format!("<truncateLayer><layerName>{}</layerName></truncateLayer>", escape(label.as_str()));
        // As any other type of content it is refused.
        let answer = self.send(Method::POST, "gwc/rest/masstruncate", Some(("text/xml", body.into_bytes()))).await?;
        if answer.status.is_client_error() {
            // Somebody may have removed it: the status is the same for everything that is wrong.
            let mut writer = self.writer().await;
            writer.catalog.tile_layers = None;
            if !writer.may_have_tile_layer(&label).await? {
                return Ok(Change::Unchanged);
            }
        }
        answer.ok(&format!("empty the tiles of {label}"))?;
        Ok(Change::Updated)
    }

    /// The truncations of a layer that GeoServer reports; None when it refuses to, as for a layer
    /// without tile layer.
    async fn truncations(&self, status: &str) -> Result<Option<Vec<Task>>> {
        let answer = self.get(status).await?;
        if answer.status.is_client_error() {
            return Ok(None);
        }
        let document = answer.json("ask for the tasks of a tile layer")?;
        Ok(Some(json::many(&document["long-array-array"]).iter().filter_map(Task::read).collect()))
    }
}

/// A truncation that GeoServer reports as `[tiles done, tiles in all, seconds left, task, state]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    id: i64,
    state: i64,
}

impl Task {
    const ABORTED: i64 = -1;
    const WAITING: i64 = 0;
    const RUNNING: i64 = 1;

    /// None for a task that makes tiles: unlike truncations, those know how many there are.
    fn read(row: &Value) -> Option<Self> {
        let number = |index: usize| row.get(index)?.as_i64();
        (number(1)? < 0).then_some(Self { id: number(3)?, state: number(4)? })
    }

    fn has_ended(&self) -> bool {
        self.state != Self::WAITING && self.state != Self::RUNNING
    }
}

impl Writer<'_> {
    async fn ensure_tile_layer(&mut self, wanted: &TileLayer) -> Result<Change> {
        let (workspace, name) = (&wanted.workspace, &wanted.name);
        let label = format!("{workspace}:{name}");
        let item = address("layers", workspace, name, "json")?;
        let grid_sets = self.grid_sets().await?;
        let current = if self.has_no_tile_layer(&label) { None } else { self.read_tile_layer(&item, &label).await? };
        if let Some(current) = &current
            && wanted.is(current, &grid_sets)
            && self.reaches_far_enough(wanted, current, &grid_sets).await?
        {
            return Ok(Change::Unchanged);
        }
        let blob_store = current.as_ref().map(|current| json::text(&current["blobStoreId"]));
        let document = wanted.document(&grid_sets, &blob_store.unwrap_or_default());
        let body = Some(("text/xml", document.into_bytes()));
        let answer = self.server.send(Method::PUT, &address("layers", workspace, name, "xml")?, body).await?;
        let missing = answer.is_missing();
        answer.ok(&format!("make the tile layer of {label}")).map_err(|error| match missing {
            true => error.hint("the layer or group must be published before its tile layer"),
            false => error,
        })?;
        // GeoServer answers 200 also to what it then does not do.
        match self.read_tile_layer(&item, &label).await? {
            Some(shown) if wanted.is(&shown, &grid_sets) => {
                if let Some(tiles) = &mut self.catalog.tile_layers {
                    tiles.unsure.remove(&label);
                    tiles.listed.insert(label);
                }
                Ok(if current.is_some() { Change::Updated } else { Change::Created })
            }
            None if self.layer_extent(workspace, name).await? == Extent::Nowhere => {
                tracing::warn!(layer = label, "no tile layer: the layer has no geometry");
                Ok(Change::Unchanged)
            }
            shown => {
                let state = shown.map_or("there is none", |_| "it shows other settings");
                Err(Error::new(ErrorKind::GeoServer, format!("GeoServer has not taken the tile layer: {state}"))
                    .subject(format!("{} {label}", self.server.name()))
                    .hint("another program or person may be changing the same tile layer; run again"))
            }
        }
    }

    fn forget_tile_layer(&mut self, label: &str) {
        if let Some(tiles) = &mut self.catalog.tile_layers {
            tiles.unsure.remove(label);
            tiles.listed.remove(label);
        }
    }

    /// Whether there is a tile layer as far as the list tells, which is read once. True when it is
    /// no longer known.
    async fn may_have_tile_layer(&mut self, label: &str) -> Result<bool> {
        if self.catalog.tile_layers.is_none() {
            let listed = self.server.gwc_names("layers", "list the tile layers").await?;
            self.catalog.tile_layers = Some(TileLayers { listed, unsure: BTreeSet::new() });
        }
        Ok(!self.has_no_tile_layer(label))
    }

    /// It is certain, without a request, that there is no tile layer.
    fn has_no_tile_layer(&self, label: &str) -> bool {
        let known = self.catalog.tile_layers.as_ref();
        known.is_some_and(|tiles| !tiles.listed.contains(label) && !tiles.unsure.contains(label))
    }

    async fn read_tile_layer(&mut self, item: &str, label: &str) -> Result<Option<Value>> {
        let found = self.server.find(item, &format!("read the tile layer of {label}")).await?;
        Ok(found.map(|mut document| document["GeoServerLayer"].take()))
    }

    /// Whether the area of the tiles, where GeoServer has computed it, holds all data.
    async fn reaches_far_enough(&mut self, wanted: &TileLayer, current: &Value, grid_sets: &GridSets) -> Result<bool> {
        let subsets = json::many(&current["gridSubsets"]);
        let Some(area) = subsets.iter().find(|subset| subset["gridSetName"] == *grid_sets.geographic).and_then(area)
        else {
            return Ok(true);
        };
        let data = if is_group(current) {
            let group = self.read_group(Some(&wanted.workspace), wanted.name.as_str()).await?;
            group.document().and_then(|group| read_bounds(&group["bounds"]))
        } else {
            match self.layer_extent(&wanted.workspace, &wanted.name).await? {
                Extent::Box(data) => Some(data),
                _ => None,
            }
        };
        Ok(data.is_none_or(|data| covers(area, data, SLACK)))
    }
}

impl TileLayer {
    fn formats(&self) -> BTreeSet<&'static str> {
        let features = if self.vector_formats { &FEATURES[..] } else { &[] };
        IMAGES.iter().chain(features).copied().collect()
    }

    /// Seconds as GeoServer keeps them, in 32 bits.
    fn seconds(value: i64) -> i64 {
        value.clamp(i64::from(i32::MIN), i64::from(i32::MAX))
    }

    /// Whether GeoServer shows this tile layer. It gives formats and grid sets in another order, and
    /// leaves the style parameter away for groups, which have no styles.
    fn is(&self, shown: &Value, grid_sets: &GridSets) -> bool {
        let texts = |list: &Value| json::many(list).iter().map(json::text).collect::<BTreeSet<_>>();
        let subsets: BTreeSet<String> =
            json::many(&shown["gridSubsets"]).iter().map(|subset| json::text(&subset["gridSetName"])).collect();
        let filters = json::many(&shown["parameterFilters"]);
        let style_filter = |filter: &Value| {
            let others =
                |(key, value): (&String, &Value)| !matches!(key.as_str(), "key" | "defaultValue") && !value.is_null();
            json::text(&filter["key"]) == "STYLES"
                && json::text(&filter["defaultValue"]).is_empty()
                && !filter.as_object().is_some_and(|filter| filter.iter().any(others))
        };
        let number = |key: &str| json::number(&shown[key]).unwrap_or_default();
        let limited = json::many(&shown["gridSubsets"])
            .iter()
            .any(|subset| ["zoomStart", "zoomStop"].iter().any(|key| !subset[*key].is_null()));
        shown["enabled"] == true
            && shown["inMemoryCached"] == true
            && texts(&shown["mimeFormats"]) == self.formats().into_iter().map(str::to_owned).collect()
            && subsets == BTreeSet::from([grid_sets.geographic.clone(), grid_sets.web_mercator.clone()])
            && !limited
            && json::many(&shown["metaWidthHeight"]).iter().all(|size| json::number(size) == Some(1.0))
            && number("gutter") == GUTTER as f64
            && number("expireCache") == Self::seconds(self.expire_cache) as f64
            && number("expireClients") == Self::seconds(self.expire_clients) as f64
            && match filters {
                [] => is_group(shown),
                [filter] => style_filter(filter),
                _ => false,
            }
    }

    /// The document for a PUT. Not JSON: GeoServer cannot read its own JSON back.
    fn document(&self, grid_sets: &GridSets, blob_store: &str) -> String {
        let label = format!("{}:{}", self.workspace, self.name);
        let formats: String = self.formats().iter().map(|format| format!("<string>{format}</string>")).collect();
        let subsets: String = [&grid_sets.geographic, &grid_sets.web_mercator]
            .iter()
            .map(|name| format!("<gridSubset><gridSetName>{}</gridSetName></gridSubset>", escape(name.as_str())))
            .collect();
        // Where tiles are kept is the administrator's decision.
        let blob_store = match blob_store {
            "" => String::new(),
            id => format!("<blobStoreId>{}</blobStoreId>", escape(id)),
        };
        format!(
            "<GeoServerLayer><enabled>true</enabled><inMemoryCached>true</inMemoryCached><name>{}</name>{blob_store}\
             <mimeFormats>{formats}</mimeFormats><gridSubsets>{subsets}</gridSubsets>\
             <metaWidthHeight><int>1</int><int>1</int></metaWidthHeight>\
             <expireCache>{}</expireCache><expireClients>{}</expireClients>\
             <parameterFilters><styleParameterFilter><key>STYLES</key><defaultValue></defaultValue>\
             </styleParameterFilter></parameterFilters><gutter>{GUTTER}</gutter></GeoServerLayer>",
            escape(label.as_str()),
            Self::seconds(self.expire_cache),
            Self::seconds(self.expire_clients),
        )
    }
}

fn is_group(shown: &Value) -> bool {
    json::text(&shown["id"]).starts_with("LayerGroupInfoImpl")
}

/// The area that GeoServer has computed for a grid set.
fn area(subset: &Value) -> Option<Rectangle> {
    let numbers: Vec<f64> = json::many(&subset["extent"]["coords"]).iter().filter_map(json::number).collect();
    numbers.try_into().ok()
}

/// The address of a tile layer or of its tasks.
///
/// The tile cache decodes names twice, so that a plus becomes a space and would name another layer.
fn address(collection: &str, workspace: &GeoName, name: &GeoName, ending: &str) -> Result<String> {
    let label = format!("{workspace}:{name}");
    if label.contains('+') {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "GeoServer's tile cache cannot address a name with a plus sign",
        )
        .subject(label)
        .hint("rename the layer on the master, or publish it there without a cache layer"));
    }
    Ok(path(&["gwc", "rest", collection, &label], ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn roads() -> TileLayer {
        TileLayer {
            workspace: GeoName::workspace("kmi").unwrap(),
            name: GeoName::new("layer", "roads & 'rivers'").unwrap(),
            vector_formats: true,
            expire_cache: i64::MAX,
            expire_clients: 0,
        }
    }

    fn sets() -> GridSets {
        GridSets { geographic: "gda94".into(), web_mercator: "EPSG:900913".into(), change: Change::Unchanged }
    }

    #[test]
    fn the_document_holds_everything() {
        insta::assert_snapshot!(roads().document(&sets(), "s3 & more"), @"<GeoServerLayer><enabled>true</enabled><inMemoryCached>true</inMemoryCached><name>kmi:roads &amp; &apos;rivers&apos;</name><blobStoreId>s3 &amp; more</blobStoreId><mimeFormats><string>application/json;type=geojson</string><string>application/json;type=topojson</string><string>application/json;type=utfgrid</string><string>application/vnd.mapbox-vector-tile</string><string>image/jpeg</string><string>image/png</string></mimeFormats><gridSubsets><gridSubset><gridSetName>gda94</gridSetName></gridSubset><gridSubset><gridSetName>EPSG:900913</gridSetName></gridSubset></gridSubsets><metaWidthHeight><int>1</int><int>1</int></metaWidthHeight><expireCache>2147483647</expireCache><expireClients>0</expireClients><parameterFilters><styleParameterFilter><key>STYLES</key><defaultValue></defaultValue></styleParameterFilter></parameterFilters><gutter>100</gutter></GeoServerLayer>");
    }

    #[test]
    fn what_geoserver_shows_is_compared_by_its_meaning() {
        let shown = json!({
            "id": "LayerInfoImpl-1", "enabled": true, "inMemoryCached": true, "name": "kmi:roads & 'rivers'",
            "mimeFormats": ["image/jpeg", "application/vnd.mapbox-vector-tile", "image/png",
                "application/json;type=utfgrid", "application/json;type=topojson", "application/json;type=geojson"],
            "gridSubsets": [{"gridSetName": "EPSG:900913"}, {"gridSetName": "gda94", "extent": {"coords": [1, 2, 3, 4]}}],
            "metaWidthHeight": [1, 1], "expireCache": i32::MAX, "expireClients": 0, "gutter": 100,
            "parameterFilters": [{"key": "STYLES", "defaultValue": ""}], "cacheWarningSkips": [],
        });
        assert!(roads().is(&shown, &sets()));
        let change = |path: &str, value: Value| {
            let mut shown = shown.clone();
            *shown.pointer_mut(path).unwrap() = value;
            roads().is(&shown, &sets())
        };
        assert!(!change("/parameterFilters", json!([])));
        assert!(!change("/parameterFilters/0", json!({"key": "STYLES", "defaultValue": "", "availableStyles": ["a"]})));
        assert!(!change("/gridSubsets/0/gridSetName", json!("nosuch")));
        assert!(!change("/gridSubsets/0", json!({"gridSetName": "EPSG:900913", "zoomStop": 3})));
        assert!(!change("/enabled", json!(false)));
        assert!(!change("/metaWidthHeight", json!([4, 4])));
        assert!(!change("/mimeFormats", json!(["image/png", "image/jpeg"])));
        let mut group = shown.clone();
        group["id"] = json!("LayerGroupInfoImpl-1");
        group["parameterFilters"] = json!([]);
        assert!(roads().is(&group, &sets()), "a group has no styles");
    }

    #[test]
    fn only_truncations_are_waited_for() {
        let read = |row: Value| Task::read(&row);
        assert_eq!(read(json!([-1, -1, -2, 7, 1])), Some(Task { id: 7, state: Task::RUNNING }));
        assert!(read(json!([-1, -1, -2, 8, 2])).unwrap().has_ended());
        assert_eq!(read(json!([3, 8, 0, 9, 1])), None, "tiles are being made");
        assert_eq!(read(json!([])), None);
    }
}
