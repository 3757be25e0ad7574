//! Where the clone and its `.env` file are.

use std::path::{Path, PathBuf};

/// Where the program was started.
#[derive(Debug, Clone)]
pub struct Place {
    /// The `--env-file` of the command line; relative to the working directory.
    pub env_file: Option<PathBuf>,
    /// The working directory, absolute.
    pub working_directory: PathBuf,
}

impl Place {
    /// `path` as an absolute path.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.working_directory.join(path)
    }

    /// The files of settings that count for the clone at `root`, there or not, the first one that is there before
    /// the others.
    #[must_use]
    pub fn env_files(&self, root: &Path) -> Vec<PathBuf> {
        match &self.env_file {
            Some(named) => vec![self.resolve(named)],
            None => env_files_in(root).into(),
        }
    }

    /// The nearest repository at or above the working directory that is not the program's own checkout.
    pub(super) fn repository(&self) -> Option<PathBuf> {
        self.working_directory
            .ancestors()
            .find(|dir| is_repository(dir) && !is_git_directory_of_clone(dir) && !is_own_checkout(dir))
            .map(Path::to_path_buf)
    }
}

/// The `.env` file of the clone at `root`, when there is one.
pub(super) fn env_file_of(root: &Path) -> Option<PathBuf> {
    env_files_in(root).into_iter().find(|path| path.is_file())
}

fn env_files_in(root: &Path) -> [PathBuf; 2] {
    [root.join(".env"), root.join("code").join(".env")]
}

/// Whether `dir` is a Mercurial clone, a Git clone (whose `.git` is a file in a linked work tree), or
/// a bare Git repository.
pub(super) fn is_repository(dir: &Path) -> bool {
    dir.join(".hg").is_dir()
        || dir.join(".git").exists()
        || (dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir())
}

/// Git starts the receive hooks of a clone inside its `.git`, which looks like a bare repository.
fn is_git_directory_of_clone(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name == ".git")
}

/// Whether `dir` holds the source of this program.
pub(crate) fn is_own_checkout(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|manifest| {
        manifest.lines().any(|line| line.replace(char::is_whitespace, "") == r#"name="borg-slave""#)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn found_from(below: &Path, dir: &str) -> Option<String> {
        let place = Place { env_file: None, working_directory: below.join(dir) };
        let found = place.repository()?;
        Some(found.strip_prefix(below).unwrap().display().to_string())
    }

    #[test]
    fn the_nearest_repository_counts_but_not_the_programs_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("state/.hg/store")).unwrap();
        fs::create_dir_all(at("state/code/.git")).unwrap();
        fs::create_dir_all(at("state/code/src")).unwrap();
        fs::write(at("state/code/Cargo.toml"), "[package]\nname  = \"borg-slave\"\n").unwrap();
        fs::create_dir_all(at("clone/.git/refs")).unwrap();
        fs::create_dir_all(at("clone/.git/objects")).unwrap();
        fs::write(at("clone/.git/HEAD"), "").unwrap();
        fs::create_dir_all(at("bare/refs")).unwrap();
        fs::create_dir_all(at("bare/objects")).unwrap();
        fs::write(at("bare/HEAD"), "").unwrap();
        fs::create_dir_all(at("tree/geoserver")).unwrap();
        fs::write(at("tree/.git"), "gitdir: ../clone").unwrap();
        for (start, root) in [
            ("state", "state"),
            ("state/code", "state"),
            ("state/code/src", "state"),
            ("clone/.git", "clone"),
            ("bare", "bare"),
            ("tree/geoserver", "tree"),
        ] {
            assert_eq!(found_from(dir.path(), start).as_deref(), Some(root), "{start}");
        }
    }
}
