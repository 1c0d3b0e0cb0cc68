//! A scripted HTTP endpoint on loopback: keeps every request, and answers as the script of a test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::gate::Gate;
use super::mx::self_signed;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Answer(u16),
    /// 200, as soon as the gate of the endpoint is open.
    Late,
    /// It is read and never answered, as long as the endpoint is there.
    Hang,
    /// The connection is closed without an answer.
    Cut,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub act: Act,
}

impl Request {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// The body as JSON; an array's elements, or the one object.
    pub fn objects(&self) -> Vec<Value> {
        match serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{} is no JSON: {e}", self.body)) {
            Value::Array(objects) => objects,
            object => vec![object],
        }
    }

    /// Was it signed with `secret`, as Standard Webhooks says?
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("a secret in base64");
        let signed = format!("{}.{}.{}", self.id(), self.headers["webhook-timestamp"], self.body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        let good = format!("v1,{}", STANDARD.encode(tag));
        self.headers.get("webhook-signature").is_some_and(|given| given.split(' ').any(|given| given == good))
    }
}

type Script = dyn Fn(usize) -> Act + Send + Sync;

struct Shared {
    tls: Option<Arc<ServerConfig>>,
    gate: Gate,
    script: Mutex<Arc<Script>>,
    requests: Mutex<Vec<Request>>,
    is_down: AtomicBool,
}

pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Who accepts connections; none while it is down.
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Endpoint {
    /// Answers everything with 200. On an address of its own, so that nobody takes its port while it is down.
    pub fn start() -> Endpoint {
        Endpoint::serving(None)
    }

    /// The same over TLS, with a certificate for `name` that signs itself; PEM.
    pub fn start_tls(name: &str) -> (Endpoint, String) {
        let (config, certificate) = self_signed(name);
        (Endpoint::serving(Some(config)), certificate)
    }

    fn serving(tls: Option<Arc<ServerConfig>>) -> Endpoint {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 4, 1), 0)).expect("a port for an endpoint");
        let address = listener.local_addr().expect("the address of a bound socket");
        let script: Arc<Script> = Arc::new(|_| Act::Answer(200));
        let shared = Arc::new(Shared {
            tls,
            gate: Gate::new(),
            script: Mutex::new(script),
            requests: Mutex::default(),
            is_down: AtomicBool::new(false),
        });
        let endpoint = Endpoint { address, shared, acceptor: Mutex::default() };
        endpoint.serve(listener);
        endpoint
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// What `Act::Late` waits for.
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// From now on request `n`, counted from 0 over all, is answered so.
    pub fn script(&self, script: impl Fn(usize) -> Act + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
    }

    /// Nobody listens any more.
    pub fn down(&self) {
        self.shared.is_down.store(true, Ordering::SeqCst);
        // So that whoever accepts looks up.
        let _ = TcpStream::connect(self.address);
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            acceptor.join().expect("who accepts ends");
        }
    }

    /// Listens again where it did.
    pub fn up(&self) {
        self.shared.is_down.store(false, Ordering::SeqCst);
        self.serve(TcpListener::bind(self.address).expect("the port it had"));
    }

    fn serve(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.is_down.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || shared.talk(stream));
            }
        });
        *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = Some(acceptor);
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The objects of the requests that were answered with 200, in their order.
    pub fn taken(&self) -> Vec<Value> {
        let requests =
            self.requests().into_iter().filter(|request| matches!(request.act, Act::Answer(200) | Act::Late));
        requests.flat_map(|request| request.objects()).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.down();
    }
}

/// A connection, in clear text or not.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

impl Shared {
    fn talk(&self, stream: TcpStream) -> Option<()> {
        let wire: Box<dyn Wire> = match &self.tls {
            Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config.clone()).ok()?, stream)),
            None => Box::new(stream),
        };
        let mut reader = BufReader::new(wire);
        while self.take(&mut reader).is_some() {}
        None
    }

    /// Takes one request on a connection; none: the connection is over.
    fn take(&self, reader: &mut BufReader<Box<dyn Wire>>) -> Option<()> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let path = line.split_whitespace().nth(1)?.to_string();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let act = {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            let script = self.script.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let act = script(requests.len());
            requests.push(Request { path, headers, body: String::from_utf8(body).ok()?, act });
            act
        };
        let mut answer = |status: u16| {
            let answer = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: 0\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).and_then(|()| reader.get_mut().flush()).ok()
        };
        match act {
            Act::Answer(status) => answer(status),
            Act::Late => self.gate.pass().then(|| answer(200))?,
            Act::Cut => None,
            // Until the other side gives up.
            Act::Hang => {
                let _ = reader.read(&mut [0; 1]);
                None
            }
        }
    }
}
