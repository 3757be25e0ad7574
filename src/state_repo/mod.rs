//! The state repository as the slave sees it: what changed between two revisions, what a file held,
//! and how the clone follows its master.
//!
//! Reads are answered by one `hg serve --cmdserver pipe` child ([`HgRepo`]) or by libgit2
//! ([`GitRepo`]). Everything that talks to another machine is a child process of its own, `hg pull`
//! or `git fetch`, so that the operator's `ssh` settings apply and a time limit can end it.
//!
//! # Paths
//!
//! Paths are relative to the repository's root, with `/` between the parts. The names that the slave
//! takes are all UTF-8; a file whose name is not is listed with replacement characters (U+FFFD) where
//! the name cannot be read, and [`StateRepo::contents`] answers `None` for it, so that one such
//! name never hides the other files.

mod complaint;
mod git;
mod hg;
pub mod hook_input;
mod revision;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result, io_error};

pub(crate) use complaint::mask_credentials;
pub use git::GitRepo;
pub(crate) use git::Moving;
pub use hg::HgRepo;
use hook_input::HookEnv;
pub use revision::Revision;

/// The environment variable that the VCS's own hooks see as `1` while the slave pulls with
/// [`PullHooks::Skip`].
///
/// The slave switches off the hooks that name `borg-slave`; a wrapper script does not show what it calls, so a
/// `borg-slave hook` that finds this variable has to exit with 0 at once: the run that pulls
/// holds the run lock and works on the change itself.
pub const PULLED_BY_SLAVE: &str = "BORG_SLAVE_PULLS";

/// Which program keeps the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vcs {
    /// Mercurial.
    Hg,
    /// Git.
    Git,
}

/// What happened to a file between two revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is only in the later revision.
    Added,
    /// It is in both, with other content; another mode alone is no change.
    Modified,
    /// It is only in the earlier revision.
    Removed,
}

/// One file that differs between two revisions. A rename is a removal and an addition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// The file, relative to the root; see the module's words on names that are not UTF-8.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// Whether the VCS's hooks run during a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullHooks {
    /// As configured in the clone.
    Run,
    /// Without those that call `borg-slave` (hg), or without any (git): the caller works on the change
    /// itself, and a nested run would wait for the run lock that the caller holds.
    Skip,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOutcome {
    /// The tip before.
    pub before: Revision,
    /// The tip now.
    pub after: Revision,
    /// What an interrupted pull had left was taken back first (`hg recover`, or a move of Git's work tree).
    pub recovered: bool,
    /// The master's history was rewritten and the clone followed: `before` is not an ancestor of
    /// `after`. Only with Git; the old tip stays reachable as `refs/borg-slave/before-rewrite`.
    pub rewritten: bool,
}

/// Where the clone is and how it may be used.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The clone's root directory (for a bare Git repository, the repository itself).
    pub root: PathBuf,
    /// The branch to follow; without one `default` (hg) or the checked-out branch (git).
    pub branch: Option<String>,
    /// The SSH command as an argument vector; empty means the VCS's own choice.
    pub ssh: Vec<String>,
    /// The environment of the VCS hook that we run in, so that changesets are seen that are not
    /// committed yet; `None` outside hooks.
    pub hook_env: Option<HookEnv>,
    /// How long one pull or one read may take.
    pub time_limit: Duration,
    /// How long a pull waits for the lock of an hg that is at work in the clone. Its hook may hold the lock for
    /// hours, so that waiting longer than for an ordinary command is in vain.
    pub lock_wait: Duration,
    /// Ends everything that is under way.
    pub stop: CancellationToken,
}

impl OpenOptions {
    /// The clone at `root` with its default branch and SSH, outside hooks, ten minutes per operation, of which
    /// one for the lock.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            branch: None,
            ssh: Vec::new(),
            hook_env: None,
            time_limit: Duration::from_secs(600),
            lock_wait: Duration::from_secs(60),
            stop: CancellationToken::new(),
        }
    }
}

