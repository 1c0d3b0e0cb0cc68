//! Which of many phrases stand in a text: all of them looked for in one pass.
//!
//! Of each phrase one sequence of three bytes is its mark, chosen so that few others share it and
//! few texts have it. The text is gone through once; where
//! a mark turns up, the phrases it belongs to are compared with what stands there. So the time depends on the
//! length of the text and hardly on the number of phrases (after Wu and Manber, 1994).
//!
//! A blank at the beginning or the end of a phrase asks for the beginning or the end of a word there: `" rate"` stands in
//! "rates" and not in "corporate". A word of two letters (`" ip "`) has no mark and is looked for by itself.

use std::collections::BTreeMap;

use super::scan::fold;

/// Phrases of one provider's rules; the shipped tables have under 1,200.
pub(super) const PHRASES_MAX: usize = 2048;
/// A mark has as many bytes.
const MARK: usize = 3;
/// A word without a mark.
const SHORT: usize = 2;
/// Marks are spread over so many places (as a power of two): few collide, and the bits of all fit into a corner of the first cache.
const PLACES_BITS: u32 = 14;
/// No phrase has this number.
const NONE: u16 = u16::MAX;
const WORDS: usize = 1 << (PLACES_BITS - 6);

/// Phrases as they are collected from rules: each has a number, the same phrase the same one.
#[derive(Debug, Default)]
pub(super) struct Lexicon(BTreeMap<Box<[u8]>, u16>);

impl Lexicon {
    /// The number of `words`; an error if they have less than three bytes, or something that folding takes out.
    pub(super) fn number(&mut self, words: &str) -> Result<u16, String> {
        let lower = words.to_ascii_lowercase();
        let inner = lower.strip_prefix(' ').unwrap_or(&lower);
        let inner = inner.strip_suffix(' ').unwrap_or(inner);
        let is_word = inner.len() == SHORT && lower.len() == SHORT + 2;
        if (inner.len() < MARK && !is_word) || fold(inner.as_bytes()) != inner.as_bytes() || inner.ends_with(' ') {
            return Err("write it like `user unknown`: three bytes or more, single blanks, no mail address".to_string());
        }
        let next = self.0.len();
        if let Some(number) = self.0.get(lower.as_bytes()) {
            return Ok(*number);
        }
        let number = u16::try_from(next).ok().filter(|_| next < PHRASES_MAX);
        let number = number.ok_or_else(|| format!("the provider's rules have over {PHRASES_MAX} phrases"))?;
        self.0.insert(lower.into_bytes().into_boxed_slice(), number);
        Ok(number)
    }
}

/// Phrases ready to be looked for.
#[derive(Debug)]
pub(super) struct Phrases {
    /// A bit for each place that has a mark.
    marked: Box<[u64; WORDS]>,
    /// The first phrase of each place that has one, [`NONE`] for the others.
    first: Box<[u16]>,
    phrases: Vec<Phrase>,
    /// Those without a mark.
    short: Vec<u16>,
}

#[derive(Debug)]
struct Phrase {
    words: Box<[u8]>,
    /// A word begins where it begins.
    begins: bool,
    /// A word ends where it ends.
    ends: bool,
    /// Where in `words` the mark begins.
    mark: usize,
    /// The next phrase of the same place, or [`NONE`].
    next: u16,
}

