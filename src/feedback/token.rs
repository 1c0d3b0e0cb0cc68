//! A token: what an answer has to carry so that it is known for whom it speaks.
//!
//! It is 53 characters of base 32 behind a letter and a hyphen, so that it fits into a local part (64 octets, RFC 5321 section 4.5.3.1.1)
//! and into the 63 octets that some programs leave of one, in any letter case. In it stand its purpose, the last day on which it is good,
//! the queue id, the delivery, a mark of the recipient, and a signature (HMAC-SHA256, of which 128 bits are kept). Rules that always hold:
//!
//! - no octet can be changed without the key: what is read as a token was made by us, for this message and this recipient;
//! - a token of one purpose is none of another: who knows a return path cannot unsubscribe with it;
//! - signatures are compared in constant time, with every key.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;

use super::key::Keys;
use crate::types::{DeliveryId, Mailbox, QueueId, Timestamp};

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Purpose, day, queue id, part, mark of the recipient.
const FACTS: usize = 1 + 2 + 8 + 2 + MARK;
const MARK: usize = 4;
const SIGNATURE: usize = 16;
const OCTETS: usize = FACTS + SIGNATURE;
/// Of the 33 octets in base 32.
const LETTERS: usize = (OCTETS * 8).div_ceil(5);
/// With the letter of its purpose and the hyphen.
pub const LENGTH: usize = LETTERS + 2;
/// Of what is signed: no other use of the key makes the same.
const CONTEXT: &[u8] = b"weir feedback token 1\0";
const DAY_SECS: i64 = 86_400;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// In the return path: reports about the message come with it.
    Return,
    /// In List-Unsubscribe: the recipient wants no more.
    Unsubscribe,
}

impl Purpose {
    fn letter(self) -> u8 {
        match self {
            Purpose::Return => b'r',
            Purpose::Unsubscribe => b'u',
        }
    }

    fn of(letter: u8) -> Option<Purpose> {
        [Purpose::Return, Purpose::Unsubscribe].into_iter().find(|purpose| purpose.letter() == letter)
    }
}

/// A token whose signature was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub purpose: Purpose,
    pub delivery: DeliveryId,
    /// Since 1970: the last day on which it is good.
    day: u16,
    mark: [u8; MARK],
}

/// Why a text is no token that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// Nothing that looks like one.
    #[error("there is no token in it")]
    Other,
    #[error("its signature is wrong")]
    Forged,
    #[error("it has expired")]
    Expired,
}

impl Token {
    /// For one recipient of a message, good until `expires` and to the end of that day.
    pub fn new(purpose: Purpose, delivery: DeliveryId, recipient: &Mailbox, expires: Timestamp) -> Token {
        Token { purpose, delivery, day: day_of(expires), mark: mark(recipient) }
    }

    /// As it stands in an address or a URL.
    pub fn text(&self, keys: &Keys) -> String {
        let facts = self.facts();
        let mut octets = facts.to_vec();
        octets.extend_from_slice(&signature(keys.first(), &facts));
        let mut text = String::with_capacity(LENGTH);
        text.push(char::from(self.purpose.letter()));
        text.push('-');
        encode(&octets, &mut text);
        text
    }

    /// Reads a token, in any letter case.
    pub fn read(text: &str, keys: &Keys, now: Timestamp) -> Result<Token, NoToken> {
        let text = text.as_bytes();
        if text.len() != LENGTH || text[1] != b'-' {
            return Err(NoToken::Other);
        }
        let purpose = Purpose::of(text[0].to_ascii_lowercase()).ok_or(NoToken::Other)?;
        let octets = decode(&text[2..]).ok_or(NoToken::Other)?;
        let (facts, signed) = octets.split_at(FACTS);
        // With every key, so that the time tells nothing of which it was.
        let is_ours = keys
            .iter()
            .fold(false, |found, key| found | verify_slices_are_equal(&signature(key, facts), signed).is_ok());
        if !is_ours || facts[0] != purpose.letter() {
            return Err(NoToken::Forged);
        }
        let token = Token::of(purpose, facts).ok_or(NoToken::Forged)?;
        if day_of(now) > token.day { Err(NoToken::Expired) } else { Ok(token) }
    }

    /// Was it made for this recipient?
    pub fn is_for(&self, recipient: &Mailbox) -> bool {
        self.mark == mark(recipient)
    }

    fn facts(&self) -> [u8; FACTS] {
        let mut facts = [0; FACTS];
        facts[0] = self.purpose.letter();
        facts[1..3].copy_from_slice(&self.day.to_be_bytes());
        facts[3..11].copy_from_slice(&self.delivery.message.key().to_be_bytes());
        facts[11..13].copy_from_slice(&self.delivery.part.to_be_bytes());
        facts[13..].copy_from_slice(&self.mark);
        facts
    }

    fn of(purpose: Purpose, facts: &[u8]) -> Option<Token> {
        let day = u16::from_be_bytes(facts.get(1..3)?.try_into().ok()?);
        let message = QueueId::from_key(i64::from_be_bytes(facts.get(3..11)?.try_into().ok()?))?;
        let part = u16::from_be_bytes(facts.get(11..13)?.try_into().ok()?);
        let mark = facts.get(13..FACTS)?.try_into().ok()?;
        Some(Token { purpose, delivery: DeliveryId { message, part }, day, mark })
    }
}

/// Does it have the form of a token? Says nothing about its signature.
pub fn has_form(text: &str) -> bool {
    let octets = text.as_bytes();
    octets.len() == LENGTH
        && octets[1] == b'-'
        && Purpose::of(octets[0].to_ascii_lowercase()).is_some()
        && octets[2..].iter().all(|octet| ALPHABET.contains(&octet.to_ascii_lowercase()))
}

