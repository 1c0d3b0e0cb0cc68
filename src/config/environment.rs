//! Settings from the environment, laid over those of the file.
//!
//! `WEIR_` and the path in capitals, joined by two underscores: `WEIR_QUEUE__EXPIRE=2d`. Lists are comma separated,
//! elements of lists of tables go by number (`WEIR_LISTENER__0__ADDRESS`) or, where they have one, by name
//! (`WEIR_PROVIDER__OUTLOOK__MAX_CONNECTIONS`); a list within a table has one more part (`WEIR_RELAY__USER__APP__RATE`). A variable that names no key is a warning, for other programs put
//! variables there, too; a value that cannot stand is a fault that names the variable.

use std::ops::RangeInclusive;

use toml::Value;

use super::familiar;
use super::file::quoted;
use super::finding::{Findings, Place};
use super::schema::{self, Key, Kind, Shape};
use super::tree::{self, Node, Table};
use super::users;

/// Read elsewhere.
const KNOWN: [&str; 6] = ["CONFIG", "CONTAINER", "SECRETS", "TEST", "USERS", "USERS_FILE"];
/// Holds a token in its path or query, with most services.
const WEBHOOK: &str = "alerts.webhook";
/// Set by Kubernetes for a service that is called `weir`.
const FOREIGN: [&str; 2] = ["PORT", "SERVICE_"];

/// One variable that sets a key.
pub(super) struct Setting<'a> {
    variable: &'a str,
    text: &'a str,
    key: &'static Key,
    element: Element,
}

/// In this order they are applied, so that a name finds the element a number has made.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    None,
    Number(usize),
    /// As it stands in the variable, in lower case.
    Name(String),
}

/// Lays the variables of `environment` over `root`. `profiles`: the names of shipped providers.
pub(super) fn overlay(
    root: &mut Table,
    environment: &[(String, String)],
    profiles: &[String],
    findings: &mut Findings,
) {
    let mut settings = Vec::new();
    let mut sorted: Vec<_> = environment.iter().collect();
    sorted.sort();
    for (variable, text) in sorted {
        let Some(rest) = variable.strip_prefix("WEIR_") else { continue };
        if KNOWN.contains(&rest) || FOREIGN.iter().any(|start| rest.starts_with(start)) {
            continue;
        }
        match resolve(&rest.to_lowercase()) {
            Some((key, element)) => settings.push(Setting { variable, text, key, element }),
            None => {
                let remedy = match nearest(&rest.to_lowercase()) {
                    Some(near) => format!("the nearest that does is {near}"),
                    None => "take it out; `weir check --print` shows every key there is".to_string(),
                };
                findings.warning(Place::variable(variable), "names no key and changes nothing", remedy);
            }
        }
    }
    settings.sort_by(|a, b| a.element.cmp(&b.element));
    for setting in &settings {
        apply(root, setting, profiles, findings);
    }
}

/// Puts the value of one variable where it belongs, or tells what is wrong with it.
pub(super) fn apply(root: &mut Table, setting: &Setting<'_>, profiles: &[String], findings: &mut Findings) {
    let table = match setting.table(root, profiles) {
        Ok(Some(table)) => table,
        Ok(None) => return,
        Err((what, remedy)) => {
            findings.fault(Place::variable(setting.variable), what, remedy);
            return;
        }
    };
    let node = match read(&setting.key.kind, setting.text) {
        Ok(value) => Node::Value(value, Place::variable(setting.variable)),
        Err(what) => {
            let remedy = format!("write {}", expected(&setting.key.kind));
            let what = format!("{what}{}", schema::not_yet(setting.key.path, setting.text));
            findings.fault(Place::variable(setting.variable), what, remedy);
            Node::Faulty
        }
    };
    table.insert(setting.name().to_string(), node);
}

/// Does this variable hold a secret?
pub fn is_secret_variable(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("WEIR_") else { return users::is_familiar(name) || familiar::is_secret(name) };
    let is_secret = |key: &Key| matches!(key.kind, Kind::Secret(_)) || key.path == WEBHOOK;
    users::is_familiar(name) || resolve(&rest.to_lowercase()).is_some_and(|(key, _)| is_secret(key))
}

/// The key and element that `rest`, a variable without its beginning and in lower case, names.
fn resolve(rest: &str) -> Option<(&'static Key, Element)> {
    let parts: Vec<&str> = rest.split("__").collect();
    let (path, element) = match parts[..] {
        [name] => (name.to_string(), Element::None),
        [section, name] => (format!("{section}.{name}"), Element::None),
        [section, table, name] if matches!(schema::shape(&format!("{section}.{table}")), Shape::Table) => {
            return schema::key_in(section, table, name).map(|key| (key, Element::None));
        }
        [section, list, element, name] if matches!(schema::shape(&format!("{section}.{list}")), Shape::Tables) => {
            return of_element(&format!("{section}.{list}"), element, name);
        }
        [list, element, name] => return of_element(list, element, name),
        // A key of a rule: the rule itself is what cannot stand here.
        [list, element, name, ..] if schema::takes_rules(list, name) => return of_element(list, element, name),
        _ => return None,
    };
    value(path, element)
}

/// The key `name` in an element of `list`.
fn of_element(list: &str, element: &str, name: &str) -> Option<(&'static Key, Element)> {
    let named = matches!(schema::shape(&format!("{list}[].name")), Shape::Value(_));
    let element = match element.parse() {
        Ok(number) => Element::Number(number),
        Err(_) if named && !element.is_empty() => Element::Name(element.to_string()),
        Err(_) => return None,
    };
    value(format!("{list}[].{name}"), element)
}

