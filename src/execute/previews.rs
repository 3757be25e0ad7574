//! Previews that could not be made when their layer was published: they are on record, and tried again by
//! themselves, more and more seldom, without their job.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::events::PreviewOf;
use super::presentation::Presented;
use super::{Ctx, Event, Previews, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{MapLink, MapRequest, Picture};
use crate::job::Companion;
use crate::name::GeoName;
use crate::transfer::{Destination, PreviewName};

/// The target under which the journal keeps which previews are still to be made.
pub const PREVIEWS: &str = "previews";

/// The pause after the first failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// After so many tries, which take about a month, nobody waits for the picture any more.
const TRIES: u32 = 120;

/// What it takes to make a picture, and to tell that it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Due {
    of: PreviewOf,
    channel: String,
    workspace: String,
    name: String,
    bbox: Option<[f64; 4]>,
    crs: Option<String>,
    /// Protocol, address and height of each.
    links: Vec<(String, String, Option<f64>)>,
    to: String,
    failures: u32,
    next_try: Timestamp,
}

/// Whether it is time to try again what stands under [`PREVIEWS`] as `value`.
#[must_use]
pub fn preview_is_due(value: &str, now: Timestamp) -> bool {
    // What another version wrote is looked at, and then dropped.
    Due::read(value).is_none_or(|due| due.is_time(now))
}

impl Due {
    fn read(value: &str) -> Option<Self> {
        serde_json::from_str(value).ok()
    }

    fn is_time(&self, now: Timestamp) -> bool {
        // A time beyond all pauses was noted by a clock that has been set back since.
        self.next_try <= now || now.checked_add(LONGEST_PAUSE).is_ok_and(|latest| self.next_try > latest)
    }

    fn failed(self, now: Timestamp) -> Self {
        let failures = self.failures.saturating_add(1);
        Self { failures, ..self }.put_off(now)
    }

    /// What was not tried, because another has waited for nothing, keeps its pause: those that make the others
    /// wait come more and more seldom.
    fn put_off(mut self, now: Timestamp) -> Self {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
        self.next_try = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        self
    }

    fn write(&self) -> String {
        // Plain texts and numbers: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Ctx<'_> {
    /// Keeps on record that a layer lacks its preview; `note` says so in the job's message.
    pub(super) fn preview_is_missing(&self, layer: &Presented<'_>, note: &str) {
        let Some(to) = &layer.preview.path else { return };
        let key = key(layer.workspace.as_str(), layer.name.as_str());
        let facts = &self.run.background.facts;
        let before = facts.get(PREVIEWS, &key).and_then(|value| Due::read(&value));
        let links = layer.preview.links.iter();
        let action = if self.file.companion == Some(Companion::Meta) { "meta" } else { "publish" };
        let due = Due {
            of: PreviewOf {
                job_file: self.file.path.clone(),
                kind: self.file.kind.as_str().to_owned(),
                action: action.to_owned(),
                layer: layer.name.to_string(),
                task_name: format!("{}:{}", layer.workspace, layer.name),
                note: note.to_owned(),
            },
            channel: self.file.channel.clone().unwrap_or_default(),
            workspace: layer.workspace.to_string(),
            name: layer.name.to_string(),
            bbox: layer.bbox,
            crs: layer.crs.map(str::to_owned),
            links: links.map(|link| (link.protocol.clone(), link.link.clone(), link.height)).collect(),
            to: to.clone(),
            failures: before.map_or(0, |before| before.failures),
            next_try: Timestamp::now(),
        };
        self.run.keep_due(&key, Some(&due.failed(Timestamp::now())));
    }

    /// The layer has its preview, or needs none.
    pub(super) fn no_preview_is_missing(&self, workspace: &GeoName, layer: &GeoName, path: Option<&str>) {
        let key = key(workspace.as_str(), layer.as_str());
        let Some(value) = self.run.background.facts.get(PREVIEWS, &key) else { return };
        if let (Some(due), Some(path)) = (Due::read(&value), path)
            && due.of.job_file != self.file.path
        {
            // Another job of the layer has said that it is missing.
            self.run.emit(Event::PreviewCame { of: due.of, path: path.to_owned() });
        }
        self.run.keep_due(&key, None);
    }
}

impl Previews {
    /// Puts a picture to the others of this machine, or directly to the master's where those are shared; gives
    /// its path there.
    pub(super) async fn keep(&self, name: &PreviewName, picture: Picture, to: &Destination) -> Result<PathBuf> {
        let root = if self.is_shared { to.dir() } else { &self.root };
        name.place(root, picture.bytes, picture.extension).await
    }
}

impl Run {
    fn keep_due(&self, key: &str, due: Option<&Due>) {
        let value = due.map(Due::write);
        self.background.facts.set(PREVIEWS, key, value.as_deref());
        self.emit(Event::Fact { target: PREVIEWS.to_owned(), key: key.to_owned(), value });
    }

