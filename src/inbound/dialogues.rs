//! Plays the scripts of `tests/dialogues` against the front door, on pipes of different widths under a paused clock.
//!
//! `C:` a line of the client, `B:` octets without line end (`\r \n \t \0 \\`), `REPEAT: n octets`, `S:` a reply (`*`: any text), `WAIT: s`,
//! `STOP` the relay stops, `CLOSED` the server closed, `HANGUP` the client does. `BATCH` to `END`: one write.
//! `STORED: n`, `REFUSED: n`, `CONTENT:` look at the intake. First, where needed: `CLIENT:`, `BARE:`.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

use super::intake::*;
use super::options::{BareNewlines, Limits, Relay};
use super::{Bound, Front, options};
use crate::clock::Clock;
use crate::types::{ByteSize, Class, Mailbox, QueueId, QueueIds, ReversePath, Timestamp};

/// An intake in memory, whose answers follow the addresses.
pub(super) struct Shelf {
    ids: QueueIds,
    stored: Mutex<Vec<Received<Sheet>>>,
    refused: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Sheet(Vec<u8>);

impl Shelf {
    pub(super) fn new() -> Arc<Shelf> {
        Arc::new(Shelf { ids: QueueIds::new(0, 7), stored: Mutex::default(), refused: Mutex::default() })
    }
}

impl Intake for Shelf {
    type Body = Sheet;

    fn next_id(&self, now: Timestamp) -> QueueId {
        self.ids.next(now)
    }

    fn room(&self, size_bytes: u64) -> Result<(), NoRoom> {
        if size_bytes < 19_000 { Ok(()) } else { Err(NoRoom("the disk is nearly full".to_string())) }
    }

    fn standing(&self, recipient: &Mailbox, _: &ReversePath) -> Standing {
        let suppressed = Suppressed {
            class: Class::RecipientUnknown,
            reply: "550 5.5.0 mailbox unavailable".to_string(),
            since: Timestamp::from_secs(90_000),
        };
        match recipient.local_part() {
            "suppressed" => Standing::Refuse(suppressed),
            "dropped" => Standing::Drop,
            "panic" => panic!("a fault in a session"),
            _ => Standing::Welcome,
        }
    }

    fn refused(&self, refusal: RefusedRecipient<'_>) {
        self.refused.lock().unwrap().push(refusal.said.to_string());
    }

    fn body(&self, _id: QueueId) -> Sheet {
        Sheet(Vec::new())
    }

    fn accept(&self, message: Received<Sheet>) -> impl Future<Output = Result<(), AcceptError>> + Send {
        let result = match message.envelope.sender.mailbox().map(Mailbox::local_part) {
            Some("unlucky") => Err(AcceptError::Failed("the disk said no".to_string())),
            Some("unlucky-disk") => Err(AcceptError::NoRoom("the disk is full".to_string())),
            _ => Ok(()),
        };
        if result.is_ok() {
            assert_eq!(message.envelope.size_bytes, message.body.0.len() as u64);
            self.stored.lock().unwrap().push(message);
        }
        async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            result
        }
    }
}

impl BodySink for Sheet {
    fn write(&mut self, octets: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        self.0.extend_from_slice(octets);
        let fresh = &self.0[self.0.len().saturating_sub(octets.len() + 16)..];
        let has = |mark: &str| fresh.windows(mark.len()).any(|w| w == mark.as_bytes());
        let result = match (has("FAIL-DISK"), has("FAIL-IO")) {
            (true, _) => Err(io::ErrorKind::StorageFull.into()),
            (_, true) => Err(io::Error::other("the disk is on fire")),
            _ => Ok(()),
        };
        async { result }
    }
}

pub(super) fn front(shelf: Arc<Shelf>, limits: &Limits) -> Front<Shelf> {
    let clock = Clock::starting_at(Timestamp::from_secs(1000));
    let relay = Relay { postmaster: "ops@own.example".to_string(), ..Relay::default() };
    Front::new("relay.example", &relay, limits, shelf, clock).unwrap()
}

