//! `[http]`: the page, the API, the metrics and the probes, on one port.
//!
//! `access` says who may ask, `connections` how many; `routes` knows every path; each of the other files answers some of them.
//! What is asked goes to [`Means`], which knows the relay. Rules that always hold:
//!
//! - whatever goes wrong here touches no mail: the port may be taken, clients may hang, handlers may fail;
//! - everything has a limit: connections, fields, bodies, the time of each read, what is looked at for one answer;
//! - nothing is done for a GET, and nothing for a page of somebody else's, but what a token of a message is the right to;
//! - words from outside are data in JSON: no page is ever put together from them.

mod access;
mod answer;
mod ask;
mod body;
mod click;
mod connections;
mod events;
mod feedback;
mod live;
mod means;
mod messages;
pub mod options;
mod page;
mod probes;
mod queue;
mod routes;
mod status;
mod suppressions;
#[cfg(test)]
mod tests;
pub mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use means::{Clicked, Counted, EventPage, Means, Page, StandingAlert};

use connections::Connections;
use routes::Site;

/// How long the fields of a request may take, and how long a connection may say nothing between two requests.
const HEADER_TIME: Duration = Duration::from_secs(20);
const HEADER_MAX: usize = 32 << 10;
const FIELDS_MAX: usize = 64;
/// Until the port is tried again that somebody else has.
const BIND_AGAIN: Duration = Duration::from_secs(10);
/// After a failed accept (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop`. A port that cannot be had is told of and tried again: the mail goes on without.
pub async fn serve<M: Means>(
    address: SocketAddr,
    options: options::Http,
    token: String,
    means: Arc<M>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let site = Arc::new(Site::new(&options, &token, means));
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                if let Ok(address) = listener.local_addr() {
                    tracing::info!(target: "weir", "page, API and metrics on http://{address}/");
                }
                return accept(listener, site, tasks, stop).await;
            }
            Err(error) if !is_told => {
                is_told = true;
                tracing::error!(
                    "http.address: there is no port at {address} to be had ({error}): free it or set another; mail goes on, and it is tried again"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BIND_AGAIN) => {}
        }
    }
}

async fn accept<M: Means>(listener: TcpListener, site: Arc<Site<M>>, tasks: TaskTracker, stop: CancellationToken) {
    let connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "http: accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Whoever finds all places taken takes that of who has been idle longest; where nobody is idle it is let go.
        let Some(place) = connections.enter(site.now()) else { continue };
        let _ = stream.set_nodelay(true);
        let (site, stop) = (site.clone(), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(|request| {
                let (site, stop, busy) = (site.clone(), stop.clone(), place.begin());
                async move {
                    let answer = Box::pin(site.answer(request, peer.ip(), stop)).await;
                    Ok::<_, std::convert::Infallible>(answer.map(|body| busy.until_sent(body)))
                }
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(HEADER_MAX)
                .max_headers(FIELDS_MAX);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                biased;
                () = place.asked_to_leave() => {}
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(ACCEPT_PAUSE, connection).await;
                }
                end = connection.as_mut() => if let Err(error) = end {
                    tracing::debug!(%error, "http: connection ended");
                },
            }
        });
    }
}
