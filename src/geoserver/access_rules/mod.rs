//! Who may do what with which layer: GeoServer's access rules.
//!
//! Rules are replaced **as a whole file, at once**: it is uploaded beside GeoServer's
//! `security/layers.properties`, read back, and then moved over it, all by REST (`/rest/resource`,
//! which GeoServer performs as a rename). GeoServer reads the file again within a second and takes all
//! rules in one step. The other way that REST offers, changing rule by rule (`PUT
//! /rest/security/acl/layers`), opens data: GeoServer takes the old rule out before it puts the new
//! one in, and a request in between falls back to the next wider rule.
//! With a layer that was restricted before and after, and anonymous clients asking some 40 to 70 times
//! a second, 4 of 2356 changes let them in. The rules of a file GeoServer builds aside and takes in one
//! assignment; 40 changes by file under 6026 requests let nobody in, too few to prove it by counting.
//! Nor can REST write rules of layers with a dot in the name, or of global layer groups, in any other way.
//!
//! Adding a rule (`POST`) opens nothing as long as narrower rules come first, and so the rules that
//! GeoServer drops together with a layer are put back before the layer is made again.

mod file;
mod parse;
mod properties;
mod rules;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::answer::Answer;
use super::client::{GeoServer, Writer, encoded};
use super::json;

pub use file::write_access_rules_file;
pub(super) use rules::ShownRules;
pub use rules::{AccessRules, CatalogMode};
use rules::{Rule, RuleKey};

/// GeoServer's file of rules, and where the next one is prepared.
const FILE: &str = "security/layers.properties";
const NEXT: &str = "security/layers.properties.borg-slave";

/// How long GeoServer may take to read a file that was replaced; it looks once a second.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// How often GeoServer is asked meanwhile.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// The line `filesystemSandbox` of a server's own file.
fn sandbox(text: &str) -> Option<String> {
    let entries = properties::entries(text).ok()?;
    entries.into_iter().rev().find(|entry| entry.key.eq_ignore_ascii_case(parse::SANDBOX)).map(|entry| entry.value)
}

/// What helps where GeoServer takes rules about a layer with the whole file only.
pub(super) const NAME_WITHOUT_DOT: &str =
    "give the layer a name without a dot on the master, or restrict its workspace instead of the layer";

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
    /// or its workspace. `data_dir` is as for [`GeoServer::apply_access_rules`], by which rules go that cannot be
    /// added one by one.
    ///
    /// # Errors
    ///
    /// As [`GeoServer::apply_access_rules`].
    pub async fn ensure_rules_of_layer(
        &self,
        workspace: &GeoName,
        layer: &GeoName,
        rules: &AccessRules,
        data_dir: Option<&Path>,
    ) -> Result<Change> {
        if !rules.decide_about(workspace.as_str(), layer.as_str()) {
            return Ok(Change::Unchanged);
        }
        self.writer().await.ensure_rules_of_layer(workspace.as_str(), layer.as_str(), rules, data_dir).await
    }
}

