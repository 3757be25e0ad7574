//! The list of jobs.

use std::collections::HashMap;

use maud::{Markup, html};

use super::parts::{folder_and_name, job_link, name, pager, plural, search, sign, state, thousands};
use super::{Frame, Section, shell};
use crate::journal::{JobRecord, Listed, Order, State};
use crate::status_page::query::JobQuery;

/// States that are chosen together, in the order of the choice.
const CHOICES: [&[State]; 6] = [
    &[State::Failed, State::Interrupted],
    &[State::Running],
    &[State::Succeeded],
    &[State::Waiting],
    &[State::Filtered],
    &[State::Forgotten],
];

pub(in crate::status_page) fn jobs(
    frame: &Frame,
    query: &JobQuery,
    listed: &Listed,
    counts: &HashMap<State, u64>,
) -> Markup {
    let body = html! {
        h1 { "Jobs" }
        (choices(query, counts))
        (search(query, "/jobs", "Search files and messages"))
        p.summary {
            span { (found(query, listed.found)) }
            (sorting(query))
        }
        @if listed.jobs.is_empty() {
            p.empty { @if query.page > 1 { "This page is empty." } @else { "No job is like that." } }
        } @else {
            (rows(frame, &listed.jobs))
        }
        (pager(query, "/jobs", listed.found))
    };
    shell(&frame.about, Section::Jobs, "Jobs", &body)
}

fn found(query: &JobQuery, found: u64) -> String {
    let jobs = plural(found, "job");
    if query.search.is_empty() { jobs } else { format!("{jobs} with “{}”", query.search) }
}

fn choices(query: &JobQuery, counts: &HashMap<State, u64>) -> Markup {
    let count = |states: &[State]| states.iter().filter_map(|state| counts.get(state)).sum::<u64>();
    html! {
        ul.choices aria-label="Choose by state" {
            li {
                a href=(query.with_states(&[]).address("/jobs", 1)) aria-current=[query.states.is_empty().then_some("true")] {
                    "all " span.dim { (thousands(counts.values().sum())) }
                }
            }
            @for states in CHOICES {
                @let number = count(states);
                @if number > 0 || query.states == states {
                    li {
                        a href=(query.with_states(states).address("/jobs", 1)) aria-current=[(query.states == states).then_some("true")] {
                            (sign(states[0])) (name(states[0])) " " span.dim { (thousands(number)) }
                        }
                    }
                }
            }
        }
    }
}

fn sorting(query: &JobQuery) -> Markup {
    let other = |order| JobQuery { order, ..query.clone() }.address("/jobs", 1);
    html! {
        span.sorting {
            @if query.order == Order::Newest { "newest first · " a href=(other(Order::File)) { "by name" } }
            @else { a href=(other(Order::Newest)) { "newest first" } " · by name" }
        }
    }
}

/// Jobs, one a row.
pub(super) fn rows(frame: &Frame, jobs: &[JobRecord]) -> Markup {
    html! {
        ol.rows {
            @for job in jobs {
                li {
                    span.state { (state(job.state)) }
                    span.what {
                        (job_link(&job.job_file))
                        span.folder { (job.action) " " (job.kind) " · " (folder_and_name(&job.job_file).0) "/" }
                    }
                    span.said {
                        @if let Some(reason) = job.reason() { span.reason { (reason) } }
                        @if let Some(at) = job.next_try { (frame.clock.next_try(at)) }
                    }
                    span.when { @if let Some(at) = job.finished.or(job.started) { (frame.clock.stacked(at)) } }
                }
            }
        }
    }
}
