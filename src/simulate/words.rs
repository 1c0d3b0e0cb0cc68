//! The words of refusals: by default those seen in real logs and on the postmaster's page.
//!
//! `{source}` stands for the sender's address, `{host}` for the name of the MX host, `{time}` for the moment. The code decides
//! where a refusal of connections is said: a 421 at the greeting, which closes; anything else at MAIL, and the connection stays.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::{Reply, Timestamp};

/// A reply with places to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wording(Reply);

/// Replies that can be chosen by a short name.
const NAMED: [(&str, &str); 13] = [
    (
        "RP-001",
        "421 RP-001 ({host}) Unfortunately, some messages from {source} weren't sent. Please try again. We have limits for \
         how many messages can be sent per hour and per day.",
    ),
    (
        "RP-002",
        "421 RP-002 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed on this \
         connection. Reason for rate limitation is related to IP/domain reputation.",
    ),
    (
        "RP-003",
        "421 RP-003 The mail server IP connecting to Outlook.com server has exceeded the connection limit allowed. Reason \
         for limitation is related to IP/domain reputation.",
    ),
    (
        "4.7.650",
        "451 4.7.650 The mail server [{source}] has been temporarily rate limited due to IP reputation. For e-mail delivery \
         information, see https://aka.ms/postmaster (S775) [Name=Protocol Filter Agent][AGT=PFA] [{host} {time}]",
    ),
    (
        "4.7.651",
        "451 4.7.651 The mail server [{source}] has been temporarily rate limited due to IP reputation. For e-mail delivery \
         information, see https://postmaster.live.com (S844) [{host} {time}]",
    ),
    (
        "4.7.652",
        "451 4.7.652 The mail server [{source}] has exceeded the maximum number of connections. (S3115) [{host} {time}]",
    ),
    ("4.7.500", "451 4.7.500 Server busy. Please try again later from [{source}]. (S77714) [{host} {time}]"),
    (
        "4.3.2",
        "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel",
    ),
    ("4.7.700", "451 4.7.700 PFA agent busy, please try again. [{host}]"),
    (
        "S3150",
        "550 5.7.1 Unfortunately, messages from [{source}] weren't sent. Please contact your Internet service provider \
         since part of their network is on our block list (S3150). You can also refer your provider to \
         http://mail.live.com/mail/troubleshooting.aspx#errors. [Name=Protocol Filter Agent][AGT=PFA] [{host} {time}]",
    ),
    ("5.5.0", "550 5.5.0 Requested action not taken: mailbox unavailable. [{host} {time}]"),
    ("5.2.2", "550 5.2.2 Mailbox full"),
    ("4.5.3", "452 4.5.3 Recipients belong to multiple regions ATTR38 [{host} {time}]"),
];

/// Which words are used for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Words {
    /// Over a rate.
    pub rate: Wording,
    /// Over the messages of a connection.
    pub messages: Wording,
    /// Over the connections.
    pub connections: Wording,
    /// A source that pressed on.
    pub limited: Wording,
    /// A source that still pressed on, or a block by schedule.
    pub block: Wording,
    pub unknown: Wording,
    pub full: Wording,
    /// Over the recipients of a transaction.
    pub recipients: Wording,
}

impl Wording {
    /// A short name such as `RP-001`, or a whole reply with its code.
    pub fn parse(text: &str) -> Result<Wording, String> {
        let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, reply)| *reply);
        match Reply::parse(named.unwrap_or(text)) {
            Some(reply) if (200..=599).contains(&reply.code()) => Ok(Wording(reply)),
            _ => {
                let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
                Err(format!("`{text}` is no reply: write a code and words, or one of {}", names.join(", ")))
            }
        }
    }

    pub fn code(&self) -> u16 {
        self.0.code()
    }

    /// A 421 ends the connection (RFC 5321 section 3.8).
    pub fn closes(&self) -> bool {
        self.code() == 421
    }

    /// The reply, filled in.
    pub fn to(&self, source: IpAddr, host: &str, now: Timestamp) -> Reply {
        let text = self.0.text();
        if !text.contains('{') {
            return self.0.clone();
        }
        let text = text.replace("{source}", &source.to_string()).replace("{host}", host);
        Reply::new(self.code(), text.replace("{time}", &now.to_string()))
    }

    /// A server that has too much to do.
    pub(super) fn busy() -> Wording {
        Wording::named("4.7.500")
    }

    /// One of `NAMED`; a name that is none of them stands for a plain failure, and a test keeps that from happening.
    fn named(name: &str) -> Wording {
        Wording::parse(name).unwrap_or_else(|_| Wording(Reply::new(451, "4.3.0 Temporary server error")))
    }
}

impl Default for Words {
    fn default() -> Words {
        Words {
            rate: Wording::named("RP-001"),
            messages: Wording::named("RP-002"),
            connections: Wording::named("RP-003"),
            limited: Wording::named("4.7.650"),
            block: Wording::named("S3150"),
            unknown: Wording::named("5.5.0"),
            full: Wording::named("5.2.2"),
            recipients: Wording::named("4.5.3"),
        }
    }
}

impl Serialize for Wording {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Wording {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Wording, D::Error> {
        Wording::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_reply_and_every_default_a_name() {
        for (name, text) in NAMED {
            assert_eq!(Wording::parse(name).unwrap().0, Reply::parse(text).unwrap());
        }
        let words = Words::default();
        let codes = [
            &words.rate,
            &words.messages,
            &words.connections,
            &words.limited,
            &words.block,
            &words.unknown,
            &words.full,
            &words.recipients,
        ]
        .map(Wording::code);
        assert_eq!(codes, [421, 421, 421, 451, 550, 550, 550, 452]);
    }

    #[test]
    fn the_places_are_filled_in() {
        let reply = Wording::parse("451 4.7.1 from {source} at {host}, {time}").unwrap().to(
            IpAddr::from([192, 0, 2, 1]),
            "mx.example",
            Timestamp::EPOCH,
        );
        assert_eq!(reply.to_string(), "451 4.7.1 from 192.0.2.1 at mx.example, 1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_reply_is_refused_with_the_names_that_are() {
        for text in ["RP-009", "", "hello", "42", "999 no"] {
            assert!(Wording::parse(text).unwrap_err().contains("RP-001"), "{text}");
        }
    }
}
