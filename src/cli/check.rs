//! `check`: tries everything that the settings name and says what to mend.

mod hosts;
mod page;
mod places;

use std::time::Duration;

use self::hosts::Needs;
use super::{Session, exit, print, say, sync};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::GeoServer;
use crate::postgres::Versions;
use crate::process::Cmd;
use crate::state_repo::{StateRepo, Vcs};
use crate::sync::Request;

/// How long a probe of a program or a remote side may take.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Prints a line for each thing that was tried, as soon as it is known: some take their time.
#[derive(Default)]
struct Report {
    problems: usize,
    unwritten: Option<Error>,
}

impl Report {
    fn line(&mut self, what: &str, outcome: Result<String>) {
        match outcome {
            Ok(found) => self.put("ok", what, &found),
            Err(error) => {
                self.problems += 1;
                let hint = error.hint_text().map(|hint| format!("\n         Hint: {hint}")).unwrap_or_default();
                self.put("PROBLEM", what, &format!("{}{hint}", error.one_line()));
            }
        }
    }

    fn left_out(&mut self, what: &str, why: &str) {
        self.put("left out", what, why);
    }

    /// What works today but wants attention.
    fn note(&mut self, what: &str, about: &str) {
        self.put("note", what, about);
    }

    fn put(&mut self, word: &str, what: &str, about: &str) {
        if let Err(error) = print(&format!("{word:<8} {what}: {about}\n")) {
            self.unwritten.get_or_insert(error);
        }
    }
}

pub(super) async fn run(session: &Session) -> Result<u8> {
    let settings = &session.settings;
    let mut report = Report::default();
    places::lines(settings, &mut report).await;
    report.line("filters", crate::wire::filters(settings).map(|_| "they compile".into()));
    let mut needs = Needs::default();
    match sync::open_repository(session, None).await {
        Ok(mut repository) => {
            let outcome = repository_line(session, &mut repository, &mut needs).await;
            report.line("state repository", outcome);
            upstream_line(&mut repository, &mut report).await;
            repository.close().await;
        }
        Err(error) => report.line("state repository", Err(error)),
    }
    for (program, argument) in [("rsync", "--version"), ("ssh", "-V"), ("pg_restore", "--version")] {
        report.line(program, version_line(program, argument).await);
    }
    psql_line(settings, &needs, &mut report).await;
    if let Some(server) = &settings.sync_server {
        needs.hosts.insert(server.remote.clone());
    }
    for host in std::mem::take(&mut needs.hosts) {
        let outcome = hosts::ssh_line(&settings.file_ssh, &host).await;
        let can_be_reached = outcome.is_ok();
        if !can_be_reached {
            needs.cannot_be_reached(&host);
        }
        report.line(&format!("SSH to {host}"), outcome);
        if let Some(server) = settings.sync_server.as_ref().filter(|server| can_be_reached && server.remote == host) {
            report.line("SYNC_PATH", hosts::sync_path(&settings.file_ssh, server).await);
        }
    }
    hosts::preview_lines(session, needs, &mut report).await;
    database_lines(session, &mut report).await;
    if settings.skip.gs {
        report.left_out("GeoServer", "SKIP_GS is set");
    } else {
        for server in crate::wire::geoservers(settings, None)? {
            report.line("GeoServer", geoserver_line(&server).await);
        }
    }
    match crate::wire::cdn_answers(settings).await {
        None => report.left_out("CDN", "FASTLY_* are not set, nothing is purged"),
        Some(outcome) => report.line("CDN", outcome),
    }
    page::line(settings, &mut report).await;
    match crate::wire::master(settings) {
        Some(master) => report.line("master's database", crate::report::check(&master).await),
        None => report.left_out("master's database", "MASTER_PGSQL_HOST is not set, nothing is reported"),
    }
    if let Some(branch) = &settings.code_branch {
        let outcome = crate::daemon::check_code(branch, settings, &session.stop).await;
        report.line("the program's checkout (CODE_BRANCH)", outcome);
    }
    if let Some(error) = report.unwritten {
        return Err(error);
    }
    let plural = if report.problems == 1 { "1 problem" } else { &format!("{} problems", report.problems) };
    say(if report.problems == 0 { "All that was tried works." } else { plural });
    Ok(if report.problems == 0 { exit::APPLIED } else { exit::FAILED })
}

