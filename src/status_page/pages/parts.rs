//! What several pages show: times, states, names, texts.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, PreEscaped, html};

use crate::journal::{RunOutcome, State, StepOutcome};
use crate::status_page::query::{JobQuery, job_address};
use crate::status_page::verdict::Level;

/// What time it is, and where.
pub(in crate::status_page) struct Clock {
    pub(in crate::status_page) now: Timestamp,
    pub(in crate::status_page) zone: TimeZone,
}

impl Clock {
    /// How far away a time is: `3 min ago`, `in 40 s`.
    pub(super) fn distance(&self, at: Timestamp) -> String {
        let distance = self.now.duration_since(at);
        let text = rough(distance.abs());
        if distance.abs() < SignedDuration::from_secs(1) {
            "just now".to_owned()
        } else if distance.is_negative() {
            format!("in {text}")
        } else {
            format!("{text} ago")
        }
    }

    /// A time in UTC and, where it is another, in the machine's zone.
    pub(super) fn absolute(&self, at: Timestamp) -> String {
        let utc = at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        let local = at.to_zoned(self.zone.clone());
        if local.offset().seconds() == 0 {
            return utc;
        }
        let day = if local.date() == at.to_zoned(TimeZone::UTC).date() { "" } else { "%a " };
        format!("{utc} · {}", local.strftime(&format!("{day}%H:%M:%S %:z")))
    }

    /// A time in both ways, one below the other: the machine's zone, to the minute; pointing at it tells the rest.
    pub(super) fn stacked(&self, at: Timestamp) -> Markup {
        let local = at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string();
        html! { (self.ago(at)) span.folder title=(self.absolute(at)) { (local) } }
    }

    /// When something is tried again.
    pub(super) fn next_try(&self, at: Timestamp) -> Markup {
        html! { span.folder { @if at > self.now { "next try " (self.ago(at)) } @else { "the next try is due" } } }
    }

    /// How far away a time is; pointing at it tells which it is.
    pub(super) fn ago(&self, at: Timestamp) -> Markup {
        html! { time datetime=(at) title=(self.absolute(at)) { (self.distance(at)) } }
    }

    /// A time in both ways, side by side.
    pub(super) fn full(&self, at: Timestamp) -> Markup {
        let absolute = self.absolute(at);
        html! {
            time datetime=(at) { (self.distance(at)) } " "
            span.absolute { @for (index, part) in absolute.split(" · ").enumerate() { @if index > 0 { " · " } span.at { (part) } } }
        }
    }
}

/// A length of time in its largest unit.
fn rough(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long something took.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// `1 job`, `2 jobs`.
pub(super) fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{} {what}s", thousands(count)) }
}

/// A number with its thousands apart.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Shapes of 16 by 16, told apart without their colours.
mod shape {
    pub(super) const CHECK: &str = r#"<circle cx="8" cy="8" r="7" fill="currentColor"/><path d="M4.6 8.3l2.3 2.3 4.5-4.9" fill="none" stroke="var(--paper)" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"/>"#;
    pub(super) const CROSS: &str = r#"<path d="M5.1 1h5.8L15 5.1v5.8L10.9 15H5.100L1 10.900V5.100z" fill="currentColor"/><path d="M5.6 5.600l4.8 4.800M10.4 5.600l-4.8 4.8" stroke="var(--paper)" stroke-width="1.8" stroke-linecap="round"/>"#;
    pub(super) const TRIANGLE: &str = r#"<path d="M8 1.200l7 13H1z" fill="currentColor" stroke="currentColor" stroke-width="1" stroke-linejoin="round"/><path d="M8 6v4" stroke="var(--paper)" stroke-width="1.8" stroke-linecap="round"/><circle cx="8" cy="12.2" r="1" fill="var(--paper)"/>"#;
    pub(super) const HALF: &str = r#"<circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M8 3.500a4.5 4.5 0 0 1 0 9z" fill="currentColor"/>"#;
    pub(super) const CLOCK: &str = r#"<circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M8 4.500V8l2.4 1.6" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/>"#;
    pub(super) const BAR: &str = r#"<circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M5 8h6" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"/>"#;
    pub(super) const DASHES: &str = r#"<circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="2.6 2.270"/>"#;
    pub(super) const EQUAL: &str =
        r#"<path d="M4 6.200h8M4 9.800h8" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"/>"#;
    pub(super) const MAP: &str = r#"<path d="M2 11.500l6 3 6-3M2 8l6 3 6-3" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" stroke-linecap="round"/><path d="M8 1.500l6 3-6 3-6-3z" fill="currentColor" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round"/>"#;
}

