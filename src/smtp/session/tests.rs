//! The server's state, line by line.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn session() -> Session {
    session_for(3)
}

fn session_for(recipients: usize) -> Session {
    let settings = Settings { hostname: "relay.example".to_string(), message_size: 1000, recipients };
    Session::new(Arc::new(settings), Offers::default(), false)
}

/// Plays lines with an owner that admits everybody; gives the reply lines.
fn play(session: &mut Session, lines: &[&str]) -> Vec<String> {
    let mut replies = Vec::new();
    for line in lines {
        let mut out = Vec::new();
        let mut action = session.command(line.as_bytes(), &mut out);
        action = match action {
            Action::Admit(mail) => session.begin(*mail, None, &mut out),
            Action::AdmitRecipient(rcpt) => match rcpt.path {
                ForwardPath::Mailbox(address) => {
                    let recipient = Recipient { address, orcpt: rcpt.orcpt, notify: rcpt.notify };
                    session.add(recipient, &mut out)
                }
                ForwardPath::Postmaster => session.refuse_recipient(&replies::NO_POSTMASTER.plain(), &mut out),
            },
            other => other,
        };
        let text = String::from_utf8(out).unwrap();
        replies.push(text.lines().map(|l| l.get(..9).unwrap_or(l).trim_end()).collect::<Vec<_>>().join(","));
        if matches!(action, Action::Close | Action::Part) {
            replies.push("closed".to_string());
            break;
        }
    }
    replies
}

#[test]
fn commands_out_of_order_are_refused() {
    for (lines, replies) in [
        (&["MAIL FROM:<>"][..], &["503 5.5.1"][..]),
        (&["HELO a", "RCPT TO:<a@b.example>"], &["250 relay", "503 5.5.1"]),
        (&["HELO a", "DATA"], &["250 relay", "503 5.5.1"]),
        (&["HELO a", "MAIL FROM:<>", "MAIL FROM:<>"], &["250 relay", "250 2.1.0", "503 5.5.1"]),
        (&["HELO a", "MAIL FROM:<>", "DATA"], &["250 relay", "250 2.1.0", "503 5.5.1"]),
        (&["HELO a", "MAIL FROM:<>", "RSET", "DATA"], &["250 relay", "250 2.1.0", "250 2.0.0", "503 5.5.1"]),
        (
            &["HELO a", "MAIL FROM:<>", "HELO b", "RCPT TO:<a@b.example>"],
            &["250 relay", "250 2.1.0", "250 relay", "503 5.5.1"],
        ),
        (
            &["RSET", "NOOP", "HELP", "VRFY a", "QUIT"],
            &["250 2.0.0", "250 2.0.0", "214 2.0.0", "252 2.0.0", "221 2.0.0", "closed"],
        ),
        (&["HELO a", "MAIL FROM:<> SIZE=1001", "RCPT TO:<a@b.example>"], &["250 relay", "552 5.3.4", "503 5.5.1"]),
        (&["HELO a", "MAIL FROM:<> SIZE=1000"], &["250 relay", "250 2.1.0"]),
        (&["STARTTLS", "EXPN a"], &["502 5.5.1", "502 5.5.1"]),
    ] {
        assert_eq!(play(&mut session(), lines), replies, "{lines:?}");
    }
}

#[test]
fn an_address_beyond_ascii_without_smtputf8_leaves_the_state_as_it_was() {
    let mut one = session();
    let replies = play(
        &mut one,
        &["EHLO a", "MAIL FROM:<ü@b.example>", "DATA", "MAIL FROM:<a@b.example>", "RCPT TO:<ü@b.example>", "DATA"],
    );
    assert_eq!(replies[1..], ["553 5.6.7", "503 5.5.1", "250 2.1.0", "553 5.6.7", "503 5.5.1"]);
    assert_eq!(play(&mut one, &["RCPT TO:<a@b.example>", "DATA"]), ["250 2.1.5", "354 send"]);
    assert_eq!(play(&mut session(), &["EHLO a", "MAIL FROM:<ü@b.example> SMTPUTF8"])[1], "250 2.1.0");
    assert_eq!(play(&mut session(), &["VRFY ü"]), ["553 5.6.7"]);
}

