//! Layers that take the place of one of another kind.

use borg_slave::error::{ErrorKind, Result};
use borg_slave::geoserver::{AccessRules, Change, FeatureType, Newcomer, Place, Places, WmsLayer};
use borg_slave::name::GeoName;

use super::wms_layers::{Kept, cascade, cascade_on, group, is_restricted, members, restrict, wms_layer};
use super::{DATA, Target, target_at};
use crate::support::upstream::Mood;

async fn publish_type(t: &Target, wanted: &FeatureType, kept: &Kept) -> Result<()> {
    t.server.make_room(Newcomer::FeatureType(wanted), kept).await?;
    t.server.publish_feature_type(wanted, DATA).await?;
    t.server.settle(&wanted.workspace, &wanted.name, kept).await.map(drop)
}

async fn publish_wms(t: &Target, wanted: &WmsLayer, kept: &Kept) -> Result<()> {
    t.server.make_room(Newcomer::WmsLayer(wanted), kept).await?;
    t.server.publish_wms_layer(wanted, kept).await.map(drop)
}

/// Two groups hold the layer as before, there is no stand-in, and its rule is as it was.
async fn is_whole(t: &Target, kind: &str, rule: &str) {
    assert_eq!(t.layer("roads").await["type"], kind);
    assert_eq!(members(t, "alone").await, ["roads"], "{kind}");
    assert_eq!(members(t, "more").await, ["roads", "other", "roads"], "{kind}");
    assert_eq!(t.raw("GET", "workspaces/{w}/layers/roads__new.json", None).await.0, 404, "{kind}");
    assert!(is_restricted(t, rule).await, "{kind}");
    let rules = t.raw("GET", "security/acl/layers.json", None).await.1.to_string();
    assert!(!rules.contains("roads__new"), "{rules}");
}

#[tokio::test]
async fn a_layer_takes_the_place_of_one_of_another_kind_in_its_groups() {
    let (t, upstream) = cascade("exchange", &["roads", "other"]).await;
    t.lines("roads", 0.0).await;
    let (feature, cascaded) = (t.lines_type("roads"), wms_layer(&t, "up", "roads"));
    t.server.publish_wms_layer(&wms_layer(&t, "up", "other"), &Kept::default()).await.unwrap();
    t.server.publish_feature_type(&feature, DATA).await.unwrap();
    group(&t, "alone", &["roads"]).await;
    group(&t, "more", &["roads", "other", "roads"]).await;
    let rule = restrict(&t, "roads").await;

    // What cannot be made takes no place.
    let not_there = WmsLayer { native_name: "never".into(), ..cascaded.clone() };
    let error = publish_wms(&t, &not_there, &Kept::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GeoServer);
    is_whole(&t, "VECTOR", &rule).await;
    publish_wms(&t, &cascaded, &Kept::default()).await.unwrap();
    is_whole(&t, "WMS", &rule).await;

    // The upstream of the old one is of no account; and a kill in between leaves the groups with something to show.
    upstream.mood(Mood::Status(503));
    let no_relation = FeatureType { native_name: "no_such_relation".into(), ..feature.clone() };
    publish_type(&t, &no_relation, &Kept::default()).await.unwrap_err();
    is_whole(&t, "WMS", &rule).await;
    let kept = Kept::default();
    assert_eq!(t.server.make_room(Newcomer::FeatureType(&feature), &kept).await.unwrap(), Change::Updated);
    assert_eq!(members(&t, "alone").await, ["roads__new"]);
    assert!(is_restricted(&t, &rule.replace("roads", "roads__new")).await);
    t.server.forget().await;
    publish_type(&t, &feature, &kept).await.unwrap();
    is_whole(&t, "VECTOR", &rule).await;

    // Where nothing is in the way, nothing is written.
    let before = t.server.requests();
    publish_type(&t, &feature, &Kept::default()).await.unwrap();
    let spent = t.server.requests().since(before);
    assert!(spent.writes <= 1, "the data may be others: {spent:?}");
    t.server.settle(&t.workspace, &feature.name, &Kept::default()).await.unwrap();

    // Nor does it matter that the old one cannot be read.
    t.execute("drop table {s}.roads").await;
    t.server.forget().await;
    upstream.mood(Mood::Well);
    publish_wms(&t, &cascaded, &Kept::default()).await.unwrap();
    is_whole(&t, "WMS", &rule).await;
}

#[tokio::test]
async fn a_stand_in_goes_with_the_layer_that_never_came() {
    let (t, _upstream) = cascade("standin", &["roads", "other"]).await;
    t.lines("roads", 0.0).await;
    let feature = t.lines_type("roads");
    for name in ["roads", "other"] {
        t.server.publish_wms_layer(&wms_layer(&t, "up", name), &Kept::default()).await.unwrap();
    }
    group(&t, "more", &["roads", "other"]).await;
    let kept = Kept::default();
    t.server.make_room(Newcomer::FeatureType(&feature), &kept).await.unwrap();
    assert_eq!(members(&t, "more").await, ["roads__new", "other"]);
    t.server.remove_stand_in(&t.workspace, &kept).await.unwrap();
    assert_eq!(members(&t, "more").await, ["other"]);
    assert_eq!(t.raw("GET", "workspaces/{w}/featuretypes/roads__new.json", None).await.0, 404);
}

/// Places of a layer whose rules the master says.
struct Ruled(Kept);

impl Places for Ruled {
    fn kept(&self) -> Vec<Place> {
        self.0.kept()
    }

    async fn keep(&self, places: Vec<Place>) -> Result<()> {
        self.0.keep(places).await
    }

    fn kept_rules(&self) -> Option<String> {
        None
    }

    async fn keep_rules(&self, rules: String) -> Result<()> {
        self.0.keep_rules(rules).await
    }

    fn stand_in(&self) -> Option<GeoName> {
        self.0.stand_in()
    }

    async fn keep_stand_in(&self, layer: &GeoName) -> Result<()> {
        self.0.keep_stand_in(layer).await
    }
}

#[tokio::test]
async fn rules_that_cannot_be_added_one_by_one_are_not_lost() {
    // A real one's rules are those of other tests as well.
    let (t, _upstream) = cascade_on(target_at("dotted", None).await, &["roads.night"]).await;
    let w = &t.workspace;
    t.lines("roads.night", 0.0).await;
    let feature = t.lines_type("roads.night");
    t.server.publish_feature_type(&feature, DATA).await.unwrap();
    group(&t, "more", &["roads.night"]).await;
    let rules = format!("mode=HIDE\n*.*.r=*\n{w}.roads\\\\.night.r=ROLE_STAFF\n{w}.other.r=ROLE_STAFF\n");
    let rules = AccessRules::parse(&rules).unwrap();
    t.server.apply_access_rules(&rules, None).await.unwrap();
    let kept = Ruled(Kept::default());
    let error = publish_wms_ruled(&t, &wms_layer(&t, "up", "roads.night"), &kept).await.unwrap_err();
    assert!(error.message().contains("access rules would be lost"), "{}", error.paragraph());
    assert!(kept.0.kept_rules().is_none(), "what is refused keeps nothing for later");
    assert_eq!(members(&t, "more").await, ["roads.night"]);
    assert_eq!(t.server.apply_access_rules(&rules, None).await.unwrap(), Change::Unchanged);
}

async fn publish_wms_ruled(t: &Target, wanted: &WmsLayer, kept: &Ruled) -> Result<()> {
    t.server.make_room(Newcomer::WmsLayer(wanted), kept).await.map(drop)
}
