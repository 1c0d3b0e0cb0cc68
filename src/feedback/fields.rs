//! What a message gets so that answers to it find their way: a return path of its own, and the fields of RFC 2369 and RFC 8058.

use std::sync::Arc;

use super::key::Keys;
use super::token::{Purpose, Token};
use crate::types::{DeliveryId, Domain, Mailbox, Timestamp};

/// Where answers come, and by which keys their tokens are known.
#[derive(Clone, Debug)]
pub struct Way {
    domain: Domain,
    /// Without a slash at its end.
    url: String,
    keys: Arc<Keys>,
}

impl Way {
    pub fn new(domain: Domain, url: &str, keys: Keys) -> Way {
        Way { domain, url: url.trim_end_matches('/').to_string(), keys: Arc::new(keys) }
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The return path of one recipient's copy (a variable envelope return path).
    pub fn return_path(&self, delivery: DeliveryId, recipient: &Mailbox, expires: Timestamp) -> Option<Mailbox> {
        let token = Token::new(Purpose::Return, delivery, recipient, expires).text(&self.keys);
        Mailbox::parse(&format!("{token}@{}", self.domain)).ok()
    }

    /// The fields of one recipient's copy: the mail address first, as RFC 2369 section 2 has it, then the URL for one click. The token stands in
    /// the local part, for programs drop the subject.
    pub fn unsubscribe(&self, delivery: DeliveryId, recipient: &Mailbox, expires: Timestamp) -> String {
        let token = Token::new(Purpose::Unsubscribe, delivery, recipient, expires).text(&self.keys);
        format!(
            "List-Unsubscribe: <mailto:{token}@{}?subject=unsubscribe>,\r\n\t<{}/u/{token}>\r\n\
             List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            self.domain, self.url
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueId;

    #[test]
    fn a_copy_gets_an_address_and_fields_of_its_own_that_fit() {
        let keys = Keys::parse("a key that nobody guesses").unwrap();
        let way = Way::new(Domain::parse("fb.example.com").unwrap(), "https://fb.example.com/weir/", keys);
        let recipient = Mailbox::parse("anna@hotmail.com").unwrap();
        let of = |part| DeliveryId { message: QueueId::from_key(42).unwrap(), part };
        let path = way.return_path(of(0), &recipient, Timestamp::from_secs(86_400 * 400)).unwrap();
        assert!(path.local_part().len() <= 64 && path.domain() == way.domain());
        assert_ne!(way.return_path(of(1), &recipient, Timestamp::from_secs(86_400 * 400)), Some(path));
        let fields = way.unsubscribe(of(0), &recipient, Timestamp::from_secs(86_400 * 400));
        assert!(fields.lines().all(|line| line.len() <= 998) && fields.is_ascii());
        let token = fields.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap();
        assert!(token.len() <= 63 && fields.contains(&format!("<https://fb.example.com/weir/u/{token}>")), "{fields}");
        assert!(fields.ends_with("\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"));
    }
}
