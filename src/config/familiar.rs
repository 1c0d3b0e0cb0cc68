//! The names by which other relay images know a setting, so that a compose file goes on working when only the image's name is
//! changed: `ALLOWED_SENDER_DOMAINS`, `RELAYHOST`, `POSTFIX_myhostname` and so on.
//!
//! Rules that always hold:
//! - they stand above the file and below the `WEIR_` names;
//! - an empty one is none; each can be the name of a file as well (`RELAYHOST_FILE`);
//! - one that weir cannot honour is told, with what to do instead. It is a fault where mail would come back for want of it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Value;

use super::environment::{self, Setting};
use super::file::quoted;
use super::finding::{Findings, Place};
use super::opendkim;
use super::schema::{self, Shape};
use super::tree::{self, Node, Table};

/// A variable that sets a key: its name, the `WEIR_` name without its beginning and in lower case, and how its words are said there.
type Same = (&'static str, &'static str, fn(&str) -> String);

const SAME: [Same; 7] = [
    ("ALLOWED_SENDER_DOMAINS", "relay__sender_domains", list),
    ("POSTFIX_mynetworks", "relay__trusted_networks", networks),
    ("POSTFIX_myhostname", "hostname", str::to_string),
    ("POSTFIX_message_size_limit", "limits__message_size", octets),
    ("LOG_FORMAT", "log__format", log_format),
    ("RELAYHOST_TLS_LEVEL", "delivery__tls", tls),
    ("POSTFIX_smtp_tls_security_level", "delivery__tls", tls),
];

/// Where all mail goes.
const NEXT_HOP: [&str; 2] = ["POSTFIX_relayhost", "RELAYHOST"];
/// Users, read elsewhere.
const USERS: &str = "SMTPD_SASL_USERS";
/// What they ask for is so anyway.
const ANYWAY: [&str; 3] = ["ALLOW_EMPTY_SENDER_DOMAINS", "AUTOSET_HOSTNAME", "SASL_RELAYHOST"];
/// How we log in there, and the keys of a route for that.
const LOGIN: [(&str, &str); 2] = [("RELAYHOST_USERNAME", "username"), ("RELAYHOST_PASSWORD", "password")];
/// TLS from the first octet at the next hop.
const WRAPPER: &str = "POSTFIX_smtp_tls_wrappermode";
const TIME_ZONE: &str = "TZ";

/// What cannot be honoured, by the beginning of its name, and what to do instead.
const NOT_HERE: [(&str, &str); 6] = [
    ("XOAUTH2_", "weir logs in nowhere with OAuth: deliver directly, or through a host that takes mail by address"),
    (
        "MASQUERADED_DOMAINS",
        "weir changes no addresses: have the application write the right ones, and `relay.from = \"aligned\"` hold it to them",
    ),
    (
        "SMTP_HEADER_CHECKS",
        "weir changes no header: `relay.received = \"private\"` leaves the client out, the rest is the application's",
    ),
    ("DKIM_", DKIM),
    ("OPENDKIM_", DKIM),
    ("POSTFIXMASTER_", "there is no Postfix here: listeners are `[[listener]]`"),
];
const DKIM: &str = "weir signs by itself: the keys are `[[dkim]]` (docs/dkim.md)";

