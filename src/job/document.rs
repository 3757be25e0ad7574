//! From the content of a job file to a complete job.

use serde_json::{Map, Value};
use std::fmt;

use super::field::{Field, Fields};
use super::json::Source;
use super::{
    Action, Companion, EmptyGwcJob, FeatureJob, FeatureRemoval, Job, JobFile, JobKind, LayerGroupJob, LiveLayerJob,
    LiveStoreJob, Removal, WmsLayerJob, WmsStoreJob, WorkspaceJob, facts,
};
use crate::error::{Error, ErrorKind, Result};

/// A file that a document points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileRef {
    /// `user@host:path`, or a path on this machine.
    pub file: String,
    /// The content's MD5 as 32 lower-case hexadecimal digits, when the document gives it.
    pub md5: Option<String>,
}

impl FileRef {
    /// Reads an object of `file` and `md5`.
    pub(super) fn read(field: &Field<'_>) -> Result<Self> {
        let file = field.need("file")?;
        let md5 = field.get("md5")?.map(|md5| read_md5(&md5)).transpose()?.flatten();
        Ok(Self { file: read_address(&file)?, md5 })
    }

    /// Reads the two fields of documents before 2016-02-17.
    pub(super) fn read_old(fields: &Fields<'_>, path: &str, md5: &str) -> Result<Option<Self>> {
        let Some(file) = fields.get(path).filter(|field| field.value() != "") else { return Ok(None) };
        let md5 = fields.get(md5).map(|md5| read_md5(&md5)).transpose()?.flatten();
        Ok(Some(Self { file: read_address(&file)?, md5 }))
    }
}

fn read_address(field: &Field<'_>) -> Result<String> {
    let file = field.text()?;
    if file.trim().is_empty() {
        return Err(field.refuse("is empty, expected the address of a file"));
    }
    if file.chars().any(char::is_control) {
        return Err(field.refuse("holds a control character, expected the address of a file"));
    }
    Ok(file)
}

fn read_md5(field: &Field<'_>) -> Result<Option<String>> {
    let md5 = field.text()?.trim().to_ascii_lowercase();
    if md5.is_empty() {
        return Ok(None);
    }
    if md5.len() != 32 || !md5.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(field.refuse("is no MD5 of 32 hexadecimal digits"));
    }
    Ok(Some(md5))
}

/// What a job file turned out to be.
#[derive(Debug, Clone)]
pub enum Parsed {
    /// A document that asks for something.
    Job(Document),
    /// Nothing is to be done.
    Nothing {
        /// Why, for the run's report.
        reason: &'static str,
    },
}

/// A job file that was read, its metadata still to be merged in.
#[derive(Clone)]
pub struct Document {
    file: JobFile,
    action: Action,
    source: Source,
    metadata: Option<FileRef>,
}

/// A job with everything that is known about it.
#[derive(Clone)]
pub struct Complete {
    /// The typed job.
    pub job: Job,
    /// What it asks for.
    pub action: Action,
    /// What filters see: the merged document plus `action`, `channel`, `job_type` and `job_file`.
    /// Fields that are null and fields that hold secrets are left out; `job_id`, `auth_level` and the known
    /// booleans are integers and booleans however the document wrote them.
    pub facts: Map<String, Value>,
    /// Of a removal or the emptying of a tile cache that came without metadata little more than names is known:
    /// too little to ask a filter.
    pub only_names: bool,
}

impl fmt::Debug for Complete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Complete").field("job", &self.job).field("action", &self.action).finish_non_exhaustive()
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may hold passwords.
        f.debug_struct("Document")
            .field("file", &self.file)
            .field("action", &self.action)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// Reads the content of a job file; for one that was `deleted`, the content it had before.
