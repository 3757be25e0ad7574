//! Files that go from here to another machine, by `rsync` over the shared SSH connection, or to another
//! directory of this one.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::blocking;
use super::complaint::{Failure, sending};
use super::connection::{Link, stopped};
use super::dispatch::Engine;
use super::location::{Peer, normal_path, split_peer};
use super::preview::write_whole;
use super::remote_shell::by_program;
use crate::error::{Error, ErrorKind, Result, Retry, io_error};
use crate::process::Cmd;

/// How often files are sent again while the other side cannot be reached.
const TRIES: usize = 3;

/// How much of rsync's complaints is kept, in bytes.
const COMPLAINTS_BYTES: usize = 64 * 1024;

/// A directory to which files are sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination(Place);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Remote {
        peer: Peer,
        /// Absolute, or counted from the directory in which a login starts.
        dir: String,
    },
    Local(PathBuf),
}

impl Destination {
    /// Reads `user@host:dir`, `host:dir` or `/dir`. A directory of another machine may be a relative one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] naming the value when it is anything else: `..`, control characters, a
    /// host or user that is none or that begins with a dash.
    pub fn parse(value: &str) -> Result<Self> {
        let refuse = |reason: &str| {
            Error::new(ErrorKind::Document, format!("{value:?} does not say where files go: {reason}"))
                .hint("expected is user@host:dir or /dir; correct preview_path on the master and publish again")
        };
        let value = value.trim();
        if value.chars().any(char::is_control) {
            return Err(refuse("it holds a control character"));
        }
        if value.starts_with('/') {
            let dir = match value.trim_end_matches('/') {
                "" => return Err(refuse("it is the root of the file system")),
                dir => normal_path(dir).map_err(|reason| refuse(&reason))?,
            };
            return Ok(Self(Place::Local(dir.into())));
        }
        if value.contains("://") {
            return Err(refuse("it is a URL"));
        }
        let (peer, dir) = split_peer(value).ok_or_else(|| refuse("it is neither absolute nor has it a host"))?;
        let peer = Peer::parse(peer).map_err(|reason| refuse(&reason))?;
        if dir.starts_with(':') {
            return Err(refuse("it names a module of an rsync server"));
        }
        let dir = dir.strip_prefix("~/").unwrap_or(dir).trim_end_matches('/');
        let normal = match dir.starts_with('/') {
            true => normal_path(dir),
            false => normal_path(&format!("/{dir}")).map(|path| path[1..].to_owned()),
        };
        Ok(Self(Place::Remote { peer, dir: normal.map_err(|reason| refuse(&reason))? }))
    }

    /// `user@host`, as SSH takes it, where it is on another machine.
    #[must_use]
    pub fn login(&self) -> Option<String> {
        match &self.0 {
            Place::Remote { peer, .. } => Some(peer.to_string()),
            Place::Local(_) => None,
        }
    }

    /// The directory, for a machine on which it is mounted at the same path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match &self.0 {
            Place::Remote { dir, .. } => Path::new(dir),
            Place::Local(dir) => dir,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Remote { peer, dir } => write!(f, "{peer}:{dir}"),
            Place::Local(dir) => dir.display().fmt(f),
        }
    }
}

impl std::str::FromStr for Destination {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        Self::parse(value)
    }
}

