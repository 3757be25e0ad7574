//! Foreign keys between tables that are replaced before, after and beside each other.

use super::*;

fn towns() -> Dump {
    Dump::new("towns")
}

fn roads() -> Dump {
    Dump::new("roads").references(
        "ws_data",
        "towns",
        "on update cascade on delete set null deferrable initially deferred",
    )
}

const KEY: &str = "ws_data.roads roads_towns_fkey FOREIGN KEY (towns_id) REFERENCES ws_data.towns(id) ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED";

#[tokio::test]
async fn a_key_follows_whichever_table_is_replaced() {
    let world = World::new().await;
    let (town, road) = (table("towns"), table("roads"));
    let archive = world.archive(&roads(), &road).await;
    assert_eq!(archive.foreign_keys()[0].references, ("ws_data".to_owned(), "towns".to_owned()));
    // The target is not there yet.
    world.database.load(&road, &archive, |_| ()).await.unwrap();
    let error = world.database.add_foreign_keys(&road, &archive, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Dependency, "{}", error.paragraph());
    world.publish(&towns(), &town).await.unwrap();
    world.database.add_foreign_keys(&road, &archive, &[]).await.unwrap();
    world.database.swap(&road, None).await.unwrap();
    assert_eq!(world.foreign_keys().await, KEY);
    world.run("comment on constraint roads_towns_fkey on ws_data.roads is 'town of the road'").await;
    // The target alone, then the referrer alone, then both loaded before either is published.
    world.publish(&towns().version(2), &town).await.unwrap();
    assert_eq!(world.foreign_keys().await, KEY);
    let comment = "select obj_description(oid, 'pg_constraint') from pg_constraint where conname = 'roads_towns_fkey'";
    assert_eq!(world.text(comment).await, "town of the road");
    world.publish(&roads().version(2), &road).await.unwrap();
    assert_eq!(world.foreign_keys().await, KEY);
    let (new_town, new_road) = (world.archive(&towns().version(3), &town).await, world.archive(&roads(), &road).await);
    world.database.load(&road, &new_road, |_| ()).await.unwrap();
    world.database.load(&town, &new_town, |_| ()).await.unwrap();
    world.database.swap(&town, None).await.unwrap();
    world.database.add_foreign_keys(&road, &new_road, &[]).await.unwrap();
    world.database.swap(&road, None).await.unwrap();
    assert_eq!(world.foreign_keys().await, KEY);
    assert_eq!(world.seen(&town).await, (3, 10));
    let broken = world.admin.batch_execute("insert into ws_data.roads (towns_id) values (99)").await;
    assert!(broken.is_err(), "the key is alive");
}

#[tokio::test]
async fn both_tables_at_the_same_moment() {
    let world = World::new().await;
    let (town, road) = (table("towns"), table("roads"));
    world.publish(&towns(), &town).await.unwrap();
    world.publish(&roads(), &road).await.unwrap();
    let (new_town, new_road) =
        (world.archive(&towns().version(2), &town).await, world.archive(&roads().version(2), &road).await);
    world.database.load(&road, &new_road, |_| ()).await.unwrap();
    world.database.load(&town, &new_town, |_| ()).await.unwrap();
    world.database.add_foreign_keys(&road, &new_road, &[]).await.unwrap();
    let (first, second) = tokio::join!(world.database.swap(&town, None), world.database.swap(&road, None));
    first.unwrap();
    second.unwrap();
    assert_eq!(world.foreign_keys().await, KEY);
    assert_eq!((world.seen(&town).await, world.seen(&road).await), ((2, 10), (2, 10)));
}

