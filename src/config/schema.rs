//! Every key that can be set, and what may stand in it.
//!
//! One table for the file, the environment and `config/weir.toml`. What a value must look like is decided by the types
//! of the options themselves, so that a value that passes here is one the options take; a test holds the two together.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::alert::options::{Target, words};
use crate::auth::options::{TOKEN_EXPECTED, is_hash, is_password, is_token, is_user_name};
use crate::dispatch::options::BounceMode;
use crate::dkim::options::{is_key, is_selector};
use crate::event::options::Output;
use crate::feedback::options::is_url as is_url_of_feedback;
use crate::inbound::options::{BareNewlines, Chunking, HeaderFrom, ListenerTls as Tls, LogIn, ReceivedField};
use crate::log::{Format, Levels};
use crate::outbound::options::{HopTls, IpChoice, TlsMode};
use crate::sandbox::Sandbox;
use crate::suppress::options::AtInjection;
use crate::types::nearest::{distance, is_near};
use crate::types::{ByteSize, Domain, Mailbox, Preflight, Priority, Rate, RateLimit, Span};
use crate::webhook::options::{Format as HookFormat, is_secret, is_url};

/// One key. `path` is written with dots, `[]` behind the name of a list of tables: `listener[].address`.
pub(super) struct Key {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// An element of the list cannot be without it.
    pub(super) required: bool,
}

pub(super) enum Kind {
    Text(Form),
    /// A text that no finding shows.
    Secret(Form),
    Texts(Form),
    Number(RangeInclusive<u64>),
    Numbers(RangeInclusive<u64>),
    /// A number with or without a fraction.
    Decimal(RangeInclusive<f64>),
    Switch,
    /// Rules for replies: tables, which can only stand in the file.
    Rules,
}

/// What a text must look like: in words for people, and as a test.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) expected: &'static str,
    pub(super) holds: fn(&str) -> bool,
}

