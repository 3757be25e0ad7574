//! The page as callers see it, over real connections.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode};
use secrecy::SecretString;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::journal::{JobOutcome, Journal, NewJob, NewReport, RunOutcome, RunSummary, State, StepOutcome, StepRecord};

const ODD: &str = "geoserver/layers/ws.<script>alert('x')</script> & \"道路\".json";
const HTML: &str = "text/html; charset=utf-8";
const TOKEN: &str = "0123456789abcdef";

/// A page over a journal, and a client.
struct Stand {
    dir: tempfile::TempDir,
    monitor: Arc<Monitor>,
    page: StatusPage,
    options: Options,
    http: Client,
}

fn options(dir: &Path, listen: SocketAddr, token: Option<&str>) -> Options {
    Options {
        listen,
        token: token.map(SecretString::from),
        about: About {
            slave_name: "slave <1>".into(),
            clone: "/opt/state".into(),
            channels: vec!["geoserver".into()],
            geoservers: vec!["http://gs:8080/geoserver".into()],
            master: Some("database m at master:5432".into()),
            status_path: dir.to_owned(),
            preview_path: dir.join("previews"),
        },
    }
}

/// A port that nobody listens on.
async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl Stand {
    async fn start(token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), free().await, token);
        let monitor = Arc::new(Monitor::default());
        let page = StatusPage::start(Some(options.clone()), Arc::clone(&monitor)).unwrap();
        Self { dir, monitor, page, options, http: Client::builder().no_proxy().build().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.options.listen)
    }

    async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }

    /// A journal with a job in each of three states, a run, a report, and a preview.
    fn fill(&self) {
        let journal = Journal::open(self.dir.path()).unwrap();
        let run = journal.start_run("poll", Some("0000"), Some("abcdef0123456789")).unwrap();
        let failure = "ws.<b>: GeoServer answers 500: <html><script>alert(1)</script></html>";
        for (job_file, state, message) in [
            ("geoserver/layers/ws.roads.json", State::Succeeded, None),
            (ODD, State::Failed, Some(failure)),
            ("geoserver/wms_layers/ws.sky.json", State::Filtered, Some("job.workspace != \"ws\"")),
        ] {
            let job = NewJob {
                content_md5: "d41d8cd98f00b204e9800998ecf8427e".into(),
                revision: "abcdef0123456789".into(),
                job_id: Some(7),
                job_batch_id: Some("20161105_0100".into()),
                ..NewJob::of_file(job_file)
            };
            journal.begin_job(&job).unwrap();
            let step = StepRecord {
                step: "store".into(),
                target: Some("http://gs:8080/geoserver".into()),
                outcome: if state == State::Failed { StepOutcome::Failed } else { StepOutcome::Done },
                message: message.map(str::to_owned),
                started: jiff::Timestamp::now(),
                duration_ms: 1234,
            };
            journal.record_step(job_file, &step).unwrap();
            let hint = (state == State::Failed).then(|| "look at <GeoServer's> log".to_owned());
            let message = message.map(|message| format!("{job_file}: {message}"));
            journal.finish_job(job_file, &JobOutcome { message, hint, ..JobOutcome::plain(state) }).unwrap();
        }
        let summary = RunSummary {
            outcome: RunOutcome::Failed,
            succeeded: 1,
            failed: 1,
            unchanged: 0,
            message: Some("<i>".into()),
        };
        journal.finish_run(run, &summary).unwrap();
        journal.set_cursor("abcdef0123456789").unwrap();
        let report = NewReport { subject: "publish/<u>/failed".into(), payload: "{}".into(), voids: Vec::new() };
        journal.put_reports(&[report]).unwrap();
        journal.reports_failed("connection <refused>").unwrap();
        let previews = self.dir.path().join("previews/slave <1>/geoserver/ws");
        std::fs::create_dir_all(&previews).unwrap();
        std::fs::write(previews.join("roads.png"), b"\x89PNG").unwrap();
        // Of a layer that the journal does not know.
        std::fs::write(previews.join("stranger.png"), b"\x89PNG").unwrap();
    }
}

