//! What follows once a layer is published: its preview, and the CDN that has older maps of it.

use std::sync::PoisonError;

use super::{Ctx, Event, Step, StepEnd, Stepped};
use crate::error::{ErrorKind, Result};
use crate::geoserver::{MapLink, MapRequest, Picture};
use crate::job::Preview;
use crate::name::GeoName;
use crate::transfer::{Destination, PreviewName};

/// The target under which the journal keeps what the CDN is still to be told.
pub(super) const CDN: &str = "cdn";

/// A layer that was published.
pub(super) struct Presented<'a> {
    pub(super) workspace: &'a GeoName,
    pub(super) name: &'a GeoName,
    pub(super) is_spatial: bool,
    pub(super) bbox: Option<[f64; 4]>,
    pub(super) crs: Option<&'a str>,
    pub(super) preview: &'a Preview,
}

impl Ctx<'_> {
    /// Makes and sends the preview, and purges the CDN. What fails here is on record and among `notes`, and tried
    /// again later; the layer is published nevertheless.
    pub(super) async fn present(&self, layer: &Presented<'_>, notes: &mut Vec<String>) {
        match self.preview(layer).await {
            Ok(path) => self.no_preview_is_missing(layer.workspace, layer.name, path.as_deref()),
            Err(error) => {
                let note = format!(
                    "the preview is missing: {}; it is tried again now and then, `borg-slave sync --file {}` tries now",
                    error.one_line(),
                    self.file.path
                );
                // What is wrong with the job's own words is so every time.
                if error.kind() != ErrorKind::Document {
                    self.preview_is_missing(layer, &note);
                }
                notes.push(note);
            }
        }
        self.purge(layer.workspace, layer.name, notes).await;
    }

    /// The path of the picture; none where none is wanted.
    async fn preview(&self, layer: &Presented<'_>) -> Result<Option<String>> {
        let (Some(previews), Some(to)) = (&self.run.parts.previews, &layer.preview.path) else { return Ok(None) };
        if !layer.is_spatial || self.run.parts.geoservers.is_empty() {
            return Ok(None);
        }
        let to = Destination::parse(to)?;
        let channel = self.file.channel.as_deref().unwrap_or_default();
        let name = self.run.preview_name(channel, layer.workspace.as_str(), layer.name.as_str())?;
        let picture = self.step(Step::Preview, None, Box::pin(self.picture(layer))).await?;
        let relative = previews.keep(&name, picture, &to).await?;
        if !previews.is_shared {
            let send = Box::pin(async {
                self.run.parts.transfer.send(&previews.root, &relative, &to).await?;
                Ok(((), StepEnd::Done, None))
            });
            self.step(Step::SendPreview, None, send).await?;
        }
        let path = relative.display().to_string();
        self.run.emit(Event::PreviewSent { job: self.job, path: path.clone() });
        Ok(Some(path))
    }

    /// Removes the preview of a layer that is gone from this machine. What was sent to the master is the master's.
    pub(super) async fn remove_preview(&self, workspace: &GeoName, layer: &GeoName) {
        self.no_preview_is_missing(workspace, layer, None);
        let Some(previews) = &self.run.parts.previews else { return };
        let channel = self.file.channel.as_deref().unwrap_or_default();
        let removed = async {
            let name = PreviewName::new(&previews.slave_name, channel, workspace.as_str(), layer.as_str())?;
            name.remove(&previews.root).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(error = error.one_line(), "the preview of {workspace}:{layer} could not be removed");
        }
    }

    /// The first picture that a GeoServer draws.
    async fn picture(&self, layer: &Presented<'_>) -> Result<Stepped<Picture>> {
        let links: Vec<MapLink> = layer
            .preview
            .links
            .iter()
            .map(|link| MapLink { protocol: link.protocol.clone(), link: link.link.clone(), height: link.height })
            .collect();
        let map = MapRequest {
            workspace: layer.workspace.clone(),
            layer: layer.name.clone(),
            bbox: layer.bbox,
            crs: layer.crs.map(str::to_owned),
        };
        let (picture, message) = self.run.draw(&links, &map).await?;
        Ok((picture, StepEnd::Done, Some(message)))
    }

    /// Notes that the CDN has older maps of a layer, before those change.
    pub(super) async fn note_purge(&self, workspace: &GeoName, name: &GeoName) -> Result<()> {
        if self.run.parts.cdn.is_none() {
            return Ok(());
        }
        let key = purge_key(workspace.as_str(), name.as_str());
        // What was purged before the change has to be purged again.
        self.run.purged.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.note(CDN, &key, "due".to_owned()).await
    }

    /// Tells the CDN to forget what it has of a layer. What fails is tried again by the next run.
    pub(super) async fn purge(&self, workspace: &GeoName, name: &GeoName, notes: &mut Vec<String>) {
        if self.run.parts.cdn.is_none() {
            return;
        }
        let work = Box::pin(async {
            self.run.purge(workspace.as_str(), name.as_str()).await?;
            Ok(((), StepEnd::Done, None))
        });
        if let Err(error) = self.step(Step::Purge, None, work).await {
            notes.push(format!("the CDN still has older maps: {}; the next run tries again", error.one_line()));
        }
    }
}

impl super::Run {
    /// Purges a layer, and forgets that it was due.
    async fn purge(&self, workspace: &str, name: &str) -> Result<()> {
        let Some(cdn) = &self.parts.cdn else { return Ok(()) };
        let key = purge_key(workspace, name);
        self.purged.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        let purged = cdn.client.purge(&cdn.addresses.purge_urls(workspace, name)).await;
        if let Err(error) = &purged {
            *self.purge_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.copy());
        } else {
            self.no_purge_due(key);
        }
        purged
    }

    fn no_purge_due(&self, key: String) {
        self.background.facts.set(CDN, &key, None);
        self.emit(Event::Fact { target: CDN.to_owned(), key, value: None });
    }

    /// Purges what earlier runs could not, and what no job of this one has tried: groups that show what has
    /// changed.
    pub(super) async fn purge_what_is_due(&self) {
        for key in self.background.facts.keys(CDN) {
            let Some((workspace, name)) = key.strip_prefix("purge ").and_then(|layer| layer.split_once(':')) else {
                continue;
            };
            if self.parts.cdn.is_none() {
                // There is none any more that could have older maps.
                self.no_purge_due(key);
                continue;
            }
            if self.purged.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
                continue;
            }
            if let Err(error) = self.purge(workspace, name).await {
                tracing::warn!(error = error.one_line(), "the CDN still has older maps of {workspace}:{name}");
                if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Denied) {
                    // The others would wait for the same CDN; they stay due.
                    break;
                }
            }
        }
        let failure = self.purge_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let due = self.background.facts.keys(CDN).len();
        if let Some(error) = failure
            && due > 0
        {
            let layers = if due == 1 { "a layer".to_owned() } else { format!("{due} layers") };
            self.emit(Event::StaysDue { what: format!("the CDN still has older maps of {layers}"), error });
        }
    }
}

fn purge_key(workspace: &str, name: &str) -> String {
    Ctx::fact_key("purge", workspace, name)
}
