//! What is fetched for jobs of any kind goes when they are done; what is the master's own stays. What was published
//! under other settings goes too.

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::world::sld;

#[tokio::test(flavor = "multi_thread")]
async fn fetched_files_of_all_kinds_go_and_shared_ones_stay() {
    let world = World::start(Vcs::Hg).await;
    let source = Layer::new("up", "photo");
    world.publish(&source).await;
    world.commit("what is cascaded");
    world.pull().succeeded();
    for (workspace, shared) in [("fetched", false), ("shared", true)] {
        world.set("SHARE_LAYER_DATA", if shared { "true" } else { "false" });
        if shared {
            // Nobody answers there: whatever asks for SSH fails.
            world.set("BORG_SSH", "/bin/false");
        }
        let style = world.download().join(format!("{workspace}.live.sld"));
        fs::write(&style, sld("live", "#123456")).unwrap();
        let styles = json!({"styles": {"builtin": world.reference(&style)}, "table": "photo"});
        let roads = Layer::new(workspace, "roads").style("night", "#000080");
        world.publish(&roads).await;
        let files = [
            world.publish_wms_store(workspace, "cascade"),
            world.publish_wms_layer(workspace, "cascade", "photo", "up:photo", &json!({})),
            world.publish_live_store(workspace, "live", "up"),
            world.publish_live_layer(workspace, "live", "live_photo", &styles),
        ];
        let masters = files_below(world.download());
        world.commit("publish");
        world.pull().succeeded();
        assert_eq!(files_below(&cache(&world)), Vec::<PathBuf>::new(), "{workspace}");
        for file in &files {
            world.master.remove(file);
        }
        world.remove(&roads);
        world.commit("remove");
        world.pull().succeeded();
        assert_eq!(files_below(&cache(&world)), Vec::<PathBuf>::new(), "{workspace}, removed");
        assert_eq!(files_below(world.download()), masters, "the master's files");
        assert!(world.geoserver().layers(workspace).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_style_that_something_else_uses_is_told_and_goes_when_it_is_free() {
    let world = World::start(Vcs::Hg).await;
    let (roads, tracks) = (Layer::new("w", "roads"), Layer::new("w", "tracks"));
    world.publish(&roads.clone().style("night", "#000080")).await;
    world.publish(&tracks).await;
    world.commit("two layers");
    world.pull().succeeded();
    let draw_tracks_with = async |style: &str| {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http
            .put(format!("{}/rest/workspaces/w/layers/tracks.json", world.geoserver_url()))
            .basic_auth("admin", Some("geoserver"))
            .header("content-type", "application/json")
            .body(json!({"layer": {"defaultStyle": {"name": format!("w:{style}")}}}).to_string())
            .send();
        assert_eq!(answer.await.unwrap().status(), 200);
    };
    draw_tracks_with("roads.night").await;
    world.publish_meta(&roads);
    world.commit("no night");
    world.pull().succeeded();
    assert_eq!(world.rest().styles("w").await, ["roads", "roads.night", "tracks"]);
    let record = world.state(&roads.meta_file()).to_string();
    assert!(record.contains("w:roads.night stays"), "{record}");
    draw_tracks_with("tracks").await;
    world.publish_meta(&roads.title("Anew"));
    world.commit("another title");
    world.pull().succeeded();
    assert_eq!(world.rest().styles("w").await, ["roads", "tracks"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_goes_from_the_store_that_it_is_in() {
    let world = World::any(Vcs::Hg).await;
    let (w, rest) = (world.workspace("renamed"), world.rest());
    let (roads, tracks) = (Layer::new(&w, "roads").style("night", "#000080"), Layer::new(&w, "tracks"));
    world.publish(&roads).await;
    world.publish(&tracks).await;
    // A store of which the layer says itself what it reads.
    let own = world.workspace("own");
    let lanes = Layer::new(&own, "lanes").field("geoserver_setting", json!({"schema": format!("{own}_data")}));
    world.publish(&lanes).await;
    world.commit("three layers");
    world.pull().succeeded();
    assert_eq!(rest.layers(&own).await, ["lanes"]);
    // Only the second is published again.
    world.set("GEOSERVER_DATASTORE_NAMESPACE", "{}_store");
    world.publish(&tracks.clone().rows(20)).await;
    world.remove(&roads);
    world.remove(&lanes);
    world.commit("two go");
    world.pull().succeeded();
    assert_eq!(rest.layers(&own).await, [""; 0]);
    assert_eq!(rest.layers(&w).await, ["tracks"]);
    assert_eq!(rest.styles(&w).await, ["tracks"]);
    assert_eq!(rest.stores(&w).await, [format!("{w}_ds"), format!("{w}_store")]);
    let left = relations(&world, &[&w]).await;
    assert!(left.keys().all(|relation| relation.contains("tracks")), "{left:#?}");
    rest.drop_workspace(&own).await;
    rest.drop_workspace(&w).await;
}
