//! Who may send through weir, from whom and to whom.
//!
//! Rules that always hold:
//! - a client outside the trusted networks that did not log in relays nothing, to whomever and in whatever spelling;
//! - a user sends from the domains that are his and from no other;
//! - where From has to be aligned, every address in it is, by its exact domain, also behind the empty sender where a user has logged in;
//!   the empty sender of others, which makes reports, is asked for nothing;
//! - only the domain behind the last `@` outside quotes counts: `%`, `!` and quotes admit nobody and change no way;
//! - an IPv4 client is the same client whether it comes as 192.0.2.1 or as ::ffff:192.0.2.1;
//! - every refusal names the key that would admit what was refused.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::auth::User;
use crate::smtp::from::Authors;
use crate::smtp::replies::{self, Said};
use crate::smtp::{ForwardPath, Mail};
use crate::types::{AddressError, Domain, Mailbox};

use super::options::{HeaderFrom, ReceivedField, Relay};

#[derive(Clone, Debug)]
pub struct Admission {
    trusted_networks: Vec<IpNet>,
    sender_domains: Vec<Domain>,
    from: HeaderFrom,
    received: ReceivedField,
    qualify: Option<Domain>,
    postmaster: Option<Mailbox>,
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Its network is trusted, or it has logged in.
    pub may_relay: bool,
    /// Who has logged in.
    pub user: Option<&'a User>,
}

impl Admission {
    /// Fails where `postmaster` is neither empty nor an address.
    pub fn new(relay: &Relay) -> Result<Admission, AddressError> {
        let postmaster = match relay.postmaster.as_str() {
            "" => None,
            address => Some(Mailbox::parse(address)?),
        };
        Ok(Admission {
            trusted_networks: relay.trusted_networks.clone(),
            sender_domains: relay.sender_domains.clone(),
            from: relay.from,
            received: relay.received,
            qualify: relay.qualify.clone(),
            postmaster,
        })
    }

    pub fn trusts(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted_networks.iter().any(|network| match (network, client) {
            // A network written in mapped form means the IPv4 clients in it.
            (IpNet::V6(v6), IpAddr::V4(v4)) => v6.contains(&v4.to_ipv6_mapped()),
            _ => network.contains(&client),
        })
    }

    /// Judges the sender. The empty one of reports is always taken; a client that may not relay hears so at RCPT, where
    /// every client can show it beside the address.
    pub fn sender(&self, who: Sender<'_>, mail: &Mail) -> Result<(), Said> {
        let Some(sender) = mail.sender.mailbox().filter(|_| who.may_relay) else { return Ok(()) };
        let is_listed = |domains: &[Domain]| domains.is_empty() || domains.contains(sender.domain());
        if !is_listed(&self.sender_domains) {
            return Err(replies::SENDER_DOMAIN.with(sender.to_string()));
        }
        match who.user {
            Some(user) if !is_listed(&user.sender_domains) => {
                Err(replies::USER_SENDER_DOMAIN.with(format!("{} may not send from {sender}", user.name)))
            }
            _ => Ok(()),
        }
    }

    /// Is the client kept out of the Received field?
    pub fn hides_clients(&self) -> bool {
        self.received == ReceivedField::Private
    }

    /// The domain of addresses without one.
    pub fn qualify(&self, may_relay: bool) -> Option<&Domain> {
        self.qualify.as_ref().filter(|_| may_relay)
    }

    /// Does it have to be known whom a message is from?
    pub fn reads_from(&self, user: Option<&User>, mail: &Mail) -> bool {
        self.from == HeaderFrom::Aligned && (mail.sender.mailbox().is_some() || user.is_some())
    }

    /// Judges whom a message from this sender says it is from.
    pub fn authors(&self, user: Option<&User>, mail: &Mail, authors: &Authors) -> Result<(), Said> {
        if !self.reads_from(user, mail) {
            return Ok(());
        }
        let authors = match authors {
            Authors::Mailboxes(authors) => authors,
            Authors::Missing => return Err(replies::NOT_ALIGNED.with("the message has no From field")),
            Authors::Faulty(fault) => return Err(replies::NOT_ALIGNED.with(format!("the message {fault}"))),
        };
        let (domains, list) = match user {
            Some(user) if !user.sender_domains.is_empty() => {
                (&user.sender_domains[..], format!("the sender_domains of {}", user.name))
            }
            _ if !self.sender_domains.is_empty() => (&self.sender_domains[..], "relay.sender_domains".to_string()),
            _ => match mail.sender.mailbox() {
                Some(sender) => {
                    (std::slice::from_ref(sender.domain()), format!("the sender's domain, {}", sender.domain()))
                }
                // A user who may send from everywhere.
                None => return Ok(()),
            },
        };
        match authors.iter().find(|author| !domains.contains(author.domain())) {
            None => Ok(()),
            Some(stranger) => Err(replies::NOT_ALIGNED.with(format!("From names {stranger}, which is not in {list}"))),
        }
    }

