//! Stores and layers that GeoServer reads from other databases itself.

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::postgres::{PASSWORD, PrivatePostgres, ROLE, TestDatabase};
use crate::support::world::sld;

/// Another database with towns and a schema of its own.
async fn elsewhere() -> TestDatabase {
    let database = PrivatePostgres::start().database().await;
    let admin = database.admin().await;
    admin
        .batch_execute(&format!(
            "create extension if not exists postgis; create schema far; \
             create table far.towns (id serial primary key, label text, inhabitants integer, geom geometry(Point, 4283)); \
             insert into far.towns (label, inhabitants, geom) select 'town ' || n, n * 1000, st_setsrid(st_makepoint(115 + n, -31), 4283) from generate_series(1, 5) n; \
             grant all on schema far to {ROLE}; grant select on all tables in schema far to {ROLE};"
        ))
        .await
        .unwrap();
    database
}

fn store(world: &World, workspace: &str, name: &str, database: &str) -> String {
    let metadata = json!({"workspace": workspace, "name": name, "host": "127.0.0.1", "port": PrivatePostgres::start().port(),
        "database": database, "schema": "far", "user": ROLE, "passwd": PASSWORD, "geoserver_setting": {}});
    world.publish_thin("live_stores", &metadata)
}

async fn tables(database: &TestDatabase) -> Vec<String> {
    let admin = database.admin().await;
    let rows = admin.query("select relname::text from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = 'far' and relkind = 'r' order by 1", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_another_database_come_with_styles_and_go() {
    let world = World::any(Vcs::Hg).await;
    let (w, rest, far) = (world.workspace("live"), world.rest(), elsewhere().await);
    let dir = world.download().join("styles");
    fs::create_dir_all(&dir).unwrap();
    let mut styles = json!({});
    for (name, colour) in [("builtin", "#102030"), ("night", "#000080")] {
        let file = dir.join(format!("{name}.sld"));
        fs::write(&file, sld(name, colour)).unwrap();
        styles[name] = world.reference(&file);
    }
    let store_file = store(&world, &w, "far", far.name());
    let styled = json!({"styles": styles, "default_style": "night", "job_id": 1});
    let towns = world.publish_live_layer(&w, "far", "towns", &styled);
    let view = json!({"table": "large", "viewsql": "select * from far.towns where inhabitants > 3000", "job_id": 2});
    let large = world.publish_live_layer(&w, "far", "large", &view);
    let bare = json!({"table": "no_such_table", "job_id": null});
    let lost = world.publish_live_layer(&w, "far", "lost", &bare);
    world.commit("live");
    let outcome = world.pull().failed();
    assert!(outcome.text().contains("no_such_table"), "{}", outcome.text());
    not_a_word(&outcome, PASSWORD);
    assert_eq!(world.state(&lost)["state"], json!("failed"));
    for job in [&store_file, &towns, &large] {
        assert_eq!(world.state(job)["state"], json!("succeeded"), "{:#}", world.state(job));
    }
    assert_eq!(tables(&far).await, ["towns"], "no table is made in somebody else's database");
    assert_eq!(rest.layers(&w).await, ["large", "towns"]);
    assert_eq!(rest.styles(&w).await, ["towns", "towns.night"]);
    if let Some(double) = world.doubles.first() {
        assert_eq!(double.layer(&w, "towns").unwrap().default_style, Some(format!("{w}:towns.night")));
        assert!(double.layer(&w, "large").unwrap().sql.unwrap().contains("inhabitants > 3000"));
    }
    // Files of styles are gone from the cache.
    assert_eq!(files_below(&cache(&world)), Vec::<PathBuf>::new());

    // The table comes; a style goes.
    let admin = far.admin().await;
    admin
        .batch_execute(&format!(
            "create table far.no_such_table as select * from far.towns; grant select on far.no_such_table to {ROLE}"
        ))
        .await
        .unwrap();
    world.pull().succeeded();
    styles.as_object_mut().unwrap().remove("night");
    world.publish_live_layer(&w, "far", "towns", &json!({"styles": styles, "job_id": 3}));
    world.commit("no night");
    world.pull().succeeded();
    assert_eq!(rest.layers(&w).await, ["large", "lost", "towns"]);
    assert_eq!(rest.styles(&w).await, ["towns"]);

    // A publication may mean other data, also where no `job_id` tells it from the last one.
    admin
        .batch_execute("insert into far.no_such_table values (6, 'far', 6, st_setsrid(st_makepoint(140, -31), 4283))")
        .await
        .unwrap();
    world.publish_live_layer(&w, "far", "lost", &bare);
    world.commit("other data");
    world.pull().succeeded();
    if let Some(double) = world.doubles.first() {
        assert_eq!(double.layer(&w, "lost").unwrap().native_box.unwrap().maxx, 140.0, "the boxes are computed again");
    }

    for file in [&towns, &large, &lost, &store_file] {
        world.master.remove(file);
    }
    world.commit("remove");
    world.pull().succeeded();
    assert_eq!((rest.layers(&w).await, rest.styles(&w).await, rest.stores(&w).await), (vec![], vec![], vec![]));
    assert_eq!(tables(&far).await, ["no_such_table", "towns"], "what others have is left alone");
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_layer_that_is_called_like_a_feature_layer() {
    let world = World::start(Vcs::Hg).await;
    let far = elsewhere().await;
    let towns = Layer::new("w", "towns");
    world.publish(&towns).await;
    world.commit("a feature layer");
    world.pull().succeeded();
    store(&world, "w", "far", far.name());
    let live = world.publish_live_layer("w", "far", "towns", &json!({}));
    world.commit("a live layer of the same name");
    world.pull().succeeded();
    let store_of = || world.geoserver().layer("w", "towns").map(|view| view.store);
    assert_eq!(store_of().as_deref(), Some("far"), "what was published last is shown");
    // The feature layer that is not shown any more does not take the live one with it.
    world.remove(&towns);
    world.commit("remove the feature layer");
    world.pull().succeeded();
    assert_eq!(store_of().as_deref(), Some("far"));
    world.master.remove(&live);
    world.commit("remove the live layer");
    world.pull().succeeded();
    assert_eq!(store_of(), None);
}
