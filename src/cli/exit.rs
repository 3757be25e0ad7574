//! Exit statuses. They are part of the interface: a hook's status decides whether a pull is kept.

use crate::error::{Error, ErrorKind};

/// Everything is applied.
pub(super) const APPLIED: u8 = 0;
/// Some job failed, or the run could not be made.
pub(super) const FAILED: u8 = 1;
/// Wrong usage or settings.
pub(super) const USAGE: u8 = 2;
/// Another run holds the lock, and `--no-wait` was given.
pub(super) const LOCKED: u8 = 3;
/// Stopped by Ctrl-C (128 + `SIGINT`).
pub(super) const INTERRUPTED: u8 = 130;
/// Stopped by `SIGTERM` (128 + 15).
pub(super) const TERMINATED: u8 = 143;

/// The status of a command that ended with `error`.
#[must_use]
pub(super) fn of(error: &Error) -> u8 {
    match error.kind() {
        // A filter that fails on a job fails that job; one that ends a command does not compile.
        ErrorKind::Usage | ErrorKind::Settings | ErrorKind::Filter => USAGE,
        _ => FAILED,
    }
}
