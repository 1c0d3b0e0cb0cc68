//! A scripted receiving host: accepts everything, except where the script of a test says otherwise.
//!
//! What it got is kept byte for byte: envelope, parameters, content with the dot-stuffing taken off. It ends a message at
//! CRLF.CRLF and nowhere else, so whatever a client smuggles becomes visible as content.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Gate;
use super::session::Session;

/// What Outlook.com's hosts offer, without STARTTLS (which comes by itself with a certificate) and BINARYMIME.
pub const KEYWORDS: &[&str] =
    &["SIZE 49283072", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "CHUNKING", "SMTPUTF8"];

/// A moment of the dialogue at which the script can act.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    Greeting,
    Ehlo,
    StartTls,
    /// After 220 to STARTTLS, before the handshake.
    Handshake,
    /// What is said to credentials that are right.
    Auth,
    Mail,
    /// RCPT of any address that has no `To` of its own.
    Rcpt,
    To(String),
    /// DATA; with CHUNKING, the first BDAT once its octets are read.
    Data,
    /// In the middle of the content.
    Body,
    /// After the content, before the final reply.
    End,
    /// After the answer to QUIT, before the connection is closed.
    HangUp,
}

impl At {
    pub fn to(address: &str) -> At {
        At::To(address.to_ascii_lowercase())
    }
}

/// What the script does at a moment.
#[derive(Clone)]
pub struct Act {
    pub(super) gate: Option<Gate>,
    pub(super) reply: Words,
    pub(super) closes: bool,
}

#[derive(Clone)]
pub(super) enum Words {
    Usual,
    These(String),
    None,
}

/// Answers `reply` instead of the usual; lines separated by line feeds, each with its code.
pub fn say(reply: &str) -> Act {
    Act { gate: None, reply: Words::These(reply.to_string()), closes: false }
}

/// Answers `reply` and closes the connection.
pub fn close(reply: &str) -> Act {
    Act { closes: true, ..say(reply) }
}

/// Closes the connection without a word.
pub fn drop_connection() -> Act {
    Act { gate: None, reply: Words::None, closes: true }
}

/// Goes on as usual once the gate lets through.
pub fn wait_at(gate: &Gate) -> Act {
    Act { gate: Some(gate.clone()), reply: Words::Usual, closes: false }
}

/// A message whose content came through to its end.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Counted from 1 in the order of their beginning, for each host.
    pub connection: usize,
    /// Where the client came from.
    pub peer: IpAddr,
    pub helo: String,
    pub is_tls: bool,
    /// Who logged in.
    pub login: Option<String>,
    pub sender: String,
    /// `SIZE=…`, `BODY=…` as they came.
    pub mail_parameters: Vec<String>,
    /// Recipients that got a 2xx.
    pub recipients: Vec<Rcpt>,
    pub content: Vec<u8>,
    /// By BDAT, not DATA.
    pub is_chunked: bool,
    /// The final reply; none if the connection was dropped instead.
    pub reply: Option<String>,
    /// Just before the final reply was written.
    pub replied: Instant,
}

impl Transaction {
    pub fn is_accepted(&self) -> bool {
        self.reply.as_ref().is_some_and(|r| r.starts_with('2'))
    }

    pub fn to(&self) -> Vec<&str> {
        self.recipients.iter().map(|r| r.address.as_str()).collect()
    }

