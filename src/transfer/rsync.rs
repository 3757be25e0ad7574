//! One run of `rsync` that fetches many files of one host.
//!
//! The names go over standard input (`--files-from`), so neither a shell nor a pattern sees them. Each
//! file lands under its full path in the host's staging directory. Nothing is compressed: dumps are.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::cache::PARTIAL_DIR;
use super::complaint::unescape;
use super::location::Peer;
use crate::error::Result;
use crate::process::{Cmd, Finished};

/// How much of rsync's complaints is kept: some hundred bytes for each file of a batch.
const COMPLAINTS_BYTES: usize = 512 * 1024;

/// What one run is to do.
pub(super) struct Run<'a> {
    /// The value of `-e`.
    pub(super) ssh: String,
    pub(super) peer: &'a Peer,
    pub(super) staging: &'a Path,
    /// Absolute paths on the other side.
    pub(super) paths: &'a [&'a str],
    /// How long the connection may be silent; zero: for ever.
    pub(super) idle: Duration,
    pub(super) time_limit: Duration,
    pub(super) stop: &'a CancellationToken,
}

/// What a line of rsync's output says.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// This file begins; the one that began before it is finished.
    Begins {
        /// Absolute path on the other side.
        path: String,
        /// Its length.
        bytes: u64,
    },
    /// So much of the file that began last is there.
    Progress {
        bytes: u64,
        /// Bytes in a second.
        rate: Option<u64>,
    },
    Other,
}

impl Run<'_> {
    fn command(&self) -> Cmd {
        let mut input = Vec::new();
        for path in self.paths {
            input.extend_from_slice(path.as_bytes());
            input.push(0);
        }
        let mut rsync = Cmd::new("rsync")
            .args(["--relative", "--no-implied-dirs", "--times", "--copy-links"])
            .args(["--files-from=-", "--from0"])
            .arg(format!("--partial-dir={PARTIAL_DIR}"))
            // A line with %l and %n only is printed when a file begins (log_before_transfer), and the
            // receiver has renamed a file before it begins with the next.
            .args(["--out-format=> %l %n", "--8-bit-output", "--info=progress,nonreg0", "--no-human-readable"])
            .arg("-e")
            .arg(&self.ssh);
        if !self.idle.is_zero() {
            rsync = rsync.arg(format!("--timeout={}", self.idle.as_secs().max(1)));
        }
        let user = self.peer.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        rsync
            .arg("--")
            .arg(format!("{user}{}:/", self.peer.bracketed_host()))
            .arg(self.staging)
            .stdin(input)
            .stderr_tail(COMPLAINTS_BYTES)
            .time_limit(self.time_limit)
            .stop(self.stop)
    }

    /// Runs it and hands over each line of its output as it comes.
    pub(super) async fn run(&self, mut line: impl FnMut(Line)) -> Result<Finished> {
        self.command().run_lines(|bytes| line(read_line(bytes))).await
    }
}

fn read_line(line: &[u8]) -> Line {
    let text = String::from_utf8_lossy(line);
    if let Some((length, name)) = text.strip_prefix("> ").and_then(|rest| rest.split_once(' ')) {
        return match length.parse() {
            Ok(bytes) if !name.ends_with('/') => {
                Line::Begins { path: format!("/{}", unescape(name).trim_start_matches('/')), bytes }
            }
            _ => Line::Other,
        };
    }
    // `      32768   3%    1.23MB/s    0:00:01`
    let mut fields = text.split_ascii_whitespace();
    let (Some(bytes), Some(percent), rate) = (fields.next(), fields.next(), fields.next()) else {
        return Line::Other;
    };
    match bytes.parse() {
        Ok(bytes) if percent.ends_with('%') => Line::Progress { bytes, rate: rate.and_then(read_rate) },
        _ => Line::Other,
    }
}

/// Reads `1.23MB/s`; the units are powers of 1024.
fn read_rate(text: &str) -> Option<u64> {
    let text = text.strip_suffix("B/s")?;
    let unit = text.chars().next_back()?;
    let scale = match unit {
        'k' | 'K' => 1024.0,
        'M' => 1024.0 * 1024.0,
        'G' => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let value: f64 = text[..text.len() - 1].parse().ok()?;
    // Rates beyond what an u64 holds do not exist.
    (value > 0.0).then_some((value * scale) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_rsync_are_told_apart() {
        assert_eq!(
            read_line("> 200000000 var/a/big é $(x) * \\#134#123".as_bytes()),
            Line::Begins { path: "/var/a/big é $(x) * \\#123".into(), bytes: 200_000_000 }
        );
        assert_eq!(
            read_line(b"      110100480  55%  105.00MB/s    0:00:00"),
            Line::Progress { bytes: 110_100_480, rate: Some(110_100_480) }
        );
        assert_eq!(read_line(b"  0   0%    0.00kB/s    0:00:00"), Line::Progress { bytes: 0, rate: None });
        assert_eq!(read_line(b"> 4096 var/a/dir/"), Line::Other);
        assert_eq!(read_line(b"cannot delete non-empty directory: x"), Line::Other);
    }
}
