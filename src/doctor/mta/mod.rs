//! The mail servers on this host, and the exact lines by which they hand their mail to weir.
//!
//! Rules that always hold:
//! - files are read and none is written;
//! - the lines stand as they must in the file named above them, each short enough for a terminal;
//! - by recipient domain and by MX: a company's mail at Microsoft is known by its MX hosts alone, and no list of domains names it.

mod exim;
mod msmtp;
mod postfix;
mod sendmail;

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::finding::{Check, Finding};
use crate::config::Config;
use crate::throttle::Profiles;

/// Octets of a configuration file that are read; real ones have some ten thousand.
const FILE_MAX: u64 = 1 << 20;
/// What a weir without listeners is told about.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2525);

/// The profiles of Microsoft.
const MICROSOFT: [&str; 2] = ["outlook", "microsoft365"];

/// What is asked about the mail servers here.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The host's files lie below it.
    pub root: PathBuf,
    /// Only mail for Microsoft goes to weir, the rest as before.
    pub microsoft_only: bool,
}

/// Where weir takes mail, as a client on this host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Door {
    address: SocketAddr,
    /// TLS is wanted: by STARTTLS, or from the first octet.
    needs_tls: bool,
    is_implicit: bool,
    needs_login: bool,
}

/// What the lines are made of.
struct Ground<'a> {
    root: &'a Path,
    doors: Vec<Door>,
    /// Of Microsoft, where only that goes to weir.
    microsoft: Option<Microsoft>,
}

/// How mail for Microsoft is known.
struct Microsoft {
    /// Recipient domains of the consumer mail.
    domains: Vec<String>,
    /// The ends of MX hosts' names, without a dot in front.
    mx: Vec<String>,
}

/// A finding for each mail server that is there.
pub fn look(config: &Config, asked: &Asked) -> Vec<Finding> {
    let ground = Ground {
        root: &asked.root,
        doors: doors(config),
        microsoft: asked.microsoft_only.then(|| Microsoft::of(config)),
    };
    let found = [postfix::look(&ground), exim::look(&ground), sendmail::look(&ground), msmtp::look(&ground)];
    let mut findings: Vec<Finding> = found.into_iter().flatten().collect();
    if findings.is_empty() {
        let door = ground.door();
        let text = "neither Postfix, Exim, sendmail nor msmtp has a configuration here";
        let login = if door.needs_login { ", and a user and password of [[relay.user]]" } else { "" };
        let remedy =
            format!("give applications this server{login}:\nhost {}\nport {}", door.address.ip(), door.address.port());
        findings.push(Finding::warn(Check::Mta, ground.root.display(), text, remedy));
    }
    findings
}

impl Microsoft {
    fn of(config: &Config) -> Microsoft {
        let profiles = Profiles::new(&config.provider);
        let own: Vec<_> = profiles.iter().filter(|profile| MICROSOFT.contains(&&*profile.name)).collect();
        let mut domains: Vec<String> = own.iter().flat_map(|profile| profile.domains.clone()).collect();
        let mx = own.iter().flat_map(|profile| &profile.mx);
        let mut mx: Vec<String> = mx.map(|pattern| pattern.trim_start_matches("*.").to_string()).collect();
        for list in [&mut domains, &mut mx] {
            list.sort();
            list.dedup();
        }
        Microsoft { domains, mx }
    }
}

/// Loopback comes first; a listener on all addresses is reached there.
fn doors(config: &Config) -> Vec<Door> {
    let mut doors: Vec<Door> = Vec::new();
    for listener in &config.listener {
        let ip = match listener.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let port = if listener.address.port() == 0 { USUAL.port() } else { listener.address.port() };
        let door = Door {
            address: SocketAddr::new(ip, port),
            needs_tls: listener.tls.is_required(),
            is_implicit: listener.tls.is_implicit(),
            needs_login: listener.auth.is_required(),
        };
        doors.push(door);
        // Where it listens on all of them.
        if listener.address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            doors.push(Door { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), port), ..door });
        }
    }
    if doors.is_empty() {
        doors.push(Door { address: USUAL, needs_tls: false, is_implicit: false, needs_login: false });
    }
    doors.sort_by_key(|door| (!door.address.ip().is_loopback(), door.is_implicit, door.needs_login));
    doors
}

impl Ground<'_> {
    /// The one that asks least of a client.
    fn door(&self) -> Door {
        self.doors[0]
    }

    /// Does `host` and `port`, as a mail server names its next hop, lead to weir?
    fn leads_here(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']);
        let ip = match host {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            _ => host.strip_prefix("IPv6:").unwrap_or(host).parse().ok(),
        };
        self.doors.iter().any(|door| Some(door.address.ip()) == ip && door.address.port() == port)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.join(file.trim_start_matches('/'))
    }

    fn exists(&self, file: &str) -> bool {
        self.path(file).exists()
    }

    /// A file of the host; none where it is not there.
    fn read(&self, file: &str) -> Option<Result<String, String>> {
        let path = self.path(file);
        if !path.exists() {
            return None;
        }
        let mut octets = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut octets));
        Some(match read {
            Ok(_) => Ok(String::from_utf8_lossy(&octets).into_owned()),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        })
    }
}

/// `[127.0.0.1]:2525`
fn bracketed(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("[{ip}]:{}", address.port()),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]:{}", address.port()),
    }
}

/// The file is there and shut.
fn unreadable(subject: &str, error: String) -> Finding {
    Finding::warn(Check::Mta, subject, error, "run it as root:\nsudo weir doctor --mta")
}

/// A sentence, and lines below it.
fn remedy(sentence: &str, lines: &[String]) -> String {
    std::iter::once(sentence).chain(lines.iter().map(String::as_str)).collect::<Vec<_>>().join("\n")
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_string).collect()
}

#[cfg(test)]
mod tests;
