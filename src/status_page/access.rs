//! Who may see the page: whoever presents the token, or, where there is none, whoever is on this machine.

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, Uri};
use openssl::base64;
use openssl::memcmp;
use openssl::sha::sha256;
use secrecy::{ExposeSecret, SecretString};

/// What callers must present.
pub(super) enum Access {
    /// The token that has this digest.
    Token([u8; 32]),
    /// Nothing, but they must have named this machine: a page of the outside whose name was made to lead
    /// here (DNS rebinding) names its own.
    ThisMachine,
}

/// The access to one place where the page is served. Requests that came in there are judged by it also
/// while the page moves.
pub(super) struct Door(RwLock<Access>);

impl Door {
    pub(super) fn new(access: Access) -> Self {
        Self(RwLock::new(access))
    }

    pub(super) fn change(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).check(uri, headers)
    }
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is missing or wrong.
    Token,
    /// The request was sent to another name than this machine's own.
    Host,
}

impl Access {
    pub(super) fn of(token: Option<&SecretString>) -> Self {
        token.map_or(Self::ThisMachine, |token| Self::Token(sha256(token.expose_secret().as_bytes())))
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Token(digest) => {
                // Digests have one length, and comparing them takes the same time whatever they are.
                let is_right = presented(headers).is_some_and(|token| memcmp::eq(&sha256(&token), digest));
                is_right.then_some(()).ok_or(Refusal::Token)
            }
            Self::ThisMachine => {
                let named = headers.get(HOST).and_then(|host| host.to_str().ok()).or(uri.host());
                named.is_some_and(is_this_machine).then_some(()).ok_or(Refusal::Host)
            }
        }
    }
}

/// The token that a program sends as `Bearer`, or a browser as the password of a user of any name.
fn presented(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::decode_block(value).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Whether `host`, with a port or without, can only mean the machine that it is said on.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "0123456789abcdef";

    fn with(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn asks(access: &Access, headers: &HeaderMap) -> Result<(), Refusal> {
        access.check(&Uri::from_static("/"), headers)
    }

    #[test]
    fn a_token_is_taken_from_programs_and_browsers_and_must_be_whole() {
        let access = Access::of(Some(&SecretString::from(TOKEN)));
        let basic = |pair: &str| format!("Basic {}", base64::encode_block(pair.as_bytes()));
        let right = [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN} "),
            basic(&format!("anybody:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ];
        for value in right {
            assert_eq!(asks(&access, &with(AUTHORIZATION, &value)), Ok(()), "{value}");
        }
        let wrong = [
            "Bearer ".to_owned(),
            format!("Bearer {}", &TOKEN[1..]),
            format!("Bearer {TOKEN}x"),
            TOKEN.to_owned(),
            format!("Digest {TOKEN}"),
            basic(TOKEN),
            basic(&format!("{TOKEN}:")),
            "Basic %%%".to_owned(),
        ];
        for value in wrong {
            assert_eq!(asks(&access, &with(AUTHORIZATION, &value)), Err(Refusal::Token), "{value}");
        }
        // The machine's own people need it as well.
        assert_eq!(asks(&access, &with(HOST, "localhost")), Err(Refusal::Token));
    }

    #[test]
    fn without_a_token_only_requests_to_this_machine_are_answered() {
        let access = Access::of(None);
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.1.2.3", "[::1]:8081", "[::ffff:127.0.0.1]"] {
            assert_eq!(asks(&access, &with(HOST, host)), Ok(()), "{host}");
        }
        for host in
            ["rebound.example", "127.0.0.1.example", "localhost.example", "10.0.0.1", "[::]", "", "[", "127.0.0.1@x"]
        {
            assert_eq!(asks(&access, &with(HOST, host)), Err(Refusal::Host), "{host}");
        }
        assert_eq!(asks(&access, &HeaderMap::new()), Err(Refusal::Host));
    }

    proptest! {
        #[test]
        fn any_header_is_judged(value in "[ -~]{0,60}") {
            let access = Access::of(Some(&SecretString::from(TOKEN)));
            prop_assert_eq!(asks(&access, &with(AUTHORIZATION, &value)), Err(Refusal::Token));
        }
    }
}
