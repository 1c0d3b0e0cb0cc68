//! `POST /api/v1/feedback`: takes one bounce, complaint or wish to unsubscribe, as a message.

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use axum::routing::post;
use serde::Deserialize;

use super::answer::{Refused, json};
use super::body;
use super::means::Means;
use super::messages::Caller;
use super::routes::{At, Routes};
use super::status::query;
use crate::types::Mailbox;

pub(super) fn routes<M: Means>(routes: &mut Routes) {
    routes.add(&["POST"], "/api/v1/feedback", post(take::<M>));
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Envelope {
    recipient: Option<Mailbox>,
}

async fn take<M: Means>(
    site: At<M>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    mut order: Body,
) -> Result<Response<Body>, Refused> {
    let means = &*site.means;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !["message/rfc822", "application/octet-stream"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        let text = "send the message as it came, with the header `Content-Type: message/rfc822`";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let Envelope { recipient } = query(&uri)?;
    let size_max = usize::try_from(means.message_size_max()).unwrap_or(usize::MAX);
    let message = body::whole(&mut order, size_max).await?;
    let record = means.feedback(message, recipient, caller.client).await?;
    Ok(json(serde_json::to_string(&record).unwrap_or_default()))
}
