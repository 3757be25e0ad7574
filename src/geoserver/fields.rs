//! What the documents of all resources have in common: titles, texts, keywords, boxes. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::name::GeoName;

use super::Boxes;
use super::json::{number, text};

/// Half the last digit of what a box keeps on its way through GeoServer.
const BOX_TOLERANCE: f64 = 1e-9;

/// The title, which shall not be empty.
pub(super) fn title(title: &str, name: &GeoName) -> String {
    let title = plain(title);
    if title.is_empty() { name.as_str().to_owned() } else { title }
}

/// Keywords as GeoServer takes them: a backslash introduces a vocabulary there and fails otherwise.
pub(super) fn keywords(words: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    words
        .iter()
        .map(|word| plain(&word.replace('\\', " ")).split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|word| !word.is_empty() && seen.insert(word.clone()))
        .collect()
}

pub(super) fn keywords_value(words: &[String]) -> Value {
    if words.is_empty() { json!("") } else { json!({"string": words}) }
}

/// Text that survives GeoServer's catalog files, which are XML 1.0: without the control characters
/// that XML cannot hold, and with plain line ends.
pub(super) fn plain(text: &str) -> String {
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    lines
        .trim()
        .chars()
        .filter(|&c| matches!(c, '\n' | '\t') || !(c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')))
        .collect()
}

pub(super) fn insert_boxes(fields: &mut Map<String, Value>, boxes: &Boxes) {
    let bounds = |[minx, miny, maxx, maxy]: [f64; 4], crs: &str| json!({"minx": minx, "miny": miny, "maxx": maxx, "maxy": maxy, "crs": crs});
    fields.insert("nativeBoundingBox".into(), bounds(boxes.native, &boxes.crs));
    fields.insert("latLonBoundingBox".into(), bounds(boxes.lat_lon, "EPSG:4326"));
}

pub(super) fn has_boxes(current: &Value, boxes: &Boxes) -> bool {
    let same = |shown: &Value, wanted: [f64; 4]| {
        ["minx", "miny", "maxx", "maxy"].iter().zip(wanted).all(|(key, wanted)| {
            number(&shown[*key])
                .is_some_and(|shown| (shown - wanted).abs() <= BOX_TOLERANCE * wanted.abs().max(shown.abs()).max(1.0))
        })
    };
    same(&current["nativeBoundingBox"], boxes.native)
        && text(&current["nativeBoundingBox"]["crs"]) == boxes.crs
        && same(&current["latLonBoundingBox"], boxes.lat_lon)
}
