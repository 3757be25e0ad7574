//! Filters: which jobs a slave takes.
//!
//! A filter is a Rhai expression or closure over `job`, or a `.rhai` file that ends in one:
//!
//! ```text
//! job.auth_level in [0, 1] && job.workspace != "internal"
//! |job| get(job, "auth_level", 2) < 2
//! ```
//!
//! It must answer `true` (take the job) or `false`. Asking for a field that the job does not have is an
//! error, so that a misspelled field cannot let layers in or keep them out unnoticed; `has(job, "field")` and
//! `get(job, "field", default)` ask for fields that may be absent. Comparing values of different kinds (a
//! number and a text) is an error too. Lists, maps and texts have Rhai's usual
//! methods (`contains`, `starts_with`, `ends_with`, `to_lower`, `split`, `some`, `all`, `in`, …).
//!
//! A filter reaches neither files nor the network nor the clock, and is bounded in steps, memory and depth.
//! When it fails, the job that it was asked about fails: it is neither taken nor silently left out.

mod engine;
#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rhai::{AST, Dynamic, Engine, EvalAltResult, FnPtr, ParseError, ParseErrorType, Position, Scope};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobKind;

/// The text of a filter.
#[derive(Debug, Clone, Copy)]
pub enum FilterText<'a> {
    /// One expression or closure, from a setting.
    Expression(&'a str),
    /// The path and content of a `.rhai` file.
    File(&'a Path, &'a str),
}

/// What a filter says about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The slave takes the job.
    Taken,
    /// The slave leaves the job out.
    Refused {
        /// Which filter refuses it.
        reason: String,
    },
}

/// A compiled filter; cheap to ask, and to be shared between threads.
#[derive(Clone)]
pub struct Filter {
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    All,
    None,
    Portable,
    Script(Box<Script>),
}

#[derive(Clone)]
struct Script {
    /// The setting that the filter comes from, with the file's path when it is one.
    name: String,
    ast: AST,
    is_file: bool,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::All => f.write_str("Filter::all"),
            Rule::None => f.write_str("Filter::none"),
            Rule::Portable => f.write_str("Filter::portable_default"),
            Rule::Script(script) => write!(f, "Filter({})", script.name),
        }
    }
}

impl Filter {
    /// Compiles a filter; `name` is the setting it comes from.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] with line and column when the text is no filter.
    pub fn compile(name: &str, text: FilterText<'_>) -> Result<Self> {
        let (name, text, is_file) = match text {
            FilterText::Expression(text) => (name.to_owned(), text, false),
            FilterText::File(path, text) => (format!("{name} ({})", path.display()), text, true),
        };
        if text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with("//")) {
            return Err(Error::new(ErrorKind::Settings, "the filter is empty")
                .subject(name)
                .hint("unset it, or write an expression such as `job.auth_level in [0, 1]`"));
        }
        let mut scope = Scope::new();
        scope.push_constant("job", rhai::Map::new());
        let compiled = catch_unwind(AssertUnwindSafe(|| engine(is_file).compile_with_scope(&scope, text)));
        let ast = match compiled {
            Ok(Ok(ast)) => ast,
            Ok(Err(error)) => return Err(refuse(&name, &error)),
            Err(_) => {
                return Err(Error::new(ErrorKind::Settings, "the filter breaks the script compiler")
                    .subject(name)
                    .hint("write the filter in another way"));
            }
        };
        Ok(Self { rule: Rule::Script(Box::new(Script { name, ast, is_file })) })
    }

    /// The filter that takes everything.
    #[must_use]
    pub fn all() -> Self {
        Self { rule: Rule::All }
    }

    /// The filter that takes nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { rule: Rule::None }
    }

    /// The filter for features of a slave that takes its files from another one: those where
    /// `allow_authenticated` is true or `auth_level` is 0 or 1. `examples/filters/portable.rhai` is the same.
    #[must_use]
    pub fn portable_default() -> Self {
        Self { rule: Rule::Portable }
    }

    /// Asks whether the slave takes the job with these `facts`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Filter`] with the place in the script when the filter fails, exceeds its bounds, or
    /// answers neither `true` nor `false`.
    pub fn accepts(&self, facts: &Map<String, Value>) -> Result<Verdict> {
        let (taken, reason) = match &self.rule {
            Rule::All => (true, String::new()),
            Rule::None => (false, "this slave takes no jobs of this kind".to_owned()),
            Rule::Portable => {
                let is_open = |name: &str, open: &[Value]| facts.get(name).is_some_and(|value| open.contains(value));
                let taken =
                    is_open("allow_authenticated", &[true.into()]) || is_open("auth_level", &[0.into(), 1.into()]);
                (taken, "a portable slave takes only what signed-in staff may read".to_owned())
            }
            Rule::Script(script) => (script.ask(facts)?, format!("{} refuses it", script.name)),
        };
        Ok(if taken { Verdict::Taken } else { Verdict::Refused { reason } })
    }
}

