//! How everything stands: status, providers, orders to lanes, the reading of replies, the plots.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::{Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::{Refused, json};
use super::means::Means;
use super::routes::{At, Routes};
use super::{ask, body};
use crate::admin::Request;
use crate::metrics::history::Span;
use crate::types::{Domain, Timestamp};

/// Lanes in one answer: those with mail or with something to say stand in front.
const LANES_MAX: usize = 1000;
/// A status is as good as new for so long: whoever looks at once shares it.
const FRESH: Duration = Duration::from_millis(900);
/// The description of this API.
const OPENAPI: &str = include_str!("openapi.json");
/// Everything, in the place of a provider.
const EVERYTHING: &str = "*";

pub(super) fn routes<M: Means>(routes: &mut Routes) {
    routes.add(&["GET"], "/api/v1/status", get(status::<M>));
    routes.add(&["GET"], "/api/v1/providers", get(providers::<M>));
    routes.add(&["POST"], "/api/v1/providers/{name}/pause", post(pause::<M>));
    routes.add(&["POST"], "/api/v1/providers/{name}/resume", post(resume::<M>));
    routes.add(&["POST"], "/api/v1/providers/{name}/forget", post(forget::<M>));
    routes.add(&["GET"], "/api/v1/providers/{name}/report", get(report::<M>));
    routes.add(&["POST"], "/api/v1/domains/{name}/pause", post(pause_domain::<M>));
    routes.add(&["POST"], "/api/v1/domains/{name}/resume", post(resume_domain::<M>));
    routes.add(&["GET"], "/api/v1/history", get(history::<M>));
    routes.add(&["GET"], "/api/v1/explain", get(explain::<M>));
    routes.add(&["GET"], "/api/v1/openapi.json", get(|| async { json(OPENAPI.to_string()) }));
}

/// The query of a request; what is wrong with it is said.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refused> {
    Query::<T>::try_from_uri(uri).map(|Query(query)| query).map_err(|error| Refused::bad(error.body_text()))
}

/// The status as it was made last.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<(Timestamp, Arc<Made>)>>);

#[derive(Debug)]
pub(super) struct Made {
    pub(super) text: String,
    /// All but the time: it changed when this did.
    pub(super) facts: String,
}

impl Kept {
    /// The status; made anew when the last one is too old.
    pub(super) async fn get<M: Means>(&self, means: &M) -> Result<Arc<Made>, Refused> {
        let now = means.now();
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, made)) = kept
            && at <= now
            && now.since(at) < FRESH
        {
            return Ok(made);
        }
        let made = Arc::new(make(means, now).await?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, made.clone()));
        Ok(made)
    }
}

async fn make<M: Means>(means: &M, now: Timestamp) -> Result<Made, Refused> {
    let (mut records, is_cut) = ask::records(means, Request::Status, LANES_MAX + 1).await?;
    if records.is_empty() {
        return Err(Refused::unavailable("the relay says nothing of itself: it may be stopping"));
    }
    let relay = records.remove(0);
    let alerts = serde_json::to_string(&means.alerts()).unwrap_or_else(|_| "[]".into());
    let facts = format!(
        "\"relay\":{relay},\"lanes\":[{}],\"lanes_left_off\":{is_cut},\"stopping\":{},\"alerts\":{alerts}}}",
        records.join(","),
        means.is_stopping()
    );
    let time = serde_json::to_string(&now).unwrap_or_default();
    Ok(Made { text: format!("{{\"time\":{time},{facts}"), facts })
}

async fn status<M: Means>(site: At<M>) -> Result<Response<Body>, Refused> {
    Ok(json(site.status.get(&*site.means).await?.text.clone()))
}

async fn providers<M: Means>(site: At<M>) -> Result<Response<Body>, Refused> {
    let (records, _) = ask::records(&*site.means, Request::Status, LANES_MAX + 1).await?;
    let lanes: Vec<serde_json::Value> =
        records.iter().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut items = site.means.profiles();
    for lane in lanes {
        let name = lane["provider"].clone();
        let place = items.iter().position(|item| item["name"] == name);
        let place = place.unwrap_or_else(|| {
            items.push(serde_json::json!({ "name": name, "profile": false, "ceiling": lane["ceiling"], "lanes": [] }));
            items.len() - 1
        });
        let item = &mut items[place];
        for key in ["waiting", "pace", "empty_at"] {
            item[key] = lane[key].clone();
        }
        if let Some(lanes) = item["lanes"].as_array_mut() {
            lanes.push(lane);
        }
    }
    Ok(json(serde_json::json!({ "items": items }).to_string()))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Resume {
    force: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Nothing {}

async fn pause<M: Means>(site: At<M>, Path(provider): Path<String>, order: Body) -> Result<Response<Body>, Refused> {
    body::json::<Nothing>(order).await?;
    let request = if provider == EVERYTHING { Request::PauseAll } else { Request::Pause { provider } };
    ask::one(&*site.means, request).await
}

async fn resume<M: Means>(site: At<M>, Path(provider): Path<String>, order: Body) -> Result<Response<Body>, Refused> {
    let Resume { force } = body::json(order).await?;
    let request =
        if provider == EVERYTHING { Request::ResumeAll { force } } else { Request::Resume { provider, force } };
    ask::one(&*site.means, request).await
}

async fn forget<M: Means>(site: At<M>, Path(provider): Path<String>, order: Body) -> Result<Response<Body>, Refused> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Forget {
        source: Option<String>,
    }
    let Forget { source } = body::json(order).await?;
    ask::one(&*site.means, Request::Forget { provider, source }).await
}

async fn report<M: Means>(site: At<M>, Path(provider): Path<String>) -> Result<Response<Body>, Refused> {
    match site.means.report(provider).await? {
        Some(text) => Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()),
        None => Err(Refused::not_found("the event log tells nothing of such a provider")),
    }
}

async fn pause_domain<M: Means>(site: At<M>, Path(name): Path<String>, order: Body) -> Result<Response<Body>, Refused> {
    body::json::<Nothing>(order).await?;
    ask::one(&*site.means, Request::PauseDomain { domain: domain(&name)? }).await
}

async fn resume_domain<M: Means>(
    site: At<M>,
    Path(name): Path<String>,
    order: Body,
) -> Result<Response<Body>, Refused> {
    let Resume { force } = body::json(order).await?;
    ask::one(&*site.means, Request::ResumeDomain { domain: domain(&name)?, force }).await
}

fn domain(name: &str) -> Result<Domain, Refused> {
    Domain::parse(name).map_err(|error| Refused::bad(format!("`{}` is no domain: {error}", name.escape_debug())))
}

async fn history<M: Means>(site: At<M>, uri: Uri) -> Result<Response<Body>, Refused> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[serde(default)]
        span: Option<String>,
    }
    let Asked { span } = query(&uri)?;
    let span = Span::parse(span.as_deref().unwrap_or("1h")).ok_or_else(|| Refused::bad("span: one of 1h, 24h, 30d"))?;
    Ok(json(site.means.history(span).to_string()))
}

async fn explain<M: Means>(site: At<M>, uri: Uri) -> Result<Response<Body>, Refused> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        reply: String,
        provider: Option<String>,
        stage: Option<String>,
    }
    let Asked { reply, provider, stage } = query(&uri)?;
    let read = site.means.explain(&reply, provider.as_deref(), stage.as_deref());
    let read = read.map_err(|failed| Refused::new(StatusCode::BAD_REQUEST, failed.0))?;
    Ok(json(read.to_string()))
}
