//! A GeoServer in memory: the REST, GWC and OWS answers that were recorded of real ones, over a real PostGIS.
//!
//! It runs in a thread and runtime of its own, so that blocking and async tests use it alike. One module holds
//! one resource of the REST interface; [`catalog`] holds what they share.

mod about;
mod catalog;
mod crs;
mod data_dir;
mod data_store;
pub(crate) mod doc;
mod feature_type;
mod group;
mod gwc;
mod http;
mod layer;
mod png;
mod postgis;
mod rest;
mod security;
mod sld;
mod style;
mod view;
mod wfs;
mod wms;
mod wms_store;
mod workspace;
pub(crate) mod xml;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use tokio::sync::{RwLock, oneshot, watch};

use catalog::{Catalog, User};
use http::{Fault, Reply, Req};
pub(crate) use view::{BoxView, LayerView};

/// Which servlet container answers the errors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Flavour {
    #[default]
    Jetty,
    Tomcat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Version {
    #[default]
    V2_26,
    V2_18,
}

impl Version {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::V2_26 => "2.26.2",
            Self::V2_18 => "2.18.2",
        }
    }
}

/// How long the double takes over its answers; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    pub(crate) read: Duration,
    pub(crate) create_type: Duration,
    pub(crate) style: Duration,
    pub(crate) write: Duration,
    pub(crate) tile_layer: Duration,
    pub(crate) no_tile_layer: Duration,
}

impl Pace {
    /// A warm GeoServer 2.26 on two cores, as measured by its own processor time: 33 ms for a feature type,
    /// 14 ms for a PUT, 8 ms for a style, 4 ms for a GET; its tile cache takes 5 ms for a tile layer and less
    /// than 2 ms to remove one.
    pub(crate) const REAL: Self = Self {
        read: Duration::from_millis(4),
        create_type: Duration::from_millis(33),
        style: Duration::from_millis(8),
        write: Duration::from_millis(14),
        tile_layer: Duration::from_millis(5),
        no_tile_layer: Duration::from_millis(2),
    };

    fn of(self, req: &Req) -> Duration {
        if req.method == "GET" {
            self.read
        } else if req.raw_path.contains("/gwc/") {
            if req.method == "DELETE" { self.no_tile_layer } else { self.tile_layer }
        } else if req.method == "POST" && req.raw_path.contains("/featuretypes") {
            self.create_type
        } else if req.raw_path.contains("/styles") {
            self.style
        } else {
            self.write
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) flavour: Flavour,
    pub(crate) version: Version,
}

/// One request that was answered (a hanging one is logged when it is let go).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as sent, below `/geoserver`.
    pub(crate) path: String,
    pub(crate) status: u16,
}

struct State {
    options: Options,
    catalog: Mutex<Catalog>,
    /// GeoServer holds one read/write lock over all of `/rest`.
    rest: RwLock<()>,
    log: Mutex<Vec<Request>>,
    pace: Mutex<Pace>,
    fail: Mutex<(usize, u16)>,
    fail_on: Mutex<Option<&'static str>>,
    hang: watch::Sender<bool>,
}

