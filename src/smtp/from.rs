//! Whom a message says it is from: the mailboxes in its From field (RFC 5322 section 3.6.2, groups as RFC 6854 allows them).
//!
//! Read to judge whether a client may write in that name, so what readers could understand in two ways is not understood at
//! all. Rules that always hold:
//!
//! - every mailbox is found, in lists and in groups, or the field is faulty: none is passed over;
//! - an address in quotes, in a comment or in an encoded word is a name and no mailbox; outside of them `@` stands in addresses only;
//! - obsolete forms (section 4.4) are read where they mean one thing: blanks and comments within addresses, dots in names, empty
//!   places in lists. Source routes are not.

use std::fmt;

use crate::types::Mailbox;

/// The longest value that is read, in octets: a hundred authors with their names.
pub const FROM_MAX: usize = 8 << 10;

/// What a header's From fields came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authors {
    /// There was none.
    #[default]
    Missing,
    /// At least one.
    Mailboxes(Vec<Mailbox>),
    Faulty(FromFault),
}

/// Why it is not known whom a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FromFault {
    #[error("has more than one From field")]
    Two,
    #[error("has a From field longer than {FROM_MAX} octets")]
    TooLong,
    #[error("has a From field that is no list of addresses (RFC 5322 section 3.6.2)")]
    Syntax,
    #[error("has a From field without an address")]
    Nobody,
}

impl Authors {
    /// Takes the value of one more From field.
    pub fn add(&mut self, value: &[u8]) {
        *self = match self {
            Authors::Missing => Authors::read(value),
            _ => Authors::Faulty(FromFault::Two),
        };
    }

    fn read(value: &[u8]) -> Authors {
        if value.len() > FROM_MAX {
            return Authors::Faulty(FromFault::TooLong);
        }
        match mailboxes(value) {
            None => Authors::Faulty(FromFault::Syntax),
            Some(nobody) if nobody.is_empty() => Authors::Faulty(FromFault::Nobody),
            Some(mailboxes) => Authors::Mailboxes(mailboxes),
        }
    }
}

/// A piece of a structured field (section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Atom(&'a str),
    /// With its quotes.
    Quoted(&'a str),
    /// A domain literal, with its brackets.
    Literal(&'a str),
    /// One of `< > @ , ; : .`
    Special(char),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Atom(text) | Token::Quoted(text) | Token::Literal(text) => f.write_str(text),
            Token::Special(c) => write!(f, "{c}"),
        }
    }
}

/// Every mailbox of an address list; none: it is no such list.
fn mailboxes(value: &[u8]) -> Option<Vec<Mailbox>> {
    let mut parser = Parser { tokens: tokens(std::str::from_utf8(value).ok()?)?, at: 0, found: Vec::new() };
    parser.list(None)?;
    Some(parser.found)
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    found: Vec<Mailbox>,
}

impl<'a> Parser<'a> {
    /// Reads addresses up to `end`: that of a group, or of the field.
    fn list(&mut self, end: Option<char>) -> Option<()> {
        loop {
            while self.takes(',') {}
            match (self.peek(), end) {
                (None, None) => return Some(()),
                (Some(Token::Special(c)), Some(end)) if c == end => return Some(()),
                _ => self.address(end.is_none())?,
            }
            let is_parted = match self.peek() {
                None => end.is_none(),
                Some(Token::Special(c)) => c == ',' || Some(c) == end,
                Some(_) => false,
            };
            if !is_parted {
                return None;
            }
        }
    }

