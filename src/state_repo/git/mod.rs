//! A Git clone: reads through libgit2, fetches through `git fetch`.
//!
//! libgit2 does not talk to other machines here: it ignores `~/.ssh/config` and knows no `ProxyJump`.

mod moving;
mod pull;

use std::path::{Path, PathBuf};

use git2::{Delta, DiffOptions, ErrorCode, FileMode, ObjectType, Oid, Repository, RepositoryOpenFlags, Tree};
use git2::{TreeWalkMode, TreeWalkResult};
use tokio_util::sync::CancellationToken;

pub(crate) use self::moving::Moving;
use super::{Change, ChangeKind, OpenOptions, Revision, unknown_revision};
use crate::error::{Error, ErrorKind, Result};

/// A clone that Git keeps, bare or with a work tree.
#[derive(Debug)]
pub struct GitRepo {
    options: OpenOptions,
    place: Place,
}

/// What it takes to open the repository. It is opened for every read, which costs less than a millisecond and
/// spares us to share a handle between threads.
#[derive(Debug, Clone)]
struct Place {
    root: PathBuf,
    branch: Option<String>,
    /// Where a push that is not accepted yet keeps its objects.
    quarantine: Option<PathBuf>,
    stop: CancellationToken,
}

/// The repository, opened for one read.
struct Opened {
    place: Place,
    repo: Repository,
}

impl GitRepo {
    pub(super) async fn open(options: OpenOptions) -> Result<Self> {
        let quarantine = options.hook_env.as_ref().and_then(|env| {
            // GIT_OBJECT_DIRECTORY is the same directory, and all that Git before 2.13 sets.
            let dir = env.get("GIT_QUARANTINE_PATH").or_else(|| env.get("GIT_OBJECT_DIRECTORY"))?;
            Some(options.root.join(dir))
        });
        let place = Place {
            root: options.root.clone(),
            branch: options.branch.clone(),
            quarantine,
            stop: options.stop.clone(),
        };
        let repo = Self { options, place };
        repo.read(|_| Ok(())).await?;
        Ok(repo)
    }

    pub(super) fn root(&self) -> &Path {
        &self.place.root
    }

    pub(super) async fn tip(&self) -> Result<Revision> {
        self.read(|opened| match opened.branch_tip()? {
            Some(tip) => Ok(tip),
            None if opened.branches()?.is_empty() => Ok(Revision::null()),
            None => Err(opened.no_such_branch()),
        })
        .await
    }

    pub(super) async fn branch(&self) -> Result<String> {
        self.read(|opened| match &opened.place.branch {
            Some(branch) => Ok(full_name(branch)),
            None => {
                let head = opened.repo.find_reference("HEAD").ok();
                let branch = head.as_ref().and_then(|head| head.symbolic_target().ok().flatten()).map(str::to_owned);
                branch.ok_or_else(|| opened.no_such_branch())
            }
        })
        .await
    }

    pub(super) async fn resolve(&self, spec: &str) -> Result<Option<Revision>> {
        let spec = spec.to_owned();
        self.read(move |opened| {
            let object = match opened.repo.revparse_single(&spec) {
                Ok(object) => object,
                Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
                Err(error) => {
                    return Err(Error::new(ErrorKind::Usage, format!("`{spec}` does not name one commit"))
                        .hint("give a commit's hash, a tag or a branch")
                        .source(error));
                }
            };
            // A hash may be that of a file or a folder.
            Ok(object.peel_to_commit().ok().map(|commit| revision(commit.id())))
        })
        .await
    }

    pub(super) async fn first_parent(&self, of: &Revision) -> Result<Revision> {
        let of = of.clone();
        self.read(move |opened| {
            let commit = opened.commit(&of)?;
            match commit.parent_id(0) {
                Ok(parent) => Ok(revision(parent)),
                Err(_) => Ok(Revision::null()),
            }
        })
        .await
    }

    /// Whether `ancestor` comes before `revision`; neither is null.
    pub(super) async fn is_ancestor(&self, ancestor: &Revision, revision: &Revision) -> Result<bool> {
        let (ancestor, revision) = (ancestor.clone(), revision.clone());
        self.read(move |opened| {
            let (ancestor, revision) = (opened.commit(&ancestor)?.id(), opened.commit(&revision)?.id());
            let found = opened.repo.graph_descendant_of(revision, ancestor);
            found.map_err(|error| opened.failed("comparing two revisions failed", error))
        })
        .await
    }