impl Phrases {
    pub(super) fn new(lexicon: Lexicon) -> Phrases {
        let mut known: Vec<(u16, Phrase)> =
            lexicon.0.into_iter().map(|(words, number)| (number, Phrase::new(&words))).collect();
        known.sort_by_key(|(number, _)| *number);
        let mut uses: BTreeMap<u32, u32> = BTreeMap::new();
        for triple in known.iter().flat_map(|(_, phrase)| phrase.words.windows(MARK)) {
            *uses.entry(place(triple)).or_default() += 1;
        }
        let first = vec![NONE; 1 << PLACES_BITS].into_boxed_slice();
        let mut phrases = Phrases { marked: Box::new([0; WORDS]), first, phrases: Vec::new(), short: Vec::new() };
        for (number, mut phrase) in known {
            let words = &phrase.words;
            if words.len() < MARK {
                phrases.short.push(number);
                phrases.phrases.push(phrase);
                continue;
            }
            let cost = |at: usize| {
                let triple = &words[at..at + MARK];
                commonness(triple) * uses.get(&place(triple)).copied().unwrap_or(1)
            };
            let mark = (0..=words.len() - MARK).min_by_key(|&at| cost(at)).unwrap_or(0);
            let place = place(&words[mark..mark + MARK]);
            phrases.marked[(place >> 6) as usize] |= 1 << (place & 63);
            phrase.mark = mark;
            phrase.next = std::mem::replace(&mut phrases.first[place as usize], number);
            phrases.phrases.push(phrase);
        }
        phrases
    }

    pub(super) fn count(&self) -> usize {
        self.phrases.len()
    }

    /// The phrases in `text`, which was folded.
    pub(super) fn find(&self, text: &[u8]) -> Found {
        let mut found = Found::default();
        let Some((start, rest)) = text.split_first_chunk::<2>() else { return found };
        let mut triple = u32::from_le_bytes([0, start[0], start[1], 0]);
        for (at, &byte) in rest.iter().enumerate() {
            triple = triple >> 8 | u32::from(byte) << 16;
            let product = spread(triple);
            if self.marked[(product >> (38 - PLACES_BITS)) as usize] & 1 << (product >> (32 - PLACES_BITS) & 63) != 0 {
                self.compare(text, at, product >> (32 - PLACES_BITS), &mut found);
            }
        }
        for (number, phrase) in self.short.iter().filter_map(|at| Some((*at, self.phrases.get(usize::from(*at))?))) {
            let mut starts = text.windows(SHORT).enumerate().filter(|(_, here)| **here == *phrase.words);
            if starts.any(|(start, _)| phrase.stands_at(text, start)) {
                found.add(number);
            }
        }
        found
    }

    /// The phrases whose mark is at `place`, compared with the text around `at`.
    #[inline(never)]
    fn compare(&self, text: &[u8], at: usize, place: u32, found: &mut Found) {
        let mut next = self.first.get(place as usize).copied().unwrap_or(NONE);
        while let Some(phrase) = self.phrases.get(usize::from(next)) {
            if at.checked_sub(phrase.mark).is_some_and(|start| phrase.stands_at(text, start)) {
                found.add(next);
            }
            next = phrase.next;
        }
    }
}

impl Phrase {
    /// `written`: with the blanks that ask for a word's beginning and end.
    fn new(written: &[u8]) -> Phrase {
        let (begins, ends) = (written.starts_with(b" "), written.ends_with(b" "));
        let words = written.strip_prefix(b" ").unwrap_or(written);
        let words = words.strip_suffix(b" ").unwrap_or(words);
        Phrase { words: words.into(), begins, ends, mark: 0, next: NONE }
    }

    fn stands_at(&self, text: &[u8], start: usize) -> bool {
        let end = start + self.words.len();
        let is_free = |byte: Option<&u8>| byte.is_none_or(|byte| !is_of_word(*byte));
        text.get(start..end).is_some_and(|here| *here == *self.words)
            && (!self.begins || is_free(start.checked_sub(1).and_then(|before| text.get(before))))
            && (!self.ends || is_free(text.get(end)))
    }
}

/// Text beyond ASCII is words, too.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Numbers of phrases.
#[derive(Debug, Default)]
pub(super) struct Found {
    bits: [u64; PHRASES_MAX / 64],
}

impl Found {
    fn add(&mut self, number: u16) {
        self.bits[usize::from(number >> 6) % (PHRASES_MAX / 64)] |= 1 << (number & 63);
    }

