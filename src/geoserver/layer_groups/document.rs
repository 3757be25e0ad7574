//! A layer group as GeoServer's document, and what its document says.

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::catalog::Held;
use crate::geoserver::extents::same_bounds;
use crate::geoserver::fields::plain;
use crate::geoserver::json;
use crate::name::GeoName;

use super::{LayerGroup, Member};

impl Member {
    pub(super) fn workspace(&self) -> &GeoName {
        match self {
            Self::Layer(workspace, _) | Self::Group(workspace, _) => workspace,
        }
    }

    /// Always with the workspace: GeoServer looks bare names up in other workspaces as well.
    pub(super) fn held(&self) -> Held {
        match self {
            Self::Layer(workspace, name) => Held { is_group: false, label: format!("{workspace}:{name}") },
            Self::Group(workspace, name) => Held { is_group: true, label: format!("{workspace}:{name}") },
        }
    }
}

impl LayerGroup {
    pub(super) fn check(&self) -> Result<()> {
        let label = format!("{}:{}", self.workspace, self.name);
        let refuse = |message: String| {
            Err(Error::new(ErrorKind::Document, message)
                .subject(label.as_str())
                .hint("correct the layer group on the master and publish it again"))
        };
        if self.members.is_empty() {
            return refuse("a layer group needs at least one member".into());
        }
        let foreign: Vec<String> =
            self.members.iter().filter(|member| *member.workspace() != self.workspace).map(Member::to_string).collect();
        if !foreign.is_empty() {
            return refuse(format!(
                "a layer group in a workspace can only hold layers and groups of that workspace, not {}",
                foreign.join(", ")
            ));
        }
        if self.members.contains(&Member::Group(self.workspace.clone(), self.name.clone())) {
            return refuse("a layer group cannot hold itself".into());
        }
        Ok(())
    }

    /// Whether GeoServer shows this group.
    pub(super) fn is(&self, shown: &Value, bounds: Option<&Value>) -> bool {
        let held: Vec<Held> = self.members.iter().map(Member::held).collect();
        json::text(&shown["mode"]) == "SINGLE"
            && shown["enabled"] != false
            && json::text(&shown["title"]) == plain(&self.title)
            && json::text(&shown["abstractTxt"]).replace("\r\n", "\n") == plain(&self.abstract_text)
            && members(shown) == held
            && json::many(&shown["styles"]["style"]).iter().all(|style| json::text(&style["name"]).is_empty())
            && bounds.is_none_or(|bounds| same_bounds(&shown["bounds"], bounds))
    }

    pub(super) fn document(&self, with_name: bool, bounds: Option<&Value>) -> Value {
        let published: Vec<Value> = self
            .members
            .iter()
            .map(|member| {
                let held = member.held();
                json!({"@type": if held.is_group { "layerGroup" } else { "layer" }, "name": held.label})
            })
            .collect();
        // As many as members, or GeoServer refuses a change of their number. Empty is each one's own.
        let styles = vec![""; self.members.len()];
        let mut group = json!({
            "mode": "SINGLE",
            "title": plain(&self.title),
            "abstractTxt": plain(&self.abstract_text),
            "enabled": true,
            "publishables": {"published": published},
            "styles": {"style": styles},
        });
        if with_name {
            group["name"] = json!(self.name.as_str());
        }
        if let Some(bounds) = bounds {
            group["bounds"] = bounds.clone();
        }
        json!({"layerGroup": group})
    }
}

/// The members that GeoServer shows, in order.
pub(super) fn members(group: &Value) -> Vec<Held> {
    let published = json::many(&group["publishables"]["published"]).iter();
    published
        .map(|member| Held {
            is_group: json::text(&member["@type"]) == "layerGroup",
            label: json::text(&member["name"]),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> LayerGroup {
        let workspace = GeoName::workspace("kmi").unwrap();
        let geo = |name: &str| GeoName::new("layer", name).unwrap();
        LayerGroup {
            workspace: workspace.clone(),
            name: geo("base"),
            title: "Base & more".into(),
            abstract_text: "First\r\nsecond".into(),
            srs: "EPSG:4326".into(),
            members: vec![Member::Group(workspace.clone(), geo("inner")), Member::Layer(workspace, geo("roads"))],
        }
    }

    fn shown() -> Value {
        json!({
            "name": "base", "mode": "SINGLE", "title": "Base & more", "abstractTxt": "First\nsecond", "enabled": true,
            "publishables": {"published": [
                {"@type": "layerGroup", "name": "kmi:inner", "href": ""}, {"@type": "layer", "name": "kmi:roads", "href": ""},
            ]},
            "styles": {"style": ["", ""]},
            "bounds": {"minx": 115, "maxx": 116, "miny": "-2.87E-4", "maxy": 0, "crs": "EPSG:4326"},
        })
    }

    #[test]
    fn there_are_as_many_styles_as_members() {
        insta::assert_snapshot!(group().document(false, None), @r#"{"layerGroup":{"abstractTxt":"First\nsecond","enabled":true,"mode":"SINGLE","publishables":{"published":[{"@type":"layerGroup","name":"kmi:inner"},{"@type":"layer","name":"kmi:roads"}]},"styles":{"style":["",""]},"title":"Base & more"}}"#);
    }

    #[test]
    fn what_geoserver_shows_is_compared_by_its_meaning() {
        let bounds = json!({"minx": 115.0, "maxx": 116.0, "miny": -0.000_287, "maxy": 0.0, "crs": "EPSG:4326"});
        assert!(group().is(&shown(), Some(&bounds)));
        assert!(group().is(&shown(), None));
        let change = |path: &str, value: Value| {
            let mut shown = shown();
            *shown.pointer_mut(path).unwrap() = value;
            group().is(&shown, Some(&bounds))
        };
        assert!(change("/styles", json!("")), "no styles are those of the layers as well");
        assert!(!change("/styles/style/1", json!({"name": "kmi:other"})));
        assert!(!change("/bounds/crs", json!({"@class": "projected", "$": "EPSG:3857"})));
        assert!(!change("/bounds/maxx", json!(117)));
        assert!(!change("/publishables/published/0/@type", json!("layer")));
        assert!(!change("/mode", json!("NAMED")));
        let mut swapped = group();
        swapped.members.swap(0, 1);
        assert!(!swapped.is(&shown(), None));
    }
}
