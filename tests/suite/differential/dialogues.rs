//! The dialogues that are compared: what clients really say, what standards speak of, and what attackers try; and walks at random.

use super::Dialogue;
use crate::door::FAKE_ENDS;

/// Walks, each with a seed of its own.
const WALKS: u64 = 40;
const WALK_LINES: usize = 14;

const HELLO: &str = "EHLO client.test";
const MAIL: &str = "MAIL FROM:<app@sender.test>";
const RCPT: &str = "RCPT TO:<u@x.test>";

/// Said after EHLO.
const AFTER_HELLO: &[&str] = &[
    "EHLO again.test",
    "HELO again.test",
    "NOOP",
    "NOOP with words",
    "RSET",
    "RSET with words",
    "HELP",
    "VRFY u",
    "EXPN list",
    "DATA",
    "RCPT TO:<u@x.test>",
    "QUIT",
    "STARTTLS",
    "AUTH PLAIN AGFwcABzZWNyZXQ=",
    "ETRN x.test",
    "BDAT 0 LAST",
    "NONSENSE",
    "",
    " NOOP",
    "noop",
    "GET / HTTP/1.1",
    "POST / HTTP/1.1",
    "MAILFROM:<a@b.test>",
];

/// As a first command.
const FIRST: &[&str] =
    &["EHLO", "HELO", "EHLO [127.0.0.1]", "EHLO _odd", "EHLO localhost", "EHLO a b", "MAIL FROM:<a@b.test>"];

const SENDERS: &[&str] = &[
    "MAIL FROM:<>",
    "MAIL FROM: <app@sender.test>",
    "mail from:<app@sender.test>",
    "MAIL FROM:app@sender.test",
    "MAIL FROM:",
    "MAIL FROM",
    "MAIL",
    "MAIL TO:<app@sender.test>",
    "MAIL FROM:<app@sender.test> SIZE=1000",
    "MAIL FROM:<app@sender.test> SIZE=100000",
    "MAIL FROM:<app@sender.test> SIZE=x",
    "MAIL FROM:<app@sender.test> BODY=8BITMIME",
    "MAIL FROM:<app@sender.test> BODY=7BIT",
    "MAIL FROM:<app@sender.test> BODY=BINARYMIME",
    "MAIL FROM:<app@sender.test> RET=HDRS ENVID=abc",
    "MAIL FROM:<app@sender.test> RET=SOME",
    "MAIL FROM:<app@sender.test> FOO=bar",
    "MAIL FROM:<app@sender.test> SMTPUTF8",
    "MAIL FROM:<\u{fc}@sender.test>",
    "MAIL FROM:<\u{fc}@sender.test> SMTPUTF8",
    "MAIL FROM:<app@sender.test> AUTH=<>",
    "MAIL FROM:<app@sender.test",
    "MAIL FROM:<app@sender.test>>",
    "MAIL FROM:<@a.test:app@sender.test>",
    "MAIL FROM:<app@sender..test>",
    "MAIL FROM:<a b@sender.test>",
    "MAIL FROM:<\"a b\"@sender.test>",
    "MAIL FROM:<app@[192.0.2.1]>",
    "MAIL FROM:<app@192.0.2.1>",
    "MAIL FROM:<app>",
];

const RECIPIENT_FORMS: &[&str] = &[
    "RCPT TO:<>",
    "RCPT TO: <u@x.test>",
    "rcpt to:<u@x.test>",
    "RCPT TO:u@x.test",
    "RCPT TO:",
    "RCPT TO:<postmaster>",
    "RCPT TO:<u%other.test@x.test>",
    "RCPT TO:<other.test!u@x.test>",
    "RCPT TO:<\"u@other.test\"@x.test>",
    "RCPT TO:<\"a b\"@x.test>",
    "RCPT TO:<\"\"@x.test>",
    "RCPT TO:<a..b@x.test>",
    "RCPT TO:<@a.test:u@x.test>",
    "RCPT TO:<@a.test,@b.test:u@x.test>",
    "RCPT TO:<u@x.test.>",
    "RCPT TO:<u@x.test >",
    "RCPT TO:<u@x.test>x",
    "RCPT TO:<u@other.test@x.test>",
    "RCPT TO:<u@[127.0.0.1]>",
    "RCPT TO:<u@[IPv6:::1]>",
    "RCPT TO:<u@127.0.0.1>",
    "RCPT TO:<u@>",
    "RCPT TO:<u\t@x.test>",
    "RCPT TO:<u>",
    "RCPT TO:<\u{fc}@x.test>",
    "RCPT TO:<u@x.test> NOTIFY=NEVER",
    "RCPT TO:<u@x.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;u@x.test",
    "RCPT TO:<u@x.test> NOTIFY=NEVER,FAILURE",
    "RCPT TO:<u@x.test> ORCPT=u",
    "RCPT TO:<u@x.test> FOO=bar",
    "RCPT TO:<u@x.test",
];

