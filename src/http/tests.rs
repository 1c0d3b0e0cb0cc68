//! The whole way of a request against a relay that only says what it was asked: who is let in, what is answered to what.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request as HttpRequest, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::means::{Clicked, Counted, EventPage, Means, Page, StandingAlert};
use super::options::Http;
use super::routes::{Site, all};
use crate::admin::record::{FeedbackRecord, QueueDetail, QueueRecord, RelayRecord};
use crate::admin::{Answer, Control, Failed, Filter, Input, Request, SuppressFilter, SuppressRecord};
use crate::event::Choice;
use crate::metrics::history::Span;
use crate::submit::keys::{Begun, Mark};
use crate::submit::{NotTaken, RecipientAnswer, Submission, Submitted};
use crate::types::{Mailbox, QueueId, Timestamp};

const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const USER_TOKEN: &str = "token-of-the-app-0001";

/// Notes what it is asked to do.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    ready: bool,
    stopping: bool,
}

impl Fake {
    fn note(&self, what: impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{what:?}"));
    }
}

impl Control for Fake {
    async fn answer(&self, request: Request, mut input: Input, answer: Answer) -> Result<(), Failed> {
        self.note(&request);
        match request {
            Request::Status => {
                answer.record(&json!({ "record": "relay", "version": "1" })).await?;
                answer
                    .record(&json!({ "record": "lane", "provider": "outlook", "ceiling": 500, "waiting": 3 }))
                    .await?;
            }
            Request::SuppressImport => {
                let mut added = 0;
                while input.next().await.is_some() {
                    added += 1;
                }
                answer.record(&json!({ "added": added })).await?;
            }
            Request::Pause { provider } if provider == "nobody" => {
                return Err(Failed::new("`nobody` is no provider"));
            }
            _ => answer.record(&json!({ "done": true })).await?,
        }
        Ok(())
    }
}