/// Parameters of Postfix that have a key of weir's.
const PARAMETERS: [(&str, &str); 11] = [
    ("mydestination", "weir delivers no mail here: take it out"),
    ("inet_interfaces", "the addresses are in `[[listener]]` (WEIR_LISTENER__0__ADDRESS)"),
    ("inet_protocols", "set `delivery.ip` (WEIR_DELIVERY__IP)"),
    ("maximal_queue_lifetime", "set `queue.expire` (WEIR_QUEUE__EXPIRE)"),
    ("bounce_queue_lifetime", "set `queue.expire` (WEIR_QUEUE__EXPIRE)"),
    ("smtpd_recipient_limit", "set `limits.recipients` (WEIR_LIMITS__RECIPIENTS)"),
    ("smtpd_tls_cert_file", "set `tls.certificate` (WEIR_TLS__CERTIFICATE) and `tls` of a listener"),
    ("smtpd_tls_key_file", "set `tls.key` (WEIR_TLS__KEY)"),
    ("smtpd_tls_security_level", "set `tls` of a listener (WEIR_LISTENER__0__TLS)"),
    (
        "smtp_destination_concurrency_limit",
        "set `max_connections` of a provider; weir finds the right number by itself",
    ),
    (
        "smtp_destination_recipient_limit",
        "set `recipients_per_message` of a provider (WEIR_PROVIDER__OUTLOOK__RECIPIENTS_PER_MESSAGE)",
    ),
];

/// A secret, a list of domains: no page of text.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// Is it, or might it be, one of these?
pub(super) fn is_familiar(variable: &str) -> bool {
    let base = base(variable);
    if is_of_a_service(variable) {
        return false;
    }
    SAME.iter().any(|(name, ..)| *name == base)
        || NEXT_HOP.contains(&base)
        || ANYWAY.contains(&base)
        || LOGIN.iter().any(|(name, _)| *name == base)
        || [USERS, TIME_ZONE].contains(&base)
        || base.starts_with("POSTFIX_")
        || NOT_HERE.iter().any(|(start, _)| base.starts_with(start))
}

pub(super) fn is_secret(variable: &str) -> bool {
    variable == LOGIN[1].0 || variable.starts_with("XOAUTH2_") && !variable.ends_with("_FILE")
}

/// The files that familiar names point to.
pub(super) fn files(environment: &[(String, String)]) -> Vec<PathBuf> {
    let names_file = |(name, text): &&(String, String)| is_familiar(name) && base(name) != name && !text.is_empty();
    environment.iter().filter(names_file).map(|(_, path)| PathBuf::from(path)).collect()
}

/// Does this environment come from a container of another relay image?
pub(super) fn is_of_another_image(environment: &[(String, String)]) -> bool {
    let of_theirs = |name: &str| {
        ["ALLOWED_SENDER_DOMAINS", "ALLOW_EMPTY_SENDER_DOMAINS", "RELAYHOST"].contains(&base(name))
            || name.starts_with("POSTFIX_") && !is_of_a_service(name)
    };
    environment.iter().any(|(name, text)| of_theirs(name) && !text.is_empty())
}

/// Kubernetes and Docker's links tell every container so of the others, one of which may be called `postfix`.
fn is_of_a_service(variable: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| variable.contains(part))
        || variable.ends_with("_PORT")
}

/// The name without `_FILE`.
fn base(variable: &str) -> &str {
    variable.strip_suffix("_FILE").unwrap_or(variable)
}

/// The familiar variables that say something, those in files read.
pub(super) fn read(environment: &[(String, String)], findings: &mut Findings) -> Vec<(String, String)> {
    let mut read: Vec<(String, String)> = Vec::new();
    for (variable, text) in environment.iter().filter(|(name, text)| is_familiar(name) && !text.trim().is_empty()) {
        if base(variable) == variable {
            read.push((variable.clone(), text.clone()));
            continue;
        }
        match content(Path::new(text)) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => read.push((base(variable).to_string(), text)),
            Err(error) => {
                let what = format!("cannot read {}: {error}", quoted(text));
                findings.fault(
                    Place::variable(variable),
                    what,
                    "mount the file, and let the user weir runs as read it",
                );
            }
        }
    }
    read.sort();
    read
}

fn content(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_SIZE_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_string())
}

