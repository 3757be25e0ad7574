//! Which address gives what, and what goes with every answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jiff::Timestamp;
use maud::Markup;
use serde::{Deserialize, Serialize};

use super::access::{Door, Refusal};
use super::metrics::Now;
use super::monitor::seconds;
use super::previews::{Picture, Shelf};
use super::query::{Asked, JobQuery, job_address};
use super::site::{Reading, Site};
use super::verdict::{Verdict, unready};
use super::{json, pages};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::journal::{JobRecord, Journal, Listed, Order, Page, Report, Selection, State as JobState};

/// How long making an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How many reports stand on a page.
const REPORTS: u32 = 100;

/// How many runs are shown.
const RUNS: u32 = 100;

/// Nothing from elsewhere, no scripts, nobody's frame.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const TEXT: &str = "text/plain; charset=utf-8";
const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("favicon.svg");
const OPENAPI: &str = include_str!("openapi.json");

type Shared = State<Arc<Site>>;

/// What stands behind the `?`, if it can be understood.
type Behind<T> = Result<Query<T>, QueryRejection>;

/// The job file that an address names, if it can be read.
type JobFile = Result<Path<String>, PathRejection>;

pub(super) fn router(site: &Arc<Site>, door: &Arc<Door>) -> Router {
    let guarded = Router::new()
        .route("/", get(overview))
        .route("/jobs", get(jobs))
        .route("/jobs/{*job_file}", get(job))
        .route("/reports", get(reports))
        .route("/runs", get(runs))
        .route("/gallery", get(gallery))
        .route("/previews/{*job_file}", get(preview))
        .route("/metrics", get(metrics))
        .route("/api/status", get(api_status))
        .route("/api/jobs", get(api_jobs))
        .route("/api/jobs/{*job_file}", get(api_job))
        .route("/api/runs", get(api_runs))
        .route("/api/reports", get(api_reports))
        .route("/api/previews", get(api_previews))
        .route("/api/openapi.json", get(async || lasting("application/json", OPENAPI)))
        .route("/style.css", get(async || lasting("text/css; charset=utf-8", STYLE)))
        .route("/favicon.svg", get(async || lasting("image/svg+xml", ICON)))
        .fallback(nowhere)
        .layer(middleware::from_fn_with_state(Arc::clone(door), guard));
    Router::new()
        .route("/healthz", get(async || with_type(TEXT, "alive\n")))
        .route("/readyz", get(ready))
        .merge(guarded)
        .layer(middleware::from_fn(dress))
        .with_state(Arc::clone(site))
}

/// Lets in who may see the page.
async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    match door.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refusal::Token) => {
            let text =
                "The token is missing or wrong: send `Authorization: Bearer <STATUS_TOKEN>`, or give it as password.\n";
            let mut answer = (StatusCode::UNAUTHORIZED, with_type(TEXT, text)).into_response();
            let challenge = HeaderValue::from_static("Basic realm=\"borg-slave\", charset=\"UTF-8\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            answer
        }
        Err(Refusal::Host) => {
            let text = "Without STATUS_TOKEN only requests to localhost or 127.0.0.1 are answered. A proxy has to send that as Host.\n";
            (StatusCode::FORBIDDEN, with_type(TEXT, text)).into_response()
        }
    }
}

/// Answers only what reads, in time, and adds the headers that every answer has.
async fn dress(request: Request, next: Next) -> Response {
    let mut answer = if matches!(*request.method(), Method::GET | Method::HEAD) {
        match tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await {
            Ok(answer) => answer,
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, with_type(TEXT, "The answer takes too long; try again.\n"))
                .into_response(),
        }
    } else {
        let refusal = (StatusCode::METHOD_NOT_ALLOWED, with_type(TEXT, "This page can only be read.\n"));
        let mut answer = refusal.into_response();
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        answer
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

/// Why there is no page.
pub(super) enum Trouble {
    /// There is nothing of that name.
    Missing(String),
    /// What was asked for cannot be.
    Asked(String),
    /// It cannot be made.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<QueryRejection> for Trouble {
    fn from(rejection: QueryRejection) -> Self {
        Self::Asked(rejection.body_text())
    }
}

impl From<PathRejection> for Trouble {
    fn from(rejection: PathRejection) -> Self {
        Self::Asked(rejection.body_text())
    }
}

impl Trouble {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Asked(_) => StatusCode::BAD_REQUEST,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Missing(text) | Self::Asked(text) => text.clone(),
            Self::Failed(error) => error.one_line(),
        }
    }
}

