//! What the settings leave out is done by the first run without them.

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::geoserver::GeoServerDouble;

const ROLES: &str = "do $$ begin create role left_out_reader; exception when duplicate_object then null; end $$;\n";

/// Says that a job is for later, because of a setting.
#[track_caller]
fn is_for_later(world: &World, job_file: &str, setting: &str) {
    let record = world.state(job_file);
    assert_eq!(record["state"], json!("waiting"), "{record:#}");
    assert!(record["message"].as_str().unwrap_or_default().contains(setting), "{record:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_without_geoserver_and_then_with_it() {
    let world = World::start(Vcs::Hg).await;
    world.set("SKIP_GS", "true");
    let roads = Layer::new("w", "roads");
    world.publish(&roads).await;
    let gone = Layer::new("w", "gone");
    world.publish(&gone).await;
    world.publish_workspace("w", 1);
    let live = [
        world.publish_live_store("w", "live", "w"),
        world.publish_live_layer("w", "live", "live_roads", &json!({"table": "roads"})),
        world.publish_group("w", "all", &[("publish", "roads"), ("publish", "live_roads")], &json!({})),
    ];
    world.commit("everything");
    world.pull().succeeded();
    no_requests(&world);
    assert_eq!(count(&world, "w", "roads").await, 10);
    for job in &live {
        is_for_later(&world, job, "SKIP_GS");
    }
    let record = world.state(&roads.job_file());
    assert!(record["message"].as_str().unwrap_or_default().contains("SKIP_GS"), "{record:#}");
    world.remove(&gone);
    world.commit("one goes");
    world.pull().succeeded();

    let before = relations(&world, &["w"]).await;
    world.set("SKIP_GS", "false");
    world.slave(&["sync"]).succeeded();
    assert_eq!(relations(&world, &["w"]).await, before, "nothing is restored again");
    assert!(world.geoserver().layer("w", "roads").is_some());
    assert!(world.geoserver().layer("w", "gone").is_none());
    assert_eq!(world.rest().group("w", "all").await.unwrap(), ["w:roads", "w:live_roads"]);
    for job in live.iter().chain([&roads.job_file()]) {
        assert_eq!(world.state(job)["state"], json!("succeeded"), "{job}");
    }
    clear_requests(&world);
    world.slave(&["sync"]).succeeded().says("nothing to do");
    no_requests(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_geoserver_that_is_added_gets_every_layer() {
    let world = World::start(Vcs::Hg).await;
    let (roads, tracks, rail) = (Layer::new("w", "roads"), Layer::new("w", "tracks"), Layer::new("w", "rail"));
    for layer in [&roads, &tracks, &rail] {
        world.publish(layer).await;
    }
    world.publish_meta(&roads.clone().title("Newer title"));
    let group = world.publish_group("w", "all", &[("publish", "roads")], &json!({}));
    world.master.write("geoserver/layers.properties", "mode=HIDE\n*.*.r=*\nw.roads.r=ROLE_A\n");
    world.commit("two layers and a group");
    world.pull().succeeded();
    world.remove(&tracks);
    world.commit("one goes");
    world.pull().succeeded();

    let added = GeoServerDouble::start();
    let first = world.geoserver_url().to_owned();
    world.set("GEOSERVER_URL", &format!("{first},{}", added.url()));
    let before = relations(&world, &["w"]).await;
    clear_requests(&world);
    added.fail_next(1, 500);
    world.slave(&["sync"]).failed().says(&added.url());
    world.slave(&["sync"]).succeeded();
    no_requests(&world);
    assert_eq!(relations(&world, &["w"]).await, before, "nothing is restored again");
    assert_eq!(added.layer("w", "roads").unwrap().title, "Newer title");
    assert!(added.layer("w", "tracks").is_none());
    // What was removed long ago is looked for in a list, and not removed again.
    let asked = added.requests();
    assert!(asked.iter().all(|request| !request.path.contains("tracks")), "{asked:?}");
    let rest = crate::support::rest::Rest::new(&added.url(), "admin", "geoserver");
    assert_eq!(rest.group("w", "all").await.unwrap(), ["w:roads"]);
    assert_eq!(rest.rules().await["w.roads.r"], "ROLE_A");
    assert_eq!(world.state(&group)["state"], json!("succeeded"));
    added.clear_requests();
    world.slave(&["sync"]).succeeded().says("nothing to do");
    assert_eq!(added.requests(), []);

    // Taken away for a while, and back again: it gets what it has missed.
    world.set("GEOSERVER_URL", &first);
    world.publish(&roads.clone().title("Third title").rows(20)).await;
    world.master.remove(roads.meta_file());
    world.remove(&rail);
    world.commit("roads anew; another one goes");
    world.pull().succeeded();
    assert_eq!(added.requests(), []);
    // Nothing is known of what it holds, as of a copy of another one.
    let journal = rusqlite::Connection::open(world.clone.join("code/.sync_status/journal.sqlite3")).unwrap();
    let target = added.url();
    assert!(journal.execute("delete from marker where target = ?1", [target.trim_end_matches('/')]).unwrap() > 0);
    drop(journal);
    world.set("GEOSERVER_URL", &format!("{first},{}", added.url()));
    clear_requests(&world);
    world.publish(&tracks).await;
    world.commit("tracks again");
    world.pull().succeeded();
    assert_eq!(added.layer("w", "roads").unwrap().title, "Third title");
    assert!(added.layer("w", "tracks").is_some());
    assert!(added.layer("w", "rail").is_none(), "what was removed while it was away is removed from it");

    // Where nothing is noted of what is complete, nothing is taken for it.
    let journal = rusqlite::Connection::open(world.clone.join("code/.sync_status/journal.sqlite3")).unwrap();
    assert!(journal.execute("delete from marker where target = 'parts'", []).unwrap() > 0);
    let third = GeoServerDouble::start();
    world.set("GEOSERVER_URL", &format!("{first},{},{}", added.url(), third.url()));
    clear_requests(&world);
    world.slave(&["sync"]).succeeded();
    no_requests(&world);
    assert!(third.layer("w", "roads").is_some() && third.layer("w", "tracks").is_some());
    third.clear_requests();
    world.slave(&["sync"]).succeeded().says("nothing to do");
    assert_eq!(third.requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_without_the_database_and_then_with_it() {
    let world = World::start(Vcs::Hg).await;
    let roads = Layer::new("w", "roads");
    world.publish(&roads).await;
    world.publish_meta(&roads.clone().title("Newer title"));
    world.publish_workspace("w", 1);
    let group = world.publish_group("w", "all", &[("publish", "roads")], &json!({}));
    let bad = Layer::new("w", "bad").field("sync_postgres_data", json!(false));
    world.publish(&bad).await;
    world.master.write("slave_roles.sql", ROLES);
    world.commit("roads");
    world.set("SKIP_DB", "true");
    // GeoServer has nothing to show: that is no failure, and everything is for later.
    world.pull().succeeded();
    let waiting = [
        roads.job_file(),
        roads.meta_file(),
        bad.job_file(),
        group,
        "geoserver/workspaces/w.json".to_owned(),
        "slave_roles.sql".to_owned(),
    ];
    for job in &waiting {
        is_for_later(&world, job, "SKIP_DB");
    }
    assert!(world.geoserver().layer("w", "roads").is_none());
    let store = world.state(&roads.job_file())["steps"].to_string();
    assert!(store.contains("\"skipped\"") && store.contains("\"store\""), "what can be done is done: {store}");
    world.set("SKIP_DB", "false");
    world.slave(&["sync"]).failed().says(&bad.job_file());
    assert_eq!(world.rest().group("w", "all").await.unwrap(), ["w:roads"]);
    assert_eq!(world.geoserver().layer("w", "roads").unwrap().title, "Newer title");
    world.remove(&bad);
    world.master.remove(roads.meta_file());
    world.commit("the one without a table goes");
    world.pull().succeeded();
    assert_eq!(count(&world, "w", "roads").await, 10);
    assert!(world.geoserver().layer("w", "roads").is_some());
    for (file, state) in states(&world) {
        assert_eq!(state, "succeeded", "{file}");
    }
    world.slave(&["sync"]).succeeded().says("nothing to do");

    // With a table that is there, the layer succeeds; its data follow later.
    world.set("SKIP_DB", "true");
    world.publish(&roads.clone().rows(30).title("Anew")).await;
    world.commit("roads anew");
    world.pull().succeeded();
    assert_eq!(world.geoserver().layer("w", "roads").unwrap().title, "Anew");
    assert_eq!(count(&world, "w", "roads").await, 10);
    let record = world.state(&roads.job_file());
    assert!(record["message"].as_str().unwrap_or_default().contains("SKIP_DB"), "{record:#}");
    world.set("SKIP_DB", "false");
    world.slave(&["sync"]).succeeded();
    assert_eq!(count(&world, "w", "roads").await, 30);
    world.slave(&["sync"]).succeeded().says("nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_made_left_out_and_refused_by_line() {
    let world = World::start(Vcs::Hg).await;
    let exists = async |role: &str| -> bool {
        let admin = world.database.admin().await;
        admin.query_one("select exists (select from pg_roles where rolname = $1)", &[&role]).await.unwrap().get(0)
    };
    world.set("SKIP_AUTH", "true");
    let role = format!("left_out_{}", world.database.name());
    world.master.write("slave_roles.sql", ROLES.replace("left_out_reader", &role));
    world.commit("roles");
    world.pull().succeeded();
    is_for_later(&world, "slave_roles.sql", "SKIP_AUTH");
    assert!(!exists(&role).await);
    world.set("SKIP_AUTH", "false");
    world.slave(&["sync"]).succeeded();
    assert!(exists(&role).await);
    assert_eq!(world.state("slave_roles.sql")["state"], json!("succeeded"));

    world.master.write("slave_roles.sql", "-- the roles\nselect 1;\ngrant no_such_role_at_all to nobody_either;\n");
    let roads = Layer::new("w", "roads");
    world.publish(&roads).await;
    world.commit("a mistake");
    let before = tip(&world);
    world.pull().failed().says("slave_roles.sql").says("line 3").says("grant no_such_role_at_all");
    assert_eq!(tip(&world), before);
    is_state(&world, &roads, "succeeded");
    let admin = world.database.admin().await;
    world.master.write("slave_roles.sql", ROLES.replace("left_out_reader", &role));
    world.commit("mended");
    world.pull().succeeded();
    admin.batch_execute(&format!("drop role {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_refused_afterwards() {
    let world = World::start(Vcs::Hg).await;
    let (roads, tracks) = (Layer::new("w", "roads"), Layer::new("w", "tracks"));
    world.publish(&roads).await;
    world.publish(&tracks).await;
    world.commit("two layers");
    let before = tip(&world);
    world.set("INCLUDE", &roads.job_file());
    world.set("DEBUG", "true");
    world.pull().failed().says("INCLUDE").says("DEBUG");
    world.set("DEBUG", "false");
    assert_eq!(tip(&world), before);
    is_state(&world, &roads, "succeeded");
    assert!(world.geoserver().layer("w", "tracks").is_none());
    assert!(!states(&world).contains_key(&tracks.job_file()));

    world.set("INCLUDE", "");
    world.set("ROLLBACK", "true");
    world.pull().failed().says("ROLLBACK");
    assert_eq!(tip(&world), before);
    is_state(&world, &tracks, "succeeded");
    world.set("ROLLBACK", "false");
    clear_requests(&world);
    world.pull().succeeded();
    assert_ne!(tip(&world), before);
    assert_eq!(count(&world, "w", "tracks").await, 10);
    assert_eq!(world.geoserver().writes(), 0, "{:?}", world.geoserver().requests());
}
