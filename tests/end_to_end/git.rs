//! Where Git differs: it cannot roll a pull back, and a bare repository is pushed to.

use std::os::unix::fs::PermissionsExt as _;

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::vcs::GIT_BRANCH;
use crate::support::world::{outcome, program};

#[tokio::test(flavor = "multi_thread")]
async fn git_keeps_the_commits_and_the_slave_remembers_how_far_it_is() {
    let world = World::start(Vcs::Git).await;
    let (good, bad) = (Layer::new("w", "good"), Layer::new("w", "bad"));
    world.publish(&good).await;
    let dump = world.publish(&bad).await.dump;
    let hidden = dump.with_extension("hidden");
    fs::rename(&dump, &hidden).unwrap();
    let first = world.commit("good and bad");
    let begin = tip(&world);
    world.pull().says(&bad.job_file()).says("Git keeps the commits");
    assert_eq!(tip(&world), first.as_str(), "a merge is done when post-merge runs");
    is_state(&world, &good, "succeeded");
    is_state(&world, &bad, "failed");

    // Nothing to pull, so no hook; by hand it goes on from where it was.
    world.pull().succeeded();
    is_state(&world, &bad, "failed");
    world.slave(&["sync", "--dry-run"]).succeeded().says(&begin[..12]).says("1 job to do, 1 done already");
    clear_requests(&world);
    let outcome = world.slave(&["sync"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.text());

    // The next pull brings something else, and the bad one as well.
    fs::rename(&hidden, &dump).unwrap();
    let more = Layer::new("w", "more");
    world.publish(&more).await;
    world.commit("more");
    world.pull().succeeded();
    for layer in [&good, &bad, &more] {
        is_state(&world, layer, "succeeded");
        assert_eq!(count(&world, "w", &layer.name).await, 10);
    }
    assert!(world.geoserver().requests().iter().all(|request| !request.path.contains("good")));
    world.slave(&["sync", "--dry-run"]).succeeded().says("nothing to do");
}

/// A world whose slave is a bare repository that the master pushes to.
async fn pushed_to(hooks: &[&str]) -> World {
    let mut world = World::start(Vcs::Git).await;
    world.clone = world.master.clone_bare_to("bare");
    world.set("SLAVE_NAME", "bare");
    for hook in hooks {
        let path = world.clone.join("hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let program = shell_words::quote(program().to_str().unwrap()).into_owned();
        fs::write(&path, format!("#!/bin/sh\nexec {program} hook {hook}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    world
}

fn push(world: &World) -> Outcome {
    let bare = world.clone.to_str().unwrap().to_owned();
    outcome(&mut world.master.command(&world.master.path(), ["git", "push", &bare, GIT_BRANCH]))
}

/// Calls a hook for a push of long ago: it has waited for the run lock, and others have not.
fn late(world: &World, hook: &str, old: &str, new: &str) -> Outcome {
    let input = world.master.beside("late");
    fs::write(&input, format!("{old} {new} refs/heads/{GIT_BRANCH}\n")).unwrap();
    outcome(world.slave_command(&["hook", hook]).stdin(fs::File::open(input).unwrap()))
}

fn bare_tip(world: &World) -> String {
    world.master.run_in(&world.clone, ["git", "rev-parse", GIT_BRANCH]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pre_receive_refuses_a_push_until_its_jobs_succeed() {
    let world = pushed_to(&["pre-receive"]).await;
    let begin = bare_tip(&world);
    let (good, bad) = (Layer::new("w", "good"), Layer::new("w", "bad"));
    world.publish(&good).await;
    fs::remove_file(world.publish(&bad).await.dump).unwrap();
    let refused = world.commit("good and bad");
    // What HEAD names may never come.
    let head = |branch: &str| world.master.run_in(&world.clone, ["git", "symbolic-ref", "HEAD", branch]);
    head("refs/heads/nowhere");
    push(&world).failed().says("refs/heads/nowhere").says(&format!("STATE_BRANCH={GIT_BRANCH}"));
    head(&format!("refs/heads/{GIT_BRANCH}"));
    push(&world).failed().says(&bad.job_file()).says("the changesets are refused");
    assert_eq!(bare_tip(&world), begin);
    assert_eq!(count(&world, "w", "good").await, 10);

    clear_requests(&world);
    world.publish(&bad).await;
    let mended = world.commit("mended");
    // A trial is refused, whether of some files or of all.
    for (name, value) in [("INCLUDE", good.job_file()), ("ROLLBACK", "true".to_owned())] {
        world.set(name, &value);
        push(&world).failed().says(&format!("the changesets are refused because {name} is set"));
        assert_eq!(bare_tip(&world), begin);
        is_state(&world, &bad, if name == "INCLUDE" { "failed" } else { "succeeded" });
        world.set(name, if name == "INCLUDE" { "" } else { "false" });
    }
    push(&world).succeeded();
    assert_eq!(bare_tip(&world), mended.as_str());
    assert_eq!(count(&world, "w", "bad").await, 10);
    assert!(world.geoserver().requests().iter().all(|request| !request.path.contains("good")));
    late(&world, "pre-receive", &begin, refused.as_str()).failed().says("the branch has moved");
    world.slave(&["sync", "--dry-run"]).succeeded().says("nothing to do");

    // Another branch is none of the slave's business.
    world.master.start_branch("other");
    world.remove(&good);
    world.commit("on another branch");
    let bare = world.clone.to_str().unwrap().to_owned();
    outcome(&mut world.master.command(&world.master.path(), ["git", "push", &bare, "other"]))
        .succeeded()
        .says(&format!("not about refs/heads/{GIT_BRANCH}"));
    assert_eq!(count(&world, "w", "good").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn post_receive_applies_what_was_pushed_and_remembers_what_was_not() {
    let world = pushed_to(&["post-receive"]).await;
    let begin = bare_tip(&world);
    let (good, bad) = (Layer::new("w", "good"), Layer::new("w", "bad"));
    world.publish(&good).await;
    fs::remove_file(world.publish(&bad).await.dump).unwrap();
    let first = world.commit("good and bad");
    push(&world).says(&bad.job_file()).says("Git keeps the commits");
    assert_eq!(bare_tip(&world), first.as_str());
    assert_eq!(count(&world, "w", "good").await, 10);
    let outcome = world.slave(&["sync"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.text());

    // Of a trial Git keeps the commits too; without the setting they are looked at again.
    world.publish(&bad).await;
    world.commit("mended");
    world.set("INCLUDE", &good.job_file());
    push(&world).says("INCLUDE is set, but Git keeps the commits");
    is_state(&world, &bad, "failed");
    world.set("INCLUDE", "");
    world.set("ROLLBACK", "true");
    world.slave(&["sync"]).succeeded();
    is_state(&world, &bad, "succeeded");
    world.set("ROLLBACK", "false");
    world.slave(&["sync", "--dry-run"]).succeeded().says("2 jobs done already");
    world.slave(&["sync"]).succeeded();
    late(&world, "post-receive", &begin, first.as_str()).succeeded();
    world.slave(&["sync", "--dry-run"]).succeeded().says("nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_receive_hooks_together_do_the_work_once() {
    let world = pushed_to(&["pre-receive", "post-receive"]).await;
    let good = Layer::new("w", "good");
    world.publish(&good).await;
    world.commit("good");
    push(&world).succeeded();
    let record = world.state(&good.job_file());
    assert_eq!((&record["state"], &record["attempts"]), (&json!("succeeded"), &json!(1)));
}
