//! Plays the scripts of `tests/dialogues` against the front door, on pipes of different widths under a paused clock.
//!
//! `C:` a line of the client, `B:` octets without line end (`\r \n \t \0 \\`), `REPEAT: n octets`, `S:` a reply (`*`: any text), `WAIT: s`,
//! `STOP` the relay stops, `CLOSED` the server closed, `HANGUP` the client does. `BATCH` to `END`: one write. `TLS` a handshake.
//! `STORED: n`, `REFUSED: n`, `CONTENT:`, `CLASS:` look at the intake. First, where needed: `CLIENT:`, `BARE:`, `DOOR:` with settings of the
//! listener, as in `tls=starttls auth=require`, `USER:` with who may log in and what it may, as in `app:secret rate=2/min`, `RELAY:` for
//! `[relay]`, `PER_CLIENT:` for `limits.messages_per_client`, and `WIDE` for a wide pipe alone.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::intake::*;
use super::options::{BareNewlines, Limits, Relay};
use super::{Bound, Door, Front, options, tls};
use crate::auth::options::User;
use crate::auth::{Auth, Users};
use crate::clock::Clock;
use crate::types::{ByteSize, Class, Domain, Mailbox, QueueId, QueueIds, ReversePath, Secret, Submitter, Timestamp};

/// A listener as it is without settings.
static CLEAR: LazyLock<Door> = LazyLock::new(Door::default);

/// A certificate for the listeners of the scripts, and a client that trusts it.
static PAPERS: LazyLock<Papers> = LazyLock::new(Papers::issue);

struct Papers {
    server: tls::InForce,
    client: Arc<ClientConfig>,
}

impl Papers {
    fn issue() -> Papers {
        let issued = rcgen::generate_simple_self_signed(["relay.example".to_string()]).unwrap();
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let chain = vec![issued.cert.der().clone()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let server = tls::InForce::new(tls::Certificate::of(chain, key).unwrap());
        Papers { server, client: Arc::new(client) }
    }
}

/// The listener that a script describes.
pub(super) fn door(settings: &str) -> Door {
    let listener = table(&format!("address=127.0.0.1:0 {settings}")).try_into().unwrap();
    Door::new(&listener, Some(&PAPERS.server)).unwrap()
}

/// Settings as a table of the configuration.
fn table(settings: &str) -> toml::Table {
    let line = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        let quote = if value.parse::<u64>().is_ok() { "" } else { "'" };
        format!("{key} = {quote}{value}{quote}\n")
    };
    settings.split_whitespace().map(line).collect::<String>().parse().unwrap()
}

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
    type Space = ();

    fn next_id(&self, now: Timestamp) -> QueueId {
        self.ids.next(now)
    }

    fn room(&self, size_bytes: u64) -> Result<(), NoRoom> {
        if size_bytes < 19_000 { Ok(()) } else { Err(NoRoom("the disk is nearly full".to_string())) }
    }

    fn set_aside(&self, size_bytes: Option<u64>) -> Result<(), NoRoom> {
        self.room(size_bytes.unwrap_or(0))
    }

    fn standing(&self, recipient: &Mailbox, _: &ReversePath) -> Standing {
        let suppressed = Suppressed {
            class: Class::RecipientUnknown,
            reply: "550 5.5.0 mailbox unavailable".to_string(),
            by_receiver: true,
            since: Timestamp::from_secs(90_000),
        };
        match recipient.local_part() {
            "suppressed" => Standing::Refuse(suppressed),
            "dropped" => Standing::Drop,
            "panic" => panic!("a fault in a session"),
            _ => Standing::Welcome,
        }
    }

    fn way_back(&self, recipient: &Mailbox) -> Option<WayBack> {
        (recipient.domain().as_str() == "fb.example").then(|| match recipient.local_part() {
            "token" => WayBack::Open,
            "busy" => WayBack::Busy,
            _ => WayBack::Shut("the token does not count: its signature is wrong".to_string()),
        })
    }

    fn refused(&self, refusal: RefusedRecipient<'_>) {
        self.refused.lock().unwrap().push(refusal.said.to_string());
    }

    fn body(&self, _id: QueueId, _sender: &ReversePath, _space: Option<()>) -> Sheet {
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
    front_for(shelf, limits, "", None)
}

