//! What a domain publishes: the record that says there is a policy, and the policy itself (RFC 8461 sections 3.1 and 3.2).
//!
//! Pure. Both come from strangers: what is not exactly right is no record, and no policy, and the error says what is wrong.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Domain;

/// Octets of a policy; real ones have a few hundred (section 3.2 suggests this limit).
pub const OCTETS_MAX: usize = 64 << 10;
/// Octets of all its host patterns together: what is kept of a policy.
const PATTERNS_MAX: usize = 8 << 10;
/// A year, the longest a policy may ask to be kept (section 3.2).
const MAX_AGE_MAX: u64 = 31_557_600;
/// Characters of an id.
const ID_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Enforce,
    Testing,
    None,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    mode: Mode,
    /// Names in A-labels and lower case, or `*.` and such a name: one label more.
    mx: Vec<String>,
    max_age_secs: u64,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy is not in UTF-8")]
    Encoding,
    #[error("the policy has no `version: STSv1`")]
    Version,
    #[error("the policy has no `mode` that is enforce, testing or none")]
    Mode,
    #[error("the policy has no `max_age` in seconds")]
    MaxAge,
    #[error("the policy names no MX host")]
    NoHost,
    #[error("`mx: {0}` of the policy is no host name, nor one behind `*.`")]
    Host(String),
    #[error("the policy names more MX hosts than can be kept ({PATTERNS_MAX} octets)")]
    Hosts,
}

impl Policy {
    /// Of a key that stands there twice the first counts, but for `mx`; keys nobody knows are passed over (section 3.2).
    pub fn parse(octets: &[u8]) -> Result<Policy, PolicyError> {
        let text = std::str::from_utf8(octets).map_err(|_| PolicyError::Encoding)?;
        let pairs: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let value = |key: &str| pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        if value("version") != Some("STSv1") {
            return Err(PolicyError::Version);
        }
        let mode = match value("mode") {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(PolicyError::Mode),
        };
        let digits = |text: &&str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
        let max_age = value("max_age").filter(digits).and_then(|text| text.parse::<u64>().ok());
        let max_age_secs = max_age.ok_or(PolicyError::MaxAge)?.min(MAX_AGE_MAX);
        let hosts = pairs.iter().filter(|(key, _)| *key == "mx").map(|(_, value)| pattern(value));
        let mx = hosts.collect::<Result<Vec<String>, PolicyError>>()?;
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyError::NoHost);
        }
        if mx.iter().map(String::len).sum::<usize>() > PATTERNS_MAX {
            return Err(PolicyError::Hosts);
        }
        Ok(Policy { mode, mx, max_age_secs })
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.max_age_secs)
    }

    /// Is `host`, in A-labels and lower case, one of those the policy names (section 4.1)?
    pub fn covers(&self, host: &str) -> bool {
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, above)| above == parent),
            None => pattern == host,
        })
    }

    /// The hosts it names, for people.
    pub fn hosts(&self) -> String {
        const NAMED_MAX: usize = 4;
        let named = self.mx.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        let more = self.mx.len().saturating_sub(NAMED_MAX);
        if more == 0 { named } else { format!("{named} and {more} more") }
    }
}

