//! A reply made ready for many questions: folded once, then asked by every rule.
//!
//! Folding makes the same reply look the same whoever formats it: letters in lower case, lines joined by one blank, the
//! enhanced code that multi-line replies repeat on each line (RFC 2034 section 4) kept on the first alone, and mail
//! addresses replaced by `@`, because `<rp-001@example.com> user unknown` is about a user and not about RP-001.

use std::cell::OnceCell;

use crate::types::{Enhanced, Mailbox, Reply};

/// How much of a reply is read. Microsoft's longest have about 700 bytes, and what decides stands at the beginning.
const READ_MAX: usize = 4096;
/// Lines that are searched for an enhanced code.
const LINES_MAX: usize = 8;
/// Bytes that are looked through at a time for the turns of [`turns`].
const PIECE: usize = 16;
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

    /// The folded words.
    pub(super) fn text(&self) -> &[u8] {
        &self.folded().text
    }

    /// The receiver's labels in the order in which they stand, in lower case. They are ASCII.
    pub(super) fn tags(&self) -> impl Iterator<Item = &[u8]> {
        let folded = self.folded();
        let places = folded.tags.iter().take(folded.tags_found);
        places.filter_map(|&(start, end)| folded.text.get(usize::from(start)..usize::from(end)))
    }

    /// Does an IP address stand in it?
    pub(super) fn names_ip(&self) -> bool {
        let is_of_address = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b'.' | b':');
        self.text().split(|b| !is_of_address(b)).any(is_ip)
    }

    fn folded(&self) -> &Folded {
        self.folded.get_or_init(|| Folded::of(self.reply))
    }
}

impl Folded {
    fn of(reply: &Reply) -> Folded {
        let text = fold(reply.bytes());
        let mut folded =
            Folded { enhanced: first_enhanced(reply.bytes()), text, tags: [(0, 0); TAGS_MAX], tags_found: 0 };
        folded.find_tags();
        folded
    }

    fn find_tags(&mut self) {
        let mut done = 0;
        for turn in turns(&self.text) {
            let before = self.text.get(..turn).unwrap_or_default();
            let letters = before.iter().rev().take(TAG_LETTERS_MAX + 1).take_while(|b| b.is_ascii_lowercase()).count();
            let start = turn - letters;
            // A tag begins where a word does, and what follows it in the same word is none.
            let is_inside = start < done || before[..start].last().is_some_and(|&b| is_word(b));
            if is_inside || letters > TAG_LETTERS_MAX {
                continue;
            }
            let Some(length) = tag_length(&self.text, start) else { continue };
            let Some(place) = self.tags.get_mut(self.tags_found) else { return };
            // READ_MAX is far below what a u16 holds.
            *place = (start as u16, (start + length) as u16);
            self.tags_found += 1;
            done = start + length;
            done += self.text[done..].iter().take_while(|&&b| is_word(b)).count();
        }
    }
}

/// Where a letter is followed by what may come behind the letters of a tag. Few pieces of a reply have such a place, and
/// those that have none are passed over whole.
fn turns(text: &[u8]) -> impl Iterator<Item = usize> {
    let turns = |(&before, &byte): (&u8, &u8)| {
        before.is_ascii_lowercase() & (byte.is_ascii_digit() | (byte == b'-') | (byte == b'('))
    };
    let after = text.get(1..).unwrap_or_default();
    let pieces = text.chunks(PIECE).zip(after.chunks(PIECE)).zip((1..).step_by(PIECE));
    let with_turns =
        pieces.filter(move |((here, next), _)| here.iter().zip(*next).fold(false, |any, pair| any | turns(pair)));
    with_turns.flat_map(move |((here, next), start)| {
        let places = here.iter().zip(next).zip(start..);
        places.filter_map(move |(pair, place)| turns(pair).then_some(place))
    })
}

/// The enhanced code of the first line that has one.
fn first_enhanced(text: &[u8]) -> Option<Enhanced> {
    let mut rest = text;
    for _ in 0..LINES_MAX {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let found = enhanced_of(&rest[..end]);
        if found.is_some() {
            return found;
        }
        rest = rest.get(end + 1..)?;
    }
    None
}