    pub(super) async fn changes(&self, from: &Revision, to: &Revision) -> Result<Vec<Change>> {
        let (from, to) = (from.clone(), to.clone());
        self.read(move |opened| {
            let (old, new) = (opened.tree(&from)?, opened.tree(&to)?);
            let mut options = DiffOptions::new();
            options.skip_binary_check(true).include_typechange(true);
            let diff = opened
                .repo
                .diff_tree_to_tree(old.as_ref(), new.as_ref(), Some(&mut options))
                .map_err(|error| opened.failed("comparing two revisions failed", error))?;
            Ok(diff.deltas().filter_map(|delta| change(&delta)).collect())
        })
        .await
    }

    pub(super) async fn contents(&self, at: &Revision, paths: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let (at, paths) = (at.clone(), paths.to_vec());
        self.read(move |opened| match opened.tree(&at)? {
            Some(tree) => paths.iter().map(|path| opened.content(&tree, path)).collect(),
            None => Ok(vec![None; paths.len()]),
        })
        .await
    }

    pub(super) async fn files(&self, at: &Revision) -> Result<Vec<String>> {
        let at = at.clone();
        self.read(move |opened| {
            let mut files = Vec::new();
            let Some(tree) = opened.tree(&at)? else { return Ok(files) };
            tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
                if entry.kind() == Some(ObjectType::Blob) {
                    files.push(format!("{folder}{}", String::from_utf8_lossy(entry.name_bytes())));
                }
                TreeWalkResult::Ok
            })
            .map_err(|error| opened.failed("listing the files failed", error))?;
            Ok(files)
        })
        .await
    }

    /// Runs `work` where it may block.
    async fn read<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Opened) -> Result<T> + Send + 'static,
    {
        let (root, limit) = (self.place.root.display().to_string(), self.options.time_limit);
        let place = self.place.clone();
        let task = tokio::task::spawn_blocking(move || work(&Opened::open(place)?));
        tokio::select! {
            biased;
            () = self.place.stop.cancelled() => {
                Err(Error::new(ErrorKind::Stopped, "the run was asked to stop").subject(root))
            }
            result = task => match result {
                Ok(result) => result,
                Err(panic) => Err(Error::new(ErrorKind::Bug, "reading the repository panicked").subject(root).source(panic)),
            },
            () = tokio::time::sleep(limit) => Err(
                Error::new(ErrorKind::Repository, format!("the repository was not read within {} s", limit.as_secs()))
                    .subject(root)
                    .hint("the disk or the machine is overloaded; the next run tries again"),
            ),
        }
    }
}

impl Opened {
    fn open(place: Place) -> Result<Self> {
        let none: [&Path; 0] = [];
        let repo = Repository::open_ext(&place.root, RepositoryOpenFlags::NO_SEARCH, none)
            .map_err(|error| cannot_open(&place.root, error))?;
        if let Some(quarantine) = &place.quarantine {
            let added = repo.odb().and_then(|odb| odb.add_disk_alternate(&quarantine.to_string_lossy()));
            added.map_err(|error| {
                Error::new(ErrorKind::Repository, "cannot read the objects of the push that is under way")
                    .subject(quarantine.display().to_string())
                    .source(error)
            })?;
        }
        Ok(Self { place, repo })
    }

    /// What the branch points to; `None` where there is none.
    fn branch_tip(&self) -> Result<Option<Revision>> {
        let name = match &self.place.branch {
            Some(branch) => full_name(branch),
            None => "HEAD".to_owned(),
        };
        match self.repo.find_reference(&name).and_then(|reference| reference.peel_to_commit()) {
            Ok(commit) => Ok(Some(revision(commit.id()))),
            Err(error) if [ErrorCode::NotFound, ErrorCode::UnbornBranch].contains(&error.code()) => Ok(None),
            Err(error) => Err(self.failed("reading the branch failed", error)),
        }
    }

    /// The names of the local branches.
    fn branches(&self) -> Result<Vec<String>> {
        let failed = |error| self.failed("listing the branches failed", error);
        let names = self.repo.references_glob("refs/heads/*").map_err(failed)?;
        let names = names.filter_map(std::result::Result::ok);
        Ok(names
            .map(|reference| {
                let name = String::from_utf8_lossy(reference.name_bytes()).into_owned();
                name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned()
            })
            .collect())
    }

