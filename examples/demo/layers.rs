//! What the master of the demo publishes: a small Perth.

use serde_json::json;

use crate::support::world::Layer;

/// West, south, east, north of everything.
pub(crate) const BOX: [f64; 4] = [115.66, -32.44, 116.22, -31.64];

/// The layers of the demo, in workspaces of their own.
pub(crate) struct Layers {
    suffix: String,
}

impl Layers {
    /// `suffix` follows the name of every workspace: a GeoServer that others use as well may have a `transport`.
    pub(crate) fn new(suffix: String) -> Self {
        Self { suffix }
    }

    pub(crate) fn workspaces(&self) -> Vec<String> {
        ["cadastre", "transport", "water", "places"].iter().map(|name| self.workspace(name)).collect()
    }

    fn workspace(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    fn layer(&self, workspace: &str, name: &str, geometry: &str, sql: &str) -> Layer {
        let mut layer = Layer::new(&self.workspace(workspace), name)
            .dump(|dump| dump.geometry(geometry).without("label").sql(sql))
            .field("spatial_type", json!(geometry.to_uppercase()))
            .field("bbox", json!(BOX));
        layer.keywords = vec!["Perth".into(), workspace.into()];
        layer.abstract_text = "Made up for a demonstration; not for navigation.".into();
        layer
    }

    pub(crate) fn parcels(&self) -> Layer {
        self.layer("cadastre", "parcels", "Polygon", include_str!("sql/parcels.sql"))
            .title("Lots and their use")
            .styles(&[("builtin", include_str!("styles/parcels.sld"))])
    }

    pub(crate) fn roads(&self) -> Layer {
        self.layer("transport", "roads", "LineString", include_str!("sql/roads.sql"))
            .title("Roads")
            .styles(&[("builtin", include_str!("styles/roads.sld")), ("night", include_str!("styles/roads.night.sld"))])
    }

    /// The roads with one more column and a few streets less.
    pub(crate) fn roads_with_speed(&self) -> Layer {
        self.roads().title("Roads and speed limits").dump(|dump| {
            dump.sql("alter table {} add column speed_limit integer")
                .sql(
                    "update {} set speed_limit = case class when 'freeway' then 100 when 'highway' then 80 else 50 end",
                )
                .sql("delete from {} where class = 'street' and name like 'Subiaco%'")
        })
    }

    pub(crate) fn rivers(&self) -> Layer {
        self.layer("water", "rivers", "LineString", include_str!("sql/rivers.sql"))
            .title("Rivers")
            .styles(&[("builtin", include_str!("styles/rivers.sld"))])
    }

    pub(crate) fn darker_rivers(&self) -> Layer {
        self.rivers().styles(&[("builtin", include_str!("styles/rivers.darker.sld"))])
    }

    /// A style that ends in the middle, as a full disk leaves it.
    pub(crate) fn rivers_with_a_broken_style(&self) -> Layer {
        let whole = include_str!("styles/rivers.darker.sld");
        let half = whole.get(..whole.len() / 2).unwrap_or(whole);
        self.rivers().styles(&[("builtin", half)])
    }

    pub(crate) fn towns(&self) -> Layer {
        self.layer("places", "towns", "Point", include_str!("sql/towns.sql"))
            .title("Towns and suburbs")
            .styles(&[("builtin", include_str!("styles/towns.sld"))])
    }

    pub(crate) fn parks(&self) -> Layer {
        self.layer("places", "parks", "Polygon", include_str!("sql/parks.sql"))
            .title("Parks")
            .styles(&[("builtin", include_str!("styles/parks.sld"))])
    }
}
