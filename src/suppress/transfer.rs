//! The suppression list as a file: CSV (RFC 4180) with a line of names, or one JSON object a line.
//!
//! Rules that always hold:
//! - what was exported can be imported and is the same list;
//! - each line says for itself what it is: a JSON object, the names of the columns, or fields; a plain list of addresses, or of
//!   `address,reason`, is a CSV file too;
//! - lines have a bounded length; one that cannot be read is told with its number and what to do, and those behind it
//!   are read all the same.

use std::io::{BufRead, Read};

use serde::{Deserialize, Deserializer};

use super::entry::{Entry, Source};
use crate::types::{Class, Domain, Mailbox, Timestamp};

/// Longer than any entry: an address and a reply of 1,000 characters, all escaped.
const LINE_MAX: u64 = 16 * 1024;
/// Rule, provider, tag, wave: characters.
const WORD_MAX: usize = 200;
/// What stands between fields: the comma, and what spreadsheets write where the comma is the decimal point, or from a table.
const SEPARATORS: [char; 3] = [',', ';', '\t'];
/// A word of the input in an error.
const QUOTED_MAX: usize = 80;
/// The names of the columns, as an export begins.
pub const CSV_HEADER: &str =
    "recipient,class,reply,source,first,last,hits,expires,terms,tag,provider,rule,wave,sender_domain";

/// An entry as it stands in a file: all of it text, and only the address needed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    #[serde(alias = "email", alias = "address")]
    recipient: Option<String>,
    class: Option<String>,
    #[serde(alias = "reason")]
    reply: Option<String>,
    source: Option<String>,
    #[serde(alias = "created")]
    first: Option<String>,
    last: Option<String>,
    #[serde(deserialize_with = "number_or_text")]
    hits: Option<String>,
    expires: Option<String>,
    #[serde(deserialize_with = "number_or_text")]
    terms: Option<String>,
    tag: Option<String>,
    provider: Option<String>,
    rule: Option<String>,
    wave: Option<String>,
    sender_domain: Option<String>,
}

fn number_or_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Option::<serde_json::Value>::deserialize(from)? {
        None => None,
        Some(serde_json::Value::String(text)) => Some(text),
        Some(other) => Some(other.to_string()),
    })
}

/// Reads entries line by line.
#[derive(Debug)]
pub struct LineReader<R> {
    from: R,
    /// The names of the first line, if it held names.
    columns: Option<Columns>,
    number: u64,
    began: bool,
    now: Timestamp,
}

impl<R: BufRead> LineReader<R> {
    /// What stands without times came at `now`.
    pub fn new(from: R, now: Timestamp) -> LineReader<R> {
        LineReader { from, columns: None, number: 0, began: false, now }
    }

    /// The line that was read last, counted from 1.
    pub fn line(&self) -> u64 {
        self.number
    }

    /// The next entry, or what is wrong with the next line that should be one; none at the end.
    pub fn next_entry(&mut self) -> std::io::Result<Option<Result<Entry, String>>> {
        loop {
            let mut line = Vec::new();
            if (&mut self.from).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if !line.ends_with(b"\n") && line.len() as u64 >= LINE_MAX {
                skip_line(&mut self.from)?;
                return Ok(Some(Err(format!("is longer than {LINE_MAX} octets: is this a list of addresses?"))));
            }
            match self.read(&line) {
                Ok(None) => {}
                Ok(Some(entry)) => return Ok(Some(Ok(entry))),
                Err(text) => return Ok(Some(Err(text))),
            }
        }
    }

    /// An entry; nothing (blank, comment, names of columns, the brackets of an array); or what is wrong.
    fn read(&mut self, line: &[u8]) -> Result<Option<Entry>, String> {
        // Spreadsheets put a byte order mark before the first name.
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8: save the file as UTF-8")?.trim();
        if text.is_empty() || text.starts_with('#') || text == "[" || text == "]" {
            return Ok(None);
        }
        let is_first = !std::mem::replace(&mut self.began, true);
        if text.starts_with('{') {
            let text = text.strip_suffix(',').unwrap_or(text);
            let raw = serde_json::from_str(text)
                .map_err(|error| format!("is no entry on one line ({error}); an array goes through `jq -c '.[]'`"))?;
            return self.entry(raw).map(Some);
        }
        if is_first && let Some(names) = names(text) {
            self.columns = Some(names);
            return Ok(None);
        }
        let raw = match &self.columns {
            Some(columns) => by_names(columns, text)?,
            None => plain(text)?,
        };
        self.entry(raw).map(Some)
    }

