//! The client programs, past Debian's wrapper.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::preflight::ToolVersion;
use crate::process::Cmd;

/// Where Debian's packages put the programs of each major version.
pub(super) const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

/// What Debian's `/usr/bin/pg_restore` is a link to (package postgresql-client-common).
const DEBIAN_WRAPPER: &str = "pg_wrapper";

/// How long a program may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// What to start as `pg_restore`.
///
/// Debian's is a Perl script that chooses a version; it takes longer than restoring a small table, and
/// each dump needs three runs. So it is asked once, and what it chooses is started directly.
pub(super) async fn pg_restore(stop: &CancellationToken) -> OsString {
    static PROGRAM: OnceCell<OsString> = OnceCell::const_new();
    PROGRAM.get_or_init(|| find("pg_restore", stop)).await.clone()
}

/// The newest `pg_restore` before version `major` that Debian's packages have put beside others.
pub(super) fn pg_restore_before(major: u32) -> Option<PathBuf> {
    newest_before(Path::new(DEBIAN_VERSIONS), major, "pg_restore")
}

/// What to start as `psql`: not Debian's script, which takes the cluster from files of the user.
pub(super) async fn psql(stop: &CancellationToken) -> OsString {
    static PROGRAM: OnceCell<OsString> = OnceCell::const_new();
    PROGRAM.get_or_init(|| find("psql", stop)).await.clone()
}

/// The program that Debian's script would start as `name`; where there is no such script, `name` itself.
async fn find(name: &str, stop: &CancellationToken) -> OsString {
    let past_wrapper = async {
        let on_path = std::env::var_os("PATH")?;
        let program = std::env::split_paths(&on_path).map(|dir| dir.join(name)).find(|file| file.is_file())?;
        if !is_wrapper(&program) {
            return None;
        }
        let told = Cmd::new(name).arg("--version").time_limit(VERSION_LIMIT).stop(stop).run().await.ok()?;
        let version = ToolVersion::parse(&told.success().ok()?.stdout_text())?;
        chosen(Path::new(DEBIAN_VERSIONS), version.major, name).map(PathBuf::into_os_string)
    };
    past_wrapper.await.unwrap_or_else(|| name.into())
}

fn is_wrapper(program: &Path) -> bool {
    program.canonicalize().is_ok_and(|file| file.file_name().is_some_and(|name| name == DEBIAN_WRAPPER))
}

fn chosen(versions: &Path, major: u32, name: &str) -> Option<PathBuf> {
    let program = versions.join(major.to_string()).join("bin").join(name);
    program.is_file().then_some(program)
}

fn newest_before(versions: &Path, major: u32, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(versions).ok()?.flatten();
    let majors = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<_> = majors.filter(|found| *found < major).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().find_map(|found| chosen(versions, found, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wrapper_is_passed_by_and_only_for_a_program_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("pg_wrapper"), "").unwrap();
        std::os::unix::fs::symlink(path("pg_wrapper"), path("pg_restore")).unwrap();
        std::fs::create_dir_all(path("15/bin")).unwrap();
        std::fs::write(path("15/bin/pg_restore"), "").unwrap();
        assert!(is_wrapper(&path("pg_restore")));
        assert!(!is_wrapper(&path("15/bin/pg_restore")));
        assert_eq!(chosen(dir.path(), 15, "pg_restore"), Some(path("15/bin/pg_restore")));
        assert_eq!(chosen(dir.path(), 16, "pg_restore"), None);
    }

    #[test]
    fn of_several_versions_the_newest_before_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let program = |major: u32| dir.path().join(format!("{major}/bin/pg_restore"));
        for major in [9, 13, 15, 17] {
            std::fs::create_dir_all(program(major).parent().unwrap()).unwrap();
            std::fs::write(program(major), "").unwrap();
        }
        // Its programs have been removed.
        std::fs::create_dir_all(dir.path().join("16")).unwrap();
        assert_eq!(newest_before(dir.path(), 17, "pg_restore"), Some(program(15)));
        assert_eq!(newest_before(dir.path(), 9, "pg_restore"), None);
        assert_eq!(newest_before(&dir.path().join("none"), 17, "pg_restore"), None);
    }
}
