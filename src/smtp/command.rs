//! Command lines of a client, read (RFC 5321 section 4.1.1, RFC 1870, 2852, 3461, 4865, 4954 section 5, 6152,
//! 6531, 6710).
//!
//! Rules that always hold:
//! - what is taken is taken verbatim: an address is passed on as the client wrote it, `%`, `!` and quotes mean nothing here;
//! - an address may stand without its angle brackets, as old scripts write it and Postfix takes it: then it ends at the first blank outside
//!   quotes, and the empty sender has to be written `<>`;
//! - source routes are refused, not stripped: whoever sends one means another way than the one weir goes;
//! - a control character or bytes that are not UTF-8 refuse the line, so that nothing of it can break a header field, a log or
//!   an event later; that holds for what xtext encodes as well. Only a client's name for itself may be in another encoding: nobody
//!   is refused for his name;
//! - a parameter weir does not offer is refused and never passed over: it would have been a promise.

use std::borrow::Cow;

use crate::types::{AddressError, BodyType, Domain, Mailbox, Notify, Requests, Ret, ReversePath, Secret};

use super::replies::{self, Said};
use super::requests;
use super::sasl::Mechanism;
use super::xtext::{is_orcpt, is_xtext};

/// The longest name kept from EHLO and HELO (RFC 5321 section 4.5.3.1.2).
const HELO_MAX: usize = 255;
/// The longest ENVID (RFC 3461 section 4.4) and ORCPT (section 4.2), in octets.
const ENVID_MAX: usize = 100;
const ORCPT_MAX: usize = 500;

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The client's name for itself, any text without blanks: it never decides anything.
    Ehlo(String),
    Helo(String),
    Mail(Mail),
    Rcpt(Rcpt),
    Data,
    Rset,
    Noop,
    /// The argument is never looked up; is it beyond ASCII, and was SMTPUTF8 said with it (RFC 6531 section 3.7.4)?
    Vrfy {
        needs_smtputf8: bool,
    },
    Help,
    Quit,
    /// Offered or not, the announced octets follow on the wire and must not be read as commands (RFC 3030). `octets` is
    /// none where no number can be read.
    Bdat {
        octets: Option<u64>,
        last: bool,
    },
    StartTls,
    Auth(Auth),
    /// Words of HTTP: a browser was made to talk to us.
    Http,
    /// Known words for what is never offered: EXPN, ETRN and the like.
    NotOffered(&'static str),
}

/// AUTH and its arguments (RFC 4954 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// None for one that is not known here.
    pub mechanism: Option<Mechanism>,
    /// The initial response, in base64.
    pub initial: Option<Secret>,
}

/// MAIL FROM and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub sender: ReversePath,
    /// SIZE, in octets (RFC 1870).
    pub size_bytes: Option<u64>,
    pub body_type: BodyType,
    pub smtputf8: bool,
    pub ret: Option<Ret>,
    /// ENVID, still in xtext.
    pub envid: Option<String>,
    pub requests: Requests,
}

/// RCPT TO and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    pub path: ForwardPath,
    pub notify: Notify,
    /// ORCPT, `type;xtext` as received.
    pub orcpt: Option<String>,
}

/// The argument of RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
    Mailbox(Mailbox),
}

impl Command {
    /// Reads one line, given without its line end. The error is the reply.
    pub fn parse(line: &[u8]) -> Result<Command, Said> {
        Command::parse_for(line, None)
    }