/// What a path leads to.
pub(super) enum Shape {
    Value(&'static Key),
    Table,
    Tables,
    Unknown,
}

use Kind::{Decimal, Number, Numbers, Rules, Secret, Switch, Text, Texts};

/// More connections than any host has descriptors for.
const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// More recipients than a message ever has: each costs memory while it is taken in.
const RECIPIENTS: RangeInclusive<u64> = 1..=100_000;

/// Refusals before an address comes onto the suppression list; each on a day of its own.
const REFUSALS: RangeInclusive<u64> = 1..=1000;

const DURATION: Form =
    Form { expected: "a duration above zero, as in \"5m\" or \"1h 30m\" (ms, s, m, h, d, w)", holds: is_duration };
const SIZE: Form = Form { expected: "a size, as in \"35 MiB\" (B, KiB, MiB, GiB, TiB)", holds: parses::<ByteSize> };
const RATE: Form = Form { expected: "a rate, as in \"500/h\" (s, min, h, d)", holds: parses::<Rate> };
const SOCKET: Form = Form {
    expected: "an IP address and a port, as in \"127.0.0.1:2525\" or \"[::1]:2525\"",
    holds: parses::<std::net::SocketAddr>,
};
const NAME_SERVER: Form = Form {
    expected: "an IP address, and a port where it is not 53, as in \"192.0.2.1\" or \"127.0.0.1:5353\"",
    holds: |text| crate::route::options::name_server(text).is_some(),
};
const NETWORK: Form = Form {
    expected: "a network as in \"10.0.0.0/8\", a single address as in \"192.0.2.7/32\" or \"2001:db8::7/128\"",
    holds: parses::<ipnet::IpNet>,
};
const ADDRESS: Form = Form { expected: "an IP address of this host, as in \"203.0.113.10\"", holds: is_own_address };
const DOMAIN: Form = Form { expected: "a domain, as in \"example.com\"", holds: is_domain };
const HOST_NAME: Form = Form {
    expected: "a host name, as in \"relay.example.com\", or \"\" for the default",
    holds: |text| text.is_empty() || is_host_name(text),
};
const PATH: Form = Form { expected: "the path of a file, or \"\" for none", holds: |_| true };
const NAME: Form = Form { expected: "1 to 64 letters, digits, dots, hyphens or underscores", holds: is_label };

/// What a password's hash must look like; also in a list of users.
pub(super) const PASSWORD_HASH: Form = Form { expected: "an Argon2 hash as `weir password` prints it", holds: is_hash };
pub(super) const PASSWORD: Form =
    Form { expected: "a password that is no hash and not what stands for a hidden one", holds: is_password };

/// TLS towards hosts.
const TLS: Form = Form { expected: "one of `off`, `opportunistic`, `encrypt`, `verify`", holds: is_word::<TlsMode> };
/// What others have for TLS towards hosts, and weir has not.
const TLS_NOT_YET: [&str; 5] = ["dane", "dane-only", "mta-sts", "mta_sts", "fingerprint"];

/// The password of a next hop: whatever somebody else has made up.
const HOP_PASSWORD: Form = Form {
    expected: "a password without control characters that is not what stands for a hidden one",
    holds: |text| !text.is_empty() && text != crate::types::MASK && !text.chars().any(char::is_control),
};

const KEYS: &[Key] = &[
    key("hostname", Text(HOST_NAME)),
    key("data_dir", Text(Form { expected: "the path of a folder", holds: |text| !text.is_empty() })),
    key("shutdown_grace", Text(Form { expected: "a duration, as in \"8s\"", holds: parses::<Span> })),
    key("sandbox", Text(Form { expected: "one of `auto`, `off`, `require`", holds: is_word::<Sandbox> })),
    needed("listener[].address", Text(SOCKET)),
    key(
        "listener[].tls",
        Text(Form { expected: "one of `off`, `starttls`, `require`, `implicit`", holds: is_word::<Tls> }),
    ),
    key("listener[].auth", Text(Form { expected: "one of `off`, `optional`, `require`", holds: is_word::<LogIn> })),
    key("listener[].chunking", Text(Form { expected: "one of `off`, `on`", holds: is_word::<Chunking> })),
    key("tls.certificate", Text(PATH)),
    key("tls.key", Text(PATH)),
    key("relay.trusted_networks", Texts(NETWORK)),
    key("relay.sender_domains", Texts(DOMAIN)),
    key("relay.from", Text(Form { expected: "one of `any`, `aligned`", holds: is_word::<HeaderFrom> })),
    key(
        "relay.postmaster",
        Text(Form {
            expected: "a mail address, as in \"postmaster@example.com\", or \"\" to refuse such mail",
            holds: |text| text.is_empty() || Mailbox::parse(text).is_ok(),
        }),
    ),
    key("relay.received", Text(Form { expected: "one of `full`, `private`", holds: is_word::<ReceivedField> })),
    key(
        "relay.qualify",
        Text(Form {
            expected: "a domain, as in \"example.com\", or \"\" for none",
            holds: |text| text.is_empty() || is_domain(text),
        }),
    ),
    key("relay.users_file", Text(Form { expected: "the path of a file, or \"\" for none", holds: |_| true })),
    needed(
        "relay.user[].name",
        Text(Form {
            expected: "a name of 1 to 254 octets without spaces, control characters, `:`, `,`, `#` or quotes",
            holds: is_user_name,
        }),
    ),
    key("relay.user[].password_hash", Secret(PASSWORD_HASH)),
    key("relay.user[].password_file", Text(Form { expected: "the path of a file", holds: |text| !text.is_empty() })),
    key("relay.user[].password", Secret(PASSWORD)),
    key("relay.user[].token", Secret(Form { expected: TOKEN_EXPECTED, holds: is_token })),
    key("relay.user[].token_file", Text(Form { expected: "the path of a file", holds: |text| !text.is_empty() })),
    key(
        "relay.user[].class",
        Text(Form { expected: "a class: `high`, `normal` or `bulk`", holds: parses::<Priority> }),
    ),
    key(
        "relay.user[].class_max",
        Text(Form { expected: "a class: `high`, `normal` or `bulk`", holds: parses::<Priority> }),
    ),
    key("relay.user[].sender_domains", Texts(DOMAIN)),
    key(
        "relay.user[].rate",
        Text(Form {
            expected: "messages in a time, as in \"60/min\" (s, min, h, d), or \"unlimited\"",
            holds: parses::<RateLimit>,
        }),
    ),
    key("relay.user[].daily_recipients", Number(0..=1_000_000_000)),
    key("relay.user[].expire", Text(DURATION)),
    key("limits.message_size", Text(SIZE)),
    key("limits.recipients", Number(RECIPIENTS)),
    key("limits.connections", Number(CONNECTIONS)),
    key("limits.connections_per_client", Number(CONNECTIONS)),
    key(
        "limits.messages_per_client",
        Text(Form {
            expected: "messages in a time, as in \"600/min\" (s, min, h, d), or \"unlimited\"",
            holds: parses::<RateLimit>,
        }),
    ),
    key("limits.queue_messages", Number(1..=1_000_000_000)),
    key(
        "limits.bare_newlines",
        Text(Form { expected: "one of `normalize`, `reject`", holds: is_word::<BareNewlines> }),
    ),
    key("limits.min_free_disk", Text(SIZE)),
    key("queue.retry", Texts(DURATION)),
    key("queue.expire", Text(DURATION)),
    key("bounces.mode", Text(Form { expected: "one of `mail`, `none`", holds: is_word::<BounceMode> })),
    key("bounces.delay_after", Text(DURATION)),
    key("dns.servers", Texts(NAME_SERVER)),
    needed("dkim[].domain", Text(Form { expected: "a domain, as in \"example.com\"", holds: is_name })),
    needed(
        "dkim[].selector",
        Text(Form { expected: "a selector, as in \"weir1\": letters, digits and hyphens", holds: is_selector }),
    ),
    key("dkim[].key_file", Text(PATH)),
    key("dkim[].key", Secret(Form { expected: "a private key in PEM", holds: is_key })),
    key("dkim[].skip_signed", Switch),
    key("delivery.port", Number(1..=65_535)),
    key("delivery.ip", Text(Form { expected: "one of `ipv4`, `prefer-ipv4`, `both`", holds: is_word::<IpChoice> })),
    key("delivery.networks", Texts(NETWORK)),
    key("delivery.tls", Text(TLS)),
    key("delivery.mta_sts", Switch),
    key("delivery.chunking", Switch),
    key("delivery.ca_file", Text(PATH)),
    key("delivery.max_connections", Number(CONNECTIONS)),
    needed(
        "tls_policy[].domain",
        Text(Form {
            expected: "a domain, as in \"bank.example\", or with a dot before it, as in \".bank.example\", for all below it as well",
            holds: |text| is_name(text.strip_prefix('.').unwrap_or(text)),
        }),
    ),
    needed("tls_policy[].tls", Text(TLS)),
    key(
        "route[].domain",
        Text(Form {
            expected: "a domain, as in \"internal.example\", or \"*\" for all others",
            holds: |text| text.is_empty() || text == "*" || is_domain(text),
        }),
    ),
    key(
        "route[].provider",
        Text(Form { expected: "a provider's name, or \"\"", holds: |text| text.is_empty() || is_label(text) }),
    ),
    needed(
        "route[].to",
        Text(Form {
            expected: "HOST:PORT, as in \"127.0.0.1:2600\", \"[::1]:2600\" or \"mail.example.com:25\"",
            holds: is_host_and_port,
        }),
    ),
    key(
        "route[].limits",
        Text(Form { expected: "a provider's name, or \"\"", holds: |text| text.is_empty() || is_label(text) }),
    ),
    key(
        "route[].username",
        Text(Form {
            expected: "the name to log in by, without control characters and at most 512 octets long",
            holds: |text| text.len() <= 512 && !text.chars().any(char::is_control),
        }),
    ),
    key("route[].password", Secret(HOP_PASSWORD)),
    key("route[].password_file", Text(PATH)),
    key(
        "route[].tls",
        Text(Form {
            expected: "one of `off`, `opportunistic`, `encrypt`, `verify`, `implicit`",
            holds: is_word::<HopTls>,
        }),
    ),
    key("route[].enabled", Switch),
    needed("source[].name", Text(NAME)),
    needed("source[].address", Text(ADDRESS)),
    key("source[].hostname", Text(HOST_NAME)),
    key(
        "source[].public",
        Text(Form {
            expected: "a public IP address, as in \"203.0.113.10\", or \"\" to learn it",
            holds: |text| text.is_empty() || is_own_address(text),
        }),
    ),
    key("source[].warm_up", Texts(NAME)),
    needed("provider[].name", Text(NAME)),
    key(
        "provider[].mx",
        Texts(Form {
            expected: "the name of an MX host, as in \"mx.example.com\", or of all below a name, as in \"*.mx.example.com\"",
            holds: |text| is_name(text.strip_prefix("*.").unwrap_or(text)),
        }),
    ),
    key("provider[].domains", Texts(DOMAIN)),
    key("provider[].max_connections", Number(CONNECTIONS)),
    key("provider[].initial_connections", Number(CONNECTIONS)),
    key("provider[].messages_per_connection", Number(1..=1_000_000)),
    key("provider[].recipients_per_message", Number(RECIPIENTS)),
    key(
        "provider[].max_rate",
        Text(Form {
            expected: "a rate, as in \"600/min\" (s, min, h, d), or \"unlimited\"",
            holds: parses::<RateLimit>,
        }),
    ),
    key("provider[].growth", Decimal(0.0..=1000.0)),
    key("provider[].growth_floor", Text(RATE)),
    key("provider[].chunking", Switch),
    key("provider[].tls", Text(TLS)),
    key("provider[].pause", Text(DURATION)),
    key("provider[].pause_max", Text(DURATION)),
    key("provider[].probe_block", Text(DURATION)),
    key(
        "provider[].canary",
        Text(Form {
            expected: "a mail address of your own there, as in \"probe@outlook.com\", or \"\" for none",
            holds: |text| text.is_empty() || Mailbox::parse(text).is_ok(),
        }),
    ),
    key("provider[].preflight", Text(Form { expected: "one of `off`, `alert`, `hold`", holds: is_word::<Preflight> })),
    key("provider[].preflight_from", Number(0..=100_000_000)),
    key("provider[].warm_up", Numbers(1..=100_000_000)),
    key("provider[].rule", Rules),
    key("suppression.at_injection", Text(Form { expected: "one of `reject`, `drop`", holds: is_word::<AtInjection> })),
    key("suppression.after.recipient-unknown", Number(REFUSALS)),
    key("suppression.after.recipient-disabled", Number(REFUSALS)),
    key("suppression.after.mailbox-full", Number(REFUSALS)),
    key("suppression.after.recipient-policy", Number(REFUSALS)),
    key("suppression.after.other", Number(REFUSALS)),
    key("suppression.keep.recipient-unknown", Text(DURATION)),
    key("suppression.keep.recipient-disabled", Text(DURATION)),
    key("suppression.keep.mailbox-full", Text(DURATION)),
    key("suppression.keep.recipient-policy", Text(DURATION)),
    key("suppression.keep.other", Text(DURATION)),
    key("events.output", Text(Form { expected: "one of `file`, `stdout`, `both`", holds: is_word::<Output> })),
    key("events.keep", Text(DURATION)),
    key("events.max_size", Text(SIZE)),
    key(
        "log.level",
        Text(Form {
            expected: "a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or several as in \"info,weir::outbound=debug\"",
            holds: parses::<Levels>,
        }),
    ),
    key("log.format", Text(Form { expected: "one of `text`, `json`", holds: is_word::<Format> })),
    key(
        "alerts.webhook",
        Secret(Form {
            expected: "a URL without user and password, as in \"https://hooks.example.com/weir\", or \"\" for none",
            holds: |text| text.is_empty() || Target::parse(text).is_some(),
        }),
    ),
    key(
        "alerts.mail",
        Text(Form {
            expected: "a mail address, as in \"ops@example.com\", or \"\" for none",
            holds: |text| text.is_empty() || Mailbox::parse(text).is_ok(),
        }),
    ),
    key(
        "alerts.command",
        Text(Form {
            expected: "a program with its arguments, as in \"/usr/local/bin/page 'the team'\" (no shell reads it), or \"\" for none",
            holds: |text| text.is_empty() || words(text).is_ok(),
        }),
    ),
    key("alerts.repeat", Text(DURATION)),
    key(
        "http.address",
        Text(Form {
            expected: "an IP address and a port, as in \"127.0.0.1:8025\", or \"\" for none",
            holds: |text| text.is_empty() || parses::<std::net::SocketAddr>(text),
        }),
    ),
    key("http.token_file", Text(PATH)),
    key(
        "http.hosts",
        Texts(Form {
            expected: "a host name, as in \"weir.example.com\", with a port where it is asked for by a port of its own",
            holds: |text| is_host_name(text.rsplit_once(':').map_or(text, |(host, _)| host)),
        }),
    ),
    needed("webhook[].name", Text(NAME)),
    key(
        "webhook[].url",
        Secret(Form {
            expected: "a URL that begins with https:// or http://, as in \"https://app.example.com/hooks/mail\"",
            holds: is_url,
        }),
    ),
    key("webhook[].url_file", Text(Form { expected: "the path of a file", holds: |text| !text.is_empty() })),
    // Which names there are is told with the nearest of them.
    key("webhook[].events", Texts(Form { expected: "the name of an event", holds: |text| !text.is_empty() })),
    key(
        "webhook[].format",
        Text(Form { expected: "one of `weir`, `listmonk`, `sendgrid`, `postmark`", holds: is_word::<HookFormat> }),
    ),
    key(
        "webhook[].secret",
        Secret(Form { expected: "`whsec_` and base64, or another text; a blank parts several", holds: is_secret }),
    ),
    key("webhook[].secret_file", Text(Form { expected: "the path of a file", holds: |text| !text.is_empty() })),
    key("webhook[].networks", Texts(NETWORK)),
    key(
        "feedback.domain",
        Text(Form {
            expected: "a domain of its own, as in \"fb.example.com\", or \"\" for none",
            holds: |text| text.is_empty() || (is_name(text) && text.len() <= 189),
        }),
    ),
    key("feedback.key_file", Text(PATH)),
    key(
        "feedback.url",
        Text(Form {
            expected: "a URL that begins with https://, as in \"https://fb.example.com\", without a query, or \"\" for none",
            holds: |text| text.is_empty() || is_url_of_feedback(text),
        }),
    ),
    key("feedback.keep", Text(DURATION)),
    key("feedback.return_path", Texts(DOMAIN)),
    key("feedback.list_unsubscribe", Texts(DOMAIN)),
];

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, required: false }
}

