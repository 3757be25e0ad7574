//! What readers of the slave see: tables in the database, layers in GeoServer, pictures of maps.

use std::error::Error;
use std::path::PathBuf;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::layers::BOX;
use crate::support::world::{Layer, World};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The GeoServer of the demo, as a browser sees it.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) url: String,
    pub(crate) username: String,
    pub(crate) password: String,
    http: reqwest::Client,
}

/// A published layer.
#[derive(Debug, PartialEq)]
pub(crate) struct Published {
    pub(crate) title: String,
    pub(crate) default_style: String,
    pub(crate) styles: usize,
}

impl Site {
    pub(crate) fn new(url: &str, username: &str, password: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url: url.to_owned(), username: username.to_owned(), password: password.to_owned(), http })
    }

    async fn json(&self, path: &str) -> Result<Option<Value>> {
        let url = format!("{}/rest/{path}", self.url);
        let answer = self
            .http
            .get(&url)
            .basic_auth(&self.username, Some(&self.password))
            .header("Accept", "application/json")
            .send()
            .await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.json().await?))
    }

    /// Title and styles of a layer; `None` when there is no such layer.
    pub(crate) async fn layer(&self, layer: &Layer) -> Result<Option<Published>> {
        let (workspace, name) = (&layer.workspace, &layer.name);
        let Some(found) = self.json(&format!("workspaces/{workspace}/layers/{name}.json")).await? else {
            return Ok(None);
        };
        let Some(kind) = self.json(&format!("workspaces/{workspace}/featuretypes/{name}.json")).await? else {
            return Ok(None);
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let styles = found.pointer("/layer/styles/style").map_or(0, |style| style.as_array().map_or(1, Vec::len));
        Ok(Some(Published {
            title: text(&kind["featureType"]["title"]),
            default_style: text(&found["layer"]["defaultStyle"]["name"]),
            styles,
        }))
    }

    /// A map of layers, the first one lowest.
    pub(crate) fn map(&self, layers: &[&Layer], styles: &str, format: &str) -> String {
        let names: Vec<String> = layers.iter().map(|layer| format!("{}:{}", layer.workspace, layer.name)).collect();
        let [west, south, east, north] = BOX;
        format!(
            "{}/wms?service=WMS&version=1.1.1&request=GetMap&layers={}&styles={styles}&bbox={west},{south},{east},{north}&width=840&height=1200&srs=EPSG:4326&format={format}",
            self.url,
            names.join(",")
        )
    }

    /// The bytes of a picture.
    pub(crate) async fn picture(&self, url: &str) -> Result<Vec<u8>> {
        let answer = self.http.get(url).send().await?.error_for_status()?;
        let is_png = answer.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"image/png"));
        if !is_png {
            return Err(answer.text().await?.into());
        }
        Ok(answer.bytes().await?.to_vec())
    }

    /// Takes a workspace and all that is in it away.
    pub(crate) async fn delete_workspace(&self, workspace: &str) -> Result<()> {
        let url = format!("{}/rest/workspaces/{workspace}?recurse=true", self.url);
        let answer = self.http.delete(url).basic_auth(&self.username, Some(&self.password)).send().await?;
        if answer.status() != 404 {
            answer.error_for_status()?;
        }
        Ok(())
    }
}

/// How many rows the published view has; `None` when it is not there.
pub(crate) async fn rows(world: &World, layer: &Layer) -> Result<Option<i64>> {
    let client = world.database.client().await;
    let name = format!("{}.{}", layer.workspace, layer.name);
    let there = client.query_one("select to_regclass($1) is not null", &[&name]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    Ok(Some(client.query_one(&format!("select count(*) from {name}"), &[]).await?.get(0)))
}

/// The columns of the published view.
pub(crate) async fn columns(world: &World, layer: &Layer) -> Result<String> {
    let client = world.database.client().await;
    let sql = "select string_agg(column_name, ', ' order by ordinal_position) from information_schema.columns \
               where table_schema = $1 and table_name = $2";
    let row = client.query_one(sql, &[&layer.workspace, &layer.name]).await?;
    Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
}

/// What somebody saw who counted a layer's rows over and over.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) times: usize,
    pub(crate) counts: Vec<i64>,
    pub(crate) errors: Vec<String>,
}

/// Counts a layer's rows until told to stop.
pub(crate) struct Reader {
    stop: oneshot::Sender<()>,
    seen: tokio::task::JoinHandle<Seen>,
}

impl Reader {
    pub(crate) async fn start(world: &World, layer: &Layer) -> Self {
        let client = world.database.client().await;
        let sql = format!("select count(*) from {}.{}", layer.workspace, layer.name);
        let (stop, mut stopped) = oneshot::channel();
        let seen = tokio::spawn(async move {
            let mut seen = Seen::default();
            while stopped.try_recv().is_err() {
                match client.query_one(&sql, &[]).await {
                    Ok(row) => {
                        let count = row.get(0);
                        if seen.counts.last() != Some(&count) {
                            seen.counts.push(count);
                        }
                    }
                    Err(error) => seen.errors.push(error.to_string()),
                }
                seen.times += 1;
            }
            seen
        });
        Self { stop, seen }
    }

    pub(crate) async fn stop(self) -> Result<Seen> {
        let _ = self.stop.send(());
        Ok(self.seen.await?)
    }
}

/// Where pictures go: `$DEMO_OUT`, or `demo-maps` in the working directory.
pub(crate) fn picture_dir() -> PathBuf {
    std::env::var_os("DEMO_OUT").map_or_else(|| PathBuf::from("demo-maps"), PathBuf::from)
}
