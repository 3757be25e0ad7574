//! The integration tests: one binary, real services started privately for each run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails, and its helpers with it")]

mod support;

mod cdn;
mod config_examples;
mod daemon;
mod end_to_end;
mod floors;
mod geoserver_client;
mod geoserver_double;
mod journal;
mod operator;
mod postgres;
mod report;
mod robustness;
mod state_repo;
mod transfer;