const fn needed(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, required: true }
}

#[cfg(test)]
pub(super) fn keys() -> &'static [Key] {
    KEYS
}

/// What `path` leads to.
pub(super) fn shape(path: &str) -> Shape {
    if let Some(key) = KEYS.iter().find(|key| key.path == path) {
        return Shape::Value(key);
    }
    let below =
        |end: &str| KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with(end)));
    match (below("[]."), below(".")) {
        (true, _) => Shape::Tables,
        (_, true) => Shape::Table,
        _ => Shape::Unknown,
    }
}

/// Is `name` the key for rules of the list of tables `list`?
pub(super) fn takes_rules(list: &str, name: &str) -> bool {
    matches!(shape(&format!("{list}[].{name}")), Shape::Value(Key { kind: Rules, .. }))
}

/// What is to be said of a word that somebody has reason to expect here.
pub(super) fn not_yet(path: &str, text: &str) -> &'static str {
    let is_towards_hosts = path.ends_with(".tls") && !path.starts_with("listener");
    if is_towards_hosts && TLS_NOT_YET.contains(&text) { ", which weir does not know (yet)" } else { "" }
}

/// The key in a table within a table, with its name as it looks in a variable.
pub(super) fn key_in(section: &str, table: &str, name: &str) -> Option<&'static Key> {
    let in_table = |key: &&Key| {
        let rest = key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.and_then(|rest| rest.strip_prefix(table)).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| rest.replace('-', "_") == name)
    };
    KEYS.iter().find(in_table)
}

