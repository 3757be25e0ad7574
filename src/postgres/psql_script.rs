//! Reads a script as `psql` does, far enough to know where its statements are and that nothing in it
//! makes `psql` do more than send SQL.
//!
//! The script comes from another machine, and `psql` has commands of its own that run programs
//! (`\!`, `\copy … program`, `` \echo `…` ``), write files, or connect elsewhere. What may stand in a script
//! is listed here; everything else is refused before anything runs. Commands that only concern `psql`'s
//! output are taken out, so that what they hold does not matter.
//!
//! The lexical rules are those of psql(1) and of the PostgreSQL manual, chapter "Lexical Structure".

/// Commands that change nothing in the database; they are taken out.
const WITHOUT_EFFECT: [&str; 10] =
    ["echo", "qecho", "warn", "set", "unset", "encoding", "timing", "pset", "restrict", "unrestrict"];

/// How much of a statement a message shows, in characters.
const SHOWN_CHARS: usize = 160;

/// The least length of a secret that is looked for in messages, in bytes.
const SECRET_BYTES: usize = 3;

/// A script that may run.
#[derive(Debug)]
pub(super) struct Script {
    /// What to feed to `psql`; its lines are those of the original.
    pub(super) text: String,
    pub(super) statements: Vec<Statement>,
    /// What messages must not repeat.
    secrets: Vec<String>,
}

/// One statement of a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The line on which it begins, counted from 1.
    pub(super) first_line: usize,
    /// The line on which it ends: the one that `psql` names.
    pub(super) last_line: usize,
    /// Its beginning on one line, texts left out.
    pub(super) shown: String,
}

/// Why a script may not run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) reason: String,
}

impl Script {
    /// Reads the text of a script.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader::new(text, true);
        reader.read()?;
        let Reader { mut fed, fed_to, statements, secrets, .. } = reader;
        fed.push_str(&text[fed_to..]);
        Ok(Self { text: fed, statements, secrets })
    }

    /// `said` without the secrets of the script.
    pub(super) fn censored(&self, said: &str) -> String {
        self.secrets.iter().fold(said.to_owned(), |said, secret| said.replace(secret.as_str(), "…"))
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    /// Whether this is the script itself, and not a text within it that is looked through for secrets.
    outermost: bool,
    /// The text so far, commands without effect left out, and up to where it was taken over.
    fed: String,
    fed_to: usize,
    statements: Vec<Statement>,
    secrets: Vec<String>,
    pending: Pending,
}

