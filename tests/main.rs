//! The integration tests: one binary, real services started privately for each run.

mod support;

mod config_examples;
mod end_to_end;
mod floors;
mod geoserver_client;
mod geoserver_double;
mod journal;
mod postgres;
mod state_repo;
mod transfer;
