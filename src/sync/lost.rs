//! When the clone does not know what was applied: its history was rewritten, or it is not the right clone.
//!
//! A job that is applied and that the tip does not have was removed by the master, as far as one can tell from a
//! history that leads from what was applied to the tip. Where there is no such history, the same would be said of
//! every job by an empty clone, and by one of another master.

use std::path::Path;

use super::Request;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::Step;
use crate::job::{self, JobFile, Parsed};
use crate::journal::{JobRecord, State};
use crate::state_repo::Revision;

/// What is to be decided where the clone does not know the revision that was applied last.
pub(super) struct Lost<'a> {
    applied: &'a str,
    /// What an operator, or a hook, has said of it.
    said: Said,
    is_hook: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    /// The tip is what counts, whatever came before.
    TipCounts,
    /// Only what changed in this range.
    Range,
    /// The changeset in the clone that those of the pull follow.
    Base,
}

impl<'a> Lost<'a> {
    pub(super) fn of(applied: &'a str, request: &Request, from: &Revision) -> Self {
        let said = match (&request.from, &request.begin) {
            (Some(_), _) if from.is_null() => Said::TipCounts,
            (Some(_), _) => Said::Range,
            (None, Some(begin)) if !begin.is_null() => Said::Base,
            (None, _) => Said::Nothing,
        };
        Self { applied, said, is_hook: request.begin.is_some() }
    }

    /// Whether any job that is applied may be of a changeset that is gone.
    pub(super) fn puts_all_in_doubt(&self) -> bool {
        self.said != Said::Range
    }

    /// Refuses removals that nothing speaks for but that the tip lacks the files: those in `by_name`. `knows_others`:
    /// other jobs that are applied are there.
    pub(super) fn check(&self, root: &Path, by_name: &[String], knows_others: bool) -> Result<()> {
        let is_refused = match self.said {
            Said::TipCounts | Said::Range => false,
            Said::Base => !knows_others,
            Said::Nothing => true,
        };
        if by_name.is_empty() || !is_refused {
            return Ok(());
        }
        Err(lost_history(root, self.applied, by_name, self.is_hook))
    }
}

/// Whether something goes when the file does.
pub(super) fn can_be_removed(file: &JobFile) -> bool {
    matches!(job::parse(file, &[], true), Ok(Parsed::Job(_)))
}

/// Whether this slave has never done anything for the job: its filters have always left it out.
pub(super) fn was_never_taken(record: &JobRecord) -> bool {
    // The filters are asked about the metadata.
    let is_untouched = record.steps.iter().all(|step| step.step == Step::Metadata.as_str());
    record.state == State::Filtered && record.deployed.is_none() && is_untouched
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
fn lost_history(root: &Path, applied: &str, missing: &[String], is_hook: bool) -> Error {
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
