//! What the operator sees: errors, tables, progress, the command line; and what a pass costs.

mod commands;
mod failures;
mod look;
mod quiet;
mod secrets;
mod size;
