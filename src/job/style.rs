//! The styles that a layer brings along.

use super::document::FileRef;
use super::field::{Field, Fields};
use crate::error::Result;
use crate::name::GeoName;

/// The style that has the layer's own name in GeoServer.
const BUILTIN: &str = "builtin";

/// A style of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StyleRef {
    /// The style's name in the document.
    pub name: String,
    /// The SLD file; none for a style that is only named to be removed.
    pub file: Option<FileRef>,
    /// Whether this is the layer's default style; true for at most one, which has a file.
    pub is_default: bool,
    geoserver_name: GeoName,
}

impl StyleRef {
    /// The style's name in the layer's workspace: the layer's name for `builtin`, else `<layer>.<style>`.
    #[must_use]
    pub fn geoserver_name(&self) -> &GeoName {
        &self.geoserver_name
    }
}

/// Reads `styles` in the order of the document, or the `style_path` of documents before 2016-02-17.
///
/// The default style is the one that `default_style` names, else the first that is marked `default`, else
/// the first; only styles with a file count.
pub(super) fn read(fields: &Fields<'_>, layer: &GeoName) -> Result<Vec<StyleRef>> {
    let mut styles = Vec::new();
    let mut marked = None;
    let mut add = |field: Option<&Field<'_>>, name: String| -> Result<()> {
        let has_file = field.map(|field| field.get("file")).transpose()?.flatten().is_some_and(|f| f.value() != "");
        let file = field.filter(|_| has_file).map(FileRef::read).transpose()?;
        if let (Some(field), Some(_), None) = (field, &file, marked) {
            let is_marked = field.get("default")?.map_or(Ok(false), |flag| flag.boolean())?;
            marked = is_marked.then_some(styles.len());
        }
        let full = if name == BUILTIN { layer.to_string() } else { format!("{layer}.{name}") };
        let geoserver_name = match field {
            Some(field) => GeoName::new("style", full).map_err(|error| field.blame(&error))?,
            None => GeoName::new("style", full)?,
        };
        styles.push(StyleRef { name, file, is_default: false, geoserver_name });
        Ok(())
    };
    if let Some(field) = fields.get("styles") {
        if field.value().is_array() {
            for member in field.list()? {
                let name = member.need("name")?.text()?;
                add(Some(&member), name)?;
            }
        } else {
            for (name, member) in field.object()? {
                add(member.as_ref(), name)?;
            }
        }
    } else if let Some(file) = FileRef::read_old(fields, "style_path", "style_md5")? {
        styles.push(StyleRef {
            name: BUILTIN.to_owned(),
            file: Some(file),
            is_default: false,
            geoserver_name: layer.clone(),
        });
    }
    let wanted = fields.text("default_style")?;
    let with_file = |index: &usize| styles[*index].file.is_some();
    let named = styles.iter().position(|style| Some(&style.name) == wanted.as_ref()).filter(with_file);
    let default = named.or(marked).or_else(|| styles.iter().position(|style| style.file.is_some()));
    if let Some(default) = default {
        styles[default].is_default = true;
    }
    Ok(styles)
}
