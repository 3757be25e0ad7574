//! Java's properties format: `java.util.Properties.load` and `store`.

use crate::error::{Error, ErrorKind, Result};

/// A key and its value, unescaped, and the line where they begin (the first is 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: String,
}

/// Reads all entries, in the file's order. Of those with the same key Java keeps the last; here all are given.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut entries = Vec::new();
    let mut lines = text.split(['\n', '\r']).zip(1..);
    while let Some((natural, line)) = lines.next() {
        let natural = natural.trim_start_matches(is_space);
        if natural.is_empty() || natural.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = natural.to_owned();
        while goes_on(&logical) {
            logical.pop();
            let Some((next, _)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_space));
        }
        entries.push(entry(&logical, line)?);
    }
    Ok(entries)
}

/// `text` as a key: everything escaped that would end it or be taken for a comment, and only ASCII.
pub(super) fn escaped_key(text: &str) -> String {
    escaped(text, |_| true)
}

/// `text` as a value: only leading spaces need an escape.
pub(super) fn escaped_value(text: &str) -> String {
    escaped(text, |at| at == 0)
}

fn escaped(text: &str, space_at: impl Fn(usize) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        match c {
            ' ' if !space_at(at) => out.push(' '),
            ' ' | '=' | ':' | '#' | '!' | '\\' => out.extend(['\\', c]),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
        }
    }
    out
}

/// What Java takes for white space within a line.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Whether a line ends in an odd number of backslashes.
fn goes_on(line: &str) -> bool {
    line.chars().rev().take_while(|&c| c == '\\').count() % 2 == 1
}

fn entry(logical: &str, line: usize) -> Result<Entry> {
    let mut is_escaped = false;
    let end = logical.find(|c| {
        let ends = !is_escaped && (matches!(c, '=' | ':') || is_space(c));
        is_escaped = !is_escaped && c == '\\';
        ends
    });
    let (key, rest) = logical.split_at(end.unwrap_or(logical.len()));
    let rest = rest.trim_start_matches(is_space);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_space);
    Ok(Entry { line, key: unescaped(key, line)?, value: unescaped(value, line)? })
}

fn unescaped(text: &str, line: usize) -> Result<String> {
    let refuse = |what: &str| {
        Error::new(ErrorKind::Document, format!("line {line}: {what} in `{text}`"))
            .hint("write \\u with the four hexadecimal digits of a character, or the character itself")
    };
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let meant = if c != '\\' {
            c
        } else {
            match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let is_hex = digits.len() == 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
                    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                    units.push(unit.ok_or_else(|| refuse("no four hexadecimal digits follow \\u"))?);
                    continue;
                }
                Some(other) => other,
                None => continue,
            }
        };
        units.extend_from_slice(meant.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).map_err(|_| refuse("half a character is written as \\u"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        entries(text).unwrap().into_iter().map(|entry| (entry.line, entry.key, entry.value)).collect()
    }

    #[test]
    fn a_file_is_read_as_java_reads_it() {
        // java.util.Properties of OpenJDK 17 gives these pairs for the text after the byte order mark.
        let text = "\u{feff}# comment \\\n a = b\r\n!c\rd:e=f\n\n  g   h i \nj=\\\n   k,\\\r\n\tl\nm\\ n\\=o\\:p\\\\.q=r\\u0041\\z\ns\nt==u\nv\\";
        assert_eq!(
            read(text),
            [
                (2, "a".into(), "b".into()),
                (4, "d".into(), "e=f".into()),
                (6, "g".into(), "h i ".into()),
                (7, "j".into(), "k,l".into()),
                (10, "m n=o:p\\.q".into(), "rAz".into()),
                (11, "s".into(), String::new()),
                (12, "t".into(), "=u".into()),
                (13, "v".into(), String::new()),
            ]
        );
        assert_eq!(read("\\ud83d\\ude00=\\u00fc"), [(1, "😀".into(), "ü".into())]);
    }

    #[test]
    fn what_java_cannot_decode_is_refused_with_its_line() {
        let error = entries("a=b\nc=\\u12g4").unwrap_err();
        assert!(error.message().contains("line 2") && error.message().contains("u12g4"), "{error:?}");
        assert!(entries("a=\\ud83d").unwrap_err().message().contains("line 1"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(key in "\\PC{1,12}|[ \\\\=:#!.\t\n\r]{1,6}", value in "\\PC{0,12}|[ \\\\=:#!,\t\n]{0,6}") {
            let line = format!("{}={}", escaped_key(&key), escaped_value(&value));
            prop_assert!(line.is_ascii());
            prop_assert_eq!(read(&line), [(1, key, value)]);
        }
    }
}
