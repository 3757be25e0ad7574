//! Pictures of layers, drawn by GeoServer's WMS.
//!
//! A picture is asked for as WMS 1.1.1, in which the first number of a box is the longitude whatever the
//! reference system. GeoServer answers 200 to what it cannot draw, with an exception report in place of
//! the picture.

use percent_encoding::percent_decode_str;
use url::{Url, form_urlencoded};

use super::answer::Answer;
use super::client::{GeoServer, encoded};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::name::GeoName;

/// What is drawn of a layer without a box, in degrees: Australia.
const AUSTRALIA: [f64; 4] = [108.0, -45.0, 155.0, -10.0];

/// The largest width and height of a picture, in pixels.
const FRAME: (f64, f64) = (480.0, 278.0);

/// The longest picture that is taken, in bytes.
const PICTURE_BYTES: usize = 20 * 1024 * 1024;

/// The shorter side of what is drawn is at least this part of the longer one: a single point, and a
/// straight road from west to east, have boxes without area.
const LEAST_SIDE: f64 = 0.05;

/// A layer to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct MapRequest {
    /// The layer's workspace.
    pub workspace: GeoName,
    /// The layer or group.
    pub layer: GeoName,
    /// What of it, as `minx, miny, maxx, maxy`; without it Australia.
    pub bbox: Option<[f64; 4]>,
    /// The reference system of the box, as `EPSG:` and digits. A box of numbers that can be degrees is one
    /// of degrees, whatever stands here.
    pub crs: Option<String>,
}

/// A link to a service that may draw the layer.
#[derive(Debug, Clone, PartialEq)]
pub struct MapLink {
    /// The protocol; only `OGC:WMS` draws.
    pub protocol: String,
    /// The address of a picture, on whatever host.
    pub link: String,
    /// The picture's height in pixels, when it is known.
    pub height: Option<f64>,
}

/// A picture of a layer.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// The file's content.
    pub bytes: Vec<u8>,
    /// Its media type without parameters, such as `image/png`.
    pub media_type: String,
    /// The ending of a file with such content, without a dot.
    pub extension: &'static str,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture").field("media_type", &self.media_type).field("bytes", &self.bytes.len()).finish()
    }
}

impl GeoServer {
    /// The first picture that GeoServer draws: of `links`, smallest first, and then of `map`.
    ///
    /// # Errors
    ///
    /// As [`GeoServer::map_picture`], about `map`; what the links answered is logged.
    pub async fn preview(&self, links: &[MapLink], map: &MapRequest) -> Result<Picture> {
        for link in smallest_first(links) {
            match self.picture_of_link(link).await {
                Ok(picture) => return Ok(picture),
                Err(error) if error.kind() == ErrorKind::Unreachable => return Err(error),
                Err(error) => tracing::debug!(error = %error.one_line(), "a link gives no picture"),
            }
        }
        self.map_picture(map).await
    }

    /// Draws a layer's box, within 480 × 278 pixels and in the shape of the box.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`] with GeoServer's words when it does not draw the layer, or not within the
    /// time limit; [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] when it cannot be asked, the former also
    /// when the time limit has ended the last two.
    pub async fn map_picture(&self, map: &MapRequest) -> Result<Picture> {
        let (srs, bounds) = extent(map);
        let (width, height) = size(bounds);
        let layer = format!("{}:{}", map.workspace, map.layer);
        let url = format!(
            "{}/ows?service=WMS&version=1.1.1&request=GetMap&layers={}&styles=&srs={}&bbox={}&width={width}&height={height}&format=image%2Fpng",
            self.name(),
            encoded(&layer),
            encoded(&srs),
            bounds.map(|edge| edge.to_string()).join(","),
        );
        self.picture(url, &format!("cannot draw the layer {layer}")).await
    }

    /// Draws what `link` would show, if it were a link to this GeoServer: the path after the web
    /// application's and the query are kept, but for how errors are to be shown.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Document`] when it is no link to the WMS of a GeoServer; otherwise as
    /// [`GeoServer::map_picture`].
    pub async fn picture_of_link(&self, link: &str) -> Result<Picture> {
        let url = turned(self.name(), link)?;
        self.picture(url, "cannot draw what the link shows").await
    }

