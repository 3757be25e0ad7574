//! Keeps a PostGIS database and GeoServers identical to what a state repository says.
//!
//! Data flows one way, and the modules stand in the order in which it flows:
//!
//! ```text
//! config → state_repo → job → plan → execute (transfer, postgres, geoserver, cdn) → journal → report
//! ```
//!
//! A module imports only what stands below it; `ARCHITECTURE.md` draws the floors.

pub mod cdn;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
pub mod execute;
pub mod filter;
pub mod geoserver;
mod http;
pub mod job;
pub mod journal;
pub mod name;
pub mod plan;
pub mod postgres;
pub mod process;
pub mod report;
pub mod state_repo;
pub mod status_page;
pub mod sync;
pub mod telemetry;
pub mod transfer;
pub mod wire;
