//! Numbers, times and foreign words as people read them.

use crate::types::words::Grouped;
pub(super) use crate::types::words::{count, count_of, date, size, span};
use crate::types::{Timestamp, printable};

/// `in 4m 12s`, `now`, `3h ago`.
pub(super) fn relative(moment: Timestamp, now: Timestamp) -> String {
    if moment.secs() > now.secs() {
        return format!("in {}", span(moment.since(now)));
    }
    let ago = now.since(moment);
    if ago.as_secs() == 0 { "now".to_string() } else { format!("{} ago", span(ago)) }
}

/// `12,400`
pub(super) fn number(number: u64) -> String {
    Grouped(number).to_string()
}

/// `1 waits`, `12,400 wait`
pub(super) fn waits(n: u64) -> String {
    format!("{} {}", number(n), if n == 1 { "waits" } else { "wait" })
}

/// `38/min`, `1.5/min`, `30/h` for what is less than one a minute, `unlimited`
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "unlimited".to_string(),
        Some(rate) if rate >= 10.0 => format!("{rate:.0}/min"),
        Some(rate) if rate > 0.0 && rate < 1.0 => format!("{}/h", (rate * 60.0).round().max(1.0)),
        Some(rate) => format!("{}/min", (rate * 10.0).round() / 10.0),
    }
}

/// Foreign words, fit for a terminal: control characters (a receiver's reply may hold escape sequences) become `?`,
/// line ends become spaces.
pub(super) fn clean(text: &str) -> String {
    printable::one_line(text).into_owned()
}

/// The same for text of several lines.
pub(super) fn clean_lines(text: &str) -> String {
    text.split('\n').map(printable::one_line).collect::<Vec<_>>().join("\n")
}

/// At most `max` characters, the cut shown.
pub(super) fn short(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_string();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// In lines of at most so many characters, parted between words; a word that is longer stands alone and whole, to be copied.
pub(super) fn wrapped(text: &str, max: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > max {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spans_have_two_units() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (252, "4m 12s"),
            (3600, "1h"),
            (3605, "1h"),
            (93_784, "1d 2h"),
            (86_460, "1d"),
        ] {
            assert_eq!(span(Duration::from_secs(secs)), text, "{secs}");
        }
    }

    #[test]
    fn moments_are_told_from_now() {
        let now = Timestamp::from_secs(1_795_293_220);
        assert_eq!(relative(now + Duration::from_secs(252), now), "in 4m 12s");
        assert_eq!(relative(now - Duration::from_secs(10_800), now), "3h ago");
        assert_eq!(relative(now, now), "now");
        assert_eq!(date(now), "2026-11-21 20:33:40 UTC");
    }

    #[test]
    fn numbers_have_groups_and_units() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_400, "12,400"), (1_234_567, "1,234,567")] {
            assert_eq!(number(n), text);
        }
        assert_eq!((count(1, "message"), count(2, "message")), ("1 message".to_string(), "2 messages".to_string()));
        assert_eq!((size(512), size(12_345), size(35 << 20)), ("512 B".into(), "12.0 KiB".into(), "35.0 MiB".into()));
        assert_eq!(
            (rate(None), rate(Some(38.4)), rate(Some(1.46)), rate(Some(0.0))),
            ("unlimited".into(), "38/min".into(), "1.5/min".into(), "0/min".into())
        );
        assert_eq!((rate(Some(0.5)), rate(Some(0.001))), ("30/h".into(), "1/h".into()));
        assert_eq!((waits(1), waits(12_400)), ("1 waits".to_string(), "12,400 wait".to_string()));
    }

    #[test]
    fn a_receivers_words_cannot_steer_the_terminal() {
        assert_eq!(clean("550 a\x1b[2Jb\nc\u{202e}d"), "550 a?[2Jb c?d");
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
    }
}
