//! `[[relay.user]]`: who may log in, and what each may do.

use serde::{Deserialize, Serialize};

use super::hash::{BEGIN, Hash, is_foreign};
use crate::types::{Domain, MASK, Priority, RateLimit, Secret, Span};

/// Longer than a mail address can be is no name anybody meant.
const NAME_LEN_MAX: usize = 254;

const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 1024;

/// What a token must look like, in words.
pub const TOKEN_EXPECTED: &str =
    "16 to 1024 visible ASCII characters without blanks, as `openssl rand -hex 32` makes them";

/// What a name must look like, in words.
pub const NAME_EXPECTED: &str = "write 1 to 254 octets without spaces, control characters, `:`, `,`, `#` or quotes";

/// One user. At most one of `password_hash`, `password_file` and `password` is given; with none, the line of this name in
/// `relay.users_file` is the password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    pub name: String,
    /// An Argon2 hash as `weir password` prints it.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub password_hash: Secret,
    /// A file that holds the hash, or the password itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password_file: String,
    /// The password itself, hashed at start. Whoever reads the configuration can log in with it.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub password: Secret,
    /// Hands mail in over HTTP, as `Authorization: Bearer`.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub token: Secret,
    /// A file of such tokens, one on a line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token_file: String,
    /// Which mail of a lane that is held back goes first.
    pub class: Priority,
    /// How urgent a message may call itself (`X-Weir-Class`, `X-Weir-Expire`). Absent: as `class`, so that it can only be less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_max: Option<Priority>,
    /// If not empty: the only domains this user may send from.
    pub sender_domains: Vec<Domain>,
    /// Messages in a time.
    pub rate: RateLimit,
    /// Recipients a day. 0: as many as one likes.
    pub daily_recipients: u64,
    /// How long this user's messages are tried, at most as long as `queue.expire`. Absent: as long as that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire: Option<Span>,
}

impl User {
    /// Can mail be handed in for it over HTTP?
    pub fn has_token(&self) -> bool {
        !self.token.is_empty() || !self.token_file.is_empty()
    }
}

impl Default for User {
    fn default() -> User {
        User {
            name: String::new(),
            password_hash: Secret::default(),
            password_file: String::new(),
            password: Secret::default(),
            token: Secret::default(),
            token_file: String::new(),
            class: Priority::default(),
            class_max: None,
            sender_domains: Vec::new(),
            rate: RateLimit::Unlimited,
            daily_recipients: 0,
            expire: None,
        }
    }
}

/// Can a user be called so? Colon and comma part the entries of lists, and a log line is read by programs.
pub fn is_user_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && !text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, ':' | ',' | '"' | '#'))
}

/// Can a password's hash look so?
pub fn is_hash(text: &str) -> bool {
    Hash::parse(text).is_ok()
}

/// Is a hash meant, though perhaps a broken one?
pub fn begins_like_a_hash(text: &str) -> bool {
    text.starts_with(BEGIN)
}

/// Can a password be so? What looks like a hash is never meant as the password itself, nor is what a printed configuration
/// shows in place of one.
pub fn is_password(text: &str) -> bool {
    !text.is_empty() && text != MASK && !begins_like_a_hash(text) && !is_foreign(text)
}

/// Can a token be so? Shorter ones can be guessed.
pub fn is_token(text: &str) -> bool {
    (TOKEN_MIN..=TOKEN_MAX).contains(&text.len()) && text != MASK && text.bytes().all(|b| b.is_ascii_graphic())
}

/// So much of what a client calls itself as can be a name: what is longer is nobody's.
pub(super) fn cut_name(text: &str) -> &str {
    let end = (0..=text.len().min(NAME_LEN_MAX)).rev().find(|&at| text.is_char_boundary(at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
