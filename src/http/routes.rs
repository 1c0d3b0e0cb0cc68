//! Every path, who may ask for it, and in which order a request is looked at.
//!
//! ```text
//! open paths (probes, metrics, one click) -> the name in Host -> where it comes from -> what it shows -> the path
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::MethodRouter;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::access::{COOKIE, Keys, Names, SESSION_LASTS, Shown, is_same_origin};
use super::answer::{Refused, secure};
use super::means::Means;
use super::messages::{self, Caller};
use super::options::Http;
use super::{body, click, events, feedback, live, page, probes, queue, status, suppressions};
use crate::types::Timestamp;

/// A wrong token is answered so late.
const WRONG_DELAY: Duration = Duration::from_secs(1);
/// So many wrong ones wait for their answer at once; the others are told to come later.
const WRONG_AT_ONCE: usize = 16;

/// Whoever may come in, and what is behind the door.
pub(super) struct Site<M> {
    means: Arc<M>,
    names: Names,
    keys: Keys,
    wrong: AtomicUsize,
    router: Router,
}

/// Handlers get the site by this.
pub(super) type At<M> = axum::Extension<Arc<Shared<M>>>;

/// What handlers see of the site.
pub(super) struct Shared<M> {
    pub(super) means: Arc<M>,
    pub(super) status: status::Kept,
}

/// Ends when the relay stops: what streams must end with it.
#[derive(Clone)]
pub(super) struct Stop(pub(super) CancellationToken);

/// The paths as they are added, so that the document can be held to them.
pub(super) struct Routes {
    pub(super) router: Router,
    pub(super) known: Vec<(&'static str, &'static str)>,
}

impl Routes {
    fn new() -> Routes {
        Routes { router: Router::new(), known: Vec::new() }
    }

    pub(super) fn add(&mut self, methods: &[&'static str], path: &'static str, handler: MethodRouter) {
        self.known.extend(methods.iter().map(|method| (*method, path)));
        self.router = std::mem::take(&mut self.router).route(path, handler);
    }
}

/// All routes of the API.
pub(super) fn all<M: Means>() -> Routes {
    let mut routes = Routes::new();
    status::routes::<M>(&mut routes);
    queue::routes::<M>(&mut routes);
    suppressions::routes::<M>(&mut routes);
    events::routes::<M>(&mut routes);
    live::routes::<M>(&mut routes);
    messages::routes::<M>(&mut routes);
    feedback::routes::<M>(&mut routes);
    routes
}

impl<M: Means> Site<M> {
    pub(super) fn new(options: &Http, token: &str, means: Arc<M>) -> Site<M> {
        let shared = Arc::new(Shared { means: means.clone(), status: status::Kept::default() });
        let fallback = || async { Refused::not_found("there is no such path: see /api/v1/openapi.json") };
        let wrong_method = || async {
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this path is not asked so: see /api/v1/openapi.json")
        };
        let router = all::<M>()
            .router
            .fallback(fallback)
            .method_not_allowed_fallback(wrong_method)
            .layer(axum::Extension(shared));
        Site { means, names: Names::new(&options.hosts), keys: Keys::new(token), wrong: AtomicUsize::new(0), router }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.means.now()
    }

