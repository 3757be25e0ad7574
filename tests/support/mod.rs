//! Real services and builders for tests: each is started on a free port in a directory of its own.

pub(crate) mod dumps;
pub(crate) mod geoserver;
pub(crate) mod jobs;
pub(crate) mod postgres;
pub(crate) mod real_geoserver;
pub(crate) mod rest;
pub(crate) mod sshd;
pub(crate) mod upstream;
pub(crate) mod vcs;
pub(crate) mod world;
