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
    /// The same behind fields of its own. Never at rest: it is put together for one transaction.
    Headed {
        header: Bytes,
        path: Arc<PathBuf>,
        /// Of both.
        size_bytes: u64,
    },
}

impl Body {
    pub fn size_bytes(&self) -> u64 {
        match self {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::File { size_bytes, .. } | Body::Headed { size_bytes, .. } => *size_bytes,
        }
    }

    /// With these fields before it.
    #[must_use]
    pub fn headed(&self, header: &str) -> Body {
        if header.is_empty() {
            return self.clone();
        }
        let size_bytes = self.size_bytes() + header.len() as u64;
        match self {
            Body::Inline(content) => Body::Inline([header.as_bytes(), content].concat().into()),
            Body::File { path, .. } => {
                Body::Headed { header: Bytes::copy_from_slice(header.as_bytes()), path: path.clone(), size_bytes }
            }
            Body::Headed { header: before, path, .. } => {
                Body::Headed { header: [header.as_bytes(), before].concat().into(), path: path.clone(), size_bytes }
            }
        }
    }
}
