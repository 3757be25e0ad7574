//! Access rules: replaced as a whole, with nobody let in meanwhile; by file; put back before a layer is made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{AccessRules, Change, GeoServer, RequestCount, write_access_rules_file};
use serde_json::{Value, json};
use tokio::sync::{MutexGuard, watch};

use super::{SAME, Target, client, geo, target_at};
use crate::support::real_geoserver::{RealGeoServer, rules_alone};

/// A target whose access rules are the test's own: the double, or a real GeoServer whose data directory is known.
struct Rules {
    t: Target,
    data_dir: PathBuf,
    _alone: Option<MutexGuard<'static, ()>>,
}

async fn rules(name: &str) -> Rules {
    let alone = rules_alone().await;
    let real = RealGeoServer::from_env().await.filter(|real| real.data_dir().is_some());
    let data_dir = real.as_ref().and_then(|real| real.data_dir()).map(PathBuf::from);
    let t = target_at(name, real).await;
    let data_dir = data_dir.unwrap_or_else(|| t.double.as_ref().unwrap().data_dir());
    t.ready().await;
    for layer in ["roads", "tracks"] {
        t.lines(layer, 0.0).await;
        t.server.publish_feature_type(&t.lines_type(layer), SAME).await.unwrap();
    }
    let r = Rules { t, data_dir, _alone: alone };
    r.apply(START).await.unwrap();
    r
}

/// The rules of a new GeoServer.
const START: &str = "mode=HIDE\n*.*.r=*\n*.*.w=GROUP_ADMIN,ADMIN\n";

impl Rules {
    fn parse(&self, text: &str) -> AccessRules {
        AccessRules::parse(&text.replace("{w}", self.t.workspace.as_str())).unwrap()
    }

    async fn apply(&self, text: &str) -> borg_slave::error::Result<Change> {
        self.t.server.apply_access_rules(&self.parse(text), None).await
    }

    async fn shown(&self) -> Value {
        self.t.raw("GET", "security/acl/layers.json", None).await.1
    }

    fn again(&self) -> GeoServer {
        client(&self.t.url, &self.t.username, &self.t.password, Duration::from_secs(60))
    }

    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.t.workspace)
    }
}

/// Asks as nobody in particular for a map, features, the list of layers and tiles, over and over.
struct Strangers {
    stop: Arc<AtomicBool>,
    asked: watch::Sender<usize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Strangers {
    /// `closed` shall never be seen.
    fn start(t: &Target, closed: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = watch::Sender::new(0);
        let tasks = (0..3)
            .map(|_| {
                let (stop, asked) = (Arc::clone(&stop), asked.clone());
                let (url, workspace) = (t.url.clone(), t.workspace.as_str().to_owned());
                tokio::spawn(async move {
                    let http = stranger();
                    let mut seen = vec![];
                    while !stop.load(Ordering::Relaxed) {
                        seen.extend(look_with(&http, &url, &workspace, closed).await);
                        asked.send_modify(|asked| *asked += 1);
                    }
                    seen
                })
            })
            .collect();
        Self { stop, asked, tasks }
    }

    /// Waits until they have looked a few times more.
    async fn go_on(&self) {
        let asked = *self.asked.borrow();
        self.asked.subscribe().wait_for(|now| *now >= asked + 6).await.unwrap();
    }

    /// What they saw, and how often they looked.
    async fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = vec![];
        for task in self.tasks {
            seen.extend(task.await.unwrap());
        }
        let asked = *self.asked.borrow();
        (seen, asked)
    }
}

/// All that [`look`] finds of an open layer.
const EVERY_WAY: [&str; 5] = ["map", "features", "list", "tile", "wmts tile"];

/// In which ways somebody without an account gets at a layer.
async fn look(t: &Target, layer: &str) -> Vec<String> {
    look_with(&stranger(), &t.url, t.workspace.as_str(), layer).await
}

