//! The besiegers: a process of its own, this test program started again, that holds and drives many connections in one thread.
//!
//! It takes orders on standard input, a line each, and answers each with a line `siege: …` on standard output:
//!
//! - `ROLE COUNT`: so many more of that role begin;
//! - `met N`: answered when N connections are greeted and open;
//! - `rest`: all end;
//! - `tell`: what was seen.
//!
//! Every role connects again when it is closed. Strangers come from many addresses of 127.1.0.0/16, clients that the relay trusts from
//! 127.0.0.16 and up.

use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use crate::kit::{PATIENCE, Relay};

/// Set in the other process: the listeners it besieges, the one in TLS behind the one in clear text.
const ADDRESS: &str = "WEIR_SIEGE";
/// How long an order may take.
const ORDER_MAX: Duration = PATIENCE.saturating_mul(4);
/// Between two connections of one besieger: the sixteen hundred for whom there is no place come eight hundred times a second. On two
/// cores besiegers without pause would measure who gets the processor, not whom the relay serves.
const BREATH: Duration = Duration::from_secs(2);
/// Between two things a besieger does.
const BEAT: Duration = Duration::from_millis(100);
/// Those of one order begin one after the other in this time: a siege is measured, not how long the kernel's line of connections is.
const ONSET: Duration = Duration::from_secs(1);
const LONG_LINE: usize = 10 << 20;
const MANY_RECIPIENTS: usize = 10_000;

/// The besieging process, as the test sees it. It ends with its value.
pub struct Siege {
    process: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

/// What the besiegers saw since the start.
#[derive(Debug)]
pub struct Seen {
    pub connected: usize,
    pub refused: usize,
    /// Greetings that were none: 421, 5xx.
    pub turned_away: usize,
}

impl Siege {
    pub fn of(relay: &Relay) -> Siege {
        let addresses: Vec<String> = relay.addresses().iter().map(SocketAddr::to_string).collect();
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["generator::the_other_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(ADDRESS, addresses.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the besieging process");
        let orders = process.stdin.take().expect("its standard input");
        let said = BufReader::new(process.stdout.take().expect("its standard output"));
        let (sender, answers) = sync_channel(16);
        std::thread::spawn(move || {
            // The test harness writes into the same lines.
            let lines = said.lines().map_while(Result::ok);
            for answer in lines.filter_map(|line| line.split_once("siege: ").map(|(_, said)| said.to_string())) {
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        Siege { process, orders, answers }
    }

    #[track_caller]
    pub fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("give an order to the besiegers");
        self.answers.recv_timeout(ORDER_MAX).unwrap_or_else(|e| panic!("no answer to `{order}`: {e}"))
    }

    #[track_caller]
    pub fn seen(&mut self) -> Seen {
        let told = self.order("tell");
        let numbers: Vec<usize> = told.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [connected, refused, turned_away] = numbers[..] else { panic!("what is `{told}`?") };
        Seen { connected, refused, turned_away }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test but the other process; in a usual run it ends at once.
#[test]
fn the_other_process() {
    let Ok(addresses) = std::env::var(ADDRESS) else { return };
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let _ = nice(10);
    let (sender, mut orders) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listeners = addresses.split(',').map(|a| a.parse().expect("an address")).collect();
        let camp = Arc::new(Camp { listeners, ..Camp::default() });
        let mut besiegers = JoinSet::new();
        while let Some(order) = orders.recv().await {
            let (word, count) = order.split_once(' ').unwrap_or((&order, "0"));
            let count: usize = count.parse().expect("a number");
            match word {
                "rest" => besiegers.shutdown().await,
                "met" => camp.met(count).await,
                "tell" => {}
                role => {
                    let role = Role::named(role);
                    for n in 0..count {
                        let begins = ONSET.mul_f64(n as f64 / count as f64);
                        besiegers.spawn(camp.clone().besiege(role, begins));
                    }
                }
            }
            let [connected, refused, turned_away] =
                [&camp.connected, &camp.refused, &camp.turned_away].map(|n| n.load(Ordering::Relaxed));
            println!("siege: {connected} {refused} {turned_away}");
        }
    });
}

#[derive(Clone, Copy)]
enum Role {
    /// Greets and says nothing more.
    Idle,
    /// The same inside TLS, and by a friend.
    IdleTls,
    IdleFriend,
    /// A command that never ends, an octet at a time.
    Drip,
    /// Nonsense without end.
    Babble,
    /// Lines of ten megabytes.
    Lines,
    /// Ten thousand recipients, from strangers and from friends.
    Rcpt,
    RcptFriend,
    /// The whole dialogue before the greeting.
    Early,
    /// Will say nothing more, and listens.
    Half,
    /// Asks and never reads.
    Deaf,
    /// Octets that belong to no command.
    Bdat,
    /// A friend whose message trickles.
    SlowFriend,
    /// Comes and goes.
    Knock,
}

impl Role {
    fn named(name: &str) -> Role {
        match name {
            "idle" => Role::Idle,
            "idle-tls" => Role::IdleTls,
            "idle-friend" => Role::IdleFriend,
            "drip" => Role::Drip,
            "babble" => Role::Babble,
            "lines" => Role::Lines,
            "rcpt" => Role::Rcpt,
            "rcpt-friend" => Role::RcptFriend,
            "early" => Role::Early,
            "half" => Role::Half,
            "deaf" => Role::Deaf,
            "bdat" => Role::Bdat,
            "slow-friend" => Role::SlowFriend,
            "knock" => Role::Knock,
            other => panic!("no besieger is called {other}"),
        }
    }

    fn is_friend(self) -> bool {
        matches!(self, Role::IdleFriend | Role::RcptFriend | Role::SlowFriend)
    }
}

#[derive(Default)]
struct Camp {
    listeners: Vec<SocketAddr>,
    next: AtomicUsize,
    open: AtomicUsize,
    connected: AtomicUsize,
    refused: AtomicUsize,
    turned_away: AtomicUsize,
}

/// Counts an open connection that was greeted.
struct Met<'a>(&'a AtomicUsize);

impl Drop for Met<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Camp {
    /// Until so many connections stand. Given up when there are no more for a while: the test sees by the answer.
    async fn met(&self, count: usize) {
        let mut looks = 0;
        while self.open.load(Ordering::Relaxed) < count && looks < 600 {
            sleep(BEAT).await;
            looks += 1;
        }
        assert!(looks < 600, "{} of {count} connections stand", self.open.load(Ordering::Relaxed));
    }

