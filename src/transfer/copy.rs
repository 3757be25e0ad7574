//! Copying without `rsync` on the other side: by SFTP, or through `cat` where only the `ssh` program
//! gets there. Both go on where a broken attempt ended, if the whole is checked afterwards: here, and not in rsync,
//! which compares what there is, the parts could be of two versions of the file.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ssh2::Session;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::complaint::{Failure, ssh_failure};
use super::connection::stopped;
use super::location::Peer;
use super::remote_shell::library_failure;
use super::ssh_command::SshCommand;
use crate::error::{ErrorKind, Result, io_error};
use crate::process::Cmd;

/// How much is asked for at once; the library splits it and keeps the parts under way together.
const CHUNK_BYTES: usize = 512 * 1024;

/// Least time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Numbers of the SFTP protocol (draft-ietf-secsh-filexfer-02, section 7).
const SFTP_NO_SUCH_FILE: i32 = 2;
const SFTP_PERMISSION_DENIED: i32 = 3;

/// One file to copy.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Absolute path on the other side.
    pub(super) path: String,
    /// What there is of it already, and where it grows.
    pub(super) partial: PathBuf,
    /// It goes on with what there is, and not from the beginning.
    pub(super) may_resume: bool,
}

/// How far a file has come.
pub(super) enum Step {
    Begins { path: String, bytes: Option<u64> },
    Progress { bytes: u64, rate: Option<u64> },
    Whole { path: String },
    Failed { path: String, failure: Failure },
}

/// Copies `jobs` one after the other over `session`.
///
/// A failure of a single file is a [`Step::Failed`]; an error is one of the connection or of this disk.
pub(super) fn by_sftp(
    session: &Session,
    jobs: &[Job],
    stop: &CancellationToken,
    mut tell: impl FnMut(Step),
) -> Result<(), Failure> {
    let sftp = session.sftp().map_err(|source| {
        let mut failure = library_failure("the other side offers no SFTP", &source);
        failure.hint = Some("install rsync there".to_owned());
        failure
    })?;
    for job in jobs {
        let opened = sftp.open(Path::new(&job.path)).and_then(|mut file| file.stat().map(|about| (file, about)));
        let (mut remote, about) = match opened {
            Ok(opened) => opened,
            Err(source) => {
                tell(Step::Failed { path: job.path.clone(), failure: sftp_failure(&source)? });
                continue;
            }
        };
        if !about.is_file() {
            let failure = Failure::new(ErrorKind::Missing, "this is no regular file");
            tell(Step::Failed { path: job.path.clone(), failure });
            continue;
        }
        tell(Step::Begins { path: job.path.clone(), bytes: about.size });
        let mut local = Partial::open(job, about.size)?;
        remote.seek(SeekFrom::Start(local.bytes)).map_err(|error| broken(&error.to_string()))?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            if stop.is_cancelled() {
                return Err(stopped());
            }
            match remote.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => local.write(&buffer[..count], &mut tell)?,
                Err(error) => return Err(broken(&error.to_string())),
            }
        }
        tell(Step::Whole { path: job.path.clone() });
    }
    Ok(())
}

/// Copies `jobs` one after the other through the `ssh` program.
pub(super) async fn by_program(
    ssh: &SshCommand,
    link_options: &[String],
    peer: &Peer,
    jobs: &[Job],
    idle: Duration,
    stop: &CancellationToken,
    mut tell: impl FnMut(Step),
) -> Result<(), Failure> {
    for job in jobs {
        let mut local = Partial::open(job, None)?;
        let name = shell_words::quote(&job.path);
        let script = format!("tail -c +{} -- {name}", local.bytes + 1);
        let mut child = Cmd::new(ssh.program())
            .args(ssh.remote_arguments(link_options, peer, &script))
            .start()
            .map_err(Failure::from)?;
        tell(Step::Begins { path: job.path.clone(), bytes: None });
        let mut buffer = vec![0; CHUNK_BYTES];
        let limit = if idle.is_zero() { Duration::MAX } else { idle };
        loop {
            let read = tokio::select! {
                read = tokio::time::timeout(limit, child.stdout().read(&mut buffer)) => read,
                () = stop.cancelled() => return Err(stopped()),
            };
            match read {
                Ok(Ok(0)) => break,
                Ok(Ok(count)) => local.write(&buffer[..count], &mut tell)?,
                Ok(Err(error)) => return Err(broken(&error.to_string())),
                Err(_) => return Err(broken("it went silent")),
            }
        }
        let finished = child.finish().await.map_err(Failure::from)?;
        let stderr = finished.stderr;
        match finished.status.code() {
            Some(0) => tell(Step::Whole { path: job.path.clone() }),
            Some(255) | None => return Err(ssh_failure(&stderr).unwrap_or_else(|| broken(&stderr))),
            Some(_) => {
                let failure = if stderr.contains("No such file") {
                    Failure::new(ErrorKind::Missing, "the file is not there")
                } else if stderr.contains("Permission denied") {
                    Failure::new(ErrorKind::Denied, "the other side's user may not read the file")
                } else {
                    Failure::new(ErrorKind::Process, "the other side cannot send the file")
                };
                tell(Step::Failed { path: job.path.clone(), failure: failure.detail(stderr) });
            }
        }
    }
    Ok(())
}

