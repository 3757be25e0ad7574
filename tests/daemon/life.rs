//! One daemon a clone, its end, and what it costs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_gives_up_or_waits_and_takes_over() {
    let (world, _) = world(Vcs::Git).await;
    let first = Daemon::asleep(&world);
    let refused = world.slave(&["poll", "--no-wait"]);
    assert_eq!(refused.code, Some(3), "{}", refused.text());
    refused.says(&format!("pid {}", first.running.pid()));
    let second = Daemon::start(&world, &["--interval", "3600"]);
    second.says("another daemon works on this clone", 1);
    assert_eq!(second.count("why="), 0);
    // Signals that wake a daemon do not end one that waits; and what it was started with is not what it begins with.
    second.signal(Signal::HUP);
    second.signal(Signal::USR1);
    world.set("STATUS_LISTEN", "127.0.0.1:0");
    first.says("new settings are in force", 1);
    // Who only runs once is not kept.
    world.slave(&["sync", "--no-wait"]).succeeded();
    processes::kill(first.running.pid(), Signal::KILL);
    second.rounds(1);
    second.says("the status page is served", 1);
    second.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_during_a_restore_ends_at_a_safe_point_and_the_next_daemon_goes_on() {
    let (world, _) = world(Vcs::Hg).await;
    let lakes = Layer::new("cadastre", "lakes");
    world.publish(&lakes).await;
    world.commit("lakes");
    // The name is taken by a transaction that does not end: `CREATE TABLE` in pg_restore waits for it.
    let blocker = world.database.admin().await;
    blocker
        .batch_execute("create schema cadastre_data; begin; create table cadastre_data.lakes (id integer)")
        .await
        .unwrap();
    let daemon = Daemon::start(&world, &["--interval", "3600"]);
    let admin = world.database.admin().await;
    let query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let end = Instant::now() + PATIENCE;
    while admin.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < end, "nobody waits for a lock: {}", daemon.running.stderr());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon.end().says("safe point");
    processes::nothing_is_left(&world, Duration::from_secs(5)).await;
    blocker.batch_execute("rollback; drop schema cadastre_data").await.ok();
    let daemon = Daemon::asleep(&world);
    becomes(&world, &lakes, "succeeded");
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_and_rounds_without_change_say_nothing() {
    let (world, _) = world(Vcs::Git).await;
    let manager = Manager::start(&world);
    let mut command = world.slave_command(&["poll", "--interval", "3600"]);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000");
    let mut running = Running::start(command);
    manager.hears("READY=1");
    manager.hears("STATUS=everything is applied");
    manager.hears("WATCHDOG=1");
    let said = running.stderr();
    assert!(said.contains("the daemon begins") && said.contains("succeeded"), "{said}");
    for _ in 0..3 {
        processes::kill(running.pid(), Signal::USR1);
        manager.hears("STATUS=everything is applied");
    }
    assert_eq!(running.stderr(), said, "a round without change says nothing");
    processes::kill(running.pid(), Signal::HUP);
    let heard = manager.hears("RELOADING=1");
    assert!(!heard.iter().any(|text| text.starts_with("STOPPING")), "{heard:?}");
    manager.hears("READY=1");
    // The level of the log is a setting like others.
    world.set("DEBUG", "true");
    until(|| running.stderr().contains("why=Settings"), || running.stderr());
    world.set("DEBUG", "false");
    until(|| running.stderr().matches("new settings are in force").count() == 2, || running.stderr());
    let said = running.stderr();
    manager.hears("STATUS=everything is applied");
    processes::kill(running.pid(), Signal::USR1);
    manager.hears("STATUS=everything is applied");
    assert_eq!(running.stderr().matches("DEBUG").count(), said.matches("DEBUG").count(), "{}", running.stderr());
    processes::kill(running.pid(), Signal::INT);
    manager.hears("STOPPING=1");
    assert_eq!(running.end(PATIENCE).code, Some(130));
}

/// Kilobytes of memory and number of open files of a process.
fn held(pid: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (memory, fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_without_change_leave_nothing_behind() {
    let (world, _) = world(Vcs::Git).await;
    let manager = Manager::start(&world);
    let mut command = world.slave_command(&["poll", "--interval", "3600"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    let running = Running::start(command);
    manager.hears("STATUS=everything is applied");
    let rounds = |count: usize| {
        for _ in 0..count {
            processes::kill(running.pid(), Signal::USR1);
            manager.hears("STATUS=everything is applied");
        }
        held(running.pid())
    };
    let (memory, files) = rounds(20);
    let (memory_after, files_after) = rounds(60);
    // What is left in each round would be sixty more; one or two are open for a moment only.
    assert!(files_after < files + 10, "{files} descriptors became {files_after} in 60 rounds");
    assert!(memory_after < memory + 2048, "{memory} kB became {memory_after} kB in 60 rounds");
    let end = Instant::now() + PATIENCE;
    while running.tree().len() > 1 {
        assert!(Instant::now() < end, "a child is left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