impl Writer<'_> {
    async fn apply_access_rules(&mut self, rules: &AccessRules, data_dir: Option<&Path>) -> Result<Change> {
        if self.goes_by(rules).await? {
            return Ok(Change::Unchanged);
        }
        self.write_rules(rules, data_dir).await?;
        if self.will_go_by(rules).await? {
            return Ok(Change::Updated);
        }
        // GeoServer notes the file's time after it has read it, and so misses a change that comes in between.
        self.write_rules(rules, data_dir).await?;
        if self.will_go_by(rules).await? {
            return Ok(Change::Updated);
        }
        Err(Error::new(ErrorKind::GeoServer, "GeoServer goes by other access rules after its file of them was replaced")
            .subject(self.server.name())
            .hint(
                "GeoServer's log tells whether it cannot read security/layers.properties. A GeoServer that had no such \
                 file when it was started does not look for one until it is restarted. Another program or person may be \
                 changing the rules",
            ))
    }

    async fn write_rules(&mut self, rules: &AccessRules, data_dir: Option<&Path>) -> Result<()> {
        self.catalog.access_rules = None;
        let Some(refused) = self.replace_rules_file(rules).await? else { return Ok(()) };
        let Some(data_dir) = data_dir.filter(|data_dir| data_dir.join("security").is_dir()) else {
            return Err(refused.error("GeoServer's access rules cannot be replaced by REST").hint(
                "GeoServer must be able to write security/ in its data directory, and GEOSERVER_USERNAME to use \
                 /rest/resource; or set GEOSERVER_DATA_DIR to where this machine has that directory",
            ));
        };
        let reason = refused.error("not by REST").one_line();
        tracing::warn!(reason, data_dir = %data_dir.display(), "access rules are written in the data directory");
        let (data_dir, rules) = (data_dir.to_owned(), rules.clone());
        tokio::task::spawn_blocking(move || write_access_rules_file(&data_dir, &rules)).await.map_err(|error| {
            Error::new(ErrorKind::Bug, "writing the access rules ended without a result").source(error)
        })?
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

    /// Waits until GeoServer goes by `rules`; false when it does not in time.
    async fn will_go_by(&mut self, rules: &AccessRules) -> Result<bool> {
        let started = Instant::now();
        while !self.goes_by(rules).await? {
            if started.elapsed() >= READ_LIMIT {
                return Ok(false);
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
        Ok(true)
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

    /// Whether GeoServer goes by rules about just this layer, which it drops with the layer.
    pub(super) async fn has_rules_of_its_own(&mut self, workspace: &str, layer: &str) -> Result<bool> {
        if self.catalog.access_rules.is_none() {
            self.read_access_rules().await?;
        }
        Ok(self.catalog.access_rules.as_ref().is_some_and(|shown| shown.are_about_layer(workspace, layer)))
    }

    async fn read_catalog_mode(&mut self) -> Result<String> {
        let document = self.server.get("security/acl/catalog.json").await?.json("read the mode of the access rules")?;
        Ok(json::text(&document["mode"]))
    }

    /// The rules that GeoServer drops with a layer, as they are now.
    pub(super) async fn rules_naming(&mut self, workspace: &str, layer: &str) -> Result<AccessRules> {
        Ok(self.read_access_rules().await?.naming(workspace, layer))
    }

    /// Takes out rules of a layer that was not made after all. Whoever calls has an error to tell already.
    pub(super) async fn drop_rules(&mut self, rules: &AccessRules) {
        self.catalog.access_rules = None;
        for key in rules.rules.keys() {
            let address = format!("security/acl/layers/{}", encoded(&key.shown()));
            let dropped = self.server.delete(&address).await;
            if let Err(error) = dropped.and_then(|answer| answer.ok("drop an access rule").map(|_| ())) {
                tracing::warn!(rule = key.shown(), reason = %error.one_line(), "an access rule of no layer stays");
            }
        }
    }

    /// As [`GeoServer::ensure_rules_of_layer`]: `rules` are all that there are to be.
    async fn ensure_rules_of_layer(
        &mut self,
        workspace: &str,
        layer: &str,
        rules: &AccessRules,
        data_dir: Option<&Path>,
    ) -> Result<Change> {
        let shown = self.rules_in_force().await?;
        let lacking = rules.lacking(workspace, layer, &shown);
        if lacking.iter().flatten().any(|(key, _)| !key.can_be_posted()) {
            return self.apply_access_rules(rules, data_dir).await;
        }
        self.add_lacking(shown, lacking, (workspace, layer)).await
    }

    /// Adds those of `rules` that GeoServer lacks, which may be some of many: the others stay as they are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when one cannot be added by itself.
    pub(super) async fn add_rules(&mut self, workspace: &str, layer: &str, rules: &AccessRules) -> Result<Change> {
        let shown = self.rules_in_force().await?;
        let lacking = rules.lacking(workspace, layer, &shown);
        if let Some((key, _)) = lacking.iter().flatten().find(|(key, _)| !key.can_be_posted()) {
            return Err(Error::new(ErrorKind::GeoServer, "GeoServer takes this access rule with its whole file only")
                .subject(format!("{} {}", self.server.name(), key.shown()))
                .hint(NAME_WITHOUT_DOT));
        }
        self.add_lacking(shown, lacking, (workspace, layer)).await
    }

    /// Adds what GeoServer lacks beside the rules that it has `shown`; those in one list at once.
    async fn add_lacking(
        &mut self,
        mut shown: ShownRules,
        lacking: Vec<Vec<(&RuleKey, &Rule)>>,
        (workspace, layer): (&str, &str),
    ) -> Result<Change> {
        if lacking.is_empty() {
            return Ok(Change::Unchanged);
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
        shown.rules.extend(lacking.into_iter().flatten().map(|(key, rule)| (key.shown(), rule.roles.clone())));
        self.catalog.access_rules = Some(shown);
        Ok(Change::Created)
    }

    async fn rules_in_force(&mut self) -> Result<ShownRules> {
        match self.catalog.access_rules.clone() {
            Some(shown) => Ok(shown),
            None => Ok(self.read_access_rules().await?.clone()),
        }
    }
}
