//! The log-ins of `[[route]]`: passwords read from their files, and how each next hop is spoken to.
//!
//! Rules that always hold:
//! - a password stands in no fault and in no log;
//! - a hop whose password was not read is never used for mail: whoever only asks for ways says so.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use super::options::RouteEntry;
use crate::outbound::options::HopTls;
use crate::types::{Login, Secret};

/// More than any password; tokens that are called one are shorter.
const FILE_MAX: u64 = 16 << 10;

/// How a next hop of the configuration is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// None: as any other host.
    pub tls: Option<HopTls>,
    pub login: Option<Arc<Login>>,
    /// For people: `[[route]] for "*"`.
    pub named: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{named}: {what}")]
pub struct LoginError {
    named: String,
    what: String,
}

/// How each entry's hop is spoken to, in the order of the entries.
#[derive(Clone, Debug)]
pub struct Accesses(Vec<Option<Arc<Access>>>);

impl Accesses {
    /// Reads the passwords of all entries that stand. For a thread that may block.
    pub fn load(entries: &[RouteEntry]) -> Result<Accesses, LoginError> {
        let mut accesses: Vec<Option<Arc<Access>>> = Vec::new();
        for entry in entries {
            let own = if entry.enabled { access(entry, password(entry)?) } else { None };
            // Routes that are spoken to alike share connections.
            let is_alike = |known: &&Arc<Access>| own.as_ref().is_some_and(|own| known.is_like(own));
            let known = accesses.iter().flatten().find(is_alike).cloned();
            accesses.push(known.or_else(|| own.map(Arc::new)));
        }
        Ok(Accesses(accesses))
    }

    /// For those who ask where mail would go and send none: no password is read, and nobody logs in.
    pub fn unread(entries: &[RouteEntry]) -> Accesses {
        let access = |entry: &RouteEntry| {
            let tls = entry.tls.filter(|_| entry.enabled);
            tls.map(|tls| Arc::new(Access { tls: Some(tls), login: None, named: entry.named().into() }))
        };
        Accesses(entries.iter().map(access).collect())
    }

    pub(super) fn of(&self, entry: usize) -> Option<Arc<Access>> {
        self.0.get(entry).cloned().flatten()
    }
}

impl Access {
    fn is_like(&self, other: &Access) -> bool {
        let login = |access: &Access| {
            access.login.as_ref().map(|login| (login.username.clone(), login.password.expose().to_vec()))
        };
        self.tls == other.tls && login(self) == login(other)
    }
}

fn access(entry: &RouteEntry, password: Secret) -> Option<Access> {
    let named = entry.named();
    let login = (!entry.username.is_empty()).then(|| {
        let key = match entry.password_file.as_str() {
            "" => "password".to_string(),
            file => format!("password_file {file}"),
        };
        let set_in = format!("username and {key} of the {named}");
        Arc::new(Login { username: entry.username.clone(), password, set_in })
    });
    // A password goes to nobody who has not shown who he is, unless somebody wrote otherwise.
    let tls = entry.tls.or(login.as_ref().map(|_| HopTls::Verify));
    (tls.is_some() || login.is_some()).then(|| Access { tls, login, named: named.into() })
}

fn password(entry: &RouteEntry) -> Result<Secret, LoginError> {
    let fault = |what: String| LoginError { named: entry.named(), what };
    if entry.username.is_empty() || entry.password_file.is_empty() {
        return Ok(entry.password.clone());
    }
    let file = &entry.password_file;
    let mut octets = Vec::new();
    File::open(file)
        .and_then(|open| open.take(FILE_MAX + 1).read_to_end(&mut octets))
        .map_err(|error| fault(format!("cannot read password_file {file}: {error}")))?;
    let content = Secret::new(octets);
    let octets = content.expose();
    let end = octets.iter().rposition(|octet| !b"\r\n".contains(octet)).map_or(0, |last| last + 1);
    let password = Secret::new(&octets[..end]);
    if password.is_empty() {
        return Err(fault(format!("password_file {file} is empty")));
    }
    if octets.len() as u64 > FILE_MAX || password.expose().iter().any(|octet| b"\0\r\n".contains(octet)) {
        return Err(fault(format!("password_file {file} holds no password: it takes one line")));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(domain: &str, username: &str) -> RouteEntry {
        RouteEntry {
            domain: domain.into(),
            to: "smtp.example.net:587".into(),
            username: username.into(),
            password: Secret::new("s3cret"),
            ..RouteEntry::default()
        }
    }

    #[test]
    fn a_login_asks_for_a_verified_host_unless_somebody_wrote_otherwise() {
        let clear = RouteEntry { tls: Some(HopTls::Off), ..entry("b.test", "app") };
        let plain = RouteEntry { username: String::new(), ..entry("c.test", "") };
        let off = RouteEntry { enabled: false, ..entry("d.test", "app") };
        let accesses = Accesses::load(&[entry("a.test", "app"), clear, plain, off]).unwrap();
        let tls = |at| accesses.of(at).map(|access| access.tls);
        assert_eq!([tls(0), tls(1), tls(2), tls(3)], [Some(Some(HopTls::Verify)), Some(Some(HopTls::Off)), None, None]);
    }

    #[test]
    fn entries_with_one_login_are_one_and_others_are_not() {
        let other = RouteEntry { password: Secret::new("other"), ..entry("c.test", "app") };
        let accesses = Accesses::load(&[entry("a.test", "app"), entry("b.test", "app"), other]).unwrap();
        assert_eq!(accesses.of(0), accesses.of(1));
        assert_ne!(accesses.of(0), accesses.of(2));
    }

    #[test]
    fn a_password_file_is_one_line_and_its_faults_name_it_and_show_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password").display().to_string();
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let entry = RouteEntry { password: Secret::default(), password_file: path.clone(), ..entry("*", "app") };
            Accesses::load(&[entry]).map(|accesses| accesses.of(0).unwrap().login.clone().unwrap())
        };
        for text in ["geheim ", "geheim \n", "geheim \r\n\r\n"] {
            let login = read(text).unwrap();
            assert_eq!(login.password.expose(), b"geheim ", "blanks may belong to it");
            assert_eq!(login.set_in, format!("username and password_file {path} of the [[route]] for \"*\""));
        }
        for (text, fault) in
            [("", "is empty"), ("\n", "is empty"), ("geheim\nzwei", "holds no password"), ("a\0b", "holds no password")]
        {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains("[[route]] for \"*\"") && said.contains(&path) && said.contains(fault), "{said}");
            assert!(!said.contains("geheim"));
        }
        std::fs::remove_file(&path).unwrap();
        let gone = RouteEntry { password_file: path.clone(), ..entry("*", "app") };
        assert!(Accesses::load(&[gone]).unwrap_err().to_string().contains("cannot read password_file"));
    }
}
