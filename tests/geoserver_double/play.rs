//! Plays a recording: the steps that were not recorded, the exchanges, and what is left out.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::compare;
use super::server::Scratch;
use crate::support::geoserver::GeoServerDouble;

#[derive(Deserialize)]
struct Entry {
    note: String,
    request: Option<Sent>,
    response: Option<Got>,
}

#[derive(Deserialize)]
struct Sent {
    method: String,
    path: String,
    #[serde(default)]
    query: String,
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

#[derive(Deserialize)]
struct Got {
    status: u16,
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

/// What came of a recording.
pub(crate) struct Played {
    /// Status, headers and body.
    pub(crate) compared: usize,
    /// Status and headers only.
    pub(crate) heads: usize,
    pub(crate) left_out: usize,
    pub(crate) mismatches: Vec<String>,
}

/// A step or an exclusion, at the exchange before which it stands.
enum Line {
    Step(usize, String),
    /// The exchange is not played.
    Skip(usize, usize),
    /// The exchange is played, its status and type are compared, its body is not.
    Head(usize, usize),
}

fn read_play(text: &str) -> Vec<Line> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (first, rest) = line.split_once(' ').expect("two words");
            let range = |text: &str| {
                let (range, reason) = text.split_once(' ').expect("a reason");
                assert!(!reason.trim().is_empty(), "no reason in: {line}");
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                (from.parse().expect("a number"), to.parse().expect("a number"))
            };
            match first {
                "skip" => {
                    let (from, to) = range(rest);
                    Line::Skip(from, to)
                }
                "head" => {
                    let (from, to) = range(rest);
                    Line::Head(from, to)
                }
                at => Line::Step(at.parse().unwrap_or_else(|_| panic!("no number in: {line}")), rest.to_owned()),
            }
        })
        .collect()
}

struct Stage<'a> {
    double: &'a GeoServerDouble,
    http: reqwest::Client,
    sql: tokio_postgres::Client,
    database: String,
    port: u16,
}

const SLD: &str = "application/vnd.ogc.sld+xml";

