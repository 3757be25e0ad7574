//! The three moves: what readers see, what survives, and what a rerun makes of every interruption.

use super::*;

const AT_REST: &str = "v ws.roads, r ws_data.roads, S ws_data.roads_id_seq";

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
async fn a_swap_that_readers_keep_out_is_busy_and_resumes_without_loading_again() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let archive = world.archive(&Dump::new("roads").version(2), &roads).await.with_md5("two");
    let hasty = world.db.open_with_patience(Duration::from_millis(300));
    hasty.load(&roads, &archive, |_| ()).await.unwrap();
    let reader = world.db.admin().await;
    reader.batch_execute("begin; select * from ws.roads").await.unwrap();
    let error = hasty.swap(&roads, Some("two")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.paragraph());
    let pid = reader.query_one("select 'server process ' || pg_backend_pid()", &[]).await.unwrap();
    assert!(error.message().contains(pid.get::<_, &str>(0)), "{}", error.paragraph());
    assert_eq!(world.seen(&roads).await, (1, 10));
    reader.batch_execute("commit").await.unwrap();
    drop(hasty);
    // Another run: the loaded table is taken as it is.
    let loaded = world.text("select 'ws_data.roads'::regclass::oid::text").await;
    publish(&world.database, &archive, &roads, "two").await.unwrap();
    assert_eq!(world.text("select 'ws_data.roads'::regclass::oid::text").await, loaded);
    assert_eq!(world.seen(&roads).await, (2, 10));
    assert_eq!(world.relations().await, AT_REST);
}

#[tokio::test]
async fn every_interruption_is_healed_by_starting_again() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let two = world.archive(&Dump::new("roads").version(2), &roads).await;
    // What move 1 alone leaves; also what the older slave left when it was killed.
    world.run("alter table ws_data.roads set schema ws_outdated").await;
    assert_eq!(world.seen(&roads).await, (1, 10));
    assert_eq!(world.database.published_md5(&roads).await.unwrap(), None);
    publish(&world.database, &two, &roads, "two").await.unwrap();
    assert_eq!(world.seen(&roads).await, (2, 10));
    // Killed after loading; then another content is wanted.
    let three = world.archive(&Dump::new("roads").version(3), &roads).await.with_md5("three");
    let killed = world.db.open();
    killed.load(&roads, &three, |_| ()).await.unwrap();
    drop(killed);
    assert_eq!(world.seen(&roads).await, (2, 10));
    let four = world.archive(&Dump::new("roads").version(4), &roads).await.with_md5("four");
    publish(&world.database, &four, &roads, "four").await.unwrap();
    assert_eq!(world.seen(&roads).await, (4, 10));
    // Killed between swap and the journal: a second swap finds it done.
    let again = world.database.swap(&roads, Some("four")).await.unwrap();
    assert_eq!(again, Swapped { columns_changed: false, first_time: false });
    // What was not loaded is not published under its name.
    let error = world.database.swap(&roads, Some("five")).await.unwrap_err();
    assert!(error.message().contains("not the one that was loaded"), "{error}");
    assert_eq!(world.database.published_md5(&roads).await.unwrap().as_deref(), Some("four"));
    // A table is left in the outdated schema that nobody reads.
    world.run("create table ws_outdated.roads (id integer)").await;
    publish(&world.database, &two, &roads, "two").await.unwrap();
    assert_eq!(world.seen(&roads).await, (2, 10));
    assert_eq!(world.relations().await, AT_REST);
}

#[tokio::test]
async fn an_interrupted_first_publication_is_healed_too() {
    let world = World::new().await;
    let roads = table("roads");
    let archive = world.archive(&Dump::new("roads"), &roads).await;
    for _ in 0..2 {
        let killed = world.db.open();
        killed.load(&roads, &archive, |_| ()).await.unwrap();
    }
    let swapped = publish(&world.database, &archive, &roads, "one").await.unwrap();
    assert!(swapped.first_time);
    assert_eq!(world.relations().await, AT_REST);
    // The view has been dropped by hand: nothing is known for sure, and the next run makes it again.
    world.run("drop view ws.roads").await;
    assert_eq!(world.database.published_md5(&roads).await.unwrap(), None);
    publish(&world.database, &archive, &roads, "one").await.unwrap();
    assert_eq!(world.seen(&roads).await, (1, 10));
    assert_eq!(world.relations().await, AT_REST);
}

