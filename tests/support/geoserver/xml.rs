//! A small XML reader that fails with the messages of the parser inside GeoServer.

use super::doc::El;

/// Where a document stopped making sense, and what Xerces says about it.
#[derive(Debug)]
pub(crate) struct XmlError {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
}

impl XmlError {
    pub(crate) fn sax(&self) -> String {
        if self.line == 0 {
            return format!("org.xml.sax.SAXException: {}", self.message);
        }
        format!(
            "org.xml.sax.SAXParseException; lineNumber: {}; columnNumber: {}; {}",
            self.line, self.column, self.message
        )
    }
}

/// The text of a body: UTF-8, whatever the Content-Type says, unless an XML declaration names Latin-1.
pub(crate) fn decode(body: &[u8]) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(100)]).to_lowercase();
    if head.starts_with("<?xml") && head.contains("iso-8859-1") {
        return body.iter().map(|&byte| char::from(byte)).collect();
    }
    String::from_utf8_lossy(body).into_owned()
}

pub(crate) fn parse(text: &str) -> Result<El, XmlError> {
    let mut reader = Reader { text, at: 0 };
    reader.prolog()?;
    let root = reader.element()?;
    reader.misc();
    if reader.at < text.len() {
        return Err(reader.fail("The markup in the document following the root element must be well-formed."));
    }
    Ok(root)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn fail(&self, message: &str) -> XmlError {
        let seen = &self.text[..self.at.min(self.text.len())];
        let line = seen.matches('\n').count() + 1;
        let column = seen.len() - seen.rfind('\n').map_or(0, |at| at + 1) + 1;
        XmlError { line, column, message: message.to_owned() }
    }

    fn skip_past(&mut self, mark: &str) -> Result<(), XmlError> {
        match self.rest().find(mark) {
            Some(at) => {
                self.at += at + mark.len();
                Ok(())
            }
            None => {
                self.at = self.text.len();
                Err(self.fail("XML document structures must start and end within the same entity."))
            }
        }
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn misc(&mut self) {
        loop {
            self.space();
            let mark = if self.rest().starts_with("<!--") {
                "-->"
            } else if self.rest().starts_with("<?") {
                "?>"
            } else {
                return;
            };
            if self.skip_past(mark).is_err() {
                return;
            }
        }
    }

    fn prolog(&mut self) -> Result<(), XmlError> {
        if self.text.is_empty() {
            return Err(self.fail("Premature end of file."));
        }
        self.misc();
        if self.rest().starts_with("<!DOCTYPE") {
            let end = self.rest().find("]>").map(|at| at + 2).or_else(|| self.rest().find('>').map(|at| at + 1));
            let doctype = &self.rest()[..end.unwrap_or(self.rest().len())];
            if let Some(at) = doctype.find("SYSTEM \"").filter(|_| doctype.contains("<!ENTITY")) {
                let address = doctype[at + 8..].split('"').next().unwrap_or_default();
                let message = format!("Entity resolution disallowed for {address}");
                return Err(XmlError { line: 0, column: 0, message });
            }
            self.at += doctype.len();
            self.misc();
        }
        if self.rest().is_empty() {
            return Err(self.fail("Premature end of file."));
        }
        if !self.rest().starts_with('<') {
            return Err(self.fail("Content is not allowed in prolog."));
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let length = self.rest().find(|c: char| c.is_whitespace() || "/>=<".contains(c)).unwrap_or(self.rest().len());
        let name = self.rest()[..length].to_owned();
        self.at += length;
        name
    }

    fn element(&mut self) -> Result<El, XmlError> {
        const CUT: &str = "XML document structures must start and end within the same entity.";
        self.at += 1;
        let mut el = El::new(&self.name());
        loop {
            self.space();
            if self.rest().starts_with("/>") {
                self.at += 2;
                return Ok(el);
            }
            if self.rest().starts_with('>') {
                self.at += 1;
                break;
            }
            let key = self.name();
            self.space();
            if key.is_empty() || !self.rest().starts_with('=') {
                return Err(self.fail(CUT));
            }
            self.at += 1;
            self.space();
            let Some(quote) = self.rest().chars().next().filter(|c| "\"'".contains(*c)) else {
                return Err(self.fail("Open quote is expected for attribute."));
            };
            self.at += 1;
            let start = self.at;
            self.skip_past(&quote.to_string())?;
            el.attrs.push((key, unescape(&self.text[start..self.at - 1])));
        }
        let mut text = String::new();
        loop {
            if self.rest().starts_with("<!--") {
                self.skip_past("-->")?;
            } else if self.rest().starts_with("<![CDATA[") {
                let start = self.at + 9;
                self.skip_past("]]>")?;
                text.push_str(&self.text[start..self.at - 3]);
            } else if self.rest().starts_with("<?") {
                self.skip_past("?>")?;
            } else if self.rest().starts_with("</") {
                self.at += 2;
                let name = self.name();
                if name != el.name {
                    let message = format!(
                        "The element type \"{0}\" must be terminated by the matching end-tag \"</{0}>\".",
                        el.name
                    );
                    return Err(self.fail(&message));
                }
                self.skip_past(">")?;
                if el.kids.is_empty() {
                    el.text = text;
                }
                return Ok(el);
            } else if self.rest().starts_with('<') {
                el.kids.push(self.element()?);
            } else if self.rest().is_empty() {
                return Err(self.fail(CUT));
            } else {
                let length = self.rest().find('<').unwrap_or(self.rest().len());
                text.push_str(&unescape(&self.rest()[..length]));
                self.at += length;
            }
        }
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find(';') else { break };
        let entity = &rest[1..end];
        let code = entity
            .strip_prefix("#x")
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .or_else(|| entity.strip_prefix('#').and_then(|digits| digits.parse().ok()));
        match (entity, code.and_then(char::from_u32)) {
            (_, Some(c)) => out.push(c),
            ("amp", _) => out.push('&'),
            ("lt", _) => out.push('<'),
            ("gt", _) => out.push('>'),
            ("quot", _) => out.push('"'),
            ("apos", _) => out.push('\''),
            _ => out.push_str(&rest[..=end]),
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}
