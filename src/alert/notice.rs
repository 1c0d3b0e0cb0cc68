//! A notice: the alerts that are told together, as JSON for a webhook and as text for people.
//!
//! Pure. Rules that always hold:
//! - the JSON has the same keys whether it speaks of one alert or of many;
//! - nothing in an alert, which may quote a receiver, adds a line to the text or a control character to anything;
//! - everything has a length.

use std::sync::Arc;

use serde_json::{Value, json};

use super::board::Told;
use crate::types::{ALL_CLEAR, Timestamp, printable};

/// Of the words of one alert: a receiver's reply and what we say about it.
const TEXT_MAX: usize = 2000;
/// Alerts written out in one notice; the others are counted.
const SHOWN_MAX: usize = 50;

#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub time: Timestamp,
    /// The relay that speaks.
    pub host: Arc<str>,
    /// Never empty.
    pub told: Vec<Told>,
}

/// What a program reads: of one alert its own words, of many what they are together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// `several` where there are many.
    pub key: String,
    /// Is any of them raised?
    pub is_raised: bool,
    pub text: String,
    pub remedy: String,
    /// If all are about one.
    pub provider: Option<Arc<str>>,
}

impl Notice {
    pub(super) fn summary(&self) -> Summary {
        let provider = self.told.first().and_then(|told| told.alert.provider.clone());
        let provider = provider.filter(|name| self.told.iter().all(|told| told.alert.provider.as_ref() == Some(name)));
        match self.told.as_slice() {
            [told] => Summary {
                key: clean(&told.alert.key),
                is_raised: told.alert.raised,
                text: sentence(told),
                remedy: remedy(told),
                provider,
            },
            many => {
                let texts: Vec<String> = many.iter().take(SHOWN_MAX).map(sentence).collect();
                let mut remedies: Vec<String> = many.iter().take(SHOWN_MAX).map(remedy).collect();
                remedies.sort();
                remedies.dedup();
                remedies.retain(|remedy| !remedy.is_empty());
                Summary {
                    key: "several".to_string(),
                    is_raised: many.iter().any(|told| told.alert.raised),
                    text: texts.join("; ") + &self.not_shown(),
                    remedy: remedies.join("; "),
                    provider,
                }
            }
        }
    }

    /// For a webhook: `time key state text remedy provider host`, and `alerts`, each of them, where there are many.
    pub(super) fn json(&self) -> String {
        let summary = self.summary();
        let mut object = json!({
            "time": self.time,
            "key": summary.key,
            "state": state(summary.is_raised),
            "text": summary.text,
            "remedy": summary.remedy,
            "provider": summary.provider.as_deref().map(clean),
            "host": clean(&self.host),
        });
        if self.told.len() > 1
            && let Some(object) = object.as_object_mut()
        {
            let alerts = self.told.iter().take(SHOWN_MAX).map(|told| {
                json!({
                    "key": clean(&told.alert.key),
                    "state": state(told.alert.raised),
                    "since": told.since,
                    "text": sentence(told),
                    "remedy": remedy(told),
                    "provider": told.alert.provider.as_deref().map(clean),
                })
            });
            object.insert("alerts".to_string(), Value::Array(alerts.collect()));
        }
        object.to_string()
    }

    /// One line: `weir relay.example.com: outlook from default: blocked`.
    pub(super) fn subject(&self) -> String {
        match self.told.as_slice() {
            [told] => {
                let over = if told.alert.raised || told.is_all_clear { "" } else { ALL_CLEAR };
                format!("weir on {}: {over}{}", clean(&self.host), short(&clean(&told.alert.text), 120))
            }
            many => {
                let raised = many.iter().filter(|told| told.alert.raised).count();
                let alerts = if raised == 1 { "alert" } else { "alerts" };
                format!("weir on {}: {raised} {alerts}, {} over", clean(&self.host), many.len() - raised)
            }
        }
    }

    /// For people: each alert with what to do. Lines end in LF.
    pub(super) fn letter(&self) -> String {
        let mut text = String::new();
        for told in self.told.iter().take(SHOWN_MAX) {
            text.push_str(&sentence(told));
            text.push('\n');
            let remedy = remedy(told);
            if told.alert.raised && !remedy.is_empty() {
                text.push_str(&format!("  What to do: {remedy}\n"));
            }
            if told.is_repeat || !told.alert.raised {
                text.push_str(&format!("  It began at {}.\n", told.since));
            }
            text.push('\n');
        }
        let more = self.not_shown();
        if !more.is_empty() {
            text.push_str(&format!("{}\n\n", more.trim_start_matches("; ")));
        }
        text.push_str(&format!("weir on {}, {}. Look: weir status\n", clean(&self.host), self.time));
        text
    }

    fn not_shown(&self) -> String {
        match self.told.len().saturating_sub(SHOWN_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        }
    }
}

pub(super) fn state(is_raised: bool) -> &'static str {
    if is_raised { "raised" } else { "cleared" }
}