///
/// A deleted file means removal if it was one of publishing, and nothing otherwise. It must be possible to
/// delete a broken file and be rid of it: when the content of a deleted job file cannot be read, or asks for
/// something that does not exist, its name says what to remove.
///
/// # Errors
///
/// [`ErrorKind::Document`] when the content is no valid document; what the metadata holds is checked by
/// [`Document::complete`].
pub fn parse(file: &JobFile, content: &[u8], deleted: bool) -> Result<Parsed> {
    if matches!(file.kind, JobKind::AccessRules | JobKind::Auth | JobKind::Workspace) && deleted {
        return Ok(Parsed::Nothing {
            reason: match file.kind {
                JobKind::AccessRules => "deleted access rules leave GeoServer's rules as they are",
                JobKind::Auth => "deleted roles leave the database's roles as they are",
                _ => "a deleted workspace file leaves the workspace as it is",
            },
        });
    }
    if matches!(file.kind, JobKind::AccessRules | JobKind::Auth) {
        return read_text(file, content).map(Parsed::Job);
    }
    if deleted && file.companion.is_some() {
        return Ok(Parsed::Nothing { reason: "the deletion of an auxiliary file asks for nothing" });
    }
    if !file.is_json() {
        if deleted {
            return Ok(Parsed::Nothing { reason: "the deleted file was no job file" });
        }
        return Err(Error::new(ErrorKind::Document, "a file in a job folder must be a JSON document named `*.json`")
            .subject(file.path.as_str())
            .hint("rename it if it is a job, else delete it from the state repository or move it out of the folder"));
    }
    if deleted {
        return Ok(read_deleted(file, content));
    }
    let source = Source::read(&file.path, content, "correct the file in the state repository, or publish again")?;
    let fields = Fields::new(&source, None);
    let action = read_action(file, &fields)?;
    let metadata = read_metadata(&fields, action)?;
    Ok(Parsed::Job(Document { file: file.clone(), action, source, metadata }))
}

fn read_text(file: &JobFile, content: &[u8]) -> Result<Document> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let text = std::str::from_utf8(content).map_err(|error| {
        Error::new(ErrorKind::Document, "the file is not UTF-8 text")
            .subject(file.path.as_str())
            .hint("save it as UTF-8 in the state repository")
            .source(error)
    })?;
    let mut source = Source::empty(&file.path);
    source.object.insert(CONTENT.to_owned(), text.into());
    Ok(Document { file: file.clone(), action: Action::Publish, source, metadata: None })
}

/// Under this name the content of a file that is no JSON stands in its source.
const CONTENT: &str = "job_file_content";

fn read_deleted(file: &JobFile, content: &[u8]) -> Parsed {
    let source = Source::read(&file.path, content, "").unwrap_or_else(|_| Source::empty(&file.path));
    let fields = Fields::new(&source, None);
    match read_action(file, &fields).unwrap_or(Action::Publish) {
        Action::Publish => {}
        Action::Remove => return Parsed::Nothing { reason: "the deleted file was one of removal" },
        Action::Meta | Action::EmptyGwc => {
            return Parsed::Nothing { reason: "the deletion of an auxiliary file asks for nothing" };
        }
    }
    let metadata = read_metadata(&fields, Action::Remove).unwrap_or_default();
    Parsed::Job(Document { file: file.clone(), action: Action::Remove, source, metadata })
}

fn read_action(file: &JobFile, fields: &Fields<'_>) -> Result<Action> {
    let Some(field) = fields.get("action") else {
        return Ok(match file.companion {
            Some(Companion::Meta) => Action::Meta,
            Some(Companion::EmptyGwc) => Action::EmptyGwc,
            None => Action::Publish,
        });
    };
    let allowed = file.kind.actions();
    Action::from_word(&field.text()?).filter(|action| allowed.contains(action)).ok_or_else(|| {
        let words: Vec<_> = allowed.iter().map(|action| action.as_str()).collect();
        field.refuse(&format!("names no action of a {} job, which are: {}", file.kind, words.join(", ")))
    })
}

fn read_metadata(fields: &Fields<'_>, action: Action) -> Result<Option<FileRef>> {
    let Some(field) = fields.get("meta").filter(|field| field.value() != "") else { return Ok(None) };
    if !matches!(action, Action::Remove | Action::EmptyGwc) {
        return FileRef::read(&field).map(Some);
    }
    // What needs names only does not check the checksum, so that a bad one does not matter.
    Ok(Some(FileRef { file: read_address(&field.need("file")?)?, md5: None }))
}

impl Document {
    /// The job file.
    #[must_use]
    pub fn file(&self) -> &JobFile {
        &self.file
    }

    /// What the job asks for.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// The metadata file that has to be fetched before [`complete`](Self::complete).
    #[must_use]
    pub fn metadata(&self) -> Option<&FileRef> {
        self.metadata.as_ref()
    }

    /// Whether the metadata file must be there, with the checksum that the document gives. Not so for a removal
    /// and for the emptying of a tile cache, which need names only, since the master may have replaced or deleted
    /// the file in the meantime; their references have no checksum.
    #[must_use]
    pub fn needs_metadata(&self) -> bool {
        !matches!(self.action, Action::Remove | Action::EmptyGwc)
    }

