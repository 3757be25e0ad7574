//! Foreign keys: those that a dump brings, and those of other tables that point to a replaced one.
//!
//! A key of another table gets a twin that points to the loaded table, not validated at first and
//! then validated, both while everybody reads on. The swap only drops the old key and gives its name
//! to the twin.

use deadpool_postgres::Transaction;

use super::bookkeeping::State;
use super::connect::Database;
use super::{ForeignKey, Table, failure};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{quote_ident, quote_literal};

/// A lock that does not stand in the way of readers may be waited for a little longer.
const LOCK_SQL: &str = "set local lock_timeout = '2s'; set local search_path = ''";

/// How the twins are called; the number is the object id of the key that they will replace.
const TWIN: &str = "borg_slave_fk_";

/// A foreign key of another table.
struct Incoming {
    oid: u32,
    name: String,
    /// The table that has the key, quoted for SQL.
    owner: String,
    /// Everything after the name, the table that it points to without its schema.
    definition: String,
    /// The rows are known to obey it.
    validated: bool,
    /// Its table is being replaced itself.
    replaced: bool,
    partitioned: bool,
    comment: Option<String>,
    /// The validation state of the twin, when there is one.
    twin: Option<bool>,
}

impl Incoming {
    fn twin_name(&self) -> String {
        quote_ident(&format!("{TWIN}{}", self.oid))
    }

    fn label(&self, table: &Table) -> String {
        format!("foreign key {} of {} to {}", self.name, self.owner, table.data_sql())
    }

    fn must_be_validated(&self) -> bool {
        self.validated && !self.replaced
    }

    async fn of(tx: &Transaction<'_>, table: &Table, home: &str, oid: u32) -> Result<Vec<Self>> {
        let label = table.label();
        let failed = failure::doing("cannot read the foreign keys that point to the table", &label);
        // A definition leaves out the schema of a table that the search path finds.
        tx.batch_execute(&format!("set local search_path = {}", quote_ident(home))).await.map_err(failed)?;
        let rows = tx.query(include_str!("sql/incoming_keys.sql"), &[&oid]).await.map_err(failed)?;
        tx.batch_execute("set local search_path = ''").await.map_err(failed)?;
        let key = |row: &tokio_postgres::Row| {
            let definition: String = row.get(3);
            Self {
                oid: row.get(0),
                name: row.get(1),
                owner: row.get(2),
                definition: definition.strip_suffix(" NOT VALID").unwrap_or(&definition).to_owned(),
                validated: row.get(4),
                replaced: row.get(5),
                partitioned: row.get(6),
                comment: row.get(7),
                twin: row.get(8),
            }
        };
        Ok(rows.iter().map(key).collect())
    }

    /// Adds the key under `name`, pointing to the table of that name in the schema `home`.
    async fn add(&self, tx: &Transaction<'_>, table: &Table, home: &str, name: &str) -> Result<()> {
        let label = self.label(table);
        let failed = failure::doing("cannot be made to point to the new table", &label);
        // A partitioned table takes no unvalidated key.
        let suffix = if self.partitioned { "" } else { " not valid" };
        let sql = format!(
            "set local search_path = {};alter table {} add constraint {name} {}{suffix};set local search_path = ''",
            quote_ident(home),
            self.owner,
            self.definition,
        );
        tx.batch_execute(&sql).await.map_err(failed)
    }
}

