//! What is left by runs that were kept out, stopped, killed or fed a damaged dump, and how the next goes on.

use super::*;

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
    // In one transaction, and in two sessions, each with its own.
    for (dump, rows) in [(Dump::new("roads").rows(20_000), 20_000), (large("roads"), 30_000)] {
        world.publish(&Dump::new("roads"), &roads).await.unwrap();
        let whole = world.file(&dump.version(2)).await;
        let archive = inspect(&truncated(&whole), &roads).await.unwrap();
        let error = world.database.load(&roads, &archive, |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Archive, "{}", error.paragraph());
        assert!(error.hint_text().is_some());
        assert_eq!(world.seen(&roads).await, (1, 10));
        assert_eq!(world.relations().await, AT_REST, "the old table is back in its place");
        assert_eq!(world.database.published_md5(&roads).await.unwrap().as_deref(), Some("md5"));
        let archive = inspect(&whole, &roads).await.unwrap();
        publish(&world.database, &archive, &roads, "x").await.unwrap();
        assert_eq!(world.seen(&roads).await, (2, rows));
        assert_eq!(world.relations().await, AT_REST);
    }
}

#[tokio::test]
async fn what_has_the_name_of_an_index_is_named_and_no_half_of_the_table_stays() {
    let world = World::new().await;
    let roads = table("roads");
    let in_the_way = "create table ws_data.other (id integer); create index roads_label_idx on ws_data.other (id)";
    world.run(in_the_way).await;
    // In one transaction, and with indexes in sessions of their own; for the first time, and again.
    for published in [false, true] {
        for dump in [Dump::new("roads"), large("roads")] {
            let archive = world.archive(&dump.version(2), &roads).await;
            let before = world.relations().await;
            let error = world.database.load(&roads, &archive, |_| ()).await.unwrap_err();
            assert_eq!(world.relations().await, before, "published before: {published}");
            let text = error.paragraph();
            assert!(text.contains("\"roads_label_idx\" is an index of ws_data.other"), "{text}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("rename or drop")), "{text}");
        }
        if published {
            assert_eq!(world.seen(&roads).await, (1, 10));
            continue;
        }
        world.run("drop table ws_data.other").await;
        world.publish(&Dump::new("roads"), &roads).await.unwrap();
        // The table that goes aside takes its own index with it.
        world.run("drop index ws_data.roads_label_idx").await;
        world.run(in_the_way).await;
    }
}

#[tokio::test]
async fn a_dump_that_changes_while_it_is_read_is_not_taken() {
    let world = World::new().await;
    let roads = table("roads");
    // Read once, and by two programs, after each of which it may be another one.
    for (dump, rows, readings) in [(Dump::new("roads").rows(20), 20, 1), (large("roads"), 30_000, 2)] {
        world.publish(&Dump::new("roads"), &roads).await.unwrap();
        let file = world.file(&dump.version(2)).await;
        for unchanged in 0..readings {
            let asked = AtomicU64::new(0);
            let check = move || {
                let is_same = asked.fetch_add(1, Ordering::Relaxed) < unchanged;
                is_same.then_some(()).ok_or_else(|| Error::new(ErrorKind::Checksum, "it was changed"))
            };
            let archive = inspect(&file, &roads).await.unwrap().with_md5("two").with_check(check);
            let error = world.database.load(&roads, &archive, |_| ()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Checksum, "{}", error.paragraph());
            assert_eq!(world.seen(&roads).await, (1, 10));
            assert_eq!(world.relations().await, AT_REST, "nothing of what was read stays");
        }
        let archive = inspect(&file, &roads).await.unwrap().with_md5("two");
        publish(&world.database, &archive, &roads, "two").await.unwrap();
        assert_eq!(world.seen(&roads).await, (2, rows));
    }
}

#[tokio::test]
async fn a_table_is_whole_when_it_is_loaded_or_read() {
    let world = World::new().await;
    let roads = table("roads");
    let is_whole = async || world.database.is_whole(&roads.data_schema, &roads.name).await.unwrap();
    assert!(!is_whole().await, "it is not there");
    world.run("create table ws_data.roads (id integer)").await;
    assert!(!is_whole().await, "somebody has left it");
    world.run("create view ws.roads as select * from ws_data.roads").await;
    assert!(is_whole().await, "readers have it");
    world.run("drop view ws.roads; drop table ws_data.roads").await;
    let archive = world.archive(&Dump::new("roads"), &roads).await;
    world.database.load(&roads, &archive, |_| ()).await.unwrap();
    assert!(is_whole().await, "it is loaded");
    world.database.swap(&roads, None).await.unwrap();
    world.run("drop view ws.roads").await;
    assert!(is_whole().await, "it was published");
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
async fn a_run_killed_while_two_sessions_load_is_continued_by_the_next() {
    let world = World::new().await;
    let roads = table("roads");
    let archives =
        [world.archive(&large("roads"), &roads).await, world.archive(&large("roads").version(2), &roads).await];
    let whole = {
        let started = Instant::now();
        publish(&world.database, &archives[0], &roads, "x").await.unwrap();
        started.elapsed()
    };
    assert!(world.database.remove(&roads).await.unwrap());
    let (mut in_part, mut first_time) = (0, true);
    for round in 0..12_u32 {
        let archive = &archives[round as usize % 2];
        let run = async {
            let killed = world.db.open();
            publish(&killed, archive, &roads, "x").await
        };
        let unfinished = "select count(*)::text from pg_class as c where c.oid = to_regclass('ws_data.roads') \
            and not exists (select from borg_slave.published as b where c.oid in (b.data_oid, b.loaded_oid))";
        // Every third round is cut short as soon as a part is there, the others after a while.
        let moment = async {
            if round % 3 > 0 {
                return tokio::time::sleep(whole * (round % 6 + 1) / 8).await;
            }
            while world.text(unfinished).await == "0" {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let ended = tokio::select! {
            outcome = run => outcome.is_ok(),
            () = moment => false,
        };
        if ended {
            first_time = false;
        }
        in_part += world.text(unfinished).await.parse::<u32>().unwrap();
        if round == 5 {
            publish(&world.database, &archives[0], &roads, "x").await.unwrap();
            first_time = false;
        }
        if !first_time {
            assert_eq!(world.seen(&roads).await.1, 30_000, "readers always find a whole table");
        }
    }
    assert!(in_part > 0, "some rounds were cut short while a part was loaded");
    publish(&world.database, &archives[1], &roads, "x").await.unwrap();
    assert_eq!(world.seen(&roads).await, (2, 30_000));
    assert_eq!(world.relations().await, AT_REST);
}
