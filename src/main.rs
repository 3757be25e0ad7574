//! The doorbell: turns what the library returns into an exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(borg_slave::cli::run())
}