fn icon(shape: &'static str) -> Markup {
    html! { svg.icon viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false" { (PreEscaped(shape)) } }
}

/// The sign of the program.
pub(super) fn mark() -> Markup {
    icon(shape::MAP)
}

fn badge(tone: &str, shape: &'static str, word: &str) -> Markup {
    html! { span class={ "badge " (tone) } { (icon(shape)) (word) } }
}

fn look(state: State) -> (&'static str, &'static str) {
    match state {
        State::Succeeded => ("good", shape::CHECK),
        State::Failed => ("bad", shape::CROSS),
        State::Interrupted => ("warning", shape::TRIANGLE),
        State::Running => ("busy", shape::HALF),
        State::Waiting => ("quiet", shape::CLOCK),
        State::Filtered => ("quiet", shape::BAR),
        State::Forgotten => ("quiet", shape::DASHES),
    }
}

/// A job's state: shape, word and colour.
pub(super) fn state(state: State) -> Markup {
    let (tone, shape) = look(state);
    badge(tone, shape, name(state))
}

/// The state's shape in its colour, for where its word stands beside it.
pub(super) fn sign(state: State) -> Markup {
    let (tone, shape) = look(state);
    html! { span class=(tone) { (icon(shape)) } }
}

/// A state as a page names it: jobs at work are under way here, since the page is the daemon's.
pub(super) fn name(state: State) -> &'static str {
    if state == State::Running { "under way" } else { state.in_words() }
}

/// A step's outcome.
pub(super) fn outcome(outcome: StepOutcome) -> Markup {
    let (tone, shape) = match outcome {
        StepOutcome::Done => ("good", shape::CHECK),
        StepOutcome::Unchanged => ("quiet", shape::EQUAL),
        StepOutcome::Failed => ("bad", shape::CROSS),
        StepOutcome::Skipped => ("quiet", shape::BAR),
        StepOutcome::Running => ("busy", shape::HALF),
    };
    badge(tone, shape, outcome.in_words())
}

/// A run's outcome.
pub(super) fn run(outcome: RunOutcome) -> Markup {
    let (tone, shape) = match outcome {
        RunOutcome::Succeeded => ("good", shape::CHECK),
        RunOutcome::Failed => ("bad", shape::CROSS),
        RunOutcome::Running => ("busy", shape::HALF),
        RunOutcome::Stopped => ("quiet", shape::BAR),
        RunOutcome::Interrupted => ("warning", shape::TRIANGLE),
    };
    let word = if outcome == RunOutcome::Running { "under way" } else { outcome.as_str() };
    badge(tone, shape, word)
}

/// The shape of how the slave is.
pub(super) fn level(level: Level) -> Markup {
    icon(match level {
        Level::Good => shape::CHECK,
        Level::Busy => shape::HALF,
        Level::Warning => shape::TRIANGLE,
        Level::Bad => shape::CROSS,
    })
}

/// The folder of a job file, and the name that people call the job by.
pub(super) fn folder_and_name(job_file: &str) -> (&str, &str) {
    let (folder, name) = job_file.rsplit_once('/').unwrap_or(("", job_file));
    (folder, name.strip_suffix(".json").unwrap_or(name))
}

/// A job's name, which leads to its page.
pub(super) fn job_link(job_file: &str) -> Markup {
    html! { a.job href=(job_address("/jobs", job_file)) { (folder_and_name(job_file).1) } }
}

