//! The command line, as clap sees it; shell completions and the man page come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::telemetry::LogFormat;

/// Keeps a PostGIS database and GeoServers identical to what a state repository says.
#[derive(Debug, Parser)]
#[command(
    name = "borg-slave",
    version = env!("BORG_SLAVE_VERSION"),
    propagate_version = true,
    after_help = "Exit status:\n  0    everything is applied\n  1    some job failed, or the CDN could not be purged; listed last\n  2    wrong usage or settings\n  3    another run holds the lock, and --no-wait was given\n  130  stopped by Ctrl-C, 143 by TERM, after the running steps reached a safe point"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// File with settings that the environment does not give [default: .env of the clone]
    #[arg(long, global = true, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, global = true, value_enum, default_value = "plain")]
    pub log_format: LogFormat,
    /// Log every step and request (as DEBUG=true does)
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Give up with exit status 3 when another run works on this clone, instead of waiting for it
    #[arg(long, global = true)]
    pub no_wait: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs as a hook of the clone; Mercurial or Git calls it
    #[command(
        after_help = "Examples:\n  in .hg/hgrc:       [hooks]\n                     pretxnchangegroup.borg = borg-slave hook pretxnchangegroup\n                     precommit.borg = borg-slave hook deny\n  in .git/hooks:     exec borg-slave hook post-merge"
    )]
    Hook {
        /// Which hook calls
        #[arg(value_enum)]
        hook: HookName,
        /// What Git passes to the hook
        #[arg(hide = true)]
        rest: Vec<String>,
    },
    /// Follows the master for ever: pulls, applies, sleeps
    #[command(
        after_help = "Signals: USR1 polls now, HUP reads the settings again, TERM and Ctrl-C end it at a safe point.\n\nExamples:\n  borg-slave poll                      as a service; see systemd/ and supervisor/\n  borg-slave poll --once               one round, from cron\n  borg-slave poll --interval 300       every five minutes, whatever POLL_INTERVAL says"
    )]
    Poll(PollArgs),
    /// Applies what has changed since the last run
    #[command(
        after_help = "Examples:\n  borg-slave sync                      everything since what was last applied\n  borg-slave sync --dry-run            only say what would be done\n  borg-slave sync --retry-failed       the failed jobs again, and what is new\n  borg-slave sync --from null          everything in the repository that is not applied yet\n  borg-slave sync --file geoserver/layers/cadastre.roads.json"
    )]
    Sync(SyncArgs),
    /// Shows what is known of each job
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  borg-slave status                    all jobs and how they ended\n  borg-slave status --failed           what failed, and why\n  borg-slave status geoserver/layers/cadastre.roads.json\n  borg-slave status forget --failed    make the failed jobs run afresh"
    )]
    Status(StatusArgs),
    /// Tries everything that the settings name and says what to mend
    #[command(
        after_help = "Examples:\n  borg-slave check                     a line for each thing; exit status 1 when one does not work\n  borg-slave check | grep PROBLEM -A1  only what to mend"
    )]
    Check,
    /// Shows the reports that wait for the master, or delivers them
    #[command(
        after_help = "Examples:\n  borg-slave report                    what waits, and why\n  borg-slave report --flush            delivers it now; exit status 1 when the master does not take all"
    )]
    Report(ReportArgs),
    /// Says which jobs the filters take, and why not
    #[command(
        after_help = "Examples:\n  borg-slave filter                    every job file of the tip\n  borg-slave filter geoserver/layers/cadastre.roads.json\n  FEATURE_FILTER='job.auth_level < 2' borg-slave filter    tries another filter"
    )]
    Filter {
        /// Job files, as paths in the repository [default: all of the tip]
        #[arg(value_name = "JOB_FILE")]
        job_files: Vec<String>,
    },
    /// Takes over the status folder of the Python slave, so that its layers are not done again
    #[command(
        after_help = "Examples:\n  borg-slave import-status code/.sync_status --dry-run   says what would be known as done\n  borg-slave import-status code/.sync_status\n\nThe steps around it are in docs/migration.md."
    )]
    ImportStatus {
        /// The folder with the status files: `.sync_status` beside the Python slave's code
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Print what would be taken over, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints the completions of a shell
    #[command(
        after_help = "Examples:\n  borg-slave completions bash > /etc/bash_completion.d/borg-slave\n  borg-slave completions zsh  > /usr/share/zsh/site-functions/_borg-slave\n  borg-slave completions fish > ~/.config/fish/completions/borg-slave.fish"
    )]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Prints the manual page, or writes one for each command into a directory
    #[command(hide = true)]
    Manpage {
        /// Where borg-slave.1, borg-slave-sync.1 and so on are written
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Which hook of the VCS calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HookName {
    /// Mercurial, before a pull is made permanent: a failed job rolls it back
    Pretxnchangegroup,
    /// Git, before a push is accepted: a failed job refuses it
    PreReceive,
    /// Git, after a push was accepted
    PostReceive,
    /// Git, after a pull
    PostMerge,
    /// Mercurial's precommit: refuses local commits in a slave's clone
    Deny,
}

impl HookName {
    /// The hook's name as the VCS writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pretxnchangegroup => "pretxnchangegroup",
            Self::PreReceive => "pre-receive",
            Self::PostReceive => "post-receive",
            Self::PostMerge => "post-merge",
            Self::Deny => "deny",
        }
    }
}

