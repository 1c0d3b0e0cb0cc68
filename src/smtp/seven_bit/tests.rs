//! What is converted decodes to what it was, however it is cut, and what is sealed is left alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

fn plan(content: &[u8]) -> Result<Option<Plan>, Obstacle> {
    let mut survey = Survey::new(|value| value.starts_with(b" ours"));
    survey.take(content);
    survey.finish()
}

/// Converted in pieces of this size; none: there is nothing to convert.
fn converted(content: &[u8], size: usize) -> Result<Option<Vec<u8>>, Obstacle> {
    let mut survey = Survey::new(|value| value.starts_with(b" ours"));
    content.chunks(size).for_each(|piece| survey.take(piece));
    let Some(plan) = survey.finish()? else { return Ok(None) };
    let (mut converter, mut out) = (Converter::new(plan), Vec::new());
    content.chunks(size).for_each(|piece| converter.take(piece, &mut out));
    converter.finish(&mut out);
    Ok(Some(out))
}

fn text(content: &[u8]) -> String {
    String::from_utf8_lossy(&converted(content, 7).unwrap().expect("there is something to convert")).into_owned()
}

#[test]
fn a_text_becomes_quoted_printable_and_says_so() {
    let content = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nSubject: s\r\n\
                   \r\nGrüße = alle \r\n.\r\n";
    assert_eq!(
        text(content.as_bytes()),
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nSubject: s\r\nContent-Transfer-Encoding: quoted-printable\r\n\
         \r\nGr=C3=BC=C3=9Fe =3D alle=20\r\n.\r\n"
    );
}

#[test]
fn a_text_that_is_mostly_beyond_ascii_becomes_base64() {
    let body = "Привет, мир\r\n";
    let content = format!("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}");
    let text = text(content.as_bytes());
    let (header, encoded) = text.split_once("\r\n\r\n").unwrap();
    assert!(header.ends_with("Content-Transfer-Encoding: base64"), "{header}");
    assert_eq!(STANDARD.decode(encoded.trim_end()).unwrap(), body.as_bytes());
}

#[test]
fn a_message_without_mime_becomes_one() {
    for (body, charset) in [(&b"Gr\xc3\xbc\xc3\x9fe\r\n"[..], "utf-8"), (b"Gr\xfc\xdfe\r\n", "unknown-8bit")] {
        let text = text(&[b"Subject: s\r\n\r\n", body].concat());
        let header = text.split_once("\r\n\r\n").unwrap().0;
        assert_eq!(
            header,
            format!(
                "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: quoted-printable"
            )
        );
    }
}

const MIXED: &str = "Subject: s\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: multipart/mixed;\r\n boundary=\"b 1\"\r\n\r\n\
                     Für alte Leser\r\n--b 1\r\nContent-Type: text/plain; charset=utf-8\r\ncontent-transfer-encoding: 8bit\r\nX-Kept: ü\r\n\r\n\
                     Grüße an alle, die das hier lesen\r\n\r\n--b 1  \r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b 1\r\n\
                     Content-Type: application/octet-stream\r\n\r\nö\r\n--b 1--\r\nepilogue\r\n";

#[test]
fn each_part_is_converted_for_itself_and_the_whole_says_seven_bit() {
    assert_eq!(
        text(MIXED.as_bytes()),
        "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"b 1\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         F??r alte Leser\r\n--b 1\r\nContent-Type: text/plain; charset=utf-8\r\nX-Kept: ü\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         Gr=C3=BC=C3=9Fe an alle, die das hier lesen\r\n\r\n--b 1  \r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b 1\r\n\
         Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nw7Y=\r\n--b 1--\r\nepilogue\r\n"
    );
}

#[test]
fn a_message_within_is_converted_too() {
    let content = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822\r\n\
                   Content-Transfer-Encoding: 8bit\r\n\r\nSubject: inner\r\n\r\nGrüße aus dem Innern\r\n--o--\r\n";
    let text = text(content.as_bytes());
    assert!(text.contains("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n"), "{text}");
    assert!(text.contains("Gr=C3=BC=C3=9Fe aus dem Innern\r\n--o--"), "{text}");
}

