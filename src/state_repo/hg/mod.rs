//! A Mercurial clone: reads through the command server, pulls through `hg pull`.

mod lock;
mod pull;
mod server;

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use self::server::{CommandServer, Reply};
use super::complaint::explain;
use super::{Change, ChangeKind, OpenOptions, Revision, Vcs};
use crate::error::{Error, ErrorKind, Result};
use crate::process::Cmd;

/// How many files one `hg cat` is asked for. It matches every pattern against the manifest, so that its time
/// grows with the square of their number; at 1,000 that is still below the cost of reading them
/// (0.3 ms a file altogether).
const FILES_PER_CAT: usize = 1_000;

/// The branch that Mercurial starts with.
const DEFAULT_BRANCH: &str = "default";

/// What the hook of a pull must hand on so that its children see the pending changesets.
const PENDING_VARIABLES: [&str; 2] = ["HG_PENDING", "HG_SHAREDPENDING"];

/// A clone that Mercurial keeps.
#[derive(Debug)]
pub struct HgRepo {
    options: OpenOptions,
    server: Option<Box<Started>>,
}

/// A command server, and what it has read when it was started.
#[derive(Debug)]
struct Started {
    server: CommandServer,
    /// When `.hg/hgrc` had been changed: the server reads it only once.
    hgrc: Option<SystemTime>,
}

impl HgRepo {
    pub(super) fn open(options: OpenOptions) -> Self {
        Self { options, server: None }
    }

    pub(super) fn root(&self) -> &Path {
        &self.options.root
    }

    /// The branch that is followed.
    pub(super) fn branch(&self) -> &str {
        self.options.branch.as_deref().unwrap_or(DEFAULT_BRANCH)
    }

    pub(super) async fn tip(&mut self) -> Result<Revision> {
        match self.branch_tip().await? {
            Some(tip) => Ok(tip),
            None => Err(self.no_such_branch().await),
        }
    }

    /// The tip of the branch; null in an empty repository, `None` when only the branch is missing.
    async fn branch_tip(&mut self) -> Result<Option<Revision>> {
        // A closed head is one that the master's operators gave up, unless all are.
        let branch = format!("branch(\"literal:{}\")", self.branch());
        let revset = format!("max(head() and {branch} and not closed()) or max({branch})");
        let reply = self.ask(&["log", "-r", &revset, "-T", "{node}\\n"]).await?;
        if reply.code != 0 {
            if !reply.errors.contains("does not exist") {
                return Err(self.refused("reading the tip", &reply));
            }
            let reply = self.run(&["log", "-r", "tip", "-T", "{node}"]).await?;
            let tip = self.revision(&String::from_utf8_lossy(&reply.output))?;
            return Ok(tip.is_null().then_some(tip));
        }
        let text = String::from_utf8_lossy(&reply.output).into_owned();
        match text.lines().next() {
            Some(line) => Ok(Some(self.revision(line)?)),
            None => Ok(Some(Revision::null())),
        }
    }

    async fn no_such_branch(&mut self) -> Error {
        let error = Error::new(ErrorKind::Settings, format!("the clone has no branch `{}`", self.branch()))
            .subject(self.options.root.display().to_string());
        match self.run(&["branches", "-T", "{branch}, "]).await {
            Ok(reply) => {
                let branches = String::from_utf8_lossy(&reply.output).into_owned();
                error.hint(format!("set STATE_BRANCH to one that it has: {}", branches.trim_end_matches(", ")))
            }
            Err(cause) => error.source(cause),
        }
    }

    pub(super) async fn resolve(&mut self, spec: &str) -> Result<Option<Revision>> {
        // A quoted string is looked up as a name and never read as an expression.
        let quoted = format!("\"{}\"", spec.replace('\\', "\\\\").replace('"', "\\\""));
        let reply = self.ask(&["log", "-r", &quoted, "-T", "{node}"]).await?;
        if reply.code == 0 {
            let revision = self.revision(&String::from_utf8_lossy(&reply.output))?;
            // All digits f stand for the work tree, which is no revision.
            return Ok(Some(revision).filter(|revision| revision.as_str().bytes().any(|digit| digit != b'f')));
        }
        if reply.errors.contains("ambiguous identifier") {
            return Err(Error::new(ErrorKind::Usage, format!("`{spec}` is the start of several changesets"))
                .hint("give more digits of the hash"));
        }
        if ["unknown revision", "hidden revision", "filtered revision"].iter().any(|text| reply.errors.contains(text)) {
            return Ok(None);
        }
        Err(self.refused("looking up a revision", &reply))
    }

    pub(super) async fn first_parent(&mut self, revision: &Revision) -> Result<Revision> {
        let reply = self.run(&["log", "-r", revision.as_str(), "-T", "{p1node}"]).await?;
        self.revision(&String::from_utf8_lossy(&reply.output))
    }

