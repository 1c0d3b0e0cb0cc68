//! One message on its way in, from its first octet to its signatures.
//!
//! `look` watches the header, `draft` gives the fields as long as they will be, `body` takes the rest, and what `finish` leaves makes the
//! signatures: the one step that takes time, for a thread that may be busy. Whoever signs for each attempt (drafts of DKIM2 bind the
//! recipient) keeps a `Ready` and makes more of it.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, Digest};

use super::body::BodyHash;
use super::field::{self, Layout};
use super::header::Scan;
use super::select;
use super::signers::{Signer, Signers};

/// Why nobody signs a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    #[error("it has no From field, more than one, or one that could be read in two ways")]
    NoAuthor,
    #[error("there is no key for its From domain")]
    NoKey,
    #[error("it carries a signature of its domain, and `skip_signed` is set")]
    SignedAlready,
    #[error("its header is too large to be signed")]
    TooLarge,
}

/// A key that had signed before does not any more: a fault of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key {0} made no signature")]
pub struct SignFault(String);

pub struct Signing {
    signers: Arc<Signers>,
    header: Scan,
    drafts: Vec<Draft>,
    /// The fields that are signed.
    fields: Option<Context>,
    body: BodyHash,
    /// The blank line behind the header has not come yet.
    before_body: bool,
}

/// A signature that is not made yet.
pub struct Draft {
    signer: Arc<Signer>,
    layout: Layout,
}

impl Signing {
    pub fn new(signers: Arc<Signers>) -> Signing {
        Signing {
            signers,
            header: Scan::default(),
            drafts: Vec::new(),
            fields: None,
            body: BodyHash::default(),
            before_body: true,
        }
    }

    /// Takes the next octets of the header; gives how many belong to it when it ends within them.
    pub fn look(&mut self, octets: &[u8]) -> Option<usize> {
        self.header.take(octets)
    }

    /// What is kept of the header.
    pub fn held_octets(&self) -> usize {
        self.header.held_octets()
    }

    /// The header is complete: all signatures as they will stand before it, with blanks for what is not known yet. `seconds`: since 1970.
    pub fn draft(&mut self, seconds: i64) -> Result<Vec<u8>, Unsigned> {
        self.choose(seconds, &[])?;
        Ok(self.drafts.iter().flat_map(|draft| draft.layout.text.iter().copied()).collect())
    }

    /// The same for a message of which each copy gets fields of its own, with these names: what `finish` leaves signs each copy
    /// (`Ready::sign_copy`).
    pub fn draft_copies(&mut self, seconds: i64, names: &[&'static str]) -> Result<(), Unsigned> {
        self.choose(seconds, names)
    }

    /// Has the header that was looked at such a field? Only of names that are signed it is known.
    pub fn has_field(&self, name: &str) -> bool {
        self.header.fields().iter().any(|field| field.is(name))
    }

    fn choose(&mut self, seconds: i64, later: &[&'static str]) -> Result<(), Unsigned> {
        self.header.close();
        if self.header.is_too_large() {
            return Err(Unsigned::TooLarge);
        }
        let chosen = self.signers.choose(&self.header)?;
        let selection = select::select(self.header.fields(), later).ok_or(Unsigned::TooLarge)?;
        let draft = |signer: Arc<Signer>| Draft { layout: Layout::new(&signer, &selection.names, seconds), signer };
        self.drafts = chosen.into_iter().map(draft).collect();
        self.fields = Some(field::hashed(&selection));
        self.header = Scan::default();
        Ok(())
    }

    /// Takes what follows the header, from the blank line on.
    pub fn body(&mut self, mut octets: &[u8]) {
        while self.before_body {
            let Some((first, rest)) = octets.split_first() else { return };
            match first {
                b'\r' => octets = rest,
                b'\n' => (octets, self.before_body) = (rest, false),
                _ => self.before_body = false,
            }
        }
        self.body.take(octets);
    }

    /// The message is complete.
    pub fn finish(self) -> Ready {
        Ready { drafts: self.drafts, fields: self.fields, body_hash: self.body.finish() }
    }
}

/// All that signatures are made of.
pub struct Ready {
    drafts: Vec<Draft>,
    fields: Option<Context>,
    body_hash: Digest,
}

impl Ready {
    /// The fields, as long as their drafts. Takes a good part of a millisecond for each RSA key.
    pub fn sign(self) -> Result<Vec<u8>, SignFault> {
        self.sign_copy(b"")
    }

    /// The signatures of one copy, over the fields that it has for itself: those of `draft_copies` and no others, in that order.
    pub fn sign_copy(&self, own: &[u8]) -> Result<Vec<u8>, SignFault> {
        let mut signed = Vec::new();
        let Some(fields) = &self.fields else { return Ok(signed) };
        let (mut fields, mut scan) = (fields.clone(), Scan::default());
        scan.take(own);
        scan.close();
        scan.fields().iter().for_each(|field| fields.update(field.relaxed()));
        for Draft { signer, layout } in &self.drafts {
            let mut layout = layout.clone();
            layout.set_body_hash(&self.body_hash);
            let signature = signer.key.sign(&layout.header_hash(&fields));
            if !signature.is_some_and(|signature| layout.set_signature(&signature)) {
                return Err(SignFault(signer.name()));
            }
            signed.extend_from_slice(&layout.text);
        }
        Ok(signed)
    }
}

/// The signatures of a message that is there as a whole.
impl Signers {
    pub fn prepare(self: &Arc<Signers>, content: &[u8], seconds: i64) -> Result<Ready, Unsigned> {
        let mut signing = Signing::new(self.clone());
        let end = signing.look(content).unwrap_or(content.len());
        signing.draft(seconds)?;
        signing.body(&content[end..]);
        Ok(signing.finish())
    }
}
