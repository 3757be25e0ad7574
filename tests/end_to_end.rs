//! The whole way: a commit on the master, a pull in the slave's clone, and what readers then see.
//!
//! What is not about requests, several GeoServers or a GeoServer that is down runs against a real
//! one too, when the environment names one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::world::{Layer, Outcome, World};

mod access_levels;
mod access_rules;
mod cascaded;
mod chain;
mod commands;
mod failures;
mod filters;
mod git;
mod heads;
mod kinds;
mod layer_groups;
mod left_out;
mod leftovers;
mod live;
mod names;
mod order;
mod previews;
mod purges;
mod several_geoservers;
mod takeover;
mod targets;
mod tiles;
mod twenty_layers;

async fn count(world: &World, schema: &str, relation: &str) -> i64 {
    let relation = format!("\"{schema}\".\"{}\"", relation.replace('"', "\"\""));
    let admin = world.database.admin().await;
    admin.query_one(&format!("select count(*) from {relation}"), &[]).await.unwrap().get(0)
}

/// Every table, view, index and sequence of some workspaces, with what changes when it is made anew or
/// written to.
async fn relations(world: &World, workspaces: &[&str]) -> BTreeMap<String, String> {
    let schemas: Vec<String> = workspaces
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("{name}_data"), format!("{name}_outdated")])
        .collect();
    let admin = world.database.admin().await;
    let rows = admin
        .query(
            "select nspname || '.' || c.relname, c.oid::text || ' ' || relfilenode || ' ' || c.xmin::text || ' ' || coalesce(n_tup_ins, 0) \
             from pg_class c join pg_namespace n on n.oid = relnamespace left join pg_stat_all_tables s on s.relid = c.oid \
             where nspname = any($1)",
            &[&schemas],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Whether `role` may read `relation`.
async fn may_read(world: &World, role: &str, schema: &str, relation: &str) -> bool {
    let admin = world.database.admin().await;
    let sql = "select has_schema_privilege($1, $2, 'usage') \
               and has_table_privilege($1, format('%I.%I', $2::text, $3::text), 'select')";
    admin.query_one(sql, &[&role, &schema, &relation]).await.unwrap().get(0)
}

/// The files that a directory holds, at whatever depth.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

fn cache(world: &World) -> PathBuf {
    world.clone.join("code/dumps")
}

/// The clone's own idea of its tip.
fn tip(world: &World) -> String {
    use borg_slave::state_repo::Vcs;
    let words: &[&str] = match world.master.vcs() {
        Vcs::Hg => &["hg", "log", "-r", "tip", "-T", "{node}"],
        Vcs::Git => &["git", "rev-parse", "HEAD"],
    };
    world.master.run_in(&world.clone, words).trim().to_owned()
}

/// All job records, by job file.
fn status(world: &World) -> BTreeMap<String, Value> {
    let outcome = world.slave(&["status", "--json"]).succeeded();
    let records: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap();
    records.into_iter().map(|record| (record["job_file"].as_str().unwrap().to_owned(), record)).collect()
}

/// The state of each job.
fn states(world: &World) -> BTreeMap<String, String> {
    status(world).into_iter().map(|(file, record)| (file, record["state"].as_str().unwrap().to_owned())).collect()
}

/// Replaces the reference to a published dump by one to what the file is now.
fn refer_again(world: &World, layer: &Layer, dump: &Path) {
    let path = world.master.path().join(layer.job_file());
    let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    document["data"] = world.reference(dump);
    fs::write(path, document.to_string()).unwrap();
}

/// The simulated GeoServer was asked for nothing; a real one does not tell.
#[track_caller]
fn no_requests(world: &World) {
    if let Some(double) = world.doubles.first() {
        assert_eq!(double.requests(), []);
    }
}

fn clear_requests(world: &World) {
    for double in &world.doubles {
        double.clear_requests();
    }
}

#[track_caller]
fn not_a_word(outcome: &Outcome, what: &str) {
    assert!(!outcome.text().contains(what), "{what:?} is in:\n{}", outcome.text());
}

#[track_caller]
fn is_state(world: &World, layer: &Layer, state: &str) {
    let record = world.state(&layer.job_file());
    assert_eq!(record["state"], json!(state), "{record:#}");
}
