//! From the outbox into the master's tables.
//!
//! Reports go in batches, each in one transaction that begins with a lock of this slave's own. What is
//! sent is read from the outbox under that lock: of two processes that deliver at once, the later one
//! cannot send anything older.

use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio_postgres::{Statement, Transaction};

use super::Master;
use super::payload::{Payload, STATEMENTS, Value};
use super::tables::{SLAVE, Widths, inspect};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, Report};
use crate::postgres::{Advice, Session};

/// How many reports share a transaction.
const BATCH: u32 = 100;

/// How long the master may take over one batch, or over telling about its tables.
const BATCH_LIMIT: Duration = Duration::from_secs(30);

/// The first key of the lock: "borg" in ASCII, so that other users of advisory locks are not met.
const LOCK_KEY: i32 = 0x626f_7267;

const WHAT: &str = "cannot write reports";

/// How the names of the settings begin, in advice.
const VARIABLES: &str = "MASTER_PGSQL";

/// What a delivery came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// How many reports the master has now.
    pub sent: u64,
    /// Subjects and reasons of reports that the master does not take.
    pub refused: Vec<(String, String)>,
}

/// Delivers everything that waits, and notes in the journal when that does not work.
///
/// # Errors
///
/// [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`] when the master cannot be told anything,
/// [`ErrorKind::Unsupported`] when its tables are others, and as the journal's methods.
pub async fn deliver(master: &Master, journal: &Journal) -> Result<Delivered> {
    let outcome = Delivery::new(master, journal).all(|| {}).await;
    if let Err(error) = &outcome {
        journal.reports_failed(&error.one_line())?;
    }
    outcome
}

/// Looks whether reports could be delivered, and tells in words what is there.
///
/// # Errors
///
/// As [`deliver`].
pub async fn check(master: &Master) -> Result<String> {
    let mut line = Line::open(master).await?;
    let advice = line.session.advice();
    let known = async {
        let transaction = line.session.client().transaction().await?;
        let known = find(&transaction, master, &line.name).await?;
        transaction.rollback().await?;
        Ok(known)
    };
    let known = in_time(known, master, advice).await?;
    let slave = match known {
        Some(_) => "is registered",
        None => "will be registered with the first report",
    };
    Ok(format!("{} has the tables of the monitor, the rights suffice, {} {slave}", master.options.place(), line.name))
}

/// A delivery that keeps its connection.
pub(super) struct Delivery<'a> {
    master: &'a Master,
    journal: &'a Journal,
    line: Option<Line>,
}

/// A connection to a master whose tables are known.
struct Line {
    session: Session,
    widths: Widths,
    /// The slave's name as the master's table can hold it.
    name: String,
    statements: Vec<Statement>,
}

impl Line {
    async fn open(master: &Master) -> Result<Self> {
        let mut session = Session::connect(&master.options, VARIABLES).await?;
        let advice = session.advice();
        let widths = match tokio::time::timeout(BATCH_LIMIT, inspect(&mut session, master)).await {
            Ok(widths) => widths?,
            Err(_) => return Err(silent(master)),
        };
        let name = widths.fit(SLAVE, "name", &master.slave_name);
        let client = session.client();
        let statements = async {
            let mut statements = Vec::new();
            for text in STATEMENTS {
                statements.push(client.prepare(&text.replace("{schema}", &master.schema.quoted())).await?);
            }
            Ok(statements)
        };
        let statements = in_time(statements, master, advice).await?;
        Ok(Self { session, widths, name, statements })
    }
}

/// Why a batch could not be delivered.
enum Trouble {
    Driver(tokio_postgres::Error),
    Ours(Error),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// What became of one batch.
#[derive(Default)]
struct Batch {
    /// The number of its last report; nothing when there was none.
    last: Option<i64>,
    sent: Vec<i64>,
    refused: Vec<(Report, String)>,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(master: &'a Master, journal: &'a Journal) -> Self {
        Self { master, journal, line: None }
    }

