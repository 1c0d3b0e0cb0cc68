//! The simulated receiver behind real sockets: in `weir simulate`, and inside the process of a test or the demo.
//!
//! Rules that always hold:
//! - what the receiver says is decided by [`Receiver`] alone; here it is only read, waited and written;
//! - a connection is given up in the count just before the reply that ends it is written, so a client that opens the next one as soon as
//!   it has read that reply is never accused of one too many;
//! - every read and write ends in bounded time, and a stop waits for every task.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dialogue::Dialogue;
use super::judgement::Judgement;
use super::profile::{HostState, Limits, Profile};
use super::receiver::{Receiver, Said, SessionId};
use crate::clock::Clock;
use crate::types::Reply;

/// Connections the kernel holds ready for accept.
const BACKLOG: i32 = 1024;
/// Connections served at a time; further ones wait. Above every ceiling that is simulated, so that breaking one is seen.
const CONNECTIONS_MAX: usize = 10_000;
/// RFC 5321 section 4.5.3.2.7.
const READ_MAX: Duration = Duration::from_secs(300);
const WRITE_MAX: Duration = Duration::from_secs(60);
/// What a client still sends behind a reply that closes is read for so long, or the reset of the socket could overtake the reply.
const LINGER: Duration = Duration::from_millis(500);
/// How long a stop waits for connections.
const STOP_MAX: Duration = Duration::from_secs(2);
/// After an error of accept (no descriptor is free).
const ACCEPT_WAIT: Duration = Duration::from_millis(50);
/// How often a connection over a limit gives way before it counts: ends that came before it may not have been noticed yet.
const GIVE_WAY: usize = 16;
const READ_BYTES: usize = 4096;

/// An MX host: its name, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    pub name: String,
    /// Port 0: the system chooses.
    pub address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({name})")]
pub struct BindError {
    pub name: String,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// A receiver that is running. Dropped, it takes no more connections.
#[derive(Debug)]
pub struct Simulator {
    hosts: Vec<MxHost>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Sockets of hosts where nobody listens: bound, so that no other program does.
    _refusing: Vec<Socket>,
}

#[derive(Debug)]
struct Shared {
    receiver: Mutex<Receiver>,
    clock: Clock,
    places: Arc<Semaphore>,
}

impl Simulator {
    /// Listens on all hosts or on none. Called within a runtime.
    pub fn start(profile: Profile, seed: u64, hosts: &[MxHost], clock: Clock) -> Result<Simulator, BindError> {
        let receiver = Receiver::new(profile.clone(), seed, clock.now());
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shared = Arc::new(Shared { receiver: Mutex::new(receiver), clock, places });
        let mut simulator = Simulator {
            hosts: Vec::with_capacity(hosts.len()),
            shared,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            _refusing: Vec::new(),
        };
        for host in hosts {
            let state = profile.host_state(&host.name);
            simulator.listen(host, state).map_err(|source| BindError {
                name: host.name.clone(),
                address: host.address,
                source,
            })?;
        }
        Ok(simulator)
    }

    fn listen(&mut self, host: &MxHost, state: HostState) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(host.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&host.address.into())?;
        let address = socket.local_addr()?.as_socket().unwrap_or(host.address);
        self.hosts.push(MxHost { name: host.name.clone(), address });
        if state == HostState::Refusing {
            self._refusing.push(socket);
            return Ok(());
        }
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let (shared, tasks, stop) = (self.shared.clone(), self.tasks.clone(), self.stop.clone());
        self.tasks.spawn(accept(listener, host.name.as_str().into(), shared, tasks, stop));
        Ok(())
    }

    /// The hosts in the order of the start, with the ports they got.
    pub fn hosts(&self) -> &[MxHost] {
        &self.hosts
    }

    /// Everything counted so far.
    pub fn judgement(&self) -> Judgement {
        self.shared.receiver().judgement().clone()
    }

    /// What a sender in good standing may use now.
    pub fn limits(&self) -> Limits {
        let now = self.shared.clock.now();
        self.shared.receiver().limits_at(now)
    }