    /// The same; an address without a domain gets this one, where there is one.
    pub fn parse_for(line: &[u8], qualify: Option<&Domain>) -> Result<Command, Said> {
        let text = String::from_utf8_lossy(line);
        let is_foreign = matches!(text, Cow::Owned(_)) && !is_greeting(line);
        if is_foreign || text.chars().any(|c| c.is_control() && c != '\t') {
            // Content follows, and nobody knows how much: it is not to be read as commands.
            let is_chunk = line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT "));
            return if is_chunk { Ok(bdat("")) } else { Err(replies::BAD_CHARACTERS.plain()) };
        }
        let text = text.trim_end_matches([' ', '\t']);
        let (verb, argument) = text.split_at(text.find([' ', '\t']).unwrap_or(text.len()));
        let argument = argument.trim_start_matches([' ', '\t']);
        let alone = |command: Command| match argument {
            "" => Ok(command),
            _ => Err(replies::BAD_SYNTAX.with("this command takes no argument")),
        };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => helo(argument).map(Command::Ehlo),
            "HELO" => helo(argument).map(Command::Helo),
            "MAIL" => mail(argument, qualify).map(Command::Mail),
            "RCPT" => rcpt(argument, qualify).map(Command::Rcpt),
            "DATA" => alone(Command::Data),
            "RSET" => alone(Command::Rset),
            "QUIT" => alone(Command::Quit),
            "NOOP" => Ok(Command::Noop),
            "HELP" => Ok(Command::Help),
            "VRFY" => Ok(Command::Vrfy { needs_smtputf8: !argument.is_ascii() && !says_smtputf8(argument) }),
            "BDAT" => Ok(bdat(argument)),
            "STARTTLS" => alone(Command::StartTls),
            "AUTH" => auth(argument).map(Command::Auth),
            "GET" | "POST" | "PUT" | "HEAD" | "CONNECT" | "OPTIONS" | "DELETE" | "PATCH" | "TRACE" => Ok(Command::Http),
            word => match NOT_OFFERED.iter().find(|known| **known == word) {
                Some(known) => Ok(Command::NotOffered(known)),
                None => Err(replies::UNKNOWN_COMMAND.plain()),
            },
        }
    }
}

const NOT_OFFERED: [&str; 7] = ["EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML", "BURL"];

fn is_greeting(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"EHLO ") || verb.eq_ignore_ascii_case(b"HELO "))
}

fn says_smtputf8(argument: &str) -> bool {
    argument.rsplit([' ', '\t']).next().is_some_and(|word| word.eq_ignore_ascii_case("SMTPUTF8"))
}

fn helo(argument: &str) -> Result<String, Said> {
    match argument.split([' ', '\t']).next() {
        Some(name) if !name.is_empty() => Ok(name.chars().take(HELO_MAX).collect()),
        _ => Err(replies::BAD_SYNTAX.with("say your name with EHLO")),
    }
}

/// `BDAT 86 LAST` (RFC 3030 section 2).
fn bdat(argument: &str) -> Command {
    let mut words = argument.split([' ', '\t']).filter(|word| !word.is_empty());
    let number = words.next().unwrap_or_default();
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let (mark, rest) = (words.next(), words.next());
    let last = mark.is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
    let good = digits && rest.is_none() && (last || mark.is_none());
    Command::Bdat { octets: number.parse().ok().filter(|_| good), last }
}

fn auth(argument: &str) -> Result<Auth, Said> {
    let mut words = argument.split([' ', '\t']).filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or_else(|| replies::BAD_SYNTAX.with("write AUTH PLAIN or AUTH LOGIN"))?;
    let initial = words.next().map(Secret::new);
    check(words.next().is_none(), "AUTH takes a mechanism and at most one response")?;
    Ok(Auth { mechanism: Mechanism::parse(mechanism), initial })
}