/// The keys directly in the elements of a list of tables.
pub(super) fn keys_of_element(list: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.path.strip_prefix(list).is_some_and(|rest| rest.starts_with("[].")))
}

/// The key or table a wrong path was most probably meant to be. A name that is right but stands in the wrong table is
/// near, too; none where nothing is.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    let sections = KEYS.iter().filter_map(|key| key.path.split_once('.')).map(|(section, _)| section);
    let known = KEYS.iter().map(|key| key.path).chain(sections);
    // Of two that are as near, the one that lies less deep.
    let cost = |known: &str| cost(&plain(path), &plain(known));
    let near = known.min_by_key(|known| (cost(known), known.matches('.').count()))?;
    is_near(path, cost(near)).then_some(near)
}

/// The key a wrong path was most probably meant to be; for a table, one in it; none where nothing is near.
pub(super) fn nearest_key(path: &str) -> Option<&'static str> {
    let wanted = plain(path);
    let inside = |known: &str| known.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('.'));
    let cost = |known: &str| if inside(known) { 1 } else { cost(&wanted, known) };
    let near = KEYS.iter().map(|key| key.path).min_by_key(|known| cost(&plain(known)))?;
    is_near(path, cost(&plain(near))).then_some(near)
}

fn plain(path: &str) -> String {
    path.to_lowercase().replace('-', "_").replace("[]", "")
}