fn value(path: String, element: Element) -> Option<(&'static Key, Element)> {
    match schema::shape(&path) {
        Shape::Value(key) => Some((key, element)),
        _ => None,
    }
}

/// The variable that `rest`, of one that names nothing, was most probably meant to be.
fn nearest(rest: &str) -> Option<String> {
    let parts: Vec<&str> = rest.split("__").collect();
    // The middle is a table, or a number or a name, and then no part of the key.
    let path = match parts[..] {
        [section, table, _] if matches!(schema::shape(&format!("{section}.{table}")), Shape::Table) => parts.join("."),
        [section, list, _, name] => format!("{section}.{list}.{name}"),
        [list, _, name] => format!("{list}.{name}"),
        _ => parts.join("."),
    };
    schema::nearest_key(&path).map(schema::variable_of)
}

impl<'a> Setting<'a> {
    /// `variable` sets the key that `rest` names, without the beginning of our own variables and in lower case.
    pub(super) fn of(variable: &'a str, rest: &str, text: &'a str) -> Option<Setting<'a>> {
        resolve(rest).map(|(key, element)| Setting { variable, text, key, element })
    }

    /// The last part of the path.
    fn name(&self) -> &'static str {
        self.key.path.rsplit('.').next().unwrap_or_default()
    }

    /// The table the value goes into, made if need be; `None` where a fault of the file stands in its place.
    fn table<'t>(&self, root: &'t mut Table, profiles: &[String]) -> Result<Option<&'t mut Table>, (String, String)> {
        let Some((section, name)) = self.key.path.split_once('.') else { return Ok(Some(root)) };
        let (elements, list) = match (section.strip_suffix("[]"), name.split_once("[].")) {
            (Some(list), _) => (tree::list_mut(root, list), list),
            (None, Some((list, _))) => (tree::table_mut(root, section).and_then(|t| tree::list_mut(t, list)), list),
            (None, None) => {
                let table = tree::table_mut(root, section);
                return Ok(match (table, name.split_once('.')) {
                    (Some(table), Some((inner, _))) => tree::table_mut(table, inner),
                    (table, _) => table,
                });
            }
        };
        let Some(elements) = elements else { return Ok(None) };
        let at = match &self.element {
            Element::Number(number) if *number > elements.len() => {
                let missing = elements.len();
                let what = format!("there is no {list} {missing} yet, so none can be {number}");
                return Err((what, format!("number them without a gap, this one {missing}")));
            }
            Element::Number(number) => *number,
            Element::Name(name) => position(elements, name).unwrap_or(elements.len()),
            Element::None => return Ok(None),
        };
        if at == elements.len() {
            let place = Place::variable(self.variable);
            let mut element = Table::new();
            if let Element::Name(name) = &self.element {
                let name = if list == "provider" { profile(name, profiles) } else { name.clone() };
                element.insert("name".to_string(), Node::Value(Value::String(name), place.clone()));
            }
            elements.push((element, place));
        }
        Ok(elements.get_mut(at).map(|(element, _)| element))
    }
}

/// Where the element with this name stands.
fn position(elements: &[(Table, Place)], name: &str) -> Option<usize> {
    elements.iter().position(|(element, _)| match element.get("name") {
        Some(Node::Value(Value::String(own), _)) => in_variable(own) == name,
        _ => false,
    })
}

/// The shipped provider a variable means, else the name as it stands there.
fn profile(name: &str, profiles: &[String]) -> String {
    profiles.iter().find(|known| in_variable(known) == name).cloned().unwrap_or_else(|| name.to_string())
}

/// A name as it looks in a variable, where only letters, digits and underscores can stand, in lower case.
fn in_variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// The value that `text` stands for, or what is wrong with it.
pub(super) fn read(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Text(form) if (form.holds)(text) => Ok(Value::String(text.to_string())),
        Kind::Texts(form) => {
            let entry = |entry: &str| match (form.holds)(entry) {
                true => Ok(Value::String(entry.to_string())),
                false => Err(format!("has the entry {}", quoted(entry))),
            };
            entries(text).map(entry).collect::<Result<Vec<Value>, String>>().map(Value::Array)
        }
        Kind::Number(range) => whole(range, text.trim()).ok_or_else(|| format!("is {}", quoted(text))),
        Kind::Numbers(range) => {
            let read = |entry| whole(range, entry).ok_or_else(|| format!("has the entry {}", quoted(entry)));
            entries(text).map(read).collect::<Result<Vec<Value>, String>>().map(Value::Array)
        }
        Kind::Decimal(range) => {
            let number = text.trim().parse::<f64>().ok().filter(|number| range.contains(number));
            number.map(Value::Float).ok_or_else(|| format!("is {}", quoted(text)))
        }
        Kind::Switch => text.trim().parse::<bool>().map(Value::Boolean).map_err(|_| format!("is {}", quoted(text))),
        Kind::Secret(form) if (form.holds)(text) => Ok(Value::String(text.to_string())),
        Kind::Secret(_) => Err("is something else".to_string()),
        Kind::Text(_) => Err(format!("is {}", quoted(text))),
        Kind::Rules => Err("names a rule, and no variable can hold one".to_string()),
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn whole(range: &RangeInclusive<u64>, text: &str) -> Option<Value> {
    let number = text.parse::<u64>().ok().filter(|number| range.contains(number))?;
    i64::try_from(number).ok().map(Value::Integer)
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Texts(form) => format!("entries separated by commas, each {}", form.expected),
        Kind::Numbers(range) => {
            format!("entries separated by commas, each a whole number from {} to {}", range.start(), range.end())
        }
        Kind::Rules => "it into the configuration file, below a line `[[provider.rule]]`".to_string(),
        _ => kind.expected(),
    }
}
