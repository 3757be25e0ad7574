//! Who may do what with which layer: GeoServer's access rules.
//!
//! Rules are replaced **as a whole file, at once**: it is uploaded beside GeoServer's
//! `security/layers.properties`, read back, and then moved over it, all by REST (`/rest/resource`,
//! which GeoServer performs as a rename). GeoServer reads the file again within a second and takes all
//! rules in one step. The other way that REST offers, changing rule by rule (`PUT
//! /rest/security/acl/layers`), opens data: GeoServer takes the old rule out before it puts the new
//! one in, and a request in between falls back to the next wider rule. With a layer that was
//! restricted before and after, and an anonymous client asking 40 times a second, one in 300 to 1500
//! changes let it in; of changes by file, none did. Nor can REST write rules of layers with a dot in
//! the name, or of global layer groups, in any other way.
//!
//! Adding a rule (`POST`) opens nothing as long as narrower rules come first, and so the rules that
//! GeoServer drops together with a layer are put back before the layer is made again.

mod file;
mod parse;
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::answer::Answer;
use super::client::{GeoServer, Writer};
use super::json;

pub use file::write_access_rules_file;

/// GeoServer's file of rules, and where the next one is prepared.
const FILE: &str = "security/layers.properties";
const NEXT: &str = "security/layers.properties.borg-slave";

/// How long GeoServer may take to read a file that was replaced; it looks once a second.
const READ_LIMIT: Duration = Duration::from_secs(15);

/// How often GeoServer is asked meanwhile.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// What is done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum AccessMode {
    /// `r`.
    Read,
    /// `w`, as in WFS transactions.
    Write,
    /// `a`, of a workspace, by REST and in the web interface.
    Administer,
}

impl AccessMode {
    fn from_letter(letter: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Administer].into_iter().find(|mode| mode.letter() == letter)
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
    fn from_name(name: &str) -> Option<Self> {
        [Self::Hide, Self::Mixed, Self::Challenge].into_iter().find(|mode| mode.name() == name)
    }

