//! Removals that stand in each other's way: a table goes only after those whose foreign keys point to it, a
//! layer group only after those that hold it.
//!
//! Which those are stands in the database and in GeoServer. So a removal that was refused tries again when
//! something of the kind that stands in its way has gone, and once more when nobody else is at work; it gives
//! up when not even that has changed the answer.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::job::{Action, JobKind};
use crate::plan::PlannedJob;

/// What stands in the way of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// Layer groups that hold what is to go. Those that are published have let go of it before it is tried.
    Groups,
    /// Tables whose foreign keys point to the one that is to go.
    Tables,
}

/// What a job does, as far as refused removals must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Removes(Obstacle),
    /// It may replace a table, and with it the foreign keys.
    LoadsTable,
    Other,
}

impl From<&PlannedJob> for Role {
    fn from(job: &PlannedJob) -> Self {
        match (job.file.kind, job.action) {
            (JobKind::LayerGroup, Some(Action::Remove)) => Self::Removes(Obstacle::Groups),
            (JobKind::Feature, Some(Action::Remove)) => Self::Removes(Obstacle::Tables),
            (JobKind::Feature, Some(Action::Publish)) => Self::LoadsTable,
            _ => Self::Other,
        }
    }
}

/// What a removal knew when it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    obstacle: Obstacle,
    changes: u64,
    ended: u64,
}

/// What the jobs of a pass are doing, as far as refused removals must know.
#[derive(Debug, Default)]
struct State {
    /// Jobs at work.
    busy: usize,
    /// How many have ended, but for removals that failed.
    ended: u64,
    /// How often groups, and tables, have become others than they were.
    changes: [u64; 2],
    /// Jobs that may still replace a table. One by one these would be too many to try after.
    loading: usize,
    /// Refused removals, by what they knew when they tried.
    waiting: BTreeMap<Seen, usize>,
}

impl State {
    fn seen(&self, obstacle: Obstacle) -> Seen {
        Seen { obstacle, changes: self.changes[obstacle as usize], ended: self.ended }
    }

    fn has_changed(&self, seen: &Seen) -> bool {
        self.changes[seen.obstacle as usize] > seen.changes
    }