/// With settings of `[relay]`, and one user, given as `name:password` and settings.
fn front_for(shelf: Arc<Shelf>, limits: &Limits, relay: &str, user: Option<&str>) -> Front<Shelf> {
    let clock = Clock::starting_at(Timestamp::from_secs(1000));
    let relay = Relay { postmaster: "ops@own.example".to_string(), ..table(relay).try_into().unwrap() };
    let user = user.and_then(|user| user.split_once(':')).map(|(name, rest)| {
        let (password, settings) = rest.split_once(' ').unwrap_or((rest, ""));
        User {
            name: name.to_string(),
            password: Secret::new(password),
            sender_domains: vec![Domain::parse("own.example").unwrap()],
            ..table(settings).try_into().unwrap()
        }
    });
    let users = Users::load("", &Vec::from_iter(user)).unwrap();
    let auth = Auth::new(users, clock.clone());
    Front::new("relay.example", &relay, limits, auth, shelf, clock).unwrap()
}

pub(super) fn limits() -> Limits {
    Limits { message_size: ByteSize(20_000), ..Limits::default() }
}

/// The client's end of a connection.
pub(super) struct Caller {
    stream: Box<dyn Wide>,
    heard: Vec<u8>,
}

trait Wide: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wide for S {}

impl Caller {
    pub(super) fn new(stream: DuplexStream) -> Caller {
        Caller { stream: Box::new(stream), heard: Vec::new() }
    }

    /// Goes over to TLS.
    async fn secure(&mut self) {
        assert_eq!(self.heard, b"", "nothing comes between the reply to STARTTLS and the handshake");
        let clear = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let name = ServerName::try_from("relay.example").unwrap();
        let connector = TlsConnector::from(PAPERS.client.clone());
        self.stream = Box::new(connector.connect(name, clear).await.unwrap());
    }
    /// Sends, and hears what comes meanwhile: replies may be due before everything is sent. Inside TLS the last octets leave with
    /// the flush.
    pub(super) async fn send(&mut self, mut octets: &[u8]) {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let mut chunk = [0; 512];
        let mut open = true;
        loop {
            let sends = async {
                match octets {
                    [] => writer.flush().await.map(|()| 0),
                    octets => writer.write(octets).await,
                }
            };
            tokio::select! {
                biased;
                read = reader.read(&mut chunk), if open => match read {
                    Ok(0) | Err(_) => open = false,
                    Ok(count) => self.heard.extend_from_slice(&chunk[..count]),
                },
                sent = sends => match sent {
                    Ok(0) | Err(_) => return,
                    Ok(count) => octets = &octets[count..],
                },
            }
        }
    }

    /// The next reply line, none when the server has closed.
    pub(super) async fn line(&mut self) -> Option<String> {
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
    if let Some(rate) = setting("PER_CLIENT:") {
        limits.messages_per_client = rate.parse().unwrap();
    }
    let client = setting("CLIENT:").unwrap_or("127.0.0.1").parse().unwrap();
    let front = front_for(shelf.clone(), &limits, setting("RELAY:").unwrap_or_default(), setting("USER:"));
    let door = setting("DOOR:").map(door).unwrap_or_default();
    let stop = CancellationToken::new();
    let (here, there) = duplex(width);
    let server = async {
        let place = front.enter(client).await.unwrap();
        front.serve(&door, there, client, place, &stop).await;
    };
    let caller = Caller::new(here);
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
            (_, "TLS") => caller.secure().await,
            (_, "STOP") => stop.cancel(),
            (_, "CLOSED") => assert_eq!(caller.line().await, None, "{place}"),
            (_, "STORED") => {
                assert_eq!(shelf.stored.lock().unwrap().len().to_string(), rest, "{place}");
            }
            (_, "CLASS") => {
                let stored = shelf.stored.lock().unwrap();
                assert_eq!(stored.last().unwrap().envelope.class.as_str(), rest, "{place}");
            }
            (_, "REFUSED") => assert_eq!(shelf.refused.lock().unwrap().len().to_string(), rest, "{place}"),
            (_, "CONTENT") => {
                let stored = shelf.stored.lock().unwrap();
                let content = String::from_utf8_lossy(&stored.last().unwrap().body.0).into_owned();
                assert!(matches(&String::from_utf8(unescape(rest)).unwrap(), &content), "{place}: {content:?}");
            }
            (_, "HANGUP") => return,
            (_, "CLIENT" | "BARE" | "DOOR" | "USER" | "RELAY" | "PER_CLIENT" | "WIDE" | "") => {}
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
        let says = |word: &str| script.lines().any(|line| line == word);
        let widths: &[usize] = match (says("WIDE"), says("TLS")) {
            // What was written at once comes at once only where there is room for it.
            (true, _) => &[65_536],
            // A handshake runs into its limit on a pipe of one octet, here as in the tests of outbound.
            (false, true) => &[7, 65_536],
            (false, false) => &[1, 7, 65_536],
        };
        for &width in widths {
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
        let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
        front.serve(&CLEAR, there, [127, 0, 0, 1].into(), place, &stop).await;
    };
    let newcomer = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(front.enter([127, 0, 0, 1].into()).await);
    };
    let client = async {
        let mut caller = Caller::new(here);
        assert!(caller.line().await.unwrap().starts_with("220 "));
        let line = caller.line().await.unwrap();
        assert!(line.starts_with("421 4.3.2 all places are taken"), "{line}");
    };
    tokio::join!(server, newcomer, client);
}

