//! GeoServer's access rules, and the layers that they protect.

use std::borrow::Cow;

use super::{Ctx, JobEnd, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::geoserver::{AccessRules, Change, GeoServer, Member};
use crate::job::JobKind;
use crate::name::GeoName;

/// The rules of all channels' files together; none without a file.
pub(super) fn merged(files: &[(String, String)]) -> Result<Option<AccessRules>> {
    let mut read = Vec::new();
    for (path, content) in files {
        read.push((path.as_str(), AccessRules::parse(content).map_err(|error| error.within(path))?));
    }
    if read.is_empty() {
        return Ok(None);
    }
    AccessRules::merged(read.iter().map(|(path, rules)| (*path, rules))).map(Some)
}

impl Ctx<'_> {
    /// Makes the rules of every GeoServer those of the channels' files.
    pub(super) async fn access_rules(&self, content: &str) -> Result<JobEnd> {
        // The rules of the other channels must not be lost by those of this one.
        let others = self.run.background.access_rules.iter().filter(|(path, _)| *path != self.file.path);
        let mut files: Vec<(String, String)> = others.cloned().collect();
        files.push((self.file.path.clone(), content.to_owned()));
        let Some(rules) = merged(&files)? else { return Ok(JobEnd::Succeeded(None)) };
        self.on_each(&self.unfinished_geoservers(), |server| {
            let rules = self.with_stand_ins(server, &rules);
            let data_dir = self.run.parts.choices.data_dirs.get(server.name());
            async move {
                self.step(
                    Step::AccessRules,
                    Some(server.name()),
                    Box::pin(async {
                        let change = server.apply_access_rules(&rules, data_dir.map(AsRef::as_ref)).await?;
                        Ok(((), super::layer::step_end(change), Some(format!("{} rules", rules.count()))))
                    }),
                )
                .await
            }
        })
        .await?;
        Ok(JobEnd::Succeeded(None))
    }

    /// Puts the rules that name a layer in place before the layer is made: GeoServer has dropped them if
    /// the layer was there once.
    pub(super) async fn layer_rules(&self, server: &GeoServer, workspace: &GeoName, name: &GeoName) -> Result<Change> {
        match &self.run.rules {
            Ok(Some(rules)) => {
                let data_dir = self.run.parts.choices.data_dirs.get(server.name());
                let rules = self.with_stand_ins(server, rules);
                server.ensure_rules_of_layer(workspace, name, &rules, data_dir.map(AsRef::as_ref)).await
            }
            Ok(None) => Ok(Change::Unchanged),
            // A mistake in the rules takes nothing from what is published.
            Err(_) if self.is_published(server, workspace, name).await? => Ok(Change::Unchanged),
            Err(error) => Err(Error::new(
                ErrorKind::Dependency,
                "the access rules cannot be read, so the layer might be open to everybody",
            )
            .subject(format!("{workspace}:{name}"))
            .source(error.copy())
            .hint("correct the access rules on the master; this job follows with the next run")),
        }
    }

    /// The rules, which what stands in for a layer is to be protected by as well.
    fn with_stand_ins<'r>(&self, server: &GeoServer, rules: &'r AccessRules) -> Cow<'r, AccessRules> {
        let mut rules = Cow::Borrowed(rules);
        for (workspace, layer, stand_in) in self.stand_ins(server) {
            rules.to_mut().protect_stand_in(&workspace, &layer, &stand_in);
        }
        rules
    }

    async fn is_published(&self, server: &GeoServer, workspace: &GeoName, name: &GeoName) -> Result<bool> {
        let (workspace, name) = (workspace.clone(), name.clone());
        let it = match self.file.kind {
            JobKind::LayerGroup => Member::Group(workspace, name),
            _ => Member::Layer(workspace, name),
        };
        Ok(server.existing_members(&[it]).await? == [true])
    }
}
