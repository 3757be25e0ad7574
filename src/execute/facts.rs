//! What is known to have been pushed to each GeoServer.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use super::{Ctx, Event};
use crate::error::Result;
use crate::geoserver::GeoServer;

/// Small facts by target and key, as the journal keeps them; changed while a pass runs.
#[derive(Debug, Default)]
pub struct Facts(Mutex<HashMap<String, HashMap<String, String>>>);

impl Facts {
    /// Facts as they were loaded: `((target, key), value)`.
    #[must_use]
    pub fn new(facts: impl IntoIterator<Item = ((String, String), String)>) -> Self {
        let mut of_targets: HashMap<String, HashMap<String, String>> = HashMap::new();
        for ((target, key), value) in facts {
            of_targets.entry(target).or_default().insert(key, value);
        }
        Self(Mutex::new(of_targets))
    }

    pub(super) fn get(&self, target: &str, key: &str) -> Option<String> {
        let facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        facts.get(target)?.get(key).cloned()
    }

    /// The keys of a target.
    pub(super) fn keys(&self, target: &str) -> Vec<String> {
        let facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        facts.get(target).into_iter().flat_map(HashMap::keys).cloned().collect()
    }

    pub(super) fn set(&self, target: &str, key: &str, value: Option<&str>) {
        let mut facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => drop(facts.entry(target.to_owned()).or_default().insert(key.to_owned(), value.to_owned())),
            None => drop(facts.get_mut(target).and_then(|facts| facts.remove(key))),
        }
    }
}

impl Ctx<'_> {
    /// The key of a fact about an object of GeoServer.
    pub(super) fn fact_key(kind: &str, workspace: impl Display, name: impl Display) -> String {
        format!("{kind} {workspace}:{name}")
    }

    /// Keeps a fact; `None` forgets it.
    pub(super) fn remember(&self, server: &GeoServer, key: &str, value: Option<String>) {
        self.run.background.facts.set(server.name(), key, value.as_deref());
        self.run.emit(Event::Fact { target: server.name().to_owned(), key: key.to_owned(), value });
    }

    /// Forgets a fact before what it tells is changed: a kill in between must not leave it standing.
    pub(super) async fn forget(&self, server: &GeoServer, key: &str) -> Result<()> {
        self.forget_of(server.name(), key).await
    }

    /// As [`Ctx::forget`], of whatever target.
    pub(super) async fn forget_of(&self, target: &str, key: &str) -> Result<()> {
        if self.run.background.facts.get(target, key).is_none() {
            return Ok(());
        }
        self.run.background.facts.set(target, key, None);
        let (target, key) = (target.to_owned(), key.to_owned());
        self.run.write(Event::Fact { target, key, value: None }).await
    }

    /// What is known.
    pub(super) fn recall(&self, server: &GeoServer, key: &str) -> Option<String> {
        self.run.background.facts.get(server.name(), key)
    }

    /// Keeps a fact that must be on record before anything else is done.
    pub(super) async fn note(&self, target: &str, key: &str, value: String) -> Result<()> {
        self.run.background.facts.set(target, key, Some(&value));
        let (target, key) = (target.to_owned(), key.to_owned());
        self.run.write(Event::Fact { target, key, value: Some(value) }).await
    }
}
