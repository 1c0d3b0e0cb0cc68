//! The page itself: files that are part of the program.

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, kind, content. A new version of weir has new contents: browsers ask each time whether theirs is still the same.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_bytes!("page/style.css")),
    ("/favicon.svg", "image/svg+xml", include_bytes!("page/favicon.svg")),
    ("/answer.js", SCRIPT, include_bytes!("page/answer.js")),
    ("/api.js", SCRIPT, include_bytes!("page/api.js")),
    ("/app.js", SCRIPT, include_bytes!("page/app.js")),
    ("/charts.js", SCRIPT, include_bytes!("page/charts.js")),
    ("/dom.js", SCRIPT, include_bytes!("page/dom.js")),
    ("/events.js", SCRIPT, include_bytes!("page/events.js")),
    ("/format.js", SCRIPT, include_bytes!("page/format.js")),
    ("/lanes.js", SCRIPT, include_bytes!("page/lanes.js")),
    ("/look.js", SCRIPT, include_bytes!("page/look.js")),
    ("/message.js", SCRIPT, include_bytes!("page/message.js")),
    ("/orders.js", SCRIPT, include_bytes!("page/orders.js")),
    ("/overview.js", SCRIPT, include_bytes!("page/overview.js")),
    ("/plot.js", SCRIPT, include_bytes!("page/plot.js")),
    ("/provider.js", SCRIPT, include_bytes!("page/provider.js")),
    ("/queue.js", SCRIPT, include_bytes!("page/queue.js")),
    ("/suppression.js", SCRIPT, include_bytes!("page/suppression.js")),
    ("/timeline.js", SCRIPT, include_bytes!("page/timeline.js")),
];

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets of all files together: the page has to open at once on a bad line, too.
    const SIZE_MAX: usize = 150_000;

    fn folder() -> Vec<(String, String)> {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page")).unwrap().flatten();
        let mut files: Vec<_> = files
            .map(|file| {
                (
                    file.file_name().into_string().unwrap(),
                    String::from_utf8(std::fs::read(file.path()).unwrap()).unwrap(),
                )
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn every_file_is_served_as_what_it_is() {
        let files = folder();
        assert_eq!(files.len(), FILES.len());
        for (name, text) in &files {
            let path = if name == "index.html" { "/".to_string() } else { format!("/{name}") };
            let answer = answer(&path, &HeaderMap::new()).unwrap_or_else(|| panic!("{name} is not served"));
            let kind = answer.headers()[header::CONTENT_TYPE].to_str().unwrap();
            let wanted = match name.rsplit_once('.').unwrap().1 {
                "html" => "text/html; charset=utf-8",
                "js" => SCRIPT,
                "css" => "text/css; charset=utf-8",
                "svg" => "image/svg+xml",
                other => panic!("{name}: what kind is .{other}?"),
            };
            assert_eq!(kind, wanted, "{name}");
            let (_, _, content) = FILES.iter().find(|(known, ..)| *known == path).unwrap();
            assert_eq!(*content, text.as_bytes(), "{name}");
        }
        let size: usize = files.iter().map(|(_, text)| text.len()).sum();
        assert!(size <= SIZE_MAX, "{size} octets");
    }

    /// What comes from outside is only ever text: nothing here reads words as markup or as a program, or as a style.
    #[test]
    fn no_file_has_a_way_to_read_words_as_markup() {
        const FORBIDDEN: [&str; 12] = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "createContextualFragment",
            "setHTML",
            "srcdoc",
            "eval(",
            "new Function",
            "javascript:",
            "cssText",
        ];
        for (name, text) in folder() {
            for word in FORBIDDEN {
                assert!(!text.contains(word), "{name} has `{word}`");
            }
            if name == "index.html" {
                assert!(!text.contains("style=") && !text.contains("<style"), "the policy allows no inline style");
                assert_eq!(
                    text.matches("<script").count(),
                    text.matches("<script type=\"module\" src=\"/app.js\">").count()
                );
            }
        }
    }

    /// Without a network the page is the same.
    #[test]
    fn no_file_names_another_place() {
        // A name of a kind of document, which nobody asks for, and the beginning of an address that a remedy names.
        const NAMES: [&str; 2] = ["http://www.w3.org/2000/svg", "https:\\/\\/"];
        for (name, text) in folder() {
            let text = NAMES.iter().fold(text, |text, known| text.replace(known, ""));
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("@import"), "{name}");
        }
    }
}