    /// The number of the publication, when the job file itself has a readable one.
    #[must_use]
    pub fn job_id(&self) -> Option<i64> {
        Fields::new(&self.source, None).integer("job_id").ok().flatten()
    }

    /// The batch of the publication, when the job file itself has one.
    #[must_use]
    pub fn job_batch_id(&self) -> Option<String> {
        Fields::new(&self.source, None).text("job_batch_id").ok().flatten()
    }

    /// Merges the metadata's content in and reads the job.
    ///
    /// A field of the metadata overrides the job file's, except for `action`, `job_id`, `job_batch_id`,
    /// `publish_time`, `meta` and `data`, which the metadata only fills in: they say what is to be done now.
    /// Metadata without a checksum may be another job's, and are refused when they name another workspace or
    /// another layer than the job file.
    ///
    /// A removal and the emptying of a tile cache may do without, see
    /// [`complete_without_metadata`](Self::complete_without_metadata).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when the metadata is unreadable, or a field is missing or wrong;
    /// [`ErrorKind::Missing`] when a metadata file is named but not given, unless the job can do without.
    pub fn complete(self, metadata: Option<&[u8]>) -> Result<Complete> {
        let metadata = match (&self.metadata, metadata) {
            (Some(reference), Some(content)) => {
                Some(Source::read(&reference.file, content, "publish the layer again on the master")?)
            }
            (Some(reference), None) if self.needs_metadata() => {
                return Err(Error::new(ErrorKind::Missing, "the metadata file that the job file names is not there")
                    .subject(reference.file.as_str())
                    .hint("publish again on the master, which writes the file anew"));
            }
            _ => None,
        };
        let fields = Fields::new(&self.source, metadata.as_ref());
        if self.metadata.as_ref().is_some_and(|reference| reference.md5.is_none()) {
            fields.check_names(&self.file)?;
        }
        let job = read_job(&self.file, self.action, &fields)?;
        let facts = facts::read(&self.file, self.action, &fields, &job);
        let only_names = !self.needs_metadata() && metadata.is_none();
        Ok(Complete { job, action: self.action, facts, only_names })
    }

    /// Reads a job that needs names only and whose metadata file is gone: what the job file does not say follows from its name,
    /// `<workspace>.<name>`, and the schemas from the workspace (`<workspace>`, `<workspace>_data`,
    /// `<workspace>_outdated`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when the names cannot be had, [`ErrorKind::Bug`] when the job needs its metadata.
    pub fn complete_without_metadata(self) -> Result<Complete> {
        if !self.needs_metadata() {
            return self.complete(None);
        }
        Err(Error::new(ErrorKind::Bug, format!("a job of action `{}` was completed without metadata", self.action))
            .subject(self.file.path))
    }
}

fn read_job(file: &JobFile, action: Action, fields: &Fields<'_>) -> Result<Job> {
    Ok(match (file.kind, action) {
        (JobKind::AccessRules, _) => Job::AccessRules { content: fields.text(CONTENT)?.unwrap_or_default() },
        (JobKind::Auth, _) => Job::Auth { sql: fields.text(CONTENT)?.unwrap_or_default() },
        (JobKind::Workspace, _) => Job::Workspace(WorkspaceJob::read(file, fields)?),
        (JobKind::Feature, Action::Remove) => Job::FeatureRemoval(FeatureRemoval::read(file, fields)?),
        (_, Action::Remove) => Job::Removal(Removal::read(file, fields)?),
        (_, Action::EmptyGwc) => Job::EmptyGwc(EmptyGwcJob::read(file, fields)?),
        (JobKind::Feature, Action::Publish | Action::Meta) => {
            Job::Feature(Box::new(FeatureJob::read(file, action, fields)?))
        }
        (JobKind::WmsStore, _) => Job::WmsStore(WmsStoreJob::read(fields)?),
        (JobKind::WmsLayer, _) => Job::WmsLayer(Box::new(WmsLayerJob::read(fields)?)),
        (JobKind::LiveStore, _) => Job::LiveStore(LiveStoreJob::read(fields)?),
        (JobKind::LiveLayer, _) => Job::LiveLayer(Box::new(LiveLayerJob::read(fields)?)),
        (JobKind::LayerGroup, _) => Job::LayerGroup(LayerGroupJob::read(fields)?),
    })
}
