//! Purges of the CDN, against a server that answers what the test has written down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use borg_slave::cdn::{Cdn, CdnOptions};
use borg_slave::error::ErrorKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

const TOKEN: &str = "t0p-s3cret";
const OK: &str = r#"200 {"status": "ok", "id": "108-1391560174-974124"}"#;

/// Answers each path from its own list, `status body`; an empty answer hangs up. The last is repeated.
struct Server {
    url: String,
    /// The head of every request, as it came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: &[(&str, &[&'static str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::default();
        let seen: Arc<Mutex<Vec<String>>> = Arc::clone(&heads);
        let answers: HashMap<String, Vec<&'static str>> =
            answers.iter().map(|(key, list)| ((*key).to_owned(), list.iter().rev().copied().collect())).collect();
        let answers = Arc::new(Mutex::new(answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&answers), Arc::clone(&seen)));
            }
        });
        Self { url, heads }
    }

    fn urls(&self, keys: &[&str]) -> Vec<Url> {
        keys.iter().map(|key| format!("{}/service/SU1/purge/{key}", self.url).parse().unwrap()).collect()
    }

    fn count(&self, key: &str) -> usize {
        let line = format!("POST /service/SU1/purge/{key} ");
        self.heads.lock().unwrap().iter().filter(|head| head.starts_with(&line)).count()
    }
}

async fn answer(
    mut stream: TcpStream,
    answers: Arc<Mutex<HashMap<String, Vec<&'static str>>>>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let answer = {
        let mut answers = answers.lock().unwrap();
        let list = answers.get_mut(path.rsplit('/').next().unwrap()).unwrap();
        if list.len() > 1 { list.pop().unwrap() } else { list[0] }
    };
    seen.lock().unwrap().push(head);
    if answer == "silence" {
        std::future::pending::<()>().await;
    }
    if let Some((status, body)) = answer.split_once(' ') {
        let text = format!(
            "HTTP/1.1 {status} X\r\nretry-after: 0\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

fn cdn(soft: bool) -> Cdn {
    Cdn::new(CdnOptions { token: TOKEN.into(), soft, time_limit: Duration::from_secs(5) }).unwrap()
}

#[tokio::test]
async fn every_key_is_purged_with_the_token_softly_when_told() {
    let server = Server::start(&[("a", &[OK]), ("kmi%3Aroads", &[OK])]).await;
    cdn(true).purge(&server.urls(&["a", "kmi%3Aroads"])).await.unwrap();
    assert_eq!((server.count("a"), server.count("kmi%3Aroads")), (1, 1));
    let lower = |head: &String| head.to_lowercase();
    let soft: Vec<String> = server.heads.lock().unwrap().drain(..).map(|head| lower(&head)).collect();
    assert!(soft.iter().all(|head| head.contains("fastly-key: t0p-s3cret") && head.contains("fastly-soft-purge: 1")));
    cdn(false).purge(&server.urls(&["a"])).await.unwrap();
    assert!(!lower(&server.heads.lock().unwrap()[0]).contains("soft-purge"));
    cdn(false).purge(&[]).await.unwrap();
}

#[tokio::test]
async fn disturbances_are_repeated_and_refusals_are_not_while_all_keys_are_tried() {
    let server = Server::start(&[
        ("busy", &["503 <html>", "429 {\"msg\":\"Too many requests\"}", "", OK]),
        ("unknown", &["404 {\"msg\":\"Record not found\",\"detail\":\"Cannot find service 'SU1'\"}"]),
        ("last", &[OK]),
    ])
    .await;
    let error = cdn(true).purge(&server.urls(&["unknown", "busy", "last"])).await.unwrap_err();
    assert_eq!((server.count("busy"), server.count("unknown"), server.count("last")), (4, 1, 1));
    insta::assert_snapshot!(error.paragraph().replace(&server.url, "http://cdn"), @r"
        Error: http://cdn/service/SU1/purge/unknown: the CDN does not know what is to be purged: the CDN answers 404: Record not found; Cannot find service 'SU1'
          Hint: check FASTLY_PURGE_URL and FASTLY_SERVICEID
        ");
    assert_eq!(error.kind(), ErrorKind::Cdn);
}

#[tokio::test]
async fn what_stays_disturbed_is_told() {
    let server = Server::start(&[("down", &["500 {\"msg\":\"Internal error\"}"]), ("more", &["503 x"])]).await;
    let error = cdn(true).purge(&server.urls(&["down"])).await.unwrap_err();
    assert_eq!(server.count("down"), 4);
    assert!(error.message().contains("500: Internal error"), "{}", error.paragraph());
    let both = cdn(true).purge(&server.urls(&["down", "more"])).await.unwrap_err();
    assert!(both.message().contains("purge/down") && both.message().contains("purge/more"), "{}", both.paragraph());
}

#[tokio::test]
async fn a_refused_token_is_denied_and_never_shown() {
    let refusal = "401 {\"msg\":\"Provided credentials are missing or invalid\"}";
    let server = Server::start(&[("a", &["500 x"]), ("b", &[refusal])]).await;
    let error = cdn(true).purge(&server.urls(&["b"])).await.unwrap_err();
    assert_eq!((error.kind(), server.count("b")), (ErrorKind::Denied, 1));
    assert!(error.hint_text().unwrap().contains("FASTLY_API_TOKEN"));
    let error = cdn(true).purge(&server.urls(&["a", "b"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!format!("{} {error:?}", error.paragraph()).contains(TOKEN));
}

#[tokio::test]
async fn a_silent_and_an_absent_cdn_are_unreachable() {
    let server = Server::start(&[("a", &["silence"])]).await;
    let options = CdnOptions { token: TOKEN.into(), soft: false, time_limit: Duration::from_millis(300) };
    let error = Cdn::new(options.clone()).unwrap().purge(&server.urls(&["a"])).await.unwrap_err();
    assert_eq!((error.kind(), server.count("a")), (ErrorKind::Unreachable, 1), "{}", error.paragraph());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let absent = format!("http://127.0.0.1:{port}/purge/x").parse().unwrap();
    let error = Cdn::new(options).unwrap().purge(&[absent]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.message().contains("cannot connect"), "{}", error.paragraph());
}