    /// Judges the recipient and gives the mailbox it stands for.
    pub fn recipient(&self, may_relay: bool, client: IpAddr, path: ForwardPath) -> Result<Mailbox, Said> {
        if !may_relay {
            return Err(replies::MAY_NOT_RELAY.with(client.to_canonical().to_string()));
        }
        match path {
            ForwardPath::Mailbox(mailbox) => Ok(mailbox),
            ForwardPath::Postmaster => {
                let own = || Mailbox::parse(&format!("postmaster@{}", self.qualify.as_ref()?)).ok();
                self.postmaster.clone().or_else(own).ok_or(replies::NO_POSTMASTER.plain())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Command;
    use crate::smtp::from::FromFault;

    fn admission(sender_domains: &[&str], postmaster: &str) -> Admission {
        let sender_domains = sender_domains.iter().map(|d| Domain::parse(d).unwrap()).collect();
        let trusted_networks = ["10.0.0.0/8", "::1/128", "::ffff:192.0.2.0/120"].map(|n| n.parse().unwrap()).to_vec();
        Admission::new(&Relay {
            trusted_networks,
            sender_domains,
            postmaster: postmaster.to_string(),
            ..Relay::default()
        })
        .unwrap()
    }

    #[test]
    fn a_mapped_address_is_the_address() {
        for (client, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.77", true),
            ("::ffff:192.0.2.77", true),
            ("::1", true),
            ("11.0.0.1", false),
            ("::ffff:11.0.0.1", false),
            ("::10.1.2.3", false),
            ("127.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(admission(&[], "").trusts(client.parse().unwrap()), trusted, "{client}");
        }
    }

    /// What the client hears to `RCPT TO:{path}`, or the mailbox that was taken.
    fn rcpt(trusted: bool, path: &str) -> String {
        let client = "::ffff:203.0.113.9".parse().unwrap();
        match Command::parse(format!("RCPT TO:{path}").as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => match admission(&[], "ops@own.example").recipient(trusted, client, rcpt.path) {
                Ok(mailbox) => mailbox.to_string(),
                Err(said) => said.line(),
            },
            Ok(other) => format!("{other:?}"),
            Err(said) => said.line(),
        }
    }

    const TRUSTED: Sender<'_> = Sender { may_relay: true, user: None };

    /// S: a name of ours, I: an address of ours, D: a foreign domain. The forms of nmap's smtp-open-relay and more.
    const FORMS: [(&str, Option<&str>); 37] = [
        ("<u@d.example>", Some("d.example")),
        ("<u@relay.example>", Some("relay.example")),
        ("<u@[192.0.2.1]>", Some("[192.0.2.1]")),
        ("<u%d.example@[192.0.2.1]>", Some("[192.0.2.1]")),
        ("<u%d.example@relay.example>", Some("relay.example")),
        ("<\"u@d.example\">", None),
        ("<\"u%d.example\">", None),
        ("<u@d.example@[192.0.2.1]>", None),
        ("<\"u@d.example\"@[192.0.2.1]>", Some("[192.0.2.1]")),
        ("<u@d.example@relay.example>", None),
        ("<@[192.0.2.1]:u@d.example>", None),
        ("<@relay.example:u@d.example>", None),
        ("<d.example!u>", None),
        ("<d.example!u@[192.0.2.1]>", Some("[192.0.2.1]")),
        ("<d.example!u@relay.example>", Some("relay.example")),
        ("<@a.example,@b.example:u@d.example>", None),
        ("<u@[IPv6:2001:db8::1]>", Some("[IPv6:2001:db8::1]")),
        ("<u@d.example.>", Some("d.example")),
        ("<u@d.example..>", None),
        ("<u@d.example >", None),
        ("<u@d.example>x", None),
        ("<u@xn--dmin-moa0i.example>", Some("xn--dmin-moa0i.example")),
        ("<u@dömäin.example>", Some("xn--dmin-moa0i.example")),
        ("<Postmaster>", Some("own.example")),
        ("<\"a b\"@d.example>", Some("d.example")),
        ("<\"\"@d.example>", Some("d.example")),
        ("<u@>", None),
        ("<u@127.0.0.1>", None),
        ("<u\t@d.example>", None),
        ("<@relay.example:u%d.example@relay.example>", None),
        ("u@d.example", Some("d.example")),
        ("u%d.example@relay.example", Some("relay.example")),
        ("\"u@d.example\"@[192.0.2.1]", Some("[192.0.2.1]")),
        ("u@d.example>", None),
        ("u@d.example,v@relay.example", None),
        ("@relay.example:u@d.example", None),
        ("d.example!u", None),
    ];

    #[test]
    fn no_spelling_makes_an_untrusted_client_relay() {
        for (path, domain) in FORMS {
            let heard = rcpt(false, path);
            assert!(heard.starts_with('5'), "{path}: {heard}");
            if domain.is_some() {
                assert_eq!(
                    heard,
                    "550 5.7.1 203.0.113.9 may not relay: add it to relay.trusted_networks (WEIR_RELAY__TRUSTED_NETWORKS) or log in",
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn for_trusted_clients_only_the_domain_behind_the_last_at_counts() {
        for (path, domain) in FORMS {
            let heard = rcpt(true, path);
            match domain {
                Some(domain) => {
                    assert_eq!(Mailbox::parse(&heard).map(|m| m.domain().to_string()).as_deref(), Ok(domain), "{path}")
                }
                None => assert!(heard.starts_with("501 ") || heard.starts_with("553 "), "{path}: {heard}"),
            }
        }
    }

    #[test]
    fn only_the_listed_domains_and_reports_may_send() {
        let admission = admission(&["own.example"], "");
        for (sender, taken) in [
            ("<a@own.example>", true),
            ("<a@OWN.example>", true),
            ("<>", true),
            ("<a@sub.own.example>", false),
            ("<a@d.example>", false),
        ] {
            let Ok(Command::Mail(mail)) = Command::parse(format!("MAIL FROM:{sender}").as_bytes()) else {
                panic!("{sender}")
            };
            assert_eq!(admission.sender(TRUSTED, &mail).is_ok(), taken, "{sender}");
            if !taken {
                let said = admission.sender(TRUSTED, &mail).unwrap_err().line();
                assert!(said.starts_with("550 5.7.1") && said.contains("relay.sender_domains"), "{said}");
            }
        }
    }

    #[test]
    fn an_aligned_from_names_only_what_the_sender_may() {
        let domain = |text: &str| Domain::parse(text).unwrap();
        let app = User {
            name: "app".into(),
            class: crate::types::Priority::Normal,
            class_max: crate::types::Priority::Normal,
            sender_domains: vec![domain("own.example"), domain("second.example")],
            rate: crate::types::RateLimit::Unlimited,
            daily_recipients: None,
            expire: None,
        };
        let free = User { sender_domains: Vec::new(), ..app.clone() };
        let strict = |sender_domains: &[&str]| Admission { from: HeaderFrom::Aligned, ..admission(sender_domains, "") };
        let judge = |admission: &Admission, user, sender: &str, from: &[&str]| {
            let Ok(Command::Mail(mail)) = Command::parse(format!("MAIL FROM:<{sender}>").as_bytes()) else { panic!() };
            let authors = Authors::Mailboxes(from.iter().map(|from| Mailbox::parse(from).unwrap()).collect());
            admission.authors(user, &mail, &authors).map_err(|said| said.line()).err().unwrap_or_default()
        };
        for (relay, user, sender, from, expected) in [
            (&[][..], Some(&app), "a@own.example", &["b@second.example", "c@OWN.example"][..], ""),
            (
                &[],
                Some(&app),
                "a@own.example",
                &["b@own.example", "c@evil.example"],
                "c@evil.example, which is not in the sender_domains of app:",
            ),
            (&[], Some(&app), "a@own.example", &["b@sub.own.example"], "b@sub.own.example, which is not in"),
            (&["relay.example"], Some(&app), "a@own.example", &["b@own.example"], ""),
            (&["relay.example"], Some(&free), "a@relay.example", &["b@own.example"], "in relay.sender_domains:"),
            (&["relay.example", "x.example"], None, "a@relay.example", &["b@x.example"], ""),
            (&[], None, "a@own.example", &["b@own.example"], ""),
            (&[], Some(&free), "a@own.example", &["b@x.example"], "in the sender's domain, own.example:"),
            // The empty sender is no way round it for who has logged in.
            (&[], Some(&app), "", &["b@x.example"], "b@x.example, which is not in the sender_domains of app:"),
            (&[], Some(&app), "", &["b@second.example"], ""),
            (&["relay.example"], Some(&free), "", &["b@x.example"], "in relay.sender_domains:"),
            (&[], Some(&free), "", &["b@x.example"], ""),
            (&[], None, "", &["b@x.example"], ""),
        ] {
            let said = judge(&strict(relay), user, sender, from);
            assert_eq!(said.is_empty(), expected.is_empty(), "{from:?}: {said}");
            assert!(said.contains(expected) && (said.is_empty() || said.starts_with("550 5.7.1 ")), "{said}");
            assert_eq!(judge(&admission(relay, ""), user, sender, from), "");
        }
    }

    #[test]
    fn an_aligned_message_says_whom_it_is_from() {
        let Ok(Command::Mail(mail)) = Command::parse(b"MAIL FROM:<a@own.example>") else { panic!() };
        let strict = Admission { from: HeaderFrom::Aligned, ..admission(&[], "") };
        for (authors, expected) in [
            (Authors::Missing, "the message has no From field: relay.from"),
            (Authors::Faulty(FromFault::Two), "the message has more than one From field: relay.from"),
        ] {
            let said = strict.authors(None, &mail, &authors).unwrap_err().line();
            assert!(said.contains(expected), "{said}");
            assert!(admission(&[], "").authors(None, &mail, &authors).is_ok());
        }
    }

    #[test]
    fn postmaster_without_a_mailbox_names_the_key() {
        let said =
            admission(&[], "").recipient(true, "10.0.0.1".parse().unwrap(), ForwardPath::Postmaster).unwrap_err();
        assert!(said.line().starts_with("550 5.1.1") && said.line().contains("relay.postmaster"), "{}", said.line());
    }
}
