//! What a client says, for the log at `weir::inbound=debug`.
//!
//! The rule that always holds: no line of a log-in is shown, nor one that may be one in the wrong place. A client whose AUTH was
//! refused may send its password all the same, as a command.

use std::borrow::Cow;

/// Words after which no secret stands.
const HARMLESS: [&str; 13] =
    ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT", "STARTTLS"];

/// A command line as it may be shown.
pub(super) fn shown(line: &[u8], is_logging_in: bool) -> Cow<'_, str> {
    if is_logging_in {
        return Cow::Borrowed("(a line of the log-in)");
    }
    let end = line.iter().position(|&b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let is = |word: &str| line[..end].eq_ignore_ascii_case(word.as_bytes());
    if HARMLESS.iter().any(|word| is(word)) {
        return String::from_utf8_lossy(line);
    }
    match is("AUTH") {
        true => Cow::Borrowed("AUTH (the rest is not shown)"),
        false => Cow::Owned(format!("(no known command, {} octets)", line.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (line, is_logging_in, expected) in [
            ("MAIL FROM:<a@x.example> SIZE=7", false, "MAIL FROM:<a@x.example> SIZE=7"),
            ("ehlo client", false, "ehlo client"),
            ("QUIT", false, "QUIT"),
            ("AUTH PLAIN AGFwcABzZWNyZXQ=", false, "AUTH (the rest is not shown)"),
            ("auth\tlogin c2VjcmV0", false, "AUTH (the rest is not shown)"),
            ("AGFwcABzZWNyZXQ=", false, "(no known command, 16 octets)"),
            ("AUTHPLAIN c2VjcmV0", false, "(no known command, 18 octets)"),
            ("QUITc2VjcmV0", false, "(no known command, 12 octets)"),
            ("NOOP", true, "(a line of the log-in)"),
            ("", false, "(no known command, 0 octets)"),
        ] {
            assert_eq!(shown(line.as_bytes(), is_logging_in), expected, "{line}");
        }
    }
}
