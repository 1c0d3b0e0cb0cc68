//! The suppression list as a file: CSV (RFC 4180) with a line of names, or one JSON object a line.
//!
//! Rules that always hold:
//! - what was exported can be imported and is the same list;
//! - each line says for itself what it is: a JSON object, the names of the columns, or fields; a plain list of addresses, or of
//!   `address,reason`, is a CSV file too;
//! - a JSON text over several lines, an array, or an object around one, is read entry by entry, as other services export it;
//! - lines have a bounded length; one that cannot be read is told with its number and what to do, and those behind it
//!   are read all the same.

use std::collections::VecDeque;
use std::io::{BufRead, Read};

use serde_json::Value;

use super::entry::{Entry, Source};
use super::objects::{Found, Objects};
use crate::types::{Class, Domain, Mailbox, Timestamp};

/// Longer than any entry: an address and a reply of 1,000 characters, all escaped.
const LINE_MAX: u64 = 16 * 1024;
/// Rule, provider, tag, wave: characters.
const WORD_MAX: usize = 200;
/// What stands between fields: the comma, and what spreadsheets write where the comma is the decimal point, or from a table.
const SEPARATORS: [char; 3] = [',', ';', '\t'];
/// Spreadsheets put this byte order mark before the first name.
const MARK: &[u8] = b"\xEF\xBB\xBF";
/// A word of the input in an error.
const QUOTED_MAX: usize = 80;
/// The names of the columns, as an export begins.
pub const CSV_HEADER: &str =
    "recipient,class,reply,source,first,last,hits,expires,terms,tag,provider,rule,wave,sender_domain";

/// An entry as it stands in a file: all of it text, and only the address needed.
#[derive(Debug, Default)]
struct Raw {
    recipient: Option<String>,
    class: Option<String>,
    reply: Option<String>,
    source: Option<String>,
    first: Option<String>,
    /// When another service listed it; what cannot be read as a time is passed over.
    listed: Option<String>,
    /// The code that belongs to `reply`.
    code: Option<String>,
    last: Option<String>,
    hits: Option<String>,
    expires: Option<String>,
    terms: Option<String>,
    tag: Option<String>,
    provider: Option<String>,
    rule: Option<String>,
    wave: Option<String>,
    sender_domain: Option<String>,
}

impl Raw {
    /// Takes the value of the column or key `name`; names nobody knows are passed over.
    fn take(&mut self, name: &str, value: String) {
        let plain = |c: &char| c.is_ascii_alphanumeric();
        let name: String = name.chars().filter(plain).map(|c| c.to_ascii_lowercase()).collect();
        let Some(into) = self.place(&name) else { return };
        // Ours first, where a file has both.
        if into.as_ref().is_none_or(String::is_empty) {
            *into = Some(value);
        }
    }

    /// As weir writes it, and as SendGrid, Amazon SES, Postmark, Mailgun and Brevo do.
    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "recipient" | "email" | "address" | "emailaddress" => &mut self.recipient,
            "class" => &mut self.class,
            "reply" | "reason" | "error" | "suppressionreason" => &mut self.reply,
            "source" => &mut self.source,
            "first" => &mut self.first,
            "created" | "createdat" | "blockedat" | "bouncedat" | "lastupdatetime" | "date" => &mut self.listed,
            "code" => &mut self.code,
            "last" => &mut self.last,
            "hits" => &mut self.hits,
            "expires" => &mut self.expires,
            "terms" => &mut self.terms,
            "tag" => &mut self.tag,
            "provider" => &mut self.provider,
            "rule" => &mut self.rule,
            "wave" => &mut self.wave,
            "senderdomain" => &mut self.sender_domain,
            _ => return None,
        })
    }

    /// Of one JSON object.
    fn of_object(text: &str) -> Result<Raw, String> {
        let object: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut raw = Raw::default();
        for (name, value) in object {
            match value {
                Value::Null => {}
                Value::String(text) => raw.take(&name, text),
                Value::Number(number) => raw.take(&name, number.to_string()),
                // Brevo: `"reason": {"code": "hardBounce", "message": "…"}`.
                Value::Object(mut inner) => {
                    let said = [inner.remove("message"), inner.remove("code")].into_iter().flatten();
                    if let Some(Value::String(text)) = said.into_iter().find(|said| said.as_str() != Some("")) {
                        raw.take(&name, text);
                    }
                }
                other if raw.place(&name).is_some() => {
                    return Err(format!("`{name}` is neither text nor number: {other}"));
                }
                _ => {}
            }
        }
        Ok(raw)
    }

    /// The words with their code before them, where another service keeps the two apart.
    fn words(&self) -> String {
        let reply = self.reply.as_deref().unwrap_or_default();
        match self.code.as_deref().map(str::trim) {
            Some(code) if code.len() == 3 && code.parse::<u16>().is_ok() && !reply.starts_with(code) => {
                format!("{code} {reply}").trim_end().to_string()
            }
            _ => reply.to_string(),
        }
    }
}

