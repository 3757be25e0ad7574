//! What `rsync` and `ssh` complain about, understood.
//!
//! The exit codes are those of rsync(1); the texts are those of rsync 3.1 to 3.5 and OpenSSH 7 to 9 in
//! the C locale.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind};

/// Why something failed, for any number of files: unlike an [`Error`] it can be told to each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// What the program said.
    pub(super) detail: String,
    /// What is wrong when it is not the file itself: the host, a directory or a program of this machine.
    pub(super) place: Option<String>,
    /// This machine's disk is full.
    pub(super) disk_full: bool,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, detail: String::new(), place: None, disk_full: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The error about `subject`, or about what is wrong in its place.
    pub(super) fn error(&self, subject: impl Into<String>) -> Error {
        let subject = self.place.clone().unwrap_or_else(|| subject.into());
        let mut error = Error::new(self.kind, &self.message).subject(subject);
        if let Some(hint) = &self.hint {
            error = error.hint(hint);
        }
        if self.detail.is_empty() { error } else { error.source(self.detail.clone()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let source = std::error::Error::source(&error);
        let detail = source.map(ToString::to_string).unwrap_or_default();
        let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        let disk_full = io.is_some_and(|source| {
            matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        });
        Self {
            kind: error.kind(),
            message: error.message().to_owned(),
            hint: error.hint_text().map(str::to_owned),
            detail,
            place: error.subject_text().map(str::to_owned),
            disk_full,
        }
    }
}

/// How one run of `rsync` ended as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection held; each file has its own outcome.
    EachFile,
    /// The other side, or this one, has no `rsync`.
    NoRsync,
    /// Nothing more could be fetched.
    Failed(Failure),
}

/// Judges the exit code (`None`: ended by a signal) and standard error of `rsync`.
pub(super) fn judge(code: Option<i32>, stderr: &str) -> Verdict {
    if matches!(code, Some(0)) {
        return Verdict::EachFile;
    }
    if let Some(full) = disk_full(stderr) {
        return Verdict::Failed(full);
    }
    match code {
        // Partial transfer, vanished files, a limit on deletions.
        Some(23..=25) => Verdict::EachFile,
        Some(127) => Verdict::NoRsync,
        _ if no_rsync(stderr) => Verdict::NoRsync,
        Some(2) => Verdict::Failed(
            Failure::new(ErrorKind::Process, "the two sides do not understand each other's rsync")
                .hint("make sure that a login there prints nothing (ssh HOST true), and that both sides have rsync 3.1 or later")
                .detail(excerpt(stderr)),
        ),
        Some(30 | 35) => Verdict::Failed(
            Failure::new(ErrorKind::Unreachable, "the connection went silent and was given up")
                .hint("check the network and the load of the other side, then run again: begun files are resumed")
                .detail(excerpt(stderr)),
        ),
        // The remote side ends with these when its connection breaks, and ssh with 255.
        Some(10 | 12 | 19 | 20 | 255) | None => Verdict::Failed(ssh_failure(stderr).unwrap_or_else(|| {
            Failure::new(ErrorKind::Unreachable, "the connection broke")
                .hint("check the network and the other side, then run again: begun files are resumed")
                .detail(excerpt(stderr))
        })),
        Some(11) => Verdict::Failed(
            Failure::new(ErrorKind::Io, "rsync cannot write the file here or read it there")
                .hint("check the disk of CACHE_PATH (df -h, dmesg)")
                .detail(excerpt(stderr)),
        ),
        Some(other) => Verdict::Failed(
            Failure::new(ErrorKind::Process, format!("rsync failed (exit status {other})"))
                .hint("rsync(1) lists what the exit status means; `borg-slave check` tries the connection")
                .detail(excerpt(stderr)),
        ),
    }
}

/// Why `rsync` could not bring files to the directory `dir` of the other side.
pub(super) fn sending(code: Option<i32>, stderr: &str, dir: &str) -> Failure {
    // The receiver is the other side here.
    let there = |text: &str| stderr.lines().find(|line| line.contains(text) && !line.contains("[sender]"));
    if let Some(line) = there("No space left on device").or_else(|| there("Disk quota exceeded")) {
        return Failure::new(ErrorKind::Io, "the other side's disk is full")
            .hint(format!("free space on the file system of {dir} there (df -h shows it)"))
            .detail(line);
    }
    if let Some(line) = there("failed: Permission denied").or_else(|| there("failed: Read-only file system")) {
        return Failure::new(ErrorKind::Denied, "the other side's user may not write there")
            .hint(format!("give the user that BORG_SSH logs in as the right to write in {dir}"))
            .detail(line);
    }
    if let Some(line) = stderr.lines().find(|line| line.contains("[sender]") && line.contains(" failed")) {
        let kind = if line.contains("(2)") { ErrorKind::Missing } else { ErrorKind::Io };
        return Failure::new(kind, "the file cannot be read here").detail(line);
    }
    match code {
        Some(3 | 11 | 23..=25) => Failure::new(ErrorKind::Io, "the other side cannot write there")
            .hint(format!("check that {dir} is a directory there, and its disk"))
            .detail(excerpt(stderr)),
        _ => match judge(code, stderr) {
            Verdict::Failed(failure) => failure,
            Verdict::NoRsync | Verdict::EachFile => Failure::new(ErrorKind::Process, "rsync is missing there")
                .hint("install rsync there")
                .detail(excerpt(stderr)),
        },
    }
}

