//! Reads the fields of a job file and its metadata as one, and says in errors which file is to blame.

use serde_json::{Map, Value};
use std::borrow::Cow;

use super::JobFile;
use super::json::{Source, Step, kind_of};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{GeoName, PgIdent};

/// The fields that stay the job file's own when the metadata file has them too: they say what is to be
/// done now, while the metadata file may have been written for an earlier publication.
const JOB_FILE_FIRST: [&str; 6] = ["action", "job_id", "job_batch_id", "publish_time", "meta", "data"];

const REMEDY: &str = "correct it on the master and publish again";

/// A job file and, when it has one, its metadata file, read as one document.
///
/// A field of the metadata overrides the job file's, except for those that only the job file can know
/// (`action`, `job_id`, `job_batch_id`, `publish_time`, `meta`, `data`), which the metadata merely fills in.
pub(super) struct Fields<'a> {
    job: &'a Source,
    metadata: Option<&'a Source>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(job: &'a Source, metadata: Option<&'a Source>) -> Self {
        Self { job, metadata }
    }

    /// The field `name`, unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let (first, second) = if JOB_FILE_FIRST.contains(&name) {
            (Some(self.job), self.metadata)
        } else {
            (self.metadata, Some(self.job))
        };
        [first, second].into_iter().flatten().find_map(|source| {
            let value = source.object.get(name).filter(|value| !value.is_null())?;
            Some(Field { value: Cow::Borrowed(value), source, steps: vec![Step::Key(name.to_owned())], inside: false })
        })
    }

    /// Refuses metadata that are about something else than the job file. What that is about its own fields say,
    /// and where it has none, its name: `<workspace>.<name>`.
    pub(super) fn check_names(&self, file: &JobFile) -> Result<()> {
        let Some(metadata) = self.metadata else { return Ok(()) };
        let said = |source: &'a Source, field: &str| source.object.get(field).and_then(Value::as_str);
        let [there, here] = [metadata, self.job].map(|source| (said(source, "workspace"), said(source, "name")));
        if let ((Some(workspace), Some(name)), (None, None)) = (there, here)
            && file.stem == format!("{workspace}.{name}")
        {
            // Also where the workspace has a dot in it.
            return Ok(());
        }
        let named_after = file.named_after();
        let workspace = here.0.or(named_after.map(|(workspace, _)| workspace));
        let name = here.1.unwrap_or(named_after.map_or(file.stem.as_str(), |(_, name)| name));
        for (field, here, there) in [("workspace", workspace, there.0), ("name", Some(name), there.1)] {
            if let (Some(here), Some(there)) = (here, there)
                && here != there
            {
                return Err(Error::new(
                    ErrorKind::Document,
                    format!("the metadata are another job's: their {field} is {there:?}, that of {} is {here:?}", file.path),
                )
                .subject(metadata.name.as_str())
                .hint(
                    "nothing was done; the master, or SYNC_SERVER where files come from there, has the wrong file under that \
                     name: correct or delete it (a removal can do without) and run again",
                ));
            }
        }
        Ok(())
    }

    /// The field `name`, which the job cannot do without.
    pub(super) fn need(&self, name: &str) -> Result<Field<'a>> {
        self.get(name).ok_or_else(|| self.missing(name))
    }

    /// An error that says where `name` was looked for.
    pub(super) fn missing(&self, name: &str) -> Error {
        let places = match self.metadata {
            Some(metadata) => format!("neither in the job file nor in its metadata file {}", metadata.name),
            None => "not in the job file, which names no metadata file".to_owned(),
        };
        Error::new(ErrorKind::Document, format!("the field `{name}` is missing: it is {places}"))
            .subject(self.job.name.as_str())
            .hint("publish again from the master; if the field is still missing, the master's definition lacks it")
    }

    /// The text under `name`; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        let text = self.get(name).map(|field| field.text()).transpose()?;
        Ok(text.filter(|text| !text.trim().is_empty()))
    }

    pub(super) fn need_text(&self, name: &str) -> Result<String> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>> {
        self.get(name).map(|field| field.boolean()).transpose()
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.get(name).map(|field| field.integer()).transpose()
    }

    /// A GeoServer name that the job cannot do without; `what` is what errors call it.
    pub(super) fn need_geo(&self, name: &str, what: &str) -> Result<GeoName> {
        let field = self.get(name).ok_or_else(|| self.missing(name))?;
        GeoName::new(what, field.text()?).map_err(|error| field.blame(&error))
    }

    pub(super) fn geo(&self, name: &str, what: &str) -> Result<Option<GeoName>> {
        self.text(name)?.map(|_| self.need_geo(name, what)).transpose()
    }

    pub(super) fn need_workspace(&self) -> Result<GeoName> {
        self.need("workspace")?.workspace()
    }

    pub(super) fn pg(&self, name: &str) -> Result<Option<PgIdent>> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let text = field.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        PgIdent::new(name, text).map(Some).map_err(|error| field.blame(&error))
    }

    pub(super) fn need_pg(&self, name: &str) -> Result<PgIdent> {
        self.pg(name)?.ok_or_else(|| self.missing(name))
    }

    /// All fields that are not null, merged.
    pub(super) fn merged(&self) -> Map<String, Value> {
        let names = [Some(self.job), self.metadata].into_iter().flatten().flat_map(|source| source.object.keys());
        names.filter_map(|name| Some((name.clone(), self.get(name)?.value.into_owned()))).collect()
    }
}