    /// Reads a mailbox, with or without a name, or a group where one may stand.
    fn address(&mut self, may_be_group: bool) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(Token::Atom(_) | Token::Quoted(_) | Token::Special('.'))) {
            self.at += 1;
        }
        let has_name = self.at > start;
        match self.peek()? {
            Token::Special('@') => {
                self.at = start;
                self.mailbox()
            }
            Token::Special('<') => {
                self.at += 1;
                self.mailbox()?;
                self.takes('>').then_some(())
            }
            Token::Special(':') if has_name && may_be_group => {
                self.at += 1;
                self.list(Some(';'))?;
                self.takes(';').then_some(())
            }
            _ => None,
        }
    }

    fn mailbox(&mut self) -> Option<()> {
        let local = self.words()?;
        if !self.takes('@') {
            return None;
        }
        let domain = match self.peek()? {
            Token::Literal(text) => {
                self.at += 1;
                text.to_string()
            }
            _ => self.words()?,
        };
        let text = format!("{local}@{domain}");
        // A final dot is taken off in commands; here two readers might differ about it.
        self.found.push(Mailbox::parse(&text).ok().filter(|mailbox| mailbox.as_str() == text)?);
        Some(())
    }

    /// Words parted by dots, as one text. Doubled, leading and final dots exist in local parts; a domain is checked by its type.
    fn words(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut after_word = false;
        while let Some(token @ (Token::Atom(_) | Token::Quoted(_) | Token::Special('.'))) = self.peek() {
            let is_word = token != Token::Special('.');
            if is_word && after_word {
                return None;
            }
            text.push_str(&token.to_string());
            after_word = is_word;
            self.at += 1;
        }
        (!text.is_empty()).then_some(text)
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn takes(&mut self, special: char) -> bool {
        let is_next = self.peek() == Some(Token::Special(special));
        self.at += usize::from(is_next);
        is_next
    }
}

/// Cuts a value into its tokens, without blanks and comments; none: it is no structured field.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            ' ' | '\t' | '\r' | '\n' => 1,
            '(' => comment(rest)?,
            '"' => bracketed(rest, '"')?,
            '[' => bracketed(rest, ']')?,
            '<' | '>' | '@' | ',' | ';' | ':' | '.' => 1,
            c if is_atom(c) => rest.find(|c| !is_atom(c)).unwrap_or(rest.len()),
            _ => return None,
        };
        let (token, after) = rest.split_at_checked(length)?;
        match c {
            ' ' | '\t' | '\r' | '\n' | '(' => {}
            '"' => tokens.push(Token::Quoted(token)),
            '[' => tokens.push(Token::Literal(token)),
            c if is_atom(c) => tokens.push(Token::Atom(token)),
            c => tokens.push(Token::Special(c)),
        }
        rest = after;
    }
    Some(tokens)
}

/// Section 3.2.3, and everything beyond ASCII (RFC 6532 section 3.2).
fn is_atom(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

/// The length of the comment that `text` begins with; comments stand in comments (section 3.2.2).
fn comment(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next().filter(|(_, c)| !is_forbidden(*c))?),
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            c if is_forbidden(c) => return None,
            _ => {}
        }
    }
    None
}

/// The length of the quoted string or literal that `text` begins with.
fn bracketed(text: &str, end: char) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next().filter(|(_, c)| !is_forbidden(*c))?),
            c if c == end => return Some(at + 1),
            c if is_forbidden(c) => return None,
            _ => {}
        }
    }
    None
}

