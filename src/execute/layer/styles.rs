//! The styles of a layer: their files, and what each GeoServer has of them.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;

use super::{VectorLayer, step_end};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::{Ctx, Step, StepEnd, Stepped};
use crate::geoserver::{GeoServer, KeptStyle, LayerStyles, Style};
use crate::job::StyleRef;
use crate::name::GeoName;
use crate::transfer::{CacheName, Fetched};

/// The style files of a layer, by the style's name in GeoServer.
#[derive(Default)]
pub(in crate::execute) struct StyleFiles {
    files: HashMap<String, (Vec<u8>, Fetched)>,
    /// Files that could not be had; the layer is published with its other styles.
    missing: HashMap<String, Error>,
}

impl StyleFiles {
    pub(in crate::execute) fn into_fetched(self) -> Vec<Fetched> {
        self.files.into_values().map(|(_, fetched)| fetched).collect()
    }
}

/// The fact that a layer has these styles; none without any.
pub(super) fn owned(names: impl Iterator<Item = String>) -> Option<String> {
    Some(names.collect::<Vec<_>>().join("\n")).filter(|names| !names.is_empty())
}

/// What an operator is told about styles that were to go.
pub(super) fn that_stay(workspace: &GeoName, kept: &[KeptStyle]) -> Option<String> {
    let told = kept.iter().map(|(name, error)| {
        format!("the style {workspace}:{name} stays until nothing else uses it: {}", error.one_line())
    });
    Some(told.collect::<Vec<_>>().join("; ")).filter(|told| !told.is_empty())
}

