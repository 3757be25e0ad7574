//! When the clone does not know what was applied: its history was rewritten, or it is not the right clone.
//!
//! A job that is applied and that the tip does not have was removed by the master, as far as one can tell from a
//! history that leads from what was applied to the tip. Where there is no such history, the same would be said of
//! every job by an empty clone, and by one of another master.

use std::path::Path;

use crate::error::{Error, ErrorKind};
use crate::job::{self, JobFile, Parsed};
use crate::journal::{JobRecord, State};

/// Whether something goes when the file does.
pub(super) fn can_be_removed(file: &JobFile) -> bool {
    matches!(job::parse(file, &[], true), Ok(Parsed::Job(_)))
}

/// Whether this slave has never done anything for the job: its filters have always left it out.
pub(super) fn was_never_taken(record: &JobRecord) -> bool {
    record.state == State::Filtered && record.deployed.is_none() && record.steps.is_empty()
}

/// The clone holds nothing, and something was applied.
pub(super) fn empty_clone(root: &Path, applied: &str) -> Error {
    Error::new(
        ErrorKind::Repository,
        format!(
            "the clone holds no changesets, but this slave has applied those up to {}: nothing is done, and what is published stays",
            short(applied)
        ),
    )
    .subject(root.display().to_string())
    .hint("pull the master's repository, or clone it again (the settings, the hooks and SYNC_STATUS_PATH belong to the new clone): what is applied already is not done again")
}

/// The clone does not have what was applied last, and lacks job files that are applied.
pub(super) fn lost_history(root: &Path, applied: &str, missing: &[String], is_hook: bool) -> Error {
    let example = missing.iter().min().map(String::as_str).unwrap_or_default();
    let (lacks, they) = match missing.len() {
        1 => (format!("the job file {example}, which is applied"), "it"),
        count => (format!("{count} job files that are applied, such as {example}"), "them"),
    };
    let by_hand = if is_hook { "let the changesets in without the hook, and " } else { "" };
    Error::new(
        ErrorKind::Repository,
        format!(
            "the clone does not have {}, which was applied last, and lacks {lacks}: nothing is done, because it would remove {they} all",
            short(applied)
        ),
    )
    .subject(root.display().to_string())
    .hint(format!(
        "if this is a clone of another repository, clone or pull the right one again. If the master has rewritten its history and wants {they} gone: {by_hand}`borg-slave sync --from null --dry-run` shows what would be removed, `borg-slave sync --from null` removes it"
    ))
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
