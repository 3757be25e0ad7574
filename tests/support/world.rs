//! A master and a slave on one machine: everything real but, perhaps, GeoServer.
//!
//! ```ignore
//! let world = World::start(Vcs::Hg).await;
//! let roads = Layer::new("cadastre", "roads").rows(500).style("night", "#000080");
//! world.publish(&roads).await;
//! world.commit("publish roads");
//! world.pull().succeeded();
//! ```

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a helper of tests fails as the test does")]
#![allow(dead_code, reason = "shared by tests, demo and bench")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use borg_slave::plan::hex_md5;
use borg_slave::state_repo::{Revision, Vcs};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::dumps::Dump;
use super::geoserver::GeoServerDouble;
use super::postgres::{PASSWORD, PrivatePostgres, ROLE, TestDatabase};
use super::real_geoserver::RealGeoServer;
use super::rest::Rest;
use super::sshd::Sshd;
use super::vcs::Master;

/// A master, and one slave that follows it.
pub(crate) struct World {
    /// The state repository.
    pub(crate) master: Arc<Master>,
    /// How the slave reaches the master's files.
    pub(crate) sshd: Arc<Sshd>,
    /// The slave's database.
    pub(crate) database: TestDatabase,
    /// The simulated GeoServers; none when a real one is used.
    pub(crate) doubles: Vec<GeoServerDouble>,
    /// The slave's clone.
    pub(crate) clone: PathBuf,
    files: Arc<TempDir>,
    next_job: AtomicI64,
    geoserver: [String; 3],
    settings: std::sync::Mutex<BTreeMap<String, String>>,
}

/// What a child printed and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Both streams, for messages and for looking things up.
    pub(crate) fn text(&self) -> String {
        format!("exit status {:?}\n{}{}", self.code, self.stdout, self.stderr)
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.text());
        self
    }

    #[track_caller]
    pub(crate) fn failed(self) -> Self {
        assert!(self.code.is_some_and(|code| code != 0), "{}", self.text());
        self
    }

    #[track_caller]
    pub(crate) fn says(self, what: &str) -> Self {
        assert!(self.text().contains(what), "{what:?} is not in:\n{}", self.text());
        self
    }
}

impl World {
    /// A world with one simulated GeoServer and an empty clone.
    pub(crate) async fn start(vcs: Vcs) -> Self {
        Self::start_with(vcs, 1).await
    }

    /// A world with several simulated GeoServers.
    pub(crate) async fn start_with(vcs: Vcs, geoservers: usize) -> Self {
        let doubles = (0..geoservers).map(|_| GeoServerDouble::start()).collect();
        Self::build(vcs, doubles, None).await
    }

    /// A world around a GeoServer that runs elsewhere.
    pub(crate) async fn around(vcs: Vcs, url: &str, username: &str, password: &str) -> Self {
        Self::build(vcs, Vec::new(), Some([url, username, password].map(str::to_owned))).await
    }

    /// A world around the real GeoServer that the environment names, else around a simulated one.
    pub(crate) async fn any(vcs: Vcs) -> Self {
        match RealGeoServer::from_env().await {
            Some(real) => Self::around(vcs, real.url(), real.username(), real.password()).await,
            None => Self::start(vcs).await,
        }
    }

    /// Another slave of the same master, with a clone, a database and a simulated GeoServer of its own.
    pub(crate) async fn another_slave(&self, name: &str) -> Self {
        let (master, sshd, files) = (Arc::clone(&self.master), Arc::clone(&self.sshd), Arc::clone(&self.files));
        Self::slave_of(master, sshd, files, name, vec![GeoServerDouble::start()], None).await
    }

    async fn build(vcs: Vcs, doubles: Vec<GeoServerDouble>, given: Option<[String; 3]>) -> Self {
        let master = Master::new(vcs);
        master.write("README", "The state of all layers.\n").commit("begin");
        let (sshd, files) = (Sshd::start().await, tempfile::tempdir().unwrap());
        Self::slave_of(Arc::new(master), Arc::new(sshd), Arc::new(files), "slave", doubles, given).await
    }

