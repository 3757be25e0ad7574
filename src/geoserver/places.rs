//! What layers lose that are deleted and made again: their places in layer groups, and their access rules.
//!
//! GeoServer deletes no layer that is in a group, so that it is taken out of its groups before; and it drops the
//! rules of a layer with the layer. Who is killed in between has to find both again.

use serde_json::{Value, json};

use crate::error::Result;
use crate::name::GeoName;

use super::Change;
use super::client::Writer;
use super::removal::{ToldMember, is_layer, told_members};

/// A group that a layer was taken out of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The group: `workspace:name`, or the bare name of a global one.
    pub group: String,
    /// The members as they were, for [`GeoServer::publish_wms_layer`](super::GeoServer::publish_wms_layer).
    pub members: String,
}

/// Where the places of one layer, and its access rules, are kept until it has them back.
pub trait Places: Sync {
    /// Those that are kept. Asked for while nobody else writes to this GeoServer.
    fn kept(&self) -> Vec<Place>;

    /// Keeps these as well; they are on record when this returns.
    ///
    /// # Errors
    ///
    /// When they cannot be kept; the layer then stays where it is.
    fn keep(&self, places: Vec<Place>) -> impl Future<Output = Result<()>> + Send;

    /// The access rules that are kept, where nobody else knows which there are to be.
    fn kept_rules(&self) -> Option<String>;

    /// Keeps these, as a file of access rules has them; they are on record when this returns.
    ///
    /// # Errors
    ///
    /// When they cannot be kept; the layer then stays as it is.
    fn keep_rules(&self, rules: String) -> impl Future<Output = Result<()>> + Send;

    /// The layer that is in those places meanwhile.
    fn stand_in(&self) -> Option<GeoName>;

    /// Keeps which one it is; that is on record when this returns, and the layer is made after it.
    ///
    /// # Errors
    ///
    /// When it cannot be kept; the layer then stays as it is.
    fn keep_stand_in(&self, layer: &GeoName) -> impl Future<Output = Result<()>> + Send;
}

impl Place {
    pub(super) fn new(workspace: Option<&GeoName>, name: &str, members: &[ToldMember]) -> Self {
        let group = workspace.map_or_else(|| name.to_owned(), |workspace| format!("{workspace}:{name}"));
        Self { group, members: json!(members).to_string() }
    }

    fn address(&self) -> Option<(Option<GeoName>, &str)> {
        match self.group.split_once(':') {
            Some((workspace, name)) => Some((Some(GeoName::new("workspace", workspace).ok()?), name)),
            None => Some((None, &self.group)),
        }
    }
}

impl Writer<'_> {
    /// Puts a layer that is there back into the groups that it was taken out of. What is gone meanwhile, or
    /// holds it again, is left as it is.
    pub(super) async fn put_back_into_groups(
        &mut self,
        workspace: &GeoName,
        layer: &GeoName,
        places: &[Place],
        stand_in: Option<&GeoName>,
    ) -> Result<Change> {
        let stand_in = stand_in.map(|stand_in| format!("{workspace}:{stand_in}"));
        let label = format!("{workspace}:{layer}");
        let mut change = Change::Unchanged;
        for place in places {
            let Some((of, name)) = place.address() else { continue };
            let found = self.read_group(of.as_ref(), name).await?;
            let Some(current) = found.document().map(told_members) else { continue };
            let before: Vec<(Value, Value)> = serde_json::from_str(&place.members).unwrap_or_default();
            if let Some(members) = with(current, &before, &label, stand_in.as_deref()) {
                let doing = format!("put the layer {label} back into the layer group {name}");
                self.set_members(of.as_ref(), name, &members, &doing).await?;
                change = Change::Updated;
            }
        }
        Ok(change)
    }
}

/// `current` and the layer where its stand-in is, or else where it was `before`; None when it is in there.
fn with(
    mut current: Vec<ToldMember>,
    before: &[ToldMember],
    label: &str,
    stand_in: Option<&str>,
) -> Option<Vec<ToldMember>> {
    let is_it = |member: &ToldMember| is_layer(member, |name| name == label);
    let stands_in = |member: &ToldMember| is_layer(member, |name| Some(name) == stand_in);
    if current.iter().any(is_it) {
        let there = current.len();
        current.retain(|member| !stands_in(member));
        return (current.len() < there).then_some(current);
    }
    if current.iter().any(stands_in) {
        for member in current.iter_mut().filter(|member| stands_in(member)) {
            member.0["name"] = json!(label);
        }
        return Some(current);
    }
    let mut is_back = false;
    for (index, member) in before.iter().enumerate().filter(|(_, member)| is_it(member)) {
        // Behind the nearest one below it that is still there: others may be out as well.
        let below =
            before[..index].iter().rev().find_map(|(below, _)| current.iter().rposition(|(now, _)| now == below));
        current.insert(below.map_or(0, |below| below + 1), member.clone());
        is_back = true;
    }
    is_back.then_some(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&str]) -> Vec<ToldMember> {
        names
            .iter()
            .map(|name| (json!({"@type": "layer", "name": name}), json!({"name": format!("of {name}")})))
            .collect()
    }

    fn back(current: &[&str], before: &[&str], layer: &str) -> Option<Vec<String>> {
        let members = with(told(current), &told(before), layer, None)?;
        for (member, style) in &members {
            assert_eq!(style["name"], format!("of {}", member["name"].as_str().unwrap()));
        }
        Some(names(&members))
    }

    fn names(members: &[ToldMember]) -> Vec<String> {
        members.iter().map(|(member, _)| member["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_layer_takes_the_places_of_its_stand_in() {
        let before = told(&["w:a", "w:b", "w:c", "w:b"]);
        let with = |current: &[&str]| with(told(current), &before, "w:b", Some("w:b__new")).map(|now| names(&now));
        assert_eq!(with(&["w:x", "w:b__new", "w:c", "w:b__new"]).unwrap(), ["w:x", "w:b", "w:c", "w:b"]);
        assert_eq!(with(&["w:b__new"]).unwrap(), ["w:b"]);
        // Somebody has put it there meanwhile, or the group is without either.
        assert_eq!(with(&["w:b", "w:b__new"]).unwrap(), ["w:b"]);
        assert_eq!(with(&["w:b"]), None);
        assert_eq!(with(&["w:a"]).unwrap(), ["w:a", "w:b", "w:b"]);
    }

    #[test]
    fn a_layer_comes_back_to_its_places() {
        let before = ["w:a", "w:b", "w:c", "w:b"];
        assert_eq!(back(&["w:a", "w:c"], &before, "w:b").unwrap(), before);
        assert_eq!(back(&["w:b", "w:c", "w:b"], &before, "w:a").unwrap(), before);
        // Others are out as well, or the group is another one by now.
        assert_eq!(back(&["w:c"], &before, "w:b").unwrap(), ["w:b", "w:c", "w:b"]);
        assert_eq!(back(&["w:x", "w:a"], &before, "w:c").unwrap(), ["w:x", "w:a", "w:c"]);
        assert_eq!(back(&["w:a", "w:b"], &before, "w:b"), None);
        assert_eq!(back(&["w:a"], &["w:a"], "w:b"), None);
    }
}
