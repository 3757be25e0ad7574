//! Twenty layers of all sorts: published, left alone, published anew, described anew, removed.

use borg_slave::state_repo::Vcs;
use serde_json::json;

use super::*;
use crate::support::world::sld;

/// Three workspaces: open, for signed-in staff by what its layers say, restricted by its own document.
struct Twenty {
    workspaces: [String; 3],
    layers: Vec<Layer>,
}

fn lines(layer: Layer) -> Layer {
    layer.dump(|dump| dump.geometry("LineString")).field("spatial_type", json!("LINESTRING"))
}

fn areas(layer: Layer) -> Layer {
    layer.dump(|dump| dump.geometry("Polygon")).field("spatial_type", json!("POLYGON"))
}

/// A foreign key to a layer of the same or another workspace.
fn pointing(layer: Layer, workspace: &str, table: &str) -> Layer {
    let schema = format!("{workspace}_data");
    layer.dump(|dump| dump.references(&schema, table, "on delete cascade"))
}

impl Twenty {
    fn of(world: &World) -> Self {
        let workspaces = ["cadastre", "Parks", "secret"].map(|name| world.workspace(name));
        let [open, staff, secret] = &workspaces;
        let mut layers = vec![
            lines(Layer::new(open, "roads").rows(50)).style("night", "#000080").style("day", "#ffff00"),
            // Refers to a layer whose name sorts later, which refers to one that sorts earlier.
            pointing(areas(Layer::new(open, "parcels")), open, "zones"),
            pointing(areas(Layer::new(open, "zones")), open, "addresses"),
            Layer::new(open, "addresses"),
            Layer::new(open, "sites.v2"),
            Layer::new(open, "Straßen & Wege"),
            Layer::new(open, "its here"),
            Layer::new(open, "道路"),
            Layer::new(open, "UPPER_Mixed"),
            Layer::new(open, "of tar").dump(|dump| dump.tar()),
            // Another layer's name begins with this one's, so do its styles.
            Layer::new(open, "roads_old").style("night", "#111111"),
            Layer::new(open, "view")
                .field("viewsql", json!(format!("select id, label, geom from \"{open}\".\"view\" where id <= 4"))),
        ];
        layers.extend([
            lines(Layer::new(staff, "tracks")).style("dashed.thin", "#ff00ff"),
            pointing(Layer::new(staff, "gates"), secret, "owners"),
            areas(Layer::new(staff, "reserves"))
                .field("override_bbox", json!(true))
                .field("bbox", json!("[112, -36, 130, -13]")),
            Layer::new(staff, "registry")
                .dump(|dump| dump.without_geometry())
                .styles(&[])
                .field("spatial_data", json!(false)),
            Layer::new(staff, "roads"),
        ]);
        for layer in layers.iter_mut().filter(|layer| &layer.workspace == staff) {
            layer.auth_level = 1;
        }
        let restricted = |layer: Layer| layer.auth_level(2);
        layers.extend([
            restricted(Layer::new(secret, "owners")),
            restricted(pointing(Layer::new(secret, "deeds"), secret, "owners")),
            restricted(areas(Layer::new(secret, "claims"))),
        ]);
        assert_eq!(layers.len(), 20);
        Self { workspaces, layers }
    }

    fn names(&self) -> [&str; 3] {
        [&self.workspaces[0], &self.workspaces[1], &self.workspaces[2]]
    }

    fn in_workspace(&self, workspace: &str) -> Vec<String> {
        let layers = self.layers.iter().filter(|layer| layer.workspace == workspace);
        let mut names: Vec<_> = layers.map(|layer| layer.name.clone()).collect();
        names.sort();
        names
    }

    fn layer(&self, index: usize) -> Layer {
        self.layers[index].clone()
    }
}

fn geoserver_style(layer: &Layer, style: &str) -> String {
    if style == "builtin" { layer.name.clone() } else { format!("{}.{style}", layer.name) }
}

