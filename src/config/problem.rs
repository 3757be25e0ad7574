//! Problems are collected and told together: nobody wants to restart once for each of them.

use std::fmt::Write as _;

use super::values::Origin;
use super::variables::Variable;
use crate::error::{Error, ErrorKind};

/// How much of a wrong value is shown, in characters.
const SHOWN_CHARS: usize = 120;

/// What is wrong so far, and what is merely odd.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    /// What the operator should know though it stops nothing.
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
struct Problem {
    subject: String,
    text: String,
}

impl Problems {
    /// Notes a problem with `variable`, whose value came from `origin`.
    pub(super) fn add(&mut self, variable: &Variable, origin: &Origin, text: impl Into<String>) {
        self.add_to(format!("{} ({origin})", variable.name), text);
    }

    /// Notes a problem with anything.
    pub(super) fn add_to(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.found.push(Problem { subject: subject.into(), text: text.into() });
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The one error that tells them all.
    pub(super) fn into_error(mut self) -> Error {
        let hint = "correct what is named above, then start again; docs/settings.md explains every setting";
        if self.found.len() == 1
            && self.warnings.is_empty()
            && let Some(only) = self.found.pop()
        {
            return Error::new(ErrorKind::Settings, only.text).subject(only.subject).hint(hint);
        }
        let mut message = match self.found.len() {
            1 => "a setting cannot be used:".to_owned(),
            count => format!("{count} settings cannot be used:"),
        };
        for problem in &self.found {
            // A `String` takes every write.
            let _ = write!(message, "\n  {}: {}", problem.subject, problem.text);
        }
        // A misspelt name may be the reason why another setting is missing.
        for warning in &self.warnings {
            let _ = write!(message, "\n  warning: {warning}");
        }
        Error::new(ErrorKind::Settings, message).hint(hint)
    }
}

/// A wrong value as it may be shown: quoted, cut, without a secret and without the credentials of
/// an address.
pub(super) fn shown(variable: &Variable, value: &str) -> String {
    if variable.secret {
        return "the value (not shown)".into();
    }
    let open = without_credentials(value);
    let mut cut: String = open.chars().take(SHOWN_CHARS).collect();
    if cut.len() < open.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// Takes the user and password out of everything that looks like `scheme://user:password@host` or
/// `user:password@host`.
pub(super) fn without_credentials(text: &str) -> String {
    text.split(',').map(mask_one).collect::<Vec<_>>().join(",")
}

fn mask_one(text: &str) -> String {
    let Some(at) = text.rfind('@') else { return text.to_owned() };
    let start = text.find("://").map_or(0, |scheme| scheme + 3).min(at);
    if text[start..at].contains(':') { format!("{}(hidden){}", &text[..start], &text[at..]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::variables::{GEOSERVER_PASSWORD, GEOSERVER_URL};

    #[test]
    fn credentials_are_never_shown() {
        assert_eq!(shown(&GEOSERVER_PASSWORD, "hunter2"), "the value (not shown)");
        assert_eq!(shown(&GEOSERVER_URL, "http://a:b@h/x,ftp://c:d@e@i"), r#""http://(hidden)@h/x,ftp://(hidden)@i""#);
        assert_eq!(shown(&GEOSERVER_URL, "borg@host"), r#""borg@host""#);
    }
}
