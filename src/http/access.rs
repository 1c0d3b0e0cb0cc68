//! Who may ask: the names the page goes by, where a request comes from, and what it shows to prove itself. Pure.
//!
//! Rules that always hold:
//! - a name of somebody else's that was made to lead to this address (DNS rebinding) is refused, whatever the request shows;
//! - a request that changes something and comes from another origin is refused, whatever it shows;
//! - a token or cookie is compared in constant time, and a wrong one tells nothing but that it is wrong.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::types::Timestamp;

/// The cookie of the page.
pub(super) const COOKIE: &str = "weir_session";
/// A log-in holds so long.
pub(super) const SESSION_LASTS: Duration = Duration::from_secs(12 * 3600);
/// Sessions that were ended by hand and whose cookie is still good by its time.
const ENDED_MAX: usize = 1000;
/// Octets of chance in a session's name.
const NAME_OCTETS: usize = 16;

/// The names by which the page may be asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(hosts: &[String]) -> Names {
        Names(hosts.iter().map(|host| host.to_ascii_lowercase()).collect())
    }

    /// May it be asked for by this Host field? An address cannot be made to lead elsewhere; a name can, so it must be known.
    pub(super) fn allow(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.0.iter().any(|known| *known == name || known.eq_ignore_ascii_case(authority.as_str()))
    }
}

/// Does the request come from the page itself, or from no page at all? A browser says where a request comes from whenever that
/// is another place; programs say nothing.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
    let fetch_site = text(header::HeaderName::from_static("sec-fetch-site"));
    if fetch_site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => {
            let place = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            place.is_some_and(|place| place.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
    }
}

/// What a request shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown<'a> {
    Nothing,
    Bearer(&'a str),
    /// User and password.
    Basic(String, String),
    Cookie(&'a str),
}

impl Shown<'_> {
    /// Reads the fields. A field of another kind counts as nothing shown.
    pub(super) fn of(headers: &HeaderMap) -> Shown<'_> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let Ok(value) = value.to_str() else { return Shown::Bearer("") };
            let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
            return match scheme.to_ascii_lowercase().as_str() {
                "bearer" => Shown::Bearer(rest.trim()),
                "basic" => {
                    basic(rest.trim()).map_or(Shown::Bearer(""), |(user, password)| Shown::Basic(user, password))
                }
                _ => Shown::Bearer(""),
            };
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == COOKIE).map_or(Shown::Nothing, |(_, value)| Shown::Cookie(value))
    }
}

fn basic(code: &str) -> Option<(String, String)> {
    let text = String::from_utf8(base64::prelude::BASE64_STANDARD.decode(code).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_string(), password.to_string()))
}

/// The operator's token, and the sessions that were begun with it. A cookie holds what proves it, so that it outlives a
/// restart; it ends with its time, with the token, and when it is ended by hand.
pub(super) struct Keys {
    token: [u8; 32],
    key: hmac::Key,
    ended: Mutex<VecDeque<String>>,
}

impl Keys {
    pub(super) fn new(token: &str) -> Keys {
        let hash = hash(token);
        // A key of its own: what signs cookies opens nothing else.
        let key = hmac::Key::new(hmac::HMAC_SHA256, digest(&SHA256, &[b"weir session\0", &hash[..]].concat()).as_ref());
        Keys { token: hash, key, ended: Mutex::default() }
    }

    pub(super) fn opens(&self, token: &str) -> bool {
        verify_slices_are_equal(&hash(token), &self.token).is_ok()
    }

