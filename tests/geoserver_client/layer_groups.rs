//! Layer groups: members, boxes, nesting, repair, removal.

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::{Change, FeatureType, LayerGroup, Member};
use serde_json::{Value, json};

use super::{DATA, SAME, Target, client, geo, numbers, target};

fn layer(t: &Target, name: &str) -> Member {
    Member::Layer(t.workspace.clone(), geo(name))
}

fn nested(t: &Target, name: &str) -> Member {
    Member::Group(t.workspace.clone(), geo(name))
}

fn group(t: &Target, name: &str, members: &[Member]) -> LayerGroup {
    LayerGroup {
        workspace: t.workspace.clone(),
        name: geo(name),
        title: format!("Title of {name}"),
        abstract_text: "All of them".into(),
        srs: "EPSG:4326".into(),
        members: members.to_vec(),
    }
}

async fn layers(t: &Target, names: &[&str]) {
    t.ready().await;
    for (index, name) in names.iter().enumerate() {
        // GeoServer cannot read a table with an apostrophe in its name.
        let table = name.replace('\'', "");
        t.lines(&table, index as f64).await;
        let wanted = FeatureType { native_name: table, ..t.lines_type(name) };
        t.server.publish_feature_type(&wanted, SAME).await.unwrap();
    }
}

async fn shown(t: &Target, name: &str) -> Value {
    let (status, mut body) = t.raw("GET", &format!("workspaces/{{w}}/layergroups/{name}.json"), None).await;
    assert_eq!(status, 200, "{name}");
    body["layerGroup"].take()
}

fn members(t: &Target, group: &Value) -> Vec<String> {
    let published = &group["publishables"]["published"];
    let list = published.as_array().cloned().unwrap_or_else(|| vec![published.clone()]);
    let prefix = format!("{}:", t.workspace);
    list.iter().map(|member| member["name"].as_str().unwrap().replace(&prefix, "")).collect()
}

async fn publish(t: &Target, wanted: &LayerGroup) -> Change {
    let change = t.server.publish_layer_group(wanted).await.unwrap();
    let before = t.server.requests();
    assert_eq!(t.server.publish_layer_group(wanted).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests().since(before).writes, 0);
    change
}

/// Breaks a group as an XML document with empty styles does.
async fn break_group(t: &Target, name: &str, members: usize) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http
        .put(format!("{}/rest/workspaces/{}/layergroups/{name}.xml", t.url, t.workspace))
        .basic_auth(&t.username, Some(&t.password))
        .header("content-type", "application/xml")
        .body(format!("<layerGroup><styles>{}</styles></layerGroup>", "<style/>".repeat(members)))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let (status, _) = t.raw("GET", &format!("workspaces/{{w}}/layergroups/{name}.json"), None).await;
    assert_eq!(status, 500);
}

#[tokio::test]
async fn members_change_in_order_and_number() {
    let t = target("group_members").await;
    layers(&t, &["a", "b.x & ü's", "c"]).await;
    let of = |names: &[&str]| {
        let members: Vec<Member> = names.iter().map(|name| layer(&t, name)).collect();
        LayerGroup {
            title: "\"Roads\" & <rivers>, 道路 🙂 it's".into(),
            abstract_text: "first\r\nsecond <b> \u{1} & \"third\"".into(),
            ..group(&t, "g. & 道's", &members)
        }
    };
    assert_eq!(publish(&t, &of(&["a", "b.x & ü's", "c"])).await, Change::Created);
    let first = shown(&t, "g. %26 道's").await;
    assert_eq!(members(&t, &first), ["a", "b.x & ü's", "c"]);
    assert_eq!(first["title"], "\"Roads\" & <rivers>, 道路 🙂 it's");
    assert_eq!(first["abstractTxt"], "first\nsecond <b>  & \"third\"");
    assert_eq!(first["mode"], "SINGLE");
    assert_eq!(numbers(&first["bounds"]), [115.0, -32.0, 118.0, -31.0]);

    for names in [&["c", "a", "b.x & ü's"][..], &["a"], &["c", "a"], &["a", "c", "b.x & ü's"]] {
        assert_eq!(publish(&t, &of(names)).await, Change::Updated);
        assert_eq!(members(&t, &shown(&t, "g. %26 道's").await), names);
    }
    t.server.forget().await;
    assert_eq!(publish(&t, &of(&["a", "c", "b.x & ü's"])).await, Change::Unchanged);

    let untitled = LayerGroup { title: String::new(), abstract_text: String::new(), ..of(&["a"]) };
    assert_eq!(publish(&t, &untitled).await, Change::Updated);
    assert_eq!(t.server.remove_layer_group(&t.workspace, &geo("g. & 道's")).await.unwrap(), Change::Updated);
    let before = t.server.requests();
    assert_eq!(t.server.remove_layer_group(&t.workspace, &geo("g. & 道's")).await.unwrap(), Change::Unchanged);
    assert_eq!(t.server.requests().since(before).writes, 0);
    assert_eq!(t.layer("a").await["name"], "a", "the members stay");
}