    /// The youngest common ancestor; null when the histories have none.
    pub(super) async fn common_ancestor(&mut self, a: &Revision, b: &Revision) -> Result<Revision> {
        let revset = format!("ancestor({a}, {b})");
        let reply = self.run(&["log", "-r", &revset, "-T", "{node}"]).await?;
        if reply.output.is_empty() {
            return Ok(Revision::null());
        }
        self.revision(&String::from_utf8_lossy(&reply.output))
    }

    pub(super) async fn changes(&mut self, from: &Revision, to: &Revision) -> Result<Vec<Change>> {
        let template = "{status}{path}\\0";
        let revs = ["--rev", from.as_str(), "--rev", to.as_str()];
        let reply = self.run(&["status", "-m", "-a", "-r", revs[0], revs[1], revs[2], revs[3], "-T", template]).await?;
        let changes: Result<Vec<Change>> = nul_separated(&reply.output)
            .filter_map(|entry| entry.split_first())
            .map(|(status, path)| {
                let kind = match status {
                    b'A' => ChangeKind::Added,
                    b'M' => ChangeKind::Modified,
                    b'R' => ChangeKind::Removed,
                    other => {
                        return Err(Error::new(
                            ErrorKind::Repository,
                            format!("`hg status` answers the unknown status {:?}", char::from(*other)),
                        ));
                    }
                };
                Ok(Change { path: String::from_utf8_lossy(path).into_owned(), kind })
            })
            .collect();
        self.without_unchanged(from, to, changes?).await
    }

    /// Drops the files whose content is the same in both revisions. `hg status` compares the files' own
    /// histories: it calls a change that was taken back, and a file merged to what it was, modified.
    async fn without_unchanged(&mut self, from: &Revision, to: &Revision, changes: Vec<Change>) -> Result<Vec<Change>> {
        let (modified, mut kept): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.kind == ChangeKind::Modified);
        for chunk in modified.chunks(FILES_PER_CAT) {
            let paths: Vec<String> = chunk.iter().map(|change| change.path.clone()).collect();
            let (old, new) = (self.contents(from, &paths).await?, self.contents(to, &paths).await?);
            // Where the name is not UTF-8 nothing can be read, and nothing be said of equality.
            let differs = old.iter().zip(&new).map(|(old, new)| old.is_none() || old != new);
            kept.extend(chunk.iter().zip(differs).filter(|(_, differs)| *differs).map(|(change, _)| change.clone()));
        }
        Ok(kept)
    }

    pub(super) async fn contents(&mut self, revision: &Revision, paths: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut found: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for chunk in paths.chunks(FILES_PER_CAT) {
            // An empty path would mean every file.
            let patterns: Vec<String> =
                chunk.iter().filter(|path| is_file_name(path)).map(|path| format!("path:{path}")).collect();
            if patterns.is_empty() {
                continue;
            }
            let mut args = vec!["cat", "-r", revision.as_str(), "-T", "{path}\\0{count(data)}\\0{data}", "--"];
            args.extend(patterns.iter().map(String::as_str));
            let reply = self.ask(&args).await?;
            if !found_or_none(&reply) {
                return Err(self.refused("reading files", &reply));
            }
            read_files(&reply.output, &mut found)?;
        }
        // The same path may be asked for twice, so that its content cannot be moved out.
        Ok(paths.iter().map(|path| found.get(path.as_bytes()).cloned()).collect())
    }

    pub(super) async fn files(&mut self, revision: &Revision) -> Result<Vec<String>> {
        let reply = self.ask(&["files", "-r", revision.as_str(), "-T", "{path}\\0"]).await?;
        if !found_or_none(&reply) {
            return Err(self.refused("listing files", &reply));
        }
        Ok(nul_separated(&reply.output).map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    pub(super) fn is_being_written(&self) -> bool {
        lock::is_held(&self.options.root)
    }

    pub(super) async fn close(self) {
        if let Some(started) = self.server {
            started.server.close().await;
        }
    }

    /// Runs a command that has to succeed.
    async fn run(&mut self, args: &[&str]) -> Result<Reply> {
        let reply = self.ask(args).await?;
        if reply.code == 0 { Ok(reply) } else { Err(self.refused(&format!("hg {}", args[0]), &reply)) }
    }

    /// Runs a command in the server, which is started when there is none, and started again once when an
    /// old one has died (the kernel killed it, or Mercurial was upgraded under it).
    async fn ask(&mut self, args: &[&str]) -> Result<Reply> {
        let limit = self.options.time_limit;
        let stop = self.options.stop.clone();
        let root = self.options.root.display().to_string();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Error::new(ErrorKind::Stopped, "the run was asked to stop").subject(root)),
            reply = tokio::time::timeout(limit, self.ask_patiently(args)) => reply.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Repository, format!("hg did not answer within {} s", limit.as_secs()))
                    .subject(root)
                    .hint("the disk or the machine is overloaded; the next run tries again"))
            }),
        }
    }

    async fn ask_patiently(&mut self, args: &[&str]) -> Result<Reply> {
        let reused = self.server.as_ref().is_some_and(|started| started.hgrc == self.hgrc_time());
        // While a command runs the server is not in `self`: if this future is dropped, it ends.
        let mut started = match self.server.take() {
            Some(started) if reused => started,
            _ => self.start().await?,
        };
        let reply = match started.server.run(args).await {
            Err(error) if !reused => return Err(started.server.dead(error).await),
            Err(error) => {
                tracing::debug!(error = %error, "the hg command server died; starting another");
                started = self.start().await?;
                match started.server.run(args).await {
                    Err(error) => return Err(started.server.dead(error).await),
                    Ok(reply) => reply,
                }
            }
            Ok(reply) => reply,
        };
        self.server = Some(started);
        Ok(reply)
    }

    async fn start(&self) -> Result<Box<Started>> {
        let hgrc = self.hgrc_time();
        let mut command = self.hg().args(["serve", "--cmdserver", "pipe"]);
        for name in PENDING_VARIABLES {
            if let Some(value) = self.options.hook_env.as_ref().and_then(|env| env.get(name)) {
                command = command.env(name, value);
            }
        }
        let server = CommandServer::start(command).await.map_err(|error| {
            match std::error::Error::source(&error).map(ToString::to_string) {
                Some(said) if error.kind() == ErrorKind::Repository => {
                    explain(Vcs::Hg, &self.options.root, "hg serve", &said)
                }
                _ => error,
            }
        })?;
        Ok(Box::new(Started { server, hgrc }))
    }

    fn hgrc_time(&self) -> Option<SystemTime> {
        std::fs::metadata(self.options.root.join(".hg/hgrc")).and_then(|meta| meta.modified()).ok()
    }

    /// An `hg` on this clone that nothing but the clone's own `.hg/hgrc` configures: a user's aliases, extensions
    /// and templates would change what it prints.
    fn hg(&self) -> Cmd {
        Cmd::new("hg")
            .env("HGRCPATH", "")
            .env("HGPLAIN", "1")
            .env("HGENCODING", "UTF-8")
            .cwd(&self.options.root)
            .arg("-R")
            .arg(&self.options.root)
            .arg("--noninteractive")
    }

    fn revision(&self, text: &str) -> Result<Revision> {
        Revision::parse(text).map_err(|error| {
            Error::new(ErrorKind::Repository, "hg answers something that is not a changeset hash")
                .subject(self.options.root.display().to_string())
                .source(error)
        })
    }

    fn refused(&self, doing: &str, reply: &Reply) -> Error {
        if reply.errors.contains("unknown revision") {
            return super::unknown_revision(&self.options.root).source(reply.errors.clone());
        }
        explain(Vcs::Hg, &self.options.root, doing, &reply.errors)
    }
}

