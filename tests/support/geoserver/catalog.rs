//! What the double holds in memory, and the consequences that a change of one thing has for others.

use std::collections::{BTreeMap, HashMap};

use super::doc::{El, java_double};
use super::gwc::Gwc;
use super::postgis::{Attribute, Link};

pub(crate) type Id = u64;

#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) id: Id,
    pub(crate) name: String,
    pub(crate) uri: String,
    pub(crate) isolated: bool,
    pub(crate) modified: bool,
}

/// A data store; parameters in clear (a password is shown as cipher text only).
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) id: Id,
    pub(crate) ws: Id,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) enabled: bool,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) modified: bool,
}

impl Store {
    pub(crate) fn param(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// How to reach the database, unless the store is disabled or not a PostGIS one.
    pub(crate) fn link(&self) -> Option<Link> {
        if !self.enabled || self.param("dbtype") != Some("postgis") {
            return None;
        }
        Some(Link {
            host: self.param("host")?.to_owned(),
            port: self.param("port").unwrap_or("5432").parse().ok()?,
            database: self.param("database")?.to_owned(),
            schema: self.param("schema").unwrap_or("public").to_owned(),
            user: self.param("user").unwrap_or_default().to_owned(),
            password: self.param("passwd").unwrap_or_default().to_owned(),
            expose_keys: self.param("Expose primary keys") == Some("true"),
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) minx: f64,
    pub(crate) maxx: f64,
    pub(crate) miny: f64,
    pub(crate) maxy: f64,
    pub(crate) crs: Option<String>,
}

impl Bounds {
    pub(crate) fn empty(crs: Option<String>) -> Self {
        Self { minx: 0.0, maxx: -1.0, miny: 0.0, maxy: -1.0, crs }
    }

    pub(crate) fn read(el: &El) -> Self {
        let number = |name: &str| el.text_of(name).and_then(|text| text.trim().parse().ok()).unwrap_or(0.0);
        Self {
            minx: number("minx"),
            maxx: number("maxx"),
            miny: number("miny"),
            maxy: number("maxy"),
            crs: el.text_of("crs").filter(|crs| !crs.is_empty()),
        }
    }

    pub(crate) fn write(&self, name: &str) -> El {
        let el = El::new(name)
            .with("minx", java_double(self.minx))
            .with("maxx", java_double(self.maxx))
            .with("miny", java_double(self.miny))
            .with("maxy", java_double(self.maxy));
        match &self.crs {
            Some(crs) if super::crs::projected(crs) => el.kid(El::leaf("crs", crs).attr("class", "projected")),
            Some(crs) => el.with("crs", crs),
            None => el,
        }
    }
}

/// A published table or view, or a layer of another WMS (`remote`).
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) id: Id,
    pub(crate) ws: Id,
    pub(crate) store: Id,
    pub(crate) remote: bool,
    pub(crate) name: String,
    pub(crate) native_name: String,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) abstract_text: Option<String>,
    pub(crate) keywords: Vec<String>,
    pub(crate) native_crs: Option<String>,
    pub(crate) srs: String,
    pub(crate) native_box: Option<Bounds>,
    pub(crate) latlon_box: Option<Bounds>,
    pub(crate) policy: String,
    pub(crate) enabled: bool,
    pub(crate) advertised: Option<bool>,
    pub(crate) metadata: Vec<El>,
    pub(crate) modified: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StyleRef {
    Style(Id),
    /// A name that did not resolve: accepted, and from then on the holder cannot be written out.
    Missing,
    None,
}

#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) id: Id,
    pub(crate) resource: Id,
    pub(crate) path: Option<String>,
    pub(crate) default_style: StyleRef,
    pub(crate) styles: Vec<StyleRef>,
    pub(crate) queryable: bool,
    pub(crate) opaque: bool,
    pub(crate) attribution: Vec<(String, String)>,
    pub(crate) modified: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) id: Id,
    pub(crate) ws: Option<Id>,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) filename: String,
    pub(crate) modified: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Member {
    Layer(Id),
    Group(Id),
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) id: Id,
    pub(crate) ws: Option<Id>,
    pub(crate) name: String,
    pub(crate) mode: String,
    pub(crate) title: Option<String>,
    pub(crate) abstract_text: Option<String>,
    pub(crate) keywords: Vec<String>,
    pub(crate) members: Vec<Member>,
    pub(crate) styles: Vec<StyleRef>,
    pub(crate) bounds: Option<Bounds>,
    pub(crate) enabled: bool,
    pub(crate) modified: bool,
    /// A member was taken out.
    pub(crate) trimmed: bool,
    /// `<styles/>` was put once: any number of styles is accepted afterwards.
    pub(crate) loose: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct WmsStore {
    pub(crate) id: Id,
    pub(crate) ws: Id,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) enabled: bool,
    pub(crate) url: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) max_connections: String,
    pub(crate) read_timeout: String,
    pub(crate) connect_timeout: String,
    pub(crate) modified: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) password: String,
    pub(crate) enabled: bool,
    pub(crate) roles: Vec<String>,
    pub(crate) groups: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Catalog {
    last: Id,
    pub(crate) workspaces: Vec<Workspace>,
    pub(crate) default_workspace: Option<Id>,
    pub(crate) had_workspace: bool,
    pub(crate) stores: Vec<Store>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) styles: Vec<Style>,
    /// Bodies by workspace and file name: two records may share a file.
    pub(crate) style_files: HashMap<(Option<Id>, String), String>,
    pub(crate) groups: Vec<Group>,
    pub(crate) wms_stores: Vec<WmsStore>,
    /// Attribute lists as last read, by store and native name (of a SQL view: by its name and its SQL).
    pub(crate) attributes: HashMap<(Id, String), Vec<Attribute>>,
    /// Remote capabilities as last read, by store.
    pub(crate) remote: HashMap<Id, Vec<super::wms_store::RemoteLayer>>,
    pub(crate) gwc: Gwc,
    pub(crate) acl: BTreeMap<String, String>,
    pub(crate) mode: String,
    pub(crate) data_dir: super::data_dir::DataDir,
    pub(crate) roles: Vec<String>,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) user_groups: BTreeMap<String, Vec<String>>,
}

