//! The room as a whole: what arrives at a webhook, a program and a mailbox, and when.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::types::{QueueIds, Span};

const START: Timestamp = Timestamp::from_secs(1_795_293_220);

/// A relay at whose mailbox `example.com` is at outlook.
struct Fake {
    events: Mutex<Vec<Event>>,
    letters: mpsc::Sender<Letter>,
    mails: AtomicUsize,
    /// So many letters are refused first.
    refusals: usize,
}

impl Names for Fake {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if host == "hooks.test" { Ok(vec!["127.0.0.1".parse().unwrap()]) } else { Err("no such name".into()) }
    }
}

impl Means for Fake {
    fn host(&self) -> Arc<str> {
        "relay.example.com".into()
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn next_id(&self, now: Timestamp) -> QueueId {
        QueueIds::new(0, 1).next(now)
    }

    async fn provider_of(&self, domain: &Domain) -> Option<Arc<str>> {
        (domain.to_string() == "example.com").then(|| "outlook".into())
    }

    async fn mail(&self, _: QueueId, letter: Letter) -> Result<(), String> {
        if self.mails.fetch_add(1, Ordering::Relaxed) < self.refusals {
            return Err("the spool cannot write".into());
        }
        self.letters.send(letter).await.map_err(|e| e.to_string())
    }
}

struct Bench {
    alerts: Alerts,
    means: Arc<Fake>,
    letters: mpsc::Receiver<Letter>,
    clock: Clock,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn start(options: options::Alerts, refusals: usize) -> Bench {
    let (sender, letters) = mpsc::channel(100);
    let means = Arc::new(Fake { events: Mutex::default(), letters: sender, mails: AtomicUsize::new(0), refusals });
    let (alerts, tasks, stop) = (Alerts::default(), TaskTracker::new(), CancellationToken::new());
    let clock = Clock::starting_at(START);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = crate::post::Tls::new(provider, &[]).unwrap();
    let room = Room::new(&options, alerts.clone(), means.clone(), clock.clone(), &tls, &tasks, &stop);
    tasks.spawn(room.run(stop.clone()));
    Bench { alerts, means, letters, clock, tasks, stop }
}

impl Bench {
    fn say(&self, key: &str, raised: bool, provider: Option<&str>) {
        self.alerts.tell(Alert {
            key: key.into(),
            raised,
            text: format!("{key} is bad"),
            remedy: "look".into(),
            provider: provider.map(Into::into),
        });
    }

    /// The subject of the next letter, and when it came.
    async fn letter(&mut self) -> (String, Timestamp) {
        let letter = self.letters.recv().await.unwrap();
        let text = String::from_utf8(letter.content.to_vec()).unwrap();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: weir on relay.example.com: ")).unwrap();
        (subject.to_string(), self.clock.now())
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn mail_to(address: &str) -> options::Alerts {
    options::Alerts { mail: address.into(), ..options::Alerts::default() }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Takes one request on a connection: its head and its JSON.
async fn request(stream: &mut TcpStream) -> (String, serde_json::Value) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).await.unwrap() > 0, "cut off: {head}");
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_string));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body).await.unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

async fn answer(mut stream: TcpStream, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let _ = stream.shutdown().await;
}

fn webhook(listener: &TcpListener, host: &str) -> options::Alerts {
    let port = listener.local_addr().unwrap().port();
    options::Alerts { webhook: format!("http://{host}:{port}/hook?token=SECRET"), ..options::Alerts::default() }
}

