//! Names that are no plain words, for every kind: they work, or are refused by name.

use borg_slave::state_repo::Vcs;

use super::*;
use crate::support::rest::Rest;

/// Text that must come through as it is wherever text is free.
const TEXT: &str = "A \"title\" 'with' <b>&amp;</b> & äöü 道路 🛣 \\ / ; % ${x}";

/// Names that the whole way takes.
const GOOD: [&str; 8] = ["with space", "v1.2", "under_score-dash", "Grüße", "道路", "R&B", "one(two)", "🛣 way"];

/// Names that are refused, since GeoServer cannot address them.
const BAD: [&str; 9] = ["a/b", "a\\b", "a;b", "50%", "a<b", "a>b", "say \"x\"", "trail ", "a,b"];

/// The text and the names that this GeoServer takes: 2.18 writes a character beyond U+FFFF into its capabilities in a
/// way that it cannot read itself, and then it is nobody's upstream, not this test's nor another's.
async fn good(rest: &Rest) -> (String, Vec<&'static str>) {
    let is_old = rest.version().await.starts_with("2.18.");
    let free = if is_old { TEXT.replace('🛣', "") } else { TEXT.to_owned() };
    (free, GOOD.into_iter().filter(|name| !(is_old && name.contains('🛣'))).collect())
}