/// How far two paths are from each other. A path in another table is near only if the last names are nearly the same.
fn cost(wanted: &str, known: &str) -> usize {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
    let elsewhere = distance(&last(wanted), &last(known));
    let whole = distance(wanted, known);
    if elsewhere <= last(known).len() / 4 { whole.min(elsewhere + 1) } else { whole }
}

/// The path as it is spoken of: without the marks of lists.
pub(super) fn spoken(path: &str) -> String {
    path.replace("[]", "")
}

/// The variable that sets `path`, with element 0 of lists.
pub(super) fn variable_of(path: &str) -> String {
    format!("WEIR_{}", path.replace("[]", ".0").replace('.', "__").replace('-', "_").to_uppercase())
}

impl Kind {
    /// What may stand here, in words.
    pub(super) fn expected(&self) -> String {
        match self {
            Text(form) | Secret(form) => form.expected.to_string(),
            Texts(form) => format!("a list, each entry {}", form.expected),
            Number(range) => format!("a whole number from {} to {}", range.start(), range.end()),
            Numbers(range) => format!("a list of whole numbers from {} to {}", range.start(), range.end()),
            Decimal(range) => format!("a number from {} to {}", range.start(), range.end()),
            Switch => "true or false".to_string(),
            Rules => "rules, each below a line `[[provider.rule]]`".to_string(),
        }
    }
}

fn parses<T: std::str::FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

/// Is `text` one of the words of an enum of the options?
fn is_word<T: DeserializeOwned>(text: &str) -> bool {
    let word: StrDeserializer<'_, WordError> = text.into_deserializer();
    T::deserialize(word).is_ok()
}

fn is_duration(text: &str) -> bool {
    text.parse::<Span>().is_ok_and(|span| !span.0.is_zero())
}

fn is_own_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok_and(|ip| !ip.is_unspecified() && !ip.is_multicast())
}

/// Used as written, so without the final dot that addresses in mail may have.
fn is_domain(text: &str) -> bool {
    !text.ends_with('.') && Domain::parse(text).is_ok()
}

/// A domain that is no address literal.
fn is_name(text: &str) -> bool {
    is_domain(text) && !text.starts_with('[')
}

/// As HELO takes it (RFC 5321 section 2.3.5): A-labels, no underscores.
fn is_host_name(text: &str) -> bool {
    text.is_ascii() && !text.contains('_') && is_name(text)
}

fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_host_and_port(text: &str) -> bool {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    is_name(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
}