#[tokio::test]
async fn the_box_follows_the_members_and_their_data() {
    let t = target("group_box").await;
    layers(&t, &["a", "b"]).await;
    t.execute("create table {s}.none (id serial primary key, geom geometry(LineString, 4326))").await;
    let mut none = t.lines_type("none");
    none.columns = vec![];
    t.server.publish_feature_type(&none, SAME).await.unwrap();
    t.execute("create table {s}.plain (id serial primary key, label text)").await;
    let document = json!({"featureType": {"name": "plain"}});
    assert_eq!(t.raw("POST", "workspaces/{w}/datastores/{s}/featuretypes.json", Some(document)).await.0, 201);
    let bounds = async |name: &str| shown(&t, name).await["bounds"].clone();

    // An empty layer and a table without geometry lie nowhere, and not at 0, -1.
    let inner = [layer(&t, "a"), layer(&t, "none"), layer(&t, "plain")];
    assert_eq!(publish(&t, &group(&t, "inner", &inner)).await, Change::Created);
    assert_eq!(numbers(&bounds("inner").await), [115.0, -32.0, 116.0, -31.0]);
    assert_eq!(publish(&t, &group(&t, "empty", &[layer(&t, "none")])).await, Change::Created);
    assert_eq!(numbers(&bounds("empty").await), [-180.0, -90.0, 180.0, 90.0]);

    let outer = group(&t, "outer", &[nested(&t, "inner"), layer(&t, "b")]);
    assert_eq!(publish(&t, &outer).await, Change::Created);
    assert_eq!(numbers(&bounds("outer").await), [115.0, -32.0, 117.0, -31.0]);

    // The data of a member of the inner group move; both follow.
    t.execute("update {s}.a set geom = st_setsrid(st_makeline(st_point(110, -30), st_point(111, -29)), 4326)").await;
    t.server.publish_feature_type(&t.lines_type("a"), DATA).await.unwrap();
    assert_eq!(publish(&t, &outer).await, Change::Updated);
    assert_eq!(numbers(&bounds("outer").await), [110.0, -32.0, 117.0, -29.0]);

    let web = LayerGroup { srs: "EPSG:3857".into(), ..outer.clone() };
    assert_eq!(publish(&t, &web).await, Change::Updated);
    let told = bounds("outer").await;
    assert_eq!(told["crs"]["$"], "EPSG:3857");
    assert!((numbers(&told)[0] - 12_245_143.987).abs() < 1.0, "{told}");
    let gda = LayerGroup { srs: "EPSG:4283".into(), ..outer.clone() };
    assert_eq!(publish(&t, &gda).await, Change::Updated);
    assert_eq!(bounds("outer").await["crs"], "EPSG:4283");
    assert_eq!(publish(&t, &LayerGroup { srs: "EPSG:28350".into(), ..outer }).await, Change::Updated);
    assert_eq!(bounds("outer").await["crs"], "EPSG:4326");
}

