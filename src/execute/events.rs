//! What a run tells whoever watches it: the journal, the terminal, the log.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::job::Job;
use crate::postgres::LoadProgress;

/// One step inside a job. The text form is what the journal and `status` show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The metadata file is fetched and merged into the job.
    Metadata,
    /// The dump is fetched.
    Dump,
    /// The style files are fetched.
    StyleFiles,
    /// Extension, schemas and roles are there.
    Schemas,
    /// The new table is loaded beside the old one.
    Restore,
    /// Foreign keys of the new table are made.
    ForeignKeys,
    /// The new table takes the name, the view reads it.
    Swap,
    /// The workspace is there.
    Workspace,
    /// The store is there.
    Store,
    /// The feature type and its layer are as the job says.
    FeatureType,
    /// The layer's styles are as the job says.
    Styles,
    /// The upstream WMS answers and has the layer.
    Upstream,
    /// The layer of an upstream WMS is as the job says.
    WmsLayer,
    /// The layer group is as the job says.
    LayerGroup,
    /// The tile layer is as the job says, and holds no old tiles.
    TileLayer,
    /// The tile layer is empty.
    EmptyTiles,
    /// A picture of the layer is drawn.
    Preview,
    /// The picture is at the master.
    SendPreview,
    /// The CDN has forgotten older maps.
    Purge,
    /// The access rules are those of the file.
    AccessRules,
    /// The script of roles has run.
    Roles,
    /// The layer group is gone from GeoServer.
    RemoveGroup,
    /// The layer is gone from GeoServer.
    RemoveLayer,
    /// The store is gone from GeoServer, with all it held.
    RemoveStore,
    /// View and tables are gone.
    RemoveTable,
}

impl Step {
    /// The step's name for journal, status and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Dump => "dump",
            Self::StyleFiles => "style files",
            Self::Schemas => "schemas and roles",
            Self::Restore => "restore",
            Self::ForeignKeys => "foreign keys",
            Self::Swap => "swap",
            Self::Workspace => "workspace",
            Self::Store => "store",
            Self::FeatureType => "feature type",
            Self::Styles => "styles",
            Self::Upstream => "upstream",
            Self::WmsLayer => "wms layer",
            Self::LayerGroup => "layer group",
            Self::TileLayer => "tile layer",
            Self::EmptyTiles => "empty tiles",
            Self::Preview => "preview",
            Self::SendPreview => "send preview",
            Self::Purge => "purge",
            Self::AccessRules => "access rules",
            Self::Roles => "roles",
            Self::RemoveGroup => "remove layer group",
            Self::RemoveLayer => "remove layer",
            Self::RemoveStore => "remove store",
            Self::RemoveTable => "remove table",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepEnd {
    /// It changed something.
    Done,
    /// Everything was as it should be.
    Unchanged,
    /// It failed.
    Failed,
    /// It was not taken: the settings leave out what it needs.
    Skipped,
}

/// How a job ended.
#[derive(Debug)]
pub enum JobEnd {
    /// All its effects are there. The text says what was remarkable, if anything was.
    Succeeded(Option<String>),
    /// It is a removal of what another job publishes, or was carried out before, so that there was nothing to
    /// do; the text says why. The master is told nothing: it knows, or the other job speaks for the layer.
    Superseded(String),
    /// This slave's filters do not take it; the text says why.
    Filtered(String),
    /// The settings leave out what it is about; the first run without them does it.
    Waiting(String),
    /// It failed.
    Failed(crate::error::Error),
}

/// How a job has ended, for those that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Succeeded,
    Filtered,
    Waiting,
    Failed,
}

impl From<&JobEnd> for Ended {
    fn from(end: &JobEnd) -> Self {
        match end {
            JobEnd::Succeeded(_) | JobEnd::Superseded(_) => Self::Succeeded,
            JobEnd::Filtered(_) => Self::Filtered,
            JobEnd::Waiting(_) => Self::Waiting,
            JobEnd::Failed(_) => Self::Failed,
        }
    }
}

