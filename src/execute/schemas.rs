//! Extension, schemas and roles: what tables need before they are restored, and workspace jobs.

use std::collections::HashMap;

use super::{Ctx, Event, Facts, JobEnd, Step, StepEnd};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{self, AuthLevel, WorkspaceJob};
use crate::name::{GeoName, PgIdent};
use crate::postgres::{Access, Database};

/// Jobs that are about nothing else do not begin without it.
fn without_database(job_file: &str) -> Error {
    Error::new(ErrorKind::Bug, "a job of the database was begun without one").subject(job_file)
}

impl Ctx<'_> {
    /// Makes the schemas and roles of a workspace.
    pub(super) async fn workspace(&self, job: &WorkspaceJob) -> Result<JobEnd> {
        let Some(database) = &self.run.parts.database else {
            return Err(without_database(&self.file.path));
        };
        let schemas = [&job.schema, &job.data_schema, &job.outdated_schema];
        self.schemas(database, schemas, job.access, None).await?;
        Ok(JobEnd::Succeeded(None))
    }

    /// Runs the script that makes the organisation's roles.
    pub(super) async fn roles(&self, sql: &str) -> Result<JobEnd> {
        let Some(database) = &self.run.parts.database else {
            return Err(without_database(&self.file.path));
        };
        self.step(
            Step::Roles,
            None,
            Box::pin(async {
                database.run_roles_script(sql, &self.file.path).await?;
                Ok(((), StepEnd::Done, None))
            }),
        )
        .await?;
        Ok(JobEnd::Succeeded(None))
    }

    /// Makes extension, schemas and roles, once per pass for each. `layer` is whose access level is stated;
    /// none when that is the workspace's own.
    pub(super) async fn schemas(
        &self,
        database: &Database,
        schemas: [&PgIdent; 3],
        stated: job::Access,
        layer: Option<(&GeoName, &GeoName)>,
    ) -> Result<()> {
        // Both change roles, which the database does not let happen at once.
        self.run.wait_for(&self.run.roles_jobs).await;
        self.step(
            Step::Schemas,
            None,
            Box::pin(async {
                let steps = &self.run.database_steps;
                steps
                    .once("extension".into(), async {
                        for warning in database.preflight().await?.warnings() {
                            tracing::warn!("{warning}");
                        }
                        database.ensure_extension().await
                    })
                    .await?;
                let key = schemas.map(PgIdent::quoted).join(",");
                steps.once(key, database.ensure_schemas(&schemas)).await?;
                self.access(database, schemas[0], stated, layer).await?;
                Ok(((), StepEnd::Unchanged, None))
            }),
        )
        .await
    }

    /// Lets the right role read the schema. The workspace's own document decides; without one, the strictest
    /// of its layers does, whenever that was published.
    async fn access(
        &self,
        database: &Database,
        schema: &PgIdent,
        stated: job::Access,
        layer: Option<(&GeoName, &GeoName)>,
    ) -> Result<()> {
        let key =
            layer.filter(|_| stated.is_stated).map(|(workspace, layer)| level_key(schema.as_str(), workspace, layer));
        if let Some(key) = &key {
            let level = stated.level.as_number().to_string();
            if self.run.background.facts.get(super::DATABASE, key).as_ref() != Some(&level) {
                // Before the others are kept waiting: many layers that come together are written down together.
                self.note(super::DATABASE, key, level).await?;
            }
        }
        let mut levels = self.run.levels.lock().await;
        if let Some(key) = key {
            levels.of_layers.entry(schema.to_string()).or_default().insert(key, stated.level);
        }
        let of_workspace = self.run.background.workspace_levels.get(schema.as_str()).copied();
        let of_layers = levels.of_layers.get(schema.as_str()).and_then(|layers| layers.values().max().copied());
        let own = stated.is_stated.then_some(stated.level);
        // Roles are per schema: when nobody says anything, who reads it stays as it is.
        let Some(level) = of_workspace.or(of_layers).or(own) else { return Ok(()) };
        if levels.applied.get(schema.as_str()) == Some(&level) {
            return Ok(());
        }
        let access = match level {
            AuthLevel::Public | AuthLevel::SignedIn => Access::Shared,
            AuthLevel::Restricted => Access::Restricted,
        };
        database.apply_access(schema, access).await?;
        levels.applied.insert(schema.to_string(), level);
        Ok(())
    }

    /// A layer that is gone has no more say in who reads its schema.
    pub(super) async fn forget_level(&self, schema: &PgIdent, workspace: &GeoName, layer: &GeoName) {
        let key = level_key(schema.as_str(), workspace, layer);
        if let Some(layers) = self.run.levels.lock().await.of_layers.get_mut(schema.as_str()) {
            layers.remove(&key);
        }
        if self.run.background.facts.get(super::DATABASE, &key).is_some() {
            self.run.background.facts.set(super::DATABASE, &key, None);
            self.run.emit(Event::Fact { target: super::DATABASE.to_owned(), key, value: None });
        }
    }
}

/// Who may read the schemas, as far as this pass knows.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// By schema, what its layers say, each under the key of its fact.
    of_layers: HashMap<String, HashMap<String, AuthLevel>>,
    /// What was applied to each schema in this pass.
    applied: HashMap<String, AuthLevel>,
}

impl Levels {
    /// What the layers of earlier passes have said.
    pub(super) fn known(facts: &Facts) -> Self {
        let mut of_layers: HashMap<String, HashMap<String, AuthLevel>> = HashMap::new();
        for key in facts.keys(super::DATABASE) {
            let level = facts.get(super::DATABASE, &key).and_then(|level| AuthLevel::from_number(level.parse().ok()?));
            if let Some(level) = level
                && let Some((schema, _)) = key.strip_prefix(LEVEL).and_then(|rest| rest.rsplit_once(BETWEEN))
            {
                of_layers.entry(schema.to_owned()).or_default().insert(key, level);
            }
        }
        Self { of_layers, applied: HashMap::new() }
    }
}

const LEVEL: &str = "level ";

/// Stands in no name of a layer.
const BETWEEN: char = '\n';

fn level_key(schema: &str, workspace: &GeoName, layer: &GeoName) -> String {
    format!("{LEVEL}{schema}{BETWEEN}{workspace}:{layer}")
}
