//! What a check found, and why it matters.

use serde::{Serialize, Serializer};

use crate::types::Status;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    Address,
    Ptr,
    Helo,
    HeloSpf,
    Dnsbl,
    Port25,
    MtaSts,
    Dane,
    Spf,
    Dkim,
    Dmarc,
    WayBack,
    Resolver,
    Clock,
    Disk,
    DataDir,
    Descriptors,
    Memory,
    Sandbox,
    Mta,
}

impl Check {
    pub fn as_str(self) -> &'static str {
        match self {
            Check::Address => "address",
            Check::Ptr => "ptr",
            Check::Helo => "helo",
            Check::HeloSpf => "helo-spf",
            Check::Dnsbl => "dnsbl",
            Check::Port25 => "port25",
            Check::MtaSts => "mta-sts",
            Check::Dane => "dane",
            Check::Spf => "spf",
            Check::Dkim => "dkim",
            Check::Dmarc => "dmarc",
            Check::WayBack => "way-back",
            Check::Resolver => "resolver",
            Check::Clock => "clock",
            Check::Disk => "disk",
            Check::DataDir => "data-dir",
            Check::Descriptors => "descriptors",
            Check::Memory => "memory",
            Check::Sandbox => "sandbox",
            Check::Mta => "mta",
        }
    }

    /// Why it matters, at Outlook above all.
    pub fn why(self) -> &'static str {
        match self {
            Check::Address => "receivers judge the address mail comes from; the next checks need to know it",
            Check::Ptr => "Outlook takes no mail from an address without valid reverse DNS (4.7.25, 5.7.25)",
            Check::Helo => "Outlook refuses a HELO name that is no real domain: 501 5.5.4 Invalid domain name",
            Check::HeloSpf => {
                "bounces have no sender, so SPF is asked about the HELO name, and nothing else speaks for them"
            }
            Check::Dnsbl => "Outlook refuses addresses on block lists such as Spamhaus' (550 5.7.1, S3140, S3150)",
            Check::Port25 => {
                "mail to Outlook goes to port 25 of its MX hosts and no other; all published addresses must be reached, for \
                 some may be out of service"
            }
            Check::MtaSts => "a receiver with such a policy wants TLS with a valid certificate at the hosts it names",
            Check::Dane => "a receiver with TLSA records wants TLS with the certificate they name",
            Check::Spf => "Outlook refuses From domains with over 5,000 messages a day without SPF: 550 5.7.515",
            Check::Dkim => "Outlook refuses From domains with over 5,000 messages a day without DKIM: 550 5.7.515",
            Check::Dmarc => {
                "Outlook refuses From domains with over 5,000 messages a day without DMARC, or where neither SPF nor DKIM is \
                 aligned: 550 5.7.515"
            }
            Check::WayBack => {
                "bounces after the 250, complaints and unsubscribes come back to this domain; who keeps mailing them is blocked (SC-004)"
            }
            Check::Resolver => "each message needs look-ups; a resolver that fails holds up all mail",
            Check::Clock => "Date fields, DKIM signatures, the schedule of retries and warm-up go by this clock",
            Check::Disk => "each message is synced to the disk before it is answered with 250",
            Check::DataDir => "the queue and all that was learned of Outlook's limits lie there",
            Check::Descriptors => "each connection takes a descriptor, and Outlook alone may be given 500 connections",
            Check::Memory => "a process that is short of memory refuses mail, or is killed",
            Check::Sandbox => "with Landlock a fault in the relay reaches nothing outside its own folders",
            Check::Mta => "mail gets to Outlook through weir only if the mail server here hands it over",
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// One check of one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub check: Check,
    /// What was looked at: an address, a name, a domain, a folder.
    pub subject: String,
    pub status: Status,
    pub text: String,
    /// What mends it: a sentence, and below it the record, line or command as it must stand. Null where nothing is to be done.
    pub remedy: Option<String>,
    pub why: &'static str,
}

impl Finding {
    pub fn ok(check: Check, subject: impl ToString, text: impl Into<String>) -> Finding {
        let subject = subject.to_string();
        Finding { check, subject, status: Status::Ok, text: text.into(), remedy: None, why: check.why() }
    }

    pub fn warn(check: Check, subject: impl ToString, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { status: Status::Warn, remedy: Some(remedy.into()), ..Finding::ok(check, subject, text) }
    }

    pub fn fail(check: Check, subject: impl ToString, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { status: Status::Fail, remedy: Some(remedy.into()), ..Finding::ok(check, subject, text) }
    }
}