impl Stage<'_> {
    /// Puts this run's database and address in the place of the recorded ones.
    fn here(&self, text: &str) -> String {
        text.replace("{BASE}", &self.double.url())
            .replace("54321", &self.port.to_string())
            .replace(">rec<", &format!(">{}<", self.database))
            .replace("\"rec\"", &format!("\"{}\"", self.database))
    }

    async fn send(&self, method: &str, path: &str, media: &str, body: &str) -> Result<(), String> {
        let url = format!("{}{path}", self.double.url());
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = self
            .http
            .request(method.clone(), url)
            .basic_auth("admin", Some("geoserver"))
            .header("Content-Type", media)
            .body(self.here(body))
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        if status.is_success() { Ok(()) } else { Err(format!("step {method} {path}: {status} {text}")) }
    }

    async fn step(&self, step: &str) -> Result<(), String> {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let xml = "application/xml";
        match (verb, words.as_slice()) {
            ("sql", _) => self.sql.batch_execute(rest).await.map_err(|err| format!("step {rest}: {err}"))?,
            ("ws", names) => {
                for name in names {
                    let body =
                        format!("<namespace><prefix>{name}</prefix><uri>http://rec.example/{name}</uri></namespace>");
                    self.send("POST", "/rest/namespaces", xml, &body).await?;
                }
            }
            ("pg", [ws, store, schema]) => {
                let body = format!(
                    "<dataStore><name>{store}</name><connectionParameters><host>127.0.0.1</host><port>54321</port>\
                     <database>rec</database><schema>{schema}</schema><user>postgres</user><passwd>x</passwd>\
                     <dbtype>postgis</dbtype><entry key=\"Expose primary keys\">true</entry></connectionParameters></dataStore>"
                );
                self.send("POST", &format!("/rest/workspaces/{ws}/datastores"), xml, &body).await?;
            }
            ("type", [ws, store, names @ ..]) => {
                for name in names {
                    let body = format!("<featureType><name>{name}</name></featureType>");
                    let path = format!("/rest/workspaces/{ws}/datastores/{store}/featuretypes");
                    self.send("POST", &path, xml, &body).await?;
                }
            }
            ("style", [ws, names @ ..]) => {
                for name in names {
                    let place = if *ws == "-" { String::new() } else { format!("workspaces/{ws}/") };
                    let body = format!(
                        "<StyledLayerDescriptor version=\"1.0.0\" xmlns=\"http://www.opengis.net/sld\"><NamedLayer>\
                         <Name>{name}</Name><UserStyle><Title>{name} title</Title><FeatureTypeStyle><Rule><LineSymbolizer>\
                         <Stroke><CssParameter name=\"stroke\">#ff0000</CssParameter></Stroke></LineSymbolizer></Rule>\
                         </FeatureTypeStyle></UserStyle></NamedLayer></StyledLayerDescriptor>"
                    );
                    self.send("POST", &format!("/rest/{place}styles?name={name}"), SLD, &body).await?;
                }
            }
            ("group", [ws, name, members @ ..]) => {
                let members: String = members
                    .iter()
                    .map(|member| match member.strip_prefix('@') {
                        Some(group) => format!("<published type=\"layerGroup\"><name>{ws}:{group}</name></published>"),
                        None => format!("<published type=\"layer\"><name>{ws}:{member}</name></published>"),
                    })
                    .collect();
                let body = format!(
                    "<layerGroup><name>{name}</name><mode>SINGLE</mode><title>T {name}</title><abstractTxt>Abs</abstractTxt>\
                     <publishables>{members}</publishables></layerGroup>"
                );
                self.send("POST", &format!("/rest/workspaces/{ws}/layergroups"), xml, &body).await?;
            }
            ("POST" | "PUT" | "DELETE", [path, media, ..]) => {
                let body = rest.splitn(3, ' ').nth(2).unwrap_or_default();
                self.send(verb, path, media, body).await?;
            }
            ("DELETE", [path]) => self.send(verb, path, xml, "").await?,
            _ => panic!("unknown step: {step}"),
        }
        Ok(())
    }

    async fn compare(&self, note: &str, sent: &Sent, got: &Got, with_body: bool) -> Option<String> {
        let query = if sent.query.is_empty() { String::new() } else { format!("?{}", sent.query) };
        let url = format!("{}{}{query}", self.double.url(), sent.path);
        let method = Method::from_bytes(sent.method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, url);
        for (name, value) in &sent.headers {
            if name == "Authorization" {
                let (user, password) = match value.as_str() {
                    "Basic <admin>" if note.contains("wrong password") => ("admin", "wrong"),
                    "Basic <admin>" => ("admin", "geoserver"),
                    "Basic <recuser>" => ("recuser", "newpass1"),
                    _ => ("ghost", "ghost"),
                };
                request = request.basic_auth(user, Some(password));
                continue;
            }
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            request = request.header(name, HeaderValue::from_str(value).expect("a header value"));
        }
        let answer = request.body(self.here(&sent.body)).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let base = self.double.url();
        let header = |name: &str| {
            answer.headers().get(name).map(|value| compare::plain(&String::from_utf8_lossy(value.as_bytes()), &base))
        };
        if status != got.status {
            let body = answer.text().await.unwrap_or_default();
            return Some(format!(
                "status {status} instead of {}: {}",
                got.status,
                &body.chars().take(300).collect::<String>()
            ));
        }
        for name in ["Location", "Allow", "Accept", "WWW-Authenticate", "Set-Cookie", "Connection", "Warning"] {
            if got.headers.get(name) != header(name).as_ref() {
                return Some(format!("{name} {:?} instead of {:?}", header(name), got.headers.get(name)));
            }
        }
        let media = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
        let recorded_media = got.headers.get("Content-Type").map(|text| media(text));
        let answered_media = header("Content-Type").map(|text| media(&text));
        if recorded_media != answered_media {
            return Some(format!("type {answered_media:?} instead of {recorded_media:?}"));
        }
        if !with_body {
            return None;
        }
        let bytes = answer.bytes().await.expect("a body");
        if let Some(start) = got.body.strip_prefix("<binary: ").and_then(|rest| rest.split("starts ").nth(1)) {
            let hex: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            let start = start.trim_end_matches('>');
            // Of a JPEG only the marker, of other things what was kept of them.
            let length = if start.starts_with("ffd8") { 4 } else { start.len().min(hex.len()) };
            return (start[..length] != hex[..length]).then(|| format!("bytes {hex} instead of {start}"));
        }
        let text = compare::plain(&String::from_utf8_lossy(&bytes), &base)
            .replace(&format!("\"{}\"", self.database), "\"rec\"")
            .replace(&format!(">{}<", self.database), ">rec<")
            .replace(&self.port.to_string(), "54321");
        let recorded = compare::plain(&got.body, "{BASE}");
        // The trace of the Java stack is nobody's business.
        let cut = |text: &str| text.split("<h3>Caused by").next().unwrap_or_default().to_owned();
        compare::differ(&recorded_media.unwrap_or_default(), &cut(&recorded), &cut(&text))
    }
}

pub(crate) async fn play(double: &GeoServerDouble, scratch: &Scratch, name: &str) -> Played {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a recording");
    let entries: Vec<Entry> = serde_json::from_str(&text).expect("the form of a recording");
    let lines = std::fs::read_to_string(folder.join(format!("{name}.play"))).unwrap_or_default();
    let lines = read_play(&lines);
    let database = format!("recorded_{}", &name[..2]);
    let sql = scratch.database(&database).await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let stage = Stage { double, http, sql, database, port: scratch.port };
    let mut played = Played { compared: 0, heads: 0, left_out: 0, mismatches: vec![] };
    for (at, entry) in entries.iter().enumerate() {
        for line in &lines {
            if let Line::Step(before, step) = line
                && *before == at
            {
                played.mismatches.extend(stage.step(step).await.err());
            }
        }
        let (Some(sent), Some(got)) = (&entry.request, &entry.response) else { continue };
        if lines.iter().any(|line| matches!(line, Line::Skip(from, to) if (*from..=*to).contains(&at))) {
            played.left_out += 1;
            continue;
        }
        let with_body = !lines.iter().any(|line| matches!(line, Line::Head(from, to) if (*from..=*to).contains(&at)));
        if with_body {
            played.compared += 1;
        } else {
            played.heads += 1;
        }
        if let Some(mismatch) = stage.compare(&entry.note, sent, got, with_body).await {
            played.mismatches.push(format!("#{at} {} {} ({}): {mismatch}", sent.method, sent.path, entry.note));
        }
    }
    played
}
