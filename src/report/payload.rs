//! What a report says, as the outbox keeps it and as the master's tables take it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::ToSql;

use super::tables::{PUBLISH, SLAVE, TASK, Widths};
use crate::error::{Context, ErrorKind, Result};
use crate::journal::NewReport;

/// A row to be written or deleted. Times are microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub(super) enum Payload {
    /// The slave has looked for changes.
    Polled { channels: String, code_version: String, at: i64 },
    /// A run has begun or ended. The last two are missing where an older version wrote the report.
    Run {
        message: String,
        at: i64,
        #[serde(default)]
        channels: Option<String>,
        #[serde(default)]
        code_version: Option<String>,
    },
    /// A layer is published.
    Deployed {
        #[serde(flatten)]
        layer: Published,
        preview_file: Option<String>,
    },
    /// A layer could not be published.
    Failed(Published),
    /// A layer is gone, and with it what was told of failed tries to remove it.
    Removed { publish: String, task_name: String },
    /// The picture of a layer whose job has ended before; `publish` for a publication, else a task.
    Pictured { publish: Option<String>, task_type: String, task_name: String, action: String, preview_file: String },
    /// Any other job has ended.
    Task {
        task_type: String,
        task_name: String,
        action: String,
        preview_file: Option<String>,
        succeeded: bool,
        message: String,
        at: i64,
    },
}

/// A layer whose publication has ended, well or badly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Published {
    pub(super) publish: String,
    pub(super) spatial_type: Option<String>,
    pub(super) job_id: Option<i64>,
    pub(super) job_batch_id: Option<String>,
    pub(super) message: String,
    pub(super) at: i64,
}

/// A value on its way into a statement.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;

/// The statements, `{schema}` to be filled in.
pub(super) const STATEMENTS: [&str; 7] = [
    include_str!("sql/polled.sql"),
    include_str!("sql/run.sql"),
    include_str!("sql/deployed.sql"),
    include_str!("sql/failed.sql"),
    include_str!("sql/removed.sql"),
    include_str!("sql/task.sql"),
    include_str!("sql/pictured.sql"),
];

impl Payload {
    /// The report about `subject` that makes those about `voids` void.
    pub(super) fn about(&self, subject: String, voids: &[&str]) -> NewReport {
        // Plain structs of texts and numbers: this cannot fail.
        let payload = serde_json::to_string(self).unwrap_or_default();
        NewReport { subject, payload, voids: voids.iter().map(|&subject| subject.to_owned()).collect() }
    }

    pub(super) fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).context(ErrorKind::Unsupported, "another version of borg-slave wrote the report")
    }

    /// Which of [`STATEMENTS`] tells it, and with which values: those of `slave`, fitted into the columns.
    pub(super) fn statement(&self, slave: i64, widths: &Widths) -> (usize, Vec<Value>) {
        let fit = |table, column, text: &str| -> Value { Box::new(widths.fit(table, column, text)) };
        let fit_some = |table, column, text: &Option<String>| -> Value {
            Box::new(text.as_deref().map(|text| widths.fit(table, column, text)))
        };
        let time = |at: i64| -> Value { Box::new(Timestamp::from_microsecond(at).unwrap_or(Timestamp::UNIX_EPOCH)) };
        let slave: Value = Box::new(slave);
        let published = |slave: Value, layer: &Published, batch, message| {
            vec![
                slave,
                fit(PUBLISH, "publish", &layer.publish),
                fit_some(PUBLISH, "spatial_type", &layer.spatial_type),
                Box::new(layer.job_id),
                fit_some(PUBLISH, batch, &layer.job_batch_id),
                fit(PUBLISH, message, &layer.message),
                time(layer.at),
            ]
        };
        match self {
            Self::Polled { channels, code_version, at } => (
                0,
                vec![
                    slave,
                    fit(SLAVE, "listen_channels", channels),
                    time(*at),
                    fit(SLAVE, "code_version", code_version),
                ],
            ),
            Self::Run { message, at, channels, code_version } => (
                1,
                vec![
                    slave,
                    time(*at),
                    fit(SLAVE, "last_sync_message", message),
                    fit_some(SLAVE, "listen_channels", channels),
                    fit_some(SLAVE, "code_version", code_version),
                ],
            ),
            Self::Deployed { layer, preview_file } => {
                let mut values = published(slave, layer, "deploied_job_batch_id", "deploy_message");
                values.push(fit_some(PUBLISH, "preview_file", preview_file));
                (2, values)
            }
            Self::Failed(layer) => (3, published(slave, layer, "sync_job_batch_id", "sync_message")),
            Self::Removed { publish, task_name } => {
                (4, vec![slave, fit(PUBLISH, "publish", publish), fit(TASK, "task_name", task_name)])
            }
            Self::Pictured { publish, task_type, task_name, action, preview_file } => (
                6,
                vec![
                    slave,
                    fit_some(PUBLISH, "publish", publish),
                    fit(TASK, "task_type", task_type),
                    fit(TASK, "task_name", task_name),
                    fit(TASK, "action", action),
                    fit(PUBLISH, "preview_file", preview_file),
                ],
            ),
            Self::Task { task_type, task_name, action, preview_file, succeeded, message, at } => (
                5,
                vec![
                    slave,
                    fit(TASK, "task_type", task_type),
                    fit(TASK, "task_name", task_name),
                    fit(TASK, "action", action),
                    fit_some(TASK, "preview_file", preview_file),
                    Box::new(*succeeded),
                    fit(TASK, "sync_message", message),
                    time(*at),
                ],
            ),
        }
    }
}
