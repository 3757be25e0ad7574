//! What filters see of a job.

use serde_json::{Map, Value};

use super::field::Fields;
use super::settings::is_secret;
use super::{Action, Job, JobFile, JobKind};

const BOOLEANS: [&str; 5] =
    ["allow_authenticated", "override_bbox", "spatial_data", "sync_geoserver_data", "sync_postgres_data"];
const INTEGERS: [&str; 2] = ["auth_level", "job_id"];

/// The merged document without nulls and secrets, with what the file's path says.
pub(super) fn read(file: &JobFile, action: Action, fields: &Fields<'_>, job: &Job) -> Map<String, Value> {
    let mut facts = match file.kind {
        // Their content is no document, and no filter is asked about them.
        JobKind::AccessRules | JobKind::Auth => Map::new(),
        _ => fields.merged(),
    };
    facts.retain(|name, _| !is_secret(name));
    if let Some(Value::Object(setting)) = facts.get_mut("geoserver_setting") {
        setting.retain(|name, value| !is_secret(name) && !value.is_null());
    }
    // A comparison such as `job.auth_level == 2` must not depend on how a master wrote the number.
    for name in BOOLEANS {
        if let Ok(Some(value)) = fields.boolean(name) {
            facts.insert(name.to_owned(), value.into());
        }
    }
    for name in INTEGERS {
        if let Ok(Some(value)) = fields.integer(name) {
            facts.insert(name.to_owned(), value.into());
        }
    }
    // The names of a removal or an auxiliary file may come from the file's name alone.
    if let Some((workspace, name)) = job.workspace_and_name() {
        facts.insert("workspace".to_owned(), workspace.as_str().into());
        facts.insert("name".to_owned(), name.as_str().into());
    }
    facts.insert("action".to_owned(), action.as_str().into());
    facts.insert("job_type".to_owned(), file.kind.as_str().into());
    facts.insert("job_file".to_owned(), file.path.as_str().into());
    match &file.channel {
        Some(channel) => facts.insert("channel".to_owned(), channel.as_str().into()),
        None => facts.remove("channel"),
    };
    facts
}
