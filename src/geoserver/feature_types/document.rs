//! The documents of feature types: the whole of one, and what is to change in one. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};

use super::super::fields::{has_boxes, insert_boxes, keywords, keywords_value, plain, title};
use super::super::json::{many, number, text};
use super::{FeatureType, Freshness, SqlView};

/// The metadata key under which GeoServer keeps an SQL view.
const SQL_VIEW_KEY: &str = "JDBC_VIRTUAL_TABLE";

/// Geometry types by GeoServer's names (`org.geotools.geometry.jts.Geometries`).
const GEOMETRY_KINDS: [&str; 8] = [
    "Geometry",
    "Point",
    "LineString",
    "Polygon",
    "MultiPoint",
    "MultiLineString",
    "MultiPolygon",
    "GeometryCollection",
];

/// What is to change in a feature type.
#[derive(Debug, Default)]
pub(super) struct Update {
    fields: Map<String, Value>,
    /// GeoServer is to compute the boxes again.
    pub(super) recalculate: bool,
    /// The relation or the query is another.
    pub(super) changes_source: bool,
    /// The type goes to another store.
    pub(super) moves: bool,
}

impl Update {
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty() && !self.recalculate
    }

    pub(super) fn document(&self) -> Value {
        json!({"featureType": self.fields})
    }
}

/// The document that creates a type, or replaces all that is told of one.
///
/// It never holds attributes: with those GeoServer would create a missing table in the database.
pub(super) fn whole(wanted: &FeatureType) -> Value {
    let mut fields = Map::new();
    fields.insert("name".into(), json!(wanted.name.as_str()));
    fields.insert("nativeName".into(), json!(wanted.native_name));
    fields.insert("title".into(), json!(title(&wanted.title, &wanted.name)));
    fields.insert("abstract".into(), json!(plain(&wanted.abstract_text)));
    fields.insert("keywords".into(), keywords_value(&keywords(&wanted.keywords)));
    fields.insert("srs".into(), json!(wanted.srs));
    fields.insert("projectionPolicy".into(), json!(wanted.projection_policy.as_str()));
    fields.insert("enabled".into(), json!(wanted.enabled));
    if let Some(boxes) = &wanted.boxes {
        insert_boxes(&mut fields, boxes);
    }
    if let Some(view) = &wanted.sql_view {
        fields.insert("metadata".into(), json!({"entry": [sql_view_entry(&wanted.native_name, view)]}));
    }
    json!({"featureType": fields})
}

/// What is to change in `current`, GeoServer's answer, for it to be as wanted.
pub(super) fn update(current: &Value, wanted: &FeatureType, freshness: Freshness) -> Update {
    let mut update = Update::default();
    let mut put = |key: &str, value: Value| {
        update.fields.insert(key.to_owned(), value);
    };
    if text(&current["title"]) != title(&wanted.title, &wanted.name) {
        put("title", json!(title(&wanted.title, &wanted.name)));
    }
    if plain(&text(&current["abstract"])) != plain(&wanted.abstract_text) {
        put("abstract", json!(plain(&wanted.abstract_text)));
    }
    let shown: Vec<String> = many(&current["keywords"]["string"]).iter().map(text).collect();
    if shown != keywords(&wanted.keywords) && !(wanted.keywords.is_empty() && are_defaults(&shown, wanted)) {
        put("keywords", keywords_value(&keywords(&wanted.keywords)));
    }
    if text(&current["projectionPolicy"]) != wanted.projection_policy.as_str() {
        put("projectionPolicy", json!(wanted.projection_policy.as_str()));
    }
    if current["enabled"] != json!(wanted.enabled) {
        put("enabled", json!(wanted.enabled));
    }
    let other_srs = text(&current["srs"]) != wanted.srs;
    if other_srs {
        put("srs", json!(wanted.srs));
    }
    let other_relation = text(&current["nativeName"]) != wanted.native_name;
    if other_relation {
        put("nativeName", json!(wanted.native_name));
    }
    let store = format!("{}:{}", wanted.workspace, wanted.store);
    update.moves = text(&current["store"]["name"]) != store;
    if update.moves {
        update.fields.insert("store".into(), json!({"@class": "dataStore", "name": store}));
    }
    let metadata = changed_metadata(current, wanted);
    update.changes_source = other_relation || update.moves || metadata.is_some();
    if let Some(entries) = metadata {
        update.fields.insert("metadata".into(), if entries.is_empty() { json!("") } else { json!({"entry": entries}) });
    }
    match &wanted.boxes {
        Some(boxes) if !has_boxes(current, boxes) => insert_boxes(&mut update.fields, boxes),
        Some(_) => {}
        None => {
            update.recalculate =
                (freshness.data_changed || freshness.boxes_were_given || other_srs || update.changes_source)
                    && has_geometry(current);
        }
    }
    update
}

