//! Where the data of layers and groups are, in longitude and latitude.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::Result;
use crate::name::GeoName;

use super::catalog::Held;
use super::client::{Writer, path};
use super::json;

/// The earth's radius in the web mercator projection (EPSG:3857), in metres.
const RADIUS: f64 = 6_378_137.0;

/// Where the web mercator projection ends, in degrees of latitude.
const MERCATOR_LATITUDE: f64 = 85.051_128_78;

/// Systems whose coordinates are those of EPSG:4326 within two metres: WGS 84, GDA94, GDA2020.
const GEOGRAPHIC: [&str; 3] = ["EPSG:4326", "EPSG:4283", "EPSG:7844"];

/// The two codes of the web mercator projection.
const MERCATOR: [&str; 2] = ["EPSG:3857", "EPSG:900913"];

/// The workspaces' collections that a layer's resource can be in, and the document's name; in the
/// order in which they are asked.
const RESOURCES: [(&str, &str); 4] = [
    ("featuretypes", "featureType"),
    ("wmslayers", "wmsLayer"),
    ("coverages", "coverage"),
    ("wmtslayers", "wmtsLayer"),
];

/// The system that GeoServer declares for what has no geometry.
const PLACELESS: &str = "EPSG:404000";

/// A box: minimum x, minimum y, maximum x, maximum y.
pub(super) type Rectangle = [f64; 4];

/// All of the earth.
pub(super) const WORLD: Rectangle = [-180.0, -90.0, 180.0, 90.0];

/// Where the data of a layer or group are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// There is no such layer.
    Missing,
    /// It is there, but GeoServer cannot read it now.
    Unreadable,
    /// It has no data, or none with a place.
    Nowhere,
    /// In this box of longitudes and latitudes.
    Box(Rectangle),
}

impl Writer<'_> {
    /// Where a layer's data are, from the box that GeoServer shows for it.
    pub(super) async fn layer_extent(&mut self, workspace: &GeoName, layer: &GeoName) -> Result<Extent> {
        let key = (workspace.clone(), layer.clone());
        if let Some(extent) = self.catalog.extents.get(&key) {
            return Ok(*extent);
        }
        let mut extent = Extent::Missing;
        for (collection, root) in RESOURCES {
            let address = path(&["workspaces", workspace.as_str(), collection, layer.as_str()], "json");
            let answer = self.server.get(&format!("{address}?quietOnNotFound=true")).await?;
            if answer.is_missing() {
                continue;
            }
            if answer.status.is_server_error() {
                // Its table or its server is gone.
                tracing::warn!(layer = %format!("{workspace}:{layer}"), reason = answer.message(), "extent not readable");
                extent = Extent::Unreadable;
                break;
            }
            let document = answer.json(&format!("read the layer {workspace}:{layer}"))?;
            let resource = &document[root];
            extent = match read(&resource["latLonBoundingBox"]) {
                // A table without geometry is given a box of one degree, beside the Gulf of Guinea.
                Some(shown) if json::text(&resource["srs"]) != PLACELESS => Extent::Box(shown),
                _ => Extent::Nowhere,
            };
            break;
        }
        if !matches!(extent, Extent::Missing | Extent::Unreadable) {
            self.catalog.extents.insert(key, extent);
        }
        Ok(extent)
    }

    /// Where the data of a group's member are. A group's own box may be older than its members; so
    /// that of a nested group is made of its members', `seen` being the groups around it.
    pub(super) async fn member_extent(&mut self, member: &Held, seen: &mut BTreeSet<String>) -> Result<Extent> {
        let Some((workspace, name)) = member.workspace_and_name() else {
            // A global group inside a group: it is there, and its box is its own affair.
            return Ok(Extent::Unreadable);
        };
        if !member.is_group {
            return self.layer_extent(&workspace, &name).await;
        }
        if !seen.insert(member.label.clone()) {
            return Ok(Extent::Nowhere);
        }
        let members = match self.group_members(Some(&workspace), name.as_str()).await? {
            None => return Ok(Extent::Missing),
            Some(None) => return Ok(Extent::Unreadable),
            Some(Some(members)) => members,
        };
        let mut whole = Extent::Nowhere;
        for member in &members {
            whole = whole.and(Box::pin(self.member_extent(member, seen)).await?);
        }
        Ok(whole)
    }
}

impl Extent {
    /// Both together, as far as they are known.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Box(one), Self::Box(other)) => Self::Box(around(one, other)),
            (Self::Box(known), _) | (_, Self::Box(known)) => Self::Box(known),
            (Self::Unreadable, _) | (_, Self::Unreadable) => Self::Unreadable,
            _ => Self::Nowhere,
        }
    }
}

/// The box around two boxes.
pub(super) fn around(one: Rectangle, other: Rectangle) -> Rectangle {
    [one[0].min(other[0]), one[1].min(other[1]), one[2].max(other[2]), one[3].max(other[3])]
}

/// Whether `outer` holds `inner`, as far as that is on earth; `slack` is in degrees.
pub(super) fn covers(outer: Rectangle, inner: Rectangle, slack: f64) -> bool {
    outer[0] - slack <= inner[0].max(WORLD[0])
        && outer[1] - slack <= inner[1].max(WORLD[1])
        && outer[2] + slack >= inner[2].min(WORLD[2])
        && outer[3] + slack >= inner[3].min(WORLD[3])
}

/// A box as GeoServer writes it. An empty one has its maximum below its minimum.
pub(super) fn read(value: &Value) -> Option<Rectangle> {
    let number = |key: &str| json::number(&value[key]);
    let [minx, miny, maxx, maxy] = [number("minx")?, number("miny")?, number("maxx")?, number("maxy")?];
    let sound = [minx, miny, maxx, maxy].iter().all(|number| number.is_finite()) && minx <= maxx && miny <= maxy;
    sound.then_some([minx, miny, maxx, maxy])
}

