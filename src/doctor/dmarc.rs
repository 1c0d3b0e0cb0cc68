//! DMARC: the record of a From domain, found by a walk up the tree of names (DMARCbis; eight questions at most), and what counts as
//! aligned with it.
//!
//! Older receivers ask a list of public suffixes instead (RFC 7489); both find the same record for domains of companies.

use crate::route::Dns;
use crate::route::dns::NoAnswer;

/// Names that are asked on the way up.
const QUESTIONS_MAX: usize = 8;

/// A record, as far as a sender needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The domain it was found at: the From domain, or one above it.
    pub domain: String,
    /// `none`, `quarantine` or `reject`, as it holds for the domain asked about.
    pub policy: String,
    /// The domain that authenticated must be the From domain itself.
    pub strict_spf: bool,
    pub strict_dkim: bool,
    pub has_reports: bool,
    /// As it is written.
    pub text: String,
}

/// Why there is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPolicy {
    /// Neither at the domain nor above it.
    Missing,
    /// A record nobody can use, with what is wrong.
    Wrong {
        domain: String,
        fault: String,
    },
    Unknown(NoAnswer),
}

/// The policy for mail from `domain`.
pub async fn find(dns: &dyn Dns, domain: &str) -> Result<Policy, NoPolicy> {
    for (at, name) in on_the_way_up(domain).enumerate() {
        match dns.txt(&format!("_dmarc.{name}.")).await {
            Ok(found) => {
                let records: Vec<String> = found.records.into_iter().filter(|text| is_dmarc(text)).collect();
                match records.as_slice() {
                    [] => {}
                    [one] => return read(one, name, at > 0),
                    many => {
                        let fault = format!("{} records, and one is allowed", many.len());
                        return Err(NoPolicy::Wrong { domain: name.to_string(), fault });
                    }
                }
            }
            Err(why) if why.is_temporary() => return Err(NoPolicy::Unknown(why)),
            Err(_) => {}
        }
    }
    Err(NoPolicy::Missing)
}

/// The domain, and those above it down to two labels; of a long one the names below the seventh label from the right are passed over.
fn on_the_way_up<'d>(domain: &'d str) -> impl Iterator<Item = &'d str> {
    let above = |name: &&'d str| name.split_once('.').map(|(_, parent)| parent);
    let short = |name: &&str| name.split('.').count() < QUESTIONS_MAX;
    let names = std::iter::successors(Some(domain), above);
    let names = names.enumerate().filter(move |(at, name)| *at == 0 || (short(name) && name.contains('.')));
    names.map(|(_, name)| name).take(QUESTIONS_MAX)
}

fn is_dmarc(text: &str) -> bool {
    tags(text).next().is_some_and(|(name, value)| name.eq_ignore_ascii_case("v") && value == "DMARC1")
}