impl Ctx<'_> {
    /// Fetches the style files that some GeoServer does not have yet.
    pub(in crate::execute) async fn style_files(
        &self,
        job: &VectorLayer<'_>,
        servers: &[&GeoServer],
    ) -> Result<StyleFiles> {
        let mut wanted = Vec::new();
        for style in job.styles.iter().filter(|style| style.file.is_some()) {
            for server in servers {
                if !self.has_style(server, job, style).await {
                    wanted.push(style);
                    break;
                }
            }
        }
        if wanted.is_empty() {
            return Ok(StyleFiles::default());
        }
        self.step(
            Step::StyleFiles,
            None,
            Box::pin(async {
                let fetched = join_all(wanted.iter().map(|style| self.style_file(job, style))).await;
                let mut files = StyleFiles::default();
                for (style, fetched) in wanted.iter().zip(fetched) {
                    let name = style.geoserver_name().to_string();
                    match fetched {
                        Ok(file) => drop(files.files.insert(name, file)),
                        Err(error) => drop(files.missing.insert(name, error)),
                    }
                }
                let mut message = format!("{} of {} files", files.files.len(), wanted.len());
                for error in files.missing.values() {
                    message.push_str("; ");
                    message.push_str(&error.one_line());
                }
                let end = if files.missing.is_empty() { StepEnd::Done } else { StepEnd::Failed };
                Ok((files, end, Some(message)))
            }),
        )
        .await
    }

    async fn style_file(&self, job: &VectorLayer<'_>, style: &StyleRef) -> Result<(Vec<u8>, Fetched)> {
        let name = CacheName::style(job.workspace.as_str(), job.name.as_str(), &style.name)?;
        let Some(file) = &style.file else {
            return Err(Error::new(ErrorKind::Bug, "a style without a file was to be fetched").subject(&style.name));
        };
        let what = format!("style {}", style.name);
        let fetched = crate::execute::metadata::fetch(&self.run.parts.transfer, file, name, &what).await?;
        let content = tokio::fs::read(&fetched.path)
            .await
            .map_err(|source| crate::error::io_error(&fetched.path, "cannot read the style file", source))?;
        fetched.check_unchanged()?;
        Ok((content, fetched))
    }

    /// This very style file was pushed to `server`, and a style of its name is still there.
    async fn has_style(&self, server: &GeoServer, job: &VectorLayer<'_>, style: &StyleRef) -> bool {
        self.was_pushed(server, job, style)
            && server.has_style(job.workspace, style.geoserver_name().as_str()).await.unwrap_or(false)
    }

    fn was_pushed(&self, server: &GeoServer, job: &VectorLayer<'_>, style: &StyleRef) -> bool {
        let md5 = style.file.as_ref().and_then(|file| file.md5.as_ref());
        let key = Self::fact_key("style", job.workspace, style.geoserver_name());
        md5.is_some() && self.recall(server, &key).as_ref() == md5
    }

    /// Styles of the layer: those of the job are there, those it had before and has no more are gone.
    pub(super) async fn styles_on(
        &self,
        server: &GeoServer,
        job: &VectorLayer<'_>,
        files: &StyleFiles,
    ) -> Result<Stepped<Vec<Error>>> {
        let owned_key = Self::fact_key("styles", job.workspace, job.name);
        let current: Vec<&StyleRef> = job.styles.iter().filter(|style| style.file.is_some()).collect();
        let current_names: HashSet<&str> = current.iter().map(|style| style.geoserver_name().as_str()).collect();
        let had = self.recall(server, &owned_key).unwrap_or_default();
        let had: Vec<String> = had.split('\n').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let kept_for_removal =
            job.styles.iter().filter(|style| style.file.is_none()).map(|style| style.geoserver_name().to_string());
        let stale: Vec<String> = had
            .iter()
            .cloned()
            .chain(kept_for_removal)
            .filter(|name| !current_names.contains(name.as_str()))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let styles = current
            .iter()
            .map(|style| {
                let name = style.geoserver_name().to_string();
                // Files that no GeoServer lacks were not fetched.
                let fetched = files.files.get(&name).map(|(content, _)| content.clone());
                let pushed_before = fetched.is_none() || self.was_pushed(server, job, style);
                Style { name, sld: fetched.unwrap_or_default(), pushed_before }
            })
            .collect();
        let default = current.iter().find(|style| style.is_default).map(|style| style.geoserver_name().to_string());
        let wanted = LayerStyles {
            workspace: job.workspace.clone(),
            layer: job.name.clone(),
            styles,
            default,
            stale: stale.clone(),
        };
        for style in wanted.styles.iter().filter(|style| !style.pushed_before) {
            self.forget(server, &Self::fact_key("style", job.workspace, &style.name)).await?;
        }
        if current_names.iter().any(|name| !had.iter().any(|had| had == name)) {
            // Whatever is made from here on is this layer's, also when the run ends in the middle.
            let mut all = had.clone();
            all.extend(
                current_names.iter().filter(|name| !had.iter().any(|had| had == *name)).map(|name| (*name).to_owned()),
            );
            self.note(server.name(), &owned_key, all.join("\n")).await?;
        }
        for name in &stale {
            self.forget(server, &Self::fact_key("style", job.workspace, name)).await?;
        }
        let outcome = server.publish_styles(&wanted).await?;
        for style in &current {
            let name = style.geoserver_name();
            let md5 = style.file.as_ref().and_then(|file| file.md5.clone());
            if outcome.pushed.iter().any(|pushed| pushed == name.as_str()) {
                self.remember(server, &Self::fact_key("style", job.workspace, name), md5);
            }
        }
        for name in &stale {
            self.evict_style(job.workspace, job.name, name);
        }
        // Those that stay are the layer's own still: they go with a later publication, or with the layer.
        let names = current.iter().map(|style| style.geoserver_name().to_string());
        let owned = owned(names.chain(outcome.kept.iter().map(|(name, _)| name.clone())));
        if self.recall(server, &owned_key) != owned {
            self.remember(server, &owned_key, owned);
        }
        // A file that could not be had says more than what GeoServer makes of its absence.
        let refused = outcome.failed.into_iter().filter(|(name, _)| !files.missing.contains_key(name));
        let lacking = current.iter().filter(|style| !self.was_pushed(server, job, style));
        let missing = lacking.filter_map(|style| {
            let name = style.geoserver_name().to_string();
            let error = files.missing.get(&name)?.copy();
            Some((name, error))
        });
        let failed: Vec<Error> = missing
            .chain(refused)
            .map(|(name, error)| error.within(&format!("style {}:{name}", job.workspace)))
            .collect();
        let end = if failed.is_empty() { step_end(outcome.change) } else { StepEnd::Failed };
        let told = failed.iter().map(Error::one_line).chain(that_stay(job.workspace, &outcome.kept));
        let message = told.collect::<Vec<_>>().join("; ");
        Ok((failed, end, Some(message).filter(|message| !message.is_empty())))
    }

    /// Removes what the cache holds of a style that GeoServer knows as `style`.
    pub(in crate::execute) fn evict_style(&self, workspace: &GeoName, layer: &GeoName, style: &str) {
        let own_name =
            style.strip_prefix(layer.as_str()).map_or(style, |rest| rest.strip_prefix('.').unwrap_or("builtin"));
        self.evict(CacheName::style(workspace.as_str(), layer.as_str(), own_name));
    }
}
