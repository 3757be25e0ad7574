//! Keeps the floors of the house: which module may import which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Module, and what it may import besides itself.
const FLOORS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("name", &["error"]),
    ("process", &["error"]),
    ("telemetry", &["error"]),
    ("http", &[]),
    ("config", &["error", "name", "process"]),
    ("state_repo", &["error", "name", "process"]),
    ("job", &["error", "name"]),
    ("filter", &["error", "name", "job"]),
    ("journal", &["error", "name"]),
    ("transfer", &["error", "name", "process"]),
    ("postgres", &["error", "name", "process"]),
    ("geoserver", &["error", "http", "name"]),
    ("cdn", &["error", "http"]),
    ("report", &["error", "name", "journal", "postgres"]),
    ("plan", &["error", "name", "job", "journal"]),
    ("execute", &["cdn", "config", "error", "filter", "geoserver", "job", "name", "plan", "postgres", "transfer"]),
    ("status_page", &["error", "name", "job", "journal", "transfer"]),
    (
        "wire",
        &[
            "cdn",
            "config",
            "error",
            "execute",
            "filter",
            "geoserver",
            "name",
            "postgres",
            "report",
            "status_page",
            "transfer",
        ],
    ),
    ("sync", &["config", "error", "execute", "job", "journal", "name", "plan", "report", "state_repo", "wire"]),
];

#[test]
fn every_module_imports_only_what_stands_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        FLOORS.iter().map(|(module, below)| (*module, below.iter().copied().collect())).collect();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in rust_files(&root) {
        let path = file.strip_prefix(&root).unwrap();
        let module = path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(module.as_str(), "lib" | "main" | "cli" | "daemon") {
            continue;
        }
        let Some(below) = allowed.get(module.as_str()) else {
            wrong.push(format!("{}: module `{module}` has no floor", path.display()));
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for import in line.split("crate::").skip(1) {
                let name: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if name != module && !name.is_empty() && !below.contains(name.as_str()) {
                    wrong.push(format!("{}:{}: imports `{name}`", path.display(), number + 1));
                }
            }
        }
        seen.insert(module);
    }
    assert_eq!(wrong, Vec::<String>::new());
    let forgotten: Vec<_> = allowed.keys().filter(|module| !seen.contains(**module)).collect();
    assert!(forgotten.is_empty(), "floors without a module: {forgotten:?}");
}

#[test]
fn no_test_file_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = std::fs::read_to_string(root.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "rs") && stem != "main" {
            assert!(main.contains(&format!("mod {stem};")), "tests/main.rs does not name {stem}");
        }
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
