//! What hosts can take of TLS, as handshakes that failed have shown.
//!
//! The first hello has a key for X25519MLKEM768 and fills more than one packet: some hosts, and firewalls before them, drop it or
//! break off. They are tried again with a small one, and only where the mode allows it in clear text, each time on a new connection.
//!
//! - A host is remembered only once a step down has brought a connection; what never came to be shows nothing.
//! - What is remembered makes nothing weaker than the mode allows: a host without TLS is asked for it wherever it is required.
//! - It ends by itself: a host whose TLS was mended is found out, and whoever broke it on the way has to do it again and again.
//! - In memory alone, and bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::outbound::{Hello, OpenStage};
use crate::types::{Timestamp, TlsMode};

/// How long a host is spoken to in clear text before TLS is tried again.
const CLEAR_FOR: Duration = Duration::from_secs(3600);
/// How long with a small hello.
const SMALL_FOR: Duration = Duration::from_secs(24 * 3600);
/// Hosts remembered; beyond it one that is as good as any is forgotten.
const HOSTS_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Hellos(BTreeMap<Arc<str>, (Hello, Timestamp)>);

impl Hellos {
    /// With what a connection to `host` begins.
    pub(super) fn first(&self, host: &str, mode: TlsMode, now: Timestamp) -> Hello {
        match self.0.get(host) {
            Some((hello, until)) if now < *until && (*hello != Hello::Clear || mode == TlsMode::Opportunistic) => {
                *hello
            }
            _ => Hello::Full,
        }
    }

    /// A connection came to be with this, after more had failed.
    pub(super) fn note(&mut self, host: &Arc<str>, hello: Hello, now: Timestamp) {
        let until = match hello {
            Hello::Full => return,
            Hello::Small => now + SMALL_FOR,
            Hello::Clear => now + CLEAR_FOR,
        };
        if self.0.len() >= HOSTS_MAX && !self.0.contains_key(host) {
            self.0.pop_first();
        }
        self.0.insert(host.clone(), (hello, until));
    }

    /// The clock was set by so much.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.0.values_mut().for_each(|(_, until)| *until = until.shifted(by_millis));
    }

    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.0.retain(|_, (_, until)| now < *until);
    }
}

/// What to try at the same address after this failure; none: nothing more.
pub(super) fn next(used: Hello, mode: TlsMode, stage: OpenStage) -> Option<Hello> {
    let may_be_clear = mode == TlsMode::Opportunistic && used != Hello::Clear;
    match stage {
        OpenStage::Handshake if used == Hello::Full => Some(Hello::Small),
        OpenStage::Handshake | OpenStage::Tls if may_be_clear => Some(Hello::Clear),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn a_small_hello_comes_before_clear_text_and_clear_text_only_where_the_mode_allows_it() {
        use OpenStage::{Connect, Ehlo, Greeting, Handshake, Login, Tls};
        for (used, mode, stage, then) in [
            (Hello::Full, TlsMode::Opportunistic, Handshake, Some(Hello::Small)),
            (Hello::Small, TlsMode::Opportunistic, Handshake, Some(Hello::Clear)),
            (Hello::Clear, TlsMode::Opportunistic, Handshake, None),
            (Hello::Full, TlsMode::Opportunistic, Tls, Some(Hello::Clear)),
            (Hello::Full, TlsMode::Encrypt, Handshake, Some(Hello::Small)),
            (Hello::Small, TlsMode::Encrypt, Handshake, None),
            (Hello::Full, TlsMode::Verify, Tls, None),
            (Hello::Full, TlsMode::Verify, Handshake, Some(Hello::Small)),
        ] {
            assert_eq!(next(used, mode, stage), then, "{used:?} {mode:?} {stage:?}");
        }
        for stage in [Connect, Greeting, Ehlo, Login] {
            assert_eq!(next(Hello::Full, TlsMode::Opportunistic, stage), None);
        }
    }

    #[test]
    fn what_is_remembered_ends_and_never_weakens_a_mode() {
        let mut hellos = Hellos::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        hellos.note(&a, Hello::Clear, NOW);
        hellos.note(&b, Hello::Small, NOW);
        hellos.note(&"c".into(), Hello::Full, NOW);
        assert_eq!(hellos.0.len(), 2);
        for mode in [TlsMode::Encrypt, TlsMode::Verify] {
            assert_eq!(hellos.first("a", mode, NOW), Hello::Full);
            assert_eq!(hellos.first("b", mode, NOW), Hello::Small);
        }
        let at = |secs| hellos.first("a", TlsMode::Opportunistic, NOW + Duration::from_secs(secs));
        assert_eq!((at(3599), at(3600)), (Hello::Clear, Hello::Full));
        hellos.sweep(NOW + CLEAR_FOR);
        assert_eq!(hellos.0.len(), 1);
        for n in 0..HOSTS_MAX + 5 {
            hellos.note(&format!("{n}").into(), Hello::Small, NOW);
        }
        assert_eq!(hellos.0.len(), HOSTS_MAX);
    }
}
