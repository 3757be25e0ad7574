//! From a job's document to the complete job: its metadata file is fetched and merged in.

use super::{Ctx, Step, StepEnd};
use crate::error::{ErrorKind, Result};
use crate::job::{Complete, Document, FileRef, JobFile};
use crate::transfer::{CacheName, Fetched, Location, Md5, Request, Transfer};

/// Brings the file that a job names.
pub(super) async fn fetch(transfer: &Transfer, file: &FileRef, name: CacheName, what: &str) -> Result<Fetched> {
    let request = Request {
        location: Location::parse(&file.file)?,
        cache_name: name,
        md5: file.md5.as_deref().map(Md5::parse).transpose()?,
        what: what.to_owned(),
        // What a cut loses is fetched again.
        durable: false,
    };
    transfer.fetch(request).await
}

/// Fetches the metadata that `document` names, if it names any, and completes it; the file stays in the
/// cache when it is to be kept, as for other slaves.
///
/// # Errors
///
/// When the file cannot be had, or job file and metadata make no valid job.
pub async fn complete(transfer: &Transfer, file: &JobFile, document: Document, keep: bool) -> Result<Complete> {
    let Some(metadata) = document.metadata() else { return document.complete(None) };
    let (workspace, name) = file.named_after().unwrap_or(("", &file.stem));
    let name = CacheName::meta(workspace, name)?;
    match fetch(transfer, metadata, name, "metadata").await {
        Ok(fetched) => {
            let content = tokio::fs::read(&fetched.path)
                .await
                .map_err(|source| crate::error::io_error(&fetched.path, "cannot read the metadata file", source))?;
            fetched.check_unchanged()?;
            if !keep {
                transfer.discard(&fetched)?;
            }
            document.complete(Some(&content))
        }
        // The master may have deleted the metadata of a layer that is to go, or replaced them; the names are enough.
        Err(error) if error.kind() == ErrorKind::Missing && !document.needs_metadata() => {
            document.complete_without_metadata()
        }
        Err(error) => Err(error),
    }
}

impl Ctx<'_> {
    /// [`complete`] as a step of the job.
    pub(super) async fn complete(&self, document: Document) -> Result<Complete> {
        if document.metadata().is_none() {
            return document.complete(None);
        }
        self.step(
            Step::Metadata,
            None,
            Box::pin(async {
                let keep = self.run.parts.choices.keep_cached_files;
                let complete = complete(&self.run.parts.transfer, self.file, document, keep).await?;
                let message = "the metadata file is gone; the names that the job file gives are enough";
                let message = complete.only_names.then(|| message.to_owned());
                Ok((complete, StepEnd::Done, message))
            }),
        )
        .await
    }
}
