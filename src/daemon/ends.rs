//! What follows from how a round went: when the next one is due, and what the log and the service manager are told.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::code::Code;
use super::measure::is_unreachable;
use super::round::Pass;
use super::schedule::until;
use super::{Daemon, tell};
use crate::error::{Error, ErrorKind, Result};

/// How often a daemon with nothing to do says that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3600);

/// How long after a job's time the daemon wakes, so that the time has come by then.
const SLACK: Duration = Duration::from_millis(20);

/// How long somebody else may be at work in the clone, one pull after the other, before it is taken for a lock that
/// nobody holds any more. A pull whose hook restores large tables takes as long.
const LONGEST_BUSY: Duration = Duration::from_secs(1800);

/// A pull that somebody else's work has kept from the clone is no trouble, unless that goes on for too long.
pub(super) fn not_busy_for_ever(pull: Result<()>, busy_since: &mut Option<Instant>, now: Instant) -> Result<()> {
    match pull {
        Err(error) if error.kind() == ErrorKind::Busy => {
            let busy_for = now.saturating_duration_since(*busy_since.get_or_insert(now));
            if busy_for < LONGEST_BUSY {
                return Err(error);
            }
            let minutes = busy_for.as_secs() / 60;
            let message =
                format!("somebody else has been at work in the clone for {minutes} minutes, or a lock was left behind");
            let hint =
                error.hint_text().unwrap_or("see what holds the clone's lock, and remove a lock that nobody holds");
            let hint = hint.to_owned();
            Err(Error::new(ErrorKind::Repository, message).hint(hint).source(error))
        }
        // The signal's own words say nothing of the clone.
        Err(error) if error.kind() == ErrorKind::Stopped => Err(error),
        other => {
            *busy_since = None;
            other
        }
    }
}

impl Daemon {
    pub(super) fn after_pull(&mut self, pull: Option<Result<()>>) {
        let interval = self.interval();
        let now = Instant::now();
        match pull {
            None => {}
            Some(Ok(())) => {
                let failed = self.back_off.answered();
                if let Some(since) = self.unreachable_since.take() {
                    tracing::info!(after_s = since.elapsed().as_secs(), failed, "the master answers again");
                }
                self.pull_trouble.is_over();
                self.pull_at = now + interval;
            }
            // The signal's own words are enough.
            Some(Err(error)) if error.kind() == ErrorKind::Stopped => {}
            // What somebody else pulls is seen when it comes.
            Some(Err(error)) if error.kind() == ErrorKind::Busy => {
                self.pull_at = now + interval;
                if self.pull_trouble.is_news("somebody else pulls", now) {
                    tracing::info!(
                        "somebody else is at work in the clone, this round has not pulled: {}",
                        error.one_line()
                    );
                }
            }
            Some(Err(error)) if is_unreachable(error.kind()) => {
                let pause = self.back_off.failed(interval);
                self.unreachable_since.get_or_insert(now);
                self.pull_at = now + pause;
                if self.pull_trouble.is_news(&error.paragraph(), now) {
                    tracing::warn!(next_pull_in_s = pause.as_secs(), "cannot pull: {}", error.paragraph());
                } else {
                    tracing::debug!(next_pull_in_s = pause.as_secs(), "cannot pull: {error}");
                }
            }
            Some(Err(error)) => {
                self.pull_at = now + interval;
                tell(&mut self.pull_trouble, "cannot pull", &error);
            }
        }
    }

    pub(super) fn after_pass(&mut self, pass: Result<Pass>, left_loose_ends: bool) {
        let now = Instant::now();
        self.retry_at = None;
        let status = match pass {
            Ok(pass) => {
                self.pass_trouble.is_over();
                let longest = self.pauses.iter().max().copied().unwrap_or_default();
                let next_try = pass.next_try.map(|at| now + until(at, Timestamp::now(), longest) + SLACK);
                if pass.summary.loose_ends > 0 {
                    let failures = self.loose_ends.0 + 1;
                    let last = self.pauses.len().saturating_sub(1);
                    let index = usize::try_from(failures - 1).unwrap_or(last).min(last);
                    let pause = self.pauses.get(index).copied().unwrap_or_default();
                    self.loose_ends = (failures, Some(now + pause));
                } else if !left_loose_ends {
                    self.loose_ends = (0, None);
                }
                // What was due and could not be done comes with the next round anyhow.
                let loose_ends = self.loose_ends.1.filter(|at| *at > now);
                self.retry_at = [next_try, loose_ends].into_iter().flatten().min();
                match pass.summary.failed.len() + pass.summary.postponed {
                    0 => match pass.summary.due.first() {
                        Some((what, _)) => format!("everything is applied, but {what}"),
                        None => "everything is applied".to_owned(),
                    },
                    1 => "1 job has failed and is tried again".to_owned(),
                    failed => format!("{failed} jobs have failed and are tried again"),
                }
            }
            Err(error) if error.kind() == ErrorKind::Stopped => return,
            Err(error) => {
                tell(&mut self.pass_trouble, "the pass could not be made", &error);
                format!("the last pass could not be made: {}", error.one_line())
            }
        };
        let status = match self.unreachable_since {
            Some(_) => format!("the master cannot be reached; {status}"),
            None => status,
        };
        let status = match self.code.as_ref().and_then(Code::complaint) {
            Some(complaint) => format!("{status}; {complaint}"),
            None => status,
        };
        self.supervisor.status(&status);
        if self.last_sign.elapsed() >= SIGN_OF_LIFE {
            self.last_sign = now;
            tracing::info!(rounds = self.rounds, "the daemon lives: {status}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_nobody_takes_away_is_told_in_the_end() {
        let (mut since, begin) = (None, Instant::now());
        let busy = || Err(Error::new(ErrorKind::Busy, "locked").hint("remove it"));
        let mut after = |pull, seconds| not_busy_for_ever(pull, &mut since, begin + Duration::from_secs(seconds));
        assert_eq!(after(busy(), 0).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(after(busy(), 1799).unwrap_err().kind(), ErrorKind::Busy);
        let told = after(busy(), 1800).unwrap_err();
        assert_eq!((told.kind(), told.hint_text()), (ErrorKind::Repository, Some("remove it")));
        assert!(told.message().contains("for 30 minutes"), "{}", told.message());
        after(Ok(()), 1900).unwrap();
        assert_eq!(after(busy(), 2000).unwrap_err().kind(), ErrorKind::Busy);
    }
}
