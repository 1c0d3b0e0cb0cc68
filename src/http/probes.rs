//! `/healthz`, `/readyz`, `/metrics`: open to all who reach the port, by whatever name.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;

use super::means::Means;
use crate::metrics::CONTENT_TYPE;

/// A relay that says nothing for so long is not alive.
const ALIVE_TIME: Duration = Duration::from_secs(10);
/// How long a page of metrics may take.
const METRICS_TIME: Duration = Duration::from_secs(10);

/// The answer to a probe; none: the path is none of theirs.
pub(super) async fn answer<M: Means>(means: &M, path: &str) -> Option<Response<Body>> {
    Some(match path {
        "/healthz" => healthz(means).await,
        "/readyz" => readyz(means).await,
        "/metrics" => metrics(means).await,
        _ => return None,
    })
}

/// Alive: restart it if not. A full disk or a receiver's block is no reason to.
async fn healthz<M: Means>(means: &M) -> Response<Body> {
    match tokio::time::timeout(ALIVE_TIME, means.relay()).await {
        Ok(Ok(_)) => text(StatusCode::OK, "ok"),
        // Stopping, and still alive.
        Ok(Err(_)) => text(StatusCode::OK, "stopping"),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the relay does not answer"),
    }
}

/// Ready for mail: send it elsewhere if not.
async fn readyz<M: Means>(means: &M) -> Response<Body> {
    if means.is_stopping() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "weir is stopping");
    }
    match tokio::time::timeout(ALIVE_TIME, means.relay()).await {
        Ok(Ok(relay)) if relay.ready => text(StatusCode::OK, "ready"),
        Ok(Ok(relay)) => text(StatusCode::SERVICE_UNAVAILABLE, &relay.problems.join("\n")),
        Ok(Err(_)) => text(StatusCode::SERVICE_UNAVAILABLE, "weir is stopping"),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the relay does not answer"),
    }
}

async fn metrics<M: Means>(means: &M) -> Response<Body> {
    match tokio::time::timeout(METRICS_TIME, means.metrics()).await {
        Ok(Ok(page)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Ok(Err(failed)) => text(StatusCode::SERVICE_UNAVAILABLE, &failed.0),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the relay does not answer"),
    }
}

fn text(status: StatusCode, words: &str) -> Response<Body> {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{words}\n")).into_response()
}
