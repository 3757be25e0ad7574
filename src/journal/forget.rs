//! Making jobs run again, or unknown.

use super::jobs::json_list;
use super::{Durability, Journal};
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
