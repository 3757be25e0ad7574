//! When the next round is due. Pauses are measured by a clock that nobody sets.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The longest pause between two tries to reach the master, unless the interval is longer.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);

/// Pauses after the first failure of a job, the second, and so on; the last one goes on.
pub const RETRY_PAUSES: [Duration; 6] = [minutes(1), minutes(2), minutes(5), minutes(10), minutes(30), minutes(60)];

/// Why a round begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The daemon has just begun.
    Start,
    /// The interval is over.
    Interval,
    /// A failed job's pause is over.
    Retry,
    /// Somebody has asked for it.
    Signal,
    /// Somebody has brought changesets.
    Clone,
    /// The settings are other ones.
    Settings,
}

impl Cause {
    /// Whether the round asks the master first, which `is_due` or not, and `is_away` as far as anybody knows.
    pub(super) fn pulls(self, is_due: bool, is_away: bool) -> bool {
        match self {
            Self::Retry => is_due,
            // Somebody else has reached a master, perhaps this one.
            Self::Clone => is_due || is_away,
            Self::Start | Self::Interval | Self::Signal | Self::Settings => true,
        }
    }

    /// In a word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Interval => "interval",
            Self::Retry => "retry",
            Self::Signal => "signal",
            Self::Clone => "clone",
            Self::Settings => "settings",
        }
    }
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Pauses that double, up to ten minutes, while the master cannot be reached.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// The pause before the next pull, after one that failed.
    pub(super) fn failed(&mut self, interval: Duration) -> Duration {
        let doubled = interval.saturating_mul(1_u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        spread(doubled.min(LONGEST_BACK_OFF.max(interval)), random())
    }

    /// The master has answered; says how many pulls had failed before.
    pub(super) fn answered(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }
}

/// A pause of three to five quarters, so that the slaves of one master do not come back all at once.
fn spread(pause: Duration, random: u64) -> Duration {
    let quarter = u64::try_from(pause.as_millis() / 4).unwrap_or(u64::MAX / 8);
    Duration::from_millis(3 * quarter + random % (2 * quarter).max(1))
}

/// A number that differs from call to call and from process to process.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// How long it is until `at`, as long as nobody sets the wall clock: at most `most`.
pub(super) fn until(at: Timestamp, now: Timestamp, most: Duration) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default().min(most)
}

/// A message that is repeated at most once an hour.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(String, Instant)>);

impl Told {
    /// Whether `text` is to be told now.
    pub(super) fn is_news(&mut self, text: &str, now: Instant) -> bool {
        let is_old = matches!(&self.0, Some((told, at)) if told == text && now - *at < minutes(60));
        if !is_old {
            self.0 = Some((text.to_owned(), now));
        }
        !is_old
    }

    /// What was told no longer holds.
    pub(super) fn is_over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_double_up_to_ten_minutes_and_begin_anew_once_the_master_answers() {
        let mut back_off = BackOff::default();
        let interval = Duration::from_secs(60);
        for expected in [60_u64, 120, 240, 480, 600, 600] {
            let pause = back_off.failed(interval);
            let (least, most) = (Duration::from_millis(expected * 750), Duration::from_millis(expected * 1250));
            assert!(pause >= least && pause <= most, "{pause:?} instead of {expected} s");
        }
        assert_eq!(back_off.answered(), 6);
        assert!(back_off.failed(interval) <= Duration::from_secs(75));
        let daily = Duration::from_secs(86_400);
        assert!(back_off.failed(daily) >= daily * 3 / 4, "not more often than the operator wants");
    }

    #[test]
    fn changesets_that_somebody_brings_while_the_master_is_away_end_the_waiting() {
        let asks =
            |cause: Cause| [(false, false), (false, true), (true, true)].map(|(due, away)| cause.pulls(due, away));
        assert_eq!(asks(Cause::Clone), [false, true, true]);
        assert_eq!(asks(Cause::Retry), [false, false, true]);
        assert_eq!(asks(Cause::Signal), [true; 3]);
    }

    #[test]
    fn pauses_of_two_slaves_differ() {
        let pauses: std::collections::HashSet<_> =
            (0..20).map(|_| BackOff::default().failed(Duration::from_secs(60))).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }

    #[test]
    fn what_stays_wrong_is_told_once_an_hour() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(told.is_news("down", now));
        assert!(!told.is_news("down", now + minutes(59)));
        assert!(told.is_news("down", now + minutes(61)));
        assert!(told.is_news("full", now + minutes(61)));
        told.is_over();
        assert!(told.is_news("full", now + minutes(61)));
    }

    #[test]
    fn a_clock_that_was_set_makes_nobody_wait_for_days() {
        let now = Timestamp::UNIX_EPOCH;
        let day = Duration::from_secs(86_400);
        assert_eq!(until(now + minutes(2), now, minutes(60)), minutes(2));
        assert_eq!(until(now + day, now, minutes(60)), minutes(60));
        assert_eq!(until(now, now + day, minutes(60)), Duration::ZERO);
    }
}
