//! Styles and removal of layers.

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{Change, LayerStyles, MapRequest, Source, Style};
use serde_json::Value;
use serde_json::json;

use super::{SAME, Target, geo, of_each_version, pushed, sld, style, target};

#[tokio::test]
async fn a_bad_style_fails_alone_and_says_why() {
    for t in of_each_version("badstyle").await {
        bad_style(t).await;
    }
}

async fn bad_style(t: Target) {
    t.ready().await;
    t.lines("roads", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap();
    let bad = |name: &str, text: &str| Style { sld: text.as_bytes().to_vec(), ..style(name) };

    let wanted = LayerStyles {
        default: Some("roads".into()),
        ..t.styles(
            "roads",
            vec![bad("roads", "<StyledLayerDescriptor version='1.0.0'><a>"), style("roads.x"), bad("a/b", "")],
        )
    };
    let outcome = t.server.publish_styles(&wanted).await.unwrap();
    let failed: Vec<_> = outcome.failed.iter().map(|(name, error)| (name.as_str(), error.kind())).collect();
    assert_eq!(failed, [("roads", ErrorKind::Document), ("a/b", ErrorKind::Document)]);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads.x"), "the first good one");

    // Well-formed, but with nothing in it that draws: 2.18 empties the style for it before it refuses.
    let empty =
        "<StyledLayerDescriptor version='1.0.0'><NamedLayer><Name>a</Name></NamedLayer></StyledLayerDescriptor>";
    let wanted = t.styles("roads", vec![bad("roads.x", empty)]);
    let outcome = t.server.publish_styles(&wanted).await.unwrap();
    let failed: Vec<_> = outcome.failed.iter().map(|(name, error)| (name.as_str(), error.kind())).collect();
    assert_eq!(failed, [("roads.x", ErrorKind::Document)]);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads.x"));
    let map = MapRequest { workspace: t.workspace.clone(), layer: geo("roads"), bbox: None, crs: None };
    t.server.map_picture(&map).await.unwrap();
    // Only GeoServer sees that it cannot be drawn.
    let wanted = t.styles("roads", vec![bad("roads", "<StyledLayerDescriptor version='1.1.0'/>"), pushed("roads.x")]);
    let outcome = t.server.publish_styles(&wanted).await.unwrap();
    let failed: Vec<_> = outcome.failed.iter().map(|(name, error)| (name.as_str(), error.kind())).collect();
    assert_eq!(failed, [("roads", ErrorKind::GeoServer)]);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads.x"));

    // Somebody else has had such a style refused, of which 2.18 keeps the file.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let address = format!("{}/rest/workspaces/{}/styles.json?name=roads", t.url, t.workspace);
    let request = http.post(address).basic_auth(&t.username, Some(&t.password));
    let request = request.header("Content-Type", "application/vnd.ogc.sld+xml").body(empty);
    assert_eq!(request.send().await.unwrap().status(), 500);
    // A default that was good stays in its old form.
    let outcome = t.server.publish_styles(&t.styles("roads", vec![style("roads"), pushed("roads.x")])).await.unwrap();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads"));
    let outcome =
        t.server.publish_styles(&t.styles("roads", vec![bad("roads", "<x/>"), pushed("roads.x")])).await.unwrap();
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], t.qualified("roads"));
}

#[tokio::test]
async fn the_version_of_a_style_is_told_to_geoserver() {
    for t in of_each_version("sld").await {
        versions_of_a_style(t).await;
    }
}

async fn versions_of_a_style(t: Target) {
    t.ready().await;
    t.lines("roads", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("roads"), SAME).await.unwrap();
    let version = async |sld: Vec<u8>| {
        let style = Style { sld, ..style("roads") };
        let outcome = t.server.publish_styles(&t.styles("roads", vec![style])).await.unwrap();
        assert!(outcome.failed.is_empty(), "{outcome:?}");
        let (_, shown) = t.raw("GET", "workspaces/{w}/styles/roads.json", None).await;
        shown["style"]["languageVersion"]["version"].as_str().unwrap().to_owned()
    };
    assert_eq!(version(sld("1.1.0", "#0000AA")).await, "1.1.0");
    assert_eq!(version(sld("1.0.0", "#0000AA")).await, "1.0.0");
    let mut marked = b"\xef\xbb\xbf".to_vec();
    marked.extend(sld("1.1.0", "#00AAAA"));
    assert_eq!(version(marked).await, "1.1.0");

    // One that is refused leaves the other as it was.
    assert_eq!(version(sld("1.0.0", "#0000AA")).await, "1.0.0");
    let bad = Style { sld: b"<StyledLayerDescriptor version='1.1.0'/>".to_vec(), ..style("roads") };
    let outcome = t.server.publish_styles(&t.styles("roads", vec![bad])).await.unwrap();
    assert_eq!(outcome.failed.len(), 1);
    let (_, shown) = t.raw("GET", "workspaces/{w}/styles/roads.json", None).await;
    assert_eq!(shown["style"]["languageVersion"]["version"], "1.0.0");
    let map = MapRequest { workspace: t.workspace.clone(), layer: geo("roads"), bbox: None, crs: None };
    t.server.map_picture(&map).await.unwrap();
}