/// The statement that is being read.
#[derive(Default)]
struct Pending {
    first_line: Option<usize>,
    shown: String,
    /// All of it in lower case, without space, quotes and comments.
    compact: String,
    /// Its words in lower case.
    words: Vec<String>,
    depth: i32,
    /// The texts in it.
    texts: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, outermost: bool) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            outermost,
            fed: String::new(),
            fed_to: 0,
            statements: Vec::new(),
            secrets: Vec::new(),
            pending: Pending::default(),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, Refusal> {
        Err(Refusal { line: self.line, reason: reason.into() })
    }

    /// Passes over `bytes` and answers them.
    fn take(&mut self, bytes: usize) -> &'a str {
        let taken = &self.text[self.at..self.at + bytes];
        self.line += taken.matches('\n').count();
        self.at += bytes;
        taken
    }

    fn read(&mut self) -> Result<(), Refusal> {
        if self.outermost && self.text.contains('\0') {
            return self.refuse("it holds a NUL character");
        }
        while let Some(c) = self.rest().chars().next() {
            if c.is_ascii_whitespace() || c == '\u{b}' {
                self.take(1);
                self.pending.space();
            } else if self.rest().starts_with("--") {
                self.take(self.rest().find('\n').unwrap_or(self.rest().len()));
            } else if self.rest().starts_with("/*") {
                self.block_comment()?;
            } else if c == '\\' && self.outermost {
                self.command()?;
            } else {
                self.pending.first_line.get_or_insert(self.line);
                self.token(c)?;
            }
        }
        self.end_statement()
    }

    fn token(&mut self, c: char) -> Result<(), Refusal> {
        match c {
            '\'' => return self.quoted_text(),
            '"' => {
                let length = self.until_quote('"', false)?;
                let name = self.take(length).to_owned();
                self.name(&name, &name[1..length - 1]);
            }
            '$' if let Some(tag) = dollar_tag(self.rest()) => {
                let Some(end) = self.rest()[tag.len()..].find(tag) else {
                    return self.refuse(format!("the text that begins here with {tag} has no end"));
                };
                let body = self.take(end + 2 * tag.len());
                let body = &body[tag.len()..tag.len() + end];
                self.text_is(body, body);
            }
            ':' if self.outermost => {
                let after = self.rest()[1..].chars().next().unwrap_or(' ');
                if after.is_ascii_alphabetic() || matches!(after, '_' | '\'' | '"' | '{') {
                    return self.refuse("it uses a variable of psql");
                }
                let length = if matches!(after, ':' | '=') { 2 } else { 1 };
                let sign = self.take(length);
                self.sign(sign);
            }
            c if c.is_ascii_alphabetic() || c == '_' || !c.is_ascii() => {
                let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
                let length = self.rest().find(|c| !in_word(c)).unwrap_or(self.rest().len());
                let word = self.take(length).to_owned();
                self.name(&word, &word);
            }
            ';' if self.pending.depth <= 0 => {
                self.take(1);
                return self.end_statement();
            }
            c => {
                match c {
                    '(' => self.pending.depth += 1,
                    ')' => self.pending.depth -= 1,
                    _ => {}
                }
                let sign = self.take(c.len_utf8());
                self.sign(sign);
            }
        }
        Ok(())
    }

    fn sign(&mut self, sign: &str) {
        self.pending.show(sign);
        self.pending.compact.push_str(sign);
    }

    /// A name or key word, `bare` being what stands between its quotes.
    fn name(&mut self, written: &str, bare: &str) {
        if self.pending.words.last().is_some_and(|word| word == "password") && !bare.eq_ignore_ascii_case("null") {
            // A password that was not written as a text is an error, and the message would show it.
            self.secret(bare);
            self.pending.show("…");
        } else {
            self.pending.show(written);
        }
        self.pending.compact.push_str(&bare.to_lowercase());
        self.pending.words.push(written.to_lowercase());
    }

    fn quoted_text(&mut self) -> Result<(), Refusal> {
        let before = &self.text[..self.at];
        let word_start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[word_start..];
        let escapes = word.eq_ignore_ascii_case("e");
        let length = self.until_quote('\'', escapes)?;
        let line = self.line;
        let text = self.take(length);
        if !escapes && word.ends_with(['e', 'E']) && text.contains('\\') && self.outermost {
            return Err(Refusal { line, reason: "a text with a backslash touches the word before it".into() });
        }
        let content = &text[1..length - 1];
        self.text_is(content, &content.replace("''", "'"));
        Ok(())
    }

    /// The length of what is quoted here, with its quotes.
    fn until_quote(&self, quote: char, escapes: bool) -> Result<usize, Refusal> {
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                if chars.next_if(|(_, next)| *next == quote).is_none() {
                    return Ok(at + 1);
                }
            } else if escapes && c == '\\' {
                chars.next();
            }
        }
        self.refuse(format!("the text that begins here with {quote} has no end"))
    }

    /// A text constant, as it is written and as it is meant: it is not shown, and may be a secret or hold some.
    fn text_is(&mut self, content: &str, meant: &str) {
        self.pending.show("'…'");
        self.pending.compact.push_str(&content.to_lowercase());
        if self.pending.words.last().is_some_and(|word| word == "password") {
            self.secret(content);
        }
        self.pending.texts.push(content.to_owned());
        if content.to_ascii_lowercase().contains("password") {
            // The body of a DO block, or a statement to be executed.
            let mut inner = Reader::new(meant, false);
            // What is found until it cannot be read any more is found.
            let _ = inner.read();
            self.secrets.append(&mut inner.secrets);
        }
    }

    fn secret(&mut self, content: &str) {
        for form in [content.to_owned(), content.replace("''", "'")] {
            if form.len() >= SECRET_BYTES && !self.secrets.contains(&form) {
                self.secrets.push(form);
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), Refusal> {
        let begin = self.line;
        let mut depth = 0;
        while !self.rest().is_empty() {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    self.pending.space();
                    return Ok(());
                }
            } else {
                let length = self.rest().chars().next().map_or(1, char::len_utf8);
                self.take(length);
            }
        }
        Err(Refusal { line: begin, reason: "the comment that begins here has no end".into() })
    }

    fn end_statement(&mut self) -> Result<(), Refusal> {
        let pending = std::mem::take(&mut self.pending);
        let Some(first_line) = pending.first_line else { return Ok(()) };
        let word = |at: usize| pending.words.get(at).map_or("", String::as_str);
        if self.outermost {
            let refuse = |reason: &str| Err(Refusal { line: first_line, reason: reason.to_owned() });
            if word(0) == "copy" {
                // What follows COPY … FROM STDIN is data to psql, and was read as SQL here.
                return refuse("COPY is no statement for roles");
            }
            if !keeps_reading(&pending.compact) {
                return refuse(
                    "it changes how the rest of the script is read (client_encoding, standard_conforming_strings)",
                );
            }
        }
        if matches!(word(0), "create" | "alter") && matches!(word(1), "role" | "user" | "group") {
            for text in &pending.texts {
                self.secret(text);
            }
        }
        let mut shown: String = pending.shown.trim().chars().take(SHOWN_CHARS).collect();
        if shown.len() < pending.shown.trim().len() {
            shown.push('…');
        }
        self.statements.push(Statement { first_line, last_line: self.line, shown });
        Ok(())
    }

    /// A command of `psql`: passed on, taken out or refused.
    fn command(&mut self) -> Result<(), Refusal> {
        let line_start = self.text[..self.at].rfind('\n').map_or(0, |at| at + 1);
        let length = self.rest().find('\n').unwrap_or(self.rest().len());
        let line = self.rest()[..length].trim_end();
        let (name, arguments) = line[1..].split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((&line[1..], ""));
        let name = name.split('\\').next().unwrap_or_default();
        let refuse = |reason: String| Err(Refusal { line: self.line, reason });
        let connects = matches!(name, "connect" | "c");
        if !connects && !WITHOUT_EFFECT.contains(&name) {
            return refuse(format!(
                "`\\{name}` is a command of psql that may not stand here; allowed are SQL and \\connect"
            ));
        }
        if self.pending.first_line.is_some() {
            return refuse(format!(
                "`\\{name}` stands in the midst of a statement: the one before it has no semicolon"
            ));
        }
        if !self.text[line_start..self.at].trim().is_empty() || line[1..].contains(['\\', '`']) {
            return refuse(format!("`\\{name}` does not stand alone on its line"));
        }
        if connects {
            if let Err(reason) = only_a_database(arguments) {
                return refuse(format!("`\\{name}` {reason}"));
            }
            self.take(length);
        } else {
            if name == "encoding" && !matches!(compact(arguments).as_str(), "" | "utf8" | "utf-8" | "unicode") {
                return refuse("the script must be in UTF-8".into());
            }
            self.fed.push_str(&self.text[self.fed_to..self.at]);
            self.take(length);
            self.fed_to = self.at;
        }
        Ok(())
    }
}

