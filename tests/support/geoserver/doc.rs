//! One document tree for both formats: GeoServer writes the same tree as XML and as JSON, with the quirks of
//! its XStream and Jettison layers (`""` for empty, no array around a single element, numbers as strings).

use serde_json::{Map, Value};

/// An element with attributes, children or text; `link` becomes an `atom:link` in XML and an `href` in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct El {
    pub(crate) name: String,
    pub(crate) attrs: Vec<(String, String)>,
    pub(crate) kids: Vec<El>,
    pub(crate) text: String,
    link: Option<String>,
    atom: bool,
    array: bool,
}

impl El {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers give numbers, truth values and texts alike")]
    pub(crate) fn leaf(name: &str, text: impl ToString) -> Self {
        Self { name: name.to_owned(), text: text.to_string(), ..Self::default() }
    }

    pub(crate) fn attr(mut self, key: &str, value: &str) -> Self {
        self.attrs.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn kid(mut self, kid: El) -> Self {
        self.kids.push(kid);
        self
    }

    pub(crate) fn with(self, name: &str, text: impl ToString) -> Self {
        self.kid(El::leaf(name, text))
    }

    pub(crate) fn with_opt(self, name: &str, text: Option<impl ToString>) -> Self {
        match text {
            Some(text) => self.with(name, text),
            None => self,
        }
    }

    pub(crate) fn kids_opt(mut self, kid: Option<El>) -> Self {
        self.kids.extend(kid);
        self
    }

    /// A reference: the address without its extension, which is that of the document it stands in.
    pub(crate) fn href(mut self, href: String) -> Self {
        self.link = Some(href);
        self
    }

    /// An index list: `{"layers":{"layer":[..]}}`, links of the type `application/atom+xml`.
    pub(crate) fn index(name: &str, item: &str, entries: Vec<(String, String)>) -> Self {
        let mut list = El::new(name);
        for (entry, href) in entries {
            let mut kid = El::new(item).with("name", entry).href(href);
            kid.atom = true;
            kid.array = true;
            list.kids.push(kid);
        }
        list
    }

    pub(crate) fn find(&self, name: &str) -> Option<&El> {
        self.kids.iter().find(|kid| kid.name == name)
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a El> {
        self.kids.iter().filter(move |kid| kid.name == name)
    }

    pub(crate) fn text_of(&self, name: &str) -> Option<String> {
        self.find(name).map(|kid| kid.text.clone())
    }

    pub(crate) fn get_attr(&self, key: &str) -> Option<&str> {
        self.attrs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn to_xml(&self) -> String {
        let mut out = String::new();
        self.write_xml(&mut out, 0);
        out
    }

    fn write_xml(&self, out: &mut String, depth: usize) {
        let pad = "  ".repeat(depth);
        // XStream doubles an underscore in an element name.
        let name = self.name.replace('_', "__");
        out.push_str(&format!("{pad}<{name}"));
        for (key, value) in &self.attrs {
            out.push_str(&format!(" {key}=\"{}\"", escape(value)));
        }
        if self.kids.is_empty() && self.link.is_none() {
            if self.text.is_empty() {
                out.push_str("/>");
            } else {
                out.push_str(&format!(">{}</{name}>", escape(&self.text)));
            }
            return;
        }
        out.push('>');
        for kid in &self.kids {
            out.push('\n');
            kid.write_xml(out, depth + 1);
        }
        if let Some(link) = &self.link {
            let media = if self.atom { "application/atom+xml" } else { "application/xml" };
            out.push_str(&format!(
                "\n{pad}  <atom:link xmlns:atom=\"http://www.w3.org/2005/Atom\" rel=\"alternate\" href=\"{}.xml\" \
                 type=\"{media}\"/>",
                escape(link)
            ));
        }
        out.push_str(&format!("\n{pad}</{name}>"));
    }

    /// The document as JSON, the root's name outermost.
    pub(crate) fn to_json(&self) -> Value {
        let mut root = Map::new();
        root.insert(self.name.clone(), self.json());
        Value::Object(root)
    }

    pub(crate) fn json(&self) -> Value {
        if self.kids.is_empty() && self.attrs.is_empty() {
            return match &self.link {
                Some(link) => Value::String(format!("{link}.json")),
                None => primitive(&self.text),
            };
        }
        let mut map = Map::new();
        for (key, value) in &self.attrs {
            map.insert(format!("@{key}"), Value::String(value.clone()));
        }
        for kid in &self.kids {
            let value = kid.json();
            match map.get_mut(&kid.name) {
                Some(Value::Array(list)) => list.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
                None if kid.array => {
                    map.insert(kid.name.clone(), Value::Array(vec![value]));
                }
                None => {
                    map.insert(kid.name.clone(), value);
                }
            }
        }
        if self.kids.is_empty() && (!self.text.is_empty() || self.link.is_none()) {
            map.insert("$".to_owned(), Value::String(self.text.clone()));
        }
        if let Some(link) = &self.link {
            map.insert("href".to_owned(), Value::String(format!("{link}.json")));
        }
        Value::Object(map)
    }

    pub(crate) fn from_json(name: &str, value: &Value) -> El {
        let mut el = El::new(name);
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.strip_prefix('@'), value) {
                        (Some(attr), value) => el.attrs.push((attr.to_owned(), scalar(value))),
                        (None, value) if key == "$" => el.text = scalar(value),
                        (None, Value::Array(list)) => {
                            el.kids.extend(list.iter().map(|item| El::from_json(key, item)));
                        }
                        (None, value) => el.kids.push(El::from_json(key, value)),
                    }
                }
            }
            other => el.text = scalar(other),
        }
        el
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Jettison turns a text that reads as a number or a truth value into one; numbers that Java writes with a
/// negative exponent stay strings.
fn primitive(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i64>()
        && whole.to_string() == text
    {
        return Value::from(whole);
    }
    if let Ok(number) = text.parse::<f64>()
        && number.is_finite()
        && java_double(number) == text
        && !text.contains("E-")
    {
        // 118.0 is written as 118.
        return if number.fract() == 0.0 && number.abs() < 1e7 {
            Value::from(number as i64)
        } else {
            Value::from(number)
        };
    }
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(text.to_owned()),
    }
}

/// A number as `Double.toString` of Java writes it.
pub(crate) fn java_double(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => text,
    }
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&apos;")
}
