//! Where files come from, old documents, and files that are no jobs.

use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;

use super::*;
use crate::robustness::processes::Running;
use crate::support::sshd::Sshd;
use crate::support::world::sld;

/// How long a run may take to get somewhere.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_feeds_another_slave() {
    let first = World::start(Vcs::Hg).await;
    first.set("KEEP_CACHED_FILES", "true");
    let open = Layer::new("w", "roads").style("night", "#000000");
    let staff = Layer::new("w", "tracks").auth_level(1).dump(|dump| dump.tar());
    let secret = Layer::new("s", "owners").auth_level(2);
    let second = first.another_slave("second").await;
    for layer in [&open, &staff, &secret] {
        first.publish(layer).await;
    }
    first.commit("layers");
    first.pull().succeeded();
    let mut kept: Vec<_> = fs::read_dir(cache(&first))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    kept.sort();
    let expected = [
        "s.owners.db",
        "s.owners.meta.json",
        "s.owners.sld",
        "w.roads.db",
        "w.roads.meta.json",
        "w.roads.night.sld",
        "w.roads.sld",
        "w.tracks.meta.json",
        "w.tracks.sld",
        "w.tracks.tar",
    ];
    assert_eq!(kept, expected);

    // The master is out of reach of the second one; it takes only what staff may see.
    fs::rename(first.download(), first.master.beside("unmounted")).unwrap();
    second.set("SYNC_SERVER", &format!("{}@127.0.0.1", Sshd::user()));
    second.set("SYNC_PATH", cache(&first).to_str().unwrap());
    second.slave(&["check"]).says("ok       SYNC_PATH: ").says("can be read, 10 files");
    let pulled = second.pull().succeeded();
    assert!(!pulled.text().contains("SYNC_PATH"), "{}", pulled.text());
    is_state(&second, &open, "succeeded");
    is_state(&second, &staff, "succeeded");
    is_state(&second, &secret, "filtered");
    assert_eq!(count(&second, "w", "tracks").await, 10);
    let mut styles = second.geoserver().styles("w");
    styles.sort();
    assert_eq!(styles, ["roads", "roads.night", "tracks"]);
    assert!(second.geoserver().layer("s", "owners").is_none());
    assert_eq!(files_below(&cache(&second)), Vec::<PathBuf>::new());
    fs::rename(first.master.beside("unmounted"), first.download()).unwrap();

    // What is behind there comes from the master, and so does what is not there; that is said once.
    let newer = open.rows(20);
    first.publish(&newer).await;
    let lakes = Layer::new("w", "lakes");
    first.publish(&lakes).await;
    first.commit("newer");
    let pulled = second.pull().succeeded();
    assert_eq!(pulled.text().matches("under none of its names in SYNC_PATH").count(), 1, "{}", pulled.text());
    assert_eq!((count(&second, "w", "roads").await, count(&second, "w", "lakes").await), (20, 10));

    // A removed layer's files go as well.
    first.pull().succeeded();
    first.remove(&newer);
    first.commit("remove roads");
    first.pull().succeeded();
    second.pull().succeeded();
    let left = files_below(&cache(&first));
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("roads")), "{left:?}");
    assert!(second.geoserver().layer("w", "roads").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn mounted_and_local_files_are_read_in_place() {
    let world = World::start(Vcs::Hg).await;
    // Nobody answers there: whatever asks for SSH fails.
    world.set("BORG_SSH", "/bin/false");
    world.set("SHARE_LAYER_DATA", "true");
    let shared = Layer::new("w", "shared");
    let published = world.publish(&shared).await;
    world.commit("shared");
    world.pull().succeeded();
    assert_eq!(count(&world, "w", "shared").await, 10);
    assert!(published.dump.exists() && published.meta.exists(), "the files are the master's");
    assert_eq!(files_below(&cache(&world)), Vec::<PathBuf>::new());

    // The master writes into the file while it is restored.
    let busy = Layer::new("w", "busy");
    let published = world.publish(&busy).await;
    world.commit("busy");
    let blocker = world.database.client().await;
    blocker.batch_execute("begin; create table w_data.busy (id integer)").await.unwrap();
    let mut pull = Running::start(world.pull_command());
    let waiting = "select count(*) from pg_stat_activity where application_name like 'borg-slave restore%' \
        and wait_event_type = 'Lock' and datname = current_database()";
    // Within a transaction the server's activity is always the same.
    let admin = world.database.admin().await;
    let begun = Instant::now();
    while admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(pull.ends_within(Duration::from_millis(20)).is_none() && begun.elapsed() < PATIENCE);
    }
    let whole = fs::read(&published.dump).unwrap();
    fs::write(&published.dump, [&whole[..], b"more"].concat()).unwrap();
    blocker.batch_execute("rollback").await.unwrap();
    pull.end(PATIENCE).failed().says("was changed while it was read");
    let left = "select to_regclass('w_data.busy') is null";
    assert!(blocker.query_one(left, &[]).await.unwrap().get::<_, bool>(0));
    fs::write(&published.dump, whole).unwrap();
    world.pull().succeeded();
    assert_eq!(count(&world, "w", "busy").await, 10);

    world.set("SHARE_LAYER_DATA", "false");
    let local = Layer::new("w", "local");
    let published = world.publish(&local).await;
    // Paths without a host, also in the metadata.
    let user = format!("{}@127.0.0.1:", Sshd::user());
    let metadata = fs::read_to_string(&published.meta).unwrap().replace(&user, "");
    fs::write(&published.meta, metadata).unwrap();
    let path = world.master.path().join(local.job_file());
    let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    document["meta"] = world.reference(&published.meta);
    fs::write(path, document.to_string().replace(&user, "")).unwrap();
    world.commit("local");
    world.pull().succeeded();
    assert_eq!(count(&world, "w", "local").await, 10);
    assert!(published.dump.exists() && published.meta.exists());
    assert_eq!(files_below(&cache(&world)), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_all_generations_are_read() {
    let world = World::any(Vcs::Hg).await;
    let workspace = world.workspace("old");
    let layer = |name: &str| Layer::new(&workspace, name);
    let whole = |published: &crate::support::world::Published| -> Value {
        serde_json::from_slice(&fs::read(&published.meta).unwrap()).unwrap()
    };
    let write = |layer: &Layer, document: &Value| {
        world.master.write(layer.job_file(), document.to_string());
    };

    // Before 2016-02-17: paths and checksums beside each other.
    let first = layer("first");
    let published = world.publish(&first).await;
    let mut document = whole(&published);
    let data = world.reference(&published.dump);
    let style = published.dump.with_extension("sld");
    fs::write(&style, sld("first", "#123456")).unwrap();
    let style = world.reference(&style);
    let fields = document.as_object_mut().unwrap();
    fields.remove("styles");
    fields.remove("default_style");
    fields.insert("job_id".into(), json!(3));
    fields.insert("dump_path".into(), data["file"].clone());
    fields.insert("data_md5".into(), data["md5"].clone());
    fields.insert("style_path".into(), style["file"].clone());
    fields.insert("style_md5".into(), style["md5"].clone());
    write(&first, &document);

    // Before 2016-03-18: everything in the job file.
    let second = layer("second").style("night", "#000000");
    let published = world.publish(&second).await;
    let mut document = whole(&published);
    document["job_id"] = json!("4");
    document["data"] = world.reference(&published.dump);
    write(&second, &document);

    // Today's.
    let third = layer("third");
    world.publish(&third).await;
    world.commit("three generations");
    world.pull().succeeded();
    for layer in [&first, &second, &third] {
        assert_eq!(count(&world, &workspace, &layer.name).await, 10);
        let seen = world.rest().layer(&workspace, &layer.name).await.unwrap();
        assert_eq!(seen.title, layer.title);
        assert_eq!(seen.default_style, Some(format!("{workspace}:{}", layer.name)));
    }
    assert_eq!(world.rest().styles(&workspace).await, ["first", "second", "second.night", "third"]);

    // Before 2017-11-27 a removal was the publish document with another action; its metadata may have been
    // replaced since, or be gone.
    for (layer, gone) in [(&first, false), (&second, false), (&third, true)] {
        let path = world.master.path().join(layer.job_file());
        let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        document["action"] = json!("remove");
        if let Some(meta) = document["meta"]["file"].as_str().map(str::to_owned) {
            let file = meta.split_once(':').unwrap().1;
            if gone { fs::remove_file(file).unwrap() } else { fs::write(file, "{}").unwrap() }
        }
        write(layer, &document);
    }
    world.commit("remove them");
    world.pull().succeeded();
    assert_eq!(world.rest().layers(&workspace).await, Vec::<String>::new());
    assert_eq!(world.rest().styles(&workspace).await, Vec::<String>::new());
    assert_eq!(relations(&world, &[&workspace]).await, BTreeMap::new());
    // To delete the removal asks for nothing.
    world.remove(&first);
    world.commit("tidy up");
    world.pull().succeeded();
    if world.doubles.is_empty() {
        world.rest().drop_workspace(&workspace).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_jobs_are_passed_by() {
    let world = World::start(Vcs::Git).await;
    let roads = Layer::new("w", "roads");
    world.publish(&roads).await;
    world.master.write("geoserver/unheard/of.json", "{}");
    world.master.write("elsewhere/layers/w.other.json", "{}");
    world.commit("a layer among other files");
    world.pull().succeeded();
    assert_eq!(status(&world).keys().collect::<Vec<_>>(), [&roads.job_file()]);
    is_state(&world, &roads, "succeeded");
}
