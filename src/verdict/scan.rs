//! A reply made ready for many questions: folded once, then asked by every rule.
//!
//! Folding makes the same reply look the same whoever formats it: letters in lower case, lines joined by one blank, the
//! enhanced code that multi-line replies repeat on each line (RFC 2034 section 4) kept on the first alone, and mail
//! addresses replaced by `@`, because `<rp-001@example.com> user unknown` is about a user and not about RP-001.
//!
//! A set of the three-byte sequences that occur answers most questions after a phrase with no search at all.

use std::cell::OnceCell;

use memchr::memmem::Finder;

use crate::types::{Enhanced, Reply};

/// How much of a reply is read. Microsoft's longest have about 700 bytes, and what decides stands at the beginning.
const READ_MAX: usize = 4096;
/// Tags that are looked at; no receiver gives more than two.
const TAGS_MAX: usize = 8;
/// `attr` and `ipts` are the longest prefixes.
const TAG_LETTERS_MAX: usize = 4;
/// A tag is a prefix and digits, `AS16012609` the longest known.
const TAG_DIGITS_MAX: usize = 9;

/// A reply, folded when the first question about its words comes: for nearly all that are positive the code says enough.
pub(super) struct Scan<'r> {
    pub code: u16,
    reply: &'r Reply,
    folded: OnceCell<Folded>,
}

struct Folded {
    enhanced: Option<Enhanced>,
    text: Vec<u8>,
    triples: Triples,
    /// Where tags stand in `text`.
    tags: [(u16, u16); TAGS_MAX],
    tags_found: usize,
}

impl<'r> Scan<'r> {
    pub(super) fn of(reply: &'r Reply) -> Scan<'r> {
        Scan { code: reply.code(), reply, folded: OnceCell::new() }
    }

    pub(super) fn enhanced(&self) -> Option<Enhanced> {
        self.folded().enhanced
    }

    pub(super) fn contains(&self, phrase: &Phrase) -> bool {
        let folded = self.folded();
        folded.triples.may_contain(&phrase.triples) && phrase.finder.find(&folded.text).is_some()
    }

    /// The receiver's labels in the order in which they stand, in lower case.
    pub(super) fn tags(&self) -> impl Iterator<Item = &str> {
        let folded = self.folded();
        folded.tags.iter().take(folded.tags_found).filter_map(|&(start, end)| {
            let bytes = folded.text.get(usize::from(start)..usize::from(end))?;
            std::str::from_utf8(bytes).ok()
        })
    }

    fn folded(&self) -> &Folded {
        self.folded.get_or_init(|| Folded::of(self.reply))
    }
}

impl Folded {
    fn of(reply: &Reply) -> Folded {
        let text = fold(reply.bytes());
        let mut folded = Folded {
            enhanced: reply.lines().take(8).find_map(enhanced_of),
            triples: Triples::of(&text),
            text,
            tags: [(0, 0); TAGS_MAX],
            tags_found: 0,
        };
        folded.find_tags();
        folded
    }

    fn find_tags(&mut self) {
        let mut at = 0;
        // A tag begins where a word does, and what follows it in the same word is none.
        while let Some(before) = self.text[at..].iter().position(|&b| is_word(b)) {
            at += before;
            if let Some(length) = tag_length(&self.text, at) {
                if let Some(place) = self.tags.get_mut(self.tags_found) {
                    // READ_MAX is far below what a u16 holds.
                    *place = (at as u16, (at + length) as u16);
                    self.tags_found += 1;
                }
                at += length;
            }
            at += self.text[at..].iter().take_while(|&&b| is_word(b)).count();
        }
    }
}

/// Words to look for, whatever their letter case.
#[derive(Debug)]
pub(super) struct Phrase {
    finder: Finder<'static>,
    /// Four of its triples; more would seldom say more.
    triples: [u16; 4],
}

impl Phrase {
    /// `None` if `words` has less than three bytes or something that folding takes out.
    pub(super) fn new(words: &str) -> Option<Phrase> {
        let folded = fold(words.as_bytes());
        if folded.len() < 3 || folded != words.to_ascii_lowercase().into_bytes() {
            return None;
        }
        let last = folded.len() - 3;
        let triples = [0, last / 3, last * 2 / 3, last].map(|at| triple_hash(&folded[at..at + 3]));
        Some(Phrase { finder: Finder::new(&folded).into_owned(), triples })
    }
}

/// Which three-byte sequences occur, by hash: false positives are possible, false negatives are not.
struct Triples([u64; 64]);

impl Triples {
    fn of(text: &[u8]) -> Triples {
        let mut bits = [0u64; 64];
        let Some((first, rest)) = text.split_first_chunk::<2>() else { return Triples(bits) };
        let mut triple = u32::from_le_bytes([0, first[0], first[1], 0]);
        for &byte in rest {
            triple = triple >> 8 | u32::from(byte) << 16;
            let hash = hash_of(triple);
            bits[usize::from(hash >> 6)] |= 1 << (hash & 63);
        }
        Triples(bits)
    }

