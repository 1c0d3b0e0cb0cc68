//! A message on its way to a host that takes seven bits: looked through, and written anew while it is sent (RFC 6152 section 3).
//!
//! Rules that always hold:
//! - what is stored stays as it is: each attempt converts for itself, and gives the same octets;
//! - a content in a file is read block by block, each time, and is never in memory as a whole;
//! - where signatures of ours would break they are made anew, over what is sent; where they cannot be, nothing is sent.

use std::pin::Pin;
use std::sync::Arc;

use super::content::Content;
use crate::smtp::seven_bit::{Converter, Obstacle, Plan, Survey};
use crate::types::{Body, Envelope, Timestamp};

/// Makes signatures of ours anew.
pub trait Anew: Send + Sync + 'static {
    /// Is a DKIM-Signature with this value one that would be made again?
    fn is_ours(&self, value: &[u8]) -> bool;

    /// For a message of that time: the same content has the same signatures each time.
    fn begin(&self, received: Timestamp) -> Box<dyn Signature>;
}

/// The signatures of one content.
pub trait Signature: Send {
    fn take(&mut self, octets: &[u8]);

    /// The fields, to stand before it. Errors are texts for people.
    fn finish(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;
}

/// How a content is sent in seven bits.
#[derive(Clone, Debug)]
pub(super) struct Lowered {
    plan: Plan,
    /// Stand before it.
    signatures: Vec<u8>,
    pub(super) size_bytes: u64,
}

/// Why a content is not lowered.
#[derive(Debug)]
pub(super) enum NotLowered {
    /// Never.
    Obstacle(Obstacle),
    /// Not now.
    Fault(String),
}

impl Lowered {
    /// None: it has seven bits.
    pub(super) async fn of(
        envelope: &Envelope,
        body: &Body,
        anew: Option<&Arc<dyn Anew>>,
    ) -> Result<Option<Lowered>, NotLowered> {
        let mut survey = Survey::new(|value| anew.is_some_and(|anew| anew.is_ours(value)));
        let mut content = Content::open(body).await.map_err(NotLowered::Fault)?;
        while content.next(|block| survey.take(block)).await.map_err(NotLowered::Fault)? {}
        let Some(plan) = survey.finish().map_err(NotLowered::Obstacle)? else { return Ok(None) };
        let mut signature = anew.filter(|_| plan.is_signed_anew()).map(|anew| anew.begin(envelope.received));
        let mut lowered = Lowered { plan, signatures: Vec::new(), size_bytes: 0 };
        let mut reader = Reader::open(body, Some(&lowered)).await.map_err(NotLowered::Fault)?;
        let mut take = |block: &[u8]| {
            lowered.size_bytes += block.len() as u64;
            if let Some(signature) = &mut signature {
                signature.take(block);
            }
        };
        while reader.next(&mut take).await.map_err(NotLowered::Fault)? {}
        if let Some(signature) = signature {
            lowered.signatures = signature.finish().await.map_err(NotLowered::Fault)?;
            lowered.size_bytes += lowered.signatures.len() as u64;
        }
        Ok(Some(lowered))
    }
}

/// A content as it is sent: as it is stored, or lowered.
pub(super) struct Reader {
    content: Content,
    lowering: Option<Lowering>,
}

struct Lowering {
    converter: Converter,
    /// What was written and not handed on.
    written: Vec<u8>,
    is_over: bool,
}

impl Reader {
    /// Errors are texts for people.
    pub(super) async fn open(body: &Body, lowered: Option<&Lowered>) -> Result<Reader, String> {
        let lowering = lowered.map(|lowered| Lowering {
            converter: Converter::new(lowered.plan.clone()),
            written: lowered.signatures.clone(),
            is_over: false,
        });
        Ok(Reader { content: Content::open(body).await?, lowering })
    }

    /// Hands the next block to `take`; false at the end.
    pub(super) async fn next(&mut self, take: impl FnOnce(&[u8])) -> Result<bool, String> {
        let Some(Lowering { converter, written, is_over }) = &mut self.lowering else {
            return self.content.next(take).await;
        };
        if *is_over {
            return Ok(false);
        }
        if !self.content.next(|block| converter.take(block, written)).await? {
            converter.finish(written);
            *is_over = true;
        }
        take(written);
        written.clear();
        Ok(true)
    }
}