/// Sent behind DATA like the ends that are none, before octets that look like another message: these end it.
const TRUE_ENDS: &[(&str, &[u8])] = &[("CRCRLF . CRLF", b"\r\r\n.\r\n"), ("true end", b"\r\n.\r\n")];

const SMUGGLED: &[u8] =
    b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@x.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\nQUIT\r\n";

fn dialogue(name: &str, lines: &[&str], last: &[u8]) -> Dialogue {
    Dialogue { name: name.to_string(), lines: lines.iter().map(|line| line.to_string()).collect(), last: last.to_vec() }
}

pub(super) fn scripted() -> Vec<Dialogue> {
    let quit = b"QUIT\r\n";
    let mut all = Vec::new();
    all.extend(FIRST.iter().map(|line| dialogue(&format!("first {line}"), &[line], quit)));
    all.extend(AFTER_HELLO.iter().map(|line| dialogue(&format!("then {line}"), &[HELLO, line], quit)));
    all.extend(SENDERS.iter().map(|line| dialogue(line, &[HELLO, line], quit)));
    all.extend(RECIPIENT_FORMS.iter().map(|line| dialogue(line, &[HELLO, MAIL, line], quit)));
    for (name, octets) in FAKE_ENDS.iter().chain(TRUE_ENDS) {
        let last = [b"Subject: s\r\n\r\nbefore", *octets, SMUGGLED].concat();
        all.push(dialogue(&format!("data {name}"), &[HELLO, MAIL, RCPT, "DATA"], &last));
    }
    all.extend(orders());
    all.extend(floods());
    all
}

/// What may come when.
fn orders() -> Vec<Dialogue> {
    let message = b"Subject: s\r\n\r\nx\r\n.\r\nQUIT\r\n";
    let once: &[u8] = b"Subject: s\r\n\r\nx\r\n.\r\n";
    vec![
        dialogue("one message", &[HELLO, MAIL, RCPT, "DATA"], message),
        dialogue("one message after HELO", &["HELO client.test", MAIL, RCPT, "DATA"], message),
        dialogue("an empty message", &[HELLO, MAIL, RCPT, "DATA"], b".\r\nQUIT\r\n"),
        dialogue("a message that does not end", &[HELLO, MAIL, RCPT, "DATA"], b"Subject: s\r\n\r\nx\r\n"),
        dialogue("DATA without RCPT", &[HELLO, MAIL, "DATA"], b"QUIT\r\n"),
        dialogue("MAIL twice", &[HELLO, MAIL, MAIL], b"QUIT\r\n"),
        dialogue("RCPT after RSET", &[HELLO, MAIL, "RSET", RCPT], b"QUIT\r\n"),
        dialogue("RCPT after EHLO", &[HELLO, MAIL, HELLO, RCPT], b"QUIT\r\n"),
        dialogue("DATA after EHLO", &[HELLO, MAIL, RCPT, HELLO, "DATA"], b"QUIT\r\n"),
        dialogue("DATA with words", &[HELLO, MAIL, RCPT, "DATA now"], b"QUIT\r\n"),
        dialogue(
            "the envelope is gone after a message",
            &[HELLO, MAIL, RCPT, "DATA"],
            &[once, b"RCPT TO:<u@x.test>\r\nDATA\r\nQUIT\r\n"].concat(),
        ),
        dialogue(
            "two messages",
            &[HELLO, MAIL, RCPT, "DATA"],
            &[once, b"MAIL FROM:<>\r\nRCPT TO:<u@x.test>\r\nRSET\r\nQUIT\r\n"].concat(),
        ),
        dialogue(
            "a pipelined envelope",
            &[HELLO],
            b"MAIL FROM:<app@sender.test>\r\nRCPT TO:<u@x.test>\r\nRCPT TO:<v@x.test>\r\nDATA\r\n",
        ),
        dialogue(
            "pipelining before EHLO",
            &[],
            b"EHLO client.test\r\nMAIL FROM:<app@sender.test>\r\nRCPT TO:<u@x.test>\r\nQUIT\r\n",
        ),
        dialogue("pipelining past EHLO", &[], b"EHLO client.test\r\nNOOP\r\nQUIT\r\n"),
        dialogue(
            "a body behind a refused DATA",
            &[HELLO],
            b"MAIL FROM:<app@sender.test>\r\nDATA\r\nSubject: s\r\n\r\nRSET\r\n.\r\nQUIT\r\n",
        ),
        dialogue(
            "a message with its envelope in one flight",
            &[HELLO],
            b"MAIL FROM:<app@sender.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\nQUIT\r\n",
        ),
        dialogue(
            "BDAT that is not offered",
            &[HELLO],
            b"MAIL FROM:<app@sender.test>\r\nRCPT TO:<u@x.test>\r\nBDAT 6 LAST\r\nRSET\r\nQUIT\r\n",
        ),
        dialogue("commands with LF alone", &[], b"EHLO client.test\nQUIT\n"),
        dialogue("octets that are no UTF-8", &[HELLO], b"MAIL FROM:<\xff@sender.test>\r\nNOOP \xff\r\nQUIT\r\n"),
        dialogue("NUL in a command", &[HELLO], b"NOOP \0\r\nRSET\r\nQUIT\r\n"),
        dialogue("CR in a command", &[HELLO], b"NOOP a\rb\r\nRSET\r\nQUIT\r\n"),
    ]
}

