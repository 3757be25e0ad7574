//! Which files of the state repository are job files.

use super::JobKind;

/// Endings that editors and merge tools leave behind; such a file was never meant to be a job.
const LEFTOVERS: [&str; 5] = ["~", ".orig", ".rej", ".bak", ".swp"];

/// An auxiliary file beside a job file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Companion {
    /// `.meta.json`: only the metadata changed.
    Meta,
    /// `.empty_gwc.json`: the tile cache is to be emptied.
    EmptyGwc,
}

/// A path of the state repository that holds a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobFile {
    /// The path inside the repository.
    pub path: String,
    /// The channel that the file belongs to; none for the roles of the organisation.
    pub channel: Option<String>,
    /// What the job is about.
    pub kind: JobKind,
    /// Set for an auxiliary file.
    pub companion: Option<Companion>,
    /// The file's name without its endings, such as `cadastre.roads`.
    pub stem: String,
}

impl JobFile {
    /// Whether the file is named as a JSON document.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.path.ends_with(".json")
    }

    /// The workspace and the name that the file is named after: `<workspace>.<name>`, cut at the first dot.
    #[must_use]
    pub fn named_after(&self) -> Option<(&str, &str)> {
        self.stem.split_once('.').filter(|(workspace, name)| !workspace.is_empty() && !name.is_empty())
    }
}

