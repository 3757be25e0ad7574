//! The program's own checkout: a Git repository that is brought to a branch of its remote. What somebody has changed
//! or committed there is never thrown away.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{Oid, Repository, RepositoryState};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Settings};
use crate::error::{Error, ErrorKind, Result, io_error};
use crate::process::{Cmd, Finished};
use crate::state_repo::{Moving, mask_credentials, unattended};

/// How long a fetch may take.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// How long a look at the work tree may take.
const LOCAL_LIMIT: Duration = Duration::from_secs(120);

/// How many changed files a message names.
const NAMED_FILES: usize = 3;

/// In the directory of Git: the revision that was built last.
const BUILT: &str = "borg-slave-built";

/// In the directory of Git: locked by whoever works on the checkout.
const LOCK: &str = "borg-slave.lock";

/// The checkout.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) root: PathBuf,
    /// Git's own directory.
    git: PathBuf,
}

/// Which branch follows which.
struct Course {
    remote: String,
    /// The remote's branch, as it was seen last.
    tracking: String,
    /// Where that has been before, as far as Git remembers.
    before: Vec<Oid>,
}

impl Checkout {
    /// The checkout that the settings name, else the one that `program` lies in, else `code` in the clone.
    pub(super) fn find(settings: &Settings, program: &Path) -> Result<Self> {
        let root = match &settings.code_path {
            Some(given) => given.clone(),
            None => {
                let beside = settings.state_repository_root.join("code");
                let mut places = program.ancestors().skip(1).chain([beside.as_path()]);
                let found = places.find(|dir| dir.join(".git").exists() && config::is_own_checkout(dir));
                found.map(Path::to_path_buf).ok_or_else(|| {
                    Error::new(ErrorKind::Settings, "there is no checkout of the program to follow CODE_BRANCH in")
                        .subject(program.display().to_string())
                        .hint("set CODE_PATH to the Git checkout that the program is built in, or remove CODE_BRANCH")
                })?
            }
        };
        let root = root.canonicalize().unwrap_or(root);
        if root == settings.state_repository_root {
            return Err(Error::new(ErrorKind::Settings, "CODE_PATH is the clone of the state repository")
                .subject(root.display().to_string())
                .hint("set CODE_PATH to the Git checkout that the program is built in, or remove CODE_BRANCH"));
        }
        let repository = open(&root)?;
        if repository.is_bare() {
            return Err(unusable(&root, "has no files checked out"));
        }
        Ok(Self { git: repository.path().to_path_buf(), root })
    }