#[tokio::test]
async fn a_violation_names_the_key_and_leaves_the_old_state() {
    let world = World::new().await;
    let (town, road) = (table("towns"), table("roads"));
    world.publish(&towns(), &town).await.unwrap();
    world.publish(&roads(), &road).await.unwrap();
    // Fewer towns than the published roads need.
    let few = towns().rows(5).version(2);
    let error = world.publish(&few, &town).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database, "{}", error.paragraph());
    for named in ["roads_towns_fkey", "\"ws_data\".\"towns\"", "ws_data.roads"] {
        assert!(error.to_string().contains(named), "{}", error.paragraph());
    }
    assert_eq!(world.seen(&town).await, (1, 10));
    let towns_aside = KEY.replace("REFERENCES ws_data", "REFERENCES ws_outdated");
    assert_eq!(world.foreign_keys().await, towns_aside, "nothing is left but the key itself");
    // The master publishes roads that fit: loaded first, they free the towns.
    let fitting = world.archive(&roads().rows(5).version(2), &road).await;
    let few = world.archive(&few, &town).await;
    world.database.load(&road, &fitting, |_| ()).await.unwrap();
    publish(&world.database, &few, &town, "x").await.unwrap();
    world.database.add_foreign_keys(&road, &fitting, &[]).await.unwrap();
    world.database.swap(&road, None).await.unwrap();
    assert_eq!(world.foreign_keys().await, KEY);
    assert_eq!((world.seen(&town).await, world.seen(&road).await), ((2, 5), (2, 5)));
    // And a referrer that does not fit is refused, the published one stays.
    let error = world.publish(&roads().rows(6).version(3), &road).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database, "{}", error.paragraph());
    assert!(error.to_string().contains("roads_towns_fkey"), "{error}");
    assert_eq!(world.seen(&road).await, (2, 5));
}

#[tokio::test]
async fn interruptions_keep_the_key() {
    let world = World::new().await;
    let (town, road) = (table("towns"), table("roads"));
    world.publish(&towns(), &town).await.unwrap();
    world.publish(&roads(), &road).await.unwrap();
    // The referrer's new table points to the target's loaded one, which is then loaded again.
    let new_town = world.archive(&towns().version(2), &town).await;
    let new_road = world.archive(&roads().version(2), &road).await;
    let killed = world.db.open();
    killed.load(&town, &new_town, |_| ()).await.unwrap();
    killed.load(&road, &new_road, |_| ()).await.unwrap();
    killed.add_foreign_keys(&road, &new_road, &[]).await.unwrap();
    killed.swap(&road, None).await.unwrap();
    drop(killed);
    // A twin that a killed swap has left.
    world.run("alter table ws_data.roads add constraint borg_slave_fk_1 foreign key (towns_id) references ws_data.towns (id)").await;
    publish(&world.database, &new_town, &town, "x").await.unwrap();
    assert_eq!(world.foreign_keys().await, KEY);
    assert_eq!(
        world.relations().await,
        "v ws.roads, v ws.towns, r ws_data.roads, S ws_data.roads_id_seq, r ws_data.towns, S ws_data.towns_id_seq"
    );
}

#[tokio::test]
async fn keys_can_be_left_out_and_are_not_added_twice() {
    let world = World::new().await;
    let road = table("roads");
    let archive = world.archive(&roads(), &road).await;
    world.database.load(&road, &archive, |_| ()).await.unwrap();
    let towns_left_out = [("ws_data".to_owned(), "towns".to_owned())];
    world.database.add_foreign_keys(&road, &archive, &towns_left_out).await.unwrap();
    world.database.swap(&road, None).await.unwrap();
    assert_eq!(world.foreign_keys().await, "");
    world.publish(&towns(), &table("towns")).await.unwrap();
    for _ in 0..2 {
        world.database.add_foreign_keys(&road, &archive, &[]).await.unwrap();
    }
    assert_eq!(world.foreign_keys().await, KEY);
}

#[tokio::test]
async fn a_table_that_others_point_to_is_not_removed() {
    let world = World::new().await;
    let (town, road) = (table("towns"), table("roads"));
    world.publish(&towns(), &town).await.unwrap();
    world.publish(&roads(), &road).await.unwrap();
    let error = world.database.remove(&town).await.unwrap_err();
    assert!(error.message().contains("constraint roads_towns_fkey on table ws_data.roads"), "{error}");
    assert_eq!(world.seen(&town).await, (1, 10));
    assert!(world.database.remove(&road).await.unwrap());
    assert!(world.database.remove(&town).await.unwrap());
}

#[tokio::test]
async fn a_table_may_point_to_itself() {
    let world = World::new().await;
    let parts = table("parts");
    let dump = Dump::new("parts").sql("alter table {} add whole integer references {} (id)");
    for version in [1, 2] {
        world.publish(&dump.clone().version(version), &parts).await.unwrap();
        assert_eq!(world.seen(&parts).await, (version, 10));
    }
    assert_eq!(
        world.foreign_keys().await,
        "ws_data.parts parts_whole_fkey FOREIGN KEY (whole) REFERENCES ws_data.parts(id)"
    );
}
