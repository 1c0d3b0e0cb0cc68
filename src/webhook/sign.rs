//! Signatures as Standard Webhooks asks for them (<https://www.standardwebhooks.com>, version 1.0.0): HMAC-SHA256 over
//! `id.timestamp.body`, with every secret there is, so that a secret can be changed without a moment in between.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::types::Timestamp;

/// Before a secret that is written in base64.
const ENCODED: &str = "whsec_";
/// In octets; a shorter one can be guessed at.
pub(super) const SECRET_MIN: usize = 24;
/// Secrets in force at once.
const KEYS_MAX: usize = 8;

/// The keys of the secrets in `text`, which blanks part; the error says what is wrong, and nothing of the secret.
pub(super) fn keys(text: &[u8]) -> Result<Vec<hmac::Key>, &'static str> {
    let keys: Vec<hmac::Key> = secrets(text)?.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect();
    if keys.len() > KEYS_MAX { Err("it holds more than 8 secrets") } else { Ok(keys) }
}

/// The octets of the shortest of the secrets in `text`.
pub(super) fn octets(text: &[u8]) -> Option<usize> {
    secrets(text).ok()?.iter().map(Vec::len).min()
}

fn secrets(text: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text")?;
    text.split_whitespace().map(secret).collect()
}

fn secret(word: &str) -> Result<Vec<u8>, &'static str> {
    let Some(encoded) = word.strip_prefix(ENCODED) else { return Ok(word.as_bytes().to_vec()) };
    let encoded = encoded.trim_end_matches('=');
    match STANDARD_NO_PAD.decode(encoded) {
        Ok(secret) if !secret.is_empty() => Ok(secret),
        _ => Err("what follows `whsec_` is no base64"),
    }
}

/// The fields that tell who sent a request, and that nobody changed it. Without keys there is no signature.
pub(super) fn headers(keys: &[hmac::Key], id: &str, now: Timestamp, body: &str) -> Vec<(&'static str, String)> {
    let timestamp = now.secs().to_string();
    let signature = |key| {
        let mut context = hmac::Context::with_key(key);
        for part in [id, ".", &timestamp, ".", body] {
            context.update(part.as_bytes());
        }
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    let signatures: Vec<String> = keys.iter().map(signature).collect();
    let mut headers = vec![("webhook-id", id.to_string()), ("webhook-timestamp", timestamp.clone())];
    if !signatures.is_empty() {
        headers.push(("webhook-signature", signatures.join(" ")));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn signature(secret: &str) -> Option<String> {
        let headers = headers(&keys(secret.as_bytes()).unwrap(), ID, Timestamp::from_secs(1_614_265_330), BODY);
        assert_eq!(headers[0], ("webhook-id", ID.to_string()));
        assert_eq!(headers[1], ("webhook-timestamp", "1614265330".to_string()));
        headers.get(2).map(|(name, value)| {
            assert_eq!(*name, "webhook-signature");
            value.clone()
        })
    }

    #[test]
    fn the_example_of_the_reference_libraries_is_signed_as_there() {
        assert_eq!(signature(SECRET).as_deref(), Some(SIGNATURE));
    }

    #[test]
    fn each_secret_signs_and_none_leaves_it_unsigned() {
        let both = signature(&format!("{SECRET}\n  another-secret \n")).unwrap();
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(first, SIGNATURE);
        assert_eq!(Some(second.to_string()), signature("another-secret"));
        assert_eq!(signature(" \n"), None);
    }

    #[test]
    fn a_secret_that_cannot_be_meant_is_refused_and_a_short_one_is_known() {
        for text in ["whsec_", "whsec_%%", "good whsec_!", "1 2 3 4 5 6 7 8 9"] {
            assert!(keys(text.as_bytes()).is_err(), "{text}");
        }
        assert!(keys(&[0xff]).is_err());
        assert_eq!(octets(SECRET.as_bytes()), Some(24));
        assert_eq!(octets(format!("{SECRET} short").as_bytes()), Some(5));
    }
}
