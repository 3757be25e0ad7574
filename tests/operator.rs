//! What the operator sees: errors, tables, progress, the command line; and what a pass costs.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the program is run as an operator runs it")]

mod commands;
mod failures;
mod look;
mod quiet;
mod secrets;
mod size;
