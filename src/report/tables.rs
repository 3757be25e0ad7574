//! Whether the master's tables are as reports need them, and how much fits into their columns.

use std::collections::HashMap;

use super::Master;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::Session;

/// The slaves.
pub(super) const SLAVE: &str = "monitor_slaveserver";
/// The layers of each slave.
pub(super) const PUBLISH: &str = "monitor_publishsyncstatus";
/// The other jobs of each slave.
pub(super) const TASK: &str = "monitor_tasksyncstatus";

/// The columns that reports go to.
const COLUMNS: [(&str, &[&str]); 3] = [
    (
        SLAVE,
        &[
            "id",
            "name",
            "listen_channels",
            "register_time",
            "last_poll_time",
            "last_sync_time",
            "last_sync_message",
            "code_version",
        ],
    ),
    (
        PUBLISH,
        &[
            "slave_server_id",
            "publish",
            "spatial_type",
            "deploied_job_id",
            "deploied_job_batch_id",
            "deploy_message",
            "deploy_time",
            "preview_file",
            "sync_job_id",
            "sync_job_batch_id",
            "sync_message",
            "sync_time",
        ],
    ),
    (
        TASK,
        &[
            "slave_server_id",
            "task_type",
            "task_name",
            "action",
            "preview_file",
            "sync_succeed",
            "sync_message",
            "sync_time",
        ],
    ),
];

/// The rights that reports need.
const RIGHTS: [(&str, &[&str]); 3] = [
    (SLAVE, &["select", "insert", "update"]),
    (PUBLISH, &["select", "insert", "update", "delete"]),
    (TASK, &["select", "insert", "update", "delete"]),
];

/// How many characters fit into the columns that are bounded.
#[derive(Debug, Default)]
pub(super) struct Widths(HashMap<(String, String), usize>);

impl Widths {
    /// `text` as the column can take it: shortened visibly, and without NUL, which PostgreSQL has not.
    pub(super) fn fit(&self, table: &str, column: &str, text: &str) -> String {
        let text = text.replace('\0', "");
        let width = self.0.get(&(table.to_owned(), column.to_owned()));
        match width {
            Some(&width) if text.chars().count() > width => {
                text.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).collect()
            }
            _ => text,
        }
    }
}

/// Looks whether everything is there that reports need.
pub(super) async fn inspect(session: &mut Session, master: &Master) -> Result<Widths> {
    let what = "cannot look at the tables of the monitor";
    let place = master.options.place();
    let advice = session.advice();
    let schema = master.schema.as_str();
    let (relations, attributes) = pairs(&COLUMNS);
    let found = session
        .client()
        .query(include_str!("sql/columns.sql"), &[&relations, &attributes, &schema])
        .await
        .map_err(|error| advice.failed(error, what, &place))?;
    let mut widths = Widths::default();
    let mut missing = Vec::new();
    for row in &found {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let (has_table, has_column): (bool, bool) = (row.get(2), row.get(3));
        let lacks = if has_table { format!("column {table}.{column}") } else { format!("table {table}") };
        if !has_column && !missing.contains(&lacks) {
            missing.push(lacks);
        }
        if let Some(width) = row.get::<_, Option<i32>>(4).and_then(|width| usize::try_from(width).ok()) {
            widths.0.insert((table, column), width);
        }
    }
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the master's tables are not those that reports need: schema {schema} has no {}", missing.join(", ")),
        )
        .subject(place)
        .hint("correct MASTER_PGSQL_DATABASE and MASTER_PGSQL_SCHEMA, or bring the master's monitor application up to date (its migrations make the tables); the reports are kept until then"));
    }
    let (relations, words) = pairs(&RIGHTS);
    let lacking = session
        .client()
        .query(include_str!("sql/rights.sql"), &[&relations, &words, &schema])
        .await
        .map_err(|error| advice.failed(error, what, &place))?;
    let mut lacking: Vec<String> = lacking.iter().map(|row| row.get(0)).collect();
    lacking.sort();
    lacking.dedup();
    if !lacking.is_empty() {
        return Err(Error::new(ErrorKind::Denied, format!("rights are missing for reports: {}", lacking.join(", ")))
            .subject(place)
            .hint("grant them on the master to the user in MASTER_PGSQL_USERNAME; the reports are kept until then"));
    }
    Ok(widths)
}

/// The pairs as two lists of the same length.
fn pairs(of: &[(&'static str, &[&'static str])]) -> (Vec<&'static str>, Vec<&'static str>) {
    of.iter().flat_map(|(table, words)| words.iter().map(|word| (*table, *word))).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_visibly_by_characters() {
        let widths = Widths(HashMap::from([((TASK.to_owned(), "action".to_owned()), 5)]));
        assert_eq!(widths.fit(TASK, "action", "Straße"), "Stra…");
        assert_eq!(widths.fit(TASK, "action", "Straß"), "Straß");
        assert_eq!(widths.fit(TASK, "sync_message", "a\0b as long as it gets"), "ab as long as it gets");
    }
}