/// The first digits of a revision or checksum.
pub(super) fn short(hash: &str) -> Markup {
    html! { code title=(hash) { (hash.get(..12).unwrap_or(hash)) } }
}

/// What there is to say, as it was said.
pub(super) fn text(text: &str) -> Markup {
    html! { p.text { (text) } }
}

/// Where one of several pages leads.
pub(super) fn pager(query: &JobQuery, path: &str, found: u64) -> Markup {
    let (page, pages) = (query.page, query.pages(found));
    html! {
        @if pages > 1 || page > 1 {
            nav.pager aria-label="Pages of the list" {
                @if page > 1 { a rel="prev" href=(query.address(path, (page - 1).min(pages))) { "← Previous" } }
                @else { span.dim { "← Previous" } }
                span { "Page " (thousands(page)) " of " (thousands(pages)) }
                @if page < pages { a rel="next" href=(query.address(path, page + 1)) { "Next →" } }
                @else { span.dim { "Next →" } }
            }
        }
    }
}

/// The field that searches a list; what else is asked for stays.
pub(super) fn search(query: &JobQuery, path: &str, what: &str) -> Markup {
    let states = query.states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(",");
    html! {
        form.search role="search" action=(path) method="get" {
            @if !states.is_empty() { input type="hidden" name="state" value=(states); }
            @if query.order == crate::journal::Order::File { input type="hidden" name="sort" value="name"; }
            input type="search" name="q" value=(query.search) placeholder=(what) aria-label=(what) maxlength="200" autocomplete="off" spellcheck="false";
            button { "Search" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(zone: TimeZone) -> Clock {
        Clock { now: "2026-03-01T23:30:00Z".parse().unwrap(), zone }
    }

    #[test]
    fn times_are_told_by_distance_and_in_both_zones() {
        let perth = clock(TimeZone::fixed(jiff::tz::offset(8)));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let said: Vec<String> = [
            "2026-03-01T23:29:59.5Z",
            "2026-03-01T23:29:18Z",
            "2026-03-01T20:00:00Z",
            "2026-02-20T00:00:00Z",
            "2026-03-01T23:32:00Z",
        ]
        .iter()
        .map(|text| format!("{} | {}", perth.distance(at(text)), perth.absolute(at(text))))
        .collect();
        insta::assert_snapshot!(said.join("\n"), @"
        just now | 2026-03-01 23:29:59 UTC · Mon 07:29:59 +08:00
        42 s ago | 2026-03-01 23:29:18 UTC · Mon 07:29:18 +08:00
        3 h ago | 2026-03-01 20:00:00 UTC · Mon 04:00:00 +08:00
        9 days ago | 2026-02-20 00:00:00 UTC · 08:00:00 +08:00
        in 2 min | 2026-03-01 23:32:00 UTC · Mon 07:32:00 +08:00
        ");
        assert_eq!(clock(TimeZone::UTC).absolute(at("2026-03-01T20:00:00Z")), "2026-03-01 20:00:00 UTC");
    }

    #[test]
    fn numbers_and_durations_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands).join(" "), "0 999 1\u{202f}000 1\u{202f}234\u{202f}567");
        let texts = [7, 1234, 45_678, 61_000, 7_380_000].map(duration).join(", ");
        assert_eq!(texts, "7 ms, 1.2 s, 45 s, 1 min 1 s, 2 h 3 min");
    }

    #[test]
    fn whatever_a_name_holds_stays_a_text() {
        let odd = "geoserver/layers/ws.<script>alert('x')</script>&\"道路\".json";
        let link = job_link(odd).into_string();
        assert!(!link.contains("<script>") && link.contains("道路"), "{link}");
        assert!(
            link.contains("href=\"/jobs/geoserver/layers/ws.%3Cscript%3Ealert%28%27x%27%29%3C/script%3E%26%22"),
            "{link}"
        );
        assert!(text("a < b & \"c\"").into_string().contains("a &lt; b &amp; &quot;c&quot;"));
    }
}
