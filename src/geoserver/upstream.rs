//! What an upstream WMS offers, asked by the slave itself.
//!
//! GeoServer asks an upstream while it holds the lock of its whole catalog, and an upstream that hangs
//! stops every other request. So it is asked here first, within a time limit.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::events::Event;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, LOCATION};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::error::{Context, Error, ErrorKind, Result, root_cause};
use crate::http;

use super::client::CONNECT_LIMIT;
use super::secrets::bare_address;

/// The longest capabilities document that is read; servers of ten thousand layers need a third of it.
const SIZE_LIMIT: usize = 64 * 1024 * 1024;

/// How often an upstream may send on to another address.
const REDIRECTS: usize = 5;

/// How alike two names must be for one to be suggested for the other (Jaro-Winkler).
const ALIKE: f64 = 0.85;

/// The layers that an upstream WMS offers. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamLayers {
    /// Without credentials.
    address: Arc<str>,
    names: Arc<BTreeSet<String>>,
}

impl UpstreamLayers {
    /// The names of the layers, as they stand in the capabilities.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether a layer of that name is offered. Case counts, as it does for GeoServer.
    #[must_use]
    pub fn has_layer(&self, native_name: &str) -> bool {
        self.names.contains(native_name)
    }

    /// Refuses a layer that is not offered, naming those that are called nearly the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`] when there is no such layer.
    pub fn require(&self, native_name: &str) -> Result<()> {
        if self.has_layer(native_name) {
            return Ok(());
        }
        let alike = self.alike(native_name);
        let error = Error::new(ErrorKind::Missing, format!("the upstream WMS has no layer {native_name:?}"))
            .subject(&*self.address);
        Err(error.hint(if alike.is_empty() {
            format!(
                "it offers {} layers; correct the layer's native name on the master, or ask the upstream's operator",
                self.names.len()
            )
        } else {
            format!("it offers {}; correct the layer's native name on the master", alike.join(", "))
        }))
    }

    /// Up to three names like the given one, best first.
    fn alike(&self, wanted: &str) -> Vec<String> {
        let plain = |name: &str| name.rsplit(':').next().unwrap_or(name).to_lowercase();
        let wanted = plain(wanted);
        let mut scored: Vec<(f64, &String)> = self
            .names
            .iter()
            .map(|name| (strsim::jaro_winkler(&plain(name), &wanted), name))
            .filter(|(score, _)| *score >= ALIKE)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(3).map(|(_, name)| format!("{name:?}")).collect()
    }
}

/// Asks an upstream WMS for its capabilities (OGC 01-068r3 for 1.1.1, OGC 06-042 for 1.3.0).
///
/// `url` is the address that GeoServer gets; what makes it a capabilities request is added when it
/// lacks that. Redirections are followed; user and password go to the host of `url` only, and not from
/// HTTPS to HTTP. Proxies are those of the environment. `limit` is for all of it.
///
/// # Errors
///
/// [`ErrorKind::Document`] when `url` is none of HTTP; [`ErrorKind::Unreachable`] when the upstream
/// cannot be reached, does not answer in time, or fails; [`ErrorKind::Denied`] when it refuses user and
/// password; [`ErrorKind::Missing`] when what it answers is not the capabilities of a WMS. None of
/// them shows a password, or the query of an address, which may hold an API key.
pub async fn upstream_layers(
    url: &str,
    username: Option<&str>,
    password: Option<&SecretString>,
    limit: Duration,
) -> Result<UpstreamLayers> {
    let address = bare_address(url);
    let hangs = |_| {
        Error::new(ErrorKind::Unreachable, format!("the upstream WMS does not answer within {} s", limit.as_secs_f64()))
            .hint("GeoServer was not told of the layer, because it would hang as well; run again when the upstream answers")
    };
    let names = async {
        let body = tokio::time::timeout(limit, fetch(url, username, password, limit)).await.map_err(hangs)??;
        layer_names(&body)
    };
    let names = names.await.map_err(|error| match error.subject_text() {
        Some(_) => error,
        None => error.subject(address.as_str()),
    })?;
    tracing::debug!(upstream = address, layers = names.len(), "capabilities read");
    Ok(UpstreamLayers { address: address.into(), names: Arc::new(names) })
}

