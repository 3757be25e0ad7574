//! What other parts of the slave ask about published relations.

use super::connect::Database;
use super::failure;
use crate::error::Result;
use crate::name::{PgIdent, quote_ident};

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as SQL text: `character varying(20)`, `public.geometry(Point,4326)`.
    pub type_name: String,
}

impl Database {
    /// The columns of a table or view in their order; nothing when the relation is not there.
    ///
    /// # Errors
    ///
    /// As any question to the database.
    pub async fn columns(&self, schema: &PgIdent, name: &PgIdent) -> Result<Option<Vec<Column>>> {
        let client = self.client().await?;
        let subject = format!("{schema}.{name}");
        let failed = failure::doing("cannot read the columns", &subject);
        let question = client.prepare_cached(include_str!("sql/columns.sql")).await.map_err(failed)?;
        let rows = client.query(&question, &[&schema.as_str(), &name.as_str()]).await.map_err(failed)?;
        if rows.is_empty() {
            return Ok(None);
        }
        // A relation without columns is one row of nulls.
        let column = |row: &tokio_postgres::Row| {
            Some(Column { name: row.get::<_, Option<String>>(0)?, type_name: row.get::<_, Option<String>>(1)? })
        };
        Ok(Some(rows.iter().filter_map(column).collect()))
    }

    /// Whether the table is there and whole: it was loaded to its end, or a view of its name reads it. What is left of
    /// a load that failed is not.
    ///
    /// # Errors
    ///
    /// As any question to the database.
    pub async fn is_whole(&self, data_schema: &PgIdent, name: &PgIdent) -> Result<bool> {
        self.ensure_bookkeeping().await?;
        let client = self.client().await?;
        let subject = format!("{data_schema}.{name}");
        let failed = failure::doing("cannot look for the table", &subject);
        let question = client.prepare_cached(include_str!("sql/whole_table.sql")).await.map_err(failed)?;
        let row = client.query_one(&question, &[&data_schema.as_str(), &name.as_str()]).await.map_err(failed)?;
        Ok(row.get(0))
    }

    /// The spatial reference id of a geometry or geography column; nothing when relation or column is
    /// not there, is not spatial, or declares none.
    ///
    /// # Errors
    ///
    /// As any question to the database.
    pub async fn srid(&self, schema: &PgIdent, name: &PgIdent, column: &str) -> Result<Option<i32>> {
        let client = self.client().await?;
        let subject = format!("{schema}.{name}.{column}");
        let what = "cannot read the spatial reference id";
        let failed = failure::doing(what, &subject);
        let question = client.prepare_cached(include_str!("sql/spatial_column.sql")).await.map_err(failed)?;
        let found = client.query_opt(&question, &[&schema.as_str(), &name.as_str(), &column]).await.map_err(failed)?;
        let Some(found) = found else { return Ok(None) };
        let (home, modifier): (String, i32) = (found.get(0), found.get(1));
        let question = format!("select {}.postgis_typmod_srid($1)", quote_ident(&home));
        let srid: i32 = client.query_one(&question, &[&modifier]).await.map_err(failure::doing(what, &subject))?.get(0);
        Ok((srid > 0).then_some(srid))
    }
}
