//! The seam to the network: how a stream to a receiver comes to be.
//!
//! The real one is TCP; a simulation puts pipes in its place, and everything above stays the real code.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::Plan;

/// Makes connections. The time limit is the caller's business.
pub trait Network: Send + Sync {
    fn connect<'a>(&'a self, plan: &'a Plan) -> Connecting<'a>;
}

pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// A connection of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The stream is about to be dropped although the peer has not closed its side: the drop must end the
    /// connection at once and leave nothing for the system to finish in the background.
    fn reset_on_drop(&mut self) {}

    /// Our address.
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}

impl Stream for tokio::io::DuplexStream {}

impl Stream for TcpStream {
    fn reset_on_drop(&mut self) {
        // Fails only where the connection is already gone.
        let _ = self.set_zero_linger();
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
    }
}

/// TCP of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, plan: &'a Plan) -> Connecting<'a> {
        Box::pin(async move {
            let socket = if plan.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(address) = plan.bind {
                socket.bind(SocketAddr::new(address, 0)).map_err(|e| bind_error(address, &e))?;
            }
            // A dialogue is made of small writes, each of which someone waits for.
            socket.set_nodelay(true)?;
            Ok(Box::new(socket.connect(plan.address).await?) as Box<dyn Stream>)
        })
    }
}

fn bind_error(address: std::net::IpAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot send from {address} (is it an address of this host?): {error}"))
}

/// A stream that knows whether its peer has closed, and leaves nothing behind when it is dropped.
///
/// The receiver counts a connection until it is really closed, and so do we: when this is gone, either both sides
/// have closed or a reset is on its way.
pub(super) struct Socket {
    stream: Box<dyn Stream>,
    peer_closed: bool,
}

impl Socket {
    pub(super) fn new(stream: Box<dyn Stream>) -> Socket {
        Socket { stream, peer_closed: false }
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.peer_closed {
            self.stream.reset_on_drop();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = (buf.filled().len(), buf.remaining());
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(result, Poll::Ready(Ok(()))) && before.1 > 0 && buf.filled().len() == before.0 {
            self.peer_closed = true;
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
