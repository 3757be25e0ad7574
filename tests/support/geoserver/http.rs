//! Requests as GeoServer sees them, its four kinds of error answer, and what the servlet container makes of them.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

use super::doc::{El, escape};
use super::{Flavour, Version, xml};

/// One request below `/geoserver`.
pub(crate) struct Req {
    pub(crate) method: String,
    /// Path as sent, without `/geoserver`.
    pub(crate) raw_path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) raw_query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) base: String,
    pub(crate) flavour: Flavour,
    pub(crate) version: Version,
    /// Administrator, some other user, or nobody.
    pub(crate) user: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Json,
    Xml,
    Html,
    Sld,
    Se,
    /// Neither extension nor Accept: what that means depends on the resource.
    Unsaid,
}

/// A plain answer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The ways in which GeoServer says no; they differ in where the message goes.
#[derive(Debug)]
pub(crate) enum Fault {
    /// 404, `text/plain`; `quietOnNotFound=true` empties it.
    Missing(String),
    /// 500, `text/plain`: any unexpected exception.
    Unexpected(String),
    /// `RestException`: the page of the container, none at all for PUT and DELETE on Jetty.
    Refused(u16, String),
    /// No handler: 404 page of the container.
    Unmapped,
    /// A page of the container without closing the connection.
    Page(u16, String),
    Method(&'static str),
    MediaType(&'static str),
    NotAcceptable,
    /// 400 without a body.
    NoBody,
    Text(u16, String),
    Other(Reply),
}

pub(crate) type Answer = Result<Reply, Fault>;

pub(crate) const XML_OR_JSON: &str = "text/xml, application/xml, text/json, application/json";

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn text(status: u16, media: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status).header("Content-Type", media).body(body)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// 201 with a Location and the bare name, in ISO-8859-1, as text.
    pub(crate) fn created(location: &str, name: &str) -> Self {
        Self::text(201, "text/plain", latin1(name)).header("Location", location)
    }
}

pub(crate) fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

impl Req {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.param(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Decoded path segments, empty ones left out.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.raw_path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect()
    }

    /// Content-Type without parameters.
    pub(crate) fn media(&self) -> String {
        self.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim().to_lowercase()
    }

    fn accepts(&self) -> Vec<String> {
        let mut list: Vec<(f32, String)> = self
            .header("accept")
            .unwrap_or_default()
            .split(',')
            .filter(|part| !part.trim().is_empty())
            .map(|part| {
                let mut fields = part.split(';').map(str::trim);
                let media = fields.next().unwrap_or_default().to_lowercase();
                let q = fields.find_map(|field| field.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0);
                (q, media)
            })
            .collect();
        list.sort_by(|a, b| b.0.total_cmp(&a.0));
        list.into_iter().map(|(_, media)| media).collect()
    }

    /// The format of the answer. An extension beats Accept; an extension that is a known file type but no format
    /// of this resource is 406; one that is no file type at all is cut off and ignored.
    pub(crate) fn format(&self, ext: Option<&str>, style: bool) -> Result<Format, Fault> {
        match ext {
            Some("json") => return Ok(Format::Json),
            Some("xml") => return Ok(Format::Xml),
            Some("html") => return Ok(Format::Html),
            Some("sld") if style => return Ok(Format::Sld),
            Some(ext) if FILE_TYPES.contains(&ext) => return Err(Fault::NotAcceptable),
            _ => {}
        }
        let accepts = self.accepts();
        if accepts.is_empty() {
            return Ok(Format::Unsaid);
        }
        accepts
            .iter()
            .find_map(|media| match media.as_str() {
                "application/json" => Some(Format::Json),
                "application/xml" => Some(Format::Xml),
                "text/html" => Some(Format::Html),
                "application/vnd.ogc.sld+xml" if style => Some(Format::Sld),
                "application/vnd.ogc.se+xml" if style => Some(Format::Se),
                "*/*" | "application/*" => Some(Format::Unsaid),
                _ => None,
            })
            .ok_or(Fault::NotAcceptable)
    }

