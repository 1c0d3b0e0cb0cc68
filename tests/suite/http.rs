//! `[http]` of the real program: messages handed in, orders, probes, metrics, live events; and what strangers try.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{At, Config, PATIENCE, Relay, World, say, stays, until};

const TOKEN: &str = "token-of-the-app-0001";

/// An answer of the relay.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The port of `[http]`, as an operator has it.
pub struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    pub fn of(relay: &Relay) -> Api {
        let address = until("the port of [http]", || {
            let log = relay.log();
            let (_, rest) = log.rsplit_once("page, API and metrics on http://")?;
            let address: SocketAddr = rest.split('/').next()?.parse().ok()?;
            // Just after a restart the log may end with the port of before.
            TcpStream::connect(address).ok().map(|_| address)
        });
        let token = std::fs::read_to_string(relay.data_dir().join("http-token")).unwrap().trim().to_string();
        Api { address, token }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // It may answer and close before it has read everything.
        let _ = stream.write_all(request);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            chunks(body)
        } else {
            body.to_string()
        };
        Answer { status, head: head.to_string(), body }
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn with(&self, line: &str, fields: &[&str], body: &str) -> Answer {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let length = body.len();
        let host = self.address;
        self.raw(
            format!(
                "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
            )
            .as_bytes(),
        )
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.with(&format!("GET {path}"), &[&format!("Authorization: Bearer {}", self.token)], "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let fields = [&*format!("Authorization: Bearer {}", self.token), "Content-Type: application/json"];
        self.with(&format!("POST {path}"), &fields, &body.to_string())
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.with("GET /metrics", &[], "");
        let line = page.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_string));
        line.unwrap_or_else(|| panic!("{name} is missing in {}", page.body)).parse().unwrap()
    }
}

/// The content of a body in chunks.
fn chunks(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else { break };
        let Some(piece) = rest.get(..size) else { break };
        body.push_str(piece);
        text = rest.get(size + 2..).unwrap_or_default();
    }
    body
}

fn served(config: Config) -> Config {
    config.set("http", "address", "\"127.0.0.1:0\"")
}

fn form(to: &[&str]) -> Value {
    json!({ "from": "App <app@sender.test>", "to": to, "subject": "Grüße", "text": "hello" })
}

#[test]
fn a_message_is_handed_in_delivered_counted_and_told() {
    let (world, mx) = World::with_domain("mail.test");
    let relay = served(world.config()).start();
    let api = Api::of(&relay);
    relay.ok(&["suppress", "add", "gone@mail.test", "--reason", "left"]);
    let answer = api.post("/api/v1/messages", &form(&["bob@mail.test", "gone@mail.test"]));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(
        (&answer["recipients"][0]["status"], &answer["recipients"][1]["status"]),
        (&json!("queued"), &json!("refused"))
    );
    let reply = answer["recipients"][1]["reply"].as_str().unwrap();
    assert!(reply.starts_with("550 5.1.1 ") && reply.contains("left"), "{reply}");
    let taken = &mx.wait_accepted(1)[0];
    assert_eq!(taken.to(), ["bob@mail.test"]);
    assert_eq!(taken.header("Subject").as_deref(), Some("=?utf-8?b?R3LDvMOfZQ==?="));
    relay.wait_queue_empty();
    let id = answer["id"].as_str().unwrap();
    let story = until("the end in the story", || {
        let story = api.get(&format!("/api/v1/queue/{id}"));
        (story["events"].as_array()?.len() == 2).then_some(story)
    });
    let told: Vec<&str> =
        story["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(told, ["accepted", "delivered"]);
    for (name, value) in [
        ("weir_accepted_total", 1.0),
        ("weir_delivered_total{provider=\"other\"}", 1.0),
        ("weir_refused_total", 1.0),
        ("weir_accept_seconds_count", 1.0),
        ("weir_delivery_seconds_count", 1.0),
        ("weir_queue_wait_seconds_count", 1.0),
        ("weir_ready", 1.0),
    ] {
        assert_eq!(api.metric(name), value, "{name}");
    }
    assert!(api.metric("weir_commit_seconds_count") >= 1.0);
    let refused = api.post("/api/v1/messages", &form(&["gone@mail.test"]));
    assert_eq!((refused.status, &refused.json()["id"]), (422, &Value::Null));
    relay.assert_settled();
}

#[test]
fn a_users_token_opens_one_path_with_the_users_rights() {
    let (world, mx) = World::with_domain("mail.test");
    let user = format!(
        "[[relay.user]]\nname = \"app\"\ntoken = \"{TOKEN}\"\nsender_domains = [\"sender.test\"]\nrate = \"2/min\""
    );
    let relay = served(world.config()).table(&user).start();
    let api = Api { token: TOKEN.into(), ..Api::of(&relay) };
    let alien = json!({ "from": "app@other.test", "to": "bob@mail.test", "text": "x" });
    let answer = api.post("/api/v1/messages", &alien);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("other.test"), "{answer:?}");
    for n in 0..2 {
        assert_eq!(api.post("/api/v1/messages", &form(&[&format!("u{n}@mail.test")])).status, 200);
    }
    let answer = api.post("/api/v1/messages", &form(&["u3@mail.test"]));
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: ") && answer.body.contains("2/min"), "{answer:?}");
    assert_eq!(api.post("/api/v1/queue/flush", &json!({ "all": true })).status, 403);
    mx.wait_accepted(2);
    assert!(relay.events_of("accepted").iter().all(|event| event["user"] == "app"));
}

