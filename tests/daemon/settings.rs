//! Settings that change while the daemon runs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_taken_over_and_a_bad_one_is_refused() {
    let (world, roads) = world(Vcs::Hg).await;
    world.set("FEATURE_FILTER", "job.name != \"roads\"");
    let daemon = Daemon::asleep(&world);
    assert_eq!(world.state(&roads.job_file())["state"], "filtered");
    let good = fs::read_to_string(world.clone.join(".env")).unwrap();

    fs::write(world.clone.join(".env"), format!("{good}GEOSERVER_PGSQL_PORT=\"many\"\nFEATURE_FILTER=\"true\"\n"))
        .unwrap();
    daemon.says("the old ones stay in force", 1);
    assert!(daemon.running.stderr().contains("GEOSERVER_PGSQL_PORT"), "{}", daemon.running.stderr());
    daemon.signal(Signal::USR1);
    daemon.rounds(2);
    assert_eq!(daemon.count("the old ones stay in force"), 1, "the same refusal is told once");

    // A filter that takes the layer is in force at once, for what it left out before as well.
    world.set("FEATURE_FILTER", "true");
    daemon.says("new settings are in force", 1);
    daemon.says("why=Settings", 1);
    becomes(&world, &roads, "succeeded");

    // A trial does not count as applied, however often it is made; the round without it finds all done.
    world.set("INCLUDE", "geoserver/layers/cadastre.other.json");
    daemon.says("new settings are in force", 2);
    let lakes = Layer::new("cadastre", "lakes");
    world.publish(&lakes).await;
    world.commit("lakes");
    daemon.signal(Signal::USR1);
    daemon.rounds(5);
    assert_eq!(world.slave(&["status", "--json", &lakes.job_file()]).stdout.trim(), "[]");
    world.set("ROLLBACK", "true");
    world.set("INCLUDE", "");
    becomes(&world, &lakes, "succeeded");
    world.geoserver().clear_requests();
    world.slave(&["sync", "--dry-run"]).succeeded().says("done already");
    world.set("ROLLBACK", "false");
    until(|| !world.slave(&["sync", "--dry-run"]).stdout.contains("done already"), || daemon.running.stderr());
    assert_eq!(world.geoserver().writes(), 0, "{:?}", world.geoserver().requests());

    // Written anew with the same content, it is no change.
    let before = daemon.count("nothing has changed");
    world.set("FEATURE_FILTER", "true");
    daemon.signal(Signal::HUP);
    daemon.says("nothing has changed", before + 1);
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_text_of_a_filter_file_counts_until_the_new_one_compiles() {
    let (world, _) = world(Vcs::Git).await;
    let file = world.clone.join("own.rhai");
    fs::write(&file, "job.name != \"lakes\"").unwrap();
    world.set("FEATURE_FILTER", "own.rhai");
    let daemon = Daemon::asleep(&world);
    fs::write(&file, "job.name ==").unwrap();
    daemon.says("the old ones stay in force", 1);
    assert!(daemon.running.stderr().contains("own.rhai"), "{}", daemon.running.stderr());
    let lakes = Layer::new("cadastre", "lakes");
    let woods = Layer::new("cadastre", "woods");
    world.publish(&lakes).await;
    world.publish(&woods).await;
    world.commit("two layers");
    daemon.signal(Signal::USR1);
    daemon.rounds(2);
    // `status` reads no filters.
    assert_eq!(world.state(&woods.job_file())["state"], "succeeded");
    assert_eq!(world.state(&lakes.job_file())["state"], "filtered");
    fs::write(&file, "true").unwrap();
    becomes(&world, &lakes, "succeeded");
    // One that is not there yet, nor its directory, and then does not compile: no edit of `.env` is needed.
    world.set("FEATURE_FILTER", "filters/new.rhai");
    daemon.says("the old ones stay in force", 2);
    fs::create_dir(world.clone.join("filters")).unwrap();
    let file = world.clone.join("filters/new.rhai");
    fs::write(&file, "job.name ==").unwrap();
    daemon.says("the old ones stay in force", 3);
    fs::write(&file, "job.name != \"lakes\"").unwrap();
    daemon.says("new settings are in force", 2);
    daemon.says("why=Settings", 2);
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_is_refused_and_files_written_without_end_keep_nobody_busy() {
    let (world, _) = world(Vcs::Git).await;
    let daemon = Daemon::asleep(&world);
    world.set("SYNC_STATUS_PATH", "elsewhere");
    daemon.says("restart the daemon", 1);
    world.set("SYNC_STATUS_PATH", "code/.sync_status");
    daemon.says("new settings are in force", 1);
    daemon.rounds(2);
    let until = Instant::now() + Duration::from_secs(4);
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        world.set("GEOSERVER_TIMEOUT", &(100 + number % 1000).to_string());
        std::thread::sleep(Duration::from_millis(5));
    }
    let rounds = daemon.count("why=");
    assert!(rounds <= 6, "{rounds} rounds for {number} writes in four seconds");
    daemon.end();
}
