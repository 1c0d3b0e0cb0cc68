//! A message that is handed in as it is.

use bytes::{Bytes, BytesMut};

use super::Submission;

/// Takes the message and its envelope. `fresh_id`: the Message-ID it gets if it has none.
pub fn raw(sender: String, recipients: Vec<String>, content: Bytes, fresh_id: &str) -> Submission {
    match message_id(&content) {
        Some(found) => Submission { sender, recipients, content, message_id: Some(found) },
        None => {
            let field = format!("Message-ID: {fresh_id}\r\n");
            let mut whole = BytesMut::with_capacity(field.len() + content.len());
            whole.extend_from_slice(field.as_bytes());
            whole.extend_from_slice(&content);
            Submission { sender, recipients, content: whole.freeze(), message_id: Some(fresh_id.to_string()) }
        }
    }
}

/// The value of the first Message-ID field, if it is one.
fn message_id(content: &[u8]) -> Option<String> {
    let mut value: Option<Vec<u8>> = None;
    for line in content.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        match &mut value {
            Some(value) if line.starts_with(b" ") || line.starts_with(b"\t") => value.extend_from_slice(line),
            Some(_) => break,
            None => {
                let colon = memchr::memchr(b':', line);
                let name = colon.map(|at| line[..at].trim_ascii_end());
                if name.is_some_and(|name| name.eq_ignore_ascii_case(b"message-id")) {
                    value = Some(line[colon.unwrap_or(0) + 1..].to_vec());
                }
            }
        }
    }
    let value = value?;
    // What a header can hold as an id, and no more: a message with a broken one has one all the same.
    Some(String::from_utf8_lossy(value.trim_ascii()).chars().filter(|c| !c.is_control()).take(900).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_id_and_gets_one_where_it_has_none() {
        for (text, id) in [
            ("From: a@x\r\nmessage-id : <1@x>\r\n\r\nMessage-ID: <no@x>\r\n", "<1@x>"),
            ("Message-ID:\r\n <2@x>\r\nFrom: a@x\r\n\r\n", "<2@x>"),
            ("Message-ID: <3@x>\nSubject: x\n\nbody\n", "<3@x>"),
            ("From: a@x\r\n\r\nMessage-ID: <no@x>\r\n", "<fresh@x>"),
            ("", "<fresh@x>"),
        ] {
            let message = raw("a@x".into(), vec!["b@x".into()], text.into(), "<fresh@x>");
            assert_eq!(message.message_id.as_deref(), Some(id), "{text:?}");
            assert_eq!(message.content.starts_with(b"Message-ID: <fresh@x>\r\n"), id == "<fresh@x>");
        }
    }
}