    /// Delivers everything that waits; `progress` is called after each batch.
    pub(super) async fn all(&mut self, progress: impl Fn()) -> Result<Delivered> {
        let mut delivered = Delivered::default();
        let mut after = 0;
        // Nobody is called when there is nothing to say.
        while !self.journal.reports(after, 1)?.is_empty() {
            // A connection that has met an error is not used again.
            let mut line = match self.line.take() {
                Some(line) => line,
                None => Line::open(self.master).await?,
            };
            let advice = line.session.advice();
            let work = batch(&mut line, self.master, self.journal, after);
            let batch = match tokio::time::timeout(BATCH_LIMIT, work).await {
                Ok(Ok(batch)) => batch,
                Ok(Err(Trouble::Driver(error))) => {
                    return Err(advice.failed(error, WHAT, &self.master.options.place()));
                }
                Ok(Err(Trouble::Ours(error))) => return Err(error),
                Err(_) => return Err(silent(self.master)),
            };
            self.line = Some(line);
            let refused: Vec<_> = batch.refused.iter().map(|(report, reason)| (report.id, reason.clone())).collect();
            self.journal.settle_reports(&batch.sent, &refused)?;
            delivered.sent += batch.sent.len() as u64;
            delivered.refused.extend(batch.refused.into_iter().map(|(report, reason)| (report.subject, reason)));
            progress();
            match batch.last {
                Some(last) => after = last,
                None => break,
            }
        }
        Ok(delivered)
    }
}

/// Sends the reports after number `after` in one transaction; where the master refuses one of them, the
/// others once more without it.
async fn batch(line: &mut Line, master: &Master, journal: &Journal, after: i64) -> Result<Batch, Trouble> {
    let Line { session, widths, name, statements } = line;
    let mut transaction = session.client().transaction().await?;
    transaction.execute("select pg_advisory_xact_lock($1, hashtext($2))", &[&LOCK_KEY, &*name]).await?;
    let reports = journal.reports(after, BATCH)?;
    let slave = match find(&transaction, master, name).await? {
        Some(slave) => slave,
        None => register(&transaction, master, name, widths).await?,
    };
    let mut batch = Batch { last: reports.last().map(|report| report.id), ..Batch::default() };
    let mut told = Vec::new();
    for report in reports {
        match Payload::read(&report.payload) {
            Ok(payload) => {
                let (statement, values) = payload.statement(slave, widths);
                told.push((report, &statements[statement], values));
            }
            Err(error) => batch.refused.push((report, error.one_line())),
        }
    }
    // All at once; only when one is refused, one after the other.
    let savepoint = transaction.savepoint("together").await?;
    let together = try_join_all(told.iter().map(|(_, statement, values)| tell(&savepoint, statement, values)));
    match together.await {
        Ok(_) => {
            savepoint.commit().await?;
            batch.sent = told.into_iter().map(|(report, ..)| report.id).collect();
        }
        Err(error) if is_refusal(&error) => {
            savepoint.rollback().await?;
            for (report, statement, values) in told {
                let savepoint = transaction.savepoint("alone").await?;
                match tell(&savepoint, statement, &values).await {
                    Ok(_) => {
                        savepoint.commit().await?;
                        batch.sent.push(report.id);
                    }
                    Err(error) if is_refusal(&error) => {
                        savepoint.rollback().await?;
                        batch.refused.push((report, crate::error::root_cause(&error)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(error) => return Err(error.into()),
    }
    transaction.commit().await?;
    Ok(batch)
}

async fn tell(
    transaction: &Transaction<'_>,
    statement: &Statement,
    values: &[Value],
) -> Result<u64, tokio_postgres::Error> {
    transaction
        .execute_raw(statement, values.iter().map(|value| &**value as &(dyn tokio_postgres::types::ToSql + Sync)))
        .await
}

/// The slave's row. The master's table lets several rows have one name: then the first.
async fn find(
    transaction: &Transaction<'_>,
    master: &Master,
    name: &str,
) -> Result<Option<i64>, tokio_postgres::Error> {
    let sql =
        format!("select min(id)::bigint from {}.monitor_slaveserver where name = $1::text", master.schema.quoted());
    Ok(transaction.query_one(&sql, &[&name]).await?.get(0))
}

async fn register(
    transaction: &Transaction<'_>,
    master: &Master,
    name: &str,
    widths: &Widths,
) -> Result<i64, tokio_postgres::Error> {
    let sql = include_str!("sql/register.sql").replace("{schema}", &master.schema.quoted());
    let channels = widths.fit(SLAVE, "listen_channels", &master.channels);
    let version = widths.fit(SLAVE, "code_version", &master.code_version);
    Ok(transaction.query_one(&sql, &[&name, &channels, &Timestamp::now(), &version]).await?.get(0))
}

/// Whether the master refuses this very row: its values, a constraint, a trigger. What else goes wrong
/// goes wrong with every row.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["22", "23", "44", "P0"].iter().any(|class| code.code().starts_with(class)))
}

async fn in_time<T>(
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    master: &Master,
    advice: Advice,
) -> Result<T> {
    match tokio::time::timeout(BATCH_LIMIT, work).await {
        Ok(done) => done.map_err(|error| advice.failed(error, WHAT, &master.options.place())),
        Err(_) => Err(silent(master)),
    }
}

/// A master that has stopped answering.
pub(super) fn silent(master: &Master) -> Error {
    Error::new(ErrorKind::Unreachable, "the master's database does not answer")
        .subject(master.options.place())
        .hint("look whether it is overloaded or locked (pg_stat_activity); the reports are kept")
}
