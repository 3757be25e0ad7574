//! The settings in force, and how edited ones take their place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::watch::files_print;
use crate::config::{FilterSource, Loaded, Settings};
use crate::error::{Error, ErrorKind, Result};

/// Reads and checks the settings.
pub type Load = Box<dyn Fn() -> Result<Loaded> + Send + Sync>;

/// Names files of filters.
pub type Named = Box<dyn Fn() -> Vec<PathBuf> + Send + Sync>;

/// How long the files must say the same before that comes into force: who edits them may write in several steps.
const QUIET: Duration = Duration::from_millis(300);

/// How long a round waits for whoever is just writing the settings.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// What looking at the files of settings came to.
#[derive(Debug)]
pub(super) enum Look {
    /// They say what they said before.
    Same,
    /// They have just changed, and may do so again: see [`InForce::look_again_at`].
    Unsettled,
    /// They say something that was not in force, and is now; what the operator should know of it.
    New(Vec<String>),
    /// They say something that cannot be; what was in force stays so.
    Refused {
        error: Error,
        /// They say something else than when they were refused before.
        is_new: bool,
    },
}

/// The settings in force.
pub(super) struct InForce {
    settings: Arc<Settings>,
    load: Load,
    /// The files of filters that the files of settings name, even if these are refused.
    named: Named,
    env_files: Vec<PathBuf>,
    /// Of the files when they were last read.
    print: u64,
    /// What was read last is refused: the files of filters that it names.
    refused: Option<Vec<PathBuf>>,
    /// Another print than `print`, and since when it is that.
    changing: Option<(u64, Instant)>,
}

impl InForce {
    /// Begins with `settings`, which were read from the first of `env_files` that is there.
    ///
    /// # Errors
    ///
    /// When a filter cannot be read or does not compile.
    pub(super) fn begin(mut settings: Settings, env_files: Vec<PathBuf>, load: Load, named: Named) -> Result<Self> {
        let print = files_print(&files(&env_files, &settings, &[]));
        crate::wire::read_filters(&mut settings)?;
        Ok(Self { settings: Arc::new(settings), load, named, env_files, print, refused: None, changing: None })
    }

    pub(super) fn get(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The files that they come from, and those that come in once what was refused is mended.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        files(&self.env_files, &self.settings, self.refused.as_deref().unwrap_or_default())
    }

    /// When it is to be looked again whether the files have settled; `None` while they have.
    pub(super) fn look_again_at(&self) -> Option<Instant> {
        self.changing.map(|(_, since)| since + QUIET)
    }

    /// Looks whether the files say something else than before; `anyway`, reads them in any case. What was refused is
    /// read again each time: the cause may be outside the files.
    pub(super) fn look(&mut self, anyway: bool, now: Instant) -> Look {
        let files = self.files();
        let print = files_print(&files);
        let is_new = print != self.print;
        if is_new {
            let (seen, since) = *self.changing.get_or_insert((print, now));
            if seen != print || now.duration_since(since) < QUIET {
                self.changing = Some((print, if seen == print { since } else { now }));
                return Look::Unsettled;
            }
        } else if !anyway && self.refused.is_none() {
            self.changing = None;
            return Look::Same;
        }
        let outcome = self.read();
        // What is written while it is read may have been read in part.
        let after = files_print(&files);
        if after != print {
            self.changing = Some((after, now));
            return Look::Unsettled;
        }
        self.changing = None;
        let (refused, look) = match outcome {
            Ok((settings, warnings)) => {
                self.settings = Arc::new(settings);
                (None, if is_new || self.refused.is_some() { Look::New(warnings) } else { Look::Same })
            }
            Err(error) => (Some((self.named)()), Look::Refused { error, is_new }),
        };
        self.refused = refused;
        // Other settings may name other files of filters.
        let files_now = self.files();
        self.print = if files_now == files { print } else { files_print(&files_now) };
        look
    }

