//! One POST of JSON to a webhook (HTTP/1.1, RFC 9112), over clear text or TLS with a verified name and chain.
//!
//! Rules that always hold:
//! - one request, one connection, one time limit over all of it: name, connection, TLS, answer;
//! - a redirection is not followed: it would send words about this relay to a place nobody wrote down;
//! - the URL's path and query, which may hold a secret, appear in no error.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Means;
use super::options::Target;

/// For the whole of it. A webhook that takes longer is tried once more, later.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(15);
/// For one address of several.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Of the answer's header; the rest is not read.
const ANSWER_MAX: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("no answer within {} s", TIME_LIMIT.as_secs())]
    Late,
    #[error("its name cannot be looked up: {0}")]
    Name(String),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be built: {0}")]
    Request(String),
    #[error("it answered {0}")]
    Status(StatusCode),
}

impl PostError {
    /// May the same succeed a little later?
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            PostError::Status(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
            PostError::Request(_) => false,
            _ => true,
        }
    }
}

/// Sends `json`; any 2xx is success.
pub(super) async fn post<M: Means>(
    target: &Target,
    json: String,
    means: &M,
    tls: &TlsConnector,
) -> Result<(), PostError> {
    timeout(TIME_LIMIT, Box::pin(exchange(target, json, means, tls))).await.map_err(|_| PostError::Late)?
}

async fn exchange<M: Means>(target: &Target, json: String, means: &M, tls: &TlsConnector) -> Result<(), PostError> {
    let stream = connect(target, means).await?;
    let request = Request::post(&target.path)
        .header(header::HOST, target.place())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(json)
        .map_err(|error| PostError::Request(error.to_string()))?;
    let status = if target.is_tls {
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| PostError::Tls(std::io::Error::other("the host is no name that a certificate can hold")))?;
        let stream = tls.connect(name, stream).await.map_err(PostError::Tls)?;
        speak(stream, request).await?
    } else {
        speak(stream, request).await?
    };
    if status.is_success() { Ok(()) } else { Err(PostError::Status(status)) }
}

async fn connect<M: Means>(target: &Target, means: &M) -> Result<TcpStream, PostError> {
    let addresses = match target.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => means.addresses(&target.host).await.map_err(PostError::Name)?,
    };
    let mut last = "its name has no address".to_string();
    for address in addresses {
        match timeout(CONNECT_TIME, TcpStream::connect(SocketAddr::new(address, target.port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer within {} s", CONNECT_TIME.as_secs()),
        }
    }
    Err(PostError::Connect(last))
}

/// Sends the request and reads the answer's status. The connection works as long as the answer is waited for.
async fn speak<S>(stream: S, request: Request<String>) -> Result<StatusCode, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(ANSWER_MAX).handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer?.status()),
            // Whatever ended it, the answer says so.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

/// TLS that trusts the public authorities and checks the name.
pub(super) fn tls(provider: Arc<rustls::crypto::CryptoProvider>) -> Result<TlsConnector, rustls::Error> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
