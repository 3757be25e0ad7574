//! Reads a JSON file strictly and keeps its text, so that errors can say where.

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// One JSON file: its parsed object, and its text to find places in.
#[derive(Clone)]
pub(super) struct Source {
    /// What errors call the file: its path in the repository or its address on the master.
    pub(super) name: String,
    /// The top-level object.
    pub(super) object: Map<String, Value>,
    text: String,
}

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Source {
    /// Reads `content`; `remedy` is the hint of every error.
    pub(super) fn read(name: &str, content: &[u8], remedy: &str) -> Result<Self> {
        let refuse = |message: String| Error::new(ErrorKind::Document, message).subject(name).hint(remedy.to_owned());
        // Editors on Windows put a byte order mark before UTF-8.
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let text = std::str::from_utf8(content).map_err(|error| {
            let (line, column) = position(&content[..error.valid_up_to()]);
            refuse(format!("the file is not UTF-8 text (line {line}, column {column})")).source(error)
        })?;
        if text.trim().is_empty() {
            return Err(refuse("the file is empty, a JSON object is expected".into()));
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let value = UniqueKeys.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
        let value = value.map_err(|error| {
            refuse(format!("the file is no valid JSON (line {}, column {})", error.line(), error.column()))
                .source(error)
        })?;
        match value {
            Value::Object(object) => Ok(Self { name: name.to_owned(), object, text: text.to_owned() }),
            other => Err(refuse(format!("the file holds {}, a JSON object is expected", kind_of(&other)))),
        }
    }

    /// A source without fields, for a file whose content is unusable or not wanted.
    pub(super) fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), object: Map::new(), text: "{}".into() }
    }

    /// Line and column (from 1) at which the value under `steps` ends, or starts if it is a list or object.
    pub(super) fn locate(&self, steps: &[Step]) -> Option<(usize, usize)> {
        let mut reader = serde_json::Deserializer::from_str(&self.text);
        let error = Walk { steps, found: &mut |_| () }.deserialize(&mut reader).err()?;
        Some((error.line(), error.column()))
    }

    /// The keys of the object under `steps`, in the order in which the file has them.
    pub(super) fn keys_in_order(&self, steps: &[Step]) -> Vec<String> {
        let mut keys = Vec::new();
        let mut reader = serde_json::Deserializer::from_str(&self.text);
        // The walk ends with an error by design; what counts is what it met.
        let _ = Walk { steps, found: &mut |key| keys.push(key) }.deserialize(&mut reader);
        keys
    }
}

/// What kind of JSON value `value` is, with its article.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn position(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    (line, column)
}

/// Reads a [`Value`], refusing an object that has a key twice: which of the two is meant, nobody knows.
struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(UniqueKeys)? {
            values.push(value);
        }
        Ok(values.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} appears twice in one object")));
            }
            let value = entries.next_value_seed(UniqueKeys)?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// Walks to a value and fails there on purpose: the reader then tells the position.
struct Walk<'a> {
    steps: &'a [Step],
    found: &'a mut dyn FnMut(String),
}

impl Walk<'_> {
    fn arrive<E: de::Error>(&self) -> Result<(), E> {
        if self.steps.is_empty() { Err(E::custom("here")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.arrive()
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.arrive()
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.arrive()
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.arrive()
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.arrive()
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.arrive()
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.arrive()?;
        for index in 0.. {
            let here = matches!(&self.steps[0], Step::Index(wanted) if *wanted == index);
            let more = if here {
                list.next_element_seed(Walk { steps: &self.steps[1..], found: &mut *self.found })?
            } else {
                list.next_element::<IgnoredAny>()?.map(|_| ())
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if self.steps.is_empty() {
            while let Some(key) = entries.next_key::<String>()? {
                (self.found)(key);
                entries.next_value::<IgnoredAny>()?;
            }
            return Err(de::Error::custom("here"));
        }
        while let Some(key) = entries.next_key::<String>()? {
            if matches!(&self.steps[0], Step::Key(wanted) if *wanted == key) {
                entries.next_value_seed(Walk { steps: &self.steps[1..], found: &mut *self.found })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(content: &[u8]) -> String {
        Source::read("g/layers/a.b.json", content, "correct the file").err().map_or("-".into(), |e| e.one_line())
    }

    #[test]
    fn unreadable_files_say_where_and_why() {
        let deep = "[".repeat(200);
        let shown = [
            refusal(b""),
            refusal(b" \n"),
            refusal(b"[1]"),
            refusal(b"{\n  \"a\": 1,\n  \"a\": 2}"),
            refusal(b"{\"a\": 1,\n \"b\" 2}"),
            refusal(b"{\"a\": NaN}"),
            refusal(b"{} {}"),
            refusal(b"{\"a\":\n \"caf\xe9\"}"),
            refusal(format!("{{\"a\": {deep}").as_bytes()),
            refusal(b"\xef\xbb\xbf{\"a\": 1}"),
        ]
        .join("\n");
        insta::assert_snapshot!(shown, @r#"
        g/layers/a.b.json: the file is empty, a JSON object is expected
        g/layers/a.b.json: the file is empty, a JSON object is expected
        g/layers/a.b.json: the file holds a list, a JSON object is expected
        g/layers/a.b.json: the file is no valid JSON (line 3, column 5): the key "a" appears twice in one object at line 3 column 5
        g/layers/a.b.json: the file is no valid JSON (line 2, column 6): expected `:` at line 2 column 6
        g/layers/a.b.json: the file is no valid JSON (line 1, column 7): expected value at line 1 column 7
        g/layers/a.b.json: the file is no valid JSON (line 1, column 4): trailing characters at line 1 column 4
        g/layers/a.b.json: the file is not UTF-8 text (line 2, column 6): invalid utf-8 sequence of 1 bytes from index 11
        g/layers/a.b.json: the file is no valid JSON (line 1, column 133): recursion limit exceeded at line 1 column 133
        -
        "#);
    }

    #[test]
    fn places_and_order_are_found_again() {
        let text = "{\"z\": 1,\n \"styles\": {\"b\": {\"md5\": 5}, \"a\": null},\n \"bbox\": [1, \"x\"]}";
        let source = Source::read("f", text.as_bytes(), "").unwrap();
        let key = |key: &str| Step::Key(key.into());
        assert_eq!(source.keys_in_order(&[key("styles")]), ["b", "a"]);
        assert_eq!(source.locate(&[key("styles"), key("b"), key("md5")]).map(|(line, _)| line), Some(2));
        assert_eq!(source.locate(&[key("bbox"), Step::Index(1)]).map(|(line, _)| line), Some(3));
        assert_eq!(source.locate(&[key("nowhere")]), None);
    }
}
