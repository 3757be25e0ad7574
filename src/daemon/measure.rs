//! A pass as the status page's monitor sees it.

use std::sync::Arc;

use super::round::Outcome;
use crate::error::ErrorKind;
use crate::execute::{Event, JobEnd, StepEnd};
use crate::geoserver::Exchange;
use crate::status_page::{Monitor, PassEnd, PullEnd};
use crate::sync::{Prepared, Summary, Watcher};
use crate::transfer::{Origin, Progress};
use crate::wire::Meters;

/// Watches for another watcher, and measures.
pub(super) struct Measured {
    inner: Box<dyn Watcher>,
    monitor: Arc<Monitor>,
    /// The kinds of the jobs in the plan.
    kinds: Vec<&'static str>,
}

impl Measured {
    pub(super) fn around(inner: Box<dyn Watcher>, monitor: &Arc<Monitor>) -> Box<dyn Watcher> {
        Box::new(Self { inner, monitor: Arc::clone(monitor), kinds: Vec::new() })
    }
}

impl Watcher for Measured {
    fn begins(&mut self, prepared: &Prepared) {
        self.kinds = prepared.plan.jobs.iter().map(|job| job.file.kind.as_str()).collect();
        self.inner.begins(prepared);
    }

    fn sees(&mut self, job_file: Option<&str>, event: &Event) {
        match event {
            Event::StepEnded { step, end, took, .. } => {
                let outcome = match end {
                    StepEnd::Done => "done",
                    StepEnd::Unchanged => "unchanged",
                    StepEnd::Skipped => "skipped",
                    StepEnd::Failed => "failed",
                };
                self.monitor.step_ended(step.as_str(), outcome, *took);
            }
            Event::Loaded { bytes, .. } => self.monitor.restored(*bytes),
            Event::JobEnded { job, end } => {
                let outcome = match end {
                    JobEnd::Succeeded(_) | JobEnd::Superseded(_) => "succeeded",
                    JobEnd::Filtered(_) => "filtered",
                    JobEnd::Waiting(_) => "waiting",
                    JobEnd::Failed(error) if error.kind() == ErrorKind::Stopped => "interrupted",
                    JobEnd::Failed(_) => "failed",
                };
                self.monitor.job_ended(self.kinds.get(*job).copied().unwrap_or_default(), outcome);
            }
            _ => {}
        }
        self.inner.sees(job_file, event);
    }

    fn meters(&mut self) -> Meters {
        let Meters { transfers, requests } = self.inner.meters();
        let (of_files, of_requests) = (Arc::clone(&self.monitor), Arc::clone(&self.monitor));
        Meters {
            transfers: Some(Arc::new(move |progress: Progress| {
                if let Some(from) = progress.arrived {
                    of_files.received(word(from), progress.bytes);
                }
                if let Some(tell) = &transfers {
                    tell(progress);
                }
            })),
            requests: Some(Arc::new(move |exchange: &Exchange<'_>| {
                of_requests.requested(exchange.target, exchange.method, exchange.status, exchange.took);
                if let Some(tell) = &requests {
                    tell(exchange);
                }
            })),
        }
    }

    fn ends(&mut self, summary: &Summary) {
        self.inner.ends(summary);
    }
}

fn word(from: Origin) -> &'static str {
    match from {
        Origin::Cache => "cache",
        Origin::Master => "master",
        Origin::SyncServer => "sync_server",
        Origin::Shared => "shared",
        Origin::Local => "local",
    }
}

/// How a round went, as the page tells it.
pub(super) fn ends_of(outcome: &Outcome) -> (Option<PullEnd>, PassEnd) {
    let pull = outcome.pull.as_ref().and_then(|pull| match pull {
        Ok(()) => Some(PullEnd::Ok),
        // Somebody else pulls: what that brings is seen when it comes.
        Err(error) if matches!(error.kind(), ErrorKind::Stopped | ErrorKind::Busy) => None,
        Err(error) if is_unreachable(error.kind()) => Some(PullEnd::Unreachable(error.one_line())),
        Err(error) => Some(PullEnd::Failed(error.one_line())),
    });
    let pass = match &outcome.pass {
        Ok(pass) if pass.summary.was_stopped() => PassEnd::Stopped,
        Ok(pass) if pass.summary.failed.is_empty() && pass.summary.postponed == 0 => PassEnd::Applied,
        Ok(_) => PassEnd::Incomplete,
        Err(error) if error.kind() == ErrorKind::Stopped => PassEnd::Stopped,
        Err(error) => PassEnd::Failed(error.one_line()),
    };
    (pull, pass)
}

/// Whether a pull that failed so is told as "the master cannot be reached".
pub(super) fn is_unreachable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::Denied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_pull_by_somebody_else_is_no_trouble_of_the_daemon() {
        let pull = |kind| {
            let error = || Error::new(kind, "why");
            ends_of(&Outcome { pull: Some(Err(error())), pass: Err(error()), clone_print: 0 })
        };
        let why = || "why".to_owned();
        assert_eq!(pull(ErrorKind::Busy), (None, PassEnd::Failed(why())));
        assert_eq!(pull(ErrorKind::Stopped), (None, PassEnd::Stopped));
        assert_eq!(pull(ErrorKind::Denied), (Some(PullEnd::Unreachable(why())), PassEnd::Failed(why())));
        assert_eq!(pull(ErrorKind::Repository), (Some(PullEnd::Failed(why())), PassEnd::Failed(why())));
    }
}
