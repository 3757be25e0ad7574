//! Hears of changed files: the clone's changesets, the settings, the filters.
//!
//! An event only says that it is worth looking; whether something has changed is seen by comparing
//! fingerprints. So neither the daemon's own pulls nor files that are written anew with the same content start
//! a round, and where events do not reach (a network file system) a change is seen with the next round.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// How long nothing must happen before it is looked what has changed: editors and VCS write in several steps.
const QUIET: Duration = Duration::from_millis(300);

/// After so long it is looked even if files are still being written.
const LONGEST: Duration = Duration::from_secs(3);

/// Listens to the file system.
pub(super) struct Watch {
    /// Ends with its last owner.
    _watcher: RecommendedWatcher,
    stirred: Arc<Notify>,
    places: Places,
    /// The directories that are listened to, and which they were.
    dirs: Vec<(PathBuf, Option<(u64, u64)>)>,
}

/// What is listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// Single files, there or not.
    pub(super) files: Vec<PathBuf>,
    /// Directories with all that is below.
    pub(super) trees: Vec<PathBuf>,
}

impl Places {
    /// The files of `settings` and those that tell of new changesets in the clone at `root`.
    pub(super) fn of(root: &Path, settings: &[PathBuf]) -> Self {
        let mut places = Self { files: settings.to_vec(), trees: Vec::new() };
        for file in settings {
            // The file itself may be elsewhere, such as a mounted secret.
            places.files.extend(file.canonicalize().ok().filter(|target| target != file));
            // Nor need its directory be there yet.
            places.files.extend(file.ancestors().skip(1).take_while(|dir| !dir.exists()).last().map(Path::to_path_buf));
        }
        if let Some(store) = hg_store(root) {
            places.files.push(store.join("00changelog.i"));
        } else if let Ok(repository) = git2::Repository::open(root) {
            places.files.push(repository.path().join("HEAD"));
            places.files.push(repository.commondir().join("packed-refs"));
            places.trees.push(repository.commondir().join("refs").join("heads"));
        }
        places
    }

    fn dirs(&self) -> Vec<(PathBuf, RecursiveMode)> {
        let mut seen = HashSet::new();
        let parents = self.files.iter().filter_map(|file| file.parent()).map(Path::to_path_buf);
        let mut dirs: Vec<_> = self.trees.iter().map(|tree| (tree.clone(), RecursiveMode::Recursive)).collect();
        dirs.extend(parents.filter(|dir| seen.insert(dir.clone())).map(|dir| (dir, RecursiveMode::NonRecursive)));
        dirs.retain(|(dir, _)| dir.is_dir());
        dirs
    }

    fn holds(&self, path: &Path) -> bool {
        let in_tree = || self.trees.iter().any(|tree| path.starts_with(tree));
        self.files.iter().any(|file| file == path) || in_tree() && path.extension().is_none_or(|end| end != "lock")
    }
}

impl Watch {
    /// Listens from now on to `places`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the kernel gives no more watches.
    pub(super) fn start(places: &Places) -> Result<Self> {
        let stirred = Arc::new(Notify::new());
        let (stir, wanted) = (Arc::clone(&stirred), places.clone());
        let hear = move |event: notify::Result<Event>| {
            let is_worth_a_look = match event {
                Ok(event) if is_a_change(event.kind) => {
                    event.need_rescan() || event.paths.iter().any(|path| wanted.holds(path))
                }
                Ok(_) => false,
                Err(_) => true,
            };
            if is_worth_a_look {
                stir.notify_one();
            }
        };
        let failed = |source: notify::Error| {
            Error::new(ErrorKind::Io, "cannot listen for changed files").source(source).hint(
                "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances (sysctl); \
                 until then changes are seen with the next round",
            )
        };
        let mut watcher = notify::recommended_watcher(hear).map_err(failed)?;
        let mut dirs = Vec::new();
        for (dir, mode) in places.dirs() {
            watcher.watch(&dir, mode).map_err(failed)?;
            let identity = identity(&dir);
            dirs.push((dir, identity));
        }
        Ok(Self { _watcher: watcher, stirred, places: places.clone(), dirs })
    }

    /// Whether what is listened to is what `places` are now: a clone that was put in the place of another is not heard.
    pub(super) fn is_of(&self, places: &Places) -> bool {
        let wanted = places.dirs();
        *places == self.places
            && wanted.len() == self.dirs.len()
            && wanted.iter().zip(&self.dirs).all(|((dir, _), (heard, known))| dir == heard && *known == identity(dir))
    }

