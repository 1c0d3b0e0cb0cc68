//! The event log, the newest first, in pages.

use axum::body::Body;
use axum::http::{Response, Uri};
use axum::routing::get;

use super::answer::{Refused, json};
use super::means::Means;
use super::queue::{Paging, paging};
use super::routes::{At, Routes};
use super::status::query;
use crate::event::Choice;
use crate::types::{AddressPattern, EventKind, Timestamp};

pub(super) fn routes<M: Means>(routes: &mut Routes) {
    routes.add(&["GET"], "/api/v1/events", get(list::<M>));
}

async fn list<M: Means>(site: At<M>, uri: Uri) -> Result<Response<Body>, Refused> {
    let Paging { limit, from: before, words } = paging(query(&uri)?, "before")?;
    let mut asked = Choice::default();
    for (name, text) in words.into_iter().filter(|(_, text)| !text.is_empty()) {
        match name.as_str() {
            "kind" => asked.kinds = text.split(',').map(kind).collect::<Result<_, _>>()?,
            "provider" => asked.provider = Some(text),
            "recipient" => asked.recipient = Some(address(&name, &text)?),
            "sender" => asked.sender = Some(address(&name, &text)?),
            "id" => asked.ids = text.split(',').map(super::queue::id).collect::<Result<_, _>>()?,
            "message_id" => asked.message_id = Some(text),
            "user" => asked.user = Some(text),
            "since" => asked.since = Some(time(&name, &text)?),
            "until" => asked.until = Some(time(&name, &text)?),
            _ => {
                return Err(Refused::bad(format!(
                    "`{}` is no condition: kind provider recipient sender id message_id user since until",
                    name.escape_debug()
                )));
            }
        }
    }
    let page = site.means.events(asked, before, limit).await?;
    let next = serde_json::to_string(&page.next).unwrap_or_else(|_| "null".into());
    Ok(json(format!("{{\"items\":[{}],\"next\":{next}}}", page.lines.join(","))))
}

fn kind(text: &str) -> Result<EventKind, Refused> {
    text.trim().parse().map_err(|_| {
        let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        Refused::bad(format!("kind: `{}` is none of {}", text.escape_debug(), known.join(" ")))
    })
}

fn address(name: &str, text: &str) -> Result<AddressPattern, Refused> {
    text.parse()
        .map_err(|error| Refused::bad(format!("{name}: {error} (an address, or @domain for all addresses there)")))
}

fn time(name: &str, text: &str) -> Result<Timestamp, Refused> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| Refused::bad(format!("{name}: a time as in 2026-11-30T08:25:00Z")))
}
