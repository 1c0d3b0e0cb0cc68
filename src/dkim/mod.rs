//! DKIM (RFC 6376, RFC 8463): signs mail with the keys of `[[dkim]]`, and compares keys with what the DNS says.
//!
//! `header` and `body` watch a content while it comes in, `signers` chooses who signs it, `select` which fields, `field` writes the
//! DKIM-Signature, `key` signs. `record` is a key as the DNS has it, `agreement` what an operator hears of the two. Rules that always hold:
//!
//! - what is signed is what is sent: octets are looked at as they are stored, behind everything that changes them;
//! - a signature has its length before it is made, so that its place can be kept while the body still comes;
//! - a message is signed for the domain of its From field or one above it, and for no other; where it is not certain whom a message is
//!   from, it is not signed;
//! - no key shows anywhere but in the file that it is written to.
//!
//! Pure but for `load`, which reads the files of keys.

pub mod agreement;
mod body;
mod der;
mod field;
mod header;
pub mod key;
mod load;
pub mod options;
pub mod record;
mod select;
mod short;
mod signers;
mod signing;
#[cfg(test)]
mod tests;

pub use body::BodyHash;
pub use load::{Fault, Loaded, WhatIsWrong, load, make_missing, write_key};
pub use signers::{Signer, Signers};
pub use signing::{Draft, Ready, SignFault, Signing, Unsigned};
