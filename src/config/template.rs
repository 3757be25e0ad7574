//! Texts with `{}` slots, in the notation that the variables have always had.

use std::fmt;

/// A text with numbered slots: `{}` takes the next value, `{0}` and `{1}` a certain one, `{{` and
/// `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Slot(usize),
}

impl Template {
    /// Reads `text`, which may use the values 0 up to and without `values`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the text.
    pub(super) fn parse(text: &str, values: usize) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut next = 0;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    literal.push(c);
                }
                '}' => return Err("a `}` has no `{` before it".into()),
                '{' => {
                    let mut inner = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(c) => inner.push(c),
                            None => return Err("a `{` has no `}` after it".into()),
                        }
                    }
                    let slot = if inner.is_empty() {
                        next += 1;
                        next - 1
                    } else {
                        inner.parse().map_err(|_| format!("the slot `{{{inner}}}` has a name, only `{{}}` is known"))?
                    };
                    if slot >= values {
                        return Err(format!("it has more slots than there are values ({values})"));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Slot(slot));
                }
                _ => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Whether the text has the slot of value `index`.
    pub(super) fn uses(&self, index: usize) -> bool {
        self.parts.contains(&Part::Slot(index))
    }

    /// The text with every slot filled with `value`.
    #[must_use]
    pub fn fill(&self, value: &str) -> String {
        self.fill_with(|_| value)
    }

    /// The text with `values` in its slots.
    pub(super) fn fill_all(&self, values: &[&str]) -> String {
        self.fill_with(|slot| values.get(slot).copied().unwrap_or_default())
    }

    fn fill_with<'a>(&'a self, value: impl Fn(usize) -> &'a str) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Slot(slot) => value(*slot),
            })
            .collect()
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_in_order_or_by_number() {
        let filled = |text| Template::parse(text, 2).unwrap().fill_all(&["a", "b"]);
        assert_eq!(filled("x{}y{}z"), "xaybz");
        assert_eq!(filled("{1}{0}{{}}"), "ba{}");
        assert_eq!(Template::parse("{}-{0}", 1).unwrap().fill("w"), "w-w");
    }

    #[test]
    fn a_wrong_slot_is_named() {
        let fault = |text| Template::parse(text, 1).unwrap_err();
        insta::assert_snapshot!(fault("{workspace}_ds"), @"the slot `{workspace}` has a name, only `{}` is known");
        insta::assert_snapshot!(fault("{}{}"), @"it has more slots than there are values (1)");
        insta::assert_snapshot!(fault("{_ds"), @"a `{` has no `}` after it");
        insta::assert_snapshot!(fault("_ds}"), @"a `}` has no `{` before it");
    }
}
