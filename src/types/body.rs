//! A message's content at rest: header and body with CRLF line ends, no dot-stuffing, no final dot.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

/// Where the content lies. Cheap to clone; all deliveries of a message share it.
#[derive(Clone, Debug)]
pub enum Body {
    Inline(Bytes),
    /// A file of the spool, complete and synced, deleted when the message ends.
    File {
        path: Arc<PathBuf>,
        size_bytes: u64,
    },
}

impl Body {
    pub fn size_bytes(&self) -> u64 {
        match self {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::File { size_bytes, .. } => *size_bytes,
        }
    }
}
