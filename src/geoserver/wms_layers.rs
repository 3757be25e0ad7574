//! Layers of other servers' WMS.

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::answer::Answer;
use super::client::{GeoServer, Writer, path};
use super::exchange::Newcomer;
use super::fields::{has_boxes, insert_boxes, keywords, keywords_value, plain, title};
use super::places::Places;
use super::secrets::without_addresses;
use super::{Boxes, Change, json};

/// What GeoServer says of a native layer that is not in the capabilities that it has, in its spelling.
const NOT_IN_CAPABILITIES: &str = "Could not find layer";

/// What GeoServer says of a name that is taken, after it has found nothing else wrong.
const NAME_TAKEN: &str = "already exists";

/// What became of a layer that was sent as a new one.
enum Tried {
    Made,
    /// There is one of that name; else nothing is wrong.
    Taken,
    Refused(Answer),
}

impl Tried {
    fn native_is_unknown(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer.message().contains(NOT_IN_CAPABILITIES))
    }
}

/// A layer of an upstream WMS as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct WmsLayer {
    /// The workspace it is in.
    pub workspace: GeoName,
    /// The WMS store that it belongs to.
    pub store: GeoName,
    /// Its name here.
    pub name: GeoName,
    /// Its name at the upstream, as it stands in the capabilities.
    pub native_name: String,
    /// What people read first; the name when empty.
    pub title: String,
    /// What people read next; may be empty.
    pub abstract_text: String,
    /// Keywords, in order; the upstream's own when there are none.
    pub keywords: Vec<String>,
    /// The declared reference system, as in `EPSG:4326`; the upstream's when it is not told.
    pub srs: Option<String>,
    /// The boxes to show; the upstream's when there are none.
    pub boxes: Option<Boxes>,
}

impl GeoServer {
    /// Publishes a layer of an upstream WMS, or brings it to what is told in place.
    ///
    /// GeoServer asks the upstream while it holds the lock of its catalog. So the caller has asked
    /// before ([`upstream_layers`](super::upstream_layers)) whether the upstream answers and has the
    /// layer. When GeoServer has read the capabilities before the layer came into them, it is made to
    /// read them again.
    ///
    /// A layer of that name in another WMS store of the workspace is moved in place: it keeps its
    /// access rules and its tile layer. A layer that GeoServer cannot change (because the upstream has
    /// renamed it meanwhile, or has styles without a legend) is deleted and made again at once: it keeps
    /// its access rules and its places in layer groups, but its tile layer is a new one; this counts as
    /// created. `places` keeps those rules and places meanwhile, and what is in there from an earlier call, which
    /// was killed or failed, is made good by this one. What was told before and is not any more (boxes, keywords, reference system) stays as
    /// it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses, cannot read the upstream, or has a layer of
    /// another kind by that name; [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every
    /// request.
    pub async fn publish_wms_layer(&self, wanted: &WmsLayer, places: &impl Places) -> Result<Change> {
        let mut writer = self.writer().await;
        writer.give_back_rules(Newcomer::WmsLayer(wanted), places).await?;
        let change = writer.publish_wms_layer(wanted, places).await?;
        let back = writer.settle(&wanted.workspace, &wanted.name, places).await?;
        Ok(if change == Change::Unchanged { back } else { change })
    }

    /// Removes a layer of an upstream WMS, with its tile layer and its access rules. What is not there,
    /// is removed; a layer that is in another store than the told one stays.
    ///
    /// A layer that is in layer groups is taken out of them. But GeoServer deletes a group that it
    /// takes the last layer from; so that is an error here, which names the groups.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses or a layer group would be left empty;
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request.
    pub async fn remove_wms_layer(
        &self,
        workspace: &GeoName,
        store: Option<&GeoName>,
        layer: &GeoName,
    ) -> Result<Change> {
        self.writer().await.remove_wms_layer(workspace, store, layer).await
    }
}

