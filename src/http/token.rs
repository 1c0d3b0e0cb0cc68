//! The operator's token: read from a file, or made at the first start.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::options::Http;

/// The name of a token of our own in the data folder.
const NAME: &str = "http-token";
/// A token that somebody chose: shorter ones can be guessed.
const LEN_MIN: usize = 16;
/// Longer than any header field should be.
const LEN_MAX: usize = 1024;
const CHANCE_OCTETS: usize = 32;

/// The token, and where it stands.
pub struct Token {
    pub text: String,
    pub path: PathBuf,
    /// It was made just now.
    pub is_new: bool,
}

/// Where the token stands.
pub fn path(options: &Http, data_dir: &Path) -> PathBuf {
    if options.token_file.is_empty() { data_dir.join(NAME) } else { PathBuf::from(&options.token_file) }
}

/// Reads the token; makes one where none was given. The error is one sentence.
pub fn read_or_make(options: &Http, data_dir: &Path) -> Result<Token, String> {
    let path = path(options, data_dir);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim().to_string();
            if !(LEN_MIN..=LEN_MAX).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!(
                    "http.token_file: {} must hold one token of {LEN_MIN} to {LEN_MAX} visible ASCII characters, as \
                     `openssl rand -hex 32` makes it",
                    path.display()
                ));
            }
            Ok(Token { text, path, is_new: false })
        }
        Err(error) if error.kind() == ErrorKind::NotFound && options.token_file.is_empty() => {
            make(&path).map_err(|error| format!("http.token_file: cannot write {}: {error}", path.display()))
        }
        Err(error) => Err(format!("http.token_file: cannot read {}: {error}", path.display())),
    }
}

fn make(path: &Path) -> std::io::Result<Token> {
    let mut chance = [0; CHANCE_OCTETS];
    rand::fill(&mut chance).map_err(|_| std::io::Error::other("the system gives no random octets"))?;
    let text = BASE64_URL_SAFE_NO_PAD.encode(chance);
    // Under another name first: what stands under its name is whole.
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    Ok(Token { text, path: path.to_path_buf(), is_new: true })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = read_or_make(&Http::default(), folder.path()).unwrap();
        let second = read_or_make(&Http::default(), folder.path()).unwrap();
        assert!(first.is_new && !second.is_new && first.text == second.text && first.text.len() == 43);
        assert_eq!(std::fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_token_that_can_be_guessed_or_is_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let options = Http { token_file: path.display().to_string(), ..Http::default() };
        assert!(read_or_make(&options, folder.path()).is_err());
        for (text, good) in [("short\n", false), ("two words of one token\n", false), ("0123456789abcdef\n", true)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_or_make(&options, folder.path()).is_ok(), good, "{text}");
        }
    }
}
