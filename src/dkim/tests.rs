//! The examples of RFC 8463 appendix A: the same hashes, and octet for octet the same signatures.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::header::{Field, Scan};
use super::key::{Key, Kind};
use super::*;
use crate::types::Domain;

const MESSAGE: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
    To: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\
    \r\n\
    Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
const BODY_HASH: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";
/// `h=` of both signatures.
const NAMES: [&str; 8] = ["from", "to", "subject", "date", "message-id", "from", "subject", "date"];

const RSA: &str = "-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----";
const ED25519_SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const ED25519_PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

const RSA_FIELD: &str = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n \
    date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=";
const RSA_SIGNATURE: &str = "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\
    DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\
    dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=";
const ED25519_FIELD: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
    subject : date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=";
const ED25519_SIGNATURE: &str = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\
    Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==";

fn ed25519() -> Key {
    // PKCS#8 (RFC 8410 section 7): the seed behind its algorithm.
    let seed = STANDARD.decode(ED25519_SEED).unwrap();
    let der = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
    Key::read(STANDARD.encode(der).as_bytes()).unwrap()
}

/// The signature of the example's message with this field.
fn signed(key: &Key, field: &str) -> String {
    let mut scan = Scan::default();
    scan.take(MESSAGE.as_bytes());
    let mut left: Vec<&Field> = scan.fields().iter().collect();
    let mut context = Context::new(&SHA256);
    for name in NAMES {
        if let Some(at) = left.iter().rposition(|field| field.is(name)) {
            context.update(left.remove(at).relaxed());
        }
    }
    let own = Field::of(field.as_bytes()).unwrap();
    context.update(own.relaxed().strip_suffix(b"\r\n").unwrap());
    STANDARD.encode(key.sign(&context.finish()).unwrap())
}

#[test]
fn the_examples_of_the_standard_have_their_hash_and_their_signatures() {
    let mut body = BodyHash::default();
    body.take(MESSAGE.split_once("\r\n\r\n").unwrap().1.as_bytes());
    assert_eq!(STANDARD.encode(body.finish().as_ref()), BODY_HASH);
    let rsa = Key::read(RSA.as_bytes()).unwrap();
    assert!(rsa.is_short() && rsa.what() == "RSA with 1024 bits");
    assert_eq!(signed(&rsa, RSA_FIELD), RSA_SIGNATURE);
    let ed25519 = ed25519();
    assert_eq!(STANDARD.encode(ed25519.public()), ED25519_PUBLIC);
    assert_eq!(signed(&ed25519, ED25519_FIELD), ED25519_SIGNATURE);
}

fn signers(keys: Vec<Key>) -> Arc<Signers> {
    let domain = Domain::parse("football.example.com").unwrap();
    let selectors = ["one", "two"].into_iter();
    let signer = |(key, selector): (Key, &str)| Signer {
        domain: domain.clone(),
        selector: selector.to_string(),
        key,
        skip_signed: false,
    };
    Arc::new(Signers::new(keys.into_iter().zip(selectors).map(signer).collect()))
}

#[test]
fn a_field_is_as_long_as_its_draft_and_its_lines_are_short() {
    let keys = vec![Key::generate(Kind::Rsa).unwrap().0, ed25519()];
    let mut signing = Signing::new(signers(keys));
    let end = signing.look(MESSAGE.as_bytes()).unwrap();
    let draft = signing.draft(1_795_293_220).unwrap();
    signing.body(&MESSAGE.as_bytes()[end..]);
    let signed = signing.finish().sign().unwrap();
    let text = String::from_utf8(signed.clone()).unwrap();
    assert_eq!((signed.len(), text.matches("DKIM-Signature: v=1;").count()), (draft.len(), 2));
    assert!(text.lines().all(|line| line.len() <= 78), "{text}");
    assert!(
        text.contains(BODY_HASH) && text.contains("t=1795293220") && text.contains("\th=From:From:Reply-To:To:To:Cc:")
    );
}

#[test]
fn how_a_message_is_cut_changes_no_signature() {
    let signers = signers(vec![ed25519()]);
    let whole = signers.prepare(MESSAGE.as_bytes(), 7).unwrap().sign().unwrap();
    for size in 1..60 {
        let mut signing = Signing::new(signers.clone());
        let mut in_header = true;
        let mut rest = MESSAGE.as_bytes();
        while !rest.is_empty() {
            // A CRLF of the header is never cut in two.
            let size = size.min(rest.len());
            let cut = if in_header && rest[size - 1] == b'\r' { size + 1 } else { size };
            let (piece, after) = rest.split_at(cut);
            rest = after;
            match signing.look(piece).filter(|_| in_header) {
                Some(end) => {
                    in_header = false;
                    signing.draft(7).unwrap();
                    signing.body(&piece[end..]);
                }
                None if in_header => {}
                None => signing.body(piece),
            }
        }
        assert_eq!(signing.finish().sign().unwrap(), whole, "{size}");
    }
}