    fn name(self) -> &'static str {
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
    fn from_list(list: &str) -> Self {
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
enum Place {
    /// A layer, or a layer group of a workspace.
    Layer(String, String),
    Workspace(String),
    /// A layer group of no workspace.
    Group(String),
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RuleKey {
    place: Place,
    mode: AccessMode,
}

impl RuleKey {
    /// As GeoServer shows it, and takes it in POST: names as they are, with or without dots.
    fn shown(&self) -> String {
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
    fn can_be_posted(&self) -> bool {
        let plain = |name: &str| !name.contains(['.', '\\']) && name.trim() == name;
        match &self.place {
            Place::Layer(workspace, layer) => plain(workspace) && plain(layer),
            Place::Workspace(workspace) => plain(workspace),
            Place::Group(_) => false,
            Place::Everything => true,
        }
    }

    fn workspace(&self) -> Option<&str> {
        match &self.place {
            Place::Layer(workspace, _) | Place::Workspace(workspace) => Some(workspace),
            Place::Group(_) | Place::Everything => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    roles: Roles,
    /// Where it stands in its file; the first line is 1.
    line: usize,
}

/// The rules of one `layers.properties`, or of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRules {
    rules: BTreeMap<RuleKey, Rule>,
    mode: Option<CatalogMode>,
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
    fn properties(&self, sandbox: Option<&str>) -> String {
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
    fn is_shown(&self, shown: &ShownRules) -> bool {
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
    fn lacking(&self, workspace: &str, layer: &str, shown: &ShownRules) -> Vec<Vec<(&RuleKey, &Rule)>> {
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

    fn decide_about(&self, workspace: &str, layer: &str) -> bool {
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
pub(super) struct ShownRules {
    rules: BTreeMap<String, Roles>,
}

impl ShownRules {
    fn read(document: &Value) -> Self {
        let rules = document.as_object().into_iter().flatten();
        Self { rules: rules.map(|(key, roles)| (key.clone(), Roles::from_list(&json::text(roles)))).collect() }
    }
}

/// The line `filesystemSandbox` of a server's own file.
fn sandbox(text: &str) -> Option<String> {
    let entries = properties::entries(text).ok()?;
    entries.into_iter().rev().find(|entry| entry.key.eq_ignore_ascii_case(parse::SANDBOX)).map(|entry| entry.value)
}

impl GeoServer {
    /// Makes GeoServer's access rules exactly these, `mode` included; nothing is written when they are
    /// so already. All rules change in one step, so that nobody sees at any moment what he may see
    /// neither before nor after. Waits until GeoServer goes by them, a second as a rule.
    ///
    /// Where GeoServer does not let the file be replaced by REST, it is written in `data_dir`, the data
    /// directory, when that is on this machine.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when GeoServer refuses the file and there is no `data_dir`, or does not
    /// take the rules in time; those of [`write_access_rules_file`]; [`ErrorKind::Unreachable`] and
    /// [`ErrorKind::Denied`] as for every request.
    pub async fn apply_access_rules(&self, rules: &AccessRules, data_dir: Option<&Path>) -> Result<Change> {
        self.writer().await.apply_access_rules(rules, data_dir).await
    }

    /// Puts back the rules that decide about a layer, before the layer is made: GeoServer drops a
    /// layer's own rules when the layer is deleted, and a workspace's with the workspace. Rules that are
    /// there are left as they are, whatever their roles. Sends nothing when no rule names the layer
    /// or its workspace.
    ///
    /// # Errors
    ///
    /// As [`GeoServer::apply_access_rules`].
    pub async fn ensure_rules_of_layer(
        &self,
        workspace: &GeoName,
        layer: &GeoName,
        rules: &AccessRules,
    ) -> Result<Change> {
        if !rules.decide_about(workspace.as_str(), layer.as_str()) {
            return Ok(Change::Unchanged);
        }
        self.writer().await.ensure_rules_of_layer(workspace.as_str(), layer.as_str(), rules).await
    }
}

impl Writer<'_> {
    async fn apply_access_rules(&mut self, rules: &AccessRules, data_dir: Option<&Path>) -> Result<Change> {
        if self.goes_by(rules).await? {
            return Ok(Change::Unchanged);
        }
        self.catalog.access_rules = None;
        if let Some(refused) = self.replace_rules_file(rules).await? {
            let Some(data_dir) = data_dir else {
                return Err(refused.error("GeoServer's access rules cannot be replaced by REST").hint(
                    "let the slave's user write /rest/resource (it is GeoServer's own right to its data directory that \
                     may lack), or set GEOSERVER_DATA_DIR to where this machine has that directory",
                ));
            };
            let reason = refused.error("not by REST").one_line();
            tracing::warn!(reason, data_dir = %data_dir.display(), "access rules are written in the data directory");
            let (data_dir, rules) = (data_dir.to_owned(), rules.clone());
            tokio::task::spawn_blocking(move || write_access_rules_file(&data_dir, &rules)).await.map_err(
                |error| Error::new(ErrorKind::Bug, "writing the access rules ended without a result").source(error),
            )??;
        }
        self.wait_for(rules).await?;
        Ok(Change::Updated)
    }

    /// Uploads the file and moves it to its place. Gives the answer by which GeoServer refuses.
    async fn replace_rules_file(&mut self, rules: &AccessRules) -> Result<Option<Answer>> {
        let server = self.server;
        let current = server.get(&format!("resource/{FILE}")).await?;
        let sandbox = match current.is_success() {
            true => sandbox(&String::from_utf8_lossy(&current.body)),
            false if current.is_missing() => None,
            false => return Ok(Some(current)),
        };
        let text = rules.properties(sandbox.as_deref());
        let body = |text: &str| Some(("text/plain", text.as_bytes().to_vec()));
        let answer = server.send(Method::PUT, &format!("resource/{NEXT}"), body(&text)).await?;
        if !answer.is_success() {
            return Ok(Some(answer));
        }
        // A connection that breaks leaves a part of a file, and a part of the rules may open what all of them close.
        let arrived = server.get(&format!("resource/{NEXT}")).await?.ok("read the access rules that were uploaded")?;
        if arrived.body != text.as_bytes() {
            return Err(Error::new(
                ErrorKind::GeoServer,
                "the access rules did not arrive at GeoServer as they were sent",
            )
            .subject(format!("{}/rest/resource/{NEXT}", server.name()))
            .hint("the old rules still hold; run again, and look for a proxy that changes what goes through it"));
        }
        let path = format!("resource/{FILE}?operation=move");
        let answer = server.send(Method::PUT, &path, body(&format!("/{NEXT}"))).await?;
        if answer.is_success() {
            return Ok(None);
        }
        // It may have happened, and only its answer been lost.
        let current = server.get(&format!("resource/{FILE}")).await?;
        Ok(if current.is_success() && current.body == text.as_bytes() { None } else { Some(answer) })
    }

    async fn wait_for(&mut self, rules: &AccessRules) -> Result<()> {
        let started = Instant::now();
        loop {
            if self.goes_by(rules).await? {
                return Ok(());
            }
            if started.elapsed() >= READ_LIMIT {
                return Err(Error::new(
                    ErrorKind::GeoServer,
                    format!(
                        "GeoServer goes by other access rules {} s after its file of them was replaced",
                        READ_LIMIT.as_secs()
                    ),
                )
                .subject(self.server.name())
                .hint(
                    "its log tells whether it cannot read security/layers.properties; a GeoServer that had no such file \
                     when it was started does not look for changes until it is restarted; and another program or \
                     person may be changing the rules",
                ));
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }

    /// Reads the rules that GeoServer goes by, and compares.
    async fn goes_by(&mut self, rules: &AccessRules) -> Result<bool> {
        let is_shown = rules.is_shown(self.read_access_rules().await?);
        Ok(is_shown && self.read_catalog_mode().await? == rules.mode().name())
    }

    async fn read_access_rules(&mut self) -> Result<&ShownRules> {
        let document = self.server.get("security/acl/layers.json").await?.json("read the access rules")?;
        Ok(self.catalog.access_rules.insert(ShownRules::read(&document)))
    }

    async fn read_catalog_mode(&mut self) -> Result<String> {
        let document = self.server.get("security/acl/catalog.json").await?.json("read the mode of the access rules")?;
        Ok(json::text(&document["mode"]))
    }

    async fn ensure_rules_of_layer(&mut self, workspace: &str, layer: &str, rules: &AccessRules) -> Result<Change> {
        let shown = match self.catalog.access_rules.clone() {
            Some(shown) => shown,
            None => self.read_access_rules().await?.clone(),
        };
        let lacking = rules.lacking(workspace, layer, &shown);
        if lacking.is_empty() {
            return Ok(Change::Unchanged);
        }
        if lacking.iter().flatten().any(|(key, _)| !key.can_be_posted()) {
            return self.apply_access_rules(rules, None).await;
        }
        for added in &lacking {
            let document: Map<String, Value> =
                added.iter().map(|(key, rule)| (key.shown(), Value::String(rule.roles.to_string()))).collect();
            self.catalog.access_rules = None;
            let answer = self.server.post("security/acl/layers.json", &Value::Object(document)).await?;
            if !answer.is_success() {
                // Somebody may have been faster.
                let shown = self.read_access_rules().await?;
                if !added.iter().all(|(key, _)| shown.rules.contains_key(&key.shown())) {
                    return Err(answer.error(&format!("cannot add the access rules of {workspace}:{layer}")));
                }
            }
        }
        let mut known = shown;
        known.rules.extend(lacking.into_iter().flatten().map(|(key, rule)| (key.shown(), rule.roles.clone())));
        self.catalog.access_rules = Some(known);
        Ok(Change::Created)
    }
}