    async fn picture(&self, url: String, failed: &str) -> Result<Picture> {
        let answer = self.draw(url, PICTURE_BYTES).await?;
        if !answer.is_success() {
            return Err(answer.error(failed));
        }
        let media_type = answer.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match extension(&media_type) {
            Some(extension) if looks_like(extension, &answer.body) => {
                Ok(Picture { bytes: answer.body, media_type, extension })
            }
            Some(_) => Err(no_picture(&answer, failed, &format!("what is called {media_type} is none"))),
            None if media_type.starts_with("image/") => {
                Err(no_picture(&answer, failed, &format!("{media_type} is not known here")))
            }
            None => {
                let said = answer.message();
                let reason = if said.is_empty() { format!("{media_type} is answered") } else { said };
                Err(no_picture(&answer, failed, &reason))
            }
        }
    }
}

fn no_picture(answer: &Answer, failed: &str, reason: &str) -> Error {
    let too_slow = reason.contains("more time than allowed");
    let error = Error::new(ErrorKind::GeoServer, format!("{failed}: {reason}"))
        .subject(format!("{} {}", answer.method, answer.url));
    if too_slow {
        return error.hint("the WMS service's limit of rendering time in GeoServer ended it; the next run tries again");
    }
    error
}

/// The links that may draw, smallest picture first; one of unknown height counts as smallest.
fn smallest_first(links: &[MapLink]) -> Vec<&str> {
    let mut drawing: Vec<&MapLink> = links
        .iter()
        .filter(|link| {
            // Some catalogues append version and request: OGC:WMS-1.1.1-http-get-map.
            let rest = link.protocol.trim().get(..7).map(|start| (start, &link.protocol.trim()[7..]));
            rest.is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case("OGC:WMS") && !rest.starts_with(char::is_alphanumeric)
            })
        })
        .collect();
    drawing.sort_by(|a, b| a.height.unwrap_or(0.0).total_cmp(&b.height.unwrap_or(0.0)));
    drawing.iter().map(|link| link.link.as_str()).collect()
}

/// The address on the GeoServer at `base` of what `link` shows on another one.
///
/// It is sent with an administrator's credentials, so it must be one of a map and nothing else.
fn turned(base: &str, link: &str) -> Result<String> {
    let refuse = |reason: &str| {
        let shown = if link.contains('@') { "a link with credentials" } else { link };
        Error::new(ErrorKind::Document, format!("the link {reason}"))
            .subject(shown)
            .hint("correct the layer's links in the catalogue and publish it again")
    };
    // A link may be written without a host.
    let here = Url::parse("http://relative.invalid/").context(ErrorKind::Bug, "a constant is no URL")?;
    let url = here.join(link.trim()).map_err(|source| refuse("is no address").source(source))?;
    let segments: Vec<&str> = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
    // Servlet containers cut parameters off a segment, and decode it, after they have looked at it.
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    if segments.iter().any(|part| decoded(part).contains(['/', '\\', ';', '%']) || decoded(part) == "..") {
        return Err(refuse("holds a path that can be read in two ways"));
    }
    let is = |part: &str, name: &str| part.eq_ignore_ascii_case(name);
    let root = segments.iter().position(|part| is(part, "geoserver")).map(|at| at + 1);
    let root = root.or_else(|| segments.iter().position(|part| is(part, "gwc")));
    let service = &segments[root.unwrap_or(segments.len().saturating_sub(1))..];
    if !service.last().is_some_and(|last| is(last, "wms") || is(last, "ows")) {
        return Err(refuse("is not one of a GeoServer's WMS: its path ends in neither /wms nor /ows"));
    }
    let mut asks_map = false;
    let mut kept = Vec::new();
    for pair in url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
        if is(&key, "exceptions") {
            // An error drawn as a picture would be taken for the layer's.
            continue;
        }
        asks_map |= is(&key, "request") && is(&value, "GetMap");
        kept.push(pair);
    }
    if !asks_map {
        return Err(refuse("asks for no map (request=GetMap)"));
    }
    Ok(format!("{base}/{}?{}", service.join("/"), kept.join("&")))
}

/// What to draw, and in which reference system its numbers are.
fn extent(map: &MapRequest) -> (String, [f64; 4]) {
    const DEGREES: &str = "EPSG:4326";
    let in_degrees =
        |[minx, miny, maxx, maxy]: [f64; 4]| minx >= -360.0 && maxx <= 360.0 && miny >= -90.0 && maxy <= 90.0;
    match (map.bbox.filter(|bounds| bounds.iter().all(|edge| edge.is_finite())), &map.crs) {
        // The datum does not matter at this size. A box in metres of this extent would be one of some
        // hundred metres around the origin of its projection.
        (Some(bounds), _) if in_degrees(bounds) => (DEGREES.to_owned(), with_area(bounds, 0.01)),
        (Some(bounds), Some(crs)) => (crs.clone(), with_area(bounds, 1000.0)),
        _ => (DEGREES.to_owned(), AUSTRALIA),
    }
}

