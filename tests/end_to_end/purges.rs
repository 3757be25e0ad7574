//! The CDN that is told when a layer has changed.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::*;
use crate::robustness::processes::{self, Running};

const TOKEN: &str = "t0p-s3cret-t0ken";

/// The status with which the CDN never answers.
const SILENCE: u16 = 0;

#[derive(Default)]
struct Asked {
    /// Method, path, whether softly, and the token.
    purges: Mutex<Vec<(String, bool, String)>>,
    status: AtomicU16,
}

/// A CDN that answers as it is told.
struct Cdn {
    asked: Arc<Asked>,
    address: String,
    server: JoinHandle<()>,
}

impl Drop for Cdn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(asked): State<Arc<Asked>>, method: Method, uri: Uri, headers: HeaderMap) -> (StatusCode, String) {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let line = format!("{method} {}", uri.path());
    asked.purges.lock().unwrap().push((line, header("fastly-soft-purge") == "1", header("fastly-key")));
    let status = asked.status.load(Ordering::SeqCst);
    if status == SILENCE {
        std::future::pending::<()>().await;
    }
    let status = StatusCode::from_u16(status).unwrap();
    (status, "{\"status\": \"ok\"}".to_owned())
}

impl Cdn {
    async fn start(world: &World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Asked { status: 200.into(), ..Asked::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&asked));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        world.set("FASTLY_PURGE_URL", &format!("http://{address}/service/{{}}/purge/{{}}"));
        world.set("FASTLY_SERVICEID", "SU1");
        world.set("FASTLY_API_TOKEN", TOKEN);
        world.set("FASTLY_SURROGATE_KEY", "{}:{},{}");
        world.set("FASTLY_SOFT_PURGE", "true");
        Self { asked, address, server }
    }

    fn answers(&self, status: u16) {
        self.asked.status.store(status, Ordering::SeqCst);
    }

    /// The purges since this was last asked, sorted.
    #[track_caller]
    fn purges(&self) -> Vec<String> {
        let mut purges = Vec::new();
        for (line, soft, token) in std::mem::take(&mut *self.asked.purges.lock().unwrap()) {
            assert!(soft && token == TOKEN, "{line} {soft} {token}");
            purges.push(line.strip_prefix("POST /service/SU1/purge/").unwrap().to_owned());
        }
        purges.sort();
        purges
    }
}

fn of_roads() -> Vec<String> {
    vec!["w".to_owned(), "w%3Aroads".to_owned()]
}

