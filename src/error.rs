//! What went wrong, told to the operator who has to mend it.
//!
//! House rules for errors:
//!
//! - An error names its *subject*: the file, table, layer, URL or variable it is about.
//! - The message says what failed, in the present tense, lower case, without a final stop.
//! - The cause stays a [`source`](std::error::Error::source); it is never pasted into the message.
//! - The hint is one or two sentences that tell the operator what to do next.
//! - No secret ever enters a message, a subject or a hint.
//! - What may be tried again is decided here, in [`ErrorKind::retry`], and nowhere else.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxedSource = Box<dyn StdError + Send + Sync + 'static>;

/// What kind of thing went wrong; decides the retry policy and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line is wrong.
    Usage,
    /// A setting is missing, malformed or contradicts another.
    Settings,
    /// A job file or its metadata is not a valid document.
    Document,
    /// A job asks for something that this version does not do.
    Unsupported,
    /// A filter did not compile or failed on a job.
    Filter,
    /// The state repository refused an operation.
    Repository,
    /// A remote side could not be reached, hung up, or did not answer in time.
    Unreachable,
    /// A remote side refused the credentials or the right to do it.
    Denied,
    /// A file that a job names is not there.
    Missing,
    /// A file arrived with another checksum than the job promised.
    Checksum,
    /// A dump is damaged, or holds what it may not hold.
    Archive,
    /// The database refused a statement.
    Database,
    /// Another session holds what is needed; waiting helps.
    Busy,
    /// GeoServer refused a request or answered something unusable.
    GeoServer,
    /// The CDN refused a request or answered something unusable.
    Cdn,
    /// A local file, directory or disk failed.
    Io,
    /// A child process could not be started or failed.
    Process,
    /// A job that this one depends on failed.
    Dependency,
    /// The run was asked to stop.
    Stopped,
    /// The program contradicts itself.
    Bug,
}

/// What the same run, or the next, may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Trying again within the run may help (a lost connection, a lock).
    Soon,
    /// The next run may find the world changed; trying at once is pointless.
    NextRun,
    /// Somebody has to change something first.
    Manual,
}

impl ErrorKind {
    /// The one table from kind to retry policy.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::Unreachable | Self::Busy => Retry::Soon,
            Self::Repository
            | Self::Missing
            | Self::Checksum
            | Self::Archive
            | Self::Database
            | Self::GeoServer
            | Self::Cdn
            | Self::Io
            | Self::Process
            | Self::Dependency
            | Self::Stopped => Retry::NextRun,
            Self::Usage
            | Self::Settings
            | Self::Document
            | Self::Unsupported
            | Self::Filter
            | Self::Denied
            | Self::Bug => Retry::Manual,
        }
    }
}

/// An error with its kind, subject, cause and advice.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    subject: Option<String>,
    hint: Option<String>,
    source: Option<BoxedSource>,
}

impl Error {
    /// An error of `kind` whose `message` says what failed.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), subject: None, hint: None, source: None }))
    }

    /// Names the file, table, layer, URL or variable that the error is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.0.subject = Some(subject.into());
        self
    }

    /// Tells the operator what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<BoxedSource>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What failed, without subject and causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the error is about, when that is known.
    #[must_use]
    pub fn subject_text(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// What the operator should do, when there is advice.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The same error for another reader; the causes are kept as text.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut causes = Vec::new();
        let mut cause = StdError::source(self);
        while let Some(next) = cause {
            causes.push(next.to_string());
            cause = next.source();
        }
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            subject: self.0.subject.clone(),
            hint: self.0.hint.clone(),
            source: (!causes.is_empty()).then(|| causes.join(": ").into()),
        }))
    }

    /// The error as it happened within `place`, such as one of several GeoServers.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.0.subject = Some(match self.0.subject.take() {
            Some(subject) if subject.contains(place) => subject,
            Some(subject) => format!("{place}: {subject}"),
            None => place.to_owned(),
        });
        self
    }

    /// One error for all of `errors`: the only one as it is, several as a list. None for none.
    #[must_use]
    pub fn all(mut errors: Vec<Self>) -> Option<Self> {
        if errors.len() < 2 {
            return errors.pop();
        }
        let first = &errors[0];
        let kind = first.kind();
        let hint = first.hint_text().map(str::to_owned);
        let lines: Vec<String> = errors.iter().map(Self::one_line).collect();
        let mut error = Self::new(kind, format!("{} things failed: {}", lines.len(), lines.join("; ")));
        error.0.hint = hint;
        Some(error)
    }

    /// The error and all its causes on one line, joined by `: `, the hint left out.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = StdError::source(self);
        while let Some(next) = cause {
            let text = next.to_string();
            // Some libraries repeat their cause in their own message.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = next.source();
        }
        line.replace(['\n', '\r'], " ")
    }

    /// The paragraph an operator reads: `Error:`, `Caused by:` and `Hint:` lines.
    #[must_use]
    pub fn paragraph(&self) -> String {
        let mut text = format!("Error: {self}");
        let mut cause = StdError::source(self);
        while let Some(next) = cause {
            text.push_str("\n  Caused by: ");
            text.push_str(next.to_string().trim_end());
            cause = next.source();
        }
        if let Some(hint) = self.hint_text() {
            text.push_str("\n  Hint: ");
            text.push_str(hint);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.subject {
            Some(subject) => write!(f, "{subject}: {}", self.0.message),
            None => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("subject", &self.0.subject)
            .field("hint", &self.0.hint)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Turns a foreign result into one of ours, naming kind and message.
pub trait Context<T> {
    /// Wraps the error as the source of one of `kind` that says `message`.
    ///
    /// # Errors
    ///
    /// Returns the wrapped error when `self` is one.
    fn context(self, kind: ErrorKind, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<BoxedSource>> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: ErrorKind, message: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::new(kind, message).source(source))
    }
}

/// The innermost cause as text: what the layers of a library say around it tells only that something failed.
#[must_use]
pub fn root_cause(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// An [`ErrorKind::Io`] error about `path`, with advice for the causes that operators meet most.
pub fn io_error(path: &std::path::Path, message: &str, source: std::io::Error) -> Error {
    let hint = match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Some("free space on that file system (df -h shows it), then run again: finished jobs are not redone")
        }
        std::io::ErrorKind::PermissionDenied => {
            Some("give the user that runs borg-slave the right to read and write there")
        }
        std::io::ErrorKind::NotFound => Some("check that the path is spelled right and its file system is mounted"),
        _ => None,
    };
    let error = Error::new(ErrorKind::Io, message).subject(path.display().to_string()).source(source);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraph_names_subject_cause_and_remedy() {
        let error = Error::new(ErrorKind::Checksum, "the file arrived damaged")
            .subject("master:/var/roads.db")
            .source(std::io::Error::other("md5 is 1, the job says 2"))
            .hint("run again; if it persists, republish the layer on the master");
        insta::assert_snapshot!(error.paragraph(), @r"
        Error: master:/var/roads.db: the file arrived damaged
          Caused by: md5 is 1, the job says 2
          Hint: run again; if it persists, republish the layer on the master
        ");
        assert_eq!(error.one_line(), "master:/var/roads.db: the file arrived damaged: md5 is 1, the job says 2");
    }

    #[test]
    fn only_lost_connections_and_locks_are_retried_at_once() {
        assert_eq!(ErrorKind::Unreachable.retry(), Retry::Soon);
        assert_eq!(ErrorKind::Busy.retry(), Retry::Soon);
        assert_eq!(ErrorKind::Denied.retry(), Retry::Manual);
        assert_eq!(ErrorKind::Checksum.retry(), Retry::NextRun);
    }
}
