//! Rules as values: what they are about, who may, and sets of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

use super::super::json;
use super::{parse, properties};

/// What is done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum AccessMode {
    /// `r`.
    Read,
    /// `w`, as in WFS transactions.
    Write,
    /// `a`, of a workspace, by REST and in the web interface.
    Administer,
}

impl AccessMode {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Administer];

    pub(super) fn from_letter(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.letter() == letter)
    }

    fn letter(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::Administer => "a",
        }
    }
}

/// What GeoServer does with a layer that somebody may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CatalogMode {
    /// It is as if it were not there. GeoServer's own choice when a file says nothing.
    Hide,
    /// It is not listed; who asks for it is asked who he is.
    Mixed,
    /// It is listed; who asks for it is asked who he is.
    Challenge,
}

impl CatalogMode {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Hide, Self::Mixed, Self::Challenge].into_iter().find(|mode| mode.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hide => "HIDE",
            Self::Mixed => "MIXED",
            Self::Challenge => "CHALLENGE",
        }
    }
}

impl fmt::Display for CatalogMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who may. Administrators always may.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Roles {
    Everybody,
    Only(BTreeSet<String>),
}

impl Roles {
    /// Reads a list as GeoServer does: commas and white space separate, one `*` is everybody.
    pub(super) fn from_list(list: &str) -> Self {
        let mut roles = list.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|role| !role.is_empty());
        if roles.clone().any(|role| role == "*") {
            return Self::Everybody;
        }
        Self::Only(roles.by_ref().map(str::to_owned).collect())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Only(roles) => f.write_str(&roles.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
        }
    }
}

/// What a rule is about. Narrower ones are less, which is the order to add them in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A layer, or a layer group of a workspace.
    Layer(String, String),
    Workspace(String),
    /// A layer group of no workspace.
    Group(String),
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleKey {
    pub(super) place: Place,
    pub(super) mode: AccessMode,
}

impl RuleKey {
    /// As GeoServer shows it, and takes it in POST: names as they are, with or without dots.
    pub(super) fn shown(&self) -> String {
        self.joined(str::to_owned)
    }

    /// As it stands in the file: `\.` for a dot in a name, and then Java's own escapes.
    fn written(&self) -> String {
        properties::escaped_key(&self.joined(|name| name.replace('.', "\\.")))
    }

    fn joined(&self, name: impl Fn(&str) -> String) -> String {
        let mode = self.mode.letter();
        match &self.place {
            Place::Layer(workspace, layer) => format!("{}.{}.{mode}", name(workspace), name(layer)),
            Place::Workspace(workspace) => format!("{}.*.{mode}", name(workspace)),
            Place::Group(group) => format!("{}.{mode}", name(group)),
            Place::Everything => format!("*.*.{mode}"),
        }
    }

    /// Whether GeoServer takes it in POST: three parts, whatever is escaped.
    pub(super) fn can_be_posted(&self) -> bool {
        let plain = |name: &str| !name.contains(['.', '\\']) && name.trim() == name;
        match &self.place {
            Place::Layer(workspace, layer) => plain(workspace) && plain(layer),
            Place::Workspace(workspace) => plain(workspace),
            Place::Group(_) => false,
            Place::Everything => true,
        }
    }

    pub(super) fn workspace(&self) -> Option<&str> {
        match &self.place {
            Place::Layer(workspace, _) | Place::Workspace(workspace) => Some(workspace),
            Place::Group(_) | Place::Everything => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) roles: Roles,
    /// Where it stands in its file; the first line is 1.
    pub(super) line: usize,
}

/// The rules of one `layers.properties`, or of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRules {
    pub(super) rules: BTreeMap<RuleKey, Rule>,
    pub(super) mode: Option<CatalogMode>,
}

impl AccessRules {
    /// Reads a `layers.properties` as GeoServer does, but for this: lines that GeoServer would skip,
    /// and lines that contradict each other, are errors. A line `filesystemSandbox` is left out, because
    /// it is a setting of the server that it was written on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] names every wrong line. A file without any rule is refused: GeoServer
    /// would hide all layers from everybody, and an empty file is more often an accident than a wish.
    pub fn parse(text: &str) -> Result<Self> {
        parse::parse(text)
    }

    /// The rules of several files, each with the name that messages shall call it by.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when two files give different roles for the same, or a different
    /// `mode`, and when there is no rule at all.
    pub fn merged<'a>(files: impl IntoIterator<Item = (&'a str, &'a Self)>) -> Result<Self> {
        let mut rules: BTreeMap<&RuleKey, (&str, &Rule)> = BTreeMap::new();
        let mut mode: Option<(&str, CatalogMode)> = None;
        let mut wrong = Vec::new();
        let contradiction = |what: String| {
            Error::new(ErrorKind::Document, format!("two files of access rules contradict each other: {what}"))
                .hint("GeoServer has one set of rules for all channels; make the two say the same, on the master")
        };
        for (name, file) in files {
            for (key, rule) in &file.rules {
                let (first, before) = rules.entry(key).or_insert((name, rule));
                if before.roles != rule.roles {
                    let key = key.shown();
                    wrong.push(contradiction(format!(
                        "{first} line {} says {key}={}, {name} line {} says {key}={}",
                        before.line, before.roles, rule.line, rule.roles
                    )));
                }
            }
            if let Some(found) = file.mode {
                let (first, before) = *mode.get_or_insert((name, found));
                if before != found {
                    wrong.push(contradiction(format!("{first} says mode={before}, {name} says mode={found}")));
                }
            }
        }
        if let Some(error) = Error::all(wrong) {
            return Err(error);
        }
        if rules.is_empty() {
            return Err(Error::new(ErrorKind::Document, "there is no file of access rules"));
        }
        let rules = rules.into_iter().map(|(key, (_, rule))| (key.clone(), rule.clone())).collect();
        Ok(Self { rules, mode: mode.map(|(_, mode)| mode) })
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// What GeoServer does with layers that somebody may not read.
    #[must_use]
    pub fn mode(&self) -> CatalogMode {
        self.mode.unwrap_or(CatalogMode::Hide)
    }

