//! msmtp: the default account of `/etc/msmtprc`. It chooses accounts by the sender, never by the recipient.

use super::{Ground, remedy, unreadable};
use crate::doctor::finding::{Check, Finding};

const FILE: &str = "/etc/msmtprc";

pub(super) fn look(ground: &Ground<'_>) -> Option<Finding> {
    let text = match ground.read(FILE)? {
        Ok(text) => text,
        Err(error) => return Some(unreadable("msmtp", error)),
    };
    let (host, port) = default_account(&text);
    if ground.leads_here(&host, port) {
        return Some(Finding::ok(Check::Mta, "msmtp", format!("hands its mail to weir at {host} port {port}")));
    }
    let door = ground.door();
    let on = |is: bool| if is { "on" } else { "off" };
    let mut all = vec![
        format!("# {FILE}"),
        "account weir".to_string(),
        format!("host {}", door.address.ip()),
        format!("port {}", door.address.port()),
        format!("tls {}", on(door.needs_tls)),
    ];
    if door.needs_tls {
        all.push(format!("tls_starttls {}", on(!door.is_implicit)));
    }
    all.push(format!("auth {}", on(door.needs_login)));
    if door.needs_login {
        all.push("user USER".to_string());
        all.push("passwordeval cat /etc/weir-password".to_string());
    }
    all.push("account default : weir".to_string());
    let sentence = if ground.microsoft.is_some() {
        "msmtp cannot choose by recipient: hand it all, weir tells receivers apart by MX. Instead of the `account default` there:"
    } else {
        "at the end, instead of the `account default` there:"
    };
    let text =
        if host.is_empty() { "has no host".to_string() } else { format!("hands its mail to {host} port {port}") };
    Some(Finding::warn(Check::Mta, "msmtp", format!("{text}, past weir"), remedy(sentence, &all)))
}

/// Host and port of the account that is used where none is asked for; accounts take over what `defaults` says, and what they inherit.
fn default_account(text: &str) -> (String, u16) {
    let mut accounts: Vec<(String, String, String)> = Vec::new();
    let mut defaults = (String::new(), String::new());
    let mut chosen = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let (word, rest) = line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()));
        match word {
            "account" => {
                let (name, parents) = rest.split_once(':').map_or((rest, ""), |(name, parents)| (name, parents));
                let parent = parents.split(',').next_back().map(str::trim).unwrap_or_default();
                let inherited = accounts.iter().rev().find(|(known, ..)| known == parent);
                let (host, port) =
                    inherited.map_or_else(|| defaults.clone(), |(_, host, port)| (host.clone(), port.clone()));
                if name.trim() == "default" {
                    chosen = Some(accounts.len());
                }
                accounts.push((name.trim().to_string(), host, port));
            }
            "host" | "port" => {
                let (host, port) = accounts.last_mut().map_or((&mut defaults.0, &mut defaults.1), |(_, h, p)| (h, p));
                *(if word == "host" { host } else { port }) = rest.to_string();
            }
            _ => {}
        }
    }
    let account = chosen.and_then(|at| accounts.get(at)).or(accounts.first());
    let (host, port) = account.map_or((defaults.0, defaults.1), |(_, host, port)| (host.clone(), port.clone()));
    (host, port.parse().unwrap_or(25))
}
