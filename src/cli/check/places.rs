//! The directories: can they be written, is there room, is the journal in order.

use std::path::Path;

use super::Report;
use crate::config::Settings;
use crate::error::{Context, ErrorKind, Result, io_error};
use crate::journal::Journal;

/// Below this the journal may meet a full disk within days.
const JOURNAL_ROOM: u64 = 100 * 1024 * 1024;

pub(super) async fn lines(settings: &Settings, report: &mut Report) {
    // Dumps come ahead of the restores up to this much.
    let (dumps, journal, previews) = (settings.limits.ahead, JOURNAL_ROOM, 0);
    for (variable, dir, wanted) in [
        ("CACHE_PATH", &settings.cache_path, dumps),
        ("SYNC_STATUS_PATH", &settings.sync_status_path, journal),
        ("PREVIEW_PATH", &settings.preview_path, previews),
    ] {
        let is_there = writable(dir);
        let may_be_written = is_there.is_ok();
        report.line(variable, is_there);
        if may_be_written && let Some(about) = shortage(dir, wanted) {
            report.note(variable, &about);
        }
    }
    let dir = settings.sync_status_path.clone();
    let outcome = tokio::task::spawn_blocking(move || Journal::try_out(&dir)).await;
    let outcome = outcome.context(ErrorKind::Bug, "the look at the journal crashed").flatten();
    match outcome {
        Ok(None) => report.left_out("journal", "there is none yet; the first run makes it in SYNC_STATUS_PATH"),
        Ok(Some(jobs)) => report.line("journal", Ok(format!("it is whole and can be written, {jobs} jobs are known"))),
        Err(error) => report.line("journal", Err(error)),
    }
}

pub(super) fn writable(dir: &Path) -> Result<String> {
    std::fs::create_dir_all(dir).map_err(|source| io_error(dir, "cannot make the directory", source))?;
    tempfile::tempfile_in(dir).map_err(|source| io_error(dir, "cannot write into the directory", source))?;
    let space = rustix::fs::statvfs(dir).map(|about| about.f_bavail.saturating_mul(about.f_frsize));
    let free = space.map(|bytes| format!(", {} free", indicatif::HumanBytes(bytes))).unwrap_or_default();
    Ok(format!("{} can be written{free}", dir.display()))
}

/// What there is too little of.
fn shortage(dir: &Path, wanted: u64) -> Option<String> {
    let about = rustix::fs::statvfs(dir).ok()?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    // Some file systems do not count files.
    if about.f_files > 0 && about.f_favail == 0 {
        return Some(format!(
            "the file system of {} takes no more files (`df -i` shows it): remove what is not needed",
            dir.display()
        ));
    }
    (free < wanted).then(|| {
        let sizes = [free, wanted].map(indicatif::HumanBytes);
        format!("{} has {} free, and {} may be needed at once: make room there", dir.display(), sizes[0], sizes[1])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(shortage(dir.path(), 0), None);
        let about = shortage(dir.path(), u64::MAX).unwrap_or_default();
        assert!(about.contains("may be needed at once: make room there"), "{about}");
    }
}