pub(super) fn limits() -> Limits {
    Limits { message_size: ByteSize(20_000), ..Limits::default() }
}

/// The client's end of a connection.
struct Caller {
    stream: DuplexStream,
    heard: Vec<u8>,
}

impl Caller {
    /// Sends, and hears what comes meanwhile: replies may be due before everything is sent.
    async fn send(&mut self, mut octets: &[u8]) {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let mut chunk = [0; 512];
        let mut open = true;
        while !octets.is_empty() {
            tokio::select! {
                biased;
                read = reader.read(&mut chunk), if open => match read {
                    Ok(0) | Err(_) => open = false,
                    Ok(count) => self.heard.extend_from_slice(&chunk[..count]),
                },
                written = writer.write(octets) => match written {
                    Ok(count) => octets = &octets[count..],
                    Err(_) => return,
                },
            }
        }
    }

    /// The next reply line, none when the server has closed.
    async fn line(&mut self) -> Option<String> {
        let mut chunk = [0; 512];
        loop {
            if let Some(end) = self.heard.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap();
                return Some(line.strip_suffix("\r\n").expect("a reply line ends in CRLF").to_string());
            }
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.heard.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let text = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0");
    text.into_bytes()
}

/// Does `text` look like `pattern`, where `*` stands for anything?
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|after| {
            (0..=after.len()).filter(|&at| after.is_char_boundary(at)).any(|at| matches(rest, &after[at..]))
        }),
    }
}

async fn play(name: &str, script: &str, width: usize) {
    let shelf = Shelf::new();
    let mut limits = limits();
    let setting = |key: &str| script.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    if setting("BARE:") == Some("reject") {
        limits.bare_newlines = BareNewlines::Reject;
    }
    let client = setting("CLIENT:").unwrap_or("127.0.0.1").parse().unwrap();
    let front = front(shelf.clone(), &limits);
    let stop = CancellationToken::new();
    let (here, there) = duplex(width);
    let server = async {
        let place = front.gate().enter(Timestamp::from_secs(1000)).await;
        front.serve(there, client, place, &stop).await;
    };
    let caller = Caller { stream: here, heard: Vec::new() };
    let client = follow(name, script, width, caller, &shelf, &stop);
    tokio::join!(server, client);
    assert_eq!(front.gate().open(), 0);
}