impl Means for Fake {
    fn now(&self) -> Timestamp {
        NOON
    }
    async fn relay(&self) -> Result<RelayRecord, Failed> {
        Ok(RelayRecord { ready: self.ready, problems: vec!["the disk is full".into()], ..relay() })
    }
    fn is_stopping(&self) -> bool {
        self.stopping
    }
    async fn metrics(&self) -> Result<String, Failed> {
        Ok("# EOF\n".into())
    }
    fn alerts(&self) -> Vec<StandingAlert> {
        Vec::new()
    }
    async fn queue_page(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<QueueRecord>, Failed> {
        self.note((filter, after, limit));
        Ok(Page { items: Vec::new(), next: None })
    }
    async fn queue_count(&self, filter: Filter) -> Result<Counted, Failed> {
        self.note(filter);
        Ok(Counted { messages: 7, recipients: 9, at_least: false })
    }
    async fn queue_message(&self, _: QueueId) -> Result<Vec<QueueDetail>, Failed> {
        Ok(Vec::new())
    }
    async fn header(&self, _: QueueId) -> Result<Option<String>, Failed> {
        Ok(None)
    }
    async fn suppressions_page(
        &self,
        filter: SuppressFilter,
        _: Option<String>,
        _: usize,
    ) -> Result<Page<SuppressRecord>, Failed> {
        self.note(filter);
        Ok(Page { items: vec![crate::admin::record::tests::suppressed()], next: None })
    }
    async fn suppressions_count(&self) -> Result<u64, Failed> {
        Ok(1)
    }
    async fn undo_wave(&self, wave: String) -> Result<u64, Failed> {
        self.note(wave);
        Ok(2)
    }
    async fn events(&self, choice: Choice, _: Option<String>, _: usize) -> Result<EventPage, Failed> {
        self.note(choice);
        Ok(EventPage { lines: vec!["{\"seq\":1}".into()], next: Some("1".into()) })
    }
    fn follow(&self) -> broadcast::Receiver<Bytes> {
        broadcast::channel(1).1
    }
    fn history(&self, _: Span) -> Value {
        json!({})
    }
    fn profiles(&self) -> Vec<Value> {
        vec![json!({ "name": "outlook", "lanes": [] })]
    }
    fn explain(&self, reply: &str, _: Option<&str>, _: Option<&str>) -> Result<Value, Failed> {
        Ok(json!({ "reply": reply }))
    }
    async fn feedback(&self, message: Bytes, to: Option<Mailbox>, _: IpAddr) -> Result<FeedbackRecord, Failed> {
        self.note((message.len(), to));
        Ok(FeedbackRecord {
            event: "returned".into(),
            id: None,
            sender: None,
            recipient: None,
            suppressed: true,
            text: "it came back".into(),
        })
    }
    async fn click(&self, token: &str, _: IpAddr) -> Clicked {
        self.note(token);
        self.peek(token)
    }
    fn peek(&self, token: &str) -> Clicked {
        match token {
            "good" => Clicked::Done,
            "old" => Clicked::Expired,
            "broken" => Clicked::Failed,
            "off" => Clicked::Off,
            _ => Clicked::Unknown,
        }
    }
    fn user_of_token(&self, token: &str) -> Option<String> {
        (token == USER_TOKEN).then(|| "app".to_string())
    }
    async fn log_in(&self, _: IpAddr, user: &str, password: &str) -> Result<String, Failed> {
        if (user, password) == ("app", "secret") {
            Ok("app".into())
        } else {
            Err(Failed::new("wrong user or password"))
        }
    }
    fn message_size_max(&self) -> u64 {
        1 << 20
    }
    fn message_id(&self, _: &str, key: Option<&Mark>) -> String {
        format!("<{}@x.example>", key.is_some())
    }
    async fn submit(&self, user: Option<String>, _: IpAddr, message: Submission) -> Result<Submitted, NotTaken> {
        self.note((&user, &message.recipients));
        let answer = |recipient: &String| match recipient.as_str() {
            "gone@x.example" => {
                RecipientAnswer { recipient: recipient.clone(), status: "refused", reply: "550 5.1.1 gone".into() }
            }
            _ => RecipientAnswer { recipient: recipient.clone(), status: "queued", reply: "250 ok".into() },
        };
        let recipients: Vec<RecipientAnswer> = message.recipients.iter().map(answer).collect();
        let id = recipients.iter().any(|answer| answer.status == "queued").then(|| QueueId::from_key(7).unwrap());
        Ok(Submitted { id, recipients })
    }
    async fn begin_key(&self, _: Mark, _: Mark) -> Result<Begun, Failed> {
        Ok(Begun::Done("{\"id\":\"first\"}".into()))
    }
    async fn taken_since(&self, _: &str, _: Timestamp) -> Result<Option<QueueId>, Failed> {
        Ok(None)
    }
    async fn report(&self, _: String) -> Result<Option<String>, Failed> {
        Ok(Some("to whom it concerns".into()))
    }
}

fn relay() -> RelayRecord {
    let text = json!({
        "version": "1", "hostname": null, "since": NOON, "data_dir": "", "listeners": [], "messages": 0, "waiting": 0, "active": 0,
        "held": 0, "oldest": null, "reading_backlog": false, "spool_fault": null, "disk_free_bytes": 0, "disk_min_bytes": 0, "ready": true,
        "problems": []
    });
    serde_json::from_value(text).unwrap()
}

struct World {
    fake: Arc<Fake>,
    site: Site<Fake>,
}

impl World {
    fn new(fake: Fake) -> World {
        let (fake, options) = (Arc::new(fake), Http { hosts: vec!["weir.example.com".into()], ..Http::default() });
        World { site: Site::new(&options, TOKEN, fake.clone()), fake }
    }

    /// `fields`: `Name: value` each; Host stands there if none is given.
    async fn ask(&self, line: &str, fields: &[&str], body: impl Into<Body>) -> Response<Body> {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = HttpRequest::builder().method(method).uri(uri);
        if !fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
            request = request.header("host", "127.0.0.1:8025");
        }
        for field in fields {
            let (name, value) = field.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let request = request.body(body.into()).unwrap();
        let answer = self.site.try_answer(request, "127.0.0.1".parse().unwrap(), CancellationToken::new()).await;
        answer.unwrap_or_else(axum::response::IntoResponse::into_response)
    }

    async fn status(&self, line: &str, fields: &[&str]) -> u16 {
        self.ask(line, fields, Body::empty()).await.status().as_u16()
    }

