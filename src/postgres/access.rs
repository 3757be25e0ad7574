//! Extension, schemas, and the two roles that may read.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::types::ToSql;

use super::connect::{Attempts, Database};
use super::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{PgIdent, quote_ident};

/// Serialises everything that makes shared objects, which several sessions may want at once.
const SETUP_LOCK: &str = include_str!("sql/lock_setup.sql");

/// The role through which everybody reads what is not restricted.
const SHARED_ROLE: &str = "sso_access";

const WHAT: &str = "cannot set the roles";

/// Advice for who may not make the extension.
const CREATE_EXTENSION_HINT: &str = "let a superuser run once in that database: create extension postgis";

fn no_postgis(database: &str) -> Error {
    Error::new(ErrorKind::Settings, "the database server has no PostGIS")
        .subject(database)
        .hint("install the PostGIS package on the database server (Debian: postgresql-<version>-postgis-3)")
}

/// Who may read the views of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Levels 0 and 1: role `sso_access`.
    Shared,
    /// Level 2: only a role named as the schema.
    Restricted,
}

impl Database {
    /// Whether the slave's user may do here what jobs need: make schemas, and roles.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] naming the missing right and the statement that grants it.
    pub async fn check_rights(&self) -> Result<()> {
        let row = self
            .client()
            .await?
            .query_one(include_str!("sql/rights.sql"), &[])
            .await
            .map_err(failure::doing("cannot read the user's rights", "the slave's database"))?;
        let (user, database): (String, String) = (row.get("user_name"), row.get("database_name"));
        let refuse = |what: &str, remedy: String| {
            Err(Error::new(ErrorKind::Denied, format!("the user may not {what}")).subject(user.clone()).hint(remedy))
        };
        if !row.get::<_, bool>("may_create_schemas") {
            return refuse(
                "make schemas",
                format!(
                    "as a superuser: grant create on database {} to {}",
                    quote_ident(&database),
                    quote_ident(&user)
                ),
            );
        }
        if !row.get::<_, bool>("may_create_roles") {
            return refuse("make roles", format!("as a superuser: alter role {} createrole", quote_ident(&user)));
        }
        let row = self
            .client()
            .await?
            .query_one(include_str!("sql/extension_state.sql"), &[])
            .await
            .map_err(failure::doing("cannot look for PostGIS", &database))?;
        if !row.get::<_, bool>("installed") {
            if !row.get::<_, bool>("available") {
                return Err(no_postgis(&format!("database {database}")));
            }
            if !row.get::<_, bool>("may_create") {
                return refuse("create the PostGIS extension", CREATE_EXTENSION_HINT.into());
            }
        }
        Ok(())
    }

    /// Makes sure that the PostGIS extension is in the database.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when the server has no PostGIS, [`ErrorKind::Denied`] when the role
    /// may not create the extension.
    pub async fn ensure_extension(&self) -> Result<()> {
        let database = format!("database {}", self.shared.options.database);
        let what = "cannot create the PostGIS extension";
        let mut client = self.client().await?;
        let tx = self.setup(&mut client, what, &database).await?;
        let row = tx
            .query_one(include_str!("sql/extension_state.sql"), &[])
            .await
            .map_err(failure::doing(what, &database))?;
        if row.get(0) {
            return Ok(());
        }
        if !row.get::<_, bool>(1) {
            return Err(no_postgis(&database));
        }
        // Dumps refer to the types as `public.geometry`.
        let made = tx.batch_execute("create extension if not exists postgis schema public").await;
        made.map_err(|error| {
            let error = failure::statement(error, what, &database);
            if error.kind() == ErrorKind::Denied { error.hint(CREATE_EXTENSION_HINT) } else { error }
        })?;
        tx.commit().await.map_err(failure::doing(what, &database))
    }

    /// Makes sure that the schemas are there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] when the role may not create schemas in the database.
    pub async fn ensure_schemas(&self, schemas: &[&PgIdent]) -> Result<()> {
        let names: Vec<&str> = schemas.iter().map(|schema| schema.as_str()).collect();
        let subject = names.join(", ");
        let what = "cannot create the schemas";
        let mut client = self.client().await?;
        let missing = client
            .query(include_str!("sql/missing_schemas.sql"), &[&names])
            .await
            .map_err(failure::doing(what, &subject))?;
        if missing.is_empty() {
            return Ok(());
        }
        let tx = self.setup(&mut client, what, &subject).await?;
        for row in missing {
            let name: String = row.get(0);
            tx.batch_execute(&format!("create schema if not exists {}", quote_ident(&name)))
                .await
                .map_err(failure::doing(what, &name))?;
        }
        tx.commit().await.map_err(failure::doing(what, &subject))
    }

