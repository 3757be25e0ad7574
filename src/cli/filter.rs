//! `filter`: which jobs the filters take, and why not.

use std::fmt::Write as _;

use super::{Session, exit, print, sync};
use crate::config::Settings;
use crate::error::{Context, ErrorKind, Result};
use crate::filter::{Filters, Verdict};
use crate::job::{self, Action, Parsed};
use crate::plan::Candidate;
use crate::sync::Request;
use crate::transfer::Transfer;

pub(super) async fn run(session: &Session, job_files: &[String]) -> Result<u8> {
    let filters = crate::wire::filters(&session.settings)?;
    // A place of its own: a pass may be at work in the cache.
    let place = tempfile::tempdir().context(ErrorKind::Io, "cannot make a temporary directory")?;
    let settings = Settings { cache_path: place.path().to_owned(), ..session.settings.clone() };
    let transfer = crate::wire::transfer(&settings, None, &session.stop)?;
    let mut repository = sync::open_repository(session, None).await?;
    let request = Request { files: job_files.to_vec(), ..Request::default() };
    let candidates = crate::sync::job_files(&session.settings, &mut repository, &request).await;
    repository.close().await;
    let candidates = candidates?;
    let keep = session.settings.keep_cached_files;
    let answers = candidates.iter().map(|candidate| answer(&filters, &transfer, candidate, keep));
    let answers = futures_util::future::join_all(answers).await;
    transfer.close().await;
    let (mut text, mut errors) = (String::new(), 0);
    for (candidate, answer) in candidates.iter().zip(answers) {
        let path = &candidate.file.path;
        match answer {
            Ok(Answer::FollowsLayer) => {
                writeln!(text, "as layer {path}\n           it empties tiles, and says nothing that filters ask for")
            }
            Ok(Answer::Asked(Verdict::Taken)) => writeln!(text, "taken    {path}"),
            Ok(Answer::Asked(Verdict::Refused { reason })) => writeln!(text, "refused  {path}\n           {reason}"),
            Ok(Answer::Nothing) => Ok(()),
            Err(error) => {
                errors += 1;
                writeln!(text, "error    {path}\n           {}", error.one_line())
            }
        }
        .unwrap_or_default();
    }
    print(&text)?;
    Ok(if errors == 0 { exit::APPLIED } else { exit::FAILED })
}

/// What becomes of a job file.
enum Answer {
    /// It asks for nothing.
    Nothing,
    /// What the filters say of its layer holds for it as well.
    FollowsLayer,
    /// What the filters say.
    Asked(Verdict),
}

async fn answer(filters: &Filters, transfer: &Transfer, candidate: &Candidate, keep: bool) -> Result<Answer> {
    let file = &candidate.file;
    let Parsed::Job(document) = job::parse(file, &candidate.content, false)? else { return Ok(Answer::Nothing) };
    let complete = crate::execute::complete(transfer, file, document, keep).await?;
    if complete.action == Action::EmptyGwc && complete.only_names {
        return Ok(Answer::FollowsLayer);
    }
    filters.accepts(file.kind, &complete.facts).map(Answer::Asked)
}
