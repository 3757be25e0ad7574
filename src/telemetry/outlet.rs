//! The way to standard error: a thread of its own writes, so that nobody waits for whoever reads there.
//!
//! A pipe that is full and never read would else hold up the thread that logs, and with it the pass and the answer
//! to a signal. What waits is bounded; beyond that lines are lost, and it is said how many.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::LogFormat;
use crate::error::{Context, ErrorKind, Result};

/// How much may wait to be written, in bytes.
const WAITING_BYTES: usize = 8 * 1024 * 1024;

/// How long the end of the process waits for what is still to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How long a command that has done its work waits for somebody who reads page by page.
const READER_LIMIT: Duration = Duration::from_secs(30);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

static OUTLET: OnceLock<Outlet> = OnceLock::new();

/// What the thread is handed.
enum Message {
    Text(Vec<u8>),
    /// Everything that came before is to be written by now.
    Flush(SyncSender<()>),
}

struct Outlet {
    // The lock is held for the time of an append.
    messages: Mutex<Sender<Message>>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl Outlet {
    fn new(format: LogFormat, to: impl Write + Send + 'static) -> Result<Self> {
        let (messages, receiver) = channel();
        let load = Arc::<Load>::default();
        let of_thread = Arc::clone(&load);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || carry(&receiver, &of_thread, format, to))
            .context(ErrorKind::Io, "cannot start the thread that writes the log")?;
        Ok(Self { messages: Mutex::new(messages), load })
    }

    fn put(&self, text: &[u8]) {
        if self.load.waiting.fetch_add(text.len(), Ordering::Relaxed) + text.len() > WAITING_BYTES {
            self.load.waiting.fetch_sub(text.len(), Ordering::Relaxed);
            self.load.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.send(Message::Text(text.to_owned()));
    }

    fn flush(&self, limit: Duration) {
        let (written, answer) = sync_channel(1);
        self.send(Message::Flush(written));
        let _ = answer.recv_timeout(limit);
    }

    fn send(&self, message: Message) {
        // The thread ends with the process only.
        let _ = self.messages.lock().unwrap_or_else(PoisonError::into_inner).send(message);
    }
}

fn carry(messages: &Receiver<Message>, load: &Load, format: LogFormat, mut to: impl Write) {
    for message in messages {
        match message {
            Message::Text(text) => {
                write_whole(&mut to, &text);
                load.waiting.fetch_sub(text.len(), Ordering::Relaxed);
                let lost = load.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    write_whole(&mut to, lost_lines(lost, format).as_bytes());
                }
            }
            Message::Flush(written) => {
                let _ = to.flush();
                let _ = written.try_send(());
            }
        }
    }
}

/// Writes all of `text`, also to a pipe that somebody else has made one that refuses instead of waiting.
fn write_whole(to: &mut impl Write, mut text: &[u8]) {
    while !text.is_empty() {
        match to.write(text) {
            Ok(count @ 1..) => text = text.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(LOOK),
            // Nobody can be told that standard error takes nothing.
            Ok(_) | Err(_) => return,
        }
    }
}

fn lost_lines(lost: u64, format: LogFormat) -> String {
    let message = format!("{lost} lines of the log were lost: standard error was not read");
    match format {
        LogFormat::Plain => format!("{message}\n"),
        LogFormat::Json => {
            let timestamp = jiff::Timestamp::now().to_string();
            format!("{}\n", serde_json::json!({ "timestamp": timestamp, "level": "WARN", "message": message }))
        }
    }
}

/// Opens the way; what is written before goes directly.
pub(super) fn open(format: LogFormat) -> Result<()> {
    let outlet = Outlet::new(format, std::io::stderr())?;
    // A second one would not be used.
    let _ = OUTLET.set(outlet);
    Ok(())
}

/// Writes to standard error, sooner or later.
pub fn write(text: &[u8]) {
    match OUTLET.get() {
        Some(outlet) => outlet.put(text),
        None => drop(std::io::stderr().write_all(text)),
    }
}

/// Waits until what was written is there: half a minute at most, and not when `stop` is cancelled.
pub async fn written(stop: &CancellationToken) {
    let Some(outlet) = OUTLET.get() else { return };
    let until = Instant::now() + READER_LIMIT;
    while outlet.load.waiting.load(Ordering::Relaxed) > 0 && Instant::now() < until {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Waits until what was written is there: two seconds at most, for nobody may read it.
pub fn flush() {
    if let Some(outlet) = OUTLET.get() {
        outlet.flush(FLUSH_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_is_lost_is_counted() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let outlet = Outlet::new(LogFormat::Json, writer).unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let lines = WAITING_BYTES / line.len() + 100;
        for _ in 0..lines {
            outlet.put(&line);
        }
        let begun = Instant::now();
        outlet.flush(Duration::from_millis(50));
        assert!(begun.elapsed() >= Duration::from_millis(50), "nothing is read yet");
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        outlet.flush(Duration::from_secs(60));
        // The thread ends when nobody can hand it anything any more.
        drop(outlet);
        let text = reading.join().unwrap();
        // They are told of as soon as something can be written, so perhaps at several places.
        let told = text.lines().filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let message =
                line["message"].as_str()?.strip_suffix(" lines of the log were lost: standard error was not read")?;
            message.parse::<usize>().ok()
        });
        let lost: usize = told.sum();
        assert!((1..=100).contains(&lost), "{lost}");
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count(), lines - lost);
    }
}