#[tokio::test(start_paused = true)]
async fn who_has_to_make_room_before_the_greeting_hears_nothing() {
    let front = front(Shelf::new(), &Limits { connections: 1, ..limits() });
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let client = [127, 0, 0, 1].into();
    let place = front.enter(client).await.unwrap();
    // The newcomer has the place before the session has said a word.
    drop(front.enter(client).await);
    let mut caller = Caller::new(here);
    let ((), heard) = tokio::join!(front.serve(&CLEAR, there, client, place, &stop), caller.line());
    assert_eq!(heard, None);
}

#[tokio::test(start_paused = true)]
async fn the_greeting_waits_for_a_client_with_too_many_connections() {
    let front = front(Shelf::new(), &Limits { connections_per_client: 1, ..limits() });
    let stop = CancellationToken::new();
    let client = [172, 18, 0, 9].into();
    let first = front.gate().client(client).await;
    let (here, there) = duplex(65_536);
    let mut caller = Caller::new(here);
    let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
    let releases = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        drop(first);
    };
    let hears = async {
        let greeting = caller.line().await;
        drop(caller);
        (greeting, front.clock.now())
    };
    let ((), (greeting, at), ()) = tokio::join!(front.serve(&CLEAR, there, client, place, &stop), hears, releases);
    assert_eq!((greeting.unwrap().starts_with("220 "), at), (true, Timestamp::from_secs(1020)));

    let _first = front.gate().client(client).await;
    let (here, there) = duplex(65_536);
    let mut caller = Caller::new(here);
    let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
    let ((), greeting) = tokio::join!(front.serve(&CLEAR, there, client, place, &stop), caller.line());
    assert_eq!((greeting, front.clock.now()), (None, Timestamp::from_secs(1050)));
}

/// What a new connection of 192.0.2.5 hears to its recipient.
async fn knock(front: &Front<Shelf>) -> String {
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
    let client = async {
        let mut caller = Caller::new(here);
        caller.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nQUIT\r\n").await;
        let mut lines = Vec::new();
        while let Some(line) = caller.line().await {
            lines.push(line);
        }
        lines[3].clone()
    };
    tokio::join!(front.serve(&CLEAR, there, [192, 0, 2, 5].into(), place, &stop), client).1
}

