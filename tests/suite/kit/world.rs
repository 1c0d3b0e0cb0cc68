//! The world round one relay: its name server and the receiving hosts, all on one port of different loopback addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use super::mx::Crowd;
use super::{Config, Dns, Mx};

/// Hosts a test can have.
const HOSTS: u8 = 8;

/// Where nobody listens: `World` never binds it.
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);

/// Free on the receivers' port, for a relay that shall listen there.
const OURS: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 2);

pub struct World {
    pub dns: Dns,
    /// All receiving hosts together.
    pub crowd: Arc<Crowd>,
    port: u16,
    /// Bound and not given out yet.
    listeners: Mutex<Vec<TcpListener>>,
}

impl World {
    pub fn new() -> World {
        let listeners = (0..50).find_map(|_| listeners()).expect("a port that is free on all addresses of a test");
        let port = listeners[0].local_addr().expect("the address of a bound socket").port();
        World { dns: Dns::start(), crowd: Arc::default(), port, listeners: Mutex::new(listeners) }
    }

    /// A world with one receiving host, `mx.DOMAIN`, for `domain`.
    pub fn with_domain(domain: &str) -> (World, Mx) {
        let world = World::new();
        let mx = world.host(&format!("mx.{domain}"));
        world.domain(domain, &[(10, &mx)]);
        (world, mx)
    }

    /// A receiving host with an address in the DNS.
    pub fn host(&self, name: &str) -> Mx {
        self.start_host(name, false)
    }

    /// One more machine behind the name of `mx`, at an address of its own.
    pub fn twin(&self, mx: &Mx) -> Mx {
        let twin = self.start_machine(&mx.name, false);
        self.dns.add_address(&mx.name, twin.address().ip());
        twin
    }

    /// The same, with STARTTLS.
    pub fn tls_host(&self, name: &str) -> Mx {
        self.start_host(name, true)
    }

    fn start_host(&self, name: &str, has_tls: bool) -> Mx {
        let mx = self.start_machine(name, has_tls);
        self.dns.addresses(name, &[mx.address().ip()]);
        mx
    }

    fn start_machine(&self, name: &str, has_tls: bool) -> Mx {
        let listener = self.listeners.lock().ok().and_then(|mut l| l.pop()).expect("no address is left: raise HOSTS");
        Mx::start(name, listener, has_tls, self.crowd.clone())
    }

    /// A name whose address refuses every connection.
    pub fn dead_host(&self, name: &str) {
        self.dns.addresses(name, &[IpAddr::V4(NOBODY)]);
    }

    /// Publishes `hosts` as the MX of `domain`.
    pub fn domain(&self, domain: &str, hosts: &[(u16, &Mx)]) {
        let records: Vec<(u16, &str)> = hosts.iter().map(|(preference, mx)| (*preference, mx.name.as_str())).collect();
        self.dns.mx(domain, &records);
    }

    /// The port of all receiving hosts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a relay can listen so that an MX record of this world leads to it.
    pub fn own_address(&self) -> SocketAddr {
        (OURS, self.port).into()
    }

    /// A configuration for a relay in this world.
    pub fn config(&self) -> Config {
        Config::new(self.dns.address(), self.port)
    }
}

/// One port on as many addresses as a test may want.
fn listeners() -> Option<Vec<TcpListener>> {
    let address = |n: u8| Ipv4Addr::new(127, 0, 1, n);
    let first = TcpListener::bind((address(1), 0)).ok()?;
    let port = first.local_addr().ok()?.port();
    // Nobody may listen where connections shall be refused, nor where a relay may.
    TcpListener::bind((NOBODY, port)).ok()?;
    TcpListener::bind((OURS, port)).ok()?;
    let mut all = vec![first];
    for n in 2..=HOSTS {
        all.push(TcpListener::bind(SocketAddr::from((address(n), port))).ok()?);
    }
    all.reverse();
    Some(all)
}
