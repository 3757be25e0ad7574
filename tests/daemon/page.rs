//! The status page of a daemon at work.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use super::*;

const TOKEN: &str = "0123456789abcdef";

/// The address that the daemon has said `what` about last.
#[track_caller]
fn address(daemon: &Daemon, what: &str) -> String {
    daemon.says(what, 1);
    let log = daemon.running.stderr();
    let (_, rest) = log.rsplit_once(what).unwrap();
    rest.split('/').nth(2).unwrap().replace("0.0.0.0", "127.0.0.1")
}

async fn get(address: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.get(format!("http://{address}{path}"));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The number that a line of metrics ends with; 0 when it is not there.
fn metric(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_what_the_daemon_does_follows_the_settings_and_ends_with_it() {
    let (world, roads) = world(Vcs::Git).await;
    let lakes = Layer::new("cadastre", "lakes").title("<script>alert(1)</script>");
    fs::remove_file(world.publish(&lakes).await.dump).unwrap();
    world.commit("a mistake");
    world.set("STATUS_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::asleep(&world);
    let first = address(&daemon, "the status page is served to this machine at ");

    let (status, page) = get(&first, "/", None).await;
    assert_eq!(status, 200);
    assert!(page.contains("1 job is not applied") && page.contains("cadastre.lakes"), "{page}");
    let (_, page) = get(&first, &format!("/jobs/{}", lakes.job_file()), None).await;
    assert!(page.contains("lakes.db") && page.contains("What to do"), "{page}");
    let (_, page) = get(&first, &format!("/jobs/{}", roads.job_file()), None).await;
    assert!(page.contains("succeeded") && page.contains("restore") && page.contains(world.geoserver_url()), "{page}");
    assert_eq!(get(&first, "/readyz", None).await, (200, "ready\n".into()));

    let (_, jobs) = get(&first, "/api/jobs?sort=name", None).await;
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    let told: Value = serde_json::from_str(&world.slave(&["status", "--json"]).stdout).unwrap();
    assert_eq!(jobs["jobs"], told);
    assert_eq!(jobs["found"], 2);

    let (_, before) = get(&first, "/metrics", None).await;
    let publications = ["succeeded", "failed"].map(|outcome| {
        metric(&before, &format!("borg_slave_jobs_ended_total{{kind=\"feature\",outcome=\"{outcome}\"}}"))
    });
    assert_eq!(publications, [1.0, 1.0], "{before}");
    let woods = Layer::new("cadastre", "woods");
    world.publish(&woods).await;
    world.commit("woods");
    daemon.signal(Signal::USR1);
    daemon.rounds(2);
    let (_, after) = get(&first, "/metrics", None).await;
    let requests = format!(
        "borg_slave_geoserver_request_duration_seconds_count{{target=\"{}\",method=\"GET\",status=\"200\"}}",
        world.geoserver_url()
    );
    for name in [
        "borg_slave_pulls_total{outcome=\"ok\"}",
        "borg_slave_passes_total{outcome=\"incomplete\"}",
        "borg_slave_jobs{state=\"succeeded\"}",
        "borg_slave_jobs_ended_total{kind=\"feature\",outcome=\"succeeded\"}",
        "borg_slave_step_duration_seconds_count{step=\"swap\",outcome=\"done\"}",
        "borg_slave_received_bytes_total{from=\"master\"}",
        "borg_slave_restored_bytes_total",
        "borg_slave_last_round_timestamp_seconds",
        requests.as_str(),
    ] {
        let (before, after) = (metric(&before, name), metric(&after, name));
        assert!(before > 0.0 && after > before, "{name}: {before}, then {after}");
    }

    // Others can reach this address, and there is no token.
    world.set("STATUS_LISTEN", "0.0.0.0:0");
    daemon.says("the old ones stay in force", 1);
    world.set("STATUS_TOKEN", TOKEN);
    let second = address(&daemon, "the status page is served with a token at ");
    assert_eq!(get(&second, "/", None).await.0, 401);
    assert_eq!(get(&second, "/jobs", Some(TOKEN)).await.0, 200);
    assert_eq!(get(&second, "/healthz", None).await, (200, "alive\n".into()));
    until(|| TcpStream::connect(&first).is_err(), || format!("{first} still answers"));
    // Somebody else is there.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    world.set("STATUS_LISTEN", &taken.local_addr().unwrap().to_string());
    daemon.says("the status page stays where it was", 1);
    assert_eq!(get(&second, "/jobs", Some(TOKEN)).await.0, 200);
    world.slave(&["check"]).says("PROBLEM  status page").says("another process listens there");
    let own = world.slave_command(&["check"]).env("STATUS_LISTEN", &second).output().unwrap();
    let own = String::from_utf8_lossy(&own.stdout).into_owned();
    assert!(own.contains("ok       status page: this slave's daemon serves it at"), "{own}");

    // Neither a caller who says nothing nor one who stops in the middle keeps it.
    let _silent = TcpStream::connect(&second).unwrap();
    let mut half = TcpStream::connect(&second).unwrap();
    half.write_all(b"GET /jobs HTTP/1.1\r\nHost: ").unwrap();
    let begun = Instant::now();
    let outcome = daemon.end();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(!outcome.text().contains(TOKEN), "{}", outcome.text());

    let refused =
        world.slave(&["poll", "--interval", "3600"]).says("STATUS_LISTEN").says("another process listens there");
    assert_eq!(refused.code, Some(1), "{}", refused.text());
}
