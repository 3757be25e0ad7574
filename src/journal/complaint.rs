//! What SQLite complains about, in the operator's words.

use std::path::Path;

use rusqlite::ErrorCode;

use super::{BUSY_TIMEOUT, FILE_NAME};
use crate::error::{Error, ErrorKind};

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// SQLite calls it an I/O error when the memory that the processes share finds no room on the disk.
fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

pub(super) fn read_only_failure() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY), None)
}

/// Tells the operator what SQLite's `source` means for the journal at `path`.
pub(super) fn sqlite_error(path: &Path, message: &str, source: rusqlite::Error) -> Error {
    let dir = path.parent().unwrap_or(path).display();
    let file = path.display();
    let (kind, message, hint) = match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
            ErrorKind::Io,
            "the journal is damaged or is no journal".to_owned(),
            Some(format!(
                "move {file}, and {FILE_NAME}-wal and {FILE_NAME}-shm beside it, away and run again: a new journal is \
                 begun and every job is applied again, which is harmless but takes its time"
            )),
        ),
        _ if is_full(&source) => (
            ErrorKind::Io,
            format!("{message}: the disk is full"),
            Some(format!(
                "free space on the file system of {dir} (df -h shows it), then run again: finished jobs are not redone"
            )),
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            ErrorKind::Io,
            message.to_owned(),
            Some(format!(
                "give the user that runs borg-slave the right to read and write {dir} and the journal files in it, \
                 and check that its file system is not mounted read-only"
            )),
        ),
        Some(ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed) => (
            ErrorKind::Io,
            message.to_owned(),
            Some(format!(
                "check the disk of {dir} (dmesg shows its errors); it has to be a local disk, not a network one"
            )),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Busy,
            format!("{message}: another process has kept it locked for {} s", BUSY_TIMEOUT.as_secs()),
            Some(format!("find who has it open with: fuser -v {file}")),
        ),
        _ => (ErrorKind::Bug, message.to_owned(), None),
    };
    let error = Error::new(kind, message).subject(file.to_string()).source(source);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
