//! The first page: how the slave is, in one look.

use maud::{Markup, html};

use super::parts::{duration, level, name, plural, run, short, sign, thousands};
use super::{Frame, Section, jobs, shell};
use crate::journal::{Listed, RunRecord, State};
use crate::status_page::query::JobQuery;
use crate::status_page::site::Overview;
use crate::status_page::verdict::Verdict;

/// States that have a tile also when no job is in them.
const ALWAYS: [State; 2] = [State::Succeeded, State::Failed];

/// The order of the tiles.
const TILES: [State; 7] = [
    State::Failed,
    State::Interrupted,
    State::Running,
    State::Succeeded,
    State::Waiting,
    State::Filtered,
    State::Forgotten,
];

pub(in crate::status_page) fn overview(
    frame: &Frame,
    overview: &Overview,
    failed: &Listed,
    running: &Listed,
) -> Markup {
    let verdict = Verdict::of(overview, std::time::Instant::now());
    let (first, others) =
        verdict.sentences.split_first().map_or(("", [].as_slice()), |(first, others)| (first, others));
    let body = html! {
        section class={ "verdict " (verdict.level.as_str()) } {
            h1 { (level(verdict.level)) span { (first) } }
            @for sentence in others { p { (sentence) } }
        }
        (tiles(overview))
        (some_jobs(frame, "Not applied", failed, "/jobs?state=failed,interrupted", "that are not applied"))
        (some_jobs(frame, "Under way", running, "/jobs?state=running", "under way"))
        (facts(frame, overview))
        section {
            h2 { "Last runs" }
            @if overview.runs.is_empty() { p.dim { "No run has had anything to do yet." } }
            @else { (run_rows(frame, &overview.runs)) p { a href="/runs" { "Earlier runs" } } }
        }
    };
    shell(&frame.about, Section::Overview, first, &body)
}

/// The first of these jobs, if there are any, and the way to all of them.
fn some_jobs(frame: &Frame, title: &str, listed: &Listed, all: &str, which: &str) -> Markup {
    html! {
        @if !listed.jobs.is_empty() {
            section {
                h2 { (title) }
                (jobs::rows(frame, &listed.jobs))
                @if listed.found > listed.jobs.len() as u64 {
                    p { a href=(all) { "All " (plural(listed.found, "job")) " " (which) } }
                }
            }
        }
    }
}

fn tiles(overview: &Overview) -> Markup {
    html! {
        ul.tiles aria-label="Jobs by state" {
            @for state in TILES {
                @if overview.count(state) > 0 || ALWAYS.contains(&state) {
                    li {
                        a href=(JobQuery::default().with_states(&[state]).address("/jobs", 1)) {
                            (sign(state))
                            strong { (thousands(overview.count(state))) }
                            span { (name(state)) }
                        }
                    }
                }
            }
        }
    }
}

fn facts(frame: &Frame, overview: &Overview) -> Markup {
    let (clock, life, about) = (&frame.clock, &overview.life, &frame.about);
    html! {
        dl.facts {
            div {
                dt { "Last poll" }
                dd {
                    @match life.last_pull { Some(at) => (clock.full(at)), None => span.dim { "the master has not answered yet" } }
                }
            }
            div {
                dt { "Last round" }
                dd {
                    @match &life.last_round {
                        Some(round) => (clock.full(round.ended)),
                        None => span.dim { "none has ended yet" },
                    }
                }
            }
            div {
                dt { "Next round" }
                dd {
                    @match (life.under_way, life.next_round) {
                        (Some((_, since)), _) => { "one is under way, begun " (clock.full(since)) }
                        (None, Some(at)) => (clock.full(at)),
                        (None, None) => span.dim { "–" },
                    }
                }
            }
            div {
                dt { "Last sync" }
                dd {
                    @match overview.runs.first() {
                        Some(last) => {
                            (clock.full(last.finished.unwrap_or(last.started)))
                        }
                        None => span.dim { "nothing was to be done yet" },
                    }
                }
            }
            div {
                dt { "Applied up to" }
                dd { @match &overview.cursor { Some(revision) => (short(revision)), None => span.dim { "nothing yet" } } }
            }
            div {
                dt { "Reports" }
                dd {
                    @match (&about.master, &overview.backlog) {
                        (None, _) => span.dim { "not set up" },
                        (Some(_), None) => "all delivered",
                        (Some(_), Some(backlog)) => a href="/reports" { (plural(backlog.count, "report")) " waiting" },
                    }
                }
            }
            div { dt { "Channels" } dd { (about.channels.join(", ")) } }
            div {
                dt { @if about.geoservers.len() == 1 { "GeoServer" } @else { "GeoServers" } }
                dd { @for server in &about.geoservers { span.line { (server) } } @if about.geoservers.is_empty() { span.dim { "left out" } } }
            }
            div { dt { "Clone" } dd { (about.clone.display().to_string()) } }
            div { dt { "Daemon" } dd { (plural(life.rounds, "round")) ", begun " (clock.full(life.begun)) } }
        }
    }
}

/// Runs, one a row.
pub(super) fn run_rows(frame: &Frame, runs: &[RunRecord]) -> Markup {
    html! {
        ol.rows.runs {
            @for record in runs {
                li {
                    span.state { (run(record.summary.outcome)) }
                    span.what {
                        strong { (record.trigger) }
                        span.folder {
                            @match (&record.from, &record.to) {
                                (Some(from), Some(to)) if from.bytes().all(|byte| byte == b'0') => { "from the beginning to " (short(to)) }
                                (Some(from), Some(to)) if from == to => { "at " (short(to)) }
                                (Some(from), Some(to)) => { (short(from)) " to " (short(to)) }
                                (None, Some(to)) => { "to " (short(to)) }
                                _ => {}
                            }
                        }
                    }
                    span.said {
                        (plural(record.summary.succeeded.into(), "job")) " succeeded"
                        @if record.summary.failed > 0 { ", " strong { (thousands(record.summary.failed.into())) " failed" } }
                        @if record.summary.unchanged > 0 { ", " (thousands(record.summary.unchanged.into())) " done before" }
                        @if let Some(message) = &record.summary.message { ": " (message) }
                        @if let Some(finished) = record.finished {
                            span.folder { "took " (duration(u64::try_from(finished.duration_since(record.started).as_millis()).unwrap_or_default())) }
                        }
                    }
                    span.when { (frame.clock.stacked(record.started)) }
                }
            }
        }
    }
}