/// Lays what `read` gave over `root`. `in_container`: there the time zone was set for this program.
pub(super) fn overlay(root: &mut Table, familiar: &[(String, String)], in_container: bool, findings: &mut Findings) {
    for (variable, text) in familiar {
        if let Some((_, rest, translated)) = SAME.iter().find(|(name, ..)| name == variable) {
            set(root, variable, rest, &translated(text), findings);
        } else if let Some((what, remedy)) = not_honoured(variable, text, in_container) {
            findings.warning(Place::variable(variable), what, remedy);
        }
    }
    let of = |wanted: &str| familiar.iter().find(|(name, _)| name == wanted);
    let next_hop = NEXT_HOP.iter().filter_map(|name| of(name)).next_back();
    if let Some((variable, text)) = next_hop {
        let login =
            LOGIN.iter().filter_map(|(name, key)| of(name).map(|(name, text)| (*key, name.as_str(), text.as_str())));
        let is_wrapped = |text: &str| ["yes", "true"].contains(&text.trim().to_lowercase().as_str());
        let wrapped =
            of(WRAPPER).filter(|(_, text)| is_wrapped(text)).map(|(name, _)| ("tls", name.as_str(), "implicit"));
        if let Err((what, remedy)) = route_everything(root, variable, text, login.chain(wrapped)) {
            findings.fault(Place::variable(variable), what, remedy);
        }
    } else {
        for (variable, _) in LOGIN.iter().filter_map(|(name, _)| of(name)) {
            let remedy = "name the host to log in at with RELAYHOST, or take it out";
            findings.warning(Place::variable(variable), "changes nothing without RELAYHOST", remedy);
        }
    }
}

/// What is to be said of a variable that changes nothing.
fn not_honoured(variable: &str, text: &str, in_container: bool) -> Option<(String, String)> {
    let nothing = "changes nothing".to_string();
    if [opendkim::SELECTOR, opendkim::AUTOGENERATE].contains(&variable) {
        return None;
    }
    if let Some((_, remedy)) = NOT_HERE.iter().find(|(start, _)| variable.starts_with(start)) {
        let is_off = ["false", "no", "0"].contains(&text.to_lowercase().as_str());
        return (!is_off).then(|| (nothing, (*remedy).to_string()));
    }
    if variable == TIME_ZONE {
        let is_utc = ["UTC", "GMT", "Etc/UTC", "Etc/GMT", "Universal", "Zulu"].contains(&text.trim_start_matches(':'));
        return (in_container && !is_utc).then(|| (nothing, "the log's times are in UTC; take it out".to_string()));
    }
    let parameter =
        variable.strip_prefix("POSTFIX_").filter(|_| !NEXT_HOP.contains(&variable) && variable != WRAPPER)?;
    let remedy = PARAMETERS.iter().find(|(name, _)| *name == parameter).map_or(
        "there is no Postfix here: docker/README.md lists what is understood, `weir check --print` every key there is",
        |(_, remedy)| remedy,
    );
    Some((nothing, remedy.to_string()))
}

fn set(root: &mut Table, variable: &str, rest: &str, text: &str, findings: &mut Findings) {
    if text.is_empty() {
        return;
    }
    if let Some(setting) = Setting::of(variable, rest, text) {
        environment::apply(root, &setting, &[], findings);
    }
}

/// Makes the host in `text`, as Postfix writes it, the next hop of every domain without a route of its own. `more`: keys of that route,
/// each with the variable that sets it and its value.
fn route_everything<'a>(
    root: &mut Table,
    variable: &str,
    text: &str,
    more: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) -> Result<(), (String, String)> {
    let Some(to) = next_hop(text) else {
        return Err((
            format!("is {}", quoted(text)),
            "write a host and a port, as in [smtp.example.com]:587".to_string(),
        ));
    };
    let place = Place::variable(variable);
    let words = |text: &str| Node::Value(Value::String(text.to_string()), place.clone());
    // Where a fault stands in its place, it was told.
    let Some(routes) = tree::list_mut(root, "route") else { return Ok(()) };
    let is_for_all = |(route, _): &(Table, Place)| matches!(route.get("domain"), Some(Node::Value(Value::String(domain), _)) if domain == "*");
    let at = routes.iter().position(is_for_all).unwrap_or_else(|| {
        routes.push((Table::from([("domain".to_string(), words("*"))]), place.clone()));
        routes.len() - 1
    });
    let Some((route, _)) = routes.get_mut(at) else { return Ok(()) };
    route.insert("to".to_string(), words(&to));
    for (key, variable, text) in more {
        if key == "password" {
            // The variable stands above what the file says.
            route.remove("password_file");
        }
        route.insert(key.to_string(), Node::Value(Value::String(text.to_string()), Place::variable(variable)));
    }
    Ok(())
}

