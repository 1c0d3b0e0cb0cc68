//! The one HTTP client (HTTP/1.1, RFC 9112), in clear text or over TLS with a verified name and chain: POSTs JSON for alerts and
//! webhooks, gets policies.
//!
//! `target` takes a URL apart, `client` speaks, `get` fetches one document. Rules that always hold:
//! - one time limit lies over all of a request: name, connection, TLS, answer;
//! - a connection is made to an address that was looked at, never to a name (DNS rebinding);
//! - a redirection is not followed: it would send words about this relay to a place nobody wrote down;
//! - the URL's user, password, path and query, which may hold a secret, appear in no error and in no log.

mod client;
mod get;
mod target;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::IpAddr;

pub use client::{Client, Keep, Letter, PostError, Tls};
pub use get::{Document, Wanted, get};
pub use target::Target;

/// This host, by name.
pub const LOCALHOST: &str = "localhost";

/// Who knows the addresses behind a name.
pub trait Names: Send + Sync + 'static {
    /// The addresses of `host`; the error says in words what went wrong.
    fn addresses(&self, host: &str) -> impl Future<Output = Result<Vec<IpAddr>, String>> + Send;
}
