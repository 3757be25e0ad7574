//! The database behind a store: what GeoServer reads of it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Mutex;
use std::time::Duration;

use borg_slave::name::quote_ident;
use tokio_postgres::{Client, Config, NoTls};

use super::catalog::{Bounds, Resource};

/// GeoServer gives up on a database that accepts a connection and stays silent after five seconds, whatever
/// "Connection timeout" says.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) schema: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) expose_keys: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) required: bool,
    /// Type name of PostgreSQL: `int4`, `geometry` ..
    pub(crate) kind: String,
    /// Shape and SRID of a geometry; `Geometry` and 0 for an untyped column.
    pub(crate) geometry: Option<(String, i32)>,
}

impl Attribute {
    /// The Java class that GeoServer reports.
    pub(crate) fn binding(&self) -> String {
        if let Some((shape, _)) = &self.geometry {
            return format!("org.locationtech.jts.geom.{}", shape.trim_end_matches('Z').trim_end_matches('M'));
        }
        match self.kind.as_str() {
            "int2" => "java.lang.Short",
            "int4" => "java.lang.Integer",
            "int8" => "java.lang.Long",
            "float4" => "java.lang.Float",
            "float8" => "java.lang.Double",
            "numeric" => "java.math.BigDecimal",
            "bool" => "java.lang.Boolean",
            "date" => "java.sql.Date",
            "time" | "timetz" => "java.sql.Time",
            "timestamp" | "timestamptz" => "java.sql.Timestamp",
            "uuid" => "java.util.UUID",
            "bytea" => "[B",
            _ => "java.lang.String",
        }
        .to_owned()
    }
}

/// Why the database gave nothing.
#[derive(Debug)]
pub(crate) enum Silence {
    /// No connection, or a refusal to log in.
    Unreachable,
    /// The message of the server to a statement.
    Sql(String),
}

impl From<tokio_postgres::Error> for Silence {
    fn from(err: tokio_postgres::Error) -> Self {
        match err.as_db_error() {
            Some(db) => Self::Sql(db.message().to_owned()),
            None => Self::Unreachable,
        }
    }
}

/// Connections that nobody uses, by where they lead. GeoServer keeps those of a store as well: each of its
/// requests would otherwise wait for a session that has yet to load PostGIS.
static IDLE: Mutex<BTreeMap<String, Vec<Client>>> = Mutex::new(BTreeMap::new());

/// How many unused connections to one place are kept, "max connections" of a store.
const MOST_IDLE: usize = 10;

/// A connection, which goes back to the unused ones.
pub(crate) struct Session {
    client: Option<Client>,
    to: String,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect("it is given back when the session is dropped")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap();
        let idle = idle.entry(std::mem::take(&mut self.to)).or_default();
        idle.retain(|client| !client.is_closed());
        idle.extend(self.client.take().filter(|_| idle.len() < MOST_IDLE));
    }
}

pub(crate) async fn connect(link: &Link) -> Result<Session, Silence> {
    let to = format!("{link:?}");
    let unused = || IDLE.lock().unwrap().get_mut(&to).and_then(Vec::pop);
    // "validate connections": one that has died meanwhile is not used.
    while let Some(client) = unused() {
        if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, client.batch_execute("select 1")).await {
            return Ok(Session { client: Some(client), to });
        }
    }
    let mut config = Config::new();
    config.host(&link.host).port(link.port).dbname(&link.database).user(&link.user).password(&link.password);
    let attempt = tokio::time::timeout(PATIENCE, config.connect(NoTls)).await;
    let Ok(Ok((client, connection))) = attempt else { return Err(Silence::Unreachable) };
    tokio::spawn(connection);
    Ok(Session { client: Some(client), to })
}

pub(crate) async fn relations(link: &Link, with_geometry: bool) -> Result<Vec<String>, Silence> {
    let client = connect(link).await?;
    let sql =
        if with_geometry { include_str!("sql/relations_with_geometry.sql") } else { include_str!("sql/relations.sql") };
    Ok(client.query(sql, &[&link.schema]).await?.iter().map(|row| row.get(0)).collect())
}

