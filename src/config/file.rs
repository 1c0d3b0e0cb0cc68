//! The configuration file: found, read, and checked key by key.
//!
//! Rules that always hold: every fault of the file is told, each with line and column; a file that was named must be
//! there, one that is only looked for may be missing.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::finding::{Document, Findings, Place};
use super::schema::{self, Form, Key, Kind, Shape, spoken};
use super::tree::{Node, Table};
use crate::verdict::options::{RULES_MAX, RuleOptions};

/// A larger file is something else: ten thousand routes are not half of it.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// Behind every fault of a rule.
const RULE_HELP: &str = "docs/rules.md tells how rules are written";

/// The file that is used: the one that is named, else the first of `search` that exists.
pub(super) fn choose(named: Option<&Path>, search: &[PathBuf]) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_path_buf()),
        // One that is there but cannot be reached is chosen, so that somebody hears of it.
        None => search.iter().find(|path| !is_missing(path)).cloned(),
    }
}

fn is_missing(path: &Path) -> bool {
    let missing = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
    path.metadata().is_err_and(|error| missing(error.kind()))
}

/// The settings in the file at `path`.
pub(super) fn read(path: &Path, findings: &mut Findings) -> Table {
    match content(path) {
        Ok(text) => parse(path, &text, findings),
        Err((what, remedy)) => {
            findings.fault(Place::Whole { file: path.to_path_buf() }, what, remedy);
            Table::new()
        }
    }
}

