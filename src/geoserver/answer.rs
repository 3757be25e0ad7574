//! What GeoServer's answers mean.
//!
//! GeoServer hands its message over in five ways, depending on the cause and on the servlet
//! container: as plain text, as JSON `{"message"}`, in a `<b>Message</b>` paragraph (Tomcat), in
//! the title of an error page (Jetty), or in an exception report (WMS, with status 200). Refused PUT and DELETE requests have no body at all on Jetty.

use std::borrow::Cow;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// How much of GeoServer's message goes into ours, in characters.
const MESSAGE_CHARS: usize = 400;

/// An HTTP answer together with what was asked.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) method: Method,
    /// Without credentials.
    pub(super) url: String,
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// The answer when it is a success; `doing` completes "cannot ...".
    pub(super) fn ok(self, doing: &str) -> Result<Self> {
        if self.is_success() { Ok(self) } else { Err(self.error(&format!("cannot {doing}"))) }
    }

    /// The JSON document of a successful answer; `doing` completes "cannot ...".
    pub(super) fn json(self, doing: &str) -> Result<Value> {
        let answer = self.ok(doing)?;
        serde_json::from_slice(&answer.body).map_err(|source| {
            Error::new(ErrorKind::GeoServer, format!("cannot {doing}: the answer is not JSON"))
                .subject(answer.subject())
                .source(source)
                .hint("a proxy or a login page may stand before GeoServer; GEOSERVER_URL must reach GeoServer itself")
        })
    }

    fn subject(&self) -> String {
        format!("{} {}", self.method, self.url)
    }

    /// The error that says `failed` and what GeoServer said.
    pub(super) fn error(&self, failed: &str) -> Error {
        let said = self.message();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let error = |kind| {
            Error::new(kind, format!("{failed}: GeoServer answers {}{said}", self.status.as_u16()))
                .subject(self.subject())
        };
        match self.status {
            StatusCode::FORBIDDEN if self.method == Method::GET => error(ErrorKind::Denied).hint(
                "the user of GEOSERVER_USERNAME must be an administrator; and a GeoServer that was started for the \
                 first time on an empty data directory refuses even its administrator until it is restarted once",
            ),
            status if status.is_redirection() => error(ErrorKind::GeoServer)
                .hint("set GEOSERVER_URL to the address that GeoServer is redirected to (scheme, host and path)"),
            status if status.is_server_error() && said.is_empty() => error(ErrorKind::GeoServer)
                .hint("GeoServer's log (logs/geoserver.log in its data directory) tells the cause"),
            _ => error(ErrorKind::GeoServer),
        }
    }

    /// GeoServer's message on one line; empty when it gave none.
    pub(super) fn message(&self) -> String {
        let body = match std::str::from_utf8(&self.body) {
            Ok(text) => Cow::Borrowed(text),
            // Names in plain text answers are ISO-8859-1.
            Err(_) => Cow::Owned(self.body.iter().map(|&byte| char::from(byte)).collect()),
        };
        let message = if self.content_type.contains("json") {
            let document: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
            document["message"].as_str().map(unescape).unwrap_or_default()
        } else if self.content_type.contains("html") {
            page_message(&body)
        } else if let Some(text) = exception_text(&body) {
            text
        } else {
            body.into_owned()
        };
        one_line(&message)
    }
}

/// The message in an error page of Tomcat or Jetty.
fn page_message(page: &str) -> String {
    let between = |start: &str, end: &str| {
        let from = page.find(start)? + start.len();
        let to = page[from..].find(end)? + from;
        Some(unescape(page[from..to].trim()))
    };
    between("<b>Message</b>", "</p>")
        .or_else(|| between("<th>MESSAGE:</th><td>", "</td>"))
        .or_else(|| between("<title>", "</title>"))
        .unwrap_or_default()
}

/// The text in an exception report of WMS or OWS.
fn exception_text(report: &str) -> Option<String> {
    let rest = &report[report.find("<ServiceException>").or_else(|| {
        ["<ServiceException ", "<ows:ExceptionText", "<ExceptionText"].iter().find_map(|tag| report.find(tag))
    })?..];
    let from = rest.find('>')? + 1;
    let to = rest[from..].find("</")? + from;
    let text = rest[from..to].trim();
    let text = text.strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>")).unwrap_or(text);
    Some(unescape(text))
}

