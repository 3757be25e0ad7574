//! Names that come from job files, checked once and typed from there on.
//!
//! PostgreSQL identifiers and GeoServer names obey different rules; a value that reaches an
//! adapter has passed the rule of the place it goes to.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// Longest identifier of PostgreSQL in bytes (`NAMEDATALEN` - 1).
const PG_IDENTIFIER_BYTES: usize = 63;

/// Longest GeoServer name in bytes that still fits a file name with an ending (`NAME_MAX` is 255).
const GEOSERVER_NAME_BYTES: usize = 200;

/// A PostgreSQL identifier: schema, table, column or role. Not quoted; see [`PgIdent::quoted`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgIdent(String);

impl PgIdent {
    /// Takes `name` as it is; `what` says in the error what it was meant to be ("schema").
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when the name is empty, longer than 63 bytes (PostgreSQL would cut it)
    /// or holds a NUL.
    pub fn new(what: &str, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let refuse = |reason: &str| {
            Error::new(ErrorKind::Document, format!("{what} {name:?} is no usable PostgreSQL name: {reason}"))
                .hint("correct the name on the master and publish again")
        };
        if name.is_empty() {
            return Err(refuse("it is empty"));
        }
        if name.len() > PG_IDENTIFIER_BYTES {
            return Err(refuse("it is longer than 63 bytes, PostgreSQL would cut it"));
        }
        if name.contains('\0') {
            return Err(refuse("it holds a NUL character"));
        }
        Ok(Self(name))
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as SQL text: in double quotes, inner quotes doubled.
    #[must_use]
    pub fn quoted(&self) -> String {
        quote_ident(&self.0)
    }
}

impl fmt::Display for PgIdent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Quotes any text as a PostgreSQL identifier.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes any text as a PostgreSQL string literal (for statements that take no parameters).
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// A name in GeoServer's catalog: workspace, store, layer, style or group.
///
/// GeoServer accepts nearly anything on creation but cannot address every name afterwards: `/`, `\`,
/// `;` and `%` are refused in URLs, `,` separates layers in requests, and names become file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GeoName(String);

impl GeoName {
    /// Takes `name` as it is; `what` says in the error what it was meant to be ("layer").
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when GeoServer could not address the name.
    pub fn new(what: &str, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let refuse = |reason: String| {
            Error::new(ErrorKind::Document, format!("{what} {name:?} is no usable GeoServer name: {reason}"))
                .hint("correct the name on the master and publish again")
        };
        if name.trim().is_empty() {
            return Err(refuse("it is empty".into()));
        }
        if name.trim() != name {
            return Err(refuse("it begins or ends with white space".into()));
        }
        if name.len() > GEOSERVER_NAME_BYTES {
            return Err(refuse(format!("it is longer than {GEOSERVER_NAME_BYTES} bytes")));
        }
        if name == "." || name == ".." {
            return Err(refuse("it is a directory".into()));
        }
        if let Some(bad) = name.chars().find(|c| {
            c.is_control() || matches!(c, '/' | '\\' | ';' | '%' | ',' | ':' | '*' | '?' | '|' | '<' | '>' | '"')
        }) {
            return Err(refuse(format!("GeoServer cannot address or store the character {bad:?}")));
        }
        Ok(Self(name))
    }

    /// A workspace's name, which is also an XML prefix and part of a namespace URI.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] as [`GeoName::new`], and when the name is no XML name or holds a space.
    pub fn workspace(name: impl Into<String>) -> Result<Self> {
        let name = Self::new("workspace", name)?;
        let mut chars = name.0.chars();
        let starts_well = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
        if starts_well && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            return Ok(name);
        }
        Err(Error::new(
            ErrorKind::Document,
            format!("workspace {:?} is no usable GeoServer name: a workspace is a letter or underscore followed by letters, digits, `_`, `-` or `.`", name.0),
        )
        .hint("rename the workspace on the master"))
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GeoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns any text into one safe file name: separators, control characters, a leading dot or dash,
/// and `%` itself are percent-encoded, so that different texts stay different names.
#[must_use]
pub fn file_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for (index, c) in text.char_indices() {
        let unsafe_here =
            c.is_control() || matches!(c, '/' | '\\' | '%' | ':') || (index == 0 && matches!(c, '.' | '-'));
        if unsafe_here {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(c);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn identifiers_are_quoted_whatever_they_hold() {
        assert_eq!(PgIdent::new("table", "ro\"ads; drop").unwrap().quoted(), "\"ro\"\"ads; drop\"");
        assert!(PgIdent::new("table", "é".repeat(32)).is_err());
        assert_eq!(quote_literal(r"it's a \ path"), r" E'it''s a \\ path'");
    }

    #[test]
    fn geoserver_names_that_cannot_be_addressed_are_refused() {
        for bad in ["a/b", "a%b", "a;b", "a,b", "", " a", "..", "a\nb", "a:b"] {
            assert!(GeoName::new("layer", bad).is_err(), "{bad:?}");
        }
        for good in ["roads.night", "roads & rivers", "道路", "it's", "a+b", "🙂"] {
            assert!(GeoName::new("layer", good).is_ok(), "{good:?}");
        }
        assert!(GeoName::workspace("a b").is_err());
        assert!(GeoName::workspace("cadastre_2.x").is_ok());
    }

    proptest! {
        #[test]
        fn file_names_never_leave_their_directory_and_stay_distinct(a in ".{1,40}", b in ".{1,40}") {
            let (first, second) = (file_name(&a), file_name(&b));
            prop_assert!(!first.contains('/') && !first.starts_with('.') && !first.contains('\0'));
            prop_assert_eq!(a == b, first == second);
        }
    }
}
