//! The settings somebody wrote, each with its place, before they become a `Config`.
//!
//! The file is read into it, the environment laid over it, and in the end it is settled: a table that serde reads, and
//! the place of every value in it. Rule that always holds: only values that passed the schema get in; of a faulty one
//! stays a mark, so that one mistake is told once.

use std::collections::BTreeMap;

use toml::Value;

use super::finding::{Findings, Place};
use super::schema::{self, spoken};

pub(super) type Table = BTreeMap<String, Node>;

#[derive(Debug)]
pub(super) enum Node {
    Value(Value, Place),
    /// A fault was found here and told.
    Faulty,
    Table(Table),
    /// A list of tables, each with its own place.
    Tables(Vec<(Table, Place)>),
}

/// Where each value stands, by its path with numbers: `listener.0.address`; an element by its own: `listener.0`.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Places {
    /// The place of `path`, else of what is around it.
    pub(super) fn of(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return place.clone();
            }
            match path.rfind('.') {
                Some(at) => path = &path[..at],
                None => return Place::Nowhere {},
            }
        }
    }

    /// Did somebody write `path`?
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

/// The table serde reads, and the places. Elements that lack a key they need are told of and left out.
pub(super) fn settle(root: Table, findings: &mut Findings) -> (toml::Table, Places) {
    let mut places = Places::default();
    let table = settle_table(root, "", &mut places, findings);
    (table, places)
}

/// `prefix`: the path of the table with its final dot, empty for the whole.
fn settle_table(inner: Table, prefix: &str, places: &mut Places, findings: &mut Findings) -> toml::Table {
    let mut values = toml::Table::new();
    for (name, node) in inner {
        let path = format!("{prefix}{name}");
        match node {
            Node::Faulty => {}
            Node::Value(value, place) => {
                places.0.insert(path, place);
                values.insert(name, value);
            }
            Node::Table(inner) => {
                let inner = settle_table(inner, &format!("{path}."), places, findings);
                values.insert(name, Value::Table(inner));
            }
            Node::Tables(elements) => {
                let written = elements.len();
                let elements = settle_elements(elements, &path, places, findings);
                // A list of which nothing is left counts as not written, for more than its faults is not to be told.
                if elements.len() == written || !elements.is_empty() {
                    values.insert(name, Value::Array(elements));
                }
            }
        }
    }
    values
}

fn settle_elements(
    elements: Vec<(Table, Place)>,
    list: &str,
    places: &mut Places,
    findings: &mut Findings,
) -> Vec<Value> {
    let mut values = Vec::new();
    for (element, place) in elements {
        let mut whole = true;
        for key in schema::keys_of_element(list).filter(|key| key.required) {
            let name = key.path.rsplit('.').next().unwrap_or_default();
            match element.get(name) {
                Some(Node::Value(..)) => {}
                Some(_) => whole = false,
                None => {
                    whole = false;
                    let what = format!("a {list} has no `{name}`");
                    let remedy = format!("set `{}` to {}", spoken(key.path), key.kind.expected());
                    findings.fault(place.clone(), what, remedy);
                }
            }
        }
        if whole {
            let path = format!("{list}.{}", values.len());
            values.push(Value::Table(settle_table(element, &format!("{path}."), places, findings)));
            places.0.insert(path, place);
        }
    }
    values
}

/// The list of tables `name`, made if it is not there; `None` where a fault stands in its place.
pub(super) fn list_mut<'a>(root: &'a mut Table, name: &str) -> Option<&'a mut Vec<(Table, Place)>> {
    match root.entry(name.to_string()).or_insert_with(|| Node::Tables(Vec::new())) {
        Node::Tables(elements) => Some(elements),
        _ => None,
    }
}

/// The table `name`, made if it is not there; `None` where a fault stands in its place.
pub(super) fn table_mut<'a>(root: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    match root.entry(name.to_string()).or_insert_with(|| Node::Table(Table::new())) {
        Node::Table(table) => Some(table),
        _ => None,
    }
}