fn tags(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|tag| tag.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

/// `is_above`: found above the domain asked about, so the policy for subdomains holds.
fn read(text: &str, domain: &str, is_above: bool) -> Result<Policy, NoPolicy> {
    let tag = |wanted: &str| tags(text).find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
    let wrong = |fault: String| NoPolicy::Wrong { domain: domain.to_string(), fault };
    let main = tag("p");
    let policy = if is_above { tag("sp").or(main) } else { main };
    let has_reports = tag("rua").is_some_and(|to| to.to_ascii_lowercase().contains("mailto:"));
    let policy = match policy.map(str::to_ascii_lowercase) {
        Some(word) if ["none", "quarantine", "reject"].contains(&word.as_str()) => word,
        // RFC 7489 section 6.6.3: with reports asked for it counts as `none`.
        _ if has_reports => "none".to_string(),
        Some(word) => return Err(wrong(format!("p={word} is none of none, quarantine, reject"))),
        None => return Err(wrong("it has no p=".to_string())),
    };
    let is_strict = |name: &str| tag(name).is_some_and(|mode| mode.eq_ignore_ascii_case("s"));
    Ok(Policy {
        domain: domain.to_string(),
        policy,
        strict_spf: is_strict("aspf"),
        strict_dkim: is_strict("adkim"),
        has_reports,
        text: text.to_string(),
    })
}

impl Policy {
    /// Is what SPF or DKIM authenticated aligned with mail from `from`? Relaxed: both lie below the domain of the record.
    pub fn aligns(&self, authenticated: &str, from: &str, strict: bool) -> bool {
        let within = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.strip_suffix(self.domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        authenticated.eq_ignore_ascii_case(from) || (!strict && within(authenticated) && within(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;

    #[tokio::test]
    async fn the_record_of_the_domain_counts_before_that_of_one_above() {
        let dns = TableDns::default()
            .txt("_dmarc.weir.dev.", &["v=DMARC1; p=reject; sp=quarantine; aspf=s; rua=mailto:d@weir.dev"])
            .txt("_dmarc.news.weir.dev.", &["other", "v=DMARC1;p=none"]);
        let own = find(&dns, "news.weir.dev").await.unwrap();
        assert_eq!((own.domain.as_str(), own.policy.as_str(), own.has_reports), ("news.weir.dev", "none", false));
        let above = find(&dns, "a.shop.weir.dev").await.unwrap();
        assert_eq!((above.domain.as_str(), above.policy.as_str()), ("weir.dev", "quarantine"));
        assert!(above.strict_spf && !above.strict_dkim && above.has_reports);
        assert_eq!(find(&dns, "weir.dev").await.unwrap().policy, "reject");
        assert_eq!(find(&dns, "other.dev").await, Err(NoPolicy::Missing));
        assert!(!dns.asked.lock().unwrap().contains(&"TXT _dmarc.dev.".to_string()), "no top-level domain is asked");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_told_from_what_is_missing() {
        let dns = TableDns::default()
            .txt("_dmarc.a.dev.", &["v=DMARC1; p=none", "v=DMARC1; p=reject"])
            .txt("_dmarc.b.dev.", &["v=DMARC1; p=refuse"])
            .txt("_dmarc.c.dev.", &["v=DMARC1"])
            .txt("_dmarc.d.dev.", &["v=DMARC2; p=none"])
            .fails("TXT", "_dmarc.e.dev.", NoAnswer::ServerFailure);
        for (domain, says) in [("a.dev", "2 records"), ("b.dev", "p=refuse"), ("c.dev", "no p=")] {
            let Err(NoPolicy::Wrong { fault, .. }) = find(&dns, domain).await else { panic!("{domain}") };
            assert!(fault.contains(says), "{domain}: {fault}");
        }
        assert_eq!(find(&dns, "d.dev").await, Err(NoPolicy::Missing));
        assert_eq!(find(&dns, "e.dev").await, Err(NoPolicy::Unknown(NoAnswer::ServerFailure)));
    }

    #[tokio::test]
    async fn of_a_deep_name_eight_are_asked() {
        let dns = TableDns::default();
        let deep = "a.b.c.d.e.f.g.h.i.j.mail.example.com";
        assert_eq!(find(&dns, deep).await, Err(NoPolicy::Missing));
        let asked = dns.asked.lock().unwrap();
        assert_eq!(asked.first().map(String::as_str), Some(format!("TXT _dmarc.{deep}.").as_str()));
        assert_eq!(asked.last().map(String::as_str), Some("TXT _dmarc.example.com."));
        assert!(asked.len() <= QUESTIONS_MAX, "{asked:?}");
    }

    #[test]
    fn aligned_is_the_same_domain_or_one_under_the_same_record() {
        let policy = read("v=DMARC1; p=none", "weir.dev", false).unwrap();
        assert!(policy.aligns("Bounce.weir.dev", "news.weir.dev", false));
        assert!(!policy.aligns("bounce.weir.dev", "news.weir.dev", true));
        assert!(policy.aligns("weir.dev", "Weir.dev", true));
        assert!(!policy.aligns("esp.example", "weir.dev", false) && !policy.aligns("notweir.dev", "weir.dev", false));
    }
}