    /// The document of a POST or PUT, its root checked: GeoServer casts what it read to the type it expects.
    pub(crate) fn document(&self, root: &str) -> Result<El, Fault> {
        let json = match self.media().as_str() {
            "application/json" | "text/json" => true,
            "application/xml" | "text/xml" => false,
            _ => return Err(Fault::MediaType(XML_OR_JSON)),
        };
        if self.body.is_empty() {
            return Err(Fault::NoBody);
        }
        let doc = if json {
            let value: serde_json::Value =
                serde_json::from_slice(&self.body).map_err(|_| Fault::Unexpected(String::new()))?;
            let Some((name, value)) = value.as_object().and_then(|map| map.iter().next()) else {
                return Err(Fault::Unexpected(String::new()));
            };
            bare_array(root, value, self.version)?;
            El::from_json(name, value)
        } else {
            xml::parse(&xml::decode(&self.body)).map_err(|_| Fault::Unexpected(debugging(root, self.version)))?
        };
        if doc.name == root {
            return Ok(doc);
        }
        match (class_of(&doc.name), class_of(root)) {
            (Some(got), Some(wanted)) => Err(Fault::Unexpected(format!(
                "Cannot cast org.geoserver.catalog.impl.{got}Impl to org.geoserver.catalog.{wanted}"
            ))),
            _ => Err(Fault::Unexpected(doc.name)),
        }
    }
}

/// Extensions that are file types to the server without being a format of its resources.
const FILE_TYPES: [&str; 32] = [
    "yaml",
    "yml",
    "dot",
    "doc",
    "c",
    "h",
    "txt",
    "csv",
    "png",
    "jpg",
    "jpeg",
    "gif",
    "pdf",
    "zip",
    "js",
    "css",
    "svg",
    "kml",
    "gml",
    "tif",
    "tiff",
    "sql",
    "sld",
    "properties",
    "exe",
    "bin",
    "tar",
    "gz",
    "mp3",
    "mp4",
    "xls",
    "rtf",
];

fn class_of(root: &str) -> Option<&'static str> {
    Some(match root {
        "workspace" => "WorkspaceInfo",
        "namespace" => "NamespaceInfo",
        "dataStore" => "DataStoreInfo",
        "coverageStore" => "CoverageStoreInfo",
        "wmsStore" => "WMSStoreInfo",
        "featureType" => "FeatureTypeInfo",
        "wmsLayer" => "WMSLayerInfo",
        "layer" => "LayerInfo",
        "layerGroup" => "LayerGroupInfo",
        "style" => "StyleInfo",
        _ => return None,
    })
}

fn debugging(root: &str, version: Version) -> String {
    let class = class_of(root).unwrap_or("Info");
    let converter = if root == "workspace" { "SpaceInfo" } else { class };
    format!(
        "\n---- Debugging information ----\ncause-exception     : com.thoughtworks.xstream.io.StreamException\n\
         cause-message       : \nclass               : org.geoserver.catalog.impl.{class}Impl\n\
         required-type       : org.geoserver.catalog.impl.{class}Impl\n\
         converter-type      : org.geoserver.config.util.XStreamPersister${converter}Converter\n\
         line number         : 1\nversion             : {}\n-------------------------------",
        version.text()
    )
}

fn bare_array(root: &str, value: &serde_json::Value, version: Version) -> Result<(), Fault> {
    let Some(map) = value.as_object() else { return Ok(()) };
    for (key, value) in map {
        if value.as_array().is_some_and(|list| list.len() > 1) {
            let class = class_of(root).unwrap_or("Info");
            return Err(Fault::Unexpected(format!(
                "Duplicate field {key}\n---- Debugging information ----\nmessage             : Duplicate field {key}\n\
                 field               : {key}\nclass               : org.geoserver.catalog.impl.{class}Impl\n\
                 required-type       : org.geoserver.catalog.impl.{class}Impl\n\
                 converter-type      : org.geoserver.config.util.XStreamPersister${class}Converter\n\
                 line number         : -1\nversion             : {}\n-------------------------------",
                version.text()
            )));
        }
    }
    Ok(())
}

pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        422 => "Unprocessable Entity",
        _ => "Server Error",
    }
}

/// What goes over the wire for a fault.
pub(crate) fn render(req: &Req, fault: Fault) -> Reply {
    match fault {
        Fault::Missing(_) if req.flag("quietOnNotFound") => Reply::text(404, "text/plain", ""),
        Fault::Missing(message) => Reply::text(404, "text/plain", message),
        Fault::Unexpected(message) => Reply::text(500, "text/plain", message),
        Fault::Text(status, message) => Reply::text(status, "text/plain", message),
        Fault::Refused(status, message) => {
            let reply = page(req, status, &message, None);
            if req.flavour == Flavour::Jetty { reply.header("Connection", "close") } else { reply }
        }
        Fault::Unmapped => page(req, 404, "Not Found", None),
        Fault::Page(status, message) => page(req, status, &message, None),
        Fault::Method(allow) => Reply::new(405).header("Allow", allow),
        Fault::MediaType(accept) => Reply::new(415).header("Accept", accept),
        Fault::NotAcceptable => Reply::new(406),
        Fault::NoBody => Reply::new(400),
        Fault::Other(reply) => reply,
    }
}

/// The container's error page, by method and Accept on Jetty, always HTML on Tomcat.
pub(crate) fn page(req: &Req, status: u16, message: &str, cause: Option<&str>) -> Reply {
    let reply = Reply::new(status);
    let uri = format!("/geoserver{}", req.raw_path);
    if req.flavour == Flavour::Tomcat {
        let title =
            format!("HTTP Status {status} – {}", if status == 500 { "Internal Server Error" } else { reason(status) });
        let shown = escape(message).replace("&apos;", "&#39;");
        let body = format!(
            "<!doctype html><html lang=\"en\"><head><title>{title}</title></head><body><h1>{title}</h1>\
             <hr class=\"line\" /><p><b>Type</b> Status Report</p><p><b>Message</b> {shown}</p>\
             <p><b>Description</b> {}</p><hr class=\"line\" /><h3>Apache Tomcat/9.0.70 (Debian)</h3></body></html>",
            description(status)
        );
        return reply.header("Content-Type", "text/html;charset=utf-8").header("Content-Language", "en").body(body);
    }
    if !matches!(req.method.as_str(), "GET" | "POST" | "HEAD") {
        return reply;
    }
    let reply = reply.header("Cache-Control", "must-revalidate,no-cache,no-store");
    let shown = escape(message);
    let accepts = req.accepts();
    for media in accepts.iter().map(String::as_str).chain(accepts.is_empty().then_some("*/*")) {
        match media {
            "*/*" | "text/*" | "text/html" => {
                let caused = match cause {
                    Some(trace) => {
                        format!(
                            "<tr><th>CAUSED BY:</th><td>{shown}</td></tr>\n</table>\n<h3>Caused by:</h3><pre>{shown}\n{trace}</pre>\n"
                        )
                    }
                    None => "</table>\n".to_owned(),
                };
                let body = format!(
                    "<html>\n<head>\n<meta http-equiv=\"Content-Type\" content=\"text/html;charset=ISO-8859-1\"/>\n\
                     <title>Error {status} {shown}</title>\n</head>\n<body><h2>HTTP ERROR {status} {shown}</h2>\n<table>\n\
                     <tr><th>URI:</th><td>{uri}</td></tr>\n<tr><th>STATUS:</th><td>{status}</td></tr>\n\
                     <tr><th>MESSAGE:</th><td>{shown}</td></tr>\n<tr><th>SERVLET:</th><td>dispatcher</td></tr>\n{caused}\
                     <hr/><a href=\"https://jetty.org/\">Powered by Jetty:// 9.4.57.v20241219</a><hr/>\n\n</body>\n</html>\n"
                );
                return reply.header("Content-Type", "text/html;charset=iso-8859-1").body(latin1(&body));
            }
            "application/json" | "text/json" if req.version == Version::V2_26 => {
                let mut body = "{\n\"servlet\":\"dispatcher\",\n".to_owned();
                if cause.is_some() {
                    let _ = writeln!(body, "\"cause0\":\"{shown}\",");
                }
                let _ = write!(body, "\"message\":\"{shown}\",\n\"url\":\"{uri}\",\n\"status\":\"{status}\"\n}}");
                return reply.header("Content-Type", "application/json").body(body);
            }
            "text/plain" => {
                let body = format!(
                    "HTTP ERROR {status} {shown}\nURI: {uri}\nSTATUS: {status}\nMESSAGE: {message}\nSERVLET: dispatcher\n"
                );
                return reply.header("Content-Type", "text/plain;charset=iso-8859-1").body(body);
            }
            _ => {}
        }
    }
    reply
}