/// Everything that was written about runs.
fn journal(world: &World) -> Vec<u8> {
    let all = files_below(&world.clone).into_iter().filter(|path| !path.ends_with(".env"));
    all.filter(|path| !path.components().any(|part| part.as_os_str() == ".hg"))
        .flat_map(|path| fs::read(path).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_purged_once() {
    let world = World::start(Vcs::Hg).await;
    let cdn = Cdn::start(&world).await;
    world.set("DEBUG", "true");
    let roads = Layer::new("w", "roads");
    world.publish(&roads).await;
    world.commit("roads");
    let outcome = world.pull().succeeded();
    not_a_word(&outcome, TOKEN);
    assert_eq!(cdn.purges(), of_roads());
    world.publish_meta(&roads.clone().title("Roads anew"));
    world.commit("meta");
    world.pull().succeeded();
    assert_eq!(cdn.purges(), of_roads());
    let document = json!({"action": "empty_gwc", "workspace": "w", "name": "roads"});
    world.master.write("geoserver/layers/w.roads.empty_gwc.json", document.to_string());
    let tracks = Layer::new("w", "tracks");
    world.publish(&tracks).await;
    world.publish_group("w", "all", &[("publish", "roads"), ("publish", "tracks")], &json!({}));
    world.publish_group("w", "around", &[("group", "all")], &json!({}));
    world.commit("empty tiles; another layer; groups");
    world.pull().succeeded();
    assert_eq!(cdn.purges(), ["w", "w", "w", "w", "w%3Aall", "w%3Aaround", "w%3Aroads", "w%3Atracks"]);
    // What shows it is purged with it, when it shows other things; and when it goes.
    world.publish(&roads.clone().rows(20)).await;
    world.master.remove(roads.meta_file());
    world.commit("other data");
    world.pull().succeeded();
    assert_eq!(cdn.purges(), ["w", "w", "w", "w%3Aall", "w%3Aaround", "w%3Aroads"]);
    world.remove(&tracks);
    world.commit("a member goes");
    world.pull().succeeded();
    assert_eq!(cdn.purges(), ["w", "w", "w", "w%3Aall", "w%3Aaround", "w%3Atracks"]);
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), [""; 0], "nothing is due");
    for group in ["all", "around"] {
        world.master.remove(format!("geoserver/layergroups/w.{group}.json"));
    }
    world.remove(&roads);
    world.commit("remove");
    not_a_word(&world.pull().succeeded(), TOKEN);
    let purges = cdn.purges();
    for gone in ["w%3Aall", "w%3Aaround", "w%3Aroads"] {
        assert!(purges.iter().any(|purge| purge == gone), "{gone}: {purges:?}");
    }
    let written = String::from_utf8_lossy(&journal(&world)).into_owned();
    assert!(!written.contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cdn_that_fails_is_purged_by_the_next_run() {
    let world = World::start(Vcs::Hg).await;
    let cdn = Cdn::start(&world).await;
    let roads = Layer::new("w", "roads");
    cdn.answers(403);
    world.publish(&roads).await;
    world.commit("roads");
    let outcome = world.pull().succeeded();
    not_a_word(&outcome, TOKEN);
    assert!(world.geoserver().layer("w", "roads").is_some());
    let record = world.state(&roads.job_file());
    assert_eq!(record["state"], json!("succeeded"));
    assert!(record["message"].as_str().unwrap_or_default().contains("refuses the token"), "{record:#}");
    assert_eq!(cdn.purges(), of_roads(), "not once more in the same run");

    // A run by hand says so by its exit status, a hook refuses no pull for it.
    world.slave(&["sync"]).failed().says("the CDN still has older maps of a layer").says("FASTLY_API_TOKEN");
    assert_eq!(cdn.purges(), of_roads());

    // A run without any job, and the one after it.
    cdn.answers(200);
    clear_requests(&world);
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), of_roads());
    no_requests(&world);
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), [""; 0]);

    // Tiles that were emptied while the CDN was away.
    cdn.answers(404);
    let document = json!({"action": "empty_gwc", "workspace": "w", "name": "roads"});
    world.master.write("geoserver/layers/w.roads.empty_gwc.json", document.to_string());
    world.commit("empty tiles");
    world.pull().succeeded();
    cdn.purges();
    cdn.answers(200);
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), of_roads());

    // While there is nobody to tell, no run is made for it; it is told once there is somebody again.
    cdn.answers(404);
    world.publish_meta(&roads.clone().title("Roads anew"));
    world.commit("meta");
    world.pull().succeeded();
    cdn.purges();
    world.set("FASTLY_PURGE_URL", "");
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), [""; 0]);
    world.set("FASTLY_PURGE_URL", &format!("http://{}/service/{{}}/purge/{{}}", cdn.address));
    cdn.answers(200);
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), of_roads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_change_and_the_purge_is_made_good() {
    let world = World::start(Vcs::Hg).await;
    let cdn = Cdn::start(&world).await;
    let roads = Layer::new("w", "roads");
    world.publish(&roads).await;
    let passing = Layer::new("w", "passing");
    world.publish(&passing).await;
    world.commit("two layers");
    world.pull().succeeded();
    cdn.purges();
    world.publish(&roads.clone().rows(20)).await;
    world.remove(&passing);
    world.commit("one changes, one goes");
    cdn.answers(SILENCE);
    let mut pull = Running::start(world.pull_command());
    let until = Instant::now() + Duration::from_secs(30);
    while cdn.asked.purges.lock().unwrap().len() < 4 {
        assert!(Instant::now() < until, "the CDN is not asked: {}", pull.stderr());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for pid in pull.slaves() {
        processes::kill(pid, Signal::KILL);
    }
    pull.end(Duration::from_secs(30)).failed();
    assert_eq!(count(&world, "w", "roads").await, 20, "readers have the new one");
    cdn.purges();

    // The changesets are rolled back with the pull; what the CDN is to be told is not.
    cdn.answers(200);
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), ["w", "w", "w%3Apassing", "w%3Aroads"]);
    world.slave(&["sync"]).succeeded();
    assert_eq!(cdn.purges(), [""; 0], "nothing is due any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_one_geoserver_lacks_is_purged_for_the_others() {
    let world = World::start_with(Vcs::Hg, 2).await;
    let cdn = Cdn::start(&world).await;
    let roads = Layer::new("w", "roads");
    world.doubles[1].stop();
    world.publish(&roads).await;
    world.commit("roads");
    world.pull().failed();
    assert_eq!(cdn.purges(), of_roads());
    world.doubles[1].resume();
    world.pull().succeeded();
    assert_eq!(cdn.purges(), of_roads());
}