/// The enhanced code of a line, also where it stands in brackets or behind `#`, as some gateways write it.
fn enhanced_of(line: &[u8]) -> Option<Enhanced> {
    if let Some(inner) = line.strip_prefix(b"(").or(line.strip_prefix(b"[")) {
        let end = inner.iter().position(|b| matches!(b, b')' | b']'))?;
        return Enhanced::at_start(&inner[..end]);
    }
    Enhanced::at_start(line.strip_prefix(b"#").unwrap_or(line))
}

/// Most of a reply is plain runs of words, which are copied whole.
pub(super) fn fold(text: &[u8]) -> Vec<u8> {
    let text = text.get(..READ_MAX).unwrap_or(text);
    let mut folded: Vec<u8> = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let run = memchr::memchr2(b'@', b'\n', rest).unwrap_or(rest.len());
        fold_run(&rest[..run], &mut folded);
        let Some((&end, after)) = rest[run..].split_first() else { break };
        if end == b'@' {
            let start = folded.iter().rposition(|&b| ends_address(b)).map_or(0, |i| i + 1);
            folded.truncate(start);
            folded.push(b'@');
            let length = after.iter().take_while(|&&b| !ends_address(b)).count();
            rest = &after[length..];
        } else {
            fold_blank(&mut folded);
            rest = without_code(after);
        }
    }
    folded.make_ascii_lowercase();
    folded
}

fn fold_run(run: &[u8], folded: &mut Vec<u8>) {
    let pairs = run.iter().zip(run.get(1..).unwrap_or_default());
    // Whole runs are looked at, without a way out in their midst: that is what compilers do many bytes at a time.
    let is_plain = run.iter().fold(true, |so_far, &b| so_far & (b >= b' '));
    let is_smooth = is_plain & pairs.fold(true, |so_far, (&a, &b)| so_far & ((a | b) != b' '));
    let joins = run.first() != Some(&b' ') || folded.last().is_some_and(|&b| b != b' ');
    if is_smooth && joins {
        folded.extend_from_slice(run);
        return;
    }
    for &byte in run {
        if is_blank(byte) { fold_blank(folded) } else { folded.push(byte) }
    }
}

/// One blank between words, and none at the beginning.
fn fold_blank(folded: &mut Vec<u8>) {
    if folded.last().is_some_and(|&b| b != b' ') {
        folded.push(b' ');
    }
}

/// A further line without the enhanced code at its start.
fn without_code(line: &[u8]) -> &[u8] {
    match Enhanced::at_start(line) {
        Some(_) => line.iter().position(|&b| b == b' ' || b == b'\n').map_or(&[], |end| &line[end..]),
        None => line,
    }
}

/// The words of a reply without what differs from one recipient, moment and server to the next: addresses, the recipient's own
/// name, and whatever has digits in it.
pub fn bare_words(reply: &Reply, recipient: &Mailbox) -> String {
    let folded = fold(reply.bytes());
    let text = String::from_utf8_lossy(&folded);
    let name = recipient.local_part().to_ascii_lowercase();
    let is_bare = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        !word.is_empty() && word != name && !word.bytes().any(|b| b.is_ascii_digit())
    };
    let words: Vec<&str> = text.split(' ').filter(is_bare).collect();
    format!("{} {}", reply.code(), words.join(" "))
}