    /// Whether a removal need not wait any longer; with it, whether there is something to try.
    fn answer(&self, seen: &Seen) -> Option<bool> {
        if self.has_changed(seen) {
            return Some(true);
        }
        if self.busy > 0 || self.waiting.keys().any(|other| self.has_changed(other)) {
            return None;
        }
        // Nobody is at work. What nobody has thought of may still have made way.
        if seen.ended < self.ended {
            return Some(true);
        }
        self.waiting.keys().all(|other| other.ended == self.ended).then_some(false)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Removals {
    roles: Vec<Role>,
    state: watch::Sender<State>,
}

impl Removals {
    /// For the jobs of a pass, of which `busy` are at work from the beginning.
    pub(super) fn new(roles: Vec<Role>, busy: usize) -> Self {
        let loading = roles.iter().filter(|role| **role == Role::LoadsTable).count();
        Self { roles, state: watch::Sender::new(State { busy, loading, ..State::default() }) }
    }

    /// A job begins that had to wait for others first.
    pub(super) fn begins(&self) {
        self.state.send_modify(|state| state.busy += 1);
    }

    /// A job has ended, well or badly.
    pub(super) fn ends(&self, job: usize, failed: bool) {
        let role = self.roles.get(job).copied().unwrap_or(Role::Other);
        self.state.send_modify(|state| {
            state.busy = state.busy.saturating_sub(1);
            match role {
                // Nothing has gone that anybody waits for.
                Role::Removes(_) if failed => return,
                Role::Removes(obstacle) => state.changes[obstacle as usize] += 1,
                Role::LoadsTable => {
                    state.loading = state.loading.saturating_sub(1);
                    if state.loading == 0 {
                        state.changes[Obstacle::Tables as usize] += 1;
                    }
                }
                Role::Other => {}
            }
            state.ended += 1;
        });
    }

    /// What there is to know; asked before a removal is tried.
    pub(super) fn seen(&self, obstacle: Obstacle) -> Seen {
        self.state.borrow().seen(obstacle)
    }

    /// Waits until a removal that was refused is worth another try, `seen` being what was known when it was
    /// tried; false when nobody is left who could make a difference.
    pub(super) async fn worth_another_try(&self, seen: Seen) -> bool {
        self.state.send_modify(|state| {
            state.busy = state.busy.saturating_sub(1);
            *state.waiting.entry(seen).or_default() += 1;
        });
        loop {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = self.state.subscribe().wait_for(|state| state.answer(&seen).is_some()).await;
            let mut again = None;
            self.state.send_modify(|state| {
                // Another one that waits may have been faster.
                again = state.answer(&seen);
                if again.is_none() {
                    return;
                }
                state.busy += 1;
                if let Some(count) = state.waiting.get_mut(&seen) {
                    *count -= 1;
                }
                state.waiting.retain(|_, count| *count > 0);
            });
            if let Some(again) = again {
                return again;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    const REMOVES: Role = Role::Removes(Obstacle::Tables);

    /// Removes tables of which each may be pointed to by one other, while `others` jobs end one after the
    /// other; tells which tables are left, and how often it was tried.
    async fn remove_all(
        pointed_to_by: &[(&'static str, Option<&'static str>)],
        others: &[Role],
    ) -> (Vec<&'static str>, usize) {
        let there: Mutex<HashSet<&str>> = Mutex::new(pointed_to_by.iter().map(|(table, _)| *table).collect());
        let tries = Mutex::new(0);
        let roles: Vec<Role> = pointed_to_by.iter().map(|_| REMOVES).chain(others.iter().copied()).collect();
        let count = roles.len();
        let removals = Removals::new(roles, count);
        let jobs = pointed_to_by.iter().enumerate().map(async |(job, (table, other))| {
            loop {
                let seen = removals.seen(Obstacle::Tables);
                *tries.lock().unwrap() += 1;
                let refused = other.is_some_and(|other| other == "elsewhere" || there.lock().unwrap().contains(other));
                if !refused {
                    there.lock().unwrap().remove(table);
                    removals.ends(job, false);
                    return;
                }
                tokio::task::yield_now().await;
                if !removals.worth_another_try(seen).await {
                    removals.ends(job, true);
                    return;
                }
            }
        });
        let rest = async {
            for job in pointed_to_by.len()..count {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                removals.ends(job, false);
            }
        };
        let all = async { tokio::join!(futures_util::future::join_all(jobs), rest) };
        tokio::time::timeout(Duration::from_secs(5), all).await.expect("nobody waits for ever");
        let mut left: Vec<_> = there.into_inner().unwrap().into_iter().collect();
        left.sort_unstable();
        (left, tries.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_chain_goes_from_its_end() {
        let chain = [("a", Some("b")), ("b", Some("c")), ("c", Some("d")), ("d", None)];
        assert!(remove_all(&chain, &[]).await.0.is_empty());
    }

    #[tokio::test]
    async fn what_stays_in_the_way_ends_the_wait() {
        let tables = [("a", Some("b")), ("b", Some("elsewhere")), ("c", None), ("x", Some("y")), ("y", Some("x"))];
        assert_eq!(remove_all(&tables, &[]).await.0, ["a", "b", "x", "y"]);
    }

    #[tokio::test]
    async fn jobs_that_make_no_difference_are_not_tried_after() {
        let stays = [("a", Some("elsewhere")), ("b", Some("elsewhere"))];
        let others = vec![Role::Other; 100];
        assert_eq!(remove_all(&stays, &others).await, (vec!["a", "b"], 4), "at first and at the end");
        let groups = vec![Role::Removes(Obstacle::Groups); 100];
        assert_eq!(remove_all(&stays, &groups).await.1, 4);
        // Once all tables are loaded, and not after each of them.
        let loads = vec![Role::LoadsTable; 100];
        assert_eq!(remove_all(&stays, &loads).await.1, 4);
    }
}