impl Writer<'_> {
    async fn publish_wms_layer(&mut self, wanted: &WmsLayer, places: &impl Places) -> Result<Change> {
        // A second round is needed only when somebody else changes the catalog meanwhile.
        for _ in 0..2 {
            match self.find_wms_layer(&wanted.workspace, &wanted.name).await? {
                Some(current) => return self.update_wms_layer(wanted, &current, places).await,
                None => {
                    if let Some(change) = self.create_wms_layer(wanted).await? {
                        return Ok(change);
                    }
                }
            }
        }
        Err(self.is_of_another_kind(wanted))
    }

    pub(super) async fn find_wms_layer(&mut self, workspace: &GeoName, name: &GeoName) -> Result<Option<Value>> {
        let address = format!("{}?quietOnNotFound=true", item(workspace, name));
        let doing = format!("read the WMS layer {workspace}:{name}");
        Ok(self.server.find(&address, &doing).await?.map(|mut document| document["wmsLayer"].take()))
    }

    /// Creates the layer. None when its name is taken.
    pub(super) async fn create_wms_layer(&mut self, wanted: &WmsLayer) -> Result<Option<Change>> {
        match self.try_wms_layer(wanted, true).await? {
            Tried::Made => Ok(Some(Change::Created)),
            Tried::Taken => Ok(None),
            Tried::Refused(answer) => Err(not_created(wanted, &answer)),
        }
    }

    /// Sends the layer as a new one. GeoServer looks whether the name is taken when it has found nothing
    /// else wrong; so this also tells whether a layer that is there could be made as it is wanted.
    ///
    /// Where the native layer is not in the capabilities that GeoServer has, `refresh` says whether they
    /// are read again.
    async fn try_wms_layer(&mut self, wanted: &WmsLayer, refresh: bool) -> Result<Tried> {
        let tried = self.try_wms_layer_once(wanted).await?;
        if !(refresh && tried.native_is_unknown()) {
            return Ok(tried);
        }
        self.refresh_wms_store(&wanted.workspace, &wanted.store).await?;
        self.try_wms_layer_once(wanted).await
    }

    async fn try_wms_layer_once(&mut self, wanted: &WmsLayer) -> Result<Tried> {
        let list =
            path(&["workspaces", wanted.workspace.as_str(), "wmsstores", wanted.store.as_str(), "wmslayers"], "json");
        let mut fields = differing(&Value::Null, wanted);
        fields.insert("name".into(), json!(wanted.name.as_str()));
        fields.remove("store");
        let answer = without_addresses(self.server.post(&list, &json!({"wmsLayer": fields})).await?);
        Ok(if answer.is_success() {
            self.catalog.layer_made(&wanted.workspace, &wanted.name);
            Tried::Made
        } else if answer.message().contains(NAME_TAKEN) {
            Tried::Taken
        } else {
            Tried::Refused(answer)
        })
    }

    async fn update_wms_layer(&mut self, wanted: &WmsLayer, current: &Value, places: &impl Places) -> Result<Change> {
        let mut fields = differing(current, wanted);
        if fields.is_empty() {
            return Ok(Change::Unchanged);
        }
        let moves = fields.contains_key("store");
        let mut unverified = false;
        if moves || fields.contains_key("nativeName") {
            // GeoServer takes any native name, and cannot change the layer any more when that is wrong.
            // Nor can it when the native name that the layer *has* is not in the capabilities, as when
            // the upstream has renamed it: so capabilities that still have the old name are not read
            // again before the change. With the change they are.
            match self.try_wms_layer(wanted, moves).await? {
                Tried::Made => return Ok(Change::Created),
                Tried::Taken => {}
                tried @ Tried::Refused(_) if !moves && tried.native_is_unknown() => unverified = true,
                Tried::Refused(answer) => return Err(not_created(wanted, &answer)),
            }
        }
        // Without it GeoServer disables the layer.
        fields.insert("enabled".into(), json!(true));
        let answer = self.put_wms_layer(wanted, &fields).await?;
        if answer.is_success() {
            if moves {
                let from = json::text(&current["store"]["name"]);
                tracing::info!(layer = %format!("{}:{}", wanted.workspace, wanted.name), from, to = %wanted.store, "WMS layer moved");
            }
            if unverified && let Tried::Refused(answer) = self.try_wms_layer(wanted, true).await? {
                return Err(not_created(wanted, &answer));
            }
            return Ok(Change::Updated);
        }
        // GeoServer changes a layer by way of its styles at the upstream. That fails when the upstream
        // does not answer, has no layer of the native name any more, or has a style without a legend.
        match self.try_wms_layer(wanted, true).await? {
            Tried::Made => return Ok(Change::Created),
            Tried::Taken => {}
            Tried::Refused(answer) => return Err(not_created(wanted, &answer)),
        }
        if self.put_wms_layer(wanted, &fields).await?.is_success() {
            return Ok(Change::Updated);
        }
        self.make_anew(wanted, places).await.map(|()| Change::Created)
    }

    async fn put_wms_layer(&mut self, wanted: &WmsLayer, fields: &Map<String, Value>) -> Result<Answer> {
        let address = item(&wanted.workspace, &wanted.name);
        self.catalog.layer_changed(&wanted.workspace, &wanted.name);
        Ok(without_addresses(self.server.put(&address, &json!({"wmsLayer": fields})).await?))
    }

    /// Deletes a layer that GeoServer cannot change, and makes it again at once, with its access rules
    /// in place before it. A stand-in is in its groups until [`Self::settle`].
    ///
    /// To be called when [`Self::try_wms_layer`] has found that it can be made.
    async fn make_anew(&mut self, wanted: &WmsLayer, places: &impl Places) -> Result<()> {
        self.replace_wms_layer(wanted, places).await?;
        if let Tried::Refused(answer) = self.try_wms_layer(wanted, true).await? {
            return Err(not_created(wanted, &answer));
        }
        tracing::warn!(layer = %format!("{}:{}", wanted.workspace, wanted.name), "WMS layer made anew, its tiles are gone: GeoServer could not change it");
        Ok(())
    }

    fn is_of_another_kind(&self, wanted: &WmsLayer) -> Error {
        Error::new(
            ErrorKind::GeoServer,
            "a feature or another resource that is no WMS layer has that name in the workspace",
        )
        .subject(format!("{} {}:{}", self.server.name(), wanted.workspace, wanted.name))
        .hint("remove that layer or give this one another name, on the master")
    }

    pub(super) async fn remove_wms_layer(
        &mut self,
        workspace: &GeoName,
        store: Option<&GeoName>,
        layer: &GeoName,
    ) -> Result<Change> {
        let Some(current) = self.find_wms_layer(workspace, layer).await? else {
            return Ok(Change::Unchanged);
        };
        if store.is_some_and(|store| json::text(&current["store"]["name"]) != format!("{workspace}:{store}")) {
            // Another job has moved it.
            return Ok(Change::Unchanged);
        }
        // Before, because GeoServer does not always refuse to delete one that is in a group: it has been seen to
        // answer 200 and to leave a group behind that holds a layer which is gone.
        self.take_layer_out_of_groups(workspace, layer).await?;
        self.catalog.layers.remove(&(workspace.clone(), layer.clone()));
        self.catalog.layer_gone(workspace, layer);
        let answer = self.server.delete(&format!("{}?recurse=true", item(workspace, layer))).await?;
        if !answer.is_success() && !answer.is_missing() {
            return Err(answer.error(&format!("cannot remove the WMS layer {workspace}:{layer}")));
        }
        Ok(Change::Updated)
    }
}

