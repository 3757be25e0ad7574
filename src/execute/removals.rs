//! Removals that stand in each other's way: a table goes only after those whose foreign keys point to it.
//!
//! Which tables those are stands in the database. So a removal that was refused tries again whenever another
//! job has ended, until none is left that could change the answer.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// What the jobs of a pass are doing, as far as refused removals must know.
#[derive(Debug, Default)]
struct State {
    /// Jobs at work.
    busy: usize,
    /// How many have ended.
    ended: u64,
    /// Refused removals, by the number of ended jobs that they knew of when they tried.
    waiting: BTreeMap<u64, usize>,
    /// With this number of ended jobs, all who were left waited in vain.
    hopeless: Option<u64>,
}

impl State {
    fn is_hopeless(&self) -> bool {
        self.busy == 0 && self.waiting.keys().all(|seen| *seen == self.ended)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Removals(watch::Sender<State>);

impl Removals {
    /// `jobs` are at work from the beginning.
    pub(super) fn new(jobs: usize) -> Self {
        Self(watch::Sender::new(State { busy: jobs, ..State::default() }))
    }

    /// A job begins that had to wait for others first.
    pub(super) fn begins(&self) {
        self.0.send_modify(|state| state.busy += 1);
    }

    /// A job has ended.
    pub(super) fn ends(&self) {
        self.0.send_modify(|state| {
            state.busy = state.busy.saturating_sub(1);
            state.ended += 1;
        });
    }

    /// How many jobs have ended; asked before a removal is tried.
    pub(super) fn ended(&self) -> u64 {
        self.0.borrow().ended
    }

    /// Waits until a removal that was refused is worth another try, `ended` jobs having ended before it was
    /// tried; false when nobody is left who could make a difference.
    pub(super) async fn worth_another_try(&self, ended: u64) -> bool {
        self.0.send_modify(|state| {
            state.busy = state.busy.saturating_sub(1);
            *state.waiting.entry(ended).or_default() += 1;
        });
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|state| state.ended > ended || state.is_hopeless()).await;
        let mut again = false;
        self.0.send_modify(|state| {
            if state.is_hopeless() {
                state.hopeless = Some(state.ended);
            }
            again = state.hopeless != Some(ended);
            state.busy += 1;
            if let Some(count) = state.waiting.get_mut(&ended) {
                *count -= 1;
            }
            state.waiting.retain(|_, count| *count > 0);
        });
        again
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// Removes tables of which each may be pointed to by one other; tells which are left.
    async fn remove_all(pointed_to_by: &[(&'static str, Option<&'static str>)]) -> Vec<&'static str> {
        let there: Mutex<HashSet<&str>> = Mutex::new(pointed_to_by.iter().map(|(table, _)| *table).collect());
        let removals = Removals::new(pointed_to_by.len());
        let jobs = pointed_to_by.iter().map(async |(table, other)| {
            loop {
                let ended = removals.ended();
                let refused = other.is_some_and(|other| other == "elsewhere" || there.lock().unwrap().contains(other));
                if !refused {
                    there.lock().unwrap().remove(table);
                    removals.ends();
                    return;
                }
                tokio::task::yield_now().await;
                if !removals.worth_another_try(ended).await {
                    removals.ends();
                    return;
                }
            }
        });
        let all = futures_util::future::join_all(jobs);
        tokio::time::timeout(Duration::from_secs(5), all).await.expect("nobody waits for ever");
        let mut left: Vec<_> = there.into_inner().unwrap().into_iter().collect();
        left.sort_unstable();
        left
    }

    #[tokio::test]
    async fn a_chain_goes_from_its_end() {
        assert!(remove_all(&[("a", Some("b")), ("b", Some("c")), ("c", Some("d")), ("d", None)]).await.is_empty());
    }

    #[tokio::test]
    async fn what_stays_in_the_way_ends_the_wait() {
        let left =
            remove_all(&[("a", Some("b")), ("b", Some("elsewhere")), ("c", None), ("x", Some("y")), ("y", Some("x"))])
                .await;
        assert_eq!(left, ["a", "b", "x", "y"]);
    }
}