impl Catalog {
    /// An installation with nothing published: the built-in styles, the administrator, the rules of the first start.
    pub(crate) fn fresh() -> Self {
        let mut catalog = Self {
            last: 0,
            workspaces: vec![],
            default_workspace: None,
            had_workspace: false,
            stores: vec![],
            resources: vec![],
            layers: vec![],
            styles: vec![],
            style_files: HashMap::new(),
            groups: vec![],
            wms_stores: vec![],
            attributes: HashMap::new(),
            remote: HashMap::new(),
            gwc: Gwc::fresh(),
            acl: BTreeMap::from([
                ("*.*.r".to_owned(), "*".to_owned()),
                ("*.*.w".to_owned(), "GROUP_ADMIN,ADMIN".to_owned()),
            ]),
            mode: "HIDE".to_owned(),
            data_dir: super::data_dir::DataDir::fresh(),
            roles: vec!["ADMIN".to_owned(), "GROUP_ADMIN".to_owned()],
            users: BTreeMap::new(),
            user_groups: BTreeMap::new(),
        };
        catalog.users.insert(
            "admin".to_owned(),
            User { password: "geoserver".to_owned(), enabled: true, roles: vec!["ADMIN".to_owned()], groups: vec![] },
        );
        for name in ["generic", "line", "point", "polygon", "raster"] {
            let id = catalog.next();
            let filename = format!("default_{name}.sld");
            catalog.style_files.insert((None, filename.clone()), super::sld::built_in(name));
            let version = "1.0.0".to_owned();
            catalog.styles.push(Style { id, ws: None, name: name.to_owned(), version, filename, modified: false });
        }
        super::data_dir::keep(&mut catalog);
        catalog
    }

    pub(crate) fn next(&mut self) -> Id {
        self.last += 1;
        self.last
    }

    pub(crate) fn workspace(&self, name: &str) -> Option<&Workspace> {
        if name == "default" {
            return self.workspaces.iter().find(|ws| Some(ws.id) == self.default_workspace);
        }
        self.workspaces.iter().find(|ws| ws.name == name)
    }

    pub(crate) fn ws_id(&self, name: &str) -> Option<Id> {
        self.workspace(name).map(|ws| ws.id)
    }

    pub(crate) fn ws_name(&self, id: Id) -> String {
        self.workspaces.iter().find(|ws| ws.id == id).map(|ws| ws.name.clone()).unwrap_or_default()
    }

    pub(crate) fn store(&self, ws: &str, name: &str) -> Option<&Store> {
        let ws = self.ws_id(ws)?;
        self.stores.iter().find(|store| store.ws == ws && store.name == name)
    }

    /// Data, coverage and WMS stores share one set of names.
    pub(crate) fn store_name_taken(&self, ws: Id, name: &str, but: Id) -> bool {
        self.stores.iter().any(|store| store.ws == ws && store.name == name && store.id != but)
            || self.wms_stores.iter().any(|store| store.ws == ws && store.name == name && store.id != but)
    }