    /// The whole file, in ASCII, always the same for the same rules; `sandbox` is the server's own setting.
    pub(in crate::geoserver) fn properties(&self, sandbox: Option<&str>) -> String {
        let mut text = format!("mode={}\n", self.mode());
        if let Some(directory) = sandbox {
            text.push_str(&format!("{}={}\n", parse::SANDBOX, properties::escaped_value(directory)));
        }
        for (key, rule) in &self.rules {
            text.push_str(&format!("{}={}\n", key.written(), properties::escaped_value(&rule.roles.to_string())));
        }
        text
    }

    /// Whether what GeoServer shows is this. It shows `a\.b.c` and `a.b\.c` alike, so that either's roles will do.
    pub(super) fn is_shown(&self, shown: &ShownRules) -> bool {
        let mut wanted: BTreeMap<String, Vec<&Roles>> = BTreeMap::new();
        for (key, rule) in &self.rules {
            wanted.entry(key.shown()).or_default().push(&rule.roles);
        }
        wanted.len() == shown.rules.len()
            && wanted.iter().all(|(key, roles)| shown.rules.get(key).is_some_and(|held| roles.contains(&held)))
    }

    /// The rules of a workspace that GeoServer lacks, when one of them decides about `layer`: those to add
    /// first, and those to add when these are there. Of several that are added at once, requests may see
    /// some; a workspace that opens must not open a layer in it that is to be closed.
    pub(super) fn lacking(&self, workspace: &str, layer: &str, shown: &ShownRules) -> Vec<Vec<(&RuleKey, &Rule)>> {
        let lacking = self
            .rules
            .iter()
            .filter(|(key, _)| key.workspace() == Some(workspace) && !shown.rules.contains_key(&key.shown()));
        let (narrow, wide): (Vec<_>, Vec<_>) = lacking.partition(|(key, _)| matches!(key.place, Place::Layer(..)));
        if !narrow.iter().chain(&wide).any(|(key, _)| key.decides_about(layer)) {
            return vec![];
        }
        [narrow, wide].into_iter().filter(|rules| !rules.is_empty()).collect()
    }

    /// The rules about a layer, as rules of what stands in for it.
    pub(in crate::geoserver) fn of_stand_in(&self, workspace: &str, layer: &str, stand_in: &str) -> Self {
        let named = Place::Layer(workspace.to_owned(), layer.to_owned());
        let rules = self.rules.iter().filter(|(key, _)| key.place == named).map(|(key, rule)| {
            let place = Place::Layer(workspace.to_owned(), stand_in.to_owned());
            (RuleKey { place, mode: key.mode }, rule.clone())
        });
        Self { rules: rules.collect(), mode: None }
    }

    /// Protects what stands in for a layer as the layer itself is.
    pub fn protect_stand_in(&mut self, workspace: &str, layer: &str, stand_in: &str) {
        let more = self.of_stand_in(workspace, layer, stand_in);
        self.rules.extend(more.rules);
    }

    /// Whether GeoServer takes each of them in POST.
    pub(in crate::geoserver) fn can_be_posted(&self) -> bool {
        self.rules.keys().all(RuleKey::can_be_posted)
    }

    pub(super) fn decide_about(&self, workspace: &str, layer: &str) -> bool {
        self.rules.keys().any(|key| key.workspace() == Some(workspace) && key.decides_about(layer))
    }
}

impl RuleKey {
    /// Whether a rule of the layer's workspace is about the layer.
    fn decides_about(&self, layer: &str) -> bool {
        match &self.place {
            Place::Layer(_, name) => name == layer,
            _ => true,
        }
    }
}

/// The rules that GeoServer goes by, as it shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::geoserver) struct ShownRules {
    pub(super) rules: BTreeMap<String, Roles>,
}

impl ShownRules {
    pub(super) fn read(document: &Value) -> Self {
        let rules = document.as_object().into_iter().flatten();
        Self { rules: rules.map(|(key, roles)| (key.clone(), Roles::from_list(&json::text(roles)))).collect() }
    }

    /// The rules that name a layer. They may be of another one where names have dots: they show alike.
    pub(super) fn naming(&self, workspace: &str, layer: &str) -> AccessRules {
        let keys = AccessMode::ALL.map(|mode| {
            let place = Place::Layer(workspace.to_owned(), layer.to_owned());
            RuleKey { place, mode }
        });
        let rules = keys.into_iter().filter_map(|key| {
            let roles = self.rules.get(&key.shown())?.clone();
            Some((key, Rule { roles, line: 0 }))
        });
        AccessRules { rules: rules.collect(), mode: None }
    }

    /// Whether one of them is about just this layer.
    pub(in crate::geoserver) fn are_about_layer(&self, workspace: &str, layer: &str) -> bool {
        !self.naming(workspace, layer).rules.is_empty()
    }
}
