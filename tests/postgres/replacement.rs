//! Publishing and publishing again: what readers see, and which dumps are taken.

use super::*;

#[tokio::test]
async fn a_table_is_published_and_published_again() {
    let world = World::new().await;
    let roads = table("roads");
    assert_eq!(world.database.published_md5(&roads).await.unwrap(), None);
    let first = world.archive(&Dump::new("roads").rows(1000), &roads).await;
    let swapped = publish(&world.database, &first, &roads, "aaa").await.unwrap();
    assert_eq!(swapped, Swapped { columns_changed: false, first_time: true });
    assert_eq!(world.seen(&roads).await, (1, 1000));
    assert_eq!(world.database.published_md5(&roads).await.unwrap().as_deref(), Some("aaa"));
    assert_eq!(world.database.srid(&roads.schema, &roads.name, "geom").await.unwrap(), Some(4283));
    assert_eq!(world.database.srid(&roads.schema, &roads.name, "label").await.unwrap(), None);
    let estimated = "select public.st_estimatedextent('ws_data', 'roads', 'geom')::text";
    assert!(world.text(estimated).await.starts_with("BOX("), "statistics were collected");

    let second = world.archive(&Dump::new("roads").version(2).tar(), &roads).await;
    let swapped = publish(&world.database, &second, &roads, "bbb").await.unwrap();
    assert_eq!(swapped, Swapped { columns_changed: false, first_time: false });
    assert_eq!(world.seen(&roads).await, (2, 10));
    assert_eq!(world.database.published_md5(&roads).await.unwrap().as_deref(), Some("bbb"));
    assert_eq!(world.relations().await, AT_REST);
    let label = "select label || obj_description('ws_data.roads'::regclass) from ws.roads where id = 1";
    assert_eq!(world.text(label).await, "Straße 道路 1Straßen; it's \"all\"");
}

#[tokio::test]
async fn kinds_of_tables_and_names() {
    let world = World::with_schema("Wörk \"space\"").await;
    let name = "Straßen \"alt\"; drop 'x'";
    let odd = table_in("Wörk \"space\"", name);
    let dump = Dump::new(name).schema("Wörk \"space\"_data").geometry("Polygon");
    for version in [1, 2] {
        world.publish(&dump.clone().version(version), &odd).await.unwrap();
        assert_eq!(world.seen(&odd).await, (version, 10));
    }
    assert!(world.database.remove(&odd).await.unwrap());

    let world = World::new().await;
    let plain = table("plain");
    world.publish(&Dump::new("plain").without_geometry(), &plain).await.unwrap();
    let columns = world.database.columns(&plain.schema, &plain.name).await.unwrap().unwrap();
    let columns: Vec<String> =
        columns.into_iter().map(|column| format!("{} {}", column.name, column.type_name)).collect();
    assert_eq!(columns, ["id integer", "label text", "version integer"]);
    let empty = table("empty");
    world.publish(&Dump::new("empty").rows(0).geometry("LineString"), &empty).await.unwrap();
    let columns = world.database.columns(&empty.schema, &empty.name).await.unwrap().unwrap();
    assert_eq!(columns[3].type_name, "public.geometry(LineString,4283)");
    assert_eq!(world.database.columns(&empty.schema, &ident("none")).await.unwrap(), None);
}