    /// Makes [`Watch::settled`] look although nothing was heard.
    pub(super) fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Waits until something was written, and until that is over.
    pub(super) async fn settled(&self) {
        self.stirred.notified().await;
        let quiet = async { while tokio::time::timeout(QUIET, self.stirred.notified()).await.is_ok() {} };
        let _ = tokio::time::timeout(LONGEST, quiet).await;
    }
}

/// Reading changes nothing.
fn is_a_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Where Mercurial keeps the changesets of the clone at `root`; elsewhere when the clone shares them.
fn hg_store(root: &Path) -> Option<PathBuf> {
    let own = root.join(".hg");
    if !own.is_dir() {
        return None;
    }
    match std::fs::read_to_string(own.join("sharedpath")) {
        // An absolute path, or one that counts from `.hg`.
        Ok(shared) => Some(own.join(shared.trim_end()).join("store")),
        Err(_) => Some(own.join("store")),
    }
}

/// A number that is another one when the clone at `root` has got or lost changesets.
pub(super) fn clone_print(root: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Some(store) = hg_store(root) {
        if let Ok(log) = std::fs::metadata(store.join("00changelog.i")) {
            (log.ino(), log.len(), log.mtime(), log.mtime_nsec()).hash(&mut hasher);
        }
    } else if let Ok(repository) = git2::Repository::open(root) {
        let refs = repository.references_glob("refs/heads/*");
        for reference in refs.into_iter().flatten().flatten() {
            reference.name_bytes().hash(&mut hasher);
            reference.target().map(|target| target.as_bytes().to_vec()).hash(&mut hasher);
        }
        let head = std::fs::read(repository.path().join("HEAD"));
        head.unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

/// A number that is another one when one of `files` holds something else than before.
pub(super) fn files_print(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_file_that_appears_and_one_that_is_renamed_into_place_are_heard_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".env");
        let watch = Watch::start(&Places { files: vec![file.clone()], trees: Vec::new() }).unwrap();
        std::fs::write(dir.path().join("other"), "1").unwrap();
        let before = files_print(std::slice::from_ref(&file));
        std::fs::write(&file, "A=1").unwrap();
        tokio::time::timeout(PATIENCE, watch.settled()).await.expect("a file is written");
        assert_ne!(files_print(std::slice::from_ref(&file)), before);
        std::fs::write(dir.path().join("new"), "A=2").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        tokio::time::timeout(PATIENCE, watch.settled()).await.expect("a file is renamed");
        // Events come in order: were the other file heard, it would be before this one.
        std::fs::write(dir.path().join("other"), "2").unwrap();
        std::fs::read(&file).unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(50), watch.stirred.notified()).await;
        assert!(silent.is_err(), "another file, or reading, was heard");
    }

    #[tokio::test]
    async fn a_file_that_is_written_without_end_is_looked_at_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".env");
        let watch = Watch::start(&Places { files: vec![file.clone()], trees: Vec::new() }).unwrap();
        let looks = async {
            watch.settled().await;
            watch.settled().await;
        };
        let writes = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                std::fs::write(&file, "A=1").unwrap();
            }
        };
        let clock = std::time::Instant::now();
        tokio::select! { () = looks => {}, () = writes => {} }
        assert!(clock.elapsed() >= LONGEST, "{:?}", clock.elapsed());
    }

    #[tokio::test]
    async fn a_directory_that_a_file_is_to_come_in_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("filters/own");
        let wanted = [missing.join("new.rhai")];
        let watch = Watch::start(&Places::of(dir.path(), &wanted)).unwrap();
        std::fs::create_dir_all(&missing).unwrap();
        tokio::time::timeout(PATIENCE, watch.settled()).await.expect("a directory is made");
        assert!(!watch.is_of(&Places::of(dir.path(), &wanted)));
    }

    #[test]
    fn a_directory_in_the_place_of_another_is_not_the_one_that_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let places = Places { files: vec![store.join("00changelog.i")], trees: Vec::new() };
        let watch = Watch::start(&places).unwrap();
        assert!(watch.is_of(&places));
        let more = Places { files: vec![store.join("00changelog.i"), store.join("other")], trees: Vec::new() };
        assert!(!watch.is_of(&more), "the other file is not heard");
        std::fs::rename(&store, dir.path().join("old")).unwrap();
        std::fs::create_dir(&store).unwrap();
        assert!(!watch.is_of(&places));
    }
}
