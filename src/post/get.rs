//! Gets one small document, with nothing kept of the connection.

use std::net::IpAddr;
use std::time::Duration;

use hyper::{Request, header};
use tokio::time::timeout;

use super::client::{Client, PostError, Tls};
use super::{Names, Target};

/// What is to be had where, and how much of it in which time.
pub struct Wanted<'a> {
    pub target: &'a Target,
    /// Over all of it.
    pub time_limit: Duration,
    /// A longer one is an error.
    pub octets_max: usize,
}

/// A document as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The field Content-Type.
    pub content_type: Option<String>,
    pub content: Vec<u8>,
}

/// Gets a document; any answer but 200 is an error. `may_reach` says of an address why it must not be spoken to.
pub async fn get<N: Names>(
    tls: &Tls,
    wanted: &Wanted<'_>,
    names: &N,
    may_reach: impl Fn(IpAddr) -> Result<(), String> + Send + Sync,
) -> Result<Document, PostError> {
    let got = Box::pin(exchange(tls, wanted, names, may_reach));
    timeout(wanted.time_limit, got).await.map_err(|_| PostError::Late(wanted.time_limit))?
}

async fn exchange<N: Names>(
    tls: &Tls,
    wanted: &Wanted<'_>,
    names: &N,
    may_reach: impl Fn(IpAddr) -> Result<(), String> + Send + Sync,
) -> Result<Document, PostError> {
    let request = Request::get(&wanted.target.path)
        .header(header::HOST, wanted.target.authority())
        .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| PostError::Request(error.to_string()))?;
    let mut open = Client::new(tls.clone()).connect(wanted.target, names, may_reach).await?;
    let answer = open.speak(request).await?;
    let status = answer.status();
    if status != hyper::StatusCode::OK {
        return Err(PostError::Status { status, retry_after: None });
    }
    let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_string);
    let (mut body, mut content) = (answer.into_body(), Vec::new());
    while let Some(piece) = open.frame(&mut body).await {
        content.extend_from_slice(&piece?);
        if content.len() > wanted.octets_max {
            return Err(PostError::Long(wanted.octets_max));
        }
    }
    Ok(Document { content_type, content })
}