#[tokio::test]
async fn a_reader_never_meets_an_error_or_an_empty_view() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let archives = [
        world.archive(&Dump::new("roads").version(2), &roads).await,
        world.archive(&Dump::new("roads").version(3).column("depth integer default 1"), &roads).await,
    ];
    let done = Arc::new(AtomicBool::new(false));
    let reader = world.db.admin().await;
    let finished = done.clone();
    let polls = tokio::spawn(async move {
        let mut polls = 0_u32;
        while !finished.load(Ordering::Relaxed) {
            // The simple protocol, as a reader without prepared statements.
            let rows = reader.simple_query("select count(*) from ws.roads").await.unwrap();
            let count = rows.iter().find_map(|row| match row {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            assert_eq!(count.as_deref(), Some("10"));
            polls += 1;
        }
        polls
    });
    for round in 0..20 {
        publish(&world.database, &archives[round % 2], &roads, "x").await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert!(polls.await.unwrap() > 20);
    assert_eq!(world.relations().await, AT_REST);
}

#[tokio::test]
async fn a_slow_reader_does_not_make_others_wait() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let archive = world.archive(&Dump::new("roads").version(2), &roads).await;
    world.database.load(&roads, &archive, |_| ()).await.unwrap();
    let slow = world.db.admin().await;
    slow.batch_execute("begin; select 1 from ws.roads").await.unwrap();
    let started = Instant::now();
    let slow = tokio::spawn(async move {
        slow.batch_execute("select pg_sleep(4) from ws.roads limit 1; commit").await.unwrap();
    });
    let database = world.database.clone();
    let swapping = tokio::spawn({
        let roads = roads.clone();
        async move { database.swap(&roads, None).await }
    });
    let mut longest = Duration::ZERO;
    let reader = world.db.admin().await;
    while !slow.is_finished() {
        let asked = Instant::now();
        reader.batch_execute("select * from ws.roads").await.unwrap();
        longest = longest.max(asked.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "a new reader waited {longest:?}");
    swapping.await.unwrap().unwrap();
    assert!(started.elapsed() > Duration::from_secs(3), "the swap waited for the reader");
    assert_eq!(world.seen(&roads).await, (2, 10));
}

#[tokio::test]
async fn dumps_of_anything_else_are_refused_by_name() {
    let world = World::new().await;
    let roads = table("roads");
    let function = "create function ws_data.evil() returns trigger language plpgsql as $$ begin return new; end $$";
    let cases = [
        (
            Dump::new("roads").sql("create table ws_data.other (id integer)").also("ws_data.other"),
            "TABLE ws_data other",
        ),
        (
            Dump::new("roads").sql("create view ws_data.peek as select 1 as one").also("ws_data.peek"),
            "VIEW ws_data peek",
        ),
        (Dump::new("roads").sql(function).whole_schema(), "`"),
        (
            Dump::new("roads")
                .sql(function)
                .sql("create trigger t before insert on {} execute function ws_data.evil()"),
            "TRIGGER ws_data roads t",
        ),
        (Dump::new("rivers"), "TABLE ws_data rivers"),
        (Dump::new("roads old"), "roads old"),
        (Dump::new("roads").schema("elsewhere"), "TABLE elsewhere roads"),
        (Dump::new("roads").sql("create sequence ws_data.lonely").also("ws_data.lonely"), "sequence lonely"),
        (
            Dump::new("roads")
                .sql("create table ws_data.top (x integer)")
                .sql("alter table {} add x integer; alter table {} inherit ws_data.top"),
            "roads",
        ),
    ];
    for (dump, named) in cases {
        let error = inspect(&world.file(&dump).await, &roads).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Archive, "{named}: {}", error.paragraph());
        assert!(error.message().contains(named), "{named}: {}", error.paragraph());
    }
    let plain = world.file(&Dump::new("roads").plain()).await;
    let error = inspect(&plain, &roads).await.unwrap_err();
    assert!(error.message().contains("no custom or tar archive"), "{error}");
    let error = inspect(Path::new("/no/such.db"), &roads).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    // Privileges in a dump are nobody's business here, identity columns and statistics are fine.
    let fine = Dump::new("roads")
        .column("serial_no integer generated always as identity")
        .sql("grant select on {} to public")
        .sql("create statistics ws_data.roads_stats on id, version from {}")
        .sql("alter table {} cluster on roads_pkey");
    for version in 1..=3 {
        world.publish(&fine.clone().version(version), &roads).await.unwrap();
        assert_eq!(world.text("select relacl::text from pg_class where oid = 'ws_data.roads'::regclass").await, "");
        // Dumps of newer servers bring them under the same name each time.
        let again = "create statistics ws_data.roads_again on id, version from ws_data.roads";
        world.run(&format!("set role borg; {again}; reset role")).await;
        // And an administrator's are no concern of the slave.
        world.run(&format!("create statistics ws_data.roads_{version} on id, label from ws_data.roads")).await;
    }
}

#[tokio::test]
async fn progress_counts_rows_while_the_dump_is_loaded() {
    let world = World::new().await;
    let roads = table("roads");
    // A check that takes its time keeps the copy at work for a few rounds of the progress.
    let slow = Dump::new("roads").rows(12).sql("alter table {} add check (pg_sleep(0.25) is not null)");
    let archive = world.archive(&slow, &roads).await;
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let parts = Arc::new(Mutex::new(Vec::new()));
    let read = parts.clone();
    let progress = move |at: LoadProgress| {
        seen.fetch_max(at.rows, Ordering::Relaxed);
        read.lock().unwrap().push(at.read.expect("the part that is read is known"));
    };
    world.database.load(&roads, &archive, progress).await.unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!((1..=12).contains(&most), "{most} rows");
    let parts = parts.lock().unwrap();
    // The dump is so small that it is read at once, and then the rows are still on their way.
    assert!(parts.is_sorted() && parts.iter().all(|part| (0.5..1.0).contains(part)), "{parts:?}");
}

#[tokio::test]
async fn a_large_dump_is_loaded_whole_with_its_indexes() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let file = world.file(&large("roads").version(2)).await;
    assert!(std::fs::metadata(&file).unwrap().len() > 1 << 20, "large enough for two sessions");
    let archive = inspect(&file, &roads).await.unwrap();
    let loading = {
        let (database, archive, roads) = (world.database.clone(), archive.clone(), roads.clone());
        tokio::spawn(async move { publish(&database, &archive, &roads, "two").await })
    };
    while !loading.is_finished() {
        let seen = world.seen(&roads).await;
        assert!([(1, 10), (2, 30_000)].contains(&seen), "readers see nothing of what is loaded in part: {seen:?}");
    }
    loading.await.unwrap().unwrap();
    assert_eq!(world.seen(&roads).await, (2, 30_000));
    assert_eq!(world.relations().await, AT_REST);
    let indexes = "select string_agg(indexname, ' ' order by indexname) from pg_indexes where schemaname = 'ws_data'";
    assert_eq!(world.text(indexes).await, "roads_geom_idx roads_label_idx roads_pkey");
}
