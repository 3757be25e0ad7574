//! `make bench`: the first sync of a slave, beside the least that its parts need.
//!
//! The bound is made of the same files, database server and GeoServer, one after the other: one rsync
//! of all files, pg_restore of all dumps two at a time, and the feature types and styles posted by one
//! client that keeps its connection, into a workspace and store that are there already. It checks,
//! swaps, compares and remembers nothing.
//!
//! GeoServer is simulated at the pace of a real one, or the real one that `GEOSERVER_HOME` or
//! `GEOSERVER_TEST_URL` names. `BENCH_LAYERS`, `BENCH_ROWS` and `BENCH_BIG_ROWS` make smaller worlds.
//!
//! `cargo bench` builds the slave and this program as they are installed, optimised. What else the
//! machine did meanwhile stands below the figures: a load average beyond the number of processors means
//! that bound and slave had to share them with others, and not necessarily to the same part.

#[path = "../tests/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::all,
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "shared with the tests, which use all of it and lint it by their own rules"
)]
mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anstream::println;
use borg_slave::geoserver::{Endpoint, GeoServer, PostgisStore, default_store_parameters};
use borg_slave::name::GeoName;
use borg_slave::state_repo::Vcs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use support::geoserver::{GeoServerDouble, Pace};
use support::postgres::{PASSWORD, PrivatePostgres, ROLE, TestDatabase};
use support::real_geoserver::RealGeoServer;
use support::world::{Layer, Published, World};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What is counted when it starts.
const PROGRAMS: [&str; 4] = ["hg", "ssh", "rsync", "pg_restore"];

#[tokio::main]
async fn main() -> Result<()> {
    let number =
        |name: &str, default: u32| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    let (layers, rows) = (number("BENCH_LAYERS", 100), number("BENCH_ROWS", 500));
    let big = number("BENCH_BIG_ROWS", 500_000);
    let bench = Bench::start().await?;
    println!("GeoServer: {}", bench.what);
    println!("program:   {}", support::world::program().display());
    if cfg!(debug_assertions) {
        println!("These figures are worth nothing: this is not built for use. Run cargo bench.");
    }
    let many = bench.measure("many", layers, rows).await;
    let one = bench.measure("one", 1, big).await;
    print_table(&[(format!("{layers} layers of {rows} rows"), many?), (format!("1 layer of {big} rows"), one?)]);
    Ok(())
}

fn print_table(columns: &[(String, Measured)]) {
    let row = |name: &str, value: &dyn Fn(&Measured) -> String| {
        let values: String = columns.iter().map(|(_, measured)| format!("{:>26}", value(measured))).collect();
        println!("{name:<36}{values}");
    };
    let titles: String = columns.iter().map(|(title, _)| format!("{title:>26}")).collect();
    println!("\n{:<36}{titles}", "");
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    row("bound: one rsync", &|m| seconds(m.bound.rsync));
    row("bound: pg_restore, two at a time", &|m| seconds(m.bound.restore));
    row("bound: feature types and styles", &|m| seconds(m.bound.catalog));
    row("bound: sum", &|m| seconds(m.bound.sum()));
    row("borg-slave sync", &|m| seconds(m.took));
    row("borg-slave sync / bound", &|m| format!("{:.2}", m.took.as_secs_f64() / m.bound.sum().as_secs_f64()));
    row("SSH connections", &|m| m.ssh_connections.to_string());
    row("HTTP requests (bound)", &|m| format!("{} ({})", m.requests, m.bound.requests));
    for program in PROGRAMS {
        row(&format!("processes: {program}"), &|m| m.started.get(program).copied().unwrap_or_default().to_string());
    }
    row("peak memory of borg-slave", &|m| format!("{:.1} MB", m.peak_kib as f64 / 1024.0));
    row("load average before the bound", &|m| m.load[0].clone());
    row("load average before borg-slave", &|m| m.load[1].clone());
    row("load average after borg-slave", &|m| m.load[2].clone());
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    row("processors", &|_| processors.to_string());
}

/// What the least needs.
struct Bound {
    rsync: Duration,
    restore: Duration,
    catalog: Duration,
    requests: u64,
}

impl Bound {
    fn sum(&self) -> Duration {
        self.rsync + self.restore + self.catalog
    }
}

/// One world measured.
struct Measured {
    bound: Bound,
    took: Duration,
    ssh_connections: usize,
    requests: u64,
    started: BTreeMap<&'static str, usize>,
    peak_kib: u64,
    load: [String; 3],
}

