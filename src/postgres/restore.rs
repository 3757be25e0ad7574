//! Move 2: `pg_restore` loads the table.
//!
//! Table, sequences and rows come in one transaction, and with them the indexes of a small one; those of a
//! large one are then built side by side in two sessions. What is loaded only in part is never published,
//! for it is on record as loaded only when it is whole: a restore that fails drops it, and after a kill the
//! next run does. Whatever comes outside of that transaction goes with the table. The same holds when the dump
//! was changed while it was read: what was loaded may be a mixture.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::connect::Database;
use super::{Archive, Table, failure, programs, reading};
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Cmd, Finished};

/// How often the progress of a restore is asked for.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// From this server version on a session ends its work when its client has died.
const CHECKS_CONNECTION: u32 = 140_000;

/// Tells the restores of one process apart in `pg_stat_activity`.
static RESTORES: AtomicU64 = AtomicU64::new(0);

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadProgress {
    /// Rows loaded so far.
    pub rows: u64,
    /// Which part of the dump is read, 0 to 1, when that is known; 1 as soon as all rows are loaded.
    /// Indexes and constraints follow.
    pub read: Option<f64>,
}

/// How a restore ended.
pub(super) enum Restored {
    /// The table is there.
    Done,
    /// Something of the same name came into being meanwhile: a killed run's session finished late.
    Clash(Error),
}

impl Database {
    /// Restores `archive` without its foreign keys; `progress` is called about once a second.
    pub(super) async fn restore(
        &self,
        table: &Table,
        archive: &Archive,
        progress: &(impl Fn(LoadProgress) + Send + Sync),
    ) -> Result<Restored> {
        let list = archive.list_file()?;
        let jobs = archive.jobs();
        let side_by_side = format!("--jobs={jobs}");
        let parts: &[&[&str]] = if jobs > 1 {
            &[
                &["--single-transaction", "--section=pre-data", "--section=data"],
                &["--section=post-data", &side_by_side],
            ]
        } else {
            &[&["--single-transaction"]]
        };
        for (index, part) in parts.iter().enumerate() {
            let finished = self.restore_part(archive, list.path(), part, progress).await;
            let is_done = finished.as_ref().is_ok_and(|finished| finished.status.success());
            let unchanged = archive.check();
            if is_done && unchanged.is_ok() {
                continue;
            }
            if is_done || index > 0 {
                self.take_away_unfinished(table).await;
            }
            // What it complains of is no wonder then.
            unchanged?;
            return self.not_restored(table, archive, &finished?.stderr, index > 0).await;
        }
        Ok(Restored::Done)
    }

    /// One run of `pg_restore`, with the arguments that say what of the dump it brings.
    async fn restore_part(
        &self,
        archive: &Archive,
        list: &Path,
        part: &[&str],
        progress: &(impl Fn(LoadProgress) + Send + Sync),
    ) -> Result<Finished> {
        let versions = self.preflight().await?;
        versions.check_loading()?;
        let checks_connection = versions.server_num >= CHECKS_CONNECTION;
        let name = format!("borg-slave restore {}-{}", std::process::id(), RESTORES.fetch_add(1, Ordering::Relaxed));
        // The swap commits synchronously, and with it everything before it in the log; the restore's
        // own commit need not wait for the disk.
        let mut options = "-c synchronous_commit=off".to_owned();
        if checks_connection {
            options.push_str(" -c client_connection_check_interval=1000");
        }
        let program = match versions.loader {
            Some(program) => program.into_os_string(),
            None => programs::pg_restore(&self.shared.stop).await,
        };
        let mut cmd = Cmd::new(program)
            .args(["--no-owner", "--no-privileges", "--no-tablespaces", "--exit-on-error", "--no-password"])
            .args(part)
            .arg(archive.format_option())
            .arg("-L")
            .arg(list)
            .arg("-d")
            .arg(self.shared.options.conninfo(&name, &options))
            .arg("--")
            .arg(archive.path())
            .time_limit(self.restore_limit)
            .stop(&self.shared.stop);
        if let Some(password) = &self.shared.options.password {
            cmd = cmd.env("PGPASSWORD", password.expose_secret());
        }
        let pid = cmd.pid();
        let run = cmd.run();
        tokio::pin!(run);
        let mut rows_before = None;
        loop {
            tokio::select! {
                finished = &mut run => return finished,
                () = self.shared.silence.cancelled() => return Err(self.fell_silent()),
                rows = self.rows_loaded(&name), if checks_connection => match (rows, rows_before) {
                    (Some(rows), _) => {
                        rows_before = Some(rows);
                        let position = pid.get().and_then(|pid| reading::position(*pid, archive.path()));
                        progress(LoadProgress { rows, read: position.and_then(|position| share(position, archive.bytes())) });
                    }
                    (None, Some(rows)) => progress(LoadProgress { rows, read: Some(1.0) }),
                    (None, None) => {}
                }
            }
        }
    }

