//! What a peer offers, as its answer to EHLO says (RFC 5321 section 4.1.1.1).

use crate::types::{NamedLimits, Reply};

/// The extensions that change what weir sends. What a peer does not offer is not used, not even where it would work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: the parameter of MAIL is understood.
    pub size: bool,
    /// RFC 1870: the largest message taken, in octets; none: no limit was named.
    pub size_max: Option<u64>,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3030.
    pub binary_mime: bool,
    /// RFC 2034.
    pub enhanced_status_codes: bool,
    /// RFC 4954, with whatever mechanisms.
    pub auth: bool,
    pub auth_plain: bool,
    pub auth_login: bool,
    /// RFC 6710.
    pub mt_priority: bool,
    /// RFC 2852.
    pub deliver_by: bool,
    /// RFC 2852 section 3: the least time that is taken with R, in seconds; zero: none was named.
    pub deliver_by_min: i64,
    /// RFC 9422. RCPTDOMAINMAX bounds nothing here: a transaction of ours has recipients of one domain.
    pub limits: NamedLimits,
}

impl Capabilities {
    /// Reads the answer to EHLO: the first line is the peer's name, each further line a keyword with parameters.
    pub fn parse(ehlo: &Reply) -> Capabilities {
        let mut capabilities = Capabilities::default();
        for line in ehlo.lines().skip(1) {
            capabilities.take(&String::from_utf8_lossy(line));
        }
        capabilities
    }

    fn take(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => {
                self.size = true;
                // Section 4 of RFC 1870: zero means that there is no fixed limit.
                self.size_max = words.next().and_then(|number| number.parse().ok()).filter(|&n| n > 0);
            }
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary_mime = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "MT-PRIORITY" => self.mt_priority = true,
            "DELIVERBY" => {
                self.deliver_by = true;
                self.deliver_by_min = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
            }
            "AUTH" => self.take_mechanisms(words),
            "LIMITS" => words.for_each(|word| self.take_limit(word)),
            // As drafts before RFC 2554 had it, and some servers still say beside the other.
            _ => {
                if let Some(first) = keyword.strip_prefix("AUTH=") {
                    self.take_mechanisms(std::iter::once(first).chain(words));
                }
            }
        }
    }

    /// Section 4 of RFC 9422: one to six digits, the first of which is no zero. What is anything else says nothing; of two the smaller
    /// counts.
    fn take_limit(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let makes_sense =
            value.len() <= 6 && !value.starts_with('0') && value.bytes().all(|octet| octet.is_ascii_digit());
        let Some(value) = value.parse::<u32>().ok().filter(|_| makes_sense) else { return };
        let place = match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => &mut self.limits.messages,
            "RCPTMAX" => &mut self.limits.recipients,
            _ => return,
        };
        *place = Some(place.map_or(value, |known| known.min(value)));
    }

    fn take_mechanisms<'a>(&mut self, mechanisms: impl Iterator<Item = &'a str>) {
        self.auth = true;
        for mechanism in mechanisms {
            self.auth_plain |= mechanism.eq_ignore_ascii_case("PLAIN");
            self.auth_login |= mechanism.eq_ignore_ascii_case("LOGIN");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Capabilities {
        Capabilities::parse(&Reply::new(250, text))
    }

    #[test]
    fn reads_what_outlook_offers() {
        let text = "mx.olc.protection.outlook.com Hello [192.0.2.1]\nSIZE 49283072\nPIPELINING\nDSN\nENHANCEDSTATUSCODES\n\
                    STARTTLS\n8BITMIME\nBINARYMIME\nCHUNKING\nSMTPUTF8";
        let all = Capabilities {
            pipelining: true,
            size: true,
            size_max: Some(49_283_072),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            starttls: true,
            chunking: true,
            binary_mime: true,
            enhanced_status_codes: true,
            ..Capabilities::default()
        };
        assert_eq!(parse(text), all);
    }

    #[test]
    fn the_first_line_offers_nothing() {
        assert_eq!(parse("PIPELINING"), Capabilities::default());
        assert_eq!(parse("STARTTLS\nX"), Capabilities::default());
    }

    #[test]
    fn letter_case_and_odd_lines_do_no_harm() {
        let odd = parse("mx\nsize\nPipelining x y\n\n  8bitmime  \nXSTARTTLS\nSTARTTLS=1");
        assert!(odd.size && odd.pipelining && odd.eight_bit_mime && !odd.starttls);
        assert_eq!(odd.size_max, None);
    }

    #[test]
    fn mechanisms_are_read_in_both_spellings() {
        for (text, auth) in [
            ("mx\nAUTH PLAIN LOGIN", (true, true, true)),
            ("mx\nauth login XOAUTH2", (true, false, true)),
            ("mx\nAUTH=PLAIN CRAM-MD5", (true, true, false)),
            ("mx\nAUTH CRAM-MD5", (true, false, false)),
            ("mx\nAUTH", (true, false, false)),
            ("mx\nXAUTH PLAIN", (false, false, false)),
            ("AUTH PLAIN\nX", (false, false, false)),
        ] {
            let read = parse(text);
            assert_eq!((read.auth, read.auth_plain, read.auth_login), auth, "{text}");
        }
    }

    #[test]
    fn limits_that_make_sense_are_taken_and_no_others() {
        for (words, messages, recipients) in [
            ("MAILMAX=20 RCPTMAX=100 RCPTDOMAINMAX=1", Some(20), Some(100)),
            ("mailmax=1", Some(1), None),
            ("RCPTMAX=999999 MAILMAX=5 MAILMAX=3 MAILMAX=9", Some(3), Some(999_999)),
            ("MAILMAX=0 RCPTMAX=00", None, None),
            ("MAILMAX=-1 RCPTMAX=+5", None, None),
            ("MAILMAX=1000000 RCPTMAX=99999999999999999999", None, None),
            ("MAILMAX= RCPTMAX", None, None),
            ("MAILMAX=5x RCPTMAX=0x10", None, None),
            ("RCPTMAX=050 =7 MAILMAX=5=6", None, None),
            ("", None, None),
        ] {
            let limits = parse(&format!("mx\nLIMITS {words}")).limits;
            assert_eq!((limits.messages, limits.recipients), (messages, recipients), "{words}");
        }
    }

    #[test]
    fn the_least_time_stands_behind_deliverby() {
        for (text, expected) in [
            ("mx\nDELIVERBY", (true, 0)),
            ("mx\ndeliverby 120", (true, 120)),
            ("mx\nDELIVERBY soon", (true, 0)),
            ("mx\nDSN", (false, 0)),
        ] {
            let read = parse(text);
            assert_eq!((read.deliver_by, read.deliver_by_min), expected, "{text}");
        }
        assert!(parse("mx\nMT-PRIORITY MIXER").mt_priority && parse("mx\nMT-PRIORITY").mt_priority);
    }

    #[test]
    fn a_size_of_zero_or_nonsense_is_no_limit() {
        for (text, max) in
            [("SIZE 0", None), ("SIZE -5", None), ("SIZE 99999999999999999999999", None), ("SIZE 1", Some(1))]
        {
            let capabilities = parse(&format!("mx\n{text}"));
            assert_eq!((capabilities.size, capabilities.size_max), (true, max), "{text}");
        }
    }
}
