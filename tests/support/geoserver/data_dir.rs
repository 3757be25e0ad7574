//! The data directory, as far as access rules need one: `security/`, watched and written, and the resource API on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::catalog::Catalog;
use super::http::{Answer, Fault, Reply, Req};

/// How often the file of rules is looked at; a real GeoServer takes a second.
const WATCH: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct DataDir {
    dir: TempDir,
    /// The file's time when it was last read or written.
    known: Option<SystemTime>,
    looked: Instant,
    /// What the file holds.
    stored: Option<(BTreeMap<String, String>, String)>,
    /// Whether the resource API may be used.
    pub(crate) resources: bool,
    /// How many changes of the file are to be missed.
    pub(crate) missed: usize,
}

impl DataDir {
    pub(crate) fn fresh() -> Self {
        let dir = tempfile::Builder::new().prefix("borg-geoserver-double-").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("security")).expect("a directory");
        Self { dir, known: None, looked: Instant::now(), stored: None, resources: true, missed: 0 }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn rules(&self) -> PathBuf {
        self.dir.path().join("security/layers.properties")
    }

    fn time(&self) -> Option<SystemTime> {
        fs::metadata(self.rules()).and_then(|file| file.modified()).ok()
    }
}

/// Reads the rules when somebody else has written them.
pub(crate) fn watch(cat: &mut Catalog) {
    if cat.data_dir.looked.elapsed() < WATCH {
        return;
    }
    cat.data_dir.looked = Instant::now();
    let time = cat.data_dir.time();
    if time.is_none() || time == cat.data_dir.known {
        return;
    }
    cat.data_dir.known = time;
    if cat.data_dir.missed > 0 {
        cat.data_dir.missed -= 1;
        return;
    }
    let text = fs::read_to_string(cat.data_dir.rules()).unwrap_or_default();
    let mut rules = BTreeMap::new();
    "HIDE".clone_into(&mut cat.mode);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((key, value)) = line.split_once('=') else { continue };
        // Java's escapes, and then the one for dots in names.
        let key = unescape(key);
        if key == "mode" {
            value.clone_into(&mut cat.mode);
        } else {
            let parts = key.replace("\\.", "\0").split('.').count();
            if parts == 2 || parts == 3 {
                rules.insert(key.replace('\\', ""), unescape(value));
            }
        }
    }
    if rules.is_empty() {
        // Shown as `*`, but in truth nobody may.
        rules = BTreeMap::from([("*.*.r".to_owned(), String::new()), ("*.*.w".to_owned(), String::new())]);
    }
    cat.acl = rules;
    cat.data_dir.stored = Some((cat.acl.clone(), cat.mode.clone()));
}

/// Writes the rules when they were changed by REST or with the catalog.
pub(crate) fn keep(cat: &mut Catalog) {
    let now = (cat.acl.clone(), cat.mode.clone());
    if cat.data_dir.stored.as_ref() == Some(&now) {
        return;
    }
    let mut text = format!("#Sat Nov 21 20:14:11 UTC 2026\nmode={}\n", cat.mode);
    for (rule, roles) in &cat.acl {
        let mut parts: Vec<&str> = rule.splitn(2, '.').collect();
        if let Some((layer, mode)) = parts.pop().and_then(|rest| rest.rsplit_once('.')) {
            text.push_str(&format!("{}.{}.{mode}={roles}\n", parts.join("."), layer.replace('.', "\\\\.")));
        } else {
            text.push_str(&format!("{rule}={roles}\n"));
        }
    }
    fs::write(cat.data_dir.rules(), text).expect("the double's own directory");
    cat.data_dir.known = cat.data_dir.time();
    cat.data_dir.stored = Some(now);
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let code: String = chars.by_ref().take(4).collect();
                    out.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
                }
                other => out.extend(other),
            },
            c => out.push(c),
        }
    }
    out
}

/// `/rest/resource/security/...`: GET, PUT of contents, and PUT that moves; and DELETE of the file of a style. The
/// rest is not imitated.
pub(crate) fn resource(cat: &mut Catalog, req: &Req, parts: &[&str]) -> Answer {
    if let (["workspaces", ws, "styles", file], "DELETE") = (parts, req.method.as_str()) {
        let key = (cat.ws_id(ws), (*file).to_owned());
        return match cat.style_files.remove(&key) {
            Some(_) => Ok(Reply::new(200)),
            None => Err(Fault::Missing("Undefined resource path.".to_owned())),
        };
    }
    let ["security", name] = parts else { return Err(Fault::Missing("Undefined resource path.".to_owned())) };
    if !cat.data_dir.resources {
        return Err(Fault::Refused(403, "Forbidden".to_owned()));
    }
    let path = cat.data_dir.path().join("security").join(name);
    let moves = req.query.iter().any(|(key, value)| key == "operation" && value == "move");
    match req.method.as_str() {
        "GET" => match fs::read(path) {
            Ok(bytes) => Ok(Reply::text(200, "application/octet-stream", bytes)),
            Err(_) => Err(Fault::Missing("Undefined resource path.".to_owned())),
        },
        "PUT" if moves => {
            let source = String::from_utf8_lossy(&req.body).trim_start_matches('/').to_owned();
            match fs::rename(cat.data_dir.path().join(source), path) {
                Ok(()) => Ok(Reply::new(201)),
                Err(_) => Err(Fault::Refused(404, "Unable to locate source".to_owned())),
            }
        }
        "PUT" => {
            fs::write(path, &req.body).expect("the double's own directory");
            Ok(Reply::new(201))
        }
        _ => Err(Fault::Method("GET,PUT")),
    }
}
