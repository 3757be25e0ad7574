//! The view that readers use, and the views that others have built on it or on the table below.
//!
//! When the new columns begin with the old ones the view is replaced in place and nothing above it is
//! touched. Otherwise it is dropped and made again, and so is every view above it, each with its
//! owner, options, grants, comments, defaults, rules and triggers. Nothing is ever dropped by CASCADE:
//! what cannot be made again (a materialized view, a function on the row type) stops the transaction.

use std::collections::HashSet;

use deadpool_postgres::Transaction;

use super::{Table, failure, script};
use crate::error::{Error, ErrorKind, Result};

/// The relations of one swap, by object id.
pub(super) struct Replacement {
    pub(super) view: Option<u32>,
    pub(super) old: Option<u32>,
    pub(super) new: u32,
}

/// A view with all that hangs on it, as the statements that make it again.
struct Captured {
    /// Schema and name, quoted for SQL.
    name: String,
    create: String,
    /// Statement, and the column without which it makes no sense.
    dress: Vec<(String, Option<String>)>,
}

/// Makes the view read the new table. Tells whether its columns changed.
pub(super) async fn replace(tx: &Transaction<'_>, table: &Table, swap: &Replacement) -> Result<bool> {
    let label = table.label();
    let failed = failure::doing("cannot replace the view", &label);
    let body = format!("{} as select * from {}", table.view_sql(), table.data_sql());
    let new = columns(tx, swap.new, &label).await?;
    let old = match swap.view {
        Some(view) => columns(tx, view, &label).await?,
        None => Vec::new(),
    };
    // An empty list of columns cannot be extended in place.
    let in_place = swap.view.is_some() && new.starts_with(&old) && !old.is_empty();
    let roots: Vec<u32> = match swap.view {
        Some(view) if !in_place => swap.old.into_iter().chain([view]).collect(),
        _ => swap.old.into_iter().collect(),
    };
    let above = capture_above(tx, table, &roots, swap).await?;
    let own = match swap.view {
        Some(view) if !in_place => Some(capture(tx, table, view).await?),
        _ => None,
    };
    for view in above.iter().rev() {
        tx.batch_execute(&format!("drop view {}", view.name))
            .await
            .map_err(failure::doing("cannot replace a view that depends on the layer", &view.name))?;
    }
    if let Some(own) = own {
        tx.batch_execute(&format!("drop view {}", table.view_sql())).await.map_err(failed)?;
        tx.batch_execute(&format!("create view {body}")).await.map_err(failed)?;
        let names: HashSet<&str> = new.iter().map(|column| column.name.as_str()).collect();
        let fits = |column: &Option<String>| column.as_deref().is_none_or(|name| names.contains(name));
        let dress = own.dress.into_iter().filter(|(_, column)| fits(column)).collect();
        dress_up(tx, &Captured { dress, ..own }).await?;
    } else {
        let (verb, options) = match swap.view {
            Some(view) => ("create or replace view", view_options(tx, view, &label).await?),
            None => ("create view", None),
        };
        tx.batch_execute(&format!("{verb} {body}")).await.map_err(failed)?;
        if let Some(options) = options {
            // Replacing a view resets its options.
            let set = format!("alter view {} set ({options})", table.view_sql());
            tx.batch_execute(&set).await.map_err(failed)?;
        }
    }
    for view in &above {
        make_again(tx, view).await?;
    }
    Ok(swap.view.is_some() && new != old)
}

async fn view_options(tx: &Transaction<'_>, view: u32, label: &str) -> Result<Option<String>> {
    let question = "select pg_catalog.array_to_string(reloptions, ', ') from pg_catalog.pg_class where oid = $1";
    let row =
        tx.query_one(question, &[&view]).await.map_err(failure::doing("cannot read the view's options", label))?;
    Ok(row.get(0))
}

/// What has to be equal for a view's column to be replaced in place.
#[derive(PartialEq, Eq)]
struct ColumnShape {
    name: String,
    type_name: String,
    collation: u32,
}

async fn columns(tx: &Transaction<'_>, oid: u32, label: &str) -> Result<Vec<ColumnShape>> {
    let failed = failure::doing("cannot read the columns", label);
    let question = tx.prepare_cached(include_str!("sql/column_shapes.sql")).await.map_err(failed)?;
    let rows = tx.query(&question, &[&oid]).await.map_err(failed)?;
    let shape =
        |row: &tokio_postgres::Row| ColumnShape { name: row.get(0), type_name: row.get(1), collation: row.get(2) };
    Ok(rows.iter().map(shape).collect())
}

/// The views above `roots`, each after those that it depends on.
async fn capture_above(
    tx: &Transaction<'_>,
    table: &Table,
    roots: &[u32],
    swap: &Replacement,
) -> Result<Vec<Captured>> {
    let what = "cannot read the views that depend on the layer";
    let label = table.label();
    let failed = failure::doing(what, &label);
    let question = tx.prepare_cached(include_str!("sql/views_above.sql")).await.map_err(failed)?;
    let rows = tx.query(&question, &[&roots, &swap.view, &swap.old]).await.map_err(failed)?;
    let (old, new) = (&table.outdated_schema, &table.data_schema);
    let name = table.name.as_str();
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let mut view = capture(tx, table, row.get(0)).await?;
        if row.get(1) {
            // Only the table that is replaced. Another one of the schema may be in the middle of its own replacement.
            view.create = script::renamed(&view.create, (old.as_str(), name), (new.as_str(), name))
                .map_err(|reason| Error::new(ErrorKind::Database, format!("{what}: {reason}")).subject(&view.name))?;
        }
        found.push(view);
    }
    Ok(found)
}

async fn capture(tx: &Transaction<'_>, table: &Table, view: u32) -> Result<Captured> {
    let label = table.label();
    let failed = failure::doing("cannot read the definition of a view that depends on the layer", &label);
    // The search path is empty, so that every relation is named with its schema.
    let row = tx.query_one(include_str!("sql/view_definition.sql"), &[&view]).await.map_err(failed)?;
    let dress = tx.query(include_str!("sql/view_dress.sql"), &[&view]).await.map_err(failed)?;
    Ok(Captured {
        name: row.get(0),
        create: row.get(1),
        dress: dress.iter().map(|row| (row.get(0), row.get(1))).collect(),
    })
}

async fn make_again(tx: &Transaction<'_>, view: &Captured) -> Result<()> {
    tx.batch_execute(&view.create).await.map_err(|error| {
        let error =
            failure::statement(error, "the view depends on the layer and does not fit its new columns", &view.name);
        if error.kind() == ErrorKind::Database {
            Error::new(error.kind(), error.message())
                .subject(&view.name)
                .source(error)
                .hint("change or drop that view by hand, then run again; until then the old table stays published")
        } else {
            error
        }
    })?;
    dress_up(tx, view).await
}

/// Gives a view that was made again what hung on it. Default privileges of the schema have granted it
/// to somebody meanwhile; only what was granted before shall be.
async fn dress_up(tx: &Transaction<'_>, view: &Captured) -> Result<()> {
    let failed = failure::doing("cannot give a view back what belonged to it", &view.name);
    let surplus = tx.query(include_str!("sql/view_surplus_grants.sql"), &[&view.name]).await.map_err(failed)?;
    for row in surplus {
        tx.batch_execute(row.get(0)).await.map_err(failed)?;
    }
    for (statement, _) in &view.dress {
        tx.batch_execute(statement).await.map_err(failed)?;
    }
    Ok(())
}
