//! The name of a revision.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// The full hash of a changeset or commit, in lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(String);

/// Digits of a SHA-1 hash, which is what Mercurial and most Git repositories use.
const SHA1_DIGITS: usize = 40;

/// Digits of a SHA-256 hash.
const SHA256_DIGITS: usize = 64;

impl Revision {
    /// The state before the first changeset: no files.
    #[must_use]
    pub fn null() -> Self {
        Self("0".repeat(SHA1_DIGITS))
    }

    /// A full hash; one of zeros only is null, whatever its length.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when `text` is not a full hash.
    pub fn parse(text: &str) -> Result<Self> {
        let full = [SHA1_DIGITS, SHA256_DIGITS].contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !full {
            return Err(Error::new(ErrorKind::Usage, format!("{text:?} is not a full changeset hash"))
                .hint("a full hash has 40 (or 64) hexadecimal digits"));
        }
        if text.bytes().all(|b| b == b'0') {
            return Ok(Self::null());
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The hash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// Whether this is the state before the first changeset.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_either_length_are_null() {
        assert_eq!(Revision::parse(&"0".repeat(64)).unwrap(), Revision::null());
        assert!(Revision::parse(&"0".repeat(40)).unwrap().is_null());
    }

    #[test]
    fn only_a_full_hash_is_a_revision() {
        for text in ["", "tip", "abc123", &"g".repeat(40), &"a".repeat(41), &"é".repeat(20)] {
            assert!(Revision::parse(text).is_err(), "{text}");
        }
        assert_eq!(Revision::parse(&"AB".repeat(20)).unwrap().as_str(), "ab".repeat(20));
    }
}