fn mail(argument: &str, qualify: Option<&Domain>) -> Result<Mail, Said> {
    let (path, parameters) = path(argument, "FROM:", "write MAIL FROM:<address>")?;
    let sender = match path {
        "" => ReversePath::Null,
        text => ReversePath::Mailbox(mailbox(text, qualify, replies::BAD_SENDER)?),
    };
    let mut mail = Mail {
        sender,
        size_bytes: None,
        body_type: BodyType::Undeclared,
        smtputf8: false,
        ret: None,
        envid: None,
        requests: Requests::default(),
    };
    each_parameter(parameters, |name, value| {
        if let Some(taken) = requests::take(&mut mail.requests, name, value) {
            return taken;
        }
        match (name, value) {
            ("SIZE", Some(value)) => mail.size_bytes = Some(size(value)?),
            ("BODY", Some(value)) => mail.body_type = body_type(value)?,
            ("SMTPUTF8", None) => mail.smtputf8 = true,
            ("RET", Some(value)) => mail.ret = Some(ret(value)?),
            ("ENVID", Some(value)) => {
                check(
                    value.len() <= ENVID_MAX && is_xtext(value),
                    "ENVID is xtext of printable characters, at most 100",
                )?;
                mail.envid = Some(value.to_string());
            }
            // Sendmail says it after AUTH; RFC 4954 section 5 wants it taken by every server and lets it be ignored.
            ("AUTH", Some(value)) => check(value == "<>" || is_xtext(value), "AUTH is xtext or <>")?,
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => {
                return Err(replies::BAD_SYNTAX.with(format!("the value of {name}")));
            }
            _ => return Err(replies::UNKNOWN_PARAMETER.with(name.to_string())),
        }
        Ok(())
    })?;
    Ok(mail)
}

fn rcpt(argument: &str, qualify: Option<&Domain>) -> Result<Rcpt, Said> {
    let (path, parameters) = path(argument, "TO:", "write RCPT TO:<address>")?;
    let path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(mailbox(path, qualify, replies::BAD_RECIPIENT)?)
    };
    let mut rcpt = Rcpt { path, notify: Notify::default(), orcpt: None };
    each_parameter(parameters, |name, value| {
        match (name, value) {
            ("NOTIFY", Some(value)) => {
                rcpt.notify = Notify::parse(value)
                    .ok_or_else(|| replies::BAD_SYNTAX.with("NOTIFY is NEVER or a list of SUCCESS, FAILURE, DELAY"))?;
            }
            ("ORCPT", Some(value)) => {
                check(value.len() <= ORCPT_MAX && is_orcpt(value), "ORCPT is a type, a semicolon and xtext")?;
                rcpt.orcpt = Some(value.to_string());
            }
            ("NOTIFY" | "ORCPT", None) => return Err(replies::BAD_SYNTAX.with(format!("the value of {name}"))),
            _ => return Err(replies::UNKNOWN_PARAMETER.with(name.to_string())),
        }
        Ok(())
    })?;
    Ok(rcpt)
}

fn check(good: bool, rule: &'static str) -> Result<(), Said> {
    if good { Ok(()) } else { Err(replies::BAD_SYNTAX.with(rule)) }
}

/// The text between the angle brackets, or the address without them, and what follows. Blanks before it are tolerated, as Postfix
/// and Exim do.
fn path<'a>(argument: &'a str, keyword: &str, rule: &'static str) -> Result<(&'a str, &'a str), Said> {
    let error = || replies::BAD_SYNTAX.with(rule);
    let (word, rest) = argument.split_at_checked(keyword.len()).ok_or_else(error)?;
    let rest = rest.trim_start_matches([' ', '\t']);
    if rest.is_empty() || !word.eq_ignore_ascii_case(keyword) {
        return Err(error());
    }
    let (path, after) = match rest.strip_prefix('<') {
        Some(inner) => {
            let end = outside_quotes(inner, |octet| octet == b'>').ok_or_else(error)?;
            (&inner[..end], &inner[end + 1..])
        }
        None => rest.split_at(outside_quotes(rest, |octet| matches!(octet, b' ' | b'\t')).unwrap_or(rest.len())),
    };
    if !after.is_empty() && !after.starts_with([' ', '\t']) {
        return Err(error());
    }
    Ok((path, after))
}

/// The place of the first such octet (an ASCII one) that stands outside quotes.
fn outside_quotes(text: &str, is_wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let mut quoted = false;
    let mut octets = text.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => quoted = !quoted,
            b'\\' if quoted => drop(octets.next()),
            _ if !quoted && is_wanted(octet) => return Some(at),
            _ => {}
        }
    }
    None
}

