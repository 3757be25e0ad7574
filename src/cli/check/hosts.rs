//! The machines that files come from and previews go to.

use std::collections::{BTreeMap, BTreeSet};

use super::places::writable;
use super::{PROBE_LIMIT, Report, Session};
use crate::config::{Settings, SyncServer};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::job::{Action, Document, JobFile, JobKind, Parsed, parse};
use crate::plan::Candidate;
use crate::process::{Cmd, Finished};
use crate::transfer::{Destination, Location};

/// What the tip's job files need of other machines and programs.
#[derive(Default)]
pub(super) struct Needs {
    /// `user@host` that files come from.
    pub(super) hosts: BTreeSet<String>,
    /// There is a script of roles.
    pub(super) roles: bool,
    /// A published layer for each place that metadata come from: they tell where previews go.
    layers: BTreeMap<String, (JobFile, Document)>,
}

impl Needs {
    pub(super) fn of(candidates: Vec<Candidate>) -> Self {
        let mut needs = Self::default();
        for Candidate { file, content, .. } in candidates {
            needs.roles |= file.kind == JobKind::Auth;
            let Ok(Parsed::Job(document)) = parse(&file, &content, false) else { continue };
            let place = match document.metadata().map(|metadata| Location::parse(&metadata.file)) {
                Some(Ok(Location::Remote(remote))) => remote.login(),
                Some(Err(_)) => continue,
                Some(Ok(Location::Local(_))) | None => String::new(),
            };
            if !place.is_empty() {
                needs.hosts.insert(place.clone());
            }
            let has_preview = matches!(file.kind, JobKind::Feature | JobKind::LiveLayer | JobKind::WmsLayer);
            if has_preview && document.action() == Action::Publish {
                needs.layers.entry(place).or_insert((file, document));
            }
        }
        needs
    }

    /// Nothing is asked there any more.
    pub(super) fn cannot_be_reached(&mut self, host: &str) {
        self.layers.remove(host);
    }
}

pub(super) async fn ssh_line(ssh: &[String], host: &str) -> Result<String> {
    let finished = on_host(ssh, host, "rsync --version").await?;
    match finished.status.code() {
        Some(0) => Ok(finished.stdout_text().lines().next().unwrap_or_default().trim().to_owned()),
        Some(127) => Ok("logged in; no rsync there, files come by SFTP, which is slower".into()),
        _ => Err(no_login(&finished, ssh, host)),
    }
}

/// Looks whether the other slave's files can be read.
pub(super) async fn sync_path(ssh: &[String], server: &SyncServer) -> Result<String> {
    let place = format!("{}:{}", server.remote, server.path);
    let dir = shell_words::quote(&server.path).into_owned();
    let script = format!("test -d {dir} || exit 3; test -r {dir} && test -x {dir} || exit 4; ls {dir} | wc -l");
    let finished = on_host(ssh, &server.remote, &script).await?;
    match finished.status.code() {
        Some(0) if finished.stdout_text().trim() == "0" => {
            Ok(format!("{place} is empty: that slave keeps its files for others with KEEP_CACHED_FILES=true only"))
        }
        Some(0) => Ok(format!("{place} can be read, {} files", finished.stdout_text().trim())),
        Some(3) => Err(Error::new(ErrorKind::Missing, "the directory is not there")
            .subject(place)
            .hint("set SYNC_PATH to the CACHE_PATH of the slave that SYNC_SERVER names")),
        Some(4) => Err(Error::new(ErrorKind::Denied, "the directory cannot be read")
            .subject(place)
            .hint("give the user that BORG_SSH logs in as the right to read it there")),
        _ => Err(no_login(&finished, ssh, &server.remote)),
    }
}

/// Tries the places that previews go to, as one layer of each machine tells them.
pub(super) async fn preview_lines(session: &Session, needs: Needs, report: &mut Report) {
    let settings = &session.settings;
    if settings.skip.gs {
        return;
    }
    match destinations(session, needs).await {
        Ok(places) => {
            for place in places {
                report.line(&format!("previews to {place}"), sending(settings, &place).await);
            }
        }
        Err(error) => report.left_out("previews", &format!("where they go is not known: {}", error.one_line())),
    }
}

async fn destinations(session: &Session, needs: Needs) -> Result<Vec<Destination>> {
    // A place of its own: a pass may be at work in the cache.
    let place = tempfile::tempdir().context(ErrorKind::Io, "cannot make a temporary directory")?;
    let settings = Settings { cache_path: place.path().to_owned(), ..session.settings.clone() };
    let transfer = crate::wire::transfer(&settings, None, &session.stop)?;
    let mut destinations: Vec<Destination> = Vec::new();
    let mut outcome = Ok(());
    for (file, document) in needs.layers.into_values() {
        match Box::pin(crate::execute::complete(&transfer, &file, document, false)).await {
            Ok(complete) => {
                let to = complete.facts.get("preview_path").and_then(|to| Destination::parse(to.as_str()?).ok());
                destinations.extend(to.filter(|to| !destinations.contains(to)));
            }
            Err(error) => outcome = Err(error.within(&file.path)),
        }
    }
    transfer.close().await;
    if destinations.is_empty() { outcome.map(|()| destinations) } else { Ok(destinations) }
}

async fn sending(settings: &Settings, to: &Destination) -> Result<String> {
    let host = match to.login() {
        Some(host) if !settings.share_preview_data => host,
        _ => return writable(to.dir()),
    };
    let dir = shell_words::quote(&to.dir().to_string_lossy()).into_owned();
    let script =
        format!("command -v rsync >/dev/null || exit 127; test ! -e {dir} || {{ test -d {dir} && test -w {dir}; }}");
    let finished = on_host(&settings.file_ssh, &host, &script).await?;
    match finished.status.code() {
        Some(0) => Ok("logged in, rsync is there, the directory can be written or is not there yet".to_owned()),
        Some(127) => Err(Error::new(ErrorKind::Missing, "rsync, by which previews are sent, is not installed there")
            .subject(host)
            .hint("install rsync on that machine; layers are published without it")),
        Some(1) => Err(Error::new(ErrorKind::Denied, "the directory cannot be written there")
            .subject(to.to_string())
            .hint("give the user that BORG_SSH logs in as the right to write in it, or correct preview_path on the master")),
        _ => Err(no_login(&finished, &settings.file_ssh, &host)),
    }
}

async fn on_host(ssh: &[String], host: &str, command: &str) -> Result<Finished> {
    let Some((program, options)) = ssh.split_first() else {
        return Err(Error::new(ErrorKind::Settings, "the SSH command is empty").subject("BORG_SSH"));
    };
    let quick = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ConnectionAttempts=1"];
    // Of an option given twice, ssh takes the first.
    Cmd::new(program).args(quick).args(options).args([host, command]).time_limit(PROBE_LIMIT).run().await
}

fn no_login(finished: &Finished, ssh: &[String], host: &str) -> Error {
    finished.failure().hint(format!(
        "try `{} {host} true` as the user that runs borg-slave; BORG_SSH, BORGCOLLECTOR_SSH set the command",
        shell_words::join(ssh)
    ))
}