fn stranger() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn look_with(http: &reqwest::Client, url: &str, workspace: &str, layer: &str) -> Vec<String> {
    let mut seen = vec![];
    for (way, query) in [
        (
            "map",
            format!(
                "wms?service=WMS&version=1.1.1&request=GetMap&layers={workspace}:{layer}&styles=&\
                 bbox=114,-35,119,-31&width=16&height=16&srs=EPSG:4326&format=image/png"
            ),
        ),
        (
            "features",
            format!("wfs?service=WFS&version=2.0.0&request=GetFeature&typeNames={workspace}:{layer}&resultType=hits"),
        ),
        ("list", "wms?service=WMS&version=1.1.1&request=GetCapabilities".to_owned()),
        (
            "tile",
            format!(
                "gwc/service/wms?service=WMS&version=1.1.1&request=GetMap&layers={workspace}:{layer}&styles=&\
                 bbox=90,-90,180,0&width=256&height=256&srs=EPSG:4326&format=image/png"
            ),
        ),
        (
            "wmts tile",
            format!(
                "gwc/service/wmts?service=WMTS&version=1.0.0&request=GetTile&layer={workspace}:{layer}&style=&\
                 tilematrixset=EPSG:4326&tilematrix=EPSG:4326:1&tilerow=1&tilecol=3&format=image/png"
            ),
        ),
    ] {
        let place = if query.starts_with("gwc") { url.to_owned() } else { format!("{url}/{workspace}") };
        let answer = http.get(format!("{place}/{query}")).send().await.unwrap();
        let is_image = answer.headers().get("content-type").is_some_and(|kind| kind == "image/png");
        let body = answer.bytes().await.unwrap();
        let body = String::from_utf8_lossy(&body);
        let is_open = match way {
            "map" | "tile" | "wmts tile" => is_image,
            "features" => body.contains("numberMatched="),
            _ => body.contains(&format!("<Name>{layer}</Name>")),
        };
        if is_open {
            seen.push(way.to_owned());
        }
    }
    seen
}

