//! Following the master with Git: fetch one branch, then move the local one to it.

use std::time::Instant;

use git2::{Oid, Repository};

use super::{GitRepo, Moving, Opened, full_name, revision};
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Cmd, Finished};
use crate::state_repo::complaint::{explain, too_slow};
use crate::state_repo::{PULLED_BY_SLAVE, PullHooks, PullOutcome, Revision, Vcs, inside_a_hook, unattended};

/// Keeps the commits that a rewritten history leaves behind from being collected as garbage, so that the difference
/// to what was applied last can still be read.
const BEFORE_REWRITE: &str = "refs/borg-slave/before-rewrite";

/// Which ref follows which.
#[derive(Debug, Clone)]
struct Course {
    /// `refs/heads/main` here.
    local: String,
    /// The remote's name.
    remote: String,
    /// `refs/heads/main` there.
    theirs: String,
    /// `refs/remotes/origin/main`: theirs, as we saw it last.
    tracking: String,
    /// Whether the local branch is checked out, so that files have to move with it.
    checked_out: bool,
    /// Where the local branch is; null when it does not exist yet.
    before: Revision,
}

/// How the local branch gets to the fetched commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// It is there.
    None,
    /// Forwards.
    FastForward,
    /// The master's history was rewritten, or somebody committed here.
    Rewrite,
}

impl GitRepo {
    pub(in crate::state_repo) async fn pull(&self, hooks: PullHooks) -> Result<PullOutcome> {
        if self.options.hook_env.is_some() {
            return Err(inside_a_hook());
        }
        let recovered = match self.read(|opened| Ok(Moving::of(&opened.repo))).await? {
            Some(moving) => moving.take_back(|| self.git()).await?,
            None => false,
        };
        let course = self.read(Opened::course).await?;
        let before = course.before.clone();
        if !self.fetch(&course).await? {
            let after = before.clone();
            return Ok(PullOutcome { before, after, recovered, rewritten: false });
        }
        let planned = course.clone();
        let (to, step) = self.read(move |opened| opened.plan(&planned)).await?;
        if step == Move::Rewrite {
            let old = course.clone();
            self.read(move |opened| opened.keep_old_tip(&old)).await?;
        }
        match step {
            Move::None => {}
            _ if course.checked_out => self.move_work_tree(&course, &to, step, hooks).await?,
            _ => {
                let (course, to) = (course.clone(), to.clone());
                self.read(move |opened| opened.move_branch(&course, &to)).await?;
            }
        }
        let rewritten = step == Move::Rewrite;
        if rewritten {
            tracing::warn!(
                clone = %self.place.root.display(), before = %before, after = %to,
                "the branch does not continue where the clone stood; following the master (the old tip stays at {BEFORE_REWRITE})"
            );
        }
        Ok(PullOutcome { before, after: to, recovered, rewritten })
    }

    pub(in crate::state_repo) async fn master_answers(&self) -> Result<bool> {
        let named = |opened: &Opened| match opened.repo.remotes() {
            Ok(remotes) => Ok(!remotes.is_empty()),
            Err(error) => Err(opened.failed("listing the remotes failed", error)),
        };
        if !self.read(named).await? {
            return Ok(false);
        }
        let course = self.read(Opened::course).await?;
        let heads = self.heads(&course).await?;
        if !heads.status.success() {
            return Err(self.refused("git ls-remote", &heads));
        }
        let heads = heads.stdout_text();
        let has_it = heads.lines().any(|line| line.split_whitespace().nth(1) == Some(&course.theirs));
        if has_it || heads.is_empty() {
            return Ok(true);
        }
        let said = format!("couldn't find remote ref {}", course.theirs);
        Err(explain(Vcs::Git, &self.place.root, "git ls-remote", &said))
    }

    async fn heads(&self, course: &Course) -> Result<Finished> {
        self.run(self.git().args(["ls-remote", "--heads", "--", &course.remote]), "git ls-remote").await
    }

