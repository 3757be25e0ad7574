//! How the slave is, in a word and in sentences; and whether it is ready.

use std::time::{Duration, Instant};

use super::monitor::{Life, PassEnd, PullEnd};
use super::site::Overview;
use crate::journal::State;

/// How long after its time a round may begin before that is remarkable.
const LATE: Duration = Duration::from_secs(60);

/// How the slave is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing is to be done.
    Good,
    /// Something is under way, and how it ends is not known.
    Busy,
    /// Somebody should look.
    Warning,
    /// Something is not applied.
    Bad,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// How the slave is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) level: Level,
    /// What there is to say, the worst first; never empty.
    pub(super) sentences: Vec<String>,
}

impl Verdict {
    pub(super) fn of(overview: &Overview, now: Instant) -> Self {
        let life = &overview.life;
        let mut found: Vec<(Level, String)> = Vec::new();
        let last = life.last_round.as_ref();
        if let Some(PassEnd::Failed(reason)) = last.map(|round| &round.pass) {
            found.push((Level::Bad, format!("The last pass could not be made: {reason}")));
        }
        match overview.count(State::Failed) + overview.count(State::Interrupted) {
            0 => {}
            1 => found.push((Level::Bad, "1 job is not applied".to_owned())),
            count => found.push((Level::Bad, format!("{count} jobs are not applied"))),
        }
        match last.and_then(|round| round.pull.as_ref()) {
            Some(PullEnd::Failed(reason)) => found.push((Level::Bad, format!("The last pull failed: {reason}"))),
            Some(PullEnd::Unreachable(reason)) => {
                found.push((Level::Warning, format!("The master cannot be reached: {reason}")));
            }
            _ if life.unreachable_since.is_some() => {
                found.push((Level::Warning, "The master could not be reached when it was last asked".to_owned()));
            }
            _ => {}
        }
        if is_late(life, now) {
            found.push((Level::Bad, "The next round is overdue".to_owned()));
        }
        if let Some(backlog) = &overview.backlog {
            if backlog.failing.is_some() {
                found.push((Level::Warning, "The master's database takes no reports".to_owned()));
            } else if backlog.refused > 0 {
                found.push((Level::Warning, "The master has refused reports".to_owned()));
            }
        }
        if let Some(trouble) = &overview.program {
            found.push((Level::Warning, format!("The program is not brought up to date: {}", trouble.about)));
        }
        match overview.count(State::Running) {
            0 => {}
            1 => found.push((Level::Busy, "1 job is under way".to_owned())),
            count => found.push((Level::Busy, format!("{count} jobs are under way"))),
        }
        if last.is_none() && found.is_empty() {
            found.push((Level::Busy, "The first round is under way".to_owned()));
        }
        if found.is_empty() {
            found.push((Level::Good, "Everything is applied".to_owned()));
        }
        found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        let level = found[0].0;
        Self { level, sentences: found.into_iter().map(|(_, sentence)| sentence).collect() }
    }
}

/// Why the daemon is not ready, in words that tell no secret; nothing when it is.
pub(super) fn unready(life: &Life, is_journal_readable: bool, now: Instant) -> Option<&'static str> {
    if !is_journal_readable {
        return Some("the journal cannot be read");
    }
    match &life.last_round {
        _ if is_late(life, now) => Some("the next round is overdue"),
        None if life.under_way.is_none() => Some("no round has begun"),
        Some(round) if matches!(round.pass, PassEnd::Failed(_)) => Some("the last pass could not be made"),
        _ => None,
    }
}

/// The wall clock may be set at any time, and would make every round late.
fn is_late(life: &Life, now: Instant) -> bool {
    life.under_way.is_none() && life.due.is_some_and(|due| now.saturating_duration_since(due) > LATE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status_page::monitor::Monitor;

    fn after(pull: Option<PullEnd>, pass: PassEnd) -> Life {
        let monitor = Monitor::default();
        monitor.round_begins("test");
        monitor.round_ended(pull, pass);
        monitor.life()
    }

    fn overview(life: Life, counts: &[(State, u64)]) -> Overview {
        Overview { life, counts: counts.iter().copied().collect(), ..Overview::default() }
    }

    #[test]
    fn the_worst_is_said_first() {
        let now = Instant::now();
        let say = |overview: &Overview| {
            let verdict = Verdict::of(overview, now);
            format!("{}: {}", verdict.level.as_str(), verdict.sentences.join(". "))
        };
        let down = || Some(PullEnd::Unreachable("ssh: no route".into()));
        let said = [
            say(&overview(Monitor::default().life(), &[])),
            say(&overview(after(Some(PullEnd::Ok), PassEnd::Applied), &[(State::Succeeded, 7), (State::Filtered, 2)])),
            say(&overview(after(down(), PassEnd::Incomplete), &[(State::Failed, 1)])),
            say(&overview(after(down(), PassEnd::Applied), &[(State::Running, 2)])),
            say(&overview(
                after(None, PassEnd::Failed("the disk is full".into())),
                &[(State::Interrupted, 2), (State::Failed, 1)],
            )),
        ];
        insta::assert_snapshot!(said.join("\n"), @"
        busy: The first round is under way
        good: Everything is applied
        bad: 1 job is not applied. The master cannot be reached: ssh: no route
        warning: The master cannot be reached: ssh: no route. 2 jobs are under way
        bad: The last pass could not be made: the disk is full. 3 jobs are not applied
        ");
    }

    #[test]
    fn ready_means_that_passes_are_made_and_come_in_time() {
        let (now, wall) = (Instant::now(), jiff::Timestamp::now());
        let mut life = Monitor::default().life();
        assert_eq!(unready(&life, true, now), Some("no round has begun"));
        life.under_way = Some(("start", wall));
        assert_eq!(unready(&life, true, now), None);
        assert_eq!(unready(&life, false, now), Some("the journal cannot be read"));
        let mut life = after(Some(PullEnd::Unreachable("down".into())), PassEnd::Incomplete);
        life.due = Some(now);
        assert_eq!(unready(&life, true, now + Duration::from_secs(30)), None, "it works with what it has");
        // The wall clock was set forward by a day.
        life.next_round = wall.checked_sub(Duration::from_secs(86_400)).ok();
        assert_eq!(unready(&life, true, now), None);
        assert!(!Verdict::of(&overview(life.clone(), &[]), now).sentences.iter().any(|said| said.contains("overdue")));
        let late = now + Duration::from_secs(300);
        assert!(
            Verdict::of(&overview(life.clone(), &[]), late).sentences.contains(&"The next round is overdue".into())
        );
        assert_eq!(unready(&life, true, late), Some("the next round is overdue"));
        life.under_way = Some(("interval", wall));
        assert_eq!(unready(&life, true, late), None, "a pass may take hours");
        let life = after(None, PassEnd::Failed("the disk is full".into()));
        assert_eq!(unready(&life, true, now), Some("the last pass could not be made"));
    }
}
