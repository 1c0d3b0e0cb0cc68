//! What passes of a header, what is put before it, and what is read in it, however the octets are cut.

use proptest::prelude::*;

use super::super::from::FromFault;
use super::*;
use crate::types::{Mailbox, QueueId, Requests, Timestamp};

fn trace() -> Trace<'static> {
    Trace {
        helo: "client.example",
        client: "192.0.2.7".parse().unwrap(),
        hostname: "relay.example",
        protocol: "ESMTP",
        private: false,
        tls: None,
        priority: None,
        id: QueueId::from_key(5).unwrap(),
        now: Timestamp::from_secs(1_795_293_220),
    }
}

const DATE: &str = "Date: Sat, 21 Nov 2026 20:33:40 +0000\r\n";
const ID: &str = "Message-ID: <0000000000005@relay.example>\r\n";

/// Passes `content` in pieces, the first `held` of them before the header is released; a cut never falls between CR and LF.
fn pass_some(content: &[u8], cuts: &[usize], held: usize) -> (String, Facts) {
    let mut header = Header::new(&trace());
    let mut out = Vec::new();
    let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (content.len() + 1)).collect();
    bounds.retain(|&at| at == 0 || content.get(at) != Some(&b'\n'));
    bounds.extend([0, content.len()]);
    bounds.sort_unstable();
    for (number, pair) in bounds.windows(2).enumerate() {
        let rest = header.pass(&content[pair[0]..pair[1]], &mut out).to_vec();
        assert!(rest.is_empty() || header.is_over());
        out.extend_from_slice(&rest);
        if number >= held {
            header.release(&mut out);
            assert!(header.held_bytes() <= NAME_MAX + 2);
        }
    }
    header.finish(&mut out);
    let received = trace().received();
    let out = String::from_utf8_lossy(&out).into_owned();
    let rest = out.strip_prefix(&received).expect("our trace stands first");
    (rest.to_string(), header.facts().clone())
}

fn pass(content: &[u8], cuts: &[usize]) -> (String, Facts) {
    pass_some(content, cuts, usize::MAX)
}

#[test]
fn puts_what_is_missing_before_what_the_client_sent() {
    for (content, added) in [
        ("Date: x\r\nMessage-ID: <a@b>\r\n\r\nbody\r\n", String::new()),
        ("date : x\r\nMESSAGE-id:\r\n <a@b>\r\n\r\n", String::new()),
        ("Subject: s\r\n\r\nb\r\n", format!("{DATE}{ID}")),
        ("Date: x\r\n\r\nMessage-ID: <in@body>\r\n", ID.to_string()),
        ("Message-ID: <a@b>\r\nSubject: a\r\n\tb\r\n\r\n", DATE.to_string()),
        ("\r\nb\r\n", format!("{DATE}{ID}")),
    ] {
        for cut in 0..content.len() {
            assert_eq!(pass(content.as_bytes(), &[cut]).0, format!("{added}{content}"), "cut at {cut}");
        }
        let every: Vec<usize> = (0..content.len()).collect();
        assert_eq!(pass(content.as_bytes(), &every).0, format!("{added}{content}"));
    }
}

#[test]
fn a_header_within_one_piece_passes_without_a_copy() {
    let (mut header, mut out) = (Header::new(&trace()), Vec::new());
    let content = b"Subject: s\r\n\r\nbody\r\n";
    assert_eq!(header.pass(content, &mut out).as_ptr_range(), content.as_ptr_range());
    assert_eq!(String::from_utf8(out).unwrap(), format!("{}{DATE}{ID}", trace().received()));
    assert_eq!(header.held_bytes(), 0);
}

#[test]
fn puts_in_the_blank_line_that_is_missing() {
    for (content, header, body) in [
        ("", "", ""),
        ("no header at all\r\n", "", "no header at all\r\n"),
        ("Subject: s\r\nno field\r\nTo: x\r\n", "Subject: s\r\n", "no field\r\nTo: x\r\n"),
        ("Subject: s\r\n", "Subject: s\r\n", ""),
        (" starts with a blank\r\n", "", " starts with a blank\r\n"),
        (": no name\r\n", "", ": no name\r\n"),
        ("ünicode: name\r\n", "", "ünicode: name\r\n"),
        ("From me Sat Nov 21\r\nTo: x\r\n", "", "From me Sat Nov 21\r\nTo: x\r\n"),
    ] {
        for cut in 0..=content.len() {
            assert_eq!(
                pass(content.as_bytes(), &[cut]).0,
                format!("{DATE}{ID}{header}\r\n{body}"),
                "{content:?} at {cut}"
            );
        }
    }
}

