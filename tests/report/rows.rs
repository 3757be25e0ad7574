//! The rows that jobs leave.

use std::fs;

use borg_slave::report;
use borg_slave::state_repo::Vcs;
use serde_json::{Value, json};

use super::Monitor;
use crate::support::postgres::PASSWORD;
use crate::support::world::{Layer, World};

async fn one(monitor: &Monitor, query: &str) -> Value {
    let rows = monitor.rows(query).await;
    assert_eq!(rows.len(), 1, "{query}: {rows:?}");
    serde_json::from_str(&rows[0]).unwrap()
}

async fn publication(monitor: &Monitor, name: &str) -> Value {
    one(monitor, &format!("select * from monitor_publishsyncstatus where publish = '{name}'")).await
}

async fn task(monitor: &Monitor, kind: &str, name: &str, action: &str) -> Value {
    let of = format!("task_type = '{kind}' and task_name = '{name}' and action = '{action}'");
    one(monitor, &format!("select * from monitor_tasksyncstatus where {of}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_told_from_its_publication_to_its_end() {
    let (world, monitor) = (World::start(Vcs::Hg).await, Monitor::start().await);
    monitor.follow(&world);
    let previews = world.download().join("previews");
    fs::create_dir_all(&previews).unwrap();
    let roads = Layer::new("w", "roads").field("preview_path", json!(world.sshd.location(&previews)));
    world.publish(&roads).await;
    world.commit("publish");
    world.pull().succeeded();

    let slave = one(&monitor, "select * from monitor_slaveserver").await;
    assert_eq!((&slave["name"], &slave["listen_channels"]), (&json!("o'slave"), &json!("geoserver")));
    assert!(!slave["register_time"].is_null() && slave["last_poll_time"].is_null(), "{slave:#}");
    assert!(slave["code_version"].as_str().unwrap().starts_with(env!("CARGO_PKG_VERSION")), "{slave:#}");
    let said = slave["last_sync_message"].as_str().unwrap();
    assert!(said.contains("hook pretxnchangegroup") && said.contains("1 succeeded, 0 failed"), "{said}");
    assert!(said.contains("geoserver/layers/w.roads.json: publish feature: succeeded"), "{said}");

    let row = publication(&monitor, "roads").await;
    assert_eq!(
        (&row["deploied_job_id"], &row["deploied_job_batch_id"], &row["spatial_type"], &row["preview_file"]),
        (&json!(1), &json!("20161105_0100"), &json!("POINT"), &json!("o'slave/geoserver/w/roads.png"))
    );
    assert!(previews.join("o'slave/geoserver/w/roads.png").exists());
    assert!(row["sync_job_id"].is_null() && row["sync_message"].is_null() && row["sync_time"].is_null(), "{row:#}");
    let said = row["deploy_message"].as_str().unwrap();
    for part in ["geoserver/layers/w.roads.json: publish succeeded", "  restore: done", "  styles on http", "Targets:"]
    {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    // The row's time is a moment, whatever zone the host is in.
    let age =
        one(&monitor, "select extract(epoch from now() - deploy_time) as age from monitor_publishsyncstatus").await;
    assert!(age["age"].as_f64().unwrap().abs() < 120.0, "{age}");

    // What fails is told beside what is deployed; a slave without a daemon tells of its new channels as well.
    world.set("LISTEN_CHANNELS", "geoserver,more");
    let deployed = row;
    let gone = world.publish(&roads.clone().rows(20)).await;
    fs::remove_file(gone.dump).unwrap();
    world.commit("a dump is missing");
    world.pull().failed();
    let row = publication(&monitor, "roads").await;
    for column in ["deploied_job_id", "deploy_message", "deploy_time", "preview_file", "spatial_type"] {
        assert_eq!(row[column], deployed[column], "{column}");
    }
    assert_eq!((&row["sync_job_id"], &row["sync_job_batch_id"]), (&json!(2), &json!("20161105_0100")));
    let said = row["sync_message"].as_str().unwrap();
    assert!(said.contains("publish failed") && said.contains("Hint:") && said.contains("  dump: failed"), "{said}");
    let slave = one(&monitor, "select * from monitor_slaveserver").await;
    assert!(slave["last_sync_message"].as_str().unwrap().contains("publish feature: failed: "), "{slave:#}");
    assert_eq!(slave["listen_channels"], json!("geoserver,more"));

    // The next success clears it; metadata is a task of its own.
    world.publish(&roads.clone().rows(30)).await;
    world.publish_meta(&roads.clone().title("Streets"));
    world.commit("mended");
    world.pull().succeeded();
    let row = publication(&monitor, "roads").await;
    assert_eq!(
        (&row["deploied_job_id"], &row["sync_job_id"], &row["sync_message"]),
        (&json!(3), &Value::Null, &Value::Null)
    );
    let meta = task(&monitor, "feature", "w:roads", "meta").await;
    assert_eq!((&meta["sync_succeed"], &meta["preview_file"]), (&json!(true), &json!("o'slave/geoserver/w/roads.png")));

    // A picture that comes later goes to the row of its job alone.
    let journal = borg_slave::journal::Journal::open(&world.clone.join("code/.sync_status")).unwrap();
    report::preview_came(&journal, ("feature", "publish"), "roads", "w:roads", "later.png").unwrap();
    world.slave(&["report", "--flush"]).succeeded();
    let row = publication(&monitor, "roads").await;
    assert_eq!((&row["preview_file"], &row["deploied_job_id"]), (&json!("later.png"), &json!(3)));
    assert_eq!(task(&monitor, "feature", "w:roads", "meta").await, meta);
    report::preview_came(&journal, ("feature", "meta"), "roads", "w:roads", "latest.png").unwrap();
    world.slave(&["report", "--flush"]).succeeded();
    assert_eq!(publication(&monitor, "roads").await, row);
    assert_eq!(task(&monitor, "feature", "w:roads", "meta").await["preview_file"], json!("latest.png"));

    let everything = monitor.everything().await.join("\n");
    for secret in [PASSWORD, "geoserver/rest", "\"admin\""] {
        assert!(!everything.contains(secret), "{everything}");
    }

    world.remove(&roads);
    world.commit("remove");
    world.pull().succeeded();
    assert_eq!(monitor.rows("select * from monitor_publishsyncstatus").await, Vec::<String>::new());
    assert_eq!(
        monitor.rows("select 1 from monitor_tasksyncstatus where action = 'remove'").await,
        Vec::<String>::new()
    );
    assert_eq!(monitor.rows("select 1 from monitor_slaveserver").await.len(), 1);
    world.slave(&["report"]).succeeded().says("No report waits");
    world.slave(&["check"]).says("has the tables of the monitor, the rights suffice, o'slave is registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_kind_of_job_is_a_task() {
    let (world, monitor) = (World::start(Vcs::Hg).await, Monitor::start().await);
    monitor.follow(&world);
    world.set("FEATURE_FILTER", "get(job, \"name\", \"\") != \"foreign\"");
    let source = Layer::new("up", "photo");
    world.publish(&source).await;
    world.publish(&Layer::new("up", "foreign")).await;
    world.commit("the upstream's own layer");
    world.pull().succeeded();
    world.publish_wms_store("w", "cascade");
    world.publish_wms_layer("w", "cascade", "photo", "up:photo", &json!({}));
    world.publish_live_store("w", "live", "up");
    world.publish_live_layer("w", "live", "live_photo", &json!({"table": "photo"}));
    world.publish_group("w", "group", &[("wms_layer", "photo")], &json!({}));
    world.publish_workspace("w", 1);
    world.master.write("slave_roles.sql", "select 1;\n");
    world.master.write("geoserver/layers.properties", "mode=HIDE\n*.*.r=*\n*.*.w=GROUP_ADMIN,ADMIN\n");
    world.master.write("geoserver/layergroups/w.broken.json", "{");
    world.master.write("geoserver/layers/w.broken.json", "{");
    world.master.write("geoserver/layers/w.broken.meta.json", "{");
    world.master.write(
        "geoserver/layergroups/w.group.empty_gwc.json",
        json!({"action": "empty_gwc", "workspace": "w", "name": "group"}).to_string(),
    );
    world.commit("every kind");
    let outcome = world.pull().failed();
    let tasks = monitor
        .rows("select task_type, task_name, action, sync_succeed from monitor_tasksyncstatus order by 1, 2, 3")
        .await;
    let failed = monitor
        .rows("select sync_message from monitor_tasksyncstatus where not sync_succeed and task_name not like '%broken'")
        .await;
    assert_eq!(failed, Vec::<String>::new());
    insta::assert_snapshot!(tasks.join("\n"), @r#"
    {"task_type":"access_rules","task_name":"geoserver access rules","action":"publish","sync_succeed":true}
    {"task_type":"auth","task_name":"postgres and geoserver auth","action":"publish","sync_succeed":true}
    {"task_type":"feature","task_name":"w:broken","action":"meta","sync_succeed":false}
    {"task_type":"layergroup","task_name":"w:broken","action":"publish","sync_succeed":false}
    {"task_type":"layergroup","task_name":"w:group","action":"empty_gwc","sync_succeed":true}
    {"task_type":"layergroup","task_name":"w:group","action":"publish","sync_succeed":true}
    {"task_type":"live_layer","task_name":"w:live_photo","action":"publish","sync_succeed":true}
    {"task_type":"live_store","task_name":"w:live","action":"publish","sync_succeed":true}
    {"task_type":"wms_layer","task_name":"w:photo","action":"publish","sync_succeed":true}
    {"task_type":"wms_store","task_name":"w:cascade","action":"publish","sync_succeed":true}
    {"task_type":"workspace","task_name":"w","action":"publish","sync_succeed":true}
    "#);
    assert!(outcome.text().contains("3 jobs failed"), "{}", outcome.text());
    // What the filters do not take is not told; what cannot be read is told as the layer's failure.
    let published = monitor
        .rows("select publish, sync_message is not null as failed from monitor_publishsyncstatus order by 1")
        .await;
    assert_eq!(published, [r#"{"publish":"broken","failed":true}"#, r#"{"publish":"photo","failed":false}"#]);
}
