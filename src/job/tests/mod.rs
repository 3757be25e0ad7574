//! Documents of every generation and kind, from the content of the file to the typed job.

mod arbitrary;
mod refusals;

use serde_json::{Value, json};

use super::*;
use crate::error::Result;

const MD5: &str = "0123456789abcdef0123456789ABCDEF";
const LAYER: &str = "geoserver/layers/cadastre.roads.json";

fn file(path: &str) -> JobFile {
    classify(path, &["geoserver".into()]).unwrap()
}

fn document(path: &str, content: &str) -> Result<Document> {
    match parse(&file(path), content.as_bytes(), false)? {
        Parsed::Job(document) => Ok(document),
        Parsed::Nothing { reason } => panic!("nothing: {reason}"),
    }
}

fn deleted(path: &str, content: &str) -> Parsed {
    parse(&file(path), content.as_bytes(), true).unwrap()
}

fn deleted_job(path: &str, content: &str) -> Complete {
    match deleted(path, content) {
        Parsed::Job(document) => document.complete_without_metadata().unwrap(),
        Parsed::Nothing { reason } => panic!("nothing: {reason}"),
    }
}

fn complete(path: &str, job: &Value, metadata: Option<&Value>) -> Result<Complete> {
    let metadata = metadata.map(Value::to_string);
    document(path, &job.to_string())?.complete(metadata.as_ref().map(String::as_bytes))
}

fn thin() -> Value {
    json!({
        "job_id": 41, "job_batch_id": "20161105_0100", "action": "publish",
        "publish_time": "2016-11-05 01:12:44.000000",
        "data": {"file": "borg@master-001:/var/roads.db", "md5": MD5},
        "meta": {"file": "borg@master-001:/var/roads.meta.json", "md5": MD5},
    })
}

fn metadata() -> Value {
    json!({
        "workspace": "cadastre", "name": "roads", "title": "Roads", "abstract": "All roads",
        "keywords": ["road", " street ", "road"], "applications": ["sss", "street"], "service_type": "WFS",
        "schema": "cadastre", "data_schema": "cadastre_data", "outdated_schema": "cadastre_outdated",
        "channel": "elsewhere", "spatial_data": true, "spatial_type": "LINESTRING",
        "spatial_column": "wkb_geometry", "crs": "epsg:4283", "bbox": "[108, -45.5, 155, -10]",
        "override_bbox": "false", "auth_level": "1", "job_id": 7, "data": null,
        "styles": {"night": {"file": "/var/night.sld", "md5": MD5}, "builtin": {"file": "/var/roads.sld", "md5": MD5, "default": true}, "gone": {"md5": MD5}},
        "preview_path": "borg@master-001:/var/previews",
        "geoserver_setting": {"create_cache_layer": true, "server_cache_expire": "3600", "max connections": 5, "passwd": "s3cret", "odd": 1},
        "ows_resource": [{"protocol": "OGC:WMS", "link": "http://x/ows?", "height": "480", "format": "image/png"}, {"protocol": "OGC:WFS"}],
        "publication_date": "2016-01-02", "modified": null, "fetch size": 77,
    })
}

fn feature(job: &Value, metadata: Option<&Value>) -> FeatureJob {
    match complete(LAYER, job, metadata).unwrap().job {
        Job::Feature(job) => *job,
        other => panic!("{other:?}"),
    }
}

fn with(mut value: Value, field: &str, new: Value) -> Value {
    value[field] = new;
    value
}

fn without(mut value: Value, field: &str) -> Value {
    value.as_object_mut().unwrap().remove(field);
    value
}