fn html(site: &Site, page: Result<Markup, Trouble>) -> Response {
    let (status, page) = match page {
        Ok(page) => (StatusCode::OK, page),
        Err(trouble) => (trouble.status(), pages::trouble(&site.about(), &trouble)),
    };
    (status, with_type("text/html; charset=utf-8", page.into_string())).into_response()
}

#[derive(Serialize)]
struct Refused {
    error: String,
}

fn document(made: Result<String, Trouble>) -> Response {
    let (status, text) = match made {
        Ok(text) => (StatusCode::OK, text),
        Err(trouble) => {
            let text = serde_json::to_string(&Refused { error: trouble.text() }).unwrap_or_default();
            (trouble.status(), text)
        }
    };
    (status, with_type("application/json", text + "\n")).into_response()
}

fn text_of(document: &impl Serialize) -> Result<String> {
    serde_json::to_string(document).context(ErrorKind::Bug, "the document cannot be written as JSON")
}

fn with_type(media_type: &'static str, body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(media_type))], body.into()).into_response()
}

/// What only another version of the program changes.
fn lasting(media_type: &'static str, text: &'static str) -> Response {
    let mut answer = with_type(media_type, text);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    answer
}

async fn nowhere(State(site): Shared, request: Request) -> Response {
    let trouble = Err(Trouble::Missing("There is no such page.".to_owned()));
    if request.uri().path().starts_with("/api/") {
        document(trouble.map(|_: Markup| String::new()))
    } else {
        html(&site, trouble)
    }
}

async fn ready(State(site): Shared) -> Response {
    let readable = site.read(|reading| reading.journal.as_ref().map(Journal::cursor).transpose()).await.is_ok();
    match unready(&site.monitor.life(), readable, Instant::now()) {
        None => with_type(TEXT, "ready\n"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, with_type(TEXT, format!("not ready: {why}\n"))).into_response(),
    }
}

async fn overview(State(site): Shared) -> Response {
    let page = site.read(|reading| {
        let overview = reading.overview(5)?;
        let failed = Page { states: &[JobState::Failed, JobState::Interrupted], most: 5, ..Page::default() };
        let running = Page { states: &[JobState::Running], most: 5, ..Page::default() };
        let (failed, running) = (listed(reading, &failed)?, listed(reading, &running)?);
        Ok(pages::overview(&pages::Frame::of(reading), &overview, &failed, &running))
    });
    html(&site, page.await.map_err(Trouble::from))
}

fn listed(reading: &Reading, page: &Page<'_>) -> Result<Listed> {
    reading.journal.as_ref().map_or_else(|| Ok(Listed::default()), |journal| journal.page(page))
}

fn listed_as(reading: &Reading, query: &JobQuery) -> Result<Listed> {
    let JobQuery { states, search, order, per_page, .. } = query;
    listed(reading, &Page { states, search, order: *order, skip: query.skip(), most: *per_page })
}

fn asked_jobs(asked: Behind<Asked>) -> Result<JobQuery, Trouble> {
    JobQuery::try_from(asked?.0).map_err(Trouble::Asked)
}

async fn jobs(State(site): Shared, asked: Behind<Asked>) -> Response {
    let query = match asked_jobs(asked) {
        Ok(query) => query,
        Err(trouble) => return html(&site, Err(trouble)),
    };
    let page = site.read(move |reading| {
        let listed = listed_as(reading, &query)?;
        let counts = reading.journal.as_ref().map(Journal::counts).transpose()?.unwrap_or_default();
        Ok(pages::jobs(&pages::Frame::of(reading), &query, &listed, &counts))
    });
    html(&site, page.await.map_err(Trouble::from))
}

async fn api_jobs(State(site): Shared, asked: Behind<Asked>) -> Response {
    let query = match asked_jobs(asked) {
        Ok(query) => query,
        Err(trouble) => return document(Err(trouble)),
    };
    let text = site.read(move |reading| {
        let Listed { jobs, found } = listed_as(reading, &query)?;
        let jobs = jobs.iter().map(json::Job::from).collect();
        text_of(&json::Jobs { found, page: query.page, pages: query.pages(found), jobs })
    });
    document(text.await.map_err(Trouble::from))
}

