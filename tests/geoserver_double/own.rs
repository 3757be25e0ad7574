//! What the recordings cannot show: the double's own switches, and the differences of containers and versions.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};

use super::server::Scratch;
use crate::support::geoserver::{BoxView, Flavour, GeoServerDouble, LayerView, Options, Pace, Version};

fn client() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client")
}

async fn send(double: &GeoServerDouble, method: &str, path: &str, body: &str) -> Result<(u16, String), reqwest::Error> {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let answer = client()
        .request(method, format!("{}{path}", double.url()))
        .basic_auth("admin", Some("geoserver"))
        .header("Content-Type", "application/xml")
        .body(body.to_owned())
        .send()
        .await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

const WORKSPACE: &str = "<workspace><name>w</name></workspace>";

#[tokio::test]
async fn a_stopped_server_refuses_connections_and_keeps_its_catalog() {
    let double = GeoServerDouble::start();
    assert_eq!(send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap().0, 201);
    double.stop();
    assert!(send(&double, "GET", "/rest/workspaces.json", "").await.unwrap_err().is_connect());
    double.resume();
    assert_eq!(send(&double, "GET", "/rest/workspaces/w.json", "").await.unwrap().0, 200);
    assert_eq!(double.workspaces(), ["w"]);
    assert_eq!(double.writes(), 1);
}

#[tokio::test]
async fn a_hanging_server_answers_only_when_it_is_let_go() {
    let double = GeoServerDouble::start();
    double.hang(true);
    let impatient = Client::builder().no_proxy().timeout(Duration::from_millis(200)).build().unwrap();
    let url = format!("{}/rest/about/version.json", double.url());
    assert!(impatient.get(&url).send().await.unwrap_err().is_timeout());
    let waiting = tokio::spawn(client().get(&url).basic_auth("admin", Some("geoserver")).send());
    double.hang(false);
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn failures_are_served_as_often_as_ordered_and_do_nothing() {
    let double = GeoServerDouble::start();
    double.fail_next(2, 503);
    for _ in 0..2 {
        assert_eq!(send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap().0, 503);
    }
    assert!(double.workspaces().is_empty());
    assert_eq!(send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap().0, 201);
    let statuses: Vec<u16> = double.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [503, 503, 201]);
    double.clear_requests();
    assert_eq!(double.writes(), 0);
}

#[tokio::test]
async fn a_changed_password_locks_out_who_uses_the_old_one() {
    let double = GeoServerDouble::start();
    double.set_password("other");
    assert_eq!(send(&double, "GET", "/rest/workspaces.json", "").await.unwrap().0, 401);
}

#[tokio::test]
async fn a_user_without_the_administrators_role_is_forbidden_rest() {
    let double = GeoServerDouble::start();
    double.add_user("reader", "r", &["ROLE_X"]);
    let url = format!("{}/rest/workspaces.json", double.url());
    let answer = client().get(url).basic_auth("reader", Some("r")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn writes_take_as_long_as_set_one_after_the_other() {
    let double = GeoServerDouble::start();
    double.delay(Duration::from_millis(60));
    let begin = Instant::now();
    let (a, b) = tokio::join!(
        send(&double, "POST", "/rest/workspaces", "<workspace><name>a</name></workspace>"),
        send(&double, "POST", "/rest/workspaces", "<workspace><name>b</name></workspace>"),
    );
    assert_eq!((a.unwrap().0, b.unwrap().0), (201, 201));
    assert!(begin.elapsed() >= Duration::from_millis(120), "the lock was not held");
    double.pace(Pace::REAL);
    let begin = Instant::now();
    assert_eq!(send(&double, "GET", "/rest/workspaces/a.json", "").await.unwrap().0, 200);
    assert!(begin.elapsed() >= Pace::REAL.read);
}

/// A database that takes the connection and says nothing costs five seconds, under the lock.
#[tokio::test]
async fn a_silent_database_is_given_up_after_five_seconds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let double = GeoServerDouble::start();
    assert_eq!(send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap().0, 201);
    let store = format!(
        "<dataStore><name>s</name><connectionParameters><host>127.0.0.1</host><port>{port}</port><database>d</database>\
         <user>u</user><passwd>plain:p</passwd><dbtype>postgis</dbtype></connectionParameters></dataStore>"
    );
    assert_eq!(send(&double, "POST", "/rest/workspaces/w/datastores", &store).await.unwrap().0, 201);
    assert_eq!(double.store_param("w", "s", "passwd").as_deref(), Some("p"));
    let begin = Instant::now();
    let types = "/rest/workspaces/w/datastores/s/featuretypes";
    let answer = send(&double, "GET", &format!("{types}.json?list=available"), "").await.unwrap();
    assert_eq!(answer, (404, "Could not load datastore: s".to_owned()));
    assert!(begin.elapsed() >= Duration::from_secs(5));
    let answer = send(&double, "POST", types, "<featureType><name>t</name></featureType>").await.unwrap();
    assert_eq!(answer, (500, String::new()));
}

/// The forms of Tomcat, from the recordings of the same application in it.
#[tokio::test]
async fn tomcat_gives_its_page_for_every_method() {
    let double = GeoServerDouble::start_with(Options { flavour: Flavour::Tomcat, version: Version::V2_26 });
    assert_eq!(send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap().0, 201);
    let (status, body) = send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap();
    assert_eq!(status, 409);
    assert_eq!(
        body,
        "<!doctype html><html lang=\"en\"><head><title>HTTP Status 409 – Conflict</title></head><body><h1>HTTP Status 409 \
         – Conflict</h1><hr class=\"line\" /><p><b>Type</b> Status Report</p><p><b>Message</b> Workspace &#39;w&#39; \
         already exists</p><p><b>Description</b> The request could not be completed due to a conflict with the current \
         state of the target resource.</p><hr class=\"line\" /><h3>Apache Tomcat/9.0.70 (Debian)</h3></body></html>"
    );
    let (status, body) = send(&double, "PUT", "/rest/workspaces/nosuch", WORKSPACE).await.unwrap();
    assert_eq!(status, 404);
    assert!(body.contains("<p><b>Message</b> Can&#39;t change a non existant workspace (nosuch)</p>"), "{body}");
    let (status, _) = send(&double, "GET", "/rest/workspaces/a%2Fb.json", "").await.unwrap();
    assert_eq!(status, 400);
}

/// What 2.18.2 does otherwise.
#[tokio::test]
async fn the_older_version_differs_where_it_was_seen_to() {
    let double = GeoServerDouble::start_with(Options { flavour: Flavour::Jetty, version: Version::V2_18 });
    let (_, body) = send(&double, "GET", "/rest/about/version.json", "").await.unwrap();
    assert!(body.contains("\"Version\":\"2.18.2\""), "{body}");
    assert_eq!(send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap().0, 201);
    assert_eq!(send(&double, "POST", "/rest/workspaces", WORKSPACE).await.unwrap().0, 401);
    let (_, body) = send(&double, "GET", "/rest/workspaces/w.json", "").await.unwrap();
    assert!(body.contains("http:\\/\\/"), "{body}");
    assert_eq!(send(&double, "HEAD", "/rest/workspaces/w.json", "").await.unwrap().0, 200);
    assert_eq!(send(&double, "HEAD", "/rest/workspaces/x.json", "").await.unwrap().0, 404);
    let store = "<dataStore><name>s</name><connectionParameters/></dataStore>";
    assert_eq!(send(&double, "POST", "/rest/workspaces/w/datastores", store).await.unwrap().0, 201);
    assert_eq!(send(&double, "PUT", "/rest/workspaces/w/datastores/s/reset", "").await.unwrap().0, 404);
}

/// What tests ask of the catalog, after publishing from a real database.
#[tokio::test]
async fn the_catalog_can_be_looked_at() {
    let scratch = Scratch::start().await;
    let _session = scratch.database("looked_at").await;
    let double = GeoServerDouble::start();
    let post = async |path: &str, body: &str| {
        let (status, text) = send(&double, "POST", path, body).await.unwrap();
        assert_eq!(status, 201, "{path}: {text}");
    };
    post("/rest/workspaces", WORKSPACE).await;
    let store = format!(
        "<dataStore><name>s</name><connectionParameters><host>127.0.0.1</host><port>{}</port>\
         <database>looked_at</database><schema>publish</schema><user>postgres</user><passwd>p</passwd>\
         <dbtype>postgis</dbtype></connectionParameters></dataStore>",
        scratch.port
    );
    post("/rest/workspaces/w/datastores", &store).await;
    post("/rest/workspaces/w/wmsstores", "<wmsStore><name>far</name></wmsStore>").await;
    let sql = "select id, geom from publish_data.sites where id = 1";
    post(
        "/rest/workspaces/w/datastores/s/featuretypes",
        &format!(
            "<featureType><name>one</name><title>T</title><abstract>A</abstract><keywords><string>k</string></keywords>\
             <metadata><entry key=\"JDBC_VIRTUAL_TABLE\"><virtualTable><name>one</name><sql>{sql}</sql><geometry>\
             <name>geom</name><type>Point</type><srid>4326</srid></geometry></virtualTable></entry></metadata></featureType>"
        ),
    )
    .await;
    let group = "<layerGroup><name>g</name><publishables><published type=\"layer\"><name>w:one</name></published>\
                 </publishables></layerGroup>";
    post("/rest/workspaces/w/layergroups", group).await;
    let sld =
        "<StyledLayerDescriptor version=\"1.0.0\"><NamedLayer><Name>a</Name></NamedLayer></StyledLayerDescriptor>";
    let styles = format!("{}/rest/workspaces/w/styles?name=red&raw=true", double.url());
    let answer = client()
        .post(styles)
        .basic_auth("admin", Some("geoserver"))
        .header("Content-Type", "application/vnd.ogc.sld+xml")
        .body(sld);
    assert_eq!(answer.send().await.unwrap().status(), StatusCode::CREATED);
    let layer = "<layer><defaultStyle><name>w:red</name></defaultStyle></layer>";
    assert_eq!(send(&double, "PUT", "/rest/layers/w:one.xml", layer).await.unwrap().0, 200);

    let place = BoxView { minx: 115.1, miny: -32.05, maxx: 115.1, maxy: -32.05 };
    assert_eq!(
        double.layer("w", "one").unwrap(),
        LayerView {
            title: "T".to_owned(),
            abstract_text: "A".to_owned(),
            keywords: vec!["k".to_owned()],
            srs: "EPSG:4326".to_owned(),
            default_style: Some("w:red".to_owned()),
            styles: vec![],
            store: "s".to_owned(),
            native_name: "one".to_owned(),
            native_box: Some(place),
            latlon_box: Some(place),
            sql: Some(sql.to_owned()),
            enabled: true,
        }
    );
    assert_eq!(double.layers("w"), ["one"]);
    assert_eq!(double.stores("w"), ["s"]);
    assert_eq!(double.wms_stores("w"), ["far"]);
    assert_eq!(double.styles("w"), ["red"]);
    assert_eq!(double.style_body("w", "red").as_deref(), Some(sld));
    assert_eq!(double.group("w", "g").unwrap(), ["w:one"]);
    assert_eq!(double.rules().get("*.*.r").map(String::as_str), Some("*"));
    assert!(double.tile_layer("w:one").unwrap().contains("<gridSetName>EPSG:4326</gridSetName>"));

    let listed = async |path: &str| send(&double, "GET", path, "").await.unwrap().1;
    let here = "/w/wms?service=WMS&version=1.3.0&request=GetCapabilities";
    assert!(listed(here).await.contains("<Name>one</Name>"));
    assert!(listed("/wms?service=WMS&version=1.1.1&request=GetCapabilities").await.contains("<Name>w:one</Name>"));
    assert!(listed("/wfs?service=WFS&version=2.0.0&request=GetCapabilities").await.contains("<Name>w:one</Name>"));
    let map = "/w/wms?service=WMS&version=1.1.1&request=GetMap&layers=one&styles=&bbox=114,-35,119,-31&width=300&height=300\
               &srs=EPSG:4326&format=image/png";
    let picture = client().get(format!("{}{map}", double.url())).send().await.unwrap();
    assert_eq!(picture.headers()["content-type"], "image/png");
    let picture = picture.bytes().await.unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.ends_with(b"IEND\xae\x42\x60\x82"));
    let layer = "<layer><defaultStyle><name>nosuch</name></defaultStyle></layer>";
    assert_eq!(send(&double, "PUT", "/rest/layers/w:one.xml", layer).await.unwrap().0, 200);
    let capabilities = listed(here).await;
    assert!(!capabilities.contains("<Name>one</Name>") && capabilities.ends_with("</WMS_Capabilities>\n"));
    assert_eq!(double.layer("w", "one").unwrap().default_style, None);
}