async fn fetch(url: &str, username: Option<&str>, password: Option<&SecretString>, limit: Duration) -> Result<Vec<u8>> {
    let mut first = request_url(url)?;
    // As GeoServer does: without both a user and a password it tells neither, and where it tells them,
    // those in the address come first.
    let credentials = match (username, password) {
        (Some(user), Some(password)) if !user.is_empty() && !password.expose_secret().is_empty() => {
            Some(in_address(&first).unwrap_or_else(|| (user.to_owned(), password.clone())))
        }
        _ => None,
    };
    // Only addresses without a host refuse these.
    let _ = first.set_username("");
    let _ = first.set_password(None);
    let mut next = first.clone();
    for _ in 0..=REDIRECTS {
        let http = http::client(http::is_this_machine(&next), CONNECT_LIMIT.min(limit))
            .build()
            .context(ErrorKind::Settings, "the HTTP client cannot be set up")?;
        let mut request = http.get(next.clone()).header(ACCEPT, "*/*");
        let same_host = next.host_str() == first.host_str() && (next.scheme() == "https" || first.scheme() == "http");
        if let Some((user, password)) = credentials.as_ref().filter(|_| same_host) {
            request = request.basic_auth(user, Some(password.expose_secret()));
        }
        let mut response = request.send().await.map_err(|error| unreachable(&next, &error))?;
        let status = response.status();
        if status.is_redirection() {
            next = redirected(&next, &response)?;
            continue;
        }
        refuse_status(status, &next, credentials.is_some() && same_host)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&next, &error))? {
            if body.len() + chunk.len() > SIZE_LIMIT {
                let message = format!("the upstream's answer is longer than {} MB", SIZE_LIMIT / 1024 / 1024);
                return Err(Error::new(ErrorKind::Missing, message)
                    .subject(bare_address(next.as_str()))
                    .hint("capabilities are not that long: check the store's address on the master"));
            }
            body.extend_from_slice(&chunk);
        }
        return Ok(body);
    }
    Err(Error::new(ErrorKind::Missing, format!("the upstream sends on more than {REDIRECTS} times"))
        .hint("check the store's address on the master in a browser"))
}

/// The address of the capabilities request.
fn request_url(url: &str) -> Result<Url> {
    let refuse = |reason: &str| {
        Error::new(ErrorKind::Document, format!("the address of the upstream WMS is unusable: {reason}"))
            .subject(bare_address(url))
            .hint("correct the store's address on the master; it begins with http:// or https://")
    };
    let mut parsed = Url::parse(url.trim()).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(refuse("it is not one of HTTP"));
    }
    // The other parameters stay as they are written: an API key may be signed over its spelling.
    let told = parsed.query().unwrap_or_default().to_owned();
    let others = told.split('&').filter(|pair| {
        let key = pair.split('=').next().unwrap_or_default();
        !(pair.is_empty() || key.eq_ignore_ascii_case("request") || key.eq_ignore_ascii_case("service"))
    });
    let query: Vec<&str> = ["SERVICE=WMS", "REQUEST=GetCapabilities"].into_iter().chain(others).collect();
    parsed.set_query(Some(&query.join("&")));
    parsed.set_fragment(None);
    Ok(parsed)
}

/// User and password in an address, as in `http://user:password@host/`.
fn in_address(url: &Url) -> Option<(String, SecretString)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let password = url.password()?;
    Some((decoded(url.username()), SecretString::from(decoded(password))))
}

fn redirected(from: &Url, response: &reqwest::Response) -> Result<Url> {
    let to = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let to = to.and_then(|to| from.join(to).ok()).filter(|to| matches!(to.scheme(), "http" | "https"));
    to.ok_or_else(|| {
        Error::new(ErrorKind::Missing, format!("the upstream answers {} without a usable address", response.status()))
            .subject(bare_address(from.as_str()))
            .hint("check the store's address on the master in a browser")
    })
}

