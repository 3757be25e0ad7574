//! The daemon's status page: what it knows, for people, for programs and for monitors. It changes nothing.
//!
//! | address | what is there |
//! |---|---|
//! | `/`, `/jobs`, `/jobs/<job file>`, `/reports`, `/runs`, `/gallery` | pages, made here and complete without scripts |
//! | `/previews/<job file>` | the picture of a layer |
//! | `/api/…` | the same as JSON; `/api/openapi.json` describes it |
//! | `/metrics` | measurements for Prometheus |
//! | `/healthz`, `/readyz` | probes, open to everybody |
//!
//! Where to look: `serve` (the listener and its bounds), `access` (who may see it), `routes` (which address
//! gives what), `pages` (HTML), `json` (documents), `metrics`, `monitor` (what the daemon tells), `site` (how
//! the journal is read), `verdict` (how the slave is), `previews` (which layers have a picture).

mod access;
pub mod json;
mod metrics;
mod monitor;
mod pages;
mod previews;
mod query;
mod routes;
mod serve;
mod site;
#[cfg(test)]
mod tests;
mod verdict;

use std::net::SocketAddr;

use secrecy::SecretString;

pub use monitor::{Life, Monitor, PassEnd, PullEnd, Round};
pub use serve::{StatusPage, is_free};
pub use site::About;

/// Where the page is served, and what it is about.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What callers must present. Without it only requests to this machine's own name are answered, so that
    /// `listen` has to be an address of this machine alone.
    pub token: Option<SecretString>,
    /// The slave.
    pub about: About,
}
