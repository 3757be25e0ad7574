//! What the master is told of a pass and of its jobs.

use jiff::Timestamp;

use super::Summary;
use crate::error::Result;
use crate::execute::JobAbout;
use crate::job::{Companion, JobFile, JobKind};
use crate::journal::{JobOutcome, Journal, NewReport, Trouble};
use crate::plan::Plan;
use crate::report::{self, About, Master, local_time};

/// What is known of a job that the master may have to be told.
#[derive(Debug)]
pub(super) struct Subject {
    about: About,
    /// The action in the master's words; that of an unreadable document follows from its file's name.
    action: &'static str,
}

impl Subject {
    /// As far as the file tells.
    pub(super) fn of(file: &JobFile, action: Option<&'static str>) -> Self {
        let action = action.unwrap_or(match file.companion {
            Some(Companion::Meta) => "meta",
            Some(Companion::EmptyGwc) => "empty_gwc",
            None => "publish",
        });
        let name = file.named_after().map_or(file.stem.as_str(), |(_, name)| name).to_owned();
        let about = About { task_name: file.task_name(), name, ..About::default() };
        Self { about, action }
    }

    /// The job's own document says better what it is about.
    pub(super) fn is_known(&mut self, about: &JobAbout) {
        self.about.task_name.clone_from(&about.task_name);
        self.about.spatial_type.clone_from(&about.spatial_type);
        if let Some(name) = &about.name {
            self.about.name.clone_from(name);
        }
    }

    pub(super) fn has_preview(&mut self, path: &str) {
        self.about.preview_file = Some(path.to_owned());
    }

    /// What is told when the job ends; its steps are on record.
    pub(super) fn ended(&self, journal: &Journal, job_file: &str, outcome: &JobOutcome) -> Result<Vec<NewReport>> {
        let Some(job) = journal.job(job_file)? else { return Ok(Vec::new()) };
        Ok(report::job_ended(&job, self.action, outcome, Timestamp::now(), &self.about))
    }
}

/// The files of a pass, for the message about it.
#[derive(Debug)]
pub(super) struct Files {
    how: String,
    jobs: Vec<File>,
    done: Vec<String>,
    master: Master,
    /// What keeps the program from being brought up to date.
    program: Option<Trouble>,
}

#[derive(Debug)]
struct File {
    path: String,
    action: &'static str,
    kind: JobKind,
    after: Vec<usize>,
    end: Option<String>,
}

impl Files {
    pub(super) fn of(plan: &Plan, how: String, master: Master, program: Option<Trouble>) -> Self {
        let jobs = plan.jobs.iter().map(|job| File {
            path: job.file.path.clone(),
            action: job.action_name(),
            kind: job.file.kind,
            after: job.after.clone(),
            end: None,
        });
        Self { how, jobs: jobs.collect(), done: plan.done.clone(), master, program }
    }

    pub(super) fn ended(&mut self, job: usize, outcome: &JobOutcome) {
        if let Some(file) = self.jobs.get_mut(job) {
            let reason = outcome.message.as_deref().map(|message| {
                message.strip_prefix(file.path.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message)
            });
            file.end = Some(match reason {
                Some(reason) => format!("{}: {reason}", outcome.state),
                None => outcome.state.to_string(),
            });
        }
    }

    /// What is told when the pass begins: what each file waits for.
    pub(super) fn begin(&self) -> NewReport {
        let at = Timestamp::now();
        let head = format!(
            "Started {} ({}): {} files to do, {} done before",
            local_time(at),
            self.how,
            self.jobs.len(),
            self.done.len()
        );
        report::run_note(&self.master, at, &head, self.lines("under way"))
    }

    /// What is told when it has ended: how each file did.
    pub(super) fn end(&self, summary: &Summary) -> NewReport {
        let at = Timestamp::now();
        let head = format!(
            "Ended {} ({}): {} succeeded, {} failed, {} filtered out, {} left for later, {} done before",
            local_time(at),
            self.how,
            summary.succeeded,
            summary.failed.len(),
            summary.filtered,
            summary.waiting,
            summary.done_before
        );
        report::run_note(&self.master, at, &head, self.lines("not finished"))
    }

    fn lines<'a>(&'a self, without_end: &'a str) -> impl ExactSizeIterator<Item = String> + 'a {
        let mut jobs: Vec<&File> = self.jobs.iter().collect();
        // Of very many only the first are shown.
        jobs.sort_by_key(|file| !file.end.as_deref().is_some_and(|end| end.starts_with("failed")));
        let jobs = jobs.into_iter().map(move |file| {
            let waits: Vec<&str> =
                file.after.iter().filter_map(|&job| self.jobs.get(job)).map(|file| file.path.as_str()).collect();
            let state = match (&file.end, waits.as_slice()) {
                (Some(end), _) => end.clone(),
                (None, []) => without_end.to_owned(),
                (None, waits) => format!("{without_end}, waits for {}", waits.join(", ")),
            };
            format!("{}: {} {}: {state}", file.path, file.action, file.kind)
        });
        let done = self.done.iter().map(|path| format!("{path}: done before"));
        let program = self
            .program
            .iter()
            .map(|trouble| format!("since {}: {}", local_time(trouble.since), report::program_trouble(&trouble.about)));
        program.chain(jobs).chain(done).collect::<Vec<_>>().into_iter()
    }
}