#[tokio::test]
async fn missing_and_foreign_members_are_named_and_nothing_is_made() {
    let t = target("group_missing").await;
    layers(&t, &["a"]).await;
    let all = [layer(&t, "a"), layer(&t, "gone.x"), nested(&t, "gone"), Member::Layer(geo("nosuchplace"), geo("a"))];
    assert_eq!(t.server.existing_members(&all).await.unwrap(), [true, false, false, false]);
    let error = t.server.publish_layer_group(&group(&t, "g", &all[..3])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Dependency);
    assert!(error.message().ends_with(&format!(": {w}:gone.x, the group {w}:gone", w = t.workspace)), "{error}");
    let error = t.server.publish_layer_group(&group(&t, "g", &all[3..])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Document);
    assert!(error.message().contains("nosuchplace:a"), "{error}");
    for wrong in [&[][..], &[nested(&t, "g")]] {
        let error = t.server.publish_layer_group(&group(&t, "g", wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Document);
    }
    assert_eq!(t.raw("GET", "workspaces/{w}/layergroups/g.json", None).await.0, 404);

    // What is made and removed through this handle is known without a request; what others make, is found.
    t.lines("b", 0.0).await;
    t.server.publish_feature_type(&t.lines_type("b"), SAME).await.unwrap();
    publish(&t, &group(&t, "g", &[layer(&t, "a")])).await;
    let before = t.server.requests();
    assert_eq!(t.server.existing_members(&[layer(&t, "b"), nested(&t, "g")]).await.unwrap(), [true, true]);
    assert_eq!(t.server.requests().since(before).reads, 0);
    let other = client(&t.url, &t.username, &t.password, std::time::Duration::from_secs(60));
    t.lines("c", 0.0).await;
    other.publish_feature_type(&t.lines_type("c"), SAME).await.unwrap();
    other.publish_layer_group(&group(&t, "h", &[layer(&t, "c")])).await.unwrap();
    assert_eq!(t.server.existing_members(&[layer(&t, "c"), nested(&t, "h")]).await.unwrap(), [true, true]);
    t.server.remove_layer(&t.workspace, &t.store, &geo("b"), None, &[]).await.unwrap();
    assert_eq!(t.server.existing_members(&[layer(&t, "b")]).await.unwrap(), [false]);
    // However many are missing, the lists are read once more.
    let missing: Vec<Member> =
        (0..20).flat_map(|index| [layer(&t, &format!("no{index}")), nested(&t, &format!("no{index}"))]).collect();
    let before = t.server.requests();
    let all = [&[layer(&t, "c"), nested(&t, "h")], &missing[..]].concat();
    assert_eq!(t.server.existing_members(&all).await.unwrap(), [&[true; 2][..], &[false; 40]].concat());
    assert_eq!(t.server.requests().since(before).reads, 2);

    // A group that another has made meanwhile is brought to what is told.
    other.publish_layer_group(&group(&t, "i", &[layer(&t, "c")])).await.unwrap();
    assert_eq!(publish(&t, &group(&t, "i", &[layer(&t, "a"), layer(&t, "c")])).await, Change::Updated);
}

#[tokio::test]
async fn broken_and_disabled_groups_are_repaired() {
    let t = target("group_broken").await;
    layers(&t, &["a", "b"]).await;
    let wanted = group(&t, "g", &[layer(&t, "a"), layer(&t, "b")]);
    publish(&t, &wanted).await;
    publish(&t, &group(&t, "outer", &[nested(&t, "g")])).await;
    break_group(&t, "g", 2).await;
    assert_eq!(publish(&t, &wanted).await, Change::Updated);
    assert_eq!(members(&t, &shown(&t, "g").await), ["a", "b"]);
    break_group(&t, "g", 2).await;
    let fewer = group(&t, "g", &[layer(&t, "b")]);
    assert_eq!(publish(&t, &fewer).await, Change::Updated);

    let change = json!({"layerGroup": {"mode": "NAMED", "enabled": false}});
    assert_eq!(t.raw("PUT", "workspaces/{w}/layergroups/g.json", Some(change)).await.0, 200);
    assert_eq!(publish(&t, &fewer).await, Change::Updated);
    assert_eq!(shown(&t, "g").await["mode"], "SINGLE");

    // A loop is GeoServer's to find.
    let error = t.server.publish_layer_group(&group(&t, "g", &[nested(&t, "outer")])).await.unwrap_err();
    assert!(error.message().contains("loop"), "{error}");

    // A broken group can be removed when nothing holds it.
    assert_eq!(t.server.remove_layer_group(&t.workspace, &geo("outer")).await.unwrap(), Change::Updated);
    break_group(&t, "g", 1).await;
    assert_eq!(t.server.remove_layer_group(&t.workspace, &geo("g")).await.unwrap(), Change::Updated);
}

#[tokio::test]
async fn a_nested_group_goes_after_those_that_hold_it() {
    let t = target("group_nested").await;
    layers(&t, &["a", "b"]).await;
    publish(&t, &group(&t, "inner.x", &[layer(&t, "a")])).await;
    publish(&t, &group(&t, "outer", &[nested(&t, "inner.x"), layer(&t, "b")])).await;
    publish(&t, &group(&t, "other", &[nested(&t, "inner.x")])).await;
    let inner = geo("inner.x");
    let error = t.server.remove_layer_group(&t.workspace, &inner).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Dependency);
    assert!(error.message().ends_with(": other, outer"), "{error}");
    assert_eq!(members(&t, &shown(&t, "outer").await), ["inner.x", "b"]);

    assert_eq!(t.server.remove_layer_group(&t.workspace, &geo("other")).await.unwrap(), Change::Updated);
    publish(&t, &group(&t, "outer", &[layer(&t, "b")])).await;
    assert_eq!(t.server.remove_layer_group(&t.workspace, &inner).await.unwrap(), Change::Updated);
    assert_eq!(t.raw("GET", "workspaces/{w}/layergroups/inner.x.json", None).await.0, 404);
}

