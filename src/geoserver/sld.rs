//! Which SLD a style is, found without GeoServer.
//!
//! GeoServer believes the content type: SLD 1.1 announced as 1.0 is stored and drawn in default
//! colours, and 1.0 announced as 1.1 fails. So the version is read from the root element
//! (OGC 02-070 for 1.0, OGC 05-078r4 for 1.1). What is not well-formed is refused here, because
//! GeoServer refuses it in an update without saying why.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{Error, ErrorKind, Result};

/// A style document that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sld<'a> {
    pub(super) version: SldVersion,
    /// Without a UTF-8 byte order mark.
    pub(super) body: &'a [u8],
    /// Whether GeoServer can make a style of it. It refuses SLD 1.0 that has none, and 2.18 has emptied
    /// the file of the style before by then; SLD 1.1 it stores as it comes.
    pub(super) holds_style: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SldVersion {
    /// Styled Layer Descriptor 1.0.
    V1_0,
    /// Styled Layer Descriptor 1.1 with Symbology Encoding.
    V1_1,
}

impl SldVersion {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::V1_0 => "application/vnd.ogc.sld+xml",
            Self::V1_1 => "application/vnd.ogc.se+xml",
        }
    }

    /// As GeoServer's record of a style has it.
    pub(super) fn number(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0.0",
            Self::V1_1 => "1.1.0",
        }
    }
}

