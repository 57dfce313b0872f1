//! Whether a connection comes about.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::plain;

/// Connects, and closes.
pub(super) async fn connect(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect(address).await.map(drop).map_err(|error| plain(&error))
}