/// Says what job the file at `path` is, for a slave that listens to `channels`; `None` when it is none.
///
/// Only files directly in a job folder count. There, hidden files (`.gitkeep`, `.x.swp`) and what editors
/// and merge tools leave behind (`x.json.orig`, `x.json~`) are no jobs; everything else is one, and fails
/// in [`parse`](super::parse) when it is not JSON, so that a job saved under a wrong name is noticed.
///
/// The ending `.meta.json` has a meaning for layers only, and `.empty_gwc.json` for what has a tile cache;
/// elsewhere they are part of the name.
#[must_use]
pub fn classify(path: &str, channels: &[String]) -> Option<JobFile> {
    let mut segments = path.split('/');
    let (first, second, third) = (segments.next()?, segments.next(), segments.next());
    if segments.next().is_some() {
        return None;
    }
    let file = |channel: Option<&str>, kind, companion, stem: &str| {
        Some(JobFile {
            path: path.to_owned(),
            channel: channel.map(str::to_owned),
            kind,
            companion,
            stem: stem.to_owned(),
        })
    };
    let Some(second) = second else {
        return if first == "slave_roles.sql" { file(None, JobKind::Auth, None, "slave_roles") } else { None };
    };
    if !channels.iter().any(|channel| channel == first) {
        return None;
    }
    let Some(name) = third else {
        return if second == "layers.properties" {
            file(Some(first), JobKind::AccessRules, None, "layers")
        } else {
            None
        };
    };
    let kind = match second {
        "layers" => JobKind::Feature,
        "wms_stores" => JobKind::WmsStore,
        "wms_layers" => JobKind::WmsLayer,
        "live_stores" => JobKind::LiveStore,
        "live_layers" => JobKind::LiveLayer,
        "layergroups" => JobKind::LayerGroup,
        "workspaces" => JobKind::Workspace,
        _ => return None,
    };
    if name.is_empty() || name.starts_with('.') || LEFTOVERS.iter().any(|ending| name.ends_with(ending)) {
        return None;
    }
    let stem = name.strip_suffix(".json").unwrap_or(name);
    let has_tiles = kind.actions().contains(&super::Action::EmptyGwc);
    let (stem, companion) = if let Some(stem) = name.strip_suffix(".meta.json").filter(|_| kind == JobKind::Feature) {
        (stem, Some(Companion::Meta))
    } else if let Some(stem) = name.strip_suffix(".empty_gwc.json").filter(|_| has_tiles) {
        (stem, Some(Companion::EmptyGwc))
    } else {
        (stem, None)
    };
    file(Some(first), kind, companion, stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(path: &str) -> String {
        classify(path, &["geoserver".into(), "second".into()]).map_or("-".into(), |file| {
            format!("{} {:?} {} {:?}", file.kind, file.companion, file.stem, file.channel.as_deref().unwrap_or("-"))
        })
    }

    #[test]
    fn folders_and_endings_say_what_a_file_is() {
        let paths = [
            "slave_roles.sql",
            "geoserver/slave_roles.sql",
            "geoserver/layers.properties",
            "other/layers.properties",
            "layers.properties",
            "geoserver/layers/cadastre.roads.json",
            "second/layers/cadastre.roads.meta.json",
            "geoserver/layers/cadastre.roads.empty_gwc.json",
            "geoserver/layers/old/cadastre.roads.json",
            "unheard/layers/cadastre.roads.json",
            "geoserver/layers/.gitkeep",
            "geoserver/layers/cadastre.roads.json.orig",
            "geoserver/layers/cadastre.roads.txt",
            "geoserver/wms_stores/a.upstream.json",
            "geoserver/wms_stores/a.upstream.empty_gwc.json",
            "geoserver/wms_layers/a.layer.empty_gwc.json",
            "geoserver/wms_layers/a.layer.meta.json",
            "geoserver/live_stores/a.db.json",
            "geoserver/live_layers/a.table.empty_gwc.json",
            "geoserver/layergroups/a.all.json",
            "geoserver/workspaces/cadastre.json",
            "geoserver/plans/a.json",
            "",
        ];
        let shown: Vec<_> = paths.iter().map(|path| format!("{path} => {}", show(path))).collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        slave_roles.sql => auth None slave_roles "-"
        geoserver/slave_roles.sql => -
        geoserver/layers.properties => access_rules None layers "geoserver"
        other/layers.properties => -
        layers.properties => -
        geoserver/layers/cadastre.roads.json => feature None cadastre.roads "geoserver"
        second/layers/cadastre.roads.meta.json => feature Some(Meta) cadastre.roads "second"
        geoserver/layers/cadastre.roads.empty_gwc.json => feature Some(EmptyGwc) cadastre.roads "geoserver"
        geoserver/layers/old/cadastre.roads.json => -
        unheard/layers/cadastre.roads.json => -
        geoserver/layers/.gitkeep => -
        geoserver/layers/cadastre.roads.json.orig => -
        geoserver/layers/cadastre.roads.txt => feature None cadastre.roads.txt "geoserver"
        geoserver/wms_stores/a.upstream.json => wms_store None a.upstream "geoserver"
        geoserver/wms_stores/a.upstream.empty_gwc.json => wms_store None a.upstream.empty_gwc "geoserver"
        geoserver/wms_layers/a.layer.empty_gwc.json => wms_layer Some(EmptyGwc) a.layer "geoserver"
        geoserver/wms_layers/a.layer.meta.json => wms_layer None a.layer.meta "geoserver"
        geoserver/live_stores/a.db.json => live_store None a.db "geoserver"
        geoserver/live_layers/a.table.empty_gwc.json => live_layer Some(EmptyGwc) a.table "geoserver"
        geoserver/layergroups/a.all.json => layergroup None a.all "geoserver"
        geoserver/workspaces/cadastre.json => workspace None cadastre "geoserver"
        geoserver/plans/a.json => -
         => -
        "#);
    }

    #[test]
    fn the_name_is_cut_at_the_first_dot() {
        let file = classify("g/layers/cadastre.roads.v2.json", &["g".into()]).unwrap();
        assert_eq!(file.named_after(), Some(("cadastre", "roads.v2")));
        let file = classify("g/layers/roads.json", &["g".into()]).unwrap();
        assert_eq!(file.named_after(), None);
    }

    proptest! {
        #[test]
        fn any_path_is_classified_without_panic(path in "(g|x)?/?(layers|wms_layers|.{0,5})?/?.{0,20}") {
            if let Some(file) = classify(&path, &["g".into()]) {
                prop_assert_eq!(&file.path, &path);
                prop_assert!(path.contains(&file.stem));
            }
        }
    }
}
