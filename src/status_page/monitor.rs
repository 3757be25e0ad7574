//! What the daemon tells of itself: its rounds, and the measurements of its passes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::metrics::Metrics;

/// How a round's pull went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEnd {
    /// The master has answered.
    Ok,
    /// The master could not be reached.
    Unreachable(String),
    /// The pull failed for another reason.
    Failed(String),
}

/// How a round's pass went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassEnd {
    /// Everything is applied.
    Applied,
    /// Some jobs failed, or rest because they have.
    Incomplete,
    /// The pass could not be made.
    Failed(String),
    /// The daemon was asked to end.
    Stopped,
}

/// A round that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// What began it, in a word.
    pub why: &'static str,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How its pull went; nothing when it had none.
    pub pull: Option<PullEnd>,
    /// How its pass went.
    pub pass: PassEnd,
}

/// What is known of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// When it began.
    pub begun: Timestamp,
    /// How many rounds have begun.
    pub rounds: u64,
    /// The round that is under way: what began it, and when.
    pub under_way: Option<(&'static str, Timestamp)>,
    /// The last round that has ended.
    pub last_round: Option<Round>,
    /// When the last pull began that the master answered.
    pub last_pull: Option<Timestamp>,
    /// Since when the master cannot be reached.
    pub unreachable_since: Option<Timestamp>,
    /// When the slave was last known to hold all that the master had.
    pub level: Option<Timestamp>,
    /// When the next round is due, by a clock that nobody sets.
    pub due: Option<Instant>,
    /// The same as the wall clock shows it now.
    pub next_round: Option<Timestamp>,
}

impl Life {
    /// How long ago the slave was known to hold all that the master had; since the daemon began where that is not known.
    #[must_use]
    pub fn lag(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.level.unwrap_or(self.begun))).unwrap_or_default()
    }
}

/// Takes down what the daemon does. Every call returns at once.
#[derive(Debug)]
pub struct Monitor {
    life: Mutex<Life>,
    metrics: Metrics,
}

impl Default for Monitor {
    fn default() -> Self {
        let begun = Timestamp::now();
        let life = Life {
            begun,
            rounds: 0,
            under_way: None,
            last_round: None,
            last_pull: None,
            unreachable_since: None,
            level: None,
            due: None,
            next_round: None,
        };
        Self { life: Mutex::new(life), metrics: Metrics::new(seconds(begun)) }
    }
}

impl Monitor {
    /// A round begins; `why` is a word.
    pub fn round_begins(&self, why: &'static str) {
        let mut life = self.lock();
        life.rounds += 1;
        life.under_way = Some((why, Timestamp::now()));
        life.due = None;
    }

    /// The round has ended.
    pub fn round_ended(&self, pull: Option<PullEnd>, pass: PassEnd) {
        match &pull {
            None => {}
            Some(PullEnd::Ok) => self.metrics.pulled("ok"),
            Some(PullEnd::Unreachable(_)) => self.metrics.pulled("unreachable"),
            Some(PullEnd::Failed(_)) => self.metrics.pulled("failed"),
        }
        self.metrics.passed(match pass {
            PassEnd::Applied => "applied",
            PassEnd::Incomplete => "incomplete",
            PassEnd::Failed(_) => "failed",
            PassEnd::Stopped => "stopped",
        });
        let now = Timestamp::now();
        let mut life = self.lock();
        let (why, begun) = life.under_way.take().unwrap_or(("", now));
        match &pull {
            Some(PullEnd::Ok) => {
                life.last_pull = Some(begun);
                life.unreachable_since = None;
            }
            Some(PullEnd::Unreachable(_)) => {
                life.unreachable_since.get_or_insert(now);
            }
            _ => {}
        }
        if pass == PassEnd::Applied {
            // What the master has got since the last pull is not known.
            life.level = life.last_pull;
        }
        life.last_round = Some(Round { why, begun, ended: now, pull, pass });
    }

    /// Nothing is done until `next`, unless something wakes the daemon.
    pub fn sleeps_until(&self, next: Instant) {
        self.lock().due = Some(next);
    }

    /// A job has ended.
    pub fn job_ended(&self, kind: &'static str, outcome: &'static str) {
        self.metrics.job_ended(kind, outcome);
    }

    /// A step of a job has ended.
    pub fn step_ended(&self, step: &'static str, outcome: &'static str, took: Duration) {
        self.metrics.step_ended(step, outcome, took);
    }

    /// A file that a job needs is here; `from` is a word.
    pub fn received(&self, from: &'static str, bytes: u64) {
        self.metrics.received(from, bytes);
    }

    /// A dump of so many bytes is loaded.
    pub fn restored(&self, bytes: u64) {
        self.metrics.restored(bytes);
    }

    /// A GeoServer was asked something.
    pub fn requested(&self, target: &str, method: &str, status: Option<u16>, took: Duration) {
        self.metrics.requested(target, method, status, took);
    }

    /// What is known of the daemon.
    #[must_use]
    pub fn life(&self) -> Life {
        let mut life = self.lock().clone();
        life.next_round = life.due.and_then(|due| {
            let (now, wall) = (Instant::now(), Timestamp::now());
            match due.checked_duration_since(now) {
                Some(left) => wall.checked_add(left).ok(),
                None => wall.checked_sub(now.duration_since(due)).ok(),
            }
        });
        life
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970-01-01.
pub(super) fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slave_is_level_as_of_the_last_pull_once_everything_is_applied() {
        let monitor = Monitor::default();
        let round = |pull: Option<PullEnd>, pass| {
            monitor.round_begins("test");
            assert!(monitor.life().under_way.is_some());
            monitor.round_ended(pull, pass);
            monitor.life()
        };
        let life = round(Some(PullEnd::Ok), PassEnd::Incomplete);
        assert_eq!((life.level, life.last_pull.is_some()), (None, true));
        let pulled = life.last_pull;
        // The failed job is tried again, without another pull.
        assert_eq!(round(None, PassEnd::Applied).level, pulled);
        let life = round(Some(PullEnd::Unreachable("down".into())), PassEnd::Applied);
        assert_eq!((life.level, life.unreachable_since.is_some()), (pulled, true));
        let life = round(Some(PullEnd::Ok), PassEnd::Applied);
        assert!(life.level > pulled && life.unreachable_since.is_none() && life.rounds == 4);
        assert!(life.lag(Timestamp::now()) < Duration::from_secs(60));
    }
}
