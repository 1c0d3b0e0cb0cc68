//! Signatures of ours made anew, over a content that is converted for a host that takes seven bits (RFC 6376 section 5.3).
//!
//! The time of the signature is that of the message, so that every attempt sends the same. A key that was taken out of the configuration since
//! signs nothing any more: its signature is one of others then, and its message is not converted.

use std::pin::Pin;
use std::sync::Arc;

use super::sealing::Sealing;
use crate::dkim::{Signing, Unsigned};
use crate::outbound::{Anew, Signature};
use crate::types::Timestamp;

pub(super) struct Resealing(pub Arc<Sealing>);

impl Anew for Resealing {
    fn is_ours(&self, value: &[u8]) -> bool {
        self.0.signers().have_made(value)
    }

    fn begin(&self, received: Timestamp) -> Box<dyn Signature> {
        let stage = Stage::Header(Box::new(Signing::new(self.0.signers())));
        Box::new(Again { sealing: self.0.clone(), received, stage })
    }
}

struct Again {
    sealing: Arc<Sealing>,
    received: Timestamp,
    stage: Stage,
}

enum Stage {
    Header(Box<Signing>),
    Body(Box<Signing>),
    Unsigned(Unsigned),
}

impl Again {
    fn begin_body(&mut self, mut signing: Box<Signing>) {
        self.stage = match signing.draft(self.received.secs()) {
            Ok(_) => Stage::Body(signing),
            Err(why) => Stage::Unsigned(why),
        };
    }
}

impl Signature for Again {
    fn take(&mut self, octets: &[u8]) {
        match &mut self.stage {
            Stage::Unsigned(_) => {}
            Stage::Body(signing) => signing.body(octets),
            Stage::Header(signing) => {
                let Some(end) = signing.look(octets) else { return };
                let begun = std::mem::replace(&mut self.stage, Stage::Unsigned(Unsigned::NoKey));
                if let Stage::Header(signing) = begun {
                    self.begin_body(signing);
                }
                self.take(&octets[end..]);
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> {
        Box::pin(async move {
            let begun = std::mem::replace(&mut self.stage, Stage::Unsigned(Unsigned::NoKey));
            match begun {
                Stage::Header(signing) => self.begin_body(signing),
                other => self.stage = other,
            }
            match self.stage {
                Stage::Body(signing) | Stage::Header(signing) => {
                    self.sealing.sign(signing.finish()).await.map_err(|error| format!("the DKIM signature: {error}"))
                }
                Stage::Unsigned(why) => Err(format!("the DKIM signature cannot be made again: {why}")),
            }
        })
    }
}