/// One value that is not null, and where it stands.
pub(super) struct Field<'a> {
    value: Cow<'a, Value>,
    source: &'a Source,
    steps: Vec<Step>,
    /// Whether the value came out of a JSON text inside the file, where no positions are known.
    inside: bool,
}

impl<'a> Field<'a> {
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.is_string()
    }

    /// The field's name from the top of its file: `styles.night.md5`, `bbox[2]`.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.push_str(&format!(".{key}")),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    fn place(&self) -> String {
        match self.source.locate(&self.steps) {
            Some((line, column)) if !self.inside => format!(" (line {line}, column {column})"),
            _ => String::new(),
        }
    }

    /// An error that says what the field should be. It never shows the value, which may be a secret.
    pub(super) fn wrong(&self, expected: &str) -> Error {
        self.refuse(&format!("is {}, expected {expected}", kind_of(&self.value)))
    }

    /// An error that says what is the matter with the field.
    pub(super) fn refuse(&self, matter: &str) -> Error {
        Error::new(ErrorKind::Document, format!("the field `{}` {matter}{}", self.path(), self.place()))
            .subject(self.source.name.as_str())
            .hint(REMEDY)
    }

    /// Adds file, field and place to the error of a newtype that refused the value.
    pub(super) fn blame(&self, error: &Error) -> Error {
        let message = format!("the field `{}`{}: {}", self.path(), self.place(), error.message());
        let hint = error.hint_text().unwrap_or(REMEDY).to_owned();
        Error::new(ErrorKind::Document, message).subject(self.source.name.as_str()).hint(hint)
    }

    /// A text, trimmed of nothing; a number or boolean is taken as its text.
    pub(super) fn text(&self) -> Result<String> {
        match &*self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            _ => Err(self.wrong("a text")),
        }
    }

    /// A boolean, or what older masters wrote for one.
    pub(super) fn boolean(&self) -> Result<bool> {
        let word = match &*self.value {
            Value::Bool(value) => return Ok(*value),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.trim().to_ascii_lowercase(),
            _ => String::new(),
        };
        match word.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// An integer, a number without fraction (`41.0`), or a text of the digits.
    pub(super) fn integer(&self) -> Result<i64> {
        // Above 2^53 a floating point number no longer stands for one integer.
        let whole = |number: &f64| number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
        let number = match &*self.value {
            Value::Number(number) => number.as_i64().or(number.as_f64().filter(whole).map(|number| number as i64)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.wrong("an integer"))
    }

    /// A finite number, or a text of one.
    pub(super) fn number(&self) -> Result<f64> {
        let number = match &*self.value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number: &f64| number.is_finite()).ok_or_else(|| self.wrong("a finite number"))
    }

    pub(super) fn workspace(&self) -> Result<GeoName> {
        GeoName::workspace(self.text()?).map_err(|error| self.blame(&error))
    }

    pub(super) fn geo(&self, what: &str) -> Result<GeoName> {
        GeoName::new(what, self.text()?).map_err(|error| self.blame(&error))
    }

    /// The list or object that a text holds as JSON, or the value itself when it is no text.
    pub(super) fn unpacked(self) -> Result<Option<Self>> {
        let Value::String(text) = &*self.value else { return Ok(Some(self)) };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| self.refuse("is a text that should hold JSON and does not").source(error))?;
        if value.is_null() {
            return Ok(None);
        }
        Ok(Some(Self { value: Cow::Owned(value), inside: true, ..self }))
    }

    /// The members of a list, those that are null left out.
    pub(super) fn list(&self) -> Result<Vec<Field<'_>>> {
        let Value::Array(values) = &*self.value else { return Err(self.wrong("a list")) };
        let members = values.iter().enumerate().filter(|(_, value)| !value.is_null());
        Ok(members.map(|(index, value)| self.inner(Step::Index(index), value)).collect())
    }

    /// The members of an object in the order of the file; a null member has no field.
    pub(super) fn object(&self) -> Result<Vec<(String, Option<Field<'_>>)>> {
        let Value::Object(object) = &*self.value else { return Err(self.wrong("an object")) };
        let keys = if self.inside { object.keys().cloned().collect() } else { self.source.keys_in_order(&self.steps) };
        let members = keys.into_iter().filter_map(|key| {
            let value = object.get(&key)?;
            let field = (!value.is_null()).then(|| self.inner(Step::Key(key.clone()), value));
            Some((key, field))
        });
        Ok(members.collect())
    }

    /// The member `name` of an object, unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Result<Option<Field<'_>>> {
        let Value::Object(object) = &*self.value else { return Err(self.wrong("an object")) };
        let value = object.get(name).filter(|value| !value.is_null());
        Ok(value.map(|value| self.inner(Step::Key(name.to_owned()), value)))
    }

    pub(super) fn need(&self, name: &str) -> Result<Field<'_>> {
        self.get(name)?.ok_or_else(|| self.refuse(&format!("lacks `{name}`")))
    }

    fn inner<'b>(&'b self, step: Step, value: &'b Value) -> Field<'b> {
        let steps = self.steps.iter().cloned().chain([step]).collect();
        Field { value: Cow::Borrowed(value), source: self.source, steps, inside: self.inside }
    }
}
