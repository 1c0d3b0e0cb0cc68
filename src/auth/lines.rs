//! The log's line for each refused attempt, in a form that fail2ban and its like can read:
//! `authentication failed: client=192.0.2.1 user=app`, and behind it in brackets why.
//!
//! Rules that always hold: the client comes first, and a name shows as letters, digits and `@.-_+` alone, the rest escaped, so that no
//! name a client gives looks like another client; there are at most [`LINES_MAX`] lines a second, and how many were
//! left out is told.

use std::net::IpAddr;

use super::Denied;
use crate::types::Timestamp;

/// Whoever is to be shut out has guessed more often than once by then.
const LINES_MAX: u32 = 20;
/// What is shown of a name.
const NAME_SHOWN_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Lines {
    second: i64,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// The line to write, if it is one too many for this second none.
    pub(super) fn line(&mut self, now: Timestamp, client: IpAddr, name: &str, denied: Denied) -> Option<String> {
        if now.secs() != self.second {
            (self.second, self.written) = (now.secs(), 0);
        }
        if self.written >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        let what = match denied {
            // Nobody failed: no program should shut this client out.
            Denied::Busy => "authentication put off",
            Denied::Wrong | Denied::TooMany => "authentication failed",
        };
        let mut line = format!("{what}: client={} user={} ({denied})", client.to_canonical(), escaped(name));
        if self.left_out > 0 {
            line.push_str(&format!(", {} such lines before it were left out", std::mem::take(&mut self.left_out)));
        }
        Some(line)
    }
}

fn escaped(name: &str) -> String {
    let mut shown = String::new();
    for c in name.chars().take(NAME_SHOWN_MAX) {
        match c {
            c if c.is_ascii_alphanumeric() || "@.-_+".contains(c) => shown.push(c),
            c => shown.extend(c.escape_unicode()),
        }
    }
    if name.chars().nth(NAME_SHOWN_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(lines: &mut Lines, secs: i64, name: &str, denied: Denied) -> Option<String> {
        lines.line(Timestamp::from_secs(secs), "::ffff:192.0.2.1".parse().unwrap(), name, denied)
    }

    #[test]
    fn a_line_names_client_and_user() {
        let wrong = line(&mut Lines::default(), 1, "me+x@example.com", Denied::Wrong).unwrap();
        assert_eq!(wrong, "authentication failed: client=192.0.2.1 user=me+x@example.com (wrong user or password)");
        assert!(!line(&mut Lines::default(), 1, "app", Denied::Busy).unwrap().contains("failed:"));
    }

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let mut lines = Lines::default();
        let written = (0..1000).filter(|_| line(&mut lines, 1, "app", Denied::TooMany).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        let next = line(&mut lines, 2, "app", Denied::Wrong).unwrap();
        assert!(next.ends_with(", 980 such lines before it were left out"), "{next}");
        assert!(!line(&mut lines, 2, "app", Denied::Wrong).unwrap().contains("left out"));
    }

    proptest::proptest! {
        #[test]
        fn no_name_looks_like_another_client(name in "(\\PC|[ =:\r\n\0]|client=192.0.2.9|authentication failed: ){0,20}") {
            let line = line(&mut Lines::default(), 1, &name, Denied::Wrong).unwrap();
            proptest::prop_assert_eq!(line.matches("client=").count(), 1);
            proptest::prop_assert_eq!(line.matches("failed:").count(), 1);
            proptest::prop_assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", line);
            proptest::prop_assert!(line.len() < 1000);
        }
    }
}
