//! `make demo`: a master and a slave on this machine, and what happens between them.
//!
//! PostGIS, sshd and the state repository are real and private to this process. GeoServer is simulated
//! unless `GEOSERVER_HOME` names an unpacked one or `GEOSERVER_TEST_URL` a running one. The exit status
//! is 0 only when everything was as it should be.

#[path = "../../tests/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::all,
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "shared with the tests, which use all of it and lint it by their own rules"
)]
mod support;

mod layers;
mod readers;
mod stage;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use borg_slave::state_repo::Vcs;

use layers::Layers;
use readers::{Reader, Result, Site};
use stage::Stage;
use support::real_geoserver::RealGeoServer;
use support::world::{Layer, World};

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = tokio::select! {
        outcome = demo() => outcome,
        _ = tokio::signal::ctrl_c() => Err("stopped by Ctrl-C".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            anstream::eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the world up, plays in it, and leaves nothing behind in a GeoServer that was there before.
async fn demo() -> Result<bool> {
    let stage = Stage::new();
    let is_foreign = std::env::var_os("GEOSERVER_TEST_URL").is_some_and(|url| !url.is_empty());
    let is_started = !is_foreign && std::env::var_os("GEOSERVER_HOME").is_some_and(|home| !home.is_empty());
    stage.tell("Starting a private PostgreSQL with PostGIS, an sshd and a Mercurial master …");
    if is_started {
        stage.tell("Starting the GeoServer of GEOSERVER_HOME on a free port, which takes most of a minute …");
    }
    let real = RealGeoServer::from_env().await;
    let world = match &real {
        Some(real) => World::around(Vcs::Hg, real.url(), real.username(), real.password()).await,
        None => World::start(Vcs::Hg).await,
    };
    let site = match &real {
        Some(real) => Site::new(real.url(), real.username(), real.password())?,
        None => Site::new(&world.geoserver().url(), "admin", "geoserver")?,
    };
    stage.tell(&if is_foreign {
        format!("GeoServer: a real one, {} (GEOSERVER_TEST_URL); it has to reach 127.0.0.1 of this machine.", site.url)
    } else if is_started {
        format!("GeoServer: a real one, started privately at {}.", site.url)
    } else {
        "GeoServer: simulated. It answers as recorded of real ones and reads the real PostGIS; it draws no maps.\n\
         Set GEOSERVER_HOME=/opt/geoserver (unpacked) or GEOSERVER_TEST_URL=http://localhost:8080/geoserver for a real one."
            .to_owned()
    });
    let suffix = if is_foreign { format!("_{}", std::process::id()) } else { String::new() };
    let mut play = Play { world, site, layers: Layers::new(suffix), stage, is_real: real.is_some() };
    let outcome = tokio::select! {
        outcome = play.all() => outcome,
        _ = tokio::signal::ctrl_c() => Err("stopped by Ctrl-C".into()),
    };
    if is_foreign {
        for workspace in play.layers.workspaces() {
            play.site.delete_workspace(&workspace).await?;
        }
    }
    outcome?;
    let Play { world, stage, .. } = play;
    drop(world);
    stage.tell("\nThe private services end now, and their files are deleted.");
    Ok(stage.end())
}

struct Play {
    world: World,
    site: Site,
    layers: Layers,
    stage: Stage,
    is_real: bool,
}

impl Play {
    async fn all(&mut self) -> Result<()> {
        self.set_up().await?;
        self.first_publication().await?;
        self.republication().await?;
        self.failure().await?;
        self.mending().await?;
        self.removal().await?;
        self.wait_for_the_curious();
        Ok(())
    }

    /// What an operator does once; its end is where the pulls begin.
    async fn set_up(&mut self) -> Result<()> {
        self.stage.scene("An operator has cloned the state repository and written .env; does everything work?");
        let checked = self.stage.run("slave:", "borg-slave check", self.world.slave_command(&["check"])).await;
        self.stage.expect(checked.succeeded, "everything that the settings name can be used");
        let synced = self.stage.run("slave:", "borg-slave sync", self.world.slave_command(&["sync"])).await;
        self.stage.expect(synced.succeeded, "the clone holds no job files yet, so there was nothing to do");
        Ok(())
    }

    async fn first_publication(&mut self) -> Result<()> {
        self.stage.scene("The master publishes four layers");
        let (parcels, roads) = (self.layers.parcels(), self.layers.roads());
        let layers = [parcels, self.layers.rivers(), roads.clone(), self.layers.towns()];
        for layer in &layers {
            self.world.publish(layer).await;
        }
        self.world.commit("publish lots, rivers, roads and towns");
        self.stage
            .tell("For each layer it dumps the table, writes metadata and styles beside it, and commits one job file:");
        self.log("master", self.world.master.path()).await;
        self.stage.tell(&format!("{} says where the files are and what their MD5 is:", roads.job_file()));
        let text = std::fs::read_to_string(self.world.master.path().join(roads.job_file()))?;
        let document: serde_json::Value = serde_json::from_str(&text)?;
        self.stage.show(&serde_json::to_string_pretty(&document)?);

        self.stage.scene("The slave pulls; its hook applies what the changesets say");
        let pulled = self.pull().await;
        self.stage.expect(pulled, "the pull succeeded");
        self.stage.tell("\nWhat is there now:");
        for layer in &layers {
            self.published(layer).await?;
        }
        if self.is_real {
            let refs: Vec<&Layer> = layers.iter().collect();
            self.pictures(&refs).await?;
        }
        Ok(())
    }

    async fn republication(&mut self) -> Result<()> {
        self.stage.scene("The roads change: one more column, a few streets less, another title");
        let (before, after) = (self.layers.roads(), self.layers.roads_with_speed());
        let had = readers::rows(&self.world, &before).await?;
        self.stage.tell(&format!("columns before: {}", readers::columns(&self.world, &before).await?));
        self.world.publish(&after).await;
        self.world.commit("publish roads with speed limits");
        let reader = Reader::start(&self.world, &after).await;
        let pulled = self.pull().await;
        let seen = reader.stop().await?;
        self.stage.expect(pulled, "the pull succeeded");
        let columns = readers::columns(&self.world, &after).await?;
        self.stage.tell(&format!("columns after:  {columns}"));
        self.stage.expect(columns.contains("speed_limit"), "the new column is there");
        self.published(&after).await?;
        let has = readers::rows(&self.world, &after).await?;
        let whole: Vec<i64> = [had, has].into_iter().flatten().collect();
        self.stage.expect(
            seen.errors.is_empty() && seen.counts == whole && had != has,
            &format!(
                "somebody counted the rows {} times during the pull and saw only whole tables: {} errors, counts {:?}",
                seen.times,
                seen.errors.len(),
                seen.counts
            ),
        );
        if self.is_real {
            self.save("roads-with-speed.png", &[&after], "").await?;
            let style = format!("{}:roads.night", after.workspace);
            self.save("roads-by-night.png", &[&after], &style).await?;
        }
        Ok(())
    }

    async fn failure(&mut self) -> Result<()> {
        self.stage
            .scene("Something is broken: a dump that is not the announced one, and a style that ends in the middle");
        let (parks, towns, rivers) =
            (self.layers.parks(), self.layers.towns().title("Towns, new"), self.layers.rivers_with_a_broken_style());
        self.world.publish(&parks).await;
        self.world.publish(&rivers).await;
        let files = self.world.publish(&towns).await;
        self.world.commit("publish parks, rivers and towns");
        std::fs::write(&files.dump, "half of a dump, perhaps")?;
        let tip = self.tip();
        let pulled = self.pull().await;
        self.stage.expect(!pulled, "the pull failed");
        self.stage.expect(self.tip() == tip, "Mercurial rolled it back: the clone is where it was");
        self.stage.run("slave:", "borg-slave status --failed", self.world.slave_command(&["status", "--failed"])).await;
        self.stage
            .tell("The parks did not have to wait for the others, and the old towns and rivers are still served:");
        self.published(&parks).await?;
        self.published(&self.layers.towns()).await?;
        self.published(&self.layers.rivers()).await?;
        self.stage.expect(self.state(&towns, "state") == "failed", "the towns' job failed");
        self.stage.expect(self.state(&rivers, "state") == "failed", "the rivers' job failed");
        Ok(())
    }

    async fn mending(&mut self) -> Result<()> {
        self.stage.scene("The master mends both; the next pull does only what is missing");
        let (parks, towns, rivers) =
            (self.layers.parks(), self.layers.towns().title("Towns, new"), self.layers.darker_rivers());
        self.world.publish(&rivers).await;
        self.world.publish(&towns).await;
        self.world.commit("publish rivers and towns again");
        let pulled = self.pull().await;
        self.stage.expect(pulled, "the pull succeeded");
        for layer in [&towns, &rivers] {
            self.published(layer).await?;
        }
        self.stage.expect(self.state(&parks, "attempts") == "1", "the parks were not done again");
        self.stage.run("slave:", "borg-slave status", self.world.slave_command(&["status"])).await;
        if self.is_real {
            self.save("rivers-darker.png", &[&rivers], "").await?;
        }
        Ok(())
    }

    async fn removal(&mut self) -> Result<()> {
        self.stage.scene("The master removes the parks");
        let parks = self.layers.parks();
        self.world.remove(&parks);
        self.world.commit("remove parks");
        let pulled = self.pull().await;
        self.stage.expect(pulled, "the pull succeeded");
        self.stage.expect(self.site.layer(&parks).await?.is_none(), "GeoServer has no layer parks any more");
        self.stage
            .expect(readers::rows(&self.world, &parks).await?.is_none(), "the database has no table parks any more");
        Ok(())
    }

    /// Prints a layer with its rows, title and styles, and compares them with what was published.
    async fn published(&mut self, layer: &Layer) -> Result<()> {
        let name = format!("{}.{}", layer.workspace, layer.name);
        let rows = readers::rows(&self.world, layer).await?.unwrap_or_default();
        let Some(found) = self.site.layer(layer).await? else {
            self.stage.expect(false, &format!("GeoServer has layer {name}"));
            return Ok(());
        };
        let default = found.default_style.rsplit(':').next().unwrap_or_default().to_owned();
        let as_published = rows > 0 && found.title == layer.title && default == layer.name;
        self.stage.expect(
            as_published && found.styles + 1 == layer.styles.len().max(1),
            &format!(
                "{name:<20} {rows:>5} rows  “{}”, default style {}, {} other styles",
                found.title, found.default_style, found.styles
            ),
        );
        Ok(())
    }

    async fn pictures(&mut self, layers: &[&Layer]) -> Result<()> {
        for layer in layers {
            self.save(&format!("{}.png", layer.name), &[layer], "").await?;
        }
        self.save("perth.png", layers, "").await?;
        self.stage.tell("\nMaps to click through while the demo runs:");
        for layer in layers {
            self.stage.tell(&format!("  {}", self.site.map(&[layer], "", "application/openlayers")));
        }
        self.stage.tell(&format!("  {}", self.site.map(layers, "", "application/openlayers")));
        Ok(())
    }

    async fn save(&mut self, file: &str, layers: &[&Layer], styles: &str) -> Result<()> {
        let dir = readers::picture_dir();
        std::fs::create_dir_all(&dir)?;
        let picture = self.site.picture(&self.site.map(layers, styles, "image/png")).await?;
        let path = std::path::absolute(dir.join(file))?;
        std::fs::write(&path, &picture)?;
        // An empty map of this size is smaller than this.
        let is_drawn = picture.len() > 6_000;
        self.stage.expect(is_drawn, &format!("map saved: {} ({} kB)", path.display(), picture.len() / 1000));
        Ok(())
    }

    /// Leaves real maps there for a while when somebody is watching.
    fn wait_for_the_curious(&self) {
        if self.is_real && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            self.stage.tell("\nThe layers stay until you press Enter.");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }

    async fn pull(&self) -> bool {
        self.stage.run("slave:", "hg pull", self.world.pull_command()).await.succeeded
    }

    async fn log(&self, place: &str, dir: std::path::PathBuf) {
        let words = ["hg", "log", "-l", "1", "-T", "{node|short} {desc}\\n{files % '  {file}\\n'}"];
        self.stage.run(&format!("{place}:"), "hg log -l 1", self.world.master.command(&dir, words)).await;
    }

    /// What the slave's clone has.
    fn tip(&self) -> String {
        self.world.master.run_in(&self.world.clone, ["hg", "log", "-r", "tip", "-T", "{node}"])
    }

    /// A field of `status --json` of a layer's job.
    fn state(&self, layer: &Layer, field: &str) -> String {
        let state = self.world.state(&layer.job_file());
        state[field].as_str().map_or_else(|| state[field].to_string(), str::to_owned)
    }
}