/// A control character that is no part of folding.
fn is_forbidden(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The mailboxes of a field, or what is wrong with it.
    fn read(value: &str) -> String {
        let mut from = Authors::Missing;
        from.add(value.as_bytes());
        match from {
            Authors::Missing => "missing".to_string(),
            Authors::Mailboxes(found) => found.iter().map(Mailbox::as_str).collect::<Vec<_>>().join(" "),
            Authors::Faulty(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn every_mailbox_is_found_and_no_name_is_one() {
        for (value, expected) in [
            (" a@good.example\r\n", "a@good.example"),
            ("<a@good.example>", "a@good.example"),
            ("\"a@good.example\" <b@evil.example>", "b@evil.example"),
            ("\"a@good.example, x\" <b@evil.example>", "b@evil.example"),
            ("\"a\\\" <a@good.example> \" <b@evil.example>", "b@evil.example"),
            ("(a@good.example) b@evil.example", "b@evil.example"),
            ("b@evil.example (a@good.example (\\) <a@good.example>))", "b@evil.example"),
            ("=?utf-8?q?a=40good=2Eexample?= <b@evil.example>", "b@evil.example"),
            ("=?utf-8?B?TcO8bGxlcg==?=\r\n =?utf-8?B?TcO8bGxlcg==?= <b@evil.example>", "b@evil.example"),
            ("John Q. Public <a@good.example>", "a@good.example"),
            ("J. Ü. Müller <a@good.example>", "a@good.example"),
            ("a@good.example, B <b@evil.example>", "a@good.example b@evil.example"),
            (", a@good.example,, b@evil.example ,", "a@good.example b@evil.example"),
            ("Us: a@good.example, \"B\" <b@evil.example>;", "a@good.example b@evil.example"),
            ("Us:a@good.example;, c@good.example", "a@good.example c@good.example"),
            ("a . b @ good (x) . example", "a.b@good.example"),
            ("a@\r\n good.example", "a@good.example"),
            ("b@evil.example .good.example", "b@evil.example.good.example"),
            ("\"a@good.example\"@evil.example", "\"a@good.example\"@evil.example"),
            ("a%good.example@evil.example", "a%good.example@evil.example"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
            ("ä@bücher.example", "ä@bücher.example"),
            ("a@GOOD.example", "a@GOOD.example"),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_faulty() {
        for value in [
            "a@good.example <b@evil.example>",
            "<a@good.example> <b@evil.example>",
            "<a@good.example> b@evil.example",
            "a@good.example b@evil.example",
            "a@good.example@evil.example",
            "<a@good.example",
            "a@good.example>",
            "<<a@good.example>>",
            "<a@good.example, b@evil.example>",
            "\"a <a@good.example>",
            "(a@good.example",
            "a) a@good.example",
            "<@evil.example:a@good.example>",
            "a@good.example;",
            "Us: Them: a@good.example;;",
            "Us: a@good.example",
            ": a@good.example;",
            "a b@good.example",
            "a@good example",
            "a@go(x)od.example",
            "a@good.example.",
            "a@good..example",
            "a@\"good.example\"",
            "a\0@good.example",
            "\"\0\" <a@good.example>",
            "\"\\\u{1b}\" <a@good.example>",
            "(\u{7}) a@good.example",
            "a\\@good.example",
            "a@[good.example]",
            "Firm, Inc. <a@good.example>",
            "John",
            "<>",
            "@good.example",
        ] {
            assert_eq!(read(value), "Syntax", "{value}");
        }
        for value in ["", " \r\n", "(nobody)", "undisclosed:;", ",,"] {
            assert_eq!(read(value), "Nobody", "{value}");
        }
        let mut latin = Authors::Missing;
        latin.add(b"M\xfcller <a@good.example>");
        assert_eq!(latin, Authors::Faulty(FromFault::Syntax));
    }

    #[test]
    fn a_second_field_and_a_field_without_end_are_faulty() {
        let mut from = Authors::Missing;
        from.add(b"a@good.example");
        from.add(b"a@good.example");
        assert_eq!(from, Authors::Faulty(FromFault::Two));
        let many = "a@good.example,".repeat(FROM_MAX / 15);
        assert!(read(&many).starts_with("a@good.example "));
        assert_eq!(read(&many.repeat(2)), "TooLong");
    }

    /// What any name may hold.
    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop::sample::select(vec!["a@good.example", "<", ">", ",", ":", ";", "(", ")", " ", "x", "\"", "\\", "@"]),
            0..8,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_name_however_quoted_hides_the_mailbox(name in name(), comment in name()) {
            let escape = |text: &str, special: &[char]| -> String {
                text.chars().flat_map(|c| special.contains(&c).then_some('\\').into_iter().chain([c])).collect()
            };
            let (quoted, comment) = (escape(&name, &['"', '\\']), escape(&comment, &['(', ')', '\\']));
            let value = format!("\"{quoted}\" ({comment}) <b@evil.example> ({comment})");
            prop_assert_eq!(read(&value), "b@evil.example");
        }

        #[test]
        fn where_one_mailbox_is_evil_no_list_is_good(before in name(), after in name()) {
            let heard = read(&format!("{before} <b@evil.example> {after}"));
            let is_hidden = heard.split(' ').all(|word| word.ends_with("good.example"));
            // Quotes and comments that the parts open and close between them make a name of it.
            let is_name = before.contains(['"', '(']) && after.contains(['"', ')']);
            prop_assert!(!is_hidden || is_name, "{heard}");
        }

        #[test]
        fn nothing_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
            Authors::Missing.add(&value);
        }
    }
}