/// `[host]:587`, `host:587`, `[host]` or `host`, as `HOST:PORT`.
fn next_hop(text: &str) -> Option<String> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, rest))) => (host, if rest.is_empty() { "25" } else { rest.strip_prefix(':')? }),
        Some(None) => return None,
        None => text.split_once(':').unwrap_or((text, "25")),
    };
    let host = host.strip_prefix("ipv6:").unwrap_or(host);
    let to = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let Shape::Value(key) = schema::shape("route[].to") else { return None };
    environment::read(&key.kind, &to).ok().map(|_| to)
}

/// Postfix parts by spaces, commas or both.
fn list(text: &str) -> String {
    text.split([',', ' ', '\t', '\n']).filter(|entry| !entry.is_empty()).collect::<Vec<_>>().join(",")
}

/// Postfix writes IPv6 networks in brackets, and single addresses without a length.
fn networks(text: &str) -> String {
    let network = |entry: &str| {
        let entry = entry.replace(['[', ']'], "");
        match entry.parse::<std::net::IpAddr>() {
            Ok(address) => ipnet::IpNet::from(address).to_string(),
            Err(_) => entry,
        }
    };
    list(text).split(',').map(network).collect::<Vec<_>>().join(",")
}

/// A number of octets. 0 is no limit there; the default holds then.
fn octets(text: &str) -> String {
    match text.trim() {
        "0" => String::new(),
        number => format!("{number} B"),
    }
}

/// Some other program's format is none of ours.
fn log_format(text: &str) -> String {
    match text.trim().to_lowercase().as_str() {
        "json" => "json".to_string(),
        "plain" | "text" => "text".to_string(),
        _ => String::new(),
    }
}

fn tls(text: &str) -> String {
    match text.trim() {
        "none" => "off",
        "may" => "opportunistic",
        "secure" => "verify",
        other => other,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_written_in_many_ways() {
        for (text, expected) in [
            ("[smtp.example.com]:587", Some("smtp.example.com:587")),
            ("smtp.example.com:587", Some("smtp.example.com:587")),
            ("[smtp.example.com]", Some("smtp.example.com:25")),
            ("smtp.example.com", Some("smtp.example.com:25")),
            ("[192.0.2.1]:2525", Some("192.0.2.1:2525")),
            ("[2001:db8::1]:25", Some("[2001:db8::1]:25")),
            ("[ipv6:2001:db8::1]", Some("[2001:db8::1]:25")),
            ("[smtp.example.com", None),
            ("smtp.example.com:smtp", None),
            ("", None),
        ] {
            assert_eq!(next_hop(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_told_of_other_containers_is_none_of_them() {
        for name in ["POSTFIX_SERVICE_HOST", "POSTFIX_PORT", "POSTFIX_PORT_25_TCP_ADDR", "OPENDKIM_SERVICE_PORT_MILTER"]
        {
            assert!(!is_familiar(name), "{name}");
            assert!(!is_of_another_image(&[(name.into(), "tcp://10.0.0.1:25".into())]), "{name}");
        }
        for name in ["POSTFIX_myhostname", "RELAYHOST_FILE", "OPENDKIM_DOMAINS", "TZ"] {
            assert!(is_familiar(name), "{name}");
        }
    }
}
