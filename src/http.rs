//! HTTP clients: what is the same for all whom this program talks to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use native_tls::TlsConnector;
use reqwest::{ClientBuilder, redirect};
use url::{Host, Url};

/// How long certificates serve that were read: an authority that somebody adds to this machine counts soon.
const CERTIFICATES_KEPT: Duration = Duration::from_secs(60);

/// TLS that trusts whom this machine trusts. Reading the certificates takes as long as twenty requests, so that
/// all clients of a run share them; who has something to wait for reads them meanwhile.
///
/// # Errors
///
/// When the TLS library cannot be set up.
pub(crate) fn tls() -> Result<TlsConnector, native_tls::Error> {
    static READ: Mutex<Option<(Instant, TlsConnector)>> = Mutex::new(None);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((when, tls)) = &*read
        && when.elapsed() < CERTIFICATES_KEPT
    {
        return Ok(tls.clone());
    }
    let tls = TlsConnector::new()?;
    *read = Some((Instant::now(), tls.clone()));
    Ok(tls)
}

/// A client to be built: it gives its name, and follows no redirections, because a POST would arrive as GET
/// and credentials would travel to wherever they lead. One for `this_machine` uses no proxy: a proxy for the
/// outside cannot reach it.
pub(crate) fn client(this_machine: bool, connect_limit: Duration) -> ClientBuilder {
    let client = reqwest::Client::builder()
        .user_agent(concat!("borg-slave/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(connect_limit);
    let client = match tls() {
        Ok(tls) => client.tls_backend_preconfigured(tls),
        // It meets the same failure when it is built, and tells it.
        Err(_) => client,
    };
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
    fn a_client_takes_the_certificates_that_were_read() {
        // With another version of the TLS library than its own, it would refuse them here.
        client(false, Duration::from_secs(1)).build().unwrap();
    }

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
