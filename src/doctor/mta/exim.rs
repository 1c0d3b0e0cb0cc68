//! Exim: Debian's `update-exim4.conf.conf`, and a router for a configuration of one's own.
//!
//! Exim takes a smarthost on 127.0.0.1 for itself and freezes the mail; on 127.0.0.2 it does not, and with `self = send` it delivers there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Door, Ground, Microsoft, lines, remedy, unreadable};
use crate::doctor::finding::{Check, Finding};

const DEBIAN: &str = "/etc/exim4/update-exim4.conf.conf";
const OWN: [&str; 3] = ["/etc/exim4/exim4.conf", "/etc/exim/exim.conf", "/etc/exim.conf"];

pub(super) fn look(ground: &Ground<'_>) -> Option<Finding> {
    // A file of one's own goes before Debian's.
    for file in OWN {
        match ground.read(file) {
            Some(Ok(text)) => return Some(own(file, &text, ground)),
            Some(Err(error)) => return Some(unreadable("Exim", error)),
            None => {}
        }
    }
    match ground.read(DEBIAN)? {
        Ok(text) => Some(debian(&text, ground)),
        Err(error) => Some(unreadable("Exim", error)),
    }
}

fn debian(text: &str, ground: &Ground<'_>) -> Finding {
    let value = |name: &str| {
        let found = text.lines().filter_map(|line| line.trim().split_once('=')).filter(|(known, _)| *known == name);
        found.map(|(_, value)| value.trim_matches(['\'', '"'])).next_back().unwrap_or_default()
    };
    let (kind, smarthost) = (value("dc_eximconfig_configtype"), value("dc_smarthost"));
    let uses_smarthost = ["satellite", "smarthost"].contains(&kind);
    if let Some(microsoft) = &ground.microsoft {
        if uses_smarthost && is_here(smarthost, ground) {
            return Finding::ok(
                Check::Mta,
                "Exim",
                format!("hands all its mail to weir at {smarthost}, Microsoft's with it"),
            );
        }
        let sentence = "put this router before the one that delivers, `dnslookup` or `smarthost`:";
        let is_split = value("dc_use_split_config") == "true";
        let file = if is_split { "/etc/exim4/conf.d/router/190_weir" } else { "/etc/exim4/exim4.conf.template" };
        let mut all = vec![format!("# {file}")];
        all.extend(router(ground, Some(microsoft)));
        all.extend(lines("# then\nupdate-exim4.conf\nsystemctl restart exim4"));
        return Finding::warn(Check::Mta, "Exim", "hands no mail for Microsoft to weir", remedy(sentence, &all));
    }
    if uses_smarthost && is_here(smarthost, ground) {
        if smarthost.starts_with("127.0.0.1:") {
            let text =
                format!("its smarthost {smarthost} is weir, but Exim takes 127.0.0.1 for itself and freezes the mail");
            return Finding::fail(
                Check::Mta,
                "Exim",
                text,
                remedy("use the other address:", &debian_lines(kind, ground)),
            );
        }
        return Finding::ok(Check::Mta, "Exim", format!("hands its mail to weir at {smarthost}"));
    }
    let text = match (uses_smarthost, smarthost) {
        (true, other) if !other.is_empty() => format!("hands its mail to {other}, past weir"),
        _ => "delivers by itself, past weir".to_string(),
    };
    Finding::warn(Check::Mta, "Exim", text, remedy("instead of what is set there now:", &debian_lines(kind, ground)))
}

/// `host::port`, as Debian has it.
fn is_here(smarthost: &str, ground: &Ground<'_>) -> bool {
    let (host, port) = smarthost.rsplit_once("::").unwrap_or((smarthost, "25"));
    port.parse().is_ok_and(|port| ground.leads_here(host, port))
}

