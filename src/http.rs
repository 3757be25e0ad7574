//! HTTP clients: what is the same for all whom this program talks to.

use std::time::Duration;

use reqwest::{ClientBuilder, redirect};
use url::{Host, Url};

/// A client to be built: it gives its name, and follows no redirections, because a POST would arrive as GET
/// and credentials would travel to wherever they lead. One for `this_machine` uses no proxy: a proxy for the
/// outside cannot reach it.
pub(crate) fn client(this_machine: bool, connect_limit: Duration) -> ClientBuilder {
    let client = reqwest::Client::builder()
        .user_agent(concat!("borg-slave/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(connect_limit);
    if this_machine { client.no_proxy() } else { client }
}

/// Whether an address is one of this machine itself.
pub(crate) fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_several_names() {
        let is_here = |url: &str| is_this_machine(&Url::parse(url).unwrap());
        for url in ["http://localhost:8080/geoserver", "http://LOCALHOST", "https://127.0.0.2", "http://[::1]:80/x"] {
            assert!(is_here(url), "{url}");
        }
        for url in ["http://localhost.example", "http://10.0.0.1", "http://[fe80::1]", "unix:/run/x"] {
            assert!(!is_here(url), "{url}");
        }
    }
}
