//! What is known to have been pushed to each GeoServer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Small facts by target and key, as the journal keeps them; changed while a pass runs.
#[derive(Debug, Default)]
pub struct Facts(Mutex<HashMap<(String, String), String>>);

impl Facts {
    /// Facts as they were loaded: `((target, key), value)`.
    #[must_use]
    pub fn new(facts: impl IntoIterator<Item = ((String, String), String)>) -> Self {
        Self(Mutex::new(facts.into_iter().collect()))
    }

    pub(super) fn get(&self, target: &str, key: &str) -> Option<String> {
        let facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        facts.get(&(target.to_owned(), key.to_owned())).cloned()
    }

    pub(super) fn set(&self, target: &str, key: &str, value: Option<&str>) {
        let mut facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.to_owned(), key.to_owned());
        match value {
            Some(value) => facts.insert(key, value.to_owned()),
            None => facts.remove(&key),
        };
    }
}
