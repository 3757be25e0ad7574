//! Where variables come from: the process, or a map in tests.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// A source of environment variables.
pub trait Env {
    /// The value of `name`, when it is set. A value need not be UTF-8; the loader refuses one that is not.
    fn get(&self, name: &str) -> Option<OsString>;

    /// The names of all variables that are set, in any order. Names that are not UTF-8 are left out:
    /// no setting has one.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<OsString> {
        BTreeMap::get(self, name).map(OsString::from)
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}
