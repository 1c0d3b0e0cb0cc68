//! Bodies: read with a limit of octets and of time, and streamed as they come.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Frame};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::answer::Refused;
use axum::http::StatusCode;

/// Orders of an operator: some thousands of ids.
pub(super) const ORDER_MAX: usize = 1 << 20;
/// How long the next octets of a body may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a small body may take as a whole.
const WHOLE_TIME: Duration = Duration::from_secs(60);

/// The next octets of a body; none at its end.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, Refused> {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let frame = tokio::time::timeout(PATIENCE, frame).await.map_err(|_| late())?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                // Trailers say nothing to us.
                Err(_) => continue,
            },
            Some(Err(_)) => return Err(Refused::bad("the body was cut off: send the request again")),
        }
    }
}

fn late() -> Refused {
    Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time: send the request again")
}

/// The whole of a body of at most so many octets.
pub(super) async fn whole(body: &mut Body, max: usize) -> Result<Bytes, Refused> {
    let read = async {
        let mut all = BytesMut::new();
        while let Some(data) = next(body).await? {
            if all.len() + data.len() > max {
                return Err(Refused::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is larger than {max} octets"),
                ));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    };
    let time = WHOLE_TIME + Duration::from_secs(max as u64 / 100_000);
    tokio::time::timeout(time, read).await.map_err(|_| late())?
}

/// A body of JSON; an empty one counts as `{}`.
pub(super) async fn json<T: DeserializeOwned>(mut body: Body) -> Result<T, Refused> {
    let octets = whole(&mut body, ORDER_MAX).await?;
    let text: &[u8] = if octets.is_empty() { b"{}" } else { &octets };
    serde_json::from_slice(text)
        .map_err(|error| Refused::bad(format!("the body is not the JSON that is wanted here: {error}")))
}

/// A body that is sent as it comes.
pub(super) struct Stream(mpsc::Receiver<Bytes>);

/// Where a streamed body is fed; it ends when this is dropped. Pieces in flight at most.
pub(super) fn stream(pieces: usize) -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(pieces);
    (sender, Body::new(Stream(receiver)))
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        self.0.poll_recv(context).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// A streamed body and the work that feeds it: they end together, and nothing goes on for an answer that nobody reads.
pub(super) fn with_work(body: Body, work: impl Future<Output = ()> + Send + 'static) -> Body {
    Body::new(Worked { body, work: Some(Box::pin(work)) })
}

struct Worked {
    body: Body,
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl hyper::body::Body for Worked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(work) = &mut self.work
            && work.as_mut().poll(context).is_ready()
        {
            self.work = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}
