//! The Rhai form of a filter that the Python slave understood.
//!
//! A filter of old is `lambda job: <expression>`. The expressions that such filters are made of
//! (lookups in the job, comparisons, `in`, `and`/`or`/`not`) are translated wholly; whatever else
//! Python can do is refused by name, so that no filter changes its meaning unnoticed. Two habits of
//! Python need care: any value can stand for true or false, which Rhai refuses, and `or` can choose
//! a value.

mod tokens;

use tokens::{Token, tokens};

/// A translated filter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translation {
    /// The Rhai expression.
    pub(super) rhai: String,
    /// Values that Python took for true or false as they are, and Rhai compares with `true`.
    pub(super) assumed_boolean: Vec<String>,
}

/// Whether `text` is a Python lambda.
pub(super) fn is_lambda(text: &str) -> bool {
    let text = text.trim().trim_start_matches(['(', '"', '\'']).trim_start();
    text.strip_prefix("lambda").is_some_and(|rest| rest.starts_with([' ', '\t', ':']))
}

/// Translates `lambda job: …`.
///
/// # Errors
///
/// What stands in the way, as part of a sentence.
pub(super) fn translate(text: &str) -> Result<Translation, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, job: "job".into(), assumed: Vec::new() };
    let mut open = 0;
    while parser.eat("(") {
        open += 1;
    }
    parser.expect("lambda")?;
    parser.job = parser.name()?;
    parser.expect(":")?;
    let body = parser.ternary()?;
    for _ in 0..open {
        parser.expect(")")?;
    }
    if let Some(rest) = parser.peek() {
        return Err(format!("{} was not expected there", rest.shown()));
    }
    let rhai = parser.condition(body, Level::Loosest);
    Ok(Translation { rhai, assumed_boolean: parser.assumed })
}

/// How tightly the outermost operator of a piece binds, loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Loosest,
    Or,
    And,
    Compare,
    Sum,
    Product,
    Atom,
}

/// A translated part of the expression.
struct Piece {
    rhai: String,
    level: Level,
    /// Its value is true or false, whatever the job holds.
    boolean: bool,
    /// It is an `and`/`or` of values that need not be booleans: fine as a condition, not as a value.
    chooses: bool,
}

impl Piece {
    fn atom(rhai: impl Into<String>) -> Self {
        Self { rhai: rhai.into(), level: Level::Atom, boolean: false, chooses: false }
    }

