//! The exchange of AUTH: PLAIN (RFC 4616) and LOGIN, as RFC 4954 carries them.
//!
//! Rules that always hold:
//! - an exchange ends after two lines of the client at the latest: with credentials, or with the reply that ends it;
//! - a password is never shown: not by `Debug`, not in a reply, and its octets are overwritten when it is dropped;
//! - a name is text without control characters and at most `NAME_MAX` octets long, a password at most `PASSWORD_MAX`: whatever
//!   is behind the exchange works with bounded input.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::types::Secret;

use super::replies::{self, Said};

/// The longest line of an exchange that is read (RFC 4954 section 4).
pub const LINE_MAX: usize = 12_288;
const NAME_MAX: usize = 255;
const PASSWORD_MAX: usize = 1024;

/// Some old clients leave the padding out: it says nothing that the length does not say.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Login,
}

/// What a client says of itself. To be checked by whoever knows the users.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: Secret,
}

/// An exchange that has begun.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange(Expects);

#[derive(Debug, PartialEq, Eq)]
enum Expects {
    Plain,
    LoginUser,
    LoginPassword { user: String },
}

/// What follows a line of the exchange.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// `334` with this challenge, in base64; the next line goes to the exchange.
    Ask(&'static str),
    Check(Credentials),
    Refused(Said),
}

impl Mechanism {
    /// Both are known by their names in any case (RFC 4422 section 3.1 has capitals only; clients differ).
    pub fn parse(name: &str) -> Option<Mechanism> {
        match name.to_ascii_uppercase().as_str() {
            "PLAIN" => Some(Mechanism::Plain),
            "LOGIN" => Some(Mechanism::Login),
            _ => None,
        }
    }
}

impl Exchange {
    pub fn new(mechanism: Mechanism) -> Exchange {
        Exchange(match mechanism {
            Mechanism::Plain => Expects::Plain,
            Mechanism::Login => Expects::LoginUser,
        })
    }

