//! Pictures of layers.

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{MapLink, MapRequest, Picture, RequestCount};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Duration, SAME, Target, client, geo, style, target};

impl Target {
    /// A layer of ten lines from (115, -32) to (116, -31), with a style.
    async fn drawn(&self) {
        self.lines("roads", 0.0).await;
        self.ready().await;
        self.server.publish_feature_type(&self.lines_type("roads"), SAME).await.unwrap();
        self.style(&self.styles("roads", vec![style("roads")])).await;
    }

    fn map(&self, bbox: Option<[f64; 4]>, crs: Option<&str>) -> MapRequest {
        MapRequest { workspace: self.workspace.clone(), layer: geo("roads"), bbox, crs: crs.map(str::to_owned) }
    }

    fn link(&self, rest: &str) -> String {
        format!("https://kmi.example/geoserver/{rest}").replace("{w}", self.workspace.as_str())
    }
}

/// Width and height as the header of a PNG has them.
fn pixels(picture: &Picture) -> (u32, u32) {
    assert_eq!((picture.media_type.as_str(), picture.extension), ("image/png", "png"));
    let number = |at: usize| u32::from_be_bytes(picture.bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[tokio::test]
async fn a_layer_is_drawn_in_the_shape_of_its_box() {
    let target = target("map_box").await;
    target.drawn().await;
    let server = &target.server;
    let before = server.requests();
    let australia = server.map_picture(&target.map(None, None)).await.unwrap();
    assert_eq!(pixels(&australia), (373, 278));
    let wide = server.map_picture(&target.map(Some([114.0, -32.0, 118.0, -31.0]), Some("EPSG:4283"))).await.unwrap();
    assert_eq!(pixels(&wide), (480, 120));
    let point = server.map_picture(&target.map(Some([115.0, -32.0, 115.0, -32.0]), None)).await.unwrap();
    assert_eq!(pixels(&point), (278, 278));
    assert_eq!(server.requests().since(before), RequestCount { reads: 3, writes: 0 });
}

#[tokio::test]
async fn a_box_in_metres_is_drawn_where_the_layer_lies() {
    let target = target("map_metres").await;
    target.drawn().await;
    let server = &target.server;
    // The same square kilometre of the diagonal, in degrees and in metres of zone 50; and one beside it.
    let metres = server
        .map_picture(&target.map(Some([358_000.0, 6_513_000.0, 362_000.0, 6_517_000.0]), Some("EPSG:32750")))
        .await
        .unwrap();
    let beside = server
        .map_picture(&target.map(Some([458_000.0, 6_413_000.0, 462_000.0, 6_417_000.0]), Some("EPSG:32750")))
        .await
        .unwrap();
    assert_eq!(pixels(&metres), (278, 278));
    if std::env::var_os("GEOSERVER_TEST_URL").is_some() {
        // The double draws nothing but a size.
        assert_ne!(metres.bytes, beside.bytes, "the line is in the one and not in the other");
    }
}

#[tokio::test]
async fn links_are_tried_smallest_first_and_then_the_layer_itself() {
    let target = target("map_links").await;
    target.drawn().await;
    let server = &target.server;
    let query = "SERVICE=WMS&VERSION=1.1.1&REQUEST=GetMap&STYLES=&SRS=EPSG%3A4326&BBOX=114,-33,117,-30";
    let layers = format!("LAYERS={}%3Aroads", target.workspace);
    let link =
        |rest: String, height| MapLink { protocol: "OGC:WMS".into(), link: target.link(&rest), height: Some(height) };
    let good = link(format!("{{w}}/wms?{query}&{layers}&WIDTH=60&HEIGHT=60&FORMAT=image%2Fjpeg"), 60.0);
    let large = link(format!("wms?{query}&{layers}&WIDTH=600&HEIGHT=600&FORMAT=image%2Fpng"), 600.0);
    let drawn_error = link(
        format!(
            "ows?{query}&LAYERS=nosuch&WIDTH=20&HEIGHT=20&FORMAT=image/png&EXCEPTIONS=application/vnd.ogc.se_inimage"
        ),
        20.0,
    );
    let elsewhere = link("rest/about/version.json?request=GetMap".into(), 10.0);

    let picture = server.picture_of_link(&good.link).await.unwrap();
    assert_eq!((picture.media_type.as_str(), picture.extension), ("image/jpeg", "jpg"));
    let error = server.picture_of_link(&drawn_error.link).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    assert!(error.message().contains("Could not find layer nosuch"), "{}", error.paragraph());
    let error = server.picture_of_link(&elsewhere.link).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Document, "{}", error.paragraph());

    let links = [large.clone(), good, drawn_error.clone(), elsewhere.clone()];
    let map = target.map(None, None);
    assert_eq!(server.preview(&links, &map).await.unwrap().extension, "jpg");
    assert_eq!(pixels(&server.preview(&[large, drawn_error.clone()], &map).await.unwrap()), (600, 600));
    assert_eq!(pixels(&server.preview(&[drawn_error, elsewhere], &map).await.unwrap()), (373, 278));
}

#[tokio::test]
async fn what_cannot_be_drawn_is_an_error_with_the_words_of_geoserver() {
    let target = target("map_errors").await;
    target.drawn().await;
    let server = &target.server;
    let missing = MapRequest { layer: geo("absent"), ..target.map(None, None) };
    let error = server.map_picture(&missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    let told = error.paragraph().replace(target.workspace.as_str(), "WS");
    assert!(told.contains("cannot draw the layer WS:absent: Could not find layer WS:absent"), "{told}");
    target.execute("drop table {s}.roads").await;
    let error = server.map_picture(&target.map(None, None)).await.unwrap_err();
    assert!(error.message().contains("does not exist"), "{}", error.paragraph());
}

/// Answers every request with `answer` and keeps the connection open.
async fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/geoserver", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&answer).await;
            open.push(stream);
        }
    });
    url
}

#[tokio::test]
async fn answers_that_are_no_pictures_too_long_or_too_late_are_refused() {
    let map = MapRequest { workspace: geo("w"), layer: geo("l"), bbox: None, crs: None };
    let empty = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 0\r\n\r\n".to_vec();
    let server = client(&answering(empty).await, "admin", "geoserver", Duration::from_secs(20));
    let error = server.map_picture(&map).await.unwrap_err();
    assert!(error.message().contains("what is called image/png is none"), "{}", error.paragraph());

    let mut long =
        b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 30000000\r\n\r\n\x89PNG\r\n\x1a\n".to_vec();
    long.resize(30_000_000, 0);
    let server = client(&answering(long).await, "admin", "geoserver", Duration::from_secs(20));
    let error = server.map_picture(&map).await.unwrap_err();
    assert!(error.message().contains("longer than"), "{}", error.paragraph());

    // A layer that is slow to draw is no reason to give up the whole GeoServer, but two of them in a row are to
    // leave the other maps for later.
    let server = client(&answering(Vec::new()).await, "admin", "geoserver", Duration::from_millis(200));
    for _ in 0..2 {
        let error = server.map_picture(&map).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::GeoServer, "{}", error.paragraph());
        assert!(error.message().contains("does not draw it within 0.2 s"), "{}", error.paragraph());
    }
    for _ in 0..3 {
        let error = server.map_picture(&map).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.paragraph());
        assert!(error.message().contains("no map is asked for any more"), "{}", error.paragraph());
    }
    assert_eq!(server.requests().reads, 2);
    server.forget().await;
    server.map_picture(&map).await.unwrap_err();
    assert_eq!(server.requests().reads, 3, "the next run asks again");
}
