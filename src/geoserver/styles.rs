//! Styles, and which of them a layer has.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::name::GeoName;

use super::Change;
use super::answer::Answer;
use super::catalog::LayerState;
use super::client::{GeoServer, Writer, encoded, path};
use super::json;
use super::layers::AssignedStyles;
use super::sld::{self, Sld, SldVersion};
use super::version::Version;

/// A style as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Its full name in GeoServer, without the workspace.
    pub name: String,
    /// An SLD document, version 1.0 or 1.1, in any encoding that it declares.
    pub sld: Vec<u8>,
    /// Whether this very content was pushed to this GeoServer before. GeoServer rewrites styles, so
    /// that reading one does not tell.
    pub pushed_before: bool,
}

/// The styles of one layer as they are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerStyles {
    /// The workspace of the layer and of its styles.
    pub workspace: GeoName,
    /// The layer.
    pub layer: GeoName,
    /// All its styles.
    pub styles: Vec<Style>,
    /// The name of the default style; the first style when there is none of that name.
    pub default: Option<String>,
    /// Exact names of styles that are this layer's own and are to go when they are not among
    /// `styles`.
    pub stale: Vec<String>,
}

/// What became of a layer's styles.
#[derive(Debug)]
#[must_use]
pub struct StylesOutcome {
    /// The sum of what was done.
    pub change: Change,
    /// Styles that GeoServer does not have as they are to be, and why.
    pub failed: Vec<(String, Error)>,
    /// Styles whose content was sent and accepted.
    pub pushed: Vec<String>,
    /// Stale styles that stay because something else uses them.
    pub kept: Vec<KeptStyle>,
}

/// The name of a style that stays because something else uses it, and what GeoServer says.
pub type KeptStyle = (String, Error);

impl GeoServer {
    /// Whether the workspace has a style of exactly this name. One request per workspace and run.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub async fn has_style(&self, workspace: &GeoName, name: &str) -> Result<bool> {
        Ok(self.writer().await.styles(workspace).await?.contains(name))
    }

    /// Publishes the styles of a layer, makes one its default and the others its alternatives, and
    /// removes stale ones.
    ///
    /// A style that fails leaves the others and the layer as they should be; when GeoServer has an
    /// older version of it, that stays in use. A layer never refers to a style that is not there:
    /// when its default fails, it keeps the default that it has, or gets the first good one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] when the layer is not there or does not take its styles;
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] as for every request. What is wrong with
    /// single styles is in the outcome.
    pub async fn publish_styles(&self, wanted: &LayerStyles) -> Result<StylesOutcome> {
        let (mut outcome, given) = self.writer().await.give_styles(wanted).await?;
        if let Some(given) = given {
            // GeoServer has just answered that it has made those that were pushed.
            let pushed: BTreeSet<String> =
                outcome.pushed.iter().map(|name| format!("{}:{name}", wanted.workspace)).collect();
            if !given.names().all(|name| pushed.contains(name)) {
                // Others write meanwhile.
                self.verify_layer_styles(&wanted.workspace, &wanted.layer, &given).await?;
            }
            outcome.change = outcome.change.max(Change::Updated);
        }
        let stale = wanted.stale.iter().filter(|name| !wanted.styles.iter().any(|style| style.name == **name));
        let stale: Vec<&String> = stale.collect();
        if !stale.is_empty() {
            let (change, kept) = self.writer().await.remove_styles(&wanted.workspace, stale.into_iter()).await?;
            outcome.change = outcome.change.max(change);
            outcome.kept = kept;
        }
        Ok(outcome)
    }
}