#[tokio::test]
async fn rules_become_exactly_the_files_and_are_then_left_alone() {
    let r = rules("rules").await;
    let text = "mode=MIXED\n*.*.r=*\n*.*.w=ADMIN\n{w}.*.r=STAFF\n{w}.*.a=CHIEF\n{w}.roads.r=B,A\n{w}.roads.w=A\n\
                {w}.roads\\\\.night.r=A\n{w}.strassen_ü.r=Ä\n{w}.x\\ y.r=A\n{w}_group.r=STAFF\n";
    assert_eq!(r.apply(text).await.unwrap(), Change::Updated);
    let shown = r.shown().await;
    let mut roles: Vec<&str> = shown[r.key("roads.r")].as_str().unwrap().split(',').collect();
    roles.sort_unstable();
    assert_eq!(roles, ["A", "B"]);
    for (rule, roles) in [
        (r.key("*.r"), "STAFF"),
        (r.key("*.a"), "CHIEF"),
        (r.key("roads.w"), "A"),
        (r.key("roads.night.r"), "A"),
        (r.key("strassen_ü.r"), "Ä"),
        (r.key("x y.r"), "A"),
        (format!("{}_group.r", r.t.workspace), "STAFF"),
        ("*.*.r".to_owned(), "*"),
        ("*.*.w".to_owned(), "ADMIN"),
    ] {
        assert_eq!(shown[&rule], roles, "{rule} in {shown}");
    }
    assert_eq!(shown.as_object().unwrap().len(), 10, "{shown}");
    assert_eq!(r.t.raw("GET", "security/acl/catalog.json", None).await.1["mode"], "MIXED");

    let again = r.again();
    assert_eq!(again.apply_access_rules(&r.parse(text), None).await.unwrap(), Change::Unchanged);
    assert_eq!(again.requests(), RequestCount { reads: 2, writes: 0 }, "rules and mode are read");
    assert_eq!(
        again.apply_access_rules(&r.parse(&text.replace("MIXED", "HIDE")), None).await.unwrap(),
        Change::Updated
    );
    assert_eq!(again.requests().writes, 2, "the file is uploaded and moved");

    // Rules that somebody has added by hand go.
    assert_eq!(r.apply(START).await.unwrap(), Change::Updated);
    let (status, _) = r.t.raw("POST", "security/acl/layers.json", Some(json!({r.key("roads.r"): "*"}))).await;
    assert_eq!(status, 200);
    assert_eq!(r.apply(START).await.unwrap(), Change::Updated);
    assert_eq!(r.shown().await.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_closed_layer_stays_closed_at_every_moment_of_many_changes() {
    let r = rules("strangers").await;
    let files = [
        // Closed by a rule of its own, of its workspace, or for everything; other rules come and go.
        "*.*.r=*\n{w}.roads.r=A\n",
        "*.*.r=*\n{w}.roads.r=B\n",
        "mode=MIXED\n*.*.r=*\n{w}.*.r=A\n{w}.tracks.r=*\n",
        "*.*.r=A\n{w}.tracks.r=*\n{w}_more.r=A\n",
        "mode=MIXED\n{w}.roads.r=ADMIN\n{w}.*.r=*\n",
        "*.*.r=B\n{w}.*.r=*\n{w}.roads.r=A,B\n",
    ];
    r.apply(files[0]).await.unwrap();
    let t = &r.t;
    assert_eq!(look(t, "tracks").await, EVERY_WAY);
    let strangers = Strangers::start(t, "roads");
    for text in files.iter().cycle().skip(1).take(12) {
        assert_eq!(r.apply(text).await.unwrap(), Change::Updated, "{text}");
        strangers.go_on().await;
    }
    let (seen, asked) = strangers.end().await;
    assert_eq!(seen, Vec::<String>::new(), "of {asked} times");
    assert!(asked > 50, "{asked}");
    assert_eq!(r.apply(files[0]).await.unwrap(), Change::Unchanged, "twelve changes end with the first file");
    assert_eq!(look(t, "tracks").await, EVERY_WAY);
    r.apply(START).await.unwrap();
    assert_eq!(look(t, "roads").await, EVERY_WAY);
}

#[tokio::test]
async fn rules_that_go_with_a_layer_are_back_before_the_layer() {
    let r = rules("back").await;
    let t = &r.t;
    let wanted = r.parse("*.*.r=*\n*.*.w=ADMIN\n{w}.roads.r=A\n{w}.roads.w=A\n{w}_other.*.r=A\n");
    t.server.apply_access_rules(&wanted, None).await.unwrap();
    let roads = geo("roads");
    let strangers = Strangers::start(t, "roads");
    for _ in 0..3 {
        t.server.remove_layer(&t.workspace, &t.store, &roads, None, &[]).await.unwrap();
        assert!(r.shown().await[r.key("roads.r")].is_null(), "GeoServer drops the rules of a layer");
        let before = t.server.requests();
        assert_eq!(t.server.ensure_rules_of_layer(&t.workspace, &roads, &wanted, None).await.unwrap(), Change::Created);
        assert_eq!(t.server.requests().since(before), RequestCount { reads: 1, writes: 1 });
        assert_eq!(
            t.server.ensure_rules_of_layer(&t.workspace, &roads, &wanted, None).await.unwrap(),
            Change::Unchanged
        );
        t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap();
        strangers.go_on().await;
    }
    let (seen, asked) = strangers.end().await;
    assert_eq!(seen, Vec::<String>::new(), "of {asked} times");

    let before = t.server.requests();
    assert_eq!(t.server.ensure_rules_of_layer(&t.workspace, &roads, &wanted, None).await.unwrap(), Change::Unchanged);
    let tracks = geo("tracks");
    assert_eq!(t.server.ensure_rules_of_layer(&t.workspace, &tracks, &wanted, None).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests().since(before), RequestCount::default(), "nothing names tracks, roads is known");
    t.server.forget().await;
    assert_eq!(t.server.ensure_rules_of_layer(&t.workspace, &roads, &wanted, None).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests().since(before), RequestCount { reads: 1, writes: 0 });
    r.apply(START).await.unwrap();
}

#[tokio::test]
async fn rules_of_a_workspace_and_of_names_with_dots_are_put_back_too() {
    let r = rules("wide").await;
    let t = &r.t;
    let wanted = r.parse("*.*.r=ADMIN\n{w}.*.r=*\n{w}.roads.r=A\n");
    r.apply("*.*.r=ADMIN\n").await.unwrap();
    let strangers = Strangers::start(t, "roads");
    let tracks = geo("tracks");
    assert_eq!(t.server.ensure_rules_of_layer(&t.workspace, &tracks, &wanted, None).await.unwrap(), Change::Created);
    strangers.go_on().await;
    let (seen, _) = strangers.end().await;
    assert_eq!(seen, Vec::<String>::new(), "the workspace opens after the layer in it is closed");
    assert_eq!(look(t, "tracks").await, EVERY_WAY);

    let wanted = r.parse("*.*.r=*\n{w}.roads\\\\.night.r=A\n");
    r.apply("*.*.r=*\n").await.unwrap();
    let night = geo("roads.night");
    assert_eq!(t.server.ensure_rules_of_layer(&t.workspace, &night, &wanted, None).await.unwrap(), Change::Updated);
    assert_eq!(r.shown().await[r.key("roads.night.r")], "A");
    r.apply(START).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_written_in_the_data_directory_is_obeyed_and_keeps_owner_and_mode() {
    let r = rules("file").await;
    let file = r.data_dir.join("security/layers.properties");
    let before = fs::metadata(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    // Only root can give a file away.
    let owner = chown(&file, Some(12_345), Some(23_456)).map_or((before.uid(), before.gid()), |()| (12_345, 23_456));
    let text = "mode=CHALLENGE\n*.*.r=*\n{w}.roads\\\\.night.r=A\n{w}.roads.r=A\n";
    write_access_rules_file(&r.data_dir, &r.parse(text)).unwrap();
    let after = fs::metadata(&file).unwrap();
    assert_eq!((after.mode() & 0o7777, (after.uid(), after.gid())), (0o604, owner));
    assert_ne!(after.ino(), before.ino(), "the file is replaced, not written over");
    let beside = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    let beside: Vec<_> = beside.filter(|name| name.to_string_lossy().starts_with(".layers")).collect();
    assert!(beside.is_empty(), "{beside:?}");
    chown(&file, Some(before.uid()), Some(before.gid())).unwrap();
    fs::set_permissions(&file, before.permissions()).unwrap();

    let mut patience = 200;
    while r.shown().await[r.key("roads.night.r")] != "A" && patience > 0 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        patience -= 1;
    }
    assert_eq!(r.apply(text).await.unwrap(), Change::Unchanged);
    r.apply(START).await.unwrap();

    let error = write_access_rules_file(&r.data_dir.join("security"), &r.parse(text)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert!(error.paragraph().contains("GEOSERVER_DATA_DIR"), "{}", error.paragraph());
}

/// That strangers see what is open for a moment: this is how rules are not to be changed.
#[tokio::test]
async fn a_rule_that_is_changed_on_its_own_lets_strangers_in() {
    let r = rules("hole").await;
    // A real GeoServer does so once in hundreds of changes.
    let Some(double) = &r.t.double else { return };
    r.apply("*.*.r=*\n{w}.roads.r=A\n").await.unwrap();
    let strangers = Strangers::start(&r.t, "roads");
    for roles in ["A", "B"].iter().cycle().take(20) {
        let document = json!({r.key("roads.r"): roles});
        assert_eq!(r.t.raw("PUT", "security/acl/layers.json", Some(document)).await.0, 200);
        strangers.go_on().await;
    }
    let (seen, asked) = strangers.end().await;
    assert!(!seen.is_empty(), "of {asked} times");
    assert_eq!(double.rules()[&r.key("roads.r")], "B");
}

#[tokio::test]
async fn a_change_that_geoserver_misses_is_made_again() {
    let r = rules("missed").await;
    let Some(double) = &r.t.double else { return };
    double.miss_rules(1);
    let text = "*.*.r=*\n{w}.roads.r=A\n";
    assert_eq!(r.apply(text).await.unwrap(), Change::Updated);
    assert_eq!(double.rules()[&r.key("roads.r")], "A");
}

#[tokio::test]
async fn without_the_right_to_files_by_rest_the_data_directory_serves() {
    let r = rules("norest").await;
    // A real GeoServer's administrator has the right.
    let Some(double) = &r.t.double else { return };
    double.allow_resources(false);
    let text = "*.*.r=*\n{w}.roads\\\\.night.r=A\n";
    let error = r.apply(text).await.unwrap_err();
    assert!(error.paragraph().contains("GEOSERVER_DATA_DIR"), "{}", error.paragraph());
    assert_eq!(r.shown().await.as_object().unwrap().len(), 2, "the old rules hold");
    let change = r.t.server.apply_access_rules(&r.parse(text), Some(&r.data_dir)).await.unwrap();
    assert_eq!(change, Change::Updated);
    assert_eq!(r.shown().await[r.key("roads.night.r")], "A");

    // Also for the rules of a layer, where its name has a dot.
    let rules = r.parse("*.*.r=*\n{w}.roads\\\\.night.r=A\n{w}.roads\\\\.day.r=A\n");
    let day = geo("roads.day");
    let error = r.t.server.ensure_rules_of_layer(&r.t.workspace, &day, &rules, None).await.unwrap_err();
    assert!(error.paragraph().contains("GEOSERVER_DATA_DIR"), "{}", error.paragraph());
    r.t.server.ensure_rules_of_layer(&r.t.workspace, &day, &rules, Some(&r.data_dir)).await.unwrap();
    assert_eq!(r.shown().await[r.key("roads.day.r")], "A");
}