    fn no_such_branch(&self) -> Error {
        let wanted = match &self.place.branch {
            Some(branch) => format!("the clone has no branch `{branch}`"),
            None => "the clone's HEAD points to a branch that does not exist".to_owned(),
        };
        let branches = self.branches().unwrap_or_default();
        Error::new(ErrorKind::Settings, wanted)
            .subject(self.place.root.display().to_string())
            .hint(format!("set STATE_BRANCH to one that it has: {}", branches.join(", ")))
    }

    fn commit(&self, revision: &Revision) -> Result<git2::Commit<'_>> {
        let found = Oid::from_str(revision.as_str()).and_then(|id| self.repo.find_commit(id));
        found.map_err(|error| unknown_revision(&self.place.root).source(error))
    }

    /// The tree of a revision; `None` for null.
    fn tree(&self, revision: &Revision) -> Result<Option<Tree<'_>>> {
        if revision.is_null() {
            return Ok(None);
        }
        let tree = self.commit(revision)?.tree();
        tree.map(Some).map_err(|error| self.failed("reading a revision failed", error))
    }

    fn content(&self, tree: &Tree<'_>, path: &str) -> Result<Option<Vec<u8>>> {
        if self.place.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Stopped, "the run was asked to stop").subject(path));
        }
        if path.contains('\0') {
            return Ok(None);
        }
        let damaged = |error: git2::Error| self.failed("reading a file failed", error).subject(path);
        // Not `Tree::get_path`, which refuses some names that Git allows and mends others.
        let mut folder = tree.clone();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let Some((kind, id)) = folder.get_name(part).map(|entry| (entry.kind(), entry.id())) else {
                return Ok(None);
            };
            match (parts.peek(), kind) {
                (None, Some(ObjectType::Blob)) => {
                    return Ok(Some(self.repo.find_blob(id).map_err(damaged)?.content().to_vec()));
                }
                (Some(_), Some(ObjectType::Tree)) => folder = self.repo.find_tree(id).map_err(damaged)?,
                // A folder where a file is asked for, or the commit of a submodule.
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn failed(&self, message: &str, error: git2::Error) -> Error {
        Error::new(ErrorKind::Repository, message)
            .subject(self.place.root.display().to_string())
            .hint("run `git fsck` in the clone: when it finds damage, clone again beside it and swap the directories")
            .source(error)
    }
}

/// What a difference of two trees means for the file; `None` for what is no file (submodules).
fn change(delta: &git2::DiffDelta<'_>) -> Option<Change> {
    let is_file =
        |mode| matches!(mode, FileMode::Blob | FileMode::BlobExecutable | FileMode::BlobGroupWritable | FileMode::Link);
    let (old, new) = (delta.old_file(), delta.new_file());
    let was = delta.status() != Delta::Added && is_file(old.mode());
    let is = delta.status() != Delta::Deleted && is_file(new.mode());
    let (kind, file) = match (was, is) {
        // Only the mode differs.
        (true, true) if old.id() == new.id() => return None,
        (true, true) => (ChangeKind::Modified, new),
        (false, true) => (ChangeKind::Added, new),
        (true, false) => (ChangeKind::Removed, old),
        (false, false) => return None,
    };
    Some(Change { path: String::from_utf8_lossy(file.path_bytes()?).into_owned(), kind })
}

fn cannot_open(root: &Path, error: git2::Error) -> Error {
    let subject = root.display().to_string();
    if error.code() == ErrorCode::Owner {
        return Error::new(ErrorKind::Denied, "the repository belongs to another user, so Git refuses it")
            .hint(format!(
                "run borg-slave as the owner, or as its user: git config --global --add safe.directory {subject}"
            ))
            .subject(subject)
            .source(error);
    }
    Error::new(ErrorKind::Repository, "cannot open the repository").subject(subject).source(error)
}

fn revision(id: Oid) -> Revision {
    // libgit2 prints full lower-case digits.
    Revision::parse(&id.to_string()).unwrap_or_else(|_| Revision::null())
}

fn full_name(branch: &str) -> String {
    if branch.starts_with("refs/") { branch.to_owned() } else { format!("refs/heads/{branch}") }
}