/// Does another service say that the recipient complained?
fn is_complaint(reason: &str) -> bool {
    let word: String = reason.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    ["complaint", "spamcomplaint", "contactflaggedasspam"].contains(&word.as_str())
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
    /// Of a JSON text that goes over more than a line.
    document: Option<Document>,
}

/// A JSON text that is being read.
#[derive(Debug)]
struct Document {
    objects: Objects,
    /// What is read of it already and not looked at.
    ahead: VecDeque<u8>,
    /// What was read from the file last ended a line.
    is_new_line: bool,
}

impl<R: BufRead> LineReader<R> {
    /// What stands without times came at `now`.
    pub fn new(from: R, now: Timestamp) -> LineReader<R> {
        LineReader { from, columns: None, number: 0, began: false, now, document: None }
    }

    /// The line that was read last, counted from 1.
    pub fn line(&self) -> u64 {
        self.number
    }

    /// The next entry, or what is wrong with the next line that should be one; none at the end.
    pub fn next_entry(&mut self) -> std::io::Result<Option<Result<Entry, String>>> {
        loop {
            if self.document.is_some() {
                match self.next_object()? {
                    Some(read) => return Ok(Some(read)),
                    None => continue,
                }
            }
            let mut line = Vec::new();
            if (&mut self.from).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if is_document(&line) {
                let ahead = line.strip_prefix(MARK).unwrap_or(&line).iter().copied().collect();
                self.document = Some(Document {
                    objects: Objects::new(LINE_MAX as usize),
                    ahead,
                    is_new_line: line.ends_with(b"\n"),
                });
                self.began = true;
                continue;
            }
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

    /// The next entry of a JSON text; none at its end.
    fn next_object(&mut self) -> std::io::Result<Option<Result<Entry, String>>> {
        while let Some(document) = &mut self.document {
            let byte = match document.ahead.pop_front() {
                Some(byte) => byte,
                None => match self.from.fill_buf()?.first().copied() {
                    Some(byte) => {
                        self.from.consume(1);
                        self.number += u64::from(document.is_new_line);
                        document.is_new_line = byte == b'\n';
                        byte
                    }
                    None => {
                        let is_cut = document.objects.is_open();
                        self.document = None;
                        return Ok(
                            is_cut.then(|| Err("ends in the middle of a JSON text: is the file whole?".to_string()))
                        );
                    }
                },
            };
            let ahead_is_empty = document.ahead.is_empty();
            match document.objects.push(byte) {
                None => {}
                Some(Found::End) => self.document = None,
                Some(Found::Object(text)) => return Ok(Some(self.of_object(&text))),
                Some(Found::TooLong) => {
                    return Ok(Some(Err(format!(
                        "has an entry longer than {LINE_MAX} octets: is this a list of addresses?"
                    ))));
                }
                Some(Found::Broken) => {
                    self.document = None;
                    if byte != b'\n' && ahead_is_empty {
                        skip_line(&mut self.from)?;
                    }
                    return Ok(Some(Err("is no JSON: correct it, or write one object a line".to_string())));
                }
            }
        }
        Ok(None)
    }

    fn of_object(&self, text: &[u8]) -> Result<Entry, String> {
        let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8: save the file as UTF-8")?;
        self.entry(Raw::of_object(text).map_err(|error| format!("is no entry ({error})"))?)
    }

    /// An entry; nothing (blank, comment, names of columns, the brackets of an array); or what is wrong.
    fn read(&mut self, line: &[u8]) -> Result<Option<Entry>, String> {
        let line = line.strip_prefix(MARK).unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8: save the file as UTF-8")?.trim();
        if text.is_empty() || text.starts_with('#') || text == "[" || text == "]" {
            return Ok(None);
        }
        let is_first = !std::mem::replace(&mut self.began, true);
        if text.starts_with('{') {
            let text = text.strip_suffix(',').unwrap_or(text);
            let raw = Raw::of_object(text).map_err(|error| format!("is no entry on one line ({error})"))?;
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
        let words = raw.words();
        let address = given(raw.recipient).ok_or("names no recipient: write the address in the column `recipient`")?;
        let mailbox = Mailbox::parse(in_brackets(&address)).map_err(|error| {
            let short: String = address.chars().take(QUOTED_MAX).collect();
            format!("`{short}` is no mail address: {error}")
        })?;
        let class = match given(raw.class) {
            Some(word) => word.parse().map_err(|error| format!("class: {error}"))?,
            None => Class::Other,
        };
        // How it came onto a list of another program is not always one of our words.
        let source = given(raw.source).and_then(|word| word.parse().ok());
        let source = source.unwrap_or(if is_complaint(&words) { Source::Complaint } else { Source::Import });
        let listed = given(raw.listed).and_then(|text| moment(&text));
        let first = time("first", given(raw.first))?.or(listed);
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
            ..Entry::new(&mailbox, class, &words, source, at)
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
    moment(&text)
        .map(Some)
        .ok_or_else(|| format!("{name}: `{text}` is no time: write it as 2026-11-21T20:33:40Z or 2026-11-21"))
}

/// A time as lists have it: RFC 3339, a day, `2026-11-21 20:33:40`, RFC 5322 (Mailgun), seconds since 1970 (SendGrid, SES).
fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    Timestamp::parse_rfc3339(text)
        .or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .or_else(|| Timestamp::parse_rfc3339(&format!("{}Z", text.trim_end_matches(" UTC").replacen(' ', "T", 1))))
        .or_else(|| Timestamp::parse_rfc5322(text))
        .or_else(|| {
            let seconds: f64 = text.parse().ok().filter(|seconds| (1e8..1e11).contains(seconds))?;
            Some(Timestamp::from_millis((seconds * 1000.0) as i64))
        })
}

/// Does a JSON text begin here that one line does not hold as an entry? Then it goes through `Objects`.
fn is_document(line: &[u8]) -> bool {
    let text = line.strip_prefix(MARK).unwrap_or(line).trim_ascii();
    let begins = text.starts_with(b"{") || text.starts_with(b"[") && text.len() > 1;
    if !begins {
        return false;
    }
    let mut objects = Objects::new(0);
    let found: Vec<Found> = text.iter().filter_map(|&byte| objects.push(byte)).collect();
    // One object, with nothing open behind it, is an entry; so is what is no JSON at all, to be told as that.
    let is_entry =
        text.starts_with(b"{") && !objects.is_open() && found.len() <= 1 && !(text.contains(&b'[') && is_wrapper(text));
    !is_entry && !found.contains(&Found::Broken)
}

/// An object around an array of entries, or around an empty one.
fn is_wrapper(text: &[u8]) -> bool {
    let Ok(object) = serde_json::from_slice::<serde_json::Map<String, Value>>(text.strip_suffix(b",").unwrap_or(text))
    else {
        return false;
    };
    let holds_entries = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_object));
    let mut raw = Raw::default();
    object.values().any(holds_entries)
        && !object.keys().any(|name| {
            raw.take(name, "x".to_string());
            raw.recipient.is_some()
        })
}

/// The address of `"Doe, John" <john@example.com>`, or all of the text.
fn in_brackets(text: &str) -> &str {
    match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((_, address)) => address,
        None => text,
    }
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
        let names: Vec<String> = csv_fields(text, separator)?.iter().map(|field| field.trim().to_string()).collect();
        let known = names.iter().any(|name| {
            let mut raw = Raw::default();
            raw.take(name, "x".to_string());
            raw.recipient.is_some()
        });
        known.then_some(Columns { names, separator })
    })
}

