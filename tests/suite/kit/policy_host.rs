//! The policy host of a domain (RFC 8461 section 3.3): HTTPS at port 443 of an address of its own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::mx::self_signed;
use super::{Dns, skip};

/// Where policy hosts are; one port on each.
const ADDRESSES: std::ops::RangeInclusive<u8> = 1..=250;

#[derive(Default)]
struct Shared {
    policy: Mutex<String>,
    asked: AtomicUsize,
    is_down: AtomicBool,
}

pub struct PolicyHost {
    address: SocketAddr,
    domain: String,
    certificate: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl PolicyHost {
    /// The host of `domain`, with an address in the DNS. None, with the reason printed, where the port takes rights.
    pub fn start(dns: &Dns, domain: &str) -> Option<PolicyHost> {
        let bind = |n| TcpListener::bind((Ipv4Addr::new(127, 0, 6, n), 443));
        let Some(listener) = ADDRESSES.into_iter().find_map(|n| bind(n).ok()) else {
            skip("a policy host takes port 443, and so root");
            return None;
        };
        let address = listener.local_addr().expect("the address of a bound socket");
        let name = format!("mta-sts.{domain}");
        dns.addresses(&name, &[address.ip()]);
        let (tls, certificate) = self_signed(&name);
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.is_down.load(Ordering::SeqCst) {
                    return;
                }
                let _ = serving.answer(&stream, tls.clone());
            }
        });
        Some(PolicyHost { address, domain: domain.to_string(), certificate, shared, acceptor: Some(acceptor) })
    }

    /// Its policy from now on, announced under `id`.
    pub fn publish(&self, dns: &Dns, id: &str, mode: &str, mx: &str) {
        let text = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 604800\n");
        *self.shared.policy.lock().unwrap_or_else(PoisonError::into_inner) = text;
        dns.txt(&format!("_mta-sts.{}", self.domain), &[&format!("v=STSv1; id={id};")]);
    }

    /// Who trusts it as an authority can verify the host. PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for PolicyHost {
    fn drop(&mut self) {
        // So that whoever accepts looks up.
        self.shared.is_down.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn answer(&self, stream: &TcpStream, tls: Arc<ServerConfig>) -> std::io::Result<()> {
        let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet)?;
            request.extend(octet);
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let length = policy.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{policy}")?;
        stream.conn.send_close_notify();
        stream.flush()
    }
}