    async fn besiege(self: Arc<Camp>, role: Role, begins: Duration) {
        sleep(begins).await;
        loop {
            match self.connect(role).await {
                Ok(stream) => drop(self.attack(role, stream).await),
                Err(_) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
            }
            sleep(BREATH).await;
        }
    }

    async fn connect(&self, role: Role) -> std::io::Result<TcpStream> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let low = |n: usize| u8::try_from(n).unwrap_or(0);
        let source = match role.is_friend() {
            true => Ipv4Addr::new(127, 0, 0, 16 + low(n % 200)),
            false => Ipv4Addr::new(127, 1, low(n / 250 % 4), 1 + low(n % 250)),
        };
        let socket = TcpSocket::new_v4()?;
        if matches!(role, Role::Deaf) {
            socket.set_recv_buffer_size(2048)?;
        }
        socket.bind((source, 0).into())?;
        let listener = usize::from(matches!(role, Role::IdleTls));
        let stream = socket.connect(self.listeners[listener]).await?;
        self.connected.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    /// One connection from its greeting to its end. An error is the relay that has closed it.
    async fn attack(&self, role: Role, mut stream: TcpStream) -> std::io::Result<()> {
        match role {
            Role::Knock => return stream.into_std()?.shutdown(std::net::Shutdown::Both),
            Role::Deaf => loop {
                stream.write_all(&b"EHLO deaf.test\r\n".repeat(10)).await?;
                sleep(BEAT).await;
            },
            Role::Early => {
                let talk = b"EHLO e.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
                stream.write_all(talk).await?;
            }
            Role::IdleTls => return self.idle_in_tls(stream).await,
            _ => {}
        }
        let mut chunk = [0; 512];
        let count = stream.read(&mut chunk).await?;
        if count > 0 && !chunk.starts_with(b"220") {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let _met = Met(&self.open);
        let hello: &[u8] = b"EHLO siege.test\r\n";
        match role {
            Role::Idle | Role::IdleFriend | Role::Early => {
                stream.write_all(hello).await?;
                listen(&mut stream).await
            }
            Role::Half => {
                stream.write_all(hello).await?;
                stream.shutdown().await?;
                listen(&mut stream).await?;
                // The relay has closed, this end has not, for a while.
                sleep(BREATH).await;
                Ok(())
            }
            Role::Drip => trickle(&mut stream, b"N").await,
            Role::Babble => repeat(&mut stream, &b"NONSENSE without end\r\n".repeat(10), usize::MAX).await,
            Role::Lines => repeat(&mut stream, &[b'x'; 64 << 10], LONG_LINE).await,
            Role::Bdat => {
                stream.write_all(b"EHLO siege.test\r\nBDAT 30000000\r\n").await?;
                trickle(&mut stream, b"x").await
            }
            Role::Rcpt | Role::RcptFriend => {
                stream.write_all(b"EHLO siege.test\r\nMAIL FROM:<many@sender.test>\r\n").await?;
                let lines: Vec<String> =
                    (0..50).map(|n| format!("RCPT TO:<{}-{n}@{}.test>\r\n", "r".repeat(50), "d".repeat(60))).collect();
                let lines = lines.concat();
                repeat(&mut stream, lines.as_bytes(), lines.len() * MANY_RECIPIENTS / 50).await?;
                pending().await
            }
            Role::SlowFriend => {
                let begin = b"EHLO siege.test\r\nMAIL FROM:<slow@sender.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\n";
                stream.write_all(begin).await?;
                trickle(&mut stream, b"x\r\n").await
            }
            Role::Knock | Role::Deaf | Role::IdleTls => Ok(()),
        }
    }

    async fn idle_in_tls(&self, stream: TcpStream) -> std::io::Result<()> {
        let name = ServerName::try_from("relay.test").expect("a name");
        let mut stream = TlsConnector::from(anybody()).connect(name, stream).await?;
        let mut chunk = [0; 512];
        let count = stream.read(&mut chunk).await?;
        if count > 0 && !chunk.starts_with(b"220") {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        stream.write_all(b"EHLO siege.test\r\n").await?;
        if stream.read(&mut chunk).await? == 0 {
            return Ok(());
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let _met = Met(&self.open);
        while stream.read(&mut chunk).await? > 0 {}
        Ok(())
    }
}

/// A client of TLS that takes any certificate.
fn anybody() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions of TLS").dangerous();
        Arc::new(builder.with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth())
    });
    CONFIG.clone()
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Hears until the relay closes.
async fn listen(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut chunk = [0; 512];
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}

/// Sends `octets` again and again, and hears what is said to them.
async fn repeat(stream: &mut TcpStream, octets: &[u8], octets_max: usize) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut chunk = [0; 4096];
    let send = async {
        for _ in 0..octets_max / octets.len() {
            writer.write_all(octets).await?;
            sleep(BEAT).await;
        }
        std::io::Result::Ok(())
    };
    let hear = async {
        while reader.read(&mut chunk).await? > 0 {}
        std::io::Result::Ok(())
    };
    tokio::select! {
        biased;
        sent = send => sent,
        heard = hear => heard.and(Err(std::io::ErrorKind::ConnectionReset.into())),
    }
}

async fn trickle(stream: &mut TcpStream, drop: &[u8]) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let send = async {
        loop {
            writer.write_all(drop).await?;
            sleep(10 * BEAT).await;
        }
    };
    let mut chunk = [0; 512];
    let hear = async {
        while reader.read(&mut chunk).await? > 0 {}
        std::io::Result::Ok(())
    };
    tokio::select! {
        biased;
        heard = hear => heard,
        sent = send => sent,
    }
}
