//! `poll`: the daemon, or one round of it.

use std::time::Duration;

use super::args::PollArgs;
use super::{Session, exit, progress};
use crate::config::{self, ProcessEnv};
use crate::daemon::{self, Once, Options, RETRY_PAUSES};
use crate::error::{ErrorKind, Result};

pub(super) async fn run(session: &Session, args: &PollArgs) -> Result<u8> {
    if args.can_start {
        crate::wire::read_filters(&mut session.settings.clone())?;
        return Ok(exit::APPLIED);
    }
    let options = options(session, args);
    if args.once {
        return match daemon::once(options).await {
            Ok(Once::Applied) => Ok(exit::APPLIED),
            Ok(Once::Failed) => Ok(exit::FAILED),
            Err(error) if error.kind() == ErrorKind::Busy && session.global.no_wait => {
                super::complain(&error);
                Ok(exit::LOCKED)
            }
            Err(error) => Err(error),
        };
    }
    match daemon::run(options).await {
        Ok(()) => Ok(exit::APPLIED),
        Err(error) if error.kind() == ErrorKind::Busy => {
            super::complain(&error);
            Ok(exit::LOCKED)
        }
        Err(error) => Err(error),
    }
}

fn options(session: &Session, args: &PollArgs) -> Options {
    let place = session.place.clone();
    let named = place.clone();
    let pauses = match args.retry_pauses.as_slice() {
        [] => RETRY_PAUSES.into(),
        given => given.iter().copied().map(Duration::from_millis).collect(),
    };
    let look = progress::Look::of(session);
    let (level, verbose) = (session.level.clone(), session.global.verbose);
    Options {
        settings: session.settings.clone(),
        env_files: place.env_files(&session.settings.state_repository_root),
        load: Box::new(move || config::load(&ProcessEnv, &place)),
        filter_files: Box::new(move || config::filter_files(&ProcessEnv, &named)),
        in_force: Box::new(move |settings| level.set(settings.debug || verbose)),
        watcher: Box::new(move || progress::quiet_watcher(&look)),
        interval: args.interval.map(Duration::from_secs),
        pauses,
        waits: !session.global.no_wait,
        stop: session.stop.clone(),
    }
}