    /// What the operator is answered.
    async fn order(&self, line: &str, body: Value) -> (StatusCode, Value) {
        let fields = [&*format!("authorization: Bearer {TOKEN}"), "content-type: application/json"];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(line, &fields, body).await;
        let status = answer.status();
        let text = text(answer).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.fake.asked.lock().unwrap())
    }
}

async fn text(answer: Response<Body>) -> String {
    let octets = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
fn the_document_names_every_path_and_no_other() {
    let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    let mut named = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        named.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    let mut known: BTreeSet<(String, String)> =
        all::<Fake>().known.into_iter().map(|(method, path)| (method.to_string(), path.to_string())).collect();
    // What is answered before the routes.
    for (method, path) in [
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("POST", "/api/v1/session"),
        ("DELETE", "/api/v1/session"),
    ] {
        known.insert((method.into(), path.into()));
    }
    assert_eq!(named, known);
}

#[tokio::test(start_paused = true)]
async fn one_click_is_open_to_all_by_every_name_and_a_look_changes_nothing() {
    let world = World::new(Fake::default());
    for (line, fields, status, expected) in [
        ("GET /u/good", vec!["host: fb.example.com"], 200, "<button"),
        ("HEAD /u/good", vec!["host: fb.example.com"], 200, ""),
        ("POST /u/good", vec!["host: fb.example.com"], 200, "You are unsubscribed"),
        ("POST /u/good", vec!["origin: https://mail.example", "content-type: text/plain"], 200, "You are unsubscribed"),
        ("GET /u/old", vec![], 410, "expired"),
        ("POST /u/old", vec![], 410, "expired"),
        ("POST /u/%3Cscript%3E", vec![], 404, "not known"),
        ("POST /u/broken", vec![], 503, "some minutes"),
    ] {
        let answer = world.ask(line, &fields, "List-Unsubscribe=One-Click").await;
        assert_eq!(answer.status(), status, "{line}");
        assert!(answer.headers().get(header::SET_COOKIE).is_none() && answer.headers().get(header::LOCATION).is_none());
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        let text = text(answer).await;
        assert!(text.contains(expected) && !text.contains("script"), "{line}: {text}");
    }
    // Each POST, and no GET.
    assert_eq!(world.fake.asked.lock().unwrap().len(), 5);
    // Where it is off, the path is like any other.
    assert_eq!(world.ask("POST /u/off", &[], "").await.status(), 401);
    let bearer = format!("authorization: Bearer {TOKEN}");
    let kind = "content-type: message/rfc822";
    let answer =
        world.ask("POST /api/v1/feedback?recipient=r-x@fb.example.com", &[&bearer, kind], "From: x\r\n\r\n").await;
    assert_eq!(answer.status(), 200);
    assert!(text(answer).await.contains("\"event\":\"returned\""));
    assert_eq!(
        world.ask("POST /api/v1/feedback", &[&bearer, "content-type: application/json"], "{}").await.status(),
        415
    );
    let user = format!("authorization: Bearer {USER_TOKEN}");
    assert_eq!(world.ask("POST /api/v1/feedback", &[&user, kind], "x").await.status(), 403);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_ask_is_told_so_and_nothing_is_done() {
    let world = World::new(Fake::default());
    let bearer = format!("authorization: Bearer {TOKEN}");
    let user = format!("authorization: Bearer {USER_TOKEN}");
    let json = "content-type: application/json";
    let pause = "POST /api/v1/providers/outlook/pause";
    for (line, fields, status) in [
        ("GET /api/v1/status", vec![], 401),
        ("GET /api/v1/status", vec!["authorization: Bearer wrong"], 401),
        ("GET /api/v1/status", vec!["authorization: Basic YXBwOndyb25n"], 401),
        ("GET /api/v1/status", vec!["cookie: weir_session=a.9999999999.AAAA"], 401),
        ("GET /api/v1/status", vec![&*bearer, "host: evil.example"], 403),
        ("GET /api/v1/status", vec![&*bearer, "host: evil.example:8025"], 403),
        ("GET /", vec!["host: evil.example"], 403),
        // A user hands messages in and asks for nothing else.
        ("GET /api/v1/status", vec![&*user], 403),
        (pause, vec![&*user, json], 403),
        (pause, vec!["authorization: Basic YXBwOnNlY3JldA==", json], 403),
        // Other pages.
        (pause, vec![&*bearer, json, "origin: http://evil.example"], 403),
        (pause, vec![&*bearer, json, "origin: null"], 403),
        (pause, vec![&*bearer, json, "sec-fetch-site: cross-site"], 403),
        ("POST /api/v1/session", vec![json, "origin: http://evil.example"], 403),
        ("DELETE /api/v1/session", vec!["origin: http://evil.example"], 403),
        // Nothing is done for a GET.
        ("GET /api/v1/providers/outlook/pause", vec![&*bearer], 405),
        ("GET /api/v1/queue/flush", vec![&*bearer], 400),
        ("GET /api/v1/suppressions/import", vec![&*bearer], 405),
        ("GET /api/v1/../etc/passwd", vec![&*bearer], 404),
        ("GET /api/v1/%2e%2e/status", vec![&*bearer], 404),
        ("GET //healthz", vec![&*bearer], 404),
        ("PUT /api/v1/status", vec![&*bearer, json], 405),
        ("TRACE /api/v1/status", vec![&*bearer, json], 405),
        ("GET /nothing", vec![&*bearer], 404),
    ] {
        assert_eq!(world.status(line, &fields).await, status, "{line} {fields:?}");
        assert_eq!(world.asked(), [""; 0], "{line} {fields:?}");
    }
    assert_eq!(world.status(pause, &[&bearer, json, "origin: http://127.0.0.1:8025"]).await, 200);
    assert_eq!(world.status("GET /api/v1/status", &[&bearer, "host: weir.example.com"]).await, 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_form_can_send_is_not_done_for_a_cookie() {
    let world = World::new(Fake::default());
    let pause = "POST /api/v1/providers/outlook/pause";
    let json = "content-type: application/json";
    let right = world.ask("POST /api/v1/session", &[json], json!({ "token": TOKEN }).to_string()).await;
    let cookie = right.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_string();
    let cookie = format!("cookie: {cookie}");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let kind = format!("content-type: {kind}");
        assert_eq!(world.status(pause, &[&cookie, &kind]).await, 415, "{kind}");
        assert_eq!(world.status("POST /api/v1/session", &[&kind]).await, 415, "{kind}");
    }
    assert_eq!((world.status(pause, &[&cookie]).await, world.asked()), (415, Vec::<String>::new()));
    assert_eq!(world.status(pause, &[&cookie, json]).await, 200);
    // Nobody sends a token without meaning to.
    assert_eq!(world.status(pause, &[&format!("authorization: Bearer {TOKEN}")]).await, 200);
}

#[tokio::test(start_paused = true)]
async fn probes_and_metrics_are_open_by_whatever_name() {
    for (fake, ready) in [
        (Fake { ready: true, ..Fake::default() }, 200),
        (Fake::default(), 503),
        (Fake { ready: true, stopping: true, ..Fake::default() }, 503),
    ] {
        let world = World::new(fake);
        assert_eq!(world.status("GET /healthz", &["host: weir:8025"]).await, 200);
        assert_eq!(world.status("GET /readyz", &["host: weir:8025"]).await, ready);
        assert_eq!(world.status("GET /metrics", &["host: weir:8025"]).await, 200);
        assert_eq!(world.status("POST /healthz", &["host: weir:8025"]).await, 403);
    }
    let answer = World::new(Fake::default()).ask("GET /readyz", &[], Body::empty()).await;
    assert_eq!(text(answer).await, "the disk is full\n");
}

#[tokio::test(start_paused = true)]
async fn a_log_in_gives_a_cookie_that_opens_everything_until_it_is_ended() {
    let world = World::new(Fake::default());
    let json = "content-type: application/json";
    let wrong = world.ask("POST /api/v1/session", &[json], "{\"token\":\"wrong\"}").await;
    assert_eq!((wrong.status().as_u16(), wrong.headers().get(header::SET_COOKIE)), (401, None));
    let right = world.ask("POST /api/v1/session", &[json], json!({ "token": TOKEN }).to_string()).await;
    let cookie = right.headers()[header::SET_COOKIE].to_str().unwrap().to_string();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("Secure"), "{cookie}");
    let cookie = format!("cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(world.status("GET /api/v1/status", &[&cookie]).await, 200);
    assert_eq!(world.status("DELETE /api/v1/session", &[&cookie]).await, 204);
    assert_eq!(world.status("GET /api/v1/status", &[&cookie]).await, 401);
    let origin = "origin: https://weir.example.com";
    let proxied = ["host: weir.example.com", origin, json];
    let secure = world.ask("POST /api/v1/session", &proxied, json!({ "token": TOKEN }).to_string()).await;
    assert!(secure.headers()[header::SET_COOKIE].to_str().unwrap().ends_with("; Secure"));
}

#[tokio::test(start_paused = true)]
async fn guessing_takes_time_and_does_not_keep_others_waiting() {
    let world = Arc::new(World::new(Fake::default()));
    let clock = crate::clock::Clock::starting_at(NOON);
    let guesses = (0..100).map(|n| {
        let world = world.clone();
        async move { world.status("GET /api/v1/status", &[&format!("authorization: Bearer wrong-{n}")]).await }
    });
    let mut all: Vec<std::pin::Pin<Box<dyn Future<Output = u16>>>> =
        guesses.map(|guess| Box::pin(guess) as _).collect();
    let mut answers = Vec::new();
    std::future::poll_fn(|context| {
        all.retain_mut(|guess| match guess.as_mut().poll(context) {
            std::task::Poll::Ready(status) => {
                answers.push(status);
                false
            }
            std::task::Poll::Pending => true,
        });
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert_eq!((answers.iter().filter(|&&status| status == 429).count(), answers.len()), (84, 100));
    assert!(clock.elapsed() >= Duration::from_secs(1));
    assert_eq!(world.status("GET /api/v1/status", &[&format!("authorization: Bearer {TOKEN}")]).await, 200);
}

#[tokio::test(start_paused = true)]
async fn orders_become_what_the_commands_ask() {
    let world = World::new(Fake::default());
    for (line, body, asked) in [
        ("POST /api/v1/providers/outlook/pause", Value::Null, "Pause { provider: \"outlook\" }"),
        ("POST /api/v1/providers/*/pause", json!({}), "PauseAll"),
        (
            "POST /api/v1/providers/outlook/resume",
            json!({ "force": true }),
            "Resume { provider: \"outlook\", force: true }",
        ),
        ("POST /api/v1/providers/*/resume", Value::Null, "ResumeAll { force: false }"),
        (
            "POST /api/v1/providers/a%20b/forget",
            json!({ "source": "x" }),
            "Forget { provider: \"a b\", source: Some(\"x\") }",
        ),
        ("POST /api/v1/domains/x.example/pause", Value::Null, "PauseDomain { domain: x.example }"),
        ("POST /api/v1/suppressions/waves/w1/confirm", Value::Null, "SuppressConfirm { wave: \"w1\" }"),
        ("POST /api/v1/suppressions/waves/w1/undo", Value::Null, "\"w1\""),
    ] {
        let (status, answer) = world.order(line, body).await;
        assert_eq!((status, world.asked()), (StatusCode::OK, vec![asked.to_string()]), "{line}: {answer}");
    }
    let (status, answer) = world.order("POST /api/v1/providers/nobody/pause", Value::Null).await;
    assert_eq!((status.as_u16(), answer), (422, json!({ "error": "`nobody` is no provider" })));
    world.asked();
    for (line, body) in [
        ("POST /api/v1/providers/outlook/pause", json!({ "force": true })),
        ("POST /api/v1/providers/outlook/resume", json!([1])),
        ("POST /api/v1/domains/no%20domain/pause", Value::Null),
        ("POST /api/v1/suppressions", json!({ "recipient": "nobody" })),
        ("DELETE /api/v1/suppressions", json!({})),
        ("GET /api/v1/history?span=2h", Value::Null),
        ("GET /api/v1/events?kind=exploded", Value::Null),
        ("GET /api/v1/events?colour=red", Value::Null),
        ("GET /api/v1/queue?limit=0", Value::Null),
        ("GET /api/v1/queue?limit=100000", Value::Null),
        ("GET /api/v1/queue?colour=red", Value::Null),
        ("GET /api/v1/queue/nothing", Value::Null),
        ("GET /api/v1/explain", Value::Null),
    ] {
        let (status, answer) = world.order(line, body).await;
        assert_eq!(
            (status.as_u16(), answer["error"].is_string(), world.asked()),
            (400, true, vec![]),
            "{line}: {answer}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn orders_for_many_say_which_and_can_be_counted_first() {
    let world = World::new(Fake::default());
    let flush = "POST /api/v1/queue/flush";
    for (line, body, error) in [
        (flush, json!({}), "say which messages are meant"),
        (flush, json!({ "limit": 5 }), "say which messages are meant"),
        (flush, json!({ "all": true, "domain": "x.example" }), "`all` goes with no other condition"),
        (flush, json!({ "domian": "x.example" }), "unknown field `domian`"),
        (flush, json!({ "domain": "x.example", "to": "127.0.0.1:25" }), "`to` goes with reroute alone"),
        (flush, json!({ "domain": "x.example", "dry_run": "yes" }), "dry_run: true or false"),
        ("POST /api/v1/queue/reroute", json!({ "domain": "x.example" }), "to: HOST:PORT"),
        ("POST /api/v1/queue/reroute", json!({ "domain": "x.example", "to": "nowhere" }), "to: "),
    ] {
        let (status, answer) = world.order(line, body).await;
        assert_eq!((status.as_u16(), world.asked()), (400, vec![]), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(error), "{answer}");
    }
    let (_, answer) = world.order(flush, json!({ "domain": "x.example", "dry_run": true })).await;
    assert_eq!(answer, json!({ "messages": 7, "recipients": 9, "note": null, "dry_run": true }));
    assert!(!world.asked()[0].contains("QueueAct"));
    let (status, _) = world.order(flush, json!({ "all": true })).await;
    assert_eq!((status, world.asked().len()), (StatusCode::OK, 1));
    assert_eq!(world.order("POST /api/v1/queue/explode", json!({ "all": true })).await.0.as_u16(), 404);
}

#[tokio::test(start_paused = true)]
async fn an_import_says_how_far_it_came_and_how_it_ended() {
    let world = World::new(Fake::default());
    let fields = [&*format!("authorization: Bearer {TOKEN}"), "content-type: text/csv"];
    let good = world.ask("POST /api/v1/suppressions/import", &fields, "email\na@x.example\nb@x.example").await;
    assert_eq!(text(good).await, "{\"added\":2}\n{\"end\":true}\n");
    let bad =
        text(world.ask("POST /api/v1/suppressions/import", &fields, "a@x.example\nb@\nc@x.example\n").await).await;
    assert!(bad.starts_with("{\"added\":1}\n{\"error\":\"line 2 of the import: ") && !bad.contains("end"), "{bad}");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handed_in_with_an_answer_for_each_recipient() {
    let world = World::new(Fake::default());
    let form = json!({ "from": "a@x.example", "to": ["b@x.example", "gone@x.example"], "text": "hello" });
    for (shown, user) in [(TOKEN, "None"), (USER_TOKEN, "Some(\"app\")")] {
        let fields = [&*format!("authorization: Bearer {shown}"), "content-type: application/json"];
        let answer = world.ask("POST /api/v1/messages", &fields, form.to_string()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!((&answer["id"], &answer["recipients"][1]["status"]), (&json!("0000000000007"), &json!("refused")));
        assert_eq!(world.asked(), [format!("({user}, [\"b@x.example\", \"gone@x.example\"])")]);
    }
    let fields = ["authorization: Basic YXBwOnNlY3JldA==", "content-type: message/rfc822"];
    let raw =
        world.ask("POST /api/v1/messages?from=a@x.example&to=gone@x.example", &fields, "Subject: x\r\n\r\nx\r\n").await;
    assert_eq!((raw.status().as_u16(), world.asked().len()), (422, 1));
    let (status, _) = world.order("POST /api/v1/messages", json!({ "from": "a@x.example" })).await;
    assert_eq!(status.as_u16(), 400);
    let fields = [&*format!("authorization: Bearer {TOKEN}"), "content-type: application/json", "idempotency-key: k1"];
    let again = world.ask("POST /api/v1/messages", &fields, form.to_string()).await;
    assert_eq!((text(again).await, world.asked()), ("{\"id\":\"first\"}".to_string(), vec![]));
    let large = world.ask("POST /api/v1/messages", &fields[..2], "x".repeat(3 << 20)).await;
    assert_eq!(large.status().as_u16(), 413);
}
