//! The commands that carry an envelope (RFC 5321 section 4.1.1), with the parameters the peer understands.
//!
//! Addresses are valid by construction. The texts that a client chose freely (ENVID, ORCPT) are passed on only where they
//! cannot end a line or begin another parameter.

use super::capabilities::Capabilities;
use crate::types::{Body, BodyType, DeliverBy, Envelope, Recipient, Ret};

pub(super) fn mail(
    out: &mut Vec<u8>,
    envelope: &Envelope,
    body: &Body,
    size_bytes: u64,
    by: Option<DeliverBy>,
    offered: &Capabilities,
) {
    append(out, &["MAIL FROM:<", envelope.sender.as_str(), ">"]);
    if offered.size {
        append(out, &[" SIZE=", &size_bytes.to_string()]);
    }
    if offered.eight_bit_mime && may_have_eight_bits(envelope, body) {
        append(out, &[" BODY=8BITMIME"]);
    }
    if envelope.smtputf8 && offered.smtputf8 {
        append(out, &[" SMTPUTF8"]);
    }
    if offered.dsn {
        match envelope.ret {
            Some(Ret::Full) => append(out, &[" RET=FULL"]),
            Some(Ret::Hdrs) => append(out, &[" RET=HDRS"]),
            None => {}
        }
        if let Some(envid) = envelope.envid.as_deref().filter(|text| is_one_word(text)) {
            append(out, &[" ENVID=", envid]);
        }
    }
    if let Some(priority) = envelope.requests.priority.filter(|_| offered.mt_priority) {
        append(out, &[" MT-PRIORITY=", &priority.to_string()]);
    }
    if let Some(by) = by.filter(|_| offered.deliver_by) {
        append(out, &[" BY=", &by.to_string()]);
    }
    append(out, &["\r\n"]);
}

pub(super) fn rcpt(out: &mut Vec<u8>, recipient: &Recipient, offered: &Capabilities) {
    append(out, &["RCPT TO:<", recipient.address.as_str(), ">"]);
    if offered.dsn {
        if recipient.notify.given {
            append(out, &[" NOTIFY=", &recipient.notify.value()]);
        }
        // RFC 6533 section 3: only with SMTPUTF8 may it be more than ASCII.
        let fits = |text: &&str| is_one_word(text) && (offered.smtputf8 || text.is_ascii());
        if let Some(orcpt) = recipient.orcpt.as_deref().filter(fits) {
            append(out, &[" ORCPT=", orcpt]);
        }
    }
    append(out, &["\r\n"]);
}

pub(super) fn line(out: &mut Vec<u8>, words: &[&str]) {
    append(out, words);
    append(out, &["\r\n"]);
}

fn append(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// RFC 6152 lets a message that is declared 8-bit have none, so what was not declared and cannot be looked at
/// cheaply (a file) is declared 8-bit too.
fn may_have_eight_bits(envelope: &Envelope, body: &Body) -> bool {
    match (envelope.body_type, body) {
        (BodyType::EightBitMime, _) | (BodyType::Undeclared, Body::File { .. } | Body::Headed { .. }) => true,
        (BodyType::Undeclared, Body::Inline(content)) => envelope.smtputf8 || !content.is_ascii(),
        (BodyType::SevenBit, _) => false,
    }
}

fn is_one_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}
