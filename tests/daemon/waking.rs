//! What begins a round.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_round_is_made_at_once_and_the_next_when_the_interval_is_over() {
    let (world, roads) = world(Vcs::Git).await;
    let daemon = Daemon::start(&world, &["--interval", "1"]);
    daemon.rounds(1);
    assert_eq!(world.state(&roads.job_file())["state"], "succeeded");
    let lakes = Layer::new("cadastre", "lakes");
    world.publish(&lakes).await;
    world.commit("lakes");
    becomes(&world, &lakes, "succeeded");
    assert!(daemon.count("why=Interval") >= 1);
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_and_without_hooks_the_daemon_applies_what_its_own_pull_brings_and_that_wakes_nobody() {
    for (vcs, hooks) in [(Vcs::Hg, true), (Vcs::Git, true), (Vcs::Git, false)] {
        let (world, roads) = world(vcs).await;
        if !hooks {
            remove_hooks(&world);
        }
        let daemon = Daemon::asleep(&world);
        assert_eq!(world.state(&roads.job_file())["state"], "succeeded");
        let lakes = Layer::new("cadastre", "lakes");
        world.publish(&lakes).await;
        world.commit("lakes");
        daemon.signal(Signal::USR1);
        daemon.rounds(2);
        assert_eq!(world.state(&lakes.job_file())["state"], "succeeded");
        daemon.signal(Signal::USR1);
        daemon.rounds(3);
        let outcome = daemon.end();
        assert_eq!(outcome.stderr.matches("why=").count(), 3, "{vcs:?}, hooks: {hooks}: {}", outcome.text());
        assert!(!outcome.stderr.contains("waiting for"), "the hook has waited: {}", outcome.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_by_hand_is_applied_at_once() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let (world, _) = world(vcs).await;
        let daemon = Daemon::asleep(&world);
        let lakes = Layer::new("cadastre", "lakes");
        world.publish(&lakes).await;
        world.commit("lakes");
        pull_without_hook(&world);
        daemon.says("why=Clone", 1);
        becomes(&world, &lakes, "succeeded");
        daemon.rounds(2);
        // One whose hook applies it leaves nothing to do, and neither waits for the other for long.
        let woods = Layer::new("cadastre", "woods");
        world.publish(&woods).await;
        world.commit("woods");
        world.pull().succeeded();
        assert_eq!(world.state(&woods.job_file())["attempts"], 1);
        daemon.rounds(3);
        assert_eq!(world.state(&woods.job_file())["attempts"], 1);
        let runs = daemon.end().stderr.matches("the pass begins").count();
        assert_eq!(runs, 2, "the hook's work is not done again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_round_can_be_asked_for_and_tells_how_it_went() {
    let (world, roads) = world(Vcs::Hg).await;
    world.slave(&["poll", "--once"]).succeeded();
    assert_eq!(world.state(&roads.job_file())["state"], "succeeded");
    let lakes = Layer::new("cadastre", "lakes");
    fs::remove_file(world.publish(&lakes).await.dump).unwrap();
    world.commit("a mistake");
    assert_eq!(world.slave(&["poll", "--once"]).says("lakes.db").code, Some(1));
    // The next round leaves the job alone, but all is still not well.
    assert_eq!(world.slave(&["poll", "--once"]).code, Some(1));
    assert_eq!(world.state(&lakes.job_file())["attempts"], 1);
}
