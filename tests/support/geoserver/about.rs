//! `/rest/about`: outside the lock, HTML unless something else is asked for.

use super::Version;
use super::doc::El;
use super::http::{Answer, Fault, Format, Reply, Req, split_ext};
use super::rest::json_text;

pub(crate) fn answer(req: &Req, parts: &[&str]) -> Answer {
    let [last] = parts else { return Err(Fault::Unmapped) };
    let (name, ext) = split_ext(last);
    let doc = match name.as_str() {
        "version" => version(req.version),
        "status" => El::index(
            "statuss",
            "status",
            ["GeoWebCache", "Importer Core", "Rendering Engine"]
                .map(|name| (name.to_owned(), format!("{}/rest/about/status/{}", req.base, super::http::in_href(name))))
                .to_vec(),
        ),
        _ => return Err(Fault::Unmapped),
    };
    Ok(match req.format(ext.as_deref(), false)? {
        Format::Json => Reply::text(200, "application/json", json_text(req, &doc.to_json())),
        Format::Xml => Reply::text(200, "application/xml", doc.to_xml()),
        _ => Reply::text(200, "text/html", html(&doc)),
    })
}

fn version(version: Version) -> El {
    let (tools, cache) = match version {
        Version::V2_26 => ("32.2", "1.26.2"),
        Version::V2_18 => ("24.2", "1.18.2"),
    };
    let resource = |name: &str| El::new("resource").attr("name", name);
    El::new("about")
        .kid(
            resource("GeoServer")
                .with("Build-Timestamp", "27-Jan-2025 07:51")
                .with("Version", version.text())
                .with("Git-Revision", "5afdbaeb583528dd4361bec53b275db4764e37db"),
        )
        .kid(
            resource("GeoTools")
                .with("Build-Timestamp", "27-Jan-2025 06:47")
                .with("Version", tools)
                .with("Git-Revision", "8a1f9921782671d7b4079f2bc09610995c94e390"),
        )
        .kid(
            resource("GeoWebCache")
                .with("Version", cache)
                .with("Git-Revision", "1.26.x/c987f8f4c67eeb3f022dcddcc70d631c4272aee3"),
        )
}

fn html(doc: &El) -> String {
    let mut body = String::new();
    for resource in &doc.kids {
        body.push_str(&format!(
            "\t<li><h3>Resource name: {}</h3>\n  \t\t<ul>\n",
            resource.get_attr("name").unwrap_or_default()
        ));
        for line in &resource.kids {
            body.push_str(&format!("  \t\t\t<li><b>{}</b> : {}</li>\n", line.name, line.text));
        }
        body.push_str("\t\t</ul>\n\t</li>\n");
    }
    format!(
        "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n    \
         \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n<head>\n    \
         <title>GeoServer Configuration</title>\n    <meta name=\"ROBOTS\" content=\"NOINDEX, NOFOLLOW\"/>\n</head>\n\
         <body>\n\n<h2>About:</h2>\n<ul>\n{body}</ul>\n</body>\n</html>\n"
    )
}
