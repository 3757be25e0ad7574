//! `report`: what the master is still to be told.

use super::args::ReportArgs;
use super::{Session, exit, print, say};
use crate::error::Result;
use crate::journal::{Backlog, Journal, Report};
use crate::report::{self, Master, local_time};

/// How many reports are read at a time.
const PAGE: u32 = 500;

pub(super) async fn run(session: &Session, args: &ReportArgs) -> Result<u8> {
    let dir = &session.settings.sync_status_path;
    let Some(master) = crate::wire::master(&session.settings) else {
        say("borg-slave: MASTER_PGSQL_HOST is not set, nothing is reported");
        return Ok(exit::APPLIED);
    };
    if args.flush {
        return flush(session, &master, &Journal::open(dir)?).await;
    }
    let journal = Journal::open_read_only(dir)?;
    let backlog = journal.as_ref().map(Journal::backlog).transpose()?.flatten();
    let (Some(journal), Some(backlog)) = (journal, backlog) else {
        print(&format!("No report waits for the master ({}).\n", master.options.place()))?;
        return Ok(exit::APPLIED);
    };
    let mut after = 0;
    loop {
        let page = journal.reports(after, PAGE)?;
        print(&page.iter().map(line).collect::<String>())?;
        match page.last() {
            Some(last) => after = last.id,
            None => break,
        }
    }
    print(&format!("{}\n", waiting(&backlog)))?;
    Ok(exit::APPLIED)
}

async fn flush(session: &Session, master: &Master, journal: &Journal) -> Result<u8> {
    let delivered = tokio::select! {
        delivered = report::deliver(master, journal) => delivered?,
        () = session.stop.cancelled() => return Ok(exit::FAILED),
    };
    print(&format!("{} delivered to {}\n", reports(delivered.sent), master.options.place()))?;
    for (subject, reason) in &delivered.refused {
        print(&format!("refused: {subject}: {reason}\n"))?;
    }
    Ok(if delivered.refused.is_empty() { exit::APPLIED } else { exit::FAILED })
}

fn line(report: &Report) -> String {
    let refused = report.refused.as_deref().map(|reason| format!("\n  refused: {reason}")).unwrap_or_default();
    format!("{}  {}{refused}\n", local_time(report.since), report.subject)
}

/// How much waits, since when and why.
pub(super) fn waiting(backlog: &Backlog) -> String {
    let since = local_time(backlog.since);
    let verb = if backlog.count == 1 { "waits" } else { "wait" };
    let mut text = format!("{} {verb} for the master, the oldest since {since}", reports(backlog.count));
    if backlog.refused > 0 {
        text.push_str(&format!(", {} of them refused by it", backlog.refused));
    }
    if let Some((since, reason)) = &backlog.failing {
        text.push_str(&format!("; it cannot be told since {}: {reason}", local_time(*since)));
    }
    text
}

fn reports(count: u64) -> String {
    if count == 1 { "1 report".to_owned() } else { format!("{count} reports") }
}