#[test]
fn what_is_sealed_is_no_matter_for_conversion() {
    let part = |kind: &str, body: &str| format!("--o\r\nContent-Type: {kind}\r\n\r\n{body}\r\n");
    let whole = |header: &str, parts: &str| {
        format!("{header}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n{parts}--o--\r\n")
            .into_bytes()
    };
    let signed = |body: &str| {
        format!(
            "multipart/signed; boundary=i\r\n\r\n--i\r\n\r\n{body}\r\n--i\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--i--"
        )
    };
    let german = part("text/plain", "Grüße");
    for (content, expected) in [
        (whole("DKIM-Signature: theirs\r\n", &german), Some(Obstacle::Signature)),
        (whole("ARC-Message-Signature: i=1\r\n", &german), Some(Obstacle::Signature)),
        (whole("DKIM-Signature: ours\r\n", &german), None),
        (whole("DKIM-Signature: ours\r\ndkim-signature: theirs\r\n", &german), Some(Obstacle::Signature)),
        (whole("", &part(&signed("ü"), "")), Some(Obstacle::Signed)),
        // Signed in seven bits: its neighbour may change.
        (whole("", &(part(&signed("u"), "") + &german)), None),
        (
            whole("", &part("multipart/encrypted; boundary=i\r\n\r\n--i\r\n\r\nü\r\n--i--", "")),
            Some(Obstacle::Encrypted),
        ),
        (whole("", &part("application/pkcs7-mime; smime-type=signed-data", "ü")), Some(Obstacle::Signed)),
        (whole("", &part("message/rfc822\r\n\r\nDKIM-Signature: ours\r\n\r\nü", "")), None),
        (whole("", &part("message/partial; id=x", "ü")), Some(Obstacle::Type)),
        (whole("", &part("multipart/mixed", "ü")), Some(Obstacle::Type)),
        (whole("", &part("text/plain\r\nContent-Transfer-Encoding: base64", "ü")), Some(Obstacle::Encoding)),
        (whole("", &part("text/plain\r\nContent-Transfer-Encoding: x-uuencode", "ü")), Some(Obstacle::Encoding)),
    ] {
        assert_eq!(plan(&content).err(), expected, "{}", String::from_utf8_lossy(&content));
    }
    let plan = plan(&whole("DKIM-Signature: ours\r\n x\r\nTo: b\r\n", &german)).unwrap().unwrap();
    assert!(plan.is_signed_anew());
    assert!(text(&whole("DKIM-Signature: ours\r\n x\r\nTo: b\r\n", &german)).starts_with("To: b\r\n"));
}

#[test]
fn seven_bit_content_is_nobodys_business() {
    let deep = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n".repeat(200);
    let many = format!("Content-Type: multipart/mixed; boundary=o\r\n\r\n{}", "--o\r\n\r\nx\r\n".repeat(5000));
    let long = format!("X: {}\r\n\r\nx\r\n", "y".repeat(400_000));
    for content in ["", "x", "Subject: s\r\n\r\nx\r\n", "DKIM-Signature: theirs\r\n\r\nx\r\n", &deep, &many, &long] {
        assert_eq!(plan(content.as_bytes()).map(|plan| plan.is_none()), Ok(true));
    }
    for content in [&deep, &many, &long] {
        assert_eq!(plan(format!("{content}\r\nü\r\n").as_bytes()).err(), Some(Obstacle::TooComplex));
    }
}

#[test]
fn no_soft_line_end_makes_a_delimiter() {
    for n in 50..90 {
        let line = format!("{}ü--o\r\n", "x".repeat(n));
        let content =
            format!("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\n{line}--o--\r\n");
        assert_eq!(leaves(text(content.as_bytes()).as_bytes()), leaves(content.as_bytes()), "{n}");
    }
}

// ---- an independent reader ----

/// The decoded bodies, in order.
fn leaves(content: &[u8]) -> Vec<Vec<u8>> {
    let (header, body) = match memchr::memmem::find(content, b"\r\n\r\n") {
        _ if content.starts_with(b"\r\n") => (&b""[..], &content[2..]),
        Some(at) => (&content[..at + 2], &content[at + 4..]),
        None => (content, &b""[..]),
    };
    let header = String::from_utf8_lossy(header).to_ascii_lowercase().replace("\r\n ", " ");
    let field =
        |name: &str| header.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_string();
    let kind = field("content-type:");
    if kind.starts_with("multipart/") {
        let boundary = kind.split("boundary=").nth(1).unwrap().trim_matches('"').to_string();
        return parts(body, &boundary).into_iter().flat_map(leaves).collect();
    }
    if kind.starts_with("message/rfc822") {
        return leaves(body);
    }
    vec![match field("content-transfer-encoding:").as_str() {
        "base64" => {
            STANDARD.decode(body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>()).unwrap()
        }
        "quoted-printable" => unquoted(body),
        _ => body.to_vec(),
    }]
}