    fn may_contain(&self, hashes: &[u16; 4]) -> bool {
        hashes.iter().all(|&hash| self.0[usize::from(hash >> 6)] & (1 << (hash & 63)) != 0)
    }
}

/// 12 bits; zero for what is no triple.
fn triple_hash(triple: &[u8]) -> u16 {
    let &[a, b, c] = triple else { return 0 };
    hash_of(u32::from_le_bytes([a, b, c, 0]))
}

fn hash_of(triple: u32) -> u16 {
    (triple.wrapping_mul(0x9E37_79B1) >> 20) as u16
}

/// The enhanced code of a line, also where it stands in brackets or behind `#`, as some gateways write it.
fn enhanced_of(line: &[u8]) -> Option<Enhanced> {
    if let Some(inner) = line.strip_prefix(b"(").or(line.strip_prefix(b"[")) {
        let end = inner.iter().position(|b| matches!(b, b')' | b']'))?;
        return Enhanced::at_start(&inner[..end]);
    }
    Enhanced::at_start(line.strip_prefix(b"#").unwrap_or(line))
}

fn fold(text: &[u8]) -> Vec<u8> {
    let text = text.get(..READ_MAX).unwrap_or(text);
    let mut folded: Vec<u8> = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let plain = rest.iter().take_while(|&&b| !is_blank(b) && b != b'@').count();
        folded.extend_from_slice(&rest[..plain]);
        let Some((&byte, after)) = rest[plain..].split_first() else { break };
        rest = after;
        if byte == b'@' {
            let start = folded.iter().rposition(|&b| ends_address(b)).map_or(0, |i| i + 1);
            folded.truncate(start);
            folded.push(b'@');
            let end = rest.iter().position(|&b| ends_address(b)).unwrap_or(rest.len());
            rest = &rest[end..];
            continue;
        }
        if folded.last().is_some_and(|&b| b != b' ') {
            folded.push(b' ');
        }
        if byte == b'\n' {
            rest = without_code(rest);
        }
    }
    folded.make_ascii_lowercase();
    folded
}

/// A further line without the enhanced code at its start.
fn without_code(line: &[u8]) -> &[u8] {
    match Enhanced::at_start(line) {
        Some(_) => line.iter().position(|&b| b == b' ' || b == b'\n').map_or(&[], |end| &line[end..]),
        None => line,
    }
}

fn is_blank(byte: u8) -> bool {
    KINDS[usize::from(byte)] == Kind::Blank
}

fn is_word(byte: u8) -> bool {
    KINDS[usize::from(byte)] == Kind::Word
}

fn ends_address(byte: u8) -> bool {
    matches!(KINDS[usize::from(byte)], Kind::Blank | Kind::Bracket)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank,
    /// Ends an address, as blanks do.
    Bracket,
    Word,
    Other,
}

/// Of each byte: asked several times for every byte of a reply.
const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b' ' | b'\t' | b'\r' | b'\n' | 0 => Kind::Blank,
            b'<' | b'>' | b'(' | b')' | b'[' | b']' | b'"' | b'\'' | b',' | b';' | b':' => Kind::Bracket,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => Kind::Word,
            _ => Kind::Other,
        };
        byte += 1;
    }
    kinds
};

/// A way to write a tag: what stands before the digits, how many there are, and whether brackets must enclose it.
struct TagForm {
    prefix: &'static [u8],
    digits: (usize, usize),
    enclosed: bool,
}

const fn form(prefix: &'static [u8], least: usize, most: usize, enclosed: bool) -> TagForm {
    TagForm { prefix, digits: (least, most), enclosed }
}

/// Short prefixes count only in brackets: `s1234` may be a host. Longer prefixes stand before those they begin with.
const TAG_FORMS: [TagForm; 17] = [
    form(b"rp-", 3, 3, false),
    form(b"sc-", 3, 3, false),
    form(b"dy-", 3, 3, false),
    form(b"ou-", 3, 3, false),
    form(b"attr", 1, 3, false),
    form(b"prx", 1, 3, false),
    form(b"ib", 3, 3, false),
    form(b"as(", 2, TAG_DIGITS_MAX, false),
    form(b"as", 3, TAG_DIGITS_MAX, true),
    form(b"s", 3, 6, true),
    // Yahoo
    form(b"tss", 2, 2, true),
    form(b"ts", 2, 2, true),
    form(b"gl", 2, 2, true),
    form(b"bl", 2, 2, true),
    form(b"ph", 2, 2, true),
    form(b"ipts", 2, 2, true),
    // Apple
    form(b"cs", 2, 2, true),
];

