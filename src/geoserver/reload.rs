//! Reading the data directory again, when another GeoServer that shares it has changed it.

use crate::error::Result;

use super::client::GeoServer;

impl GeoServer {
    /// Makes GeoServer read its data directory again. Maps fail while it does so: some hundred
    /// milliseconds, seconds with thousands of layers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GeoServer`](crate::error::ErrorKind::GeoServer) when GeoServer refuses;
    /// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable) and
    /// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) as for every request.
    pub async fn reload(&self) -> Result<()> {
        self.forget().await;
        self.send(reqwest::Method::PUT, "reload", None).await?.ok("read the data directory again").map(drop)
    }
}
