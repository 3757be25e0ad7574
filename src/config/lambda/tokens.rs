//! The words of a Python expression.

/// Signs that filters are written with, longer ones first.
const SIGNS: &[&str] =
    &["==", "!=", "<>", "<=", ">=", "<", ">", "(", ")", "[", "]", "{", "}", ",", ":", ".", "+", "-", "*", "%"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Number(String),
    Text(String),
    Sign(&'static str),
}

impl Token {
    /// Whether it is this name or sign.
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Self::Name(name) => name == text,
            Self::Sign(sign) => *sign == text,
            Self::Number(_) | Self::Text(_) => false,
        }
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Self::Name(text) | Self::Number(text) => format!("`{text}`"),
            Self::Text(text) => format!("the text '{text}'"),
            Self::Sign(sign) => format!("`{sign}`"),
        }
    }
}

/// Splits `text`.
///
/// # Errors
///
/// What is not part of any filter.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let taken;
        if c == '#' {
            taken = rest.find('\n').unwrap_or(rest.len());
        } else if c == '"' || c == '\'' {
            let (value, length) = string(rest, c)?;
            found.push(Token::Text(value));
            taken = length;
        } else if c.is_ascii_digit() {
            taken = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            // Python 2 wrote long integers as `0L`.
            let digits = rest[..taken].trim_end_matches(['L', 'l']);
            if digits.parse::<f64>().is_err() {
                return Err(format!("`{digits}` is no decimal number"));
            }
            found.push(Token::Number(digits.to_owned()));
        } else if c.is_alphabetic() || c == '_' {
            taken = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let follows = rest[taken..].chars().next();
            if follows.is_some_and(|c| c == '"' || c == '\'')
                && !matches!(&rest[..taken], "in" | "is" | "and" | "or" | "not" | "if" | "else")
            {
                if !matches!(&rest[..taken], "u" | "U") {
                    return Err(format!("a text with the prefix `{}` is not known in filters", &rest[..taken]));
                }
            } else {
                found.push(Token::Name(rest[..taken].to_owned()));
            }
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            taken = sign.len();
            found.push(Token::Sign(sign));
        } else {
            return Err(format!("`{c}` is not known in filters"));
        }
        rest = rest[taken..].trim_start();
    }
    Ok(found)
}

/// Reads the string that begins `text`; also how many bytes it takes.
fn string(text: &str, quote: char) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c)) if matches!(c, '\\' | '\'' | '"') => value.push(c),
                Some((_, c)) => return Err(format!("the escape `\\{c}` is not known in filters")),
                None => break,
            },
            c if c == quote => return Ok((value, at + 1)),
            c => value.push(c),
        }
    }
    Err("a text is not closed".into())
}
