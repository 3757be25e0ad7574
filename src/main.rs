//! The doorbell: turns what the library returns into an exit status.

fn main() {}
