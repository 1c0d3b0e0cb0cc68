//! The way back: what receivers and recipients say after a message was taken.
//!
//! `token` is what mail carries so that an answer can be told apart, `key` signs it, `store` knows for whom it speaks, `fields` are what a
//! message gets, `reading` is what an answer says, `judgement` what comes of it. Rules that always hold:
//!
//! - only a token that we signed, for this recipient, puts anybody onto the list; whatever else a mail says is an event;
//! - a complaint and the wish to get no more hold for mail from that sender domain, a bounce for all mail;
//! - nothing is ever answered by mail;
//! - what was found out and not said is told as such.
//!
//! Pure but for `key` and `store`.

pub mod fields;
pub mod judgement;
pub mod key;
pub mod options;
pub mod reading;
pub mod store;
pub mod token;
