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
            Some(field) => Some(match field.integer()? {
                0 => AuthLevel::Public,
                1 => AuthLevel::SignedIn,
                2 => AuthLevel::Restricted,
                other => return Err(field.refuse(&format!("is {other}, expected 0, 1 or 2"))),
            }),
            None => allow_authenticated.map(|open| if open { AuthLevel::SignedIn } else { AuthLevel::Restricted }),
        };
        Ok(Self { level: stated.unwrap_or(AuthLevel::Restricted), is_stated: stated.is_some(), allow_authenticated })
    }
}
