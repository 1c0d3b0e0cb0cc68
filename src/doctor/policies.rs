//! What receivers want of TLS: their MTA-STS policy (RFC 8461) and their TLSA records (DANE, RFC 7672), as they are today.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tokio::time::timeout;

use super::finding::{Check, Finding};
use super::resolver;
use crate::outbound::{roots, tls};
use crate::post::Tls;
use crate::route::sts::policy::announced;
use crate::route::sts::{Around, Fetch, Https, Mode};
use crate::types::Domain;

/// For all of the fetching.
const FETCH: Duration = Duration::from_secs(8);
/// MX hosts whose TLSA records are asked for.
const HOSTS_MAX: usize = 8;

/// As the relay fetches policies. A file of authorities that cannot be read is told by `weir check`.
pub(super) fn https(ca_file: &Path) -> Https {
    let roots = roots::load(ca_file).unwrap_or_default();
    let trusting = |roots: &[_]| Tls::new(tls::provider(), roots);
    let tls = trusting(&roots).or_else(|_| trusting(&[]));
    Https::new(tls.expect("the public authorities are well formed"))
}

/// MTA-STS of one domain with these MX hosts.
pub(super) async fn mta_sts(domain: &str, hosts: &[String], around: &Around, fetch: &dyn Fetch) -> Finding {
    const THEIRS: &str = "nothing here, if other domains' policies can be fetched; else let HTTPS (TCP 443) out";
    let records = match around.dns.txt(&format!("_mta-sts.{domain}.")).await {
        Ok(found) => found.records,
        Err(why) if why.is_temporary() => return super::sources::unanswered(Check::MtaSts, domain, &why),
        Err(_) => Vec::new(),
    };
    let (Some(_), Ok(name)) = (announced(&records), Domain::parse(domain)) else {
        return Finding::ok(Check::MtaSts, domain, "publishes no policy");
    };
    let fetched = match timeout(FETCH, fetch.fetch(&name, around)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!("no answer within {} s", FETCH.as_secs())),
    };
    let policy = match fetched {
        Ok(policy) => policy,
        Err(why) => {
            let text = format!("says that it has a policy, which cannot be had: {why}");
            return Finding::warn(Check::MtaSts, domain, text, THEIRS);
        }
    };
    let beyond: Vec<&str> = hosts.iter().map(String::as_str).filter(|host| !policy.covers(host)).collect();
    let text = format!("mode {}, for {}", policy.mode().as_str(), policy.hosts());
    if beyond.is_empty() || policy.mode() == Mode::None {
        return Finding::ok(Check::MtaSts, domain, text);
    }
    let text = format!("{text}; its MX host {} is not among them", beyond.join(", "));
    Finding::warn(Check::MtaSts, domain, text, "if your resolver tells the truth, its owner must mend that")
}

/// TLSA records of a domain's MX hosts, and whether their zones are signed as far as the resolver says.
pub(super) async fn dane(domain: &str, hosts: &[String], servers: &[SocketAddr]) -> Finding {
    let mut secure = Vec::new();
    let mut unproven = Vec::new();
    let mut without = Vec::new();
    let mut failed = Vec::new();
    for host in hosts.iter().take(HOSTS_MAX) {
        let name = format!("_25._tcp.{host}.");
        let mut answer = Err(std::io::Error::other("no name server is known"));
        for server in servers {
            answer = resolver::ask(*server, &name, RecordType::TLSA).await;
            if answer.is_ok() {
                break;
            }
        }
        match answer {
            Ok(answer) => {
                let has_records = answer.answers.iter().any(|record| record.record_type() == RecordType::TLSA);
                match answer.metadata.response_code {
                    _ if has_records && answer.metadata.authentic_data => secure.push(host.as_str()),
                    _ if has_records => unproven.push(host.as_str()),
                    ResponseCode::NoError | ResponseCode::NXDomain => without.push(host.as_str()),
                    code => failed.push(format!("{host} ({code})")),
                }
            }
            Err(error) => failed.push(format!("{host} ({error})")),
        }
    }
    if !unproven.is_empty() {
        let text =
            format!("{} has TLSA records, and the resolver does not say that they are genuine", unproven.join(", "));
        return Finding::warn(Check::Dane, domain, text, "see what this run says of `resolver`");
    }
    if !secure.is_empty() {
        return Finding::ok(Check::Dane, domain, format!("{} has TLSA records in a signed zone", secure.join(", ")));
    }
    let text = match (without.as_slice(), failed.as_slice()) {
        ([], []) => "no MX host is known".to_string(),
        (_, []) => "publishes no TLSA records".to_string(),
        // Microsoft's old zone: unsigned, and no answer to this question.
        (_, failed) => format!("no TLSA records can be had of {}: mail goes as to hosts without", failed.join(", ")),
    };
    Finding::ok(Check::Dane, domain, text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::route::sts::{Fetching, Policy};
    use crate::route::table::TableDns;
    use crate::types::Status;

    struct Published(&'static str);

    impl Fetch for Published {
        fn fetch<'a>(&'a self, _domain: &'a Domain, _around: &'a Around) -> Fetching<'a> {
            Box::pin(async { Policy::parse(self.0.as_bytes()).map_err(|error| error.to_string()) })
        }
    }

    async fn found(dns: TableDns, fetch: &dyn Fetch) -> Finding {
        let around = Around { dns: Arc::new(dns), networks: Arc::new([]) };
        mta_sts("weir.dev", &["mx.weir.dev".to_string()], &around, fetch).await
    }

    #[tokio::test]
    async fn a_policy_that_cannot_be_had_or_leaves_a_host_out_is_a_warning() {
        let real = https(Path::new(""));
        let none = found(TableDns::default(), &real).await;
        assert!(none.status == Status::Ok && none.text.contains("no policy"));
        let dns = || TableDns::default().txt("_mta-sts.weir.dev.", &["v=STSv1; id=1"]);
        let private = found(dns().v4("mta-sts.weir.dev.", &["10.0.0.1"]), &real).await;
        assert!(private.status == Status::Warn && private.text.contains("is not public"), "{}", private.text);
        for (text, status, says) in [
            ("version: STSv1\nmode: enforce\nmx: *.weir.dev\nmax_age: 9", Status::Ok, "mode enforce, for *.weir.dev"),
            ("version: STSv1\nmode: testing\nmx: old.dev\nmax_age: 9", Status::Warn, "mx.weir.dev is not among them"),
            ("version: STSv1\nmode: none\nmax_age: 9", Status::Ok, "mode none"),
            ("nonsense", Status::Warn, "cannot be had: the policy has no `version"),
        ] {
            let found = found(dns(), &Published(text)).await;
            assert!(found.status == status && found.text.contains(says), "{}", found.text);
        }
    }
}