async fn everything_is_there(world: &World, twenty: &Twenty) {
    let rest = world.rest();
    let there = relations(world, &twenty.names()).await;
    for layer in &twenty.layers {
        let Layer { workspace, name, .. } = layer;
        for relation in [format!("{workspace}.{name}"), format!("{workspace}_data.{name}")] {
            assert!(there.contains_key(&relation), "{relation} is not in {there:?}");
        }
        let rows = if name == "roads" && *workspace == twenty.workspaces[0] { 50 } else { 10 };
        assert_eq!(count(world, workspace, name).await, rows, "{workspace}.{name}");
        let seen = rest.layer(workspace, name).await.unwrap_or_else(|| panic!("no layer {workspace}:{name}"));
        assert_eq!((&seen.title, &seen.abstract_text), (&layer.title, &layer.abstract_text), "{name}");
        if name != "registry" {
            // GeoServer has its own idea of the system of what has no geometry.
            assert_eq!(seen.srs, "EPSG:4283", "{name}");
        }
        assert!(seen.keywords.contains(&"Straße".to_owned()) && seen.keywords.contains(&"sss".to_owned()), "{seen:?}");
        let mut styles: Vec<_> =
            layer.styles.iter().map(|(style, _)| format!("{workspace}:{}", geoserver_style(layer, style))).collect();
        if !styles.is_empty() {
            assert_eq!(seen.default_style, Some(styles.remove(0)), "{name}");
        }
        styles.sort();
        assert_eq!(seen.styles, styles, "{name}");
        is_state(world, layer, "succeeded");
    }
    assert!(there.keys().all(|relation| !relation.contains("_outdated.")), "{there:?}");
    for workspace in twenty.names() {
        assert!(rest.workspaces().await.contains(&workspace.to_owned()));
        assert_eq!(rest.stores(workspace).await, [format!("{workspace}_ds")]);
        assert_eq!(rest.layers(workspace).await, twenty.in_workspace(workspace));
        let layers = twenty.layers.iter().filter(|layer| layer.workspace == workspace);
        let mut styles: Vec<_> =
            layers.flat_map(|layer| layer.styles.iter().map(|(style, _)| geoserver_style(layer, style))).collect();
        styles.sort();
        assert_eq!(rest.styles(workspace).await, styles);
    }
    let [open, staff, secret] = twenty.names();
    assert!(may_read(world, "sso_access", open, "道路").await);
    assert!(may_read(world, "sso_access", staff, "tracks").await);
    assert!(!may_read(world, "sso_access", secret, "owners").await);
    assert!(may_read(world, secret, secret, "owners").await);
    assert!(may_read(world, secret, open, "roads").await, "a restricted role inherits sso_access");
    let view = rest.layer(open, "view").await.unwrap();
    assert!(!view.attributes.contains(&"version".to_owned()), "{view:?}");
    let admin = world.database.admin().await;
    let keys = admin
        .query_one(
            "select count(*) from pg_constraint c join pg_namespace n on n.oid = connamespace \
             where contype = 'f' and convalidated and nspname = any($1)",
            &[&twenty.workspaces.iter().map(|name| format!("{name}_data")).collect::<Vec<_>>()],
        )
        .await
        .unwrap();
    assert_eq!(keys.get::<_, i64>(0), 4);
    assert_eq!(files_below(&cache(world)), Vec::<PathBuf>::new());
}

