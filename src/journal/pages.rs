//! Jobs a page at a time, for readers who look at thousands of them.

use std::collections::HashMap;

use rusqlite::params;

use super::jobs::{JobRecord, State, job_record};
use super::{Journal, steps};
use crate::error::Result;

/// Which jobs to list, and how many of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page<'a> {
    /// In one of these states; in any when empty.
    pub states: &'a [State],
    /// Whose file or message holds this text, ASCII letters of either case; all when empty.
    pub search: &'a str,
    /// What comes first.
    pub order: Order,
    /// How many to leave out at the beginning.
    pub skip: u64,
    /// How many to list at most.
    pub most: u32,
}

impl Page<'_> {
    /// The states as a list in JSON; nothing for any.
    fn words(&self) -> Option<String> {
        let words: Vec<&str> = self.states.iter().map(|state| state.as_str()).collect();
        (!words.is_empty()).then(|| serde_json::Value::from(words).to_string())
    }
}

/// The order of a list of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// What has changed last comes first.
    #[default]
    Newest,
    /// By file.
    File,
}

/// A page of jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listed {
    /// The jobs of the page.
    pub jobs: Vec<JobRecord>,
    /// How many there are on all pages.
    pub found: u64,
}

impl Journal {
    /// A page of jobs, with their steps. As in [`Journal::jobs`], a job that is recorded as running although no
    /// run is going on counts as interrupted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn page(&self, page: &Page<'_>) -> Result<Listed> {
        let (states, is_dead) = (page.words(), self.is_run_dead()?);
        let newest = page.order == Order::Newest;
        let skip = i64::try_from(page.skip).unwrap_or(i64::MAX);
        self.read(|transaction| {
            let found: i64 = transaction
                .prepare(include_str!("sql/count-page.sql"))?
                .query_row(params![is_dead, states, page.search], |row| row.get(0))?;
            let mut statement = transaction.prepare(include_str!("sql/select-page.sql"))?;
            let values = params![is_dead, states, page.search, newest, page.most, skip];
            let jobs: Vec<(i64, JobRecord)> =
                statement.query_map(values, |row| Ok((row.get(0)?, job_record(row)?)))?.collect::<Result<_, _>>()?;
            let mut steps = steps::by_job(transaction, jobs.iter().map(|(id, _)| *id))?;
            let with_steps = jobs.into_iter().map(|(id, mut job)| {
                job.steps = steps.remove(&id).unwrap_or_default();
                job
            });
            Ok(Listed { jobs: with_steps.collect(), found: found.unsigned_abs() })
        })
    }

    /// Whether jobs are recorded as running that nobody runs. Where none is, the run lock is left alone.
    fn is_run_dead(&self) -> Result<bool> {
        let runs = self.read(|transaction| {
            transaction.query_row("select exists (select 1 from job where state = 'running')", [], |row| row.get(0))
        });
        Ok(runs? && !self.is_run_alive())
    }

    /// The files of all jobs that `page` is one of, by name.
    ///
    /// # Errors
    ///
    /// As [`Journal::page`].
    pub fn files(&self, page: &Page<'_>) -> Result<Vec<String>> {
        let (states, is_dead) = (page.words(), self.is_run_dead()?);
        self.read(|transaction| {
            let mut statement = transaction.prepare(include_str!("sql/select-files.sql"))?;
            statement.query_map(params![is_dead, states, page.search], |row| row.get(0))?.collect()
        })
    }

    /// How many jobs stand in each state; states that no job is in are left out.
    ///
    /// # Errors
    ///
    /// As [`Journal::page`].
    pub fn counts(&self) -> Result<HashMap<State, u64>> {
        let is_dead = self.is_run_dead()?;
        self.read(|transaction| {
            let mut statement = transaction.prepare(
                "select iif(state = 'running' and ?1, 'interrupted', state) as shown, count(*) from job group by shown",
            )?;
            statement.query_map([is_dead], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{JobOutcome, NewJob};

    fn journal() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        for number in 0..25 {
            let job_file = format!("geoserver/layers/Cadastre.l{number:02}.json");
            journal.begin_job(&NewJob::of_file(&job_file)).unwrap();
            let state = if number % 5 == 0 { State::Failed } else { State::Succeeded };
            let message = (number == 7).then(|| "the preview is missing".to_owned());
            if number < 24 {
                journal.finish_job(&job_file, &JobOutcome { message, ..JobOutcome::plain(state) }).unwrap();
            }
        }
        (dir, journal)
    }

    fn names(listed: &Listed) -> Vec<&str> {
        listed.jobs.iter().map(|job| &job.job_file["geoserver/layers/Cadastre.".len()..]).collect()
    }

    #[test]
    fn pages_follow_each_other_and_know_how_many_there_are() {
        let (_dir, journal) = journal();
        let page = |skip, order| journal.page(&Page { skip, most: 10, order, ..Page::default() }).unwrap();
        let pages = [0, 10, 20, 30].map(|skip| page(skip, Order::File));
        assert!(pages.iter().all(|page| page.found == 25));
        assert_eq!(pages.iter().map(|page| page.jobs.len()).collect::<Vec<_>>(), [10, 10, 5, 0]);
        assert_eq!(names(&pages[2]), ["l20.json", "l21.json", "l22.json", "l23.json", "l24.json"]);
        assert_eq!(names(&page(0, Order::Newest))[..2], ["l24.json", "l23.json"]);
    }

    #[test]
    fn states_and_texts_choose_among_them() {
        let (dir, journal) = journal();
        let find = |journal: &Journal, states: &[State], search| {
            let listed =
                journal.page(&Page { states, search, most: 3, order: Order::File, ..Page::default() }).unwrap();
            (listed.found, names(&listed).join(" "))
        };
        assert_eq!(find(&journal, &[State::Failed], ""), (5, "l00.json l05.json l10.json".into()));
        assert_eq!(find(&journal, &[], "cadastre.L1"), (10, "l10.json l11.json l12.json".into()));
        assert_eq!(find(&journal, &[], "Missing"), (1, "l07.json".into()));
        let files = journal.files(&Page { search: "L1", ..Page::default() }).unwrap();
        assert_eq!((files.len(), files[9].as_str()), (10, "geoserver/layers/Cadastre.l19.json"));
        for search in ["%", "_", "'", "\"", "\\"] {
            assert_eq!(find(&journal, &[], search).0, 0, "{search} stands for itself");
        }
        assert_eq!(find(&journal, &[State::Running], "").0, 1);
        // Nobody runs, so a reader knows better.
        let reader = Journal::open_read_only(dir.path()).unwrap().unwrap();
        assert_eq!(find(&reader, &[State::Running], "").0, 0);
        assert_eq!(find(&reader, &[State::Interrupted], "").0, 1);
        let counts = reader.counts().unwrap();
        let count = |state| counts.get(&state).copied().unwrap_or_default();
        assert_eq!([State::Failed, State::Succeeded, State::Interrupted, State::Running].map(count), [5, 19, 1, 0]);
    }
}