/// What `ssh` said about why it could not connect or log in, when it said so.
pub(super) fn ssh_failure(stderr: &str) -> Option<Failure> {
    let has = |text: &str| stderr.contains(text);
    if has("Host key verification failed") {
        let failure = if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            Failure::new(ErrorKind::Denied, "the host shows another key than the known one: it was replaced, or somebody poses as it")
                .hint("ask its administrator for the new fingerprint; if it is right, remove the old key with `ssh-keygen -R HOST` (and -f FILE for the command's UserKnownHostsFile) and connect once by hand")
        } else {
            Failure::new(ErrorKind::Denied, "the host's key is not known here, and the SSH command asks for known hosts only")
                .hint("connect once by hand as the user that runs borg-slave and compare the fingerprint, or add StrictHostKeyChecking=accept-new to BORG_SSH")
        };
        let offending = stderr.lines().find(|line| line.starts_with("Offending ")).map(str::to_owned);
        return Some(failure.detail(offending.unwrap_or_else(|| excerpt(stderr))));
    }
    let refused_login = stderr.lines().any(|line| {
        line.split_once("Permission denied (")
            .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
    });
    if refused_login || has("Too many authentication failures") || has("No supported authentication methods") {
        return Some(
            Failure::new(ErrorKind::Denied, "the host refuses our SSH key")
                .hint("add the public half of the key that BORG_SSH names with -i to ~/.ssh/authorized_keys of that user there; the private half must be readable by the user that runs borg-slave and by nobody else")
                .detail(excerpt(stderr)),
        );
    }
    let network = [
        "Could not resolve hostname",
        "Connection refused",
        "Connection timed out",
        "No route to host",
        "Network is unreachable",
        "Operation timed out",
        "Connection reset",
        "Connection closed",
        "kex_exchange_identification",
        "ssh_exchange_identification",
        "Broken pipe",
        "Timeout, server",
        "Host is down",
        "banner exchange",
    ];
    network.iter().any(|text| has(text)).then(|| {
        Failure::new(ErrorKind::Unreachable, "the host cannot be reached over SSH")
            .hint("check its name, the network and that sshd runs there; begun files are resumed by the next run")
            .detail(excerpt(stderr))
    })
}

fn disk_full(stderr: &str) -> Option<Failure> {
    let full = |line: &&str| line.contains("No space left on device") || line.contains("Disk quota exceeded");
    let line = stderr.lines().find(|line| full(line) && !line.contains("[sender]"))?;
    let full = Failure::new(ErrorKind::Io, "the disk of CACHE_PATH is full")
        .hint("free space on that file system (df -h shows it) or move CACHE_PATH, then run again: finished files are not fetched again")
        .detail(line);
    Some(Failure { disk_full: true, ..full })
}

fn no_rsync(stderr: &str) -> bool {
    stderr.lines().any(|line| {
        ["rsync: command not found", "rsync: not found", "rsync: No such file or directory"]
            .iter()
            .any(|text| line.ends_with(text))
    })
}

/// What `rsync` said about single files of the other side, by their path there.
pub(super) fn each_file(stderr: &str) -> HashMap<String, Failure> {
    stderr.lines().filter_map(about_file).collect()
}

fn about_file(line: &str) -> Option<(String, Failure)> {
    if line.contains("[receiver]") || line.contains("[generator]") {
        return None;
    }
    let (_, rest) = line.split_once('"')?;
    let missing = || {
        Failure::new(ErrorKind::Missing, "the file is not there")
            .hint("the master has removed or replaced it since; publish the layer again if no newer job follows")
    };
    if line.starts_with("file has vanished: ") {
        return Some((unescape(rest.strip_suffix('"')?), missing().detail(line)));
    }
    let (name, reason) = rest.rsplit_once("\" failed: ").or_else(|| rest.rsplit_once("\": "))?;
    let failure = if reason.contains("(2)") || reason.contains("(20)") {
        return Some((unescape(name), missing()));
    } else if reason.contains("(13)") || reason.contains("(1)") {
        Failure::new(ErrorKind::Denied, "the other side's user may not read the file")
            .hint("give the user that BORG_SSH logs in as the right to read it, and to enter its directories")
    } else {
        Failure::new(ErrorKind::Io, "the other side cannot read the file")
    };
    Some((unescape(name), failure.detail(line)))
}

