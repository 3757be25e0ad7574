//! Which tables a pass is loading, so that a foreign key waits for the table it points to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::job::{Action, JobKind};
use crate::plan::PlannedJob;

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
/// layer says at once that it loads nothing), hence nobody waits for ever. A job that waits only until a removal
/// has freed its layer's name is waited for by those that need its table, which its file's name tells: removals
/// need no table.
#[derive(Debug)]
pub(super) struct Tables {
    silent: watch::Sender<usize>,
    /// Jobs that may load a table once its name is free, and have not said so yet.
    coming: HashMap<TableName, watch::Sender<usize>>,
    /// Jobs that may still swap a table.
    swapping: watch::Sender<usize>,
    tables: Mutex<HashMap<TableName, watch::Sender<Loading>>>,
}

impl Tables {
    /// `jobs` is the number of jobs that will speak, `late` are the tables of those among them that have a
    /// [`late_voice`](Self::late_voice).
    pub(super) fn new<'a>(jobs: usize, late: impl IntoIterator<Item = &'a TableName>) -> Self {
        let mut coming: HashMap<TableName, watch::Sender<usize>> = HashMap::new();
        for table in late {
            coming.entry(table.clone()).or_default().send_modify(|jobs| *jobs += 1);
        }
        Self {
            silent: watch::Sender::new(jobs),
            coming,
            swapping: watch::Sender::new(jobs),
            tables: Mutex::new(HashMap::new()),
        }
    }

    /// A job's right to speak; dropped unused, it says that the job loads no table.
    pub(super) fn voice(&self) -> Voice<'_> {
        Voice { tables: self, late: None, spoken: false, swapped: false, loading: None }
    }

    /// The same for a job that waits for others before it begins and may load `table` then.
    pub(super) fn late_voice(&self, table: TableName) -> Voice<'_> {
        let mut voice = self.voice();
        voice.speak();
        voice.swapped();
        voice.late = Some(table);
        voice
    }

    /// Whether `table` is loaded by a job that has not begun yet, and by none of the others.
    pub(super) async fn is_coming(&self, table: &TableName) -> bool {
        self.all_have_spoken().await;
        self.state_of(table).is_none() && self.coming.get(table).is_some_and(|jobs| *jobs.borrow() > 0)
    }

    /// Waits until `table` can be referenced. `None`: no job of this pass publishes it.
    pub(super) async fn settled(&self, table: &TableName) -> Option<Loading> {
        self.all_have_spoken().await;
        if self.state_of(table).is_none()
            && let Some(coming) = self.coming.get(table)
        {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = coming.subscribe().wait_for(|jobs| *jobs == 0).await;
        }
        let mut state = self.state_of(table)?;
        let settled = state.wait_for(|state| *state != Loading::Pending).await.map(|state| *state);
        Some(settled.unwrap_or(Loading::Failed))
    }

    async fn all_have_spoken(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.silent.subscribe().wait_for(|silent| *silent == 0).await;
    }

    fn state_of(&self, table: &TableName) -> Option<watch::Receiver<Loading>> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.get(table).map(watch::Sender::subscribe)
    }
}

/// The tables of layers that are published once a removal has freed their names, by job, as the names of the job
/// files tell them.
pub(super) fn late(jobs: &[PlannedJob]) -> HashMap<usize, TableName> {
    let is_late = |job: &PlannedJob| {
        let publishes = job.file.kind == JobKind::Feature && job.action == Some(Action::Publish);
        // One that follows another publication would be waited for by those that it waits for.
        publishes && !job.after.is_empty() && follows_removals(jobs, job)
    };
    let table = |job: &PlannedJob| {
        let (workspace, name) = job.file.named_after()?;
        Some((format!("{workspace}_data"), name.to_owned()))
    };
    let late = jobs.iter().enumerate().filter(|(_, job)| is_late(job));
    late.filter_map(|(index, job)| Some((index, table(job)?))).collect()
}

/// Whether all that has to end before `job` begins are removals. A job follows only such as stand before it.
fn follows_removals(jobs: &[PlannedJob], job: &PlannedJob) -> bool {
    let mut earlier = job.after.iter().filter_map(|&index| jobs.get(index));
    earlier.all(|earlier| earlier.action == Some(Action::Remove) && follows_removals(jobs, earlier))
}