impl Writer<'_> {
    /// Makes the styles and gives the layer those that are there; says what the layer was given, when it did
    /// not have that.
    async fn give_styles(&mut self, wanted: &LayerStyles) -> Result<(StylesOutcome, Option<AssignedStyles>)> {
        let mut outcome =
            StylesOutcome { change: Change::Unchanged, failed: Vec::new(), pushed: Vec::new(), kept: Vec::new() };
        for style in &wanted.styles {
            match self.ensure_style(&wanted.workspace, style).await {
                Ok(Change::Unchanged) => {}
                Ok(change) => {
                    outcome.change = outcome.change.max(change);
                    outcome.pushed.push(style.name.clone());
                }
                Err(error) if concerns_all(&error) => return Err(error),
                Err(error) => outcome.failed.push((style.name.clone(), error)),
            }
        }
        let given = self.assign_styles(wanted).await?;
        Ok((outcome, given))
    }

    /// The names of a workspace's styles.
    async fn styles(&mut self, workspace: &GeoName) -> Result<&mut BTreeSet<String>> {
        if !self.catalog.styles.contains_key(workspace) {
            let list = path(&["workspaces", workspace.as_str(), "styles"], "json");
            let document =
                self.server.get(&list).await?.json(&format!("list the styles of the workspace {workspace}"))?;
            self.catalog.styles.insert(workspace.clone(), json::names(&document["styles"]["style"]).collect());
        }
        Ok(self.catalog.styles.entry(workspace.clone()).or_default())
    }

    async fn ensure_style(&mut self, workspace: &GeoName, style: &Style) -> Result<Change> {
        GeoName::new("style", &style.name)?;
        let mut exists = self.styles(workspace).await?.contains(&style.name);
        if exists && style.pushed_before {
            return Ok(Change::Unchanged);
        }
        let subject = || format!("{workspace}:{}", style.name);
        let sld = sld::inspect(&style.sld).map_err(|error| error.subject(subject()))?;
        if !sld.holds_style {
            return Err(Error::new(ErrorKind::Document, "the style is no usable SLD document: it holds no UserStyle")
                .subject(subject())
                .hint("correct the style on the master (GeoServer's style editor checks it) and publish again"));
        }
        let mut answer = self.send_style(workspace, &style.name, sld, exists).await?;
        if !answer.is_success() {
            // The remembered list may be old; GeoServer's answer alone does not tell.
            self.catalog.styles.remove(workspace);
            let exists_now = self.styles(workspace).await?.contains(&style.name);
            if exists_now != exists {
                exists = exists_now;
                answer = self.send_style(workspace, &style.name, sld, exists).await?;
            } else if !exists && answer.status == 403 && self.remove_left_file(workspace, &style.name).await? {
                answer = self.send_style(workspace, &style.name, sld, exists).await?;
            }
        }
        let doing = if exists { "update" } else { "create" };
        answer.ok(&format!("{doing} the style {workspace}:{}", style.name)).map_err(|error| {
            error.hint("open the style in GeoServer's style editor, which checks it; correct it on the master")
        })?;
        self.styles(workspace).await?.insert(style.name.clone());
        Ok(if exists { Change::Updated } else { Change::Created })
    }

    /// Creates or replaces a style. Not `raw`: that would store documents that GeoServer cannot draw.
    async fn send_style(&mut self, workspace: &GeoName, name: &str, sld: Sld<'_>, exists: bool) -> Result<Answer> {
        let body = Some((sld.version.content_type(), sld.body.to_vec()));
        if !exists {
            let styles = path(&["workspaces", workspace.as_str(), "styles"], "json");
            return self.server.send(Method::POST, &format!("{styles}?name={}", encoded(name)), body).await;
        }
        let address = style_item(workspace, name);
        let before = self.tell_style_version(&address, sld.version).await?;
        let answer = self.server.send(Method::PUT, &address, body).await?;
        if let (false, Some(before)) = (answer.is_success(), before) {
            self.put_style_version(&address, &before).await?;
        }
        Ok(answer)
    }

    /// Older GeoServers go on taking a style for the SLD version that it had when it was made: they
    /// rewrite a body of another version into one that draws nothing, and answer 200. So they are told
    /// the version before. Gives the one that the style had when it was another.
    async fn tell_style_version(&mut self, address: &str, version: SldVersion) -> Result<Option<String>> {
        if self.server.version().await? >= Version::TAKES_SLD_OF_ANOTHER_VERSION {
            return Ok(None);
        }
        let Some(record) = self.server.find(address, "read the SLD version of a style").await? else { return Ok(None) };
        let before = json::text(&record["style"]["languageVersion"]["version"]);
        if before.is_empty() || before == version.number() {
            return Ok(None);
        }
        self.put_style_version(address, version.number()).await?;
        Ok(Some(before))
    }

    async fn put_style_version(&mut self, address: &str, version: &str) -> Result<()> {
        let record = json!({"style": {"languageVersion": {"version": version}}});
        self.server.put(address, &record).await?.ok("tell the SLD version of a style").map(|_| ())
    }

    /// Removes the file that an older GeoServer keeps of a style that it refused: as long as the file is
    /// there, it refuses every style of that name. False when there is none, or another style uses it.
    async fn remove_left_file(&mut self, workspace: &GeoName, name: &str) -> Result<bool> {
        let file = format!("{name}.sld");
        for other in self.styles(workspace).await?.clone() {
            let record = self.server.find(&style_item(workspace, &other), "read which file a style uses").await?;
            if record.is_none_or(|record| json::text(&record["style"]["filename"]) == file) {
                return Ok(false);
            }
        }
        let address = path(&["resource", "workspaces", workspace.as_str(), "styles", name], "sld");
        let answer = self.server.delete(&address).await?;
        tracing::info!(file = address, removed = answer.is_success(), "file of a style that was refused before");
        Ok(answer.is_success())
    }

    /// Gives the layer those of its styles that GeoServer has.
    async fn assign_styles(&mut self, wanted: &LayerStyles) -> Result<Option<AssignedStyles>> {
        let known = self.styles(&wanted.workspace).await?.clone();
        let qualified = |name: &str| format!("{}:{name}", wanted.workspace);
        let good: Vec<&str> =
            wanted.styles.iter().map(|style| style.name.as_str()).filter(|name| known.contains(*name)).collect();
        let key = (wanted.workspace.clone(), wanted.layer.clone());
        let state = match self.catalog.layers.remove(&key) {
            Some(state) => state,
            None => self.server.read_layer(&wanted.workspace, &wanted.layer).await?.ok_or_else(|| {
                Error::new(ErrorKind::GeoServer, "the layer that styles are for does not exist")
                    .subject(format!("{} {}:{}", self.server.name(), wanted.workspace, wanted.layer))
                    .hint("the layer must be published before its styles; publish it again")
            })?,
        };
        let current = match &state {
            LayerState::Read { default, .. } => default.clone(),
            LayerState::New | LayerState::Broken => None,
        };
        let is_stale = |style: &str| wanted.stale.iter().any(|stale| qualified(stale) == style);
        let told = wanted.default.as_deref().or(wanted.styles.first().map(|style| style.name.as_str()));
        let default = match told {
            Some(told) if good.contains(&told) => Some(qualified(told)),
            // Better the style that the map is drawn with now than a random other one.
            Some(told) if wanted.styles.iter().any(|style| style.name == told) => {
                let keep = current.clone().filter(|current| !is_stale(current) && current.contains(':'));
                keep.or_else(|| good.first().map(|first| qualified(first)))
            }
            _ => good.first().map(|first| qualified(first)),
        };
        let default = match (default, &current) {
            (Some(default), _) => Some(default),
            (None, Some(current)) if !is_stale(current) => None,
            (None, None) if state == LayerState::New => None,
            // No style of its own is left to replace the one that goes.
            (None, _) => self.fallback_style().await?,
        };
        let alternates: BTreeSet<String> =
            good.iter().map(|name| qualified(name)).filter(|name| Some(name) != default.as_ref()).collect();
        let given = AssignedStyles { default, alternates };
        self.set_layer_styles(&wanted.workspace, &wanted.layer, &state, given).await
    }

    /// The global style that draws any geometry, when GeoServer has it as it comes.
    async fn fallback_style(&mut self) -> Result<Option<String>> {
        let found = self.server.find("styles/generic.json?quietOnNotFound=true", "look for the style generic").await?;
        Ok(found.map(|_| "generic".to_owned()))
    }

    /// Removes styles, and gives back those that stay.
    pub(super) async fn remove_styles(
        &mut self,
        workspace: &GeoName,
        names: impl Iterator<Item = &String>,
    ) -> Result<(Change, Vec<KeptStyle>)> {
        let (mut change, mut kept) = (Change::Unchanged, Vec::new());
        for name in names {
            match self.remove_style(workspace, name).await {
                Ok(removed) => change = change.max(removed),
                Err(error) if concerns_all(&error) => return Err(error),
                Err(error) => kept.push((name.clone(), error)),
            }
        }
        Ok((change, kept))
    }

    /// Removes a style that nothing uses; one that is not there is no change.
    async fn remove_style(&mut self, workspace: &GeoName, name: &str) -> Result<Change> {
        if !self.styles(workspace).await?.contains(name) {
            return Ok(Change::Unchanged);
        }
        let answer = self.server.delete(&style_item(workspace, name)).await?;
        let missing = answer.is_missing();
        if !missing {
            answer.ok(&format!("remove the style {workspace}:{name}")).map_err(|error| {
                error.hint("another layer or a layer group uses it; it goes when they no longer do")
            })?;
        }
        self.styles(workspace).await?.remove(name);
        Ok(if missing { Change::Unchanged } else { Change::Updated })
    }
}

fn style_item(workspace: &GeoName, name: &str) -> String {
    path(&["workspaces", workspace.as_str(), "styles", name], "json")
}

/// Whether an error is about the GeoServer and not about one style.
fn concerns_all(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Denied)
}