/// More of something than there may be.
fn floods() -> Vec<Dialogue> {
    let six: Vec<String> = (0..6).map(|n| format!("RCPT TO:<u{n}@x.test>")).collect();
    let mut recipients = vec![HELLO, MAIL];
    recipients.extend(six.iter().map(String::as_str));
    let local = |length: usize| format!("RCPT TO:<{}@x.test>", "a".repeat(length));
    let long_line = [b"NOOP ", "x".repeat(5000).as_bytes(), b"\r\nQUIT\r\n"].concat();
    let body_line = [b"Subject: s\r\n\r\n", "x".repeat(3000).as_bytes(), b"\r\n.\r\nQUIT\r\n"].concat();
    let large = [b"Subject: s\r\n\r\n", "0123456789\r\n".repeat(6000).as_bytes(), b".\r\nRSET\r\nQUIT\r\n"].concat();
    vec![
        dialogue("six recipients where five may be", &recipients, b"QUIT\r\n"),
        dialogue("a local part of 64", &[HELLO, MAIL, &local(64)], b"QUIT\r\n"),
        dialogue("a local part of 65", &[HELLO, MAIL, &local(65)], b"QUIT\r\n"),
        dialogue("a command of 5000 octets", &[HELLO], &long_line),
        dialogue("a line of 3000 octets in a message", &[HELLO, MAIL, RCPT, "DATA"], &body_line),
        dialogue("a message over the limit", &[HELLO, MAIL, RCPT, "DATA"], &large),
        dialogue("twenty commands nobody knows", &[&[HELLO], &["NONSENSE"; 20][..]].concat(), b"QUIT\r\n"),
        dialogue("sixty NOOPs", &[&[HELLO], &["NOOP"; 60][..]].concat(), b"QUIT\r\n"),
    ]
}

/// What a walk is made of. Commands on whose meaning all agree; what came of each is seen in the replies to the others.
const STEPS: &[&str] = &[
    "EHLO client.test",
    "HELO client.test",
    "MAIL FROM:<app@sender.test>",
    "MAIL FROM:<app@sender.test> SIZE=100000",
    "MAIL FROM:<>",
    "MAIL FROM:<a b@sender.test>",
    "RCPT TO:<u@x.test>",
    "RCPT TO:<v@x.test>",
    "RCPT TO:<u@>",
    "RCPT TO:<u@x.test> FOO=bar",
    "RSET",
    "NOOP",
    "VRFY u@x.test",
    "NONSENSE",
];

/// The same walks every time. None says DATA: what a refused one leaves behind is in the scripts.
pub(super) fn walks() -> Vec<Dialogue> {
    (0..WALKS).map(walk).collect()
}

fn walk(seed: u64) -> Dialogue {
    let mut chance = fastrand::Rng::with_seed(seed);
    let length = chance.usize(4..WALK_LINES);
    let mut lines: Vec<&str> = Vec::new();
    for _ in 0..length {
        // A walk that gets nowhere shows nothing: the usual next step is taken as often as any.
        let usual = match lines.last() {
            None => HELLO,
            Some(line) if line.starts_with("EHLO") || line.starts_with("RSET") => MAIL,
            _ => RCPT,
        };
        lines.push(if chance.bool() { usual } else { STEPS[chance.usize(0..STEPS.len())] });
    }
    dialogue(&format!("walk {seed}"), &lines, b"QUIT\r\n")
}