#[tokio::test]
async fn nothing_that_a_job_file_brings_becomes_markup() {
    let stand = Stand::start(None).await;
    stand.fill();
    let odd = query::job_address("/jobs", ODD);
    for path in
        ["/", "/jobs", "/jobs?q=%3Cscript%3E", odd.as_str(), "/reports", "/runs", "/gallery", "/gallery?q=%3Cb%3E"]
    {
        let answer = stand.get(path).await;
        let header = |name| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            (answer.status(), header(CONTENT_TYPE)),
            (StatusCode::OK, "text/html; charset=utf-8".into()),
            "{path}"
        );
        assert!(header(CONTENT_SECURITY_POLICY).starts_with("default-src 'none'"), "{path}");
        let text = answer.text().await.unwrap();
        for markup in
            ["<script", "<b>", "<u>", "<i>", "<1>", "<refused>", "<GeoServer", "style=", "http-equiv=\"refresh\" url"]
        {
            assert!(!text.contains(markup), "{markup} in {path}:\n{text}");
        }
    }
    let job = stand.text(&odd).await;
    assert!(job.contains("ws.&lt;b&gt;: GeoServer answers 500: &lt;html&gt;&lt;script&gt;alert(1)"), "{job}");
    assert!(job.contains("道路") && job.contains("look at &lt;GeoServer's&gt; log") && job.contains("1.2 s"), "{job}");
    let jobs = stand.text("/jobs?state=failed,interrupted").await;
    assert!(jobs.contains("1 job") && jobs.contains("道路") && !jobs.contains("ws.roads"), "{jobs}");
    assert!(stand.text("/").await.contains("1 job is not applied"));
    assert_eq!(stand.get("/jobs/geoserver/layers/ws.unknown.json").await.status(), 404);
    for asked in ["/jobs?state=broken", "/jobs?page=x", "/reports?after=x", "/gallery?foo=1", "/jobs/%FF"] {
        let answer = stand.get(asked).await;
        assert_eq!(
            (answer.status(), &answer.headers()[CONTENT_TYPE]),
            (StatusCode::BAD_REQUEST, &HeaderValue::from_static(HTML)),
            "{asked}"
        );
    }
    stand.page.end().await;
}

#[tokio::test]
async fn the_description_of_the_interface_is_true() {
    let stand = Stand::start(None).await;
    stand.fill();
    stand.monitor.round_begins("start");
    stand.monitor.round_ended(Some(PullEnd::Unreachable("down".into())), PassEnd::Incomplete);
    let description = stand.json("/api/openapi.json").await;
    let paths: BTreeSet<&str> = description["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let routes: BTreeSet<&str> = include_str!("routes.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next())
        .filter(|route| {
            ["/api/", "/previews", "/metrics", "/healthz", "/readyz"].iter().any(|root| route.starts_with(root))
        })
        .collect();
    let routes: BTreeSet<String> = routes.into_iter().map(|route| route.replace("{*", "{")).collect();
    assert_eq!(paths.iter().copied().collect::<Vec<_>>(), routes.iter().map(String::as_str).collect::<Vec<_>>());
    let mut met = BTreeSet::new();
    for path in paths {
        let answers = &description["paths"][path]["get"]["responses"];
        let Some(schema) = answers["200"]["content"].get("application/json").map(|content| &content["schema"]) else {
            continue;
        };
        let address = query::job_address("", ODD);
        let found = stand.json(&path.replace("/{job_file}", &address)).await;
        check(&description, schema, &found, path, &mut met);
    }
    // Whoever finds out that it cannot be answered.
    for asked in ["jobs?state=x", "jobs?page=x", "previews?foo=1", "reports?after=x", "reports?%FF=1", "jobs/%FF"] {
        let answer = stand.get(&format!("/api/{asked}")).await;
        let said = (answer.status().as_u16(), answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned());
        assert_eq!(said, (400, "application/json".to_owned()), "{asked}");
        let error: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        check(&description, &description["components"]["schemas"]["Trouble"], &error, asked, &mut met);
    }
    met.insert("Trouble".into());
    let known: BTreeSet<String> = description["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(met, known, "every schema was met in an answer");
    stand.page.end().await;
}

/// Compares a document with its schema: the same fields, of the types and among the words that it names.
fn check(description: &Value, schema: &Value, found: &Value, place: &str, met: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/components/schemas/")) {
        met.insert(name.to_owned());
        return check(description, &description["components"]["schemas"][name], found, place, met);
    }
    if let Some(choice) = schema["oneOf"].as_array() {
        assert!(!found.is_null(), "{place} is not filled in this test");
        return check(description, &choice[0], found, place, met);
    }
    let is_of = |name: &Value| match name.as_str().unwrap() {
        "object" => found.is_object(),
        "array" => found.is_array(),
        "string" => found.is_string(),
        "integer" => found.is_i64() || found.is_u64(),
        "null" => found.is_null(),
        other => panic!("{place}: type {other}"),
    };
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    assert!(types.iter().any(is_of), "{place}: {found} is no {}", schema["type"]);
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(found), "{place}: {found} is none of {words:?}");
    }
    if schema["format"] == "date-time" && !found.is_null() {
        assert!(found.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{place}: {found}");
    }
    if let (Some(fields), Some(object)) = (schema["properties"].as_object(), found.as_object()) {
        let (described, there): (BTreeSet<_>, BTreeSet<_>) = (fields.keys().collect(), object.keys().collect());
        assert_eq!(described, there, "{place}");
        for (name, field) in fields {
            check(description, field, &object[name], &format!("{place}.{name}"), met);
        }
    }
    if let (Some(items), Some(array)) = (schema.get("items"), found.as_array()) {
        assert!(!array.is_empty(), "{place} is empty in this test");
        array.iter().for_each(|item| check(description, items, item, place, met));
    }
}

