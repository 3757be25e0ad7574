//! Tile layers: their settings, their area, and their emptying.

use std::time::{Duration, Instant};

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{Change, LayerGroup, Member, TileLayer};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::{DATA, SAME, Target, geo, target};

const LIMIT: Duration = Duration::from_secs(30);

/// Grid sets are the whole server's: a test that makes and removes them does not run beside one whose tile
/// layers use them.
pub(super) async fn grid_sets_alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

pub(super) fn tiles(t: &Target, name: &str) -> TileLayer {
    TileLayer {
        workspace: t.workspace.clone(),
        name: geo(name),
        vector_formats: false,
        expire_cache: 3600,
        expire_clients: 60,
    }
}

/// A GET of the tile cache.
async fn gwc(t: &Target, path: &str) -> (u16, Value) {
    t.raw("GET", &format!("../gwc/rest/{path}"), None).await
}

async fn tile_layer(t: &Target, name: &str) -> Value {
    let (status, mut body) = gwc(t, &format!("layers/{{w}}:{name}.json")).await;
    assert_eq!(status, 200, "{name}");
    body["GeoServerLayer"].take()
}

/// A tile: the status, and whether it was a HIT or a MISS.
pub(super) async fn tile(t: &Target, name: &str, grid_set: &str, [level, col, row]: [u32; 3]) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let query = [
        ("service", "WMTS"),
        ("version", "1.0.0"),
        ("request", "GetTile"),
        ("layer", &t.qualified(name)),
        ("style", ""),
        ("tilematrixset", grid_set),
        ("tilematrix", &format!("{grid_set}:{level}")),
        ("tilecol", &col.to_string()),
        ("tilerow", &row.to_string()),
        ("format", "image/png"),
    ]
    .map(|(key, value)| format!("{key}={}", url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>()))
    .join("&");
    let answer = http.get(format!("{}/gwc/service/wmts?{query}", t.url)).send().await.unwrap();
    let result = answer.headers().get("geowebcache-cache-result").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), result.unwrap_or_default())
}