    pub(crate) fn resource(&self, id: Id) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.id == id)
    }

    pub(crate) fn resource_mut(&mut self, id: Id) -> Option<&mut Resource> {
        self.resources.iter_mut().find(|resource| resource.id == id)
    }

    /// The 500 for a name that is taken in the store or in the workspace.
    pub(crate) fn resource_name_taken(&self, ws: Id, store: Id, name: &str, but: Id) -> Option<String> {
        let same = |resource: &&Resource| resource.ws == ws && resource.name == name && resource.id != but;
        let store_name = |id: Id| {
            let data = self.stores.iter().find(|store| store.id == id).map(|store| store.name.clone());
            data.or_else(|| self.wms_stores.iter().find(|store| store.id == id).map(|store| store.name.clone()))
                .unwrap_or_default()
        };
        let taken = self.resources.iter().find(same)?;
        Some(if taken.store == store {
            format!("Resource named '{name}' already exists in store: '{}'", store_name(store))
        } else {
            format!("Resource named '{name}' already exists in namespace: '{}'", self.ws_name(ws))
        })
    }

    pub(crate) fn layer(&self, id: Id) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.id == id)
    }

    pub(crate) fn layer_names(&self, layer: &Layer) -> (String, String) {
        match self.resource(layer.resource) {
            Some(resource) => (self.ws_name(resource.ws), resource.name.clone()),
            None => Default::default(),
        }
    }

    pub(crate) fn layer_in(&self, ws: &str, name: &str) -> Option<&Layer> {
        let ws = self.ws_id(ws)?;
        self.layers
            .iter()
            .find(|layer| self.resource(layer.resource).is_some_and(|found| found.ws == ws && found.name == name))
    }

    /// A layer by `ws:name`, or by bare name over all workspaces, the latest made winning.
    pub(crate) fn layer_named(&self, name: &str) -> Option<&Layer> {
        if let Some((ws, rest)) = name.split_once(':')
            && let Some(found) = self.layer_in(ws, rest)
        {
            return Some(found);
        }
        self.layers
            .iter()
            .filter(|layer| self.resource(layer.resource).is_some_and(|found| found.name == name))
            .max_by_key(|layer| layer.id)
    }

    pub(crate) fn style(&self, id: Id) -> Option<&Style> {
        self.styles.iter().find(|style| style.id == id)
    }

    pub(crate) fn style_in(&self, ws: Option<Id>, name: &str) -> Option<&Style> {
        self.styles.iter().find(|style| style.ws == ws && style.name == name)
    }

    /// A style as bodies name it: `ws:name`, name and workspace, or a bare name over all workspaces.
    pub(crate) fn style_named(&self, name: &str, ws: Option<&str>) -> Option<&Style> {
        if let Some(ws) = ws {
            let bare = name.strip_prefix(&format!("{ws}:")).unwrap_or(name);
            return self.style_in(Some(self.ws_id(ws)?), bare);
        }
        if let Some((prefix, rest)) = name.split_once(':')
            && let Some(ws) = self.ws_id(prefix)
            && let Some(style) = self.style_in(Some(ws), rest)
        {
            return Some(style);
        }
        self.styles.iter().filter(|style| style.name == name).max_by_key(|style| style.id)
    }

    pub(crate) fn style_label(&self, style: &Style) -> String {
        match style.ws {
            Some(ws) => format!("{}:{}", self.ws_name(ws), style.name),
            None => style.name.clone(),
        }
    }

    pub(crate) fn built_in(&self, name: &str) -> StyleRef {
        self.style_in(None, name).map_or(StyleRef::Missing, |style| StyleRef::Style(style.id))
    }

    pub(crate) fn group_in(&self, ws: Option<Id>, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.ws == ws && group.name == name)
    }

    /// A group by `ws:name`; a bare name only in the default workspace, or global.
    pub(crate) fn group_named(&self, name: &str) -> Option<&Group> {
        if let Some((prefix, rest)) = name.split_once(':')
            && let Some(ws) = self.ws_id(prefix)
        {
            return self.group_in(Some(ws), rest);
        }
        self.default_workspace.and_then(|ws| self.group_in(Some(ws), name)).or_else(|| self.group_in(None, name))
    }

    pub(crate) fn group_label(&self, group: &Group) -> String {
        match group.ws {
            Some(ws) => format!("{}:{}", self.ws_name(ws), group.name),
            None => group.name.clone(),
        }
    }

    /// The first group that holds the member, by bare name.
    pub(crate) fn held_by(&self, member: &Member) -> Option<String> {
        self.groups.iter().find(|group| group.members.contains(member)).map(|group| group.name.clone())
    }

    /// A group that keeps a store from being deleted with all it holds: one that has several of its
    /// layers. (GeoServer has then deleted some of them before it refuses, which is not done here.)
    pub(crate) fn group_in_the_way(&self, store: Id) -> Option<String> {
        let of_store = |member: &&Member| match member {
            Member::Layer(id) => {
                self.layer(*id).and_then(|layer| self.resource(layer.resource)).is_some_and(|held| held.store == store)
            }
            Member::Group(_) => false,
        };
        let several = |group: &&Group| group.members.iter().filter(of_store).count() > 1;
        self.groups.iter().find(several).map(|group| group.name.clone())
    }

    /// Drops a layer with what hangs on it: its rules, its cached tiles, its places in groups.
    pub(crate) fn drop_layer(&mut self, id: Id) {
        let Some(layer) = self.layer(id) else { return };
        let (ws, name) = self.layer_names(layer);
        self.layers.retain(|layer| layer.id != id);
        let own = ["r", "w", "a"].map(|mode| format!("{ws}.{name}.{mode}"));
        self.acl.retain(|rule, _| !own.contains(rule));
        self.gwc.drop(&format!("{ws}:{name}"));
        self.leave_groups(&Member::Layer(id));
    }

    /// Takes a member out of all groups; groups left empty are deleted, and so on upwards.
    pub(crate) fn leave_groups(&mut self, member: &Member) {
        let mut emptied = vec![];
        for group in &mut self.groups {
            let before = group.members.len();
            while let Some(at) = group.members.iter().position(|held| held == member) {
                group.members.remove(at);
                group.trimmed = true;
                if at < group.styles.len() {
                    group.styles.remove(at);
                }
            }
            if group.members.is_empty() && before > 0 {
                emptied.push(group.id);
            }
        }
        for id in emptied {
            self.drop_group(id);
        }
    }

    pub(crate) fn drop_group(&mut self, id: Id) {
        let Some(group) = self.groups.iter().find(|group| group.id == id) else { return };
        let label = self.group_label(group);
        self.gwc.drop(&label);
        self.groups.retain(|group| group.id != id);
        self.leave_groups(&Member::Group(id));
    }

    pub(crate) fn drop_resource(&mut self, id: Id) {
        let layers: Vec<Id> = self.layers.iter().filter(|layer| layer.resource == id).map(|layer| layer.id).collect();
        for layer in layers {
            self.drop_layer(layer);
        }
        if let Some(resource) = self.resource(id) {
            let key = (resource.store, resource.cache_key());
            self.attributes.remove(&key);
        }
        self.resources.retain(|resource| resource.id != id);
    }

    pub(crate) fn drop_store(&mut self, id: Id) {
        let held: Vec<Id> = self.resources.iter().filter(|held| held.store == id).map(|held| held.id).collect();
        for resource in held {
            self.drop_resource(resource);
        }
        self.stores.retain(|store| store.id != id);
        self.wms_stores.retain(|store| store.id != id);
        self.forget_store(id);
        self.remote.remove(&id);
    }

    /// Forgets the attribute lists of a store.
    pub(crate) fn forget_store(&mut self, id: Id) {
        self.attributes.retain(|(store, _), _| *store != id);
    }

    pub(crate) fn drop_style(&mut self, id: Id) {
        if let Some(style) = self.style(id) {
            let key = (style.ws, style.filename.clone());
            self.style_files.remove(&key);
        }
        self.styles.retain(|style| style.id != id);
    }

    pub(crate) fn drop_workspace(&mut self, id: Id, keep_rules: bool) {
        let name = self.ws_name(id);
        let groups: Vec<Id> = self.groups.iter().filter(|held| held.ws == Some(id)).map(|held| held.id).collect();
        for group in groups {
            self.drop_group(group);
        }
        let stores: Vec<Id> = self.stores.iter().filter(|held| held.ws == id).map(|held| held.id).collect();
        let remote: Vec<Id> = self.wms_stores.iter().filter(|held| held.ws == id).map(|held| held.id).collect();
        for store in stores.into_iter().chain(remote) {
            self.drop_store(store);
        }
        self.styles.retain(|style| style.ws != Some(id));
        self.style_files.retain(|(ws, _), _| *ws != Some(id));
        if !keep_rules {
            self.acl.retain(|rule, _| !rule.starts_with(&format!("{name}.")));
        }
        self.workspaces.retain(|ws| ws.id != id);
        if self.default_workspace == Some(id) {
            self.default_workspace = None;
        }
    }
}

impl Resource {
    /// Name and SQL of the virtual table in the metadata, when it is the one that is served: a native name other
    /// than the virtual table's serves the plain table.
    pub(crate) fn virtual_table(&self) -> Option<&El> {
        self.metadata
            .iter()
            .find(|entry| entry.get_attr("key") == Some("JDBC_VIRTUAL_TABLE"))
            .and_then(|entry| entry.find("virtualTable"))
            .filter(|table| table.text_of("name").as_deref() == Some(&self.native_name))
    }

    pub(crate) fn cache_key(&self) -> String {
        match self.virtual_table() {
            Some(table) => format!("{}\n{}", self.native_name, table.text_of("sql").unwrap_or_default()),
            None => self.native_name.clone(),
        }
    }
}
