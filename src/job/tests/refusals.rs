//! What an operator reads when a document is refused.

use serde_json::{Value, json};

use super::{LAYER, MD5, complete, deleted, document, metadata, thin, with, without};
use crate::job::Parsed;

fn refusal(path: &str, job: &Value, metadata: Option<&Value>) -> String {
    complete(path, job, metadata).map_or_else(|error| error.paragraph(), |complete| format!("taken: {complete:?}"))
}

#[test]
fn refusals_name_file_field_place_and_remedy() {
    let meta = metadata;
    let shown = [
        refusal(LAYER, &without(thin(), "job_id"), Some(&without(meta(), "job_id"))),
        refusal(LAYER, &json!({"job_id": 1}), None),
        refusal(LAYER, &thin(), None),
        refusal(LAYER, &with(thin(), "action", json!("publsh")), None),
        refusal("geoserver/workspaces/w.json", &json!({"action": "remove"}), None),
        refusal("geoserver/workspaces/w.json", &json!({"schema": "w"}), None),
        refusal(LAYER, &with(thin(), "meta", json!({"md5": MD5})), None),
        refusal(LAYER, &with(thin(), "meta", json!({"file": "/a", "md5": "xyz"})), None),
        refusal(LAYER, &thin(), Some(&with(meta(), "name", json!("a/b")))),
        refusal(LAYER, &thin(), Some(&with(meta(), "workspace", json!("a b")))),
        refusal(LAYER, &thin(), Some(&with(meta(), "schema", json!("x".repeat(64))))),
        refusal(LAYER, &thin(), Some(&with(meta(), "bbox", json!([1, 2, 3])))),
        refusal(LAYER, &thin(), Some(&with(meta(), "bbox", json!([10, 2, 3, 4])))),
        refusal(LAYER, &thin(), Some(&with(meta(), "bbox", json!([1, 2, "x", 4])))),
        refusal(LAYER, &thin(), Some(&with(meta(), "bbox", json!("[1, 2")))),
        refusal(LAYER, &thin(), Some(&with(without(meta(), "bbox"), "override_bbox", json!(true)))),
        refusal(LAYER, &thin(), Some(&with(meta(), "crs", json!("CRS:84")))),
        refusal(LAYER, &thin(), Some(&with(meta(), "auth_level", json!(3)))),
        refusal(LAYER, &thin(), Some(&with(meta(), "auth_level", json!([0])))),
        refusal(LAYER, &thin(), Some(&with(meta(), "spatial_data", json!("perhaps")))),
        refusal(LAYER, &thin(), Some(&with(meta(), "keywords", json!({"a": 1})))),
        refusal(LAYER, &thin(), Some(&with(meta(), "styles", json!({"a": {"file": {}}})))),
        refusal(LAYER, &thin(), Some(&with(meta(), "styles", json!({"a/b": {"file": "/a"}})))),
        refusal(
            "geoserver/layergroups/w.g.json",
            &json!({"name": "g", "workspace": "w", "layers": [{"type": "live_layer"}]}),
            None,
        ),
        refusal("geoserver/layergroups/w.g.json", &json!({"name": "g", "workspace": "w", "layers": []}), None),
        refusal(
            "geoserver/live_stores/w.db.json",
            &json!({"name": "db", "workspace": "w", "port": 70000, "passwd": "s3cret"}),
            None,
        ),
        document(LAYER, "{\n  \"job_id\": 41,\n  \"meta\": \"s3cret\"\n}").unwrap_err().paragraph(),
        document(LAYER, "{\n  \"job_id\": 41,,\n}").unwrap_err().paragraph(),
        document("geoserver/layers/notes.txt", "").unwrap_err().paragraph(),
        deleted_stem_error(),
    ];
    assert!(!shown.concat().contains("s3cret"));
    insta::assert_snapshot!(shown.join("\n\n"), @r#"
        Error: geoserver/layers/cadastre.roads.json: the field `job_id` is missing: it is neither in the job file nor in its metadata file borg@master-001:/var/roads.meta.json
          Hint: publish again from the master; if the field is still missing, the master's definition lacks it

        Error: geoserver/layers/cadastre.roads.json: the field `workspace` is missing: it is not in the job file, which names no metadata file
          Hint: publish again from the master; if the field is still missing, the master's definition lacks it

        Error: borg@master-001:/var/roads.meta.json: the metadata file that the job file names is not there
          Hint: publish again on the master, which writes the file anew

        Error: geoserver/layers/cadastre.roads.json: the field `action` names no action of a feature job, which are: publish, remove, meta, empty_gwc (line 1, column 18)
          Hint: correct it on the master and publish again

        Error: geoserver/workspaces/w.json: the field `action` names no action of a workspace job, which are: publish (line 1, column 18)
          Hint: correct it on the master and publish again

        Error: geoserver/workspaces/w.json: the field `auth_level` is missing: it is not in the job file, which names no metadata file
          Hint: publish again from the master; if the field is still missing, the master's definition lacks it

        Error: geoserver/layers/cadastre.roads.json: the field `meta` lacks `file` (line 1, column 201)
          Hint: correct it on the master and publish again

        Error: geoserver/layers/cadastre.roads.json: the field `meta.md5` is no MD5 of 32 hexadecimal digits (line 1, column 183)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `name` (line 1, column 403): layer "a/b" is no usable GeoServer name: GeoServer cannot address or store the character '/'
          Hint: correct the name on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `workspace` (line 1, column 1051): workspace "a b" is no usable GeoServer name: a workspace is a letter or underscore followed by letters, digits, `_`, `-` or `.`
          Hint: rename the workspace on the master

        Error: borg@master-001:/var/roads.meta.json: the field `schema` (line 1, column 744): schema "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" is no usable PostgreSQL name: it is longer than 63 bytes, PostgreSQL would cut it
          Hint: correct the name on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `bbox` does not hold the four numbers minx, miny, maxx, maxy (line 1, column 81)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `bbox` has a minimum above its maximum: the order is minx, miny, maxx, maxy (line 1, column 81)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `bbox[2]` is a text, expected a finite number (line 1, column 88)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `bbox` is a text that should hold JSON and does not (line 1, column 87)
          Caused by: EOF while parsing a list at line 1 column 5
          Hint: correct it on the master and publish again

        Error: geoserver/layers/cadastre.roads.json: the field `bbox` is missing: it is neither in the job file nor in its metadata file borg@master-001:/var/roads.meta.json
          Hint: publish again from the master; if the field is still missing, the master's definition lacks it

        Error: borg@master-001:/var/roads.meta.json: the field `crs` is no reference system of the form EPSG:4283 (line 1, column 141)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `auth_level` is 3, expected 0, 1 or 2 (line 1, column 70)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `auth_level` is a list, expected an integer (line 1, column 70)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `spatial_data` is a text, expected true or false (line 1, column 766)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `keywords` is an object, expected a list (line 1, column 355)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `styles.a.file` is an object, expected a text (line 1, column 814)
          Hint: correct it on the master and publish again

        Error: borg@master-001:/var/roads.meta.json: the field `styles.a/b` (line 1, column 819): style "roads.a/b" is no usable GeoServer name: GeoServer cannot address or store the character '/'
          Hint: correct the name on the master and publish again

        Error: geoserver/layergroups/w.g.json: the field `layers[0].type` names no type of member, which are: wms_layer, publish, group (line 1, column 31)
          Hint: correct it on the master and publish again

        Error: geoserver/layergroups/w.g.json: the field `layers` is empty: GeoServer refuses a group without members (line 1, column 12)
          Hint: correct it on the master and publish again

        Error: geoserver/live_stores/w.db.json: the field `port` is no port, expected 1 to 65535 (line 1, column 43)
          Hint: correct it on the master and publish again

        Error: geoserver/layers/cadastre.roads.json: the field `meta` is a text, expected an object (line 3, column 18)
          Hint: correct it on the master and publish again

        Error: geoserver/layers/cadastre.roads.json: the file is no valid JSON (line 2, column 16)
          Caused by: key must be a string at line 2 column 16
          Hint: correct the file in the state repository, or publish again

        Error: geoserver/layers/notes.txt: a file in a job folder must be a JSON document named `*.json`
          Hint: rename it if it is a job, else delete it from the state repository or move it out of the folder

        Error: geoserver/layers/roads.json: the field `workspace` is missing, and the file is not named `<workspace>.<name>.json`
          Hint: remove the layer by hand if it is still published, or publish and remove it again on the master
        "#);
}

fn deleted_stem_error() -> String {
    let Parsed::Job(document) = deleted("geoserver/layers/roads.json", "{}") else { panic!() };
    document.complete(None).unwrap_err().paragraph()
}