async fn follow(name: &str, script: &str, width: usize, mut caller: Caller, shelf: &Shelf, stop: &CancellationToken) {
    let mut batch: Option<Vec<u8>> = None;
    for (number, line) in script.lines().enumerate() {
        let place = format!("{name}:{} on a pipe of {width}", number + 1);
        let (word, rest) = line.split_once(':').unwrap_or((line, ""));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let octets = match word {
            "C" => [rest.as_bytes(), b"\r\n"].concat(),
            "B" => unescape(rest),
            "REPEAT" => {
                let (count, text) = rest.split_once(' ').unwrap();
                unescape(text).repeat(count.parse().unwrap())
            }
            _ => Vec::new(),
        };
        match (&mut batch, word) {
            (Some(batch), "C" | "B" | "REPEAT") => batch.extend(octets),
            (None, "C" | "B" | "REPEAT") => caller.send(&octets).await,
            (_, "BATCH") => batch = Some(Vec::new()),
            (_, "END") => caller.send(&batch.take().unwrap()).await,
            (_, "S") => {
                let heard = caller.line().await.unwrap_or_else(|| panic!("{place}: closed"));
                assert!(matches(rest, &heard), "{place}: expected {rest}, heard {heard}");
            }
            (_, "WAIT") => tokio::time::sleep(Duration::from_secs(rest.parse().unwrap())).await,
            (_, "STOP") => stop.cancel(),
            (_, "CLOSED") => assert_eq!(caller.line().await, None, "{place}"),
            (_, "STORED") => {
                assert_eq!(shelf.stored.lock().unwrap().len().to_string(), rest, "{place}");
            }
            (_, "REFUSED") => assert_eq!(shelf.refused.lock().unwrap().len().to_string(), rest, "{place}"),
            (_, "CONTENT") => {
                let stored = shelf.stored.lock().unwrap();
                let content = String::from_utf8_lossy(&stored.last().unwrap().body.0).into_owned();
                assert!(matches(&String::from_utf8(unescape(rest)).unwrap(), &content), "{place}: {content:?}");
            }
            (_, "HANGUP") => return,
            (_, "CLIENT" | "BARE" | "") => {}
            (_, comment) => assert!(comment.starts_with('#'), "{place}: what is {comment}?"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_scripts_play_on_every_pipe() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        for width in [1, 7, 65_536] {
            play(&path.file_name().unwrap().to_string_lossy(), &script, width).await;
            played += 1;
        }
    }
    assert!(played >= 45, "{played}");
}

#[tokio::test(start_paused = true)]
async fn the_one_idle_longest_is_told_and_makes_room() {
    let front = front(Shelf::new(), &Limits { connections: 1, ..limits() });
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let server = async {
        let place = front.gate().enter(front.clock.now()).await;
        front.serve(there, [127, 0, 0, 1].into(), place, &stop).await;
    };
    let newcomer = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(front.gate().enter(front.clock.now()).await);
    };
    let client = async {
        let mut caller = Caller { stream: here, heard: Vec::new() };
        assert!(caller.line().await.unwrap().starts_with("220 "));
        let line = caller.line().await.unwrap();
        assert!(line.starts_with("421 4.3.2 all places are taken"), "{line}");
    };
    tokio::join!(server, newcomer, client);
}

#[tokio::test(start_paused = true)]
async fn the_greeting_waits_for_a_client_with_too_many_connections() {
    let front = front(Shelf::new(), &Limits { connections_per_client: 1, ..limits() });
    let stop = CancellationToken::new();
    let client = [172, 18, 0, 9].into();
    let first = front.gate().client(client).await;
    let (here, there) = duplex(65_536);
    let mut caller = Caller { stream: here, heard: Vec::new() };
    let place = front.gate().enter(front.clock.now()).await;
    let releases = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        drop(first);
    };
    let hears = async {
        let greeting = caller.line().await;
        drop(caller);
        (greeting, front.clock.now())
    };
    let ((), (greeting, at), ()) = tokio::join!(front.serve(there, client, place, &stop), hears, releases);
    assert_eq!((greeting.unwrap().starts_with("220 "), at), (true, Timestamp::from_secs(1020)));

    let _first = front.gate().client(client).await;
    let (here, there) = duplex(65_536);
    let mut caller = Caller { stream: here, heard: Vec::new() };
    let place = front.gate().enter(front.clock.now()).await;
    let ((), greeting) = tokio::join!(front.serve(there, client, place, &stop), caller.line());
    assert_eq!((greeting, front.clock.now()), (None, Timestamp::from_secs(1050)));
}

/// What a new connection of 192.0.2.5 hears to its recipient.
async fn knock(front: &Front<Shelf>) -> String {
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let place = front.gate().enter(front.clock.now()).await;
    let client = async {
        let mut caller = Caller { stream: here, heard: Vec::new() };
        caller.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nQUIT\r\n").await;
        let mut lines = Vec::new();
        while let Some(line) = caller.line().await {
            lines.push(line);
        }
        lines[3].clone()
    };
    tokio::join!(front.serve(there, [192, 0, 2, 5].into(), place, &stop), client).1
}