    fn entry(&self, raw: Raw) -> Result<Entry, String> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let address = given(raw.recipient).ok_or("names no recipient: write the address in the column `recipient`")?;
        let mailbox = Mailbox::parse(&address).map_err(|error| {
            let short: String = address.chars().take(QUOTED_MAX).collect();
            format!("`{short}` is no mail address: {error}")
        })?;
        let class = match given(raw.class) {
            Some(word) => word.parse().map_err(|error| format!("class: {error}"))?,
            None => Class::Other,
        };
        // How it came onto a list of another program is not always one of our words.
        let source = given(raw.source).and_then(|word| word.parse().ok()).unwrap_or(Source::Import);
        let first = time("first", given(raw.first))?;
        let last = time("last", given(raw.last))?;
        let at = first.or(last).unwrap_or(self.now);
        let sender_domain = given(raw.sender_domain)
            .map(|text| Domain::parse(&text).map_err(|error| format!("sender_domain: `{text}` is no domain: {error}")));
        Ok(Entry {
            sender_domain: sender_domain.transpose()?,
            last: last.unwrap_or(at).max(at),
            hits: number("hits", given(raw.hits))?,
            expires: time("expires", given(raw.expires))?,
            terms: number("terms", given(raw.terms))?,
            tag: word("tag", given(raw.tag))?,
            provider: word("provider", given(raw.provider))?,
            rule: word("rule", given(raw.rule))?,
            wave: word("wave", given(raw.wave))?,
            ..Entry::new(&mailbox, class, raw.reply.as_deref().unwrap_or(""), source, at)
        })
    }
}

fn number<T: std::str::FromStr + From<u8>>(name: &str, text: Option<String>) -> Result<T, String> {
    let Some(text) = text else { return Ok(T::from(1)) };
    text.parse().map_err(|_| format!("{name}: `{text}` is no whole number"))
}

fn word(name: &str, text: Option<String>) -> Result<Option<String>, String> {
    match text {
        Some(text) if text.chars().count() > WORD_MAX => Err(format!("{name}: is longer than {WORD_MAX} characters")),
        text => Ok(text),
    }
}

fn time(name: &str, text: Option<String>) -> Result<Option<Timestamp>, String> {
    let Some(text) = text else { return Ok(None) };
    Timestamp::parse_rfc3339(&text)
        .or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .map(Some)
        .ok_or_else(|| format!("{name}: `{text}` is no time: write it as 2026-11-21T20:33:40Z or 2026-11-21"))
}

/// The names of the first line, and what stands between them.
#[derive(Debug)]
struct Columns {
    names: Vec<String>,
    separator: char,
}

/// The first line, if it holds names and no address.
fn names(text: &str) -> Option<Columns> {
    SEPARATORS.into_iter().find_map(|separator| {
        let names: Vec<String> = csv_fields(text, separator)?.iter().map(|field| field.trim().to_lowercase()).collect();
        let known = names.iter().any(|name| ["recipient", "email", "address"].contains(&name.as_str()));
        known.then_some(Columns { names, separator })
    })
}

fn by_names(columns: &Columns, text: &str) -> Result<Raw, String> {
    let fields = csv_fields(text, columns.separator)
        .ok_or("has a quote that does not end: write a quote inside quotes twice")?;
    let mut raw = Raw::default();
    for (name, field) in columns.names.iter().zip(fields) {
        let trimmed = || Some(field.trim().to_string());
        match name.as_str() {
            "recipient" | "email" | "address" => raw.recipient = trimmed(),
            "class" => raw.class = trimmed(),
            "reply" | "reason" => raw.reply = Some(unescaped(&field)),
            "source" => raw.source = trimmed(),
            "first" | "created" => raw.first = trimmed(),
            "last" => raw.last = trimmed(),
            "hits" => raw.hits = trimmed(),
            "expires" => raw.expires = trimmed(),
            "terms" => raw.terms = trimmed(),
            "tag" => raw.tag = trimmed(),
            "provider" => raw.provider = trimmed(),
            "rule" => raw.rule = trimmed(),
            "wave" => raw.wave = trimmed(),
            "sender_domain" => raw.sender_domain = trimmed(),
            // What else another program exports.
            _ => {}
        }
    }
    Ok(raw)
}

