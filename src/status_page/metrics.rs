//! What a monitor collects, in the text format of OpenMetrics, which Prometheus reads.
//!
//! Counters begin anew with the daemon and count what it has done itself; what stands in the journal is
//! read when somebody asks.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::error::{Context, ErrorKind, Result};

/// Upper bounds of step durations, in seconds: a REST call to a restore of hours.
const STEP_SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0];

/// Upper bounds of request durations, in seconds.
const REQUEST_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 120.0];

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    target: String,
    method: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    from: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

/// Makes the histograms of a family.
#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// What is read when somebody asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Now {
    /// Jobs by state.
    pub(super) jobs: Vec<(&'static str, u64)>,
    /// Reports that wait, and those of them that the master has refused.
    pub(super) reports: (u64, u64),
    /// When the oldest report began to wait, in seconds since 1970-01-01.
    pub(super) oldest_report: Option<f64>,
    /// When the last round ended, in seconds since 1970-01-01.
    pub(super) last_round: Option<f64>,
    /// When the master last answered a pull, in seconds since 1970-01-01.
    pub(super) last_pull: Option<f64>,
    /// Seconds since the slave was known to hold all that the master had.
    pub(super) lag: f64,
}

/// The measurements of a daemon.
pub(super) struct Metrics {
    registry: Registry,
    pulls: Family<Outcome, Counter>,
    passes: Family<Outcome, Counter>,
    jobs: Family<JobLabels, Counter>,
    steps: Family<StepLabels, Histogram, Buckets>,
    received: Family<Source, Counter>,
    restored: Counter,
    requests: Family<RequestLabels, Histogram, Buckets>,
    in_state: Family<InState, Gauge>,
    waiting: Gauge,
    refused: Gauge,
    oldest_report: Seconds,
    last_round: Seconds,
    last_pull: Seconds,
    lag: Seconds,
}