/// A clone of the state repository.
#[derive(Debug)]
pub enum StateRepo {
    /// Kept by Mercurial.
    Hg(HgRepo),
    /// Kept by Git.
    Git(GitRepo),
}

/// Calls the method of the repository's own kind.
macro_rules! either {
    ($repo:expr, $inner:ident => $call:expr) => {
        match $repo {
            StateRepo::Hg($inner) => $call,
            StateRepo::Git($inner) => $call,
        }
    };
}

impl StateRepo {
    /// Opens the clone at `options.root`, finding out which VCS keeps it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when there is no repository or its branch name cannot be one,
    /// [`ErrorKind::Denied`] when it belongs to another user and Git therefore refuses it, and
    /// [`ErrorKind::Repository`] when it cannot be read.
    pub async fn open(mut options: OpenOptions) -> Result<Self> {
        let root = &options.root;
        options.root = root.canonicalize().map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                not_a_repository(root).source(source)
            } else {
                io_error(root, "cannot open the state repository", source)
            }
        })?;
        if let Some(branch) = &options.branch {
            check_branch(branch)?;
        }
        match detect(&options.root) {
            Some(Vcs::Hg) => Ok(Self::Hg(HgRepo::open(options))),
            Some(Vcs::Git) => Ok(Self::Git(GitRepo::open(options).await?)),
            None => Err(not_a_repository(&options.root)),
        }
    }

    /// The program that keeps this repository.
    #[must_use]
    pub fn vcs(&self) -> Vcs {
        match self {
            Self::Hg(_) => Vcs::Hg,
            Self::Git(_) => Vcs::Git,
        }
    }

    /// The clone's root directory, absolute and without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        either!(self, repo => repo.root())
    }

    /// The newest revision of the branch; [`Revision::null`] in an empty repository.
    ///
    /// With Mercurial this is the tip-most open head, pending changesets included. With Git it is
    /// what the branch points to, which inside `pre-receive` is still the old commit: there the new one is
    /// in [`hook_input::RefUpdate`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when the repository has revisions but no such branch;
    /// [`ErrorKind::Repository`] when it cannot be read.
    pub async fn tip(&mut self) -> Result<Revision> {
        either!(self, repo => repo.tip().await)
    }

    /// The branch that is followed: a name in Mercurial, a full ref name in Git.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when the repository cannot be read, and in Git when no branch is set
    /// and none is checked out.
    pub async fn branch(&mut self) -> Result<String> {
        match self {
            Self::Hg(repo) => Ok(repo.branch().to_owned()),
            Self::Git(repo) => repo.branch().await,
        }
    }

    /// The revision that `spec` names: a hash or its unambiguous start, a tag, a branch, a bookmark,
    /// a revision number (hg), `HEAD~2` and the like (git), or `null`. `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when `spec` is empty, starts with `-`, or means several revisions;
    /// [`ErrorKind::Repository`] when the repository cannot be read.
    pub async fn resolve(&mut self, spec: &str) -> Result<Option<Revision>> {
        check_spec(spec)?;
        if spec == "null" || Revision::parse(spec).is_ok_and(|revision| revision.is_null()) {
            return Ok(Some(Revision::null()));
        }
        either!(self, repo => repo.resolve(spec).await)
    }

    /// The first parent of `revision`; null for a root and for null itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when `revision` is unknown or the repository cannot be read.
    pub async fn first_parent(&mut self, revision: &Revision) -> Result<Revision> {
        if revision.is_null() {
            return Ok(Revision::null());
        }
        either!(self, repo => repo.first_parent(revision).await)
    }

    /// Where the changes that lead to `to` begin, given that `from` is applied.
    ///
    /// In Mercurial a pull may bring a second head: what only the first head holds is then missing in
    /// the new tip without having been removed, so the changes begin at the youngest common ancestor. In
    /// Git a tip that does not descend from the old one was put in its place on purpose, and `from` is the answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when the repository cannot be read.
    pub async fn fork_point(&mut self, from: &Revision, to: &Revision) -> Result<Revision> {
        match self {
            Self::Hg(repo) => repo.common_ancestor(from, to).await,
            Self::Git(_) => Ok(from.clone()),
        }
    }

    /// Whether `ancestor` is `revision` or comes before it; null comes before everything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when a revision is unknown or the repository cannot be read.
    pub async fn is_ancestor(&mut self, ancestor: &Revision, revision: &Revision) -> Result<bool> {
        if ancestor.is_null() || ancestor == revision {
            return Ok(true);
        }
        if revision.is_null() {
            return Ok(false);
        }
        match self {
            Self::Hg(repo) => Ok(repo.common_ancestor(ancestor, revision).await? == *ancestor),
            Self::Git(repo) => repo.is_ancestor(ancestor, revision).await,
        }
    }

    /// The files that differ between two revisions, sorted by path. Only the net difference counts:
    /// a file added and removed in between does not appear. From null, everything in `to` is added.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when a revision is unknown or the repository cannot be read.
    pub async fn changes(&mut self, from: &Revision, to: &Revision) -> Result<Vec<Change>> {
        if from == to {
            return Ok(Vec::new());
        }
        let mut changes = either!(self, repo => repo.changes(from, to).await)?;
        changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// What each of `paths` holds in `revision`, in the same order; `None` for a file that is not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when `revision` is unknown or the repository cannot be read.
    pub async fn contents(&mut self, revision: &Revision, paths: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        if revision.is_null() || paths.is_empty() {
            return Ok(vec![None; paths.len()]);
        }
        either!(self, repo => repo.contents(revision, paths).await)
    }

    /// The files of `revision`, sorted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when `revision` is unknown or the repository cannot be read.
    pub async fn files(&mut self, revision: &Revision) -> Result<Vec<String>> {
        if revision.is_null() {
            return Ok(Vec::new());
        }
        let mut files = either!(self, repo => repo.files(revision).await)?;
        files.sort_unstable();
        Ok(files)
    }

    /// Brings the master's new revisions and moves the branch to its tip there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] for the way to the master;
    /// [`ErrorKind::Busy`] when another process holds the clone's lock; [`ErrorKind::Settings`] when the master
    /// has no such branch; [`ErrorKind::Repository`] for everything else that hg or git refuse.
    /// [`ErrorKind::Bug`] inside a hook, where the VCS is pulling already.
    pub async fn pull(&mut self, hooks: PullHooks) -> Result<PullOutcome> {
        either!(self, repo => repo.pull(hooks).await)
    }

    /// Asks the master whether it answers, as [`StateRepo::pull`] would; false when the clone names none.
    ///
    /// # Errors
    ///
    /// As [`StateRepo::pull`].
    pub async fn master_answers(&mut self) -> Result<bool> {
        either!(self, repo => repo.master_answers().await)
    }

    /// Settings about the way to the master and about trust that stand where pulls do not look: Mercurial's
    /// outside the clone's own `.hg/hgrc`. Names, without the values, which may be secret.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Repository`] when the clone's configuration cannot be read.
    pub async fn unread_settings(&mut self) -> Result<Vec<String>> {
        match self {
            Self::Hg(repo) => repo.unread_settings().await,
            Self::Git(_) => Ok(Vec::new()),
        }
    }

    /// Rolls back what an interrupted `hg pull` left; true when there was something. With Git, the next pull does
    /// that by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] when another process holds the clone's lock, and
    /// [`ErrorKind::Repository`] when the rollback fails.
    pub async fn recover(&mut self) -> Result<bool> {
        match self {
            Self::Hg(repo) => repo.recover().await,
            Self::Git(_) => Ok(false),
        }
    }

    /// Whether another process of this machine is writing changesets at this moment. With Git they are
    /// there or not.
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        match self {
            Self::Hg(repo) => repo.is_being_written(),
            Self::Git(_) => false,
        }
    }

    /// Ends the child that answers reads, if one was started. Dropping does the same, less politely.
    pub async fn close(self) {
        match self {
            Self::Hg(repo) => repo.close().await,
            Self::Git(_) => {}
        }
    }
}

