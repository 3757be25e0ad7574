//! The settings in force, and how edited ones take their place.

use std::path::PathBuf;
use std::sync::Arc;

use super::watch::files_print;
use crate::config::{FilterSource, Loaded, Settings};
use crate::error::{Error, ErrorKind, Result};

/// Reads and checks the settings.
pub type Load = Box<dyn Fn() -> Result<Loaded> + Send + Sync>;

/// What looking at the files of settings came to.
#[derive(Debug)]
pub(super) enum Look {
    /// They say what they said before.
    Same,
    /// They say something else, which is in force now; what the operator should know of it.
    New(Vec<String>),
    /// They say something that cannot be; what was in force stays so.
    Refused(Error),
}

/// The settings in force.
pub(super) struct InForce {
    settings: Arc<Settings>,
    load: Load,
    env_files: Vec<PathBuf>,
    /// Of the files when they were last read.
    print: u64,
}

impl InForce {
    /// Begins with `settings`, which were read from the first of `env_files` that is there.
    ///
    /// # Errors
    ///
    /// When a filter cannot be read or does not compile.
    pub(super) fn begin(mut settings: Settings, env_files: Vec<PathBuf>, load: Load) -> Result<Self> {
        let print = files_print(&files(&env_files, &settings));
        crate::wire::read_filters(&mut settings)?;
        Ok(Self { settings: Arc::new(settings), load, env_files, print })
    }

    pub(super) fn get(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The files that they come from.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        files(&self.env_files, &self.settings)
    }

    /// Looks whether the files say something else than before; `anyway`, reads them in any case.
    pub(super) fn look(&mut self, anyway: bool) -> Look {
        // Before they are read: what is written meanwhile is then seen the next time.
        let print = files_print(&self.files());
        let is_same = print == self.print;
        if is_same && !anyway {
            return Look::Same;
        }
        self.print = print;
        match self.read() {
            Ok((settings, warnings)) => {
                self.settings = Arc::new(settings);
                // They may name other files of filters.
                self.print = files_print(&self.files());
                if is_same { Look::Same } else { Look::New(warnings) }
            }
            Err(error) => Look::Refused(error),
        }
    }

    fn read(&self) -> Result<(Settings, Vec<String>)> {
        let Loaded { mut settings, warnings, .. } = (self.load)()?;
        let old = &self.settings;
        for (name, stays) in [
            ("STATE_REPOSITORY_ROOT", settings.state_repository_root == old.state_repository_root),
            ("SYNC_STATUS_PATH", settings.sync_status_path == old.sync_status_path),
        ] {
            if !stays {
                return Err(Error::new(ErrorKind::Settings, "cannot change while the daemon runs")
                    .subject(name)
                    .hint("restart the daemon"));
            }
        }
        crate::wire::read_filters(&mut settings)?;
        Ok((settings, warnings))
    }
}

fn files(env_files: &[PathBuf], settings: &Settings) -> Vec<PathBuf> {
    let filters = &settings.filters;
    let mut files = env_files.to_vec();
    for source in [&filters.feature, &filters.wms, &filters.layergroup].into_iter().flatten() {
        if let FilterSource::File(path) | FilterSource::Read { path, .. } = source {
            files.push(path.clone());
        }
    }
    files
}
