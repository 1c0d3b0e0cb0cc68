//! Postfix: `main.cf`, and what a table by recipient domain and one by MX can do.
//!
//! Postfix has no transport table by MX. What it has is `check_recipient_mx_access` with FILTER, which sends a whole message another way
//! as soon as one recipient's MX host is in the table, for mail that comes by SMTP (postconf(5), access(5)).

use super::{Door, Ground, Microsoft, bracketed, remedy, unreadable};
use crate::doctor::finding::{Check, Finding};

const MAIN: &str = "/etc/postfix/main.cf";
/// Settings that go before `relayhost`, for some mail at least.
const STRONGER: [&str; 3] = ["transport_maps", "sender_dependent_relayhost_maps", "default_transport"];

pub(super) fn look(ground: &Ground<'_>) -> Option<Finding> {
    let text = match ground.read(MAIN) {
        Some(Ok(text)) => text,
        Some(Err(error)) => return Some(unreadable("Postfix", error)),
        None if ground.exists("/etc/postfix/master.cf") => String::new(),
        None => return None,
    };
    let settings = Settings::read(&text);
    Some(match &ground.microsoft {
        None => all(&settings, ground),
        Some(microsoft) => only_microsoft(&settings, ground, microsoft),
    })
}

/// `name = value` of main.cf; the last of a name counts, a line that begins with a blank goes on with the one before.
struct Settings(Vec<(String, String)>);

impl Settings {
    fn read(text: &str) -> Settings {
        let mut settings: Vec<(String, String)> = Vec::new();
        let mut is_open = false;
        for line in text.lines() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = settings.last_mut().filter(|_| is_open) {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once('=') {
                settings.push((name.trim().to_string(), value.trim().to_string()));
                is_open = true;
            } else {
                is_open = false;
            }
        }
        Settings(settings)
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.trim())
    }
}

fn all(settings: &Settings, ground: &Ground<'_>) -> Finding {
    let relayhost = settings.get("relayhost");
    let others: Vec<&str> = STRONGER.into_iter().filter(|name| !settings.get(name).is_empty()).collect();
    let others = match others.as_slice() {
        [] => String::new(),
        names => format!("; {} may send some mail elsewhere", names.join(", ")),
    };
    if let Some((host, port)) = hop(relayhost)
        && ground.leads_here(host, port)
    {
        return Finding::ok(Check::Mta, "Postfix", format!("hands its mail to weir at {relayhost}{others}"));
    }
    let text = match relayhost {
        "" => format!("delivers by itself, past weir{others}"),
        other => format!("hands its mail to {other}, past weir{others}"),
    };
    let mut lines = vec![format!("# {MAIN}"), format!("relayhost = {}", bracketed(ground.door().address))];
    lines.extend(client(ground.door()));
    lines.push("# then".to_string());
    lines.push("postfix reload".to_string());
    lines.push("postqueue -f".to_string());
    Finding::warn(Check::Mta, "Postfix", text, remedy("instead of what is set there now:", &lines))
}

/// `[host]:port`, as `relayhost` names it; a name without brackets is looked up by its MX, and is no host.
fn hop(relayhost: &str) -> Option<(&str, u16)> {
    let (host, port) = relayhost.strip_prefix('[')?.split_once(']')?;
    Some((host, port.strip_prefix(':').map_or(Some(25), |port| port.parse().ok())?))
}

/// TLS and log-in, as the listener wants them.
fn client(door: Door) -> Vec<String> {
    let mut lines = Vec::new();
    if door.needs_login {
        lines.push("smtp_sasl_auth_enable = yes".to_string());
        lines.push("smtp_sasl_password_maps = texthash:/etc/postfix/weir_user".to_string());
        lines.push("smtp_sasl_security_options = noanonymous".to_string());
        lines.push("smtp_sasl_mechanism_filter = plain".to_string());
    }
    lines.push(format!("smtp_tls_security_level = {}", if door.needs_tls { "encrypt" } else { "may" }));
    if door.is_implicit {
        lines.push("smtp_tls_wrappermode = yes".to_string());
    }
    if door.needs_login {
        lines.push("# /etc/postfix/weir_user (chmod 600; Debian: package libsasl2-modules)".to_string());
        lines.push(format!("{} USER:PASSWORD", bracketed(door.address)));
    }
    lines
}

fn only_microsoft(settings: &Settings, ground: &Ground<'_>, microsoft: &Microsoft) -> Finding {
    let route = format!("smtp:{}", bracketed(ground.door().address));
    let beside = |name: &str, own: &str| match settings.get(name) {
        "" => format!("{name} = {own}"),
        known if known.contains("weir") => format!("{name} = {known}"),
        known => format!("{name} = {own},\n  {known}"),
    };
    if let Some((host, port)) = hop(settings.get("relayhost"))
        && ground.leads_here(host, port)
    {
        return Finding::ok(Check::Mta, "Postfix", "hands all its mail to weir, Microsoft's with it");
    }
    let has_table = settings.get("transport_maps").contains("weir_domains")
        && settings.get("smtpd_recipient_restrictions").contains("weir_mx");
    if has_table {
        let text = "hands mail for Microsoft to weir: consumer domains by table, others by MX where mail comes by SMTP";
        return Finding::ok(Check::Mta, "Postfix", text);
    }
    let mut lines = vec![format!("# {MAIN}")];
    lines.push(beside("transport_maps", "texthash:/etc/postfix/weir_domains"));
    lines.push(beside("smtpd_recipient_restrictions", "\n  check_recipient_mx_access texthash:/etc/postfix/weir_mx"));
    lines.extend(client(ground.door()));
    lines.push("# /etc/postfix/weir_mx".to_string());
    lines.extend(microsoft.mx.iter().map(|suffix| format!("{suffix} FILTER {route}")));
    lines.push("# /etc/postfix/weir_domains".to_string());
    lines.extend(microsoft.domains.iter().map(|domain| format!("{domain} {route}")));
    lines.push("# then".to_string());
    lines.push("postfix reload".to_string());
    let sentence = "Postfix has no table of routes by MX. Consumer domains go by a table of recipient domains; companies' mail at Microsoft is \
                    found by its MX hosts only in mail that comes by SMTP, and then the whole message goes to weir, which delivers to all its \
                    recipients. Mail of local programs (sendmail) is found by domain alone. Simpler, and the way that misses nothing: hand all \
                    mail to weir, which tells receivers apart by MX (without --microsoft-only):";
    Finding::warn(Check::Mta, "Postfix", "hands no mail for Microsoft to weir", remedy(sentence, &lines))
}