    async fn slave_of(
        master: Arc<Master>,
        sshd: Arc<Sshd>,
        files: Arc<TempDir>,
        name: &str,
        doubles: Vec<GeoServerDouble>,
        given: Option<[String; 3]>,
    ) -> Self {
        let clone = master.clone_to(name);
        let database = PrivatePostgres::start().database().await;
        let urls: Vec<String> = doubles.iter().map(GeoServerDouble::url).collect();
        let geoserver = given.unwrap_or_else(|| [urls.join(","), "admin".to_owned(), "geoserver".to_owned()]);
        let world = Self {
            sshd,
            files,
            next_job: AtomicI64::new(1),
            settings: std::sync::Mutex::default(),
            geoserver: geoserver.clone(),
            master,
            database,
            doubles,
            clone,
        };
        let [url, username, password] = geoserver;
        for (name, value) in [
            ("GEOSERVER_URL", url),
            ("GEOSERVER_USERNAME", username),
            ("GEOSERVER_PASSWORD", password),
            ("GEOSERVER_PGSQL_HOST", "127.0.0.1".to_owned()),
            ("GEOSERVER_PGSQL_PORT", PrivatePostgres::start().port().to_string()),
            ("GEOSERVER_PGSQL_DATABASE", world.database.name().to_owned()),
            ("GEOSERVER_PGSQL_USERNAME", ROLE.to_owned()),
            ("GEOSERVER_PGSQL_PASSWORD", PASSWORD.to_owned()),
            ("BORG_SSH", shell_words::join(world.sshd.ssh_command())),
        ] {
            world.set(name, &value);
        }
        world.install_hooks();
        world
    }

