//! How GeoServer writes JSON, and how to read it.
//!
//! An empty collection is an empty string, a collection of one inside an object is the element
//! itself, numbers below a thousandth are strings, and a reference system is a string or an object
//! with the code in `$`.

use serde_json::Value;

/// The elements of a collection, however many there are.
pub(super) fn many(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        Value::Null => &[],
        Value::String(text) if text.is_empty() => &[],
        one => std::slice::from_ref(one),
    }
}

/// A scalar as text; empty when there is none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Object(object) => object.get("$").map(text).unwrap_or_default(),
        Value::Null | Value::Array(_) => String::new(),
    }
}

/// A number, also one written as a string.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The `name` of each element of a collection.
pub(super) fn names(value: &Value) -> impl Iterator<Item = String> + '_ {
    many(value).iter().map(|item| text(&item["name"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn collections_are_read_in_all_their_forms() {
        assert!(many(&json!("")).is_empty());
        assert!(many(&json!(null)).is_empty());
        assert_eq!(many(&json!("k")), [json!("k")]);
        assert_eq!(many(&json!(["k", "l"])).len(), 2);
        assert_eq!(names(&json!({"name": "a"})).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn numbers_and_reference_systems_are_read_in_all_their_forms() {
        assert_eq!(number(&json!("-2.87E-4")), Some(-0.000287));
        assert_eq!(number(&json!(118)), Some(118.0));
        assert_eq!(number(&json!(1.234_567_89E7)), Some(12_345_678.9));
        assert_eq!(text(&json!({"@class": "projected", "$": "EPSG:28350"})), "EPSG:28350");
        assert_eq!(text(&json!("EPSG:4326")), "EPSG:4326");
    }
}