impl Engine {
    pub(super) async fn send(&self, root: &Path, relative: &Path, to: &Destination) -> Result<()> {
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::Bug, "a file to be sent has no plain relative path")
                .subject(relative.display().to_string()));
        }
        let (peer, dir) = match &to.0 {
            Place::Local(dir) => return copy_here(root, relative, dir).await,
            Place::Remote { peer, dir } => (peer, dir.as_str()),
        };
        let subject = || format!("{} to {to}", root.join(relative).display());
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_jitter()
            .with_max_times(TRIES)
            .build();
        loop {
            let Err(failure) = self.try_to_send(root, relative, peer, dir).await else { return Ok(()) };
            let delay = if failure.kind.retry() == Retry::Soon { delays.next() } else { None };
            let Some(delay) = delay else { return Err(failure.error(subject())) };
            tracing::warn!(
                host = %peer, reason = %failure.message, detail = %failure.detail,
                "the file could not be sent; it is tried again in {} ms", delay.as_millis()
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return Err(stopped().error(subject())),
            }
        }
    }

    async fn try_to_send(&self, root: &Path, relative: &Path, peer: &Peer, dir: &str) -> Result<(), Failure> {
        let _slot = tokio::select! {
            slot = self.slots.acquire() => slot,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        let about_host = |failure: Failure| match failure.kind {
            // The host is what is wrong, whichever file was to go there.
            ErrorKind::Unreachable if failure.place.is_none() => Failure { place: Some(peer.to_string()), ..failure },
            _ => failure,
        };
        let link = self.connections.up(peer).await.map_err(about_host)?;
        let mut sent = self.rsync_to(root, relative, peer, dir, &link).await;
        if sent.as_ref().is_err_and(|failure| lacks_directory(&failure.detail)) {
            // rsync makes the last component only, and older ones cannot be told otherwise.
            sent = match self.make_directory(peer, dir, &link).await {
                Ok(()) => self.rsync_to(root, relative, peer, dir, &link).await,
                Err(failure) => Err(failure),
            };
        }
        if sent.as_ref().is_err_and(|failure| failure.kind == ErrorKind::Unreachable) {
            self.connections.lost(peer, &link).await;
        }
        sent.map_err(about_host)
    }

    async fn rsync_to(&self, root: &Path, relative: &Path, peer: &Peer, dir: &str, link: &Link) -> Result<(), Failure> {
        let mut name = relative.as_os_str().as_encoded_bytes().to_vec();
        name.push(0);
        let user = peer.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let mut from = root.as_os_str().to_owned();
        from.push("/");
        let mut rsync = Cmd::new("rsync")
            // Directories that are there keep their rights and times.
            .args(["--relative", "--no-implied-dirs", "--times", "--copy-links", "--whole-file", "--8-bit-output"])
            // No shell of the other side reads the directory's name.
            .args(["--protect-args", "--files-from=-", "--from0"])
            .arg("-e")
            .arg(self.ssh.for_rsync(&link.options));
        if !self.idle.is_zero() {
            rsync = rsync.arg(format!("--timeout={}", self.idle.as_secs().max(1)));
        }
        let finished = rsync
            .arg("--")
            .arg(from)
            .arg(format!("{user}{}:{dir}", peer.bracketed_host()))
            .stdin(name)
            .stderr_tail(COMPLAINTS_BYTES)
            .time_limit(self.time_limit)
            .stop(&self.stop)
            .run_lines(|_| ())
            .await
            .map_err(Failure::from)?;
        if finished.status.success() {
            return Ok(());
        }
        Err(sending(finished.status.code(), &finished.stderr, dir))
    }

    async fn make_directory(&self, peer: &Peer, dir: &str, link: &Link) -> Result<(), Failure> {
        let script = format!("mkdir -p -- {}", shell_words::quote(dir));
        let answer = by_program(&self.ssh, peer, &script, &link.options, self.idle, &self.stop).await?;
        if answer.status == 0 {
            return Ok(());
        }
        let kind = if answer.stderr.contains("Permission denied") { ErrorKind::Denied } else { ErrorKind::Io };
        Err(Failure::new(kind, "the directory cannot be made there")
            .hint(format!("make {dir} there and give the user that BORG_SSH logs in as the right to write in it"))
            .detail(answer.stderr.trim()))
    }
}

/// Whether `rsync` says that the parent of the directory is not there.
fn lacks_directory(said: &str) -> bool {
    said.lines().any(|line| line.contains("mkdir \"") && line.contains("failed: No such file or directory"))
}

async fn copy_here(root: &Path, relative: &Path, dir: &Path) -> Result<()> {
    let (from, to) = (root.join(relative), dir.join(relative));
    blocking(move || {
        let content = std::fs::read(&from).map_err(|source| io_error(&from, "cannot read the file", source))?;
        // It may be the same directory, or mounted here by another name.
        if std::fs::read(&to).is_ok_and(|known| known == content) {
            return Ok(());
        }
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(|source| io_error(parent, "cannot make the directory", source))?;
        }
        write_whole(&to, &content)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_other_machines_and_of_this_one_are_told_apart() {
        let shown = |value: &str| {
            Destination::parse(value).map(|to| to.to_string()).unwrap_or_else(|error| error.message().into())
        };
        insta::assert_snapshot!([
            shown("borg@master:/data/./previews/"),
            shown(" master:previews of all "),
            shown("u@[::1]:~/previews"),
            shown("/mnt/previews//"),
            shown("borg@master:"),
            shown("borg@master:/"),
            shown("borg@master::module/x"),
            shown("borg@master:a/../b"),
            shown("-oProxyCommand=x:/a"),
            shown("rsync://h/a"),
            shown("previews"),
            shown("/"),
        ].join("\n"), @r#"
        borg@master:/data/previews
        master:previews of all
        u@[::1]:previews
        /mnt/previews
        "borg@master:" does not say where files go: the path is a directory
        "borg@master:/" does not say where files go: the path is a directory
        "borg@master::module/x" does not say where files go: it names a module of an rsync server
        "borg@master:a/../b" does not say where files go: the path holds `..`
        "-oProxyCommand=x:/a" does not say where files go: "-oProxyCommand=x" is no host name
        "rsync://h/a" does not say where files go: it is a URL
        "previews" does not say where files go: it is neither absolute nor has it a host
        "/" does not say where files go: it is the root of the file system
        "#);
    }
}
