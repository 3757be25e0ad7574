//! One status file of the Python slave.
//!
//! It wrote `SYNC_STATUS_PATH/<job file>` at the end of each hook, with Python 2's `json.dumps`:
//! `{"file", "md5", "action", "status", "last_process_time", "tasks": {name: {"status", "messages":
//! {"message": …}, "stages", "last_process_time"}}}`. A task that was not reached has no `status`; the
//! message of a failed one is a traceback. A process that was killed while it wrote left the file cut
//! off or empty; an empty one counted as none.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::job::Action;

/// How many characters of a reason are kept.
const REASON: usize = 300;

/// What the Python slave wrote down of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PythonStatus {
    /// MD5 of the job file's content, in lower-case hexadecimal digits.
    pub(super) md5: String,
    /// What the job asked for; `None` for a version that wrote `update` for all but removals.
    pub(super) action: Option<Action>,
    /// Why it failed; `None` when it succeeded.
    pub(super) failure: Option<String>,
    /// When it was worked on, in the local time of the slave, to the second.
    pub(super) at: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object as the Python slave wrote it")]
struct Document {
    md5: Option<String>,
    action: Option<String>,
    status: Option<bool>,
    last_process_time: Option<String>,
    #[serde(default)]
    tasks: BTreeMap<String, Task>,
}

#[derive(Deserialize)]
struct Task {
    status: Option<bool>,
    #[serde(default)]
    messages: BTreeMap<String, Text>,
}

/// Text in which Python may have left half of a character: `json.dumps` writes lone surrogates, which
/// are no Unicode text.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lossy;
        impl Visitor<'_> for Lossy {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(Lossy)
    }
}

/// Reads a status file; `None` when it says nothing.
///
/// # Errors
///
/// What is wrong with the file, as a sentence.
pub(super) fn read(content: &[u8]) -> Result<Option<PythonStatus>, String> {
    if content.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let document: Document = serde_json::from_slice(content).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        if error.is_eof() {
            format!("the file is cut off ({place}): the Python slave was killed while it wrote it")
        } else {
            format!("the file is no status file: {error}")
        }
    })?;
    let md5 = document.md5.unwrap_or_default().to_ascii_lowercase();
    if md5.len() != 32 || !md5.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("`md5` is missing or is no MD5".into());
    }
    let action = match document.action.as_deref() {
        Some("update") => None,
        Some("publish") => Some(Action::Publish),
        Some("remove") => Some(Action::Remove),
        Some("meta") => Some(Action::Meta),
        Some("empty_gwc") => Some(Action::EmptyGwc),
        Some(other) => return Err(format!("`action` is {other:?}, which is none")),
        None => return Err("`action` is missing".into()),
    };
    // The Python slave looked at the tasks, too; `status` is their sum when the file was saved.
    let tasks_succeeded = !document.tasks.is_empty() && document.tasks.values().all(|task| task.status == Some(true));
    let succeeded = document.status.unwrap_or(tasks_succeeded) && tasks_succeeded;
    let failure = (!succeeded).then(|| reason(&document.tasks));
    let at = document.last_process_time.and_then(|at| at.get(..19).map(str::to_owned));
    Ok(Some(PythonStatus { md5, action, failure, at }))
}

/// The task that failed, and the last line of its traceback.
fn reason(tasks: &BTreeMap<String, Task>) -> String {
    let failed = tasks.iter().find(|(_, task)| task.status == Some(false));
    let Some((name, task)) = failed else {
        let open = tasks.iter().find(|(_, task)| task.status.is_none());
        return open.map_or("it was not finished".into(), |(name, _)| format!("{name} was not reached"));
    };
    let message = task.messages.get("message").map(|text| text.0.as_str()).unwrap_or_default();
    match message.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("{name}: {}", line.chars().take(REASON).collect::<String>()),
        None => format!("{name} failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "0cc175b9c0f1b6a831c399e269772661";

    fn show(content: &str) -> String {
        match read(content.replace("MD5", MD5).as_bytes()) {
            Ok(Some(status)) => format!("{:?} {:?} {:?}", status.action, status.failure, status.at),
            Ok(None) => "nothing".into(),
            Err(error) => format!("refused: {error}"),
        }
    }

    #[test]
    fn what_the_python_slave_wrote_is_understood() {
        let done = r#"{"file": "geoserver/layers/w.a.json", "md5": "MD5", "action": "publish", "status": true,
            "last_process_time": "2016-11-05 01:12:44.000123", "tasks": {"restore_table": {"status": true,
            "shared": false, "messages": {"message": "succeed"}, "stages": {"load_table_dumpfile": {"status": true}}}}}"#;
        let failed = done.replace("true", "false").replace(
            "succeed",
            r"Traceback (most recent call last):\n  File \ud800\nException: pg_restore: error\ud83d\n\n",
        );
        let open = done.replace(r#""status": true, "#, "").replace(r#""status": true,"#, "");
        let lines = [
            done.to_owned(),
            done.replace(r#""status": true,"#, "").replace("restore_table\": {", "restore_table\": {\"status\": true,"),
            failed,
            open,
            done.replace("publish", "update"),
            done.replace(r#""tasks""#, r#""others""#),
            done.replace("publish", "none"),
            done.replace("MD5", "5"),
            done[..100].to_owned(),
            " \n".to_owned(),
            "[]".to_owned(),
        ];
        insta::assert_snapshot!(lines.iter().map(|line| show(line)).collect::<Vec<_>>().join("\n"), @r#"
        Some(Publish) None Some("2016-11-05 01:12:44")
        Some(Publish) None Some("2016-11-05 01:12:44")
        Some(Publish) Some("restore_table: Exception: pg_restore: error���") Some("2016-11-05 01:12:44")
        Some(Publish) Some("restore_table was not reached") Some("2016-11-05 01:12:44")
        None None Some("2016-11-05 01:12:44")
        Some(Publish) Some("it was not finished") Some("2016-11-05 01:12:44")
        refused: `action` is "none", which is none
        refused: `md5` is missing or is no MD5
        refused: the file is cut off (line 2, column 11): the Python slave was killed while it wrote it
        nothing
        refused: the file is no status file: invalid length 0, expected an object as the Python slave wrote it at line 1 column 2
        "#);
    }
}