    /// What is to be made of a restore that complained, once the table with its rows was `there`.
    async fn not_restored(&self, table: &Table, archive: &Archive, stderr: &str, there: bool) -> Result<Restored> {
        let subject = format!("{} into {}", archive.path().display(), table.label());
        let error = failure::restore(stderr, "cannot load the dump", &subject);
        if !failure::is_clash(stderr) {
            return Err(error);
        }
        let Some(namesake) = self.namesake(table, stderr).await else { return Ok(Restored::Clash(error)) };
        let error = Error::new(
            ErrorKind::Database,
            format!("cannot load the dump: a name that it brings is taken in schema {}: {namesake}", table.data_schema),
        )
        .subject(table.label())
        .hint("rename or drop it by hand, then run again: the slave does not drop what it did not make")
        .source(error);
        // It was not the loaded table's, which is gone by now, so that it would stand in the way again.
        if there { Err(error) } else { Ok(Restored::Clash(error)) }
    }

    /// Drops what is loaded in part, or shall not be used.
    pub(super) async fn take_away_unfinished(&self, table: &Table) {
        if self.shared.stop.is_cancelled() {
            // The next run does.
            return;
        }
        if let Err(kept) = self.drop_unfinished(table).await {
            tracing::warn!(table = table.label(), error = kept.one_line(), "a table that is loaded in part stays");
        }
    }

    /// What it is that has a name which the dump brings; none when it has gone.
    async fn namesake(&self, table: &Table, stderr: &str) -> Option<String> {
        let name = failure::taken_name(stderr)?;
        let client = self.client().await.ok()?;
        let question = include_str!("sql/namesake.sql");
        let found = client.query_opt(question, &[&table.data_schema.as_str(), &name]).await.ok()??;
        let (kind, owner): (&str, Option<&str>) = (found.get(0), found.get(1));
        let of = owner.map(|owner| format!(" of {owner}")).unwrap_or_default();
        Some(format!("\"{name}\" is {kind}{of}"))
    }

    /// The rows that the restore called `name` has loaded, after a moment; nothing when that is not known.
    async fn rows_loaded(&self, name: &str) -> Option<u64> {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let client = self.client().await.ok()?;
        let row = client.query_opt(include_str!("sql/copy_progress.sql"), &[&name]).await.ok()??;
        u64::try_from(row.get::<_, i64>(0)).ok()
    }

    /// Fails when the restore did not bring the table.
    pub(super) async fn check_restored(&self, table: &Table) -> Result<()> {
        let found = self.columns(&table.data_schema, &table.name).await?;
        if found.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Archive, "the dump was restored, but the table is not there")
            .subject(table.data_sql()))
    }
}

/// The part that `position` is of `bytes`. The last of it is still on its way to the server.
fn share(position: u64, bytes: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = position as f64 / bytes as f64;
    share.is_finite().then(|| share.clamp(0.0, 0.999))
}