#[test]
fn a_request_that_is_repeated_under_its_key_makes_one_message_over_a_kill() {
    let (world, mx) = World::with_domain("mail.test");
    let mut relay = served(world.config()).start();
    // A kill in the middle of a delivery may deliver twice, which is another matter.
    relay.ok(&["pause", "--all"]);
    let ask = |api: &Api, key: &str, body: &Value| {
        let fields = [
            &*format!("Authorization: Bearer {}", api.token),
            "Content-Type: application/json",
            &format!("Idempotency-Key: {key}"),
        ];
        api.with("POST /api/v1/messages", &fields, &body.to_string())
    };
    let first = ask(&Api::of(&relay), "k1", &form(&["bob@mail.test"]));
    assert_eq!(first.status, 200, "{first:?}");
    relay.kill();
    relay.run();
    let api = Api::of(&relay);
    let again = ask(&api, "k1", &form(&["bob@mail.test"]));
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(ask(&api, "k1", &form(&["eve@mail.test"])).status, 422);
    assert_eq!(ask(&api, "k2", &form(&["carl@mail.test"])).status, 200);
    relay.ok(&["resume", "--all", "--force"]);
    let to: Vec<String> = mx.wait_accepted(2).iter().map(|t| t.to()[0].to_string()).collect();
    assert_eq!(to.iter().filter(|to| *to == "bob@mail.test").count(), 1, "{to:?}");
}

#[test]
fn a_reload_takes_another_token_and_other_names() {
    let (world, _mx) = World::with_domain("mail.test");
    let config = served(world.config());
    let relay = config.clone().start();
    let mut api = Api::of(&relay);
    let own = format!("Authorization: Bearer {}", api.token);
    std::fs::write(relay.data_dir().join("http-token"), format!("{TOKEN}\n")).unwrap();
    relay.reload(&config.set("http", "hosts", "[\"mail.admin.test\"]"));
    // The port is another one, for this relay was told to take any.
    api = until("the page with the new token", || {
        let now = Api::of(&relay);
        (now.address != api.address).then_some(now)
    });
    assert_eq!(api.with("GET /api/v1/status", &[&own], "").status, 401);
    let new = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(api.with("GET /api/v1/status", &[&new], "").status, 200);
    assert_eq!(api.raw(named("mail.admin.test").as_bytes()).status, 200);
    assert_eq!(api.raw(named("another.test").as_bytes()).status, 403);
}

/// A question under a name of its own.
fn named(host: &str) -> String {
    format!("GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n")
}

