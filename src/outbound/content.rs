//! A message's content, block by block: what lies in a file is never in memory as a whole.

use std::path::Path;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::types::Body;

/// One block: few enough reads of a large file, little enough memory for two thousand connections at once.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Looks at the header alone, block by block.
pub(super) async fn header_is_ascii(body: &Body) -> Result<bool, String> {
    let mut content = Content::open(body).await?;
    let mut header = Header::default();
    while header.goes_on() && content.next(|block| header.take(block)).await? {}
    Ok(header.is_ascii)
}

/// What was seen of a header so far.
struct Header {
    is_ascii: bool,
    /// Octets since the last line feed, carriage returns left out; none: the blank line has come.
    line: Option<usize>,
}

impl Default for Header {
    fn default() -> Header {
        Header { is_ascii: true, line: Some(0) }
    }
}

impl Header {
    fn goes_on(&self) -> bool {
        self.is_ascii && self.line.is_some()
    }

    fn take(&mut self, block: &[u8]) {
        for byte in block {
            let Some(line) = self.line.filter(|_| self.is_ascii) else { return };
            self.is_ascii = byte.is_ascii();
            self.line = match byte {
                b'\n' => (line > 0).then_some(0),
                b'\r' => Some(line),
                _ => Some(line + 1),
            };
        }
    }
}

pub(super) enum Content {
    Inline(Bytes),
    /// `header`: what comes before it.
    File {
        header: Bytes,
        file: File,
        name: String,
        block: Box<[u8]>,
        left: u64,
    },
}

impl Content {
    /// Errors are texts for people.
    pub(super) async fn open(body: &Body) -> Result<Content, String> {
        match body {
            Body::Inline(bytes) => Ok(Content::Inline(bytes.clone())),
            Body::File { path, size_bytes } => Content::file(Bytes::new(), path, *size_bytes).await,
            Body::Headed { header, path, size_bytes } => Content::file(header.clone(), path, *size_bytes).await,
        }
    }

    async fn file(header: Bytes, path: &Path, size_bytes: u64) -> Result<Content, String> {
        let name = path.display().to_string();
        let file = File::open(path).await.map_err(|e| format!("cannot open {name}: {e}"))?;
        let left = size_bytes.saturating_sub(header.len() as u64);
        Ok(Content::File { header, file, name, block: vec![0; BLOCK_BYTES].into_boxed_slice(), left })
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
            Content::File { header, .. } if !header.is_empty() => {
                take(&std::mem::take(header));
                Ok(true)
            }
            Content::File { file, name, block, left, .. } => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_ends_with_the_blank_line_wherever_the_content_is_cut() {
        for (content, is_ascii) in [
            (&b"Subject: x\r\n\r\n\xc3\xbc\r\n"[..], true),
            (b"Subject: \xc3\xbc\r\n\r\nx\r\n", false),
            (b"A: x\r\n y\r\nB: \xff\r\n\r\n", false),
            (b"\r\n\xff", true),
            (b"no header at all", true),
            (b"", true),
        ] {
            for size in 1..=content.len().max(1) {
                let mut header = Header::default();
                content.chunks(size).for_each(|block| header.take(block));
                assert_eq!(header.is_ascii, is_ascii, "{} cut at {size}", content.escape_ascii());
            }
        }
    }
}
