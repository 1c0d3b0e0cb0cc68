//! A URL to post to, taken apart.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;

/// Where a webhook is.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// May hold a secret: it is sent and never shown.
    pub(super) path: String,
    /// The field Authorization, where the URL names a user (RFC 7617); never shown.
    pub(super) authorization: Option<String>,
}

impl Target {
    /// Reads a URL. Users and passwords before the host are refused: they would be shown wherever a URL is.
    pub fn parse(url: &str) -> Option<Target> {
        Target::parse_with_user(url).filter(|target| target.authorization.is_none())
    }

    /// The same with `user:password@` before the host, for those who show no part of the URL but its place.
    pub fn parse_with_user(url: &str) -> Option<Target> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        if authority.host().is_empty() {
            return None;
        }
        let port = match uri.port() {
            Some(port) => port.as_u16(),
            // `http://host:` and `http://host:99999` are no ports.
            None if place == authority.host() => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            None => return None,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
        let authorization = match user {
            Some(user) => Some(basic(user)?),
            None => None,
        };
        (port != 0).then_some(Target { is_tls, host, port, path, authorization })
    }

    /// As it stands in the log: without path and query, which may hold a secret.
    pub fn place(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    /// As it stands in the field Host: the usual port is left out, as servers that tell hosts apart by name expect it.
    pub(super) fn authority(&self) -> String {
        let usual = if self.is_tls { 443 } else { 80 };
        if self.port == usual { self.bracketed() } else { self.place() }
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}/…", if self.is_tls { "https" } else { "http" }, self.place())
    }
}

/// The credentials of HTTP Basic for `user:password` as a URL writes it; none where it cannot be read.
fn basic(user: &str) -> Option<String> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (user, password) = (plain(user)?, plain(password)?);
    // A colon in the name would end it earlier for the reader.
    if user.contains(&b':') {
        return None;
    }
    Some(format!("Basic {}", STANDARD.encode([&user[..], b":", &password[..]].concat())))
}

/// Takes back percent-encoding (RFC 3986 section 2.1).
fn plain(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_keeps_its_secret() {
        let target = Target::parse("https://hooks.example.com/services/SECRET?key=SECRET").unwrap();
        assert_eq!((target.is_tls, target.host.as_str(), target.port), (true, "hooks.example.com", 443));
        assert_eq!(target.path, "/services/SECRET?key=SECRET");
        assert!(!format!("{target:?} {}", target.place()).contains("SECRET"));
        let target = Target::parse("http://[::1]:9093").unwrap();
        assert_eq!((target.is_tls, target.place().as_str(), target.path.as_str()), (false, "[::1]:9093", "/"));
        for (url, authority) in [
            ("https://h.example/", "h.example"),
            ("https://h.example:443/", "h.example"),
            ("https://h.example:80/", "h.example:80"),
            ("http://[::1]/", "[::1]"),
            ("http://[::1]:8080/", "[::1]:8080"),
        ] {
            assert_eq!(Target::parse(url).unwrap().authority(), authority, "{url}");
        }
        for url in [
            "",
            "hooks.example.com",
            "ftp://example.com/",
            "/path",
            "http://",
            "http://user:pass@example.com/",
            "http://a:0/",
            "http://a:99999/",
            "http://a b/",
        ] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }

    #[test]
    fn a_user_of_a_url_is_sent_as_basic_and_shown_nowhere() {
        let target = Target::parse_with_user("https://api%40x:to%3Aken@hooks.example.com:8443/hook").unwrap();
        assert_eq!(target.authorization.as_deref(), Some("Basic YXBpQHg6dG86a2Vu"));
        assert_eq!((target.place().as_str(), target.port), ("hooks.example.com:8443", 8443));
        assert_eq!(format!("{target:?}"), "https://hooks.example.com:8443/…");
        assert_eq!(Target::parse_with_user("http://u:p@h.example/").unwrap().port, 80);
        for url in ["http://a%3Ab:c@h/", "http://a%4:b@h/", "http://a:b%zz@h/", "http://u:p@h:/", "http://u:p@/"] {
            assert_eq!(Target::parse_with_user(url), None, "{url}");
        }
    }
}
