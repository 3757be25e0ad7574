//! Asking an upstream WMS: what it offers, and all it may answer instead.

use std::time::Duration;

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::upstream_layers;
use secrecy::SecretString;

use super::{DATA, target};
use crate::support::upstream::{Mood, UpstreamWms};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_upstream_tells_its_layers() {
    let upstream = UpstreamWms::start(&["ns:roads & <tracks>", "Straße.1"]).await;
    let url = format!("{}?map=/a%20b.map&request=GetMap&VERSION=1.1.1&key=a+b", upstream.url());
    let layers = upstream_layers(&url, Some("bob"), None, LIMIT).await.unwrap();
    assert!(layers.has_layer("ns:roads & <tracks>") && layers.has_layer("Straße.1") && layers.names().len() == 2);
    let asked = upstream.asked();
    assert_eq!(asked[0].query, "SERVICE=WMS&REQUEST=GetCapabilities&map=/a%20b.map&VERSION=1.1.1&key=a+b");
    assert_eq!(asked[0].authorization, None);

    let error = layers.clone().require("roads & tracks").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    insta::assert_snapshot!(error.paragraph().replace(&upstream.url(), "{url}"), @r#"
    Error: {url}: the upstream WMS has no layer "roads & tracks"
      Hint: it offers "ns:roads & <tracks>"; correct the layer's native name on the master
    "#);
    assert!(layers.require("ns:roads & <tracks>").is_ok());
}

/// The documents of a real GeoServer, when that is the one under test.
#[tokio::test]
async fn a_geoserver_is_an_upstream_too() {
    let t = target("upstream").await;
    t.ready().await;
    for name in ["roads", "roads & tracks.v1 ü"] {
        t.lines(name, 0.0).await;
        t.server.publish_feature_type(&t.lines_type(name), DATA).await.unwrap();
    }
    for version in ["", "?version=1.1.1", "?service=WMS&version=1.3.0&request=GetCapabilities"] {
        let url = format!("{}/{}/ows{version}", t.url, t.workspace);
        let layers = upstream_layers(&url, None, None, LIMIT).await.unwrap();
        let names: Vec<&str> = layers.names().iter().map(String::as_str).collect();
        assert_eq!(names, ["roads", "roads & tracks.v1 ü"], "{version}");
    }
    let url = format!("{}/no_such_workspace/wms", t.url);
    let error = upstream_layers(&url, None, None, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
}

#[tokio::test]
async fn credentials_go_to_the_upstream_and_not_where_it_sends_on_to() {
    let upstream = UpstreamWms::start(&["a"]).await;
    upstream.mood(Mood::Wants("bob", "s3cret"));
    let password = SecretString::from("s3cret");
    let ask = async |user| upstream_layers(&upstream.url(), user, Some(&password), LIMIT).await;
    assert!(ask(Some("bob")).await.unwrap().has_layer("a"));
    let error = ask(Some("eve")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hint_text().unwrap().contains("correct user name and password"), "{}", error.paragraph());
    let error = ask(None).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("give the store a user name"), "{}", error.paragraph());

    // As GeoServer does, who takes those in the address only where the store has some too.
    let address = upstream.url().replace("http://", "http://bob:s3cret@");
    assert!(upstream_layers(&address, Some("eve"), Some(&password), LIMIT).await.unwrap().has_layer("a"));
    assert_eq!(upstream_layers(&address, None, None, LIMIT).await.unwrap_err().kind(), ErrorKind::Denied);

    let other = UpstreamWms::start(&["b"]).await;
    // The same machine by another name is another host.
    upstream.mood(Mood::SendsOn(other.url().replace("127.0.0.1", "localhost")));
    assert!(ask(Some("bob")).await.unwrap().has_layer("b"));
    assert_eq!(other.asked()[0].authorization, None);

    upstream.mood(Mood::SendsOn("/wms?again".into()));
    let error = ask(Some("bob")).await.unwrap_err();
    assert!(error.message().contains("more than 5 times"), "{}", error.message());
}

#[tokio::test]
async fn what_an_upstream_answers_instead_is_told_without_its_secrets() {
    let upstream = UpstreamWms::start(&["a"]).await;
    let url = upstream.url().replace("http://", "http://bob:hunter2@") + "?key=hunter2";
    let mut told = Vec::new();
    for mood in [
        Mood::Status(401),
        Mood::Status(404),
        Mood::Status(503),
        Mood::SendsOn("ftp://x".into()),
        Mood::Says(b"".into()),
        Mood::Says(b"please sign in".into()),
        Mood::Says(b"<!DOCTYPE html><html><body><br>Sign in</body></html>".into()),
        Mood::Says(b"<WFS_Capabilities/>".into()),
        Mood::Says(b"<WMS_Capabilities><Layer><Name>a</Name>".into()),
        Mood::Says(
            b"<ServiceExceptionReport><ServiceException>No such map</ServiceException></ServiceExceptionReport>".into(),
        ),
        Mood::Says(b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><WMS_Capabilities/>".into()),
    ] {
        upstream.mood(mood);
        let password = SecretString::from("hunter2");
        let error = upstream_layers(&url, Some("bob"), Some(&password), LIMIT).await.unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        told.push(format!("{:?} {}", error.kind(), error.paragraph().replace(&upstream.url(), "{url}")));
    }
    insta::assert_snapshot!(told.join("\n"), @r"
    Denied Error: {url}: the upstream WMS refuses the store's user or password (401)
      Hint: correct user name and password of the store on the master
    Missing Error: {url}: the upstream answers 404 instead of its capabilities
      Hint: check the store's address on the master in a browser
    Unreachable Error: {url}: the upstream WMS answers 503
      Hint: the upstream has a fault of its own or is overloaded; run again when it has recovered
    Missing Error: {url}: the upstream answers 302 Found without a usable address
      Hint: check the store's address on the master in a browser
    Missing Error: {url}: the upstream does not answer with the capabilities of a WMS but with nothing
      Hint: check the store's address on the master in a browser
    Missing Error: {url}: the upstream does not answer with the capabilities of a WMS but with no XML
      Hint: check the store's address on the master in a browser
    Missing Error: {url}: the upstream does not answer with the capabilities of a WMS but with a web page
      Hint: a login page or a proxy may stand before the upstream: check the store's address, user name and password on the master
    Missing Error: {url}: the upstream does not answer with the capabilities of a WMS but with a document <WFS_Capabilities>
      Hint: the address leads to another service: correct it on the master
    Missing Error: {url}: the upstream does not answer with the capabilities of a WMS but with a document that is cut off or damaged
      Hint: run again; if it persists, the upstream's operator must correct its capabilities
    Missing Error: {url}: the upstream WMS refuses to tell its capabilities: No such map
      Hint: check the store's address on the master in a browser
    Missing Error: {url}: the upstream's capabilities declare entities, which could draw in files of the server that reads them
      Hint: no WMS does that: check the store's address on the master, and who runs the upstream
    ");
}

#[tokio::test]
async fn an_upstream_that_is_down_or_hangs_is_left_in_time() {
    let upstream = UpstreamWms::start(&["a"]).await;
    upstream.mood(Mood::Hangs);
    let error = upstream_layers(&upstream.url(), None, None, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.message().contains("within 0.3 s"), "{}", error.message());
    assert_eq!(error.subject_text(), Some(&*upstream.url()));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/wms?key=hunter2", listener.local_addr().unwrap());
    drop(listener);
    let error = upstream_layers(&url, None, None, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(
        error.one_line().contains("cannot connect") && error.one_line().contains("refused"),
        "{}",
        error.one_line()
    );
    assert!(!format!("{error:?}").contains("hunter2"));

    for wrong in ["", "roads", "ftp://bob:hunter2@h/?key=hunter2", "http://"] {
        let error = upstream_layers(wrong, None, None, LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Document, "{wrong}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