/// `run`: digits, dots and colons, with the dot or colon that may follow in a sentence.
fn is_ip(run: &[u8]) -> bool {
    // The shortest are `1.1.1.1` and `::1`; what is longer than the longest is none.
    if !(3..=46).contains(&run.len()) {
        return false;
    }
    let run = run.trim_ascii_end();
    let run = run.strip_suffix(b".").or(run.strip_suffix(b":")).unwrap_or(run);
    let text = std::str::from_utf8(run).unwrap_or_default().trim_start_matches('.');
    let text = text.strip_prefix(':').filter(|rest| !rest.starts_with(':')).unwrap_or(text);
    // "::" may be a slip of punctuation.
    text.parse::<std::net::IpAddr>().is_ok_and(|ip| !ip.is_unspecified())
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

impl TagForm {
    /// Of the prefix: what follows them is `-` or a bracket.
    fn letters(&self) -> usize {
        self.prefix.len() - usize::from(matches!(self.prefix, [.., b'-' | b'(']))
    }
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
    TAG_FORMS.iter().filter(|form| form.letters() == letters).find_map(|form| {
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
        Scan::of(&reply).tags().map(|tag| String::from_utf8(tag.to_ascii_uppercase()).unwrap()).collect()
    }

    /// Looks at every byte.
    fn tags_one_by_one(text: &[u8]) -> Vec<&[u8]> {
        let (mut tags, mut at) = (Vec::new(), 0);
        while at < text.len() && tags.len() < TAGS_MAX {
            let begins =
                text[at].is_ascii_lowercase() && !at.checked_sub(1).is_some_and(|before| is_word(text[before]));
            let Some(length) = tag_length(text, at).filter(|_| begins) else {
                at += 1;
                continue;
            };
            tags.push(&text[at..at + length]);
            at += length;
            at += text[at..].iter().take_while(|&&b| is_word(b)).count();
        }
        tags
    }

    proptest::proptest! {
        #[test]
        fn no_tag_is_passed_over(words in proptest::collection::vec(
            "rp-00[1-3]|as\\(1410\\)|\\(s3150\\)|\\[ts02\\]|attr55\\.1|ib504[a-z]?|[a-z]{0,7}[0-9(-]{0,3}|[ (.\\])-]{1,3}", 0..30,
        )) {
            let reply = Reply::new(550, words.concat());
            let scan = Scan::of(&reply);
            proptest::prop_assert_eq!(scan.tags().collect::<Vec<_>>(), tags_one_by_one(scan.text()));
        }
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
    fn bare_words_are_the_same_for_every_recipient() {
        let bare =
            |text: &str, recipient: &str| bare_words(&Reply::parse(text).unwrap(), &Mailbox::parse(recipient).unwrap());
        let one = bare("550 5.1.1 <Ann@x.test>: Ann is not here [192.0.2.1] q7si123", "ann@x.test");
        assert_eq!(one, "550 is not here");
        assert_eq!(
            one,
            bare("550-5.1.1 <bob.b@x.test>: bob.b\n550 5.1.1 is NOT here [192.0.2.9] zz99", "bob.b@x.test")
        );
        assert_ne!(one, bare("550 5.1.1 is not there", "ann@x.test"));
        assert_ne!(one, bare("554 5.1.1 is not here", "ann@x.test"));
    }

    #[test]
    fn an_ip_address_is_found_in_any_surroundings() {
        for text in [
            "[192.0.2.1]",
            "IP=192.0.2.1 - no",
            "from 192.0.2.1.",
            "192.0.2.1: go",
            "x (2001:db8::1) y",
            "https://x.test/?ip=2001:db8:0:0:0:0:0:1&c=1",
            "client:192.0.2.1>",
        ] {
            assert!(Scan::of(&Reply::new(550, text)).names_ip(), "{text}");
        }
        for text in ["", "5.7.1 no", "1.2.3", "192.0.2.256", "12:30:15", "a::b::c", "::", "mx1.2.3.4.5.test", "cafe"] {
            assert!(!Scan::of(&Reply::new(550, text)).names_ip(), "{text}");
        }
    }

    #[test]
    fn only_the_beginning_of_an_endless_reply_is_read() {
        let reply = Reply::new(550, format!("{} RP-001", "x".repeat(READ_MAX)));
        assert_eq!(Scan::of(&reply).tags().count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(text in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let reply = Reply::new(550, text);
            let scan = Scan::of(&reply);
            proptest::prop_assert!(scan.tags().count() <= TAGS_MAX);
        }
    }
}
