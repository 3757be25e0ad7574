//! Which GeoServer this is.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

use super::client::GeoServer;
use super::json;

/// A GeoServer's version, ordered as releases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 2 in 2.26.1.
    pub major: u32,
    /// 26 in 2.26.1.
    pub minor: u32,
    /// 1 in 2.26.1; 0 for a snapshot, which names none.
    pub patch: u32,
}

impl Version {
    /// The oldest version that this program is made for: what it asks for is answered there, and as it expects.
    const OLDEST: Self = Self { major: 2, minor: 18, patch: 0 };

    /// The first version that forgets the cached columns of a single feature type on request.
    pub(super) const RESETS_ONE_FEATURE_TYPE: Self = Self { major: 2, minor: 22, patch: 0 };

    /// The first version in which the body of a style may be replaced by one of another SLD version
    /// (GEOS-10437). Late patches of older ones can it too, but do not mind being told the version.
    pub(super) const TAKES_SLD_OF_ANOTHER_VERSION: Self = Self { major: 2, minor: 21, patch: 0 };

    /// Reads `2.26.2`, `2.27-SNAPSHOT` and `2.26.2-vendor`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let release = text.trim().split(['-', '+', ' ']).next()?;
        let mut parts = release.split('.').map(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        Some(Self { major, minor, patch: parts.next().flatten().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl GeoServer {
    /// Asks GeoServer for its version; the answer is remembered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] when the credentials are refused, [`ErrorKind::Unreachable`] when nothing
    /// answers, and [`ErrorKind::GeoServer`] when what answers is no GeoServer.
    pub async fn version(&self) -> Result<Version> {
        self.known_version().get_or_try_init(|| self.ask_version()).await.copied()
    }

    /// As [`GeoServer::version`], when this program is made for it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when it is too old, else as [`GeoServer::version`].
    pub async fn supported_version(&self) -> Result<Version> {
        let (version, oldest) = (self.version().await?, Version::OLDEST);
        if version >= oldest {
            return Ok(version);
        }
        let message = format!("GeoServer {version} is too old: {}.{} or newer is needed", oldest.major, oldest.minor);
        Err(Error::new(ErrorKind::Unsupported, message)
            .subject(self.name())
            .hint("upgrade GeoServer; until then layers may stay unpublished, or be drawn with an old style"))
    }

    async fn ask_version(&self) -> Result<Version> {
        let answer = self.get("about/version.json").await?;
        if answer.is_missing() {
            return Err(answer
                .error("the address is not that of a GeoServer's REST interface")
                .hint("set GEOSERVER_URL to the web application's root, as in http://host:8080/geoserver"));
        }
        let document = answer.json("ask for the version")?;
        json::many(&document["about"]["resource"])
            .iter()
            .find(|resource| resource["@name"] == "GeoServer")
            .and_then(|resource| Version::parse(&json::text(&resource["Version"])))
            .ok_or_else(|| {
                Error::new(ErrorKind::GeoServer, "the version that is answered cannot be read")
                    .subject(self.name())
                    .hint("set GEOSERVER_URL to the web application's root, as in http://host:8080/geoserver")
            })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::geoserver::Endpoint;

    /// A GeoServer that answers one request, with its version.
    fn server_of(version: &str) -> GeoServer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/geoserver", listener.local_addr().unwrap()).parse().unwrap();
        let body =
            format!("{{\"about\": {{\"resource\": [{{\"@name\": \"GeoServer\", \"Version\": \"{version}\"}}]}}}}");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        });
        let time_limit = std::time::Duration::from_secs(10);
        GeoServer::new(Endpoint { url, username: "admin".into(), password: "x".into(), time_limit }).unwrap()
    }

    #[tokio::test]
    async fn one_that_is_too_old_is_told_with_what_is_needed() {
        let old = server_of("2.9.4");
        let error = old.supported_version().await.unwrap_err();
        insta::assert_snapshot!(error.paragraph().replace(old.name(), "<server>"), @"
        Error: <server>: GeoServer 2.9.4 is too old: 2.18 or newer is needed
          Hint: upgrade GeoServer; until then layers may stay unpublished, or be drawn with an old style
        ");
        for enough in ["2.18-SNAPSHOT", "2.18.0", "3.0"] {
            assert_eq!(server_of(enough).supported_version().await.ok(), Version::parse(enough), "{enough}");
        }
    }

    #[test]
    fn versions_are_read_and_ordered_as_releases() {
        let read = |text: &str| Version::parse(text).unwrap();
        assert_eq!(read("2.26.2").to_string(), "2.26.2");
        assert_eq!(read("2.27-SNAPSHOT"), Version { major: 2, minor: 27, patch: 0 });
        assert_eq!(read("2.26.2-ENTERPRISE"), read("2.26.2"));
        assert!(read("2.9.4") < read("2.22.0"));
        assert!(read("2.100") > Version::RESETS_ONE_FEATURE_TYPE);
        assert!(Version::parse("GeoServer").is_none());
        assert!(Version::parse("2").is_none());
    }
}
