//! Foreign words made fit to be shown: a client's, a receiver's, a name server's, an operator's.
//!
//! Rules that always hold: what comes out of here ends no line, steers no terminal and turns no order of reading, and is left as
//! it is where it does none of that. Letters of every script pass.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Does `c` end a line for somebody, obey a terminal, or turn the direction of what stands behind it? The last are the
/// characters of Unicode's Bidi_Control, with which a name can be made to look like another.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// On one line: ends of lines and tabs become blanks, what else steers becomes `?`.
pub fn one_line(text: &str) -> Cow<'_, str> {
    replaced(text, |c| match c {
        '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        _ => '?',
    })
}

/// On one line: everything that steers becomes a blank.
pub fn blanked(text: &str) -> Cow<'_, str> {
    replaced(text, |_| ' ')
}

fn replaced(text: &str, with: impl Fn(char) -> char) -> Cow<'_, str> {
    if text.chars().any(steers) {
        Cow::Owned(text.chars().map(|c| if steers(c) { with(c) } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// A JSON text of one line whose strings hold nothing that steers: JSON itself asks only for the first 32 to be escaped
/// (RFC 8259 section 7). What it means stays the same.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) {
            // None of them lies beyond the first plane. Writing to memory does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_of_every_script_pass() {
        for text in ["bob@example.com", "用户@例子.广告", "παράδειγμα", "مثال", "עברית", "👩\u{200d}🔬", "é…"]
        {
            assert_eq!((&*one_line(text), &*blanked(text), &*json(text)), (text, text, text));
        }
    }

    #[test]
    fn what_steers_is_shown_as_something_else() {
        for (text, line) in [
            ("250 ok\r\n250 done", "250 ok  250 done"),
            ("\u{1b}]0;title\u{7}\u{9b}2J\u{7f}\0", "?]0;title??2J??"),
            ("gpj.exe\u{202e}", "gpj.exe?"),
            ("a\u{85}b\u{2028}c\u{2029}d\te", "a b c d e"),
        ] {
            assert_eq!(one_line(text), line);
            assert!(!blanked(text).contains(steers));
        }
    }

    proptest! {
        #[test]
        fn json_means_the_same_and_steers_nothing(text in any::<String>(), tricky in "[\\x00-\\x20\\x7f-\\xa0\"\\\\\u{61c}\u{200e}\u{2028}-\u{202e}\u{2066}a]{0,20}") {
            for text in [text, tricky] {
                let json = json(&serde_json::to_string(&text).unwrap()).into_owned();
                prop_assert!(!json.contains(steers), "{:?}", json);
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            }
        }
    }
}