impl State {
    fn cat(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Running {
    halt: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// The double; it stops when it is dropped.
pub(crate) struct GeoServerDouble {
    state: Arc<State>,
    address: SocketAddr,
    running: Mutex<Option<Running>>,
}

impl GeoServerDouble {
    /// An empty GeoServer 2.26.2 on Jetty, `admin` with the password `geoserver`.
    pub(crate) fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub(crate) fn start_with(options: Options) -> Self {
        let state = Arc::new(State {
            options,
            catalog: Mutex::new(Catalog::fresh()),
            rest: RwLock::new(()),
            log: Mutex::default(),
            pace: Mutex::default(),
            fail: Mutex::default(),
            fail_on: Mutex::default(),
            hang: watch::Sender::new(false),
        });
        let (running, address) = serve(&state, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self { state, address, running: Mutex::new(Some(running)) }
    }

    /// `http://127.0.0.1:PORT/geoserver`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/geoserver", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.state.log).clone()
    }

    pub(crate) fn clear_requests(&self) {
        lock(&self.state.log).clear();
    }

    /// Requests other than GET, on REST and GWC.
    pub(crate) fn writes(&self) -> usize {
        lock(&self.state.log).iter().filter(|request| request.method != "GET").count()
    }

    /// Closes the port and all connections; what was published stays.
    pub(crate) fn stop(&self) {
        if let Some(running) = lock(&self.running).take() {
            let _ = running.halt.send(());
            let _ = running.thread.join();
        }
    }

    /// Listens again on the same port.
    pub(crate) fn resume(&self) {
        let mut running = lock(&self.running);
        if running.is_none() {
            *running = Some(serve(&self.state, self.address).0);
        }
    }

    /// While on, requests are taken and not answered; they go on when it is turned off.
    pub(crate) fn hang(&self, on: bool) {
        self.state.hang.send_replace(on);
    }

    /// Answers the next requests with this status and an empty text, without doing anything.
    pub(crate) fn fail_next(&self, requests: usize, status: u16) {
        *lock(&self.state.fail) = (requests, status);
    }

    /// Answers requests whose path holds this with 500 from now on, without doing anything; with nothing no more.
    pub(crate) fn fail_on(&self, part: Option<&'static str>) {
        *lock(&self.state.fail_on) = part;
    }

    /// The administrator's password from now on.
    pub(crate) fn set_password(&self, password: &str) {
        if let Some(admin) = self.state.cat().users.get_mut("admin") {
            admin.password = password.to_owned();
        }
    }

    /// Where `security/layers.properties` is; who writes it there is obeyed.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.state.cat().data_dir.path()
    }

    /// Whether files of the data directory can be read and written by REST.
    pub(crate) fn allow_resources(&self, allowed: bool) {
        self.state.cat().data_dir.resources = allowed;
    }

    /// So many changes of `layers.properties` are not seen, as when one comes while the file is read.
    pub(crate) fn miss_rules(&self, changes: usize) {
        self.state.cat().data_dir.missed = changes;
    }

    /// A user without the administrator's role.
    pub(crate) fn add_user(&self, name: &str, password: &str, roles: &[&str]) {
        let roles = roles.iter().map(|&role| role.to_owned()).collect();
        let user = User { password: password.to_owned(), enabled: true, roles, groups: vec![] };
        self.state.cat().users.insert(name.to_owned(), user);
    }

    /// Every write takes this long, holding the lock.
    pub(crate) fn delay(&self, write: Duration) {
        let read = Duration::ZERO;
        self.pace(Pace { read, create_type: write, style: write, write, tile_layer: write, no_tile_layer: write });
    }

    /// Every mass truncation starts a task that is reported running so often, and then in the state `end`: 2 for
    /// done, -1 for aborted.
    pub(crate) fn slow_truncations(&self, running: usize, end: i64) {
        self.state.cat().gwc.slow_truncations(running, end);
    }

    pub(crate) fn pace(&self, pace: Pace) {
        *lock(&self.state.pace) = pace;
    }
}

impl Drop for GeoServerDouble {
    fn drop(&mut self) {
        self.state.hang.send_replace(false);
        self.stop();
    }
}

fn serve(state: &Arc<State>, address: SocketAddr) -> (Running, SocketAddr) {
    let (halt, halted) = oneshot::channel();
    let (listening, ready) = std::sync::mpsc::channel();
    let state = Arc::clone(state);
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(address).await.expect("a port of the loopback interface");
            listening.send(listener.local_addr().expect("an address")).expect("the test waits for the address");
            let app = axum::Router::new().fallback(move |request: HttpRequest| take(Arc::clone(&state), request));
            tokio::select! {
                served = axum::serve(listener, app) => served.expect("serving"),
                _ = halted => {}
            }
        });
        // Ends what is still open as well, as a server that goes down does.
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    let address = ready.recv().expect("the server thread listens");
    (Running { halt, thread }, address)
}

async fn take(state: Arc<State>, request: HttpRequest) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.map(|bytes| bytes.to_vec()).unwrap_or_default();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let host = headers.iter().find(|(name, _)| name == "host").map(|(_, host)| host.clone()).unwrap_or_default();
    let path = parts.uri.path();
    let raw_query = parts.uri.query().unwrap_or_default().to_owned();
    let mut req = Req {
        method: parts.method.as_str().to_owned(),
        raw_path: path.strip_prefix("/geoserver").unwrap_or(path).to_owned(),
        query: url::form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect(),
        raw_query,
        headers,
        body,
        base: format!("http://{host}/geoserver"),
        flavour: state.options.flavour,
        version: state.options.version,
        user: None,
    };
    let head = req.method == "HEAD";
    if head && req.version == Version::V2_18 {
        // The older version lets HEAD through to the handlers of GET.
        "GET".clone_into(&mut req.method);
    }
    let mut hang = state.hang.subscribe();
    let _ = hang.wait_for(|on| !on).await;
    let outside = !path.starts_with("/geoserver/");
    data_dir::watch(&mut state.cat());
    let answer = if outside { Err(Fault::Unmapped) } else { answer(&state, &mut req).await };
    data_dir::keep(&mut state.cat());
    let mut reply = answer.unwrap_or_else(|fault| http::render(&req, fault));
    if head {
        reply.body.clear();
    }
    let query = if req.raw_query.is_empty() { String::new() } else { format!("?{}", req.raw_query) };
    lock(&state.log).push(Request {
        method: req.method.clone(),
        path: format!("{}{query}", req.raw_path),
        status: reply.status,
    });
    let mut response = Response::builder().status(reply.status).header("X-Frame-Options", "SAMEORIGIN");
    for (name, value) in &reply.headers {
        response = response.header(name, http::latin1(value));
    }
    response.body(Body::from(reply.body)).expect("names and values of headers are well-formed")
}

async fn answer(state: &State, req: &mut Req) -> Result<Reply, Fault> {
    if let Some(reply) = http::firewall(req) {
        return Ok(reply);
    }
    {
        let mut fail = lock(&state.fail);
        if fail.0 > 0 {
            fail.0 -= 1;
            return Err(Fault::Text(fail.1, String::new()));
        }
    }
    if lock(&state.fail_on).is_some_and(|part| req.raw_path.contains(part)) {
        return Err(Fault::Text(500, String::new()));
    }
    req.user = security::log_in(state, req)?;
    let segments = req.segments();
    match segments.first().map(String::as_str) {
        Some("rest") => {
            security::administrator(state, req)?;
            rest::answer(state, req).await
        }
        Some("gwc") if segments.get(1).is_some_and(|part| part == "rest") => {
            security::administrator(state, req)?;
            let pace = lock(&state.pace).of(req);
            tokio::time::sleep(pace).await;
            gwc::answer(state, req)
        }
        Some("gwc") => gwc::service(state, req),
        _ => wms::answer(state, req, &segments).await,
    }
}
