//! Secrets out of the environment of the running relay.
//!
//! What a process was started with stands in `/proc/PID/environ` for as long as it runs, and goes with every dump and diagnosis. Nothing
//! the process does to its variables changes that. So `weir run` starts itself once more, as the same process, without those that are
//! secret; they come through a pipe in the place of the standard input, which is empty once it is read.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::config::is_secret_variable;

/// Tells the second start where the secrets are.
const MARK: &str = "WEIR_SECRETS";
/// What a pipe holds while nobody reads it, and a little less.
const OCTETS_MAX: usize = 60_000;

/// The secrets among the variables, which are in the environment no more. Called before there is another thread.
pub(super) fn take() -> Vec<(String, String)> {
    if std::env::var_os(MARK).is_some() {
        let mut octets = Vec::new();
        // What does not come is missed where it is needed.
        let _ = io::stdin().take(OCTETS_MAX as u64).read_to_end(&mut octets);
        return unpacked(&octets);
    }
    let is_secret = |name: &OsString| name.to_str().is_some_and(is_secret_variable);
    let secrets: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| is_secret(name)).collect();
    if !secrets.is_empty() {
        let error = start_again(&secrets);
        super::output::say(&format!("secrets stay in the environment of this process: {error}"));
    }
    Vec::new()
}

/// Comes back only with why it is not possible.
fn start_again(secrets: &[(OsString, OsString)]) -> io::Error {
    let started = || {
        let octets = packed(secrets);
        if octets.len() > OCTETS_MAX {
            return Err(io::Error::other("they are too long"));
        }
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&octets)?;
        drop(writer);
        let mut again = Command::new(std::env::current_exe()?);
        let mut arguments = std::env::args_os();
        if let Some(own) = arguments.next() {
            again.arg0(own);
        }
        again.args(arguments).stdin(Stdio::from(reader)).env(MARK, "stdin");
        for (name, _) in secrets {
            again.env_remove(name);
        }
        Ok(again.exec())
    };
    started().unwrap_or_else(|error| error)
}

/// Name and value by turns, each ended by NUL, which no variable can hold.
fn packed(secrets: &[(OsString, OsString)]) -> Vec<u8> {
    let texts = secrets.iter().flat_map(|(name, value)| [name, value]);
    texts.flat_map(|text| text.as_encoded_bytes().iter().copied().chain([0])).collect()
}

fn unpacked(octets: &[u8]) -> Vec<(String, String)> {
    let texts: Vec<String> =
        octets.split(|octet| *octet == 0).map(|text| String::from_utf8_lossy(text).into()).collect();
    texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out() {
        let secrets = [("WEIR_USERS", "app:s3cret,b:x"), ("WEIR_RELAY__USER__APP__PASSWORD", "")];
        let owned = secrets.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let expected = secrets.map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(unpacked(&packed(&owned)), expected);
        assert_eq!(unpacked(b""), []);
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for (name, is_secret) in [
            ("WEIR_USERS", true),
            ("SMTPD_SASL_USERS", true),
            ("RELAYHOST_PASSWORD", true),
            ("RELAYHOST_PASSWORD_FILE", false),
            ("WEIR_RELAY__USER__0__PASSWORD", true),
            ("WEIR_RELAY__USER__APP__PASSWORD_HASH", true),
            ("WEIR_ALERTS__WEBHOOK", true),
            ("WEIR_RELAY__USER__APP__PASSWORD_FILE", false),
            ("WEIR_USERS_FILE", false),
            ("WEIR_QUEUE__EXPIRE", false),
            ("PATH", false),
        ] {
            assert_eq!(is_secret_variable(name), is_secret, "{name}");
        }
    }
}
