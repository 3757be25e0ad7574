//! Jobs that fail, and a master that does not answer.

use super::*;
use crate::support::sshd::{Fate, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_tried_again_with_growing_pauses_and_a_changed_one_at_once() {
    for accept in [false, true] {
        let (world, roads) = world(Vcs::Hg).await;
        world.set("HOOK_ON_FAILURE", if accept { "accept" } else { "refuse" });
        let bad = Layer::new("cadastre", "bad");
        let dump = world.publish(&bad).await.dump;
        let elsewhere = dump.with_extension("away");
        fs::rename(&dump, &elsewhere).unwrap();
        world.commit("a dump is missing");
        let clock = Instant::now();
        let daemon = Daemon::start(&world, &["--interval", "3600", "--retry-pauses", "500,1000,3600000"]);
        until(|| world.state(&bad.job_file())["attempts"] == 3, || world.state(&bad.job_file()).to_string());
        assert!(clock.elapsed() >= Duration::from_millis(1500), "{:?}", clock.elapsed());
        daemon.rounds(3);
        assert_eq!(daemon.count("why=Retry"), 2);
        // Its time has not come: a mere round leaves it alone, and says so to whoever asks.
        daemon.signal(Signal::USR1);
        daemon.rounds(4);
        let state = world.state(&bad.job_file());
        assert_eq!((&state["attempts"], &state["state"]), (&3.into(), &"failed".into()));
        assert!(state["next_try"].is_string(), "{state}");
        world.slave(&["status", "--failed"]).says("The daemon tries it again at");
        world.slave(&["status", &bad.job_file()]).says("next try");
        assert_eq!(world.state(&roads.job_file())["attempts"], 1);
        // By hand it is tried whatever its time; that fails, and is then nobody's secret.
        world.slave(&["sync", "--retry-failed"]).failed();
        assert_eq!(world.state(&bad.job_file())["attempts"], 4);
        // A changed job file is done with the next round, and the others still are not.
        world.publish(&bad).await;
        world.commit("mended");
        daemon.signal(Signal::USR1);
        becomes(&world, &bad, "succeeded");
        assert_eq!(world.state(&bad.job_file())["attempts"], 1);
        assert_eq!(world.state(&roads.job_file())["attempts"], 1);
        daemon.end();
        world.slave(&["sync"]).succeeded().says("nothing to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart_and_new_settings_end_it() {
    let (world, _) = world(Vcs::Git).await;
    let bad = Layer::new("cadastre", "bad");
    let dump = world.publish(&bad).await.dump;
    fs::rename(&dump, dump.with_extension("away")).unwrap();
    world.commit("a dump is missing");
    Daemon::asleep(&world).end();
    let daemon = Daemon::asleep(&world);
    assert_eq!(world.state(&bad.job_file())["attempts"], 1);
    fs::rename(dump.with_extension("away"), &dump).unwrap();
    world.set("GEOSERVER_TIMEOUT", "77");
    becomes(&world, &bad, "succeeded");
    daemon.says("why=Settings", 1);
    daemon.end();
}

/// Makes the clone's master one that is reached over SSH, at the port that a file holds.
fn behind_ssh(world: &World) -> PathBuf {
    let port = world.master.beside("port");
    let words: Vec<String> = world.sshd.ssh_command();
    let at = words.iter().position(|word| word == "-p").unwrap();
    let (before, after) = (shell_words::join(&words[..at]), shell_words::join(&words[at + 2..]));
    let script = world.master.beside("ssh.sh");
    fs::write(&script, format!("exec {before} -p \"$(cat {})\" {after} \"$@\"\n", port.display())).unwrap();
    world.set("BORG_STATE_SSH", &format!("sh {}", script.display()));
    let url = format!("ssh://{}", world.sshd.location(world.master.path()).replacen(':', "/", 1));
    match world.master.vcs() {
        Vcs::Hg => {
            let hgrc = world.clone.join(".hg/hgrc");
            let text = fs::read_to_string(&hgrc).unwrap();
            let master = world.master.path();
            fs::write(&hgrc, text.replace(&format!("default = {}", master.display()), &format!("default = {url}")))
                .unwrap();
        }
        Vcs::Git => {
            let url = url.replacen("1//", "1/", 1);
            world.master.run_in(&world.clone, ["git", "remote", "set-url", "origin", &url]);
        }
    }
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_cannot_be_reached_is_told_of_once_and_what_is_there_is_applied_meanwhile() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let (world, roads) = world(vcs).await;
        pull_without_hook(&world);
        // More than fits into the buffers between the two ends, so that the connection is cut while it comes in.
        let woods = Layer::new("cadastre", "woods");
        world.publish(&woods).await;
        let mut state = 88_172_645_463_325_252_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let noise: Vec<u8> = noise.take(100_000).flatten().collect();
        world.master.write("noise", noise);
        world.commit("woods and noise");
        let port = behind_ssh(&world);
        let proxy = Proxy::start(world.sshd.port(), [Fate::Cut(300_000)]).await;
        world.sshd.ssh_command_via(&proxy);
        fs::write(&port, proxy.port().to_string()).unwrap();
        let manager = Manager::start(&world);
        let mut command = world.slave_command(&["poll", "--verbose", "--interval", "1"]);
        command.env("NOTIFY_SOCKET", &manager.path);
        let daemon = Daemon { running: Running::start(command) };
        proxy.fulfilled().await;
        manager.hears("STATUS=the master cannot be reached");
        assert_eq!(world.state(&roads.job_file())["state"], "succeeded");
        assert_eq!(daemon.count("WARN cannot pull"), 1, "{}", daemon.running.stderr());
        // The network is there again, and nobody tells the daemon.
        daemon.says("the master answers again", 1);
        becomes(&world, &woods, "succeeded");
        for layer in [&roads, &woods] {
            assert_eq!(world.state(&layer.job_file())["attempts"], 1);
        }

        // A port at which nobody listens.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(&port, closed.to_string()).unwrap();
        manager.hears("STATUS=the master cannot be reached");
        let rounds = daemon.count("the round ended");
        daemon.rounds(rounds + 2);
        assert_eq!(daemon.count("WARN cannot pull"), 2, "{}", daemon.running.stderr());
        assert!(daemon.running.stderr().contains("Connection refused"), "{}", daemon.running.stderr());
        let lakes = Layer::new("cadastre", "lakes");
        world.publish(&lakes).await;
        world.commit("lakes");
        fs::write(&port, world.sshd.port().to_string()).unwrap();
        daemon.signal(Signal::USR1);
        daemon.says("the master answers again", 2);
        becomes(&world, &lakes, "succeeded");
        // The usual rhythm again.
        let rounds = daemon.count("the round ended");
        daemon.rounds(rounds + 3);
        assert!(daemon.count("why=Interval") >= 3);
        daemon.end();
    }
}
