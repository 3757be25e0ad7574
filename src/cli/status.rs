//! `status` and `status forget`.

use super::args::{StatusAction, StatusArgs};
use super::{Session, exit, print, report, say, sync, table};
use crate::error::{Context, ErrorKind, Result};
use crate::journal::{Forget, Forgotten, Journal, Selection, State, Which};
use crate::status_page::json::Job;

pub(super) async fn run(session: &Session, args: &StatusArgs) -> Result<u8> {
    let dir = &session.settings.sync_status_path;
    if let Some(StatusAction::Forget { job_files, failed }) = &args.action {
        // A job that is just running would be written down again when it ends.
        let Some(lock) = sync::lock(session, "status forget").await? else { return Ok(exit::LOCKED) };
        let status = forget(&Journal::open(dir)?, job_files, *failed);
        drop(lock);
        return status;
    }
    let all = Selection { which: Which::All, ..selection(args) };
    let journal = Journal::open_read_only(dir)?;
    let mut records = match &journal {
        Some(journal) => journal.jobs(if args.job_files.is_empty() { selection(args) } else { all })?,
        None => Vec::new(),
    };
    let unknown: Vec<&String> =
        args.job_files.iter().filter(|path| !records.iter().any(|record| &record.job_file == *path)).collect();
    records.retain(|record| match selection(args).which {
        Which::All => true,
        Which::Failed => record.state.is_failure(),
        Which::Succeeded => record.state == State::Succeeded,
    });
    if args.json {
        let records: Vec<_> = records.iter().map(Job::from).collect();
        let text =
            serde_json::to_string_pretty(&records).context(ErrorKind::Bug, "the status cannot be written as JSON")?;
        print(&(text + "\n"))?;
    } else if args.job_files.is_empty() {
        print(&table::jobs(&records))?;
    } else {
        print(&records.iter().map(table::job).collect::<String>())?;
    }
    for path in &unknown {
        say(&format!("borg-slave: nothing is known of {path}"));
    }
    let program = journal.as_ref().filter(|_| session.settings.code_branch.is_some());
    if let Some(trouble) = program.map(Journal::program_trouble).transpose()?.flatten() {
        let since = crate::report::local_time(trouble.since);
        say(&format!("borg-slave: since {since}: {}", crate::report::program_trouble(&trouble.about)));
    }
    // What only has not had its turn yet is not worth a word.
    if let Some(backlog) = journal.as_ref().map(Journal::backlog).transpose()?.flatten()
        && session.settings.master.is_some()
        && (backlog.failing.is_some() || backlog.refused > 0)
    {
        say(&format!("borg-slave: {}; `borg-slave report --flush` tries now", report::waiting(&backlog)));
    }
    Ok(if unknown.is_empty() { exit::APPLIED } else { exit::FAILED })
}

fn selection(args: &StatusArgs) -> Selection<'_> {
    let which = match (args.failed, args.succeeded) {
        (true, _) => Which::Failed,
        (false, true) => Which::Succeeded,
        (false, false) => Which::All,
    };
    Selection { which, files: &args.job_files }
}

fn forget(journal: &Journal, job_files: &[String], failed: bool) -> Result<u8> {
    let mut outcome =
        if failed { journal.forget(Forget::Failed)? } else { Forgotten { forgotten: Vec::new(), unknown: Vec::new() } };
    if !job_files.is_empty() {
        let named = journal.forget(Forget::Files(job_files))?;
        outcome.forgotten.extend(named.forgotten);
        outcome.unknown = named.unknown;
    }
    for path in &outcome.forgotten {
        print(&format!("forgotten: {path}\n"))?;
    }
    if !outcome.forgotten.is_empty() {
        say("The next run does them again; `borg-slave sync` makes one now.");
    }
    for path in &outcome.unknown {
        say(&format!("borg-slave: nothing was known of {path}"));
    }
    Ok(if outcome.unknown.is_empty() { exit::APPLIED } else { exit::FAILED })
}