/// The length of the tag that starts at `at`, if one does.
fn tag_length(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    // Few words are a short prefix and then no letter: this answers for nearly all of them.
    let letters = rest.iter().take(TAG_LETTERS_MAX + 1).take_while(|b| b.is_ascii_lowercase()).count();
    if !(1..=TAG_LETTERS_MAX).contains(&letters)
        || !rest.get(letters).is_some_and(|b| matches!(b, b'0'..=b'9' | b'-' | b'('))
    {
        return None;
    }
    TAG_FORMS.iter().find_map(|form| {
        let digits = number_length(rest.strip_prefix(form.prefix)?);
        if !(form.digits.0..=form.digits.1).contains(&digits) {
            return None;
        }
        let mut length = form.prefix.len() + digits;
        let next = rest.get(length).copied();
        if form.prefix.ends_with(b"(") {
            return (next == Some(b')')).then_some(length + 1);
        }
        if form.enclosed {
            let opened = at.checked_sub(1).is_some_and(|i| matches!(text[i], b'(' | b'['));
            return (opened && matches!(next, Some(b')' | b']'))).then_some(length);
        }
        if next == Some(b'.') && form.prefix == b"attr" {
            // ATTR55.1 has a second number; the dot behind ATTR35 ends a sentence.
            let second = number_length(&rest[length + 1..]);
            length += if second > 0 { second + 1 } else { 0 };
        }
        rest.get(length).is_none_or(|&b| !is_word(b)).then_some(length)
    })
}

fn number_length(text: &[u8]) -> usize {
    text.iter().take(TAG_DIGITS_MAX + 1).take_while(|b| b.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        String::from_utf8(fold(text.as_bytes())).unwrap()
    }

    fn tags(text: &str) -> Vec<String> {
        let reply = Reply::new(550, text);
        Scan::of(&reply).tags().map(str::to_ascii_uppercase).collect()
    }

    #[test]
    fn folding_makes_wordings_alike() {
        assert_eq!(folded("5.7.1 Mail\n5.7.1  REJECTED\r\n5.7.1 here"), "5.7.1 mail rejected here");
        assert_eq!(folded("User <rp-001@block.example>: unknown"), "user <@>: unknown");
        assert_eq!(folded("spam@x y@[192.0.2.1] z"), "@ @[192.0.2.1] z");
        assert_eq!(folded("5.7.1"), "5.7.1");
        assert_eq!(folded("a\n5.7.1\n5.7.1 b"), "a b");
    }

    #[test]
    fn finds_each_kind_of_tag() {
        for (text, tag) in [
            ("RP-001 (<server>) Unfortunately", "RP-001"),
            ("block list (S3150). You", "S3150"),
            ("see https://aka.ms/postmaster (S775) [Name=x]", "S775"),
            ("LinkId=526653. AS(1410) [CB1PEPF0000205E.x]", "AS(1410)"),
            ("(AS16012609) [BL2NAM06FT004.Eop-nam06.prod]", "AS16012609"),
            ("multiple regions ATTR38 [x]", "ATTR38"),
            ("later ATTR55.1", "ATTR55.1"),
            ("later ATTR35.", "ATTR35"),
            ("later. PRX6 NextHop", "PRX6"),
            ("rp-001 (x)", "RP-001"),
            ("4.7.0 [TSS04] Messages", "TSS04"),
        ] {
            assert_eq!(tags(text), [tag], "{text}");
        }
        assert_eq!(tags("SC-001 x (S3150) y"), ["SC-001", "S3150"]);
    }

    #[test]
    fn what_only_looks_like_a_tag_is_none() {
        for text in [
            "(COL004-MC4F40)",
            "[AMS0EPF0000019C.eurprd05.prod.outlook.com 2026-05-14T15:49:33.598Z 08DEADB0994CCD76]",
            "<rp-001@example.com> unknown",
            "XRP-001",
            "RP-0011",
            "(ASxxx)",
            "s3150.example.com",
            "AS(x)",
            "AS(1410",
            "prx",
            "",
        ] {
            assert_eq!(tags(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_enhanced_code_is_found_in_odd_places() {
        for text in ["5.1.0 x", "#5.1.0 x", "(5.1.0) x", "[5.1.0] x", "x\n5.1.0 y"] {
            assert_eq!(Scan::of(&Reply::new(550, text)).enhanced(), Some(Enhanced::new(5, 1, 0)), "{text}");
        }
    }

    #[test]
    fn only_the_beginning_of_an_endless_reply_is_read() {
        let reply = Reply::new(550, format!("{} RP-001", "x".repeat(READ_MAX)));
        assert_eq!(Scan::of(&reply).tags().count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn a_phrase_is_found_exactly_where_a_plain_search_finds_it(text in "[a-d ]{0,40}", words in "[a-d]{3,4}") {
            let reply = Reply::new(550, text.as_str());
            let scan = Scan::of(&reply);
            let phrase = Phrase::new(&words).unwrap();
            proptest::prop_assert_eq!(scan.contains(&phrase), folded(&text).contains(&words));
        }

        #[test]
        fn any_bytes_are_taken(text in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let reply = Reply::new(550, text);
            let scan = Scan::of(&reply);
            proptest::prop_assert!(scan.tags().count() <= TAGS_MAX);
        }
    }
}