#[tokio::test]
async fn without_the_token_only_probes_are_answered_and_they_tell_no_secret() {
    let stand = Stand::start(Some(TOKEN)).await;
    stand.fill();
    for path in ["/", "/jobs", "/api/status", "/api/openapi.json", "/metrics", "/style.css", "/previews/x", "/nowhere"]
    {
        let answer = stand.get(path).await;
        assert_eq!(answer.status(), 401, "{path}");
        assert!(answer.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic "));
        assert!(!answer.text().await.unwrap().contains("slave <1>"));
        let let_in = stand.http.get(stand.url(path)).bearer_auth(TOKEN).send().await.unwrap();
        assert_ne!(let_in.status(), 401, "{path}");
    }
    let browser = stand.http.get(stand.url("/")).basic_auth("me", Some(TOKEN)).send().await.unwrap();
    assert_eq!(browser.status(), 200);
    assert!(!browser.text().await.unwrap().contains(TOKEN));
    assert_eq!(stand.text("/healthz").await, "alive\n");
    let ready = stand.get("/readyz").await;
    assert_eq!(
        (ready.status().as_u16(), ready.text().await.unwrap().as_str()),
        (503, "not ready: no round has begun\n")
    );
    stand.monitor.round_begins("start");
    assert_eq!(stand.text("/readyz").await, "ready\n");
    std::fs::write(stand.dir.path().join("journal.sqlite3"), "no journal").unwrap();
    let ready = stand.get("/readyz").await;
    assert_eq!(
        (ready.status().as_u16(), ready.text().await.unwrap().as_str()),
        (503, "not ready: the journal cannot be read\n")
    );
    stand.page.end().await;
}

#[tokio::test]
async fn it_can_only_be_read_and_only_under_its_own_name() {
    let stand = Stand::start(None).await;
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = stand.http.request(method.clone(), stand.url("/jobs")).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()[ALLOW].to_str().unwrap()),
            (405, "GET, HEAD"),
            "{method}"
        );
    }
    let head = stand.http.head(stand.url("/")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().len()), (200, 0));
    let rebound = stand.http.get(stand.url("/")).header(HOST, "rebound.example").send().await.unwrap();
    assert_eq!(rebound.status(), 403);
    let probe = stand.http.get(stand.url("/healthz")).header(HOST, "rebound.example").send().await.unwrap();
    assert_eq!(probe.status(), 200);
    stand.page.end().await;
}

#[tokio::test]
async fn a_preview_is_served_for_jobs_that_are_known_and_nothing_else_is() {
    let stand = Stand::start(None).await;
    stand.fill();
    let answer = stand.get("/previews/geoserver/layers/ws.roads.json").await;
    assert_eq!(answer.headers()[CONTENT_TYPE], "image/png");
    assert!(answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("sandbox"));
    assert_eq!(answer.bytes().await.unwrap().as_ref(), b"\x89PNG");
    for path in [
        "/previews/geoserver/layers/ws.stranger.json",
        "/previews/slave%20%3C1%3E/geoserver/ws/roads.png",
        "/previews/..%2F..%2Fjournal.sqlite3",
        "/previews/%2Fetc%2Fpasswd",
        "/previews/geoserver/layers/ws.%2e%2e%2f%2e%2e%2fsecret.json",
    ] {
        assert_eq!(stand.get(path).await.status(), 404, "{path}");
    }
    let gallery = stand.text("/gallery").await;
    assert!(
        gallery.contains("1 picture") && gallery.contains("ws.roads") && !gallery.contains("stranger"),
        "{gallery}"
    );
    assert!(
        stand
            .text("/jobs/geoserver/layers/ws.roads.json")
            .await
            .contains("<img src=\"/previews/geoserver/layers/ws.roads.json?")
    );
    stand.page.end().await;
}