/// The load average of the last minute.
fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_ascii_whitespace().next().unwrap_or_default().to_owned())
}

/// The GeoServer of all worlds, behind a proxy that counts requests.
struct Bench {
    what: String,
    url: String,
    username: String,
    password: String,
    requests: Arc<AtomicU64>,
    _double: Option<GeoServerDouble>,
}

impl Bench {
    async fn start() -> Result<Self> {
        let real = RealGeoServer::from_env().await;
        let double = real.is_none().then(|| {
            let double = GeoServerDouble::start();
            double.pace(Pace::REAL);
            double
        });
        let (what, url, username, password) = match (&real, &double) {
            (Some(real), _) => {
                let name = |text: &str| text.to_owned();
                (format!("a real one, {}", real.url()), name(real.url()), name(real.username()), name(real.password()))
            }
            (None, double) => {
                let url = double.as_ref().map(GeoServerDouble::url).unwrap_or_default();
                ("simulated, at the pace of a real one".into(), url, "admin".into(), "geoserver".into())
            }
        };
        let requests = Arc::new(AtomicU64::new(0));
        let url = counting_proxy(&url, &requests).await?;
        Ok(Self { what, url, username, password, requests, _double: double })
    }

    async fn measure(&self, name: &str, layers: u32, rows: u32) -> Result<Measured> {
        let world = World::around(Vcs::Hg, &self.url, &self.username, &self.password).await;
        let workspaces = ["bound", "ours"].map(|which| format!("bench_{which}_{name}_{}", std::process::id()));
        let measured = self.measure_in(&world, &workspaces, layers, rows).await;
        // A GeoServer that was there before is left as it was.
        let http = self.http()?;
        for workspace in &workspaces {
            let url = format!("{}/rest/workspaces/{workspace}?recurse=true", self.url);
            http.delete(url).basic_auth(&self.username, Some(&self.password)).send().await?;
        }
        measured
    }

    async fn measure_in(&self, world: &World, workspaces: &[String; 2], layers: u32, rows: u32) -> Result<Measured> {
        let [bound_workspace, workspace] = workspaces;
        println!("making {layers} dumps of {rows} rows …");
        let mut published = Vec::new();
        for number in 0..layers {
            let layer = Layer::new(workspace, &format!("layer_{number:03}")).rows(rows);
            published.push((world.publish(&layer).await, layer));
        }
        world.commit("publish everything");
        let without_hook = ["hg", "pull", "-q", "--config", "hooks.pretxnchangegroup.borg="];
        succeed(&mut world.master.command(&world.clone, without_hook)).await?;
        let counters = Counters::new()?;

        println!("the bound …");
        let load_before = load_average()?;
        let bound = self.bound(world, bound_workspace, &published, &counters).await?;
        println!("borg-slave sync …");
        counters.take()?;
        let load_between = load_average()?;
        let (connections, requests) = (world.sshd.connections(), self.requests.load(Ordering::SeqCst));
        let (took, peak_kib) = sync(world, &counters).await?;
        let measured = Measured {
            bound,
            took,
            peak_kib,
            ssh_connections: world.sshd.connections() - connections,
            requests: self.requests.load(Ordering::SeqCst) - requests,
            started: counters.take()?,
            load: [load_before, load_between, load_average()?],
        };
        check(world, workspace, layers, rows).await?;
        Ok(measured)
    }

    fn http(&self) -> Result<reqwest::Client> {
        Ok(reqwest::Client::builder().no_proxy().build()?)
    }

    async fn bound(
        &self,
        world: &World,
        workspace: &str,
        published: &[(Published, Layer)],
        counters: &Counters,
    ) -> Result<Bound> {
        let staging = tempfile::tempdir()?;
        let mut files = Vec::new();
        for (published, _) in published {
            for entry in std::fs::read_dir(published.dump.parent().ok_or("a dump lies in a directory")?)? {
                files.push(entry?.path());
            }
        }
        let clock = Instant::now();
        self.rsync(world, &files, staging.path(), counters).await?;
        let rsync = clock.elapsed();

        let database = PrivatePostgres::start().database().await;
        let schema = published.first().map(|(_, layer)| format!("{}_data", layer.workspace)).unwrap_or_default();
        database.client().await.batch_execute(&format!("create schema {schema}")).await?;
        let clock = Instant::now();
        restore(&database, staging.path(), published, counters).await?;
        let restore = clock.elapsed();

        self.store(workspace, &database, &schema).await?;
        let (http, before) = (self.http()?, self.requests.load(Ordering::SeqCst));
        let clock = Instant::now();
        for (_, layer) in published {
            self.post(&http, workspace, layer).await?;
        }
        let catalog = clock.elapsed();
        Ok(Bound { rsync, restore, catalog, requests: self.requests.load(Ordering::SeqCst) - before })
    }

