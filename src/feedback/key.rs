//! The keys of tokens: one on each line of a file. The first signs, all of them are read.
//!
//! To change the key, put a new line before the others and reload; take the old line out when its last token has expired.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::options::Feedback;

/// The name of a file of our own in the data folder.
const NAME: &str = "feedback-key";
/// A key that somebody chose: shorter ones can be guessed.
const LEN_MIN: usize = 16;
const LEN_MAX: usize = 1024;
/// A token is looked at with each.
const KEYS_MAX: usize = 8;
const CHANCE_OCTETS: usize = 32;

/// At least one.
#[derive(Clone)]
pub struct Keys {
    first: hmac::Key,
    others: Vec<hmac::Key>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", 1 + self.others.len())
    }
}

impl Keys {
    /// Reads the lines of a file; the error is one sentence that shows nothing of them.
    pub fn parse(text: &str) -> Result<Keys, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys = Vec::new();
        for line in lines {
            if !(LEN_MIN..=LEN_MAX).contains(&line.len()) {
                let many = keys.len() + 1;
                return Err(format!(
                    "key {many} must have {LEN_MIN} to {LEN_MAX} octets, as `openssl rand -base64 32` makes it"
                ));
            }
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, line.as_bytes()));
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("there are more than {KEYS_MAX} keys: take the oldest out"));
        }
        let mut keys = keys.into_iter();
        let first =
            keys.next().ok_or("there is no key in it: write one on a line, as `openssl rand -base64 32` makes it")?;
        Ok(Keys { first, others: keys.collect() })
    }

    /// The one that signs.
    pub(super) fn first(&self) -> &hmac::Key {
        &self.first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &hmac::Key> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// Where the keys stand.
pub fn path(options: &Feedback, data_dir: &Path) -> PathBuf {
    if options.key_file.is_empty() { data_dir.join(NAME) } else { PathBuf::from(&options.key_file) }
}

/// Reads the keys; makes one where none was given. The error is one sentence.
pub fn read_or_make(options: &Feedback, data_dir: &Path) -> Result<Keys, String> {
    let path = path(options, data_dir);
    let at = |what: String| format!("feedback.key_file: {}: {what}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => Keys::parse(&text).map_err(at),
        Err(error) if error.kind() == ErrorKind::NotFound && options.key_file.is_empty() => {
            let text = make(&path).map_err(|error| at(format!("cannot be written: {error}")))?;
            Keys::parse(&text).map_err(at)
        }
        Err(error) => Err(at(format!("cannot be read: {error}"))),
    }
}

fn make(path: &Path) -> std::io::Result<String> {
    let mut chance = [0; CHANCE_OCTETS];
    rand::fill(&mut chance).map_err(|_| std::io::Error::other("the system gives no random octets"))?;
    let text = format!("{}\n", BASE64_URL_SAFE_NO_PAD.encode(chance));
    // Under another name first: what stands under its name is whole.
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let options = Feedback::default();
        read_or_make(&options, folder.path()).unwrap();
        let first = std::fs::read_to_string(path(&options, folder.path())).unwrap();
        read_or_make(&options, folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(path(&options, folder.path())).unwrap(), first);
        let mode = std::fs::metadata(path(&options, folder.path())).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, first.trim().len()), (0o600, 43));
    }

    #[test]
    fn a_file_that_holds_no_keys_is_told_and_shows_nothing_of_them() {
        let many = "0123456789abcdef\n".repeat(9);
        for (text, good) in [
            ("0123456789abcdef\n", true),
            ("# new\n0123456789abcdef\n\n# old\nfedcba9876543210", true),
            ("short-secret", false),
            ("0123456789abcdef\nshort-secret\n", false),
            ("# nothing\n", false),
            ("", false),
            (&many, false),
        ] {
            let read = Keys::parse(text);
            assert_eq!(read.is_ok(), good, "{text}");
            assert!(read.is_ok() || !read.unwrap_err().contains("short-secret"));
        }
        let folder = tempfile::tempdir().unwrap();
        let options = Feedback { key_file: folder.path().join("none").display().to_string(), ..Feedback::default() };
        assert!(read_or_make(&options, folder.path()).is_err(), "a file that was named is not made");
    }
}
