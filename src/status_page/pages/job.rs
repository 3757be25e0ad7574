//! One job: how it stands, why, and every step on every target.

use jiff::Timestamp;
use maud::{Markup, html};

use super::parts::{duration, folder_and_name, outcome, short, state, text};
use super::{Frame, Section, shell};
use crate::journal::{JobRecord, State, StepOutcome, StepRecord};
use crate::status_page::previews::Picture;
use crate::status_page::query::job_address;

pub(in crate::status_page) fn job(frame: &Frame, job: &JobRecord, picture: Option<&Picture>) -> Markup {
    let (folder, name) = folder_and_name(&job.job_file);
    let body = html! {
        p.path { a href="/jobs" { "Jobs" } " / " (folder) "/" }
        h1.name { (name) }
        p.standing { (state(job.state)) span.dim { (job.action) " " (job.kind) } }
        @if let Some(reason) = job.reason() {
            section class={ "message " @if job.state.is_failure() { "bad" } @else { "quiet" } } {
                (text(reason))
                @if let Some(hint) = &job.hint { p.hint { strong { "What to do: " } (hint) } }
            }
        }
        div.beside {
            (facts(frame, job))
            @if let Some(picture) = picture { (preview(frame, job, picture)) }
        }
        section {
            h2 { "Steps" }
            @if job.steps.is_empty() { p.dim { (no_steps(job.state)) } }
            @else { (steps(frame, job)) }
        }
        p.dim { a href=(job_address("/api/jobs", &job.job_file)) { "This job as JSON" } }
    };
    shell(&frame.about, Section::Jobs, name, &body)
}

fn no_steps(state: State) -> &'static str {
    match state {
        State::Filtered | State::Waiting => "Nothing was to be done.",
        State::Forgotten => "What was known is forgotten; the next run does the job anew.",
        _ => "No step is on record.",
    }
}

fn facts(frame: &Frame, job: &JobRecord) -> Markup {
    let clock = &frame.clock;
    let time = |name: &str, at: Option<Timestamp>| html! { @if let Some(at) = at { div { dt { (name) } dd { (clock.full(at)) } } } };
    html! {
        dl.facts {
            (time("Finished", job.finished))
            (time("Started", job.started))
            (time("Next try", job.next_try))
            div { dt { "Attempts" } dd { (job.attempts) } }
            div { dt { "Revision" } dd { (short(&job.revision)) } }
            @if !job.content_md5.is_empty() { div { dt { "MD5 of the file" } dd { (short(&job.content_md5)) } } }
            @if let Some(id) = job.job_id {
                div { dt { "Master's job" } dd { (id) @if let Some(batch) = &job.job_batch_id { span.dim { " of batch " (batch) } } } }
            }
            @if let Some(deployed) = &job.deployed {
                div { dt { "Last success" } dd { "revision " (short(&deployed.revision)) ", " (clock.full(deployed.at)) } }
            }
            (time("First seen", Some(job.first_seen)))
        }
    }
}

fn preview(frame: &Frame, job: &JobRecord, picture: &Picture) -> Markup {
    html! {
        figure.preview {
            img src=(picture_address(job, picture)) alt={ "Map of " (folder_and_name(&job.job_file).1) };
            figcaption.dim { "drawn " (frame.clock.ago(picture.drawn)) }
        }
    }
}

/// The address of a picture, another one when it was drawn anew.
pub(super) fn picture_address(job: &JobRecord, picture: &Picture) -> String {
    format!("{}?{}", job_address("/previews", &job.job_file), picture.drawn.as_millisecond())
}

fn steps(frame: &Frame, job: &JobRecord) -> Markup {
    let span = Span::of(job);
    html! {
        table.steps {
            thead { tr { th { "Outcome" } th { "Step" } th.bar { "When" } th.number { "Took" } } }
            tbody {
                @for step in &job.steps {
                    tr {
                        td { (outcome(step.outcome)) }
                        td { (step.step) @if let Some(target) = &step.target { span.folder { (target) } } }
                        td.bar title=(frame.clock.absolute(step.started)) { (span.bar(step)) }
                        td.number { @if step.outcome == StepOutcome::Running { "…" } @else { (duration(step.duration_ms)) } }
                    }
                    @if let Some(message) = &step.message {
                        tr class={ "note" @if step.outcome == StepOutcome::Failed { " failed" } } { td {} td colspan="3" { span.reason { (message) } } }
                    }
                }
            }
        }
    }
}

/// The time that the latest attempt took.
struct Span {
    from: Timestamp,
    /// Never 0.
    ms: i64,
}

impl Span {
    fn of(job: &JobRecord) -> Self {
        let from = job.started.unwrap_or(job.first_seen);
        let end = |step: &StepRecord| step.started.as_millisecond().saturating_add_unsigned(step.duration_ms);
        let to = job.steps.iter().map(end).max().unwrap_or_default();
        Self { from, ms: to.saturating_sub(from.as_millisecond()).max(1) }
    }

    /// Where in that time a step was taken; those of earlier attempts lie before it.
    fn bar(&self, step: &StepRecord) -> Markup {
        let begin = step.started.as_millisecond() - self.from.as_millisecond();
        if begin < -1 {
            return html! { span.dim { "earlier" } };
        }
        let percent = |ms: i64| (ms.clamp(0, self.ms) * 1000 / self.ms).to_string();
        let length = i64::try_from(step.duration_ms).unwrap_or(i64::MAX);
        let width = (length.clamp(0, self.ms) * 1000 / self.ms).max(8).to_string();
        let tone = if step.outcome == StepOutcome::Failed { "bad" } else { "plain" };
        html! {
            svg class={ "span " (tone) } viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                rect.rail x="0" y="4" width="1000" height="2" {}
                rect.part x=(percent(begin).parse::<i64>().unwrap_or_default().min(992)) y="0" width=(width) height="10" {}
            }
        }
    }
}