    /// Fetches the one branch; false when the master has no commit at all.
    async fn fetch(&self, course: &Course) -> Result<bool> {
        let refspec = format!("+{}:{}", course.theirs, course.tracking);
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--", &course.remote, &refspec];
        let finished = self.run(self.git().args(fetch), "git fetch").await?;
        if finished.status.success() {
            return Ok(true);
        }
        if finished.stderr.contains("couldn't find remote ref") {
            let list = self.heads(course).await?;
            if list.status.success() && list.stdout.is_empty() {
                return Ok(false);
            }
        }
        Err(self.refused("git fetch", &finished))
    }

    async fn move_work_tree(&self, course: &Course, to: &Revision, step: Move, hooks: PullHooks) -> Result<()> {
        let mut git = self.git();
        if hooks == PullHooks::Skip {
            git = git.args(["-c", "core.hooksPath=/dev/null"]).env(PULLED_BY_SLAVE, "1");
        }
        if step == Move::FastForward {
            return self
                .move_files(git.args(["merge", "--quiet", "--ff-only", to.as_str()]), course, to, "git merge")
                .await;
        }
        let status = ["status", "--porcelain", "--untracked-files=no"];
        let finished = self.run(self.git().args(status), "git status").await?;
        if !finished.status.success() {
            return Err(self.refused("git status", &finished));
        }
        if !finished.stdout.is_empty() {
            return Err(Error::new(
                ErrorKind::Repository,
                "the master's history was rewritten, and files in the clone's work tree were changed by hand",
            )
            .subject(self.place.root.display().to_string())
            .hint(format!("`git status` shows them; when nobody needs them: git reset --hard {}", course.tracking))
            .source(finished.stdout_text()));
        }
        self.move_files(git.args(["reset", "--quiet", "--hard", to.as_str()]), course, to, "git reset").await
    }

    async fn move_files(&self, git: Cmd, course: &Course, to: &Revision, doing: &str) -> Result<()> {
        let (from, target) = (course.before.clone(), to.clone());
        let places = self.read(move |opened| {
            let from = if from.is_null() { Oid::ZERO_SHA1 } else { opened.commit(&from)?.id() };
            Ok((Moving::of(&opened.repo), from, opened.commit(&target)?.id()))
        });
        let (Some(moving), from, to) = places.await? else {
            return Err(Error::new(ErrorKind::Bug, "a bare repository has no files to move"));
        };
        let finished = moving.run(git, from, to, &course.local).await?;
        if finished.status.success() { Ok(()) } else { Err(self.refused(doing, &finished)) }
    }

    /// A `git` on this clone that asks nobody for a password and leaves nothing running behind.
    fn git(&self) -> Cmd {
        let mut command = Cmd::new("git")
            .cwd(&self.place.root)
            .args(["-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false"])
            .env("GIT_TERMINAL_PROMPT", "0");
        if !self.options.ssh.is_empty() {
            command = command.env("GIT_SSH_COMMAND", unattended(&self.options.ssh));
        }
        command
    }

    async fn run(&self, command: Cmd, doing: &str) -> Result<Finished> {
        let limit = self.options.time_limit;
        let started = Instant::now();
        match command.time_limit(limit).stop(&self.options.stop).run().await {
            Err(error) if error.kind() == ErrorKind::Process && started.elapsed() >= limit => {
                Err(too_slow(&self.place.root, doing, limit, error))
            }
            finished => finished,
        }
    }

    fn refused(&self, doing: &str, finished: &Finished) -> Error {
        explain(Vcs::Git, &self.place.root, doing, &finished.stderr)
    }
}

