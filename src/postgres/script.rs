//! Reads the SQL that `pg_restore` would run, far enough to see what each statement touches.
//!
//! Only what `pg_dump` writes for one table has to be understood; everything else is refused by the
//! caller. The lexical rules are those of the PostgreSQL manual, chapter "Lexical Structure", with
//! `standard_conforming_strings` on.

use crate::name::{quote_ident, quote_literal};

/// A piece of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A key word or an unquoted name, in lower case.
    Word(String),
    /// A name that stood in double quotes.
    Quoted(String),
    /// A string constant.
    Text(String),
    /// Any other character.
    Symbol(char),
}

impl Token {
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            Self::Text(_) | Self::Symbol(_) => None,
        }
    }
}

/// One statement, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
}

impl Statement {
    /// Whether the statement begins with these words.
    pub(super) fn begins(&self, words: &[&str]) -> bool {
        self.tokens.len() >= words.len() && self.tokens.iter().zip(words).all(|(token, word)| token.is(word))
    }

    /// The position of the first key word `word` from `start` on that stands outside of parentheses.
    pub(super) fn find(&self, word: &str, start: usize) -> Option<usize> {
        let mut depth = 0_i32;
        for (index, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth -= 1,
                token if index >= start && depth == 0 && token.is(word) => return Some(index),
                _ => {}
            }
        }
        None
    }

    /// The name at `index`.
    pub(super) fn name(&self, index: usize) -> Option<&str> {
        self.tokens.get(index).and_then(Token::name)
    }

    /// The `schema.name` that begins at `index`.
    pub(super) fn qualified(&self, index: usize) -> Option<(&str, &str)> {
        let dot = self.tokens.get(index + 1)?;
        if *dot != Token::Symbol('.') {
            return None;
        }
        Some((self.name(index)?, self.name(index + 2)?))
    }

    /// The first words, for a message.
    pub(super) fn beginning(&self) -> String {
        let line: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect();
        line.trim_end().to_owned()
    }
}

/// The schema and name in the text of a `regclass`.
pub(super) fn qualified(text: &str) -> Option<(String, String)> {
    let statement = statements(&format!("{text};")).ok()?.pop()?;
    let (schema, name) = statement.qualified(0)?;
    (statement.tokens.len() == 3).then(|| (schema.to_owned(), name.to_owned()))
}

/// Splits `script` into statements. Comments and the commands of `psql` (lines that begin with a
/// backslash) fall away.
pub(super) fn statements(script: &str) -> Result<Vec<Statement>, String> {
    let mut lexer = Lexer { rest: script };
    let mut found = Vec::new();
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some((token, source)) = lexer.next(tokens.is_empty())? {
        let end = script.len() - lexer.rest.len();
        if tokens.is_empty() {
            start = end - source.len();
        }
        if token == Token::Symbol(';') {
            let text = script[start..end - 1].to_owned();
            found.push(Statement { text, tokens: std::mem::take(&mut tokens) });
        } else {
            tokens.push(token);
        }
    }
    if !tokens.is_empty() {
        return Err("the last statement has no end".into());
    }
    Ok(found)
}

/// `sql` with the relation `from` (schema and name) become the relation `to`, wherever it stands as a name or in a
/// constant of type `regclass`.
pub(super) fn renamed(sql: &str, from: (&str, &str), to: (&str, &str)) -> Result<String, String> {
    let mut lexer = Lexer { rest: sql };
    let mut tokens = Vec::new();
    while let Some((token, source)) = lexer.next(false)? {
        let end = sql.len() - lexer.rest.len();
        tokens.push((token, end - source.len()..end));
    }
    let token = |at: usize| tokens.get(at).map(|(token, _)| token);
    let is = |at: usize, symbol| token(at) == Some(&Token::Symbol(symbol));
    let to = format!("{}.{}", quote_ident(to.0), quote_ident(to.1));
    let (mut renamed, mut done) = (String::new(), 0);
    for (at, (found, place)) in tokens.iter().enumerate() {
        let is_class = || is(at + 1, ':') && is(at + 2, ':') && token(at + 3).is_some_and(|next| next.is("regclass"));
        let (end, text) = match found {
            Token::Text(text) if is_class() => match qualified(text) {
                Some((schema, name)) if (schema.as_str(), name.as_str()) == from => (place.end, quote_literal(&to)),
                _ => continue,
            },
            Token::Word(schema) | Token::Quoted(schema) if schema == from.0 && (at == 0 || !is(at - 1, '.')) => {
                match tokens.get(at + 2) {
                    Some((name, last)) if is(at + 1, '.') && name.name() == Some(from.1) => (last.end, to.clone()),
                    _ => continue,
                }
            }
            _ => continue,
        };
        renamed.push_str(&sql[done..place.start]);
        renamed.push_str(&text);
        done = end;
    }
    renamed.push_str(&sql[done..]);
    Ok(renamed)
}

struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    fn next(&mut self, at_start: bool) -> Result<Option<(Token, &'a str)>, String> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("--") || (at_start && self.rest.starts_with('\\')) {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else if self.rest.starts_with("/*") {
                return Err("it holds a block comment".into());
            } else {
                break;
            }
        }
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let (token, length) = match first {
            '"' => {
                let (name, length) = quoted(self.rest, '"', false)?;
                (Token::Quoted(name), length)
            }
            '\'' => {
                let (text, length) = quoted(self.rest, '\'', false)?;
                (Token::Text(text), length)
            }
            'e' | 'E' if self.rest[1..].starts_with('\'') => {
                let (text, length) = quoted(&self.rest[1..], '\'', true)?;
                (Token::Text(text), length + 1)
            }
            '$' => dollar(self.rest)?,
            c if c.is_ascii_alphabetic() || c == '_' || !c.is_ascii() => {
                let end = self
                    .rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()))
                    .unwrap_or(self.rest.len());
                (Token::Word(self.rest[..end].to_ascii_lowercase()), end)
            }
            c => (Token::Symbol(c), c.len_utf8()),
        };
        let (source, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(Some((token, source)))
    }
}

/// The content of a quoted text at the start of `rest`, and its length with quotes.
fn quoted(rest: &str, quote: char, escapes: bool) -> Result<(String, usize), String> {
    let mut content = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        if c == quote {
            if chars.next_if(|(_, next)| *next == quote).is_some() {
                content.push(quote);
            } else {
                return Ok((content, index + 1));
            }
        } else if escapes && c == '\\' {
            // Which character is meant does not matter here, only that it does not end the text.
            if let Some((_, escaped)) = chars.next() {
                content.push(escaped);
            }
        } else {
            content.push(c);
        }
    }
    Err("a quoted text has no end".into())
}

/// A dollar-quoted text, or a lone dollar.
fn dollar(rest: &str) -> Result<(Token, usize), String> {
    let tag_end = rest[1..].find('$').map(|end| end + 2);
    let tag = tag_end
        .map(|end| &rest[..end])
        .filter(|tag| tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_'));
    let Some(tag) = tag else { return Ok((Token::Symbol('$'), 1)) };
    let body = &rest[tag.len()..];
    let end = body.find(tag).ok_or("a quoted text has no end")?;
    Ok((Token::Text(body[..end].to_owned()), tag.len() * 2 + end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statements_of_a_dump_are_split_and_their_names_read() {
        let script = "--\n-- Name: x; Type: y\n--\n\\restrict abc\n\
            CREATE TABLE ws_data.\"Ro\"\"ads; 'x'\" (\n    id integer DEFAULT 'a;''b'::text,\n    t text DEFAULT E'\\';'\n);\n\n\
            ALTER TABLE ONLY ws_data.roads\n    ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES other.\"T\"(id);\n";
        let found = statements(script).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].begins(&["create", "table"]));
        assert_eq!(found[0].qualified(2), Some(("ws_data", "Ro\"ads; 'x'")));
        let references = found[1].find("references", 0).unwrap();
        assert_eq!(found[1].qualified(references + 1), Some(("other", "T")));
        assert_eq!(
            found[1].text,
            "ALTER TABLE ONLY ws_data.roads\n    ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES other.\"T\"(id)"
        );
    }

    #[test]
    fn a_relation_is_renamed_where_it_stands_and_nowhere_else() {
        let rename = |sql: &str| renamed(sql, ("ws_old", "Ro'ads"), ("ws", "Ro'ads")).unwrap();
        let kept = "select 'ws_old.Ro''ads'::text, r.ws_old, ws_old.other, ws_old.\"Ro'ads 2\", x.ws_old.\"Ro'ads\" \
                    from ws_old_old.\"Ro'ads\", \"WS_OLD\".\"Ro'ads\", ws_old.ro_ads";
        assert_eq!(rename(kept), kept);
        assert_eq!(
            rename(
                "select '(ws_old.\"Ro''ads\")'::text, 'ws_old.\"Ro''ads\"'::regclass from \"ws_old\".\"Ro'ads\" r JOIN ws_old.\"Ro'ads\";"
            ),
            "select '(ws_old.\"Ro''ads\")'::text, '\"ws\".\"Ro''ads\"'::regclass from \"ws\".\"Ro'ads\" r JOIN \"ws\".\"Ro'ads\";"
        );
        assert_eq!(renamed("ws_old.roads", ("ws_old", "roads"), ("ws", "roads")).unwrap(), "\"ws\".\"roads\"");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(statements("COMMENT ON TABLE x IS 'no end;").is_err());
        assert!(statements("SELECT 1 /* hidden */;").is_err());
        assert!(statements("SELECT 1").is_err());
    }

    proptest! {
        #[test]
        fn no_name_or_text_ever_ends_a_statement(name in "[^\\x00]{1,20}", text in "[^\\x00]{0,20}") {
            let sql = format!(
                "COMMENT ON TABLE {} IS '{}';SELECT 1;",
                crate::name::quote_ident(&name),
                text.replace('\'', "''")
            );
            let found = statements(&sql).unwrap();
            prop_assert_eq!(found.len(), 2);
            prop_assert_eq!(found[0].name(3), Some(name.as_str()));
            prop_assert_eq!(&found[0].tokens[5], &Token::Text(text));
        }
    }
}
