//! Lines for systemd's journal, which adds the time itself and takes a line's priority from the number before it.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether standard error goes straight into the journal: systemd names the connection that it has made
/// (`JOURNAL_STREAM`, systemd.exec(5)), and what a parent has put in between is another file.
pub(super) fn reads_standard_error() -> bool {
    let (Ok(stream), Ok(error)) = (std::env::var("JOURNAL_STREAM"), rustix::fs::fstat(std::io::stderr())) else {
        return false;
    };
    stream == format!("{}:{}", error.st_dev, error.st_ino)
}

/// A line as sd-daemon(3) has it: `<4> WARN …`.
#[derive(Debug)]
pub(super) struct Prefixed(Format<Full, ()>);

impl Prefixed {
    pub(super) fn new() -> Self {
        Self(tracing_subscriber::fmt::format().with_target(false).with_ansi(false).without_time())
    }
}

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = priority(*event.metadata().level());
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        // The journal begins a new entry at each line.
        line.trim_start().lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// The number of syslog(3) for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_has_the_priority_of_its_level_and_no_time() {
        let kept = Kept::default();
        let to = kept.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || to.clone());
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(lines.event_format(Prefixed::new())),
            || {
                tracing::info!(job = "a.json", "succeeded");
                tracing::warn!("two\nlines");
                tracing::error!("no");
            },
        );
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        insta::assert_snapshot!(text, @r#"
        <6>INFO succeeded job="a.json"
        <4>WARN two
        <4>lines
        <3>ERROR no
        "#);
    }
}