/// Whether a command that looks for files worked: 1 means that it found none.
fn found_or_none(reply: &Reply) -> bool {
    reply.code == 0 || (reply.code == 1 && !reply.errors.contains("abort:"))
}

/// Whether `path` can be a file in a manifest; patterns of other paths would match more than one file.
fn is_file_name(path: &str) -> bool {
    !path.contains(['\0', '\n', '\r']) && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}

fn nul_separated(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == 0).filter(|entry| !entry.is_empty())
}

/// Reads a row of `path NUL length NUL data`.
fn read_files(mut bytes: &[u8], files: &mut HashMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    let garbled = || Error::new(ErrorKind::Repository, "`hg cat` answers something that is not its template");
    while !bytes.is_empty() {
        let mut fields = bytes.splitn(3, |&byte| byte == 0);
        let (Some(path), Some(length), Some(rest)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(garbled());
        };
        let length = std::str::from_utf8(length).ok().and_then(|text| text.parse::<usize>().ok());
        let (data, rest) = length.and_then(|length| rest.split_at_checked(length)).ok_or_else(garbled)?;
        files.insert(path.to_vec(), data.to_vec());
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_may_hold_anything() {
        let mut files = HashMap::new();
        read_files(b"a\x000\x00b c\x003\x00\x00x\x00c\x001\x00z", &mut files).unwrap();
        assert_eq!(files[b"a".as_slice()], b"");
        assert_eq!(files[b"b c".as_slice()], b"\0x\0");
        assert_eq!(files[b"c".as_slice()], b"z");
        assert!(read_files(b"a\x009\x00short", &mut files).is_err());
    }

    #[test]
    fn only_the_name_of_one_file_becomes_a_pattern() {
        for path in ["", ".", "a/", "/a", "a//b", "../a", "a/./b", "a\nb"] {
            assert!(!is_file_name(path), "{path:?}");
        }
        for path in ["a", "-a", "..a/b", "a b/[c]*"] {
            assert!(is_file_name(path), "{path:?}");
        }
    }
}
