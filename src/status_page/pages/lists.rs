//! The reports that wait, and the history of runs.

use maud::{Markup, html};

use super::overview::run_rows;
use super::parts::{plural, text, thousands};
use super::{Frame, Section, shell};
use crate::journal::{Backlog, Report, RunRecord};

pub(in crate::status_page) fn reports(
    frame: &Frame,
    backlog: Option<&Backlog>,
    reports: &[Report],
    next: Option<i64>,
) -> Markup {
    let clock = &frame.clock;
    let body = html! {
        h1 { "Reports to the master" }
        @match &frame.about.master {
            None => p { "MASTER_PGSQL_HOST is not set: nothing is reported." },
            Some(place) => p { "They go to " (place) ". The newest of each subject is kept until it is delivered." },
        }
        @match backlog {
            None => p.empty { "No report waits." },
            Some(backlog) => {
                p.summary { span {
                    (plural(backlog.count, "report")) " waiting, the oldest since " (clock.full(backlog.since))
                    @if backlog.refused > 0 { ", " (thousands(backlog.refused)) " refused by the master" }
                } }
                @if let Some((since, reason)) = &backlog.failing {
                    section.message.bad {
                        p { "The master's database cannot be told since " (clock.full(*since)) "." }
                        (text(reason))
                    }
                }
            }
        }
        @if !reports.is_empty() {
            ol.rows.reports {
                @for report in reports {
                    li {
                        span.what { (report.subject) }
                        span.said { @if let Some(reason) = &report.refused { span.reason { "refused: " (reason) } } }
                        span.when { (clock.stacked(report.since)) }
                    }
                }
            }
        }
        @if let Some(after) = next {
            nav.pager aria-label="Pages of the list" { a rel="next" href={ "/reports?after=" (after) } { "Next →" } }
        }
    };
    shell(&frame.about, Section::Reports, "Reports", &body)
}

pub(in crate::status_page) fn runs(frame: &Frame, runs: &[RunRecord]) -> Markup {
    let body = html! {
        h1 { "Runs" }
        p.dim { "Passes that had something to do, by whoever made them, the newest first." }
        @if runs.is_empty() { p.empty { "No run has had anything to do yet." } }
        @else { (run_rows(frame, runs)) }
    };
    shell(&frame.about, Section::Runs, "Runs", &body)
}