    fn within(self, level: Level) -> String {
        if self.level < level { format!("({})", self.rhai) } else { self.rhai }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Name of the lambda's parameter.
    job: String,
    assumed: Vec<String>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.is(text))
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.eat(text) { Ok(()) } else { Err(self.unexpected(&format!("`{text}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.peek() {
            Some(token) => format!("{wanted} was expected where {} stands", token.shown()),
            None => format!("{wanted} was expected at the end"),
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let Some(Token::Name(name)) = self.peek() else { return Err(self.unexpected("a name")) };
        let name = name.clone();
        self.at += 1;
        Ok(name)
    }

    /// The piece where Rhai wants true or false.
    fn condition(&mut self, piece: Piece, level: Level) -> String {
        if piece.boolean || piece.chooses {
            return piece.within(level);
        }
        let compared = format!("{} == true", piece.rhai);
        if !self.assumed.contains(&piece.rhai) {
            self.assumed.push(piece.rhai);
        }
        if level > Level::Compare { format!("({compared})") } else { compared }
    }

    /// The piece where Rhai wants a value.
    fn value(piece: Piece, level: Level) -> Result<String, String> {
        if piece.chooses {
            return Err("`and` or `or` chooses a value, which Rhai's `&&` and `||` do not".into());
        }
        Ok(piece.within(level))
    }

    fn ternary(&mut self) -> Result<Piece, String> {
        let then = self.or()?;
        if !self.eat("if") {
            return Ok(then);
        }
        let condition = self.or()?;
        self.expect("else")?;
        let otherwise = self.ternary()?;
        let condition = self.condition(condition, Level::Loosest);
        let (then, otherwise) = (self.condition(then, Level::Loosest), self.condition(otherwise, Level::Loosest));
        Ok(Piece {
            rhai: format!("if {condition} {{ {then} }} else {{ {otherwise} }}"),
            level: Level::Loosest,
            boolean: true,
            chooses: false,
        })
    }

    fn or(&mut self) -> Result<Piece, String> {
        self.joined("or", " || ", Level::Or, Self::and)
    }

    fn and(&mut self) -> Result<Piece, String> {
        self.joined("and", " && ", Level::And, Self::not)
    }

    fn joined(
        &mut self,
        python: &str,
        rhai: &str,
        level: Level,
        operand: fn(&mut Self) -> Result<Piece, String>,
    ) -> Result<Piece, String> {
        let first = operand(self)?;
        if !self.is(python) {
            return Ok(first);
        }
        let mut boolean = first.boolean;
        let mut texts = vec![self.condition(first, level)];
        while self.eat(python) {
            let next = operand(self)?;
            boolean &= next.boolean;
            texts.push(self.condition(next, level));
        }
        Ok(Piece { rhai: texts.join(rhai), level, boolean, chooses: !boolean })
    }

    fn not(&mut self) -> Result<Piece, String> {
        if !self.eat("not") {
            return self.comparison();
        }
        let negated = self.not()?;
        let rhai = format!("!({})", self.condition(negated, Level::Loosest));
        Ok(Piece { rhai, level: Level::Atom, boolean: true, chooses: false })
    }

    fn comparison(&mut self) -> Result<Piece, String> {
        let left = self.sum()?;
        let Some(operator) = self.comparison_operator()? else { return Ok(left) };
        if matches!(operator, "in" | "not in") && self.peek().is_some_and(|token| token.is(&self.job)) {
            let after = self.tokens.get(self.at + 1);
            if !after.is_some_and(|token| token.is(".") || token.is("[")) {
                self.at += 1;
                let has = format!("has(job, {})", Self::value(left, Level::Loosest)?);
                let rhai = if operator == "in" { has } else { format!("!{has}") };
                return Ok(Piece { rhai, level: Level::Atom, boolean: true, chooses: false });
            }
        }
        let right = self.sum()?;
        if self.comparison_operator()?.is_some() {
            return Err("it compares three values at once; compare them two by two, joined by `and`".into());
        }
        let (left, right) = (Self::value(left, Level::Sum)?, Self::value(right, Level::Sum)?);
        Ok(if operator == "not in" {
            Piece { rhai: format!("!({left} in {right})"), level: Level::Atom, boolean: true, chooses: false }
        } else {
            Piece { rhai: format!("{left} {operator} {right}"), level: Level::Compare, boolean: true, chooses: false }
        })
    }

    /// The Rhai form of the comparison that stands next.
    fn comparison_operator(&mut self) -> Result<Option<&'static str>, String> {
        for (python, rhai) in
            [("==", "=="), ("!=", "!="), ("<>", "!="), ("<=", "<="), (">=", ">="), ("<", "<"), (">", ">"), ("in", "in")]
        {
            if self.eat(python) {
                return Ok(Some(rhai));
            }
        }
        if self.eat("is") {
            return Ok(Some(if self.eat("not") { "!=" } else { "==" }));
        }
        if self.eat("not") {
            self.expect("in")?;
            return Ok(Some("not in"));
        }
        Ok(None)
    }

    fn sum(&mut self) -> Result<Piece, String> {
        self.arithmetic(&["+", "-"], Level::Sum, Self::product)
    }

    fn product(&mut self) -> Result<Piece, String> {
        self.arithmetic(&["*", "%"], Level::Product, Self::unary)
    }

    fn arithmetic(
        &mut self,
        operators: &[&'static str],
        level: Level,
        operand: fn(&mut Self) -> Result<Piece, String>,
    ) -> Result<Piece, String> {
        let mut left = operand(self)?;
        while let Some(operator) = operators.iter().find(|operator| self.is(operator)) {
            self.at += 1;
            let right = Self::value(operand(self)?, Level::Atom)?;
            let rhai = format!("{} {operator} {right}", Self::value(left, level)?);
            left = Piece { rhai, level, boolean: false, chooses: false };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Piece, String> {
        if self.eat("-") {
            let negated = self.unary()?;
            let negated = Self::value(negated, Level::Atom)?;
            // `--` is a reserved sign in Rhai.
            let parted = if negated.starts_with('-') { format!("({negated})") } else { negated };
            return Ok(Piece::atom(format!("-{parted}")));
        }
        let mut piece = self.primary()?;
        loop {
            if self.eat("[") {
                let key = self.ternary()?;
                self.expect("]")?;
                piece = Self::subscript(piece, key)?;
            } else if self.eat(".") {
                piece = self.method(piece)?;
            } else {
                return Ok(piece);
            }
        }
    }

    /// `receiver[key]`. Rhai's parser refuses the subscripts that it sees to be of the wrong type, which
    /// Python would have refused when the filter was asked.
    fn subscript(receiver: Piece, key: Piece) -> Result<Piece, String> {
        let (receiver, key) = (Self::value(receiver, Level::Atom)?, Self::value(key, Level::Loosest)?);
        if !receiver.starts_with("job") && !receiver.starts_with("get(") {
            return Err(format!("a value is looked up in `{receiver}`, which is neither the job nor a part of it"));
        }
        if !key.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
            return Err(format!("`{key}` is looked up, which is neither a text nor a number"));
        }
        Ok(Piece::atom(format!("{receiver}[{key}]")))
    }

    fn method(&mut self, receiver: Piece) -> Result<Piece, String> {
        let name = self.name()?;
        self.expect("(").map_err(|_| format!("`.{name}` is not known in filters"))?;
        let arguments = self.elements(")")?;
        let receiver = Self::value(receiver, Level::Atom)?;
        let (rhai, boolean) = match (name.as_str(), arguments.as_slice()) {
            ("get", [key]) => (format!("get({receiver}, {key}, ())"), false),
            // Even with a boolean default a job may hold something else there.
            ("get", [key, default]) => (format!("get({receiver}, {key}, {default})"), false),
            ("has_key", [key]) => (format!("has({receiver}, {key})"), true),
            ("startswith", [start]) => (format!("{receiver}.starts_with({start})"), true),
            ("endswith", [end]) => (format!("{receiver}.ends_with({end})"), true),
            ("lower", []) => (format!("{receiver}.to_lower()"), false),
            ("upper", []) => (format!("{receiver}.to_upper()"), false),
            _ => return Err(format!("the method `.{name}()` has no counterpart in filters")),
        };
        Ok(Piece { rhai, level: Level::Atom, boolean, chooses: false })
    }

    fn primary(&mut self) -> Result<Piece, String> {
        let Some(token) = self.peek().cloned() else { return Err(self.unexpected("a value")) };
        self.at += 1;
        Ok(match token {
            Token::Number(digits) => Piece::atom(digits),
            Token::Text(text) => Piece::atom(quoted(&text)),
            Token::Name(name) => match name.as_str() {
                "True" => Piece { boolean: true, ..Piece::atom("true") },
                "False" => Piece { boolean: true, ..Piece::atom("false") },
                "None" => Piece::atom("()"),
                "len" if self.eat("(") => Piece::atom(format!("len({})", self.elements(")")?.join(", "))),
                _ if name == self.job => Piece::atom("job"),
                _ => return Err(format!("the name `{name}` is not known in filters")),
            },
            Token::Sign("[") => Piece::atom(format!("[{}]", self.elements("]")?.join(", "))),
            Token::Sign("{") if self.eat("}") => Piece::atom("#{}"),
            Token::Sign("{") => Piece::atom(format!("[{}]", self.elements("}")?.join(", "))),
            Token::Sign("(") => {
                if self.eat(")") {
                    return Ok(Piece::atom("[]"));
                }
                let inner = self.ternary()?;
                if self.eat(")") {
                    return Ok(inner);
                }
                self.expect(",")?;
                let mut elements = vec![Self::value(inner, Level::Loosest)?];
                elements.extend(self.elements(")")?);
                Piece::atom(format!("[{}]", elements.join(", ")))
            }
            Token::Sign(_) => {
                self.at -= 1;
                return Err(self.unexpected("a value"));
            }
        })
    }

    /// Values up to `end`, separated by commas.
    fn elements(&mut self, end: &str) -> Result<Vec<String>, String> {
        let mut elements = Vec::new();
        while !self.eat(end) {
            let element = self.ternary()?;
            elements.push(Self::value(element, Level::Loosest)?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(elements)
    }
}

/// `text` as a Rhai string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
