//! Bad jobs among good ones.

use borg_slave::state_repo::Vcs;
use serde_json::json;

use super::*;
use crate::support::dumps::truncated;
use crate::support::world::sld;

#[tokio::test(flavor = "multi_thread")]
async fn bad_layers_are_named_and_good_ones_are_not_done_again() {
    let world = World::any(Vcs::Hg).await;
    let workspace = world.workspace("mixed");
    let good: Vec<Layer> = (0..20).map(|n| Layer::new(&workspace, &format!("good_{n:02}"))).collect();
    for layer in &good {
        world.publish(layer).await;
    }
    let replaced = Layer::new(&workspace, "bad_replaced");
    let published = world.publish(&replaced).await;
    fs::write(&published.dump, [fs::read(&published.dump).unwrap(), b"more".to_vec()].concat()).unwrap();
    let cut = Layer::new(&workspace, "bad_cut");
    let published = world.publish(&cut).await;
    fs::rename(truncated(&published.dump), &published.dump).unwrap();
    refer_again(&world, &cut, &published.dump);
    let style = Layer::new(&workspace, "bad_style").style("night", "#000000");
    let style = style.styles(&[
        ("builtin", &sld("good", "#00ff00")),
        ("night", "<StyledLayerDescriptor version=\"1.0.0\" xmlns=\"http://www.opengis.net/sld\"><NamedLayer>"),
    ]);
    world.publish(&style).await;
    let missing = Layer::new(&workspace, "bad_missing");
    fs::remove_file(world.publish(&missing).await.dump).unwrap();
    let unreadable = format!("geoserver/layers/{workspace}.bad_json.json");
    world.master.write(&unreadable, "{\"job_id\": 7,\n  \"meta\" {}}");
    world.commit("good and bad");

    let tip_before = tip(&world);
    let outcome = world.pull().failed();
    assert_eq!(tip(&world), tip_before, "the pull is rolled back");
    let text = outcome.text();
    for bad in [&replaced, &cut, &style, &missing] {
        assert!(text.contains(&bad.job_file()), "{} is not in:\n{text}", bad.job_file());
        is_state(&world, bad, "failed");
    }
    let outcome = outcome.says(&unreadable).says("line 2").says("bad_style.night").says("5 jobs failed");
    for layer in &good {
        is_state(&world, layer, "succeeded");
        assert_eq!(count(&world, &workspace, &layer.name).await, 10);
        assert!(world.rest().layer(&workspace, &layer.name).await.is_some());
        not_a_word(&outcome, &format!("error job=\"{}\"", layer.job_file()));
    }
    // Each says what is wrong and what to do.
    let said = |file: &str| {
        let record = world.state(file);
        format!("{} | {}", record["message"].as_str().unwrap(), record["hint"].as_str().unwrap_or_default())
    };
    assert!(said(&replaced.job_file()).contains("replaced"), "{}", said(&replaced.job_file()));
    assert!(said(&missing.job_file()).contains("bad_missing.db"), "{}", said(&missing.job_file()));
    assert!(said(&unreadable).contains("line 2"), "{}", said(&unreadable));
    assert!(said(&style.job_file()).contains("bad_style.night"), "{}", said(&style.job_file()));
    assert!(said(&cut.job_file()).to_lowercase().contains("dump"), "{}", said(&cut.job_file()));
    world.slave(&["status", "--failed"]).says(&unreadable).says(&cut.job_file());
    // With one bad style the layer is there with the other.
    let seen = world.rest().layer(&workspace, "bad_style").await.unwrap();
    assert_eq!(seen.default_style, Some(format!("{workspace}:bad_style")));
    assert_eq!(count(&world, &workspace, "bad_style").await, 10);
    // What failed before its table was whole left no view behind.
    let there = relations(&world, &[&workspace]).await;
    assert!(!there.contains_key(&format!("{workspace}.bad_cut")), "{there:?}");

    // A pull again fails again, for the bad ones only.
    clear_requests(&world);
    let before = relations(&world, &[&workspace]).await;
    world.pull().failed().says("5 jobs failed");
    no_request_names(&world, "good_");
    assert_eq!(relations(&world, &[&workspace]).await, before);

    for bad in [&replaced, &cut, &missing] {
        world.publish(bad).await;
    }
    let style = style.styles(&[("builtin", &sld("good", "#00ff00")), ("night", &sld("night", "#000000"))]);
    world.publish(&style).await;
    world.master.remove(&unreadable);
    world.commit("mended");
    clear_requests(&world);
    world.pull().succeeded();
    assert_ne!(tip(&world), tip_before);
    no_request_names(&world, "good_");
    let after = relations(&world, &[&workspace]).await;
    for (name, was) in before.iter().filter(|(name, _)| name.contains("good_")) {
        assert_eq!(after.get(name), Some(was), "{name}");
    }
    let all = status(&world);
    for layer in &good {
        assert_eq!(all[&layer.job_file()]["attempts"], json!(1));
    }
    for bad in [&replaced, &cut, &style, &missing] {
        is_state(&world, bad, "succeeded");
        assert_eq!(count(&world, &workspace, &bad.name).await, 10);
    }
    let seen = world.rest().layer(&workspace, "bad_style").await.unwrap();
    assert_eq!(seen.styles, [format!("{workspace}:bad_style.night")]);
    world.slave(&["sync"]).succeeded();
    world.slave(&["status", "--failed"]).succeeded().says("0 failed");
    if world.doubles.is_empty() {
        world.rest().drop_workspace(&workspace).await;
    }
}

#[track_caller]
fn no_request_names(world: &World, what: &str) {
    for double in &world.doubles {
        let named: Vec<_> = double.requests().into_iter().filter(|request| request.path.contains(what)).collect();
        assert_eq!(named, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refused_pull_published_goes_when_the_master_takes_it_back() {
    for vcs in [Vcs::Hg, Vcs::Git] {
        let world = World::start(vcs).await;
        let kept = Layer::new("w", "kept").title("as it was");
        world.publish(&kept).await;
        world.commit("first");
        world.pull().succeeded();
        let document = fs::read(world.master.path().join(kept.job_file())).unwrap();

        let short_lived = Layer::new("w", "short_lived");
        let bad = Layer::new("w", "bad");
        world.publish(&short_lived).await;
        world.publish(&kept.clone().title("not for long").rows(20)).await;
        fs::remove_file(world.publish(&bad).await.dump).unwrap();
        world.commit("a layer, a change, and a mistake");
        let outcome = world.pull();
        if vcs == Vcs::Hg {
            outcome.failed();
        }
        assert!(world.rest().layer("w", "short_lived").await.is_some());
        assert_eq!(world.rest().layer("w", "kept").await.unwrap().title, "not for long");

        // The range from before to after holds neither file.
        world.remove(&short_lived);
        world.remove(&bad);
        world.master.write(kept.job_file(), document);
        world.commit("all taken back");
        world.pull().succeeded();
        assert!(world.rest().layer("w", "short_lived").await.is_none());
        assert_eq!(world.rest().layers("w").await, ["kept"]);
        assert_eq!(world.rest().layer("w", "kept").await.unwrap().title, "as it was");
        assert_eq!(count(&world, "w", "kept").await, 10);
        let there = relations(&world, &["w"]).await;
        assert!(!there.keys().any(|name| name.contains("short_lived")), "{there:?}");
    }
}
