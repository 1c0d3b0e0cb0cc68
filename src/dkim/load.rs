//! Reads the keys of `[[dkim]]`. The one file of this room that touches others.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::key::{BITS_GOOD, Key, KeyError, Kind};
use super::options::{Dkim, Origin};
use super::record;
use super::signers::{Signer, Signers};
use crate::types::{Domain, Secret};

/// A key takes a few kilobytes; what is larger is another file.
const FILE_MAX: u64 = 64 << 10;
/// Others may read it.
const READABLE_FOR_ALL: u32 = 0o004;

/// What is wrong with one entry.
#[derive(Debug, thiserror::Error)]
#[error("dkim {name}: {what}")]
pub struct Fault {
    name: String,
    what: WhatIsWrong,
}

#[derive(Debug, thiserror::Error)]
pub enum WhatIsWrong {
    #[error(
        "cannot read {file} (key_file): {source}: put the private key there, or make one with `weir dkim keygen`, and let the user weir runs as read it"
    )]
    Unreadable { file: String, source: io::Error },
    #[error(
        "{file} (key_file) is readable for all, so everybody here could send mail in this name: chmod o-rwx {file} (Kubernetes: `defaultMode: 0440` of the secret)"
    )]
    Open { file: String },
    #[error("{file} (key_file) {source}")]
    NoKeyInFile { file: String, source: KeyError },
    #[error("`key` {0}")]
    NoKey(KeyError),
    #[error("`domain` is no domain")]
    Domain,
    #[error("there is neither `key_file` nor `key`")]
    Missing,
}

/// The keys, and what should be said of them.
#[derive(Debug, Default)]
pub struct Loaded {
    pub signers: Signers,
    pub warnings: Vec<String>,
}