#[test]
fn recipients_beyond_the_limit_are_put_off_alone() {
    let mut one = session();
    let rcpt = "RCPT TO:<a@b.example>";
    let replies = play(&mut one, &["EHLO a", "MAIL FROM:<>", rcpt, rcpt, rcpt, rcpt, "DATA"]);
    assert_eq!(replies[2..], ["250 2.1.5", "250 2.1.5", "250 2.1.5", "452 4.5.3", "354 send"]);
    assert_eq!(one.take_transaction().unwrap().recipients.len(), 3);
}

#[test]
fn offers_what_it_does_and_nothing_else() {
    let mut out = Vec::new();
    session().command(b"EHLO a", &mut out);
    let expected = "250-relay.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 SIZE 1000\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn the_end_of_the_content_ends_the_transaction() {
    for said in [replies::QUEUED.with("X"), replies::SPOOL_FAILED.plain(), replies::NUL_IN_MESSAGE.plain()] {
        let mut one = session();
        play(&mut one, &["EHLO a", "MAIL FROM:<>", "RCPT TO:<a@b.example>", "DATA"]);
        one.end(&said, &mut Vec::new());
        assert_eq!(
            play(&mut one, &["RCPT TO:<a@b.example>", "DATA", "MAIL FROM:<>"]),
            ["503 5.5.1", "503 5.5.1", "250 2.1.0"]
        );
    }
}

#[test]
fn chunks_are_skipped_and_endless_ones_close() {
    let mut one = session();
    let mut out = Vec::new();
    play(&mut one, &["EHLO a", "MAIL FROM:<>"]);
    assert_eq!(one.command(b"BDAT 1000 LAST", &mut out), Action::Skip(1000));
    assert_eq!(one.transaction(), None);
    assert_eq!(one.command(b"BDAT 1001", &mut out), Action::Close);
}

#[test]
fn too_many_errors_end_the_connection() {
    let replies = play(&mut session(), &["WRONG"; 300]);
    assert_eq!((replies[199].as_str(), replies[200].as_str(), replies.len()), ("500 5.5.2", "421 4.7.0", 202));
    let replies = play(&mut session(), &["NOOP"; 300]);
    assert_eq!((replies[199].as_str(), replies[200].as_str(), replies.len()), ("250 2.0.0", "421 4.7.0", 202));
    assert_eq!(play(&mut session(), &["EHLO a"; 300]).len(), 202);
}

#[test]
fn less_is_borne_from_the_moment_it_is_asked_for() {
    let mut one = session();
    assert_eq!(play(&mut one, &["WRONG"; 20]).len(), 20);
    one.tolerate(5, 3);
    assert_eq!(play(&mut one, &["NOOP", "NOOP", "NOOP", "WRONG"])[3..], ["421 4.7.0", "closed"]);
    one.tolerate(30, 3);
    assert_eq!(play(&mut one, &["WRONG", "NOOP"])[..2], ["500 5.5.2", "421 4.7.0"]);
}

#[test]
fn bad_addresses_among_many_do_not_end_the_connection() {
    let mut lines = vec!["EHLO a", "MAIL FROM:<>"];
    lines.extend(["RCPT TO:<no-domain>"; 300]);
    lines.push("RCPT TO:<a@b.example>");
    let replies = play(&mut session_for(30), &lines);
    assert_eq!(replies.last().map(String::as_str), Some("250 2.1.5"));
    lines.splice(2..2, ["RCPT TO:<no-domain>"]);
    assert_eq!(play(&mut session_for(30), &lines).last().map(String::as_str), Some("closed"));
}

proptest! {
    #[test]
    fn every_line_gets_one_reply_in_every_state(
        before in prop::sample::select(vec![0, 1, 2, 3]), line in prop::collection::vec(any::<u8>(), 0..80)
    ) {
        let mut one = session();
        play(&mut one, &["EHLO a", "MAIL FROM:<>", "RCPT TO:<a@b.example>"][..before]);
        let mut out = Vec::new();
        let action = one.command(&line, &mut out);
        let finals = out.split_inclusive(|&b| b == b'\n').filter(|l| l.get(3) == Some(&b' ')).count();
        let asked = matches!(action, Action::Admit(_) | Action::AdmitRecipient(_));
        prop_assert_eq!(finals, usize::from(!asked));
    }
}
