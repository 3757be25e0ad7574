//! Requests to one GeoServer: addresses, credentials, time limits, repetition.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use url::Url;

use crate::error::{Context, Error, ErrorKind, Result, root_cause};
use crate::http;

use super::answer::Answer;
use super::catalog::Catalog;
use super::version::Version;

/// Longest wait for a TCP or TLS connection; a request may take longer.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// After so many requests in a row that nobody answered, repetitions not counted, GeoServer is asked for
/// something small; when nobody answers that either, nothing is sent any more.
const SILENCE: u64 = 2;

/// The longest that the answer to something small may take. It waits for writers, as every read does: a
/// GeoServer whose catalog hangs is given up too.
const SMALL_LIMIT: Duration = Duration::from_secs(10);

/// What stays as it is in a path segment. A plus is encoded, because GeoServer reads it as a space.
const SEGMENT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a GeoServer is and how to get in.
#[derive(Clone)]
pub struct Endpoint {
    /// The web application's root, as in `http://host:8080/geoserver`.
    pub url: Url,
    /// An administrator of that GeoServer.
    pub username: String,
    /// That user's password.
    pub password: SecretString,
    /// The longest a single request may take.
    pub time_limit: Duration,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &without_credentials(&self.url).as_str())
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

/// How many requests a handle has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCount {
    /// GET requests.
    pub reads: u64,
    /// POST, PUT and DELETE requests.
    pub writes: u64,
}

impl RequestCount {
    /// What was sent after `earlier` was counted.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { reads: self.reads - earlier.reads, writes: self.writes - earlier.writes }
    }
}

/// A request as it went, for whoever measures.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The GeoServer's name.
    pub target: &'a str,
    /// The method of HTTP.
    pub method: &'a str,
    /// The status that was answered; nothing when nobody answered.
    pub status: Option<u16>,
    /// How long it took, the body of the answer included.
    pub took: Duration,
}

/// Is told of every request when it has ended. Called often and must return at once.
pub type ExchangeFn = Arc<dyn Fn(&Exchange<'_>) + Send + Sync>;

/// A handle on one GeoServer. Clones share connections, counters, what is remembered of the
/// catalog, and the rule that only one of them writes at a time.
#[derive(Clone)]
pub struct GeoServer {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    name: String,
    username: String,
    password: SecretString,
    time_limit: Duration,
    reads: AtomicU64,
    writes: AtomicU64,
    version: OnceCell<Version>,
    catalog: Mutex<Catalog>,
    /// Requests in a row that nobody answered.
    unanswered: AtomicU64,
    /// Maps in a row that were not drawn within the time limit.
    undrawn: AtomicU64,
    /// Why nothing is sent any more, until [`GeoServer::forget`].
    given_up: Mutex<Option<Error>>,
    observer: Option<ExchangeFn>,
}

impl fmt::Debug for GeoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoServer").field("url", &self.inner.name).finish_non_exhaustive()
    }
}

/// The right to write to a GeoServer, with what is remembered of its catalog.
pub(super) struct Writer<'a> {
    pub(super) server: &'a GeoServer,
    pub(super) catalog: MutexGuard<'a, Catalog>,
}

/// What is asked of GeoServer.
struct Ask<'a> {
    method: Method,
    /// Without credentials.
    url: String,
    /// Media type and content.
    body: Option<(&'a str, Vec<u8>)>,
    accept: &'static str,
    /// The longest answer that is taken, in bytes.
    limit: usize,
    /// Whether a picture is to be drawn, which may take long.
    draws: bool,
}

/// The outcome of one try that may be worth another.
struct Lost {
    error: Error,
    again: bool,
    /// Nobody answers there.
    silent: bool,
    /// A map was not drawn within the time limit.
    undrawn: bool,
}

impl From<Error> for Lost {
    /// What another try would not mend.
    fn from(error: Error) -> Self {
        Self { error, again: false, silent: false, undrawn: false }
    }
}

