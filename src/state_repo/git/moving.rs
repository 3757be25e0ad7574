//! A move of a work tree from one commit to another, which a kill may cut short.
//!
//! Git writes the files one by one, then the index, then the branch. What is killed in between leaves files of both
//! commits, or parts of them, and `index.lock`; every later move then takes the files for changed by hand. So what
//! is about to happen is noted in Git's directory, and taken back by whoever finds the note: each file that the move is
//! about holds what it held before, what it was to hold, or a part of either, or it is somebody's own work and stays.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind as Io, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{DiffOptions, ErrorCode, Oid, Repository};

use crate::error::{Error, ErrorKind, Result, io_error};
use crate::process::{Cmd, Finished};

/// In Git's directory: `<from> <to> <branch>` of a move that is under way.
const NOTE: &str = "borg-slave-moving";

/// How long the files of a clone may take to be written.
const LIMIT: Duration = Duration::from_secs(600);

/// How many changed files a message names.
const NAMED_FILES: usize = 3;

/// A work tree whose files are moved.
#[derive(Debug, Clone)]
pub(crate) struct Moving {
    root: PathBuf,
    /// Git's directory of this work tree.
    git: PathBuf,
    /// Git's directory, where the branches are.
    common: PathBuf,
}

/// What it takes to go back to where the move began.
#[derive(Debug, Default)]
struct Back {
    /// For `git update-index -z --index-info`.
    index: Vec<u8>,
    /// For `git checkout-index -z --stdin`.
    files: Vec<u8>,
}

/// A file as a commit has it.
struct Version {
    mode: u32,
    id: Oid,
}