fn description(status: u16) -> &'static str {
    match status {
        400 => {
            "The server cannot or will not process the request due to something that is perceived to be a client error \
             (e.g., malformed request syntax, invalid request message framing, or deceptive request routing)."
        }
        401 => {
            "The request has not been applied to the target resource because it lacks valid authentication \
             credentials for that resource."
        }
        403 => "The server understood the request but refuses to authorize it.",
        404 => {
            "The origin server did not find a current representation for the target resource or is not willing to \
             disclose that one exists."
        }
        409 => "The request could not be completed due to a conflict with the current state of the target resource.",
        422 => {
            "The server understood the content type of the request entity, and the syntax of the request entity is \
             correct, but the server was unable to process the contained instructions."
        }
        _ => "The server encountered an unexpected condition that prevented it from fulfilling the request.",
    }
}

/// Refused by the firewall in front of everything: characters that may not be in a path, even escaped.
pub(crate) fn firewall(req: &Req) -> Option<Reply> {
    let upper = req.raw_path.to_uppercase();
    let found = ["%2F", "%3B", "%25", "%5C"].into_iter().find(|code| upper.contains(code))?;
    let tomcat = req.flavour == Flavour::Tomcat;
    if tomcat && matches!(found, "%2F" | "%5C") {
        let message = if found == "%2F" { "Invalid URI: noSlash" } else { "Invalid URI" };
        return Some(page(req, 400, message, None).header("Connection", "close"));
    }
    let bare = format!("The request was rejected because the URL contained a potentially malicious String \"{found}\"");
    let message = format!("org.springframework.security.web.firewall.RequestRejectedException: {bare}");
    let reply = page(req, 500, if tomcat { &bare } else { &message }, Some("\tat org.springframework.security.web"));
    Some(reply.header("Connection", "close"))
}

/// Percent-encoding as in a Location header: what may stand in a path segment, and `%`, `<` and the like escaped.
pub(crate) fn in_location(name: &str) -> String {
    encode(name, b"-._~!$&'()*+,;=:@/")
}

/// Form encoding, as in the hrefs of lists.
pub(crate) fn in_href(name: &str) -> String {
    encode(name, b"-._* ").replace(' ', "+")
}

pub(crate) fn encode(name: &str, keep: &[u8]) -> String {
    let mut out = String::new();
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Splits the extension off the last path segment: everything behind the last dot, even when it is part of a name.
pub(crate) fn split_ext(segment: &str) -> (String, Option<String>) {
    match segment.rsplit_once('.') {
        Some((name, ext)) if !name.is_empty() => (name.to_owned(), Some(ext.to_owned())),
        _ => (segment.to_owned(), None),
    }
}
