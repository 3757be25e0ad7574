//! Making jobs run again, or unknown.

use jiff::Timestamp;

use super::jobs::json_list;
use super::{Durability, Journal, Moment};
use crate::error::Result;

/// Which jobs to forget.
#[derive(Debug, Clone, Copy)]
pub enum Forget<'a> {
    /// These files.
    Files(&'a [String]),
    /// All that failed or were interrupted.
    Failed,
}

/// What forgetting came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Files that will run again.
    pub forgotten: Vec<String>,
    /// Files that nothing was known of.
    pub unknown: Vec<String>,
}

impl Journal {
    /// Drops all that is known of these job files, as if they had never been there. Durable when there was something.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) or [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) when the journal cannot be written.
    pub fn drop_jobs(&self, files: &[String]) -> Result<()> {
        let list = json_list(files);
        let query = "select exists (select 1 from job where job_file in (select value from json_each(?1)))";
        if files.is_empty()
            || !self.read(|transaction| transaction.query_row(query, [&list], |row| row.get::<_, bool>(0)))?
        {
            return Ok(());
        }
        self.write(Durability::PowerLoss, |transaction| {
            // Their steps go with them.
            transaction.execute("delete from job where job_file in (select value from json_each(?1))", [&list])
        })
        .map(drop)
    }

    /// Job files of which only a removal, or an auxiliary job, is known that ended before `before`, and before
    /// the cursor was last moved. Where the file is gone, nothing needs this any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) when the journal cannot be read.
    pub fn past_jobs(&self, before: Timestamp) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut past = transaction.prepare(include_str!("sql/past-jobs.sql"))?;
            past.query_map([Moment(before)], |row| row.get(0))?.collect()
        })
    }

    /// Makes jobs run again: their outcomes and steps are dropped. The file stays known as
    /// [`State::Forgotten`](super::State::Forgotten), since the cursor may have passed its revision, and what is deployed stays
    /// noted. Durable. The caller should hold the run lock: a job that is just running would be
    /// recorded again when it ends.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) or [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) when the journal cannot be written.
    pub fn forget(&self, what: Forget<'_>) -> Result<Forgotten> {
        self.write(Durability::PowerLoss, |transaction| {
            let (forgotten, unknown) = match what {
                Forget::Files(files) => {
                    let mut find = transaction.prepare("select 1 from job where job_file = ?1")?;
                    let mut known = Vec::new();
                    let mut unknown = Vec::new();
                    for file in files {
                        if find.exists([file])? {
                            known.push(file.clone());
                        } else {
                            unknown.push(file.clone());
                        }
                    }
                    (known, unknown)
                }
                Forget::Failed => {
                    let mut failed = transaction.prepare(
                        "select job_file from job where state in ('failed', 'interrupted') order by job_file",
                    )?;
                    let known = failed.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
                    (known, Vec::new())
                }
            };
            let list = json_list(&forgotten);
            transaction.execute(
                "delete from step where job in (select id from job where job_file in (select value from json_each(?1)))",
                [&list],
            )?;
            transaction.execute(include_str!("sql/forget-jobs.sql"), [&list])?;
            Ok(Forgotten { forgotten, unknown })
        })
    }
}