#[tokio::test(start_paused = true)]
async fn it_is_mailed_at_once_every_repeat_and_when_it_is_over() {
    let mut bench = start(mail_to("ops@example.org"), 0);
    bench.say("disk", true, None);
    assert_eq!(bench.letter().await, ("disk is bad".to_string(), START + secs(1)));
    assert_eq!(bench.letter().await, ("disk is bad".to_string(), START + secs(14_401)));
    bench.say("disk", false, None);
    assert_eq!(bench.letter().await, ("over: disk is bad".to_string(), START + secs(14_402)));
    let events: Vec<String> = bench.means.events.lock().unwrap().iter().map(|e| e.text.clone().unwrap()).collect();
    assert_eq!(events, ["disk is bad", "over: disk"], "a repeat is no event");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn word_of_a_provider_is_not_mailed_through_it() {
    let mut bench = start(mail_to("ops@example.com"), 0);
    bench.say("blocked outlook default", true, Some("outlook"));
    bench.say("blocked gmail default", true, Some("gmail"));
    assert_eq!(bench.letter().await.0, "blocked gmail default is bad");
    bench.say("paused outlook default", true, Some("outlook"));
    bench.say("disk", true, None);
    assert_eq!(bench.letter().await.0, "disk is bad");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_not_taken_is_tried_once_more() {
    let mut bench = start(mail_to("ops@example.org"), 3);
    bench.say("a", true, None);
    bench.clock.sleep_until(START + secs(100)).await;
    assert_eq!(bench.means.mails.load(Ordering::Relaxed), 2, "and no more");
    bench.say("b", true, None);
    assert_eq!(bench.letter().await, ("b is bad".to_string(), START + secs(131)));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn changed_settings_hold_at_once() {
    let mut bench = start(options::Alerts::default(), 0);
    bench.say("disk", true, None);
    bench.clock.sleep_until(START + secs(100)).await;
    bench.alerts.reload(&options::Alerts { repeat: Span(secs(600)), ..mail_to("ops@example.org") });
    assert_eq!(bench.letter().await, ("disk is bad".to_string(), START + secs(601)));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn telling_never_waits_however_much_is_told() {
    let mut bench = start(mail_to("ops@example.org"), 0);
    for n in 0..5000 {
        bench.say(&format!("key {n:04}"), true, None);
    }
    assert_eq!(bench.letter().await.0, "1000 alerts, 0 over");
    bench.end().await;
}

#[tokio::test]
async fn a_webhook_gets_json_and_no_header_holds_its_secret_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = start(webhook(&listener, "hooks.test"), 0);
    bench.say("blocked outlook default", true, Some("outlook"));
    let (mut stream, _) = listener.accept().await.unwrap();
    let (head, json) = request(&mut stream).await;
    assert!(head.starts_with("POST /hook?token=SECRET HTTP/1.1\r\n"), "{head}");
    assert_eq!(head.matches("SECRET").count(), 1);
    let port = listener.local_addr().unwrap().port();
    assert!(head.contains(&format!("host: hooks.test:{port}\r\n")), "{head}");
    assert_eq!((&json["key"], &json["state"]), (&"blocked outlook default".into(), &"raised".into()));
    answer(stream, "204 No Content").await;
    bench.end().await;
}

#[tokio::test]
async fn an_end_arrives_after_its_beginning() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = start(webhook(&listener, "127.0.0.1"), 0);
    bench.say("disk", true, None);
    let (mut first, _) = listener.accept().await.unwrap();
    let (_, json) = request(&mut first).await;
    assert_eq!(json["state"], "raised");
    // The end is said while the beginning is still on its way.
    bench.say("disk", false, None);
    while bench.means.events.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    answer(first, "200 OK").await;
    let (mut second, _) = listener.accept().await.unwrap();
    let (_, json) = request(&mut second).await;
    assert_eq!((&json["state"], &json["text"]), (&"cleared".into(), &"over: disk is bad".into()));
    answer(second, "200 OK").await;
    bench.end().await;
}

#[test]
fn what_a_webhook_answers_decides_whether_it_is_asked_again() {
    for (status, is_temporary) in [(500, true), (429, true), (404, false), (302, false)] {
        let status = hyper::StatusCode::from_u16(status).unwrap();
        let error = crate::post::PostError::Status { status, retry_after: None };
        assert_eq!(courier::is_temporary(&error), is_temporary, "{status}");
    }
    assert!(courier::is_temporary(&crate::post::PostError::Connect("127.0.0.1: refused".into())));
}

#[tokio::test]
async fn a_webhook_that_hangs_holds_up_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options::Alerts { mail: "ops@example.org".into(), ..webhook(&listener, "127.0.0.1") };
    let mut bench = start(options, 0);
    bench.say("disk", true, None);
    let hanging = listener.accept().await.unwrap();
    assert_eq!(bench.letter().await.0, "disk is bad");
    bench.say("disk", false, None);
    assert_eq!(bench.letter().await.0, "over: disk is bad");
    drop(hanging);
    bench.end().await;
}

#[tokio::test]
async fn a_program_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("tell.sh");
    std::fs::write(&script, "echo \"$WEIR_ALERT_STATE $WEIR_ALERT_KEY\" > \"$1.new\"; mv \"$1.new\" \"$1\"").unwrap();
    let file = folder.path().join("told by");
    let command = format!("/bin/sh '{}' '{}'", script.display(), file.display());
    let bench = start(options::Alerts { command, ..options::Alerts::default() }, 0);
    bench.say("port25", true, None);
    let told = tokio::time::timeout(secs(20), async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(told.await.unwrap(), "raised port25\n");
    bench.end().await;
}