impl Database {
    /// Gives every foreign key that points to the old table a twin that points to the loaded one.
    pub(super) async fn prepare_foreign_keys(&self, table: &Table) -> Result<()> {
        let label = table.label();
        let failed = failure::doing("cannot prepare the foreign keys that point to the table", &label);
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute(LOCK_SQL).await.map_err(failed)?;
        let state = State::read(&tx, table).await?;
        let (Some(_), Some(old)) = (state.data, state.outdated) else { return Ok(()) };
        let keys = Incoming::of(&tx, table, table.outdated_schema.as_str(), old.oid).await?;
        for key in keys.iter().filter(|key| key.twin.is_none()) {
            key.add(&tx, table, table.data_schema.as_str(), &key.twin_name()).await?;
        }
        tx.commit().await.map_err(failed)?;
        drop(client);
        for key in keys.iter().filter(|key| key.must_be_validated() && !key.partitioned && key.twin != Some(true)) {
            let validate = format!("alter table {} validate constraint {}", key.owner, key.twin_name());
            let validated = self.run_long(&validate, "the new table's rows violate it", &key.label(table)).await;
            if let Err(error) = validated {
                if error.kind() == ErrorKind::Database {
                    self.drop_twins(&keys).await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the twins away after a failure; those that stay are found and used by the next run.
    async fn drop_twins(&self, keys: &[Incoming]) {
        for key in keys {
            let drop = format!("alter table {} drop constraint if exists {}", key.owner, key.twin_name());
            let sql = format!("set lock_timeout = '2s';{drop}");
            let Ok(client) = self.client().await else { return };
            if let Err(error) = client.batch_execute(&sql).await {
                tracing::warn!(constraint = key.twin_name(), table = key.owner, %error, "a prepared foreign key stays behind");
            }
            let _ = client.batch_execute("reset lock_timeout").await;
        }
    }

    /// Adds one key of the dump, unless it is there.
    pub(super) async fn add_foreign_key(&self, table: &Table, key: &ForeignKey) -> Result<()> {
        let subject = format!(
            "foreign key {} of {} to {}.{}",
            key.constraint,
            table.data_sql(),
            quote_ident(&key.references.0),
            quote_ident(&key.references.1)
        );
        let failed = failure::doing("cannot be added", &subject);
        let stays_unvalidated = key.sql.trim_end().to_ascii_uppercase().ends_with("NOT VALID");
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute(LOCK_SQL).await.map_err(failed)?;
        let names = [table.data_schema.as_str(), table.name.as_str(), &key.constraint];
        let there =
            tx.query_opt(include_str!("sql/own_key.sql"), &[&names[0], &names[1], &names[2]]).await.map_err(failed)?;
        if there.is_none() {
            let suffix = if stays_unvalidated { "" } else { " NOT VALID" };
            tx.batch_execute(&format!("{}{suffix}", key.sql)).await.map_err(|error| {
                let undefined = error.code().is_some_and(|code| code.code() == "42P01" || code.code() == "3F000");
                let error = failed(error);
                if undefined {
                    Error::new(ErrorKind::Dependency, "the table that it points to is not there")
                        .subject(&subject)
                        .source(error)
                        .hint("publish that table first, or together with this one")
                } else {
                    error
                }
            })?;
            tx.commit().await.map_err(failed)?;
        } else {
            tx.rollback().await.map_err(failed)?;
        }
        let validated = there.is_some_and(|row| row.get(0));
        if validated || stays_unvalidated {
            return Ok(());
        }
        drop(client);
        let constraint = quote_ident(&key.constraint);
        let validate = format!("alter table {} validate constraint {constraint}", table.data_sql());
        self.run_long(&validate, "the loaded rows violate it", &subject).await
    }
}

/// In the swap: the twins take the place of the keys that point to the old table.
pub(super) async fn switch(tx: &Transaction<'_>, table: &Table, old: u32, new: u32) -> Result<()> {
    for key in Incoming::of(tx, table, table.outdated_schema.as_str(), old).await? {
        let label = key.label(table);
        let failed = failure::doing("cannot be made to point to the new table", &label);
        if key.twin.is_none_or(|validated| !validated && key.must_be_validated()) {
            // It appeared, or its table ceased to be under replacement, since the preparation.
            return Err(Error::new(ErrorKind::Busy, "it changed while the table was being published").subject(label));
        }
        let name = quote_ident(&key.name);
        let mut sql = format!(
            "alter table {owner} drop constraint {name};alter table {owner} rename constraint {twin} to {name};",
            owner = key.owner,
            twin = key.twin_name(),
        );
        if let Some(comment) = &key.comment {
            sql.push_str(&format!("comment on constraint {name} on {} is {}", key.owner, quote_literal(comment)));
        }
        tx.batch_execute(&sql).await.map_err(failed)?;
    }
    drop_lone_twins(tx, table, new).await
}

/// Before an unpublished table is dropped: what points to it points to the published one again.
pub(super) async fn point_back(tx: &Transaction<'_>, table: &Table, unpublished: u32, published: u32) -> Result<()> {
    drop_lone_twins(tx, table, unpublished).await?;
    repoint(tx, table, (table.data_schema.as_str(), unpublished), (table.outdated_schema.as_str(), published)).await
}

/// Before a left-over table is dropped: what points to it points to the published one.
pub(super) async fn point_forward(tx: &Transaction<'_>, table: &Table, left_over: u32, published: u32) -> Result<()> {
    drop_lone_twins(tx, table, published).await?;
    repoint(tx, table, (table.outdated_schema.as_str(), left_over), (table.data_schema.as_str(), published)).await
}

async fn repoint(tx: &Transaction<'_>, table: &Table, from: (&str, u32), to: (&str, u32)) -> Result<()> {
    for key in Incoming::of(tx, table, from.0, from.1).await? {
        let label = key.label(table);
        let failed = failure::doing("cannot be made to point to the published table", &label);
        let name = quote_ident(&key.name);
        tx.batch_execute(&format!("alter table {} drop constraint {name}", key.owner)).await.map_err(failed)?;
        key.add(tx, table, to.0, &name).await?;
        if !key.must_be_validated() || key.partitioned {
            continue;
        }
        tx.batch_execute("savepoint validation").await.map_err(failed)?;
        let validate = format!("alter table {} validate constraint {name}", key.owner);
        if let Err(error) = tx.batch_execute(&validate).await {
            // The table that has the key was loaded against the one that goes. It is kept, and the
            // key with it; the key is checked when the other table is published again.
            tracing::warn!(constraint = key.name, table = key.owner, %error, "a foreign key is not validated for now");
            tx.batch_execute("rollback to savepoint validation").await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Drops twins whose original is gone: a killed run left them.
pub(super) async fn drop_lone_twins(tx: &Transaction<'_>, table: &Table, oid: u32) -> Result<()> {
    let label = table.label();
    let failed = failure::doing("cannot drop what an interrupted run has left", &label);
    for row in tx.query(include_str!("sql/twin_keys.sql"), &[&oid]).await.map_err(failed)? {
        let statement: &str = row.get(0);
        tx.batch_execute(statement).await.map_err(failed)?;
    }
    Ok(())
}
