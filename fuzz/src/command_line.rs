//! Command lines of clients (`smtp/command`): a line that is taken means one thing, which can be written down and read again, and
//! nothing of it can break a header field, a log or an event.

use weir::smtp::replies::{REPLY_LINE_MAX, Said};
use weir::smtp::{Command, ForwardPath, Mail, Rcpt};
use weir::types::{BodyType, Ret};

use super::kit::contains;

pub fn check(line: &[u8]) {
    let read = Command::parse(line);
    assert_eq!(Command::parse(&[line, b" \t"].concat()), read, "blanks at the end change nothing");
    match &read {
        Ok(command) => {
            let is_chunk = matches!(command, Command::Bdat { octets: None, .. });
            assert!(
                is_chunk || line.iter().all(|&b| b == b'\t' || !b.is_ascii_control()),
                "a control character was taken"
            );
            is_sound(command, line);
            if let Some(written) = written(command) {
                assert_eq!(Command::parse(written.as_bytes()).as_ref(), Ok(command), "{written}");
            }
        }
        Err(said) => is_a_refusal(said),
    }
}

fn is_a_refusal(said: &Said) {
    let line = said.line();
    assert!((500..=559).contains(&said.answer.code), "{line}");
    assert!(line.len() + 2 <= REPLY_LINE_MAX && line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{line:?}");
}

fn is_sound(command: &Command, line: &[u8]) {
    let is_in_the_line = |text: &str| contains(line, text.as_bytes());
    match command {
        Command::Ehlo(name) | Command::Helo(name) => {
            assert!(!name.is_empty() && name.chars().count() <= 255 && !name.contains([' ', '\t']), "{name:?}");
            assert!(!name.contains(char::is_control), "{name:?}");
        }
        Command::Mail(mail) => {
            assert!(is_in_the_line(mail.sender.as_str()), "verbatim: {}", mail.sender);
            if let Some(envid) = &mail.envid {
                assert!(
                    is_in_the_line(envid) && envid.len() <= 100 && is_printable(&decoded(envid, false)),
                    "{envid:?}"
                );
            }
        }
        Command::Rcpt(rcpt) => {
            if let ForwardPath::Mailbox(mailbox) = &rcpt.path {
                assert!(is_in_the_line(mailbox.as_str()), "verbatim: {mailbox}");
            }
            if let Some(orcpt) = &rcpt.orcpt {
                let (kind, address) = orcpt.split_once(';').expect("a type and an address");
                assert!(is_in_the_line(orcpt) && orcpt.len() <= 500 && !kind.is_empty() && !address.is_empty());
                assert!(is_printable(&decoded(address, kind.eq_ignore_ascii_case("utf-8"))), "{orcpt:?}");
            }
            let notify = rcpt.notify;
            assert!(notify.given || notify.is_default(), "{notify:?}");
        }
        Command::Auth(auth) => {
            if let Some(secret) = auth.initial.as_ref().filter(|secret| secret.len() > 20) {
                let shown = format!("{command:?}");
                assert!(!contains(shown.as_bytes(), secret.expose()), "a secret is shown");
            }
        }
        _ => {}
    }
}

/// xtext, and where `has_escapes` those of RFC 6533 section 3, read the plain way: what a reader of a report would see.
pub(crate) fn decoded(text: &str, has_escapes: bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let escape = rest.strip_prefix("\\x{").filter(|_| has_escapes).and_then(|r| r.split_once('}'));
        let octet = rest.strip_prefix('+').and_then(|r| r.get(..2));
        if let Some((digits, after)) = escape {
            out.extend(u32::from_str_radix(digits, 16).ok().and_then(char::from_u32));
            rest = after;
        } else if let Some(digits) = octet {
            out.extend(u8::from_str_radix(digits, 16).ok().map(char::from));
            rest = &rest[3..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

pub(crate) fn is_printable(text: &str) -> bool {
    !text.contains(char::is_control)
}

/// The command as weir would write it; none where its argument is not kept.
fn written(command: &Command) -> Option<String> {
    Some(match command {
        Command::Ehlo(name) => format!("EHLO {name}"),
        Command::Helo(name) => format!("HELO {name}"),
        Command::Mail(mail) => mail_line(mail),
        Command::Rcpt(rcpt) => rcpt_line(rcpt),
        Command::Data => "DATA".to_string(),
        Command::Rset => "RSET".to_string(),
        Command::Noop => "NOOP".to_string(),
        Command::Help => "HELP".to_string(),
        Command::Quit => "QUIT".to_string(),
        Command::Bdat { octets: Some(octets), last } => format!("BDAT {octets}{}", if *last { " LAST" } else { "" }),
        Command::StartTls => "STARTTLS".to_string(),
        _ => return None,
    })
}

fn mail_line(mail: &Mail) -> String {
    let mut line = format!("MAIL FROM:<{}>", mail.sender);
    if let Some(size) = mail.size_bytes {
        line += &format!(" SIZE={size}");
    }
    line += match mail.body_type {
        BodyType::Undeclared => "",
        BodyType::SevenBit => " BODY=7BIT",
        BodyType::EightBitMime => " BODY=8BITMIME",
    };
    line += if mail.smtputf8 { " SMTPUTF8" } else { "" };
    line += match mail.ret {
        None => "",
        Some(Ret::Full) => " RET=FULL",
        Some(Ret::Hdrs) => " RET=HDRS",
    };
    if let Some(envid) = &mail.envid {
        line += &format!(" ENVID={envid}");
    }
    line
}

fn rcpt_line(rcpt: &Rcpt) -> String {
    let mut line = match &rcpt.path {
        ForwardPath::Postmaster => "RCPT TO:<postmaster>".to_string(),
        ForwardPath::Mailbox(mailbox) => format!("RCPT TO:<{mailbox}>"),
    };
    if rcpt.notify.given {
        line += &format!(" NOTIFY={}", rcpt.notify.value());
    }
    if let Some(orcpt) = &rcpt.orcpt {
        line += &format!(" ORCPT={orcpt}");
    }
    line
}