#[test]
fn a_message_with_a_time_waits_for_it_over_a_restart() {
    let (world, mx) = World::with_domain("mail.test");
    // Mail is given up after an hour; what waits for its time first, an hour after that.
    let mut relay = served(world.config().set("queue", "expire", "\"1h\"")).start();
    let api = Api::of(&relay);
    let mut later = form(&["later@mail.test"]);
    // A day ahead, which is further than any retry is planned.
    later["at"] = json!(day_ahead());
    assert_eq!(api.post("/api/v1/messages", &later).status, 200);
    relay.submit(
        "app@sender.test",
        &["bysmtp@mail.test"],
        format!("X-Weir-At: {}\r\nSubject: x\r\n\r\nx\r\n", day_ahead()).as_bytes(),
    );
    relay.kill();
    relay.run();
    relay.submit("app@sender.test", &["now@mail.test"], b"Subject: x\r\n\r\nx\r\n");
    assert_eq!(mx.wait_accepted(1)[0].to(), ["now@mail.test"]);
    stays(Duration::from_millis(500), "nothing else to go", || mx.accepted_count() == 1);
    let waiting = relay.queue();
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    assert!(
        waiting.iter().all(|row| row["next_attempt"].as_str().is_some_and(|at| at[..10] == day_ahead()[..10])),
        "{waiting:?}"
    );
    let api = Api::of(&relay);
    for row in &waiting {
        let id = row["id"].as_str().expect("an id");
        let expires = api.get(&format!("/api/v1/queue/{id}"))["deliveries"][0]["expires"].to_string();
        assert!(expires.trim_matches('"') > row["next_attempt"].as_str().unwrap_or_default(), "{expires}: {row}");
    }
    relay.ok(&["queue", "flush"]);
    let sent = mx.wait_accepted(3);
    assert!(sent.iter().all(|t| t.header("X-Weir-At").is_none()));
    let mut client = relay.client();
    client.envelope("app@sender.test", &["x@mail.test"]);
    client.ask("DATA", "354");
    client.send_bytes(b"X-Weir-At: tomorrow\r\nSubject: x\r\n\r\nx\r\n.\r\n");
    let refused = client.expect("550");
    assert!(refused.contains("5.6.0 X-Weir-At"), "{refused}");
}

fn day_ahead() -> String {
    let secs = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 86_400;
    let at = time::OffsetDateTime::from_unix_timestamp(i64::try_from(secs - secs % 60).unwrap()).unwrap();
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

#[test]
fn orders_act_and_pages_go_on_while_rows_vanish() {
    let (world, mx) = World::with_domain("mail.test");
    mx.always(At::Mail, say("451 4.3.0 not now"));
    let relay = served(world.config()).start();
    let api = Api::of(&relay);
    let mut client = relay.client();
    for n in 0..30 {
        client.submit(
            "app@sender.test",
            &[&format!("u{n:02}@mail.test")],
            b"Subject: <script>alert(1)</script>\r\n\r\nsecret body\r\n",
        );
    }
    let counted = api.post("/api/v1/queue/hold", &json!({ "domain": "mail.test", "dry_run": true })).json();
    assert_eq!((&counted["messages"], &counted["dry_run"]), (&json!(30), &json!(true)));
    until("all to be held", || {
        api.post("/api/v1/queue/hold", &json!({ "all": true }));
        (api.get("/api/v1/status")["relay"]["held"] == 30).then_some(())
    });
    let first = api.get("/api/v1/queue?limit=10");
    assert_eq!(first["items"].as_array().unwrap().len(), 10);
    let ids: Vec<&str> = first["items"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    let removed = api.post("/api/v1/queue/remove", &json!({ "ids": ids })).json();
    assert_eq!(removed["messages"], 10);
    let mut seen = 0;
    let mut next = first["next"].as_str().map(str::to_string);
    while let Some(after) = next {
        let page = api.get(&format!("/api/v1/queue?limit=10&after={after}"));
        seen += page["items"].as_array().unwrap().len();
        next = page["next"].as_str().map(str::to_string);
    }
    assert_eq!(seen, 20);
    let found = api.get("/api/v1/queue?recipient=u20@mail.test");
    let id = found["items"][0]["id"].as_str().unwrap();
    let story = api.get(&format!("/api/v1/queue/{id}"));
    let headers = story["headers"].as_str().unwrap();
    assert!(headers.contains("Subject: <script>alert(1)</script>") && !headers.contains("secret body"), "{headers}");
    mx.relent(At::Mail);
    assert_eq!(api.post("/api/v1/queue/release", &json!({ "all": true })).json()["messages"], 20);
    mx.wait_accepted(20);
    let events = api.get("/api/v1/events?kind=removed&limit=3");
    assert_eq!((events["items"].as_array().unwrap().len(), events["next"].is_string()), (3, true));
    let report =
        api.with("GET /api/v1/providers/nobody.example/report", &[&format!("Authorization: Bearer {}", api.token)], "");
    assert_eq!(report.status, 404);
}

#[test]
fn who_looks_on_sees_the_status_and_each_event() {
    let (world, mx) = World::with_domain("mail.test");
    let mut relay = served(world.config()).start();
    let api = Api::of(&relay);
    let mut stream = api.connect();
    let request =
        format!("GET /api/v1/live HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n", api.address, api.token);
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "event: status"));
    relay.submit("app@sender.test", &["bob@mail.test"], b"Subject: x\r\n\r\nx\r\n");
    mx.wait_accepted(1);
    assert!(lines.any(|line| line.contains("\"event\":\"delivered\"") && line.contains("bob@mail.test")));
    // It holds up no stop.
    assert!(relay.stop().success());
    assert!(lines.all(|line| !line.contains("bob")));
}

