//! The rules in a `layers.properties`, as GeoServer takes them.
//!
//! GeoServer skips a line that makes no sense to it, with a word in its log. Here such a line is an
//! error: a rule that is skipped is a layer that is open.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

use super::properties::{self, Entry};
use super::rules::{AccessMode, AccessRules, CatalogMode, Place, Roles, Rule, RuleKey};

/// A file-system directory that GeoServer keeps its users in: a setting of one server, not a rule.
pub(super) const SANDBOX: &str = "filesystemSandbox";

pub(super) fn parse(text: &str) -> Result<AccessRules> {
    let mut rules: BTreeMap<RuleKey, Rule> = BTreeMap::new();
    let mut mode: Option<(CatalogMode, usize)> = None;
    let mut wrong = Vec::new();
    for entry in properties::entries(text)? {
        let line = entry.line;
        let outcome = if entry.key.eq_ignore_ascii_case("mode") {
            catalog_mode(&entry).and_then(|found| match mode.replace((found, line)) {
                Some((before, first)) if before != found => Err(contradiction("mode", before, first, found, line)),
                _ => Ok(()),
            })
        } else if entry.key.eq_ignore_ascii_case(SANDBOX) {
            Ok(())
        } else {
            rule(&entry).and_then(|(key, roles)| match rules.get(&key) {
                Some(before) if before.roles != roles => {
                    Err(contradiction(key.shown(), &before.roles, before.line, &roles, line))
                }
                Some(_) => Ok(()),
                None => {
                    rules.insert(key, Rule { roles, line });
                    Ok(())
                }
            })
        };
        wrong.extend(outcome.err());
    }
    if let Some(error) = Error::all(wrong) {
        return Err(error);
    }
    if rules.is_empty() {
        return Err(Error::new(ErrorKind::Document, "the file of access rules holds no rule").hint(
            "GeoServer would hide every layer from everybody but its administrators. Publish the rules again on the \
             master; to open all layers, write the rule *.*.r=*",
        ));
    }
    Ok(AccessRules { rules, mode: mode.map(|(mode, _)| mode) })
}

fn contradiction(
    what: impl std::fmt::Display,
    before: impl std::fmt::Display,
    first: usize,
    found: impl std::fmt::Display,
    line: usize,
) -> Error {
    Error::new(ErrorKind::Document, format!("line {line} says {what}={found}, but line {first} says {what}={before}"))
        .hint("GeoServer would take the last one without a word; leave only the right line, on the master")
}

fn catalog_mode(entry: &Entry) -> Result<CatalogMode> {
    CatalogMode::from_name(&entry.value.to_uppercase()).ok_or_else(|| {
        Error::new(ErrorKind::Document, format!("line {}: mode is {:?}", entry.line, entry.value))
            .hint("write mode=HIDE, mode=MIXED or mode=CHALLENGE")
    })
}

fn rule(entry: &Entry) -> Result<(RuleKey, Roles)> {
    let Entry { line, key, value } = entry;
    let refuse = |why: &str, hint: &str| {
        Error::new(ErrorKind::Document, format!("line {line} is no access rule: `{key}={value}`: {why}"))
            .hint(format!("{hint}; a rule that GeoServer does not understand protects nothing"))
    };
    let elements = elements(key);
    let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
    let (place, mode) = match elements.as_slice() {
        ["*", "*", mode] => (Place::Everything, *mode),
        ["*", _, _] | ["*", _] => {
            return Err(refuse("with * for the workspace, the layer must be * too", "name the workspace"));
        }
        ["", ..] | [_, "", ..] => return Err(refuse("a name is empty", "write workspace.layer.mode=roles")),
        [workspace, "*", mode] => (Place::Workspace((*workspace).to_owned()), *mode),
        [workspace, layer, mode] => (Place::Layer((*workspace).to_owned(), (*layer).to_owned()), *mode),
        [group, mode] => (Place::Group((*group).to_owned()), *mode),
        [_] | [] => {
            return Err(refuse(
                "it has no dots",
                "write workspace.layer.mode=roles, or group.mode=roles for a global group",
            ));
        }
        _ => {
            return Err(refuse(
                "it has more than three parts",
                "write workspace.layer.mode=roles, and a dot that belongs to a name as \\\\. (two backslashes and the dot)",
            ));
        }
    };
    let mode = AccessMode::from_letter(mode).ok_or_else(|| {
        refuse(&format!("{mode:?} is no access mode"), "the last part is r (read), w (write) or a (administer)")
    })?;
    if mode == AccessMode::Administer && !matches!(place, Place::Everything | Place::Workspace(_)) {
        return Err(refuse("only whole workspaces can be administered", "write workspace.*.a=roles"));
    }
    let roles = Roles::from_list(value);
    if roles == Roles::Only([].into()) {
        return Err(refuse(
            "it names no role",
            "name the roles that may, separated by commas, * for everybody, or ADMIN for administrators only",
        ));
    }
    Ok((RuleKey { place, mode }, roles))
}

/// The parts of a key: separated by dots with white space around them; a dot after a backslash belongs to
/// the name.
fn elements(key: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut begun: Option<String> = None;
    for part in key.trim().split('.').map(str::trim) {
        let whole = begun.take().map_or_else(|| part.to_owned(), |begun| format!("{begun}.{part}"));
        match whole.strip_suffix('\\') {
            Some(name) => begun = Some(name.to_owned()),
            None => elements.push(whole),
        }
    }
    // Java's split leaves out what is empty at the end.
    while elements.last().is_some_and(String::is_empty) {
        elements.pop();
    }
    elements
}