    /// Looks, and waits a moment for whoever is just writing.
    pub(super) async fn look_calmly(&mut self, anyway: bool, stop: &CancellationToken) -> Look {
        let until = Instant::now() + LONGEST_WAIT;
        loop {
            let look = self.look(anyway, Instant::now());
            let Some(again) = self.look_again_at().filter(|again| *again <= until) else { return look };
            tokio::select! {
                () = stop.cancelled() => return look,
                () = sleep_until(again) => {}
            }
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

/// Each once.
fn files(env_files: &[PathBuf], settings: &Settings, refused: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = env_files.to_vec();
    let filters = &settings.filters;
    let in_force = [&filters.feature, &filters.wms, &filters.layergroup].into_iter().flatten();
    let in_force = in_force.filter_map(|source| match source {
        FilterSource::File(path) | FilterSource::Read { path, .. } => Some(path),
        FilterSource::Expression(_) => None,
    });
    for file in in_force.chain(refused) {
        if !files.contains(file) {
            files.push(file.clone());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::{self, Place};

    /// Settings of a clone in `dir`, as a daemon begins with them.
    fn begin(dir: &Path) -> InForce {
        std::fs::create_dir_all(dir.join(".hg")).unwrap();
        let env = BTreeMap::from([("SLAVE_NAME".to_owned(), "slave".to_owned())]);
        let place = Place { env_file: None, working_directory: dir.to_owned() };
        let files = place.env_files(dir);
        let settings = config::load(&env, &place).unwrap_or_else(|error| panic!("{}", error.paragraph())).settings;
        let (env_too, place_too) = (env.clone(), place.clone());
        let named = move || config::filter_files(&env_too, &place_too);
        InForce::begin(settings, files, Box::new(move || config::load(&env, &place)), Box::new(named)).unwrap()
    }

    /// Looks twice, so that what was written before has settled.
    fn look(in_force: &mut InForce, anyway: bool) -> String {
        let now = Instant::now();
        let look = match in_force.look(anyway, now) {
            Look::Unsettled => in_force.look(anyway, now + QUIET),
            look => look,
        };
        match look {
            Look::Same => "same".into(),
            Look::Unsettled => "unsettled".into(),
            Look::New(_) => "new".into(),
            Look::Refused { error, is_new } => format!("refused, {is_new}: {}", error.one_line()),
        }
    }

    #[test]
    fn what_was_refused_comes_into_force_when_its_cause_is_gone_wherever_that_was() {
        for asked in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let env = dir.path().join(".env");
            std::fs::write(&env, "").unwrap();
            let mut in_force = begin(dir.path());
            assert_eq!(look(&mut in_force, asked), "same");
            // The file of a filter is not there yet, then it does not compile.
            std::fs::write(&env, "FEATURE_FILTER=filters/new.rhai\n").unwrap();
            let said = look(&mut in_force, asked);
            assert!(said.starts_with("refused, true") && said.contains("there is no file"), "{said}");
            assert!(look(&mut in_force, asked).starts_with("refused, false"));
            let file = dir.path().join("filters/new.rhai");
            assert!(in_force.files().contains(&file), "{:?}", in_force.files());
            std::fs::create_dir(dir.path().join("filters")).unwrap();
            std::fs::write(&file, "job.name ==").unwrap();
            let said = look(&mut in_force, asked);
            assert!(said.starts_with("refused, true") && !said.contains("there is no file"), "{said}");
            std::fs::write(&file, "true").unwrap();
            assert_eq!(look(&mut in_force, asked), "new");
            assert_eq!(look(&mut in_force, asked), "same");
            // Nothing that is listened to tells of this one.
            std::fs::rename(dir.path().join(".hg"), dir.path().join("away")).unwrap();
            std::fs::write(&env, "FEATURE_FILTER=\"true\"\n").unwrap();
            assert!(look(&mut in_force, asked).starts_with("refused, true"));
            std::fs::rename(dir.path().join("away"), dir.path().join(".hg")).unwrap();
            assert_eq!(look(&mut in_force, asked), "new");
            assert_eq!(look(&mut in_force, asked), "same");
        }
    }

    #[test]
    fn what_is_just_being_written_is_not_read_before_it_rests() {
        let dir = tempfile::tempdir().unwrap();
        let env = dir.path().join(".env");
        let mut in_force = begin(dir.path());
        let begun = Instant::now();
        let mut look = |after_ms, asked| {
            let now = begun + Duration::from_millis(after_ms);
            match in_force.look(asked, now) {
                Look::Unsettled => format!("again in {} ms", (in_force.look_again_at().unwrap() - now).as_millis()),
                Look::New(_) => format!("poll interval {:?}", in_force.get().poll_interval),
                other => format!("{other:?}"),
            }
        };
        std::fs::write(&env, "POLL_INTERVAL=7").unwrap();
        assert_eq!(look(0, false), "again in 300 ms");
        // Also for whoever asks.
        assert_eq!(look(100, true), "again in 200 ms");
        std::fs::write(&env, "POLL_INTERVAL=70").unwrap();
        assert_eq!(look(300, true), "again in 300 ms");
        assert_eq!(look(599, false), "again in 1 ms");
        assert_eq!(look(600, false), "poll interval 70s");
        // What is taken back before it rests was nothing.
        std::fs::write(&env, "POLL_INTERVAL=8").unwrap();
        assert_eq!(look(700, false), "again in 300 ms");
        std::fs::write(&env, "POLL_INTERVAL=70").unwrap();
        assert_eq!(look(1000, false), "Same");
        std::fs::write(&env, "POLL_INTERVAL=8").unwrap();
        assert_eq!(look(1100, false), "again in 300 ms");
    }
}
