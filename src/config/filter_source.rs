//! A filter as the operator wrote it; compiling it is another module's work.

use std::fmt;
use std::path::{Path, PathBuf};

use super::lambda;

/// Where a filter's script stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterSource {
    /// In the variable itself.
    Expression(String),
    /// In a `.rhai` file that exists; an absolute path when the clone's is.
    File(PathBuf),
    /// In a `.rhai` file that was read when the settings were checked: what happens to the file later changes nothing.
    Read {
        /// The file.
        path: PathBuf,
        /// What it held.
        text: String,
    },
}

impl fmt::Display for FilterSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expression(text) => f.write_str(text),
            Self::File(path) | Self::Read { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// Reads the value of the filter variable `name`; a relative path counts from `root`.
///
/// # Errors
///
/// What is wrong and what to write instead.
pub(super) fn read(name: &str, text: &str, root: &Path) -> Result<FilterSource, String> {
    if lambda::is_lambda(text) {
        return Err(lambda_remedy(name, text));
    }
    let Some(path) = file(text, root) else {
        return Ok(FilterSource::Expression(text.to_owned()));
    };
    if path.is_file() {
        Ok(FilterSource::File(path))
    } else {
        Err(format!("there is no file {}; a relative path counts from the clone", path.display()))
    }
}

/// The file that the value of a filter variable names, there or not; `None` when it is a script itself.
pub(super) fn file(text: &str, root: &Path) -> Option<PathBuf> {
    (!text.contains('\n') && text.ends_with(".rhai")).then(|| root.join(text))
}

/// Says what replaces a Python lambda.
pub(super) fn lambda_remedy(name: &str, text: &str) -> String {
    let shape = r#"get(job, "auth_level", -1) in [0, 1] && !has(job, "viewsql")"#;
    match lambda::translate(text) {
        Ok(translation) => {
            let mut remedy = format!(
                "filters are written in Rhai, not as a Python lambda; write instead\n    {name}={}",
                env_quoted(&translation.rhai)
            );
            if !translation.assumed_boolean.is_empty() {
                remedy.push_str(&format!(
                    "\n    where {} must be true or false: Rhai takes no other value for a condition",
                    translation.assumed_boolean.join(" and ")
                ));
            }
            remedy
        }
        Err(obstacle) => format!(
            "filters are written in Rhai, not as a Python lambda, and this one cannot be translated: {obstacle}; rewrite it in the shape of\n    {name}={}",
            env_quoted(shape)
        ),
    }
}

/// `text` as a value in a `.env` file.
fn env_quoted(text: &str) -> String {
    if !text.contains('\'') && !text.contains('\\') {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_are_read_back_unchanged() {
        for text in [r#"get(job, "a", 1)"#, r#"job["a"] == "it's $5""#, r#"a == "\"'\\""#] {
            let line = format!("A={}\n", env_quoted(text));
            let (_, value) = dotenvy::from_read_iter(line.as_bytes()).next().unwrap().unwrap();
            assert_eq!(value, text);
        }
    }

    #[test]
    fn a_lambda_is_answered_with_its_rhai_form() {
        let remedy = |text| read("WMS_FILTER", text, Path::new("/")).unwrap_err();
        insta::assert_snapshot!(remedy("lambda job: job.get('hidden') or job['n'] == 'it\\'s'"), @r#"
        filters are written in Rhai, not as a Python lambda; write instead
            WMS_FILTER="get(job, \"hidden\", ()) == true || job[\"n\"] == \"it's\""
            where get(job, "hidden", ()) must be true or false: Rhai takes no other value for a condition
        "#);
        insta::assert_snapshot!(remedy("lambda job: is_mine(job)"), @r#"
        filters are written in Rhai, not as a Python lambda, and this one cannot be translated: the name `is_mine` is not known in filters; rewrite it in the shape of
            WMS_FILTER='get(job, "auth_level", -1) in [0, 1] && !has(job, "viewsql")'
        "#);
    }
}