    /// The content behind the header.
    pub fn body(&self) -> &[u8] {
        memchr::memmem::find(&self.content, b"\r\n\r\n").map_or(&[], |at| &self.content[at + 4..])
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// The value of a header field, folding undone.
    pub fn header(&self, name: &str) -> Option<String> {
        super::report::field(&self.text(), name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    pub address: String,
    /// `NOTIFY=…`, `ORCPT=…` as they came.
    pub parameters: Vec<String>,
}

/// A receiving host. It ends with its value.
pub struct Mx {
    pub name: String,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Connections at several hosts together.
#[derive(Default)]
pub struct Crowd(Mutex<(usize, usize)>);

impl Crowd {
    /// Connections open now.
    pub fn open(&self) -> usize {
        self.count().0
    }

    /// The most that ever were open at once.
    pub fn peak(&self) -> usize {
        self.count().1
    }

    pub(super) fn enter(&self) {
        let mut count = self.count();
        count.0 += 1;
        count.1 = count.1.max(count.0);
    }

    pub(super) fn leave(&self) {
        self.count().0 -= 1;
    }

    fn count(&self) -> MutexGuard<'_, (usize, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Shared {
    pub(super) name: String,
    pub(super) state: Mutex<State>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// In PEM; empty without TLS.
    certificate: String,
    over: AtomicBool,
    pub(super) keeps_content: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) script: BTreeMap<At, Plan>,
    pub(super) keywords: Vec<String>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) commands: Vec<String>,
    pub(super) open: usize,
    pub(super) peak: usize,
    pub(super) connections: usize,
    pub(super) accepted: usize,
    /// A hello that needs more than a packet ends the connection.
    pub(super) drops_large_hellos: bool,
    /// Name and password that are asked for, and the mechanism that is offered for them.
    pub(super) login: Option<(String, String, &'static str)>,
}

#[derive(Default)]
pub(super) struct Plan {
    once: VecDeque<Act>,
    always: Option<Act>,
}

impl Mx {
    /// Serves `listener` under `name`, as one of the hosts of `crowd`; with `has_tls` it offers STARTTLS with a certificate
    /// nobody signed.
    pub fn start(name: &str, listener: TcpListener, has_tls: bool, crowd: Arc<Crowd>) -> Mx {
        let address = listener.local_addr().expect("the address of a bound socket");
        let (tls, certificate) = has_tls.then(|| self_signed(name)).unzip();
        let shared = Arc::new(Shared {
            name: name.to_string(),
            state: Mutex::default(),
            crowd,
            tls,
            certificate: certificate.unwrap_or_default(),
            over: AtomicBool::new(false),
            keeps_content: AtomicBool::new(true),
        });
        let mx = Mx { name: name.to_string(), address, shared: shared.clone() };
        mx.offer(KEYWORDS);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.over.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let shared = shared.clone();
                std::thread::spawn(move || Session::run(stream, &shared));
            }
        });
        mx
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate, which signs itself: who trusts it as an authority can verify the host. PEM.
    pub fn certificate(&self) -> &str {
        &self.shared.certificate
    }

    /// The keywords EHLO announces from now on.
    pub fn offer(&self, keywords: &[&str]) {
        self.state().keywords = keywords.iter().map(|k| (*k).to_string()).collect();
    }

    pub fn offer_all_but(&self, keyword: &str) {
        self.state().keywords.retain(|k| !k.starts_with(keyword));
    }

    /// As firewalls do that know no TLS beyond one packet.
    pub fn drops_large_hellos(&self) {
        self.state().drops_large_hellos = true;
    }

    /// From now on mail is taken only from who logs in so, by this mechanism (`PLAIN`, `LOGIN`) and inside TLS where the host has it.
    pub fn wants_login(&self, name: &str, password: &str, mechanism: &'static str) {
        self.state().login = Some((name.to_string(), password.to_string(), mechanism));
    }

    /// Whenever the dialogue comes there and nothing is planned with `once`.
    pub fn always(&self, at: At, act: Act) {
        self.state().script.entry(at).or_default().always = Some(act);
    }

    /// The next time the dialogue comes there; several in the order of the calls.
    pub fn once(&self, at: At, act: Act) {
        self.state().script.entry(at).or_default().once.push_back(act);
    }

    /// As usual again.
    pub fn relent(&self, at: At) {
        self.state().script.remove(&at);
    }

    /// Counts messages and forgets their content: for loads.
    pub fn count_only(&self) {
        self.shared.keeps_content.store(false, Ordering::Relaxed);
    }

    /// All messages whose content came through, whatever became of them.
    pub fn transactions(&self) -> Vec<Transaction> {
        self.state().transactions.clone()
    }

    /// Those that got a 2xx at their end.
    pub fn accepted(&self) -> Vec<Transaction> {
        self.transactions().into_iter().filter(Transaction::is_accepted).collect()
    }

    pub fn accepted_count(&self) -> usize {
        self.state().accepted
    }

    /// Waits for `n` accepted messages, and fails on more.
    #[track_caller]
    pub fn wait_accepted(&self, n: usize) -> Vec<Transaction> {
        super::until(&format!("{n} messages at {}", self.name), || (self.accepted_count() >= n).then_some(()));
        let accepted = self.accepted();
        assert_eq!(accepted.len(), n, "more messages at {} than expected", self.name);
        accepted
    }

    /// Waits for `n` accepted messages, or more.
    #[track_caller]
    pub fn wait_accepted_at_least(&self, n: usize) {
        super::until(&format!("{n} messages at {}", self.name), || (self.accepted_count() >= n).then_some(()));
    }

    /// Command lines as they came, over all connections.
    pub fn commands(&self) -> Vec<String> {
        self.state().commands.clone()
    }

    /// How many RCPT commands named `address`.
    pub fn rcpts(&self, address: &str) -> usize {
        let wanted = format!("RCPT TO:<{}>", address.to_ascii_lowercase());
        self.state()
            .commands
            .iter()
            .filter(|c| c.to_ascii_lowercase().starts_with(&wanted.to_ascii_lowercase()))
            .count()
    }

    /// How many commands began with `verb`.
    pub fn count(&self, verb: &str) -> usize {
        self.state().commands.iter().filter(|c| c.to_ascii_uppercase().starts_with(verb)).count()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.state().open
    }

    /// The most that ever were open at once.
    pub fn peak(&self) -> usize {
        self.state().peak
    }

    /// Connections in all.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Mx {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn act(&self, at: &At) -> Option<Act> {
        let mut state = self.state();
        let plan = state.script.get_mut(at)?;
        plan.once.pop_front().or_else(|| plan.always.clone())
    }
}

/// A certificate for `name` that signs itself, and how a server shows it; PEM.
pub(super) fn self_signed(name: &str) -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_string()]).expect("a certificate for a test");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .expect("a TLS configuration for a test");
    (Arc::new(config), made.cert.pem())
}