fn mailbox(text: &str, qualify: Option<&Domain>, wrong: &'static replies::Answer) -> Result<Mailbox, Said> {
    let lacks_domain = !text.is_empty() && outside_quotes(text, |octet| octet == b'@').is_none();
    let parsed = match qualify.filter(|_| lacks_domain) {
        Some(domain) => Mailbox::parse(&format!("{text}@{domain}")),
        None => Mailbox::parse(text),
    };
    parsed.map_err(|error| match error {
        AddressError::SourceRoute => replies::SOURCE_ROUTE.plain(),
        other => wrong.with(other.to_string()),
    })
}

/// Calls `take` with each parameter's name, in capitals, and its value. A name may come once.
fn each_parameter(text: &str, mut take: impl FnMut(&str, Option<&str>) -> Result<(), Said>) -> Result<(), Said> {
    let mut seen: Vec<String> = Vec::new();
    for parameter in text.split([' ', '\t']).filter(|p| !p.is_empty()) {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value).filter(|v| !v.is_empty())),
            None => (parameter, None),
        };
        let name = name.to_ascii_uppercase();
        check(!name.is_empty() && !seen.contains(&name), "each parameter has a name and comes once")?;
        check(value.is_some() || !parameter.contains('='), "a parameter's value is empty")?;
        take(&name, value)?;
        seen.push(name);
    }
    Ok(())
}

fn size(value: &str) -> Result<u64, Said> {
    check(value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit()), "SIZE is a number of octets")?;
    // 20 digits can be more than 64 bits hold; whatever they say, it is too big.
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn body_type(value: &str) -> Result<BodyType, Said> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(BodyType::SevenBit),
        "8BITMIME" => Ok(BodyType::EightBitMime),
        _ => Err(replies::BAD_SYNTAX.with("BODY is 7BIT or 8BITMIME")),
    }
}