/// Checks that `bytes` is an SLD document and finds its version.
pub(super) fn inspect(bytes: &[u8]) -> Result<Sld<'_>> {
    let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = decoded(body)?;
    let refuse = |reason: String| {
        Error::new(ErrorKind::Document, format!("the style is no usable SLD document: {reason}"))
            .hint("correct the style on the master (GeoServer's style editor checks it) and publish again")
    };
    let malformed = |reader: &Reader<&[u8]>, error: &dyn std::fmt::Display| {
        let position = usize::try_from(reader.error_position()).unwrap_or(usize::MAX).min(text.len());
        let line = text.as_bytes()[..position].iter().filter(|&&byte| byte == b'\n').count() + 1;
        refuse(format!("line {line}: {error}"))
    };
    let mut reader = Reader::from_str(&text);
    let mut version = None;
    let mut has_user_style = false;
    let mut depth = 0_u32;
    loop {
        let event = reader.read_event().map_err(|error| malformed(&reader, &error))?;
        let opens = matches!(event, Event::Start(_));
        match event {
            Event::Start(element) | Event::Empty(element) => {
                for attribute in element.attributes() {
                    attribute.map_err(|error| malformed(&reader, &error))?;
                }
                has_user_style |= depth == 2 && element.local_name().as_ref() == "UserStyle";
                if depth == 0 {
                    if version.is_some() {
                        return Err(refuse("it has more than one root element".into()));
                    }
                    version = Some(root_version(&element).map_err(&refuse)?);
                }
                depth += u32::from(opens);
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::DocType(_) => {
                return Err(refuse("it declares a document type, which could draw in files of the server".into()));
            }
            Event::GeneralRef(entity) if !is_known(&entity) => {
                return Err(refuse(format!("it refers to the entity &{};, which nothing declares", entity.as_ref())));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if depth > 0 {
        return Err(refuse("it ends in the middle".into()));
    }
    match version {
        Some(version) => Ok(Sld { version, body, holds_style: has_user_style || version == SldVersion::V1_1 }),
        None => Err(refuse("it holds no element".into())),
    }
}

/// Whether XML knows an entity without a declaration.
fn is_known(entity: &str) -> bool {
    entity.starts_with('#') || matches!(entity, "amp" | "lt" | "gt" | "quot" | "apos")
}

fn root_version(root: &quick_xml::events::BytesStart<'_>) -> Result<SldVersion, String> {
    let name = root.local_name();
    if name.as_ref() != "StyledLayerDescriptor" {
        return Err(format!("its root element is <{}> and not <StyledLayerDescriptor>", name.as_ref()));
    }
    let attribute = root.try_get_attribute("version").map_err(|error| error.to_string())?;
    let version = attribute.map(|attribute| attribute.value.trim().to_owned()).unwrap_or_default();
    match version.split('.').take(2).collect::<Vec<_>>()[..] {
        ["1", "1"] => Ok(SldVersion::V1_1),
        ["1", "0"] | ["1"] => Ok(SldVersion::V1_0),
        // GeoServer takes a document without version for 1.0.
        [""] => Ok(SldVersion::V1_0),
        _ => Err(format!("its version is {version:?}, GeoServer knows 1.0.0 and 1.1.0")),
    }
}

/// The document as text, near enough to find its elements: names and structure of SLD are ASCII, so
/// that a Latin-1 document need not be decoded exactly.
fn decoded(body: &[u8]) -> Result<std::borrow::Cow<'_, str>> {
    let wide = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = body[2..].as_chunks::<2>().0.iter().map(|&pair| from(pair)).collect();
        String::from_utf16(&units).map(std::borrow::Cow::Owned).map_err(|source| {
            Error::new(
                ErrorKind::Document,
                "the style is no usable SLD document: it is not UTF-16 as its first bytes say",
            )
            .source(source)
        })
    };
    match body {
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        _ => Ok(String::from_utf8_lossy(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(document: &str) -> Result<SldVersion> {
        inspect(document.as_bytes()).map(|sld| sld.version)
    }

    #[test]
    fn the_root_elements_version_decides() {
        assert_eq!(version("<StyledLayerDescriptor version='1.0.0'/>").unwrap(), SldVersion::V1_0);
        assert_eq!(
            version("<?xml version=\"1.0\"?>\n<!-- version='1.0.0' --><sld:StyledLayerDescriptor xmlns:sld='s' version=\"1.1.0\"><a/></sld:StyledLayerDescriptor>").unwrap(),
            SldVersion::V1_1
        );
        assert_eq!(version("<StyledLayerDescriptor/>").unwrap(), SldVersion::V1_0);
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><StyledLayerDescriptor version='1.1.0'>\xfc</StyledLayerDescriptor>";
        assert_eq!(inspect(latin).unwrap().version, SldVersion::V1_1);
        let marked = b"\xef\xbb\xbf<StyledLayerDescriptor version='1.0.0'/>";
        assert_eq!(inspect(marked).unwrap().body[0], b'<');
        let mut wide = vec![0xff, 0xfe];
        wide.extend("<StyledLayerDescriptor version='1.1.0'/>".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(inspect(&wide).unwrap().version, SldVersion::V1_1);
    }

    #[test]
    fn a_document_without_a_style_is_known() {
        let holds = |document: &str| inspect(document.as_bytes()).unwrap().holds_style;
        let named = "<NamedLayer><Name>a</Name></NamedLayer></StyledLayerDescriptor>";
        assert!(!holds(&format!("<StyledLayerDescriptor version='1.0.0'>{named}")));
        assert!(!holds("<StyledLayerDescriptor version='1.0.0'><UserStyle/></StyledLayerDescriptor>"));
        assert!(holds(&format!("<StyledLayerDescriptor version='1.1.0'>{named}")));
        assert!(holds(
            "<s:StyledLayerDescriptor xmlns:s='s'><s:NamedLayer><s:UserStyle/></s:NamedLayer></s:StyledLayerDescriptor>"
        ));
    }

    #[test]
    fn what_is_no_style_is_refused_with_the_reason() {
        let reason = |document: &str| version(document).unwrap_err().message().to_owned();
        insta::assert_snapshot!([
            "",
            "not xml",
            "<html/>",
            "<StyledLayerDescriptor version='2.0'/>",
            "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><StyledLayerDescriptor version='1.0.0'>&e;</StyledLayerDescriptor>",
            "<StyledLayerDescriptor version='1.0.0'>&amp;&#38;&nbsp;</StyledLayerDescriptor>",
            "<StyledLayerDescriptor version='1.0.0'><NamedLayer>",
            "<StyledLayerDescriptor version='1.0.0'>\n<a></b></StyledLayerDescriptor>",
            "<StyledLayerDescriptor version='1.0.0'/><StyledLayerDescriptor/>",
        ].map(reason).join("\n"), @r#"
        the style is no usable SLD document: it holds no element
        the style is no usable SLD document: it holds no element
        the style is no usable SLD document: its root element is <html> and not <StyledLayerDescriptor>
        the style is no usable SLD document: its version is "2.0", GeoServer knows 1.0.0 and 1.1.0
        the style is no usable SLD document: it declares a document type, which could draw in files of the server
        the style is no usable SLD document: it refers to the entity &nbsp;, which nothing declares
        the style is no usable SLD document: it ends in the middle
        the style is no usable SLD document: line 2: ill-formed document: expected `</a>`, but `</b>` was found
        the style is no usable SLD document: it has more than one root element
        "#);
    }
}
