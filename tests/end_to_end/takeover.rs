//! A slave that takes the place of the Python one.

use borg_slave::plan::hex_md5;
use borg_slave::state_repo::Vcs;

use super::*;

/// A status as the Python slave saves it at the end of its hook.
fn python_status(job_file: &str, content: &[u8], action: &str, failed: Option<&str>) -> String {
    let time = "2016-11-05 09:12:44.000123";
    let mut tasks = json!({
        "load_metadata": {"status": true, "messages": {"message": "succeed"}, "last_process_time": time},
        "create_workspace": {"status": true, "shared": true, "messages": {}, "last_process_time": time},
        "restore_table": {"status": true, "messages": {"message": "succeed"}, "last_process_time": time,
            "stages": {"load_table_dumpfile": {"status": true, "last_process_time": time}}},
    });
    if let Some(reason) = failed {
        let traceback = format!("Traceback (most recent call last):\n  File \"x.py\", line 3\nException: {reason}\n");
        tasks["restore_table"] =
            json!({"status": false, "messages": {"message": traceback}, "last_process_time": time});
        tasks["create_feature"] = json!({"messages": {}});
    }
    json!({
        "file": job_file,
        "md5": hex_md5(content),
        "action": action,
        "status": failed.is_none(),
        "last_process_time": time,
        "tasks": tasks,
    })
    .to_string()
}

/// The slave's clone as the Python slave leaves it: tables and layers, no journal, no bookkeeping, and a status folder.
struct Left(PathBuf);

impl Left {
    async fn by_the_python_slave(world: &World) -> Self {
        let folder = world.clone.join("code/.sync_status");
        for file in files_below(&folder) {
            fs::remove_file(file).unwrap();
        }
        world.database.admin().await.batch_execute("drop schema if exists borg_slave cascade").await.unwrap();
        clear_requests(world);
        Self(folder)
    }

    /// Writes the status of a job file.
    fn status(&self, job_file: &str, content: &[u8], action: &str, failed: Option<&str>) -> &Self {
        self.file(job_file, &python_status(job_file, content, action, failed))
    }

    /// Writes the status of what the master's job file holds now.
    fn applied(&self, world: &World, job_file: &str, action: &str) -> &Self {
        self.status(job_file, &of_master(world, job_file), action, None)
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }
}

fn of_master(world: &World, job_file: &str) -> Vec<u8> {
    fs::read(world.master.path().join(job_file)).unwrap()
}

/// The line of the summary that counts `what`.
#[track_caller]
fn counts(outcome: &Outcome, what: &str, count: usize) {
    let line = outcome.stdout.lines().find(|line| line.trim_start().starts_with(what));
    let found = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
    assert_eq!(found.unwrap_or(0), count, "{what}: {}", outcome.text());
}