/// What is to be told for `current`, GeoServer's answer, to be as wanted.
fn differing(current: &Value, wanted: &WmsLayer) -> Map<String, Value> {
    let mut fields = Map::new();
    for (key, value) in [
        ("nativeName", wanted.native_name.clone()),
        ("title", title(&wanted.title, &wanted.name)),
        ("abstract", plain(&wanted.abstract_text)),
    ] {
        if current.is_null() || plain(&json::text(&current[key])) != plain(&value) {
            fields.insert(key.into(), json!(value));
        }
    }
    let words = keywords(&wanted.keywords);
    let shown: Vec<String> = json::many(&current["keywords"]["string"]).iter().map(json::text).collect();
    if !words.is_empty() && shown != words {
        fields.insert("keywords".into(), keywords_value(&words));
    }
    if let Some(srs) = wanted.srs.as_ref().filter(|srs| json::text(&current["srs"]) != **srs) {
        fields.insert("srs".into(), json!(srs));
    }
    if let Some(boxes) = wanted.boxes.as_ref().filter(|boxes| !has_boxes(current, boxes)) {
        insert_boxes(&mut fields, boxes);
    }
    let store = format!("{}:{}", wanted.workspace, wanted.store);
    if json::text(&current["store"]["name"]) != store {
        fields.insert("store".into(), json!({"@class": "wmsStore", "name": store}));
    }
    if current["enabled"] != true {
        fields.insert("enabled".into(), json!(true));
    }
    fields
}

fn not_created(wanted: &WmsLayer, answer: &Answer) -> Error {
    let in_capabilities = !answer.message().contains(NOT_IN_CAPABILITIES);
    let error = answer.error(&format!("cannot create the WMS layer {}:{}", wanted.workspace, wanted.name));
    error.hint(if in_capabilities {
        "check from GeoServer's host that the upstream of the store answers, with the store's user and password"
    } else {
        "the upstream does not show the layer to GeoServer: compare its capabilities as seen from GeoServer's host"
    })
}

/// The layer's address, without the store: through the store GeoServer fails to change a layer that
/// has styles at the upstream.
fn item(workspace: &GeoName, layer: &GeoName) -> String {
    path(&["workspaces", workspace.as_str(), "wmslayers", layer.as_str()], "json")
}
