//! Signing (`dkim`): how a message is cut changes nothing; a body has the hash of its plainly read relaxed form; what hosts on the way add
//! changes no signature, what a forger adds does.

use std::sync::Arc;

use weir::dkim::key::Key;
use weir::dkim::{BodyHash, Signer, Signers, Signing, Unsigned};
use weir::types::Domain;

use super::kit::{self, normalized};

/// The key of RFC 8463 appendix A.2, as PKCS#8: a new one each time would be chance.
const KEY: &[u8] = b"MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";

pub fn check(content: &[u8]) {
    // Contents are stored with CRLF alone, and with a blank line behind the header.
    let mut message = normalized(content);
    if !message.starts_with(b"\r\n") && !message.windows(4).any(|window| window == b"\r\n\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    let signers = Arc::new(Signers::new(vec![Signer {
        domain: Domain::parse("example.com").expect("a domain"),
        selector: "s".to_string(),
        key: Key::read(KEY).expect("a key"),
        skip_signed: false,
    }]));
    body(content);
    let whole = sign(&signers, &[&message]);
    for cut in kit::places(message.len()).filter(|&cut| cut == 0 || message[cut - 1] != b'\r') {
        let (first, second) = message.split_at(cut);
        assert_eq!(sign(&signers, &[first, second]), whole, "cut at {cut}");
    }
    let with = |field: &[u8]| sign(&signers, &[field, &message]);
    // A first line that goes on with a field would go on with these.
    if !message.starts_with(b" ") && !message.starts_with(b"\t") {
        assert_eq!(
            with(b"Received: from x\r\n\tby y\r\nReturn-Path: <a@b>\r\nX-Mine: 1\r\n"),
            whole,
            "added on the way"
        );
        if whole.is_ok() {
            assert_eq!(with(b"From: evil@example.com\r\n"), Err(Unsigned::NoAuthor), "a second author");
            assert_ne!(with(b"Subject: evil\r\n"), whole, "a forged subject");
        }
    }
}

/// Each piece goes to the header until that ends, then to the body, as the relay does it.
fn sign(signers: &Arc<Signers>, pieces: &[&[u8]]) -> Result<String, Unsigned> {
    let (mut signing, mut draft) = (Signing::new(signers.clone()), None);
    for piece in pieces {
        match (&draft, signing.look(piece).filter(|_| draft.is_none())) {
            (None, Some(end)) => {
                draft = Some(signing.draft(7)?);
                signing.body(&piece[end..]);
            }
            (None, None) => {}
            (Some(_), _) => signing.body(piece),
        }
    }
    let draft = draft.map_or_else(|| signing.draft(7), Ok)?;
    let signed = signing.finish().sign().expect("a signature");
    assert_eq!(signed.len(), draft.len(), "as long as its draft");
    let text = String::from_utf8(signed).expect("ASCII");
    assert!(text.is_ascii() && text.ends_with("\r\n") && text.lines().all(|line| line.len() <= 78), "{text}");
    Ok(text)
}

fn body(octets: &[u8]) {
    let hash = |octets: &[u8]| {
        let mut hash = BodyHash::default();
        hash.take(octets);
        hash.finish().as_ref().to_vec()
    };
    assert_eq!(hash(octets), hash(&relaxed(octets)), "the hash of the relaxed form");
}

/// RFC 6376 section 3.4.4, read plainly.
fn relaxed(octets: &[u8]) -> Vec<u8> {
    let text = normalized(octets);
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        let mut out: Vec<u8> = Vec::new();
        for &octet in line {
            match octet {
                b' ' | b'\t' if out.last() == Some(&b' ') => {}
                b' ' | b'\t' => out.push(b' '),
                other => out.push(other),
            }
        }
        while out.last() == Some(&b' ') {
            out.pop();
        }
        lines.push(out);
    }
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines.iter().flat_map(|line| line.iter().copied().chain(*b"\r\n")).collect()
}
