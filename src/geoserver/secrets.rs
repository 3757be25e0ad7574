//! Passwords: recognising them without keeping them, and keeping them out of messages.

use std::borrow::Cow;

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::error::{Context, ErrorKind, Result};

use super::answer::Answer;

/// A keyed hash (HMAC-SHA-256) of what a store is to be. What is secret about the store goes into
/// `key`, so that nothing of it can be read from the fingerprint.
pub(super) fn fingerprint(key: &str, content: &Value) -> Result<String> {
    let failed = "the fingerprint of a store cannot be computed";
    let key = PKey::hmac(key.as_bytes()).context(ErrorKind::Bug, failed)?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key).context(ErrorKind::Bug, failed)?;
    let digest = signer.sign_oneshot_to_vec(content.to_string().as_bytes()).context(ErrorKind::Bug, failed)?;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The answer to a request that carried a password, without it: GeoServer quotes parts of documents
/// that it does not understand.
pub(super) fn without_password(mut answer: Answer, password: Option<&SecretString>) -> Answer {
    if let Some(password) = password
        && !password.expose_secret().is_empty()
        && !answer.is_success()
    {
        answer.body = String::from_utf8_lossy(&answer.body).replace(password.expose_secret(), "***").into_bytes();
    }
    answer
}

/// The answer without what may be secret in the addresses that it quotes: GeoServer shows the whole
/// address of an upstream that it cannot read, with a password or an API key in it.
pub(super) fn without_addresses(mut answer: Answer) -> Answer {
    if !answer.is_success() && answer.body.windows(3).any(|three| three == b"://") {
        answer.body = String::from_utf8_lossy(&answer.body)
            .split_inclusive(char::is_whitespace)
            .map(|word| {
                let bare = word.trim_end();
                if bare.contains("://") { Cow::Owned(bare_address(bare) + &word[bare.len()..]) } else { word.into() }
            })
            .collect::<String>()
            .into_bytes();
    }
    answer
}

/// An address, however malformed, without user, password, query and fragment: what may be shown.
pub(super) fn bare_address(address: &str) -> String {
    let shown = address.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = shown.split_once("://") else { return shown.to_owned() };
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer {
            method: reqwest::Method::PUT,
            url: String::new(),
            status: reqwest::StatusCode::INTERNAL_SERVER_ERROR,
            content_type: "text/plain".into(),
            body: body.into(),
        }
    }

    #[test]
    fn a_refusal_does_not_quote_the_password() {
        let secret = SecretString::from("hunter2");
        let refused = without_password(answer("cannot read entry passwd hunter2"), Some(&secret));
        assert_eq!(refused.message(), "cannot read entry passwd ***");
        assert_eq!(without_password(answer("as is"), Some(&SecretString::from(""))).message(), "as is");
    }

    #[test]
    fn a_refusal_does_not_quote_what_is_secret_in_an_address() {
        let said = "Server returned HTTP error code 500 for URL\nhttp://u:p@h:1/a/wms?KEY=s3cret&SERVICE=WMS (see https://h?k#f)";
        assert_eq!(
            without_addresses(answer(said)).message(),
            "Server returned HTTP error code 500 for URL http://h:1/a/wms (see https://h"
        );
        assert_eq!(without_addresses(answer("no a@b here?")).message(), "no a@b here?");
        for (address, shown) in [
            ("http://u:p@ss@h/x?y", "http://h/x"),
            ("http://h", "http://h"),
            ("h/wms?key=1", "h/wms"),
            ("http://u:p@h?x=/", "http://h"),
        ] {
            assert_eq!(bare_address(address), shown);
        }
    }
}
