//! What must hold whatever happens: readers see whole layers, kills and signals lose nothing.

#![allow(clippy::unwrap_used, reason = "a step that fails ends the test")]

mod kills;
mod kills_of_all_kinds;
pub(crate) mod processes;
mod readers;
mod signals;
mod snapshot;
mod together;

/// A number that the environment gives, to try a test longer or shorter.
fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Tells what was measured; `cargo test -- --nocapture` shows it.
#[expect(clippy::print_stderr, reason = "figures for whoever reads the test's output")]
fn report(text: &str) {
    eprintln!("{text}");
}
