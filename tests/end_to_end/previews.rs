//! Previews: drawn by GeoServer, kept below `PREVIEW_PATH`, sent to the master.

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::world::sld;

/// A world whose previews lie in a directory of its own, and where the master wants them.
async fn world(geoservers: usize) -> (World, PathBuf, PathBuf) {
    let world = World::start_with(Vcs::Hg, geoservers).await;
    let (local, remote) = (world.clone.join("drawn"), world.download().join("previews"));
    fs::create_dir(&remote).unwrap();
    world.set("PREVIEW_PATH", local.to_str().unwrap());
    world.set("SLAVE_NAME", "kens-laptop");
    (world, local, remote)
}

fn with_preview(world: &World, layer: Layer, remote: &Path) -> Layer {
    layer.field("preview_path", json!(world.sshd.location(remote)))
}

/// Width and height of a PNG file.
#[track_caller]
fn size(file: &Path) -> (u32, u32) {
    let png = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

fn drawn(world: &World) -> Vec<String> {
    let asked = world.doubles.iter().flat_map(|double| double.requests());
    asked.map(|request| request.path).filter(|path| path.to_lowercase().contains("request=getmap")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_comes_with_its_layer_and_goes_with_it() {
    let (world, local, remote) = world(1).await;
    let roads = with_preview(&world, Layer::new("w", "roads"), &remote).field("bbox", json!([115, -32, 125, -31]));
    let table = with_preview(&world, Layer::new("w", "table"), &remote)
        .dump(crate::support::dumps::Dump::without_geometry)
        .field("spatial_data", json!(false))
        .field("spatial_column", json!(null));
    let linked = with_preview(&world, Layer::new("w", "linked"), &remote).field(
        "ows_resource",
        json!([
            {"protocol": "OGC:WMS", "height": 400, "link": "https://kmi.example/geoserver/w/wms?service=WMS&version=1.1.1&request=GetMap&layers=w:linked&styles=&srs=EPSG:4326&bbox=115,-32,125,-31&width=600&height=400&format=image/png"},
            {"protocol": "OGC:WFS", "link": "https://kmi.example/geoserver/wfs?request=GetFeature"},
            {"protocol": "OGC:WMS", "height": 30, "link": "https://kmi.example/geoserver/w/wms?service=WMS&version=1.1.1&request=GetMap&layers=w:linked&styles=&srs=EPSG:4326&bbox=115,-32,125,-31&width=60&height=30&format=image/png"},
        ]),
    );
    for layer in [&roads, &table, &linked] {
        world.publish(layer).await;
    }
    world.commit("layers");
    world.pull().succeeded();
    for root in [&local, &remote] {
        let dir = root.join("kens-laptop/geoserver/w");
        assert_eq!(size(&dir.join("roads.png")), (480, 48));
        assert_eq!(size(&dir.join("linked.png")), (60, 30), "the smallest link");
        assert_eq!(files_below(root).len(), 2, "none of a layer without geometry");
    }
    assert_eq!(drawn(&world).len(), 2, "{:?}", drawn(&world));

    for layer in [&roads, &linked] {
        world.remove(layer);
    }
    world.commit("remove");
    world.pull().succeeded();
    assert_eq!(files_below(&local), Vec::<PathBuf>::new(), "a removed layer's preview goes");
    assert_eq!(files_below(&remote).len(), 2, "what lies at the master is the master's");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_geoserver_draws_when_the_first_is_down() {
    let (world, local, remote) = world(2).await;
    let roads = with_preview(&world, Layer::new("w", "roads"), &remote);
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    let file = local.join("kens-laptop/geoserver/w/roads.png");
    fs::remove_file(&file).unwrap();
    // The first one has all that it needs, and is gone when the second one has it too.
    clear_requests(&world);
    world.doubles[1].stop();
    world.publish(&roads.clone().rows(20)).await;
    world.commit("roads anew");
    world.pull().failed();
    assert!(!file.exists(), "a layer that is not published everywhere has no new preview yet");
    world.doubles[1].resume();
    world.doubles[0].stop();
    world.pull().succeeded();
    assert_eq!(size(&file).0, 480);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_that_cannot_be_sent_fails_no_layer() {
    let (world, local, _) = world(1).await;
    // Nobody listens there.
    let nowhere = format!("{}@127.0.0.2:/previews", crate::support::sshd::Sshd::user());
    let roads = Layer::new("w", "roads").field("preview_path", json!(nowhere));
    let published = world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    assert!(local.join("kens-laptop/geoserver/w/roads.png").exists());
    let record = world.state(&roads.job_file());
    assert_eq!(record["state"], json!("succeeded"));
    let message = record["message"].as_str().unwrap_or_default();
    assert!(message.contains("the preview is missing") && message.contains("127.0.0.2"), "{record:#}");
    world.slave(&["status", &roads.job_file()]).says("the preview is missing");
    assert!(world.geoserver().layer("w", "roads").is_some());
    drop(published);
    // By itself it is tried again when its time has come, and not before; no job is run for it.
    let journal = rusqlite::Connection::open(world.clone.join("code/.sync_status/journal.sqlite3")).unwrap();
    let due = || -> String {
        journal.query_row("select value from marker where target = 'previews'", [], |row| row.get(0)).unwrap()
    };
    let first = due();
    world.slave(&["sync"]).succeeded();
    assert_eq!(due(), first);
    let failed_again = |due: &str, to: &str| {
        let mut value: serde_json::Value = serde_json::from_str(due).unwrap();
        value["next_try"] = json!("2020-01-01T00:00:00Z");
        value["to"] = json!(to);
        journal.execute("update marker set value = ?1 where target = 'previews'", [value.to_string()]).unwrap();
        world.slave(&["sync"]).succeeded();
    };
    failed_again(&first, &nowhere);
    assert!(due().contains("\"failures\":2"), "{}", due());
    let came = world.download().join("came");
    failed_again(&due(), &world.sshd.location(&came));
    assert!(came.join("kens-laptop/geoserver/w/roads.png").exists());
    assert!(!world.slave(&["status", &roads.job_file()]).succeeded().text().contains("preview is missing"));
    assert_eq!(world.state(&roads.job_file())["attempts"], json!(1));
    let left: i64 =
        journal.query_row("select count(*) from marker where target = 'previews'", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);

    // By hand it is tried again.
    let remote = world.download().join("previews");
    let again = with_preview(&world, Layer::new("w", "roads"), &remote);
    world.publish(&again).await;
    world.commit("roads with a place that exists");
    world.pull().succeeded();
    assert!(remote.join("kens-laptop/geoserver/w/roads.png").exists());
    assert_eq!(world.state(&roads.job_file())["message"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_directory_takes_previews_without_ssh() {
    let (world, local, remote) = world(1).await;
    world.set("SHARE_PREVIEW_DATA", "true");
    world.set("SHARE_LAYER_DATA", "true");
    // Nobody answers there: whatever asks for SSH fails.
    world.set("BORG_SSH", "/bin/false");
    let roads =
        with_preview(&world, Layer::new("w", "roads").styles(&[("builtin", &sld("roads", "#00ff00"))]), &remote);
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    assert_eq!(size(&remote.join("kens-laptop/geoserver/w/roads.png")).0, 480);
    assert_eq!(files_below(&local), Vec::<PathBuf>::new());
    assert_eq!(world.state(&roads.job_file())["message"], json!(null));
}
