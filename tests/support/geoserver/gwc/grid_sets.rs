//! Grid sets.

use super::{Answer, BUILT_IN, Catalog, DECLARATION, El, Fault, Reply, Req, XML, java_double, read};

pub(super) fn gridset(cat: &mut Catalog, req: &Req, xml: bool, name: &str) -> Answer {
    let built_in = BUILT_IN.contains(&name);
    let gone = |verb: &str| {
        Fault::Text(404, format!("Failed to {verb} GridSet. A GridSet with name \"{name}\" does not exist."))
    };
    match req.method.as_str() {
        "GET" => {
            let doc = match cat.gwc.gridsets.get(name) {
                Some(doc) => doc.clone(),
                None if built_in => El::new("gridSet").with("name", name),
                None => return Err(gone("get")),
            };
            Ok(if xml {
                Reply::text(200, "application/xml", format!("{DECLARATION}{}", doc.to_xml()))
            } else {
                Reply::text(200, "application/json", doc.to_json().to_string())
            })
        }
        "PUT" => {
            let mut doc = read(req)?;
            if built_in {
                return Err(Fault::Unexpected(String::new()));
            }
            if doc.find("extent").is_none() {
                return Err(Fault::Unexpected(
                    "Cannot invoke \"org.geowebcache.grid.BoundingBox.getWidth()\" because \"extent\" is null"
                        .to_owned(),
                ));
            }
            numbers(&mut doc);
            let known = cat.gwc.gridsets.insert(name.to_owned(), doc).is_some();
            Ok(if known { Reply::new(200) } else { Reply::text(201, XML, "") })
        }
        "DELETE" if built_in => Err(Fault::Unexpected(String::new())),
        "DELETE" => match cat.gwc.gridsets.remove(name) {
            Some(_) => Ok(Reply::new(200)),
            None => Err(gone("remove")),
        },
        _ => Err(Fault::Method("GET,PUT,DELETE")),
    }
}

/// Numbers as Java writes them.
fn numbers(el: &mut El) {
    if el.name == "double"
        && let Ok(number) = el.text.trim().parse()
    {
        el.text = java_double(number);
    }
    for kid in &mut el.kids {
        numbers(kid);
    }
}