/// What is known of a job; the caller is told when that is nothing.
fn known(reading: &Reading, job_file: &str) -> Result<Result<JobRecord, Trouble>> {
    let job = reading.journal.as_ref().map(|journal| journal.job(job_file)).transpose()?.flatten();
    Ok(job.ok_or_else(|| Trouble::Missing(format!("Nothing is known of {job_file}."))))
}

async fn job(State(site): Shared, job_file: JobFile) -> Response {
    let job_file = match job_file {
        Ok(Path(job_file)) => job_file,
        Err(rejection) => return html(&site, Err(rejection.into())),
    };
    let page = site.read(move |reading| {
        let picture = Shelf::new(&reading.about).picture(&job_file);
        Ok(known(reading, &job_file)?.map(|job| pages::job(&pages::Frame::of(reading), &job, picture.as_ref())))
    });
    html(&site, page.await.unwrap_or_else(|error| Err(error.into())))
}

async fn api_job(State(site): Shared, job_file: JobFile) -> Response {
    let job_file = match job_file {
        Ok(Path(job_file)) => job_file,
        Err(rejection) => return document(Err(rejection.into())),
    };
    let text = site.read(move |reading| match known(reading, &job_file)? {
        Ok(job) => Ok(Ok(text_of(&json::Job::from(&job))?)),
        Err(trouble) => Ok(Err(trouble)),
    });
    document(text.await.unwrap_or_else(|error| Err(error.into())))
}

async fn api_status(State(site): Shared) -> Response {
    let text = site.read(|reading| {
        let (overview, now) = (reading.overview(1)?, Timestamp::now());
        let verdict = Verdict::of(&overview, Instant::now());
        text_of(&json::Status::of(&reading.about, &overview, &verdict, now))
    });
    document(text.await.map_err(Trouble::from))
}

async fn runs(State(site): Shared) -> Response {
    let page = site.read(|reading| Ok(pages::runs(&pages::Frame::of(reading), &reading.overview(RUNS)?.runs)));
    html(&site, page.await.map_err(Trouble::from))
}

async fn api_runs(State(site): Shared) -> Response {
    let text = site.read(|reading| {
        let overview = reading.overview(RUNS)?;
        text_of(&json::Runs { runs: overview.runs.iter().map(json::Run::from).collect() })
    });
    document(text.await.map_err(Trouble::from))
}

/// Which reports are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    #[serde(default)]
    after: i64,
}

/// A page of reports, and after which one the next page begins.
fn reports_after(reading: &Reading, after: i64) -> Result<(Vec<Report>, Option<i64>)> {
    let Some(journal) = &reading.journal else { return Ok((Vec::new(), None)) };
    let mut reports = journal.reports(after, REPORTS + 1)?;
    let is_more = reports.len() > REPORTS as usize;
    reports.truncate(REPORTS as usize);
    let next = reports.last().filter(|_| is_more).map(|report| report.id);
    Ok((reports, next))
}

async fn reports(State(site): Shared, asked: Behind<After>) -> Response {
    let after = match asked {
        Ok(Query(After { after })) => after,
        Err(rejection) => return html(&site, Err(rejection.into())),
    };
    let page = site.read(move |reading| {
        let backlog = reading.journal.as_ref().map(Journal::backlog).transpose()?.flatten();
        let (reports, next) = reports_after(reading, after)?;
        Ok(pages::reports(&pages::Frame::of(reading), backlog.as_ref(), &reports, next))
    });
    html(&site, page.await.map_err(Trouble::from))
}

async fn api_reports(State(site): Shared, asked: Behind<After>) -> Response {
    let after = match asked {
        Ok(Query(After { after })) => after,
        Err(rejection) => return document(Err(rejection.into())),
    };
    let text = site.read(move |reading| {
        let (reports, next_after) = reports_after(reading, after)?;
        text_of(&json::ReportPage { next_after, reports: reports.iter().map(json::Waiting::from).collect() })
    });
    document(text.await.map_err(Trouble::from))
}

