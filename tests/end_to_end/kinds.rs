//! Every kind of job and every action, through the hook.

use std::collections::BTreeMap;

use borg_slave::state_repo::Vcs;
use serde_json::json;

use super::{clear_requests, no_requests};
use crate::support::real_geoserver::rules_alone;
use crate::support::world::{Layer, World};

/// Settings of a tile layer.
fn tiles() -> serde_json::Value {
    json!({"create_cache_layer": true, "server_cache_expire": 3600, "client_cache_expire": 60})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_job_comes_changes_and_goes() {
    let world = World::any(Vcs::Hg).await;
    let _alone = rules_alone().await;
    let (w, up) = (world.workspace("kinds"), world.workspace("upstream"));
    world.set("GEOSERVER_CREATE_GRIDSETS", "false");

    // What is cascaded and what is read live must be there before.
    let source = Layer::new(&up, "photo");
    world.publish(&source).await;
    world.commit("the upstream's own layer");
    world.pull().succeeded();

    let pictures = world.sshd.location(world.download().join("pictures"));
    let roads = Layer::new(&w, "roads").field("geoserver_setting", tiles()).field("preview_path", json!(pictures));
    let plain = Layer::new(&w, "plain");
    world.publish(&roads).await;
    world.publish(&plain).await;
    world.publish_meta(&plain.clone().title("Described anew"));
    let wms_store = world.publish_wms_store(&w, "cascade");
    let native = format!("{up}:photo");
    let wms_layer = world.publish_wms_layer(&w, "cascade", "photo", &native, &json!({"geoserver_setting": tiles()}));
    let live_store = world.publish_live_store(&w, "live", &up);
    let live_layer = world.publish_live_layer(&w, "live", "live_photo", &json!({"table": "photo"}));
    let inner = world.publish_group(&w, "inner", &[("publish", "roads"), ("wms_layer", "photo")], &json!({}));
    let outer = world.publish_group(
        &w,
        "outer",
        &[("publish", "live_photo"), ("group", "inner"), ("publish", "plain")],
        &json!({"geoserver_setting": tiles()}),
    );
    world.publish_workspace(&w, 1);
    world.master.write(
        "slave_roles.sql",
        "do $$ begin create role kinds_reader; exception when duplicate_object then null; end $$;\n",
    );
    let rest = world.rest();
    let before = rest.rules().await;
    let mut rules = before.clone();
    rules.insert(format!("{w}.roads.r"), "ROLE_ONE,ROLE_TWO".into());
    world.master.write("geoserver/layers.properties", properties(&rules));
    world.commit("every kind");
    world.pull().succeeded();

    assert_eq!(rest.layers(&w).await, ["live_photo", "photo", "plain", "roads"]);
    assert_eq!(rest.stores(&w).await, [format!("{w}_ds"), "live".to_owned()]);
    assert_eq!(rest.wms_stores(&w).await, ["cascade"]);
    assert_eq!(rest.wms_layer(&w, "photo").await, Some((format!("{w}:cascade"), native.clone())));
    let members = |names: &[&str]| Some(names.iter().map(|name| format!("{w}:{name}")).collect::<Vec<_>>());
    assert_eq!(rest.group(&w, "inner").await, members(&["roads", "photo"]));
    assert_eq!(rest.group(&w, "outer").await, members(&["live_photo", "inner", "plain"]));
    assert_eq!(rest.rules().await, rules);
    let (formats, grids) = rest.tile_layer(&w, "roads").await.unwrap();
    assert!(formats.contains(&"application/vnd.mapbox-vector-tile".to_owned()), "{formats:?}");
    assert_eq!(grids, ["EPSG:4326", "EPSG:900913"]);
    assert_eq!(rest.tile_layer(&w, "photo").await.unwrap().0, ["image/jpeg", "image/png"]);
    assert!(rest.tile_layer(&w, "outer").await.is_some());
    for without in ["plain", "live_photo", "inner"] {
        assert_eq!(rest.tile_layer(&w, without).await, None, "{without}");
    }
    for job in [&wms_store, &wms_layer, &live_store, &live_layer, &inner, &outer] {
        assert_eq!(world.state(job)["state"], json!("succeeded"), "{job}");
    }
    clear_requests(&world);
    world.pull().succeeded();
    world.slave(&["sync"]).succeeded();
    no_requests(&world);

    // The same again, by hand: only reads.
    if !world.doubles.is_empty() {
        world.geoserver().clear_requests();
        let files = [&wms_store, &wms_layer, &live_store, &live_layer, &inner, &outer];
        let mut arguments = vec!["sync"];
        for file in files {
            arguments.extend(["--file", file.as_str()]);
        }
        let more =
            ["layers.properties", "workspaces/kinds.json", "layers/kinds.roads.json", "layers/kinds.plain.meta.json"]
                .map(|file| format!("geoserver/{file}"));
        for file in more.iter().map(String::as_str).chain(["slave_roles.sql"]) {
            arguments.extend(["--file", file]);
        }
        world.slave(&arguments).succeeded().says("11 ");
        let requests = world.geoserver().requests();
        let writes: Vec<_> = requests.iter().filter(|request| request.method != "GET").collect();
        assert!(writes.is_empty(), "{writes:?}");
        assert!(requests.iter().any(|request| request.path.contains("/wms")), "the preview is drawn again");
    }

    // Tiles are emptied on demand.
    world.master.write(
        format!("geoserver/layers/{w}.roads.empty_gwc.json"),
        json!({"action": "empty_gwc", "workspace": w, "name": "roads"}).to_string(),
    );
    world.master.write(
        format!("geoserver/layergroups/{w}.inner.empty_gwc.json"),
        json!({"action": "empty_gwc", "workspace": w, "name": "inner"}).to_string(),
    );
    // Other members, another number of them, and a layer that moves to another store.
    world.publish_wms_store(&w, "cascade_2");
    world.publish_wms_layer(&w, "cascade_2", "photo", &native, &json!({"title": "Moved"}));
    world.publish_group(&w, "outer", &[("publish", "plain")], &json!({}));
    world.commit("change");
    world.pull().succeeded();
    assert_eq!(rest.wms_layer(&w, "photo").await.unwrap().0, format!("{w}:cascade_2"));
    assert_eq!(rest.group(&w, "outer").await, members(&["plain"]));
    assert_eq!(rest.tile_layer(&w, "outer").await, None, "no longer wanted");
    assert_eq!(rest.tile_layer(&w, "photo").await, None, "no longer wanted");

    // Everything goes, in whatever order it is committed.
    for file in [&wms_store, &wms_layer, &live_store, &live_layer, &inner, &outer] {
        world.master.remove(file);
    }
    world.master.remove(format!("geoserver/wms_stores/{w}.cascade_2.json"));
    world.remove(&roads);
    world.remove(&plain);
    world.commit("remove all");
    world.pull().succeeded();
    assert_eq!((rest.layers(&w).await, rest.wms_stores(&w).await), (vec![], vec![]));
    assert_eq!(rest.stores(&w).await, [format!("{w}_ds")]);
    assert_eq!((rest.group(&w, "inner").await, rest.group(&w, "outer").await), (None, None));

    world.master.write("geoserver/layers.properties", properties(&before));
    world.commit("rules as they were");
    world.pull().succeeded();
    assert_eq!(rest.rules().await, before);
    rest.drop_workspace(&w).await;
    rest.drop_workspace(&up).await;
}

fn properties(rules: &BTreeMap<String, String>) -> String {
    let lines = rules.iter().map(|(rule, roles)| format!("{rule}={roles}\n"));
    std::iter::once("mode=HIDE\n".to_owned()).chain(lines).collect()
}