#[tokio::test(start_paused = true)]
async fn a_slowed_client_hears_why_at_mail_and_is_served_again_afterwards() {
    let front = front(Shelf::new(), &limits());
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
    let mine = [127, 0, 0, 1].into();
    let client = async {
        let mut caller = Caller::new(here);
        assert!(caller.line().await.unwrap().starts_with("220 "));
        caller.send(b"HELO x\r\nMAIL FROM:<a@own.example>\r\n").await;
        assert!([caller.line().await, caller.line().await].iter().flatten().all(|line| line.starts_with("250 ")));
        // What is under way goes on.
        front.slowed().slow(Submitter::Client(mine), "20 of 30 are unknown", Timestamp::from_secs(1060));
        caller.send(b"RCPT TO:<b@d.example>\r\nRSET\r\nMAIL FROM:<a@own.example>\r\n").await;
        assert!(caller.line().await.unwrap().starts_with("250 2.1.5 "));
        caller.line().await.unwrap();
        let refused = caller.line().await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        caller.send(b"MAIL FROM:<a@own.example>\r\nQUIT\r\n").await;
        (refused, caller.line().await.unwrap())
    };
    let ((), (refused, taken)) = tokio::join!(front.serve(&CLEAR, there, mine, place, &stop), client);
    assert_eq!(refused.trim_end(), "450 4.7.1 slowed down, send it again later: 20 of 30 are unknown");
    assert!(taken.starts_with("250 2.1.0 "), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_slowed_user_waits_and_who_shares_its_address_does_not() {
    let front = front_for(Shelf::new(), &limits(), "", Some("app:secret"));
    let stop = CancellationToken::new();
    let mine: std::net::IpAddr = [127, 0, 0, 1].into();
    front.slowed().slow(Submitter::User("app".into()), "20 of 30 are unknown", Timestamp::from_secs(1060));
    for (log_in, expected) in [("", "250 2.1.0 "), ("AUTH PLAIN AGFwcABzZWNyZXQ=\r\n", "450 4.7.1 ")] {
        let (here, there) = duplex(65_536);
        let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
        let client = async {
            let mut caller = Caller::new(here);
            caller.send(format!("EHLO x\r\n{log_in}MAIL FROM:<a@own.example>\r\nQUIT\r\n").as_bytes()).await;
            let mut lines = Vec::new();
            while let Some(line) = caller.line().await {
                lines.push(line);
            }
            lines[lines.len() - 2].clone()
        };
        let ((), heard) = tokio::join!(front.serve(&CLEAR, there, mine, place, &stop), client);
        assert!(heard.starts_with(expected), "{heard}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_changed_by_a_reload_holds_on_connections_that_are_open() {
    let front = front_for(Shelf::new(), &limits(), "", Some("app:secret"));
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
    let client = async {
        let mut caller = Caller::new(here);
        caller.send(b"EHLO x\r\nAUTH PLAIN AGFwcABzZWNyZXQ=\r\n").await;
        while !caller.line().await.unwrap().starts_with("235 ") {}
        for (rate, expected) in [("1/min", "250 "), ("2/min", "450 4.7.1 ")] {
            let user = User {
                name: "app".to_string(),
                password: Secret::new("secret"),
                rate: rate.parse().unwrap(),
                ..User::default()
            };
            front.auth.replace(Users::load("", &[user]).unwrap());
            caller.send(b"MAIL FROM:<a@own.example>\r\nRSET\r\n").await;
            let heard = caller.line().await.unwrap();
            assert!(heard.starts_with(expected), "{rate}: {heard}");
            caller.line().await.unwrap();
        }
        caller.send(b"QUIT\r\n").await;
        caller
    };
    tokio::join!(front.serve(&CLEAR, there, [127, 0, 0, 1].into(), place, &stop), client);
}

#[tokio::test(start_paused = true)]
async fn a_reload_admits_by_the_new_rules_from_the_next_connection_on() {
    let front = front(Shelf::new(), &limits());
    let stop = CancellationToken::new();
    let (here, there) = duplex(65_536);
    let place = front.enter([127, 0, 0, 1].into()).await.unwrap();
    let wider = Relay { trusted_networks: vec!["192.0.2.0/24".parse().unwrap()], ..Relay::default() };
    let client = async {
        let mut caller = Caller::new(here);
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
    let ((), heard) = tokio::join!(front.serve(&CLEAR, there, [127, 0, 0, 1].into(), place, &stop), client);
    assert!(heard.starts_with("250 2.1.5 "), "the connection that was there keeps its rules: {heard}");
}

/// On real sockets, in real time: a session that panics, others that live, and a stop.
#[tokio::test]
async fn a_panic_ends_one_session_and_a_stop_ends_all() {
    let shelf = Shelf::new();
    let front = Arc::new(front(shelf.clone(), &limits()));
    let listener = options::Listener::at(([127, 0, 0, 1], 0).into());
    let bound = Bound::bind(std::slice::from_ref(&listener), None).unwrap();
    let address = bound.addresses()[0];
    let taken = Bound::bind(&[options::Listener::at(address)], None).err().unwrap();
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