#[tokio::test]
async fn two_runs_do_not_work_on_one_table_at_once() {
    let world = World::new().await;
    let roads = table("roads");
    let archive = world.archive(&Dump::new("roads"), &roads).await;
    let first = world.db.open();
    first.load(&roads, &archive, |_| ()).await.unwrap();
    let hasty = world.db.open_with_patience(Duration::from_millis(200));
    let error = hasty.load(&roads, &archive, |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.message().contains("another borg-slave"), "{error}");
    // A patient one gets its turn when the first is gone.
    let waiting = {
        let (database, archive, roads) = (world.database.clone(), archive.clone(), roads.clone());
        tokio::spawn(async move { publish(&database, &archive, &roads, "x").await })
    };
    drop(first);
    waiting.await.unwrap().unwrap();
    assert_eq!(world.seen(&roads).await, (1, 10));
}

#[tokio::test]
async fn the_session_of_a_killed_restore_is_waited_for() {
    let world = World::new().await;
    let roads = table("roads");
    let archive = world.archive(&Dump::new("roads"), &roads).await;
    for end in ["rollback", "commit"] {
        // A restore whose client is gone and whose server process is still at work.
        let orphan = world.db.client().await;
        orphan.batch_execute("begin; create table ws_data.roads (id integer)").await.unwrap();
        let loading = {
            let (database, archive, roads) = (world.database.clone(), archive.clone(), roads.clone());
            tokio::spawn(async move { publish(&database, &archive, &roads, "x").await })
        };
        let waiting = "select count(*)::text from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        while world.text(waiting).await == "0" {
            assert!(!loading.is_finished(), "it did not wait: {:?}", loading.await);
        }
        orphan.batch_execute(end).await.unwrap();
        loading.await.unwrap().unwrap();
        assert_eq!(world.seen(&roads).await, (1, 10), "{end}");
        assert!(world.database.remove(&roads).await.unwrap());
    }
}

#[tokio::test]
async fn a_damaged_dump_leaves_the_old_table() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let whole = world.file(&Dump::new("roads").rows(20_000).version(2)).await;
    let archive = inspect(&truncated(&whole), &roads).await.unwrap();
    let error = world.database.load(&roads, &archive, |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Archive, "{}", error.paragraph());
    assert!(error.hint_text().is_some());
    assert_eq!(world.seen(&roads).await, (1, 10));
    assert_eq!(world.relations().await, AT_REST, "the old table is back in its place");
    assert_eq!(world.database.published_md5(&roads).await.unwrap().as_deref(), Some("md5"));
    let archive = inspect(&whole, &roads).await.unwrap();
    publish(&world.database, &archive, &roads, "x").await.unwrap();
    assert_eq!(world.seen(&roads).await, (2, 20_000));
    assert_eq!(world.relations().await, AT_REST);
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
    world.publish(&fine, &roads).await.unwrap();
    assert_eq!(world.text("select relacl::text from pg_class where oid = 'ws_data.roads'::regclass").await, "");
}

#[tokio::test]
async fn grants_and_views_above_survive_an_added_column() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    world
        .run("create view public.labels as select id, label from ws.roads; grant select on public.labels, ws.roads to sso_other")
        .await;
    let view = "select 'ws.roads'::regclass::oid::text";
    let before = world.text(view).await;
    let swapped = world.publish(&Dump::new("roads").version(2).column("depth integer"), &roads).await.unwrap();
    assert_eq!(swapped, Swapped { columns_changed: true, first_time: false });
    assert_eq!(world.text(view).await, before, "an extended view is replaced in place");
    let granted = "select has_table_privilege('sso_other', 'public.labels', 'select')::text || has_table_privilege('sso_other', 'ws.roads', 'select')";
    assert_eq!(world.text(granted).await, "truetrue");
    assert_eq!(world.text("select label from public.labels where id = 3").await, "Straße 道路 3");
}

