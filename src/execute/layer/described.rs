//! What GeoServer is to show of a relation.

use super::VectorLayer;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::Ctx;
use crate::geoserver::{FeatureType, ProjectionPolicy, SqlView, ViewGeometry};

/// Spatial reference ids that GeoServer cannot look up: six digits beginning with 90, made by some
/// desktop programs for systems they could not name.
const NON_STANDARD_SRIDS: std::ops::RangeInclusive<i32> = 900_000..=909_999;

/// What a feature type is to be, the same for every GeoServer.
pub(in crate::execute) struct Described {
    pub(super) feature_type: FeatureType,
    /// The relation's columns with their types, as one text; empty where there is no database.
    pub(super) columns: String,
    /// What the operator should know about how it was found.
    pub(in crate::execute) warning: Option<String>,
}

impl Ctx<'_> {
    /// What GeoServer is to show, from the job and from the relation that is there now.
    pub(in crate::execute) async fn describe(&self, job: &VectorLayer<'_>) -> Result<Described> {
        let native_name = job.native_name;
        let (mut columns, mut with_types) = (Vec::new(), String::new());
        let mut registered = None;
        if native_name.as_str().contains('\'') {
            // It answers 500, "Error occurred building feature type".
            return Err(Error::new(
                ErrorKind::Document,
                "GeoServer cannot publish a table with an apostrophe in its name",
            )
            .subject(native_name.as_str())
            .hint("rename the layer on the master and publish it again"));
        }
        if let (Some(database), Some(table)) = (&self.run.parts.database, &job.table) {
            let label = format!("{}.{native_name}", table.schema);
            let found = database.columns(&table.schema, native_name).await?;
            if found.is_none() && job.viewsql.is_none() {
                // GeoServer would make an empty table of its own.
                return Err(Error::new(ErrorKind::Missing, "the relation that the layer reads is not there")
                    .subject(label)
                    .hint("publish the layer with its data first (`borg-slave status` shows that job)"));
            }
            // An SQL view has the columns of its query, whatever the relation has.
            let found = found.filter(|_| job.viewsql.is_none()).unwrap_or_default();
            with_types = found.iter().map(|column| format!("{} {}\n", column.name, column.type_name)).collect();
            columns = found.into_iter().map(|column| column.name).collect();
            if let Some(column) = &job.spatial.column {
                registered = database.srid(&table.schema, native_name, column).await?.filter(|srid| *srid > 0);
            }
        }
        let usable = registered.filter(|srid| !NON_STANDARD_SRIDS.contains(srid));
        let default = &self.run.parts.choices.default_crs;
        let (srs, warning) = match (&job.spatial.crs, usable) {
            (Some(crs), _) => (crs.clone(), None),
            (None, Some(srid)) => (format!("EPSG:{srid}"), None),
            (None, None) if job.spatial.is_spatial => {
                let reason = registered.map_or("no reference system is registered".to_owned(), |srid| {
                    format!("the registered SRID {srid} is not a standard one")
                });
                (default.clone(), Some(format!("{reason}; {default} (GEOSERVER_DEFAULT_CRS) is declared")))
            }
            (None, None) => (default.clone(), None),
        };
        let declared = srs.strip_prefix("EPSG:").and_then(|code| code.parse().ok());
        let geometry = job.spatial.column.as_ref().zip(registered.or(declared)).map(|(column, srid)| ViewGeometry {
            column: column.clone(),
            kind: job.spatial.geometry_type.clone().unwrap_or_else(|| "Geometry".to_owned()),
            srid,
        });
        let sql_view = job.viewsql.map(|sql| SqlView { sql: sql.to_owned(), geometry, key_column: None });
        let boxes = super::boxes(job.spatial, &srs);
        let feature_type = FeatureType {
            workspace: job.workspace.clone(),
            store: job.store.clone(),
            name: job.name.clone(),
            native_name: native_name.as_str().to_owned(),
            title: job.description.title.clone(),
            abstract_text: job.description.abstract_text.clone(),
            keywords: job.description.keywords.clone(),
            srs,
            projection_policy: ProjectionPolicy::ForceDeclared,
            enabled: true,
            boxes,
            sql_view,
            columns,
        };
        Ok(Described { feature_type, columns: with_types, warning })
    }
}
