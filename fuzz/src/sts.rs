//! MTA-STS policies and the records that announce them (`route/sts/policy`): what is taken names hosts and nothing else, within limits, and
//! comes back as it was from where it is kept; what is refused is told in a line.

use weir::route::sts::Policy;
use weir::route::sts::policy::announced;
use weir::types::Domain;

/// As much as is kept of a policy, and what JSON puts round it.
const KEPT_MAX: usize = 64 << 10;

pub fn check(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let records: Vec<String> = text.lines().map(str::to_string).collect();
        if let Some(id) = announced(&records) {
            assert!((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id:?}");
        }
    }
    match Policy::parse(bytes) {
        Ok(policy) => is_a_policy(&policy),
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    }
}

fn is_a_policy(policy: &Policy) {
    let kept = serde_json::to_string(policy).expect("a policy can be written");
    assert!(kept.len() <= KEPT_MAX, "{} octets", kept.len());
    assert_eq!(serde_json::from_str::<Policy>(&kept).expect("and read again"), *policy);
    assert!(policy.max_age().as_secs() <= 31_557_600);
    for shown in policy.hosts().split(", ").filter(|shown| !shown.is_empty()) {
        // The last one may be followed by how many more there are.
        let shown = shown.split(' ').next().unwrap_or_default();
        let name = shown.strip_prefix("*.").unwrap_or(shown);
        assert_eq!(Domain::parse(name).expect("a host name").as_str(), name);
        let covered = if name == shown { name.to_string() } else { format!("mx.{name}") };
        assert!(policy.covers(&covered) && !policy.covers(&format!("a.b.c.{covered}x")), "{shown}");
    }
}
