//! Seeding and truncation: tasks, and the removal of tiles.

use super::{Answer, Catalog, Fault, Gwc, Reply, Req, read};

pub(super) fn seed(cat: &mut Catalog, req: &Req, ext: Option<&str>, label: &str) -> Answer {
    let unknown = || {
        format!("Thread qtp510464020-16 Unknown layer {label}. Check the logfiles, it may not have loaded properly.")
    };
    let Some(layer) = cat.gwc.layers.get(label) else {
        return Err(Fault::Text(if req.method == "GET" { 400 } else { 500 }, unknown()));
    };
    if req.method == "GET" {
        return Ok(match ext {
            Some("json") => Reply::text(200, "application/json", cat.gwc.report(Some(label)).to_string()),
            Some("xml") => Reply::text(200, "application/xml", "<long-array-array/>"),
            _ => Reply::text(
                200,
                "text/html;charset=utf-8",
                "<html>\n<head>\n<title>GWC Seed Form</title></head></html>",
            ),
        });
    }
    if req.media() == "application/x-www-form-urlencoded" {
        cat.gwc.tasks.retain(|task| task.layer != label);
        return Ok(Reply::text(200, "text/html;charset=utf-8", "<html>\n<p>Requested to terminate all tasks.</html>"));
    }
    let sets = Gwc::gridsets_of(layer);
    let doc = read(req)?;
    if let Some(set) = doc.text_of("gridSetId").filter(|set| !sets.contains(set)) {
        return Err(Fault::Unexpected(format!("Unknown grid set {set}")));
    }
    let truncate = doc.text_of("type").as_deref() == Some("truncate");
    let threads = doc.text_of("threadCount").and_then(|count| count.parse().ok()).unwrap_or(1);
    if truncate {
        cat.gwc.truncate(label);
    }
    cat.gwc.start(label, if truncate { 1 } else { threads }, usize::from(!truncate), 2, !truncate);
    Ok(Reply::text(200, "text/plain", ""))
}

pub(super) fn mass_truncate(cat: &mut Catalog, req: &Req) -> Answer {
    let media = "text/plain;charset=iso-8859-1";
    let bad = |what: &str| {
        Fault::Other(Reply::text(
            400,
            media,
            format!("org.geowebcache.rest.exception.RestException 400 BAD_REQUEST: {what}"),
        ))
    };
    if req.method == "GET" {
        let types = ["truncateLayer", "truncateParameters", "truncateOrphans", "truncateExtent"];
        let types: String = types.iter().map(|name| format!(" <requestType>{name}</requestType>")).collect();
        let href = format!("{}/gwc/rest/masstruncate", req.base);
        let body = format!("<massTruncateRequests href=\"{href}\">{types}</massTruncateRequests>");
        return Ok(Reply::text(200, media, body));
    }
    if req.media() != "text/xml" {
        return Err(bad(&format!("Format extension unknown or not specified: {}", req.media())));
    }
    let doc = read(req)?;
    if !["truncateLayer", "truncateParameters", "truncateOrphans", "truncateExtent"].contains(&doc.name.as_str()) {
        return Err(Fault::Unexpected(doc.name));
    }
    let label = doc.text_of("layerName").unwrap_or_default();
    if !cat.gwc.layers.contains_key(&label) {
        return Err(bad(&format!("Could not find layer {label}")));
    }
    cat.gwc.truncate(&label);
    if let Some((running, end)) = cat.gwc.slow {
        cat.gwc.start(&label, 1, running, end, false);
    }
    Ok(Reply::new(200))
}