#[tokio::test]
async fn it_follows_the_settings_and_stays_when_they_lead_nowhere() {
    let mut stand = Stand::start(None).await;
    let first = stand.options.listen;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = |listen, token| Some(options(stand.dir.path(), listen, token));
    let error = StatusPage::start(place(taken.local_addr().unwrap(), None), Arc::default()).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Io);
    let text = error.paragraph();
    assert!(text.starts_with("Error: STATUS_LISTEN: the status page cannot be served at 127.0.0.1:"), "{text}");
    assert!(text.contains("another process listens there"), "{text}");

    // The new token does not count where nobody has moved to.
    stand.page.follow(place(taken.local_addr().unwrap(), Some(TOKEN)));
    assert_eq!(stand.get("/api/status").await.status(), 200);
    // Another address with the same port, and a token with it.
    let other = SocketAddr::from(([127, 0, 0, 2], first.port()));
    stand.page.follow(place(other, Some(TOKEN)));
    stand.options.listen = other;
    let is_there = async || stand.http.get(stand.url("/healthz")).send().await.is_ok();
    let until = Instant::now() + Duration::from_secs(20);
    while !is_there().await {
        assert!(Instant::now() < until, "it does not move");
    }
    assert_eq!(stand.get("/").await.status(), 401);
    assert!(TcpStream::connect(first).await.is_err(), "the old place is left");
    // Whoever was in the way goes, and nobody says so.
    let mut wanted = options(stand.dir.path(), taken.local_addr().unwrap(), None);
    wanted.about.slave_name = "settled".into();
    stand.page.follow(Some(wanted.clone()));
    let said = async || {
        let asked = stand.http.get(stand.url("/api/status")).bearer_auth(TOKEN);
        asked.send().await.unwrap().text().await.unwrap()
    };
    // What the page is about changes just before it tries to move.
    while !said().await.contains("settled") {
        assert!(Instant::now() < until, "the settings are not followed");
    }
    drop(taken);
    stand.options = wanted;
    let is_there = async || stand.http.get(stand.url("/healthz")).send().await.is_ok();
    while !is_there().await {
        assert!(Instant::now() < until, "it is not tried again");
    }
    assert_eq!(stand.get("/").await.status(), 200);
    stand.page.follow(None);
    while is_there().await {
        assert!(Instant::now() < until, "it does not end");
    }
    stand.page.end().await;
}

#[tokio::test]
async fn callers_who_keep_connections_do_not_keep_it() {
    let stand = Stand::start(None).await;
    let mut silent = TcpStream::connect(stand.options.listen).await.unwrap();
    let mut half = TcpStream::connect(stand.options.listen).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
    // Its connection is kept alive by the client's pool.
    stand.text("/").await;
    let begun = Instant::now();
    stand.page.end().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let mut rest = Vec::new();
    for stream in [&mut silent, &mut half] {
        // Closed or reset, whichever comes first.
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn a_slave_that_has_never_run_has_a_page_too() {
    let stand = Stand::start(None).await;
    for path in ["/", "/jobs", "/jobs?page=7", "/reports", "/runs", "/gallery"] {
        stand.text(path).await;
    }
    assert_eq!(stand.json("/api/jobs").await["found"], 0);
    let metrics = stand.text("/metrics").await;
    assert!(metrics.contains("borg_slave_jobs{state=\"failed\"} 0\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    stand.page.end().await;
}

#[tokio::test]
async fn thousands_of_jobs_come_in_pages() {
    let stand = Stand::start(None).await;
    let journal = Journal::open(stand.dir.path()).unwrap();
    let files: Vec<String> = (0..3000).map(|number| format!("geoserver/layers/ws.layer_{number:04}.json")).collect();
    let jobs: Vec<_> = files
        .iter()
        .map(|job_file| {
            let job = NewJob::of_file(job_file);
            (job, JobOutcome::plain(State::Succeeded))
        })
        .collect();
    journal.settle_jobs(&jobs).unwrap();
    let page = stand.json("/api/jobs?sort=name&page=3&per_page=100").await;
    assert_eq!((page["found"].as_u64(), page["pages"].as_u64()), (Some(3000), Some(30)));
    assert_eq!(page["jobs"][0]["job_file"], files[200].as_str());
    assert_eq!(page["jobs"].as_array().unwrap().len(), 100);
    let shown = stand.text("/jobs?sort=name&page=60").await;
    assert!(shown.contains("layer_2999") && shown.contains("Page 60 of 60"), "{shown}");
    assert!(shown.contains("href=\"/jobs?sort=name&amp;page=59\""), "{shown}");
    let found = stand.json("/api/jobs?q=LAYER_29").await;
    assert_eq!(found["found"], 100);
    stand.page.end().await;
}
