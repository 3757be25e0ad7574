//! Who is who, who may see what, and the REST resources for both.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::catalog::{Catalog, User};
use super::doc::escape;
use super::http::{Answer, Fault, Reply, Req, page};
use super::{Flavour, State, Version, xml};

fn unauthorized(req: &Req) -> Reply {
    // Always with its page: the container answers before any handler.
    let browser = Req {
        method: "GET".to_owned(),
        raw_path: req.raw_path.clone(),
        query: vec![],
        raw_query: String::new(),
        headers: vec![],
        body: vec![],
        base: String::new(),
        flavour: req.flavour,
        version: req.version,
        user: None,
    };
    page(&browser, 401, "Unauthorized", None).header("WWW-Authenticate", "Basic realm=\"GeoServer Realm\"")
}

/// Wrong credentials are refused everywhere, even where none are needed.
pub(crate) fn log_in(state: &State, req: &Req) -> Result<Option<String>, Fault> {
    let Some(header) = req.header("authorization") else { return Ok(None) };
    let clear = header
        .strip_prefix("Basic ")
        .and_then(|code| openssl::base64::decode_block(code.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let (name, password) = clear.split_once(':').unwrap_or_default();
    let known = state.cat().users.get(name).is_some_and(|user| user.enabled && user.password == password);
    if known {
        return Ok(Some(name.to_owned()));
    }
    let cookie = "remember-me=; Path=/geoserver; Expires=Thu, 01-Jan-1970 00:00:00 GMT; Max-Age=0";
    Err(Fault::Other(unauthorized(req).header("Set-Cookie", cookie)))
}

fn roles(cat: &Catalog, user: Option<&str>) -> Vec<String> {
    let Some(user) = user.and_then(|name| cat.users.get(name)) else { return vec![] };
    let of_groups = user.groups.iter().filter_map(|group| cat.user_groups.get(group)).flatten();
    user.roles.iter().chain(of_groups).cloned().collect()
}

/// REST is for the administrator, and for GET, POST, PUT and DELETE.
pub(crate) fn administrator(state: &State, req: &Req) -> Result<(), Fault> {
    if req.user.is_none() {
        return Err(Fault::Other(unauthorized(req)));
    }
    if !roles(&state.cat(), req.user.as_deref()).iter().any(|role| role == "ADMIN") {
        return Err(Fault::Page(403, "Forbidden".to_owned()));
    }
    match req.method.as_str() {
        "GET" | "POST" | "PUT" | "DELETE" => Ok(()),
        _ if req.version == Version::V2_18 => Ok(()),
        _ => Err(Fault::Page(403, "Forbidden".to_owned())),
    }
}

/// What becomes of a request for a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Access {
    Open,
    /// As if it were not there.
    Hidden,
    /// Asks for credentials, listed or not.
    Challenge {
        listed: bool,
    },
}

/// The most specific rule decides.
pub(crate) fn access(cat: &Catalog, user: Option<&str>, ws: &str, layer: &str) -> Access {
    // A rule of a global group stands where those of a workspace of that name stand.
    let rule = [format!("{ws}.{layer}.r"), format!("{ws}.*.r"), format!("{ws}.r"), "*.*.r".to_owned()]
        .iter()
        .find_map(|rule| cat.acl.get(rule));
    let Some(rule) = rule else { return Access::Open };
    let held = roles(cat, user);
    let open = rule.split(',').any(|role| role == "*" || held.iter().any(|held| held == role));
    if open || held.iter().any(|role| role == "ADMIN") {
        return Access::Open;
    }
    match cat.mode.as_str() {
        "CHALLENGE" => Access::Challenge { listed: true },
        "MIXED" => Access::Challenge { listed: false },
        _ => Access::Hidden,
    }
}

/// GeoServer takes a rule out before it puts the changed one in, and serves other requests meanwhile.
pub(crate) async fn change_rules(state: &State, req: &Req) {
    let Ok(Value::Object(given)) = serde_json::from_slice(&req.body) else { return };
    if !given.keys().all(|rule| state.cat().acl.contains_key(rule)) {
        return;
    }
    let old: Vec<_> = given.keys().filter_map(|rule| state.cat().acl.remove_entry(rule)).collect();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    state.cat().acl.extend(old);
}

pub(crate) fn challenge(req: &Req) -> Fault {
    Fault::Other(unauthorized(req))
}

pub(crate) fn answer(state: &State, req: &Req, parts: &[&str]) -> Answer {
    let mut cat = state.cat();
    // Rules carry dots and stars: no extension is cut off here.
    if let ["acl", "layers", rule] = parts {
        return match req.method.as_str() {
            "DELETE" => {
                check_rule(rule)?;
                match cat.acl.remove(*rule) {
                    Some(_) => Ok(Reply::new(200)),
                    None => Err(Fault::Missing(format!("Rule not found: {rule}"))),
                }
            }
            _ => Err(Fault::Method("DELETE")),
        };
    }
    let (last, ext) = super::http::split_ext(parts.last().copied().unwrap_or_default());
    let mut parts = parts.to_vec();
    if let Some(slot) = parts.last_mut() {
        *slot = &last;
    }
    let xml = ext.as_deref() == Some("xml");
    match (req.method.as_str(), parts.as_slice()) {
        ("GET", ["acl", "layers"]) => Ok(if xml {
            let rules: String = cat
                .acl
                .iter()
                .map(|(rule, roles)| format!("    <rule resource=\"{}\">{}</rule>\n", escape(rule), escape(roles)))
                .collect();
            xml_reply(&format!("<rules>\n{rules}</rules>\n"))
        } else {
            Reply::text(200, "application/json", json!(cat.acl).to_string())
        }),
        ("POST" | "PUT", ["acl", "layers"]) => write_rules(&mut cat, req),
        ("GET", ["acl", "catalog"]) => Ok(if xml {
            xml_reply(&format!("<catalog>\n    <mode>{}</mode>\n</catalog>\n", cat.mode))
        } else {
            Reply::text(200, "application/json", json!({ "mode": cat.mode }).to_string())
        }),
        ("PUT", ["acl", "catalog"]) => {
            let mode = read_mode(req)?;
            if !["HIDE", "MIXED", "CHALLENGE"].contains(&mode.as_str()) {
                return Err(Fault::Refused(422, format!("Not a valid mode: {mode}")));
            }
            cat.mode = mode;
            Ok(Reply::new(200))
        }
        (_, ["acl", "catalog"]) => {
            let reply = Reply::new(405).header("Allow", "GET,PUT");
            Ok(if req.flavour == Flavour::Jetty { reply.header("Connection", "close") } else { reply })
        }
        ("GET", ["acl", "services"]) => {
            let rules =
                json!({"wfs.CreateStoredQuery": "GROUP_ADMIN,ADMIN", "wfs.DropStoredQuery": "GROUP_ADMIN,ADMIN"});
            Ok(Reply::text(200, "application/json", rules.to_string()))
        }
        ("GET", ["acl", "rest"]) => {
            let rules = json!({"/**:GET": "ROLE_ADMINISTRATOR", "/**:POST,DELETE,PUT": "ROLE_ADMINISTRATOR"});
            Ok(Reply::text(200, "application/json", rules.to_string()))
        }
        (_, ["roles", ..]) | (_, ["usergroup", ..])
            if req.version == Version::V2_18 && ext.as_deref() == Some("json") =>
        {
            Err(Fault::NotAcceptable)
        }
        (_, ["roles", rest @ ..]) => role(&mut cat, req, rest, xml),
        (_, ["usergroup", rest @ ..]) => user(&mut cat, req, rest, xml),
        _ => Err(Fault::Unmapped),
    }
}

fn xml_reply(body: &str) -> Reply {
    Reply::text(200, "application/xml", format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}\n"))
}

fn read_mode(req: &Req) -> Result<String, Fault> {
    if req.media().contains("json") {
        let value: Value = serde_json::from_slice(&req.body).map_err(|_| Fault::Unexpected(String::new()))?;
        return Ok(value["mode"].as_str().unwrap_or_default().to_owned());
    }
    let doc = xml::parse(&xml::decode(&req.body)).map_err(|_| Fault::Unexpected(String::new()))?;
    Ok(doc.text_of("mode").unwrap_or_default())
}

fn check_rule(rule: &str) -> Result<(), Fault> {
    let parts: Vec<&str> = rule.split('.').collect();
    let [ws, layer, mode] = parts.as_slice() else {
        let expected = "the expected format is workspace.layer.mode=role1,role2,...";
        return Err(Fault::Refused(422, format!("Invalid rule {rule}, {expected}")));
    };
    if !["r", "w", "a"].contains(mode) {
        return Err(Fault::Refused(422, format!("Unknown access mode {mode} in {rule}")));
    }
    if *ws == "*" && *layer != "*" {
        let message = format!("Invalid rule {rule}, when namespace is * then also layer must be *.");
        return Err(Fault::Refused(422, message));
    }
    Ok(())
}

/// POST adds and PUT changes, all or nothing.
fn write_rules(cat: &mut Catalog, req: &Req) -> Answer {
    let mut given = BTreeMap::new();
    if req.media().contains("json") {
        let value: Value = serde_json::from_slice(&req.body).map_err(|_| {
            Fault::Unexpected("Found starting '{' but missing '}' at the end. at character 0 of null".to_owned())
        })?;
        for (rule, roles) in value.as_object().into_iter().flatten() {
            let roles = roles.as_str().ok_or_else(|| Fault::Unexpected(String::new()))?;
            given.insert(rule.clone(), roles.to_owned());
        }
    } else {
        let doc = xml::parse(&xml::decode(&req.body)).map_err(|_| Fault::Unexpected(String::new()))?;
        for rule in doc.all("rule") {
            given.insert(rule.get_attr("resource").unwrap_or_default().to_owned(), rule.text.clone());
        }
    }
    let create = req.method == "POST";
    let wrong: Vec<&str> =
        given.keys().filter(|rule| cat.acl.contains_key(*rule) == create).map(String::as_str).collect();
    if !wrong.is_empty() {
        let what = if create { "Already existing rules" } else { "Unknown rules" };
        return Err(Fault::Refused(409, format!("{what}: {}", wrong.join(","))));
    }
    for rule in given.keys() {
        check_rule(rule)?;
    }
    cat.acl.extend(given);
    Ok(Reply::new(200))
}

fn named(xml: bool, list: &str, item: &str, names: &[String]) -> Reply {
    if xml {
        let names: String = names.iter().map(|name| format!("<{item}>{}</{item}>", escape(name))).collect();
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><{list}>{names}</{list}>");
        return Reply::text(200, "application/xml", body);
    }
    let mut map = serde_json::Map::new();
    map.insert(list.to_owned(), json!(names));
    Reply::text(200, "application/json", Value::Object(map).to_string())
}

fn not_there(message: String) -> Fault {
    Fault::Page(404, message)
}

fn role(cat: &mut Catalog, req: &Req, parts: &[&str], xml: bool) -> Answer {
    let no_role = |role: &str| not_there(format!("Provided role does not exist: {role}"));
    match (req.method.as_str(), parts) {
        ("GET", []) => Ok(named(xml, "roles", "role", &cat.roles)),
        ("POST", ["role", role]) => {
            if cat.roles.iter().any(|held| held == role) {
                return Err(not_there(format!("The role {role} already exists")));
            }
            cat.roles.push((*role).to_owned());
            Ok(Reply::new(201))
        }
        ("DELETE", ["role", role]) => {
            if !cat.roles.iter().any(|held| held == role) {
                return Err(no_role(role));
            }
            cat.roles.retain(|held| held != role);
            for user in cat.users.values_mut() {
                user.roles.retain(|held| held != role);
            }
            Ok(Reply::new(200))
        }
        ("GET", ["user", name]) => {
            let held = cat.users.get(*name).map(|user| user.roles.clone()).unwrap_or_default();
            Ok(named(xml, "roles", "role", &held))
        }
        (_, ["role", role, kind @ ("user" | "group"), name]) => {
            if !cat.roles.iter().any(|held| held == role) {
                return Err(no_role(role));
            }
            let held = match *kind {
                "user" => cat.users.get_mut(*name).map(|user| &mut user.roles),
                _ => cat.user_groups.get_mut(*name),
            };
            let held = held.ok_or_else(|| not_there(format!("Provided {kind}name does not exist: {name}")))?;
            held.retain(|held| held != role);
            if req.method == "POST" {
                held.push((*role).to_owned());
            }
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Unmapped),
    }
}

/// A user as a document gives one.
struct GivenUser {
    name: Option<String>,
    password: Option<String>,
    enabled: Option<bool>,
}

fn read_user(req: &Req) -> Result<GivenUser, Fault> {
    let broken = || Fault::Unexpected(String::new());
    let doc = if req.media().contains("json") {
        let value: Value = serde_json::from_slice(&req.body).map_err(|_| broken())?;
        super::doc::El::from_json("user", value.get("user").unwrap_or(&value))
    } else {
        xml::parse(&xml::decode(&req.body)).map_err(|_| broken())?
    };
    let enabled = doc.text_of("enabled").map(|enabled| enabled == "true");
    Ok(GivenUser { name: doc.text_of("userName"), password: doc.text_of("password"), enabled })
}

fn users_reply<'a>(xml: bool, users: impl Iterator<Item = (&'a String, &'a User)>) -> Reply {
    if xml {
        let users: String = users
            .map(|(name, user)| {
                format!("<user><enabled>{}</enabled><userName>{}</userName></user>", user.enabled, escape(name))
            })
            .collect();
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><users>{users}</users>");
        return Reply::text(200, "application/xml", body);
    }
    let users: Vec<Value> =
        users.map(|(name, user)| json!({"userName": name, "password": null, "enabled": user.enabled})).collect();
    Reply::text(200, "application/json", json!({ "users": users }).to_string())
}