/// `address`, or `address,reason` where the reason is all that follows. A quoted local part may hold separators itself.
fn plain(text: &str) -> Result<Raw, String> {
    let of = |address: &str, reason: &str| {
        let reply = Some(reason.trim().to_string()).filter(|reason| !reason.is_empty());
        Raw { recipient: Some(address.trim().to_string()), reply, ..Raw::default() }
    };
    if !text.contains(SEPARATORS) || Mailbox::parse(text).is_ok() {
        return Ok(of(text, ""));
    }
    // Each of them is one octet.
    let ends = text.match_indices(SEPARATORS).map(|(at, _)| at).take(QUOTED_MAX);
    let mut pieces = ends.map(|at| (&text[..at], &text[at + 1..]));
    if let Some((address, reason)) = pieces.clone().find(|(address, _)| Mailbox::parse(address.trim()).is_ok()) {
        return Ok(of(address, reason));
    }
    // As a spreadsheet writes an address that holds quotes; else told with the first field as it is.
    for separator in SEPARATORS {
        if let Some([address, reason @ ..]) = csv_fields(text, separator).as_deref()
            && Mailbox::parse(address.trim()).is_ok()
        {
            return Ok(of(address, &reason.join(",")));
        }
    }
    Ok(pieces.next().map_or_else(|| of(text, ""), |(address, reason)| of(address, reason)))
}

fn skip_line(from: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let mut piece = Vec::new();
        let read = from.take(LINE_MAX).read_until(b'\n', &mut piece)?;
        if read == 0 || piece.ends_with(b"\n") {
            return Ok(());
        }
    }
}

/// An entry as a line under `CSV_HEADER`.
pub fn csv_line(entry: &Entry) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let fields = [
        entry.recipient.clone(),
        entry.class.to_string(),
        escaped(&entry.reply),
        entry.source.to_string(),
        entry.first.to_string(),
        entry.last.to_string(),
        entry.hits.to_string(),
        entry.expires.map(|moment| moment.to_string()).unwrap_or_default(),
        entry.terms.to_string(),
        text(&entry.tag),
        text(&entry.provider),
        text(&entry.rule),
        text(&entry.wave),
        entry.sender_domain.as_ref().map(ToString::to_string).unwrap_or_default(),
    ];
    fields.map(|field| csv_field(&field)).join(",")
}