#[test]
fn a_header_too_long_to_be_held_gets_what_is_missing_at_its_end() {
    let filler = format!("X-Filler: {}\r\n", "y".repeat(900)).repeat(HELD_MAX / 900 + 1);
    let content = |last: &str| format!("Subject: s\r\n{filler}{last}\r\nbody\r\n");
    for (last, added) in [("", format!("{DATE}{ID}")), ("Date: x\r\n", ID.to_string())] {
        // In one piece nothing is held.
        assert_eq!(pass(content(last).as_bytes(), &[]).0, format!("{added}{}", content(last)));
        let (out, _) = pass(content(last).as_bytes(), &[30_000, 60_000, HELD_MAX + 10]);
        assert_eq!(out, content(&format!("{last}{added}")));
    }
}

#[test]
fn released_early_it_still_finds_everything() {
    let content = "Subject: s\r\nX-Weir-Expire:\r\n 15m\r\nMessage-ID:\r\n <a@b>\r\nReceived: x\r\n\r\nb\r\n";
    for cut in 0..content.len() {
        for held in [0, 1] {
            let (out, facts) = pass_some(content.as_bytes(), &[cut, cut + 5], held);
            let parts: Vec<&str> = out.split(DATE).collect();
            assert_eq!(parts.len(), 2, "one Date: {out}");
            assert_eq!(parts.concat(), content.replace("X-Weir-Expire:\r\n 15m\r\n", ""));
            assert_eq!((facts.message_id.as_deref(), facts.received), (Some("<a@b>"), 1));
            assert_eq!(facts.expire, Some(Duration::from_secs(900)));
        }
    }
}

#[test]
fn a_line_without_end_that_could_be_a_name_is_not_held_for_ever() {
    for content in [format!("{}\r\n", "x".repeat(5000)), format!("{}: long\r\n", "x".repeat(1500))] {
        for cuts in [&[][..], &[100, 900, 1100], &[998], &[999], &[1000, 1499]] {
            let (out, _) = pass(content.as_bytes(), cuts);
            assert_eq!(out, format!("{DATE}{ID}\r\n{content}"));
        }
    }
}

#[test]
fn notes_the_message_id_and_counts_hops() {
    for (field, id) in [
        ("Message-ID: <a@b>", Some("<a@b>")),
        ("message-id:\r\n\t<a.very.long@id>\r\n (comment)", Some("<a.very.long@id>")),
        ("Message-ID: none", None),
        ("Message-ID: <>", None),
    ] {
        let content = format!("Received: a\r\n\tb\r\n{field}\r\nReceived: c\r\n\r\nReceived: body\r\n");
        for cut in 0..content.len() {
            let (_, facts) = pass(content.as_bytes(), &[cut, cut + 3]);
            assert_eq!((facts.message_id.as_deref(), facts.received), (id, 2), "{field}");
        }
    }
    assert_eq!(pass(b"\r\n", &[]).1.message_id.as_deref(), Some("<0000000000005@relay.example>"));
}

#[test]
fn an_order_to_weir_is_obeyed_and_taken_out() {
    let content = "X-Weir-Expire:\r\n 15m\r\nX-Weir-Class: bulk\r\nDate: x\r\nMessage-ID: <a@b>\r\nx-weir-expire: nonsense\r\n\r\nX-Weir-Expire: 1m\r\n";
    for cut in 0..content.len() {
        let (out, facts) = pass(content.as_bytes(), &[cut]);
        assert_eq!(out, "Date: x\r\nMessage-ID: <a@b>\r\n\r\nX-Weir-Expire: 1m\r\n", "cut at {cut}");
        assert_eq!(facts.expire, Some(Duration::from_secs(900)));
    }
}

fn lines() -> impl Strategy<Value = String> {
    prop::collection::vec("(Date|Received|Subject|X y|)(:|)( |)[a:<>]{0,5}", 0..8)
        .prop_map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect())
}

