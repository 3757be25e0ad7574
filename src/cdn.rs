//! Purges what the CDN (Fastly) keeps of a layer, so that readers see the new one.
//!
//! A purge is `POST /service/{service}/purge/{surrogate key}` with the token as `Fastly-Key`; with
//! `Fastly-Soft-Purge: 1` the objects become stale instead of going. Purging twice is purging once, so
//! every request may be repeated. The interface is described at
//! <https://www.fastly.com/documentation/reference/api/purging/>.

use std::fmt;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures_util::future::join_all;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use crate::error::{Context, Error, ErrorKind, Result, root_cause};
use crate::http;

/// How often a purge is sent again.
const REPETITIONS: usize = 3;

/// The first pause before a repetition.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that is waited when the CDN asks for one.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How much of the CDN's message goes into ours, in characters.
const MESSAGE_CHARS: usize = 300;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// How to talk to the CDN.
#[derive(Clone)]
pub struct CdnOptions {
    /// Sent as `Fastly-Key`.
    pub token: SecretString,
    /// Mark as stale instead of removing.
    pub soft: bool,
    /// The longest a single request may take.
    pub time_limit: Duration,
}

/// A handle on the CDN. Clones share connections.
#[derive(Clone)]
pub struct Cdn {
    http: reqwest::Client,
    /// For an address on this machine, which a proxy for the outside cannot reach.
    direct: reqwest::Client,
    options: CdnOptions,
}

impl fmt::Debug for Cdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cdn").field("soft", &self.options.soft).finish_non_exhaustive()
    }
}

/// The outcome of one try that may be worth another.
struct Lost {
    error: Error,
    again: bool,
    /// The pause that the CDN asks for.
    pause: Option<Duration>,
}

impl Cdn {
    /// A handle; sends nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when the TLS library cannot be set up.
    pub fn new(options: CdnOptions) -> Result<Self> {
        let client = |this_machine| {
            let client = http::client(this_machine, options.time_limit).timeout(options.time_limit);
            client.build().context(ErrorKind::Settings, "the HTTP client cannot be set up")
        };
        Ok(Self { http: client(false)?, direct: client(true)?, options })
    }

    /// Sends a purge to each of `urls`; a failure does not keep the others from being sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] when the CDN refuses the token, [`ErrorKind::Unreachable`] when it does not
    /// answer, [`ErrorKind::Cdn`] with its words for every other refusal; of several the first decides.
    pub async fn purge(&self, urls: &[Url]) -> Result<()> {
        let outcomes = join_all(urls.iter().map(|url| self.purge_one(url))).await;
        let mut errors: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
        // A wrong token is wrong for every key.
        if let Some(denied) = errors.iter().position(|error| error.kind() == ErrorKind::Denied) {
            return Err(errors.swap_remove(denied));
        }
        Error::all(errors).map_or(Ok(()), Err)
    }

    /// Whether the machine that purges are sent to answers; nothing is purged, and the token stays here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreachable`] when it does not.
    pub async fn answers(&self, purge_url: &Url) -> Result<String> {
        let mut url = purge_url.clone();
        url.set_path("/");
        url.set_query(None);
        let http = if http::is_this_machine(&url) { &self.direct } else { &self.http };
        // Whatever it says to this is an answer.
        match http.head(url.clone()).send().await {
            Ok(_) => Ok(format!("{url} answers; whether it takes the token is seen with the first purge")),
            Err(error) => Err(unreachable(&url, self.options.time_limit, &error).error),
        }
    }

    async fn purge_one(&self, url: &Url) -> Result<()> {
        let policy =
            ExponentialBuilder::new().with_min_delay(PAUSE).with_factor(3.0).with_max_times(REPETITIONS).with_jitter();
        (|| self.attempt(url))
            .retry(policy)
            .when(|lost: &Lost| lost.again)
            .adjust(|lost: &Lost, pause: Option<Duration>| pause.map(|pause| lost.pause.unwrap_or(pause)))
            .notify(|lost: &Lost, pause: Duration| {
                tracing::debug!(error = %lost.error.one_line(), ?pause, "purge repeated");
            })
            .await
            .map_err(|lost| lost.error)
    }

