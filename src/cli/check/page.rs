//! Where the daemon serves its status page: the address is free, or this slave's own daemon is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::Report;
use crate::config::Settings;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::journal::RunLock;
use crate::status_page;

/// How long a page may take to say whose it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

pub(super) async fn line(settings: &Settings, report: &mut Report) {
    let what = "status page";
    let Some(options) = crate::wire::status_page(settings) else {
        report.left_out(what, "STATUS_LISTEN is not set, the daemon serves none");
        return;
    };
    let listen = options.listen;
    let free = match status_page::is_free(listen) {
        Ok(()) => RunLock::daemon(&settings.sync_status_path).map(|daemon| match daemon {
            Some(daemon) if listen.port() != 0 => {
                report.note(what, &format!("{daemon} is this slave's daemon and does not serve it at {listen}; `kill -HUP` makes it read the settings again"));
                format!("{listen} can be served")
            }
            _ => format!("{listen} can be served"),
        }),
        Err(refusal) => served(&options, refusal).await,
    };
    report.line(what, free);
}

/// Whether it is this slave's own daemon that keeps others from the address.
async fn served(options: &status_page::Options, refusal: Error) -> Result<String> {
    let Ok((status, body)) = ask(options.listen, options.token.as_ref()).await else { return Err(refusal) };
    let document: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (slave, clone) = (document["slave"].as_str(), document["clone"].as_str());
    let own_clone = options.about.clone.display().to_string();
    match (status, slave) {
        (200, Some(_)) if clone == Some(&*own_clone) => {
            Ok(format!("this slave's daemon serves it at {}", options.listen))
        }
        (200, Some(slave)) => Err(Error::new(
            ErrorKind::Settings,
            format!("the daemon of another slave ({slave}, {}) serves its page there", clone.unwrap_or_default()),
        )
        .subject(format!("STATUS_LISTEN={}", options.listen))
        .hint("choose another port for one of the two")),
        (401, _) => Err(refusal.hint(
            "who listens there wants another token than STATUS_TOKEN: a daemon of another slave, or this slave's with older settings (`kill -HUP` makes it read them)",
        )),
        _ => Err(refusal),
    }
}

async fn ask(listen: SocketAddr, token: Option<&SecretString>) -> Result<(u16, Vec<u8>)> {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let what = "the page does not answer";
    let client = crate::http::client(true, ANSWER_LIMIT).timeout(ANSWER_LIMIT).build().context(ErrorKind::Io, what)?;
    let mut request = client.get(format!("http://{}/api/status", SocketAddr::new(host, listen.port())));
    if let Some(token) = token {
        request = request.bearer_auth(token.expose_secret());
    }
    let answer = request.send().await.context(ErrorKind::Io, what)?;
    let status = answer.status().as_u16();
    Ok((status, answer.bytes().await.context(ErrorKind::Io, what)?.to_vec()))
}
