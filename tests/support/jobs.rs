//! Job files of the kinds that are no feature layers.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::fs;

use serde_json::{Value, json};

use super::postgres::{PASSWORD, PrivatePostgres, ROLE};
use super::world::World;

/// `a` with the fields of `b`.
pub(crate) fn with(mut a: Value, b: &Value) -> Value {
    for (name, value) in b.as_object().unwrap() {
        a[name] = value.clone();
    }
    a
}

impl World {
    /// Writes a thin job file and its metadata: `folder` is that of the kind, and the metadata names
    /// workspace and name. With a `job_id` of null there neither of them has one.
    pub(crate) fn publish_thin(&self, folder: &str, metadata: &Value) -> String {
        let (workspace, name) = (metadata["workspace"].as_str().unwrap(), metadata["name"].as_str().unwrap());
        let job = self.next_job();
        let dir = self.download().join(workspace).join(job.to_string());
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join(format!("{name}.{folder}.json"));
        fs::write(&file, metadata.to_string()).unwrap();
        let mut document = json!({"job_id": job, "action": "publish", "meta": self.reference(&file)});
        if metadata.get("job_id").is_some_and(Value::is_null) {
            document.as_object_mut().unwrap().remove("job_id");
        }
        let path = format!("geoserver/{folder}/{workspace}.{name}.json");
        self.master.write(&path, document.to_string());
        path
    }

    /// Publishes the GeoServer itself as an upstream.
    pub(crate) fn publish_wms_store(&self, workspace: &str, name: &str) -> String {
        let upstream = self.geoserver_url();
        self.publish_wms_store_of(
            workspace,
            name,
            &format!("{upstream}/ows?service=WMS&version=1.1.1&request=GetCapabilities"),
        )
    }

    /// Publishes an upstream.
    pub(crate) fn publish_wms_store_of(&self, workspace: &str, name: &str, address: &str) -> String {
        let metadata = json!({"workspace": workspace, "name": name, "capability_url": address, "username": "", "password": "",
            "geoserver_setting": {"max_connections": 8, "read_timeout": 20, "connect_timeout": 5}});
        self.publish_thin("wms_stores", &metadata)
    }

    /// Publishes a layer of an upstream.
    pub(crate) fn publish_wms_layer(
        &self,
        workspace: &str,
        store: &str,
        name: &str,
        native: &str,
        more: &Value,
    ) -> String {
        let metadata = json!({"workspace": workspace, "name": name, "native_name": native, "store": store, "title": name, "abstract": "cascaded"});
        self.publish_thin("wms_layers", &with(metadata, more))
    }

    /// Publishes a schema of the slave's own database as a live store.
    pub(crate) fn publish_live_store(&self, workspace: &str, name: &str, schema: &str) -> String {
        let metadata = json!({"workspace": workspace, "name": name, "host": "127.0.0.1", "port": PrivatePostgres::start().port(),
            "database": self.database.name(), "schema": schema, "user": ROLE, "passwd": PASSWORD,
            "geoserver_setting": {"max connections": 4}});
        self.publish_thin("live_stores", &metadata)
    }

    /// Publishes a table of a live store.
    pub(crate) fn publish_live_layer(&self, workspace: &str, store: &str, name: &str, more: &Value) -> String {
        let metadata = json!({"workspace": workspace, "name": name, "datastore": store, "table": name, "title": name, "abstract": "live",
            "spatial_data": true, "spatial_type": "POINT", "spatial_column": "geom", "crs": "EPSG:4283", "service_type": "WFS", "styles": {}});
        self.publish_thin("live_layers", &with(metadata, more))
    }

    /// Publishes a group; members are `(type, name)` of its workspace.
    pub(crate) fn publish_group(&self, workspace: &str, name: &str, members: &[(&str, &str)], more: &Value) -> String {
        let layers: Vec<Value> =
            members.iter().map(|(kind, name)| json!({"type": kind, "workspace": workspace, "name": name})).collect();
        let document = json!({"action": "publish", "name": name, "workspace": workspace, "title": name, "abstract": "a group",
            "srs": "EPSG:4326", "layers": layers, "dependent_groups": []});
        let path = format!("geoserver/layergroups/{workspace}.{name}.json");
        self.master.write(&path, with(document, more).to_string());
        path
    }
}
