//! `[[webhook]]`: an endpoint that gets events.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use super::format::speaks_of;
use super::sign;
use crate::post::LOCALHOST;
pub use crate::post::Target;
use crate::types::{EventKind, Secret};

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The lines of the event log as they stand there.
    #[default]
    Weir,
    /// The bounce webhook of listmonk.
    Listmonk,
    /// SendGrid's Event Webhook.
    SendGrid,
    /// Postmark's webhooks.
    Postmark,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Weir => "weir",
            Format::Listmonk => "listmonk",
            Format::SendGrid => "sendgrid",
            Format::Postmark => "postmark",
        })
    }
}

/// What is sent where nothing is chosen: every end of a recipient, and who came onto the suppression list.
pub const DEFAULT_EVENTS: [EventKind; 5] =
    [EventKind::Delivered, EventKind::Bounced, EventKind::Expired, EventKind::Removed, EventKind::Suppressed];

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    pub name: String,
    /// User, password, path and query may be secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// A file with the URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url_file: String,
    /// Names of events; empty: [`DEFAULT_EVENTS`].
    pub events: Vec<String>,
    pub format: Format,
    /// `whsec_` and base64, or the secret itself; several, parted by blanks, sign each. Empty: unsigned.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub secret: Secret,
    /// A file with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret_file: String,
    /// Networks outside the public Internet that its name may lead into.
    pub networks: Vec<IpNet>,
}

impl Webhook {
    /// The events that are sent; those nobody knows are left out.
    pub fn kinds(&self) -> Vec<EventKind> {
        match self.events.is_empty() {
            true => DEFAULT_EVENTS.to_vec(),
            false => self.events.iter().filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// The URL as it may be shown: without what may be secret.
    pub fn url_shown(&self) -> String {
        match (self.url.is_empty(), Target::parse_with_user(&self.url)) {
            (true, _) => String::new(),
            (false, Some(target)) => format!("{target:?}"),
            (false, None) => "…".to_string(),
        }
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .field("url", &self.url_shown())
            .field("url_file", &self.url_file)
            .field("events", &self.events)
            .field("format", &self.format)
            .field("secret", &self.secret)
            .field("secret_file", &self.secret_file)
            .field("networks", &self.networks)
            .finish()
    }
}

/// Can this be a URL of an endpoint?
pub fn is_url(text: &str) -> bool {
    Target::parse_with_user(text).is_some()
}

/// Can this be a secret, or several?
pub fn is_secret(text: &str) -> bool {
    text != crate::types::MASK && sign::keys(text.as_bytes()).is_ok_and(|keys| !keys.is_empty())
}

/// Is one of the secrets shorter than Standard Webhooks asks for?
pub fn is_short(secret: &Secret) -> bool {
    sign::octets(secret.expose()).is_some_and(|octets| octets < sign::SECRET_MIN)
}

/// Does the URL lead into the clear where anybody may listen? Loopback, addresses of private networks, and names in
/// networks that the operator wrote down are near enough.
pub fn is_clear_text_abroad(target: &Target, networks: &[IpNet]) -> bool {
    let is_near = match target.host.parse() {
        Ok(address) => !crate::types::internet::is_global(address),
        Err(_) => target.host.eq_ignore_ascii_case(LOCALHOST) || !networks.is_empty(),
    };
    !target.is_tls && !is_near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (url, shown) in
            [("https://u:T0KEN@h.example/T0KEN?T0KEN", "https://h.example:443/…"), ("T0KEN", "…"), ("", "")]
        {
            let hook = Webhook { url: url.into(), secret: Secret::new("T0KEN"), ..Webhook::default() };
            assert_eq!(hook.url_shown(), shown);
            assert!(!format!("{hook:?}").contains("T0KEN"));
        }
    }

    #[test]
    fn clear_text_stays_near() {
        let net: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        for (url, networks, abroad) in [
            ("https://app.example/", &[][..], false),
            ("http://app.example/", &[], true),
            ("http://app.example/", &net, false),
            ("http://localhost:9000/", &[], false),
            ("http://127.0.0.1/", &[], false),
            ("http://10.1.2.3/", &[], false),
            ("http://[fd00::1]/", &[], false),
            ("http://8.8.8.8/", &net, true),
        ] {
            assert_eq!(is_clear_text_abroad(&Target::parse(url).unwrap(), networks), abroad, "{url}");
        }
    }
}
