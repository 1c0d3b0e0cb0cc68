//! Our own trace in a message, and the values for fields that are missing (RFC 5321 section 4.4, RFC 6409 section 8).
//!
//! The rule that always holds: no CR, LF, NUL or other control character gets into a field we write, and nothing that could end
//! a clause or open a comment, wherever its words come from.

use std::net::IpAddr;

use crate::types::{Domain, QueueId, Timestamp, TransferPriority};

/// Who brought a message, how and when.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    /// The client's name for itself.
    pub helo: &'a str,
    pub client: IpAddr,
    /// Neither of the two is told.
    pub private: bool,
    pub hostname: &'a str,
    /// ESMTP, SMTP or UTF8SMTP, with S for TLS and A for a log-in (RFC 3848, RFC 6531 section 4.3).
    pub protocol: &'static str,
    /// Version and suite of TLS, as in `TLSv1.3 TLS_AES_256_GCM_SHA384`.
    pub tls: Option<&'a str>,
    pub id: QueueId,
    /// What the client asked for; the clause of RFC 6710 section 4.1.
    pub priority: Option<TransferPriority>,
    pub now: Timestamp,
}

impl Trace<'_> {
    /// The `Received` field, with its line end.
    pub fn received(&self) -> String {
        // The clause of RFC 8314 section 4.3 names the suite alone.
        let suite = self.tls.and_then(|tls| tls.split(' ').next_back());
        let tls = suite.map(|suite| format!(" tls {}", name(suite))).unwrap_or_default();
        let from = match self.private {
            true => String::new(),
            false => {
                format!("from {} ({})\r\n\t", name(self.helo), Domain::literal_of(self.client.to_canonical()))
            }
        };
        let priority = self.priority.map(|priority| format!(" PRIORITY {priority}")).unwrap_or_default();
        format!(
            "Received: {from}by {} with {} id {}{tls}{priority};\r\n\t{}\r\n",
            name(self.hostname),
            self.protocol,
            self.id,
            self.now.rfc5322()
        )
    }

    /// A `Date` field, with its line end.
    pub fn date(&self) -> String {
        format!("Date: {}\r\n", self.now.rfc5322())
    }

    /// An identifier for a message that has none, with its angle brackets.
    pub fn message_id(&self) -> String {
        format!("<{}@{}>", self.id, name(self.hostname))
    }
}

/// What may stand as a name in a field.
fn name(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let name: String = text.chars().take(255).map(|c| if keep(c) { c } else { '?' }).collect();
    if name.is_empty() { "unknown".to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trace(helo: &str) -> Trace<'_> {
        Trace {
            helo,
            client: "192.0.2.7".parse().unwrap(),
            private: false,
            hostname: "relay.example",
            protocol: "ESMTP",
            tls: None,
            priority: None,
            id: QueueId::from_key(5).unwrap(),
            now: Timestamp::from_secs(1_795_293_220),
        }
    }

    #[test]
    fn the_trace_is_one_field() {
        assert_eq!(
            trace("client.example").received(),
            "Received: from client.example ([192.0.2.7])\r\n\tby relay.example with ESMTP id 0000000000005;\r\n\tSat, 21 Nov 2026 20:33:40 +0000\r\n"
        );
    }

    #[test]
    fn a_private_trace_says_nothing_of_the_client() {
        let trace = Trace { private: true, ..trace("client.example") };
        assert_eq!(
            trace.received(),
            "Received: by relay.example with ESMTP id 0000000000005;\r\n\tSat, 21 Nov 2026 20:33:40 +0000\r\n"
        );
    }

    #[test]
    fn it_names_the_suite_of_tls() {
        let trace = Trace { protocol: "ESMTPSA", tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384"), ..trace("x") };
        let by = "\tby relay.example with ESMTPSA id 0000000000005 tls TLS_AES_256_GCM_SHA384;";
        assert_eq!(trace.received().lines().nth(1), Some(by));
    }

    #[test]
    fn addresses_and_names_are_written_as_the_standard_has_them() {
        for (helo, client, from) in [
            ("[127.0.0.1]", "2001:db8::1", "[127.0.0.1] ([IPv6:2001:db8::1])"),
            ("[IPv6:::1]", "::1", "[IPv6:::1] ([IPv6:::1])"),
            ("vm", "::ffff:192.0.2.7", "vm ([192.0.2.7])"),
            ("my_host", "192.0.2.7", "my_host ([192.0.2.7])"),
            ("", "192.0.2.7", "unknown ([192.0.2.7])"),
            ("x (y) by z; \r\n", "192.0.2.7", "x??y??by?z???? ([192.0.2.7])"),
            ("h\u{f6}st", "192.0.2.7", "h?st ([192.0.2.7])"),
        ] {
            let received = Trace { client: client.parse().unwrap(), ..trace(helo) }.received();
            assert_eq!(received.lines().next(), Some(format!("Received: from {from}").as_str()));
        }
    }

    proptest! {
        #[test]
        fn nothing_from_outside_breaks_a_field_we_write(helo in "(?s).{0,300}", host in "(?s).{0,40}") {
            let trace = Trace { hostname: &host, ..trace(&helo) };
            let all = format!("{}{}Message-ID: {}\r\n", trace.received(), trace.date(), trace.message_id());
            let lines: Vec<&str> = all.split("\r\n").collect();
            prop_assert_eq!(lines.len(), 6);
            prop_assert!(lines.iter().all(|line| line.len() < 998 && line.chars().all(|c| c == '\t' || (' '..='~').contains(&c))));
            prop_assert!(lines[1].starts_with("\tby ") && lines[2].starts_with('\t'));
            prop_assert!(lines[3].starts_with("Date: ") && lines[4].starts_with("Message-ID: <") && lines[5].is_empty());
        }
    }
}