    async fn rsync(&self, world: &World, files: &[PathBuf], staging: &Path, counters: &Counters) -> Result<()> {
        let list = staging.join("list");
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        std::fs::write(&list, names.join("\n"))?;
        let user = world.sshd.location("/");
        let mut command = counters.command("rsync");
        command.args(["-t", "--files-from"]).arg(&list).arg("-e").arg(shell_words::join(world.sshd.ssh_command()));
        succeed(command.arg(user).arg(staging)).await
    }

    /// Workspace and store of the bound, which reads the restored tables directly.
    async fn store(&self, workspace: &str, database: &TestDatabase, schema: &str) -> Result<()> {
        let server = GeoServer::new(Endpoint {
            url: self.url.parse()?,
            username: self.username.clone(),
            password: self.password.clone().into(),
            time_limit: Duration::from_secs(60),
        })?;
        let name = GeoName::new("workspace", workspace)?;
        server.ensure_workspace(&name, &format!("http://{workspace}")).await?;
        let mut parameters: BTreeMap<String, String> =
            default_store_parameters().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        for (key, value) in [
            ("dbtype", "postgis".to_owned()),
            ("host", "127.0.0.1".to_owned()),
            ("port", PrivatePostgres::start().port().to_string()),
            ("database", database.name().to_owned()),
            ("schema", schema.to_owned()),
            ("user", ROLE.to_owned()),
            ("namespace", format!("http://{workspace}")),
        ] {
            parameters.insert(key.to_owned(), value);
        }
        let store = PostgisStore {
            workspace: name,
            name: GeoName::new("store", "store")?,
            description: None,
            parameters,
            password: Some(PASSWORD.to_owned().into()),
        };
        server.ensure_postgis_store(&store, None).await?;
        Ok(())
    }

    async fn post(&self, http: &reqwest::Client, workspace: &str, layer: &Layer) -> Result<()> {
        let base = format!("{}/rest/workspaces/{workspace}", self.url);
        let document = serde_json::json!({"featureType": {
            "name": layer.name, "nativeName": layer.name, "title": layer.title, "abstract": layer.abstract_text,
            "keywords": {"string": layer.keywords}, "srs": "EPSG:4283", "projectionPolicy": "FORCE_DECLARED", "enabled": true,
        }});
        let send = async |request: reqwest::RequestBuilder| -> Result<()> {
            let answer = request.basic_auth(&self.username, Some(&self.password)).send().await?;
            let (status, url) = (answer.status(), answer.url().to_string());
            let text = answer.text().await?;
            if status.is_success() { Ok(()) } else { Err(format!("{url}: {status} {text}").into()) }
        };
        send(http.post(format!("{base}/datastores/store/featuretypes")).json(&document)).await?;
        for (_, sld) in &layer.styles {
            let style = http
                .post(format!("{base}/styles?name={}", layer.name))
                .header("Content-Type", "application/vnd.ogc.sld+xml")
                .body(sld.clone());
            send(style).await?;
        }
        Ok(())
    }
}

