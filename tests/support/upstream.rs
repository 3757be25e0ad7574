//! A WMS of another house: its layers, its moods, and what it was asked.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as the test does")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use tokio::task::JoinHandle;

/// How the upstream answers.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// With its capabilities.
    Well,
    /// Not at all, though it takes the request.
    Hangs,
    /// With this status and an empty body.
    Status(u16),
    /// With this instead of its capabilities.
    Says(Vec<u8>),
    /// By sending on.
    SendsOn(String),
    /// With its capabilities, to this user and password only.
    Wants(&'static str, &'static str),
}

/// What is known of a layer of the upstream.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamLayer {
    pub(crate) name: String,
    /// It has a style.
    pub(crate) styled: bool,
    /// That style has a legend.
    pub(crate) legend: bool,
}

#[derive(Debug)]
struct Inner {
    address: String,
    layers: Vec<UpstreamLayer>,
    mood: Mood,
    asked: Vec<Asked>,
}

/// A request that the upstream has got.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
}

pub(crate) struct UpstreamWms {
    inner: Arc<Mutex<Inner>>,
    server: JoinHandle<()>,
}

impl Drop for UpstreamWms {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl UpstreamWms {
    /// An upstream that offers layers of these names, with styles and legends.
    pub(crate) async fn start(names: &[&str]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inner = Arc::new(Mutex::new(Inner { address, layers: vec![], mood: Mood::Well, asked: vec![] }));
        let router = Router::new().fallback(answer).with_state(inner.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let upstream = Self { inner, server };
        for name in names {
            upstream.add(name);
        }
        upstream
    }

    pub(crate) fn add(&self, name: &str) {
        self.add_layer(UpstreamLayer { name: name.into(), styled: true, legend: true });
    }

    pub(crate) fn add_layer(&self, layer: UpstreamLayer) {
        self.inner.lock().unwrap().layers.push(layer);
    }

    /// The layer is called otherwise from now on.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.layers.iter_mut().filter(|layer| layer.name == from).for_each(|layer| layer.name = to.into());
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    /// The address for a store.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/wms", self.inner.lock().unwrap().address)
    }

    /// What it was asked since this was last looked at.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.inner.lock().unwrap().asked)
    }
}

async fn answer(State(inner): State<Arc<Mutex<Inner>>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (mood, capabilities) = {
        let mut inner = inner.lock().unwrap();
        let query = uri.query().unwrap_or_default().to_owned();
        inner.asked.push(Asked { query, authorization: authorization.clone() });
        (inner.mood.clone(), capabilities(&inner))
    };
    let reply = Response::builder();
    match mood {
        Mood::Well => reply.header(header::CONTENT_TYPE, "text/xml").body(capabilities.into()),
        Mood::Hangs => std::future::pending().await,
        Mood::Status(status) => reply.status(status).body(Body::empty()),
        Mood::Says(body) => reply.body(body.into()),
        Mood::SendsOn(to) => reply.status(StatusCode::FOUND).header(header::LOCATION, to).body(Body::empty()),
        Mood::Wants(user, password) => {
            let wanted = reqwest::Client::new().get("http://x").basic_auth(user, Some(password)).build().unwrap();
            if authorization.as_deref() == wanted.headers()[header::AUTHORIZATION].to_str().ok() {
                reply.header(header::CONTENT_TYPE, "text/xml").body(capabilities.into())
            } else {
                reply.status(401).header(header::WWW_AUTHENTICATE, "Basic realm=\"x\"").body(Body::empty())
            }
        }
    }
    .unwrap()
}

fn escaped(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

fn capabilities(inner: &Inner) -> String {
    let here = format!(
        "<OnlineResource xmlns:xlink=\"http://www.w3.org/1999/xlink\" xlink:type=\"simple\" xlink:href=\"http://{}/wms?\"/>",
        inner.address
    );
    let get = format!("<DCPType><HTTP><Get>{here}</Get></HTTP></DCPType>");
    let layer = |layer: &UpstreamLayer| {
        let legend = if layer.legend {
            format!("<LegendURL width=\"9\" height=\"9\"><Format>image/png</Format>{here}</LegendURL>")
        } else {
            String::new()
        };
        let style =
            if layer.styled { format!("<Style><Name>s</Name><Title>s</Title>{legend}</Style>") } else { String::new() };
        let name = escaped(&layer.name);
        format!(
            "<Layer><Name>{name}</Name><Title>{name} upstream</Title><Abstract>abstract of {name}</Abstract>\
             <KeywordList><Keyword>theirs</Keyword></KeywordList><SRS>EPSG:4326</SRS>\
             <LatLonBoundingBox minx=\"110\" miny=\"-40\" maxx=\"120\" maxy=\"-20\"/>\
             <BoundingBox SRS=\"EPSG:4326\" minx=\"110\" miny=\"-40\" maxx=\"120\" maxy=\"-20\"/>{style}</Layer>"
        )
    };
    let layers: String = inner.layers.iter().map(layer).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><WMT_MS_Capabilities version=\"1.1.1\">\
         <Service><Name>OGC:WMS</Name><Title>t</Title>{here}</Service><Capability><Request>\
         <GetCapabilities><Format>application/vnd.ogc.wms_xml</Format>{get}</GetCapabilities>\
         <GetMap><Format>image/png</Format>{get}</GetMap></Request>\
         <Exception><Format>application/vnd.ogc.se_xml</Format></Exception>\
         <Layer><Title>all</Title><SRS>EPSG:4326</SRS>{layers}</Layer></Capability></WMT_MS_Capabilities>"
    )
}
