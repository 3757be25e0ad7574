//! The CDN that is purged after a layer changed.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use url::Url;

use super::Template;

/// What may stand unencoded in one segment of an address (RFC 3986, unreserved characters).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How to purge a Fastly service.
#[derive(Debug, Clone)]
pub struct Fastly {
    /// Address of a purge; slots: service id, key, workspace, name.
    pub purge_url: Template,
    /// Service id.
    pub service_id: String,
    /// Surrogate keys to purge; slots: workspace, name.
    pub surrogate_keys: Vec<Template>,
    /// Sent as `Fastly-Key`.
    pub api_token: SecretString,
    /// Mark as stale instead of removing (`Fastly-Soft-Purge: 1`).
    pub soft: bool,
}

impl Fastly {
    /// The addresses to send a purge to for a layer, one for each surrogate key.
    #[must_use]
    pub fn purge_urls(&self, workspace: &str, name: &str) -> Vec<Url> {
        let encode = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        self.surrogate_keys
            .iter()
            .filter_map(|key| {
                let key = key.fill_all(&[workspace, name]);
                let slots = [&self.service_id, &key, workspace, name].map(encode);
                // Checked at load: the template gives an address, and encoded text cannot break it.
                Url::parse(&self.purge_url.fill_all(&slots.each_ref().map(String::as_str))).ok()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_filled_and_encoded() {
        let fastly = Fastly {
            purge_url: Template::parse("https://cdn.example/service/{}/purge/{}", 4).unwrap(),
            service_id: "abc".into(),
            surrogate_keys: ["{}", "{}/{}"].map(|key| Template::parse(key, 2).unwrap()).into(),
            api_token: "t".into(),
            soft: true,
        };
        let urls: Vec<_> = fastly.purge_urls("cadastre", "roads & rivers?").iter().map(Url::to_string).collect();
        assert_eq!(
            urls,
            [
                "https://cdn.example/service/abc/purge/cadastre",
                "https://cdn.example/service/abc/purge/cadastre%2Froads%20%26%20rivers%3F"
            ]
        );
    }
}