#[test]
fn strangers_get_nothing_and_keep_nobody_waiting() {
    let (world, _mx) = World::with_domain("mail.test");
    let relay = served(world.config()).start();
    let api = Api::of(&relay);
    let host = api.address;
    let header_bomb = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "X-A: b\r\n".repeat(1000));
    let long_header = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nX-A: {}\r\n\r\n", "b".repeat(1 << 20));
    let smuggled = format!(
        "POST /api/v1/session HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    );
    for (request, statuses) in [
        (header_bomb.as_str(), [431, 400]),
        (&long_header, [431, 431]),
        (&smuggled, [400, 415]),
        ("GET / HTTP/1.1\r\n\r\n", [403, 400]),
        ("EHLO x\r\n", [400, 400]),
        ("\0\0\0\0\r\n\r\n", [400, 400]),
    ] {
        let answer = api.raw(request.as_bytes());
        assert!(statuses.contains(&answer.status), "{answer:?}");
    }
    let huge = api.with(
        "POST /api/v1/queue/flush",
        &[&format!("Authorization: Bearer {}", api.token), "Content-Type: application/json"],
        &"x".repeat(2 << 20),
    );
    assert!([413, 0].contains(&huge.status), "{huge:?}");
    // More who say nothing than there are places: those make room.
    let idle: Vec<TcpStream> = (0..600).map_while(|_| TcpStream::connect(host).ok()).collect();
    assert_eq!(idle.len(), 600);
    assert_eq!(api.with("GET /healthz", &[], "").status, 200);
    assert_eq!(api.get("/api/v1/status")["relay"]["ready"], json!(true));
    let answer = api.with("GET /", &[], "");
    for field in
        ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "x-frame-options: deny"]
    {
        assert!(answer.head.to_ascii_lowercase().contains(field), "{field} is missing in {}", answer.head);
    }
    relay.submit("app@sender.test", &["bob@mail.test"], b"Subject: x\r\n\r\nx\r\n");
    relay.wait_queue_empty();
}

#[test]
fn a_port_that_is_taken_holds_up_no_mail() {
    let (world, mx) = World::with_domain("mail.test");
    let taken = TcpListener::bind("127.0.3.2:0").unwrap();
    let address = taken.local_addr().unwrap();
    let relay = world.config().set("http", "address", &format!("\"{address}\"")).start();
    relay.submit("app@sender.test", &["bob@mail.test"], b"Subject: x\r\n\r\nx\r\n");
    mx.wait_accepted(1);
    until("the fault to be told", || relay.log().contains("http.address: there is no port at").then_some(()));
}
