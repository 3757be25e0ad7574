//! No content makes the reader panic, and what it accepts is sound.

use proptest::prelude::*;
use serde_json::Value;

use super::{LAYER, complete, file, metadata, thin};
use crate::job::{Complete, Job, Parsed, parse};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(EPSG:[0-9]{0,10}|\\[[0-9,]{0,9}\\]|[a-z./]{0,6}|.{0,8})".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map("(file|md5|default|name|workspace|type|.{0,3})", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A full document with some of its fields replaced by anything.
fn any_document() -> impl Strategy<Value = Value> {
    let fields: Vec<String> =
        metadata().as_object().unwrap().keys().chain(thin().as_object().unwrap().keys()).cloned().collect();
    let damage = prop::collection::vec((prop::sample::select(fields), any_json()), 0..6);
    damage.prop_map(|damage| {
        let mut document = metadata();
        for (name, value) in thin().as_object().unwrap().iter().filter(|(name, _)| *name != "meta") {
            document[name] = value.clone();
        }
        for (name, value) in damage {
            document[name] = value;
        }
        document
    })
}

const PATHS: [&str; 12] = [
    LAYER,
    "geoserver/layers/cadastre.roads.meta.json",
    "geoserver/layers/roads.empty_gwc.json",
    "geoserver/wms_stores/w.a.json",
    "geoserver/wms_layers/w.a.json",
    "geoserver/live_stores/w.a.json",
    "geoserver/live_layers/w.a.json",
    "geoserver/layergroups/w.a.json",
    "geoserver/workspaces/w.json",
    "geoserver/layers.properties",
    "slave_roles.sql",
    "geoserver/layers/x",
];

fn try_all(path: &str, content: &[u8]) {
    for gone in [false, true] {
        match parse(&file(path), content, gone) {
            Ok(Parsed::Job(document)) => {
                let _ = document.clone().complete(None);
                let _ = document.complete(Some(content));
            }
            Ok(Parsed::Nothing { .. }) => {}
            Err(error) => assert!(!gone, "a deleted file must never be in the way: {error}"),
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(path in prop::sample::select(PATHS.to_vec()), content: Vec<u8>) {
        try_all(path, &content);
    }

    #[test]
    fn no_document_makes_it_panic(path in prop::sample::select(PATHS.to_vec()), document in any_document()) {
        try_all(path, document.to_string().as_bytes());
    }

    #[test]
    fn an_accepted_box_is_finite_and_in_order(document in any_document()) {
        if let Ok(Complete { job: Job::Feature(job), .. }) = complete(LAYER, &document, None)
            && let Some(bbox) = job.spatial.bbox
        {
            prop_assert!(bbox[0] <= bbox[2] && bbox[1] <= bbox[3] && bbox.iter().all(|n| n.is_finite()));
        }
    }
}
