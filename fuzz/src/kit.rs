//! What several targets need: places to cut at, plain readings of content, a runtime whose clock jumps, a folder.

use std::future::Future;
use std::path::Path;

use tempfile::TempDir;

/// Cuts that are tried in octets that come from a wire: all of them in a short input, some of a long one.
const PLACES_MAX: usize = 48;

/// Places to cut `length` octets at.
pub fn places(length: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(PLACES_MAX).max(1);
    (0..=length).step_by(step)
}

/// The octets of content behind 354 with the end that RFC 5321 section 4.1.1.4 gives it: the first CRLF . CRLF, the start counting
/// as if CRLF stood before it. None: it does not end.
pub fn content_length(wire: &[u8]) -> Option<usize> {
    if wire.starts_with(b".\r\n") {
        return Some(3);
    }
    wire.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 5)
}

/// `content` with CRLF at the end of each line: a CR or LF that stands alone is such an end as well.
pub fn normalized(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    for (at, &octet) in content.iter().enumerate() {
        match octet {
            b'\n' if content[..at].last() == Some(&b'\r') => {}
            b'\r' | b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(other),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Takes the first octet off; 0 where there is none.
pub fn first(bytes: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = bytes.split_first() else { return 0 };
    *bytes = rest;
    first
}

/// Takes off a part that ends with the octet 0xFF, which stands in no UTF-8: several texts in one input.
pub fn part<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let end = bytes.iter().position(|&octet| octet == 0xFF);
    let part = &bytes[..end.unwrap_or(bytes.len())];
    *bytes = end.map_or(&[], |end| &bytes[end + 1..]);
    part
}

/// As `part`, what is not UTF-8 replaced.
pub fn text(bytes: &mut &[u8]) -> String {
    String::from_utf8_lossy(part(bytes)).into_owned()
}

/// Runs `story` with a clock that jumps to whatever is waited for.
pub fn run<F: Future>(story: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads needs nothing").block_on(story)
}

/// A folder of its own, in memory where there is such a place.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("weir-fuzz-");
    let made = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
    made.expect("a folder for the files of one input")
}

/// Is `needle` somewhere in `hay`?
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || hay.windows(needle.len()).any(|window| window == needle)
}