fn refuse_status(status: StatusCode, url: &Url, signed_in: bool) -> Result<()> {
    if status.is_success() {
        return Ok(());
    }
    let code = status.as_u16();
    let error = |kind, message: String| Error::new(kind, message).subject(bare_address(url.as_str()));
    Err(match code {
        401 | 403 | 407 if signed_in => {
            error(ErrorKind::Denied, format!("the upstream WMS refuses the store's user or password ({code})"))
                .hint("correct user name and password of the store on the master")
        }
        401 | 403 | 407 => error(ErrorKind::Denied, format!("the upstream WMS wants a user and a password ({code})"))
            .hint("give the store a user name and a password on the master, or this host the right to read there"),
        429 | 500.. => error(ErrorKind::Unreachable, format!("the upstream WMS answers {code}"))
            .hint("the upstream has a fault of its own or is overloaded; run again when it has recovered"),
        _ => error(ErrorKind::Missing, format!("the upstream answers {code} instead of its capabilities"))
            .hint("check the store's address on the master in a browser"),
    })
}

fn unreachable(url: &Url, error: &reqwest::Error) -> Error {
    let message = if error.is_connect() {
        "cannot connect to the upstream WMS"
    } else {
        "the connection to the upstream WMS was lost"
    };
    Error::new(ErrorKind::Unreachable, message).subject(bare_address(url.as_str())).source(root_cause(error)).hint(
        "check the store's address, and that this host may reach it: name resolution, firewall, proxy (HTTPS_PROXY, NO_PROXY), \
         and for https:// a certificate that this host trusts",
    )
}

