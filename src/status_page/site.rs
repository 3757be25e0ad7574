//! What the pages are made of: the journal, read on threads of its own, and what the daemon tells.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::tz::TimeZone;
use tokio::sync::Semaphore;

use super::monitor::{Life, Monitor};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Backlog, Journal, RunRecord, State, Trouble};

/// How many callers read the journal at the same time.
const READERS: usize = 4;

/// The slave that the page is about.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Its name.
    pub slave_name: String,
    /// The clone of the state repository.
    pub clone: PathBuf,
    /// The channels that it takes.
    pub channels: Vec<String>,
    /// Addresses of its GeoServers, without credentials.
    pub geoservers: Vec<String>,
    /// The database that is told, when one is.
    pub master: Option<String>,
    /// Where the journal is.
    pub status_path: PathBuf,
    /// Where the pictures are.
    pub preview_path: PathBuf,
}

/// What everybody who serves a request shares.
pub(super) struct Site {
    about: RwLock<Arc<About>>,
    pub(super) monitor: Arc<Monitor>,
    readers: Arc<Semaphore>,
    pub(super) zone: TimeZone,
}

/// What the journal and the daemon say of the slave as a whole.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Overview {
    pub(super) life: Life,
    pub(super) counts: HashMap<State, u64>,
    pub(super) cursor: Option<String>,
    pub(super) backlog: Option<Backlog>,
    /// What keeps the program from being brought up to date.
    pub(super) program: Option<Trouble>,
    /// The last runs, the newest first.
    pub(super) runs: Vec<RunRecord>,
}

impl Overview {
    /// How many jobs are in `state`.
    pub(super) fn count(&self, state: State) -> u64 {
        self.counts.get(&state).copied().unwrap_or_default()
    }
}

#[cfg(test)]
impl Default for Overview {
    fn default() -> Self {
        let life = Monitor::default().life();
        Self { life, counts: HashMap::new(), cursor: None, backlog: None, program: None, runs: Vec::new() }
    }
}

/// What a request works with, on a thread where waiting for the disk keeps nobody.
pub(super) struct Reading {
    pub(super) about: Arc<About>,
    pub(super) life: Life,
    pub(super) zone: TimeZone,
    /// Nothing when no run has made a journal yet.
    pub(super) journal: Option<Journal>,
}

impl Site {
    pub(super) fn new(about: About, monitor: Arc<Monitor>) -> Self {
        Self {
            about: RwLock::new(Arc::new(about)),
            monitor,
            readers: Arc::new(Semaphore::new(READERS)),
            zone: TimeZone::system(),
        }
    }

    pub(super) fn about(&self) -> Arc<About> {
        Arc::clone(&self.about.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_about(&self, about: About) {
        *self.about.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(about);
    }

    /// Opens the journal for reading and lets `work` do it; the daemon's own connection and threads are left alone.
    ///
    /// # Errors
    ///
    /// As `work`; when the journal cannot be opened.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reading) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let crashed = |what: &str| Error::new(ErrorKind::Bug, what.to_owned());
        let turn = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| crashed("the page has ended"))?;
        let (about, life, zone) = (self.about(), self.monitor.life(), self.zone.clone());
        let reading = tokio::task::spawn_blocking(move || {
            // Whoever gives up waiting leaves the thread at work; its place is taken until it ends.
            let _turn = turn;
            let journal = Journal::open_read_only(&about.status_path)?;
            work(&Reading { about, life, zone, journal })
        });
        reading.await.map_err(|panic| crashed("a page could not be made").source(panic))?
    }
}

impl Reading {
    /// What is known as a whole, with the last `runs` runs.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub(super) fn overview(&self, runs: u32) -> Result<Overview> {
        let journal = self.journal.as_ref();
        Ok(Overview {
            life: self.life.clone(),
            counts: journal.map(Journal::counts).transpose()?.unwrap_or_default(),
            cursor: journal.map(Journal::cursor).transpose()?.flatten(),
            backlog: journal.map(Journal::backlog).transpose()?.flatten(),
            program: journal.map(Journal::program_trouble).transpose()?.flatten(),
            runs: journal.map(|journal| journal.last_runs(runs)).transpose()?.unwrap_or_default(),
        })
    }
}
