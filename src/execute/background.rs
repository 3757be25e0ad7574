//! What earlier runs and the repository's tip tell a pass.

use std::collections::{HashMap, HashSet};

use super::Facts;
use crate::job::{AuthLevel, JobFile, JobKind};

/// What maps show, by `workspace.name`. A group may have the name of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Shown {
    /// A layer of whatever kind.
    Layer(String),
    /// A layer group.
    Group(String),
}

impl Shown {
    /// What the job of this file makes; nothing when it is a store or the like, or an auxiliary file, which says
    /// nothing of its layer.
    #[must_use]
    pub fn by(file: &JobFile) -> Option<Self> {
        file.companion.is_none().then(|| Self::named(file.kind, &file.stem)).flatten()
    }

    pub(super) fn named(kind: JobKind, stem: &str) -> Option<Self> {
        match kind {
            JobKind::Feature | JobKind::WmsLayer | JobKind::LiveLayer => Some(Self::Layer(stem.to_owned())),
            JobKind::LayerGroup => Some(Self::Group(stem.to_owned())),
            _ => None,
        }
    }
}

/// What earlier runs and the repository's tip tell a pass.
#[derive(Debug, Default)]
pub struct Background {
    /// Facts about what was pushed to each target.
    pub facts: Facts,
    /// Per job file: targets whose GeoServer steps succeeded for the same content.
    pub finished_targets: HashMap<String, HashSet<String>>,
    /// Access level of each workspace that has a document in the repository.
    pub workspace_levels: HashMap<String, AuthLevel>,
    /// Removals that were carried out before, and now concern only GeoServers that have come in since.
    pub removed_before: HashSet<String>,
    /// What this slave's filters do not take.
    pub filtered_layers: HashSet<Shown>,
    /// What is for later, because the settings leave out what it needs.
    pub waiting_layers: HashSet<Shown>,
    /// Job files that publish a layer which takes the place of one of another kind by the same name.
    pub replaces: HashSet<String>,
    /// Job files to be removed that the filters have always left out.
    pub never_taken: HashSet<String>,
    /// GeoServers that were to read their data directory again when the last run ended.
    pub reload_due: HashSet<String>,
    /// The job files of the layer groups at the tip, by `workspace.name`.
    pub group_files: HashMap<String, Vec<String>>,
    /// The access rules of each channel at the tip: path and content.
    pub access_rules: Vec<(String, String)>,
}
