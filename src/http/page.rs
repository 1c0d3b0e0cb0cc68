//! The page itself: files that are part of the program.

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;

/// Path, kind, content. A new version of weir has new contents: browsers ask each time whether theirs is still the same.
const FILES: &[(&str, &str, &[u8])] = &[("/", "text/html; charset=utf-8", include_bytes!("page/index.html"))];

/// A file of the page; none: the path is none of theirs.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let (_, kind, content) = FILES.iter().find(|(known, ..)| *known == path)?;
    let tag = format!("\"{}-{}\"", env!("CARGO_PKG_VERSION"), mark_of(content));
    let fields = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, tag.as_str())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Some((StatusCode::NOT_MODIFIED, fields).into_response());
    }
    Some((fields, [(header::CONTENT_TYPE, *kind)], *content).into_response())
}

/// Tells contents apart that are not the same (FNV-1a).
fn mark_of(content: &[u8]) -> String {
    let hash =
        content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