    /// The challenge that asks for the next line: `User Name` and `Password`, as LOGIN's clients expect them.
    pub fn challenge(&self) -> &'static str {
        match self.0 {
            Expects::Plain => "",
            Expects::LoginUser => "VXNlcm5hbWU6",
            Expects::LoginPassword { .. } => "UGFzc3dvcmQ6",
        }
    }

    /// Takes the initial response of AUTH; `=` stands for an empty one (RFC 4954 section 4).
    pub fn begin(&mut self, initial: &Secret) -> Step {
        let initial = initial.expose();
        self.answer(if initial == b"=" { b"" } else { initial })
    }

    /// Takes a line of the client, without its line end.
    pub fn answer(&mut self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Refused(replies::LOG_IN_CANCELLED.plain());
        }
        let Ok(octets) = BASE64.decode(line).map(Secret::new) else {
            return Step::Refused(replies::BAD_BASE64.plain());
        };
        match std::mem::replace(&mut self.0, Expects::Plain) {
            Expects::Plain => plain(octets.expose()),
            Expects::LoginUser => match name(octets.expose()) {
                Some(user) => {
                    self.0 = Expects::LoginPassword { user };
                    Step::Ask(self.challenge())
                }
                None => Step::Refused(replies::LOG_IN_REFUSED.plain()),
            },
            Expects::LoginPassword { user } => credentials(user, octets),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd`. Nobody acts for somebody else here: an authzid, if there is one, is the authcid.
fn plain(octets: &[u8]) -> Step {
    let mut parts = octets.split(|&octet| octet == 0);
    let (Some(behalf), Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Step::Refused(replies::BAD_SYNTAX.with("PLAIN is authzid NUL user NUL password in base64"));
    };
    match name(user) {
        Some(name) if behalf.is_empty() || behalf == user => credentials(name, Secret::new(password)),
        _ => Step::Refused(replies::LOG_IN_REFUSED.plain()),
    }
}

fn credentials(user: String, password: Secret) -> Step {
    match password.len() {
        1..=PASSWORD_MAX => Step::Check(Credentials { user, password }),
        _ => Step::Refused(replies::LOG_IN_REFUSED.plain()),
    }
}

fn name(octets: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(octets).ok()?;
    let good = (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    good.then(|| name.to_string())
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD as ENCODE;
    use proptest::prelude::*;

    use super::*;

    fn after(mechanism: Mechanism, lines: &[&[u8]]) -> String {
        let mut exchange = Exchange::new(mechanism);
        let mut last = String::new();
        for line in lines {
            last = match exchange.answer(ENCODE.encode(line).as_bytes()) {
                Step::Ask(challenge) => format!("ask {challenge}"),
                Step::Check(c) => format!("{} {}", c.user, String::from_utf8_lossy(c.password.expose())),
                Step::Refused(said) => said.line().chars().take(9).collect(),
            };
        }
        last
    }

    #[test]
    fn plain_and_login_give_name_and_password() {
        use Mechanism::{Login, Plain};
        let long = [b'x'; 2000];
        let long_password = [&b"\0app\0"[..], &long].concat();
        for (mechanism, lines, outcome) in [
            (Plain, &[&b"\0app\0secret"[..]][..], "app secret"),
            (Plain, &[b"app\0app\0secret"], "app secret"),
            (Plain, &["\0ä b\0ö\u{7}".as_bytes()], "ä b ö\u{7}"),
            (Plain, &[b"root\0app\0secret"], "535 5.7.8"),
            (Plain, &[b"\0app\0"], "535 5.7.8"),
            (Plain, &[b"\0\0secret"], "535 5.7.8"),
            (Plain, &[b"\0a\npp\0secret"], "535 5.7.8"),
            (Plain, &[b"\0\xff\0secret"], "535 5.7.8"),
            (Plain, &[&long_password], "535 5.7.8"),
            (Plain, &[b"app secret"], "501 5.5.4"),
            (Plain, &[b"\0app\0secret\0"], "501 5.5.4"),
            (Plain, &[b""], "501 5.5.4"),
            (Login, &[b"app"], "ask UGFzc3dvcmQ6"),
            (Login, &[b"app", b"se\0cret"], "app se\0cret"),
            (Login, &[b"app", b""], "535 5.7.8"),
            (Login, &[b""], "535 5.7.8"),
            (Login, &[&long], "535 5.7.8"),
        ] {
            assert_eq!(after(mechanism, lines), outcome, "{lines:?}");
        }
    }

    #[test]
    fn a_client_may_leave_an_exchange_and_hears_of_octets_that_are_no_base64() {
        for (line, code) in [(&b"*"[..], "501 5.7.0"), (b"!!!", "501 5.5.2"), (b"AGFwcABz?", "501 5.5.2")] {
            for mechanism in [Mechanism::Plain, Mechanism::Login] {
                let Step::Refused(said) = Exchange::new(mechanism).answer(line) else { panic!("{line:?}") };
                assert!(said.line().starts_with(code), "{}", said.line());
            }
        }
        // Without its padding, and with nothing.
        let mut exchange = Exchange::new(Mechanism::Plain);
        assert!(matches!(exchange.answer(b"AGFwcABzZWNyZXQ"), Step::Check(_)));
        assert!(matches!(Exchange::new(Mechanism::Plain).begin(&Secret::new("=")), Step::Refused(_)));
    }

    proptest! {
        #[test]
        fn it_ends_after_two_lines_and_shows_no_password(
            is_login in any::<bool>(), lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 2)
        ) {
            let mut exchange = Exchange::new(if is_login { Mechanism::Login } else { Mechanism::Plain });
            let mut step = exchange.answer(ENCODE.encode(&lines[0]).as_bytes());
            if matches!(step, Step::Ask(_)) {
                step = exchange.answer(ENCODE.encode(&lines[1]).as_bytes());
            }
            match step {
                Step::Ask(_) => prop_assert!(false, "a third line"),
                Step::Check(credentials) => {
                    prop_assert!(!credentials.user.chars().any(char::is_control));
                    let shown = format!("{credentials:?} {:?}", credentials.password);
                    prop_assert_eq!(shown, format!("Credentials {{ user: {:?}, .. }} ***", credentials.user));
                }
                Step::Refused(said) => prop_assert!(said.answer.is_refusal()),
            }
        }
    }
}