#[tokio::test]
async fn stale_styles_go_by_their_exact_name_unless_they_are_used() {
    let t = target("stale").await;
    t.ready().await;
    for name in ["roads", "roads_major"] {
        t.lines(name, 0.0).await;
        t.server.publish_feature_type(&t.lines_type(name), SAME).await.unwrap();
    }
    let all = vec![style("roads"), style("roads.old"), style("roads.shared")];
    t.style(&t.styles("roads", all)).await;
    let majors = vec![style("roads_major"), style("roads.shared")];
    t.style(&t.styles("roads_major", majors)).await;

    let stale: Vec<String> = ["roads.old", "roads.shared", "roads.never"].map(str::to_owned).to_vec();
    let wanted = LayerStyles { stale: stale.clone(), ..t.styles("roads", vec![pushed("roads")]) };
    let outcome = t.server.publish_styles(&wanted).await.unwrap();
    assert_eq!(outcome.change, Change::Updated);
    assert_eq!(outcome.kept.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["roads.shared"]);
    assert_eq!(t.server.publish_styles(&wanted).await.unwrap().change, Change::Unchanged);
    let (_, shown) = t.raw("GET", "workspaces/{w}/styles.json", None).await;
    let mut names: Vec<_> =
        shown["styles"]["style"].as_array().unwrap().iter().map(|style| style["name"].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["roads", "roads.shared", "roads_major"]);

    // Without any style left, the layer still is drawn.
    let none = LayerStyles { stale: vec!["roads".into()], ..t.styles("roads", vec![]) };
    assert_eq!(t.server.publish_styles(&none).await.unwrap().change, Change::Updated);
    assert_eq!(t.layer("roads").await["defaultStyle"]["name"], "generic");
    assert_eq!(t.raw("GET", "workspaces/{w}/styles/roads.json", None).await.0, 404);
}

#[tokio::test]
async fn a_removed_layer_leaves_nothing_and_takes_no_group_with_it() {
    let t = target("remove").await;
    t.ready().await;
    for name in ["roads", "roads.night", "rail"] {
        t.lines(name, 0.0).await;
        t.server.publish_feature_type(&t.lines_type(name), SAME).await.unwrap();
        t.style(&t.styles(name, vec![style(name)])).await;
    }
    let remove =
        async |name: &str| t.server.remove_layer(&t.workspace, &t.store, &geo(name), None, &[name.to_owned()]).await;
    assert_eq!(remove("roads.night").await.unwrap().0, Change::Updated);
    assert_eq!(remove("roads.night").await.unwrap().0, Change::Unchanged);
    assert!(t.server.layer_exists(&t.workspace, &geo("roads")).await.unwrap(), "its neighbour stays");
    assert_eq!(t.raw("GET", "workspaces/{w}/styles/roads.json", None).await.0, 200);
    assert_eq!(t.raw("GET", "workspaces/{w}/styles/roads.night.json", None).await.0, 404);

    let member = |name: &str| json!({"@type": "layer", "name": t.qualified(name)});
    for (group, members) in [("both", vec![member("roads"), member("rail")]), ("only", vec![member("rail")])] {
        let styles: Vec<&str> = members.iter().map(|_| "").collect();
        let document = json!({"layerGroup": {"name": group, "mode": "SINGLE", "publishables": {"published": members}, "styles": {"style": styles}}});
        assert_eq!(t.raw("POST", "workspaces/{w}/layergroups.json", Some(document)).await.0, 201);
    }
    assert_eq!(remove("roads").await.unwrap().0, Change::Updated);
    assert!(!t.server.layer_exists(&t.workspace, &geo("roads")).await.unwrap());
    let (_, group) = t.raw("GET", "workspaces/{w}/layergroups/both.json", None).await;
    assert_eq!(group["layerGroup"]["publishables"]["published"]["name"], t.qualified("rail"));

    let error = remove("rail").await.unwrap_err();
    assert!(error.message().contains("both, only"), "{}", error.paragraph());
    assert!(t.server.layer_exists(&t.workspace, &geo("rail")).await.unwrap());

    // The store is called otherwise by now; another one may have a layer of that name, of other data.
    for group in ["both", "only"] {
        assert_eq!(t.raw("DELETE", &format!("workspaces/{{w}}/layergroups/{group}.json"), None).await.0, 200);
    }
    let (renamed, told) = (geo("renamed"), t.postgis_store("any").parameters);
    let here = Source::of(&told).unwrap();
    let elsewhere = [
        Source { host: "elsewhere", ..here },
        Source { port: "1", ..here },
        Source { database: "elsewhere", ..here },
        Source { schema: "elsewhere", ..here },
    ];
    let none = [None].into_iter().chain(elsewhere.map(Some)).map(|source| (source, Change::Unchanged));
    for (source, change) in none.chain([(Some(here), Change::Updated), (Some(here), Change::Unchanged)]) {
        t.server.forget().await;
        let removed = t.server.remove_layer(&t.workspace, &renamed, &geo("rail"), source, &[]).await.unwrap();
        assert_eq!(removed.0, change, "{source:?}");
        let is_there = t.server.layer_exists(&t.workspace, &geo("rail")).await.unwrap();
        assert_eq!(is_there, source != Some(here), "{source:?}");
    }
}
