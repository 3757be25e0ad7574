//! The catalog as tests look at it.

use super::GeoServerDouble;
use super::catalog::{Bounds, Catalog, StyleRef};

/// A published layer with its feature type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerView {
    pub(crate) title: String,
    pub(crate) abstract_text: String,
    pub(crate) keywords: Vec<String>,
    pub(crate) srs: String,
    /// `ws:name`, or the bare name of a global style; `None` when the reference is broken or empty.
    pub(crate) default_style: Option<String>,
    pub(crate) styles: Vec<String>,
    pub(crate) store: String,
    pub(crate) native_name: String,
    pub(crate) native_box: Option<BoxView>,
    pub(crate) latlon_box: Option<BoxView>,
    /// The SQL of a SQL view, without the line end that GeoServer adds.
    pub(crate) sql: Option<String>,
    pub(crate) enabled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BoxView {
    pub(crate) minx: f64,
    pub(crate) miny: f64,
    pub(crate) maxx: f64,
    pub(crate) maxy: f64,
}

impl From<&Bounds> for BoxView {
    fn from(bounds: &Bounds) -> Self {
        Self { minx: bounds.minx, miny: bounds.miny, maxx: bounds.maxx, maxy: bounds.maxy }
    }
}

fn style_name(cat: &Catalog, style: &StyleRef) -> Option<String> {
    match style {
        StyleRef::Style(id) => cat.style(*id).map(|style| cat.style_label(style)),
        _ => None,
    }
}

impl GeoServerDouble {
    pub(crate) fn workspaces(&self) -> Vec<String> {
        self.state.cat().workspaces.iter().map(|ws| ws.name.clone()).collect()
    }

    /// Data stores of a workspace.
    pub(crate) fn stores(&self, ws: &str) -> Vec<String> {
        let cat = self.state.cat();
        let id = cat.ws_id(ws);
        cat.stores.iter().filter(|store| Some(store.ws) == id).map(|store| store.name.clone()).collect()
    }

    /// One connection parameter of a store, the password in clear.
    pub(crate) fn store_param(&self, ws: &str, store: &str, key: &str) -> Option<String> {
        self.state.cat().store(ws, store).and_then(|store| store.param(key).map(str::to_owned))
    }

    pub(crate) fn wms_stores(&self, ws: &str) -> Vec<String> {
        let cat = self.state.cat();
        let id = cat.ws_id(ws);
        cat.wms_stores.iter().filter(|store| Some(store.ws) == id).map(|store| store.name.clone()).collect()
    }

    pub(crate) fn layers(&self, ws: &str) -> Vec<String> {
        let cat = self.state.cat();
        cat.layers
            .iter()
            .map(|layer| cat.layer_names(layer))
            .filter(|(held, _)| held == ws)
            .map(|(_, name)| name)
            .collect()
    }

    pub(crate) fn layer(&self, ws: &str, name: &str) -> Option<LayerView> {
        let cat = self.state.cat();
        let layer = cat.layer_in(ws, name)?;
        let resource = cat.resource(layer.resource)?;
        let store = cat
            .stores
            .iter()
            .map(|store| (store.id, &store.name))
            .chain(cat.wms_stores.iter().map(|store| (store.id, &store.name)))
            .find(|(id, _)| *id == resource.store)?
            .1
            .clone();
        Some(LayerView {
            title: resource.title.clone().unwrap_or_default(),
            abstract_text: resource.abstract_text.clone().unwrap_or_default(),
            keywords: resource.keywords.clone(),
            srs: resource.srs.clone(),
            default_style: style_name(&cat, &layer.default_style),
            styles: layer.styles.iter().filter_map(|style| style_name(&cat, style)).collect(),
            store,
            native_name: resource.native_name.clone(),
            native_box: resource.native_box.as_ref().map(BoxView::from),
            latlon_box: resource.latlon_box.as_ref().map(BoxView::from),
            sql: resource
                .virtual_table()
                .and_then(|table| table.text_of("sql"))
                .map(|sql| sql.trim_end_matches('\n').to_owned()),
            enabled: resource.enabled,
        })
    }

    /// Styles of a workspace, by name.
    pub(crate) fn styles(&self, ws: &str) -> Vec<String> {
        let cat = self.state.cat();
        let Some(id) = cat.ws_id(ws) else { return vec![] };
        cat.styles.iter().filter(|style| style.ws == Some(id)).map(|style| style.name.clone()).collect()
    }

    /// The body as stored: as sent when it was sent raw or is SLD 1.1, rewritten otherwise.
    pub(crate) fn style_body(&self, ws: &str, name: &str) -> Option<String> {
        let cat = self.state.cat();
        let style = cat.style_in(Some(cat.ws_id(ws)?), name)?;
        cat.style_files.get(&(style.ws, style.filename.clone())).cloned()
    }

    /// Members of a layer group, `ws:name` each.
    pub(crate) fn group(&self, ws: &str, name: &str) -> Option<Vec<String>> {
        let cat = self.state.cat();
        let group = cat.group_in(Some(cat.ws_id(ws)?), name)?;
        Some(group.members.iter().map(|member| super::group::member_label(&cat, member)).collect())
    }

    /// Access rules, `ws.layer.mode` to roles.
    pub(crate) fn rules(&self) -> std::collections::BTreeMap<String, String> {
        self.state.cat().acl.clone()
    }

    /// The tile layer's document.
    pub(crate) fn tile_layer(&self, label: &str) -> Option<String> {
        self.state.cat().gwc.layer_xml(label)
    }
}