fn debian_lines(kind: &str, ground: &Ground<'_>) -> Vec<String> {
    let door = door(ground);
    // Mail for this host stays here where it did before.
    let kind = if kind == "internet" || kind == "smarthost" { "smarthost" } else { "satellite" };
    let mut all = vec![
        format!("# {DEBIAN}"),
        format!("dc_eximconfig_configtype='{kind}'"),
        format!("dc_smarthost='{}::{}'", door.address.ip(), door.address.port()),
    ];
    if door.needs_tls {
        all.push("# /etc/exim4/exim4.conf.localmacros".to_string());
        all.push("REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *".to_string());
        if door.is_implicit {
            all.push("REMOTE_SMTP_SMARTHOST_PROTOCOL = smtps".to_string());
        }
    }
    if door.needs_login {
        all.push("# /etc/exim4/passwd.client (root:Debian-exim, mode 640)".to_string());
        all.push("*:USER:PASSWORD".to_string());
    }
    all.extend(listener(door, ground));
    all.extend(lines("# then\nupdate-exim4.conf\nsystemctl restart exim4"));
    all
}

/// The one Exim does not take for itself; where weir listens on none, 127.0.0.2 with what it takes to listen there.
fn door(ground: &Ground<'_>) -> Door {
    let is_other = |door: &&Door| door.address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) && door.address.is_ipv4();
    let first = ground.door();
    let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), first.address.port());
    ground.doors.iter().find(is_other).copied().unwrap_or(Door { address: other, ..first })
}

fn listener(door: Door, ground: &Ground<'_>) -> Vec<String> {
    if ground.doors.contains(&door) {
        return Vec::new();
    }
    lines(&format!("# weir.toml, beside the listener that is there\n[[listener]]\naddress = \"{}\"", door.address))
}

fn own(file: &str, text: &str, ground: &Ground<'_>) -> Finding {
    let subject = "Exim";
    let here = text.lines().map(str::trim).filter(|line| line.starts_with("route_list")).any(|line| {
        let hop = line.split_whitespace().find(|word| word.contains("::"));
        hop.is_some_and(|hop| is_here(hop.trim_matches(['"', ';']), ground))
    });
    if here {
        return Finding::ok(Check::Mta, subject, format!("{file} hands mail to weir"));
    }
    let mut all = vec![format!("# {file}, first behind `begin routers`")];
    all.extend(router(ground, ground.microsoft.as_ref()));
    all.push("# then".to_string());
    all.push("systemctl restart exim4".to_string());
    let sentence = "put this router before those that deliver to other hosts; `remote_smtp` is the transport there:";
    Finding::warn(Check::Mta, subject, format!("{file} hands no mail to weir"), remedy(sentence, &all))
}

/// All mail for others, or Microsoft's by recipient domain and by MX.
fn router(ground: &Ground<'_>, microsoft: Option<&Microsoft>) -> Vec<String> {
    let hop = ground.doors.iter().find(|door| !door.is_implicit).copied().unwrap_or(ground.door()).address;
    let mut all = lines("weir:\n  driver = manualroute\n  domains = ! +local_domains");
    if let Some(microsoft) = microsoft {
        // A domain whose MX cannot be looked up now goes on to the next router, which defers it.
        all.push("  condition = ${if match{${lookup dnsdb{defer_never,mxh=$domain}\\".to_string());
        all.push("    {$value}{}}}{\\N(?im)(^|\\.)(\\".to_string());
        let escaped: Vec<String> = microsoft.mx.iter().map(|suffix| suffix.replace('.', "\\.")).collect();
        for (at, suffix) in escaped.iter().enumerate() {
            let bar = if at + 1 < escaped.len() { "|" } else { "" };
            all.push(format!("    {suffix}{bar}\\"));
        }
        all.push("    )\\.?$\\N}}".to_string());
    }
    all.push("  transport = remote_smtp".to_string());
    all.push(format!("  route_list = * {}::{}", hop.ip(), hop.port()));
    all.push("  self = send".to_string());
    all.push("  no_more".to_string());
    all
}