#[tokio::test(start_paused = true)]
async fn a_slowed_client_hears_why_at_mail_and_is_served_again_afterwards() {
    let front = front(Shelf::new(), &limits());
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let place = front.gate().enter(front.clock.now()).await;
    let mine = [127, 0, 0, 1].into();
    let client = async {
        let mut caller = Caller { stream: here, heard: Vec::new() };
        assert!(caller.line().await.unwrap().starts_with("220 "));
        caller.send(b"HELO x\r\nMAIL FROM:<a@own.example>\r\n").await;
        assert!([caller.line().await, caller.line().await].iter().flatten().all(|line| line.starts_with("250 ")));
        // What is under way goes on.
        front.slowed().slow(mine, "20 of 30 are unknown", Timestamp::from_secs(1060));
        caller.send(b"RCPT TO:<b@d.example>\r\nRSET\r\nMAIL FROM:<a@own.example>\r\n").await;
        assert!(caller.line().await.unwrap().starts_with("250 2.1.5 "));
        caller.line().await.unwrap();
        let refused = caller.line().await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        caller.send(b"MAIL FROM:<a@own.example>\r\nQUIT\r\n").await;
        (refused, caller.line().await.unwrap())
    };
    let ((), (refused, taken)) = tokio::join!(front.serve(there, mine, place, &stop), client);
    assert_eq!(refused.trim_end(), "450 4.7.1 slowed down, send it again later: 20 of 30 are unknown");
    assert!(taken.starts_with("250 2.1.0 "), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_admits_by_the_new_rules_from_the_next_connection_on() {
    let front = front(Shelf::new(), &limits());
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let place = front.gate().enter(front.clock.now()).await;
    let wider = Relay { trusted_networks: vec!["192.0.2.0/24".parse().unwrap()], ..Relay::default() };
    let client = async {
        let mut caller = Caller { stream: here, heard: Vec::new() };
        assert!(caller.line().await.unwrap().starts_with("220 "));
        assert!(knock(&front).await.starts_with("550 5.7.1 "));

        front.reload(&wider).unwrap();
        // It may relay; no postmaster is set any more.
        assert!(knock(&front).await.starts_with("550 5.1.1 "));
        let wrong = Relay { postmaster: "nobody".to_string(), ..Relay::default() };
        let error = front.reload(&wrong).unwrap_err().to_string();
        assert!(error.starts_with("relay.postmaster: `nobody` is no mail address"), "{error}");
        assert!(knock(&front).await.starts_with("550 5.1.1 "), "a faulty reload changes nothing");

        caller.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@d.example>\r\nQUIT\r\n").await;
        for _ in 0..2 {
            caller.line().await.unwrap();
        }
        caller.line().await.unwrap()
    };
    let ((), heard) = tokio::join!(front.serve(there, [127, 0, 0, 1].into(), place, &stop), client);
    assert!(heard.starts_with("250 2.1.5 "), "the connection that was there keeps its rules: {heard}");
}

/// On real sockets, in real time: a session that panics, others that live, and a stop.
#[tokio::test]
async fn a_panic_ends_one_session_and_a_stop_ends_all() {
    let shelf = Shelf::new();
    let front = Arc::new(front(shelf.clone(), &limits()));
    let listener = options::Listener { address: ([127, 0, 0, 1], 0).into() };
    let bound = Bound::bind(std::slice::from_ref(&listener)).unwrap();
    let address = bound.addresses()[0];
    let taken = Bound::bind(&[options::Listener { address }]).unwrap_err();
    assert!(taken.to_string().starts_with(&format!("cannot listen on {address} ")), "{taken}");

    let (sessions, stop) = (tokio_util::task::TaskTracker::new(), CancellationToken::new());
    let serving = sessions.spawn(bound.serve(front.clone(), sessions.clone(), stop.clone()));
    let mut healthy = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut doomed = tokio::net::TcpStream::connect(address).await.unwrap();
    doomed.write_all(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<panic@d.example>\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Closed by the panic, whatever came before.
    let _ = doomed.read_to_end(&mut rest).await;

    let script = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@d.example>\r\nDATA\r\nx\r\n.\r\n";
    healthy.write_all(script).await.unwrap();
    let mut heard = String::new();
    let mut chunk = [0; 512];
    while !heard.contains("queued as") {
        let count = healthy.read(&mut chunk).await.unwrap();
        assert!(count > 0, "{heard}");
        heard.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    assert_eq!((front.gate().panics(), shelf.stored.lock().unwrap().len()), (1, 1));

    stop.cancel();
    sessions.close();
    let mut rest = String::new();
    healthy.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("421 4.3.2 "), "{rest}");
    drop(healthy);
    sessions.wait().await;
    serving.await.unwrap();
    assert_eq!(front.gate().open(), 0);
}