    /// Changes a setting in the slave's `.env`.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let mut settings = self.settings.lock().unwrap();
        settings.insert(name.to_owned(), value.to_owned());
        let mut text = String::new();
        for (name, value) in settings.iter() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
            let _ = writeln!(text, "{name}=\"{value}\"");
        }
        let file = self.clone.join(".env");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes the hooks that an operator installs.
    fn install_hooks(&self) {
        let program = program();
        let program = shell_words::quote(program.to_str().unwrap()).into_owned();
        match self.master.vcs() {
            Vcs::Hg => {
                let hgrc = self.clone.join(".hg/hgrc");
                let mut text = fs::read_to_string(&hgrc).unwrap();
                let _ = writeln!(
                    text,
                    "[hooks]\npretxnchangegroup.borg = {program} hook pretxnchangegroup\nprecommit.borg = {program} hook deny"
                );
                fs::write(hgrc, text).unwrap();
            }
            Vcs::Git => {
                for (hook, line) in [("post-merge", "hook post-merge \"$@\""), ("pre-commit", "hook deny")] {
                    let path = self.clone.join(".git/hooks").join(hook);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(&path, format!("#!/bin/sh\nexec {program} {line}\n")).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        }
    }

    /// Pulls in the slave's clone, as an operator does; the hook runs the slave.
    pub(crate) fn pull(&self) -> Outcome {
        outcome(&mut self.pull_command())
    }

    /// The command of [`World::pull`].
    pub(crate) fn pull_command(&self) -> Command {
        match self.master.vcs() {
            Vcs::Hg => self.master.command(&self.clone, ["hg", "pull"]),
            Vcs::Git => self.master.command(&self.clone, ["git", "pull", "--ff-only"]),
        }
    }

    /// Runs `borg-slave` in the clone.
    pub(crate) fn slave(&self, arguments: &[&str]) -> Outcome {
        outcome(&mut self.slave_command(arguments))
    }

    /// The command of [`World::slave`].
    pub(crate) fn slave_command(&self, arguments: &[&str]) -> Command {
        let program = program();
        let words = std::iter::once(program.to_str().unwrap()).chain(arguments.iter().copied());
        self.master.command(&self.clone, words)
    }

    /// The number of a new publication.
    pub(crate) fn next_job(&self) -> i64 {
        self.next_job.fetch_add(1, Ordering::SeqCst)
    }

    /// The first GeoServer's address.
    pub(crate) fn geoserver_url(&self) -> &str {
        self.geoserver[0].split(',').next().unwrap()
    }

    /// Where the master keeps a job's files.
    pub(crate) fn download(&self) -> &Path {
        self.files.path()
    }

    /// Publishes a layer: writes its files and its job file, without committing.
    pub(crate) async fn publish(&self, layer: &Layer) -> Published {
        let job = self.next_job();
        let dir = self.download().join(&layer.workspace).join(job.to_string());
        fs::create_dir_all(&dir).unwrap();
        let written = layer.dump.write(&dir).await;
        let dump = dir.join(format!("{}.{}", layer.name, written.extension().unwrap().to_str().unwrap()));
        fs::rename(written, &dump).unwrap();
        let meta = dir.join(format!("{}.meta.json", layer.name));
        fs::write(&meta, layer.metadata(self, &dir).to_string()).unwrap();
        let document = json!({
            "job_id": job,
            "job_batch_id": "20161105_0100",
            "action": "publish",
            "publish_time": "2016-11-05 01:12:44.000000",
            "data": self.reference(&dump),
            "meta": self.reference(&meta),
        });
        self.master.write(layer.job_file(), document.to_string());
        Published { dump, meta }
    }

    /// Publishes only a layer's metadata.
    pub(crate) fn publish_meta(&self, layer: &Layer) {
        let job = self.next_job();
        let dir = self.download().join(&layer.workspace).join(job.to_string());
        fs::create_dir_all(&dir).unwrap();
        let meta = dir.join(format!("{}.meta.json", layer.name));
        fs::write(&meta, layer.metadata(self, &dir).to_string()).unwrap();
        let document = json!({ "action": "meta", "meta": self.reference(&meta) });
        self.master.write(layer.meta_file(), document.to_string());
    }

    /// A `file` and `md5` object for a file on the master.
    pub(crate) fn reference(&self, file: &Path) -> Value {
        json!({ "file": self.sshd.location(file), "md5": hex_md5(&fs::read(file).unwrap()) })
    }

    /// Writes a workspace's job file.
    pub(crate) fn publish_workspace(&self, workspace: &str, auth_level: u8) {
        let document = json!({
            "schema": workspace,
            "data_schema": format!("{workspace}_data"),
            "outdated_schema": format!("{workspace}_outdated"),
            "auth_level": auth_level,
        });
        self.master.write(format!("geoserver/workspaces/{workspace}.json"), document.to_string());
    }

    /// Deletes a layer's job files.
    pub(crate) fn remove(&self, layer: &Layer) {
        self.master.remove(layer.job_file());
        if self.master.path().join(layer.meta_file()).exists() {
            self.master.remove(layer.meta_file());
        }
    }

    pub(crate) fn commit(&self, message: &str) -> Revision {
        self.master.commit(message)
    }

    /// The first GeoServer's catalog, real or simulated.
    pub(crate) fn rest(&self) -> Rest {
        let [_, username, password] = &self.geoserver;
        Rest::new(self.geoserver_url(), username, password)
    }

    /// A workspace's name: with a real GeoServer one that no other test uses.
    pub(crate) fn workspace(&self, name: &str) -> String {
        if !self.doubles.is_empty() {
            return name.to_owned();
        }
        format!("{name}_{}_{}", std::process::id(), self.database.name())
    }

    /// The first simulated GeoServer.
    pub(crate) fn geoserver(&self) -> &GeoServerDouble {
        &self.doubles[0]
    }

    /// The state of a job as `status --json` tells it.
    pub(crate) fn state(&self, job_file: &str) -> Value {
        let outcome = self.slave(&["status", "--json", job_file]);
        let records: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.text()));
        records[0].clone()
    }
}

/// The files of one publication.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) dump: PathBuf,
    pub(crate) meta: PathBuf,
}

/// A layer as the master describes it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) abstract_text: String,
    pub(crate) keywords: Vec<String>,
    pub(crate) auth_level: u8,
    /// The dump's table; its schema and name are the layer's.
    pub(crate) dump: Dump,
    /// Style name and SLD text, the first one the default.
    pub(crate) styles: Vec<(String, String)>,
    /// Fields of the metadata that differ.
    pub(crate) fields: Vec<(String, Value)>,
}

impl Layer {
    /// A layer of ten points with one style.
    pub(crate) fn new(workspace: &str, name: &str) -> Self {
        Self {
            workspace: workspace.to_owned(),
            name: name.to_owned(),
            title: format!("{name} of {workspace}"),
            abstract_text: "Für Straßen & Wege <auch im Wald>; 道路".to_owned(),
            keywords: vec!["transport".to_owned(), "Straße".to_owned()],
            auth_level: 0,
            dump: Dump::new(name).schema(&format!("{workspace}_data")),
            styles: vec![("builtin".to_owned(), sld(name, "#336699"))],
            fields: Vec::new(),
        }
    }

