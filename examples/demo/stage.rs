//! How the demo talks: headings, prose, commands with what they print, and what was expected.

use std::io::IsTerminal as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anstream::println;
use anstyle::{AnsiColor, Style};

const HEADING: Style = AnsiColor::Cyan.on_default().bold();
const PROMPT: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();

/// How a command ended, and what it printed when that was not shown directly.
pub(crate) struct Shown {
    pub(crate) succeeded: bool,
}

/// The narrator; counts what was not as expected.
pub(crate) struct Stage {
    scenes: usize,
    held: usize,
    broken: Vec<String>,
    began: Instant,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { scenes: 0, held: 0, broken: Vec::new(), began: Instant::now() }
    }

    /// Begins a new part.
    pub(crate) fn scene(&mut self, title: &str) {
        self.scenes += 1;
        println!("\n{HEADING}{}. {title}{HEADING:#}\n", self.scenes);
    }

    pub(crate) fn tell(&self, text: &str) {
        println!("{text}");
    }

    /// Lines of a file or a list, set off.
    pub(crate) fn show(&self, text: &str) {
        for line in text.lines() {
            println!("  {FAINT}│{FAINT:#} {line}");
        }
    }

    /// Runs a command under a prompt and shows what it prints, as it prints it.
    pub(crate) async fn run(&self, place: &str, words: &str, command: Command) -> Shown {
        println!("\n{FAINT}{place}{FAINT:#} {PROMPT}$ {words}{PROMPT:#}");
        let mut command = tokio::process::Command::from(command);
        // On a terminal the program draws its progress; the world's own environment hides which terminal it is.
        for name in ["TERM", "COLORTERM", "NO_COLOR", "COLUMNS"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
            let status = command.status().await;
            let succeeded = status.as_ref().is_ok_and(std::process::ExitStatus::success);
            self.status(succeeded, status.ok().and_then(|status| status.code()));
            return Shown { succeeded };
        }
        match command.output().await {
            Ok(output) => {
                self.show(String::from_utf8_lossy(&output.stdout).trim_end());
                self.show(String::from_utf8_lossy(&output.stderr).trim_end());
                self.status(output.status.success(), output.status.code());
                Shown { succeeded: output.status.success() }
            }
            Err(error) => {
                self.show(&error.to_string());
                Shown { succeeded: false }
            }
        }
    }

    fn status(&self, succeeded: bool, code: Option<i32>) {
        if !succeeded {
            let code = code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit status {code}"));
            println!("  {FAINT}({code}){FAINT:#}");
        }
        println!();
    }

    /// Says whether something is as it should be.
    pub(crate) fn expect(&mut self, holds: bool, what: &str) {
        if holds {
            self.held += 1;
            println!("{GOOD}✓{GOOD:#} {what}");
        } else {
            self.broken.push(what.to_owned());
            println!("{BAD}✗ not so: {what}{BAD:#}");
        }
    }

    /// The last words; whether everything was as expected.
    pub(crate) fn end(&self) -> bool {
        let took = self.began.elapsed().as_secs_f64();
        if self.broken.is_empty() {
            println!("\n{GOOD}All {} things were as expected; {took:.0} seconds.{GOOD:#}", self.held);
        } else {
            println!(
                "\n{BAD}{} of {} things were not as expected:{BAD:#}",
                self.broken.len(),
                self.held + self.broken.len()
            );
            for what in &self.broken {
                println!("{BAD}✗ {what}{BAD:#}");
            }
        }
        self.broken.is_empty()
    }
}
