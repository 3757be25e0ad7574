//! Feature layers: publish, metadata only, remove.

use std::collections::HashSet;
use std::sync::PoisonError;

use super::layer::VectorLayer;
use super::removals::Obstacle;
use super::tables::{Loading, Voice};
use super::{Ctx, Event, JobEnd, Shown, Step, StepEnd, Stepped, succeeded};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::Source;
use crate::job::{self, Action, FeatureJob, FeatureRemoval, FileRef, StyleRef};
use crate::name::{GeoName, PgIdent};
use crate::postgres::{Archive, Database, ForeignKey, Swapped, Table};
use crate::transfer::{CacheName, Fetched};

impl Ctx<'_> {
    /// Brings a feature layer, or only its metadata, into being.
    pub(super) async fn publish_feature(&self, job: &FeatureJob, voice: &mut Voice<'_>) -> Result<JobEnd> {
        let table = table(&job.database);
        let mut fetched = Vec::new();
        let mut notes = Vec::new();
        let servers = if job.sync_geoserver_data { self.unfinished_geoservers() } else { Vec::new() };
        let layer = self.layer_of(job, table.clone())?;
        self.note_purge(&job.workspace, &job.name).await?;
        // The styles are asked for in the moment in which the dump is: so they travel with it, and not
        // each by itself when its table is there.
        let dump = self.dump_to_load(job, &table).await?;
        let store = self.workspace_store(job, &layer.store);
        let (data, styles, ()) = tokio::join!(
            Box::pin(self.publish_table(job, &table, dump, voice, &mut notes)),
            Box::pin(self.style_files(&layer, &servers)),
            Box::pin(self.prepare_stores(&servers, &store)),
        );
        data?;
        if !servers.is_empty() {
            let publish = self.publish_on_geoservers(&layer, Some(&store), &servers, styles?, &mut notes);
            let Some(styles) = Box::pin(publish).await? else {
                return Ok(JobEnd::Waiting(
                    "SKIP_DB is set and the layer's table is not there, so that GeoServer has nothing to show; \
                     the first run without it does the job"
                        .into(),
                ));
            };
            fetched.extend(styles);
        }
        self.note_left_out(
            job.sync_postgres_data && job.action == Action::Publish,
            job.sync_geoserver_data,
            &mut notes,
        );
        if job.sync_geoserver_data {
            Box::pin(self.present(&layer.presented(), &mut notes)).await;
        }
        if !self.run.parts.choices.keep_cached_files {
            self.discard(&fetched);
            self.discard_leftovers(&job.workspace, &job.name, job.styles.iter().map(StyleRef::geoserver_name));
        }
        Ok(succeeded(&notes))
    }

    /// Says what the settings leave out of a job that does the rest.
    fn note_left_out(&self, database: bool, geoserver: bool, notes: &mut Vec<String>) {
        let skip = &self.run.parts.choices.skip;
        if skip.db && database {
            notes.push("SKIP_DB is set: nothing was done in the database; the first run without it does it".into());
        }
        if skip.gs && geoserver {
            notes.push("SKIP_GS is set: nothing was done on GeoServer; the first run without it does it".into());
        }
    }

    /// Removes files from the cache for which there is no more use.
    pub(super) fn discard(&self, fetched: &[Fetched]) {
        for file in fetched {
            // The layer is published: a file that stays costs space, not the job.
            if let Err(error) = self.run.parts.transfer.discard(file) {
                tracing::warn!(error = error.one_line(), "a cached file could not be removed");
            }
        }
    }

    /// The layer that GeoServer is to show.
    fn layer_of<'a>(&self, job: &'a FeatureJob, table: Table) -> Result<VectorLayer<'a>> {
        Ok(VectorLayer {
            workspace: &job.workspace,
            name: &job.name,
            store: self.store_of_workspace(&job.workspace)?,
            native_name: job.native_table.as_ref().unwrap_or(&job.database.table),
            table: Some(table),
            description: &job.description,
            service_type: job.service_type,
            spatial: &job.spatial,
            viewsql: job.viewsql.as_deref(),
            styles: &job.styles,
            setting: &job.geoserver_setting,
            preview: &job.preview,
            publication: job.data.as_ref().and_then(|data| data.md5.clone()),
        })
    }

    /// The dump of a job that has one, unless this very content is published already.
    async fn dump_to_load<'a>(&self, job: &'a FeatureJob, table: &Table) -> Result<Option<&'a FileRef>> {
        let Some(database) = &self.run.parts.database else { return Ok(None) };
        if job.action != Action::Publish || !job.sync_postgres_data {
            return Ok(None);
        }
        let Some(data) = &job.data else {
            return Err(Error::new(ErrorKind::Document, "the job names no dump").subject(&self.file.path).hint(
                "publish the layer again on the master; `sync_postgres_data: false` is for layers without a table",
            ));
        };
        let is_published = data.md5.is_some() && database.published_md5(table).await? == data.md5;
        Ok((!is_published).then_some(data))
    }

    /// The database's part, when the job has one; then says that the table can be referenced.
    async fn publish_table(
        &self,
        job: &FeatureJob,
        table: &Table,
        dump: Option<&FileRef>,
        voice: &mut Voice<'_>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        if job.sync_postgres_data
            && let Some(database) = &self.run.parts.database
        {
            if job.action == Action::Publish {
                voice.loads((table.data_schema.to_string(), table.name.to_string()));
            }
            let schemas = [&table.schema, &table.data_schema, &table.outdated_schema];
            let schemas = self.schemas(database, schemas, job.access, Some((&job.workspace, &job.name)));
            match dump {
                Some(dump) => {
                    let ((), dump) = tokio::try_join!(Box::pin(schemas), Box::pin(self.dump(job, dump)))?;
                    Box::pin(self.replace_table(database, job, table, &dump, voice, notes)).await?;
                    // At once: others may wait for the room that it takes.
                    if !self.run.parts.choices.keep_cached_files {
                        self.discard(&[dump]);
                    }
                }
                None => Box::pin(schemas).await?,
            }
        }
        // Nobody has to wait for a table that this job does not touch.
        voice.loads_nothing();
        voice.ready();
        voice.swapped();
        Ok(())
    }

    async fn dump(&self, job: &FeatureJob, file: &FileRef) -> Result<Fetched> {
        let extension = file.file.rsplit_once('.').map_or("db", |(_, extension)| extension);
        let name = CacheName::dump(job.workspace.as_str(), job.name.as_str(), extension)?;
        self.step(
            Step::Dump,
            None,
            Box::pin(async {
                let fetched = super::metadata::fetch(&self.run.parts.transfer, file, name, "dump").await?;
                let mut message = format!("{} bytes", fetched.bytes);
                if file.md5.is_none() {
                    message.push_str(", not checked: the job gives no md5");
                    tracing::warn!(
                        job = self.file.path,
                        "the job gives no md5 for its dump: what has arrived is taken as it is"
                    );
                }
                Ok((fetched, StepEnd::Done, Some(message)))
            }),
        )
        .await
    }

    /// Replaces the table by what the dump holds.
    async fn replace_table(
        &self,
        database: &Database,
        job: &FeatureJob,
        table: &Table,
        dump: &Fetched,
        voice: &mut Voice<'_>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let archive = self.step(Step::Restore, None, Box::pin(self.restore(database, table, dump))).await?;
        voice.ready();
        let published = async {
            if !archive.foreign_keys().is_empty() {
                // Their tables may be among those that wait for room.
                dump.lets_others_come();
                let make = Box::pin(self.foreign_keys(database, table, &archive));
                notes.extend(self.step(Step::ForeignKeys, None, make).await?);
            }
            let swap = Box::pin(self.swap(database, job, table, dump, voice));
            self.step(Step::Swap, None, swap).await
        };
        if let Err(error) = published.await {
            // What is loaded stays for the next run; others may work on the table until then.
            database.release(table).await;
            return Err(error);
        }
        Ok(())
    }

    async fn restore(&self, database: &Database, table: &Table, dump: &Fetched) -> Result<Stepped<Archive>> {
        let archive = {
            let _one_of_few = self.run.inspections.acquire().await.map_err(|_| super::stopped())?;
            let verified = dump.clone();
            Archive::inspect(&dump.path, table, &self.run.stop)
                .await?
                .with_md5(dump.md5.to_string())
                .with_check(move || verified.check_unchanged())
        };
        // While others look into theirs.
        let _one_of_few = self.run.restores.acquire().await.map_err(|_| super::stopped())?;
        let progress = |progress| self.run.emit(Event::StepProgress { job: self.job, step: Step::Restore, progress });
        database.load(table, &archive, progress).await?;
        self.run.emit(Event::Loaded { job: self.job, bytes: dump.bytes });
        Ok((archive, StepEnd::Done, None))
    }

    async fn foreign_keys(
        &self,
        database: &Database,
        table: &Table,
        archive: &Archive,
    ) -> Result<Stepped<Option<String>>> {
        let left_out = self.foreign_keys_to_leave_out(database, archive.foreign_keys()).await?;
        database.add_foreign_keys(table, archive, &left_out).await?;
        let names: Vec<String> = left_out.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
        let note = (!names.is_empty()).then(|| {
            format!("foreign keys to {} are left out: this slave does not take those layers", names.join(", "))
        });
        Ok((note.clone(), StepEnd::Done, note))
    }

    async fn swap(
        &self,
        database: &Database,
        job: &FeatureJob,
        table: &Table,
        dump: &Fetched,
        voice: &mut Voice<'_>,
    ) -> Result<Stepped<()>> {
        let md5 = dump.md5.to_string();
        self.forget_data(&job.workspace, &job.name).await?;
        let swapped = match database.swap(table, Some(&md5)).await {
            // Rows of a table that is still to be replaced may point to rows that are gone here.
            Err(error) if matches!(error.kind(), ErrorKind::Database | ErrorKind::Dependency) => {
                tracing::debug!(error = error.one_line(), "the swap is tried again after the others");
                dump.lets_others_come();
                voice.others_swapped().await;
                database.swap(table, Some(&md5)).await
            }
            other => other,
        };
        let Swapped { columns_changed, .. } = swapped?;
        voice.swapped();
        if columns_changed {
            // GeoServer answers with the old columns until it is told: first thing after the swap.
            self.forget_schema_everywhere(&job.workspace, &job.name).await;
        }
        Ok(((), StepEnd::Done, columns_changed.then(|| "the columns changed".to_owned())))
    }

    /// Waits for the tables that foreign keys point to; returns those that this slave does not hold
    /// because its filters refuse them.
    async fn foreign_keys_to_leave_out(
        &self,
        database: &Database,
        foreign_keys: &[ForeignKey],
    ) -> Result<Vec<(String, String)>> {
        let mut left_out = Vec::new();
        let targets: HashSet<&(String, String)> = foreign_keys.iter().map(|key| &key.references).collect();
        for target in targets {
            let in_this_pass = self.run.tables.settled(target).await;
            // What a load that has failed could not take away is no table to point to.
            let can_be_referenced = match in_this_pass {
                Some(Loading::Failed) => is_whole(database, target).await?,
                _ => has_table(database, target).await?,
            };
            if can_be_referenced {
                continue;
            }
            let layer = format!("{}.{}", target.0.strip_suffix("_data").unwrap_or(&target.0), target.1);
            let name = format!("{}.{}", target.0, target.1);
            if in_this_pass.is_none() && self.is_filtered(&Shown::Layer(layer)) {
                left_out.push(target.clone());
            } else if in_this_pass == Some(Loading::Failed) {
                return Err(Error::new(ErrorKind::Dependency, "a foreign key points to a table whose own job failed")
                    .subject(name)
                    .hint("mend that job; this one follows with the next run"));
            } else {
                return Err(Error::new(ErrorKind::Dependency, "a foreign key points to a table that is not there")
                    .subject(name)
                    .hint("publish the layer it belongs to; this job follows with the next run"));
            }
        }
        Ok(left_out)
    }

    /// This slave's filters do not take it.
    pub(super) fn is_filtered(&self, shown: &Shown) -> bool {
        self.run.filtered_layers.lock().unwrap_or_else(PoisonError::into_inner).contains(shown)
    }

    /// It is for later: the settings leave out what it needs.
    pub(super) fn is_for_later(&self, shown: &Shown) -> bool {
        self.run.waiting_layers.lock().unwrap_or_else(PoisonError::into_inner).contains(shown)
    }

    /// Takes a feature layer away: from every GeoServer first, then from the database.
    pub(super) async fn remove_feature(&self, job: &FeatureRemoval) -> Result<JobEnd> {
        if let Some(other) = self.replaced_by {
            self.leave_to_another(other, &job.workspace, &job.name, &job.styles).await?;
            self.remove_data(job).await?;
            for extension in ["db", "tar"] {
                self.evict(CacheName::dump(job.workspace.as_str(), job.name.as_str(), extension));
            }
            let mut notes = vec![format!("{other} has taken its place")];
            self.note_left_out(true, true, &mut notes);
            return Ok(succeeded(&notes));
        }
        let servers = self.unfinished_geoservers();
        let store = self.store_of_workspace(&job.workspace)?;
        let layer = (&job.workspace, &store, &job.name);
        self.note_purge(&job.workspace, &job.name).await?;
        let source = self.connection(&job.database.schema, &job.connection);
        let source = Source::of(&source);
        // The table stays as long as a GeoServer may still read it.
        self.on_each(&servers, |server| {
            // A live layer may have taken the name since.
            let in_store = self.recall(server, &Self::fact_key("in store", &job.workspace, &job.name));
            self.remove_from(server, layer, source.filter(|_| in_store.is_none()), &job.styles)
        })
        .await?;
        let mut notes = Vec::new();
        self.note_left_out(true, true, &mut notes);
        self.purge(&job.workspace, &job.name, &mut notes).await;
        self.remove_data(job).await?;
        self.remove_preview(&job.workspace, &job.name).await;
        // Nobody is to take from here what is gone, so also where files are kept for others.
        self.discard_leftovers(&job.workspace, &job.name, job.styles.iter());
        Ok(succeeded(&notes))
    }

    /// Takes a layer's data from the database.
    async fn remove_data(&self, job: &FeatureRemoval) -> Result<()> {
        // A table that went with an earlier try may be another layer's now.
        if let Some(database) = &self.run.parts.database
            && !self.is_finished(super::DATABASE)
        {
            let table = table(&job.database);
            self.step(
                Step::RemoveTable,
                None,
                Box::pin(async {
                    let removed = self.remove_table(database, &table).await?;
                    self.forget_level(&table.schema, &job.workspace, &job.name).await;
                    Ok(((), if removed { StepEnd::Done } else { StepEnd::Unchanged }, None))
                }),
            )
            .await?;
        }
        Ok(())
    }

    /// Removes view and table, once the other jobs of the pass no longer need them.
    async fn remove_table(&self, database: &Database, table: &Table) -> Result<bool> {
        let removals = &self.run.removals;
        loop {
            let seen = removals.seen(Obstacle::Tables);
            match database.remove(table).await {
                Err(error) if error.kind() == ErrorKind::Database => {
                    if !removals.worth_another_try(seen).await {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    /// Removes files of the layer from the cache that this run had no use for: an earlier one was
    /// killed after it had used them.
    fn discard_leftovers<'s>(&self, workspace: &GeoName, layer: &GeoName, styles: impl Iterator<Item = &'s GeoName>) {
        let (workspace, layer) = (workspace.as_str(), layer.as_str());
        for extension in ["db", "tar"] {
            self.evict(CacheName::dump(workspace, layer, extension));
        }
        for style in styles {
            // A style's name in GeoServer begins with the layer's, as that of its file does.
            self.evict(CacheName::style(workspace, style.as_str(), "builtin"));
        }
        self.evict(CacheName::meta(workspace, layer));
    }

    /// Removes a file from the cache; one that stays costs space, not the job.
    pub(super) fn evict(&self, name: Result<CacheName>) {
        if let Err(error) = name.and_then(|name| self.run.parts.transfer.discard_leftovers(&[name])) {
            tracing::warn!(error = error.one_line(), "a cached file could not be removed");
        }
    }
}

async fn has_table(database: &Database, (schema, name): &(String, String)) -> Result<bool> {
    let (schema, name) = (PgIdent::new("schema", schema)?, PgIdent::new("table", name)?);
    Ok(database.columns(&schema, &name).await?.is_some())
}

async fn is_whole(database: &Database, (schema, name): &(String, String)) -> Result<bool> {
    database.is_whole(&PgIdent::new("schema", schema)?, &PgIdent::new("table", name)?).await
}

/// The relations of a feature.
fn table(database: &job::Database) -> Table {
    Table {
        schema: database.schema.clone(),
        data_schema: database.data_schema.clone(),
        outdated_schema: database.outdated_schema.clone(),
        name: database.table.clone(),
    }
}