fn unescape(text: &str) -> String {
    quick_xml::escape::unescape(text).map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// One line, without the block of XStream's debugging information, of bounded length.
fn one_line(message: &str) -> String {
    let (before, after) = message.split_once("---- Debugging information ----").unwrap_or((message, ""));
    let mut line = before.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        // The block is all there is; its cause is what helps.
        let cause = after.lines().find_map(|line| line.strip_prefix("cause-message")).unwrap_or(after);
        line = cause.trim_start_matches([' ', ':']).split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if line.chars().count() > MESSAGE_CHARS {
        line = line.chars().take(MESSAGE_CHARS).chain(['…']).collect();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: Method, status: u16, content_type: &str, body: &[u8]) -> Answer {
        Answer {
            method,
            url: "http://localhost:8080/geoserver/rest/workspaces/kmi/styles.json?name=roads".into(),
            status: StatusCode::from_u16(status).unwrap(),
            content_type: content_type.into(),
            body: body.into(),
        }
    }

    #[test]
    fn the_message_is_found_wherever_geoserver_puts_it() {
        let said = |content_type: &str, body: &str| answer(Method::POST, 500, content_type, body.as_bytes()).message();
        assert_eq!(
            said("text/plain", "Store 'x' already exists in workspace 'ws'"),
            "Store 'x' already exists in workspace 'ws'"
        );
        assert_eq!(
            said(
                "application/json;charset=utf-8",
                r#"{"servlet":"dispatcher","message":"Workspace &apos;x&apos; already exists","status":"409"}"#
            ),
            "Workspace 'x' already exists"
        );
        assert_eq!(
            said(
                "text/html;charset=iso-8859-1",
                "<title>Error 409 Workspace &apos;x&apos; already exists</title><tr><th>MESSAGE:</th><td>Workspace &apos;x&apos; already exists</td></tr>"
            ),
            "Workspace 'x' already exists"
        );
        assert_eq!(
            said(
                "text/html",
                "<title>HTTP Status 403 – Forbidden</title><p><b>Type</b> Status Report</p><p><b>Message</b> Style x already exists.</p>"
            ),
            "Style x already exists."
        );
        assert_eq!(
            said(
                "text/plain",
                "\n---- Debugging information ----\ncause-exception     : X\ncause-message       : a\\b does not match\nclass : Y"
            ),
            "a\\b does not match"
        );
        assert_eq!(
            said(
                "application/vnd.ogc.se_xml;charset=utf-8",
                "<?xml version=\"1.0\"?><!DOCTYPE x> <ServiceExceptionReport version=\"1.1.1\" >   <ServiceException code=\"internalError\">\n      relation &quot;a.b&quot;\n  is gone\n</ServiceException></ServiceExceptionReport>"
            ),
            "relation \"a.b\" is gone"
        );
        assert_eq!(answer(Method::POST, 500, "text/plain", b"no style \xfc").message(), "no style ü");
        assert_eq!(said("text/plain", &"x".repeat(1000)).chars().count(), MESSAGE_CHARS + 1);
    }

    #[test]
    fn an_error_names_request_status_and_message() {
        let error = answer(Method::POST, 403, "application/json", br#"{"message":"Style roads already exists."}"#)
            .error("cannot create the style");
        insta::assert_snapshot!(error.paragraph(), @"Error: POST http://localhost:8080/geoserver/rest/workspaces/kmi/styles.json?name=roads: cannot create the style: GeoServer answers 403: Style roads already exists.");
        let silent = answer(Method::PUT, 500, "", b"").error("cannot update the style");
        insta::assert_snapshot!(silent.paragraph(), @r"
        Error: PUT http://localhost:8080/geoserver/rest/workspaces/kmi/styles.json?name=roads: cannot update the style: GeoServer answers 500
          Hint: GeoServer's log (logs/geoserver.log in its data directory) tells the cause
        ");
        let refused = answer(Method::GET, 403, "text/html", b"<title>Error 403 Forbidden</title>").error("cannot ask");
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.paragraph().contains("restarted once"));
    }
}