#[tokio::test]
async fn groups_are_read_once_however_many_layers_go() {
    let t = target("group_cost").await;
    layers(&t, &["a", "b", "c", "stays"]).await;
    for index in 0..12 {
        let held = [layer(&t, "stays"), layer(&t, ["a", "b", "c"][index % 3])];
        assert_eq!(
            t.server.publish_layer_group(&group(&t, &format!("g{index}"), &held)).await.unwrap(),
            Change::Created
        );
    }
    t.server.forget().await;
    let remove = async |name: &str| t.server.remove_layer(&t.workspace, &t.store, &geo(name), None, &[]).await;
    let before = t.server.requests();
    assert_eq!(remove("a").await.unwrap().0, Change::Updated);
    assert!(t.server.requests().since(before).reads >= 14);
    let before = t.server.requests();
    assert_eq!(remove("b").await.unwrap().0, Change::Updated);
    // Those that were changed and those that are to be, not all of them.
    assert!(t.server.requests().since(before).reads <= 8, "{:?}", t.server.requests().since(before));
    assert_eq!(members(&t, &shown(&t, "g1").await), ["stays"]);

    // Now the groups that held it hold one layer only, each twice the same would be no other.
    let twice = group(&t, "g0", &[layer(&t, "c"), layer(&t, "c")]);
    publish(&t, &twice).await;
    let error = remove("c").await.unwrap_err();
    assert!(error.message().contains("in the layer group g0"), "{error}");
    assert_eq!(t.layer("c").await["name"], "c");
}

#[tokio::test]
async fn the_groups_that_show_a_layer_are_found_in_whatever_depth() {
    let t = target("group_show").await;
    layers(&t, &["a", "b"]).await;
    publish(&t, &group(&t, "inner", &[layer(&t, "a")])).await;
    publish(&t, &group(&t, "outer", &[layer(&t, "b"), nested(&t, "inner")])).await;
    publish(&t, &group(&t, "other", &[layer(&t, "b")])).await;
    for server in [t.server.clone(), client(&t.url, &t.username, &t.password, std::time::Duration::from_secs(60))] {
        let mut found = server.groups_that_show(&layer(&t, "a")).await.unwrap();
        found.sort();
        assert_eq!(found, [geo("inner"), geo("outer")]);
    }
}