const WORKSPACE: &str = "geoserver/workspaces/w.json";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_python_slave_applied_is_not_done_again() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let world = World::start(vcs).await;
        let roads = Layer::new("w", "roads").rows(12);
        world.publish(&roads).await;
        world.publish_workspace("w", 1);
        world.commit("roads");
        world.pull().succeeded();
        let left = Left::by_the_python_slave(&world).await;
        left.applied(&world, &roads.job_file(), "publish").applied(&world, WORKSPACE, "publish");
        let before = relations(&world, &["w"]).await;

        // The daemon has been started too early.
        fs::write(world.clone.join("code/.sync_status/daemon.lock"), "poll").unwrap();
        let files = files_below(&world.clone.join("code"));
        let dry = world.slave(&["import-status", "code/.sync_status", "--dry-run"]).succeeded();
        counts(&dry, "taken", 2);
        assert_eq!(files_below(&world.clone.join("code")), files, "a dry run writes nothing");
        let imported = world.slave(&["import-status", "code/.sync_status"]).succeeded();
        counts(&imported, "taken", 2);
        not_a_word(&imported, "not about a job");
        imported.says("Everything at the tip is done");
        is_state(&world, &roads, "succeeded");
        let message = world.state(&roads.job_file())["message"].clone();
        assert_eq!(message, json!("applied by the Python slave on 2016-11-05 09:12:44"));

        world.slave(&["sync"]).succeeded().says("othing to do");
        world.pull().succeeded();
        no_requests(&world);
        assert_eq!(relations(&world, &["w"]).await, before);

        // New metadata changes what GeoServer says, and no table.
        let renamed = roads.clone().title("Roads and tracks");
        world.publish_meta(&renamed);
        world.commit("metadata");
        world.pull().succeeded();
        assert_eq!(relations(&world, &["w"]).await, before);
        assert!(!world.geoserver().requests().is_empty());
        is_state(&world, &roads, "succeeded");

        // The next publication replaces the table that the Python slave had made.
        world.publish(&renamed.rows(31)).await;
        world.master.remove(roads.meta_file());
        world.commit("more roads");
        world.pull().succeeded();
        assert_eq!((count(&world, "w", "roads").await, count(&world, "w_data", "roads").await), (31, 31));
        let after = relations(&world, &["w"]).await;
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert_ne!(after["w_data.roads"], before["w_data.roads"]);

        // A second import finds everything known.
        let again = world.slave(&["import-status", "code/.sync_status"]).succeeded();
        counts(&again, "known already", 2);
        assert_eq!(world.state(&roads.job_file())["content_md5"], hex_md5(&of_master(&world, &roads.job_file())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_restore_failed_halfway_is_healed() {
    let world = World::start(Vcs::Hg).await;
    let roads = Layer::new("w", "roads").rows(12);
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    let left = Left::by_the_python_slave(&world).await;
    left.status(&roads.job_file(), &of_master(&world, &roads.job_file()), "publish", Some("pg_restore: no space"));
    // Its view reads the table that it had moved aside; what it had restored of the new one is of no use.
    let halfway = "alter table w_data.roads set schema w_outdated; create table w_data.roads (nothing int)";
    world.database.admin().await.batch_execute(halfway).await.unwrap();

    let imported = world.slave(&["import-status", "code/.sync_status"]).succeeded();
    counts(&imported, "failed then", 1);
    imported.says("restore_table: Exception: pg_restore: no space");
    is_state(&world, &roads, "failed");
    world.slave(&["sync"]).succeeded();
    is_state(&world, &roads, "succeeded");
    assert_eq!((count(&world, "w", "roads").await, count(&world, "w_data", "roads").await), (12, 12));
    let outdated = relations(&world, &["w"]).await.into_keys().filter(|name| name.starts_with("w_outdated")).count();
    assert_eq!(outdated, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rolled_back_pull_had_applied_is_recognised_when_it_comes_back() {
    let world = World::start(Vcs::Hg).await;
    let (roads, rails, bad) = (Layer::new("w", "roads"), Layer::new("w", "rails"), Layer::new("w", "bad"));
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().succeeded();
    let applied_first = of_master(&world, &roads.job_file());
    world.publish(&roads.clone().rows(20)).await;
    world.publish(&rails).await;
    let hidden = world.publish(&bad).await.dump;
    world.commit("new roads, rails, and one that fails");
    fs::rename(&hidden, hidden.with_extension("hidden")).unwrap();
    world.pull().failed().says("rollback completed");
    assert_ne!(applied_first, of_master(&world, &roads.job_file()));
    let left = Left::by_the_python_slave(&world).await;
    left.applied(&world, &roads.job_file(), "publish").applied(&world, &rails.job_file(), "publish").status(
        &bad.job_file(),
        &of_master(&world, &bad.job_file()),
        "publish",
        Some("md5 mismatch"),
    );
    let before = relations(&world, &["w"]).await;

    let imported = world.slave(&["import-status", "code/.sync_status"]).succeeded();
    counts(&imported, "changed since", 1);
    counts(&imported, "not at the tip", 1);
    counts(&imported, "failed then", 1);
    imported.says("Pull first");
    fs::rename(hidden.with_extension("hidden"), &hidden).unwrap();
    world.pull().succeeded();
    let after = relations(&world, &["w"]).await;
    for (name, state) in before.iter().filter(|(name, _)| name.contains("roads") || name.contains("rails")) {
        assert_eq!(after.get(name), Some(state), "{name} was made anew");
    }
    assert_eq!(states(&world).into_values().collect::<Vec<_>>(), ["succeeded"; 3]);
    assert_eq!(count(&world, "w", "bad").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_file_is_counted_and_nothing_is_lost() {
    let world = World::start(Vcs::Hg).await;
    let layers: Vec<Layer> = ["cut", "empty", "new", "gone"].map(|name| Layer::new("w", name)).into();
    for layer in &layers {
        world.publish(layer).await;
    }
    let [cut, empty, new, gone] = &layers[..] else { panic!() };
    world.publish_meta(gone);
    world.publish_workspace("w", 0);
    world.master.write("geoserver/layers.properties", "*.*.r=*\n");
    world.master.write(
        "geoserver/layergroups/w.all.json",
        json!({
            "name": "all", "workspace": "w", "title": "All", "abstract": "", "srs": "EPSG:4326", "action": "publish",
            "layers": [{"type": "publish", "name": "new", "workspace": "w"}],
        })
        .to_string(),
    );
    world.commit("begin");
    let deleted = of_master(&world, &gone.job_file());
    let meta = of_master(&world, &gone.meta_file());
    world.remove(gone);
    world.commit("gone");
    world.pull().succeeded();
    let left = Left::by_the_python_slave(&world).await;
    left.applied(&world, WORKSPACE, "publish")
        .applied(&world, "geoserver/layers.properties", "publish")
        .applied(&world, "geoserver/layergroups/w.all.json", "publish")
        .status(&gone.job_file(), &deleted, "remove", None)
        .status(&gone.meta_file(), &meta, "meta", None)
        .status("geoserver/layers/w.unheard.json", b"{}", "publish", None)
        .status("other/layers/w.x.json", b"{}", "publish", None)
        .file(&cut.job_file(), r#"{"file": "geoserver/layers/w.cut.json", "md5": "0cc1"#)
        .file(&empty.job_file(), "")
        .file("bitbucket", "{}")
        .file("failed_response_2016-11-05.sql", "update x");
    let folder = left.0.to_str().unwrap();
    let kept: BTreeMap<_, _> =
        files_below(&left.0).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();

    let imported = world.slave(&["import-status", folder]);
    assert_eq!(imported.code, Some(1), "{}", imported.text());
    insta::assert_snapshot!(imported.stdout);
    for (path, content) in kept {
        assert_eq!(fs::read(&path).unwrap(), content, "{}", path.display());
    }
    world.slave(&["sync"]).succeeded();
    for layer in [cut, empty, new] {
        is_state(&world, layer, "succeeded");
    }
    assert_eq!(world.state("geoserver/layergroups/w.all.json")["state"], json!("succeeded"));

    for (folder, says) in [("nowhere", "no such folder"), (".hg", "holds no status file")] {
        let refused = world.slave(&["import-status", folder]).says(says);
        assert_eq!(refused.code, Some(2), "{}", refused.text());
    }
}

/// The steps of docs/migration.md, on a clone as the Python slave's README lays it out.
#[tokio::test(flavor = "multi_thread")]
async fn the_migration_guide_leads_to_a_slave_that_goes_on() {
    let world = World::start(Vcs::Hg).await;
    let roads = Layer::new("w", "roads").rows(12);
    world.publish(&roads).await;
    world.publish_workspace("w", 1);
    world.commit("roads");
    world.pull().succeeded();
    let left = Left::by_the_python_slave(&world).await;
    left.applied(&world, &roads.job_file(), "publish").applied(&world, WORKSPACE, "publish");
    let before = relations(&world, &["w"]).await;

    // Its settings stand in code/.env, and its hooks in the clone's hgrc.
    world.set("FEATURE_FILTER", "lambda job: job.get('auth_level',-1) in [0,1]");
    world.set("GEOSERVER_PGSQL_SCHEMA", "publish");
    world.set("POLL_INTERVAL", "60");
    fs::rename(world.clone.join(".env"), world.clone.join("code/.env")).unwrap();
    fs::create_dir_all(world.clone.join("code/venv/bin")).unwrap();
    fs::write(world.clone.join(".hg/denied.sh"), "#!/bin/bash\nexit 1\n").unwrap();
    let hgrc = world.clone.join(".hg/hgrc");
    let ours = fs::read_to_string(&hgrc).unwrap();
    let (rest, _) = ours.split_once("[hooks]").unwrap();
    let old = "[hooks]\nprecommit = .hg/denied.sh\npretxnchangegroup = code/venv/bin/honcho -e code/.env run code/venv/bin/python code/slave_sync.py\n";
    fs::write(&hgrc, format!("{rest}{old}")).unwrap();

    // The filter is refused with what replaces it.
    let refused = world.slave(&["check"]);
    assert_eq!(refused.code, Some(2), "{}", refused.text());
    let refused = refused.says("FEATURE_FILTER").says("auth_level");
    let rhai = refused.stderr.lines().find_map(|line| line.split_once("FEATURE_FILTER='")?.1.strip_suffix('\''));
    let rhai = rhai.unwrap_or_else(|| panic!("{}", refused.text())).to_owned();
    world.set("FEATURE_FILTER", &rhai);
    fs::rename(world.clone.join(".env"), world.clone.join("code/.env")).unwrap();
    world.slave(&["check"]).succeeded();
    world.slave(&["filter"]).succeeded().says(&format!("taken    {}", roads.job_file()));

    world.slave(&["import-status", "code/.sync_status", "--dry-run"]).succeeded();
    world.slave(&["import-status", "code/.sync_status"]).succeeded().says("Everything at the tip is done");
    world.slave(&["sync", "--dry-run"]).succeeded().says("nothing to do");
    fs::write(&hgrc, ours).unwrap();
    clear_requests(&world);
    world.pull().succeeded();
    assert_eq!(relations(&world, &["w"]).await, before);
    no_requests(&world);
    world.publish(&roads.clone().rows(13)).await;
    world.commit("more");
    world.pull().succeeded();
    assert_eq!(count(&world, "w", "roads").await, 13);

    // And back: the Python slave finds its status files as it left them, beside the journal.
    assert!(left.0.join(roads.job_file()).is_file() && left.0.join("journal.sqlite3").is_file());
}