/// The names of the layers in a capabilities document.
fn layer_names(body: &[u8]) -> Result<BTreeSet<String>> {
    /// What an element is to us.
    #[derive(PartialEq)]
    enum Place {
        Layer,
        Name,
        Message,
        Other,
    }
    let text = decoded(body);
    let mut reader = Reader::from_str(&text);
    let mut open: Vec<Place> = Vec::new();
    let (mut root, mut names, mut said) = (None, BTreeSet::new(), String::new());
    // A name that is being read.
    let mut name = String::new();
    loop {
        let event = reader.read_event().map_err(|error| no_capabilities(body, root.as_deref()).source(error))?;
        match event {
            Event::Start(element) => {
                let local = element.local_name().as_ref().to_owned();
                if root.is_none() {
                    root = Some(check_root(&local, body)?);
                }
                open.push(match (local.as_str(), open.last()) {
                    ("Layer", _) => Place::Layer,
                    ("Name", Some(Place::Layer)) => Place::Name,
                    ("ServiceException" | "ExceptionText", _) => Place::Message,
                    _ => Place::Other,
                });
            }
            Event::Empty(element) if root.is_none() => {
                root = Some(check_root(element.local_name().as_ref(), body)?);
            }
            Event::End(_) => {
                let ended = open.pop();
                if ended == Some(Place::Name) {
                    names.insert(name.trim().to_owned());
                    name.clear();
                }
            }
            Event::Text(text) if open.last() == Some(&Place::Name) => name.push_str(&text.xml10_content()),
            Event::CData(text) if open.last() == Some(&Place::Name) => name.push_str(&text.xml10_content()),
            Event::Text(text) if open.last() == Some(&Place::Message) => said.push_str(&text.xml10_content()),
            Event::CData(text) if open.last() == Some(&Place::Message) => said.push_str(&text.xml10_content()),
            Event::GeneralRef(entity) if open.last() == Some(&Place::Name) => {
                let character = entity.resolve_char_ref().ok().flatten().or(match &*entity.xml10_content() {
                    "amp" => Some('&'),
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    _ => None,
                });
                name.push(character.ok_or_else(|| {
                    Error::new(
                        ErrorKind::Missing,
                        "the name of a layer in the upstream's capabilities holds an unknown entity",
                    )
                    .hint("the upstream's operator must correct its capabilities")
                })?);
            }
            // Version 1.1.1 comes with a document type, which may declare elements.
            Event::DocType(doctype) if doctype.as_ref().contains("<!ENTITY") => {
                return Err(Error::new(
                    ErrorKind::Missing,
                    "the upstream's capabilities declare entities, which could draw in files of the server that reads them",
                )
                .hint("no WMS does that: check the store's address on the master, and who runs the upstream"));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if root.as_deref() == Some(EXCEPTION) {
        return Err(refused_by_service(&said));
    }
    if root.is_none() || !open.is_empty() {
        return Err(no_capabilities(body, root.as_deref()));
    }
    names.remove("");
    Ok(names)
}

/// The root element of the answer of a WMS that refuses.
const EXCEPTION: &str = "ServiceExceptionReport";

fn check_root(name: &str, body: &[u8]) -> Result<String> {
    match name {
        "WMS_Capabilities" | "WMT_MS_Capabilities" | EXCEPTION => Ok(name.to_owned()),
        "ExceptionReport" => Ok(EXCEPTION.to_owned()),
        _ => Err(no_capabilities(body, Some(name))),
    }
}

fn refused_by_service(said: &str) -> Error {
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
    Error::new(ErrorKind::Missing, format!("the upstream WMS refuses to tell its capabilities: {said}"))
        .hint("check the store's address on the master in a browser")
}

/// The error for an answer that is something else, with what that seems to be.
fn no_capabilities(body: &[u8], root: Option<&str>) -> Error {
    let start = String::from_utf8_lossy(&body[..body.len().min(1024)]).to_lowercase();
    let start = start.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']);
    let (seems, hint) = if start.is_empty() {
        ("nothing".to_owned(), "check the store's address on the master in a browser")
    } else if start.starts_with("<!doctype html") || start.contains("<html") {
        (
            "a web page".to_owned(),
            "a login page or a proxy may stand before the upstream: check the store's address, user name and password on the master",
        )
    } else if root.is_some_and(|root| root == EXCEPTION || root.ends_with("_Capabilities"))
        && root != Some("WFS_Capabilities")
    {
        (
            "a document that is cut off or damaged".to_owned(),
            "run again; if it persists, the upstream's operator must correct its capabilities",
        )
    } else if let Some(root) = root {
        let root: String = root.chars().take(60).collect();
        (format!("a document <{root}>"), "the address leads to another service: correct it on the master")
    } else {
        ("no XML".to_owned(), "check the store's address on the master in a browser")
    };
    Error::new(
        ErrorKind::Missing,
        format!("the upstream does not answer with the capabilities of a WMS but with {seems}"),
    )
    .hint(hint)
}

/// The document as text. UTF-8 unless it says otherwise; names in the encodings that begin like Latin-1
/// are read as that.
fn decoded(body: &[u8]) -> Cow<'_, str> {
    let wide = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = body[2..].as_chunks::<2>().0.iter().map(|&pair| from(pair)).collect();
        Cow::Owned(String::from_utf16_lossy(&units))
    };
    match body {
        [0xfe, 0xff, ..] => return wide(u16::from_be_bytes),
        [0xff, 0xfe, ..] => return wide(u16::from_le_bytes),
        _ => {}
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let head = String::from_utf8_lossy(&body[..body.len().min(200)]).to_lowercase();
    let declaration = head.split("?>").next().unwrap_or_default();
    if ["iso-8859-1", "iso-8859-15", "latin1", "windows-1252"].iter().any(|name| declaration.contains(name)) {
        return Cow::Owned(body.iter().map(|&byte| char::from(byte)).collect());
    }
    String::from_utf8_lossy(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(document: &str) -> Vec<String> {
        layer_names(document.as_bytes()).unwrap().into_iter().collect()
    }

    #[test]
    fn the_names_of_layers_are_read_wherever_they_stand() {
        let version_1_1_1 = r#"<?xml version="1.0"?>
            <!DOCTYPE WMT_MS_Capabilities SYSTEM "http://h/WMS_MS_Capabilities.dtd" [
              <!ELEMENT VendorSpecificCapabilities (TileSet*) >
              <!ELEMENT Layers (#PCDATA) >
            ]>
            <WMT_MS_Capabilities version="1.1.1"><Service><Name>OGC:WMS</Name></Service><Capability>
              <Request><GetMap><Name>no</Name></GetMap></Request>
              <VendorSpecificCapabilities><TileSet><Layers>no</Layers></TileSet></VendorSpecificCapabilities>
              <Layer><Title>all</Title>
                <Layer><Name> outer </Name><Layer><Style><Name>no</Name></Style><Name>ns:a.b &amp; &#x9053;</Name></Layer></Layer>
                <Layer><Name><![CDATA[<c>]]> &lt;d&gt;</Name></Layer>
                <Layer><Name/></Layer><Layer><Name><!-- none --></Name></Layer>
              </Layer></Capability></WMT_MS_Capabilities>"#;
        assert_eq!(names(version_1_1_1), ["<c> <d>", "ns:a.b & 道", "outer"]);
        let version_1_3_0 = r#"<w:WMS_Capabilities xmlns:w="http://www.opengis.net/wms" version="1.3.0">
            <w:Capability><w:Layer><w:Name>a</w:Name></w:Layer></w:Capability></w:WMS_Capabilities>"#;
        assert_eq!(names(version_1_3_0), ["a"]);
        assert!(names("<WMS_Capabilities/>").is_empty());
    }

    #[test]
    fn the_encoding_is_the_documents() {
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><WMS_Capabilities><Layer><Name>stra\xdfe</Name></Layer></WMS_Capabilities>";
        assert!(layer_names(latin).unwrap().contains("straße"));
        let document = "<WMS_Capabilities><Layer><Name>straße</Name></Layer></WMS_Capabilities>";
        let mut marked = b"\xef\xbb\xbf".to_vec();
        marked.extend(document.as_bytes());
        assert!(layer_names(&marked).unwrap().contains("straße"));
        let mut wide = vec![0xfe, 0xff];
        wide.extend(document.encode_utf16().flat_map(u16::to_be_bytes));
        assert!(layer_names(&wide).unwrap().contains("straße"));
    }

    #[test]
    fn entities_are_neither_declared_nor_guessed() {
        for document in [
            "<!DOCTYPE x [<!ENTITY a 'b'>]><WMS_Capabilities><Layer><Name>&a;</Name></Layer></WMS_Capabilities>",
            "<!DOCTYPE x [<!ENTITY % a SYSTEM 'file:///etc/passwd'> %a;]><WMS_Capabilities/>",
            "<WMS_Capabilities><Layer><Name>&a;</Name></Layer></WMS_Capabilities>",
        ] {
            assert!(layer_names(document.as_bytes()).unwrap_err().message().contains("entit"), "{document}");
        }
    }

    #[test]
    fn the_request_keeps_what_it_does_not_know() {
        let url = |text: &str| request_url(text).unwrap().to_string();
        assert_eq!(url("http://h"), "http://h/?SERVICE=WMS&REQUEST=GetCapabilities");
        assert_eq!(
            url(" https://h/a b?Map=%2Fx+y&&request=GetMap&Service=wfs&version=1.1.1#top "),
            "https://h/a%20b?SERVICE=WMS&REQUEST=GetCapabilities&Map=%2Fx+y&version=1.1.1"
        );
    }

    #[test]
    fn names_that_are_nearly_right_are_suggested() {
        let offered = ["cadastre:Roads", "roads_old", "rivers", "Roadz"].map(str::to_owned);
        let layers = UpstreamLayers { address: "http://h/wms".into(), names: Arc::new(offered.into()) };
        let hint = |name: &str| layers.require(name).unwrap_err().hint_text().unwrap().to_owned();
        insta::assert_snapshot!(["roads", "zoning"].map(hint).join("\n"), @r#"
        it offers "cadastre:Roads", "Roadz", "roads_old"; correct the layer's native name on the master
        it offers 4 layers; correct the layer's native name on the master, or ask the upstream's operator
        "#);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "(<|>|&|Layer|Name|WMS_Capabilities|/|\\PC| ){0,30}") {
            let _ = layer_names(&body);
            let _ = layer_names(text.as_bytes());
        }
    }
}
