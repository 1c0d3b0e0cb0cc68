//! The DKIM-Signature field (RFC 6376 section 3.5): laid out with blanks where body hash and signature will stand, filled when they are
//! known. Its length never changes on the way.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::header::Field;
use super::select::Selection;
use super::signers::Signer;

/// A line is folded before it grows longer (RFC 5322 section 2.1.1 asks for 78).
const LINE_GOOD: usize = 72;
const FOLD: &str = "\r\n\t";
/// Of a SHA-256 digest in base64.
const HASH_LENGTH: usize = 44;

/// A field whose hashes are still to come.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) text: Vec<u8>,
    body_hash: usize,
    signature: usize,
    signature_length: usize,
}

impl Layout {
    /// `seconds`: since 1970.
    pub(super) fn new(signer: &Signer, names: &[&str], seconds: i64) -> Layout {
        let (algorithm, domain, selector) = (signer.key.algorithm(), &signer.domain, &signer.selector);
        let mut text = format!(
            "DKIM-Signature: v=1; a={algorithm}; c=relaxed/relaxed;{FOLD}d={domain};{FOLD}s={selector}; t={seconds};{FOLD}h="
        );
        let mut length = 10;
        for (at, name) in names.iter().enumerate() {
            if at > 0 {
                text.push(':');
                length += 1;
            }
            if length + name.len() >= LINE_GOOD {
                text.push_str(FOLD);
                text.push(' ');
                length = 9;
            }
            text.push_str(name);
            length += name.len();
        }
        text.push_str(&format!(";{FOLD}bh="));
        let body_hash = text.len();
        text.push_str(&"A".repeat(HASH_LENGTH));
        text.push_str(&format!(";{FOLD}b="));
        let signature = text.len();
        let signature_length = signer.key.signature_octets().div_ceil(3) * 4;
        let blanks = "A".repeat(signature_length);
        for (at, line) in blanks.as_bytes().chunks(LINE_GOOD).enumerate() {
            text.push_str(if at > 0 { FOLD } else { "" });
            text.push_str(&String::from_utf8_lossy(line));
        }
        text.push_str("\r\n");
        Layout { text: text.into_bytes(), body_hash, signature, signature_length }
    }

    pub(super) fn set_body_hash(&mut self, hash: &Digest) {
        let text = STANDARD.encode(hash.as_ref());
        self.text[self.body_hash..self.body_hash + HASH_LENGTH].copy_from_slice(text.as_bytes());
    }

    /// The hash that is signed: the fields, and behind them this one without its signature and its line end (section 3.7).
    pub(super) fn header_hash(&self, fields: &Context) -> Digest {
        let mut context = fields.clone();
        if let Some(own) = Field::of(&self.text[..self.signature]) {
            let relaxed = own.relaxed();
            context.update(&relaxed[..relaxed.len() - 2]);
        }
        context.finish()
    }

    /// False: a signature of another length, and nothing is done.
    pub(super) fn set_signature(&mut self, signature: &[u8]) -> bool {
        let text = STANDARD.encode(signature);
        if text.len() != self.signature_length {
            return false;
        }
        let mut at = self.signature;
        for line in text.as_bytes().chunks(LINE_GOOD) {
            self.text[at..at + line.len()].copy_from_slice(line);
            at += line.len() + FOLD.len();
        }
        true
    }
}

/// The fields that are signed, hashed.
pub(super) fn hashed(selection: &Selection<'_>) -> Context {
    let mut context = Context::new(&SHA256);
    for field in &selection.fields {
        context.update(field.relaxed());
    }
    context
}
