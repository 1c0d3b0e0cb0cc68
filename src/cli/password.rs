//! `weir password`: makes the hash of a password for the configuration, or a line for the file of users.
//!
//! A password never stands on the command line, where every process of the host could read it: on a terminal it is asked for
//! twice and not shown, else the first line of standard input is it.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use clap::Args;

use super::output::{Output, say};
use crate::auth::options::{NAME_EXPECTED, is_user_name};
use crate::auth::{Hash, Secret};

/// More than a client can send (RFC 4954 section 4 allows lines of 12,288 octets, in base64).
const LINE_MAX: u64 = 8 << 10;

#[derive(Debug, Args)]
pub(super) struct Password {
    /// Print a line `NAME:HASH` for relay.users_file
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

pub(super) fn password(command: &Password, output: &mut Output) -> anyhow::Result<ExitCode> {
    if let Some(name) = command.user.as_deref().filter(|name| !is_user_name(name)) {
        return Err(super::usage(format!("`{name}` cannot be a user's name: {NAME_EXPECTED}")));
    }
    let password = if io::stdin().is_terminal() { asked()? } else { first_line(io::stdin().lock())? };
    print(&password, command.user.as_deref(), output)?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print(password: &Secret, user: Option<&str>, output: &mut Output) -> anyhow::Result<()> {
    if password.is_empty() {
        anyhow::bail!("the password is empty: type one, or write it to standard input as one line");
    }
    let hash = Hash::of(password.expose())?.text();
    match user {
        Some(name) => output.line(&format!("{name}:{hash}")),
        None => output.line(&hash),
    }
}

/// Twice, so that a slip of the finger does not lock anybody out.
fn asked() -> anyhow::Result<Secret> {
    let ask = |prompt| rpassword::prompt_password(prompt).map(|text| Secret::new(text.into_bytes()));
    let password = ask("Password: ")?;
    if password != ask("Again: ")? {
        anyhow::bail!("the two differ: nothing is made of them, try again");
    }
    if password.expose().len() < 8 {
        say("shorter than 8 characters: easy to guess");
    }
    Ok(password)
}

fn first_line(input: impl BufRead) -> anyhow::Result<Secret> {
    let mut line = Vec::new();
    input.take(LINE_MAX + 1).read_until(b'\n', &mut line)?;
    if line.len() as u64 > LINE_MAX {
        anyhow::bail!("the password is longer than {LINE_MAX} octets: no client can send it, take a shorter one");
    }
    let end = line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
    line.truncate(end);
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Rc<RefCell<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is printed for `input`.
    fn printed(input: &str, user: Option<&str>) -> anyhow::Result<String> {
        let page = Page::default();
        let mut output = Output::to(page.clone());
        print(&first_line(input.as_bytes())?, user, &mut output)?;
        output.flush()?;
        Ok(String::from_utf8(page.0.take())?)
    }

    #[test]
    fn the_first_line_of_the_input_is_the_password() {
        for input in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\nmore\n"] {
            let hash = Hash::parse(printed(input, None).unwrap().trim_end()).unwrap();
            assert!(hash.matches(b"s3cret"), "{input:?}");
        }
        let line = printed(" spaces stay \n", Some("app")).unwrap();
        let (name, hash) = line.trim_end().split_once(':').unwrap();
        assert_eq!(name, "app");
        assert!(Hash::parse(hash).unwrap().matches(b" spaces stay "));
    }

    #[test]
    fn no_password_and_one_that_is_too_long_are_faults() {
        assert!(printed("", None).unwrap_err().to_string().contains("is empty"));
        assert!(printed("\n", None).unwrap_err().to_string().contains("is empty"));
        assert!(printed(&"x".repeat(9000), None).unwrap_err().to_string().contains("longer than 8192"));
    }
}