#[test]
fn a_message_says_how_urgent_it_is() {
    for (field, class) in [
        ("Subject: List-Id", Priority::Normal),
        ("List-Unsubscribe: <https://list.example/u>", Priority::Bulk),
        ("list-id:\r\n <news.example>", Priority::Bulk),
        ("Precedence: BULK", Priority::Bulk),
        ("Precedence: list", Priority::Normal),
        ("X-Weir-Class: high\r\nList-Id: <news.example>", Priority::High),
        ("List-Id: <news.example>\r\nX-Weir-Class: Normal", Priority::Normal),
        ("X-Weir-Class: soon", Priority::Normal),
        ("X-Weir-Expire: 15m\r\nList-Id: <codes.example>", Priority::High),
        ("X-Weir-Expire: 2d", Priority::Normal),
        ("X-Weir-Expire: 15m\r\nX-Weir-Class: bulk", Priority::Bulk),
    ] {
        let (out, facts) = pass(format!("{field}\r\n\r\nList-Id: x\r\n").as_bytes(), &[3, 9]);
        assert_eq!(facts.priority(&Requests::default(), Priority::Normal, Priority::High), class, "{field}");
        assert!(!out.contains("X-Weir"), "{field}");
    }
}

#[test]
fn a_message_is_never_more_urgent_than_it_may_be() {
    use Priority::{Bulk, High, Normal};
    for (field, usual, most, class) in [
        ("X-Weir-Class: high", Bulk, Bulk, Bulk),
        ("X-Weir-Class: high", Bulk, Normal, Normal),
        ("X-Weir-Class: normal", Bulk, High, Normal),
        ("X-Weir-Expire: 15m", Normal, Normal, Normal),
        ("X-Weir-Class: bulk", High, High, Bulk),
        ("Subject: s", Bulk, High, Bulk),
        ("Subject: s", High, Normal, Normal),
    ] {
        let (_, facts) = pass(format!("{field}\r\n\r\nx\r\n").as_bytes(), &[]);
        assert_eq!(facts.priority(&Requests::default(), usual, most), class, "{field}, {usual:?}, {most:?}");
    }
}

#[test]
fn domains_are_put_in_where_they_are_missing_however_it_is_cut() {
    let content = "Date: x\r\nFrom: root (Cron Daemon)\r\nX-Weir-Class: bulk\r\nTo: a,\r\n b@c, d\r\nSubject: root\r\n\
                   Message-ID: <a@b>\r\nCc: e\r\n\r\nTo: body\r\n";
    let expected = "Date: x\r\nFrom: root@own.example (Cron Daemon)\r\nTo: a@own.example,\r\n b@c, d@own.example\r\nSubject: root\r\n\
                    Message-ID: <a@b>\r\nCc: e@own.example\r\n\r\nTo: body\r\n";
    for cut in 0..content.len() {
        if content.as_bytes()[cut] == b'\n' {
            continue;
        }
        let mut header = Header::new(&trace()).qualifying(Domain::parse("own.example").ok()).reading_from();
        let mut out = Vec::new();
        for piece in [&content.as_bytes()[..cut], &content.as_bytes()[cut..]] {
            let rest = header.pass(piece, &mut out).to_vec();
            out.extend_from_slice(&rest);
        }
        header.finish(&mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.strip_prefix(&trace().received()), Some(expected), "cut at {cut}");
        assert_eq!(header.facts().authors, Authors::Mailboxes(vec![Mailbox::parse("root@own.example").unwrap()]));
    }
    // A header that ends with its last field, and one that is not held.
    let mut header = Header::new(&trace()).qualifying(Domain::parse("own.example").ok());
    let mut out = Vec::new();
    header.pass(b"Date: x\r\nMessage-ID: <a@b>\r\nTo: a\r\n", &mut out);
    header.finish(&mut out);
    assert!(out.ends_with(b"To: a@own.example\r\n\r\n"));
    let mut header = Header::new(&trace()).qualifying(Domain::parse("own.example").ok());
    let mut out = Vec::new();
    header.pass(b"From: a\r\nTo: a", &mut out);
    header.release(&mut out);
    header.pass(b"b\r\nCc: c\r\n\r\n", &mut out);
    assert!(out.windows(9).any(|w| w == b"From: a@o"), "what was known is whole");
    assert!(String::from_utf8(out).unwrap().contains("To: ab\r\nCc: c\r\n"));
}