fn day_of(moment: Timestamp) -> u16 {
    u16::try_from(moment.secs().div_euclid(DAY_SECS).max(0)).unwrap_or(u16::MAX)
}

fn mark(recipient: &Mailbox) -> [u8; MARK] {
    let mut mark = [0; MARK];
    mark.copy_from_slice(&digest(&SHA256, recipient.key().as_bytes()).as_ref()[..MARK]);
    mark
}

fn signature(key: &hmac::Key, facts: &[u8]) -> [u8; SIGNATURE] {
    let mut context = hmac::Context::with_key(key);
    context.update(CONTEXT);
    context.update(facts);
    let mut signature = [0; SIGNATURE];
    signature.copy_from_slice(&context.sign().as_ref()[..SIGNATURE]);
    signature
}

/// RFC 4648 section 6, in lower case and without padding.
fn encode(octets: &[u8], out: &mut String) {
    let (mut bits, mut count) = (0_u32, 0);
    for octet in octets {
        bits = bits << 8 | u32::from(*octet);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(char::from(ALPHABET[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        out.push(char::from(ALPHABET[(bits << (5 - count) & 31) as usize]));
    }
}

/// None: a letter that is none of the alphabet, or bits behind the end, so that a token has one spelling but for letter case.
fn decode(letters: &[u8]) -> Option<[u8; OCTETS]> {
    let mut octets = [0; OCTETS];
    let (mut bits, mut count, mut at) = (0_u32, 0, 0);
    for letter in letters {
        let value = ALPHABET.iter().position(|known| *known == letter.to_ascii_lowercase())?;
        bits = bits << 5 | u32::try_from(value).ok()?;
        count += 5;
        if count >= 8 {
            count -= 8;
            *octets.get_mut(at)? = (bits >> count & 255) as u8;
            at += 1;
        }
        bits &= 0xff;
    }
    let rest = bits & ((1 << count) - 1);
    (at == OCTETS && rest == 0).then_some(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn keys(texts: &[&str]) -> Keys {
        Keys::parse(&texts.join("\n")).unwrap()
    }

    fn own() -> Keys {
        keys(&["a key that nobody guesses"])
    }

    fn token(purpose: Purpose) -> Token {
        let delivery = DeliveryId { message: QueueId::from_key(3_765_000_000_000_000_000).unwrap(), part: 65_535 };
        let expires = NOW + std::time::Duration::from_secs(90 * 86_400);
        Token::new(purpose, delivery, &Mailbox::parse("Anna@Hotmail.com").unwrap(), expires)
    }

    #[test]
    fn a_token_is_read_as_it_was_made_in_any_letter_case_and_fits_into_a_local_part() {
        for purpose in [Purpose::Return, Purpose::Unsubscribe] {
            let text = token(purpose).text(&own());
            assert!(text.len() == LENGTH && LENGTH <= 63 && has_form(&text), "{text}");
            for text in [text.clone(), text.to_uppercase()] {
                assert_eq!(Token::read(&text, &own(), NOW), Ok(token(purpose)));
            }
            assert!(Mailbox::parse(&format!("{text}@fb.example.com")).is_ok());
        }
        let anna = token(Purpose::Return);
        assert!(anna.is_for(&Mailbox::parse("Anna@hotmail.com").unwrap()));
        assert!(!anna.is_for(&Mailbox::parse("bob@hotmail.com").unwrap()));
    }

    #[test]
    fn an_old_key_is_read_and_the_first_one_signs() {
        let (before, both) =
            (keys(&["the old key of them all"]), keys(&["the new key of them all", "the old key of them all"]));
        let old = token(Purpose::Return).text(&before);
        assert!(Token::read(&old, &both, NOW).is_ok());
        let new = token(Purpose::Return).text(&both);
        assert_eq!(Token::read(&new, &before, NOW), Err(NoToken::Forged));
        assert_eq!(Token::read(&old, &keys(&["the new key of them all"]), NOW), Err(NoToken::Forged));
    }

    #[test]
    fn a_token_is_good_to_the_end_of_its_last_day() {
        let text = token(Purpose::Return).text(&own());
        let day = std::time::Duration::from_secs(86_400);
        assert!(Token::read(&text, &own(), NOW + day * 90).is_ok());
        assert_eq!(Token::read(&text, &own(), NOW + day * 91), Err(NoToken::Expired));
    }

    #[test]
    fn no_letter_can_be_changed() {
        let text = token(Purpose::Return).text(&own());
        for at in 0..text.len() {
            for letter in "abrux7-2A".chars() {
                let mut letters: Vec<char> = text.chars().collect();
                letters[at] = letter;
                let changed: String = letters.into_iter().collect();
                let is_same = changed.eq_ignore_ascii_case(&text);
                assert_eq!(Token::read(&changed, &own(), NOW).is_ok(), is_same, "{changed}");
            }
        }
        for text in
            ["", "r-", "r-aaaa", "postmaster", &text[..text.len() - 1], &format!("{text}a"), &text.replace('-', "+")]
        {
            assert_eq!(Token::read(text, &own(), NOW), Err(NoToken::Other), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_by_chance(text in "[ruRU]-[a-z2-7]{53}|.{0,80}") {
            prop_assert!(Token::read(&text, &own(), NOW).is_err());
        }

        #[test]
        fn octets_come_back_from_their_letters(octets in proptest::array::uniform::<_, OCTETS>(any::<u8>())) {
            let mut text = String::new();
            encode(&octets, &mut text);
            prop_assert_eq!(text.len(), LETTERS);
            prop_assert_eq!(decode(text.as_bytes()), Some(octets));
        }
    }
}