#[tokio::test]
async fn all_that_hangs_on_the_views_survives_other_columns() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads").column("doomed integer"), &roads).await.unwrap();
    world.database.apply_access(&ident("ws"), Access::Shared).await.unwrap();
    world
        .run(
            "revoke select on ws.roads from sso_access;
             grant select (label, doomed) on ws.roads to sso_other with grant option;
             comment on view ws.roads is 'all roads'; comment on column ws.roads.label is 'the label';
             create view public.labels with (security_barrier) as select id as \"No\", label from ws.roads;
             create view public.counts as select count(*) as n, (select max(version) from ws.roads) as version from public.labels;
             create view public.direct as select d.id, l.label from ws_data.roads d join public.labels l on l.\"No\" = d.id;
             comment on view public.labels is 'it''s labels'; comment on column public.labels.\"No\" is 'number';
             alter view public.labels alter column label set default 'none';
             grant select on public.counts to public; grant select on public.labels to sso_other;
             create function public.nothing() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger quiet instead of insert on public.labels for each row execute function public.nothing();
             create rule mute as on delete to public.counts do instead nothing;
             alter view public.labels owner to borg; alter view public.counts owner to borg; alter view public.direct owner to borg;
             grant sso_other to borg; alter view public.counts owner to sso_other;
             grant usage on schema ws to sso_other; grant create on schema public to sso_other; grant select on ws.roads to sso_other;
             grant select on public.labels to sso_other",
        )
        .await;
    let dress = "select string_agg(format('%s %s %s %s %s', c.oid::regclass, c.relowner::regrole, c.reloptions,
            (select string_agg(a::text, ',' order by a::text) from unnest(c.relacl) a), obj_description(c.oid)), E'\n' order by c.oid::regclass::text)
            || (select string_agg(col_description(attrelid, attnum) || attacl::text, ',') from pg_attribute
                 where attrelid = 'ws.roads'::regclass and attname = 'label')
            || col_description('public.labels'::regclass, 1)
            || pg_get_expr((select adbin from pg_attrdef where adrelid = 'public.labels'::regclass), 'public.labels'::regclass)
            || (select count(*) from pg_trigger where tgrelid = 'public.labels'::regclass)
            || (select count(*) from pg_rules where tablename = 'counts')
        from pg_class c where c.oid in ('ws.roads'::regclass, 'public.labels'::regclass, 'public.counts'::regclass, 'public.direct'::regclass)";
    let before = world.text(dress).await;
    let dump = Dump::new("roads").version(2).first_column("code integer default 7");
    let swapped = world.publish(&dump, &roads).await.unwrap();
    assert!(swapped.columns_changed);
    assert_eq!(world.text(dress).await, before);
    assert_eq!(world.text("select version::text from public.counts").await, "2");
    assert_eq!(world.text("select count(*)::text from public.direct").await, "10");
    assert_eq!(world.relations().await, AT_REST);
    // Once more in place, with the view that reads the table itself.
    world.publish(&dump.version(3), &roads).await.unwrap();
    assert_eq!(world.text("select version::text from public.counts").await, "3");
    assert_eq!(world.text(dress).await, before);
}

#[tokio::test]
async fn what_cannot_be_kept_is_named_and_the_old_state_stays() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    let without_label = world.archive(&Dump::new("roads").version(2).without("label"), &roads).await;
    for (make, named, unmake) in [
        ("create view public.labels as select label from ws.roads", "public.labels", "drop view public.labels"),
        (
            "create materialized view public.copy as select id from ws.roads",
            "materialized view public.copy",
            "drop materialized view public.copy",
        ),
        (
            "create materialized view public.copy as select id from ws_data.roads",
            "materialized view public.copy",
            "drop materialized view public.copy",
        ),
        (
            "create function public.f(ws.roads) returns integer language sql as 'select 1'",
            "function public.f(ws.roads)",
            "drop function public.f(ws.roads)",
        ),
    ] {
        world.run(make).await;
        world.run("do $$ begin if to_regclass('public.labels') is not null then alter view public.labels owner to borg; end if; end $$").await;
        let error = publish(&world.database, &without_label, &roads, "x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Database, "{}", error.paragraph());
        assert!(error.to_string().replace('"', "").contains(named), "{named}: {}", error.paragraph());
        assert!(error.hint_text().is_some());
        assert_eq!(world.seen(&roads).await, (1, 10));
        world.run(unmake).await;
    }
    let retyped = Dump::new("roads").version(3).without("label").column("label integer");
    world.publish(&retyped, &roads).await.unwrap();
    assert_eq!(world.seen(&roads).await, (3, 10));
    assert_eq!(world.relations().await, AT_REST);
}

#[tokio::test]
async fn something_else_under_the_name_is_not_touched() {
    let world = World::new().await;
    let roads = table("roads");
    world.run("create table ws.roads (precious integer)").await;
    let error = world.publish(&Dump::new("roads"), &roads).await.unwrap_err();
    assert!(error.message().contains("something else than a view"), "{error}");
    assert!(world.database.remove(&roads).await.is_err());
    assert!(world.relations().await.contains("r ws.roads"));
}

