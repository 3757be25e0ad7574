//! Heads of the state repository, and their merges.

use borg_slave::state_repo::Vcs;

use super::count;
use crate::support::world::{Layer, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_head_takes_nothing_away() {
    let world = World::start(Vcs::Hg).await;
    let fork = world.master.head();
    let first = Layer::new("cadastre", "first");
    world.publish(&first).await;
    world.commit("on the first head");
    world.pull().succeeded();

    world.master.update(fork.as_str());
    let second = Layer::new("cadastre", "second");
    world.publish(&second).await;
    world.commit("on a second head");
    world.pull().succeeded();
    assert_eq!((count(&world, "cadastre", "first").await, count(&world, "cadastre", "second").await), (10, 10));

    world.master.merge("first(head() and not .)");
    world.geoserver().clear_requests();
    world.pull().succeeded();
    assert_eq!((count(&world, "cadastre", "first").await, count(&world, "cadastre", "second").await), (10, 10));
    assert_eq!(world.geoserver().requests(), [], "both heads were applied before the merge");
}
