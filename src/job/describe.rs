//! How a layer presents itself: its words, its shape and its preview.

use super::field::{Field, Fields};
use crate::error::Result;

/// Title, abstract and keywords of a layer or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The title; the name when the document has none.
    pub title: String,
    /// The abstract, empty when there is none.
    pub abstract_text: String,
    /// The keywords followed by the applications, each once.
    pub keywords: Vec<String>,
}

impl Description {
    pub(super) fn read(fields: &Fields<'_>, name: &str) -> Result<Self> {
        let mut keywords = Vec::new();
        for field in ["keywords", "applications"].into_iter().filter_map(|name| fields.get(name)) {
            let words = if field.is_text() {
                field.text()?.split([',', ';']).map(str::to_owned).collect()
            } else {
                field.list()?.iter().map(Field::text).collect::<Result<Vec<_>>>()?
            };
            for word in words {
                let word = word.trim();
                if !word.is_empty() && !keywords.iter().any(|known| known == word) {
                    keywords.push(word.to_owned());
                }
            }
        }
        Ok(Self {
            title: fields.text("title")?.unwrap_or_else(|| name.to_owned()),
            abstract_text: fields.text("abstract")?.unwrap_or_default(),
            keywords,
        })
    }
}

/// The service for which a layer was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceType {
    /// Features: vector tile formats make sense.
    Wfs,
    /// Maps only.
    Wms,
    /// Nothing was said.
    None,
}

impl ServiceType {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let Some(field) = fields.get("service_type") else { return Ok(Self::None) };
        match field.text()?.trim().to_ascii_uppercase().as_str() {
            "WFS" => Ok(Self::Wfs),
            "WMS" => Ok(Self::Wms),
            "" => Ok(Self::None),
            _ => Err(field.refuse("is neither WFS nor WMS nor empty")),
        }
    }
}

/// Where a layer's geometry is and what it covers.
#[derive(Debug, Clone, PartialEq)]
pub struct Spatial {
    /// Whether the layer has geometry: `spatial_data`, else whether a column or type of it is named.
    pub is_spatial: bool,
    /// The geometry's type, such as `POLYGON`.
    pub geometry_type: Option<String>,
    /// The geometry's column.
    pub column: Option<String>,
    /// The reference system as `EPSG:n`.
    pub crs: Option<String>,
    /// `minx, miny, maxx, maxy` in units of the reference system.
    pub bbox: Option<[f64; 4]>,
    /// Whether `bbox` replaces what GeoServer computes; then it is there.
    pub override_bbox: bool,
}

impl Spatial {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let geometry_type = fields.text("spatial_type")?;
        let column = fields.text("spatial_column")?;
        let bbox = read_bbox(fields)?;
        let override_bbox = fields.boolean("override_bbox")?.unwrap_or(false);
        if override_bbox && bbox.is_none() {
            return Err(fields.missing("bbox"));
        }
        let is_spatial = fields.boolean("spatial_data")?.unwrap_or(geometry_type.is_some() || column.is_some());
        Ok(Self { is_spatial, geometry_type, column, crs: read_crs(fields, "crs")?, bbox, override_bbox })
    }
}

/// A reference system, as `EPSG:` and digits.
pub(super) fn read_crs(fields: &Fields<'_>, name: &str) -> Result<Option<String>> {
    let Some(field) = fields.get(name) else { return Ok(None) };
    let text = field.text()?.trim().to_ascii_uppercase();
    if text.is_empty() {
        return Ok(None);
    }
    let code = text.strip_prefix("EPSG:").unwrap_or("");
    if code.is_empty() || code.len() > 9 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(field.refuse("is no reference system of the form EPSG:4283"));
    }
    Ok(Some(text))
}

fn read_bbox(fields: &Fields<'_>) -> Result<Option<[f64; 4]>> {
    let Some(field) = fields.get("bbox").map(Field::unpacked).transpose()?.flatten() else { return Ok(None) };
    let corners = field.list()?;
    // An empty table has the extent null, null, null, null.
    if corners.is_empty() {
        return Ok(None);
    }
    let numbers = corners.iter().map(Field::number).collect::<Result<Vec<_>>>()?;
    let Ok(bbox) = <[f64; 4]>::try_from(numbers) else {
        return Err(field.refuse("does not hold the four numbers minx, miny, maxx, maxy"));
    };
    if bbox[0] > bbox[2] || bbox[1] > bbox[3] {
        return Err(field.refuse("has a minimum above its maximum: the order is minx, miny, maxx, maxy"));
    }
    Ok(Some(bbox))
}

/// What is needed to draw a preview and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// `user@host:dir` to which previews are sent; none: no preview is wanted.
    pub path: Option<String>,
    /// Links to the layer's services.
    pub links: Vec<OwsResource>,
}

/// One link to a service of the layer.
#[derive(Debug, Clone, PartialEq)]
pub struct OwsResource {
    /// The protocol, such as `OGC:WMS`; empty when not given.
    pub protocol: String,
    /// The address.
    pub link: String,
    /// The picture's height in pixels, when the link is one of a picture.
    pub height: Option<f64>,
    /// The picture's media type, such as `image/png`.
    pub format: Option<String>,
}

impl Preview {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let mut links = Vec::new();
        if let Some(field) = fields.get("ows_resource").map(Field::unpacked).transpose()?.flatten() {
            for member in field.list()? {
                let text = |name| member.get(name)?.map(|field| field.text()).transpose();
                let Some(link) = text("link")?.filter(|link| !link.trim().is_empty()) else { continue };
                let height = member.get("height")?.filter(|height| height.value().as_str() != Some(""));
                links.push(OwsResource {
                    protocol: text("protocol")?.unwrap_or_default(),
                    link,
                    height: height.map(|height| height.number()).transpose()?,
                    format: text("format")?,
                });
            }
        }
        Ok(Self { path: fields.text("preview_path")?, links })
    }
}
