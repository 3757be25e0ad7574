//! What hangs on a view: it survives, or it is named and everything stays as it is.

use super::*;

#[tokio::test]
async fn grants_and_views_above_survive_an_added_column() {
    let world = World::new().await;
    let roads = table("roads");
    world.publish(&Dump::new("roads"), &roads).await.unwrap();
    world
        .run("create view public.labels as select id, label from ws.roads; grant select on public.labels, ws.roads to sso_other;
             alter view ws.roads set (security_barrier)")
        .await;
    let view = "select 'ws.roads'::regclass::oid::text";
    let before = world.text(view).await;
    let swapped = world.publish(&Dump::new("roads").version(2).column("depth integer"), &roads).await.unwrap();
    assert_eq!(swapped, Swapped { columns_changed: true, first_time: false });
    assert_eq!(world.text(view).await, before, "an extended view is replaced in place");
    let granted = "select has_table_privilege('sso_other', 'public.labels', 'select')::text || has_table_privilege('sso_other', 'ws.roads', 'select')";
    assert_eq!(world.text(granted).await, "truetrue");
    let options = "select reloptions::text from pg_class where oid = 'ws.roads'::regclass";
    assert_eq!(world.text(options).await, "{security_barrier=true}");
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
async fn a_view_over_two_tables_reads_of_each_what_is_published() {
    let world = World::new().await;
    let (road, town) = (table("roads"), table("towns"));
    let (roads, towns) = (Dump::new("roads"), Dump::new("towns"));
    world.publish(&roads, &road).await.unwrap();
    world.publish(&towns, &town).await.unwrap();
    world
        .run(
            "create view public.both as
                select r.version as road, towns.version as town, 'ws_outdated.roads' as text, 'ws_data.towns'::regclass as class
                  from ws_data.roads r join ws_data.towns using (id);
             alter view public.both owner to borg",
        )
        .await;
    let seen = "select distinct concat_ws(' ', road, town, text, class::text) from public.both";
    let definition = "select pg_get_viewdef('public.both'::regclass)";
    let before = world.text(definition).await;
    let load = async |dump: &Dump, table: &Table| {
        let archive = world.archive(dump, table).await;
        world.database.load(table, &archive, |_| ()).await.unwrap();
    };
    load(&roads.clone().version(2), &road).await;
    load(&towns.clone().version(2), &town).await;
    world.database.swap(&road, None).await.unwrap();
    assert_eq!(world.text(seen).await, "2 1 ws_outdated.roads ws_outdated.towns");
    world.database.swap(&town, None).await.unwrap();
    assert_eq!(world.text(seen).await, "2 2 ws_outdated.roads ws_data.towns");
    assert_eq!(world.text(definition).await, before);
    // The other one is put aside, and its successor is not there yet.
    load(&roads.version(3), &road).await;
    world.run("alter table ws_data.towns set schema ws_outdated").await;
    world.database.swap(&road, None).await.unwrap();
    assert_eq!(world.text(seen).await, "3 2 ws_outdated.roads ws_outdated.towns");
    world.publish(&towns.version(3), &town).await.unwrap();
    assert_eq!(world.text(seen).await, "3 3 ws_outdated.roads ws_data.towns");
    assert_eq!(world.text(definition).await, before);
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
