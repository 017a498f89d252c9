//! The smallest HTTP client that reaches a side door: one request, one connection, loopback only.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long one call may take: longer than the longest long poll of a side door.
pub const CALL_SECONDS_MAX: u64 = 120;

/// Why a call got no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nothing listens there, or the connection broke.
    #[error("no stand-in answers at {address}")]
    Unreachable {
        /// Whom we called.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("the stand-in did not answer within {CALL_SECONDS_MAX} s")]
    Late,
    /// What came back is no HTTP answer.
    #[error("the answer is not HTTP")]
    Garbled,
}

/// Sends one request and returns the status and the body, parsed if it is JSON, else as text.
pub async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), CallError> {
    let body = body.map(Value::to_string).unwrap_or_default();
    // HTTP/1.0: the answer ends with the connection, so there are no chunks to take apart.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = tokio::time::timeout(Duration::from_secs(CALL_SECONDS_MAX), exchange(address, request.as_bytes()));
    let answer = answer
        .await
        .map_err(|_elapsed| CallError::Late)?
        .map_err(|source| CallError::Unreachable { address, source })?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(CallError::Garbled)?;
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or(CallError::Garbled)?;
    Ok((status, serde_json::from_str(body).unwrap_or_else(|_text| Value::from(body))))
}

async fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}