/// What a job is about, as the master's monitor names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobAbout {
    /// `workspace:name`, the schema of a workspace, and fixed names for access rules and roles.
    pub task_name: String,
    /// The layer's, store's or group's name.
    pub name: Option<String>,
    /// The type of a feature's geometry.
    pub spatial_type: Option<String>,
}

impl JobAbout {
    pub(super) fn of(job: &Job) -> Self {
        let spatial_type = match job {
            Job::Feature(feature) => feature.spatial.geometry_type.clone(),
            _ => None,
        };
        let name = job.workspace_and_name().map(|(_, name)| name.to_string());
        Self { task_name: job.task_name(), name, spatial_type }
    }
}

/// Whose preview it is that came later than its job ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewOf {
    /// The job file that lacks it.
    pub job_file: String,
    /// The job's kind.
    pub kind: String,
    /// What the job did.
    pub action: String,
    /// The layer's bare name.
    pub layer: String,
    /// `workspace:name`.
    pub task_name: String,
    /// What the job's message says about it.
    pub note: String,
}

/// An event on its way to whoever writes it down.
#[derive(Debug)]
pub struct Note {
    /// What happened, or is about to.
    pub event: Event,
    /// The run goes on only when this is answered: the event has to be on record before what follows
    /// it is done. Dropped unanswered, it says that nothing can be written down.
    pub written: Option<oneshot::Sender<()>>,
}

/// Something happened. `job` is the index of the job in the plan.
#[derive(Debug)]
pub enum Event {
    /// A job began.
    JobStarted {
        /// Index in the plan.
        job: usize,
    },
    /// The job's document is complete: what it is about is known.
    JobKnown {
        /// Index in the plan.
        job: usize,
        /// What it is about.
        about: JobAbout,
    },
    /// The layer's picture is where the master shows it.
    PreviewSent {
        /// Index in the plan.
        job: usize,
        /// Its path below the master's directory of previews.
        path: String,
    },
    /// A preview is there that the job which published the layer could not make.
    PreviewCame {
        /// Whose it is.
        of: PreviewOf,
        /// Its path below the master's directory of previews.
        path: String,
    },
    /// A step began.
    StepStarted {
        /// Index in the plan.
        job: usize,
        /// Which step.
        step: Step,
        /// The GeoServer it is for, if it is for one.
        target: Option<String>,
    },
    /// A long step goes on; about once a second.
    StepProgress {
        /// Index in the plan.
        job: usize,
        /// Which step.
        step: Step,
        /// How far it has come.
        progress: LoadProgress,
    },
    /// A table is loaded from its dump.
    Loaded {
        /// Index in the plan.
        job: usize,
        /// Length of the dump in bytes.
        bytes: u64,
    },
    /// A step ended.
    StepEnded {
        /// Index in the plan.
        job: usize,
        /// Which step.
        step: Step,
        /// The GeoServer it is for, if it is for one.
        target: Option<String>,
        /// How it ended.
        end: StepEnd,
        /// What there is to say about it.
        message: Option<String>,
        /// When it began.
        started: Timestamp,
        /// How long it took.
        took: Duration,
    },
    /// A fact about what was pushed to a target; `None` forgets it.
    Fact {
        /// The GeoServer.
        target: String,
        /// What the fact is about.
        key: String,
        /// The fact.
        value: Option<String>,
    },
    /// Something that no single job is about has failed on a target; the next run tries again.
    TargetFailed {
        /// The GeoServer.
        target: String,
        /// What was to be done, and why it was not.
        error: crate::error::Error,
    },
    /// Something is still due that no job fails for: what readers are shown by others may be old. The next run tries
    /// again.
    StaysDue {
        /// Who was to be told.
        what: String,
        /// Why that was not possible.
        error: crate::error::Error,
    },
    /// A job ended; the last event of the job.
    JobEnded {
        /// Index in the plan.
        job: usize,
        /// How.
        end: JobEnd,
    },
}
