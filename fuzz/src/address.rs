//! Mail addresses (`types/address`): what is taken is kept verbatim but for a final dot, its domain is what stands behind the
//! last `@`, and its key is one for all spellings.

use weir::smtp::{Command, ForwardPath};
use weir::types::address::{DOMAIN_MAX, LOCAL_PART_MAX, PATH_MAX};
use weir::types::{Domain, Mailbox, ReversePath};

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(domain) = Domain::parse(text) {
        domain_is_normal(&domain);
    }
    match Mailbox::parse(text) {
        Ok(mailbox) => {
            is_verbatim(&mailbox, text);
            has_one_key(&mailbox);
            reads_what_it_writes(&mailbox);
            is_taken_from_a_client(&mailbox);
        }
        // Nor may it come in by another way.
        Err(error) => {
            assert!(text.is_empty() == ReversePath::parse(text).is_ok(), "{text:?}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }
}

fn domain_is_normal(domain: &Domain) {
    let text = domain.as_str();
    assert!(text.is_ascii() && text.len() <= DOMAIN_MAX && !text.is_empty(), "{text}");
    assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b"@<>\"\\,;()%!".contains(&b)), "{text}");
    assert_eq!(Domain::parse(text).as_ref(), Ok(domain), "a domain is its own normal form");
    match domain.literal() {
        Some(address) => assert_eq!(Domain::literal_of(address), *domain),
        None => {
            assert_eq!(text, text.to_ascii_lowercase());
            assert!(!text.ends_with('.') && text.parse::<std::net::IpAddr>().is_err(), "{text}");
        }
    }
}

fn is_verbatim(mailbox: &Mailbox, text: &str) {
    let text = text.strip_suffix(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).unwrap_or(text);
    assert_eq!(mailbox.as_str(), text);
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.len() <= PATH_MAX && (1..=LOCAL_PART_MAX).contains(&mailbox.local_part().len()), "{text:?}");
    let (local, domain) = text.rsplit_once('@').expect("an address has an @");
    assert_eq!((mailbox.local_part(), mailbox.domain_text()), (local, domain));
    assert_eq!(Domain::parse(domain).as_ref(), Ok(mailbox.domain()));
    assert!(local.starts_with('"') || !local.contains(['@', ' ', '<', '>', ',', ':']), "{text:?}");
    domain_is_normal(mailbox.domain());
}

fn has_one_key(mailbox: &Mailbox) {
    let key = mailbox.key();
    let again = Mailbox::parse(&key).unwrap_or_else(|error| panic!("key {key:?} of {mailbox}: {error}"));
    assert_eq!(again.key(), key, "of {mailbox}");
    assert_eq!(again.domain(), mailbox.domain());
    let shouted =
        format!("{}@{}", mailbox.local_part().to_ascii_uppercase(), mailbox.domain_text().to_ascii_uppercase());
    if let Ok(shouted) = Mailbox::parse(&shouted) {
        assert_eq!(shouted.key(), key, "letter case makes no other mailbox");
    }
}

fn reads_what_it_writes(mailbox: &Mailbox) {
    assert_eq!(&mailbox.to_string(), mailbox.as_str());
    let json = serde_json::to_string(mailbox).expect("an address can be written");
    assert_eq!(&serde_json::from_str::<Mailbox>(&json).expect("and read"), mailbox);
    assert_eq!(ReversePath::parse(mailbox.as_str()), Ok(ReversePath::Mailbox(mailbox.clone())));
}

/// Angle brackets add nothing and take nothing away.
fn is_taken_from_a_client(mailbox: &Mailbox) {
    match Command::parse(format!("RCPT TO:<{mailbox}>").as_bytes()) {
        Ok(Command::Rcpt(rcpt)) => assert_eq!(rcpt.path, ForwardPath::Mailbox(mailbox.clone())),
        other => panic!("{mailbox}: {other:?}"),
    }
}