/// The capabilities of all layers. While another test removes a style on the same server they fail; so that is
/// asked again for a while.
pub(super) async fn capabilities(t: &Target) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/gwc/service/wmts?service=WMTS&version=1.0.0&request=GetCapabilities", t.url);
    let started = Instant::now();
    loop {
        let answer = http.get(&url).send().await.unwrap();
        if answer.status() == 200 || t.double.is_some() || started.elapsed() > Duration::from_secs(10) {
            return (answer.status().as_u16(), answer.text().await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn texts(list: &Value) -> Vec<&str> {
    let mut texts: Vec<&str> = list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    texts.sort_unstable();
    texts
}

async fn published(t: &Target, names: &[&str]) {
    t.ready().await;
    for name in names {
        // GeoServer cannot read a table with an apostrophe in its name.
        t.lines(&name.replace('\'', ""), 0.0).await;
        let mut wanted = t.lines_type(name);
        wanted.native_name = name.replace('\'', "");
        assert_eq!(t.server.publish_feature_type(&wanted, SAME).await.unwrap(), Change::Created);
    }
}

#[tokio::test]
async fn a_tile_layer_has_its_settings_and_is_written_only_when_they_differ() {
    let _alone = grid_sets_alone().await;
    let t = target("tile_settings").await;
    let name = "roads. night & 道's";
    published(&t, &[name]).await;
    let sets = t.server.ensure_grid_sets(false).await.unwrap();

    // GeoServer has made one of its own with the layer.
    assert_eq!(t.server.ensure_tile_layer(&tiles(&t, name)).await.unwrap(), Change::Updated);
    let shown = tile_layer(&t, "roads. night %26 道's").await;
    assert_eq!(texts(&shown["mimeFormats"]), ["image/jpeg", "image/png"]);
    let mut named: Vec<&str> =
        shown["gridSubsets"].as_array().unwrap().iter().map(|set| set["gridSetName"].as_str().unwrap()).collect();
    named.sort_unstable();
    let mut expected = [sets.geographic.as_str(), sets.web_mercator.as_str()];
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(shown["metaWidthHeight"].to_string().replace('"', ""), "[1,1]");
    assert_eq!(shown["gutter"].to_string().replace('"', ""), "100");
    assert_eq!(shown["expireCache"].to_string().replace('"', ""), "3600");
    assert_eq!(shown["expireClients"].to_string().replace('"', ""), "60");
    assert_eq!(shown["enabled"].to_string().replace('"', ""), "true");
    assert_eq!(shown["parameterFilters"], json!([{"key": "STYLES", "defaultValue": ""}]));

    // Used or not, the same again writes nothing.
    assert_eq!(capabilities(&t).await.0, 200);
    for _ in 0..2 {
        let before = t.server.requests();
        assert_eq!(t.server.ensure_tile_layer(&tiles(&t, name)).await.unwrap(), Change::Unchanged);
        assert_eq!(t.server.requests().since(before).writes, 0);
        t.server.forget().await;
    }

    let other = TileLayer { vector_formats: true, expire_cache: 0, expire_clients: 7, ..tiles(&t, name) };
    assert_eq!(t.server.ensure_tile_layer(&other).await.unwrap(), Change::Updated);
    assert_eq!(t.server.ensure_tile_layer(&other).await.unwrap(), Change::Unchanged);
    let shown = tile_layer(&t, "roads. night %26 道's").await;
    assert_eq!(
        texts(&shown["mimeFormats"]),
        [
            "application/json;type=geojson",
            "application/json;type=topojson",
            "application/json;type=utfgrid",
            "application/vnd.mapbox-vector-tile",
            "image/jpeg",
            "image/png"
        ]
    );
    assert_eq!(shown["expireClients"].to_string().replace('"', ""), "7");

    assert_eq!(t.server.remove_tile_layer(&t.workspace, &geo(name)).await.unwrap(), Change::Updated);
    assert_eq!(gwc(&t, "layers/{w}:roads. night %26 道's.json").await.0, 404);
    for _ in 0..2 {
        let before = t.server.requests();
        assert_eq!(t.server.remove_tile_layer(&t.workspace, &geo(name)).await.unwrap(), Change::Unchanged);
        t.server.truncate_tiles(&t.workspace, &geo(name)).await.unwrap();
        let stop = CancellationToken::new();
        let emptied = t.server.empty_tiles(&t.workspace, &geo(name), LIMIT, &stop).await.unwrap();
        assert_eq!(emptied, Change::Unchanged);
        assert_eq!(t.server.requests().since(before).writes, 0);
        t.server.forget().await;
    }
    assert_eq!(t.server.ensure_tile_layer(&other).await.unwrap(), Change::Created);
    assert_eq!(t.server.ensure_tile_layer(&other).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.remove_tile_layer(&t.workspace, &geo(name)).await.unwrap(), Change::Updated);
}

#[tokio::test]
async fn a_group_has_a_tile_layer_and_what_cannot_have_one_says_so() {
    let _alone = grid_sets_alone().await;
    let t = target("tile_kinds").await;
    published(&t, &["roads", "plus+plus"]).await;
    t.execute("create table {s}.plain (id serial primary key, label text)").await;
    let mut plain = t.lines_type("plain");
    plain.columns = vec![];
    t.server.publish_feature_type(&plain, SAME).await.unwrap();
    let group = LayerGroup {
        workspace: t.workspace.clone(),
        name: geo("g.1"),
        title: "Group".into(),
        abstract_text: String::new(),
        srs: "EPSG:4326".into(),
        members: vec![Member::Layer(t.workspace.clone(), geo("roads"))],
    };
    assert_eq!(t.server.publish_layer_group(&group).await.unwrap(), Change::Created);
    assert_eq!(t.server.ensure_tile_layer(&tiles(&t, "g.1")).await.unwrap(), Change::Updated);
    assert_eq!(capabilities(&t).await.0, 200);
    let before = t.server.requests();
    assert_eq!(t.server.ensure_tile_layer(&tiles(&t, "g.1")).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests().since(before).writes, 0);

    assert_eq!(t.server.ensure_tile_layer(&tiles(&t, "plain")).await.unwrap(), Change::Unchanged);
    let missing = t.server.ensure_tile_layer(&tiles(&t, "nosuch")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::GeoServer);
    assert!(missing.hint_text().unwrap().contains("published before"), "{}", missing.paragraph());

    let before = t.server.requests();
    let plus = t.server.ensure_tile_layer(&tiles(&t, "plus+plus")).await.unwrap_err();
    assert_eq!(plus.kind(), ErrorKind::Unsupported);
    assert_eq!(t.server.requests().since(before).writes, 0);
    // Its tiles can be emptied all the same.
    let stop = CancellationToken::new();
    let emptied = t.server.empty_tiles(&t.workspace, &geo("plus+plus"), LIMIT, &stop).await.unwrap();
    assert_eq!(emptied, Change::Updated);
    assert_eq!(t.server.remove_layer_group(&t.workspace, &geo("g.1")).await.unwrap(), Change::Updated);
    assert_eq!(t.server.remove_tile_layer(&t.workspace, &geo("g.1")).await.unwrap(), Change::Unchanged);
}

#[tokio::test]
async fn emptied_tiles_are_drawn_again() {
    let _alone = grid_sets_alone().await;
    let t = target("tile_empty").await;
    published(&t, &["roads"]).await;
    t.server.ensure_tile_layer(&tiles(&t, "roads")).await.unwrap();
    let sets = t.server.ensure_grid_sets(false).await.unwrap();
    let roads = geo("roads");
    // 115 to 116.x, -32 to -31, at two tiles around the world.
    let cached = async || tile(&t, "roads", &sets.geographic, [0, 1, 0]).await;
    assert_eq!(cached().await, (200, "MISS".into()));
    assert_eq!(cached().await, (200, "HIT".into()));
    t.server.truncate_tiles(&t.workspace, &roads).await.unwrap();
    assert_eq!(cached().await, (200, "MISS".into()));
    assert_eq!(cached().await, (200, "HIT".into()));
    let stop = CancellationToken::new();
    assert_eq!(t.server.empty_tiles(&t.workspace, &roads, LIMIT, &stop).await.unwrap(), Change::Updated);
    assert_eq!(cached().await, (200, "MISS".into()));
}

#[tokio::test]
async fn the_area_of_tiles_follows_the_data() {
    let _alone = grid_sets_alone().await;
    let t = target("tile_area").await;
    t.server.ensure_grid_sets(true).await.unwrap();
    published(&t, &["roads"]).await;
    t.server.ensure_tile_layer(&tiles(&t, "roads")).await.unwrap();
    let mut group = LayerGroup {
        workspace: t.workspace.clone(),
        name: geo("group"),
        title: "Group".into(),
        abstract_text: String::new(),
        srs: "EPSG:4283".into(),
        members: vec![Member::Layer(t.workspace.clone(), geo("roads"))],
    };
    t.server.publish_layer_group(&group).await.unwrap();
    t.server.ensure_tile_layer(&tiles(&t, "group")).await.unwrap();
    // 135 to 146.25, -22.5 to -33.75.
    let far = async |name: &str| tile(&t, name, "gda94", [4, 28, 10]).await.0;
    assert_eq!((far("roads").await, far("group").await), (400, 400));
    t.execute("update {s}.roads set geom = st_setsrid(st_makeline(st_point(115, -32), st_point(137, -31)), 4326)")
        .await;
    assert_eq!(t.server.publish_feature_type(&t.lines_type("roads"), DATA).await.unwrap(), Change::Updated);
    group.title = "Wider".into();
    assert_eq!(t.server.publish_layer_group(&group).await.unwrap(), Change::Updated);
    for name in ["roads", "group"] {
        assert_eq!(t.server.ensure_tile_layer(&tiles(&t, name)).await.unwrap(), Change::Updated);
        assert_eq!(far(name).await, 200);
    }
    let before = t.server.requests();
    for name in ["roads", "group"] {
        assert_eq!(t.server.ensure_tile_layer(&tiles(&t, name)).await.unwrap(), Change::Unchanged);
    }
    assert_eq!(t.server.requests().since(before).writes, 0);
    super::grid_sets::remove(&t).await;
}

#[tokio::test]
async fn emptying_waits_for_the_truncations_of_the_layer() {
    let _alone = grid_sets_alone().await;
    let t = target("tile_wait").await;
    published(&t, &["roads"]).await;
    // How long a truncation takes cannot be told a real GeoServer.
    let Some(double) = &t.double else { return };
    let roads = geo("roads");
    let stop = CancellationToken::new();
    let empty = async |limit: Duration| t.server.empty_tiles(&t.workspace, &roads, limit, &stop).await;
    let looks = || double.requests().iter().filter(|request| request.path.contains("/seed/")).count();

    double.slow_truncations(3, 2);
    assert_eq!(empty(LIMIT).await.unwrap(), Change::Updated);
    assert_eq!(looks(), 5, "once before, three times while it runs, once when it is done");

    double.slow_truncations(1, -1);
    let error = empty(LIMIT).await.unwrap_err();
    assert!(error.message().contains("given up"), "{}", error.paragraph());
    // How that one ended was reported, and is no business of the next.
    double.slow_truncations(0, -1);
    t.server.truncate_tiles(&t.workspace, &roads).await.unwrap();
    double.slow_truncations(0, 2);
    assert_eq!(empty(LIMIT).await.unwrap(), Change::Updated);

    double.slow_truncations(100_000, 2);
    let error = empty(Duration::from_millis(400)).await.unwrap_err();
    assert!(error.message().contains("still being removed after 0.4 s"), "{}", error.paragraph());

    let started = Instant::now();
    let (outcome, ()) = tokio::join!(empty(LIMIT), async {
        // Others write meanwhile.
        t.server.ensure_tile_layer(&tiles(&t, "roads")).await.unwrap();
        stop.cancel();
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Stopped);
    assert!(started.elapsed() < LIMIT);
}

#[tokio::test]
async fn a_cascaded_layer_is_cached_and_grouped_like_any_other() {
    let _alone = grid_sets_alone().await;
    let t = target("tile_cascade").await;
    published(&t, &["roads"]).await;
    // The server is its own source.
    let source = format!("{}/{}/wms?service=WMS&version=1.3.0&request=GetCapabilities", t.url, t.workspace);
    let store = json!({"wmsStore": {"name": "self", "type": "WMS", "capabilitiesURL": source}});
    assert_eq!(t.raw("POST", "workspaces/{w}/wmsstores.json", Some(store)).await.0, 201);
    let layer = json!({"wmsLayer": {"name": "far.away", "nativeName": "roads"}});
    assert_eq!(t.raw("POST", "workspaces/{w}/wmsstores/self/wmslayers.json", Some(layer)).await.0, 201);

    assert_eq!(t.server.ensure_tile_layer(&tiles(&t, "far.away")).await.unwrap(), Change::Updated);
    assert_eq!(capabilities(&t).await.0, 200);
    let before = t.server.requests();
    assert_eq!(t.server.ensure_tile_layer(&tiles(&t, "far.away")).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests().since(before).writes, 0);
    let stop = CancellationToken::new();
    let emptied = t.server.empty_tiles(&t.workspace, &geo("far.away"), LIMIT, &stop).await.unwrap();
    assert_eq!(emptied, Change::Updated);

    let member = Member::Layer(t.workspace.clone(), geo("far.away"));
    let group = LayerGroup {
        workspace: t.workspace.clone(),
        name: geo("group"),
        title: "Group".into(),
        abstract_text: String::new(),
        srs: "EPSG:4326".into(),
        members: vec![member.clone()],
    };
    assert_eq!(t.server.existing_members(&[member]).await.unwrap(), [true]);
    assert_eq!(t.server.publish_layer_group(&group).await.unwrap(), Change::Created);
    assert_eq!(t.server.publish_layer_group(&group).await.unwrap(), Change::Unchanged);
    let (_, shown) = t.raw("GET", "workspaces/{w}/layergroups/group.json", None).await;
    let bounds = super::numbers(&shown["layerGroup"]["bounds"]);
    assert!((bounds[0] - 115.0).abs() < 0.01 && (bounds[3] + 31.0).abs() < 0.01, "{bounds:?}");
}