fn broken(detail: &str) -> Failure {
    Failure::new(ErrorKind::Unreachable, "the connection broke")
        .hint("check the network and the other side, then run again: begun files are resumed")
        .detail(detail)
}

/// The failure of one file, or the error of the connection.
fn sftp_failure(source: &ssh2::Error) -> Result<Failure, Failure> {
    match source.code() {
        ssh2::ErrorCode::SFTP(SFTP_NO_SUCH_FILE) => Ok(Failure::new(ErrorKind::Missing, "the file is not there")),
        ssh2::ErrorCode::SFTP(SFTP_PERMISSION_DENIED) => {
            Ok(Failure::new(ErrorKind::Denied, "the other side's user may not read the file"))
        }
        ssh2::ErrorCode::SFTP(_) => {
            Ok(Failure::new(ErrorKind::Io, "the other side cannot read the file").detail(source.to_string()))
        }
        ssh2::ErrorCode::Session(_) => Err(broken(&source.to_string())),
    }
}

/// A file that grows.
struct Partial {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// When and where the rate was measured last.
    reported: (Instant, u64),
}

impl Partial {
    /// Opens what there is of a file that is `whole` bytes long.
    fn open(job: &Job, whole: Option<u64>) -> Result<Self, Failure> {
        let path = job.partial.as_path();
        let failed = |source| Failure::from(io_error(path, "cannot write the file", source));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let mut bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if bytes > 0 && !job.may_resume {
            tracing::info!(
                file = job.path,
                "begun again from the start: no md5 would tell whether the file has changed"
            );
        }
        if !job.may_resume || whole.is_some_and(|whole| bytes > whole) {
            // It belongs to an older, longer file, or nobody knows to which.
            file.set_len(0).map_err(failed)?;
            bytes = 0;
        }
        Ok(Self { path: path.to_owned(), file, bytes, reported: (Instant::now(), bytes) })
    }

    fn write(&mut self, chunk: &[u8], tell: &mut impl FnMut(Step)) -> Result<(), Failure> {
        if let Err(source) = self.file.write_all(chunk) {
            if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                // What cannot be finished shall not fill the disk.
                let _ = std::fs::remove_file(&self.path);
            }
            return Err(io_error(&self.path, "cannot write the file", source).into());
        }
        self.bytes += chunk.len() as u64;
        let (when, before) = self.reported;
        let passed = when.elapsed();
        if passed >= REPORT_EVERY {
            let rate = u128::from(self.bytes - before) * 1000 / passed.as_millis().max(1);
            tell(Step::Progress { bytes: self.bytes, rate: u64::try_from(rate).ok() });
            self.reported = (Instant::now(), self.bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_checked_afterwards_is_never_put_together_from_two_versions() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = Job { path: "/a.db".to_owned(), partial: dir.path().join("a.db"), may_resume: true };
        let begin = |job: &Job, whole| {
            std::fs::write(&job.partial, "older").unwrap();
            let mut partial = Partial::open(job, whole).unwrap_or_else(|failure| panic!("{}", failure.message));
            let begun = partial.bytes;
            partial.write(b"new", &mut |_| ()).unwrap_or_else(|failure| panic!("{}", failure.message));
            (begun, std::fs::read_to_string(&job.partial).unwrap())
        };
        assert_eq!(begin(&job, Some(8)), (5, "oldernew".to_owned()));
        assert_eq!(begin(&job, Some(3)), (0, "new".to_owned()), "it was longer");
        job.may_resume = false;
        assert_eq!(begin(&job, Some(8)), (0, "new".to_owned()));
        assert_eq!(begin(&job, None), (0, "new".to_owned()));
    }
}