fn user(cat: &mut Catalog, req: &Req, parts: &[&str], xml: bool) -> Answer {
    let no_user = |name: &str| not_there(format!("Provided username does not exist: {name}"));
    let no_group = |name: &str| not_there(format!("Provided groupname does not exist: {name}"));
    match (req.method.as_str(), parts) {
        ("GET", ["users"]) => Ok(users_reply(xml, cat.users.iter())),
        ("POST", ["users"]) => {
            let GivenUser { name, password, enabled } = read_user(req)?;
            let name = name.unwrap_or_default();
            if cat.users.contains_key(&name) {
                return Err(not_there(format!("The user {name} already exists")));
            }
            let user = User {
                password: password.unwrap_or_default(),
                enabled: enabled.unwrap_or(true),
                roles: vec![],
                groups: vec![],
            };
            cat.users.insert(name, user);
            Ok(Reply::new(201))
        }
        ("POST", ["user", name]) => {
            let GivenUser { password, enabled, .. } = read_user(req)?;
            let user = cat.users.get_mut(*name).ok_or_else(|| no_user(name))?;
            user.password = password.unwrap_or(std::mem::take(&mut user.password));
            user.enabled = enabled.unwrap_or(user.enabled);
            Ok(Reply::new(200))
        }
        ("DELETE", ["user", name]) => match cat.users.remove(*name) {
            Some(_) => Ok(Reply::new(200)),
            None => Err(no_user(name)),
        },
        ("GET", ["groups"]) => {
            let names: Vec<String> = cat.user_groups.keys().cloned().collect();
            Ok(named(xml, "groups", "group", &names))
        }
        ("POST", ["group", name]) => {
            cat.user_groups.insert((*name).to_owned(), vec![]);
            Ok(Reply::new(201))
        }
        ("DELETE", ["group", name]) => match cat.user_groups.remove(*name) {
            Some(_) => Ok(Reply::new(200)),
            None => Err(no_group(name)),
        },
        ("GET", ["user", name, "groups"]) => {
            let groups = cat.users.get(*name).map(|user| user.groups.clone()).ok_or_else(|| no_user(name))?;
            Ok(named(xml, "groups", "group", &groups))
        }
        ("GET", ["group", name, "users"]) => {
            Ok(users_reply(xml, cat.users.iter().filter(|(_, user)| user.groups.iter().any(|group| group == name))))
        }
        (_, ["user", name, "group", group]) => {
            if !cat.user_groups.contains_key(*group) {
                return Err(no_group(group));
            }
            let user = cat.users.get_mut(*name).ok_or_else(|| no_user(name))?;
            user.groups.retain(|held| held != group);
            if req.method == "POST" {
                user.groups.push((*group).to_owned());
            }
            Ok(Reply::new(200))
        }
        _ => Err(Fault::Unmapped),
    }
}
