//! A message's content, block by block: what lies in a file is never in memory as a whole.

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::types::Body;

/// One block: few enough reads of a large file, little enough memory for two thousand connections at once.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

pub(super) enum Content {
    Inline(Bytes),
    File { file: File, name: String, block: Box<[u8]>, left: u64 },
}

impl Content {
    /// Errors are texts for people.
    pub(super) async fn open(body: &Body) -> Result<Content, String> {
        match body {
            Body::Inline(bytes) => Ok(Content::Inline(bytes.clone())),
            Body::File { path, size_bytes } => {
                let name = path.display().to_string();
                let file = File::open(path.as_path()).await.map_err(|e| format!("cannot open {name}: {e}"))?;
                Ok(Content::File { file, name, block: vec![0; BLOCK_BYTES].into_boxed_slice(), left: *size_bytes })
            }
        }
    }

    /// Hands the next block to `take`; false at the end. A file that is not as long as it should be is an error: half
    /// a message must not be sent as a whole one.
    pub(super) async fn next(&mut self, take: impl FnOnce(&[u8])) -> Result<bool, String> {
        match self {
            Content::Inline(bytes) => {
                let block = bytes.split_to(bytes.len().min(BLOCK_BYTES));
                take(&block);
                Ok(!block.is_empty())
            }
            Content::File { file, name, block, left } => {
                let count = file.read(block).await.map_err(|e| format!("cannot read {name}: {e}"))?;
                match left.checked_sub(count as u64) {
                    Some(rest) if count > 0 || rest == 0 => *left = rest,
                    _ => return Err(format!("{name} has not the size that was recorded for it")),
                }
                take(block.get(..count).unwrap_or_default());
                Ok(count > 0)
            }
        }
    }
}