    /// Answers one request.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        stop: CancellationToken,
    ) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        let mut answer = match self.try_answer(request.map(Body::new), client, stop).await {
            Ok(answer) => answer,
            Err(refused) => refused.into_response(),
        };
        secure(&mut answer);
        if is_head {
            *answer.body_mut() = Body::empty();
        }
        answer
    }

    pub(super) async fn try_answer(
        &self,
        mut request: Request<Body>,
        client: IpAddr,
        stop: CancellationToken,
    ) -> Result<Response<Body>, Refused> {
        let path = request.uri().path().to_string();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if is_read && let Some(answer) = probes::answer(&*self.means, &path).await {
            return Ok(answer);
        }
        // By whatever name and from whatever page it is asked: the token is the right, and nothing else is looked at.
        if let Some(answer) = click::answer(&*self.means, &mut request, client).await {
            return Ok(answer);
        }
        self.check_host(request.headers())?;
        if !is_read && !is_same_origin(request.headers()) {
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                "this request comes from another page: use weir's own page, or a token",
            ));
        }
        if is_read && let Some(answer) = page::answer(&path, request.headers()) {
            return Ok(answer);
        }
        match (request.method().clone(), path.as_str()) {
            (Method::POST, "/api/v1/session") => return self.log_in(request, client).await,
            (Method::DELETE, "/api/v1/session") => return Ok(self.log_out(request.headers())),
            _ => {}
        }
        let caller = self.caller(request.headers(), &path, client).await?;
        request.extensions_mut().insert(caller);
        // A page can send a cookie without knowing it; nobody sends a token without meaning to.
        if !is_read && matches!(Shown::of(request.headers()), Shown::Cookie(_)) {
            check_kind(&request)?;
        }
        request.extensions_mut().insert(Stop(stop));
        let answer = tower_answer(self.router.clone(), request).await;
        Ok(answer)
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if self.names.allow(host) {
            return Ok(());
        }
        let name: String = host.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
        Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!(
                "weir does not know itself by the name `{name}`: ask by address, or add the name to http.hosts (WEIR_HTTP__HOSTS)"
            ),
        ))
    }

    /// Who asks: the operator, who may ask for everything, or a user, who may hand messages in.
    async fn caller(&self, headers: &HeaderMap, path: &str, client: IpAddr) -> Result<Caller, Refused> {
        let user = match Shown::of(headers) {
            Shown::Bearer(token) if self.keys.opens(token) => return Ok(Caller { user: None, client }),
            Shown::Cookie(cookie) if self.keys.holds(cookie, self.now()) => return Ok(Caller { user: None, client }),
            Shown::Nothing | Shown::Cookie(_) => {
                return Err(Refused::new(
                    StatusCode::UNAUTHORIZED,
                    "log in: send `Authorization: Bearer TOKEN`; the token stands in the file that weir named when it started",
                ));
            }
            Shown::Bearer(token) => match self.means.user_of_token(token) {
                Some(user) => user,
                None => return Err(self.wrong(client).await),
            },
            // A wrong password is answered late, too: by those who check passwords.
            Shown::Basic(user, password) => match self.means.log_in(client, &user, &password).await {
                Ok(user) => user,
                Err(failed) => return Err(Refused::new(StatusCode::UNAUTHORIZED, failed.0)),
            },
        };
        if path == messages::PATH {
            return Ok(Caller { user: Some(user), client });
        }
        let text = format!("{user} may hand in messages (POST {}) and ask for nothing else", messages::PATH);
        Err(Refused::new(StatusCode::FORBIDDEN, text))
    }

    /// A wrong token: the answer comes late, so that guessing takes longer than anybody has.
    async fn wrong(&self, client: IpAddr) -> Refused {
        let waiting = self.wrong.fetch_add(1, Ordering::Relaxed);
        let refused = if waiting < WRONG_AT_ONCE {
            tokio::time::sleep(WRONG_DELAY).await;
            tracing::debug!(%client, "http: wrong token");
            Refused::new(
                StatusCode::UNAUTHORIZED,
                "this token is wrong: it stands in the file that weir named when it started",
            )
        } else {
            Refused::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens at once: try again later").retry_after(5)
        };
        self.wrong.fetch_sub(1, Ordering::Relaxed);
        refused
    }

    async fn log_in(&self, request: Request<Body>, client: IpAddr) -> Result<Response<Body>, Refused> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct LogIn {
            token: String,
        }
        check_kind(&request)?;
        let is_secure =
            request.headers().get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
        let LogIn { token } = body::json(request.into_body()).await?;
        if !self.keys.opens(token.trim()) {
            return Err(self.wrong(client).await);
        }
        let cookie =
            self.keys.begin(self.now()).ok_or_else(|| Refused::unavailable("the system gives no random octets"))?;
        Ok(with_cookie(&cookie, SESSION_LASTS.as_secs(), is_secure))
    }

    fn log_out(&self, headers: &HeaderMap) -> Response<Body> {
        if let Shown::Cookie(cookie) = Shown::of(headers)
            && self.keys.holds(cookie, self.now())
        {
            self.keys.end(cookie);
        }
        with_cookie("", 0, false)
    }
}

/// `SameSite=Strict`: the browser sends it for requests of the page itself and for no others.
fn with_cookie(value: &str, seconds: u64, is_secure: bool) -> Response<Body> {
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut answer = StatusCode::NO_CONTENT.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

/// No form of another page can send these without asking first.
fn check_kind(request: &Request<Body>) -> Result<(), Refused> {
    const KINDS: [&str; 5] =
        ["application/json", "text/csv", "application/x-ndjson", "message/rfc822", "application/octet-stream"];
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if KINDS.contains(&kind.as_str()) {
        return Ok(());
    }
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the header `Content-Type: application/json`"))
}

async fn tower_answer(router: Router, request: Request<Body>) -> Response<Body> {
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    match TowerToHyperService::new(router).call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}