/// Arguments of `poll`.
#[derive(Debug, Clone, Args)]
pub struct PollArgs {
    /// Make one round and end
    #[arg(long)]
    pub once: bool,
    /// Seconds between rounds [default: POLL_INTERVAL]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub interval: Option<u64>,
    /// Only look whether the daemon could begin: a new program is asked so before it takes the place of an old one
    #[arg(long, hide = true)]
    pub can_start: bool,
    /// Milliseconds between the tries of a failed job, the last one for ever
    #[arg(long, value_name = "MS", value_delimiter = ',', hide = true)]
    pub retry_pauses: Vec<u64>,
}

/// Arguments of `sync`.
#[derive(Debug, Clone, Args)]
pub struct SyncArgs {
    /// Apply the changes after this revision; `null` is before the first one [default: what was last applied]
    #[arg(long, value_name = "REV")]
    pub from: Option<String>,
    /// Apply the changes up to this revision [default: the tip]
    #[arg(long, value_name = "REV")]
    pub to: Option<String>,
    /// Apply only this job file of the tip, whatever is known of it
    #[arg(long = "file", value_name = "JOB_FILE", conflicts_with_all = ["from", "to", "retry_failed"])]
    pub files: Vec<String>,
    /// Try the failed jobs again as well
    #[arg(long)]
    pub retry_failed: bool,
    /// Print what would be done, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Deliver now
    #[arg(long)]
    pub flush: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// What to do instead of showing
    #[command(subcommand)]
    pub action: Option<StatusAction>,
    /// Only these job files, with every step
    #[arg(value_name = "JOB_FILE")]
    pub job_files: Vec<String>,
    /// Only jobs that failed
    #[arg(long, conflicts_with = "succeeded")]
    pub failed: bool,
    /// Only jobs that succeeded
    #[arg(long)]
    pub succeeded: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `status` can do besides showing.
#[derive(Debug, Subcommand)]
pub enum StatusAction {
    /// Forgets what is known of jobs, so that they run afresh
    #[command(
        after_help = "Examples:\n  borg-slave status forget geoserver/layers/cadastre.roads.json\n  borg-slave status forget --failed    every failed job; `borg-slave sync` then runs them"
    )]
    Forget {
        /// Job files, as paths in the repository
        #[arg(value_name = "JOB_FILE", required_unless_present = "failed")]
        job_files: Vec<String>,
        /// Forget every failed job
        #[arg(long)]
        failed: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
