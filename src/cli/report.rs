//! `report`: what the master is still to be told.

use serde_json::{Value, json};

use super::args::ReportArgs;
use super::{Session, exit, print, say};
use crate::error::{Context, ErrorKind, Result};
use crate::journal::{Backlog, Journal, Report};
use crate::report::{self, Master, local_time};

/// How many reports are read at a time.
const PAGE: u32 = 500;

pub(super) async fn run(session: &Session, args: &ReportArgs) -> Result<u8> {
    let dir = &session.settings.sync_status_path;
    let Some(master) = crate::wire::master(&session.settings) else {
        if args.json {
            print_json(&waiting_as_json(None, None, &[]))?;
        }
        say("borg-slave: MASTER_PGSQL_HOST is not set, nothing is reported");
        return Ok(exit::APPLIED);
    };
    if args.flush {
        return flush(session, &master, &Journal::open(dir)?, args.json).await;
    }
    let journal = Journal::open_read_only(dir)?;
    let backlog = journal.as_ref().map(Journal::backlog).transpose()?.flatten();
    if args.json {
        let mut reports = Vec::new();
        let all = |report: &Report| reports.push(report_as_json(report));
        if let Some(journal) = &journal {
            each(journal, all)?;
        }
        print_json(&waiting_as_json(Some(&master), backlog.as_ref(), &reports))?;
        return Ok(exit::APPLIED);
    }
    let (Some(journal), Some(backlog)) = (journal, backlog) else {
        print(&format!("No report waits for the master ({}).\n", master.options.place()))?;
        return Ok(exit::APPLIED);
    };
    let mut lines = String::new();
    each(&journal, |report| lines.push_str(&line(report)))?;
    print(&lines)?;
    print(&format!("{}\n", waiting(&backlog)))?;
    Ok(exit::APPLIED)
}

/// Shows every report that waits, the oldest first.
fn each(journal: &Journal, mut show: impl FnMut(&Report)) -> Result<()> {
    let mut after = 0;
    loop {
        let page = journal.reports(after, PAGE)?;
        page.iter().for_each(&mut show);
        match page.last() {
            Some(last) => after = last.id,
            None => return Ok(()),
        }
    }
}

/// What waits as `--json` prints it: times in UTC.
fn waiting_as_json(master: Option<&Master>, backlog: Option<&Backlog>, reports: &[Value]) -> Value {
    let failing = backlog.and_then(|backlog| backlog.failing.as_ref());
    json!({
        "master": master.map(|master| master.options.place()),
        "waiting": backlog.map_or(0, |backlog| backlog.count),
        "refused": backlog.map_or(0, |backlog| backlog.refused),
        "since": backlog.map(|backlog| backlog.since.to_string()),
        "failing_since": failing.map(|(since, _)| since.to_string()),
        "failure": failing.map(|(_, reason)| reason),
        "reports": reports,
    })
}

fn report_as_json(report: &Report) -> Value {
    json!({ "subject": report.subject, "since": report.since.to_string(), "refused": report.refused })
}

fn print_json(value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context(ErrorKind::Bug, "the reports cannot be written as JSON")?;
    print(&(text + "\n"))
}

async fn flush(session: &Session, master: &Master, journal: &Journal, as_json: bool) -> Result<u8> {
    let delivered = tokio::select! {
        delivered = report::deliver(master, journal) => delivered?,
        () = session.stop.cancelled() => return Ok(exit::FAILED),
    };
    if as_json {
        let refused = delivered.refused.iter().map(|(subject, reason)| json!({ "subject": subject, "reason": reason }));
        let refused: Vec<Value> = refused.collect();
        print_json(&json!({ "master": master.options.place(), "delivered": delivered.sent, "refused": refused }))?;
    } else {
        print(&format!("{} delivered to {}\n", reports(delivered.sent), master.options.place()))?;
        for (subject, reason) in &delivered.refused {
            print(&format!("refused: {subject}: {reason}\n"))?;
        }
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
