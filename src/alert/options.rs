//! `[alerts]`: who is told when a person should look, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::post::Target;
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
}