impl Metrics {
    pub(super) fn new(begun: f64) -> Self {
        let mut registry = Registry::with_prefix("borg_slave");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", version);
        let start: Seconds = Gauge::default();
        start.set(begun);
        registry.register("start_time_seconds", "When the daemon began, in seconds since 1970-01-01", start);
        let metrics = Self {
            pulls: Family::default(),
            passes: Family::default(),
            jobs: Family::default(),
            steps: Family::new_with_constructor(Buckets(&STEP_SECONDS)),
            received: Family::default(),
            restored: Counter::default(),
            requests: Family::new_with_constructor(Buckets(&REQUEST_SECONDS)),
            in_state: Family::default(),
            waiting: Gauge::default(),
            refused: Gauge::default(),
            oldest_report: Gauge::default(),
            last_round: Gauge::default(),
            last_pull: Gauge::default(),
            lag: Gauge::default(),
            registry: Registry::default(),
        };
        for (name, help, family) in [
            ("pulls", "Pulls by how they ended: ok, unreachable, failed", &metrics.pulls),
            ("passes", "Passes by how they ended: applied, incomplete, failed, stopped", &metrics.passes),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register("jobs_ended", "Jobs that this daemon ran, by how they ended", metrics.jobs.clone());
        registry.register("step_duration_seconds", "How long the steps of jobs took", metrics.steps.clone());
        registry.register(
            "received_bytes",
            "Bytes of files that jobs needed, by where they came from",
            metrics.received.clone(),
        );
        registry.register(
            "restored_bytes",
            "Bytes of dumps that were loaded into the database",
            metrics.restored.clone(),
        );
        registry.register(
            "geoserver_request_duration_seconds",
            "How long GeoServer took to answer; status is none where nobody answered",
            metrics.requests.clone(),
        );
        registry.register("jobs", "Jobs that the journal knows, by state", metrics.in_state.clone());
        registry.register("reports_waiting", "Reports that wait for the master", metrics.waiting.clone());
        registry.register("reports_refused", "Waiting reports that the master has refused", metrics.refused.clone());
        for (name, help, gauge) in [
            (
                "report_oldest_timestamp_seconds",
                "Since when the oldest report waits; 0 when none does",
                &metrics.oldest_report,
            ),
            ("last_round_timestamp_seconds", "When the last round ended; 0 before the first", &metrics.last_round),
            (
                "last_pull_timestamp_seconds",
                "When the master last answered a pull; 0 before the first time",
                &metrics.last_pull,
            ),
            ("lag_seconds", "Time since the slave was known to hold all that the master had", &metrics.lag),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Self { registry, ..metrics }
    }

    pub(super) fn pulled(&self, outcome: &'static str) {
        self.pulls.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn passed(&self, outcome: &'static str) {
        self.passes.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn job_ended(&self, kind: &'static str, outcome: &'static str) {
        self.jobs.get_or_create(&JobLabels { kind, outcome }).inc();
    }

    pub(super) fn step_ended(&self, step: &'static str, outcome: &'static str, took: Duration) {
        self.steps.get_or_create(&StepLabels { step, outcome }).observe(took.as_secs_f64());
    }

    pub(super) fn received(&self, from: &'static str, bytes: u64) {
        self.received.get_or_create(&Source { from }).inc_by(bytes);
    }

    pub(super) fn restored(&self, bytes: u64) {
        self.restored.inc_by(bytes);
    }

    pub(super) fn requested(&self, target: &str, method: &str, status: Option<u16>, took: Duration) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let labels = RequestLabels { target: target.to_owned(), method: method.to_owned(), status };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Everything as text, with what is known `now`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Bug`] when the text cannot be made.
    pub(super) fn text(&self, now: &Now) -> Result<String> {
        for (state, count) in &now.jobs {
            self.in_state.get_or_create(&InState { state }).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        for (gauge, value) in [(&self.waiting, now.reports.0), (&self.refused, now.reports.1)] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        for (gauge, value) in [
            (&self.oldest_report, now.oldest_report),
            (&self.last_round, now.last_round),
            (&self.last_pull, now.last_pull),
        ] {
            gauge.set(value.unwrap_or_default());
        }
        self.lag.set(now.lag);
        let mut text = String::new();
        text::encode(&mut text, &self.registry).context(ErrorKind::Bug, "the metrics cannot be written")?;
        Ok(text)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::new(1_700_000_000.0);
        metrics.pulled("ok");
        metrics.passed("applied");
        metrics.job_ended("feature", "succeeded");
        metrics.job_ended("feature", "succeeded");
        metrics.received("master", 12_345);
        metrics.restored(12_000);
        metrics.requested("http://gs/\"geo\\server\n", "GET", Some(200), Duration::from_millis(20));
        let now = Now {
            jobs: vec![("failed", 2)],
            reports: (3, 1),
            last_round: Some(1_700_000_060.5),
            lag: 1.5,
            ..Now::default()
        };
        let text = metrics.text(&now).unwrap();
        let told = |line: &&str| !line.starts_with('#') && !line.contains("_bucket") && !line.contains("_build_info");
        let lines: Vec<&str> = text.lines().filter(told).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        borg_slave_start_time_seconds 1700000000.0
        borg_slave_pulls_total{outcome="ok"} 1
        borg_slave_passes_total{outcome="applied"} 1
        borg_slave_jobs_ended_total{kind="feature",outcome="succeeded"} 2
        borg_slave_received_bytes_total{from="master"} 12345
        borg_slave_restored_bytes_total 12000
        borg_slave_geoserver_request_duration_seconds_sum{target="http://gs/\"geo\\server\n",method="GET",status="200"} 0.02
        borg_slave_geoserver_request_duration_seconds_count{target="http://gs/\"geo\\server\n",method="GET",status="200"} 1
        borg_slave_jobs{state="failed"} 2
        borg_slave_reports_waiting 3
        borg_slave_reports_refused 1
        borg_slave_report_oldest_timestamp_seconds 0.0
        borg_slave_last_round_timestamp_seconds 1700000060.5
        borg_slave_last_pull_timestamp_seconds 0.0
        borg_slave_lag_seconds 1.5
        "#);
        assert!(text.ends_with("# EOF\n"));
    }
}