#[tokio::test]
async fn removal_takes_the_layer_and_nothing_else() {
    let world = World::new().await;
    let roads = table("roads");
    assert!(!world.database.remove(&roads).await.unwrap());
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    world.run("create view public.labels as select label from ws.roads").await;
    let error = world.database.remove(&roads).await.unwrap_err();
    assert!(error.message().contains("view public.labels depends on view ws.roads"), "{error}");
    assert_eq!(world.seen(&roads).await, (1, 10));
    world.run("drop view public.labels").await;
    // Also when a replacement was interrupted.
    let killed = world.db.open();
    let archive = world.archive(&Dump::new("roads").version(2), &roads).await;
    killed.load(&roads, &archive, |_| ()).await.unwrap();
    drop(killed);
    assert!(world.database.remove(&roads).await.unwrap());
    assert!(!world.database.remove(&roads).await.unwrap());
    assert_eq!(world.relations().await, "");
    assert_eq!(world.database.published_md5(&roads).await.unwrap(), None);
}

#[tokio::test]
async fn a_stopped_run_ends_its_restore_and_the_next_goes_on() {
    let world = World::new().await;
    let roads = table("roads");
    let archive = world.archive(&Dump::new("roads"), &roads).await;
    let stop = CancellationToken::new();
    let stopped = Database::new(world.db.options(), 4, stop.clone()).unwrap();
    // The restore waits for this transaction, so it is surely at work when the stop comes.
    let blocker = world.db.client().await;
    blocker.batch_execute("begin; create table ws_data.roads (id integer)").await.unwrap();
    let loading = {
        let (archive, roads) = (archive.clone(), roads.clone());
        tokio::spawn(async move { stopped.load(&roads, &archive, |_| ()).await })
    };
    let restores = "select count(*)::text from pg_stat_activity where application_name like 'borg-slave restore%' and datname = current_database()";
    let waiting = format!("{restores} and wait_event_type = 'Lock'");
    while world.text(&waiting).await == "0" {
        assert!(!loading.is_finished(), "it did not wait: {:?}", loading.await);
    }
    stop.cancel();
    assert_eq!(loading.await.unwrap().unwrap_err().kind(), ErrorKind::Stopped);
    let ended = async { while world.text(restores).await != "0" {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the server gives the orphan up");
    blocker.batch_execute("rollback").await.unwrap();
    publish(&world.database, &archive, &roads, "x").await.unwrap();
    assert_eq!(world.seen(&roads).await, (1, 10));
    assert_eq!(world.relations().await, AT_REST);
}

#[tokio::test]
async fn a_run_killed_at_any_moment_is_continued_by_the_next() {
    let world = World::new().await;
    let (town, road) = (table("towns"), table("roads"));
    let towns = Dump::new("towns");
    let roads = Dump::new("roads").references("ws_data", "towns", "");
    world.publish(&towns, &town).await.unwrap();
    world.publish(&roads, &road).await.unwrap();
    let archives = [
        (world.archive(&towns.clone().version(2), &town).await, world.archive(&roads.clone().version(2), &road).await),
        (
            world.archive(&towns.version(3).first_column("x integer"), &town).await,
            world.archive(&roads.version(3).first_column("x integer"), &road).await,
        ),
    ];
    let started = Instant::now();
    publish(&world.database, &archives[0].0, &town, "x").await.unwrap();
    publish(&world.database, &archives[0].1, &road, "x").await.unwrap();
    let whole = started.elapsed();
    let mut finished = 0;
    for round in 0..24_u32 {
        let (new_towns, new_roads) = &archives[round as usize % 2];
        // Dropping the future ends the children with KILL and closes the sessions, as a kill does.
        let run = async {
            let killed = world.db.open();
            publish(&killed, new_towns, &town, "x").await?;
            publish(&killed, new_roads, &road, "x").await
        };
        if let Ok(outcome) = tokio::time::timeout(whole * (round + 1) / 24, run).await {
            outcome.unwrap();
            finished += 1;
        }
        assert_eq!(world.seen(&town).await.1, 10, "readers always find a whole table");
        assert_eq!(world.seen(&road).await.1, 10);
    }
    assert!(finished < 24, "some rounds were cut short");
    publish(&world.database, &archives[1].0, &town, "x").await.unwrap();
    publish(&world.database, &archives[1].1, &road, "x").await.unwrap();
    assert_eq!((world.seen(&town).await, world.seen(&road).await), ((3, 10), (3, 10)));
    assert_eq!(
        world.foreign_keys().await,
        "ws_data.roads roads_towns_fkey FOREIGN KEY (towns_id) REFERENCES ws_data.towns(id)"
    );
    assert_eq!(
        world.relations().await,
        "v ws.roads, v ws.towns, r ws_data.roads, S ws_data.roads_id_seq, r ws_data.towns, S ws_data.towns_id_seq"
    );
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
    let progress = move |rows| _ = seen.fetch_max(rows, Ordering::Relaxed);
    world.database.load(&roads, &archive, progress).await.unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!((1..=12).contains(&most), "{most} rows");
}
