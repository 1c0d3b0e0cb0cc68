//! `POST /api/v1/messages`: hands a message in, as SMTP would.
//!
//! A user's token or password opens this path and no other. The answer comes when the message is safe on disk, with one line for
//! each recipient.

use std::net::IpAddr;

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;

use super::answer::{Refused, json};
use super::body;
use super::means::Means;
use super::routes::{At, Routes};
use super::status::query;
use crate::submit::keys::{Begun, Mark, Ticket, mark};
use crate::submit::{Form, NotTaken, RecipientAnswer, Submission, Submitted, raw};

pub(super) const PATH: &str = "/api/v1/messages";
/// A key as clients make them.
const KEY_MAX: usize = 255;
/// Recipients of one request.
const RECIPIENTS_MAX: usize = 1000;

/// Who hands in, and from where.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// None: the operator.
    pub(super) user: Option<String>,
    pub(super) client: IpAddr,
}

pub(super) fn routes<M: Means>(routes: &mut Routes) {
    routes.add(&["POST"], PATH, post(submit::<M>));
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Envelope {
    from: Option<String>,
    to: Option<String>,
}

async fn submit<M: Means>(
    site: At<M>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    mut order: Body,
) -> Result<Response<Body>, Refused> {
    let means = &*site.means;
    let key =
        key(&headers)?.map(|text| mark(&[caller.user.as_deref().unwrap_or_default().as_bytes(), text.as_bytes()]));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_raw = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("message/rfc822"));
    let size_max = usize::try_from(means.message_size_max()).unwrap_or(usize::MAX);
    // Attachments are a third longer in base64.
    let body_max =
        if is_raw { size_max } else { size_max.saturating_add(size_max / 2).saturating_add(body::ORDER_MAX) };
    let content = body::whole(&mut order, body_max).await?;
    let body_mark = mark(&[uri.query().unwrap_or_default().as_bytes(), &content]);
    let message = if is_raw { given(means, &uri, content, key)? } else { composed(means, &content, key)? };
    if message.recipients.len() > RECIPIENTS_MAX {
        return Err(Refused::bad(format!(
            "at most {RECIPIENTS_MAX} recipients in one request: send the others in another"
        )));
    }
    let Some(key) = key else { return answered(hand_in(means, &caller, message).await) };
    match means.begin_key(key, body_mark).await? {
        Begun::Done(answer) => Ok(said(answer)),
        Begun::UnderWay => {
            Err(Refused::new(StatusCode::CONFLICT, "a request with this Idempotency-Key is under way: ask again")
                .retry_after(1))
        }
        Begun::Other => {
            let text = "this Idempotency-Key was used for another request: use a new one for each message";
            Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
        Begun::New(ticket) => keep(hand_in(means, &caller, message).await, ticket).await,
        Begun::Unsure(ticket, since) => {
            let id = message.message_id.clone().unwrap_or_default();
            let done = match means.taken_since(&id, since).await? {
                Some(id) => {
                    let queued = |recipient: &String| RecipientAnswer {
                        recipient: recipient.clone(),
                        status: "queued",
                        reply: format!("250 2.0.0 queued as {id}"),
                    };
                    Ok(Submitted { id: Some(id), recipients: message.recipients.iter().map(queued).collect() })
                }
                None => hand_in(means, &caller, message).await,
            };
            keep(done, ticket).await
        }
    }
}

async fn hand_in<M: Means>(means: &M, caller: &Caller, message: Submission) -> Result<Submitted, NotTaken> {
    means.submit(caller.user.clone(), caller.client, message).await
}

/// Writes down what was answered under a key. What was not taken for now may be tried again under the same key.
async fn keep(done: Result<Submitted, NotTaken>, ticket: Ticket) -> Result<Response<Body>, Refused> {
    let answer = done.as_ref().ok().map(in_words);
    let kept = tokio::task::spawn_blocking(move || match answer {
        Some(answer) => ticket.done(&answer),
        None => ticket.give_up(),
    });
    if let Ok(Err(fault)) = kept.await {
        tracing::warn!("an Idempotency-Key is not written down: {fault}");
    }
    answered(done)
}

/// The answer as it is sent and kept. Where nobody was taken, it says why.
fn in_words(submitted: &Submitted) -> String {
    let mut text = serde_json::to_value(submitted).unwrap_or_default();
    if submitted.id.is_none() {
        let first = submitted.recipients.first().map(|answer| answer.reply.as_str());
        text["error"] = first.unwrap_or("nobody was taken").into();
    }
    text.to_string()
}

fn said(text: String) -> Response<Body> {
    let was_refused = text.contains("\"id\":null");
    let mut answer = json(text);
    if was_refused {
        *answer.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    }
    answer
}

fn answered(done: Result<Submitted, NotTaken>) -> Result<Response<Body>, Refused> {
    match done {
        Ok(submitted) => Ok(said(in_words(&submitted))),
        Err(NotTaken { code, text }) => Err(match code {
            450 => Refused::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(60),
            400..=499 => Refused::unavailable(text).retry_after(60),
            552 => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            550 => Refused::new(StatusCode::FORBIDDEN, text),
            _ => Refused::bad(text),
        }),
    }
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.len() > KEY_MAX {
        return Err(Refused::bad(format!("Idempotency-Key: 1 to {KEY_MAX} visible ASCII characters")));
    }
    Ok(Some(text))
}

fn composed<M: Means>(means: &M, content: &Bytes, key: Option<Mark>) -> Result<Submission, Refused> {
    let form: Form = serde_json::from_slice(content)
        .map_err(|error| Refused::bad(format!("the body is not the JSON that is wanted here: {error}")))?;
    let id = means.message_id(&form.from, key.as_ref());
    form.compose(&id, means.now()).map_err(Refused::bad)
}

fn given<M: Means>(means: &M, uri: &Uri, content: Bytes, key: Option<Mark>) -> Result<Submission, Refused> {
    let Envelope { from, to } = query(uri)?;
    let from = from.ok_or_else(|| Refused::bad("from: the sender, as in ?from=a@example.com&to=b@example.org"))?;
    let bare = |text: &str| text.trim().trim_start_matches('<').trim_end_matches('>').to_string();
    let recipients: Vec<String> =
        to.unwrap_or_default().split(',').map(bare).filter(|address| !address.is_empty()).collect();
    if recipients.is_empty() {
        return Err(Refused::bad("to: the recipients, with commas between them"));
    }
    let sender = bare(&from);
    let id = means.message_id(&sender, key.as_ref());
    Ok(raw(sender, recipients, content, &id))
}