    /// Lets exactly the role that `access` names read what is in `schema` now and what the slave puts
    /// there later. Only what differs is changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] when the slave's role may not create roles or grant the schema.
    pub async fn apply_access(&self, schema: &PgIdent, access: Access) -> Result<()> {
        let mut attempts = Attempts::new(self);
        loop {
            match self.try_apply_access(schema, access).await {
                Err(error) if attempts.may_retry(&error) => attempts.pause().await?,
                other => return other,
            }
        }
    }

    async fn try_apply_access(&self, schema: &PgIdent, access: Access) -> Result<()> {
        let subject = format!("schema {schema}");
        let mut client = self.client().await?;
        let tx = self.setup(&mut client, WHAT, &subject).await?;
        let name = schema.as_str();
        // Each file answers with the statements that are still needed; a right state answers nothing.
        let mut changes = ask(&tx, include_str!("sql/role_shared.sql"), &[&SHARED_ROLE], &subject).await?;
        let (reader, other) = match access {
            Access::Shared => (SHARED_ROLE, name),
            Access::Restricted => {
                let roles = include_str!("sql/role_restricted.sql");
                changes += ask(&tx, roles, &[&name, &SHARED_ROLE], &subject).await?;
                (name, SHARED_ROLE)
            }
        };
        changes += ask(&tx, include_str!("sql/role_revoke.sql"), &[&name, &other], &subject).await?;
        changes += ask(&tx, include_str!("sql/role_grant.sql"), &[&name, &reader], &subject).await?;
        if access == Access::Shared {
            changes += retire(&tx, name, &subject).await?;
        }
        if changes == 0 {
            return Ok(());
        }
        tracing::info!(schema = name, ?access, changes, "changed the roles of the schema");
        tx.commit().await.map_err(failure::doing(WHAT, &subject))
    }

    /// A transaction that nobody else sets things up beside.
    pub(super) async fn setup<'c>(&self, client: &'c mut Object, what: &str, subject: &str) -> Result<Transaction<'c>> {
        let tx = client.transaction().await.map_err(failure::doing(what, subject))?;
        tx.batch_execute(SETUP_LOCK).await.map_err(failure::doing(what, subject))?;
        Ok(tx)
    }
}

/// Runs the statements with which `question` answers, and counts them.
async fn ask(tx: &Transaction<'_>, question: &str, params: &[&(dyn ToSql + Sync)], subject: &str) -> Result<usize> {
    let answers = tx.query(question, params).await.map_err(failure::doing(WHAT, subject))?;
    for row in &answers {
        let statement: &str = row.get(0);
        tx.batch_execute(statement).await.map_err(|error| concurrent(error, subject))?;
    }
    Ok(answers.len())
}

/// Roles belong to the whole server, the setup lock only to one database: a slave of another database
/// may have made the same role at the same moment. The second look finds it.
fn concurrent(error: tokio_postgres::Error, subject: &str) -> Error {
    let raced = error
        .as_db_error()
        .is_some_and(|db| matches!(db.code().code(), "42710" | "23505") || db.message().contains("tuple concurrently"));
    if raced {
        Error::new(ErrorKind::Busy, "another session changes the same role").subject(subject).source(error)
    } else {
        failure::statement(error, WHAT, subject)
    }
}

/// Drops the role of a schema that is no longer restricted, when the slave made it and nothing else
/// hangs on it. A role that is used elsewhere keeps existing: it has lost this schema already.
async fn retire(tx: &Transaction<'_>, role: &str, subject: &str) -> Result<usize> {
    let state = tx
        .query_opt(include_str!("sql/role_retire.sql"), &[&role, &SHARED_ROLE])
        .await
        .map_err(failure::doing(WHAT, subject))?;
    let Some(state) = state else { return Ok(0) };
    let in_use: Option<String> = state.get(0);
    if let Some(reason) = in_use {
        tracing::warn!(role, reason, "the role of the schema stays, it is used for something else too");
        return Ok(0);
    }
    let quoted = quote_ident(role);
    // The role owns nothing (that was asked above), so this only takes privileges away.
    tx.batch_execute(&format!("drop owned by {quoted} restrict; drop role {quoted}"))
        .await
        .map_err(failure::doing(WHAT, subject))?;
    Ok(1)
}
