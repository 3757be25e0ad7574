//! Readers of view, maps and features while a layer is republished again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use borg_slave::state_repo::Vcs;
use serde_json::Value;

use super::{number_from_env, report};
use crate::support::real_geoserver::RealGeoServer;
use crate::support::world::{Layer, World};

/// How often the layer is republished; `BORG_TEST_TIMES` says otherwise.
const TIMES: u64 = 15;

/// Pause between two looks of a reader.
const PAUSE: Duration = Duration::from_millis(8);

/// What a reader has seen.
#[derive(Debug, Default)]
struct Seen {
    looks: u32,
    /// Rows by version of the content.
    rows: BTreeMap<i64, u64>,
    /// Answers that are no layer: when they began, how long it was until the next good one, and the first text.
    gaps: Vec<(Duration, String)>,
    since: Option<(Instant, String)>,
}

impl Seen {
    fn good(&mut self) {
        self.looks += 1;
        if let Some((since, text)) = self.since.take() {
            self.gaps.push((since.elapsed(), text));
        }
    }

    fn content(&mut self, version: i64, rows: u64) {
        let known = *self.rows.entry(version).or_insert(rows);
        if known == rows { self.good() } else { self.bad(format!("{rows} rows of version {version}")) }
    }

    fn bad(&mut self, text: String) {
        self.looks += 1;
        if self.since.is_none() {
            self.since = Some((Instant::now(), text));
        }
    }

    fn longest(&self) -> Duration {
        self.gaps.iter().map(|(gap, _)| *gap).max().unwrap_or_default()
    }
}