proptest! {
    #[test]
    fn what_the_client_sent_is_the_end_of_what_goes_on(
        fields in prop::collection::vec("(Date|Message-ID|Received|Subject):[ a<>]{0,9}(\r\n [a]{1,5})?", 0..6),
        body in "(\r\n[a-z :]{0,9}){0,4}",
        cuts in prop::collection::vec(any::<usize>(), 0..6)
    ) {
        let content: String = fields.iter().map(|field| format!("{field}\r\n")).chain([format!("{body}\r\n")]).collect();
        let (out, _) = pass(content.as_bytes(), &cuts);
        prop_assert!(out.ends_with(&content), "{out:?} from {content:?}");
    }

    #[test]
    fn cuts_change_nothing_and_every_client_octet_passes(
        content in lines(), cuts in prop::collection::vec(any::<usize>(), 0..6), held in 0usize..6
    ) {
        let (out, facts) = pass(content.as_bytes(), &[]);
        prop_assert_eq!(&pass(content.as_bytes(), &cuts), &(out.clone(), facts.clone()));
        let (released, same) = pass_some(content.as_bytes(), &cuts, held);
        prop_assert_eq!(same, facts);
        for out in [out, released] {
            prop_assert!(out.contains("\r\n\r\n") || out.starts_with("\r\n"));
            // The header up to the first blank line is made of fields alone.
            let header = out.split_once("\r\n\r\n").map_or("", |(header, _)| header);
            for (number, line) in header.split("\r\n").filter(|line| !line.is_empty()).enumerate() {
                let kind = classify(format!("{line}\r\n").as_bytes());
                prop_assert!(matches!(kind, Kind::Field(..)) || (number > 0 && kind == Kind::Continuation), "{}", line);
            }
            let plain = out.replacen(DATE, "", 1).replacen(ID, "", 1);
            let added = plain.len() - content.len();
            let is_kept = plain == content || (0..=content.len()).any(|at| {
                content.is_char_boundary(at) && format!("{}\r\n{}", &content[..at], &content[at..]) == plain
            });
            prop_assert!(is_kept && added <= 2, "{} became {}", content, plain);
        }
    }
}

/// Whom a message is from, in one piece and line by line.
fn authors(content: &str) -> Authors {
    let read = |pieces: Vec<&str>| {
        let mut header = Header::new(&trace()).reading_from();
        for piece in pieces {
            header.pass(piece.as_bytes(), &mut Vec::new());
        }
        header.finish(&mut Vec::new());
        header.facts().authors.clone()
    };
    let whole = read(vec![content]);
    assert_eq!(read(content.split_inclusive('\n').collect()), whole);
    whole
}

#[test]
fn whom_a_message_is_from_stands_in_its_one_from_field() {
    let a = Authors::Mailboxes(vec![Mailbox::parse("a@own.example").unwrap()]);
    for (content, expected) in [
        ("Subject: s\r\nFrom: a@own.example\r\n\r\nbody\r\n", a.clone()),
        ("FROM : A\r\n <a@own.example>\r\n\r\n", a.clone()),
        ("From: a@own.example\r\nReply-To: b@evil.example\r\nX-From: x\r\n\r\nFrom: b@evil.example\r\n", a.clone()),
        ("From: a@own.example", a),
        ("Subject: s\r\n\r\nFrom: a@own.example\r\n", Authors::Missing),
        // A line that is no field ends the header, and a blank line is put before it.
        ("Subject: s\r\nno field\r\nFrom: a@own.example\r\n\r\n", Authors::Missing),
        ("From: a@own.example\r\nfrom: b@evil.example\r\n\r\n", Authors::Faulty(FromFault::Two)),
        ("From: a@own.example\r\nSubject: s\r\n \r\nFrom\t: a@own.example\r\n\r\n", Authors::Faulty(FromFault::Two)),
    ] {
        assert_eq!(authors(content), expected, "{content:?}");
    }
    let long = format!("From: a@own.example,\r\n{}b@evil.example\r\n\r\n", " a@own.example,\r\n".repeat(FROM_MAX / 10));
    assert_eq!(authors(&long), Authors::Faulty(FromFault::TooLong));
}

#[test]
fn nobody_asked_nobody_is_told() {
    let mut header = Header::new(&trace());
    header.pass(b"From: a@own.example\r\n\r\n", &mut Vec::new());
    assert_eq!(header.facts().authors, Authors::Missing);
}
