//! Pictures of all layers.

use maud::{Markup, html};

use super::job::picture_address;
use super::parts::{folder_and_name, pager, plural, search, sign};
use super::{Frame, Section, shell};
use crate::journal::{JobRecord, State};
use crate::status_page::previews::Picture;
use crate::status_page::query::{JobQuery, job_address};

/// A layer and its picture.
pub(in crate::status_page) struct Tile {
    pub(in crate::status_page) job: JobRecord,
    pub(in crate::status_page) picture: Picture,
}

pub(in crate::status_page) fn gallery(frame: &Frame, query: &JobQuery, tiles: &[Tile], found: u64) -> Markup {
    let body = html! {
        h1 { "Gallery" }
        (search(query, "/gallery", "Search layers"))
        p.summary { span { (plural(found, "picture")) @if !query.search.is_empty() { " with “" (query.search) "”" } } }
        @if tiles.is_empty() {
            p.empty { "No layer that has a picture is like that. Pictures are drawn of layers whose job names a `preview_path`." }
        }
        ul.gallery {
            @for Tile { job, picture } in tiles {
                @let (_, name) = folder_and_name(&job.job_file);
                li {
                    a href=(job_address("/jobs", &job.job_file)) {
                        span.map { img src=(picture_address(job, picture)) alt={ "Map of " (name) } loading="lazy"; }
                        span.name { (name) }
                    }
                    span.folder {
                        @if job.state != State::Succeeded { (sign(job.state)) " " (job.state.in_words()) " · " }
                        "drawn " (frame.clock.ago(picture.drawn))
                    }
                }
            }
        }
        (pager(query, "/gallery", found))
    };
    shell(&frame.about, Section::Gallery, "Gallery", &body)
}