fn by_names(columns: &Columns, text: &str) -> Result<Raw, String> {
    let fields = csv_fields(text, columns.separator)
        .ok_or("has a quote that does not end: write a quote inside quotes twice")?;
    let mut raw = Raw::default();
    for (name, field) in columns.names.iter().zip(fields) {
        let is_reply = ["reply", "reason"].contains(&name.to_lowercase().as_str());
        raw.take(name, if is_reply { unescaped(&field) } else { field.trim().to_string() });
    }
    Ok(raw)
}

/// `address`, or `address,reason` where the reason is all that follows. A quoted local part may hold separators itself.
fn plain(text: &str) -> Result<Raw, String> {
    let of = |address: &str, reason: &str| {
        let reply = Some(reason.trim().to_string()).filter(|reason| !reason.is_empty());
        Raw { recipient: Some(address.trim().to_string()), reply, ..Raw::default() }
    };
    let is_address = |text: &str| Mailbox::parse(in_brackets(text)).is_ok();
    if !text.contains(SEPARATORS) || is_address(text) {
        return Ok(of(text, ""));
    }
    // Each of them is one octet.
    let ends = text.match_indices(SEPARATORS).map(|(at, _)| at).take(QUOTED_MAX);
    let mut pieces = ends.map(|at| (&text[..at], &text[at + 1..]));
    if let Some((address, reason)) = pieces.clone().find(|(address, _)| is_address(address.trim())) {
        return Ok(of(address, reason));
    }
    // As a spreadsheet writes an address that holds quotes; else told with the first field as it is.
    for separator in SEPARATORS {
        if let Some([address, reason @ ..]) = csv_fields(text, separator).as_deref()
            && is_address(address.trim())
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
    fn exports_of_other_services_are_read_as_they_are() {
        let at = |secs: i64| Timestamp::from_secs(secs);
        let noon = at(1_586_520_000);
        for (file, reply, first, source) in [
            // SendGrid, CSV and JSON.
            (
                "status,reason,email,created\n5.1.1,\"550 5.1.1 no, never\",a@x.example,1586520000\n",
                "550 5.1.1 no, never",
                noon,
                Source::Import,
            ),
            (
                r#"[{"created":1586520000,"email":"a@x.example","reason":"550 5.1.1 no","status":"5.1.1"}]"#,
                "550 5.1.1 no",
                noon,
                Source::Import,
            ),
            // Amazon SES.
            (
                "{\n  \"SuppressedDestinationSummaries\": [\n    {\n      \"EmailAddress\": \"a@x.example\",\n      \"Reason\": \"COMPLAINT\",\n      \
                 \"LastUpdateTime\": \"2020-04-10T14:00:00+02:00\"\n    }\n  ],\n  \"NextToken\": \"x\"\n}\n",
                "COMPLAINT",
                noon,
                Source::Complaint,
            ),
            (
                r#"{"SuppressedDestinationSummaries":[{"EmailAddress":"a@x.example","Reason":"BOUNCE","LastUpdateTime":1586520000.0}]}"#,
                "BOUNCE",
                noon,
                Source::Import,
            ),
            // Postmark.
            (
                r#"{"Suppressions":[{"EmailAddress":"a@x.example","SuppressionReason":"HardBounce","Origin":"Recipient","CreatedAt":"2020-04-10T08:00:00-04:00"}]}"#,
                "HardBounce",
                noon,
                Source::Import,
            ),
            // Mailgun, JSON and CSV.
            (
                r#"{"items":[{"address":"a@x.example","code":"550","error":"No such mailbox","created_at":"Fri, 10 Apr 2020 12:00:00 UTC"}],"paging":{"next":"u"}}"#,
                "550 No such mailbox",
                noon,
                Source::Import,
            ),
            (
                "address,code,error,created_at\na@x.example,550,No such mailbox,\"Fri, 10 Apr 2020 12:00:00 GMT\"\n",
                "550 No such mailbox",
                noon,
                Source::Import,
            ),
            // Brevo.
            (
                r#"{"contacts":[{"email":"a@x.example","senderEmail":"s@y.example","reason":{"message":"hard bounce","code":"hardBounce"},"blockedAt":"2020-04-10T12:00:00Z"}],"count":1}"#,
                "hard bounce",
                noon,
                Source::Import,
            ),
            ("Email;Reason;Blocked at\na@x.example;gone;2020-04-10 12:00:00\n", "gone", noon, Source::Import),
            ("email,created\na@x.example,10/04/20\n", "", NOW, Source::Import),
            // As people keep them.
            ("\"Doe, John\" <a@x.example>\n", "", NOW, Source::Import),
            ("John <a@x.example>,left\n", "left", NOW, Source::Import),
        ] {
            let (entries, faults) = read(file.as_bytes());
            assert_eq!(faults, [], "{file}");
            let [entry] = &entries[..] else { panic!("{file}: {entries:?}") };
            let found = (entry.recipient.as_str(), entry.reply.as_str(), entry.first, entry.source);
            assert_eq!(found, ("a@x.example", reply, first, source), "{file}");
        }
    }

    #[test]
    fn a_json_text_of_any_length_is_read_entry_by_entry() {
        let entry = |n: u32| format!("{{\"email\":\"u{n}@x.example\",\"reason\":\"gone\"}}");
        let many: Vec<String> = (0..2_000).map(entry).collect();
        for file in [format!("[{}]", many.join(",")), format!("{{\"items\":[\n{}\n]}}\n", many.join(",\n"))] {
            let (entries, faults) = read(file.as_bytes());
            assert_eq!((entries.len(), faults), (2_000, vec![]));
        }
        let broken =
            "a@x.example\n[{\"email\":\"b@x.example\"},\n{\"email\":1 {\n]}\nc@x.example\n[{\"email\":\"d@x.example\"";
        let (entries, faults) = read(broken.as_bytes());
        let found: Vec<&str> = entries.iter().map(|entry| entry.recipient.as_str()).collect();
        assert_eq!(found[..2], ["a@x.example", "b@x.example"]);
        assert!(found.contains(&"c@x.example"), "{found:?}");
        assert!(faults.iter().any(|(line, text)| *line == 3 && text.contains("no JSON")), "{faults:?}");
        assert!(faults.last().is_some_and(|(_, text)| text.contains("in the middle")), "{faults:?}");
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
            (10, "no mail address"),
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