/// Which VCS keeps `root`, by what lies in it.
fn detect(root: &Path) -> Option<Vcs> {
    if root.join(".hg").is_dir() {
        return Some(Vcs::Hg);
    }
    let bare = root.join("HEAD").is_file() && root.join("objects").is_dir() && root.join("refs").is_dir();
    // `.git` is a file in a linked work tree.
    (bare || root.join(".git").exists()).then_some(Vcs::Git)
}

fn not_a_repository(root: &Path) -> Error {
    let error = Error::new(ErrorKind::Settings, "this is not a Mercurial or Git repository")
        .subject(format!("STATE_REPOSITORY_ROOT {}", root.display()));
    match root.ancestors().skip(1).find(|dir| detect(dir).is_some()) {
        Some(above) => {
            error.hint(format!("the repository's root is {}: set STATE_REPOSITORY_ROOT to it", above.display()))
        }
        None => error.hint(
            "set STATE_REPOSITORY_ROOT to the clone, or make one: hg clone <master's URL> <directory>, \
             or git clone <master's URL> <directory>",
        ),
    }
}

/// A revision that somebody remembered is not in the clone.
fn unknown_revision(root: &Path) -> Error {
    Error::new(ErrorKind::Repository, "the clone does not have this revision")
        .subject(root.display().to_string())
        .hint("the history was rewritten or the clone was made anew: run `borg-slave sync --from null`, which skips what is done")
}

