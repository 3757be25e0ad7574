//! The `.env` file, read without touching the process environment.
//!
//! The notation is that of the `dotenvy` crate: `NAME=value`, an optional `export`, `#` comments,
//! values in `'single'` or `"double"` quotes, and `$NAME` replaced outside single quotes.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;

use super::lambda;

/// What a `.env` file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// The assignments in file order.
    pub(super) entries: Vec<Entry>,
    /// What could not be read.
    pub(super) faults: Vec<Fault>,
}

/// One assignment.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) value: String,
    /// Line that it begins on, counted from 1.
    pub(super) line: usize,
    /// Whether a `$` was replaced by the value of a variable, or by nothing.
    pub(super) substituted: bool,
}

/// A place that could not be read.
#[derive(Debug)]
pub(super) struct Fault {
    /// Line that it begins on, counted from 1.
    pub(super) line: usize,
    /// The name left of the `=`, when there is one.
    pub(super) name: Option<String>,
    /// What is wrong; never holds the line itself, which may be a password.
    pub(super) text: String,
    /// The whole value, when it is a Python lambda that nobody quoted.
    pub(super) lambda: Option<String>,
}

/// Reads the file at `path`.
///
/// # Errors
///
/// Those of reading a file.
pub(super) fn read(path: &Path) -> io::Result<Parsed> {
    let bytes = std::fs::read(path)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(parse(&text)),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            let text = "the line is not UTF-8; save the file as UTF-8".into();
            Ok(Parsed { entries: Vec::new(), faults: vec![Fault { line, name: None, text, lambda: None }] })
        }
    }
}

/// Reads `text`, going on after a line that cannot be read.
fn parse(text: &str) -> Parsed {
    // Editors of other systems put a byte order mark in front; dotenvy takes it for part of a name.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // dotenvy refuses a last line that ends in white space without a line feed.
    let lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    let taken = Cell::new(0);
    let mut parsed = Parsed::default();
    let mut entries = dotenvy::from_read_iter(LineByLine { lines: &lines, taken: &taken, offset: 0 });
    loop {
        let mut first = taken.get();
        let Some(entry) = entries.next() else { break };
        while first + 1 < taken.get() && is_blank(&lines[first]) {
            first += 1;
        }
        let raw = lines[first..taken.get()].concat();
        match entry {
            Ok((name, value)) => {
                parsed.entries.push(Entry { name, value, line: first + 1, substituted: substitutes(&raw) });
            }
            Err(_) => parsed.faults.push(fault(first + 1, &raw)),
        }
    }
    parsed
}

fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// Finds out why dotenvy refused `raw`: its own message quotes the line, which may be a password.
fn fault(line: usize, raw: &str) -> Fault {
    let Some((left, value)) = raw.split_once('=') else {
        return Fault { line, name: None, text: "the line is not NAME=value".into(), lambda: None };
    };
    let name = left.trim().trim_start_matches("export ").trim();
    let is_name =
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !name.contains(char::is_whitespace);
    if !is_name {
        return Fault { line, name: None, text: "the text before `=` is not a name".into(), lambda: None };
    }
    let first_line = value.lines().next().unwrap_or_default().trim();
    let unquoted = ['\'', '"']
        .into_iter()
        .find_map(|quote| first_line.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(first_line);
    let lambda = lambda::is_lambda(unquoted).then(|| unquoted.to_owned());
    let text = if raw.trim_end().contains('\n') {
        "a quote is opened and not closed on the same line; put the whole value in quotes of the other kind, or close it"
    } else if value.trim().contains([' ', '\t']) && !value.trim().starts_with(['"', '\'']) {
        "a value with spaces stands in single quotes: NAME='a value'"
    } else {
        "the value cannot be read; put it in single quotes: NAME='value'"
    };
    Fault { line, name: Some(name.to_owned()), text: text.into(), lambda }
}

/// Whether the assignment holds a `$` that dotenvy replaces.
fn substitutes(raw: &str) -> bool {
    let mut quote = None;
    let mut escaped = false;
    let mut before = '=';
    for c in raw.split_once('=').map_or("", |(_, value)| value).chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != Some('\'') => escaped = true,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            _ if quote == Some(c) => quote = None,
            '$' if quote != Some('\'') => return true,
            '#' if quote.is_none() && before.is_whitespace() => return false,
            _ => {}
        }
        before = c;
    }
    false
}

/// Hands out one line at a read, so that the reader's position tells which lines an entry took.
struct LineByLine<'a> {
    lines: &'a [String],
    taken: &'a Cell<usize>,
    offset: usize,
}

impl Read for LineByLine<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(line) = self.lines.get(if self.offset == 0 { self.taken.get() } else { self.taken.get() - 1 }) else {
            return Ok(0);
        };
        if self.offset == 0 {
            self.taken.set(self.taken.get() + 1);
        }
        let rest = &line.as_bytes()[self.offset..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.offset = if count == rest.len() { 0 } else { self.offset + count };
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_know_the_line_they_begin_on() {
        let long = "x".repeat(20_000);
        let text = format!("\u{feff}A=1\n\n# note\nexport B='two\nlines' # why\nLONG={long}\nC=3 ");
        let parsed = parse(&text);
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        let found: Vec<_> = parsed.entries.iter().map(|e| (e.name.as_str(), e.line, e.value.len())).collect();
        assert_eq!(found, [("A", 1, 1), ("B", 4, 9), ("LONG", 6, 20_000), ("C", 7, 1)]);
    }

    #[test]
    fn every_fault_is_found_and_none_shows_its_line() {
        let parsed =
            parse("A=1\nBORG_SSH=ssh -i hunter2\nhunter2\n=hunter2\nB=2\nPASS=hunter\\2\nC=it's hunter2\nD=4\n");
        let lines: Vec<_> = parsed.faults.iter().map(|f| format!("{} {:?} {}", f.line, f.name, f.text)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        2 Some("BORG_SSH") a value with spaces stands in single quotes: NAME='a value'
        3 None the line is not NAME=value
        4 None the text before `=` is not a name
        6 Some("PASS") the value cannot be read; put it in single quotes: NAME='value'
        7 Some("C") a quote is opened and not closed on the same line; put the whole value in quotes of the other kind, or close it
        "#);
        assert!(!lines.join("").contains("hunter"));
        assert_eq!(parsed.entries.len(), 2);
    }

    proptest::proptest! {
        /// Nothing that a file may hold makes the reading fail, and every line named is in the file.
        #[test]
        fn any_text_is_read(text in "([A-C=#'\"$\\\\ é\t]|lambda|\r?\n){0,40}") {
            let parsed = parse(&text);
            let lines = text.lines().count();
            for line in parsed.entries.iter().map(|e| e.line).chain(parsed.faults.iter().map(|f| f.line)) {
                proptest::prop_assert!((1..=lines).contains(&line), "{} of {}", line, lines);
            }
        }
    }

    #[test]
    fn replaced_dollars_are_noticed() {
        for (raw, expected) in
            [("A=pa$word", true), ("A=\"$B\"", true), ("A='pa$word'", false), ("A=pa\\$w", false), ("A=1 # $5", false)]
        {
            assert_eq!(substitutes(raw), expected, "{raw}");
        }
    }
}