    /// Ends all connections; what was counted in the end.
    pub async fn stop(self) -> Judgement {
        self.stop.cancel();
        self.tasks.close();
        // What is left is a task in the middle of a delay, and it writes to nobody.
        let _ = timeout(STOP_MAX, self.tasks.wait()).await;
        self.judgement()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }
}

async fn accept(
    listener: TcpListener,
    host: Arc<str>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let Ok(place) = shared.places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_WAIT).await;
            continue;
        };
        let (host, shared, stop) = (host.clone(), shared.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = serve(stream, peer.ip().to_canonical(), &host, &shared) => {}
            }
            drop(place);
        });
    }
}

/// Gives the session back when its task ends, however it ends.
struct Counted<'a> {
    session: SessionId,
    shared: &'a Shared,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        self.shared.receiver().lost(self.session, now);
    }
}

/// One connection. Errors of the socket end it: that is what they mean.
async fn serve(mut stream: TcpStream, source: IpAddr, host: &str, shared: &Shared) {
    // Replies are small and waited for.
    let _ = stream.set_nodelay(true);
    for _ in 0..GIVE_WAY {
        if shared.receiver().has_room(source, shared.clock.now()) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (session, greeting) = shared.receiver().connect(source, host, shared.clock.now());
    let counted = session.map(|session| Counted { session, shared });
    if greeting.reply.is_none() && !greeting.closes {
        return stay_silent(&mut stream).await;
    }
    let Some(counted) = counted else {
        let _ = say(&mut stream, &greeting, shared).await;
        return hang_up(stream).await;
    };
    if say(&mut stream, &greeting, shared).await.is_ok() && talk(&mut stream, counted, shared).await.is_ok() {
        hang_up(stream).await;
    }
}

/// Until either side ends it.
async fn talk(stream: &mut TcpStream, counted: Counted<'_>, shared: &Shared) -> io::Result<()> {
    let mut dialogue = Dialogue::new(counted.session);
    let mut counted = Some(counted);
    let mut octets = [0; READ_BYTES];
    loop {
        let read = timeout(READ_MAX, stream.read(&mut octets)).await??;
        if read == 0 {
            return Ok(());
        }
        dialogue.feed(&octets[..read]);
        loop {
            let said = dialogue.next(&mut shared.receiver(), shared.clock.now());
            let Some(said) = said else { break };
            shared.wait(said.after).await;
            if said.closes {
                counted.take();
            }
            write(stream, said.reply.as_ref()).await?;
            if said.closes {
                return Ok(());
            }
        }
    }
}

async fn say(stream: &mut TcpStream, said: &Said, shared: &Shared) -> io::Result<()> {
    shared.wait(said.after).await;
    write(stream, said.reply.as_ref()).await
}

async fn write(stream: &mut TcpStream, reply: Option<&Reply>) -> io::Result<()> {
    let Some(reply) = reply else { return Ok(()) };
    timeout(WRITE_MAX, stream.write_all(&lines(reply))).await?
}

/// As it stands on the wire (RFC 5321 section 4.2).
fn lines(reply: &Reply) -> Vec<u8> {
    let mut octets = Vec::with_capacity(reply.bytes().len() + 16);
    let mut lines = reply.lines().peekable();
    while let Some(line) = lines.next() {
        let between = if lines.peek().is_some() { '-' } else { ' ' };
        octets.extend_from_slice(format!("{:03}{between}", reply.code()).as_bytes());
        octets.extend_from_slice(line);
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

/// Our side is closed first; what the client still sends is thrown away.
async fn hang_up(mut stream: TcpStream) {
    let rest = async {
        let mut octets = [0; READ_BYTES];
        stream.shutdown().await?;
        while stream.read(&mut octets).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, rest).await;
}

/// Until the client has had enough.
async fn stay_silent(stream: &mut TcpStream) {
    let mut octets = [0; READ_BYTES];
    while let Ok(Ok(1..)) = timeout(READ_MAX, stream.read(&mut octets)).await {}
}

#[cfg(test)]
mod tests;
