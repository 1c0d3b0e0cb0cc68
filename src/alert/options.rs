//! `[alerts]`: who is told when a person should look, and how often.

use std::time::Duration;

use hyper::Uri;
use serde::{Deserialize, Serialize};

use crate::types::Span;

/// Words of a command: more than any mail program takes.
const WORDS_MAX: usize = 256;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// `http://` or `https://`: each alert is posted there as JSON. Empty: none.
    pub webhook: String,
    /// A mail address; word of a provider is never sent there through that provider. Empty: none.
    pub mail: String,
    /// A program with its arguments, started without a shell. Empty: none.
    pub command: String,
    /// How long an alert lasts before it is told again.
    pub repeat: Span,
}

impl Default for Alerts {
    fn default() -> Alerts {
        Alerts {
            webhook: String::new(),
            mail: String::new(),
            command: String::new(),
            repeat: Span(Duration::from_secs(4 * 3600)),
        }
    }
}

impl Alerts {
    /// The webhook as it may be shown: without path and query, which may hold a secret.
    pub fn webhook_shown(&self) -> String {
        match (self.webhook.is_empty(), Target::parse(&self.webhook)) {
            (true, _) => String::new(),
            (false, Some(target)) => format!("{target:?}"),
            (false, None) => "…".to_string(),
        }
    }
}

impl std::fmt::Debug for Alerts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A command may hold a secret among its words, too.
        let command = if self.command.is_empty() { "" } else { "…" };
        f.debug_struct("Alerts")
            .field("webhook", &self.webhook_shown())
            .field("mail", &self.mail)
            .field("command", &command)
            .field("repeat", &self.repeat)
            .finish()
    }
}

/// Where a webhook is, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// May hold a secret: it is sent and never shown.
    pub(super) path: String,
}

impl Target {
    /// Reads a URL. Users and passwords before the host are refused: they would be shown wherever a URL is.
    pub fn parse(url: &str) -> Option<Target> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = match uri.port() {
            Some(port) => port.as_u16(),
            // `http://host:` and `http://host:99999` are no ports.
            None if authority.as_str() == authority.host() => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            None => return None,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
        (port != 0).then_some(Target { is_tls, host, port, path })
    }

    /// As it stands in the Host field and in the log: without path and query, which may hold a secret.
    pub fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}/…", if self.is_tls { "https" } else { "http" }, self.place())
    }
}

/// Takes a command apart: words stand between blanks; `'…'` and `"…"` keep blanks, a backslash takes the next character as
/// it is (but not within `'…'`). Nothing else means anything: no shell reads it, so there are no variables, pipes or wildcards.
pub fn words(command: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = command.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let next = characters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            ('\0', _) => return Err("it holds a NUL"),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed");
    }
    words.extend(word);
    match words.first() {
        Some(program) if !program.is_empty() && words.len() <= WORDS_MAX => Ok(words),
        Some(_) if words.len() > WORDS_MAX => Err("it has more than 256 words"),
        _ => Err("it names no program"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_apart_without_a_shell() {
        for (command, expected) in [
            ("/usr/bin/notify", vec!["/usr/bin/notify"]),
            ("  notify --to  'the team'  ", vec!["notify", "--to", "the team"]),
            (r#"notify "a \"b\" c" d\ e"#, vec!["notify", "a \"b\" c", "d e"]),
            (r"notify 'a\b' x''y ''", vec!["notify", r"a\b", "xy", ""]),
            ("notify $HOME | cat *", vec!["notify", "$HOME", "|", "cat", "*"]),
        ] {
            assert_eq!(words(command).unwrap(), expected, "{command}");
        }
    }

    #[test]
    fn a_command_that_cannot_be_meant_is_refused() {
        for command in ["", "  ", "notify 'open", "notify \"open", "notify \\", "'' x", "a\0b"] {
            assert!(words(command).is_err(), "{command:?}");
        }
        assert!(words(&"x ".repeat(257)).is_err());
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let alerts =
            |webhook: &str| Alerts { webhook: webhook.into(), command: "page --key T0KEN".into(), ..Alerts::default() };
        for (webhook, shown) in [("https://h.example/T0KEN?T0KEN", "https://h.example:443/…"), ("T0KEN", "…"), ("", "")]
        {
            assert_eq!(alerts(webhook).webhook_shown(), shown);
            assert!(!format!("{:?}", alerts(webhook)).contains("T0KEN"));
        }
    }

    #[test]
    fn a_webhook_is_taken_apart_and_keeps_its_secret() {
        let target = Target::parse("https://hooks.example.com/services/SECRET?key=SECRET").unwrap();
        assert_eq!((target.is_tls, target.host.as_str(), target.port), (true, "hooks.example.com", 443));
        assert_eq!(target.path, "/services/SECRET?key=SECRET");
        assert!(!format!("{target:?} {}", target.place()).contains("SECRET"));
        let target = Target::parse("http://[::1]:9093").unwrap();
        assert_eq!((target.is_tls, target.place().as_str(), target.path.as_str()), (false, "[::1]:9093", "/"));
        for url in [
            "",
            "hooks.example.com",
            "ftp://example.com/",
            "/path",
            "http://",
            "http://user:pass@example.com/",
            "http://a:0/",
            "http://a:99999/",
            "http://a b/",
        ] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }
}