    /// Makes previews that earlier runs could not, those whose time has come.
    pub(super) async fn make_previews_that_are_due(&self) {
        if self.parts.geoservers.is_empty() || self.parts.previews.is_none() {
            return;
        }
        let now = Timestamp::now();
        // Where one of them has waited for nothing, that is enough.
        let (mut no_geoserver, mut away) = (false, Vec::new());
        for key in self.background.facts.keys(PREVIEWS) {
            if self.stop.is_cancelled() {
                return;
            }
            let Some(value) = self.background.facts.get(PREVIEWS, &key) else { continue };
            let Some(due) = Due::read(&value) else {
                self.keep_due(&key, None);
                continue;
            };
            if !due.is_time(now) {
                continue;
            }
            if no_geoserver || away.contains(&due.to) {
                self.keep_due(&key, Some(&due.put_off(now)));
                continue;
            }
            let shown = match self.draw_what_is_due(&due).await {
                Ok(picture) => {
                    let shown = self.show_what_is_due(&due, picture).await;
                    if shown.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unreachable) {
                        away.push(due.to.clone());
                    }
                    shown
                }
                Err(error) => {
                    no_geoserver |= error.kind() == ErrorKind::Unreachable;
                    Err(error)
                }
            };
            match shown {
                Ok(path) => {
                    tracing::info!("the preview of {} is there now", due.of.task_name);
                    self.emit(Event::PreviewCame { of: due.of, path });
                    self.keep_due(&key, None);
                }
                Err(error) if error.kind() == ErrorKind::Stopped => return,
                Err(error) if due.failures >= TRIES => {
                    tracing::warn!(error = error.one_line(), "the preview of {} is given up", due.of.task_name);
                    self.keep_due(&key, None);
                }
                Err(error) => {
                    let layer = &due.of.task_name;
                    tracing::debug!(error = error.one_line(), "the preview of {layer} is still missing");
                    self.keep_due(&key, Some(&due.failed(now)));
                }
            }
        }
    }

    async fn draw_what_is_due(&self, due: &Due) -> Result<Picture> {
        let (workspace, layer) = (GeoName::workspace(&*due.workspace)?, GeoName::new("name", &*due.name)?);
        let links = due.links.iter().map(|(protocol, link, height)| MapLink {
            protocol: protocol.clone(),
            link: link.clone(),
            height: *height,
        });
        let map = MapRequest { workspace, layer, bbox: due.bbox, crs: due.crs.clone() };
        Ok(self.draw(&links.collect::<Vec<_>>(), &map).await?.0)
    }

    /// Keeps a picture and sends it; answers its path below the master's directory.
    async fn show_what_is_due(&self, due: &Due, picture: Picture) -> Result<String> {
        let Some(previews) = &self.parts.previews else { return Err(none()) };
        let name = self.preview_name(&due.channel, &due.workspace, &due.name)?;
        let to = &Destination::parse(&due.to)?;
        let relative = previews.keep(&name, picture, to).await?;
        if !previews.is_shared {
            self.parts.transfer.send(&previews.root, &relative, to).await?;
        }
        Ok(relative.display().to_string())
    }

    pub(super) fn preview_name(&self, channel: &str, workspace: &str, layer: &str) -> Result<PreviewName> {
        let previews = self.parts.previews.as_ref().ok_or_else(none)?;
        PreviewName::new(&previews.slave_name, channel, workspace, layer)
    }

    /// The first picture that a GeoServer draws, and what there is to say about it.
    pub(super) async fn draw(&self, links: &[MapLink], map: &MapRequest) -> Result<(Picture, String)> {
        let _one_of_few = self.drawings.acquire().await.map_err(|_| super::stopped())?;
        let mut failures = Vec::new();
        for server in &self.parts.geoservers {
            match server.preview(links, map).await {
                Ok(picture) => {
                    let message = format!("{} bytes from {}", picture.bytes.len(), server.name());
                    return Ok((picture, message));
                }
                Err(error) => failures.push(error.within(server.name())),
            }
        }
        // One that answers is not away, whatever the others are.
        failures.sort_by_key(|error| error.kind() == ErrorKind::Unreachable);
        Err(Error::all(failures).unwrap_or_else(none))
    }
}

fn none() -> Error {
    Error::new(ErrorKind::Bug, "there is no GeoServer to draw a preview")
}

fn key(workspace: &str, layer: &str) -> String {
    Ctx::fact_key("preview", workspace, layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_what_cannot_be_read_is_looked_at() {
        let now = Timestamp::UNIX_EPOCH;
        let mut due = Due {
            of: PreviewOf::default(),
            channel: "c".into(),
            workspace: "w".into(),
            name: "n".into(),
            bbox: Some([1.0, 2.0, 3.0, 4.0]),
            crs: None,
            links: vec![("OGC:WMS".into(), "http://x".into(), Some(30.0))],
            to: "m:/p".into(),
            failures: 0,
            next_try: now,
        };
        let mut pauses = Vec::new();
        for _ in 0..11 {
            due = due.failed(now);
            pauses.push(due.next_try.duration_since(now).as_secs());
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3840, 7680, 15360, 21600, 21600]);
        assert_eq!(Due::read(&due.write()), Some(due.clone()));
        assert_eq!(due.clone().put_off(now), due, "what was not tried keeps its pause");
        let after = |seconds: i64| now + jiff::SignedDuration::from_secs(seconds);
        assert!(!preview_is_due(&due.write(), after(21599)) && preview_is_due(&due.write(), after(21600)));
        assert!(preview_is_due(&due.write(), after(-10)), "the clock was set back");
        assert!(preview_is_due("due", now));
    }
}
