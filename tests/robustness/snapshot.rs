//! All that a slave brings about, as text: two worlds that did the same have the same.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::world::World;

/// Relations, columns, rows, rights and roles of all schemas that begin with the prefix.
const DATABASE: &[(&str, &str)] = &[
    (
        "schemas",
        "select nspname::text || ' ' || coalesce((select string_agg(acl::text, ' ' order by acl::text) from unnest(nspacl) as acl), '') from pg_namespace where nspname like $1 order by 1",
    ),
    (
        "relations",
        "select n.nspname || '.' || relname || ' ' || relkind::text || ' ' || pg_get_userbyid(relowner)::text || ' ' || coalesce((select string_agg(acl::text, ' ' order by acl::text) from unnest(relacl) as acl), '') from pg_class c join pg_namespace n on n.oid = relnamespace where nspname like $1 order by 1",
    ),
    (
        "columns",
        "select n.nspname || '.' || relname || '.' || attname || ' ' || format_type(atttypid, atttypmod) || ' ' || (row_number() over (partition by c.oid order by attnum))::text from pg_attribute a join pg_class c on c.oid = attrelid join pg_namespace n on n.oid = relnamespace where nspname like $1 and relkind in ('r', 'v') and attnum > 0 and not attisdropped order by 1",
    ),
    (
        "views",
        "select schemaname || '.' || viewname || ' ' || definition from pg_views where schemaname like $1 order by 1",
    ),
    (
        "constraints",
        "select n.nspname || '.' || conname || ' ' || pg_get_constraintdef(k.oid) from pg_constraint k join pg_namespace n on n.oid = connamespace where nspname like $1 order by 1",
    ),
    ("indexes", "select indexdef from pg_indexes where schemaname like $1 order by 1"),
    (
        "default rights",
        "select n.nspname || ' ' || (select string_agg(acl::text, ' ' order by acl::text) from unnest(defaclacl) as acl) from pg_default_acl join pg_namespace n on n.oid = defaclnamespace where nspname like $1 order by 1",
    ),
    (
        "roles",
        "select r.rolname || ' ' || rolcanlogin::text || ' ' || coalesce((select string_agg(m.roleid::regrole::text, ' ' order by 1) from pg_auth_members m where m.member = r.oid), '') from pg_roles r where rolname like $1 order by 1",
    ),
];

/// All of the world below the workspaces that begin with `prefix`, which is written as `*`. The roles are those
/// of all databases, so no other test may use a prefix that begins as this one.
pub(super) async fn of(world: &World, prefix: &str) -> String {
    let mut text = String::new();
    let admin = world.database.admin().await;
    let like = format!("{prefix}%");
    for (what, query) in DATABASE {
        let _ = writeln!(text, "== {what}");
        for row in admin.query(*query, &[&like]).await.unwrap() {
            let _ = writeln!(text, "{}", row.get::<_, String>(0));
        }
    }
    let tables =
        "select format('%I.%I', schemaname, relname) from pg_stat_user_tables where schemaname like $1 order by 1";
    for row in admin.query(tables, &[&like]).await.unwrap() {
        let table: String = row.get(0);
        let rows =
            format!("select count(*) || ' ' || md5(string_agg(t::text, E'\\n' order by t::text)) from {table} as t");
        let _ = writeln!(text, "{table} {}", admin.query_one(&rows, &[]).await.unwrap().get::<_, String>(0));
    }
    for double in &world.doubles {
        let _ = writeln!(text, "== geoserver");
        let mut workspaces = double.workspaces();
        workspaces.sort();
        for workspace in workspaces {
            let sorted = |mut names: Vec<String>| {
                names.sort();
                names
            };
            let _ = writeln!(text, "{workspace} {:?}", sorted(double.stores(&workspace)));
            for layer in sorted(double.layers(&workspace)) {
                let mut view = double.layer(&workspace, &layer).unwrap();
                view.styles.sort();
                let _ = writeln!(text, "{layer} {view:#?}");
            }
            for style in sorted(double.styles(&workspace)) {
                let _ = writeln!(text, "{style} {}", double.style_body(&workspace, &style).unwrap_or_default());
            }
        }
    }
    text.replace(prefix, "*")
}

/// Fails unless every job is applied and the cache is empty.
pub(super) fn is_finished(world: &World) {
    let outcome = world.slave(&["status", "--json"]);
    let records: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.text()));
    assert!(!records.is_empty());
    for record in &records {
        assert_eq!(record["state"], "succeeded", "{record:#}");
    }
    let mut files = Vec::new();
    list(&world.clone.join("dumps"), &mut files);
    assert_eq!(files, [""; 0], "left in CACHE_PATH");
}

fn list(dir: &Path, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            list(&entry.path(), files);
        } else {
            files.push(entry.path().display().to_string());
        }
    }
}