/// Local complaints of `rsync`: about directories and files it cannot write here.
pub(super) fn local(stderr: &str) -> Option<Failure> {
    let line = stderr.lines().find(|line| line.contains("[receiver]") || line.contains("[generator]"))?;
    Some(
        Failure::new(ErrorKind::Io, "rsync cannot write the file here")
            .hint("give the user that runs borg-slave the right to write in CACHE_PATH")
            .detail(line),
    )
}

/// Undoes rsync's way of printing bytes that are not printable: `\#` and three octal digits.
pub(super) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if let [b'\\', b'#', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] = rest {
            bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = tail;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines worth showing: without ssh's frame of `@` and rsync's own last words.
fn excerpt(stderr: &str) -> String {
    let said = |line: &&str| {
        let noise = ["@", "rsync error:", "Warning: Permanently added"];
        !line.trim().is_empty() && !noise.iter().any(|noise| line.starts_with(noise))
    };
    let lines: Vec<&str> = stderr.lines().filter(said).collect();
    let from = lines.len().saturating_sub(6);
    let text = lines[from..].join("; ");
    if text.is_empty() { stderr.lines().next_back().unwrap_or_default().to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_complaint_finds_its_file() {
        let stderr = "rsync: [sender] link_stat \"/a/nope \\#303\\#251\\#134#123\" failed: No such file or directory (2)\n\
            rsync: link_stat \"/a/old peer\" failed: No such file or directory (2)\n\
            rsync: [sender] send_files failed to open \"/a/se\"cret\": Permission denied (13)\n\
            file has vanished: \"/a/gone\"\n\
            rsync: [sender] read errors mapping \"/a/bad\": Input/output error (5)\n\
            rsync: [receiver] mkstemp \"/cache/a/.x.AbCdEf\" failed: Permission denied (13)\n\
            rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1956)";
        let found = each_file(stderr);
        let mut kinds: Vec<_> = found.iter().map(|(path, failure)| format!("{path} {:?}", failure.kind)).collect();
        kinds.sort();
        insta::assert_snapshot!(kinds.join("\n"), @r#"
        /a/bad Io
        /a/gone Missing
        /a/nope é\#123 Missing
        /a/old peer Missing
        /a/se"cret Denied
        "#);
        assert_eq!(local(stderr).unwrap().kind, ErrorKind::Io);
        assert_eq!(judge(Some(23), stderr), Verdict::EachFile);
    }

    #[test]
    fn the_end_of_a_run_tells_network_key_disk_and_missing_program_apart() {
        let kind = |code, stderr: &str| match judge(code, stderr) {
            Verdict::Failed(failure) => format!("{:?}: {}", failure.kind, failure.message),
            other => format!("{other:?}"),
        };
        let tail = "rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]\n\
            rsync error: unexplained error (code 255) at io.c(232) [Receiver=3.2.7]";
        let said = |text: &str| kind(Some(255), &format!("{text}\n{tail}"));
        insta::assert_snapshot!([
            said("borg@master: Permission denied (publickey)."),
            said("@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed."),
            said("Host key verification failed."),
            said("ssh: connect to host master port 22: Connection refused"),
            said("something else"),
            kind(Some(12), "bash: line 1: rsync: command not found"),
            kind(Some(127), ""),
            kind(Some(30), "[Receiver] io timeout after 60 seconds -- exiting"),
            kind(Some(12), "rsync: [receiver] write failed on \"/c/x\": No space left on device (28)"),
            kind(Some(11), "rsync: [receiver] write failed on \"/c/x\": Input/output error (5)"),
            kind(Some(2), "protocol version mismatch -- is your shell clean?"),
            kind(None, ""),
            kind(Some(4), ""),
        ].join("\n"), @r"
        Denied: the host refuses our SSH key
        Denied: the host shows another key than the known one: it was replaced, or somebody poses as it
        Denied: the host's key is not known here, and the SSH command asks for known hosts only
        Unreachable: the host cannot be reached over SSH
        Unreachable: the connection broke
        NoRsync
        NoRsync
        Unreachable: the connection went silent and was given up
        Io: the disk of CACHE_PATH is full
        Io: rsync cannot write the file here or read it there
        Process: the two sides do not understand each other's rsync
        Unreachable: the connection broke
        Process: rsync failed (exit status 4)
        ");
    }
}
