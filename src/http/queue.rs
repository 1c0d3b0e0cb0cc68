//! The queue: pages of it, one message's story, and orders for many.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{Response, Uri};
use axum::routing::{get, post};
use serde_json::{Map, Value, json as value};

use super::answer::{Refused, json};
use super::means::Means;
use super::routes::{At, Routes};
use super::status::query;
use super::{ask, body};
use crate::admin::{Action, Filter, Request};
use crate::event::Choice;
use crate::types::{QueueId, Timestamp};

/// Items of a page, if nobody says how many; and at most.
const PAGE: usize = 50;
pub(super) const PAGE_MAX: usize = 500;
/// Events of one message's story, the newest.
const STORY_MAX: usize = 500;
const CLOCK_STEP_MILLIS: i64 = 60_000;

pub(super) fn routes<M: Means>(routes: &mut Routes) {
    routes.add(&["GET"], "/api/v1/queue", get(list::<M>));
    // Names of orders are no queue ids: both can stand here.
    routes.add(&["GET", "POST"], "/api/v1/queue/{id}", get(show::<M>).merge(post(order::<M>)));
}

/// What a page is asked for.
pub(super) struct Paging {
    pub(super) limit: usize,
    /// Where it begins; none: at the beginning.
    pub(super) from: Option<String>,
    /// The conditions.
    pub(super) words: BTreeMap<String, String>,
}

pub(super) fn paging(mut asked: BTreeMap<String, String>, anchor: &str) -> Result<Paging, Refused> {
    let limit = match asked.remove("limit") {
        None => PAGE,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=PAGE_MAX) => limit,
            _ => return Err(Refused::bad(format!("limit: a number from 1 to {PAGE_MAX}"))),
        },
    };
    let from = asked.remove(anchor);
    Ok(Paging { limit, from, words: asked })
}

/// The filter that the words of a query mean; those that are empty mean nothing.
pub(super) fn filter<T: serde::de::DeserializeOwned>(words: BTreeMap<String, String>) -> Result<T, Refused> {
    let given = words.into_iter().filter(|(_, text)| !text.is_empty());
    let map: Map<String, Value> = given.map(|(name, text)| (name, Value::String(text))).collect();
    serde_json::from_value(Value::Object(map)).map_err(|error| Refused::bad(error.to_string()))
}

async fn list<M: Means>(site: At<M>, uri: Uri) -> Result<Response<Body>, Refused> {
    let Paging { limit, from: after, mut words } = paging(query(&uri)?, "after")?;
    let ids = words.remove("id").filter(|text| !text.is_empty());
    let mut filter: Filter = filter(words)?;
    if let Some(ids) = ids {
        filter.ids = ids.split(',').map(id).collect::<Result<_, _>>()?;
    }
    let page = site.means.queue_page(filter, after, limit).await?;
    Ok(json(value!(page).to_string()))
}

pub(super) fn id(text: &str) -> Result<QueueId, Refused> {
    text.trim().parse().map_err(|error| Refused::bad(format!("`{}` is no queue id: {error}", text.escape_debug())))
}

async fn show<M: Means>(site: At<M>, Path(text): Path<String>) -> Result<Response<Body>, Refused> {
    let id = id(&text)?;
    let deliveries = site.means.queue_message(id).await?;
    // Nothing is told of a message before it was there, but for clocks that are set.
    let since = Timestamp::from_millis(id.received().millis() - CLOCK_STEP_MILLIS);
    let asked = Choice { ids: [id].into(), since: Some(since), ..Choice::default() };
    let mut events = site.means.events(asked, None, STORY_MAX).await?;
    let headers = site.means.header(id).await?;
    if deliveries.is_empty() && events.lines.is_empty() {
        return Err(Refused::not_found(format!("neither the queue nor the event log knows {id}")));
    }
    // A story is told from its beginning.
    events.lines.reverse();
    let (deliveries, headers) = (value!(deliveries), value!(headers));
    Ok(json(format!("{{\"deliveries\":{deliveries},\"events\":[{}],\"headers\":{headers}}}", events.lines.join(","))))
}

/// `POST /api/v1/queue/{flush,hold,release,bounce,remove,reroute}`
async fn order<M: Means>(site: At<M>, Path(name): Path<String>, order: Body) -> Result<Response<Body>, Refused> {
    let reroute = name == "reroute";
    let action = name.parse::<Action>().ok();
    if action.is_none() && !reroute {
        return Err(Refused::not_found("orders for the queue: flush, hold, release, bounce, remove, reroute"));
    }
    let mut given: Map<String, Value> = body::json(order).await?;
    let (dry_run, all) = (switch(&mut given, "dry_run")?, switch(&mut given, "all")?);
    let to = given.remove("to");
    let filter: Filter =
        serde_json::from_value(Value::Object(given)).map_err(|error| Refused::bad(error.to_string()))?;
    if filter.is_everything() != all {
        return Err(Refused::bad(match all {
            true => "`all` goes with no other condition: say either which messages, or all",
            false => "say which messages are meant (ids, domain, sender, …), or give `\"all\": true`",
        }));
    }
    if dry_run {
        let counted = site.means.queue_count(filter).await?;
        let note = counted.at_least.then_some("there are more: counting them all would take long");
        let answer =
            value!({ "messages": counted.messages, "recipients": counted.recipients, "note": note, "dry_run": true });
        return Ok(json(answer.to_string()));
    }
    let request = match (action, to) {
        (Some(action), None) => Request::QueueAct { action, filter, progress: false },
        (None, Some(to)) => {
            let to = serde_json::from_value(to).map_err(|error| Refused::bad(format!("to: {error}")))?;
            Request::QueueReroute { filter, to, progress: false }
        }
        (None, None) => return Err(Refused::bad("to: HOST:PORT, where they go from now on")),
        (Some(_), Some(_)) => return Err(Refused::bad("`to` goes with reroute alone")),
    };
    ask::one(&*site.means, request).await
}

/// A switch in a body; absent: off.
fn switch(given: &mut Map<String, Value>, name: &str) -> Result<bool, Refused> {
    match given.remove(name) {
        None => Ok(false),
        Some(Value::Bool(is_on)) => Ok(is_on),
        Some(_) => Err(Refused::bad(format!("{name}: true or false"))),
    }
}
