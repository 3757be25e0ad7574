//! `import-status`: what the Python slave knew becomes what the journal knows.

use std::fmt::Write as _;
use std::path::Path;

use super::{Session, exit, print, say, sync};
use crate::error::Result;
use crate::journal::Journal;
use crate::sync::takeover::{self, Takeover, Verdict};

pub(super) async fn run(session: &Session, dir: &Path, dry_run: bool) -> Result<u8> {
    let settings = &session.settings;
    if dry_run {
        let mut repository = sync::open_repository(session, None).await?;
        let journal = Journal::open_read_only(&settings.sync_status_path)?;
        let takeover = takeover::prepare(settings, &mut repository, journal.as_ref(), dir).await;
        repository.close().await;
        return tell(&takeover?, true);
    }
    // A pass that runs meanwhile would have read the journal as it was.
    let Some(lock) = sync::lock(session, "import-status").await? else { return Ok(exit::LOCKED) };
    let mut repository = sync::open_repository(session, None).await?;
    let outcome = import(session, &mut repository, dir).await;
    repository.close().await;
    drop(lock);
    tell(&outcome?, false)
}

async fn import(session: &Session, repository: &mut crate::state_repo::StateRepo, dir: &Path) -> Result<Takeover> {
    // Looked at before the journal is made, so that a wrong folder leaves nothing behind.
    let read_only = Journal::open_read_only(&session.settings.sync_status_path)?;
    let takeover = takeover::prepare(&session.settings, repository, read_only.as_ref(), dir).await?;
    drop(read_only);
    takeover.record(&Journal::open(&session.settings.sync_status_path)?)?;
    Ok(takeover)
}

/// Prints the summary; what cannot be read makes the exit status 1.
fn tell(takeover: &Takeover, dry_run: bool) -> Result<u8> {
    print(&text(takeover, dry_run))?;
    let unreadable = takeover.verdicts.values().filter(|verdict| matches!(verdict, Verdict::Unreadable(_))).count();
    if unreadable > 0 {
        say(&format!("borg-slave: {unreadable} status file(s) could not be read; the jobs they are about run again"));
        return Ok(exit::FAILED);
    }
    Ok(exit::APPLIED)
}

/// One row of the summary.
struct Row {
    name: &'static str,
    /// What becomes of its files; where there is nothing to say they are not named.
    about: Option<&'static str>,
    is_one: fn(&Verdict) -> bool,
}

const fn row(name: &'static str, about: Option<&'static str>, is_one: fn(&Verdict) -> bool) -> Row {
    Row { name, about, is_one }
}

const ROWS: &[Row] = &[
    row("taken", None, |verdict| *verdict == Verdict::Taken),
    row("removed then", None, |verdict| *verdict == Verdict::Past),
    row("known already", None, |verdict| *verdict == Verdict::Known),
    row(
        "changed since",
        Some("the tip holds other content; it runs, unless a pull brings what the Python slave applied"),
        |verdict| *verdict == Verdict::Changed,
    ),
    row("failed then", Some("they run again"), |verdict| matches!(verdict, Verdict::Failed(_))),
    row("not done then", Some("the Python slave said otherwise; they run now"), |verdict| {
        matches!(verdict, Verdict::NotDone(_))
    }),
    row(
        "not at the tip",
        Some(
            "applied, but not in the repository: a pull brings it, or it was deleted and its layer may still be there",
        ),
        |verdict| *verdict == Verdict::NotAtTip,
    ),
    row("unreadable", Some("their jobs run again"), |verdict| matches!(verdict, Verdict::Unreadable(_))),
    row("unknown", Some("no status file; they run if the filters take them"), |verdict| {
        *verdict == Verdict::NotRecorded
    }),
    row("not about a job", Some("of another channel, or no status file; left alone"), |verdict| {
        *verdict == Verdict::Foreign
    }),
];

/// How many files of a kind are named, where they need no reason.
const NAMED: usize = 20;

fn text(takeover: &Takeover, dry_run: bool) -> String {
    let mut text = String::from(if dry_run { "Would import\n" } else { "Imported\n" });
    for Row { name, is_one, .. } in ROWS {
        let count = takeover.verdicts.values().filter(|verdict| is_one(verdict)).count();
        if count > 0 {
            let _ = writeln!(text, "  {name:<16} {count:>6}");
        }
    }
    for Row { name, about, is_one } in ROWS {
        let files: Vec<_> = takeover.verdicts.iter().filter(|(_, verdict)| is_one(verdict)).collect();
        let Some(about) = about.filter(|_| !files.is_empty()) else { continue };
        let mut title = (*name).to_owned();
        title[..1].make_ascii_uppercase();
        let _ = writeln!(text, "{title} ({about}):");
        // What went wrong is told of each, however many they are.
        let shown = if files.iter().all(|(_, verdict)| reason(verdict).is_empty()) { NAMED } else { files.len() };
        for (file, verdict) in files.iter().take(shown) {
            let reason = reason(verdict);
            let _ = writeln!(text, "  {file}{}{reason}", if reason.is_empty() { "" } else { "\n    " });
        }
        if files.len() > shown {
            let _ = writeln!(text, "  and {} more", files.len() - shown);
        }
    }
    text.push_str(match (takeover.complete, dry_run) {
        (true, _) => "Everything at the tip is done; the next pull does only what it brings.\n",
        (false, true) => "The next run would do what is not done; `borg-slave sync --dry-run` shows it after the import.\n",
        (false, false) => {
            "The next run does what is not done; `borg-slave sync --dry-run` shows it. Pull first: what had been rolled back comes back.\n"
        }
    });
    text
}

fn reason(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Failed(why) | Verdict::Unreadable(why) => why,
        Verdict::NotDone(what) => what,
        _ => "",
    }
}