/// See [`Tables::voice`].
#[derive(Debug)]
pub(super) struct Voice<'a> {
    tables: &'a Tables,
    /// The table that the job may load although it has not said so.
    late: Option<TableName>,
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
        self.arrive();
    }

    /// The job loads no table.
    pub(super) fn loads_nothing(&mut self) {
        self.speak();
        self.arrive();
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

    fn arrive(&mut self) {
        if let Some(jobs) = self.late.take().and_then(|table| self.tables.coming.get(&table)) {
            jobs.send_modify(|jobs| *jobs = jobs.saturating_sub(1));
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
        self.arrive();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::classify;
    use crate::plan::{Again, Candidate, plan};

    fn table(name: &str) -> TableName {
        ("ws_data".into(), name.into())
    }

    #[tokio::test]
    async fn two_tables_that_point_to_each_other_do_not_wait_for_ever() {
        let tables = Tables::new(2, []);
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
        let tables = Tables::new(3, []);
        let waiting = async || tables.voice().others_swapped().await;
        let third = async { tables.voice().swapped() };
        let all = async { tokio::join!(waiting(), waiting(), third) };
        tokio::time::timeout(std::time::Duration::from_secs(5), all).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_ends_early_counts_as_failed_and_frees_the_others() {
        let tables = Tables::new(2, []);
        {
            let mut voice = tables.voice();
            voice.loads(table("a"));
        }
        drop(tables.voice());
        assert_eq!(tables.settled(&table("a")).await, Some(Loading::Failed));
        assert_eq!(tables.settled(&table("elsewhere")).await, None);
    }
    #[tokio::test]
    async fn a_table_whose_name_is_freed_first_is_waited_for() {
        let late = [table("a"), table("b"), table("c"), table("d")];
        let tables = Tables::new(5, &late);
        let mut early = tables.voice();
        early.loads(table("d"));
        early.ready();
        let [mut a, mut b, c, d] = late.map(|table| tables.late_voice(table));
        // Nobody else's table keeps anybody waiting, nor does one that an earlier job loads.
        assert_eq!(tables.settled(&table("elsewhere")).await, None);
        assert_eq!(tables.settled(&table("d")).await, Some(Loading::Ready));
        assert!(tables.is_coming(&table("a")).await && !tables.is_coming(&table("d")).await);
        let loaded = async {
            tokio::task::yield_now().await;
            a.loads(table("a"));
            tokio::task::yield_now().await;
            a.ready();
            // Its metadata name another table than its file.
            b.loads(table("other"));
            drop(c);
        };
        let (a_names, b_names, c_names) = (table("a"), table("b"), table("c"));
        let wait = async {
            tokio::join!(tables.settled(&a_names), tables.settled(&b_names), tables.settled(&c_names), loaded)
        };
        let (a, b, c, ()) = tokio::time::timeout(std::time::Duration::from_secs(5), wait).await.unwrap();
        assert_eq!((a, b, c), (Some(Loading::Ready), None, None));
        drop(d);
    }

    #[test]
    fn jobs_that_wait_for_removals_only_are_late() {
        let file = |path: &str, action: &str| Candidate {
            file: classify(path, &["a".to_owned(), "b".to_owned()]).unwrap(),
            deleted: false,
            content: format!("{{\"job_id\": 1, \"action\": \"{action}\"}}").into_bytes(),
            revision: "f00".into(),
        };
        let files = vec![
            file("a/wms_layers/ws.zones.json", "remove"),
            file("b/live_layers/ws.zones.json", "remove"),
            file("a/layers/ws.zones.json", "publish"),
            // The second of them follows the first.
            file("a/layers/ws.twice.json", "publish"),
            file("b/layers/ws.twice.json", "publish"),
            file("a/layers/ws.plain.json", "publish"),
        ];
        let plan = plan(files, &HashMap::new(), Again::Never);
        assert!(plan.jobs.iter().filter(|job| !job.after.is_empty()).count() >= 2);
        let late: Vec<_> =
            late(&plan.jobs).into_iter().map(|(job, table)| (&*plan.jobs[job].file.stem, table)).collect();
        assert_eq!(late, [("ws.zones", table("zones"))]);
    }
}
