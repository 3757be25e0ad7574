//! The value of each variable with its origin, and the readings that many of them share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::dotenv::Parsed;
use super::problem::{Problems, shown};
use super::variables::{DefaultValue, VARIABLES, Variable};
use super::{Env, Template};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Environment,
    /// A line of a `.env` file, counted from 1.
    File(PathBuf, usize),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value that somebody gave.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// All values given, and the problems found with them.
///
/// A reading that finds a problem notes it and returns a stand-in; no stand-in is ever seen,
/// because a load with problems fails.
pub(super) struct Values {
    given: BTreeMap<&'static str, Given>,
    pub(super) problems: Problems,
}

impl Values {
    /// Takes what the environment gives; an empty value counts as unset.
    pub(super) fn of_environment(env: &impl Env) -> Self {
        let mut values = Self { given: BTreeMap::new(), problems: Problems::default() };
        for variable in VARIABLES {
            match env.get(variable.name).map(std::ffi::OsString::into_string) {
                None => {}
                Some(Ok(text)) => values.give(variable, text, Origin::Environment),
                Some(Err(_)) => values.problems.add(
                    variable,
                    &Origin::Environment,
                    "the value is not UTF-8; set it again from a terminal with a UTF-8 locale",
                ),
            }
        }
        values
    }

    /// Adds what a `.env` file gives and the environment does not.
    pub(super) fn add_file(&mut self, path: &std::path::Path, parsed: &Parsed) {
        for variable in VARIABLES {
            let entries: Vec<_> = parsed.entries.iter().filter(|entry| entry.name == variable.name).collect();
            let Some(entry) = entries.last() else { continue };
            let origin = Origin::File(path.to_path_buf(), entry.line);
            if entries.len() > 1 {
                let lines: Vec<_> = entries.iter().map(|entry| entry.line.to_string()).collect();
                let lines = lines.join(", ");
                self.problems
                    .warn(format!("{} ({origin}) stands on lines {lines}; the last one counts", variable.name));
            }
            if entry.substituted {
                self.problems.warn(format!(
                    "{} ({origin}): `$` and the name after it were replaced by the value of that variable; when the `$` is meant as itself, put the value in single quotes",
                    variable.name
                ));
            }
            if !self.given.contains_key(variable.name) {
                self.give(variable, entry.value.clone(), origin);
            }
        }
    }

    fn give(&mut self, variable: &Variable, text: String, origin: Origin) {
        if text.trim().is_empty() {
            return;
        }
        // White space may belong to a password; around anything else it is an accident.
        let text = if variable.secret { text } else { text.trim().to_owned() };
        self.given.insert(variable.name, Given { text, origin });
    }

    /// The value that somebody gave.
    pub(super) fn given(&self, variable: &Variable) -> Option<&Given> {
        self.given.get(variable.name)
    }

    /// The value given, or the literal default.
    pub(super) fn value(&self, variable: &Variable) -> Option<Given> {
        self.given(variable).cloned().or(match variable.default {
            DefaultValue::Literal(text) => Some(Given { text: text.to_owned(), origin: Origin::Default }),
            DefaultValue::Nothing | DefaultValue::Computed(_) => None,
        })
    }

    /// The value as text, when there is one.
    pub(super) fn text(&self, variable: &Variable) -> Option<String> {
        self.value(variable).map(|value| value.text)
    }

    /// Notes that the value of `variable` is not one of those `allowed`.
    pub(super) fn refuse(&mut self, variable: &Variable, found: &str, trouble: &str, allowed: &str) {
        let origin = self.given(variable).map_or(Origin::Default, |given| given.origin.clone());
        self.problems.add(variable, &origin, format!("{} {trouble}; allowed: {allowed}", shown(variable, found)));
    }

    /// Reads the value with `read`, which tells the trouble; `None` when there is no usable value.
    pub(super) fn read<T>(
        &mut self,
        variable: &Variable,
        allowed: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(variable)?;
        match read(&value.text) {
            Ok(read) => Some(read),
            Err(trouble) => {
                self.refuse(variable, &value.text, &trouble, allowed);
                None
            }
        }
    }

    /// Reads true or false.
    pub(super) fn boolean(&mut self, variable: &Variable) -> bool {
        let read = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("is neither true nor false".to_owned()),
        };
        self.read(variable, "true, yes, on, 1 or false, no, off, 0", read).unwrap_or_default()
    }

    /// Reads a whole number of `unit` within `range`.
    pub(super) fn number<N>(&mut self, variable: &Variable, range: &RangeInclusive<N>, unit: &str) -> Option<N>
    where
        N: FromStr + PartialOrd + fmt::Display,
    {
        let unit = if unit.is_empty() { String::new() } else { format!(" of {unit}") };
        let allowed = format!("a whole number{unit} from {} to {}", range.start(), range.end());
        self.read(variable, &allowed, |text| {
            let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
            match text.parse::<N>() {
                Ok(number) if range.contains(&number) => Ok(number),
                _ if is_number => Err("is out of range".to_owned()),
                _ => Err("is no whole number".to_owned()),
            }
        })
    }

    /// Reads a comma list: trimmed, empty entries dropped, each entry once.
    pub(super) fn list(&mut self, variable: &Variable) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let text = self.text(variable).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty() && seen.insert(entry.to_owned()))
            .map(str::to_owned)
            .collect()
    }

    /// Reads a template that must use its one value.
    pub(super) fn template(&mut self, variable: &Variable, check: impl FnOnce(&str) -> bool) -> Option<Template> {
        self.read(variable, "a text with `{}` where the workspace goes", |text| {
            let template = Template::parse(text, 1).map_err(|fault| format!("is no template: {fault}"))?;
            if !template.uses(0) {
                return Err("has no `{}`, so that all workspaces would get the same".to_owned());
            }
            if !check(&template.fill("workspace")) {
                return Err("does not give a usable result for a workspace".to_owned());
            }
            Ok(template)
        })
    }

    /// Reads a command line, split as a shell would split it.
    pub(super) fn command(&mut self, variable: &Variable) -> Option<Vec<String>> {
        self.read(variable, &format!("a command such as `{}`", variable.example), |text| {
            let words = shell_words::split(text).map_err(|_| "has a quote that is not closed".to_owned())?;
            match words.first() {
                Some(program) if !program.is_empty() && !program.starts_with('-') => Ok(words),
                _ => Err("does not begin with a program".to_owned()),
            }
        })
    }
}
