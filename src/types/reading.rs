//! The words for what a reply means: verdict for the message, class and scope for the lane, suppression for the recipient.

use std::sync::Arc;

/// An enum whose values have one fixed spelling everywhere: configuration, events, commands, metrics.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                $name::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    let known: Vec<&str> = $name::ALL.iter().map(|v| v.as_str()).collect();
                    format!("`{text}` is none of {}", known.join(", "))
                })
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                <String as ::serde::Deserialize>::deserialize(d)?.parse().map_err(::serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What happens to the message for the recipients the reply spoke of; follows the reply code alone.
    Verdict { Delivered = "delivered", Retry = "retry", Bounce = "bounce" }
}

words! {
    /// What a reply is about.
    Class {
        Delivered = "delivered",
        RateLimit = "rate-limit",
        /// Messages on one connection.
        MessageLimit = "message-limit",
        ConnectionLimit = "connection-limit",
        TooManyRecipients = "too-many-recipients",
        IpBlock = "ip-block",
        SenderBlock = "sender-block",
        Authentication = "authentication",
        Content = "content",
        RecipientUnknown = "recipient-unknown",
        RecipientDisabled = "recipient-disabled",
        MailboxFull = "mailbox-full",
        RecipientPolicy = "recipient-policy",
        Routing = "routing",
        Tls = "tls",
        Protocol = "protocol",
        Temporary = "temporary",
        Other = "other",
    }
}

words! {
    /// What is slowed or stopped by a reply.
    Scope {
        /// Our sending address at this provider.
        Source = "source",
        Connection = "connection",
        SenderDomain = "sender-domain",
        Message = "message",
        Recipient = "recipient",
        RecipientDomain = "recipient-domain",
        /// The one host that answered.
        Server = "server",
    }
}

words! {
    /// Where in the dialogue a reply came. `Data` covers DATA, BDAT and the end of data.
    Stage { Connect = "connect", Ehlo = "ehlo", Mail = "mail", Rcpt = "rcpt", Data = "data" }
}

/// A reply, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub verdict: Verdict,
    pub class: Class,
    pub scope: Scope,
    /// This one reply, at the default thresholds, puts the recipient on the suppression list.
    pub suppress: bool,
    /// This reply stops all mail of this source to this provider.
    pub breaker: bool,
    /// The name of the rule that matched.
    pub rule: Arc<str>,
    /// The receiver's own label in the text: `RP-001`, `S3150`, `AS(1410)`.
    pub tag: Option<String>,
    /// Why, for a person.
    pub cause: Arc<str>,
    /// What to do, for a person.
    pub remedy: Arc<str>,
    /// What the rule asks for beyond what class and scope ask for anyway.
    pub effects: Effects,
}

/// What a rule asks of the lever that its class and scope choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The wait, in hundredths of the provider's `pause`; none: the usual one of the lever.
    pub wait: Option<u16>,
    /// So many refusals of different messages within an hour, before the lever is used; 0 and 1: at the first.
    pub after: u8,
    /// This delivery alone is tried again after so many seconds, whatever the schedule says.
    pub again_secs: Option<u16>,
    /// After a block: the first probe goes out early, with mail of another sender.
    pub probe_early: bool,
    /// Whom it suppresses stands on the list for some days only, until the receiver was seen to take somebody else.
    pub provisional: bool,
}
