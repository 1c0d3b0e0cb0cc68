//! Users in one variable: `WEIR_USERS=app:secret,other:$argon2id$…`, and `SMTPD_SASL_USERS`, its name in other images.
//!
//! Each entry becomes an element of `[[relay.user]]`, or the password of the one that has its name. `WEIR_USERS_FILE` is
//! `relay.users_file`. Rule that always holds: no finding shows anything of an entry but the name.

use toml::Value;

use super::file::quoted;
use super::finding::{Findings, Place};
use super::schema::{PASSWORD, PASSWORD_HASH};
use super::tree::{self, Node, Table};
use crate::auth::options::{begins_like_a_hash, is_user_name};

/// Variables that hold users; the later ones win.
const LISTS: [&str; 2] = ["SMTPD_SASL_USERS", "WEIR_USERS"];
const FILE: &str = "WEIR_USERS_FILE";
/// The keys of which a user has one.
const PASSWORD_KEYS: [&str; 3] = ["password", "password_file", "password_hash"];

/// Is it a name by which other programs know what is read here?
pub(super) fn is_familiar(variable: &str) -> bool {
    LISTS.contains(&variable)
}

/// `familiar`: the variables of other images, those in files read.
pub(super) fn overlay(
    root: &mut Table,
    environment: &[(String, String)],
    familiar: &[(String, String)],
    findings: &mut Findings,
) {
    let is = |wanted: &str, (name, text): &&(String, String)| name == wanted && !text.is_empty();
    let own = environment.iter().filter(|(name, _)| name.starts_with("WEIR_"));
    let of = |wanted: &str| own.clone().chain(familiar).find(|pair| is(wanted, pair));
    if let Some((variable, file)) = of(FILE)
        && let Some(relay) = tree::table_mut(root, "relay")
    {
        relay.insert("users_file".to_string(), text(file, &Place::variable(variable)));
    }
    for (variable, list) in LISTS.iter().filter_map(|name| of(name)) {
        let place = Place::variable(variable);
        for (at, entry) in entries(list).iter().enumerate() {
            if let Err((what, remedy)) = take(root, entry, &place) {
                findings.fault(place.clone(), format!("entry {} {what}", at + 1), remedy);
            }
        }
    }
}

/// The entries of a list. The commas in a hash part nothing: what follows them has no colon.
fn entries(list: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for piece in list.split(',') {
        match entries.last_mut() {
            Some(last) if !piece.contains(':') && is_within_hash(last) => {
                last.push(',');
                last.push_str(piece.trim_end());
            }
            _ if piece.trim().is_empty() => {}
            _ => entries.push(piece.trim().to_string()),
        }
    }
    entries
}

fn is_within_hash(entry: &str) -> bool {
    entry.split_once(':').is_some_and(|(_, secret)| begins_like_a_hash(secret))
}

/// Puts one `name:secret` where it belongs.
fn take(root: &mut Table, entry: &str, place: &Place) -> Result<(), (String, String)> {
    let Some((name, secret)) = entry.split_once(':') else {
        let remedy = "write name:password, a password with a comma in it as its hash (`weir password`)";
        return Err(("has no `:`".to_string(), remedy.to_string()));
    };
    if !is_user_name(name) {
        let remedy = "write a name without spaces and quotes before the `:`";
        return Err(("begins with no user's name".to_string(), remedy.to_string()));
    }
    let (key, form) =
        if begins_like_a_hash(secret) { ("password_hash", PASSWORD_HASH) } else { ("password", PASSWORD) };
    if !(form.holds)(secret) {
        let what = format!("has something else behind the name {}", quoted(name));
        return Err((what, format!("write a password, or {}", PASSWORD_HASH.expected)));
    }
    // Where a fault stands in the place of the table, it was told.
    let Some(users) = tree::table_mut(root, "relay").and_then(|relay| tree::list_mut(relay, "user")) else {
        return Ok(());
    };
    let is_named =
        |user: &(Table, Place)| matches!(user.0.get("name"), Some(Node::Value(Value::String(own), _)) if own == name);
    let at = users.iter().position(is_named).unwrap_or_else(|| {
        let user = Table::from([("name".to_string(), text(name, place))]);
        users.push((user, place.clone()));
        users.len() - 1
    });
    if let Some((user, _)) = users.get_mut(at) {
        for key in PASSWORD_KEYS {
            user.remove(key);
        }
        user.insert(key.to_string(), text(secret, place));
    }
    Ok(())
}

fn text(text: &str, place: &Place) -> Node {
    Node::Value(Value::String(text.to_string()), place.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_within_a_hash_part_nothing() {
        let hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for (list, expected) in [
            ("app:secret".to_string(), vec!["app:secret".to_string()]),
            (format!("a:{hash}"), vec![format!("a:{hash}")]),
            (
                format!("a:x, b:{hash},c:{hash} ,d:y:z,"),
                vec!["a:x".into(), format!("b:{hash}"), format!("c:{hash}"), "d:y:z".into()],
            ),
            ("a:one,two".to_string(), vec!["a:one".into(), "two".into()]),
            (",,".to_string(), vec![]),
        ] {
            assert_eq!(entries(&list), expected, "{list}");
        }
    }
}
