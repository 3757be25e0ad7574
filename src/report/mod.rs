//! What the master's operators see of this slave: rows of the master's monitor tables.
//!
//! A report is written into the journal's outbox by the transaction that makes it true, and delivered
//! from there: in the background of a pass, by the next one, or by hand. The outbox holds the newest state
//! of each subject, so it cannot grow without bounds while the master is away, and what was delivered in
//! the end is what an undisturbed delivery would have left:
//!
//! | subject | row |
//! |---|---|
//! | `poll`, `run` | `monitor_slaveserver` of this slave: the daemon's looks for changes; every run that had jobs, and why none can be made |
//! | `publish/<layer>/deployed`, `publish/<layer>/failed` | `monitor_publishsyncstatus` of the layer |
//! | `task/<type>/<action>/<name>` | `monitor_tasksyncstatus` |
//! | `preview/<type>/<action>/<name>` | the picture of one of these two, when it comes later |
//!
//! The tables are the master's (application `monitor` of borgcollector); the slave never alters them.
//! A layer is known there by its bare name, so two layers of one name in two workspaces share a row.

mod courier;
mod deliver;
mod message;
mod payload;
mod tables;

use jiff::Timestamp;

pub use self::courier::Courier;
pub use self::deliver::{Delivered, check, deliver};
use self::payload::{Payload, Published};
use crate::error::Result;
use crate::journal::{JobOutcome, JobRecord, Journal, NewReport, State};
use crate::name::PgIdent;
use crate::postgres::ConnectOptions;

/// The master's database, and who reports there.
#[derive(Debug, Clone)]
pub struct Master {
    /// How to connect.
    pub options: ConnectOptions,
    /// The schema of the monitor tables.
    pub schema: PgIdent,
    /// The slave's name in the monitor.
    pub slave_name: String,
    /// The channels that the slave listens to, joined by commas.
    pub channels: String,
    /// The program's version and branch: `0.1.0 (master)`.
    pub code_version: String,
}

/// What a job is about, as the monitor names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `workspace:name`, the schema of a workspace, and fixed names for access rules and roles.
    pub task_name: String,
    /// The bare name of a layer.
    pub name: String,
    /// The type of a layer's geometry.
    pub spatial_type: Option<String>,
    /// Where the layer's picture is, below the master's directory of previews.
    pub preview_file: Option<String>,
}

/// What the master is to be told of a job that has ended. `job` is what the journal knows of it, its steps
/// included. Nothing of jobs that did not come to an end, or that this slave does not take.
#[must_use]
pub fn job_ended(job: &JobRecord, action: &str, outcome: &JobOutcome, at: Timestamp, about: &About) -> Vec<NewReport> {
    let succeeded = match outcome.state {
        State::Succeeded => true,
        State::Failed => false,
        _ => return Vec::new(),
    };
    let message = message::of_job(job, action, outcome, at);
    let at = at.as_microsecond();
    let deployed = format!("publish/{}/deployed", about.name);
    let failed = format!("publish/{}/failed", about.name);
    let task = format!("task/{}/{action}/{}", job.kind, about.task_name);
    match (job.kind.as_str(), action, succeeded) {
        ("feature", "publish", succeeded) => {
            let layer = Published {
                publish: about.name.clone(),
                spatial_type: about.spatial_type.clone(),
                job_id: job.job_id,
                job_batch_id: job.job_batch_id.clone(),
                message,
                at,
            };
            vec![if succeeded {
                Payload::Deployed { layer, preview_file: about.preview_file.clone() }.about(deployed, &[&failed])
            } else {
                Payload::Failed(layer).about(failed, &[])
            }]
        }
        ("feature", "remove", true) => {
            let payload = Payload::Removed { publish: about.name.clone(), task_name: about.task_name.clone() };
            vec![payload.about(deployed, &[&failed, &task])]
        }
        _ => vec![
            Payload::Task {
                task_type: job.kind.clone(),
                task_name: about.task_name.clone(),
                action: action.to_owned(),
                preview_file: about.preview_file.clone(),
                succeeded,
                message,
                at,
            }
            .about(task, &[]),
        ],
    }
}

/// What the master is to be told of a run: `head` says when and how, `files` how each file stands.
#[must_use]
pub fn run_note(master: &Master, at: Timestamp, head: &str, files: impl ExactSizeIterator<Item = String>) -> NewReport {
    let payload = Payload::Run {
        message: message::of_run(head, files),
        at: at.as_microsecond(),
        channels: Some(master.channels.clone()),
        code_version: Some(master.code_version.clone()),
    };
    payload.about("run".to_owned(), &[])
}

/// Notes that the preview of a layer has come after its job of this (kind, action) had ended: the job's row is told.
///
/// # Errors
///
/// When the journal cannot be written.
pub fn preview_came(
    journal: &Journal,
    (kind, action): (&str, &str),
    layer: &str,
    task_name: &str,
    preview_file: &str,
) -> Result<()> {
    let payload = Payload::Pictured {
        publish: ((kind, action) == ("feature", "publish")).then(|| layer.to_owned()),
        task_type: kind.to_owned(),
        task_name: task_name.to_owned(),
        action: action.to_owned(),
        preview_file: preview_file.to_owned(),
    };
    journal.put_reports(&[payload.about(format!("preview/{kind}/{action}/{task_name}"), &[])])
}

/// Notes that the program could not be brought up to date, or that it is again.
///
/// # Errors
///
/// When the journal cannot be written.
pub fn program_followed(journal: &Journal, master: &Master, trouble: Option<&str>) -> Result<()> {
    let at = Timestamp::now();
    let head = match trouble {
        Some(trouble) => format!("{}: {}", local_time(at), program_trouble(trouble)),
        None => format!("{}: the program is up to date again", local_time(at)),
    };
    journal.put_reports(&[run_note(master, at, &head, std::iter::empty())])
}

/// Notes why no pass can be made, or that they are made again.
///
/// # Errors
///
/// When the journal cannot be written.
pub fn passes_made(journal: &Journal, master: &Master, trouble: Option<&str>) -> Result<()> {
    let at = Timestamp::now();
    let head = match trouble {
        Some(trouble) => format!("{}: no pass can be made, what changes is not applied: {trouble}", local_time(at)),
        None => format!("{}: passes are made again", local_time(at)),
    };
    journal.put_reports(&[run_note(master, at, &head, std::iter::empty())])
}

/// What is said of a program that cannot follow its branch.
#[must_use]
pub fn program_trouble(about: &str) -> String {
    format!("the program is not brought up to date (CODE_BRANCH), the old one goes on: {about}")
}

/// Notes that the slave has just looked for changes: channels, time and version go to the master.
///
/// # Errors
///
/// When the journal cannot be written.
pub fn polled(journal: &Journal, master: &Master) -> Result<()> {
    let payload = Payload::Polled {
        channels: master.channels.clone(),
        code_version: master.code_version.clone(),
        at: Timestamp::now().as_microsecond(),
    };
    journal.put_reports(&[payload.about("poll".to_owned(), &[])])
}

/// A time as messages show it, with its distance from UTC: slaves and master need not share a zone.
#[must_use]
pub fn local_time(at: Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}