/// Takes U-labels and A-labels in any letter case.
fn pattern(text: &str) -> Result<String, PolicyError> {
    let (star, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
    match Domain::parse(name) {
        Ok(name) if name.literal().is_none() => Ok(format!("{star}{name}")),
        _ => {
            let shown = |c: char| if c.is_control() { c.escape_debug().collect() } else { c.to_string() };
            Err(PolicyError::Host(text.chars().take(64).map(shown).collect()))
        }
    }
}

/// The id that the TXT records at `_mta-sts.DOMAIN` announce. Records of other kinds are passed over; two of this kind, or one with
/// a fault, announce nothing (section 3.1).
pub fn announced(records: &[String]) -> Option<&str> {
    let own = |record: &&String| {
        let rest = record.strip_prefix("v=STSv1");
        rest.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with(';'))
    };
    let mut found = records.iter().filter(own);
    let (record, None) = (found.next()?, found.next()) else { return None };
    let mut fields = record.split(';').skip(1).map(|field| field.trim_matches([' ', '\t']));
    let id = fields.find_map(|field| field.strip_prefix("id="))?;
    let is_good = (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    is_good.then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: *.olc.protection.outlook.com\r\nmx: mx.weir.dev\r\nmax_age: 604800\r\n";

    #[test]
    fn a_policy_covers_the_hosts_it_names() {
        let policy = Policy::parse(TEXT.as_bytes()).unwrap();
        assert_eq!((policy.mode(), policy.max_age()), (Mode::Enforce, Duration::from_secs(604_800)));
        assert!(policy.covers("outlook-com.olc.protection.outlook.com") && policy.covers("mx.weir.dev"));
        assert!(!policy.covers("a.b.olc.protection.outlook.com") && !policy.covers("olc.protection.outlook.com"));
        assert_eq!(policy.hosts(), "*.olc.protection.outlook.com, mx.weir.dev");
    }

    #[test]
    fn what_is_not_right_is_no_policy_and_the_error_says_why() {
        for (text, why) in [
            ("", PolicyError::Version),
            ("<html>", PolicyError::Version),
            ("mode: enforce\nmx: a.dev\nmax_age: 1", PolicyError::Version),
            ("version: STSv2\nversion: STSv1\nmode: enforce\nmx: a.dev\nmax_age: 1", PolicyError::Version),
            ("version: STSv1\nmode: x\nmx: a.dev\nmax_age: 1", PolicyError::Mode),
            ("version: STSv1\nmode: Enforce\nmx: a.dev\nmax_age: 1", PolicyError::Mode),
            ("version: STSv1\nmode: enforce\nmx: a.dev", PolicyError::MaxAge),
            ("version: STSv1\nmode: enforce\nmx: a.dev\nmax_age: -1", PolicyError::MaxAge),
            ("version: STSv1\nmode: enforce\nmx: a.dev\nmax_age: 99999999999", PolicyError::MaxAge),
            ("version: STSv1\nmode: enforce\nmax_age: 1", PolicyError::NoHost),
            ("version: STSv1\nmode: enforce\nmx: *\nmax_age: 1", PolicyError::Host("*".into())),
            ("version: STSv1\nmode: enforce\nmx: 192.0.2.1\nmax_age: 1", PolicyError::Host("192.0.2.1".into())),
            ("version: STSv1\nmode: enforce\nmx: a\u{7}.dev\nmax_age: 1", PolicyError::Host("a\\u{7}.dev".into())),
        ] {
            assert_eq!(Policy::parse(text.as_bytes()), Err(why), "{text}");
        }
        assert_eq!(Policy::parse(b"version: STSv1\nmode: \xff"), Err(PolicyError::Encoding));
        let many = (0..1000).map(|n| format!("mx: host{n}.example.net\n")).collect::<String>();
        let many = format!("version: STSv1\nmode: enforce\nmax_age: 1\n{many}");
        assert_eq!(Policy::parse(many.as_bytes()), Err(PolicyError::Hosts));
    }

    #[test]
    fn what_may_vary_does() {
        // Line ends, order, blanks, keys nobody knows, a key given twice, letter case and U-labels of hosts, an age beyond the limit.
        let text = "mx:MX.Weir.DEV.\nmode:testing \nmode: enforce\nnews: x\n\n max_age : 9999999999\nmx: *.münchen.example\nversion: STSv1";
        let policy = Policy::parse(text.as_bytes()).unwrap();
        assert_eq!((policy.mode(), policy.max_age().as_secs()), (Mode::Testing, MAX_AGE_MAX));
        assert!(policy.covers("mx.weir.dev") && policy.covers("mx1.xn--mnchen-3ya.example"));
        let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 0").unwrap();
        assert_eq!((none.mode(), none.covers("mx.weir.dev")), (Mode::None, false));
    }

    #[test]
    fn one_good_record_announces_a_policy() {
        for (records, id) in [
            (&["v=STSv1; id=20160831085700Z;"][..], Some("20160831085700Z")),
            (&["v=spf1 -all", "v=STSv1;id=1"], Some("1")),
            (&["v=STSv1 ;\text=1; id=a1"], Some("a1")),
            (&["v=STSv1; id=1", "v=STSv1; id=2"], None),
            (&["v=STSv1; id="], None),
            (&["v=STSv1; id=a-b"], None),
            (&["v=STSv1; id=123456789012345678901234567890123"], None),
            (&["v=STSv1"], None),
            (&["v=STSv10; id=1"], None),
            (&["V=STSv1; id=1"], None),
            (&[], None),
        ] {
            let records: Vec<String> = records.iter().map(ToString::to_string).collect();
            assert_eq!(announced(&records), id, "{records:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic_and_what_is_kept_is_bounded(octets in prop::collection::vec(any::<u8>(), 0..300), lines in "[a-z_:*. \\-\r\n0-9]{0,200}") {
            let _ = announced(&[String::from_utf8_lossy(&octets).into_owned(), format!("v=STSv1;{lines}")]);
            for octets in [octets, format!("version: STSv1\nmode: testing\nmax_age: 1\nmx: a.dev\n{lines}").into_bytes()] {
                if let Ok(policy) = Policy::parse(&octets) {
                    prop_assert!(policy.mx.iter().map(String::len).sum::<usize>() <= PATTERNS_MAX);
                    prop_assert!(policy.mx.iter().all(|host| !host.contains(char::is_control)));
                    let kept = serde_json::to_string(&policy).unwrap();
                    prop_assert_eq!(serde_json::from_str::<Policy>(&kept).unwrap(), policy);
                }
            }
        }
    }
}
