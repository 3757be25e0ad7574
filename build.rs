//! Gives the program its version: the package's, and for one that is built for use from a checkout the
//! commit and its date. A development build has no commit, so that committing makes nothing be built anew.

use std::path::Path;
use std::process::Command;

fn main() {
    let package = env!("CARGO_PKG_VERSION");
    // Makers of packages build from an archive and may say themselves what it was made of.
    let told = std::env::var("BORG_SLAVE_COMMIT").ok().filter(|told| !told.trim().is_empty());
    let version = match told.or_else(commit) {
        Some(commit) => format!("{package} ({commit})"),
        None => package.to_owned(),
    };
    println!("cargo::rustc-env=BORG_SLAVE_VERSION={version}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BORG_SLAVE_COMMIT");
}

/// Commit and date of the checkout that this file belongs to; `None` outside of one and without git.
fn commit() -> Option<String> {
    // An archive that lies inside somebody else's checkout is not of that checkout's commit.
    if !Path::new(".git").exists() || std::env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        return None;
    }
    let said = git(&["log", "-1", "--format=%h %cs"])?;
    // The log of HEAD grows with every commit and every switch to another; nothing else has to be watched.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for file in [log.as_str(), ".git"] {
        if Path::new(file).is_file() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    Some(said)
}

#[allow(clippy::disallowed_methods, reason = "the door for child processes is in the crate that this builds")]
fn git(arguments: &[&str]) -> Option<String> {
    // A hook's variables would name another repository than the one that is built.
    let output = Command::new("git").args(arguments).env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}