fn content(path: &Path) -> Result<String, (String, &'static str)> {
    let unreadable = |e: std::io::Error| {
        let remedy = match e.kind() {
            ErrorKind::NotFound => "create it, or name another with --config or WEIR_CONFIG",
            ErrorKind::PermissionDenied => "let the user weir runs as read it",
            _ => "name a readable file with --config or WEIR_CONFIG",
        };
        (format!("cannot read the configuration file: {e}"), remedy)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err((format!("is longer than {} MiB", FILE_SIZE_MAX >> 20), "name a configuration file"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        (format!("line {line} is not UTF-8"), "save the file in UTF-8")
    })
}

/// The settings in `text`, the content of `path`.
pub(super) fn parse(path: &Path, text: &str, findings: &mut Findings) -> Table {
    let (table, errors) = DeTable::parse_recoverable(text);
    let document = Document::new(path, text);
    for error in &errors {
        let place = document.place(error.span().unwrap_or(0..0));
        findings.fault(place, format!("this is no TOML: {}", error.message()), "");
    }
    Reader { document, findings }.table("", table.get_ref())
}

struct Reader<'a> {
    document: Document<'a>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn fault(&mut self, span: Range<usize>, what: String, remedy: String) -> Node {
        self.findings.fault(self.document.place(span), what, remedy);
        Node::Faulty
    }

    /// `prefix`: the path of the table with its final dot, empty for the whole file.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Table {
        let mut nodes = Table::new();
        let mut entries: Vec<_> = table.iter().collect();
        // In the order of the file, so that the findings are, too.
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let path = format!("{prefix}{}", name.get_ref());
            let node = match schema::shape(&path) {
                Shape::Value(key) => self.value(key, value),
                Shape::Table => self.section(&path, value),
                Shape::Tables => self.elements(&path, value),
                Shape::Unknown => self.unknown(&path, name.span()),
            };
            nodes.insert(name.get_ref().to_string(), node);
        }
        nodes
    }

    fn unknown(&mut self, path: &str, span: Range<usize>) -> Node {
        let what = format!("unknown key `{}`", spoken(path));
        let remedy = match schema::nearest(path) {
            Some(near) => format!("the nearest known key is `{}`", spoken(near)),
            None => "take it out; `weir check --print` shows every key there is".to_string(),
        };
        self.fault(span, what, remedy)
    }

    fn section(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Node {
        match value.get_ref() {
            DeValue::Table(inner) => Node::Table(self.table(&format!("{path}."), inner)),
            other => {
                let what = format!("`{path}` is {}, not a table", a(other.type_str()));
                self.fault(value.span(), what, format!("write its keys below a line `[{path}]`"))
            }
        }
    }

    fn elements(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Node {
        let remedy = format!("begin each {path} with a line `[[{path}]]`");
        let DeValue::Array(list) = value.get_ref() else {
            let what = format!("`{path}` is {}, not a list of tables", a(value.get_ref().type_str()));
            return self.fault(value.span(), what, remedy);
        };
        let mut elements = Vec::new();
        for element in list.iter() {
            let DeValue::Table(inner) = element.get_ref() else {
                let what = format!("an entry of `{path}` is {}, not a table", a(element.get_ref().type_str()));
                self.fault(element.span(), what, remedy.clone());
                continue;
            };
            let place = self.document.place(element.span());
            elements.push((self.table(&format!("{path}[]."), inner), place));
        }
        Node::Tables(elements)
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Node {
        let read = match &key.kind {
            Kind::Text(form) => self.text(key, *form, value),
            Kind::Secret(form) => self.secret(key, *form, value),
            Kind::Texts(form) => self.texts(key, *form, value),
            Kind::Rules => self.rules(key, value),
            Kind::Switch => match value.get_ref() {
                DeValue::Boolean(on) => Ok(Value::Boolean(*on)),
                other => Err(self.expected_of(key, value, wrong_type(key, other))),
            },
            Kind::Number(range) => {
                whole(key, range, value.get_ref()).map_err(|what| self.expected_of(key, value, what))
            }
            Kind::Numbers(range) => self.numbers(key, range, value),
            Kind::Decimal(range) => {
                decimal(key, range, value.get_ref()).map_err(|what| self.expected_of(key, value, what))
            }
        };
        match read {
            Ok(read) => Node::Value(read, self.document.place(value.span())),
            Err(Told) => Node::Faulty,
        }
    }

    fn text(&mut self, key: &Key, form: Form, value: &Spanned<DeValue<'_>>) -> Result<Value, Told> {
        let what = match value.get_ref() {
            DeValue::String(text) if (form.holds)(text) => return Ok(Value::String(text.to_string())),
            DeValue::String(text) => {
                format!("`{}` is {}{}", spoken(key.path), quoted(text), schema::not_yet(key.path, text))
            }
            other => wrong_type(key, other),
        };
        Err(self.expected(form.expected.to_string(), value.span(), what))
    }

    fn secret(&mut self, key: &Key, form: Form, value: &Spanned<DeValue<'_>>) -> Result<Value, Told> {
        let what = match value.get_ref() {
            DeValue::String(text) if (form.holds)(text) => return Ok(Value::String(text.to_string())),
            DeValue::String(_) => format!("`{}` is something else", spoken(key.path)),
            other => wrong_type(key, other),
        };
        Err(self.expected(form.expected.to_string(), value.span(), what))
    }

    fn texts(&mut self, key: &Key, form: Form, value: &Spanned<DeValue<'_>>) -> Result<Value, Told> {
        let DeValue::Array(list) = value.get_ref() else {
            return Err(self.expected(key.kind.expected(), value.span(), wrong_type(key, value.get_ref())));
        };
        let (mut texts, mut told) = (Vec::new(), false);
        for entry in list.iter() {
            match self.text(key, form, entry) {
                Ok(text) => texts.push(text),
                Err(Told) => told = true,
            }
        }
        if told { Err(Told) } else { Ok(Value::Array(texts)) }
    }

    fn numbers(&mut self, key: &Key, range: &RangeInclusive<u64>, value: &Spanned<DeValue<'_>>) -> Result<Value, Told> {
        let DeValue::Array(list) = value.get_ref() else {
            return Err(self.expected_of(key, value, wrong_type(key, value.get_ref())));
        };
        let numbers = list.iter().map(|entry| whole(key, range, entry.get_ref()).map_err(|what| (entry, what)));
        match numbers.collect::<Result<Vec<Value>, _>>() {
            Ok(numbers) => Ok(Value::Array(numbers)),
            Err((entry, what)) => Err(self.expected_of(key, entry, what)),
        }
    }

    fn expected_of(&mut self, key: &Key, value: &Spanned<DeValue<'_>>, what: String) -> Told {
        self.expected(key.kind.expected(), value.span(), what)
    }

    /// Rules for replies. Each is read and held to the laws of `verdict`, so that every fault has its place.
    fn rules(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Value, Told> {
        let DeValue::Array(list) = value.get_ref() else {
            return Err(self.expected(key.kind.expected(), value.span(), wrong_type(key, value.get_ref())));
        };
        let (mut rules, mut names, mut told) = (Vec::new(), BTreeSet::new(), false);
        for entry in list.iter() {
            match self.rule(entry, &mut names) {
                Ok(rule) => rules.push(rule),
                Err(Told) => told = true,
            }
        }
        if list.len() > RULES_MAX {
            let what = format!("a provider has {} rules", list.len());
            self.fault(value.span(), what, format!("write at most {RULES_MAX}"));
            told = true;
        }
        if told { Err(Told) } else { Ok(Value::Array(rules)) }
    }

    fn rule(&mut self, entry: &Spanned<DeValue<'_>>, names: &mut BTreeSet<String>) -> Result<Value, Told> {
        let name =
            entry.get_ref().as_table().and_then(|table| table.get("name")?.get_ref().as_str()).unwrap_or_default();
        let named = if name.is_empty() { "a rule".to_string() } else { format!("rule {}", quoted(name)) };
        let rule = RuleOptions::deserialize(entry.clone().into_deserializer()).map_err(|error| {
            let what = format!("{named}: {}", error.message());
            self.fault(error.span().unwrap_or(entry.span()), what, RULE_HELP.to_string());
            Told
        })?;
        let again =
            (!names.insert(rule.name.clone())).then(|| "the provider has another rule of this name".to_string());
        if let Some(fault) = again.or(rule.check().err()) {
            self.fault(entry.span(), format!("{named}: {fault}"), RULE_HELP.to_string());
            return Err(Told);
        }
        Value::deserialize(entry.clone().into_deserializer()).map_err(|error| {
            self.fault(entry.span(), format!("{named}: {}", error.message()), RULE_HELP.to_string());
            Told
        })
    }

    fn expected(&mut self, expected: String, span: Range<usize>, what: String) -> Told {
        self.fault(span, what, format!("write {expected}"));
        Told
    }
}

/// A fault was found and told.
struct Told;

fn whole(key: &Key, range: &RangeInclusive<u64>, value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .filter(|&n| u64::try_from(n).is_ok_and(|n| range.contains(&n)))
            .map(Value::Integer)
            .ok_or_else(|| format!("`{}` is {digits}", spoken(key.path))),
        other => Err(wrong_type(key, other)),
    }
}

fn decimal(key: &Key, range: &RangeInclusive<f64>, value: &DeValue<'_>) -> Result<Value, String> {
    let digits = match value {
        DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str(),
        DeValue::Float(digits) => digits.as_str(),
        other => return Err(wrong_type(key, other)),
    };
    let number = digits.parse::<f64>().ok().filter(|number| range.contains(number));
    number.map(Value::Float).ok_or_else(|| format!("`{}` is {digits}", spoken(key.path)))
}

fn wrong_type(key: &Key, value: &DeValue<'_>) -> String {
    format!("`{}` is {}", spoken(key.path), a(value.type_str()))
}

fn a(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// A value as it is shown in a finding: not longer than somebody reads.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{shown}{more}\"")
}