/// All dumps, two at a time.
async fn restore(
    database: &TestDatabase,
    staging: &Path,
    published: &[(Published, Layer)],
    counters: &Counters,
) -> Result<()> {
    let two = Arc::new(Semaphore::new(2));
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for (files, _) in published {
        let dump = staging.join(files.dump.strip_prefix("/")?);
        let mut command = counters.command("pg_restore");
        command.args(["--no-owner", "--no-privileges", "--single-transaction", "-h", "127.0.0.1", "-U", ROLE]);
        command.args(["-p", &PrivatePostgres::start().port().to_string(), "-d", database.name()]).arg(dump);
        command.env("PGPASSWORD", PASSWORD);
        let two = Arc::clone(&two);
        running.spawn(async move {
            let _one = two.acquire().await?;
            succeed(&mut command).await
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

/// Runs `borg-slave sync` and returns how long it took and the most memory it had, in KiB.
async fn sync(world: &World, counters: &Counters) -> Result<(Duration, u64)> {
    let mut command = world.slave_command(&["sync"]);
    command.env("PATH", &counters.path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let clock = Instant::now();
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let status = format!("/proc/{}/status", child.id().ok_or("a child that runs has an id")?);
    let peak = tokio::spawn(async move {
        let (mut peak, mut ticks) = (0, tokio::time::interval(Duration::from_millis(20)));
        loop {
            ticks.tick().await;
            let Ok(text) = tokio::fs::read_to_string(&status).await else { return peak };
            let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:")) else { return peak };
            peak = line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(peak);
        }
    });
    let output = child.wait_with_output().await?;
    let took = clock.elapsed();
    if !output.status.success() {
        return Err(format!("borg-slave sync failed:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok((took, peak.await?))
}

/// What was measured is worth nothing unless everything is there.
async fn check(world: &World, workspace: &str, layers: u32, rows: u32) -> Result<()> {
    let client = world.database.client().await;
    for number in 0..layers {
        let sql = format!("select count(*) from {workspace}.layer_{number:03}");
        let found: i64 = client.query_one(&sql, &[]).await?.get(0);
        if found != i64::from(rows) {
            return Err(format!("layer_{number:03} has {found} rows and not {rows}").into());
        }
    }
    Ok(())
}

/// Stand-ins on `PATH` that note that they were started and become the real program.
struct Counters {
    dir: tempfile::TempDir,
    path: String,
}

impl Counters {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = std::env::var("PATH")?;
        for program in PROGRAMS {
            // Debian's pg_restore is a slow script around the real one, which the slave passes by as well.
            let places = match program {
                "pg_restore" => vec![support::postgres::bin_dir()],
                _ => path.split(':').map(PathBuf::from).collect(),
            };
            let real = places.iter().map(|dir| dir.join(program)).find(|file| file.exists());
            let real = real.ok_or_else(|| format!("there is no {program} on PATH"))?;
            let script =
                format!("#!/bin/sh\necho >>{}/{program}.log\nexec {} \"$@\"\n", dir.path().display(), real.display());
            let file = dir.path().join(program);
            std::fs::write(&file, script)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
        }
        let path = format!("{}:{path}", dir.path().display());
        Ok(Self { dir, path })
    }

    /// A program as the slave finds it.
    fn command(&self, program: &str) -> Command {
        let mut command = support::postgres::command(&self.dir.path().join(program));
        command.env("PATH", &self.path);
        command
    }

    /// How often each program was started since the last time.
    fn take(&self) -> Result<BTreeMap<&'static str, usize>> {
        let mut counts = BTreeMap::new();
        for program in PROGRAMS {
            let log = self.dir.path().join(format!("{program}.log"));
            counts.insert(program, std::fs::read(&log).unwrap_or_default().len());
            std::fs::write(&log, "")?;
        }
        Ok(counts)
    }
}

/// Runs a command that has to succeed.
async fn succeed(command: &mut Command) -> Result<()> {
    let owned = std::mem::replace(command, support::postgres::command(Path::new("true")));
    let what = format!("{owned:?}");
    let output = tokio::process::Command::from(owned).stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// Passes everything to the GeoServer at `url` and counts the requests; returns the URL to use.
async fn counting_proxy(url: &str, requests: &Arc<AtomicU64>) -> Result<String> {
    let parsed: url::Url = url.parse()?;
    let to = (parsed.host_str().ok_or("a URL with a host")?.to_owned(), parsed.port_or_known_default().unwrap_or(80));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let requests = Arc::clone(requests);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect((to.0.as_str(), to.1)).await else { continue };
            tokio::spawn(pass_on(client, server, Arc::clone(&requests)));
        }
    });
    Ok(format!("http://127.0.0.1:{port}{}", parsed.path().trim_end_matches('/')))
}

async fn pass_on(client: TcpStream, server: TcpStream, requests: Arc<AtomicU64>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            // The client sends a request line in one piece, and nothing else that looks like one.
            let lines = buffer[..count].windows(11).filter(|bytes| bytes == b" HTTP/1.1\r\n").count();
            requests.fetch_add(lines as u64, Ordering::SeqCst);
            if to_server.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let down = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = up => {}
        _ = down => {}
    }
}