/// A group's box in longitude and latitude, when its system is one of those that are known here.
pub(super) fn read_bounds(bounds: &Value) -> Option<Rectangle> {
    let rectangle = read(bounds)?;
    let crs = json::text(&bounds["crs"]);
    if GEOGRAPHIC.contains(&crs.as_str()) {
        return Some(rectangle);
    }
    let back = |[x, y]: [f64; 2]| {
        [(x / RADIUS).to_degrees(), (2.0 * (y / RADIUS).exp().atan() - std::f64::consts::FRAC_PI_2).to_degrees()]
    };
    let ([west, south], [east, north]) = (back([rectangle[0], rectangle[1]]), back([rectangle[2], rectangle[3]]));
    MERCATOR.contains(&crs.as_str()).then_some([west, south, east, north])
}

/// A group's box for GeoServer, in `srs` when that is geographic or web mercator.
///
/// GeoServer does not transform a box that it is given. In any other system the box is told in
/// EPSG:4326, which describes the same area.
pub(super) fn write_bounds(rectangle: Rectangle, srs: &str) -> Value {
    let bounds = |[minx, miny, maxx, maxy]: Rectangle, crs: Value| json!({"minx": minx, "miny": miny, "maxx": maxx, "maxy": maxy, "crs": crs});
    if MERCATOR.contains(&srs) {
        let project = |longitude: f64, latitude: f64| {
            let latitude = latitude.clamp(-MERCATOR_LATITUDE, MERCATOR_LATITUDE).to_radians();
            [
                RADIUS * longitude.clamp(-180.0, 180.0).to_radians(),
                RADIUS * (std::f64::consts::FRAC_PI_4 + latitude / 2.0).tan().ln(),
            ]
        };
        let ([minx, miny], [maxx, maxy]) = (project(rectangle[0], rectangle[1]), project(rectangle[2], rectangle[3]));
        return bounds([minx, miny, maxx, maxy], json!({"@class": "projected", "$": "EPSG:3857"}));
    }
    let crs = if GEOGRAPHIC.contains(&srs) { srs } else { GEOGRAPHIC[0] };
    bounds(rectangle, json!(crs))
}

/// Whether GeoServer shows the box that [`write_bounds`] made.
pub(super) fn same_bounds(shown: &Value, wanted: &Value) -> bool {
    let (Some(one), Some(other)) = (read(shown), read(wanted)) else { return false };
    json::text(&shown["crs"]) == json::text(&wanted["crs"])
        && one.iter().zip(other).all(|(one, other)| (one - other).abs() <= 1e-9 * other.abs().max(1.0))
}

impl Held {
    /// None for what is in no workspace, or has a name that is not ours.
    pub(super) fn workspace_and_name(&self) -> Option<(GeoName, GeoName)> {
        let (workspace, name) = self.label.split_once(':')?;
        Some((GeoName::new("workspace", workspace).ok()?, GeoName::new("member", name).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_boxes_are_no_boxes() {
        assert_eq!(read(&json!({"minx": 0, "maxx": -1, "miny": 0, "maxy": -1})), None);
        assert_eq!(
            read(&json!({"minx": 115, "maxx": 116, "miny": "-2.87E-4", "maxy": 0})),
            Some([115.0, -0.000_287, 116.0, 0.0])
        );
        assert_eq!(read(&json!("")), None);
    }

    #[test]
    fn what_is_known_counts() {
        let one = Extent::Box([1.0, 1.0, 2.0, 2.0]);
        assert_eq!(one.and(Extent::Box([0.0, 3.0, 1.0, 4.0])), Extent::Box([0.0, 1.0, 2.0, 4.0]));
        assert_eq!(Extent::Nowhere.and(one), one);
        assert_eq!(Extent::Nowhere.and(Extent::Unreadable), Extent::Unreadable);
    }

    #[test]
    fn bounds_are_told_in_the_groups_system_where_that_is_simple() {
        let told = |srs: &str| write_bounds([115.0, -33.0, 116.0, -32.0], srs).to_string();
        assert_eq!(told("EPSG:4283"), r#"{"crs":"EPSG:4283","maxx":116.0,"maxy":-32.0,"minx":115.0,"miny":-33.0}"#);
        assert!(told("EPSG:28350").contains(r#""crs":"EPSG:4326""#));
        // What PROJ says: 115 -33 → 12801741.4412 -3895303.9634.
        let web = write_bounds([115.0, -33.0, 116.0, -32.0], "EPSG:900913");
        assert_eq!(json::text(&web["crs"]), "EPSG:3857");
        let shown = read(&web).unwrap();
        assert!((shown[0] - 12_801_741.441_2).abs() < 0.001 && (shown[1] + 3_895_303.963_4).abs() < 0.001, "{shown:?}");
    }

    proptest! {
        #[test]
        fn bounds_come_back_as_they_were_told(
            west in -180.0..180.0_f64, south in -85.0..85.0_f64, width in 0.0..1.0_f64, height in 0.0..1.0_f64,
            srs in prop::sample::select(vec!["EPSG:4326", "EPSG:4283", "EPSG:3857", "EPSG:28350"]),
        ) {
            let rectangle = [west, south, (west + width).min(180.0), (south + height).min(85.0)];
            let told = write_bounds(rectangle, srs);
            prop_assert!(same_bounds(&told, &told));
            let back = read_bounds(&told).unwrap();
            prop_assert!(covers(back, rectangle, 1e-9) && covers(rectangle, back, 1e-9), "{:?}", back);
        }
    }
}