async fn lifecycle(vcs: Vcs) {
    let world = World::any(vcs).await;
    let mut twenty = Twenty::of(&world);
    let rest = world.rest();
    let names: Vec<String> = twenty.workspaces.to_vec();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.publish_workspace(names[0], 0);
    world.publish_workspace(names[2], 2);
    for layer in &twenty.layers {
        world.publish(layer).await;
    }
    world.commit("publish everything");
    world.pull().succeeded();
    everything_is_there(&world, &twenty).await;

    // Nothing new is nothing to do, also when asked for everything.
    let before = relations(&world, &names).await;
    clear_requests(&world);
    world.pull().succeeded();
    world.slave(&["sync"]).succeeded();
    world.slave(&["sync", "--from", "null"]).succeeded();
    no_requests(&world);
    assert_eq!(relations(&world, &names).await, before);
    assert!(status(&world).values().all(|record| record["attempts"] == 1));

    // One column comes, one goes, one has another type; a table that others point to is replaced, and its
    // dump arrives in the other format.
    twenty.layers[0] = lines(Layer::new(names[0], "roads").rows(50))
        .dump(|dump| dump.column("speed integer default 50"))
        .styles(&[("night", &sld("n", "#000080")), ("builtin", &sld("b", "#00ff00"))]);
    let changed = twenty.layer(0);
    world.publish(&changed).await;
    world.commit("roads get a column and lose a style");
    world.pull().succeeded();
    let seen = rest.layer(names[0], "roads").await.unwrap();
    assert!(seen.attributes.contains(&"speed".to_owned()), "{seen:?}");
    assert_eq!(rest.styles(names[0]).await.iter().filter(|style| style.starts_with("roads")).count(), 4);

    twenty.layers[0] = changed.title("Roads, new").rows(50).dump(|_| {
        crate::support::dumps::Dump::new("roads")
            .schema(&format!("{}_data", names[0]))
            .geometry("LineString")
            .rows(50)
            .version(2)
            .without("label")
            .column("speed text default 'fast'")
            .column("surface text")
    });
    world.publish(&twenty.layers[0]).await;
    let addresses = twenty.layers.iter().position(|layer| layer.name == "addresses").unwrap();
    twenty.layers[addresses] = twenty.layer(addresses).dump(|dump| dump.version(2).tar());
    world.publish(&twenty.layers[addresses]).await;
    world.commit("roads and addresses anew");
    world.pull().succeeded();
    everything_is_there(&world, &twenty).await;
    let seen = rest.layer(names[0], "roads").await.unwrap();
    assert_eq!(seen.title, "Roads, new");
    let has = |column: &str| seen.attributes.iter().any(|found| found == column);
    assert!(has("surface") && has("speed") && !has("label"), "{seen:?}");
    let admin = world.database.admin().await;
    for (table, column, kind) in [("roads", "speed", "text"), ("roads", "version", "integer")] {
        let found = admin
            .query_one(
                "select data_type from information_schema.columns where table_schema = $1 and table_name = $2 and column_name = $3",
                &[&names[0], &table, &column],
            )
            .await
            .unwrap();
        assert_eq!(found.get::<_, String>(0), kind);
    }
    let version = admin.query_one(&format!("select max(version) from {}.addresses", names[0]), &[]).await.unwrap();
    assert_eq!(version.get::<_, i32>(0), 2);

    // Metadata alone touches no table.
    let before = relations(&world, &names).await;
    let described = twenty.layer(4).title("Sites, described anew");
    world.publish_meta(&described);
    world.commit("describe sites");
    world.pull().succeeded();
    assert_eq!(rest.layer(names[0], "sites.v2").await.unwrap().title, "Sites, described anew");
    assert_eq!(relations(&world, &names).await, before);
    assert_eq!(world.state(&described.meta_file())["state"], json!("succeeded"));

    // A removal takes what belongs to the layer, and no more.
    for layer in twenty.layers.iter().filter(|layer| layer.workspace == names[0] && layer.name == "roads") {
        world.remove(layer);
    }
    world.commit("remove roads");
    world.pull().succeeded();
    let styles = rest.styles(names[0]).await;
    assert!(
        styles.contains(&"roads_old.night".to_owned()) && !styles.contains(&"roads.night".to_owned()),
        "{styles:?}"
    );
    assert!(rest.layer(names[0], "roads").await.is_none());
    assert!(rest.layer(names[1], "roads").await.is_some());

    for layer in &twenty.layers[1..] {
        world.remove(layer);
    }
    world.commit("remove everything");
    world.pull().succeeded();
    assert_eq!(relations(&world, &names).await, BTreeMap::new());
    for workspace in &names {
        assert_eq!(rest.layers(workspace).await, Vec::<String>::new());
        assert_eq!(rest.styles(workspace).await, Vec::<String>::new());
    }
    assert_eq!(files_below(&cache(&world)), Vec::<PathBuf>::new());
    assert!(status(&world).values().all(|record| record["state"] == "succeeded"));
    if world.doubles.is_empty() {
        for workspace in &names {
            rest.drop_workspace(workspace).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_layers_come_change_and_go_with_hg() {
    lifecycle(Vcs::Hg).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_layers_come_change_and_go_with_git() {
    lifecycle(Vcs::Git).await;
}