    /// The value of a new cookie: `NAME.UNTIL.PROOF`. None: the system gives no chance.
    pub(super) fn begin(&self, now: Timestamp) -> Option<String> {
        let mut name = [0; NAME_OCTETS];
        rand::fill(&mut name).ok()?;
        let until = (now + SESSION_LASTS).secs();
        let said = format!("{}.{until}", BASE64_URL_SAFE_NO_PAD.encode(name));
        let proof = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, said.as_bytes()));
        Some(format!("{said}.{proof}"))
    }

    pub(super) fn holds(&self, cookie: &str, now: Timestamp) -> bool {
        let Some((said, proof)) = cookie.rsplit_once('.') else { return false };
        let Some((name, until)) = said.split_once('.') else { return false };
        let Ok(proof) = BASE64_URL_SAFE_NO_PAD.decode(proof) else { return false };
        hmac::verify(&self.key, said.as_bytes(), &proof).is_ok()
            && until.parse::<i64>().is_ok_and(|until| now.secs() < until)
            && !self.ended().iter().any(|ended| ended == name)
    }

    /// Ends the session of a cookie that holds.
    pub(super) fn end(&self, cookie: &str) {
        let Some((name, _)) = cookie.split_once('.') else { return };
        let mut ended = self.ended();
        if ended.len() >= ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(name.to_string());
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    #[test]
    fn only_addresses_localhost_and_known_names_are_asked_for() {
        let names = Names::new(&["Relay.example.com".into(), "proxy.example:8443".into()]);
        for host in [
            "127.0.0.1:8025",
            "[::1]:8025",
            "192.0.2.7",
            "localhost",
            "LOCALHOST:8025",
            "relay.example.com",
            "relay.example.com:443",
            "relay.example.com.",
            "proxy.example:8443",
            "weir.localhost:8025",
        ] {
            assert!(names.allow(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8025",
            "localhost.evil.example",
            "relay.example.com.evil.example",
            "relay.example.com@evil.example",
            "user@127.0.0.1",
            "127.0.0.1.evil.example",
            "proxy.example:1",
            "a b",
            "127.0.0.1/../",
            "relay.example.com/",
        ] {
            assert!(!names.allow(host), "{host}");
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), header::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn another_page_changes_nothing() {
        for (fields, same) in [
            (vec![("host", "a:1")], true),
            (vec![("host", "a:1"), ("origin", "http://a:1")], true),
            (vec![("host", "a.example"), ("origin", "https://A.example")], true),
            (vec![("host", "a:1"), ("origin", "http://a:2")], false),
            (vec![("host", "a:1"), ("origin", "http://evil.example")], false),
            (vec![("host", "a:1"), ("origin", "null")], false),
            (vec![("host", "a:1"), ("sec-fetch-site", "cross-site")], false),
            (vec![("host", "a:1"), ("sec-fetch-site", "same-site")], false),
            (vec![("host", "a:1"), ("origin", "http://a:1"), ("sec-fetch-site", "same-origin")], true),
            (vec![("origin", "http://a:1")], false),
        ] {
            assert_eq!(is_same_origin(&headers(&fields)), same, "{fields:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_and_what_is_broken_opens_nothing() {
        let of = |fields: &[(&'static str, &'static str)]| format!("{:?}", Shown::of(&headers(fields)));
        assert_eq!(of(&[]), "Nothing");
        assert_eq!(of(&[("authorization", "bearer abc")]), "Bearer(\"abc\")");
        assert_eq!(of(&[("authorization", "Basic YXBwOnNlOmNyZXQ=")]), "Basic(\"app\", \"se:cret\")");
        assert_eq!(of(&[("authorization", "Basic !!")]), "Bearer(\"\")");
        assert_eq!(of(&[("authorization", "Digest x"), ("cookie", "weir_session=1")]), "Bearer(\"\")");
        assert_eq!(of(&[("cookie", "a=b; weir_session=x.y.z; c")]), "Cookie(\"x.y.z\")");
    }

    #[test]
    fn a_session_ends_with_its_time_with_its_token_and_by_hand() {
        let keys = Keys::new("secret");
        assert!(keys.opens("secret") && !keys.opens("Secret") && !keys.opens(""));
        let cookie = keys.begin(NOON).unwrap();
        assert!(keys.holds(&cookie, NOON) && Keys::new("secret").holds(&cookie, NOON));
        assert!(!keys.holds(&cookie, NOON + SESSION_LASTS));
        assert!(!Keys::new("another").holds(&cookie, NOON));
        for (at, _) in cookie.char_indices() {
            let mut changed = cookie.clone();
            changed.replace_range(at..=at, if &cookie[at..=at] == "A" { "B" } else { "A" });
            // The last character of a proof holds fewer bits than it could.
            assert!(!keys.holds(&changed, NOON) || at + 1 == cookie.len(), "{changed}");
        }
        for broken in ["", ".", "..", "a.b", "a.9999999999.", "a.9999999999.AAAA"] {
            assert!(!keys.holds(broken, NOON));
        }
        keys.end(&cookie);
        assert!(!keys.holds(&cookie, NOON));
    }
}
