//! Which tables a pass is loading, so that a foreign key waits for the table it points to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// A table's name: schema and table.
pub(super) type TableName = (String, String);

/// What a pass knows of a table that one of its jobs publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loading {
    /// The job works on it.
    Pending,
    /// The new table stands under its name, or the old one stays as it is.
    Ready,
    /// The job failed before that.
    Failed,
}

/// Every job that may load a table says which table it is, or that there is none; then how that went.
///
/// Names are known only once a job's metadata has arrived, so a foreign key first waits until every
/// job has spoken. No job waits for another before it has spoken (one that runs after another of the same
/// layer says at once that it loads nothing), hence nobody waits for ever.
#[derive(Debug)]
pub(super) struct Tables {
    silent: watch::Sender<usize>,
    /// Jobs that may still swap a table.
    swapping: watch::Sender<usize>,
    tables: Mutex<HashMap<TableName, watch::Sender<Loading>>>,
}

impl Tables {
    /// `jobs` is the number of jobs that will speak.
    pub(super) fn new(jobs: usize) -> Self {
        Self {
            silent: watch::Sender::new(jobs),
            swapping: watch::Sender::new(jobs),
            tables: Mutex::new(HashMap::new()),
        }
    }

    /// A job's right to speak; dropped unused, it says that the job loads no table.
    pub(super) fn voice(&self) -> Voice<'_> {
        Voice { tables: self, spoken: false, swapped: false, loading: None }
    }

    /// Waits until `table` can be referenced. `None`: no job of this pass publishes it.
    pub(super) async fn settled(&self, table: &TableName) -> Option<Loading> {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.silent.subscribe().wait_for(|silent| *silent == 0).await;
        let mut state = {
            let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.get(table)?.subscribe()
        };
        let settled = state.wait_for(|state| *state != Loading::Pending).await.map(|state| *state);
        Some(settled.unwrap_or(Loading::Failed))
    }
}

/// See [`Tables::voice`].
#[derive(Debug)]
pub(super) struct Voice<'a> {
    tables: &'a Tables,
    spoken: bool,
    swapped: bool,
    loading: Option<TableName>,
}

impl Voice<'_> {
    /// The job publishes this table.
    pub(super) fn loads(&mut self, table: TableName) {
        {
            let mut tables = self.tables.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.entry(table.clone()).or_insert_with(|| watch::Sender::new(Loading::Pending));
        }
        self.loading = Some(table);
        self.speak();
    }

    /// The job loads no table.
    pub(super) fn loads_nothing(&mut self) {
        self.speak();
    }

    /// The table can be referenced from now on.
    pub(super) fn ready(&mut self) {
        self.settle(Loading::Ready);
    }

    /// The job swaps no table any more.
    pub(super) fn swapped(&mut self) {
        if !self.swapped {
            self.swapped = true;
            self.tables.swapping.send_modify(|swapping| *swapping = swapping.saturating_sub(1));
        }
    }

    /// Waits until every other job has swapped its table, has failed, or waits here as well.
    pub(super) async fn others_swapped(&mut self) {
        self.swapped();
        // The sender lives in `tables`, so waiting cannot fail.
        let _ = self.tables.swapping.subscribe().wait_for(|swapping| *swapping == 0).await;
    }

    fn speak(&mut self) {
        if !self.spoken {
            self.spoken = true;
            self.tables.silent.send_modify(|silent| *silent = silent.saturating_sub(1));
        }
    }

    fn settle(&mut self, to: Loading) {
        if let Some(table) = self.loading.take() {
            let tables = self.tables.tables.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(state) = tables.get(&table) {
                state.send_replace(to);
            }
        }
    }
}

impl Drop for Voice<'_> {
    fn drop(&mut self) {
        self.speak();
        self.swapped();
        self.settle(Loading::Failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        ("ws_data".into(), name.into())
    }

    #[tokio::test]
    async fn two_tables_that_point_to_each_other_do_not_wait_for_ever() {
        let tables = Tables::new(2);
        let job = async |own: &str, other: &str| {
            let mut voice = tables.voice();
            voice.loads(table(own));
            voice.ready();
            tables.settled(&table(other)).await
        };
        let both = async { tokio::join!(job("a", "b"), job("b", "a")) };
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(5), both).await.unwrap();
        assert_eq!(outcome, (Some(Loading::Ready), Some(Loading::Ready)));
    }

    #[tokio::test]
    async fn jobs_that_wait_for_each_others_swaps_go_on_together() {
        let tables = Tables::new(3);
        let waiting = async || tables.voice().others_swapped().await;
        let third = async { tables.voice().swapped() };
        let all = async { tokio::join!(waiting(), waiting(), third) };
        tokio::time::timeout(std::time::Duration::from_secs(5), all).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_ends_early_counts_as_failed_and_frees_the_others() {
        let tables = Tables::new(2);
        {
            let mut voice = tables.voice();
            voice.loads(table("a"));
        }
        drop(tables.voice());
        assert_eq!(tables.settled(&table("a")).await, Some(Loading::Failed));
        assert_eq!(tables.settled(&table("elsewhere")).await, None);
    }
}