/// `bounds`, widened where they have next to no extent; a single point gets `least` units.
fn with_area([minx, miny, maxx, maxy]: [f64; 4], least: f64) -> [f64; 4] {
    let longest = (maxx - minx).max(maxy - miny);
    let side = if longest > 0.0 { longest * LEAST_SIDE } else { least };
    let widen = |low: f64, high: f64| {
        let missing = (side - (high - low)).max(0.0) / 2.0;
        (low - missing, high + missing)
    };
    let ((minx, maxx), (miny, maxy)) = (widen(minx, maxx), widen(miny, maxy));
    [minx, miny, maxx, maxy]
}

/// Width and height in pixels of a picture in the shape of the box.
fn size([minx, miny, maxx, maxy]: [f64; 4]) -> (u32, u32) {
    let (width, height) = (maxx - minx, maxy - miny);
    let scale = (FRAME.0 / width).min(FRAME.1 / height);
    // Within the frame, so they fit.
    let pixels = |side: f64| (side * scale).round().max(1.0) as u32;
    (pixels(width), pixels(height))
}

fn extension(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        // GeoServer answers image/png8 as image/png; mode=8bit.
        "image/png" | "image/png8" | "image/vnd.jpeg-png" | "image/vnd.jpeg-png8" => "png",
        "image/jpeg" | "image/jpg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "image/tiff" | "image/geotiff" => "tif",
        "image/svg+xml" => "svg",
        _ => return None,
    })
}