impl Pending {
    fn space(&mut self) {
        if !self.shown.is_empty() && !self.shown.ends_with(' ') {
            self.shown.push(' ');
        }
    }

    fn show(&mut self, text: &str) {
        self.shown.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
}

/// The tag of a dollar-quoted text at the start of `rest`, with its dollars.
fn dollar_tag(rest: &str) -> Option<&str> {
    let end = rest[1..].find('$')? + 1;
    let tag = &rest[1..end];
    let fits = tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii());
    (fits && !tag.starts_with(|c: char| c.is_ascii_digit())).then_some(&rest[..=end])
}

fn compact(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '\'' | '"')).collect::<String>().to_lowercase()
}

/// Whether a statement leaves alone by which rules `psql` tells texts from commands.
fn keeps_reading(compact: &str) -> bool {
    let concerns = ["client_encoding", "standard_conforming_strings"].iter().any(|name| compact.contains(name))
        || compact.starts_with("setnames");
    let harmless = [
        "setclient_encoding=utf8",
        "setclient_encodingtoutf8",
        "setclient_encoding=utf-8",
        "setclient_encodingtoutf-8",
        "setnamesutf8",
        "setnamesutf-8",
        "setstandard_conforming_strings=on",
        "setstandard_conforming_stringstoon",
    ];
    !concerns || harmless.contains(&compact)
}

