//! sendmail: lines of `sendmail.mc` above its mailers, and a mailer table by domain. It knows no table by MX.

use super::{Ground, lines, remedy, unreadable};
use crate::doctor::finding::{Check, Finding};

const FILE: &str = "/etc/mail/sendmail.mc";

pub(super) fn look(ground: &Ground<'_>) -> Option<Finding> {
    let text = match ground.read(FILE)? {
        Ok(text) => text,
        Err(error) => return Some(unreadable("sendmail", error)),
    };
    let door = ground.door();
    let (ip, port) = (door.address.ip(), door.address.port());
    let own: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with("dnl")).collect();
    let argument = |name: &str| {
        let line = own.iter().find(|line| line.starts_with(&format!("define(`{name}'")))?;
        line.splitn(3, '`').nth(2).and_then(|rest| rest.split('\'').next())
    };
    let smart_host = argument("SMART_HOST").unwrap_or_default();
    let relay_port =
        argument("RELAY_MAILER_ARGS").and_then(|words| words.rsplit(' ').next()?.parse().ok()).unwrap_or(25);
    let host = smart_host.rsplit(':').next().unwrap_or_default();
    if ground.leads_here(host, relay_port) {
        return Some(Finding::ok(
            Check::Mta,
            "sendmail",
            format!("hands its mail to weir at {smart_host} port {relay_port}"),
        ));
    }
    let mut all = vec![format!("# {FILE}, above MAILER_DEFINITIONS")];
    let mut sentence = "instead of what is set there now:";
    if ground.microsoft.is_none() {
        all.push(format!("define(`SMART_HOST', `relay:[{ip}]')dnl"));
    }
    all.push(format!("define(`RELAY_MAILER_ARGS', `TCP $h {port}')dnl"));
    if door.needs_login {
        all.extend(lines(
            "define(`confAUTH_MECHANISMS', `PLAIN LOGIN')dnl\n\
             FEATURE(`authinfo',`hash -o /etc/mail/authinfo/weir.db')dnl\n\
             # /etc/mail/authinfo/weir (folder mode 700), then in it:\n\
             # makemap hash weir < weir",
        ));
        all.push(format!("AuthInfo:{ip} \"U:USER\" \"I:USER\" \"P:PASSWORD\" \"M:PLAIN\""));
    }
    if let Some(microsoft) = &ground.microsoft {
        sentence = "sendmail has no table by MX, so companies' mail at Microsoft is not found; to miss nothing, hand all mail to weir, which \
                    tells receivers apart by MX (without --microsoft-only). Consumer domains by table:";
        all.push("FEATURE(`mailertable', `hash -o /etc/mail/mailertable.db')dnl".to_string());
        all.push("# /etc/mail/mailertable".to_string());
        all.extend(microsoft.domains.iter().map(|domain| format!("{domain} relay:[{ip}]")));
        all.push("# then".to_string());
        all.push("makemap hash /etc/mail/mailertable < /etc/mail/mailertable".to_string());
    } else {
        all.push("# then".to_string());
    }
    all.push("make -C /etc/mail".to_string());
    all.push("systemctl restart sendmail".to_string());
    let text = match smart_host {
        "" => "delivers by itself, past weir".to_string(),
        other => format!("hands its mail to {other} port {relay_port}, past weir"),
    };
    Some(Finding::warn(Check::Mta, "sendmail", text, remedy(sentence, &all)))
}
