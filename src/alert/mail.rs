//! The letter to `alerts.mail`: composed here, sent by the relay itself like a report.
//!
//! It has the empty sender, so it never bounces, and it says that a program wrote it (RFC 3834).

use bytes::Bytes;
use lettre::message::SinglePart;
use lettre::message::header::{ContentType, HeaderName, HeaderValue, Headers};

use super::notice::Notice;
use crate::types::{Mailbox, QueueId, printable};

/// RFC 5322 section 2.1.1, less the field's name.
const FIELD_MAX: usize = 900;

/// The message's id and its content, lines ended by CR LF.
#[derive(Clone, Debug)]
pub struct Letter {
    pub to: Mailbox,
    pub message_id: String,
    pub content: Bytes,
}

/// Composes the letter that will have the queue id `id`.
pub(super) fn compose(notice: &Notice, to: &Mailbox, id: QueueId) -> Letter {
    let host = host_name(&notice.host);
    let message_id = format!("<alert.{id}@{host}>");
    let mut header = Headers::new();
    for (name, value) in [
        ("From", format!("weir <MAILER-DAEMON@{host}>")),
        ("To", format!("<{to}>")),
        ("Subject", notice.subject()),
        ("Date", notice.time.rfc5322()),
        ("Message-ID", message_id.clone()),
        ("Auto-Submitted", "auto-generated".to_string()),
        ("X-Auto-Response-Suppress", "All".to_string()),
        ("MIME-Version", "1.0".to_string()),
    ] {
        header.insert_raw(field(name, &value));
    }
    let part = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(notice.letter());
    // The part begins with its own fields, and the header goes on with them.
    let mut content = header.to_string().into_bytes();
    content.extend(part.formatted());
    Letter { to: to.clone(), message_id, content: content.into() }
}

fn field(name: &'static str, value: &str) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str(name);
    let value: String = value.chars().filter(|&c| !printable::steers(c)).take(FIELD_MAX).collect();
    if value.is_ascii() {
        HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value)
    } else {
        // Encoded words (RFC 2047).
        HeaderValue::new(name, value)
    }
}

/// The name as it may stand in an address.
fn host_name(name: &str) -> String {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).take(255).collect();
    if name.is_empty() { "localhost".to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::notice::tests::{notice, told};
    use crate::types::{QueueIds, Timestamp};

    fn letter(key: &str) -> String {
        let id = QueueIds::new(0, 1).next(Timestamp::from_secs(1_795_293_220));
        let to = Mailbox::parse("ops..team@example.com").unwrap();
        let letter = compose(&notice(vec![told(key, true, Some("outlook"))]), &to, id);
        String::from_utf8(letter.content.to_vec()).unwrap()
    }

    #[test]
    fn the_letter_is_a_message_that_can_be_sent_as_it_is() {
        let text = letter("blocked outlook default");
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        for field in [
            "From: weir <MAILER-DAEMON@relay.example.com>",
            "To: <ops..team@example.com>",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(header.lines().any(|line| line == field), "{field} is missing in\n{header}");
        }
        assert!(header.contains("Subject: weir on relay.example.com: blocked outlook default"), "{header}");
        assert!(body.contains("What to do"), "{body}");
        assert!(text.is_ascii() && text.replace("\r\n", "").chars().all(|c| c != '\r' && c != '\n'));
        assert!(text.lines().all(|line| line.len() <= 998));
    }

    #[test]
    fn foreign_words_stay_within_their_field() {
        let text = letter("gmäil\r\nBcc: eve@example.com");
        let (header, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(header.lines().all(|line| !line.starts_with("Bcc")), "{header}");
        assert!(header.is_ascii(), "{header}");
    }
}