/// Whether the columns that GeoServer shows cannot be the relation's.
pub(super) fn columns_are_stale(current: &Value, wanted: &FeatureType, freshness: Freshness) -> bool {
    let (shown, real) = (shown_columns(current), real_columns(wanted));
    if real.is_empty() {
        return false;
    }
    // GeoServer leaves out columns of types that it does not know. So a column that it does not
    // show is a sign of a stale cache only when the table was replaced.
    shown.is_empty() || !shown.is_subset(&real) || (freshness.data_changed && shown != real)
}

/// Refuses what GeoServer shows after its cache was dropped, when that still is not the relation.
pub(super) fn check_columns(current: &Value, wanted: &FeatureType) -> Result<()> {
    let (shown, real) = (shown_columns(current), real_columns(wanted));
    if real.is_empty() || (!shown.is_empty() && shown.is_subset(&real)) {
        return Ok(());
    }
    let foreign: Vec<&str> = shown.difference(&real).copied().collect();
    let message = if shown.is_empty() {
        format!("GeoServer sees no columns in the relation {:?}", wanted.native_name)
    } else {
        format!(
            "GeoServer shows columns that the relation {:?} does not have: {}",
            wanted.native_name,
            foreign.join(", ")
        )
    };
    Err(Error::new(ErrorKind::GeoServer, message).hint(format!(
        "check that the store {} points to the database and schema that the table was restored to",
        wanted.store
    )))
}

fn shown_columns(current: &Value) -> BTreeSet<&str> {
    many(&current["attributes"]["attribute"]).iter().filter_map(|attribute| attribute["name"].as_str()).collect()
}

fn real_columns(wanted: &FeatureType) -> BTreeSet<&str> {
    wanted.columns.iter().map(String::as_str).collect()
}

fn has_geometry(current: &Value) -> bool {
    many(&current["attributes"]["attribute"])
        .iter()
        .any(|attribute| attribute["binding"].as_str().is_some_and(|binding| binding.contains(".jts.geom.")))
}

/// Whether these are the keywords that GeoServer gives to a type created with none.
fn are_defaults(shown: &[String], wanted: &FeatureType) -> bool {
    shown.iter().all(|word| word == "features" || *word == wanted.native_name || word == wanted.name.as_str())
}

/// The metadata entries to send when the SQL view is not as wanted; GeoServer replaces all entries.
fn changed_metadata(current: &Value, wanted: &FeatureType) -> Option<Vec<Value>> {
    let entries = many(&current["metadata"]["entry"]);
    let is_view = |entry: &&Value| entry["@key"] == SQL_VIEW_KEY;
    let shown = entries.iter().find(is_view).map(|entry| &entry["virtualTable"]);
    let same = match (shown, &wanted.sql_view) {
        (None, None) => true,
        (Some(shown), Some(view)) => is_same_view(shown, &wanted.native_name, view),
        _ => false,
    };
    if same {
        return None;
    }
    let view = wanted.sql_view.as_ref().map(|view| sql_view_entry(&wanted.native_name, view));
    Some(entries.iter().filter(|entry| !is_view(entry)).cloned().chain(view).collect())
}

/// The entry of an SQL view. Its name must be the type's native name: with another one GeoServer
/// serves the plain table of the native name.
fn sql_view_entry(native_name: &str, view: &SqlView) -> Value {
    let mut table = Map::new();
    table.insert("name".into(), json!(native_name));
    table.insert("sql".into(), json!(statement(&view.sql)));
    table.insert("escapeSql".into(), json!(false));
    if let Some(key) = &view.key_column {
        table.insert("keyColumn".into(), json!(key));
    }
    if let Some(geometry) = &view.geometry {
        let kind = geometry_kind(&geometry.kind);
        table.insert("geometry".into(), json!({"name": geometry.column, "type": kind, "srid": geometry.srid}));
    }
    json!({"@key": SQL_VIEW_KEY, "virtualTable": table})
}