/// Asks the repository that the clone pulls from whether it answers, as a pull of the daemon does.
async fn upstream_line(repository: &mut StateRepo, report: &mut Report) {
    let what = "the repository it pulls from";
    let Ok(answer) = tokio::time::timeout(PROBE_LIMIT, repository.master_answers()).await else {
        let late = format!("it did not answer within {} s", PROBE_LIMIT.as_secs());
        report.line(
            what,
            Err(Error::new(ErrorKind::Unreachable, late).hint(match repository.vcs() {
                Vcs::Hg => "try `hg incoming` in the clone; [paths] in .hg/hgrc names the repository, BORG_SSH the way",
                Vcs::Git => "try `git fetch` in the clone; `git remote -v` names the repository, BORG_SSH the way",
            })),
        );
        return;
    };
    match answer {
        Ok(false) => report.left_out(what, "none is set in the clone: others push to it"),
        answer => report.line(what, answer.map(|_| "answers".to_owned())),
    }
    match repository.unread_settings().await {
        Ok(names) if names.is_empty() => {}
        Ok(names) => report.note(
            "Mercurial's configuration",
            &format!(
                "{} stand outside the clone's .hg/hgrc, which is the only one that the daemon reads: write there what its pulls need",
                names.join(", ")
            ),
        ),
        Err(error) => report.line("Mercurial's configuration", Err(error)),
    }
}

/// Reads the tip and collects what its job files need.
async fn repository_line(session: &Session, repository: &mut StateRepo, needs: &mut Needs) -> Result<String> {
    let tip = repository.tip().await?;
    let candidates = crate::sync::job_files(&session.settings, repository, &Request::default()).await?;
    let count = candidates.len();
    *needs = Needs::of(candidates);
    let vcs = match repository.vcs() {
        Vcs::Hg => "Mercurial",
        Vcs::Git => "Git",
    };
    Ok(format!("{vcs}, {count} job files at {}", tip.short()))
}

async fn psql_line(settings: &Settings, needs: &Needs, report: &mut Report) {
    let is_needed = needs.roles && !settings.skip.auth && !settings.skip.db;
    match version_line("psql", "--version").await {
        Ok(version) => report.line("psql", Ok(version)),
        Err(error) if is_needed => report.line(
            "psql",
            Err(error.hint("install postgresql-client: the script of roles (slave_roles.sql) runs through psql; SKIP_AUTH=true leaves roles out")),
        ),
        Err(_) => report.left_out("psql", "it is not installed; only a script of roles (slave_roles.sql) would need it"),
    }
}

async fn version_line(program: &str, argument: &str) -> Result<String> {
    let finished = Cmd::new(program).arg(argument).time_limit(PROBE_LIMIT).run().await?.success()?;
    let text = if finished.stdout.is_empty() { finished.stderr.clone() } else { finished.stdout_text() };
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

async fn database_lines(session: &Session, report: &mut Report) {
    if session.settings.skip.db {
        report.left_out("database", "SKIP_DB is set");
        return;
    }
    let settings = &session.settings.database;
    let place = format!("{} on {}:{}", settings.database, settings.host, settings.port);
    let outcome = async {
        let database = crate::wire::database(&session.settings, &session.stop)?;
        let versions = database.preflight().await?;
        database.check_rights().await?;
        Ok(versions)
    };
    let outcome = outcome.await;
    for warning in outcome.as_ref().map(Versions::warnings).unwrap_or_default() {
        report.note("PostgreSQL programs", &warning);
    }
    if let Ok(versions) = &outcome
        && let Err(error) = versions.check_loading()
    {
        report.line("PostgreSQL programs", Err(error));
    }
    let found = outcome.map(|versions| {
        let postgis = versions.postgis.as_deref().unwrap_or("not there yet, it will be made");
        format!("{place} has PostgreSQL {}, PostGIS {postgis}, the rights suffice", versions.server)
    });
    report.line("database", found);
}

async fn geoserver_line(server: &GeoServer) -> Result<String> {
    let version = server.supported_version().await?;
    Ok(format!("{} has version {version}, the login is an administrator's", server.name()))
}