/// Between the delimiters, the line end before each left out.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    for line in body.split_inclusive(|&b| b == b'\n') {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text == format!("--{boundary}") || text == format!("--{boundary}--") {
            starts.push((at, at + line.len(), text.ends_with("--") && text.len() > boundary.len() + 2));
        }
        at += line.len();
    }
    starts
        .windows(2)
        .filter(|pair| !pair[0].2)
        .map(|pair| &body[pair[0].1..pair[1].0.saturating_sub(2).max(pair[0].1)])
        .collect()
}

fn unquoted(body: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < body.len() {
        match &body[at..] {
            [b'=', b'\r', b'\n', ..] => at += 3,
            [b'=', hex @ ..] => {
                out.push(u8::from_str_radix(std::str::from_utf8(&hex[..2]).unwrap(), 16).unwrap());
                at += 3;
            }
            [octet, ..] => {
                out.push(*octet);
                at += 1;
            }
            [] => {}
        }
    }
    out
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let words = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b" ".to_vec()),
        Just(b"=".to_vec()),
        Just(b"--".to_vec()),
        Just(b".".to_vec()),
        Just(b"\r".to_vec()),
        Just("Grüße".as_bytes().to_vec()),
        prop::collection::vec(any::<u8>().prop_map(|b| if b == b'\n' { b'x' } else { b }), 0..90),
    ];
    prop::collection::vec(words, 0..12).prop_map(|words| {
        let mut body = words.concat();
        // The end is told apart from what follows in a content by its line end.
        while body.last() == Some(&b'\r') {
            body.pop();
        }
        body
    })
}

fn entity() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![Just("text/plain"), Just("text/html; charset=x"), Just("application/pdf"), Just("")];
    let leaf = (kinds, body()).prop_map(|(kind, body)| {
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        [format!("{kind}X-Own: y\r\n\r\n").as_bytes(), &body].concat()
    });
    leaf.prop_recursive(3, 12, 4, |inner| {
        (prop::collection::vec(inner, 1..4), "[a-z]{1,8}[0-9]{6}").prop_map(|(parts, boundary)| {
            let mut content =
                format!("X-Own: z\r\nContent-Type: multipart/mixed; boundary={boundary}\r\n\r\nbefore").into_bytes();
            for part in parts {
                content.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
                content.extend_from_slice(&part);
            }
            content.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            content
        })
    })
}

proptest! {
    #[test]
    fn what_is_converted_decodes_to_what_it_was(entity in entity(), size in 1usize..200) {
        let content = [b"MIME-Version: 1.0\r\n", &entity[..], b"\r\n"].concat();
        let at_once = converted(&content, content.len());
        let Ok(Some(out)) = at_once.clone() else {
            prop_assert!(content.is_ascii(), "{at_once:?}");
            return Ok(());
        };
        prop_assert_eq!(converted(&content, size), at_once);
        prop_assert!(out.is_ascii());
        prop_assert_eq!(leaves(&out), leaves(&content));
        let fields = |content: &[u8]| String::from_utf8_lossy(content).matches("\r\nX-Own: ").count();
        prop_assert_eq!(fields(&out), fields(&content));
        prop_assert_eq!(plan(&out).map(|plan| plan.is_none()), Ok(true));
    }

    #[test]
    fn whatever_comes_nothing_is_lost_or_grows(content in prop::collection::vec(prop_oneof![
        Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'o'), Just(b':'), Just(b' '), any::<u8>()
    ], 0..300), size in 1usize..40) {
        let header = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\n";
        let content = [&header[..], &content].concat();
        let mut told = Vec::new();
        let mut walker = Walker::default();
        let mut tell = |event: Event<'_>| match event {
            Event::Header { octets, .. } | Event::Body(octets) | Event::Outside(octets) | Event::Delimiter(octets) => {
                told.extend_from_slice(octets);
            }
            Event::TooComplex => {}
        };
        content.chunks(size).for_each(|piece| walker.feed(piece, &mut tell));
        walker.finish(&mut tell);
        prop_assert_eq!(told, content.clone());
        prop_assert_eq!(converted(&content, size), converted(&content, content.len()));
    }

    #[test]
    fn lines_that_are_written_are_short(body in body()) {
        let content = [b"MIME-Version: 1.0\r\n\r\n", &body[..], b"\r\n"].concat();
        if let Ok(Some(out)) = converted(&content, 11) {
            let body = &out[memchr::memmem::find(&out, b"\r\n\r\n").unwrap() + 4..];
            prop_assert!(body.split(|&b| b == b'\n').all(|line| line.len() <= 77), "{}", out.escape_ascii());
        }
    }
}