    pub(super) fn has(&self, number: u16) -> bool {
        self.bits.get(usize::from(number >> 6)).is_some_and(|bits| bits & 1 << (number & 63) != 0)
    }

    /// The lowest first.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> {
        let words = self.bits.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

/// How often a triple turns up in English, roughly: the product of its letters' shares, in thousandths of a text.
fn commonness(triple: &[u8]) -> u32 {
    let share = |byte: &u8| match byte {
        b' ' => 160,
        b'e' => 100,
        b't' => 75,
        b'a' | b'i' | b'n' | b'o' | b'r' | b's' => 60,
        b'c' | b'd' | b'h' | b'l' | b'm' | b'p' | b'u' => 30,
        b'b' | b'f' | b'g' | b'v' | b'w' | b'y' | b'.' | b'0'..=b'9' => 15,
        _ => 5,
    };
    triple.iter().map(share).product()
}

fn place(triple: &[u8]) -> u32 {
    let &[a, b, c] = triple else { return 0 };
    spread(u32::from_le_bytes([a, b, c, 0])) >> (32 - PLACES_BITS)
}

/// The upper bits depend on all of the lower ones (Knuth's multiplicative hashing).
fn spread(triple: u32) -> u32 {
    triple.wrapping_mul(0x9E37_79B1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_has_one_number_whatever_its_letter_case() {
        let mut lexicon = Lexicon::default();
        let numbers = ["User unknown", "spam", "user UNKNOWN"].map(|words| lexicon.number(words).unwrap());
        assert_eq!(numbers, [0, 1, 0]);
    }

    #[test]
    fn what_folding_would_take_out_can_never_be_found_and_is_refused() {
        for words in ["", "ab", "ab ", " a ", "  ", "two  blanks", "  blank", "a@b.example"] {
            assert!(Lexicon::default().number(words).is_err(), "{words}");
        }
    }

    #[test]
    fn a_blank_at_an_end_asks_for_the_end_of_a_word() {
        for (words, text, stands) in [
            (" rate", "rates are high", true),
            (" rate", "a corporate rule", false),
            ("rate ", "a corporate", true),
            ("rate ", "rates", false),
            (" ip ", "ip", true),
            (" ip ", "your ip, 192.0.2.1", true),
            (" ip ", "?ip=192.0.2.1", true),
            (" ip ", "recipient", false),
            (" ip ", "zip and ipx and _ip", false),
            (" two words ", "not-two words!", true),
        ] {
            let mut lexicon = Lexicon::default();
            let number = lexicon.number(words).unwrap();
            assert_eq!(Phrases::new(lexicon).find(text.as_bytes()).has(number), stands, "{words:?} in {text:?}");
        }
    }

    #[test]
    fn there_is_a_limit_to_the_phrases() {
        let mut lexicon = Lexicon::default();
        for n in 0..PHRASES_MAX {
            lexicon.number(&format!("phrase {n}")).unwrap();
        }
        assert!(lexicon.number("phrase 7").is_ok());
        assert!(lexicon.number("one more").unwrap_err().contains("2048"));
    }

    proptest::proptest! {
        #[test]
        fn exactly_those_are_found_that_a_plain_search_finds(
            text in "[a-d ]{0,60}",
            phrases in proptest::collection::vec("[a-d]{3,5}", 1..40),
        ) {
            let mut lexicon = Lexicon::default();
            let numbers: Vec<u16> = phrases.iter().map(|words| lexicon.number(words).unwrap()).collect();
            let found = Phrases::new(lexicon).find(text.as_bytes());
            for (words, number) in phrases.iter().zip(numbers) {
                proptest::prop_assert_eq!(found.has(number), text.contains(words), "{}", words);
                proptest::prop_assert_eq!(found.numbers().any(|n| n == usize::from(number)), text.contains(words));
            }
        }
    }
}