/// What the resource is read from: a relation, or the SQL of its virtual table in brackets.
pub(crate) fn source(link: &Link, resource: &Resource) -> String {
    match resource.virtual_table() {
        Some(table) => format!("({}) as vtable", table.text_of("sql").unwrap_or_default()),
        None => format!("{}.{}", quote_ident(&link.schema), quote_ident(&resource.native_name)),
    }
}

/// The attributes of the resource; none at all when there is no such relation.
pub(crate) async fn attributes(client: &Client, link: &Link, resource: &Resource) -> Result<Vec<Attribute>, Silence> {
    if let Some(table) = resource.virtual_table() {
        return virtual_attributes(client, link, resource, table).await;
    }
    let rows = client.query(include_str!("sql/attributes.sql"), &[&link.schema, &resource.native_name]).await?;
    Ok(rows
        .iter()
        .filter(|row| link.expose_keys || !row.get::<_, bool>(5))
        .map(|row| Attribute {
            name: row.get(0),
            kind: row.get(1),
            required: row.get(2),
            geometry: row.get::<_, Option<String>>(3).map(|shape| (shape, row.get::<_, Option<i32>>(4).unwrap_or(0))),
        })
        .collect())
}

async fn virtual_attributes(
    client: &Client,
    link: &Link,
    resource: &Resource,
    table: &super::doc::El,
) -> Result<Vec<Attribute>, Silence> {
    let statement = client.prepare(&format!("select * from {}", source(link, resource))).await?;
    let mut found = vec![];
    for column in statement.columns() {
        let mut attribute = Attribute {
            name: column.name().to_owned(),
            kind: column.type_().name().to_owned(),
            required: false,
            geometry: None,
        };
        if let (Some(oid), Some(number)) = (column.table_oid(), column.column_id())
            && let Some(row) = client.query_opt(include_str!("sql/column_origin.sql"), &[&oid, &number]).await?
        {
            attribute.required = row.get(0);
            attribute.geometry =
                row.get::<_, Option<String>>(1).map(|shape| (shape, row.get::<_, Option<i32>>(2).unwrap_or(0)));
        }
        let declared =
            table.all("geometry").find(|geometry| geometry.text_of("name").as_deref() == Some(column.name()));
        if let Some(declared) = declared {
            let shape = declared.text_of("type").unwrap_or_else(|| "Geometry".to_owned());
            let srid = declared.text_of("srid").and_then(|srid| srid.parse().ok()).unwrap_or(0);
            attribute.geometry = Some((shape, srid));
        } else if attribute.kind == "geometry" && attribute.geometry.is_none() {
            attribute.geometry = Some(("Geometry".to_owned(), 0));
        }
        found.push(attribute);
    }
    Ok(found)
}

/// SRID of the data in an untyped geometry column.
pub(crate) async fn srid_of_data(client: &Client, source: &str, column: &str) -> Result<i32, Silence> {
    let column = quote_ident(column);
    let sql = format!("select st_srid({column}) from {source} where {column} is not null limit 1");
    Ok(client.query_opt(&sql, &[]).await?.map_or(0, |row| row.get(0)))
}

pub(crate) async fn extent(client: &Client, source: &str, column: &str) -> Result<Option<[f64; 4]>, Silence> {
    let column = quote_ident(column);
    let sql = format!(
        "select st_xmin(e), st_xmax(e), st_ymin(e), st_ymax(e) \
           from (select st_extent(st_force2d({column}::geometry))::box3d as e from {source}) as box where e is not null"
    );
    let row = client.query_opt(&sql, &[]).await?;
    Ok(row.map(|row| [row.get(0), row.get(1), row.get(2), row.get(3)]))
}

/// A box moved from one system to another, along its edges.
pub(crate) async fn transform(client: &Client, bounds: &Bounds, from: i32, to: i32) -> Option<Bounds> {
    let row = client
        .query_one(
            include_str!("sql/transform.sql"),
            &[&bounds.minx, &bounds.miny, &bounds.maxx, &bounds.maxy, &from, &to],
        )
        .await
        .ok()?;
    Some(Bounds {
        minx: row.get(0),
        maxx: row.get(1),
        miny: row.get(2),
        maxy: row.get(3),
        crs: Some(format!("EPSG:{to}")),
    })
}

pub(crate) async fn known_srid(client: &Client, srid: i32) -> bool {
    matches!(client.query_opt("select from spatial_ref_sys where srid = $1", &[&srid]).await, Ok(Some(_)))
}