fn is_same_view(shown: &Value, native_name: &str, view: &SqlView) -> bool {
    let key = many(&shown["keyColumn"]).iter().map(text).collect::<Vec<_>>().join(",");
    let geometry = many(&shown["geometry"]).first();
    text(&shown["name"]) == native_name
        && statement(&text(&shown["sql"])) == statement(&view.sql)
        && key == view.key_column.as_deref().unwrap_or("")
        && match (geometry, &view.geometry) {
            (None, None) => true,
            (Some(shown), Some(wanted)) => {
                text(&shown["name"]) == wanted.column
                    && text(&shown["type"]).eq_ignore_ascii_case(geometry_kind(&wanted.kind))
                    && number(&shown["srid"]) == Some(f64::from(wanted.srid))
            }
            _ => false,
        }
}

/// A query without the final semicolon, which GeoServer fails on: it puts the query into another.
fn statement(sql: &str) -> String {
    sql.replace("\r\n", "\n").trim_end_matches(|c: char| c == ';' || c.is_whitespace()).trim_start().to_owned()
}

/// GeoServer's name of a geometry type of PostGIS, whatever its case and dimensions.
fn geometry_kind(kind: &str) -> &'static str {
    let flat = kind.trim().trim_end_matches(['z', 'm', 'Z', 'M']).trim_end();
    GEOMETRY_KINDS.iter().find(|known| known.eq_ignore_ascii_case(flat)).unwrap_or(&GEOMETRY_KINDS[0])
}

#[cfg(test)]
mod tests {
    use super::super::{Boxes, ProjectionPolicy, ViewGeometry};
    use super::*;
    use crate::name::GeoName;

    fn roads() -> FeatureType {
        let name = |text: &str| GeoName::new("name", text).unwrap();
        FeatureType {
            workspace: name("kmi"),
            store: name("kmi_ds"),
            name: name("roads"),
            native_name: "roads".into(),
            title: "Roads".into(),
            abstract_text: "All\r\nroads\u{7}".into(),
            keywords: vec!["transport".into(), " back\\slash ".into(), "transport".into()],
            srs: "EPSG:28350".into(),
            projection_policy: ProjectionPolicy::ForceDeclared,
            boxes: None,
            sql_view: None,
            columns: vec!["id".into(), "geom".into(), "strange".into()],
            enabled: true,
        }
    }

    fn shown() -> Value {
        json!({
            "name": "roads", "nativeName": "roads", "title": "Roads", "abstract": "All\nroads",
            "keywords": {"string": ["transport", "back slash"]}, "srs": "EPSG:28350",
            "nativeBoundingBox": {"minx": 399_000, "maxx": "401000.0", "miny": 6.449E6, "maxy": 6_451_000, "crs": {"@class": "projected", "$": "EPSG:28350"}},
            "latLonBoundingBox": {"minx": 115, "maxx": 116, "miny": -32, "maxy": "-2.87E-4", "crs": "EPSG:4326"},
            "projectionPolicy": "FORCE_DECLARED", "enabled": true,
            "store": {"@class": "dataStore", "name": "kmi:kmi_ds"},
            "attributes": {"attribute": [
                {"name": "id", "binding": "java.lang.Integer"},
                {"name": "geom", "binding": "org.locationtech.jts.geom.LineString"},
            ]},
        })
    }

    fn boxes() -> Boxes {
        Boxes {
            native: [399_000.0, 6_449_000.0, 401_000.0, 6_451_000.0],
            lat_lon: [115.0, -32.0, 116.0, -0.000_287],
            crs: "EPSG:28350".into(),
        }
    }

    fn view(sql: &str) -> SqlView {
        SqlView {
            sql: sql.into(),
            geometry: Some(ViewGeometry { column: "geom".into(), kind: "MULTIPOLYGONZ".into(), srid: 4283 }),
            key_column: None,
        }
    }

    const SAME: Freshness = Freshness { data_changed: false, columns_changed: false, boxes_were_given: false };

    #[test]
    fn what_geoserver_shows_as_told_is_left_alone() {
        assert!(update(&shown(), &roads(), SAME).is_empty());
        assert!(update(&shown(), &FeatureType { boxes: Some(boxes()), ..roads() }, SAME).is_empty());
    }

