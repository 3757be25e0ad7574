//! Those who wait for the files of one batch, and how each learns what became of its file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::cache::partial_of;
use super::complaint::{Failure, each_file, local};
use super::copy::Step;
use super::location::Peer;
use super::room::{Place, Room};
use super::{Progress, ProgressFn};
use crate::error::{ErrorKind, Result};

/// What became of a file: the room that it takes, if it takes any, or why it did not come.
pub(super) type Reply = Result<Option<Arc<Place>>, Failure>;

/// A file that somebody waits for.
pub(super) struct Item {
    /// Absolute path on the other side.
    pub(super) path: String,
    /// Where to put it when it is complete.
    pub(super) arrived: PathBuf,
    /// What it is, for progress.
    pub(super) what: String,
    /// It comes only when there is room for it.
    pub(super) is_large: bool,
    /// Its content is checked when it is here.
    pub(super) is_checked: bool,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// Those who still wait, by path on the other side.
pub(super) struct Waiting {
    items: HashMap<String, Vec<Item>>,
    staging: PathBuf,
    progress: Option<ProgressFn>,
    room: Arc<Room>,
    /// The room of files that have begun.
    places: HashMap<String, Arc<Place>>,
    /// The file that is being received, and its length.
    current: Option<(String, Option<u64>)>,
    arrived: usize,
}

impl Waiting {
    pub(super) fn new(items: Vec<Item>, staging: PathBuf, progress: Option<ProgressFn>, room: Arc<Room>) -> Self {
        let mut by_path: HashMap<String, Vec<Item>> = HashMap::new();
        for item in items {
            by_path.entry(item.path.clone()).or_default().push(item);
        }
        Self { items: by_path, staging, progress, room, places: HashMap::new(), current: None, arrived: 0 }
    }

    /// What is still waited for.
    pub(super) fn paths(&self) -> Vec<String> {
        self.items.keys().cloned().collect()
    }

    /// What of it needs no room.
    pub(super) fn small_paths(&self) -> Vec<String> {
        self.items.keys().filter(|path| !self.is_large(path)).cloned().collect()
    }

    fn is_large(&self, path: &str) -> bool {
        self.items.get(path).is_some_and(|items| items.iter().any(|item| item.is_large))
    }

