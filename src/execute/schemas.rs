//! Extension, schemas and roles: what tables need before they are restored, and workspace jobs.

use super::{Ctx, JobEnd, Step, StepEnd};
use crate::error::Result;
use crate::job::{self, AuthLevel, WorkspaceJob};
use crate::name::PgIdent;
use crate::postgres::{Access, Database};

impl Ctx<'_> {
    /// Makes the schemas and roles of a workspace.
    pub(super) async fn workspace(&self, job: &WorkspaceJob) -> Result<JobEnd> {
        let Some(database) = &self.run.parts.database else {
            return Ok(JobEnd::Succeeded(Some("SKIP_DB is set: nothing was done".into())));
        };
        let schemas = [&job.schema, &job.data_schema, &job.outdated_schema];
        self.schemas(database, schemas, job.access).await?;
        Ok(JobEnd::Succeeded(None))
    }

    /// Runs the script that makes the organisation's roles.
    pub(super) async fn roles(&self, sql: &str) -> Result<JobEnd> {
        let Some(database) = &self.run.parts.database else {
            return Ok(JobEnd::Waiting("SKIP_DB is set; the first run without it does the job".into()));
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

    /// Makes extension, schemas and roles, once per pass for each.
    pub(super) async fn schemas(&self, database: &Database, schemas: [&PgIdent; 3], stated: job::Access) -> Result<()> {
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
                self.access(database, schemas[0], stated).await?;
                Ok(((), StepEnd::Unchanged, None))
            }),
        )
        .await
    }

    /// Lets the right role read the schema. The workspace's own document decides; without one, the
    /// strictest job of the pass does, in whatever order the jobs come.
    async fn access(&self, database: &Database, schema: &PgIdent, stated: job::Access) -> Result<()> {
        let of_workspace = self.run.background.workspace_levels.get(schema.as_str()).copied();
        let Some(level) = of_workspace.or(stated.is_stated.then_some(stated.level)) else {
            // Roles are per schema: a layer that says nothing must not change who reads the others.
            return Ok(());
        };
        let mut applied = self.run.access.lock().await;
        if applied.get(schema.as_str()).is_some_and(|strictest| *strictest >= level) {
            return Ok(());
        }
        let access = match level {
            AuthLevel::Public | AuthLevel::SignedIn => Access::Shared,
            AuthLevel::Restricted => Access::Restricted,
        };
        database.apply_access(schema, access).await?;
        applied.insert(schema.as_str().to_owned(), level);
        Ok(())
    }
}