    #[test]
    fn only_what_differs_is_sent() {
        let wanted = FeatureType { title: "Streets".into(), keywords: vec![], enabled: false, ..roads() };
        let change = update(&shown(), &wanted, SAME);
        insta::assert_snapshot!(change.document(), @r#"{"featureType":{"enabled":false,"keywords":"","title":"Streets"}}"#);
        assert!(!change.recalculate && !change.changes_source);
    }

    #[test]
    fn changed_data_compute_boxes_again_unless_they_are_given() {
        let changed = Freshness { data_changed: true, columns_changed: false, boxes_were_given: false };
        let computed = update(&shown(), &roads(), changed);
        assert!(computed.recalculate && !computed.is_empty());
        let given = FeatureType { boxes: Some(boxes()), ..roads() };
        assert!(update(&shown(), &given, changed).is_empty());
        let withdrawn = Freshness { boxes_were_given: true, ..SAME };
        assert!(update(&shown(), &roads(), withdrawn).recalculate);
        assert!(update(&shown(), &given, withdrawn).is_empty());
        let mut table = shown();
        table["attributes"]["attribute"][1] = json!("");
        assert!(update(&table, &roads(), changed).is_empty(), "there is no box without a geometry");
    }

    #[test]
    fn an_sql_view_is_compared_by_its_meaning_and_other_metadata_stay() {
        let wanted = FeatureType { sql_view: Some(view("select * from roads;\n")), ..roads() };
        let mut current = shown();
        current["metadata"] = json!({"entry": {"@key": "cachingEnabled", "$": "false"}});
        let change = update(&current, &wanted, SAME);
        assert!(change.recalculate && change.changes_source);
        insta::assert_snapshot!(change.document(), @r#"{"featureType":{"metadata":{"entry":[{"$":"false","@key":"cachingEnabled"},{"@key":"JDBC_VIRTUAL_TABLE","virtualTable":{"escapeSql":false,"geometry":{"name":"geom","srid":4283,"type":"MultiPolygon"},"name":"roads","sql":"select * from roads"}}]}}}"#);

        current["metadata"] = change.fields["metadata"].clone();
        current["metadata"]["entry"][1]["virtualTable"]["sql"] = json!("select * from roads\n");
        assert!(update(&current, &wanted, SAME).is_empty());
        let back = update(&current, &roads(), SAME);
        insta::assert_snapshot!(back.document(), @r#"{"featureType":{"metadata":{"entry":[{"$":"false","@key":"cachingEnabled"}]}}}"#);
    }

    #[test]
    fn a_type_in_another_store_is_moved_in_place() {
        let mut current = shown();
        current["store"]["name"] = json!("kmi:live");
        let change = update(&current, &roads(), SAME);
        assert!(change.moves);
        insta::assert_snapshot!(change.document(), @r#"{"featureType":{"store":{"@class":"dataStore","name":"kmi:kmi_ds"}}}"#);
    }

    #[test]
    fn columns_that_cannot_be_the_relations_are_stale() {
        let replaced = Freshness { data_changed: true, columns_changed: false, boxes_were_given: false };
        // `strange` is of a type that GeoServer does not know.
        assert!(!columns_are_stale(&shown(), &roads(), SAME));
        assert!(columns_are_stale(&shown(), &roads(), replaced));
        let renamed = FeatureType { columns: vec!["gid".into(), "geom".into()], ..roads() };
        assert!(columns_are_stale(&shown(), &renamed, SAME));
        let error = check_columns(&shown(), &renamed).unwrap_err();
        assert!(error.message().ends_with("does not have: id"), "{}", error.message());
        let unknown = FeatureType { columns: vec![], ..roads() };
        assert!(!columns_are_stale(&shown(), &unknown, replaced));
        check_columns(&shown(), &unknown).unwrap();
    }

    #[test]
    fn the_whole_document_never_holds_attributes() {
        let wanted = FeatureType { boxes: Some(boxes()), sql_view: Some(view("select 1")), ..roads() };
        insta::assert_snapshot!(serde_json::to_string_pretty(&whole(&wanted)).unwrap(), @r#"
        {
          "featureType": {
            "abstract": "All\nroads",
            "enabled": true,
            "keywords": {
              "string": [
                "transport",
                "back slash"
              ]
            },
            "latLonBoundingBox": {
              "crs": "EPSG:4326",
              "maxx": 116.0,
              "maxy": -0.000287,
              "minx": 115.0,
              "miny": -32.0
            },
            "metadata": {
              "entry": [
                {
                  "@key": "JDBC_VIRTUAL_TABLE",
                  "virtualTable": {
                    "escapeSql": false,
                    "geometry": {
                      "name": "geom",
                      "srid": 4283,
                      "type": "MultiPolygon"
                    },
                    "name": "roads",
                    "sql": "select 1"
                  }
                }
              ]
            },
            "name": "roads",
            "nativeBoundingBox": {
              "crs": "EPSG:28350",
              "maxx": 401000.0,
              "maxy": 6451000.0,
              "minx": 399000.0,
              "miny": 6449000.0
            },
            "nativeName": "roads",
            "projectionPolicy": "FORCE_DECLARED",
            "srs": "EPSG:28350",
            "title": "Roads"
          }
        }
        "#);
    }
}
