//! What happens on the way: lost connections, gateways, servers that are silent.

use borg_slave::error::ErrorKind;
use borg_slave::geoserver::RequestCount;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::{client, geo};

/// A server that takes one connection after the other and does with each what `answers` says: an
/// answer, or None to hang up.
async fn scripted(answers: Vec<Option<&'static str>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/geoserver", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    url
}

const NOT_READY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const ABOUT: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
                     {\"about\":{\"resource\":[{\"@name\":\"GeoServer\",\"Version\":\"2.25.1\"}]}}";
const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const ABSENT: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn reads_are_repeated_over_lost_connections_and_gateways() {
    let url = scripted(vec![None, Some(NOT_READY), Some(ABOUT)]).await;
    let server = client(&url, "admin", "geoserver", Duration::from_secs(20));
    assert_eq!(server.version().await.unwrap().to_string(), "2.25.1");
    assert_eq!(server.requests(), RequestCount { reads: 3, writes: 0 });
}

#[tokio::test]
async fn a_creation_that_may_have_arrived_is_not_repeated() {
    let url = scripted(vec![Some(ABSENT), None, Some(CREATED)]).await;
    let server = client(&url, "admin", "geoserver", Duration::from_secs(20));
    let error = server.ensure_workspace(&geo("kmi"), "http://kmi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(server.requests(), RequestCount { reads: 1, writes: 1 });
}

#[tokio::test]
async fn a_silent_server_is_left_after_the_time_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/geoserver", listener.local_addr().unwrap());
    let server = client(&url, "admin", "hunter2", Duration::from_millis(300));
    let error = server.version().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let told = error.paragraph();
    assert!(told.contains("within 0.3 s") && told.contains("lock"), "{told}");
    assert_eq!(server.requests().reads, 1, "what hangs is not asked again at once");
    assert!(!format!("{told} {error:?}").contains("hunter2"));

    drop(listener);
    let error = server.version().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.paragraph().contains("GEOSERVER_URL"), "{}", error.paragraph());
}