/// Whether `\connect` stays on the server: its arguments name a database, and perhaps a user.
///
/// Anything else could carry the slave's password to another machine.
fn only_a_database(arguments: &str) -> Result<(), &'static str> {
    const REASON: &str = "may only name a database, and a user: the server stays the slave's";
    let arguments = arguments.trim();
    if let Some(rest) = arguments.strip_prefix("-reuse-previous=on") {
        // pg_dumpall writes names with odd characters as "dbname='…'".
        let name = rest.trim().strip_prefix("\"dbname='").and_then(|rest| rest.strip_suffix("'\""));
        return match name {
            Some(name) if !name.replace("\"\"", "").contains(['\'', '"', ':']) => Ok(()),
            _ => Err(REASON),
        };
    }
    if arguments.starts_with('-') && arguments != "-" && !arguments.starts_with("- ") {
        return Err(REASON);
    }
    let mut rest = arguments;
    let mut count = 0;
    while !rest.is_empty() {
        let (argument, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or(REASON)?,
            None => rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, "")),
        };
        let beyond_user = count >= 2 && argument != "-";
        if beyond_user || argument.contains(['=', ':', '\'', '"', '|']) || after.starts_with('"') {
            return Err(REASON);
        }
        count += 1;
        rest = after.trim_start_matches([' ', '\t', ';']);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(script: &str) -> String {
        let refusal = Script::read(script).unwrap_err();
        format!("{}: {}", refusal.line, refusal.reason)
    }

    #[test]
    fn statements_are_found_with_their_lines_and_shown_without_texts() {
        let script = Script::read(
            "-- roles\nSET client_encoding = 'UTF8';\ncreate role a\n  password 'sek;ret'; alter role b\n\n\
             set x = E'it\\'s;';\ndo $do$ begin; perform 1; end $do$;\n/* a; /* b; */ c; */ select 'a'::text, :x[1:2]",
        );
        assert_eq!(script.unwrap_err(), Refusal { line: 8, reason: "it uses a variable of psql".into() });
        let script = Script::read(
            "-- roles\nSET client_encoding = 'UTF8';\ncreate role a\n  password 'sek;ret'; alter role b\n\n\
             set x = E'it\\'s;';\ndo $do$ begin; perform 1; end $do$;\n/* a; /* b; */ c; */ select 'a'::text, (x)[1:2]",
        )
        .unwrap();
        let seen: Vec<_> =
            script.statements.iter().map(|s| format!("{}-{} {}", s.first_line, s.last_line, s.shown)).collect();
        insta::assert_snapshot!(seen.join("\n"), @r"
        2-2 SET client_encoding = '…'
        3-4 create role a password '…'
        4-6 alter role b set x = E'…'
        7-7 do '…'
        8-8 select '…'::text, (x)[1:2]
        ");
    }

    #[test]
    fn whatever_makes_psql_do_more_than_sql_is_refused_with_its_line() {
        for bad in [
            "select 1;\n\\! id",
            "select 1;\n  \\copy t from program 'id'",
            "\\i /etc/passwd",
            "select 'a' \\g |id",
            "select 1 \\gexec",
            "\\o |id",
            "\\echo `id`",
            "\\set x `id`",
            "\\echo a \\\\ \\! id",
            "\\connect x \\! id",
            "\\connect `id`",
            "\\connect \"host=evil\"",
            "\\c postgresql://evil/x",
            "\\connect x y evil",
            "\\connect -reuse-previous=off \"dbname='x'\"",
            "\\connect -reuse-previous=on \"dbname='x' host='evil'\"",
            "\\q",
            "\\.",
            "copy t from stdin;\n'\n\\.\n\\! id\n'",
            "select :'VERSION';",
            "set standard_conforming_strings = off;\nselect 'a\\'' ; \\! id --'",
            "set client_encoding to 'SJIS'",
            "set names 'BIG5'",
            "select set_config('client_encoding', 'SJIS', false)",
            "\\encoding SJIS",
            "select foo_e'\\'; \\! id --'",
            "create role a\n\\connect b",
            "select '\n",
            "select $$ a",
            "/* /* */",
        ] {
            assert!(Script::read(bad).is_err(), "{bad}");
        }
        insta::assert_snapshot!([
            refused("select 1;\n\\! rm -rf /"),
            refused("select 1\n;\nselect 2\n\\connect b"),
            refused("\n\\connect \"host=evil\""),
            refused("\n\ncopy t from stdin;"),
        ].join("\n"), @r"
        2: `\!` is a command of psql that may not stand here; allowed are SQL and \connect
        4: `\connect` stands in the midst of a statement: the one before it has no semicolon
        2: `\connect` may only name a database, and a user: the server stays the slave's
        3: COPY is no statement for roles
        ");
    }

    #[test]
    fn what_pg_dumpall_writes_is_taken_and_its_own_commands_are_left_out() {
        let script = "\u{feff}--\n\\restrict aBc\n\\set ON_ERROR_STOP off\nSET standard_conforming_strings = on;\r\n\
            CREATE ROLE a;\nALTER ROLE a WITH PASSWORD 'SCRAM-SHA-256$4096:x\\y';\n\\unrestrict aBc\n\n\
            \\connect template1\n\\connect -reuse-previous=on \"dbname='a b'\"\n\\c \"My db\" someone - -\n\\c\n";
        let read = Script::read(script).unwrap();
        insta::assert_snapshot!(read.text, @r#"
        --


        SET standard_conforming_strings = on;
        CREATE ROLE a;
        ALTER ROLE a WITH PASSWORD 'SCRAM-SHA-256$4096:x\y';


        \connect template1
        \connect -reuse-previous=on "dbname='a b'"
        \c "My db" someone - -
        \c
        "#);
        assert_eq!(read.statements.last().unwrap().first_line, 6);
    }

    #[test]
    fn secrets_are_found_wherever_they_are_written() {
        let script = Script::read(
            "create role a password 'first one'; alter user b pasword 'second'; alter role c password third;\n\
             do $$ begin execute 'alter role d password ''fourth'''; execute format('password %L', 'x'); end $$;\n\
             do $$ begin create role e password $p$fifth$p$; end $$; alter role f password \"sixth\"; select 'kept';\n\
             alter role g password null; alter role h password 'it''s';",
        )
        .unwrap();
        let said = script.censored("first one second third fourth fifth sixth kept null it's it''s");
        insta::assert_snapshot!(said, @r"
        … … … … … … kept null … …
        ");
        assert!(script.statements.iter().all(|statement| script.censored(&statement.shown) == statement.shown));
    }

    proptest! {
        #[test]
        fn a_text_or_name_never_hides_what_follows(text in "[^\\x00\\\\]{0,20}", name in "[^\\x00\\\\]{1,20}") {
            let quoted = text.replace('\'', "''");
            let script = format!("comment on role {} is '{quoted}';\n\\! id", crate::name::quote_ident(&name));
            prop_assert!(Script::read(&script).unwrap_err().reason.contains("\\!"));
            let good = script.replace("\\! id", "select 1;");
            prop_assert_eq!(Script::read(&good).unwrap().statements.len(), 2);
        }
    }
}