fn ret(value: &str) -> Result<Ret, Said> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(Ret::Full),
        "HDRS" => Ok(Ret::Hdrs),
        _ => Err(replies::BAD_SYNTAX.with("RET is FULL or HDRS")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_without_a_domain_gets_the_one_there_is() {
        let domain = Domain::parse("own.example").unwrap();
        let address = |line: &str, domain| match Command::parse_for(line.as_bytes(), domain) {
            Ok(Command::Mail(mail)) => mail.sender.to_string(),
            Ok(Command::Rcpt(Rcpt { path: ForwardPath::Mailbox(mailbox), .. })) => mailbox.to_string(),
            Ok(other) => format!("{other:?}"),
            Err(said) => said.answer.code.to_string(),
        };
        for (line, with, without) in [
            ("MAIL FROM:<cron>", "cron@own.example", "501"),
            ("MAIL FROM:cron SIZE=5", "cron@own.example", "501"),
            ("MAIL FROM:<>", "", ""),
            ("MAIL FROM:<\"a@b\">", "\"a@b\"@own.example", "501"),
            ("RCPT TO:<root>", "root@own.example", "501"),
            ("RCPT TO:<b@d.example>", "b@d.example", "b@d.example"),
            ("RCPT TO:<>", "501", "501"),
            ("RCPT TO:<a b>", "501", "501"),
            ("RCPT TO:<@d.example:root>", "553", "553"),
        ] {
            assert_eq!((address(line, Some(&domain)), address(line, None)), (with.into(), without.into()), "{line}");
        }
        let postmaster = Command::parse_for(b"RCPT TO:<postmaster>", Some(&domain));
        assert!(matches!(postmaster, Ok(Command::Rcpt(Rcpt { path: ForwardPath::Postmaster, .. }))));
    }

    fn code_of(line: &[u8]) -> String {
        match Command::parse(line) {
            Ok(_) => "taken".to_string(),
            Err(said) => format!("{} {}", said.answer.code, said.answer.status),
        }
    }

    #[test]
    fn judges_lines_as_the_standards_say() {
        for (line, expected) in [
            ("EHLO client.example", "taken"),
            ("ehlo [127.0.0.1]", "taken"),
            ("EHLO localhost.localdomain", "taken"),
            ("EHLO _odd!name", "taken"),
            ("EHLO vm", "taken"),
            ("HELO my_host", "taken"),
            ("EHLO 192.0.2.1", "taken"),
            ("EHLO [IPv6:::1]", "taken"),
            ("EHLO two words", "taken"),
            ("EHLO -", "taken"),
            ("EHLO a\0b", "501 5.5.2"),
            ("EHLO", "501 5.5.4"),
            ("HELO  ", "501 5.5.4"),
            ("DATA", "taken"),
            ("data  ", "taken"),
            ("DATA now", "501 5.5.4"),
            ("RSET x", "501 5.5.4"),
            ("NOOP anything at all", "taken"),
            ("HELP MAIL", "taken"),
            ("VRFY root", "taken"),
            ("EXPN list", "taken"),
            ("AUTH PLAIN AGEAYg==", "taken"),
            ("STARTTLS", "taken"),
            ("BDAT 10 LAST", "taken"),
            ("GET / HTTP/1.1", "taken"),
            ("post /x HTTP/1.1", "taken"),
            ("Host: relay.example", "500 5.5.2"),
            ("AUTH", "501 5.5.4"),
            ("AUTH PLAIN AGEAYg== x", "501 5.5.4"),
            ("AUTH X-UNKNOWN", "taken"),
            ("STARTTLS now", "501 5.5.4"),
            ("", "500 5.5.2"),
            ("MAILFROM:<a@b.example>", "500 5.5.2"),
            ("NOOP\0", "501 5.5.2"),
            ("NOOP a\rb", "501 5.5.2"),
        ] {
            assert_eq!(code_of(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(code_of(b"MAIL FROM:<\xff@b.example>"), "501 5.5.2");
        // A host with an umlaut in its name, in the encoding of its system.
        assert_eq!(Command::parse(b"ehlo b\xfcro"), Ok(Command::Ehlo("b\u{fffd}ro".to_string())));
    }

    #[test]
    fn judges_mail() {
        for (argument, expected) in [
            ("<>", "taken"),
            ("<a@b.example>", "taken"),
            ("  <a@b.example>", "taken"),
            ("<a..b@docomo.example>", "taken"),
            ("<\"a > b\"@b.example>", "taken"),
            ("<a@b.example> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159 AUTH=<>", "taken"),
            ("<a@b.example> size=0 body=7bit ret=full auth=e+3Dmc2@b.example", "taken"),
            ("<a@b.example> SIZE=99999999999999999999", "taken"),
            ("<a@b.example> SIZE=-1", "501 5.5.4"),
            ("<a@b.example> SIZE", "501 5.5.4"),
            ("<a@b.example> SIZE=", "501 5.5.4"),
            ("<a@b.example> SIZE=1 SIZE=2", "501 5.5.4"),
            ("<a@b.example> BODY=BINARYMIME", "501 5.5.4"),
            ("<a@b.example> SMTPUTF8=yes", "501 5.5.4"),
            ("<a@b.example> ENVID=a+00b", "501 5.5.4"),
            ("<a@b.example> ENVID=a+0Ab", "501 5.5.4"),
            ("<a@b.example> ENVID=a+4", "501 5.5.4"),
            ("<a@b.example> ENVID=a=b", "501 5.5.4"),
            ("<a@b.example> =x", "501 5.5.4"),
            ("<a@b.example> NOTIFY=NEVER", "555 5.5.4"),
            ("<a@b.example> MT-PRIORITY=3 BY=60;RT HOLDFOR=60", "taken"),
            ("<a@b.example> MT-PRIORITY=3 MT-PRIORITY=3", "501 5.5.4"),
            ("<a@b.example> BY", "501 5.5.4"),
            ("<a@b.example> REQUIRETLS", "555 5.5.4"),
            ("<a@b.example>SIZE=1", "501 5.5.4"),
            ("<a@b.example", "501 5.5.4"),
            ("a@b.example", "taken"),
            (" a@b.example\tSIZE=1 BODY=8BITMIME", "taken"),
            ("\"a > b\"@b.example SIZE=1", "taken"),
            ("", "501 5.5.4"),
            (" ", "501 5.5.4"),
            ("a", "501 5.1.7"),
            (">", "501 5.1.7"),
            ("a@b.example>", "501 5.1.7"),
            ("a@b.example<>", "501 5.1.7"),
            ("Joe <a@b.example>", "501 5.1.7"),
            ("Joe<a@b.example>", "501 5.1.7"),
            ("<<a@b.example>>", "501 5.5.4"),
            ("SIZE=100", "501 5.1.7"),
            ("a@b.example, c@d.example", "501 5.1.7"),
            ("a@b.example c@d.example", "555 5.5.4"),
            ("a b@c.example", "501 5.1.7"),
            ("\"a b@c.example", "501 5.1.7"),
            ("\"a\" b@c.example", "501 5.1.7"),
            ("@relay.example:a@b.example", "553 5.1.0"),
            ("<a>", "501 5.1.7"),
            ("<@relay.example:a@b.example>", "553 5.1.0"),
        ] {
            assert_eq!(code_of(format!("MAIL FROM:{argument}").as_bytes()), expected, "{argument}");
        }
        assert_eq!(code_of(b"MAIL"), "501 5.5.4");
        assert_eq!(code_of(b"MAIL TO:<a@b.example>"), "501 5.5.4");
    }

    #[test]
    fn judges_rcpt() {
        let long = |n: usize| format!("<{}@b.example>", "a".repeat(n));
        let (fits, too_long) = (long(64), long(65));
        for (argument, expected) in [
            ("<u@d.example>", "taken"),
            ("<Postmaster>", "taken"),
            ("<u%d.example@s.example>", "taken"),
            ("<d.example!u@s.example>", "taken"),
            ("<\"u@d.example\"@s.example>", "taken"),
            ("<u@[192.0.2.1]>", "taken"),
            ("<u@[IPv6:2001:db8::1]>", "taken"),
            ("<u@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;u+2Bx@d.example", "taken"),
            ("<u@d.example> ORCPT=utf-8;\\x{5E73}@d.example", "taken"),
            ("u@d.example", "taken"),
            ("postmaster NOTIFY=NEVER", "taken"),
            ("u@[IPv6:2001:db8::1] NOTIFY=NEVER", "taken"),
            ("", "501 5.5.4"),
            ("u", "501 5.1.3"),
            ("u@d.example;v@d.example", "501 5.1.3"),
            ("u@d.example@s.example", "501 5.1.3"),
            ("<>", "501 5.1.3"),
            ("<u>", "501 5.1.3"),
            ("<\"u@d.example\">", "501 5.1.3"),
            ("<\"u%d.example\">", "501 5.1.3"),
            ("<d.example!u>", "501 5.1.3"),
            ("<u@d.example@s.example>", "501 5.1.3"),
            ("<u@d.example@[192.0.2.1]>", "501 5.1.3"),
            ("<@s.example:u@d.example>", "553 5.1.0"),
            ("<@[192.0.2.1]:u@d.example>", "553 5.1.0"),
            ("<@a.example,@b.example:u@d.example>", "553 5.1.0"),
            ("<@a.example:u%d.example@s.example>", "553 5.1.0"),
            ("<u@d.example.>", "taken"),
            ("<u@d.example..>", "501 5.1.3"),
            ("<u@.>", "501 5.1.3"),
            ("<u@d.example >", "501 5.1.3"),
            ("<u@d.example>x", "501 5.5.4"),
            ("<u@>", "501 5.1.3"),
            ("<@>", "553 5.1.0"),
            ("<u@127.0.0.1>", "501 5.1.3"),
            ("<u\t@d.example>", "501 5.1.3"),
            ("<u\0@d.example>", "501 5.5.2"),
            ("<u@d.example> NOTIFY=NEVER,DELAY", "501 5.5.4"),
            ("<u@d.example> NOTIFY", "501 5.5.4"),
            ("<u@d.example> ORCPT=rfc822", "501 5.5.4"),
            ("<u@d.example> ORCPT=rfc822;u+00@d.example", "501 5.5.4"),
            ("<u@d.example> ORCPT=rfc822;u+0D+0Ax", "501 5.5.4"),
            ("<u@d.example> ORCPT=utf-8;\\x{0A}@d.example", "501 5.5.4"),
            ("<u@d.example> ORCPT=utf-8;u+0A@d.example", "501 5.5.4"),
            ("<u@d.example> SIZE=3", "555 5.5.4"),
            (fits.as_str(), "taken"),
            (too_long.as_str(), "501 5.1.3"),
        ] {
            assert_eq!(code_of(format!("RCPT TO:{argument}").as_bytes()), expected, "{argument:?}");
        }
    }

    #[test]
    fn keeps_what_was_written() {
        let Ok(Command::Mail(mail)) = Command::parse(b"Mail From: <A.B@Example.COM>  SIZE=12 ENVID=a+2Bb RET=HDRS")
        else {
            panic!("the line is good");
        };
        assert_eq!((mail.sender.as_str(), mail.size_bytes), ("A.B@Example.COM", Some(12)));
        assert_eq!((mail.envid.as_deref(), mail.ret), (Some("a+2Bb"), Some(Ret::Hdrs)));
        let Ok(Command::Rcpt(rcpt)) =
            Command::parse(b"RCPT TO:<\"a b\"@d.example> NOTIFY=failure ORCPT=rfc822;A+20b@d")
        else {
            panic!("the line is good");
        };
        assert!(matches!(&rcpt.path, ForwardPath::Mailbox(m) if m.as_str() == "\"a b\"@d.example"));
        assert_eq!((rcpt.orcpt.as_deref(), rcpt.notify.value().as_str()), (Some("rfc822;A+20b@d"), "FAILURE"));
    }

    #[test]
    fn a_chunk_says_its_size_or_nobody_knows_where_it_ends() {
        for (line, octets, last) in [
            ("BDAT 0", Some(0), false),
            ("bdat 86 LAST", Some(86), true),
            ("BDAT 86  last ", Some(86), true),
            ("BDAT 99999999999999999999999", None, false),
            ("BDAT -5", None, false),
            ("BDAT +5", None, false),
            ("BDAT 5 FIRST", None, false),
            ("BDAT 5 LAST 5", None, true),
            ("BDAT 5 LAST\0", None, false),
            ("bdat 5\u{7f}", None, false),
            ("BDAT", None, false),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Bdat { octets, last }), "{line}");
        }
    }

    #[test]
    fn vrfy_beyond_ascii_needs_smtputf8() {
        for (line, needs_smtputf8) in [("VRFY x", false), ("VRFY ü", true), ("VRFY ü SMTPUTF8", false)] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Vrfy { needs_smtputf8 }), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(Command::parse(&line));
        }

        #[test]
        fn a_bare_address_is_the_one_in_brackets_or_refused(address in "[ab.@\"\\\\<> ,:%!\\[\\]1]{1,12}") {
            prop_assume!(!address.starts_with([' ', '<']) && !address.ends_with(' '));
            let parse = |path: &str| Command::parse(format!("RCPT TO:{path}").as_bytes());
            if let Ok(taken) = parse(&address) {
                prop_assert_eq!(parse(&format!("<{address}>")), Ok(taken));
            }
        }

        #[test]
        fn what_is_taken_holds_no_control_character(
            verb in "(MAIL FROM:|RCPT TO:|EHLO )", argument in "(?s)<?[a-c@.\\r\\n\\x00\u{85}\" ]{0,12}>?[ A-Z=+0]{0,12}"
        ) {
            if let Ok(command) = Command::parse(format!("{verb}{argument}").as_bytes()) {
                let kept = match command {
                    Command::Ehlo(name) => name,
                    Command::Mail(mail) => format!("{}{:?}", mail.sender, mail.envid),
                    Command::Rcpt(Rcpt { path: ForwardPath::Mailbox(mailbox), .. }) => mailbox.to_string(),
                    _ => String::new(),
                };
                prop_assert!(!kept.chars().any(char::is_control));
            }
        }
    }
}