    /// Whether what there is of a file may be gone on with: only a checksum tells whether it was of another version.
    pub(super) fn may_resume(&self, path: &str) -> bool {
        self.items.get(path).is_some_and(|items| items.iter().all(|item| item.is_checked))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many files have arrived so far.
    pub(super) fn arrived(&self) -> usize {
        self.arrived
    }

    /// Another attempt begins.
    pub(super) fn start_over(&mut self) {
        self.current = None;
    }

    /// What has begun and not arrived has to begin again.
    pub(super) fn give_room_back(&mut self) {
        self.places.clear();
    }

    /// A file begins; gives its bytes when there is no room for them.
    pub(super) fn begins(&mut self, path: String, bytes: Option<u64>) -> Option<u64> {
        let mut lacking = None;
        if self.is_large(&path) && !self.places.contains_key(&path) {
            let bytes = bytes.unwrap_or(0);
            match self.room.take(bytes) {
                Some(place) => drop(self.places.insert(path.clone(), place)),
                None => lacking = Some(bytes),
            }
        }
        self.current = Some((path, bytes));
        self.progress(0, None);
        lacking
    }

    pub(super) fn progress(&self, bytes: u64, rate: Option<u64>) {
        if let (Some(tell), Some((path, total))) = (&self.progress, &self.current) {
            for item in self.items.get(path).into_iter().flatten() {
                tell(Progress {
                    what: item.what.clone(),
                    file: path.clone(),
                    bytes,
                    total: *total,
                    rate,
                    arrived: None,
                });
            }
        }
    }

    /// Takes a step of a copy; gives the bytes of a file that begins when there is no room for them.
    pub(super) fn step(&mut self, step: Step) -> Option<u64> {
        match step {
            Step::Begins { path, bytes } => return self.begins(path, bytes),
            Step::Progress { bytes, rate } => self.progress(bytes, rate),
            Step::Whole { path } => {
                if let Some(partial) = partial_of(&staged(&self.staging, &path)) {
                    self.hand_over(&path, &partial);
                }
            }
            Step::Failed { path, failure } => self.fail(&path, &failure),
        }
        None
    }

    /// The file that began last has been received: rsync has begun another.
    pub(super) fn previous_is_whole(&mut self) {
        if let Some((path, _)) = self.current.take() {
            self.hand_over(&path, &staged(&self.staging, &path));
        }
    }

    /// Hands over everything that is whole in the staging directory.
    pub(super) fn collect_arrived(&mut self) {
        let paths: Vec<String> = self.items.keys().cloned().collect();
        for path in paths {
            self.hand_over(&path, &staged(&self.staging, &path));
        }
    }

    /// Moves the whole file `from` to where its waiters want it and tells them. Without such a file
    /// nothing happens.
    fn hand_over(&mut self, path: &str, from: &Path) {
        let Some(about) = std::fs::symlink_metadata(from).ok().filter(std::fs::Metadata::is_file) else { return };
        let is_large = self.is_large(path);
        let Some(items) = self.items.remove(path) else { return };
        let place = self.places.remove(path).or_else(|| is_large.then(|| self.room.take_anyway(about.len())));
        let last = items.len() - 1;
        for (index, item) in items.into_iter().enumerate() {
            let result = if index == last {
                std::fs::rename(from, &item.arrived)
            } else {
                let _ = std::fs::remove_file(&item.arrived);
                std::fs::hard_link(from, &item.arrived)
            };
            let result = result.map_err(|source| {
                crate::error::io_error(&item.arrived, "cannot move the file that arrived", source).into()
            });
            let _ = item.reply.send(result.map(|()| place.clone()));
        }
        self.arrived += 1;
    }

    /// A whole file left by a killed run becomes the basis of this one, so that a file found in its place
    /// afterwards is one that this run received.
    pub(super) fn park_leftovers(&self) {
        for path in self.items.keys() {
            let staged = staged(&self.staging, path);
            if std::fs::symlink_metadata(&staged).is_ok_and(|about| about.is_file())
                && let Some(partial) = partial_of(&staged)
            {
                let _ = partial.parent().map(std::fs::create_dir_all);
                let _ = std::fs::rename(&staged, partial);
            }
        }
    }

    pub(super) fn drop_partials(&self) {
        for partial in self.items.keys().filter_map(|path| partial_of(&staged(&self.staging, path))) {
            let _ = std::fs::remove_file(partial);
        }
    }

    /// Tells those who still wait for one of `paths` what rsync said about it.
    pub(super) fn settle(&mut self, paths: &[String], stderr: &str) {
        let said = each_file(stderr);
        let here = local(stderr);
        for path in paths.iter().filter(|path| self.items.contains_key(*path)).cloned().collect::<Vec<_>>() {
            let failure = said.get(&path).or(here.as_ref()).cloned().unwrap_or_else(|| {
                if staged(&self.staging, &path).is_dir() || stderr.is_empty() {
                    Failure::new(ErrorKind::Missing, "this is no regular file")
                } else {
                    let last = stderr.lines().rev().find(|line| line.contains(&path)).unwrap_or(stderr);
                    Failure::new(ErrorKind::Process, "rsync did not deliver the file").detail(last)
                }
            });
            self.fail(&path, &failure);
        }
    }

    fn fail(&mut self, path: &str, failure: &Failure) {
        self.places.remove(path);
        for item in self.items.remove(path).into_iter().flatten() {
            let _ = item.reply.send(Err(failure.clone()));
        }
    }

    pub(super) fn fail_all(&mut self, failure: &Failure, peer: &Peer) {
        let mut failure = failure.clone();
        if matches!(failure.kind, ErrorKind::Unreachable | ErrorKind::Denied) {
            failure.place = Some(peer.to_string());
        }
        for (_, items) in self.items.drain() {
            for item in items {
                let _ = item.reply.send(Err(failure.clone()));
            }
        }
    }

    pub(super) fn nobody_waits(&self) -> bool {
        self.items.values().flatten().all(|item| item.reply.is_closed())
    }
}

/// Where the other side's file `path` is received.
pub(super) fn staged(staging: &Path, path: &str) -> PathBuf {
    staging.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for two dumps and a style; gives what each of those who wait is told.
    fn waiting(staging: &Path, room: &Arc<Room>) -> (Waiting, Vec<oneshot::Receiver<Reply>>) {
        let (mut items, mut told) = (Vec::new(), Vec::new());
        for (path, is_large) in [("/a.db", true), ("/b.db", true), ("/c.sld", false)] {
            let (reply, answer) = oneshot::channel();
            let arrived = staging.join(format!("arrived-{}", &path[1..]));
            items.push(Item {
                path: path.to_owned(),
                arrived,
                what: "file".to_owned(),
                is_large,
                is_checked: true,
                reply,
            });
            told.push(answer);
        }
        (Waiting::new(items, staging.to_owned(), None, Arc::clone(room)), told)
    }

    #[test]
    fn what_is_large_takes_room_until_it_is_used_and_what_came_nevertheless_does_too() {
        let (dir, room) = (tempfile::tempdir().unwrap(), Room::new(10));
        let (mut waiting, mut told) = waiting(dir.path(), &room);
        assert_eq!(waiting.begins("/a.db".into(), Some(6)), None);
        assert_eq!(waiting.begins("/c.sld".into(), Some(600)), None, "a style needs none");
        assert_eq!(waiting.begins("/b.db".into(), Some(6)), Some(6));
        assert_eq!(waiting.small_paths(), ["/c.sld"]);
        for name in ["a.db", "b.db"] {
            std::fs::write(dir.path().join(name), "123456").unwrap();
        }
        waiting.collect_arrived();
        let places: Vec<_> = told.iter_mut().take(2).map(|told| told.try_recv().unwrap().unwrap().unwrap()).collect();
        assert!(told[2].try_recv().is_err(), "the style is still waited for");
        assert!(room.take(0).is_none(), "both are here");
        drop(places);
        assert!(room.take(10).is_some());
    }

    #[test]
    fn what_has_begun_and_not_arrived_gives_its_room_back() {
        let (dir, room) = (tempfile::tempdir().unwrap(), Room::new(10));
        let (mut waiting, _told) = waiting(dir.path(), &room);
        assert_eq!(waiting.begins("/a.db".into(), Some(10)), None);
        waiting.give_room_back();
        assert_eq!(waiting.begins("/b.db".into(), Some(10)), None);
    }
}
