//! `[feedback]`: the domain to which receivers and recipients answer, and whose mail carries the addresses for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Domain, Span};

/// Links in mail have to work for 30 days at the least, and mail is read late.
pub const KEEP: Duration = Duration::from_secs(90 * 86_400);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feedback {
    /// Return paths and unsubscribe addresses are in it; mail to tokens at it is taken from anybody. Empty: all of this is off.
    pub domain: String,
    /// A file with the key that signs tokens on its first line, and keys that are still read on the others. Empty: `feedback-key` in the
    /// data folder, made at the first start.
    pub key_file: String,
    /// How the world reaches `[http]`: `https://fb.example.com`.
    pub url: String,
    /// How long a token is good.
    pub keep: Span,
    /// Sender domains whose mail gets a return path of its own for each recipient.
    pub return_path: Vec<Domain>,
    /// Sender domains whose mail gets List-Unsubscribe and List-Unsubscribe-Post.
    pub list_unsubscribe: Vec<Domain>,
}

impl Default for Feedback {
    fn default() -> Feedback {
        Feedback {
            domain: String::new(),
            key_file: String::new(),
            url: String::new(),
            keep: Span(KEEP),
            return_path: Vec::new(),
            list_unsubscribe: Vec::new(),
        }
    }
}

impl Feedback {
    /// Where answers come; none: it is off.
    pub fn domain(&self) -> Option<Domain> {
        Domain::parse(&self.domain).ok()
    }

    /// Does any mail carry tokens?
    pub fn is_asked_for(&self) -> bool {
        !self.return_path.is_empty() || !self.list_unsubscribe.is_empty()
    }
}

/// The longest URL before a token: both together have to fit on a line of mail (RFC 5322 section 2.1.1).
const URL_MAX: usize = 200;

/// Can a token be put behind this? RFC 8058 section 3.1 wants HTTPS.
pub fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else { return false };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let is_port = host.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~/".contains(&octet);
    text.len() <= URL_MAX && Domain::parse(name).is_ok() && is_port && name.is_ascii() && path.bytes().all(is_plain)
}

/// The host of such a URL, with its port where it has one.
pub fn host(url: &str) -> Option<&str> {
    url.strip_prefix("https://")?.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_to_be_one_that_mail_can_carry() {
        for (text, is_one) in [
            ("https://fb.example.com", true),
            ("https://fb.example.com/", true),
            ("https://fb.example.com:8443/weir", true),
            ("http://fb.example.com", false),
            ("https://", false),
            ("https://fb.example.com?x=1", false),
            ("https://user@fb.example.com", false),
            ("https://fb.example.com/a b", false),
            ("https://fb.example.com/>", false),
            ("https://fb.example.com:port", false),
        ] {
            assert_eq!(is_url(text), is_one, "{text}");
        }
        assert_eq!(host("https://fb.example.com:8443/weir"), Some("fb.example.com:8443"));
    }
}
