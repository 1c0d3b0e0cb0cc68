//! Where clients come in: sockets that listen, and the loop that takes connections off them.
//!
//! Rules that always hold:
//! - binding is apart from serving: whoever starts the relay knows the addresses, or the fault, before anything else begins;
//! - a connection is taken off the backlog first and then waits for its place in the one line of all listeners, so that who is known is
//!   seen behind any number of strangers;
//! - an error of accept never ends a listener: it waits a moment and goes on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door::Door;
use super::front::Front;
use super::intake::Intake;
use super::options::Listener;
use super::tls::{InForce, TlsError};

/// Connections the kernel holds ready for accept, as far as `net.core.somaxconn` lets it: who finds no room there tries again only a
/// second later.
const BACKLOG: i32 = 4096;
/// After an error of accept (no file descriptor is free) the next try waits this long, doubled up to the second.
const ERROR_WAIT: Duration = Duration::from_millis(50);
const ERROR_WAIT_MAX: Duration = Duration::from_secs(1);
/// Errors of accept in a row between two lines in the log.
const ERRORS_A_LINE: u32 = 60;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ([[listener]] address){}", remedy(source))]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ", another program listens there: stop that one, or set another address",
        io::ErrorKind::AddrNotAvailable => ", which is no address of this host: set one that is",
        io::ErrorKind::PermissionDenied => ": a port below 1024 takes root or CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Why the listeners cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Sockets that listen, before anything is taken off them.
pub struct Bound {
    sockets: Vec<(TcpListener, Arc<Door>)>,
}

impl Bound {
    /// Binds every address, or none. `certificate` is for those that speak TLS. Called within a runtime.
    pub fn bind(listeners: &[Listener], certificate: Option<&InForce>) -> Result<Bound, ListenError> {
        let mut sockets = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let address = listener.address;
            // An IPv6 socket takes IPv4 clients as well, unless a listener of its own is there for them.
            let has_v4 = listeners.iter().any(|l| l.address.is_ipv4() && l.address.port() == address.port());
            let door = Arc::new(Door::new(listener, certificate)?);
            sockets.push((bind_one(address, has_v4).map_err(|source| BindError { address, source })?, door));
        }
        Ok(Bound { sockets })
    }

    /// The real addresses, in the order of the configuration: port 0 has become a port.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect()
    }

    /// Takes connections until `stop`, each a task of `sessions`. Returns when no more are taken; sessions that are past the end of
    /// a message's content go on, and the caller bounds how long `sessions` is waited for.
    pub async fn serve<I: Intake>(self, front: Arc<Front<I>>, sessions: TaskTracker, stop: CancellationToken) {
        let loops = TaskTracker::new();
        for (socket, door) in self.sockets {
            loops.spawn(accept(socket, door, front.clone(), sessions.clone(), stop.clone()));
        }
        loops.close();
        loops.wait().await;
    }
}

fn bind_one(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where connections come from. A socket; in tests whatever shows how the loop behaves.
trait Entrance: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static;

    /// The next connection and the client's address. Cancelled: none is lost.
    fn take(&self) -> impl Future<Output = io::Result<(Self::Stream, IpAddr)>> + Send;
}

impl Entrance for TcpListener {
    type Stream = TcpStream;

    async fn take(&self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, peer) = self.accept().await?;
        // Replies are short and each is waited for. A socket that cannot do it is only slower.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer.ip()))
    }
}

async fn accept<I: Intake>(
    socket: impl Entrance,
    door: Arc<Door>,
    front: Arc<Front<I>>,
    sessions: TaskTracker,
    stop: CancellationToken,
) {
    let mut errors: u32 = 0;
    loop {
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            taken = socket.take() => taken,
        };
        match taken {
            Ok((stream, client)) => {
                errors = 0;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = admit(&front, &door, stream, client, &sessions, &stop) => {}
                }
            }
            Err(error) => {
                if errors.is_multiple_of(ERRORS_A_LINE) {
                    tracing::error!("taking connections: {error}; if files are short, raise the limit of open files");
                }
                let wait = ERROR_WAIT.saturating_mul(1 << errors.min(8)).min(ERROR_WAIT_MAX);
                errors = errors.wrapping_add(1);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

/// Starts the session, which begins when its place is there.
async fn admit<I: Intake>(
    front: &Arc<Front<I>>,
    door: &Arc<Door>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    client: IpAddr,
    sessions: &TaskTracker,
    stop: &CancellationToken,
) {
    let newcomer = front.line_up(client).await;
    let (front, door, stop) = (front.clone(), door.clone(), stop.clone());
    sessions.spawn(async move {
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            place = newcomer.place() => place,
        };
        if let Some(place) = place {
            front.serve(&door, stream, client, place, &stop).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::inbound::dialogues::{Shelf, front, limits};

    /// Gives what is in the list, from its end, and then waits for ever.
    struct Scripted(Mutex<Vec<io::Result<(DuplexStream, IpAddr)>>>);

    impl Entrance for Scripted {
        type Stream = DuplexStream;

        async fn take(&self) -> io::Result<(DuplexStream, IpAddr)> {
            let next = self.0.lock().unwrap().pop();
            match next {
                Some(taken) => taken,
                None => std::future::pending().await,
            }
        }
    }

    fn no_descriptor_is_free() -> io::Result<(DuplexStream, IpAddr)> {
        Err(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()))
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_accept_are_waited_out_and_then_connections_are_taken_again() {
        let (mut here, there) = duplex(4096);
        let mut script = vec![Ok((there, IpAddr::from([127, 0, 0, 1])))];
        script.extend((0..7).map(|_| no_descriptor_is_free()));
        let (sessions, stop) = (TaskTracker::new(), CancellationToken::new());
        let front = Arc::new(front(Shelf::new(), &limits()));
        let (clock, began) = (front.clock.clone(), front.clock.now());
        let serving = accept(Scripted(Mutex::new(script)), Arc::default(), front, sessions.clone(), stop.clone());
        let client = async {
            let mut greeting = [0; 4];
            here.read_exact(&mut greeting).await.unwrap();
            assert_eq!(&greeting, b"220 ");
            // 50, 100, 200, 400, 800 ms, and then a second each.
            assert_eq!(clock.now().since(began), Duration::from_millis(3550));
            stop.cancel();
        };
        tokio::join!(serving, client);
        drop(here);
        sessions.close();
        sessions.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_the_next_try() {
        let script = (0..100).map(|_| no_descriptor_is_free()).collect();
        let (sessions, stop) = (TaskTracker::new(), CancellationToken::new());
        let front = Arc::new(front(Shelf::new(), &limits()));
        let (clock, began) = (front.clock.clone(), front.clock.now());
        let stopper = async {
            tokio::time::sleep(Duration::from_millis(10_000)).await;
            stop.cancel();
        };
        tokio::join!(accept(Scripted(Mutex::new(script)), Arc::default(), front, sessions, stop.clone()), stopper);
        assert_eq!(clock.now().since(began), Duration::from_millis(10_000));
    }
}