/// Whether content begins as files of this kind do.
fn looks_like(extension: &str, bytes: &[u8]) -> bool {
    match extension {
        "png" => bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
        "jpg" => bytes.starts_with(b"\xff\xd8\xff"),
        "gif" => bytes.starts_with(b"GIF8"),
        "webp" => bytes.starts_with(b"RIFF"),
        "tif" => bytes.starts_with(b"II") || bytes.starts_with(b"MM"),
        _ => !bytes.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(bbox: Option<[f64; 4]>, crs: Option<&str>) -> MapRequest {
        MapRequest {
            workspace: GeoName::new("workspace", "kmi").unwrap(),
            layer: GeoName::new("layer", "roads").unwrap(),
            bbox,
            crs: crs.map(str::to_owned),
        }
    }

    #[test]
    fn the_numbers_of_a_box_tell_whether_they_are_degrees() {
        let shown = |bbox, crs| {
            let (srs, bounds) = extent(&map(bbox, crs));
            format!("{srs} {bounds:?} {:?}", size(bounds))
        };
        insta::assert_snapshot!([
            shown(None, Some("EPSG:28350")),
            shown(Some([115.0, -36.0, 129.0, -12.0]), Some("EPSG:4283")),
            shown(Some([115.0, -36.0, 129.0, -12.0]), Some("EPSG:28350")),
            shown(Some([385_000.0, 6_450_000.0, 400_000.0, 6_455_000.0]), Some("EPSG:28350")),
            shown(Some([385_000.0, 6_450_000.0, 400_000.0, 6_455_000.0]), None),
            shown(Some([115.5, -32.0, 115.5, -32.0]), None),
            shown(Some([115.0, -32.0, 125.0, -32.0]), None),
            shown(Some([f64::NAN, 0.0, 1.0, 1.0]), None),
        ].join("\n"), @r"
        EPSG:4326 [108.0, -45.0, 155.0, -10.0] (373, 278)
        EPSG:4326 [115.0, -36.0, 129.0, -12.0] (162, 278)
        EPSG:4326 [115.0, -36.0, 129.0, -12.0] (162, 278)
        EPSG:28350 [385000.0, 6450000.0, 400000.0, 6455000.0] (480, 160)
        EPSG:4326 [108.0, -45.0, 155.0, -10.0] (373, 278)
        EPSG:4326 [115.495, -32.005, 115.505, -31.995] (278, 278)
        EPSG:4326 [115.0, -32.25, 125.0, -31.75] (480, 24)
        EPSG:4326 [108.0, -45.0, 155.0, -10.0] (373, 278)
        ");
    }

    #[test]
    fn links_are_turned_to_this_geoserver() {
        let turn = |link: &str| match turned("https://slave:8443/gs/geoserver", link) {
            Ok(url) => url,
            Err(error) => error.message().to_owned(),
        };
        insta::assert_snapshot!([
            turn("https://kmi.example/geoserver/gwc/service/wms?SERVICE=WMS&REQUEST=GetMap&LAYERS=a%3Ab&FORMAT=image/png"),
            turn("http://user:secret@geoserver.example:8080/x/geoserver/kmi/wms?request=getmap&exceptions=application/vnd.ogc.se_inimage&b=1#x"),
            turn("/geoserver/ows?service=wms&request=GetMap"),
            turn("//other/gwc/service/wms?request=GetMap"),
            turn("https://kmi.example/ows?request=GetMap"),
            turn("http://h/geoserver/rest/reload?request=GetMap"),
            turn("http://h/geoserver/rest/x/..;/wms?request=GetMap"),
            turn("http://h/geoserver/rest%2fx/wms?request=GetMap"),
            turn("http://h/geoserver/../rest/about?request=GetMap"),
            turn("http://h/geoserver/wms?request=GetCapabilities"),
            turn("http://h/"),
            turn("http://[h/wms"),
        ].join("\n"), @r"
        https://slave:8443/gs/geoserver/gwc/service/wms?SERVICE=WMS&REQUEST=GetMap&LAYERS=a%3Ab&FORMAT=image/png
        https://slave:8443/gs/geoserver/kmi/wms?request=getmap&b=1
        https://slave:8443/gs/geoserver/ows?service=wms&request=GetMap
        https://slave:8443/gs/geoserver/gwc/service/wms?request=GetMap
        https://slave:8443/gs/geoserver/ows?request=GetMap
        the link is not one of a GeoServer's WMS: its path ends in neither /wms nor /ows
        the link holds a path that can be read in two ways
        the link holds a path that can be read in two ways
        the link is not one of a GeoServer's WMS: its path ends in neither /wms nor /ows
        the link asks for no map (request=GetMap)
        the link is not one of a GeoServer's WMS: its path ends in neither /wms nor /ows
        the link is no address
        ");
    }

    #[test]
    fn the_smallest_picture_is_asked_for_first() {
        let link =
            |protocol: &str, link: &str, height| MapLink { protocol: protocol.into(), link: link.into(), height };
        let links = [
            link("OGC:WMS", "large", Some(600.0)),
            link("OGC:WFS", "wfs", None),
            link("OGC:WMTS", "tiles", Some(1.0)),
            link("ogc:wms-1.1.1-http-get-map", "small", Some(54.0)),
            link("OGC:WMS", "unknown", None),
            link("OGC:WMS", "small too", Some(54.0)),
            link("", "none", None),
        ];
        assert_eq!(smallest_first(&links), ["unknown", "small", "small too", "large"]);
    }

    proptest! {
        #[test]
        fn every_picture_fits_the_frame_and_touches_it(
            x in -2.0e7..2.0e7_f64, y in -2.0e7..2.0e7_f64, width in 0.0..1.0e7_f64, height in 0.0..1.0e7_f64
        ) {
            let (_, bounds) = extent(&map(Some([x, y, x + width, y + height]), Some("EPSG:3857")));
            let (wide, high) = size(bounds);
            prop_assert!((1..=480).contains(&wide) && (1..=278).contains(&high), "{wide} {high}");
            prop_assert!(wide == 480 || high == 278, "{wide} {high}");
            prop_assert!(bounds[0] < bounds[2] && bounds[1] < bounds[3]);
            prop_assert!(bounds[0] <= x && bounds[2] >= x + width && bounds[1] <= y && bounds[3] >= y + height);
        }

        #[test]
        fn a_turned_link_stays_on_this_geoserver(link in "(https?://[a-z@:.]{1,6}|/)?(geoserver|gwc|[a-z.%;/]{1,5}|/){1,5}(wms|ows)\\?request=GetMap") {
            if let Ok(url) = turned("http://here:1/geoserver", &link) {
                let url = Url::parse(&url).unwrap();
                prop_assert_eq!((url.host_str(), url.port(), url.username()), (Some("here"), Some(1), ""));
                prop_assert!(url.path().starts_with("/geoserver/") && !url.path().contains("/rest/.."));
            }
        }
    }
}
