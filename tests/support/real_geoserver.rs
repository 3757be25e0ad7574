//! A real GeoServer, when the environment names one.
//!
//! - `GEOSERVER_TEST_URL`: one that runs, as in `http://127.0.0.1:18080/geoserver`, with
//!   `GEOSERVER_TEST_USERNAME` and `GEOSERVER_TEST_PASSWORD` (admin, geoserver). When
//!   `GEOSERVER_TEST_DATA_DIR` names its data directory too, tests may change what it has only once,
//!   such as its access rules.
//! - `GEOSERVER_HOME`: an unpacked binary distribution (the directory that holds `start.jar`). The
//!   first test starts it on a free port with a data directory of its own, the others share it, and
//!   it ends with the test process. Needs Java on `PATH`.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// How long GeoServer may take to start.
const START_LIMIT: Duration = Duration::from_secs(180);

/// A GeoServer has one set of access rules: tests that change it run one after the other. Each double is its test's own.
static RULES: Mutex<()> = Mutex::const_new(());

/// Waits until no other test changes the access rules of the real GeoServer, when there is one.
pub(crate) async fn rules_alone() -> Option<MutexGuard<'static, ()>> {
    if RealGeoServer::from_env().await.is_some() { Some(RULES.lock().await) } else { None }
}

/// A GeoServer that answers, and its administrator.
#[derive(Debug, Clone)]
pub(crate) struct RealGeoServer {
    url: String,
    username: String,
    password: String,
    data_dir: Option<PathBuf>,
}

impl RealGeoServer {
    /// The GeoServer that the environment names, started if need be.
    pub(crate) async fn from_env() -> Option<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(url) = set("GEOSERVER_TEST_URL") {
            return Some(Self {
                url: url.trim_end_matches('/').to_owned(),
                username: set("GEOSERVER_TEST_USERNAME").unwrap_or_else(|| "admin".into()),
                password: set("GEOSERVER_TEST_PASSWORD").unwrap_or_else(|| "geoserver".into()),
                data_dir: set("GEOSERVER_TEST_DATA_DIR").map(PathBuf::from),
            });
        }
        static STARTED: OnceCell<RealGeoServer> = OnceCell::const_new();
        let home = set("GEOSERVER_HOME")?;
        Some(STARTED.get_or_init(|| Self::start(home)).await.clone())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Its data directory, when the tests have it to themselves.
    pub(crate) fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    async fn start(home: String) -> Self {
        /// Keeps the running GeoServer's guard until the process ends.
        static RUNNING: std::sync::Mutex<Option<Guard>> = std::sync::Mutex::new(None);
        let dir = tempfile::Builder::new().prefix("borg-geoserver-").tempdir().unwrap().keep();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self {
            url: format!("http://127.0.0.1:{port}/geoserver"),
            username: "admin".into(),
            password: "geoserver".into(),
            data_dir: Some(dir.join("data")),
        };
        // On the first start with an empty data directory the administrator is refused.
        let first = Guard::start(Path::new(&home), &dir, port, false);
        server.wait(&dir, |status| status == 200 || status == 403).await;
        first.end();
        let guard = Guard::start(Path::new(&home), &dir, port, true);
        server.wait(&dir, |status| status == 200).await;
        *RUNNING.lock().unwrap() = Some(guard);
        server
    }

    async fn wait(&self, dir: &Path, ready: impl Fn(u16) -> bool) {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let url = format!("{}/rest/about/version.json", self.url);
        let started = Instant::now();
        loop {
            let answer = http.get(&url).basic_auth(&self.username, Some(&self.password)).send().await;
            if answer.is_ok_and(|answer| ready(answer.status().as_u16())) {
                return;
            }
            assert!(
                started.elapsed() < START_LIMIT,
                "GeoServer does not start:\n{}",
                std::fs::read_to_string(dir.join("log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// Ends GeoServer when its own standard input ends, that is when the test process has ended in
/// whatever way.
struct Guard(Child);

impl Guard {
    /// Starts GeoServer; `last` removes the directory after it.
    fn start(home: &Path, dir: &Path, port: u16, last: bool) -> Self {
        let script = r#"
            exec 3<&0
            cd "$1" || exit 1
            mkdir -p "$2/data" "$2/tmp"
            java -Xmx800m -Djava.awt.headless=true -Djava.io.tmpdir="$2/tmp" -DGEOSERVER_DATA_DIR="$2/data" \
                -jar start.jar jetty.http.host=127.0.0.1 jetty.http.port="$3" </dev/null >>"$2/log" 2>&1 3<&- &
            cat <&3 >/dev/null
            kill $!
            wait $!
            [ "$4" = last ] && rm -rf "$2"
        "#;
        // In a session of its own: ^C on the tests shall not end the guard before its work.
        #[expect(clippy::disallowed_methods, reason = "services of tests outlive the call that starts them")]
        let child = Command::new("setsid")
            .args(["sh", "-c", script, "geoserver"])
            .arg(home)
            .arg(dir)
            .arg(port.to_string())
            .arg(if last { "last" } else { "first" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
