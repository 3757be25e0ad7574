//! Completions and manual pages, made from the definition of the command line.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, exit, print};
use crate::error::{Context, ErrorKind, Result, io_error};

/// Prints the completions of `shell`.
pub(super) fn completions(shell: Shell) -> Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "borg-slave", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(exit::APPLIED)
}

/// Prints the program's manual page, or writes those of all commands into `dir`.
pub(super) fn manpage(dir: Option<&Path>) -> Result<u8> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut text)
            .context(ErrorKind::Bug, "the manual page cannot be written")?;
        print(&String::from_utf8_lossy(&text))?;
        return Ok(exit::APPLIED);
    };
    std::fs::create_dir_all(dir).map_err(|source| io_error(dir, "cannot make the directory", source))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|source| io_error(dir, "cannot write the manual pages", source))?;
    Ok(exit::APPLIED)
}