impl GeoServer {
    /// A handle on the GeoServer at `endpoint`; sends nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when the URL is not one of HTTP, or the TLS library cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self> {
        Self::observed(endpoint, None)
    }

    /// As [`GeoServer::new`]; `observer` is told of the requests.
    ///
    /// # Errors
    ///
    /// As [`GeoServer::new`].
    pub fn observed(endpoint: Endpoint, observer: Option<ExchangeFn>) -> Result<Self> {
        let url = without_credentials(&endpoint.url);
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(Error::new(ErrorKind::Settings, "the URL is not one of a GeoServer")
                .subject(url.as_str())
                .hint("write GEOSERVER_URL as in http://host:8080/geoserver"));
        }
        let http = http::client(http::is_this_machine(&url), CONNECT_LIMIT.min(endpoint.time_limit))
            .timeout(endpoint.time_limit)
            .build()
            .context(ErrorKind::Settings, "the HTTP client cannot be set up")?;
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                name: url.as_str().trim_end_matches('/').to_owned(),
                username: endpoint.username,
                password: endpoint.password,
                time_limit: endpoint.time_limit,
                reads: AtomicU64::new(0),
                writes: AtomicU64::new(0),
                version: OnceCell::new(),
                catalog: Mutex::default(),
                unanswered: AtomicU64::new(0),
                undrawn: AtomicU64::new(0),
                given_up: Mutex::default(),
                observer,
            }),
        })
    }

    /// The URL without credentials and trailing slash: identifies the target in journal and messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How many requests were sent so far, repetitions included.
    #[must_use]
    pub fn requests(&self) -> RequestCount {
        RequestCount {
            reads: self.inner.reads.load(Ordering::Relaxed),
            writes: self.inner.writes.load(Ordering::Relaxed),
        }
    }

    /// Forgets what was read of the catalog. To be called between runs, when others may have changed it.
    pub async fn forget(&self) {
        *self.inner.catalog.lock().await = Catalog::default();
        self.inner.unanswered.store(0, Ordering::Relaxed);
        self.inner.undrawn.store(0, Ordering::Relaxed);
        *self.inner.given_up.lock().await = None;
    }

    pub(super) fn known_version(&self) -> &OnceCell<Version> {
        &self.inner.version
    }

    /// Waits for the right to write.
    pub(super) async fn writer(&self) -> Writer<'_> {
        Writer { server: self, catalog: self.inner.catalog.lock().await }
    }

    /// GET of a path made by [`path`], of whatever status.
    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// GET of a JSON document that may be missing; `doing` completes "cannot ...".
    pub(super) async fn find(&self, path: &str, doing: &str) -> Result<Option<Value>> {
        let answer = self.get(path).await?;
        if answer.is_missing() { Ok(None) } else { answer.json(doing).map(Some) }
    }

    /// POST of a JSON document, of whatever status.
    pub(super) async fn post(&self, path: &str, document: &Value) -> Result<Answer> {
        self.send(Method::POST, path, Some(("application/json", document.to_string().into_bytes()))).await
    }

    /// PUT of a JSON document, of whatever status.
    pub(super) async fn put(&self, path: &str, document: &Value) -> Result<Answer> {
        self.send(Method::PUT, path, Some(("application/json", document.to_string().into_bytes()))).await
    }

    /// DELETE, of whatever status.
    pub(super) async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, None).await
    }

    /// Sends a request, again when it was lost on the way and may be repeated.
    ///
    /// Refused credentials and gateways without a GeoServer behind them are errors; every other
    /// status is an answer.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> Result<Answer> {
        // The tile cache has a REST interface of its own beside that of the catalog.
        let root = if path.starts_with("gwc/") { "" } else { "rest/" };
        let url = format!("{}/{root}{path}", self.inner.name);
        self.exchange(Ask { method, url, body, accept: "application/json", limit: usize::MAX, draws: false })
            .await
            .map_err(|lost| lost.error)
    }

    /// GET of a picture of at most `limit` bytes from one of this GeoServer's services, of whatever status.
    ///
    /// A GeoServer that did not draw two maps in a row within the time limit is not asked for others before
    /// [`GeoServer::forget`]: each of a thousand previews would take as long.
    pub(super) async fn draw(&self, url: String, limit: usize) -> Result<Answer> {
        if self.inner.undrawn.load(Ordering::Relaxed) >= SILENCE {
            return Err(Error::new(
                ErrorKind::Unreachable,
                format!(
                    "GeoServer has twice not drawn a map within {} s, so that no map is asked for any more in this run",
                    self.inner.time_limit.as_secs_f64()
                ),
            )
            .subject(self.name())
            .hint("ask it for a map in a browser; its log tells what drawing waits for"));
        }
        let outcome =
            self.exchange(Ask { method: Method::GET, url, body: None, accept: "image/*", limit, draws: true }).await;
        match &outcome {
            Err(lost) if lost.undrawn => self.inner.undrawn.fetch_add(1, Ordering::Relaxed),
            _ => self.inner.undrawn.swap(0, Ordering::Relaxed),
        };
        outcome.map_err(|lost| lost.error)
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, Lost> {
        let policy = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(150))
            .with_factor(4.0)
            .with_max_times(2)
            .with_jitter();
        if let Some(error) = &*self.inner.given_up.lock().await {
            return Err(Lost::from(error.copy()));
        }
        let outcome = (|| self.attempt(&ask))
            .retry(policy)
            .when(|lost: &Lost| lost.again)
            .notify(|lost: &Lost, pause: Duration| {
                tracing::debug!(error = %lost.error.one_line(), ?pause, "request repeated");
            })
            .await;
        match &outcome {
            Err(lost) if lost.silent => {
                let unanswered = self.inner.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
                if unanswered >= SILENCE && self.answers().await {
                    self.inner.unanswered.store(0, Ordering::Relaxed);
                } else if unanswered >= SILENCE {
                    // A hundred jobs shall not wait for the time limit one after the other.
                    *self.inner.given_up.lock().await = Some(lost.error.copy());
                }
            }
            _ => self.inner.unanswered.store(0, Ordering::Relaxed),
        }
        outcome
    }

    /// Whether GeoServer answers something small: then it is alive, and what it did not answer was large.
    async fn answers(&self) -> bool {
        let url = format!("{}/rest/workspaces/default.json?quietOnNotFound=true", self.inner.name);
        let ask =
            Ask { method: Method::GET, url, body: None, accept: "application/json", limit: 1 << 20, draws: false };
        tokio::time::timeout(SMALL_LIMIT, self.attempt(&ask)).await.is_ok_and(|outcome| outcome.is_ok())
    }

    async fn attempt(&self, ask: &Ask<'_>) -> Result<Answer, Lost> {
        let counter = if ask.method == Method::GET { &self.inner.reads } else { &self.inner.writes };
        counter.fetch_add(1, Ordering::Relaxed);
        let (started, mut status) = (Instant::now(), None);
        let outcome = self.ask(ask, &mut status).await;
        let took = started.elapsed();
        let (method, url, status) = (&ask.method, &ask.url, status.map(|status| status.as_u16()));
        if let Some(status) = status {
            tracing::debug!(%method, url, status, ms = took.as_millis(), "request");
        }
        if let Some(observer) = &self.inner.observer {
            observer(&Exchange { target: self.name(), method: method.as_str(), status, took });
        }
        outcome
    }

    /// Sends a request once; `answered` becomes the status.
    async fn ask(&self, ask: &Ask<'_>, answered: &mut Option<StatusCode>) -> Result<Answer, Lost> {
        let Ask { method, url, .. } = ask;
        let mut request = self
            .inner
            .http
            .request(method.clone(), url)
            .basic_auth(&self.inner.username, Some(self.inner.password.expose_secret()))
            .header(ACCEPT, ask.accept);
        if let Some((content_type, bytes)) = &ask.body {
            request = request.header(CONTENT_TYPE, *content_type).body(bytes.clone());
        }
        let lost = |error: reqwest::Error| self.lost(ask, &error);
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        *answered = Some(status);
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let (content_type, challenge) = (header(CONTENT_TYPE), header(WWW_AUTHENTICATE));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > ask.limit {
                let message = format!("the answer is longer than {} bytes and was left", ask.limit);
                return Err(Error::new(ErrorKind::GeoServer, message).subject(format!("{method} {url}")).into());
            }
            body.extend_from_slice(&chunk);
        }
        let answer = Answer { method: method.clone(), url: url.clone(), status, content_type, body };
        match status {
            // GeoServer also answers 401 for stores that are not empty, without a challenge.
            StatusCode::UNAUTHORIZED if !challenge.is_empty() => {
                Err(Error::new(ErrorKind::Denied, "GeoServer refuses the user name or the password")
                    .subject(self.name())
                    .hint("set GEOSERVER_USERNAME and GEOSERVER_PASSWORD to an administrator of this GeoServer")
                    .into())
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Err(Lost {
                error: Error::new(ErrorKind::Unreachable, format!("GeoServer is not ready: {status} is answered"))
                    .subject(format!("{method} {url}"))
                    .hint("GeoServer starts, or has failed to: its log and that of its servlet container tell"),
                again: *method != Method::POST,
                silent: false,
                undrawn: false,
            }),
            _ => Ok(answer),
        }
    }

    fn lost(&self, ask: &Ask<'_>, error: &reqwest::Error) -> Lost {
        let Ask { method, url, .. } = ask;
        let refused = error.is_connect();
        if ask.draws && error.is_timeout() && !refused {
            // A layer that is slow to draw says nothing about the rest of GeoServer.
            return Lost {
                error: Error::new(
                    ErrorKind::GeoServer,
                    format!("GeoServer does not draw it within {} s", self.inner.time_limit.as_secs_f64()),
                )
                .subject(format!("{method} {url}"))
                .hint("an index on the geometry column, or a style with limits of scale, makes drawing faster"),
                again: false,
                silent: false,
                undrawn: true,
            };
        }
        let (message, hint) = if error.is_timeout() && !refused {
            (
                format!("GeoServer does not answer within {} s", self.inner.time_limit.as_secs_f64()),
                "GeoServer holds one lock for its whole catalog: a request that waits there for a database or a \
                 cascaded server stops all others. Look in its log for what hangs; restart it if that does not end",
            )
        } else if refused {
            (
                "cannot connect to GeoServer".to_owned(),
                "check that GeoServer runs, that GEOSERVER_URL names its host and port, and that no firewall is between",
            )
        } else {
            (
                "the connection to GeoServer was lost".to_owned(),
                "GeoServer or a proxy before it ended the connection; GeoServer's log tells whether it was restarted",
            )
        };
        // A connection that was never made has carried nothing, so that even a POST can be repeated.
        let again = !error.is_timeout() && (refused || *method != Method::POST);
        let silent = error.is_timeout() || refused;
        tracing::debug!(%method, url, silent, "no answer");
        // Where nobody answers, the request does not matter: the message is the same for all.
        let subject = if silent { self.name().to_owned() } else { format!("{method} {url}") };
        let told = Error::new(ErrorKind::Unreachable, message).subject(subject).hint(hint);
        // The message says so already.
        let error = if error.is_timeout() && !refused { told } else { told.source(root_cause(error)) };
        Lost { error, again, silent, undrawn: false }
    }
}

fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    // Only URLs that cannot have credentials refuse these.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// A path below `/rest/`, or below the application's root when its first segment is `gwc`: every
/// segment percent-encoded, the last with an ending.
///
/// Without an ending GeoServer takes what follows the last dot of a name for one and reads, changes
/// or deletes another object than the named.
pub(super) fn path(segments: &[&str], ending: &str) -> String {
    let mut path = segments.iter().map(|segment| encoded(segment)).collect::<Vec<_>>().join("/");
    path.push('.');
    path.push_str(ending);
    path
}

/// `text` as a path segment or as the value of a query parameter.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint {
            url: Url::parse(url).unwrap(),
            username: "somebody".into(),
            password: SecretString::from("hunter2"),
            time_limit: Duration::from_secs(5),
        }
    }

    #[test]
    fn credentials_show_nowhere() {
        let endpoint = endpoint("http://somebody:hunter2@localhost:8080/geoserver/?key=hunter2");
        let server = GeoServer::new(endpoint.clone()).unwrap();
        let shown = format!("{endpoint:?} {server:?} {}", server.name());
        assert!(!shown.contains("hunter2") && !shown.contains("somebody"), "{shown}");
        assert_eq!(server.name(), "http://localhost:8080/geoserver");
    }

    #[test]
    fn only_http_urls_are_taken() {
        let error = GeoServer::new(endpoint("file:///geoserver")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings);
        assert!(error.paragraph().contains("GEOSERVER_URL"));
    }

    #[test]
    fn names_with_dots_and_odd_characters_keep_their_place_in_a_path() {
        assert_eq!(
            path(&["workspaces", "a.b", "styles", "roads & rivers+1.night"], "json"),
            "workspaces/a.b/styles/roads%20%26%20rivers%2B1.night.json"
        );
    }

    proptest! {
        #[test]
        fn a_segment_never_leaves_its_place(name in "\\PC{1,30}") {
            let url = Url::parse(&format!("http://h/rest/{}", path(&["x", &name], "json"))).unwrap();
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 3);
            let last = percent_encoding::percent_decode_str(segments[2]).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(last, format!("{name}.json"));
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}