impl Moving {
    /// The work tree of `repo`, if it has one.
    pub(crate) fn of(repo: &Repository) -> Option<Self> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let root = real(repo.workdir()?);
        Some(Self { root, git: real(repo.path()), common: real(repo.commondir()) })
    }

    /// Whether a move has begun and not ended.
    pub(crate) fn is_under_way(&self) -> bool {
        self.note().exists()
    }

    /// Runs the `git` that moves the files from HEAD to `to`, and then HEAD or `branch`. It is not stopped with the run:
    /// it ends soon, and halfway is no safe point.
    ///
    /// # Errors
    ///
    /// When it cannot be noted or started, or runs too long. How it ended is for the caller to judge.
    pub(crate) async fn run(&self, git: Cmd, from: Oid, to: Oid, branch: &str) -> Result<Finished> {
        let _nobody_takes_it_back = self.hold()?;
        // A lock that is there before the move is none of it, and not to be removed as if it were.
        if !self.git.join("index.lock").exists() {
            self.begin(from, to, branch)?;
        }
        let finished = git.time_limit(LIMIT).run().await?;
        let nothing_was_done =
            ["Aborting", "index.lock': File exists"].iter().any(|text| finished.stderr.contains(text));
        if finished.status.success() || (finished.status.code().is_some() && nothing_was_done) {
            self.forget()?;
        }
        Ok(finished)
    }

    /// Takes back what a move that was cut short has done; true when there was one. `git` makes commands that run in
    /// the work tree.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] when a git is at work there, [`ErrorKind::Repository`] when files of the move have been changed by
    /// hand since, or one of Git's commands fails.
    pub(crate) async fn take_back(&self, git: impl Fn() -> Cmd) -> Result<bool> {
        if !self.is_under_way() {
            return Ok(false);
        }
        let _not_one_that_lives = self.hold()?;
        let own = self.clone();
        let back = tokio::task::spawn_blocking(move || own.prepare()).await.map_err(|panic| {
            Error::new(ErrorKind::Bug, "looking at a move that was cut short panicked").source(panic)
        })??;
        let commands: [(&[&str], Vec<u8>); 2] = [
            (&["update-index", "-z", "--index-info"], back.index),
            (&["checkout-index", "-q", "-f", "-u", "-z", "--stdin"], back.files),
        ];
        for (arguments, input) in commands {
            if input.is_empty() {
                continue;
            }
            let finished = git().args(arguments).stdin(input).time_limit(LIMIT).run().await?;
            finished.success().map_err(|error| {
                Error::new(ErrorKind::Repository, "a move of the work tree that was cut short cannot be taken back")
                    .subject(self.root.display().to_string())
                    .hint("`git status` shows what is there; when nobody needs it: git reset --hard")
                    .source(error)
            })?;
        }
        self.forget()?;
        tracing::warn!(clone = %self.root.display(), "took back a move of the work tree that was cut short");
        Ok(true)
    }

    /// The right to move the work tree or to take a move back, as long as the file is open.
    fn hold(&self) -> Result<File> {
        let path = self.git.join(format!("{NOTE}.lock"));
        let file = File::create(&path).map_err(|source| io_error(&path, "cannot open the lock", source))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::new(ErrorKind::Busy, "another borg-slave moves the work tree")
                .subject(self.root.display().to_string())
                .hint("the next run tries again")),
            Err(TryLockError::Error(source)) => Err(io_error(&path, "cannot lock the file", source)),
        }
    }

    fn note(&self) -> PathBuf {
        self.git.join(NOTE)
    }

    fn begin(&self, from: Oid, to: Oid, branch: &str) -> Result<()> {
        let path = self.note();
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(format!("{from} {to} {branch}\n").as_bytes()).and_then(|()| file.sync_all())
        });
        // The name has to be on the disk as well before the first file is.
        let written = written.and_then(|()| File::open(&self.git)?.sync_all());
        written.map_err(|source| io_error(&path, "cannot note what is about to be done", source))
    }

    fn forget(&self) -> Result<()> {
        let path = self.note();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != Io::NotFound => Err(io_error(&path, "cannot remove the note", source)),
            _ => Ok(()),
        }
    }

    /// Frees what the killed git has locked, removes the files that it has added, and says what is to be put back.
    fn prepare(&self) -> Result<Back> {
        let none: [&Path; 0] = [];
        let repo = Repository::open_ext(&self.root, git2::RepositoryOpenFlags::NO_SEARCH, none);
        let repo = repo.map_err(|error| self.failed(error))?;
        let note = fs::read_to_string(self.note()).unwrap_or_default();
        let mut words = note.trim_end().splitn(3, ' ');
        // Half a note was written before anything was done.
        let (Some(Ok(from)), Some(Ok(to)), Some(branch)) =
            (words.next().map(Oid::from_str), words.next().map(Oid::from_str), words.next())
        else {
            return Ok(Back::default());
        };
        let of_this_tree = ["index", "HEAD", "ORIG_HEAD"].map(|name| self.git.join(name));
        for locked in of_this_tree.into_iter().chain([self.common.join(branch)]) {
            let mut lock = locked.into_os_string();
            lock.push(".lock");
            self.free(Path::new(&lock))?;
        }
        let head = match repo.head().and_then(|head| head.peel_to_commit()) {
            Ok(commit) => commit.id(),
            Err(error) if error.code() == ErrorCode::UnbornBranch => Oid::ZERO_SHA1,
            Err(error) => return Err(self.failed(error)),
        };
        // It was at its end, or somebody has gone on from it.
        if head != from { Ok(Back::default()) } else { self.way_back(&repo, from, to) }
    }

    fn way_back(&self, repo: &Repository, from: Oid, to: Oid) -> Result<Back> {
        let failed = |error| self.failed(error);
        let tree = |id: Oid| match id.is_zero() {
            true => Ok(None),
            false => repo.find_commit(id).and_then(|commit| commit.tree()).map(Some),
        };
        let (old, new) = (tree(from).map_err(failed)?, tree(to).map_err(failed)?);
        let mut options = DiffOptions::new();
        options.skip_binary_check(true).include_typechange(true);
        let diff = repo.diff_tree_to_tree(old.as_ref(), new.as_ref(), Some(&mut options)).map_err(failed)?;
        let mut back = Back::default();
        let (mut added, mut by_hand) = (Vec::new(), Vec::new());
        for delta in diff.deltas() {
            let Some(name) = delta.new_file().path_bytes() else { continue };
            let version = |file: git2::DiffFile<'_>| {
                file.exists().then(|| Version { mode: u32::from(file.mode()), id: file.id() })
            };
            let (was, is) = (version(delta.old_file()), version(delta.new_file()));
            let submodule = u32::from(git2::FileMode::Commit);
            if [&was, &is].into_iter().flatten().any(|version| version.mode == submodule) {
                continue;
            }
            let path = self.root.join(std::ffi::OsStr::from_bytes(name));
            match on_disk(&path) {
                Ok(None) => {}
                Ok(Some(found)) if part_of(repo, &found, [&was, &is]) => {
                    if was.is_none() {
                        added.push(path);
                    }
                }
                _ => by_hand.push(String::from_utf8_lossy(name).into_owned()),
            }
            let (mode, id) = was.as_ref().map_or((0, Oid::ZERO_SHA1), |was| (was.mode, was.id));
            back.index.extend_from_slice(format!("{mode:06o} {id}\t").as_bytes());
            for list in [Some(&mut back.index), was.is_some().then_some(&mut back.files)].into_iter().flatten() {
                list.extend_from_slice(name);
                list.push(0);
            }
        }
        if !by_hand.is_empty() {
            return Err(self.changed_by_hand(&by_hand));
        }
        for path in added {
            fs::remove_file(&path).map_err(|source| io_error(&path, "cannot remove the file", source))?;
            // As Git does: a directory goes with its last file.
            for dir in path.ancestors().skip(1).take_while(|dir| *dir != self.root) {
                if fs::remove_dir(dir).is_err() {
                    break;
                }
            }
        }
        Ok(back)
    }

    /// Removes the lock of a git that was killed; nobody else would.
    fn free(&self, lock: &Path) -> Result<()> {
        if !lock.exists() {
            return Ok(());
        }
        if let Some(pid) = self.who_works(lock) {
            return Err(Error::new(ErrorKind::Busy, format!("process {pid} works in the clone"))
                .subject(lock.display().to_string())
                .hint("it has this lock, or may have it; the next run tries again"));
        }
        match fs::remove_file(lock) {
            Err(source) if source.kind() != Io::NotFound => {
                Err(io_error(lock, "cannot remove the orphaned lock", source))
            }
            _ => {
                tracing::warn!(lock = %lock.display(), "removed the lock of a git that was killed");
                Ok(())
            }
        }
    }

    /// A process that has the lock open, or a git that was started in the work tree.
    fn who_works(&self, lock: &Path) -> Option<u32> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).find_map(
            |(pid, proc)| {
                let name = fs::read_to_string(proc.join("comm")).unwrap_or_default();
                let is_git = name.trim_end() == "git" || name.starts_with("git-");
                let is_here =
                    |dir: PathBuf| [&self.root, &self.git, &self.common].iter().any(|place| dir.starts_with(place));
                let works_here = is_git && fs::read_link(proc.join("cwd")).is_ok_and(is_here);
                let mut files = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
                let mut has_it = || files.any(|file| fs::read_link(file.path()).is_ok_and(|open| open == lock));
                (works_here || has_it()).then_some(pid)
            },
        )
    }

    fn changed_by_hand(&self, files: &[String]) -> Error {
        let mut names = files[..files.len().min(NAMED_FILES)].join(", ");
        if files.len() > NAMED_FILES {
            names.push_str(&format!(" and {} more", files.len() - NAMED_FILES));
        }
        Error::new(
            ErrorKind::Repository,
            format!("a move of the work tree was cut short, and files of it were changed by hand since: {names}"),
        )
        .subject(self.root.display().to_string())
        .hint(format!(
            "`git diff` shows them; when nobody needs them: git reset --hard, then remove {}",
            self.note().display()
        ))
    }

    fn failed(&self, error: git2::Error) -> Error {
        Error::new(ErrorKind::Repository, "looking at a move that was cut short failed")
            .subject(self.root.display().to_string())
            .hint(format!(
                "when `git status` shows nothing of worth: git reset --hard, then remove {}",
                self.note().display()
            ))
            .source(error)
    }
}

/// What the file holds, a link its target; `None` when there is none.
fn on_disk(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            fs::read_link(path).map(|target| target.into_os_string().as_bytes().to_vec())
        }
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    match found {
        Ok(content) => Ok(Some(content)),
        Err(error) if [Io::NotFound, Io::NotADirectory].contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `found` is what one of the versions begins with.
fn part_of(repo: &Repository, found: &[u8], versions: [&Option<Version>; 2]) -> bool {
    versions
        .into_iter()
        .flatten()
        .any(|version| repo.find_blob(version.id).is_ok_and(|blob| blob.content().starts_with(found)))
}