/// All keys; or what is wrong with each that is faulty. For a thread that may block.
pub fn load(options: &[Dkim]) -> Result<Loaded, Vec<Fault>> {
    let (mut signers, mut warnings, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for entry in options {
        match read(entry, &mut warnings) {
            Ok(signer) => signers.extend(signer),
            Err(what) => faults.push(Fault { name: entry.name(), what }),
        }
    }
    if faults.is_empty() { Ok(Loaded { signers: Signers::new(signers), warnings }) } else { Err(faults) }
}

/// Makes the keys that are to be made and are not there; gives the records that are to be published. For a thread that may block.
pub fn make_missing(options: &[Dkim]) -> Result<Vec<String>, String> {
    let mut records = Vec::new();
    for entry in options.iter().filter(|entry| entry.origin == Origin::Generated) {
        let file = Path::new(&entry.key_file);
        if file.exists() {
            continue;
        }
        let fault = |error: &dyn std::fmt::Display| {
            format!(
                "dkim {}: cannot make {}: {error}: see to it that data_dir can be written",
                entry.name(),
                file.display()
            )
        };
        let (key, pem) = Key::generate(Kind::Rsa).map_err(|error| fault(&error))?;
        make(file, &pem).map_err(|error| fault(&error))?;
        records.push(record::zone_line(&entry.name(), &record::text(&key)));
    }
    Ok(records)
}

/// The whole key or none of it.
fn make(file: &Path, pem: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("private.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_key(&new, pem)?;
    std::fs::rename(new, file)
}

/// Writes a private key for its owner alone, and over no file that is there.
pub fn write_key(file: &Path, pem: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

/// None: its key is made at the first start.
fn read(entry: &Dkim, warnings: &mut Vec<String>) -> Result<Option<Signer>, WhatIsWrong> {
    let key = match (entry.key_file.as_str(), entry.key.is_empty()) {
        ("", true) => return Err(WhatIsWrong::Missing),
        ("", false) => Key::read(entry.key.expose()).map_err(WhatIsWrong::NoKey)?,
        (file, _) => match of_file(entry, file, warnings)? {
            Some(key) => key,
            None => return Ok(None),
        },
    };
    if key.is_short() {
        warnings.push(format!(
            "dkim {}: {} of which {BITS_GOOD} are asked for today: make a new key under another selector with `weir dkim keygen`",
            entry.name(),
            key.what().replace("RSA with", "an RSA key of")
        ));
    }
    let domain = Domain::parse(&entry.domain).map_err(|_| WhatIsWrong::Domain)?;
    Ok(Some(Signer { domain, selector: entry.selector.clone(), key, skip_signed: entry.skip_signed }))
}

fn of_file(entry: &Dkim, file: &str, warnings: &mut Vec<String>) -> Result<Option<Key>, WhatIsWrong> {
    let (mode, text) = match content(Path::new(file)) {
        Ok(read) => read,
        Err(error) if entry.origin == Origin::Generated && error.kind() == io::ErrorKind::NotFound => {
            warnings.push(format!("dkim {}: {file} is not there yet: it is made when the relay starts", entry.name()));
            return Ok(None);
        }
        Err(source) => return Err(WhatIsWrong::Unreadable { file: file.to_string(), source }),
    };
    if mode & READABLE_FOR_ALL != 0 {
        if entry.origin == Origin::Configured {
            return Err(WhatIsWrong::Open { file: file.to_string() });
        }
        warnings.push(format!("dkim {}: {file} is readable for all: chmod o-rwx {file}", entry.name()));
    }
    let key = Key::read(text.expose());
    key.map(Some).map_err(|source| WhatIsWrong::NoKeyInFile { file: file.to_string(), source })
}

fn content(file: &Path) -> io::Result<(u32, Secret)> {
    let file = File::open(file)?;
    let mode = file.metadata()?.mode();
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text)?;
    Ok((mode, Secret::new(text)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(file: &Path) -> Dkim {
        Dkim {
            domain: "example.com".into(),
            selector: "s".into(),
            key_file: file.display().to_string(),
            ..Dkim::default()
        }
    }

    fn put(file: &Path, text: &str, mode: u32) {
        std::fs::write(file, text).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_that_is_missing_open_or_none_is_a_fault_that_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        let said = |entry: &Dkim| load(std::slice::from_ref(entry)).unwrap_err()[0].to_string();
        let missing = said(&entry(&file));
        assert!(missing.contains("s._domainkey.example.com") && missing.contains("key.pem (key_file)"), "{missing}");
        let (_, pem) = Key::generate(Kind::Ed25519).unwrap();
        put(&file, &pem, 0o644);
        assert!(said(&entry(&file)).contains("readable for all"));
        let mounted = load(&[Dkim { origin: Origin::Mounted, ..entry(&file) }]).unwrap();
        assert!(mounted.warnings[0].contains("chmod o-rwx"), "{:?}", mounted.warnings);
        put(&file, "hello", 0o600);
        assert!(said(&entry(&file)).contains("holds no private key"));
        put(&file, &pem, 0o640);
        let loaded = load(&[entry(&file)]).unwrap();
        assert_eq!((loaded.signers.iter().count(), loaded.warnings.len()), (1, 0));
        let inline = Dkim { key: Secret::new(pem), key_file: String::new(), ..entry(&file) };
        assert_eq!(load(std::slice::from_ref(&inline)).unwrap().signers.iter().count(), 1);
        assert!(said(&Dkim { key: Secret::new("x"), ..inline }).contains("`key` holds no private key"));
    }

    #[test]
    fn every_fault_is_told_and_a_key_that_is_still_to_be_made_is_none() {
        let nowhere = Path::new("/nowhere/key.pem");
        assert_eq!(load(&[entry(nowhere), entry(nowhere)]).unwrap_err().len(), 2);
        let made = load(&[Dkim { origin: Origin::Generated, ..entry(nowhere) }]).unwrap();
        assert!(made.signers.is_empty() && made.warnings[0].contains("made when the relay starts"));
    }

    #[test]
    fn keys_that_are_to_be_made_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dkim/example.com.private");
        let entries = [Dkim { origin: Origin::Generated, ..entry(&file) }, entry(Path::new("/nowhere"))];
        let records = make_missing(&entries).unwrap();
        assert!(records.len() == 1 && records[0].starts_with("s._domainkey.example.com. IN TXT \"v=DKIM1; k=rsa; p="));
        let made = std::fs::read(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!((make_missing(&entries).unwrap().len(), std::fs::read(&file).unwrap()), (0, made));
        assert_eq!(load(&entries[..1]).unwrap().signers.iter().count(), 1);
        assert!(write_key(&file, "x").is_err(), "no key is written over");
        let blocked = Dkim { key_file: "/proc/x/y.private".into(), ..entries[0].clone() };
        assert!(make_missing(&[blocked]).unwrap_err().contains("cannot make /proc/x/y.private"));
    }
}