    pub(crate) fn title(mut self, title: &str) -> Self {
        self.title = title.to_owned();
        self
    }

    /// Changes the dump.
    pub(crate) fn dump(mut self, change: impl FnOnce(Dump) -> Dump) -> Self {
        self.dump = change(self.dump);
        self
    }

    pub(crate) fn rows(self, rows: u32) -> Self {
        self.dump(|dump| dump.rows(rows))
    }

    /// Adds a style of one colour.
    pub(crate) fn style(mut self, name: &str, colour: &str) -> Self {
        self.styles.push((name.to_owned(), sld(name, colour)));
        self
    }

    /// Replaces all styles.
    pub(crate) fn styles(mut self, styles: &[(&str, &str)]) -> Self {
        self.styles = styles.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        self
    }

    /// Sets a field of the metadata.
    pub(crate) fn field(mut self, name: &str, value: Value) -> Self {
        self.fields.push((name.to_owned(), value));
        self
    }

    pub(crate) fn auth_level(mut self, level: u8) -> Self {
        self.auth_level = level;
        self
    }

    pub(crate) fn job_file(&self) -> String {
        format!("geoserver/layers/{}.{}.json", self.workspace, self.name)
    }

    pub(crate) fn meta_file(&self) -> String {
        format!("geoserver/layers/{}.{}.meta.json", self.workspace, self.name)
    }

    fn metadata(&self, world: &World, dir: &Path) -> Value {
        let mut styles = serde_json::Map::new();
        for (index, (style, text)) in self.styles.iter().enumerate() {
            let file = dir.join(format!("{}.{style}.sld", self.name));
            fs::write(&file, text).unwrap();
            let mut entry = world.reference(&file);
            entry["default"] = json!(index == 0);
            styles.insert(style.clone(), entry);
        }
        let workspace = &self.workspace;
        let mut metadata = json!({
            "workspace": workspace,
            "name": self.name,
            "title": self.title,
            "abstract": self.abstract_text,
            "keywords": self.keywords,
            "applications": ["sss"],
            "service_type": "WFS",
            "schema": workspace,
            "data_schema": format!("{workspace}_data"),
            "outdated_schema": format!("{workspace}_outdated"),
            "channel": "geoserver",
            "spatial_data": true,
            "spatial_type": "POINT",
            "spatial_column": "geom",
            "crs": "EPSG:4283",
            "bbox": [115.0, -32.0, 125.0, -31.0],
            "override_bbox": false,
            "auth_level": self.auth_level,
            "sync_postgres_data": true,
            "sync_geoserver_data": true,
            "styles": styles,
            "default_style": self.styles.first().map(|(name, _)| name),
        });
        for (name, value) in &self.fields {
            metadata[name] = value.clone();
        }
        metadata
    }
}

/// An SLD 1.0 document that draws points, lines and areas in one colour.
pub(crate) fn sld(name: &str, colour: &str) -> String {
    let name = name.replace('&', "&amp;");
    format!(
        r##"<?xml version="1.0" encoding="UTF-8"?>
<StyledLayerDescriptor version="1.0.0" xmlns="http://www.opengis.net/sld" xmlns:ogc="http://www.opengis.net/ogc" xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <NamedLayer><Name>{name}</Name><UserStyle><Title>{name}</Title><FeatureTypeStyle><Rule>
    <PointSymbolizer><Graphic><Mark><WellKnownName>circle</WellKnownName><Fill><CssParameter name="fill">{colour}</CssParameter></Fill></Mark><Size>6</Size></Graphic></PointSymbolizer>
  </Rule></FeatureTypeStyle></UserStyle></NamedLayer>
</StyledLayerDescriptor>
"##
    )
}

/// Runs a command to its end.
pub(crate) fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The program under test: `BORG_SLAVE_PROGRAM`, or Cargo's own word for tests and benches, or beside this
/// executable for examples.
pub(crate) fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("BORG_SLAVE_PROGRAM") {
        return program.into();
    }
    if let Some(program) = option_env!("CARGO_BIN_EXE_borg-slave") {
        return program.into();
    }
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("borg-slave")
}