impl Script {
    fn ask(&self, facts: &Map<String, Value>) -> Result<bool> {
        let answer = catch_unwind(AssertUnwindSafe(|| self.evaluate(facts)));
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.failure(facts, &error)),
            Err(_) => {
                return Err(self.error(facts, "breaks the script engine").hint("write the filter in another way"));
            }
        };
        answer.as_bool().map_err(|found| {
            self.error(facts, &format!("must answer true or false and answers {}", word(found)))
                .hint("compare the value with something: there is no truthiness as in Python")
        })
    }

    fn evaluate(&self, facts: &Map<String, Value>) -> Result<Dynamic, Box<EvalAltResult>> {
        let own = engine::for_big_job(engine::Size::of(facts));
        let engine = own.as_ref().unwrap_or_else(|| engine(self.is_file));
        let job: Dynamic = engine::to_map(facts).into();
        let mut scope = Scope::new();
        scope.push_constant_dynamic("job", job.clone());
        let answer: Dynamic = engine.eval_ast_with_scope(&mut scope, &self.ast)?;
        match answer.try_cast_result::<FnPtr>() {
            Ok(closure) => closure.call(engine, &self.ast, (job,)),
            Err(answer) => Ok(answer),
        }
    }

    fn failure(&self, facts: &Map<String, Value>, error: &EvalAltResult) -> Error {
        let inner = error.unwrap_inner();
        let hint = match inner {
            EvalAltResult::ErrorPropertyNotFound(field, _) => missing_field(field, facts),
            EvalAltResult::ErrorFunctionNotFound(function, _) if function.starts_with("anon$") => {
                "a closure takes one argument, the job: |job| …".into()
            }
            EvalAltResult::ErrorTooManyOperations(_)
            | EvalAltResult::ErrorStackOverflow(_)
            | EvalAltResult::ErrorTooManyVariables(_)
            | EvalAltResult::ErrorDataTooLarge(..) => {
                "simplify the filter: its steps, depth and memory are bounded".into()
            }
            _ => "correct the filter, then run again".into(),
        };
        // The library ends its texts with the place, which the message has already.
        let cause = inner.to_string();
        let cause = cause.rsplit_once(" (line ").map_or(cause.as_str(), |(cause, _)| cause);
        let cause = cause.strip_prefix("Runtime error: ").unwrap_or(cause);
        // The library names a closure by a hash, which says nothing and differs from build to build.
        let cause = if cause.contains("anon$") { "the closure does not take one argument" } else { cause }.to_owned();
        self.error(facts, &format!("fails{}", place(inner.position()))).hint(hint).source(std::io::Error::other(cause))
    }

    fn error(&self, facts: &Map<String, Value>, matter: &str) -> Error {
        let job_file = facts.get("job_file").and_then(Value::as_str).unwrap_or("a job");
        Error::new(ErrorKind::Filter, format!("the filter, asked about {job_file}, {matter}"))
            .subject(self.name.as_str())
    }
}

fn engine(is_file: bool) -> &'static Engine {
    if is_file { &engine::SCRIPT } else { &engine::EXPRESSION }
}

fn place(position: Position) -> String {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!(" at line {line}, column {column}"),
        (Some(line), None) => format!(" at line {line}"),
        _ => String::new(),
    }
}

fn refuse(name: &str, error: &ParseError) -> Error {
    let matter = error.err_type().to_string();
    let hint = match error.err_type() {
        ParseErrorType::VariableUndefined(word) => match word.as_str() {
            "lambda" | "not" | "None" | "True" | "False" => PYTHON.to_owned(),
            _ if strsim::damerau_levenshtein(word, "job") <= 1 => "did you mean `job`?".to_owned(),
            _ => format!("the job's fields belong to `job`: write `job.{word}`; a text stands in double quotes"),
        },
        ParseErrorType::UnknownOperator(operator) if operator == "=" => "compare with `==`".to_owned(),
        ParseErrorType::UnknownOperator(_) | ParseErrorType::Reserved(_) => {
            "a setting holds one expression or closure; write statements into a .rhai file and set its path".to_owned()
        }
        _ if matter.ends_with("is disabled") => "filters cannot do that".to_owned(),
        ParseErrorType::BadInput(_) => "a text stands in double quotes, single quotes hold one character".to_owned(),
        _ => PYTHON.to_owned(),
    };
    Error::new(ErrorKind::Settings, format!("the filter does not compile{}", place(error.position())))
        .subject(name)
        .hint(hint)
        .source(std::io::Error::other(matter))
}

const PYTHON: &str =
    "filters are written in Rhai: `==`, `&&`, `||`, `!`, `true`, `\"text\"`, `|job| …`; see examples/filters";

fn missing_field(field: &str, facts: &Map<String, Value>) -> String {
    let advice =
        format!("ask for a field that a job may lack with get(job, \"{field}\", default) or has(job, \"{field}\")");
    let likeness = |known: &str| strsim::jaro_winkler(field, known);
    let known = facts.keys().filter(|known| *known != field && likeness(known) > 0.85);
    match known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(known) if !facts.contains_key(field) => format!("did you mean `{known}`? Otherwise {advice}"),
        _ => advice,
    }
}

fn word(type_name: &str) -> &str {
    match type_name {
        "()" => "nothing",
        "i64" => "an integer",
        "f64" => "a number",
        "string" => "a text",
        "array" => "a list",
        "map" => "a map",
        "Fn" => "a function",
        other => other,
    }
}

/// The three filters of a slave.
#[derive(Debug, Clone)]
pub struct Filters {
    /// Asked about features, live stores and layers, and workspaces.
    pub feature: Filter,
    /// Asked about WMS stores and layers.
    pub wms: Filter,
    /// Asked about layer groups.
    pub layergroup: Filter,
}

impl Filters {
    /// Asks the filter that is in charge of jobs of this `kind`. Access rules and roles are never filtered.
    ///
    /// # Errors
    ///
    /// As [`Filter::accepts`].
    pub fn accepts(&self, kind: JobKind, facts: &Map<String, Value>) -> Result<Verdict> {
        match kind {
            JobKind::Feature | JobKind::LiveStore | JobKind::LiveLayer | JobKind::Workspace => {
                self.feature.accepts(facts)
            }
            JobKind::WmsStore | JobKind::WmsLayer => self.wms.accepts(facts),
            JobKind::LayerGroup => self.layergroup.accepts(facts),
            JobKind::AccessRules | JobKind::Auth => Ok(Verdict::Taken),
        }
    }
}