impl Opened {
    /// Finds out what follows what, from the settings and the clone's configuration.
    fn course(&self) -> Result<Course> {
        let head = self.repo.find_reference("HEAD").map_err(|error| self.failed("reading HEAD failed", error))?;
        let head = head.symbolic_target().ok().flatten().map(str::to_owned);
        let local = match (&self.place.branch, &head) {
            (Some(branch), _) => full_name(branch),
            (None, Some(head)) => head.clone(),
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Settings,
                    "no branch is checked out in the clone (HEAD is detached)",
                )
                .subject(self.place.root.display().to_string())
                .hint("set STATE_BRANCH, or check the branch out: git switch <branch>"));
            }
        };
        let short = local.strip_prefix("refs/heads/").unwrap_or(&local).to_owned();
        let remote = self.remote(&short)?;
        let theirs = setting(&self.repo, &format!("branch.{short}.merge")).unwrap_or_else(|| local.clone());
        let tracking = format!("refs/remotes/{remote}/{}", theirs.strip_prefix("refs/heads/").unwrap_or(&theirs));
        let before = match self.repo.find_reference(&local).and_then(|reference| reference.peel_to_commit()) {
            Ok(commit) => revision(commit.id()),
            Err(_) => Revision::null(),
        };
        let checked_out = !self.repo.is_bare() && head.as_ref() == Some(&local);
        Ok(Course { local, remote, theirs, tracking, checked_out, before })
    }

    /// The branch's own remote, `origin`, or the only one.
    fn remote(&self, branch: &str) -> Result<String> {
        let no_remote = |message: &str| {
            Error::new(ErrorKind::Repository, message)
                .subject(self.place.root.display().to_string())
                .hint("name the master: git remote add origin <master's URL>")
        };
        let remotes = self.repo.remotes().map_err(|error| self.failed("listing the remotes failed", error))?;
        let remotes: Vec<&str> = remotes.iter().filter_map(|name| name.ok().flatten()).collect();
        let own =
            setting(&self.repo, &format!("branch.{branch}.remote")).filter(|name| remotes.contains(&name.as_str()));
        match (own, remotes.as_slice()) {
            (Some(own), _) => Ok(own),
            (None, []) => Err(no_remote("the clone does not know where to fetch from: it has no remote")),
            (None, [only]) => Ok((*only).to_owned()),
            (None, several) if several.contains(&"origin") => Ok("origin".to_owned()),
            (None, _) => Err(no_remote("the clone has several remotes and none is called origin")),
        }
    }

    /// Where the fetched branch is, and how to get there.
    fn plan(&self, course: &Course) -> Result<(Revision, Move)> {
        let fetched = self.repo.find_reference(&course.tracking).and_then(|reference| reference.peel_to_commit());
        let to = fetched.map_err(|error| self.failed("reading what was fetched failed", error))?.id();
        let step = if course.before == revision(to) {
            Move::None
        } else if course.before.is_null() || self.continues(&course.before, to)? {
            Move::FastForward
        } else {
            Move::Rewrite
        };
        Ok((revision(to), step))
    }

    fn continues(&self, before: &Revision, to: Oid) -> Result<bool> {
        let before = self.commit(before)?.id();
        self.repo
            .graph_descendant_of(to, before)
            .map_err(|error| self.failed("comparing the clone with its master failed", error))
    }

    /// Moves a branch that no work tree shows, unless somebody else moved it meanwhile.
    fn move_branch(&self, course: &Course, to: &Revision) -> Result<()> {
        let failed = |error: git2::Error| {
            let locked = error.code() == git2::ErrorCode::Locked;
            let error =
                Error::new(if locked { ErrorKind::Busy } else { ErrorKind::Repository }, "moving the branch failed")
                    .subject(format!("{} {}", self.place.root.display(), course.local))
                    .source(error);
            if locked {
                error.hint(
                    "another git works in the clone, or one was killed there: when none runs, remove the .lock file",
                )
            } else {
                error
            }
        };
        let to = self.commit(to)?.id();
        let message = "borg-slave: follow the master";
        if course.before.is_null() {
            self.repo.reference(&course.local, to, false, message).map_err(failed)?;
        } else {
            let before = self.commit(&course.before)?.id();
            self.repo.reference_matching(&course.local, to, true, before, message).map_err(failed)?;
        }
        Ok(())
    }

    fn keep_old_tip(&self, course: &Course) -> Result<()> {
        let before = self.commit(&course.before)?.id();
        let kept = self.repo.reference(BEFORE_REWRITE, before, true, "borg-slave: history was rewritten");
        kept.map(|_| ()).map_err(|error| self.failed("keeping the old tip failed", error))
    }
}

fn setting(repo: &Repository, name: &str) -> Option<String> {
    repo.config().and_then(|config| config.get_string(name)).ok()
}