/// The SSH command as hg and git are to call it. OpenSSH asks on the terminal for passwords and about new host keys,
/// also when it runs in the background, where nobody can answer; of an option given twice it takes the first.
pub(crate) fn unattended(ssh: &[String]) -> String {
    let mut words = ssh.to_vec();
    if words.first().is_some_and(|program| Path::new(program).file_name().is_some_and(|name| name == "ssh")) {
        words.insert(1, "-oBatchMode=yes".to_owned());
    }
    shell_words::join(words)
}

fn inside_a_hook() -> Error {
    Error::new(ErrorKind::Bug, "a hook asked to pull, which the VCS is doing already")
}

/// Refuses what could be read as an option; what a revision is called is the VCS's matter.
fn check_spec(spec: &str) -> Result<()> {
    if spec.is_empty() || spec.starts_with('-') || spec.chars().any(char::is_control) {
        return Err(Error::new(ErrorKind::Usage, format!("{spec:?} cannot name a revision"))
            .hint("give a changeset hash or its first 12 digits, a tag or a branch"));
    }
    Ok(())
}

/// Refuses what neither VCS takes as a branch name and what could be read as an option or a pattern.
fn check_branch(branch: &str) -> Result<()> {
    let odd = |c: char| c.is_control() || ['"', '\\', ':', '*', '?', '[', '^', '~'].contains(&c);
    if branch.is_empty() || branch.starts_with('-') || branch.contains("..") || branch.chars().any(odd) {
        return Err(Error::new(ErrorKind::Settings, format!("{branch:?} cannot be the name of a branch"))
            .subject("STATE_BRANCH")
            .hint("give the plain name, such as default, main or production"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_could_be_an_option_is_refused() {
        for spec in ["", "-r", "--config=hooks.x=y", "a\0b", "a\nb"] {
            assert_eq!(check_spec(spec).unwrap_err().kind(), ErrorKind::Usage, "{spec:?}");
        }
        assert!(check_spec("v1.0-rc").is_ok());
    }

    #[test]
    fn a_branch_that_could_be_an_option_or_a_pattern_is_refused() {
        for branch in ["", "--upload-pack=x", "a:b", "*", "a..b", "a\"b"] {
            assert_eq!(check_branch(branch).unwrap_err().kind(), ErrorKind::Settings, "{branch:?}");
        }
        assert!(check_branch("release/2.0").is_ok());
    }
}