    async fn attempt(&self, url: &Url) -> Result<(), Lost> {
        let http = if http::is_this_machine(url) { &self.direct } else { &self.http };
        let mut request = http
            .post(url.clone())
            .header("Fastly-Key", self.options.token.expose_secret())
            .header(ACCEPT, "application/json");
        if self.options.soft {
            request = request.header("Fastly-Soft-Purge", "1");
        }
        let lost = |error: reqwest::Error| unreachable(url, self.options.time_limit, &error);
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let pause = asked.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES - body.len())]);
            if body.len() == ANSWER_BYTES {
                break;
            }
        }
        tracing::debug!(%url, status = status.as_u16(), "purge");
        let said = message(&body);
        if status.is_success() && is_done(&body) {
            return Ok(());
        }
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let answers = format!("the CDN answers {}{said}", status.as_u16());
        let error = |kind, text| Error::new(kind, text).subject(url.as_str());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Lost {
                error: error(ErrorKind::Denied, format!("the CDN refuses the token: {answers}")).hint(
                    "set FASTLY_API_TOKEN to a token that may purge (scope purge_select) the service of FASTLY_SERVICEID",
                ),
                again: false,
                pause,
            },
            StatusCode::TOO_MANY_REQUESTS => Lost {
                error: error(ErrorKind::Cdn, format!("the CDN is asked too often: {answers}"))
                    .hint("Fastly limits the purges of an hour; the next run purges again"),
                again: true,
                pause,
            },
            StatusCode::NOT_FOUND => Lost {
                error: error(ErrorKind::Cdn, format!("the CDN does not know what is to be purged: {answers}"))
                    .hint("check FASTLY_PURGE_URL and FASTLY_SERVICEID"),
                again: false,
                pause,
            },
            status if status.is_server_error() => Lost {
                error: error(ErrorKind::Cdn, format!("the CDN cannot purge: {answers}"))
                    .hint("https://www.fastlystatus.com tells whether the CDN has a disturbance; the next run purges again"),
                again: true,
                pause,
            },
            _ => Lost {
                error: error(ErrorKind::Cdn, format!("the CDN does not purge: {answers}"))
                    .hint("check FASTLY_PURGE_URL: POST must be allowed there, as in https://api.fastly.com/service/{}/purge/{}"),
                again: false,
                pause,
            },
        })
    }
}

fn unreachable(url: &Url, time_limit: Duration, error: &reqwest::Error) -> Lost {
    let message = if error.is_connect() {
        "cannot connect to the CDN".to_owned()
    } else if error.is_timeout() {
        format!("the CDN does not answer within {} s", time_limit.as_secs_f64())
    } else {
        "the connection to the CDN was lost".to_owned()
    };
    let told = Error::new(ErrorKind::Unreachable, message)
        .subject(url.as_str())
        .hint("check FASTLY_PURGE_URL, the proxy and the firewall of this machine; the next run purges again");
    Lost { error: told.source(root_cause(error)), again: !error.is_timeout(), pause: None }
}

/// Whether a successful answer says that the purge was done: `{"status": "ok", "id": …}`. A proxy may answer
/// something else than JSON, which is taken for a yes as well.
fn is_done(body: &[u8]) -> bool {
    let document: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    document["status"].as_str().is_none_or(|status| status.eq_ignore_ascii_case("ok"))
}

/// The CDN's words on one line: `msg` and `detail` of its document, or the text as it is.
fn message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(document)) => ["msg", "detail"]
            .iter()
            .filter_map(|field| document.get(*field)?.as_str())
            .filter(|words| !words.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
        _ if text.trim_start().starts_with('<') => String::new(),
        _ => text.into_owned(),
    };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_cdn_are_found_in_its_documents() {
        assert_eq!(
            message(br#"{"msg":"Record not found","detail":"Couldn't find Service"}"#),
            "Record not found; Couldn't find Service"
        );
        assert_eq!(message(b"<html><body>503 backend read error</body></html>"), "");
        assert_eq!(message(b" plain\n words"), "plain words");
        assert!(is_done(br#"{"status":"ok","id":"108-1391560174-974124"}"#) && is_done(b"ok"));
        assert!(!is_done(br#"{"status":"failed"}"#));
    }

    #[test]
    fn the_token_shows_nowhere() {
        let options = CdnOptions { token: "hunter2".into(), soft: true, time_limit: Duration::from_secs(1) };
        assert!(!format!("{:?}", Cdn::new(options).unwrap()).contains("hunter2"));
    }
}