/// The jobs that have a picture, of one page, and how many there are on all.
fn pictures(reading: &Reading, query: &JobQuery) -> Result<(Vec<pages::Tile>, u64)> {
    let Some(journal) = &reading.journal else { return Ok((Vec::new(), 0)) };
    let mut shelf = Shelf::new(&reading.about);
    let files = journal.files(&Page { states: &query.states, search: &query.search, ..Page::default() })?;
    let mut drawn: Vec<(String, Picture)> =
        files.into_iter().filter_map(|file| shelf.picture(&file).map(|picture| (file, picture))).collect();
    if query.order == Order::Newest {
        drawn.sort_by_key(|(_, picture)| std::cmp::Reverse(picture.drawn));
    }
    let found = u64::try_from(drawn.len()).unwrap_or(u64::MAX);
    let skip = usize::try_from(query.skip()).unwrap_or(usize::MAX);
    let shown: Vec<(String, Picture)> = drawn.into_iter().skip(skip).take(query.per_page as usize).collect();
    if shown.is_empty() {
        return Ok((Vec::new(), found));
    }
    let files: Vec<String> = shown.iter().map(|(file, _)| file.clone()).collect();
    let jobs = journal.jobs(Selection { files: &files, ..Selection::default() })?;
    let mut jobs: HashMap<String, JobRecord> = jobs.into_iter().map(|job| (job.job_file.clone(), job)).collect();
    let tile = |(file, picture): (String, Picture)| jobs.remove(&file).map(|job| pages::Tile { job, picture });
    Ok((shown.into_iter().filter_map(tile).collect(), found))
}

async fn gallery(State(site): Shared, asked: Behind<Asked>) -> Response {
    let query = match asked_jobs(asked) {
        Ok(query) => query,
        Err(trouble) => return html(&site, Err(trouble)),
    };
    let page = site.read(move |reading| {
        let (tiles, found) = pictures(reading, &query)?;
        Ok(pages::gallery(&pages::Frame::of(reading), &query, &tiles, found))
    });
    html(&site, page.await.map_err(Trouble::from))
}

async fn api_previews(State(site): Shared, asked: Behind<Asked>) -> Response {
    let query = match asked_jobs(asked) {
        Ok(query) => query,
        Err(trouble) => return document(Err(trouble)),
    };
    let text = site.read(move |reading| {
        let (tiles, found) = pictures(reading, &query)?;
        let preview = |tile: &pages::Tile| json::Preview {
            job_file: tile.job.job_file.clone(),
            picture: job_address("/previews", &tile.job.job_file),
            drawn: tile.picture.drawn,
        };
        let previews = tiles.iter().map(preview).collect();
        text_of(&json::Previews { found, page: query.page, pages: query.pages(found), previews })
    });
    document(text.await.map_err(Trouble::from))
}

async fn preview(State(site): Shared, job_file: JobFile) -> Response {
    let job_file = match job_file {
        Ok(Path(job_file)) => job_file,
        Err(rejection) => return html(&site, Err(rejection.into())),
    };
    let content = site.read(move |reading| {
        let picture = known(reading, &job_file)?.ok().and_then(|_| Shelf::new(&reading.about).picture(&job_file));
        let Some(picture) = picture else { return Ok(None) };
        Ok(picture.read()?.map(|content| (picture.media_type, content)))
    });
    match content.await {
        Ok(Some((media_type, content))) => {
            let mut answer = with_type(media_type, content);
            let headers = answer.headers_mut();
            // A picture may be one that runs scripts when it is opened by itself.
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=60"));
            answer
        }
        Ok(None) => html(&site, Err(Trouble::Missing("There is no such preview.".to_owned()))),
        Err(error) => html(&site, Err(error.into())),
    }
}

async fn metrics(State(site): Shared) -> Response {
    let overview = site.read(|reading| reading.overview(0)).await;
    let text = overview.and_then(|overview| {
        let (life, backlog) = (&overview.life, overview.backlog.as_ref());
        site.monitor.metrics().text(&Now {
            jobs: JobState::ALL.iter().map(|state| (state.as_str(), overview.count(*state))).collect(),
            reports: backlog.map_or((0, 0), |backlog| (backlog.count, backlog.refused)),
            oldest_report: backlog.map(|backlog| seconds(backlog.since)),
            last_round: life.last_round.as_ref().map(|round| seconds(round.ended)),
            last_pull: life.last_pull.map(seconds),
            lag: life.lag(Timestamp::now()).as_secs_f64(),
        })
    });
    match text {
        Ok(text) => with_type("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, with_type(TEXT, error.one_line() + "\n")).into_response(),
    }
}