/// Where the master writes a job; what is no name of a file gets another one.
fn job_file(workspace: &str, folder: &str, name: &str) -> String {
    format!("geoserver/{folder}/{workspace}.{}.json", name.replace('/', "_").replace('\\', "-"))
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_all_kinds_work_or_are_refused() {
    let world = World::any(Vcs::Hg).await;
    let (w, rest) = (world.workspace("names"), world.rest());
    let (free, names) = good(&rest).await;
    let source = Layer::new(&w, "source");
    world.publish(&source).await;
    world.commit("source");
    world.pull().succeeded();

    // In one commit; each name once for every kind.
    let native = format!("{w}:source");
    let mut jobs = Vec::new();
    let write = |folder: &str, number: usize, metadata: &Value| {
        let dir = world.download().join("names");
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join(format!("{folder}.{number}.json"));
        fs::write(&file, metadata.to_string()).unwrap();
        let document = json!({"job_id": 100 + number, "action": "publish", "meta": world.reference(&file)});
        let path = job_file(&w, folder, metadata["name"].as_str().unwrap());
        world.master.write(&path, document.to_string());
        path
    };
    for (number, name) in names.iter().chain(&BAD).enumerate() {
        let good = number < names.len();
        let text = |kind: &str| format!("{kind} {name}");
        let upstream = format!("{}/ows?service=WMS&version=1.1.1&request=GetCapabilities", world.geoserver_url());
        let common = |kind: &str| json!({"workspace": w, "name": text(kind), "title": free, "abstract": free, "keywords": [free]});
        let with = crate::support::jobs::with;
        jobs.push((
            good,
            write(
                "wms_stores",
                number,
                &with(common("ws"), &json!({"capability_url": upstream, "username": "", "password": ""})),
            ),
        ));
        let store = if good { text("ws") } else { "ws v1.2".to_owned() };
        jobs.push((
            good,
            write("wms_layers", number, &with(common("wl"), &json!({"native_name": native, "store": store}))),
        ));
        let connection = json!({"host": "127.0.0.1", "port": crate::support::postgres::PrivatePostgres::start().port(),
            "database": world.database.name(), "schema": w, "user": crate::support::postgres::ROLE, "passwd": crate::support::postgres::PASSWORD});
        jobs.push((good, write("live_stores", number, &with(common("ls"), &connection))));
        let live = json!({"datastore": if good { text("ls") } else { "ls v1.2".to_owned() }, "table": "source", "spatial_data": true,
            "spatial_type": "POINT", "spatial_column": "geom", "crs": "EPSG:4283", "service_type": "WFS", "styles": {},
            "geoserver_setting": {"create_cache_layer": true, "server_cache_expire": 1, "client_cache_expire": 1}});
        jobs.push((good, write("live_layers", number, &with(common("ll"), &live))));
        let members = json!({"srs": "EPSG:4326", "dependent_groups": [], "layers": [
            {"type": "publish", "workspace": w, "name": if good { text("ll") } else { "source".to_owned() }},
            {"type": "wms_layer", "workspace": w, "name": if good { text("wl") } else { "source".to_owned() }}]});
        let path = job_file(&w, "layergroups", &text("g"));
        world.master.write(&path, with(with(common("g"), &members), &json!({"action": "publish"})).to_string());
        jobs.push((good, path));
    }
    world.commit("names");
    let outcome = world.pull();
    let records = status(&world);
    for (good, job) in &jobs {
        let record = &records[job];
        if *good {
            assert_eq!(record["state"], json!("succeeded"), "{record:#}");
        } else {
            assert_eq!(record["state"], json!("failed"), "{record:#}");
            let message = record["message"].as_str().unwrap();
            assert!(message.contains("no usable GeoServer name"), "{message}");
        }
    }
    outcome.failed();
    let layers = rest.layers(&w).await;
    assert_eq!(layers.len(), 1 + 2 * names.len(), "{layers:?}");
    for name in &names {
        let members = rest.group(&w, &format!("g {name}")).await.unwrap();
        assert_eq!(members, [format!("{w}:ll {name}"), format!("{w}:wl {name}")]);
        assert!(rest.tile_layer(&w, &format!("ll {name}")).await.is_some(), "{name}");
        if let Some(double) = world.doubles.first() {
            for kind in ["ll", "wl"] {
                let view = double.layer(&w, &format!("{kind} {name}")).unwrap();
                assert_eq!((view.title.as_str(), view.abstract_text.as_str()), (TEXT, TEXT), "{kind} {name}");
            }
        }
    }

    for (_, job) in &jobs {
        world.master.remove(job);
    }
    world.commit("remove all");
    world.pull();
    assert_eq!((rest.layers(&w).await, rest.wms_stores(&w).await), (vec!["source".to_owned()], vec![]));
    for name in &names {
        assert_eq!(rest.group(&w, &format!("g {name}")).await, None);
    }
    rest.drop_workspace(&w).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_feature_layers_work_or_are_refused() {
    let world = World::any(Vcs::Hg).await;
    let (w, rest) = (world.workspace("features"), world.rest());
    let (free, good) = good(&rest).await;
    let names: Vec<&str> = good.iter().copied().chain(BAD).filter(|name| !name.contains('/')).collect();
    let plain = Layer::new(&w, "plain").style("night", "#000080");
    let mut layers = Vec::new();
    for (number, name) in names.iter().enumerate() {
        if number < good.len() {
            let layer = Layer::new(&w, name).title(&free).style("two words & more", "#123456");
            world.publish(&layer).await;
            layers.push(layer);
        } else {
            // The dump's name does not matter: the document is refused before it is looked at.
            let mut document =
                json!({"job_id": 500 + number, "action": "publish", "name": name, "workspace": w, "styles": {}});
            for (field, value) in [("schema", ""), ("data_schema", "_data"), ("outdated_schema", "_outdated")] {
                document[field] = json!(format!("{w}{value}"));
            }
            document["data"] = json!({"file": "x@127.0.0.1:/x.db", "md5": "00000000000000000000000000000000"});
            document["meta"] = json!({"file": "x@127.0.0.1:/x.json", "md5": "00000000000000000000000000000000"});
            let dir = world.download().join(format!("bad{number}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("meta.json"), document.to_string()).unwrap();
            document["meta"] = world.reference(&dir.join("meta.json"));
            world.master.write(format!("geoserver/layers/{w}.bad{number}.json"), document.to_string());
        }
    }
    world.publish(&plain).await;
    world.commit("names");
    world.pull().failed();
    let records = status(&world);
    for layer in layers.iter().chain([&plain]) {
        let record = &records[&layer.job_file()];
        assert_eq!(record["state"], json!("succeeded"), "{record:#}");
        assert_eq!(count(&world, &w, &layer.name).await, 10);
    }
    for (file, record) in records.iter().filter(|(file, _)| file.contains(".bad")) {
        let message = record["message"].as_str().unwrap();
        assert!(message.contains("no usable GeoServer name"), "{file}: {message}");
    }
    for layer in &layers {
        let seen = rest.layer(&w, &layer.name).await.unwrap();
        assert_eq!(seen.title, free);
        assert_eq!(seen.styles, [format!("{w}:{}.two words & more", layer.name)], "{seen:?}");
    }
    for layer in &layers {
        world.remove(layer);
    }
    for file in records.keys().filter(|file| file.contains(".bad")) {
        world.master.remove(file);
    }
    world.commit("remove");
    world.pull();
    assert_eq!(rest.layers(&w).await, ["plain"]);
    assert_eq!(rest.styles(&w).await, ["plain", "plain.night"]);
    assert_eq!(files_below(&cache(&world)), Vec::<PathBuf>::new());
    rest.drop_workspace(&w).await;
}