async fn read_view(world: &World, relation: &str, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Seen> {
    let client = world.database.client().await;
    let query = format!("select count(*), min(version), max(version) from {relation}");
    tokio::spawn(async move {
        let mut seen = Seen::default();
        while !stop.load(Ordering::SeqCst) {
            match client.simple_query(&query).await {
                Ok(messages) => {
                    let row = messages.iter().find_map(|message| match message {
                        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                        _ => None,
                    });
                    let number = |column| row.unwrap().get(column).and_then(|text| text.parse::<i64>().ok());
                    match (number(0), number(1), number(2)) {
                        (Some(rows), Some(low), Some(high)) if low == high => {
                            seen.content(low, u64::try_from(rows).unwrap());
                        }
                        other => seen.bad(format!("{other:?}")),
                    }
                }
                Err(error) => seen.bad(format!("{error:?}")),
            }
            tokio::time::sleep(PAUSE).await;
        }
        seen
    })
}

fn read_features(url: &str, layer: &str, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Seen> {
    let url = format!(
        "{url}/wfs?service=WFS&version=2.0.0&request=GetFeature&typeNames={layer}&outputFormat=application%2Fjson"
    );
    tokio::spawn(async move {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut seen = Seen::default();
        while !stop.load(Ordering::SeqCst) {
            let text = async { http.get(&url).send().await?.text().await }.await;
            let text = text.unwrap_or_else(|error| error.to_string());
            match serde_json::from_str::<Value>(&text) {
                Ok(document) => {
                    let features = document["features"].as_array().map_or(&[][..], Vec::as_slice);
                    let versions: Vec<i64> =
                        features.iter().filter_map(|feature| feature["properties"]["version"].as_i64()).collect();
                    match versions.first() {
                        Some(&first) if versions.iter().all(|version| *version == first) => {
                            seen.content(first, features.len() as u64);
                        }
                        _ => seen.bad(text),
                    }
                }
                Err(_) => seen.bad(text),
            }
            tokio::time::sleep(PAUSE).await;
        }
        seen
    })
}

/// Where the layer's features are, and where none are.
const FEATURES: &str = "114,-33,126,-30";
const NOWHERE: &str = "14,33,26,36";

fn map_url(url: &str, layer: &str, bbox: &str) -> String {
    format!(
        "{url}/wms?service=WMS&version=1.1.1&request=GetMap&layers={layer}&styles=&bbox={bbox}&width=96&height=64&srs=EPSG:4283&format=image%2Fpng"
    )
}

async fn picture(url: &str) -> Vec<u8> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.get(url).send().await.unwrap().bytes().await.unwrap().to_vec()
}

/// `blank` is the picture of a map without features.
fn read_maps(url: String, blank: Vec<u8>, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Seen> {
    tokio::spawn(async move {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut seen = Seen::default();
        while !stop.load(Ordering::SeqCst) {
            match http.get(&url).send().await {
                Ok(answer) => {
                    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
                    let body = answer.bytes().await.unwrap_or_default();
                    if body == blank {
                        seen.bad("a map without features".to_owned());
                    } else if kind.as_deref() == Some("image/png") && body.starts_with(b"\x89PNG") {
                        seen.good();
                    } else {
                        seen.bad(String::from_utf8_lossy(&body).into_owned());
                    }
                }
                Err(error) => seen.bad(error.to_string()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        seen
    })
}

/// Republishes the contents of `layers` in turn, and returns what readers of view, features and maps saw.
async fn republish(world: &World, url: &str, layers: &[Layer]) -> [Seen; 3] {
    let mut jobs = Vec::new();
    for layer in layers {
        world.publish(layer).await;
        let path = world.master.path().join(layer.job_file());
        jobs.push(serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap());
    }
    let layer = &layers[0];
    let publish = |time: u64| {
        let mut job = jobs[usize::try_from(time).unwrap() % jobs.len()].clone();
        job["job_id"] = Value::from(100 + time);
        world.master.write(layer.job_file(), job.to_string());
        world.commit(&format!("time {time}"));
        tokio::task::block_in_place(|| world.pull().succeeded());
    };
    publish(0);
    let stop = Arc::new(AtomicBool::new(false));
    let name = format!("{}:{}", layer.workspace, layer.name);
    let view = read_view(world, &format!("{}.{}", layer.workspace, layer.name), Arc::clone(&stop)).await;
    let features = read_features(url, &name, Arc::clone(&stop));
    let (map, blank) = (map_url(url, &name, FEATURES), picture(&map_url(url, &name, NOWHERE)).await);
    let maps = read_maps(map.clone(), blank.clone(), Arc::clone(&stop));
    for time in 1..=number_from_env("BORG_TEST_TIMES").unwrap_or(TIMES) {
        publish(time);
    }
    // Everybody has another look at the last content.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);
    let seen = [view.await.unwrap(), features.await.unwrap(), maps.await.unwrap()];
    // The reader of maps would have seen an empty table.
    let empty = format!("truncate {}_data.{}", layer.workspace, layer.name);
    world.database.admin().await.batch_execute(&empty).await.unwrap();
    assert!(blank.starts_with(b"\x89PNG"), "{}", String::from_utf8_lossy(&blank));
    assert_eq!(picture(&map).await, blank);
    seen
}

/// Two contents of a layer with the same columns.
fn same_columns(workspace: &str) -> Vec<Layer> {
    let layer = Layer::new(workspace, "roads");
    vec![
        layer.clone().rows(80).dump(|dump| dump.version(1)),
        layer.rows(120).style("night", "#000080").dump(|dump| dump.version(2)),
    ]
}

/// Contents whose columns come, go and change their type.
fn other_columns(workspace: &str) -> Vec<Layer> {
    let layer = || Layer::new(workspace, "roads");
    vec![
        layer().rows(80).dump(|dump| dump.version(1)),
        layer().rows(90).dump(|dump| dump.version(2).column("depth integer default 3")),
        layer().rows(100).dump(|dump| dump.version(3).without("label").column("depth text default 'deep'")),
    ]
}

/// The readers of view and maps, and with the same columns those of features, miss nothing.
fn judge(what: &str, [view, features, maps]: &[Seen; 3], contents: usize, columns_change: bool) {
    report(&format!(
        "{what}: looks {} {} {}; WFS gaps {:?}",
        view.looks,
        features.looks,
        maps.looks,
        features.gaps.iter().map(|(gap, _)| *gap).collect::<Vec<_>>()
    ));
    for (name, seen) in [("view", view), ("features", features), ("maps", maps)] {
        assert!(seen.looks > 20, "{what}: {name} was looked at {} times", seen.looks);
        assert!(seen.since.is_none(), "{what}: {name} stays broken: {:?}", seen.since);
        if name == "view" || !columns_change {
            assert!(seen.gaps.is_empty(), "{what}: {name}: {:#?}", seen.gaps);
        }
    }
    assert_eq!(view.rows.len(), contents, "{what}: {:?}", view.rows);
    // Until GeoServer is told, it asks for columns that are gone: a moment, and never an empty answer.
    for (gap, text) in features.gaps.iter().chain(&maps.gaps) {
        assert!(*gap < Duration::from_secs(5), "{what}: {gap:?} {text}");
        assert!(text.contains("Exception"), "{what}: {text}");
    }
    assert!(features.longest() < Duration::from_secs(5) && maps.longest() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_whole_contents_only() {
    on_each_geoserver("steady", same_columns, 2, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_whole_contents_while_columns_change() {
    on_each_geoserver("moving", other_columns, 3, true).await;
}

/// On the double, and on a real GeoServer as well when the environment names one.
async fn on_each_geoserver(what: &str, contents: fn(&str) -> Vec<Layer>, versions: usize, columns_change: bool) {
    let world = World::start(Vcs::Hg).await;
    let url = world.geoserver().url();
    judge(what, &republish(&world, &url, &contents(what)).await, versions, columns_change);
    let Some(real) = RealGeoServer::from_env().await else { return };
    let world = World::around(Vcs::Hg, real.url(), real.username(), real.password()).await;
    let workspace = format!("{what}{}", std::process::id());
    let seen = republish(&world, real.url(), &contents(&workspace)).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let address = format!("{}/rest/workspaces/{workspace}?recurse=true", real.url());
    let _ = http.delete(address).basic_auth(real.username(), Some(real.password())).send().await;
    judge(&format!("{what} on a real GeoServer"), &seen, versions, columns_change);
}
