//! When two answers are the same: JSON as values, XML as trees, numbers but for rounding.

use serde_json::Value;

use crate::support::geoserver::doc::El;
use crate::support::geoserver::xml;

/// Replaces what varies by the words that the recordings use.
pub(crate) fn plain(text: &str, base: &str) -> String {
    let mut text = text.replace(base, "{BASE}");
    for (before, ends, word) in [
        // Which of several holders is named depends on an order inside GeoServer.
        ("referenced by layer group '", "'", "N"),
        ("Position: ", "\n<\"\\", "N"),
        ("InfoImpl-", "<\"", "{ID}"),
        ("crypt1:", "<\"", "{CIPHER}"),
        (".fid-", "\"<", "{RANDOM}"),
        ("Thread qtp", " ", "N"),
        ("updateSequence=\"", "\"", "N"),
        ("module of loader", ")", ""),
    ] {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(before) {
            let start = at + before.len();
            let length = rest[start..].find(|c| ends.contains(c)).unwrap_or(rest.len() - start);
            out.push_str(&rest[..start]);
            out.push_str(word);
            rest = &rest[start + length..];
        }
        out.push_str(rest);
        text = out;
    }
    text
}

/// Tells what differs, if anything does.
pub(crate) fn differ(media: &str, recorded: &str, answered: &str) -> Option<String> {
    if media.contains("json")
        && let (Ok(recorded), Ok(answered)) =
            (serde_json::from_str::<Value>(recorded), serde_json::from_str::<Value>(answered))
    {
        return values(&recorded, &answered, "");
    }
    if media.contains("xml")
        && let (Ok(recorded), Ok(answered)) = (xml::parse(recorded), xml::parse(answered))
    {
        return trees(&recorded, &answered, "");
    }
    (recorded.trim() != answered.trim()).then(|| format!("{:?} instead of {:?}", short(answered), short(recorded)))
}

fn short(text: &str) -> String {
    text.chars().take(700).collect()
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str().filter(|text| text.contains("E-")).and_then(|text| text.parse().ok()))
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1e-3)
}

fn values(recorded: &Value, answered: &Value, path: &str) -> Option<String> {
    let other =
        || Some(format!("{path}: {} instead of {}", short(&answered.to_string()), short(&recorded.to_string())));
    match (recorded, answered) {
        (Value::String(text), Value::String(_)) if text == "{DATE}" => None,
        // The number of a task.
        (Value::Number(_), Value::Number(_)) if path.contains("long-array-array") && path.ends_with("/3") => None,
        (Value::Object(a), Value::Object(b)) => {
            if a.keys().any(|key| !b.contains_key(key)) || b.keys().any(|key| !a.contains_key(key)) {
                let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>().join(" ");
                return Some(format!("{path}: has {} instead of {}", keys(b), keys(a)));
            }
            a.iter().find_map(|(key, value)| values(value, &b[key], &format!("{path}/{key}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let (mut a, mut b) = (a.clone(), b.clone());
            // Hash maps and sets: no order to speak of.
            let key = |value: &Value| value.get("@key").map_or_else(|| value.to_string(), Value::to_string);
            let unordered = ["/entry", "/keywords/string", "/styles/style", "/parameterFilters"];
            if unordered.iter().any(|end| path.ends_with(end)) && !path.contains("layerGroup") {
                a.sort_by_key(key);
                b.sort_by_key(key);
            }
            a.iter().zip(&b).enumerate().find_map(|(at, (a, b))| values(a, b, &format!("{path}/{at}")))
        }
        (a, b) => match (number(a), number(b)) {
            (Some(x), Some(y)) if a.is_string() == b.is_string() && close(x, y) => None,
            _ if a == b => None,
            _ => other(),
        },
    }
}

fn trees(recorded: &El, answered: &El, path: &str) -> Option<String> {
    let path = format!("{path}/{}", recorded.name);
    if recorded.name != answered.name {
        return Some(format!("{path}: {} instead", answered.name));
    }
    let attrs = |el: &El| {
        let mut attrs: Vec<_> =
            el.attrs.iter().filter(|(key, _)| key != "timeStamp" && key != "next").cloned().collect();
        attrs.sort();
        attrs
    };
    if attrs(recorded) != attrs(answered) {
        return Some(format!("{path}: {:?} instead of {:?}", attrs(answered), attrs(recorded)));
    }
    let kids = |el: &El| {
        let mut kids: Vec<El> = el.kids.iter().filter(|kid| kid.name != "atom:link").cloned().collect();
        if ["connectionParameters", "keywords", "metadata"].contains(&el.name.as_str()) {
            kids.sort_by_key(|kid| (kid.get_attr("key").unwrap_or_default().to_owned(), kid.text.clone()));
        }
        kids
    };
    let (a, b) = (kids(recorded), kids(answered));
    if a.len() != b.len() {
        let names = |list: &[El]| list.iter().map(|kid| kid.name.clone()).collect::<Vec<_>>().join(" ");
        return Some(format!("{path}: has {} instead of {}", names(&b), names(&a)));
    }
    if let Some(found) = a.iter().zip(&b).find_map(|(a, b)| trees(a, b, &path)) {
        return Some(found);
    }
    let (a, b) = (recorded.text.trim(), answered.text.trim());
    let numbers = matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(x), Ok(y)) if close(x, y));
    (a != b && a != "{DATE}" && !numbers).then(|| format!("{path}: {b:?} instead of {a:?}"))
}
