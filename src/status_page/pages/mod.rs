//! The pages, made of what they are handed: complete without scripts, everything escaped by the templates.

mod gallery;
mod job;
mod jobs;
mod lists;
mod overview;
mod parts;

use std::sync::Arc;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

pub(super) use self::gallery::{Tile, gallery};
pub(super) use self::job::job;
pub(super) use self::jobs::jobs;
pub(super) use self::lists::{reports, runs};
pub(super) use self::overview::overview;
use self::parts::{Clock, mark};
use super::routes::Trouble;
use super::site::{About, Reading};

/// What all pages need: who the slave is, and what time it is.
pub(super) struct Frame {
    about: Arc<About>,
    clock: Clock,
}

impl Frame {
    pub(super) fn of(reading: &Reading) -> Self {
        let clock = Clock { now: Timestamp::now(), zone: reading.zone.clone() };
        Self { about: Arc::clone(&reading.about), clock }
    }
}

/// A part of the page that the head leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Overview,
    Jobs,
    Gallery,
    Reports,
    Runs,
    Nowhere,
}

const SECTIONS: [(Section, &str, &str); 5] = [
    (Section::Overview, "/", "Overview"),
    (Section::Jobs, "/jobs", "Jobs"),
    (Section::Gallery, "/gallery", "Gallery"),
    (Section::Runs, "/runs", "Runs"),
    (Section::Reports, "/reports", "Reports"),
];

/// Seconds after which a page that shows what goes on is loaded again.
const REFRESH: &str = "30";

fn shell(about: &About, section: Section, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if section == Section::Overview { meta http-equiv="refresh" content=(REFRESH); }
                title { (title) " · " (about.slave_name) }
                link rel="icon" href="/favicon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { (mark()) span { (about.slave_name) } }
                    nav aria-label="Pages" {
                        @for (part, address, name) in SECTIONS {
                            a href=(address) aria-current=[(part == section).then_some("page")] { (name) }
                        }
                    }
                }
                main id="main" { (body) }
                footer {
                    span { "borg-slave " (env!("CARGO_PKG_VERSION")) }
                    a href="/api/status" { "JSON" }
                    a href="/api/openapi.json" { "OpenAPI" }
                    a href="/metrics" { "Metrics" }
                }
            }
        }
    }
}

/// What stands in place of a page that there is not.
pub(super) fn trouble(about: &About, trouble: &Trouble) -> Markup {
    let heading = match trouble {
        Trouble::Missing(_) => "Not here",
        Trouble::Asked(_) => "That cannot be asked for",
        Trouble::Failed(_) => "The page cannot be made",
    };
    let body = html! {
        h1 { (heading) }
        p.text { (trouble.text()) }
        p { a href="/" { "To the overview" } }
    };
    shell(about, Section::Nowhere, heading, &body)
}