#[test]
fn a_thin_layer_is_merged_with_its_metadata() {
    let thin_document = document(LAYER, &thin().to_string()).unwrap();
    assert_eq!(thin_document.metadata().unwrap().md5.as_deref(), Some(MD5.to_lowercase().as_str()));
    assert!(thin_document.needs_metadata());
    assert_eq!((thin_document.action(), thin_document.job_id()), (Action::Publish, Some(41)));
    let job = feature(&thin(), Some(&metadata()));
    insta::assert_snapshot!(format!("{job:#?}"), @r#"
        FeatureJob {
            action: Publish,
            workspace: GeoName(
                "cadastre",
            ),
            name: GeoName(
                "roads",
            ),
            channel: Some(
                "geoserver",
            ),
            job_id: Some(
                41,
            ),
            job_batch_id: Some(
                "20161105_0100",
            ),
            publish_time: Some(
                "2016-11-05 01:12:44.000000",
            ),
            description: Description {
                title: "Roads",
                abstract_text: "All roads",
                keywords: [
                    "road",
                    "street",
                    "sss",
                ],
            },
            service_type: Wfs,
            database: Database {
                schema: PgIdent(
                    "cadastre",
                ),
                data_schema: PgIdent(
                    "cadastre_data",
                ),
                outdated_schema: PgIdent(
                    "cadastre_outdated",
                ),
                table: PgIdent(
                    "roads",
                ),
            },
            data: Some(
                FileRef {
                    file: "borg@master-001:/var/roads.db",
                    md5: Some(
                        "0123456789abcdef0123456789abcdef",
                    ),
                },
            ),
            styles: [
                StyleRef {
                    name: "builtin",
                    file: Some(
                        FileRef {
                            file: "/var/roads.sld",
                            md5: Some(
                                "0123456789abcdef0123456789abcdef",
                            ),
                        },
                    ),
                    is_default: true,
                    geoserver_name: GeoName(
                        "roads",
                    ),
                },
                StyleRef {
                    name: "gone",
                    file: None,
                    is_default: false,
                    geoserver_name: GeoName(
                        "roads.gone",
                    ),
                },
                StyleRef {
                    name: "night",
                    file: Some(
                        FileRef {
                            file: "/var/night.sld",
                            md5: Some(
                                "0123456789abcdef0123456789abcdef",
                            ),
                        },
                    ),
                    is_default: false,
                    geoserver_name: GeoName(
                        "roads.night",
                    ),
                },
            ],
            spatial: Spatial {
                is_spatial: true,
                geometry_type: Some(
                    "LINESTRING",
                ),
                column: Some(
                    "wkb_geometry",
                ),
                crs: Some(
                    "EPSG:4283",
                ),
                bbox: Some(
                    [
                        108.0,
                        -45.5,
                        155.0,
                        -10.0,
                    ],
                ),
                override_bbox: false,
            },
            viewsql: None,
            native_table: None,
            access: Access {
                level: SignedIn,
                is_stated: true,
                allow_authenticated: None,
            },
            sync_postgres_data: true,
            sync_geoserver_data: true,
            preview: Preview {
                path: Some(
                    "borg@master-001:/var/previews",
                ),
                links: [
                    OwsResource {
                        protocol: "OGC:WMS",
                        link: "http://x/ows?",
                        height: Some(
                            480.0,
                        ),
                        format: Some(
                            "image/png",
                        ),
                    },
                ],
            },
            geoserver_setting: GeoserverSetting {
                create_cache_layer: true,
                server_cache_expire: Some(
                    3600,
                ),
                client_cache_expire: None,
                all: [
                    "create_cache_layer",
                    "max connections",
                    "odd",
                    "passwd",
                    "server_cache_expire",
                ],
            },
            publication_date: Some(
                "2016-01-02",
            ),
            modified: None,
            connection_overrides: {
                "fetch size": "77",
                "max connections": "5",
                "passwd": "***",
                "schema": "cadastre",
            },
        }
        "#);
}

#[test]
fn filters_see_the_merged_document_without_nulls_and_secrets() {
    let facts = complete(LAYER, &thin(), Some(&metadata())).unwrap().facts;
    assert_eq!(facts["auth_level"], 1);
    assert_eq!(facts["override_bbox"], false);
    assert_eq!(facts["job_id"], 41, "the job file's number counts, not the metadata's");
    assert_eq!(facts["channel"], "geoserver", "the path says the channel, not the metadata");
    assert_eq!((&facts["job_type"], &facts["job_file"]), (&json!("feature"), &json!(LAYER)));
    assert!(!facts.contains_key("modified"));
    assert!(!Value::Object(facts).to_string().contains("s3cret"));
}

#[test]
fn a_layer_before_2016_02_17_names_one_dump_and_one_style() {
    let old = json!({
        "job_id": "12", "name": "roads", "workspace": "cadastre", "schema": "cadastre",
        "data_schema": "cadastre_data", "outdated_schema": "cadastre_outdated", "title": "", "abstract": null,
        "keywords": "road, street;track,,road", "dump_path": "/var/roads.tar", "data_md5": MD5,
        "style_path": "/var/roads.sld", "style_md5": null, "allow_authenticated": true,
    });
    let job = feature(&old, None);
    assert_eq!(job.job_id, Some(12));
    assert_eq!(job.data.unwrap().file, "/var/roads.tar");
    assert_eq!(job.description.title, "roads");
    assert_eq!(job.description.keywords, ["road", "street", "track"]);
    assert_eq!((job.access.level, job.access.is_stated), (AuthLevel::SignedIn, true));
    let [style] = &job.styles[..] else { panic!("{:?}", job.styles) };
    assert_eq!((style.geoserver_name().as_str(), style.is_default), ("roads", true));
    assert_eq!(style.file.as_ref().unwrap().md5, None);
}

#[test]
fn silence_about_access_restricts() {
    let level = |field: Option<(&str, Value)>| {
        let base = without(metadata(), "auth_level");
        let base = field.map_or(base.clone(), |(name, value)| with(base, name, value));
        let access = feature(&thin(), Some(&base)).access;
        (access.level, access.is_stated)
    };
    assert_eq!(level(None), (AuthLevel::Restricted, false));
    assert_eq!(level(Some(("auth_level", Value::Null))), (AuthLevel::Restricted, false));
    assert_eq!(level(Some(("allow_authenticated", json!(1)))), (AuthLevel::SignedIn, true));
    assert_eq!(level(Some(("allow_authenticated", json!("False")))), (AuthLevel::Restricted, true));
    assert_eq!(level(Some(("auth_level", json!(0)))), (AuthLevel::Public, true));
}

#[test]
fn the_default_style_is_named_marked_or_first() {
    let default = |styles: Value, named: Value| {
        let metadata = with(with(metadata(), "styles", styles), "default_style", named);
        let styles = feature(&thin(), Some(&metadata)).styles;
        let defaults: Vec<_> = styles.into_iter().filter(|style| style.is_default).collect();
        assert!(defaults.len() <= 1);
        defaults.into_iter().next().map(|style| style.geoserver_name().to_string())
    };
    let file = json!({"file": "/a.sld"});
    let marked = json!({"file": "/a.sld", "default": true});
    let gone = json!({"default": true});
    assert_eq!(default(json!({"a": file, "b": marked}), json!("a")).as_deref(), Some("roads.a"));
    assert_eq!(default(json!({"a": file, "b": marked}), json!("c")).as_deref(), Some("roads.b"));
    assert_eq!(default(json!({"a": gone, "b": file, "builtin": file}), json!("a")).as_deref(), Some("roads.b"));
    assert_eq!(default(json!({"a": null, "b": file}), Value::Null).as_deref(), Some("roads.b"));
    assert_eq!(default(json!([{"name": "builtin", "file": "/a"}]), Value::Null).as_deref(), Some("roads"));
    assert_eq!(default(json!({"a": gone}), Value::Null), None);
    assert_eq!(default(Value::Null, json!("a")), None);
    // serde_json sorts the keys of the values above; a file keeps its own order.
    let metadata = metadata().to_string().replace("\"styles\":{", "\"styles\":{\"zz\":{\"file\":\"/z\"},");
    let metadata = metadata.replace("\"default\":true,", "");
    let complete = document(LAYER, &thin().to_string()).unwrap().complete(Some(metadata.as_bytes())).unwrap();
    let Job::Feature(job) = complete.job else { panic!() };
    assert_eq!((job.styles[0].name.as_str(), job.styles[0].is_default), ("zz", true));
}

#[test]
fn only_a_job_that_loads_data_needs_data_and_schemas() {
    let metadata = with(without(without(metadata(), "data_schema"), "outdated_schema"), "sync_postgres_data", json!(0));
    let job = feature(&without(thin(), "data"), Some(&metadata));
    assert_eq!(job.database.data_schema.as_str(), "cadastre_data");
    let meta = without(with(thin(), "action", json!("meta")), "job_id");
    assert_eq!(feature(&without(meta, "data"), Some(&without(metadata, "job_id"))).action, Action::Meta);
}

#[test]
fn a_removal_can_do_without_its_metadata() {
    let complete = deleted_job(LAYER, &thin().to_string());
    assert_eq!(complete.action, Action::Remove);
    assert_eq!(complete.facts["workspace"], "cadastre");
    insta::assert_snapshot!(format!("{:?}", complete.job), @r#"
        FeatureRemoval(FeatureRemoval { workspace: GeoName("cadastre"), name: GeoName("roads"), database: Database { schema: PgIdent("cadastre"), data_schema: PgIdent("cadastre_data"), outdated_schema: PgIdent("cadastre_outdated"), table: PgIdent("roads") }, styles: [], connection: {} })
        "#);
    // Whatever the deleted file held, it can be got rid of.
    for broken in ["", "{", "[]", r#"{"action": 5, "meta": 1}"#, r#"{"styles": 1}"#] {
        assert_eq!(deleted_job(LAYER, broken).job.task_name(), "cadastre:roads", "{broken}");
    }
}

#[test]
fn a_removal_takes_the_metadata_that_is_still_there() {
    let removal = with(thin(), "action", json!("remove"));
    let removal = with(removal, "meta", json!({"file": "/var/roads.meta.json", "md5": "stale"}));
    let document = document(LAYER, &removal.to_string()).unwrap();
    assert!(!document.needs_metadata());
    assert_eq!(document.metadata().unwrap().md5, None);
    let metadata = with(metadata(), "data_schema", json!("elsewhere")).to_string();
    let Job::FeatureRemoval(job) = document.complete(Some(metadata.as_bytes())).unwrap().job else { panic!() };
    assert_eq!(job.database.data_schema.as_str(), "elsewhere");
    let styles: Vec<_> = job.styles.iter().map(|style| style.as_str()).collect();
    assert_eq!(styles, ["roads", "roads.gone", "roads.night"]);
}

#[test]
fn metadata_that_nothing_vouches_for_must_be_the_jobs_own() {
    let removal = with(with(thin(), "action", json!("remove")), "meta", json!({"file": "/var/roads.meta.json"}));
    let other = with(metadata(), "workspace", json!("transport"));
    let error = complete(LAYER, &removal, Some(&other)).unwrap_err();
    insta::assert_snapshot!(error.paragraph(), @r#"
        Error: /var/roads.meta.json: the metadata are another job's: their workspace is "transport", that of geoserver/layers/cadastre.roads.json is "cadastre"
          Hint: nothing was done; the master, or SYNC_SERVER where files come from there, has the wrong file under that name: correct or delete it (a removal can do without) and run again
        "#);
    for kind in ["layers", "wms_layers", "live_layers", "wms_stores"] {
        let path = format!("geoserver/{kind}/cadastre.roads.json");
        assert!(complete(&path, &removal, Some(&with(metadata(), "name", json!("road")))).is_err(), "{kind}");
        assert!(complete(&path, &removal, Some(&metadata())).is_ok(), "{kind}");
        assert!(complete(&path, &removal, Some(&json!({}))).is_ok(), "{kind}");
    }
    // What the job file says counts before its name.
    let named = with(removal.clone(), "workspace", json!("transport"));
    assert!(complete(LAYER, &named, Some(&other)).is_ok());
    assert!(complete(LAYER, &named, Some(&metadata())).is_err());
    let dotted = with(metadata(), "workspace", json!("cadastre.old"));
    assert!(complete("geoserver/layers/cadastre.old.roads.json", &removal, Some(&dotted)).is_ok());
    // A checksum vouches for metadata, whatever they say.
    assert_eq!(feature(&thin(), Some(&other)).workspace.as_str(), "transport");
}

#[test]
fn deleting_anything_but_a_publication_asks_for_nothing() {
    for (path, content) in [
        (LAYER, r#"{"action": "remove"}"#),
        (LAYER, r#"{"action": "meta"}"#),
        ("geoserver/layers/a.b.meta.json", "{}"),
        ("geoserver/layers/a.b.empty_gwc.json", "broken"),
        ("geoserver/layers/notes.txt", ""),
        ("geoserver/workspaces/a.json", "{}"),
        ("geoserver/layers.properties", ""),
        ("slave_roles.sql", ""),
    ] {
        assert!(matches!(deleted(path, content), Parsed::Nothing { .. }), "{path} {content}");
    }
}

#[test]
fn emptying_a_tile_cache_can_do_without_metadata() {
    let path = "geoserver/layers/cadastre.roads.empty_gwc.json";
    let job = complete(path, &json!({"meta": {"file": "/gone.json"}}), None).unwrap().job;
    assert!(matches!(&job, Job::EmptyGwc(EmptyGwcJob { kind: JobKind::Feature, .. })));
    assert_eq!(job.task_name(), "cadastre:roads");
}

#[test]
fn the_ending_says_the_action_only_when_the_document_does_not() {
    let action = |path: &str, content: &str| document(path, content).unwrap().action();
    assert_eq!(action("geoserver/layers/a.b.meta.json", "{}"), Action::Meta);
    assert_eq!(action("geoserver/layers/a.b.empty_gwc.json", "{}"), Action::EmptyGwc);
    assert_eq!(action("geoserver/layers/a.b.meta.json", r#"{"action": "publish"}"#), Action::Publish);
    assert_eq!(action("geoserver/layergroups/a.b.empty_gwc.json", r#"{"action": null}"#), Action::EmptyGwc);
}

#[test]
fn the_other_kinds_are_typed() {
    let read = |path: &str, job: Value| complete(path, &job, None).unwrap().job;
    let store = json!({"name": "up", "workspace": "w", "capability_url": "http://u:s3cret@up/wms?key=s3cret", "username": "u",
        "password": "s3cret", "geoserver_setting": {"max_connections": 6, "create_cache_layer": true}});
    let layer =
        json!({"name": "l", "workspace": "w", "store": "up", "native_name": "up:l:1", "title": "L", "abstract": ""});
    let live_store = json!({"name": "db", "workspace": "w", "host": "h", "port": "5432", "database": "d", "schema": "s",
        "user": "u", "passwd": "s3cret", "geoserver_setting": {"SSL mode": "REQUIRE", "client_cache_expire": 60}});
    let live_layer = json!({"name": "l", "workspace": "w", "datastore": "db", "table": "t", "styles": null});
    let group = json!({"name": "g", "workspace": "w", "srs": "EPSG:4326", "layers": [
        {"type": "publish", "name": "roads", "workspace": "cadastre"},
        {"type": "wms_layer", "name": "l", "workspace": "w", "store": "up"},
        {"type": "group", "name": "inner", "workspace": "w", "store": null}],
        "dependent_groups": [{"workspace": "w", "name": "inner"}]});
    let workspace = json!({"schema": "w", "data_schema": "w_data", "outdated_schema": "w_outdated", "auth_level": 2});
    let jobs = [
        read("geoserver/wms_stores/w.up.json", store),
        read("geoserver/wms_layers/w.l.json", layer.clone()),
        read("geoserver/wms_layers/w.l.json", with(layer, "action", json!("remove"))),
        read("geoserver/live_stores/w.db.json", live_store),
        read("geoserver/live_layers/w.l.json", live_layer),
        read("geoserver/live_layers/w.l.empty_gwc.json", json!({})),
        read("geoserver/layergroups/w.g.json", group),
        read("geoserver/workspaces/w.json", workspace),
    ];
    let shown: Vec<_> = jobs.iter().map(|job| format!("{} {job:?}", job.task_name())).collect();
    let shown = shown.join("\n");
    assert!(!shown.contains("s3cret"));
    insta::assert_snapshot!(shown, @r#"
        w:up WmsStore(WmsStoreJob { workspace: GeoName("w"), name: GeoName("up"), capability_url: "up/wms", connection: {"max_connections": "6"}, geoserver_setting: GeoserverSetting { create_cache_layer: true, server_cache_expire: None, client_cache_expire: None, all: ["create_cache_layer", "max_connections"] }, .. })
        w:l WmsLayer(WmsLayerJob { workspace: GeoName("w"), name: GeoName("l"), native_name: "up:l:1", store: GeoName("up"), job_id: None, description: Description { title: "L", abstract_text: "", keywords: [] }, spatial: Spatial { is_spatial: false, geometry_type: None, column: None, crs: None, bbox: None, override_bbox: false }, access: Access { level: Restricted, is_stated: false, allow_authenticated: None }, preview: Preview { path: None, links: [] }, geoserver_setting: GeoserverSetting { create_cache_layer: false, server_cache_expire: None, client_cache_expire: None, all: [] } })
        w:l Removal(Removal { kind: WmsLayer, workspace: GeoName("w"), name: GeoName("l"), store: Some(GeoName("up")), styles: [] })
        w:db LiveStore(LiveStoreJob { workspace: GeoName("w"), name: GeoName("db"), host: "h", port: 5432, database: "d", schema: PgIdent("s"), user: "u", passwd: Some(SecretBox<str>([REDACTED])), geoserver_setting: GeoserverSetting { create_cache_layer: false, server_cache_expire: None, client_cache_expire: Some(60), all: ["SSL mode", "client_cache_expire"] }, connection: {"SSL mode": "REQUIRE", "database": "d", "host": "h", "passwd": "***", "port": "5432", "schema": "s", "user": "u"} })
        w:l LiveLayer(LiveLayerJob { workspace: GeoName("w"), name: GeoName("l"), datastore: GeoName("db"), table: PgIdent("t"), job_id: None, description: Description { title: "l", abstract_text: "", keywords: [] }, service_type: None, styles: [], spatial: Spatial { is_spatial: false, geometry_type: None, column: None, crs: None, bbox: None, override_bbox: false }, viewsql: None, access: Access { level: Restricted, is_stated: false, allow_authenticated: None }, preview: Preview { path: None, links: [] }, geoserver_setting: GeoserverSetting { create_cache_layer: false, server_cache_expire: None, client_cache_expire: None, all: [] } })
        w:l EmptyGwc(EmptyGwcJob { kind: LiveLayer, workspace: GeoName("w"), name: GeoName("l") })
        w:g LayerGroup(LayerGroupJob { workspace: GeoName("w"), name: GeoName("g"), description: Description { title: "g", abstract_text: "", keywords: [] }, srs: "EPSG:4326", members: [GroupMember { kind: Feature, workspace: GeoName("cadastre"), name: GeoName("roads"), store: None }, GroupMember { kind: WmsLayer, workspace: GeoName("w"), name: GeoName("l"), store: Some(GeoName("up")) }, GroupMember { kind: Group, workspace: GeoName("w"), name: GeoName("inner"), store: None }], dependent_groups: [GroupRef { workspace: GeoName("w"), name: GeoName("inner") }], geoserver_setting: GeoserverSetting { create_cache_layer: false, server_cache_expire: None, client_cache_expire: None, all: [] } })
        w Workspace(WorkspaceJob { name: "w", schema: PgIdent("w"), data_schema: PgIdent("w_data"), outdated_schema: PgIdent("w_outdated"), access: Access { level: Restricted, is_stated: true, allow_authenticated: None } })
        "#);
}

#[test]
fn the_fields_of_old_masters_are_read_leniently() {
    let job = |field: &str, value: Value| feature(&with(thin(), field, value), Some(&without(metadata(), "job_id")));
    for id in [json!(41), json!("41"), json!(" 41 "), json!(41.0)] {
        assert_eq!(job("job_id", id).job_id, Some(41));
    }
    let meta = |field: &str, value: Value| feature(&thin(), Some(&with(metadata(), field, value)));
    for yes in [json!(true), json!(1), json!("1"), json!("True")] {
        assert!(meta("spatial_data", yes).spatial.is_spatial);
    }
    for no in [json!(false), json!(0), json!("0"), json!("FALSE")] {
        assert!(!meta("spatial_data", no).spatial.is_spatial);
    }
    for none in [json!(null), json!(""), json!("null"), json!([null, null, null, null])] {
        assert_eq!(meta("bbox", none).spatial.bbox, None);
    }
    assert_eq!(meta("title", json!(2016)).description.title, "2016");
    assert!(meta("geoserver_setting", json!("{\"create_cache_layer\": 1}")).geoserver_setting.create_cache_layer);
}

#[test]
fn rules_and_roles_are_kept_as_they_are() {
    let content = "*.*.r=*\nmode=HIDE\n";
    let Job::AccessRules { content: read } =
        document("geoserver/layers.properties", content).unwrap().complete(None).unwrap().job
    else {
        panic!()
    };
    assert_eq!(read, content);
    let Job::Auth { sql } = document("slave_roles.sql", "\\connect x\n").unwrap().complete(None).unwrap().job else {
        panic!()
    };
    assert_eq!(sql, "\\connect x\n");
    let error = parse(&file("slave_roles.sql"), b"\xff", false).unwrap_err();
    assert_eq!(error.message(), "the file is not UTF-8 text");
}
