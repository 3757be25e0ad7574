//! The examples load, and they and the reference say what the program's own table says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panic as the tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use borg_slave::config::variables::{DefaultValue, VARIABLES, Variable};
use borg_slave::config::{Loaded, Place, load};
use tempfile::TempDir;

fn project_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Loads `text` as the `.env` file of a clone that holds the files it names.
fn load_in_clone(text: &str) -> (Loaded, TempDir) {
    let clone = tempfile::tempdir().unwrap();
    fs::create_dir(clone.path().join(".hg")).unwrap();
    fs::create_dir(clone.path().join("certs")).unwrap();
    for certificate in ["slave-database-ca.pem", "master-database-ca.pem"] {
        fs::write(clone.path().join("certs").join(certificate), "").unwrap();
    }
    let file = clone.path().join(".env");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // The clone that the example names is not on the machine that runs the tests.
    let env = BTreeMap::from([("STATE_REPOSITORY_ROOT".to_owned(), clone.path().display().to_string())]);
    let place = Place { env_file: None, working_directory: clone.path().into() };
    let loaded = load(&env, &place).unwrap_or_else(|error| panic!("{}", error.paragraph()));
    // That one is without effect is what there is to say of it.
    let warnings =
        loaded.warnings.iter().filter(|warning| !warning.starts_with("GEOSERVER_PGSQL_SCHEMA has no effect"));
    assert_eq!(warnings.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(loaded.env_file.as_deref(), Some(file.as_path()));
    (loaded, clone)
}

/// The complete example with the settings that it shows in comments.
fn complete_with_everything_set() -> String {
    let is_setting = |line: &str| {
        line.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
        })
    };
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(setting) if is_setting(setting) => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    project_file("examples/complete.env").lines().map(uncommented).collect()
}

fn assignments(text: &str) -> Vec<(String, String)> {
    dotenvy::from_read_iter(text.as_bytes()).map(Result::unwrap).collect()
}

#[test]
fn the_minimal_example_loads() {
    let (loaded, _clone) = load_in_clone(&project_file("examples/minimal.env"));
    assert_eq!(loaded.settings.slave_name, "slave-003");
    assert_eq!(loaded.settings.master.unwrap().database, "borgcollector");
}

#[test]
fn the_complete_example_holds_every_variable_with_its_meaning_and_default() {
    let everything = complete_with_everything_set();
    let names: Vec<_> = assignments(&everything).into_iter().map(|(name, _)| name).collect();
    let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(names, known);

    let set: BTreeMap<_, _> = assignments(&project_file("examples/complete.env")).into_iter().collect();
    let shown: BTreeMap<_, _> = assignments(&everything).into_iter().collect();
    let comments: String = everything.lines().filter_map(|line| line.strip_prefix('#')).collect::<Vec<_>>().join("");
    for variable in VARIABLES {
        match variable.default {
            DefaultValue::Literal(default) => assert_eq!(set.get(variable.name).map(String::as_str), Some(default)),
            DefaultValue::Nothing | DefaultValue::Computed(_) => {
                assert_eq!(set.get(variable.name), None, "{} has no fixed default", variable.name);
                assert_eq!(shown[variable.name], variable.example);
            }
        }
        assert!(comments.contains(variable.meaning), "the meaning of {} has changed", variable.name);
    }
}

#[test]
fn the_complete_example_loads_as_it_is_and_with_everything_set() {
    let (as_it_is, clone) = load_in_clone(&project_file("examples/complete.env"));
    let (untouched, other) = load_in_clone("");
    let neutral = |loaded: &Loaded, clone: &TempDir| {
        format!("{:?}", loaded.settings.effective()).replace(clone.path().to_str().unwrap(), "")
    };
    assert_eq!(neutral(&as_it_is, &clone), neutral(&untouched, &other), "what it sets are the defaults");

    let (everything, _clone) = load_in_clone(&complete_with_everything_set());
    for (name, value) in everything.settings.effective() {
        assert_ne!(value, "(not set)", "{name}");
    }
}

#[test]
fn the_example_of_every_variable_loads() {
    for variable in VARIABLES.iter().filter(|variable| variable.name != "STATE_REPOSITORY_ROOT") {
        let needed = match variable.name {
            "SYNC_PATH" => "SYNC_SERVER=borg@slave\n",
            name if name.starts_with("MASTER_PGSQL_") && name != "MASTER_PGSQL_HOST" => {
                "MASTER_PGSQL_HOST=master\nMASTER_PGSQL_DATABASE=borg\n"
            }
            "STATUS_TOKEN" => "STATUS_LISTEN=127.0.0.1:8081\n",
            "MASTER_PGSQL_HOST" => "MASTER_PGSQL_DATABASE=borg\n",
            // They are loaded together above: one alone is a warning.
            name if name.starts_with("FASTLY_") => continue,
            _ => "",
        };
        let needed: String = needed
            .lines()
            .filter(|line| !line.starts_with(&format!("{}=", variable.name)))
            .map(|line| format!("{line}\n"))
            .collect();
        let (loaded, _clone) = load_in_clone(&format!("{needed}{}='{}'\n", variable.name, variable.example));
        let effective: BTreeMap<_, _> = loaded.settings.effective().into_iter().collect();
        let expected = if variable.secret { "(set)" } else { variable.example };
        // A relative path is shown from the root.
        assert!(effective[variable.name].ends_with(expected), "{}: {}", variable.name, effective[variable.name]);
    }
}

#[test]
fn the_reference_says_what_the_table_says() {
    let reference = project_file("docs/settings.md");
    let mut group = "";
    let mut rows = Vec::new();
    for line in reference.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            group = heading;
        } else if line.starts_with("| `") {
            rows.push(format!("{group} {line}"));
        }
    }
    let row = |variable: &Variable| {
        let default = match variable.default {
            DefaultValue::Literal(text) => format!("`{text}`"),
            other => other.text().to_owned(),
        };
        format!("{} | `{}` | {default} | {} |", variable.group, variable.name, variable.meaning)
    };
    let expected: Vec<_> = VARIABLES.iter().map(row).collect();
    assert_eq!(rows, expected);
}
