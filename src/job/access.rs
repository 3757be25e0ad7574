//! Who may read a layer.

use super::field::Fields;
use crate::error::Result;

/// Who may read the data of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthLevel {
    /// 0: everybody.
    Public,
    /// 1: staff that has signed in.
    SignedIn,
    /// 2: those who were given the right.
    Restricted,
}

impl AuthLevel {
    /// The number that documents write.
    #[must_use]
    pub fn as_number(self) -> u8 {
        self as u8
    }

    /// The level of a number that a document writes, when there is one.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Public, Self::SignedIn, Self::Restricted]
            .into_iter()
            .find(|level| i64::from(level.as_number()) == number)
    }
}

/// What a document says about who may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The level; [`AuthLevel::Restricted`] when the document says nothing, because silence must not open data.
    pub level: AuthLevel,
    /// Whether the document says anything about it. When it does not, rights that exist are best left alone.
    pub is_stated: bool,
    /// What older documents say instead of a level.
    pub allow_authenticated: Option<bool>,
}

impl Access {
    /// Reads `auth_level`, else derives it from `allow_authenticated`: true opened the data to signed-in
    /// staff (never to everybody), false kept it restricted.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let allow_authenticated = fields.boolean("allow_authenticated")?;
        let stated = match fields.get("auth_level") {
            Some(field) => {
                let number = field.integer()?;
                let level = AuthLevel::from_number(number);
                Some(level.ok_or_else(|| field.refuse(&format!("is {number}, expected 0, 1 or 2")))?)
            }
            None => allow_authenticated.map(|open| if open { AuthLevel::SignedIn } else { AuthLevel::Restricted }),
        };
        Ok(Self { level: stated.unwrap_or(AuthLevel::Restricted), is_stated: stated.is_some(), allow_authenticated })
    }
}