    /// The right to work on the checkout, as long as the file is open; `None` while another process has it.
    pub(super) fn turn(&self) -> Result<Option<File>> {
        let path = self.git.join(LOCK);
        let file = File::create(&path).map_err(|source| io_error(&path, "cannot open the lock", source))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(io_error(&path, "cannot lock the file", source)),
        }
    }

    /// What is checked out.
    pub(super) fn head(&self) -> Result<String> {
        let repository = open(&self.root)?;
        let head = repository.head().and_then(|head| head.peel_to_commit());
        head.map(|commit| commit.id().to_string()).map_err(|error| self.failed("reading HEAD failed", error))
    }

    /// The revision that was built last, if that is known.
    pub(super) fn built(&self) -> Option<String> {
        std::fs::read_to_string(self.git.join(BUILT)).ok().map(|text| text.trim().to_owned())
    }

    /// Notes that `revision` is built.
    pub(super) fn was_built(&self, revision: &str) -> Result<()> {
        let path = self.git.join(BUILT);
        // Half a hash is none, so that the worst that a torn write costs is another build.
        std::fs::write(&path, format!("{revision}\n"))
            .map_err(|source| io_error(&path, "cannot note what was built", source))
    }

    /// Fetches `branch` from its remote and checks it out.
    pub(super) async fn bring_to(&self, branch: &str, ssh: &[String], stop: &CancellationToken) -> Result<()> {
        let moving = self.moving()?;
        let git = self.git(ssh)?;
        moving.take_back(|| git.clone()).await?;
        let course = self.course(branch)?;
        let refspec = format!("+refs/heads/{branch}:{}", course.tracking);
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--", &course.remote, &refspec];
        let fetched = self.git(ssh)?.args(fetch).time_limit(FETCH_LIMIT).stop(stop).run().await;
        self.was_answered(fetched, branch)?;
        let Some(to) = self.destination(branch, &course)? else { return Ok(()) };
        self.is_as_committed(ssh, stop).await?;
        // It refuses by itself what would write over a file that Git does not keep.
        let from = tip(&open(&self.root)?, "HEAD").unwrap_or(Oid::ZERO_SHA1);
        let (name, target) = (to.to_string(), format!("refs/heads/{branch}"));
        let checkout = ["checkout", "--quiet", "--no-overwrite-ignore", "--no-track", "-B", branch, &name];
        self.succeeded("checkout", moving.run(git.args(checkout), from, to, &target).await?)?;
        let to = name;
        tracing::info!(checkout = %self.root.display(), branch, revision = &to[..12], "the program's checkout has moved");
        Ok(())
    }

    /// Looks whether [`Checkout::bring_to`] would work, and changes nothing.
    pub(super) async fn look(&self, branch: &str, ssh: &[String], stop: &CancellationToken) -> Result<String> {
        let remote = self.course(branch)?.remote;
        let name = format!("refs/heads/{branch}");
        let ask = ["ls-remote", "--quiet", "--exit-code", "--", &remote, &name];
        let answer = self.git(ssh)?.args(ask).time_limit(FETCH_LIMIT).stop(stop).run().await;
        self.was_answered(answer, branch)?;
        // What a kill has left is not what somebody has done.
        if !self.moving()?.is_under_way() {
            self.is_as_committed(ssh, stop).await?;
        }
        let built = self.built();
        let built = built.as_deref().and_then(|built| built.get(..12)).unwrap_or("nothing yet");
        Ok(format!("{} follows `{branch}` of {remote}; the daemon has built {built}", self.root.display()))
    }

    async fn is_as_committed(&self, ssh: &[String], stop: &CancellationToken) -> Result<()> {
        let changed = self.run(ssh, &["status", "--porcelain", "--untracked-files=no"], stop).await?.stdout_text();
        if changed.is_empty() { Ok(()) } else { Err(self.changed_by_hand(&changed)) }
    }

    fn course(&self, branch: &str) -> Result<Course> {
        let repository = open(&self.root)?;
        let remotes = repository.remotes().map_err(|error| self.failed("listing the remotes failed", error))?;
        let remotes: Vec<&str> = remotes.iter().filter_map(|name| name.ok().flatten()).collect();
        let own = repository.config().and_then(|config| config.get_string(&format!("branch.{branch}.remote"))).ok();
        let own = own.filter(|own| remotes.contains(&own.as_str()));
        let remote = match (own, remotes.as_slice()) {
            (Some(own), _) => own,
            (None, [only]) => (*only).to_owned(),
            (None, several) if several.contains(&"origin") => "origin".to_owned(),
            (None, _) => {
                return Err(unusable(&self.root, "does not know where to fetch from")
                    .hint("name the repository of the program: git remote add origin <URL>"));
            }
        };
        let tracking = format!("refs/remotes/{remote}/{branch}");
        // Not only what it is now: a fetch whose checkout failed has gone on from what is checked out.
        let at = tip(&repository, &tracking);
        let past = at.and_then(|_| repository.reflog(&tracking).ok());
        let past = past.iter().flat_map(|past| past.iter().map(|entry| entry.id_new()));
        let before = at.into_iter().chain(past).collect();
        Ok(Course { remote, tracking, before })
    }

    /// What an answer of the remote means.
    fn was_answered(&self, answer: Result<Finished>, branch: &str) -> Result<()> {
        let message = match answer {
            Ok(finished) if finished.status.success() => return Ok(()),
            // The one is what `fetch` says, the other what `ls-remote --exit-code` ends with.
            Ok(finished)
                if finished.stderr.contains("couldn't find remote ref") || finished.status.code() == Some(2) =>
            {
                return Err(Error::new(ErrorKind::Settings, format!("the remote has no branch `{branch}`"))
                    .subject(self.root.display().to_string())
                    .hint("correct CODE_BRANCH"));
            }
            Ok(finished) => mask_credentials(&finished.stderr),
            Err(error) if error.kind() == ErrorKind::Stopped => return Err(error),
            Err(error) => error.one_line(),
        };
        Err(Error::new(ErrorKind::Unreachable, "the branch of the program cannot be fetched")
            .subject(self.root.display().to_string())
            .hint("try `git fetch` in the checkout as the user that runs borg-slave; BORG_SSH is the way, unless core.sshCommand is set there")
            .source(message))
    }

    /// Where the checkout has to go; `None` when it is there.
    fn destination(&self, branch: &str, course: &Course) -> Result<Option<Oid>> {
        let repository = open(&self.root)?;
        let Some(to) = tip(&repository, &course.tracking) else {
            return Err(unusable(&self.root, "lacks what was fetched"));
        };
        let local = format!("refs/heads/{branch}");
        let head = repository.find_reference("HEAD").map_err(|error| self.failed("reading HEAD failed", error))?;
        let target = head.symbolic_target().ok().flatten().map(str::to_owned);
        let at = tip(&repository, "HEAD");
        if target.as_deref() == Some(&local) && at == Some(to) {
            return Ok(None);
        }
        if repository.state() != RepositoryState::Clean {
            return Err(unusable(&self.root, "is in the middle of a merge, a rebase or the like")
                .hint("end it there, or give the daemon a checkout of its own (CODE_PATH)"));
        }
        // What the remote has, or had before its history was rewritten, is nobody's own work.
        let holds =
            |tip: Oid, commit: Oid| tip == commit || repository.graph_descendant_of(tip, commit).unwrap_or(false);
        let is_theirs = |commit| holds(to, commit) || course.before.iter().any(|before| holds(*before, commit));
        if let Some(own) = tip(&repository, &local).filter(|own| !is_theirs(*own)) {
            return Err(self.own_commits(&format!("branch `{branch}`"), own));
        }
        if let (None, Some(at)) = (&target, at)
            && !is_theirs(at)
        {
            let references =
                repository.references().map_err(|error| self.failed("listing the branches failed", error))?;
            let named = references.flatten().filter(|reference| reference.name() != Ok("HEAD"));
            let mut tips = named.filter_map(|reference| reference.peel_to_commit().ok());
            if !tips.any(|tip| holds(tip.id(), at)) {
                return Err(self.own_commits("no branch, but HEAD,", at));
            }
        }
        Ok(Some(to))
    }

    fn own_commits(&self, place: &str, commit: Oid) -> Error {
        let commit = commit.to_string();
        Error::new(
            ErrorKind::Repository,
            format!("{place} of the program's checkout has commits that the remote lacks: {}", &commit[..12]),
        )
        .subject(self.root.display().to_string())
        .hint("push them, or keep them elsewhere (git branch <name>) and reset the branch; nothing is thrown away here")
    }

    fn changed_by_hand(&self, porcelain: &str) -> Error {
        let files: Vec<&str> = porcelain.lines().filter_map(|line| line.get(3..)).collect();
        let mut names = files[..files.len().min(NAMED_FILES)].join(", ");
        if files.len() > NAMED_FILES {
            names.push_str(&format!(" and {} more", files.len() - NAMED_FILES));
        }
        Error::new(ErrorKind::Repository, format!("files of the program's checkout were changed by hand: {names}"))
            .subject(self.root.display().to_string())
            .hint("`git status` shows them; commit and push them, or put them aside with `git stash`")
    }

    /// `git` in the checkout.
    fn git(&self, ssh: &[String]) -> Result<Cmd> {
        let mut git = Cmd::new("git").args(["-c", "core.hooksPath=/dev/null"]).cwd(&self.root);
        git = git.env("GIT_TERMINAL_PROMPT", "0");
        let configured = open(&self.root)?.config().and_then(|config| config.get_string("core.sshCommand")).is_ok();
        let set = ["GIT_SSH_COMMAND", "GIT_SSH"].iter().any(|name| std::env::var_os(name).is_some());
        Ok(if configured || set { git } else { git.env("GIT_SSH_COMMAND", unattended(ssh)) })
    }

    async fn run(&self, ssh: &[String], arguments: &[&str], stop: &CancellationToken) -> Result<Finished> {
        let finished = self.git(ssh)?.args(arguments).time_limit(LOCAL_LIMIT).stop(stop).run().await?;
        self.succeeded(arguments[0], finished)
    }

    fn succeeded(&self, doing: &str, finished: Finished) -> Result<Finished> {
        finished.success().map_err(|error| {
            Error::new(ErrorKind::Repository, format!("git {doing} failed"))
                .subject(self.root.display().to_string())
                .hint("try it there by hand; nothing was thrown away")
                .source(error)
        })
    }

    fn moving(&self) -> Result<Moving> {
        Moving::of(&open(&self.root)?).ok_or_else(|| unusable(&self.root, "has no files checked out"))
    }

    fn failed(&self, message: &str, error: git2::Error) -> Error {
        Error::new(ErrorKind::Repository, message).subject(self.root.display().to_string()).source(error)
    }
}

fn open(root: &Path) -> Result<Repository> {
    let none: [&Path; 0] = [];
    Repository::open_ext(root, git2::RepositoryOpenFlags::NO_SEARCH, none).map_err(|error| {
        unusable(root, "cannot be opened as a Git repository")
            .hint("CODE_PATH names the checkout that the program is built in; it has to belong to the user that runs borg-slave")
            .source(error)
    })
}

fn tip(repository: &Repository, name: &str) -> Option<Oid> {
    repository.find_reference(name).and_then(|reference| reference.peel_to_commit()).map(|commit| commit.id()).ok()
}

fn unusable(root: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Repository, format!("the program's checkout {what}")).subject(root.display().to_string())
}
