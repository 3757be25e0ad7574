//! A master that does not take everything.

use borg_slave::state_repo::Vcs;
use serde_json::json;

use super::{Monitor, SCHEMA};
use crate::support::postgres::ROLE;
use crate::support::world::{Outcome, World};

fn workspaces(world: &World, names: &[&str]) {
    for name in names {
        world.publish_workspace(name, 1);
    }
    world.commit("publish workspaces");
}

#[track_caller]
fn lines_about_reports(outcome: &Outcome) -> usize {
    outcome.stderr.lines().filter(|line| line.contains("reports")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tables_are_told_once_in_a_run_and_nothing_is_lost() {
    let (world, monitor) = (World::start(Vcs::Hg).await, Monitor::start().await);
    monitor.follow(&world);
    monitor.admin.batch_execute("alter table monitor_tasksyncstatus rename preview_file to picture").await.unwrap();
    workspaces(&world, &["a", "b", "c", "d"]);
    let outcome = world.pull().succeeded().says("monitor_tasksyncstatus.preview_file").says("MASTER_PGSQL_SCHEMA");
    assert_eq!(lines_about_reports(&outcome), 1, "{}", outcome.text());
    world.slave(&["check"]).failed().says("PROBLEM  master's database").says("monitor_tasksyncstatus.preview_file");
    world.slave(&["status"]).succeeded().says("5 reports wait for the master").says("preview_file");
    assert_eq!(monitor.rows("select 1 from monitor_slaveserver").await.len(), 0);

    monitor.admin.batch_execute("alter table monitor_tasksyncstatus rename picture to preview_file").await.unwrap();
    monitor
        .admin
        .batch_execute(&format!(
            "alter table monitor_tasksyncstatus owner to postgres; grant select, insert on monitor_tasksyncstatus to {ROLE}"
        ))
        .await
        .unwrap();
    let outcome = world.slave(&["report", "--flush"]).failed();
    let outcome = outcome.says("delete on table monitor_tasksyncstatus, update on table monitor_tasksyncstatus");
    outcome.says("usage on sequence monitor_tasksyncstatus_id_seq").says("MASTER_PGSQL_USERNAME");
    monitor
        .admin
        .batch_execute(&format!(
            "grant update, delete on monitor_tasksyncstatus to {ROLE}; grant usage on sequence monitor_tasksyncstatus_id_seq to {ROLE}"
        ))
        .await
        .unwrap();
    world.slave(&["report", "--flush"]).succeeded().says("5 reports delivered");
    assert_eq!(monitor.rows("select 1 from monitor_tasksyncstatus where sync_succeed").await.len(), 4);
    assert!(!world.slave(&["status"]).text().contains("reports"));
    world.set("MASTER_PGSQL_SCHEMA", "elsewhere");
    world.slave(&["check"]).failed().says("schema elsewhere has no table monitor_slaveserver, table");
    world.set("MASTER_PGSQL_SCHEMA", SCHEMA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_does_not_keep_the_others() {
    let (world, monitor) = (World::start(Vcs::Hg).await, Monitor::start().await);
    monitor.follow(&world);
    monitor
        .admin
        .batch_execute("alter table monitor_tasksyncstatus add constraint odd check (task_name <> 'b')")
        .await
        .unwrap();
    workspaces(&world, &["a", "b", "c"]);
    world.pull().succeeded().says("refuses 1 of the reports, the first is task/workspace/publish/b");
    let names = monitor.rows("select task_name from monitor_tasksyncstatus order by 1").await;
    assert_eq!(names, [r#"{"task_name":"a"}"#, r#"{"task_name":"c"}"#]);
    let message =
        monitor.rows("select last_sync_message like 'Ended%3 succeeded%' as ended from monitor_slaveserver").await;
    assert_eq!(message, [r#"{"ended":true}"#]);
    world.slave(&["report"]).succeeded().says("task/workspace/publish/b").says("refused: ").says("\"odd\"");
    world.slave(&["report", "--flush"]).failed().says("refused: task/workspace/publish/b");
    monitor.admin.batch_execute("alter table monitor_tasksyncstatus drop constraint odd").await.unwrap();
    // Another run takes it along.
    workspaces(&world, &["d"]);
    world.pull().succeeded();
    assert_eq!(monitor.rows("select 1 from monitor_tasksyncstatus").await.len(), 4);
    world.slave(&["report"]).succeeded().says("No report waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_cut_visibly_and_names_go_in_as_they_are() {
    let (world, monitor) = (World::start(Vcs::Hg).await, Monitor::start().await);
    monitor.follow(&world);
    world.set("SLAVE_NAME", &"s".repeat(70));
    monitor
        .admin
        .batch_execute(
            "alter table monitor_tasksyncstatus alter sync_message type varchar(40), alter task_name type varchar(12)",
        )
        .await
        .unwrap();
    let name = "o'brien; drop table monitor_slaveserver";
    let group = json!({"action": "publish", "name": name, "workspace": "w", "title": "", "abstract": "", "srs": "EPSG:4326",
        "layers": [], "dependent_groups": []});
    world.master.write("geoserver/layergroups/w.odd.json", group.to_string());
    world.commit("an odd name");
    world.pull();
    let rows = monitor
        .rows("select s.name = repeat('s', 63) || '…' as name, task_name, sync_message like 'geoserver%…' as cut, length(sync_message) from monitor_tasksyncstatus join monitor_slaveserver s on s.id = slave_server_id")
        .await;
    assert_eq!(rows, [r#"{"name":true,"task_name":"w:odd","cut":true,"length":40}"#]);
}