fn sentence(told: &Told) -> String {
    let text = clean(&told.alert.text);
    if !told.alert.raised {
        return if told.is_all_clear { text } else { format!("{ALL_CLEAR}{text}") };
    }
    if told.is_repeat { format!("still: {text}") } else { text }
}

fn remedy(told: &Told) -> String {
    clean(&told.alert.remedy)
}

/// On one line, with nothing that steers a terminal or turns the reading, of bounded length.
pub(super) fn clean(text: &str) -> String {
    let line = printable::blanked(text);
    short(line.trim(), TEXT_MAX)
}

fn short(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Alert;

    pub(in crate::alert) fn told(key: &str, raised: bool, provider: Option<&str>) -> Told {
        let alert = Alert {
            key: key.into(),
            raised,
            text: format!("{key}: 550 5.7.1 said\r\nBcc: x@example.com \x1b[2J (S3150)"),
            remedy: "ask for delisting at https://olcsupport.office.com".into(),
            provider: provider.map(Into::into),
        };
        Told { alert, since: Timestamp::from_secs(1_795_293_000), is_repeat: false, is_all_clear: false }
    }

    pub(in crate::alert) fn notice(told: Vec<Told>) -> Notice {
        Notice { time: Timestamp::from_secs(1_795_293_220), host: "relay.example.com".into(), told }
    }

    #[test]
    fn one_alert_is_an_object_with_seven_keys() {
        let text = notice(vec![told("blocked outlook default", true, Some("outlook"))]).json();
        let value: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        let mut promised = vec!["time", "key", "state", "text", "remedy", "provider", "host"];
        promised.sort_unstable();
        assert_eq!(keys, promised);
        assert_eq!((&value["state"], &value["provider"]), (&json!("raised"), &json!("outlook")));
        assert_eq!(value["time"], "2026-11-21T20:33:40.000Z");
        assert!(value["text"].as_str().unwrap().contains("(S3150)"));
    }

    #[test]
    fn many_have_the_same_keys_and_a_list() {
        let all = vec![told("a", true, Some("outlook")), told("b", false, Some("outlook")), told("c", true, None)];
        let value: Value = serde_json::from_str(&notice(all).json()).unwrap();
        assert_eq!(
            (&value["key"], &value["state"], &value["provider"]),
            (&json!("several"), &json!("raised"), &Value::Null)
        );
        assert_eq!(value["alerts"].as_array().unwrap().len(), 3);
        assert_eq!(value["alerts"][1]["state"], "cleared");
        let flood = notice((0..120).map(|n| told(&n.to_string(), true, None)).collect());
        let value: Value = serde_json::from_str(&flood.json()).unwrap();
        assert_eq!(value["alerts"].as_array().unwrap().len(), SHOWN_MAX);
        assert!(value["text"].as_str().unwrap().ends_with("and 70 more"));
        assert!(flood.letter().contains("and 70 more"));
    }

    #[test]
    fn a_receivers_words_add_no_line_and_no_escape() {
        let notice = notice(vec![told("x", true, None)]);
        assert!(!notice.subject().contains(['\r', '\n', '\x1b']), "{}", notice.subject());
        let letter = notice.letter();
        assert!(letter.lines().all(|line| !line.starts_with("Bcc")) && !letter.contains('\x1b'), "{letter}");
    }

    #[test]
    fn the_letter_says_what_to_do_and_what_is_over() {
        let over = Told { is_repeat: false, ..told("port25", false, None) };
        let still = Told { is_repeat: true, ..told("disk", true, None) };
        let letter = notice(vec![still, over]).letter();
        for part in [
            "still: disk",
            "  What to do: ask for",
            "over: port25",
            "It began at 2026-11-21T20:30:00.000Z",
            "weir status",
        ] {
            assert!(letter.contains(part), "{part} is missing in\n{letter}");
        }
        assert_eq!(letter.matches("What to do").count(), 1);
    }

    proptest! {
        #[test]
        fn no_words_add_a_line_or_a_control(any in any::<String>(), tricky in "[\\x00-\\x20\\x7f-\\xa0\u{61c}\u{2028}-\u{202e}\u{2066}a]{0,20}", count in 1usize..4) {
            for words in [any, tricky] {
                let mut notice = notice(vec![told("x", true, Some(&words)); count]);
                notice.host = words.as_str().into();
                for told in &mut notice.told {
                    (told.alert.key, told.alert.text, told.alert.remedy) = (words.clone(), words.clone(), words.clone());
                }
                let plain = Notice { host: "h".into(), told: vec![self::told("x", true, None); count], ..notice.clone() };
                prop_assert!(!notice.subject().contains(printable::steers));
                let letter = notice.letter();
                prop_assert!(!letter.contains(|c| c != '\n' && printable::steers(c)));
                // Without words there is no remedy, so it may be shorter.
                prop_assert!(letter.lines().count() <= plain.letter().lines().count());
                let json = notice.json();
                prop_assert!(!json.contains(printable::steers), "{:?}", json);
            }
        }
    }
}
