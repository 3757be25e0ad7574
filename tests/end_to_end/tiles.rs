//! What GeoServer keeps of a layer as tiles, and when it is thrown away.

use borg_slave::state_repo::Vcs;
use reqwest::Client;

use super::*;
use crate::support::world::sld;

fn setting(expire: u32) -> Value {
    json!({"create_cache_layer": true, "server_cache_expire": expire, "client_cache_expire": 60})
}

/// `HIT` or `MISS` of one tile over Australia.
async fn tile(world: &World, layer: &str, format: &str) -> String {
    let url = format!("{}/gwc/service/wms", world.geoserver_url());
    let query = [
        ("service", "WMS"),
        ("version", "1.1.1"),
        ("request", "GetMap"),
        ("layers", layer),
        ("styles", ""),
        ("format", format),
        ("srs", "EPSG:4326"),
        ("bbox", "90,-90,180,0"),
        ("width", "256"),
        ("height", "256"),
    ];
    let http = Client::builder().no_proxy().build().unwrap();
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let answer = http.get(format!("{url}?{query}")).basic_auth("admin", Some("geoserver")).send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.unwrap_or_default();
    let header = headers.get("geowebcache-cache-result");
    header.unwrap_or_else(|| panic!("{layer}: {status}: {text}")).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_are_emptied_when_they_are_old_and_not_otherwise() {
    let world = World::any(Vcs::Hg).await;
    let w = world.workspace("tiles");
    let rest = world.rest();
    world.set("GEOSERVER_CREATE_GRIDSETS", "false");
    let mut roads = Layer::new(&w, "roads").style("night", "#000080").field("geoserver_setting", setting(3600));
    let label = format!("{w}:roads");
    let first = world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    let fill = async || {
        tile(&world, &label, "image/png").await;
        assert_eq!(tile(&world, &label, "image/png").await, "HIT");
    };
    fill().await;

    // Another title, other expiries, and the same dump again.
    roads = roads.title("Roads anew").field("geoserver_setting", setting(7200));
    world.publish_meta(&roads);
    world.commit("meta");
    world.pull().succeeded();
    assert_eq!(rest.layer(&w, "roads").await.unwrap().title, "Roads anew");
    assert_eq!(tile(&world, &label, "image/png").await, "HIT", "only the metadata has changed");
    let again = world.publish(&roads).await;
    fs::copy(&first.dump, &again.dump).unwrap();
    refer_again(&world, &roads, &again.dump);
    world.commit("the same data");
    world.pull().succeeded();
    assert_eq!(tile(&world, &label, "image/png").await, "HIT", "the same data");

    // Other data; another style.
    clear_requests(&world);
    roads = roads.rows(20);
    world.publish(&roads).await;
    world.commit("other data");
    world.pull().succeeded();
    assert_eq!(tile(&world, &label, "image/png").await, "MISS", "other data");
    if let Some(double) = world.doubles.first() {
        let truncations = double.requests().iter().filter(|request| request.path.contains("masstruncate")).count();
        assert_eq!(truncations, 1);
    }
    fill().await;
    roads = roads.styles(&[("builtin", &sld("roads", "#ff0000")), ("night", &sld("night", "#000080"))]);
    world.publish_meta(&roads);
    world.commit("another style");
    world.pull().succeeded();
    assert_eq!(tile(&world, &label, "image/png").await, "MISS", "another style");

    // On demand, once.
    fill().await;
    let file = format!("geoserver/layers/{w}.roads.empty_gwc.json");
    let document = json!({"job_id": 4711, "action": "empty_gwc", "workspace": w, "name": "roads"});
    world.master.write(&file, document.to_string());
    world.commit("empty tiles");
    world.pull().succeeded();
    assert_eq!(world.state(&file)["state"], json!("succeeded"));
    assert_eq!(tile(&world, &label, "image/png").await, "MISS", "on demand");
    fill().await;
    world.slave(&["sync"]).succeeded();
    world.master.write("unrelated", "text").commit("unrelated");
    world.pull().succeeded();
    assert_eq!(tile(&world, &label, "image/png").await, "HIT", "on demand, once");

    // Formats follow the service, and there are none when none are wanted.
    world.publish_meta(&roads.clone().field("service_type", json!("WMS")));
    world.commit("no features");
    world.pull().succeeded();
    assert_eq!(rest.tile_layer(&w, "roads").await.unwrap().0, ["image/jpeg", "image/png"]);
    world.publish_meta(&roads.clone().field("geoserver_setting", json!({"create_cache_layer": false})));
    world.commit("no tiles");
    world.pull().succeeded();
    assert_eq!(rest.tile_layer(&w, "roads").await, None);
    world.publish_meta(&roads);
    world.commit("tiles again");
    world.pull().succeeded();
    assert_eq!(rest.tile_layer(&w, "roads").await.unwrap().0.len(), 6);
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_means_that_it_is_done_and_expiry_and_grids_are_as_told() {
    let world = World::start(Vcs::Hg).await;
    world.set("GEOSERVER_CREATE_GRIDSETS", "true");
    let roads = Layer::new("w", "roads").field("geoserver_setting", setting(3600));
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    let (_, grids) = world.rest().tile_layer("w", "roads").await.unwrap();
    assert_eq!(grids, ["gda94", "mercator"]);
    let document = world.geoserver().tile_layer("w:roads").unwrap();
    assert!(document.contains("<expireCache>3600</expireCache>"), "{document}");
    assert!(document.contains("<expireClients>60</expireClients>"), "{document}");

    let file = "geoserver/layers/w.roads.empty_gwc.json";
    world.geoserver().slow_truncations(3, 2);
    clear_requests(&world);
    let document =
        |job: i64| json!({"job_id": job, "action": "empty_gwc", "workspace": "w", "name": "roads"}).to_string();
    world.master.write(file, document(1)).commit("empty tiles");
    world.pull().succeeded();
    let asked = world.geoserver().requests();
    assert!(asked.iter().filter(|request| request.path.contains("/seed/")).count() >= 3, "{asked:?}");
    // One that is aborted is no success, and is done again.
    world.geoserver().slow_truncations(1, -1);
    world.master.write(file, document(2)).commit("empty tiles again");
    world.pull().failed().says(file);
    world.geoserver().slow_truncations(1, 2);
    world.pull().succeeded();
    assert_eq!(world.state(file)["state"], json!("succeeded"));
    // A layer without tiles is none that could not be emptied.
    world.master.write(
        "geoserver/layers/w.other.empty_gwc.json",
        json!({"action": "empty_gwc", "workspace": "w", "name": "other"}).to_string(),
    );
    world.commit("nothing to empty");
    world.pull().succeeded();
    // Metadata that are gone are not needed for it, and a filter is not asked for what it cannot know.
    world.set("FEATURE_FILTER", "job.auth_level < 2");
    world.publish(&Layer::new("w", "secret").auth_level(2)).await;
    world.commit("a layer that is not taken");
    world.pull().succeeded();
    let gone = json!({"file": world.sshd.location(world.download().join("gone.json")), "md5": "0123"});
    for name in ["roads", "secret"] {
        let document = json!({"action": "empty_gwc", "meta": gone});
        world.master.write(format!("geoserver/layers/w.{name}.empty_gwc.json"), document.to_string());
    }
    world.commit("empty tiles of both");
    world.pull().succeeded();
    world.slave(&["status", file]).says("the metadata file is gone; the names that the job file gives are enough");
    assert_eq!(world.state(file)["state"], json!("succeeded"));
    let refused = world.state("geoserver/layers/w.secret.empty_gwc.json");
    assert_eq!(refused["state"], json!("filtered"), "{refused:#}");
    world.slave(&["filter", file]).says("as layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_of_its_own_a_slave_empties_tiles_of_newer_data() {
    // Another slave fills the database that both use.
    let (world, label) = (World::start(Vcs::Hg).await, "w:roads");
    let roads = Layer::new("w", "roads").field("geoserver_setting", setting(3600));
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    world.set("SKIP_DB", "true");
    for rows in [20, 30] {
        tile(&world, label, "image/png").await;
        assert_eq!(tile(&world, label, "image/png").await, "HIT");
        world.publish(&roads.clone().rows(rows)).await;
        world.commit("roads anew");
        world.pull().succeeded();
        assert_eq!(tile(&world, label, "image/png").await, "MISS", "{rows} rows");
    }
}