/// A record is one line: line ends inside a reply are written as `\n`.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescaped(text: &str) -> String {
    let (mut out, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn csv_field(text: &str) -> String {
    // What a line begins with says what it is.
    if text.contains(['"', ',']) || text.starts_with(['#', '{', '[', ']']) || text.trim() != text {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

/// The fields of one line (RFC 4180 section 2); none if a quote does not end.
fn csv_fields(line: &str, separator: char) -> Option<Vec<String>> {
    let (mut fields, mut field, mut in_quotes) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if in_quotes && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if in_quotes || field.is_empty() => in_quotes = !in_quotes,
            c if c == separator && !in_quotes => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    (!in_quotes).then_some(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    /// What is read, and the numbers and texts of lines that are no entries.
    fn read(file: &[u8]) -> (Vec<Entry>, Vec<(u64, String)>) {
        let (mut entries, mut faults) = (Vec::new(), Vec::new());
        let mut lines = LineReader::new(file, NOW);
        while let Some(read) = lines.next_entry().unwrap() {
            match read {
                Ok(entry) => entries.push(entry),
                Err(text) => faults.push((lines.line(), text)),
            }
        }
        (entries, faults)
    }

    #[test]
    fn lists_of_other_programs_are_read() {
        for (file, address, reply) in [
            ("a@outlook.com\r\n", "a@outlook.com", ""),
            ("  a@outlook.com , user unknown, really \n", "a@outlook.com", "user unknown, really"),
            ("\u{feff}A@outlook.com", "a@outlook.com", ""),
            ("\"a,b\"@x.example,gone", "\"a,b\"@x.example", "gone"),
            ("a@x.example;no, really", "a@x.example", "no, really"),
            ("\"a;b\"@x.example\tgone; for good", "\"a;b\"@x.example", "gone; for good"),
            ("Email;Reason;Score\r\nA@X.example;\"no; never\";7\r\n", "a@x.example", "no; never"),
            ("reason\taddress\nmoved, it says\ta@x.example\n", "a@x.example", "moved, it says"),
            ("\"\"\"with blank\"\"@x.example\",gone", "\"with blank\"@x.example", "gone"),
            (
                "email,reason,created,score\na@x.example,\"no, \"\"never\"\"\",2026-11-21,7",
                "a@x.example",
                "no, \"never\"",
            ),
            ("[\n{\"email\":\"a@x.example\",\"reason\":\"no\",\"status\":\"5.1.1\"},\n]", "a@x.example", "no"),
        ] {
            let (entries, faults) = read(file.as_bytes());
            assert_eq!(faults, [], "{file}");
            let [entry] = &entries[..] else { panic!("{file}: {entries:?}") };
            assert_eq!((entry.recipient.as_str(), entry.reply.as_str()), (address, reply), "{file}");
            assert_eq!((entry.source, entry.class, entry.terms), (Source::Import, Class::Other, 1));
        }
        assert_eq!(read(b"\n# a comment\n   \n"), (vec![], vec![]));
    }

    #[test]
    fn bad_lines_are_named_and_left_out() {
        let mut file = b"\xEF\xBB\xBFEmail,class,expires\r\n\
            a@example.com,recipient-unknown,2027-01-01T00:00:00Z\r\n\
            no-at-sign\r\n\
            # a comment\r\n\
            b@example.com,nonsense\r\n\
            c@example.com,,tomorrow\r\n\
            \"d@example.com\r\n\
            \xFF@example.com\r\n\
            {\"recipient\":\"f@example.com\",\"hits\":-1}\n\
            {\"recipient\":1}\n"
            .to_vec();
        file.extend(vec![b'x'; 40_000]);
        file.extend(b"\ne@example.com\n");
        let (entries, faults) = read(&file);
        let found: Vec<&str> = entries.iter().map(|entry| entry.recipient.as_str()).collect();
        assert_eq!(found, ["a@example.com", "e@example.com"]);
        let expected = [
            (3, "no mail address"),
            (5, "nonsense"),
            (6, "no time"),
            (7, "quote"),
            (8, "UTF-8"),
            (9, "no whole number"),
            (10, "no entry"),
            (11, "longer"),
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for ((line, text), (number, part)) in faults.iter().zip(expected) {
            assert!(*line == number && text.contains(part), "{line}: {text}");
        }
    }

    fn texts() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[ -~äß€\n\r\\\\\",]{0,40}").unwrap()
    }

    fn words() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(proptest::string::string_regex("[A-Za-z0-9()._-]{1,12}").unwrap())
    }

    proptest! {
        /// Whatever an entry holds, both formats bring it back.
        #[test]
        fn what_is_exported_comes_back_the_same(
            local in prop_oneof!["[a-z0-9.+!#']{1,12}", "\"[ !#-Z^-~,]{1,10}\"", "[äöü]{1,3}"],
            reply in texts(),
            class in 0..Class::ALL.len(),
            source in 0..Source::ALL.len(),
            times in (0i64..4_000_000_000_000, 0i64..1_000_000, proptest::option::of(0i64..4_000_000_000_000)),
            counts in (1u64..u64::MAX, 0u32..9),
            (tag, provider, rule, wave) in (words(), words(), words(), words()),
            scoped in any::<bool>(),
        ) {
            let Ok(mailbox) = Mailbox::parse(&format!("{local}@Bücher.example")) else { return Ok(()) };
            let first = Timestamp::from_millis(times.0);
            let entry = Entry {
                last: Timestamp::from_millis(times.0 + times.1),
                expires: times.2.map(Timestamp::from_millis),
                hits: counts.0,
                terms: counts.1,
                tag, provider, rule, wave,
                sender_domain: scoped.then(|| Domain::parse("sender.example").unwrap()),
                ..Entry::new(&mailbox, Class::ALL[class], &reply, Source::ALL[source], first)
            };
            let csv = format!("{CSV_HEADER}\n{}\n", csv_line(&entry));
            prop_assert_eq!(read(csv.as_bytes()), (vec![entry.clone()], vec![]), "{}", csv);
            let json = serde_json::to_string(&entry).unwrap();
            prop_assert_eq!(read(json.as_bytes()), (vec![entry], vec![]), "{}", json);
        }
    }
}
