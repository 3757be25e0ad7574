//! Masters of the state repository, built file by file, and clones of them, with Mercurial and with Git.
//!
//! Each master lives in a directory of its own and sees no configuration but its own.

#![allow(clippy::disallowed_methods, reason = "tests build the world that the program meets with plain hg and git")]
#![allow(clippy::unwrap_used, reason = "a step that fails ends the test")]
#![allow(dead_code, reason = "shared by several test files")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use borg_slave::state_repo::{Revision, Vcs};
use tempfile::TempDir;

/// The branch that all tests follow, unless they are about branches: hg's own first one.
pub(crate) const HG_BRANCH: &str = "default";
/// The branch that Git masters start with.
pub(crate) const GIT_BRANCH: &str = "main";

/// A master repository with a work tree, and room for clones beside it.
#[derive(Debug)]
pub(crate) struct Master {
    dir: TempDir,
    vcs: Vcs,
}

impl Master {
    /// An empty master.
    pub(crate) fn new(vcs: Vcs) -> Self {
        let master = Self { dir: tempfile::tempdir().expect("a temporary directory"), vcs };
        fs::create_dir(master.home()).unwrap();
        match vcs {
            Vcs::Hg => master.run_in(master.dir.path(), ["hg", "init", "master"]),
            Vcs::Git => master.run_in(master.dir.path(), ["git", "init", "-q", "-b", GIT_BRANCH, "master"]),
        };
        master
    }

    /// An empty Mercurial master.
    pub(crate) fn hg() -> Self {
        Self::new(Vcs::Hg)
    }

    /// An empty Git master.
    pub(crate) fn git() -> Self {
        Self::new(Vcs::Git)
    }

    pub(crate) fn vcs(&self) -> Vcs {
        self.vcs
    }

    /// The master's work tree.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("master")
    }

    /// A place beside the master, for clones and for whatever a test needs.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The first branch's name.
    pub(crate) fn branch(&self) -> &'static str {
        match self.vcs {
            Vcs::Hg => HG_BRANCH,
            Vcs::Git => GIT_BRANCH,
        }
    }

    /// Writes a file into the work tree, folders included.
    pub(crate) fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Removes a file from the work tree.
    pub(crate) fn remove(&self, path: impl AsRef<Path>) -> &Self {
        fs::remove_file(self.path().join(path)).unwrap();
        self
    }

    /// Renames a file, telling the VCS so.
    pub(crate) fn rename(&self, from: &str, to: &str) -> &Self {
        self.run([self.program(), "mv", "--", from, to]);
        self
    }

    /// Commits the whole work tree.
    pub(crate) fn commit(&self, message: &str) -> Revision {
        match self.vcs {
            Vcs::Hg => {
                self.run(["hg", "addremove", "-q"]);
                self.run(["hg", "commit", "-q", "-m", message]);
            }
            Vcs::Git => {
                self.run(["git", "add", "-A"]);
                self.run(["git", "commit", "-q", "--allow-empty", "-m", message]);
            }
        }
        self.head()
    }

    /// What is checked out in the master.
    pub(crate) fn head(&self) -> Revision {
        let head = match self.vcs {
            Vcs::Hg => self.run(["hg", "log", "-r", ".", "-T", "{node}"]),
            Vcs::Git => self.run(["git", "rev-parse", "HEAD"]),
        };
        Revision::parse(head.trim()).expect("a full hash")
    }

    /// Checks out another revision; with Git a branch given by name stays attached.
    pub(crate) fn update(&self, revision: &str) -> &Self {
        match self.vcs {
            Vcs::Hg => self.run(["hg", "update", "-q", "-C", revision]),
            Vcs::Git => self.run(["git", "checkout", "-q", "-f", revision]),
        };
        self
    }

    /// Starts a named branch where the work tree stands.
    pub(crate) fn start_branch(&self, name: &str) -> &Self {
        match self.vcs {
            Vcs::Hg => self.run(["hg", "branch", "-q", name]),
            Vcs::Git => self.run(["git", "checkout", "-q", "-b", name]),
        };
        self
    }

    /// Merges another head or branch into what is checked out, and commits.
    pub(crate) fn merge(&self, other: &str) -> Revision {
        match self.vcs {
            Vcs::Hg => {
                self.run(["hg", "merge", "-q", "-t", ":local", "-r", other]);
                self.run(["hg", "commit", "-q", "-m", "merge"]);
            }
            Vcs::Git => {
                self.run(["git", "merge", "-q", "--no-edit", "--no-ff", "-X", "ours", other]);
            }
        }
        self.head()
    }

    /// Clones into `name` beside the master.
    pub(crate) fn clone_to(&self, name: &str) -> PathBuf {
        let to = self.beside(name);
        let (from, target) = (self.path(), to.clone());
        match self.vcs {
            Vcs::Hg => self.run([OsStr::new("hg"), "clone".as_ref(), "-q".as_ref(), from.as_ref(), target.as_ref()]),
            Vcs::Git => {
                // `--no-local`: a hard-linked clone would share what tests damage.
                let words: [&OsStr; 6] = [
                    "git".as_ref(),
                    "clone".as_ref(),
                    "-q".as_ref(),
                    "--no-local".as_ref(),
                    from.as_ref(),
                    target.as_ref(),
                ];
                self.run(words)
            }
        };
        to
    }

    /// Clones into a bare Git repository, which can be pushed to.
    pub(crate) fn clone_bare_to(&self, name: &str) -> PathBuf {
        let (from, to) = (self.path(), self.beside(name));
        let words: [&OsStr; 6] =
            ["git".as_ref(), "clone".as_ref(), "-q".as_ref(), "--bare".as_ref(), from.as_ref(), to.as_ref()];
        self.run(words);
        to
    }

    fn program(&self) -> &'static str {
        match self.vcs {
            Vcs::Hg => "hg",
            Vcs::Git => "git",
        }
    }

    /// Runs a command in the master's work tree and returns what it prints.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> String {
        self.run_in(&self.path(), words)
    }

    /// Runs a command that has to succeed.
    pub(crate) fn run_in<S: AsRef<OsStr>>(&self, dir: &Path, words: impl IntoIterator<Item = S>) -> String {
        let mut command = self.command(dir, words);
        let output = command.output().expect("the command starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} failed ({}): {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A command with the master's hermetic environment.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, dir: &Path, words: impl IntoIterator<Item = S>) -> Command {
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).current_dir(dir).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, value) in hermetic(&self.home()) {
            command.env(name, value);
        }
        command
    }
}

/// An environment in which neither VCS finds configuration of this machine.
fn hermetic(home: &Path) -> Vec<(&'static str, String)> {
    let date = "2016-11-05T01:12:44+00:00";
    let fixed = [
        ("HGRCPATH", ""),
        ("HGPLAIN", "1"),
        ("HGENCODING", "UTF-8"),
        ("HGUSER", "Master <master@example.org>"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Master"),
        ("GIT_AUTHOR_EMAIL", "master@example.org"),
        ("GIT_COMMITTER_NAME", "Master"),
        ("GIT_COMMITTER_EMAIL", "master@example.org"),
        ("GIT_AUTHOR_DATE", date),
        ("GIT_COMMITTER_DATE", date),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
    ];
    let home = home.to_string_lossy().into_owned();
    let mut env: Vec<_> = fixed.map(|(name, value)| (name, value.to_owned())).into();
    env.push(("XDG_CONFIG_HOME", home.clone()));
    env.push(("HOME", home));
    env
}
