//! SLD as GeoServer parses it and writes it back when it was not sent raw: comments, formatting, names of layers
//! and elements it does not know are lost.

use super::doc::{El, escape};
use super::xml::{self, XmlError};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><sld:StyledLayerDescriptor \
    xmlns:sld=\"http://www.opengis.net/sld\" xmlns=\"http://www.opengis.net/sld\" \
    xmlns:gml=\"http://www.opengis.net/gml\" xmlns:ogc=\"http://www.opengis.net/ogc\" version=\"1.0.0\">";

/// Why a body is no style.
pub(crate) enum Bad {
    Xml(XmlError),
    /// Well-formed, but something else.
    Root,
    /// SLD 1.0 that was announced as 1.1.
    Cast,
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// SLD 1.0 that is to be rewritten must hold a style, what is kept as it comes need not.
pub(crate) fn check(body: &[u8], se: bool, rewritten: bool) -> Result<El, Bad> {
    let root = xml::parse(&xml::decode(body)).map_err(Bad::Xml)?;
    if local(&root.name) != "StyledLayerDescriptor"
        || root.kids.is_empty()
        || (!se && rewritten && user_styles(&root).next().is_none())
    {
        return Err(Bad::Root);
    }
    if se && root.get_attr("version") == Some("1.0.0") {
        return Err(Bad::Cast);
    }
    Ok(root)
}

/// The name a style gets when none is given: that of the user style.
pub(crate) fn style_name(root: &El) -> String {
    user_styles(root)
        .next()
        .and_then(|style| child(style, "Name"))
        .map_or_else(|| "Default Styler".to_owned(), |name| name.text.trim().to_owned())
}

fn child<'a>(el: &'a El, name: &str) -> Option<&'a El> {
    el.kids.iter().find(|kid| local(&kid.name) == name)
}

fn user_styles(root: &El) -> impl Iterator<Item = &El> {
    root.kids.iter().flat_map(|layer| &layer.kids).filter(|kid| local(&kid.name) == "UserStyle")
}

/// The style as SLD 1.0, indented or on one line. `svg`: whether parameters of SLD 1.1 are understood.
pub(crate) fn rewrite(root: &El, indent: bool, svg: bool) -> String {
    let mut doc = El::new("sld:StyledLayerDescriptor");
    for style in user_styles(root) {
        let name = child(style, "Name").map_or("Default Styler", |name| name.text.trim());
        let mut out = El::new("sld:UserStyle").with("sld:Name", name);
        for kid in &style.kids {
            match local(&kid.name) {
                "Title" | "Abstract" | "IsDefault" => out.kids.push(sld(kid, svg)),
                "FeatureTypeStyle" => {
                    let mut types = El::new("sld:FeatureTypeStyle").with("sld:Name", "name");
                    types
                        .kids
                        .extend(kid.kids.iter().filter(|kid| local(&kid.name) == "Rule").map(|kid| sld(kid, svg)));
                    out.kids.push(types);
                }
                _ => {}
            }
        }
        doc.kids.push(El::new("sld:NamedLayer").with("sld:Name", name).kid(out));
    }
    let mut text = HEAD.to_owned();
    for kid in &doc.kids {
        write(kid, &mut text, if indent { 1 } else { 0 }, indent);
    }
    if indent {
        text.push('\n');
    }
    text.push_str("</sld:StyledLayerDescriptor>");
    if indent {
        text.push_str("\n\n");
    }
    text
}

const KNOWN: [&str; 44] = [
    "Rule",
    "Name",
    "Title",
    "Abstract",
    "LegendGraphic",
    "Filter",
    "ElseFilter",
    "MinScaleDenominator",
    "MaxScaleDenominator",
    "LineSymbolizer",
    "PolygonSymbolizer",
    "PointSymbolizer",
    "TextSymbolizer",
    "RasterSymbolizer",
    "Geometry",
    "Stroke",
    "Fill",
    "CssParameter",
    "SvgParameter",
    "Graphic",
    "GraphicFill",
    "GraphicStroke",
    "Mark",
    "WellKnownName",
    "ExternalGraphic",
    "OnlineResource",
    "Format",
    "Size",
    "Opacity",
    "Rotation",
    "Label",
    "Font",
    "LabelPlacement",
    "PointPlacement",
    "LinePlacement",
    "AnchorPoint",
    "AnchorPointX",
    "AnchorPointY",
    "Displacement",
    "DisplacementX",
    "DisplacementY",
    "Halo",
    "Radius",
    "VendorOption",
];

fn sld(el: &El, svg: bool) -> El {
    let name = local(&el.name);
    let mut out = El::new(&if name == "SvgParameter" { "sld:CssParameter".to_owned() } else { format!("sld:{name}") });
    out.attrs = el.attrs.clone();
    out.text = el.text.clone();
    for kid in &el.kids {
        let kid_name = local(&kid.name);
        if kid_name == "Filter" || kid.name.starts_with("ogc:") {
            out.kids.push(kid.clone());
        } else if KNOWN.contains(&kid_name) && (svg || kid_name != "SvgParameter") {
            out.kids.push(sld(kid, svg));
        }
    }
    if !el.kids.is_empty() {
        out.text.clear();
    }
    out
}

fn write(el: &El, out: &mut String, depth: usize, indent: bool) {
    let pad = if indent { format!("\n{}", "  ".repeat(depth)) } else { String::new() };
    out.push_str(&format!("{pad}<{}", el.name));
    for (key, value) in &el.attrs {
        out.push_str(&format!(" {key}=\"{}\"", escape(value)));
    }
    if el.kids.is_empty() && el.text.is_empty() {
        out.push_str("/>");
        return;
    }
    out.push('>');
    if el.kids.is_empty() {
        out.push_str(&escape(&el.text));
    } else {
        for kid in &el.kids {
            write(kid, out, depth + 1, indent);
        }
        out.push_str(&pad);
    }
    out.push_str(&format!("</{}>", el.name));
}

/// One of the styles that every installation has.
pub(crate) fn built_in(name: &str) -> String {
    let symbolizer = match name {
        "point" | "generic" => "<PointSymbolizer/>",
        "polygon" => "<PolygonSymbolizer/>",
        "raster" => "<RasterSymbolizer/>",
        _ => "<LineSymbolizer/>",
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<StyledLayerDescriptor version=\"1.0.0\" \
         xmlns=\"http://www.opengis.net/sld\"><NamedLayer><Name>{name}</Name><UserStyle><FeatureTypeStyle><Rule>\
         {symbolizer}</Rule></FeatureTypeStyle></UserStyle></NamedLayer></StyledLayerDescriptor>\n"
    )
}
