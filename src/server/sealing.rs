//! Signs what goes out with DKIM: messages while they come in, letters and reports of our own before they are stored.
//!
//! Rules that always hold:
//! - a message is signed once for each key, and the signature is stored with it: every attempt, also after a restart, sends the same;
//! - keys are used on as many threads as there are processors and on none of the runtime's, so that nothing else waits for them;
//! - a message that should be signed and cannot be is not taken; a report of ours then goes unsigned, for it must not be lost;
//! - without `[[dkim]]` nothing of this costs anything.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::threads::Threads;
use crate::clock::Clock;
use crate::dkim::{Ready, SignFault, Signers, Signing, Unsigned};
use crate::inbound::BodySink;
use crate::spool::{BodyWriter, Seal};
use crate::types::Seldom;

/// The fields that copies get for themselves, in the order in which they stand and are signed.
pub(super) const COPY_FIELDS: [&str; 2] = ["List-Unsubscribe", "List-Unsubscribe-Post"];
/// What all messages under way keep of their headers: as much as the front door holds of them.
const HEADERS_MAX: usize = 8 << 20;
/// What each may keep whatever the others do: as much as the fields of nearly every message take.
const HEADER_OWN: usize = 8 << 10;

/// The keys in force, and the threads on which they are used.
pub(super) struct Sealing {
    signers: RwLock<Arc<Signers>>,
    threads: Threads,
    clock: Clock,
    /// Beyond `HEADER_OWN` of each.
    headers: Arc<AtomicUsize>,
    said: Seldom,
}

impl Sealing {
    pub(super) fn new(signers: Signers, clock: Clock) -> Arc<Sealing> {
        Arc::new(Sealing {
            signers: RwLock::new(Arc::new(signers)),
            threads: Threads::of_this_host(),
            clock,
            headers: Arc::default(),
            said: Seldom::minutely(),
        })
    }

    /// The keys from now on. What is under way keeps those that it began with.
    pub(super) fn set(&self, signers: Signers) {
        *self.signers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signers);
    }

    pub(super) fn signers(&self) -> Arc<Signers> {
        self.signers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A content that is signed while it is written. `copies`: each copy is to get the fields `COPY_FIELDS`.
    pub(super) fn body(self: &Arc<Sealing>, writer: BodyWriter, copies: bool) -> SealedBody {
        let signers = self.signers();
        let looks = copies || !signers.is_empty();
        let stage = if looks { Stage::Header(Box::new(Signing::new(signers))) } else { Stage::Plain };
        let share = Share { all: self.headers.clone(), counted: 0 };
        SealedBody { writer, sealing: self.clone(), stage, share, copies, takes_fields: false }
    }

    /// A content of ours with its signatures before it; as it is where nobody signs it or it cannot be signed.
    pub(super) async fn sealed(&self, content: Bytes) -> Bytes {
        self.seal(vec![content.clone()]).await.pop().unwrap_or(content)
    }

    pub(super) async fn sign(&self, ready: Ready) -> Result<Vec<u8>, String> {
        let done = self.threads.run(move || ready.sign()).await;
        done.map_err(|_| "it was not made".to_string())?.map_err(|error| error.to_string())
    }

    /// Since 1970.
    fn seconds(&self) -> i64 {
        self.clock.now().millis() / 1000
    }

    fn tell(&self, id: &dyn std::fmt::Display, why: Unsigned) {
        match why {
            Unsigned::TooLarge if self.said.is_due(self.clock.now()) => {
                tracing::warn!("message {id} is not signed with DKIM: {why}");
            }
            _ => tracing::debug!("message {id} is not signed with DKIM: {why}"),
        }
    }
}

impl Seal for Sealing {
    fn seal(&self, mut contents: Vec<Bytes>) -> Pin<Box<dyn Future<Output = Vec<Bytes>> + Send + '_>> {
        Box::pin(async move {
            let (signers, seconds) = (self.signers(), self.seconds());
            if signers.is_empty() {
                return contents;
            }
            let begin = |content: &Bytes| {
                let (signers, content) = (signers.clone(), content.clone());
                self.threads.run(move || signed(&signers, &content, seconds))
            };
            let begun: Vec<_> = contents.iter().map(begin).collect();
            for (content, done) in contents.iter_mut().zip(begun) {
                match done.await {
                    Ok(Ok(Some(signed))) => *content = signed,
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => tracing::error!("a report goes out unsigned: {error}"),
                    Err(_) => tracing::error!("a report goes out unsigned: its signature was not made"),
                }
            }
            contents
        })
    }
}

/// None: nobody signs it.
fn signed(signers: &Arc<Signers>, content: &[u8], seconds: i64) -> Result<Option<Bytes>, SignFault> {
    let Ok(ready) = signers.prepare(content, seconds) else { return Ok(None) };
    let mut signed = ready.sign()?;
    signed.extend_from_slice(content);
    Ok(Some(signed.into()))
}

/// A content on its way into the spool, and its signatures before it.
pub(super) struct SealedBody {
    writer: BodyWriter,
    sealing: Arc<Sealing>,
    stage: Stage,
    share: Share,
    /// Each copy is to get fields of its own.
    copies: bool,
    /// And may: the message has none of their names, and none that signs it would say otherwise.
    takes_fields: bool,
}

/// A content that is complete, with its signatures, or with what signs each copy.
pub(super) struct Sealed {
    pub(super) writer: BodyWriter,
    /// None: no copy gets fields of its own.
    pub(super) copies: Option<Copies>,
}

/// Signs copies one after the other.
pub(super) struct Copies {
    sealing: Arc<Sealing>,
    /// None: nobody signs the message.
    ready: Option<Arc<Ready>>,
}

impl Copies {
    /// The fields of each copy, with its signatures before them.
    pub(super) async fn signed(&self, fields: Vec<String>) -> Result<Vec<String>, String> {
        let Some(ready) = &self.ready else { return Ok(fields) };
        let begin = |own: String| {
            let ready = ready.clone();
            self.sealing.threads.run(move || ready.sign_copy(own.as_bytes()).map(|signed| (signed, own)))
        };
        let begun: Vec<_> = fields.into_iter().map(begin).collect();
        let mut done = Vec::with_capacity(begun.len());
        for copy in begun {
            let signed = copy.await.map_err(|_| "it was not made".to_string())?;
            let (signed, own) = signed.map_err(|error| error.to_string())?;
            done.push(String::from_utf8_lossy(&signed).into_owned() + &own);
        }
        Ok(done)
    }
}

enum Stage {
    /// Nobody signs it.
    Plain,
    Header(Box<Signing>),
    /// `at`: where the signatures will stand.
    Body {
        signing: Box<Signing>,
        at: u64,
    },
    /// Each copy is signed for itself.
    Copies(Box<Signing>),
}

impl BodySink for SealedBody {
    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.stage {
            Stage::Plain => self.writer.write(octets).await,
            Stage::Body { signing, .. } | Stage::Copies(signing) => {
                signing.body(octets);
                self.writer.write(octets).await
            }
            Stage::Header(signing) => {
                let end = signing.look(octets);
                if !self.share.resize(signing.held_octets()) {
                    return Err(io::Error::new(
                        io::ErrorKind::StorageFull,
                        "memory for headers that are signed is short",
                    ));
                }
                let Some(end) = end else { return self.writer.write(octets).await };
                let (header, body) = octets.split_at(end);
                self.writer.write(header).await?;
                self.begin_body().await?;
                if let Stage::Body { signing, .. } | Stage::Copies(signing) = &mut self.stage {
                    signing.body(body);
                }
                self.writer.write(body).await
            }
        }
    }
}

impl SealedBody {
    /// The header is complete: what will be signed is decided, and the place of the signatures kept. That is before everything else, or
    /// at the end of the header where its beginning lies in a file already.
    async fn begin_body(&mut self) -> io::Result<()> {
        let Stage::Header(mut signing) = std::mem::replace(&mut self.stage, Stage::Plain) else { return Ok(()) };
        if self.copies && !COPY_FIELDS.iter().any(|name| signing.has_field(name)) {
            self.share.resize(0);
            self.begin_copies(signing);
            return Ok(());
        }
        let draft = match signing.draft(self.sealing.seconds()) {
            Ok(draft) => draft,
            Err(why) => {
                self.sealing.tell(&self.writer.id(), why);
                return Ok(());
            }
        };
        let mut at = 0;
        if !self.writer.put_first(&draft)? {
            at = self.writer.size_bytes();
            self.writer.write(&draft).await?;
        }
        self.share.resize(0);
        self.stage = Stage::Body { signing, at };
        Ok(())
    }

    /// A message that somebody has signed already as it is stays as it is.
    fn begin_copies(&mut self, mut signing: Box<Signing>) {
        match signing.draft_copies(self.sealing.seconds(), &COPY_FIELDS) {
            Ok(()) => {
                self.takes_fields = true;
                self.stage = Stage::Copies(signing);
            }
            Err(why) => {
                self.takes_fields = matches!(why, Unsigned::NoKey | Unsigned::NoAuthor);
                self.sealing.tell(&self.writer.id(), why);
            }
        }
    }

    /// Signs what was written; the content is complete.
    pub(super) async fn signed(mut self) -> Result<Sealed, String> {
        let mut ready = None;
        match self.stage {
            Stage::Body { signing, at } => {
                let signed = self.sealing.sign(signing.finish()).await?;
                self.writer.overwrite(at, &signed).await.map_err(|error| error.to_string())?;
            }
            Stage::Copies(signing) => ready = Some(Arc::new(signing.finish())),
            Stage::Plain | Stage::Header(_) => {}
        }
        let copies = self.takes_fields.then(|| Copies { sealing: self.sealing.clone(), ready });
        Ok(Sealed { writer: self.writer, copies })
    }

    /// What was written, as it is: for a content that is read here and goes nowhere.
    pub(super) fn unsigned(self) -> BodyWriter {
        self.writer
    }
}

/// What one message keeps of its header; given back on drop.
struct Share {
    all: Arc<AtomicUsize>,
    counted: usize,
}

impl Share {
    /// False: all together would keep too much.
    fn resize(&mut self, octets: usize) -> bool {
        let counted = octets.saturating_sub(HEADER_OWN);
        if counted == self.counted {
            return true;
        }
        let others = |all: usize| all.saturating_sub(self.counted);
        let change = |all| Some(others(all) + counted).filter(|sum| *sum <= HEADERS_MAX);
        let is_there = self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok();
        if is_there {
            self.counted = counted;
        }
        is_there
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::*;
    use crate::dkim::Signer;
    use crate::dkim::key::{Key, Kind};
    use crate::spool::{Journal, Memory, Options, Spool};
    use crate::types::{Domain, Event, Timestamp};

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    struct Nowhere;

    impl Journal for Nowhere {
        fn write(&mut self, _: &[Event]) -> io::Result<()> {
            Ok(())
        }
    }

    fn spool(folder: &Path) -> Spool {
        let options = Options { folder: folder.to_owned(), queue_messages: 9, min_free_bytes: 0 };
        Spool::open(options, Clock::starting_at(NOW), Box::new(Nowhere), mpsc::channel(1).0).unwrap().0
    }

    fn signers() -> Signers {
        let signer = |(selector, kind): (&str, Kind)| Signer {
            domain: Domain::parse("example.com").unwrap(),
            selector: selector.into(),
            key: Key::generate(kind).unwrap().0,
            skip_signed: false,
        };
        Signers::new([("r", Kind::Rsa), ("e", Kind::Ed25519)].into_iter().map(signer).collect())
    }

    /// What lies in the spool's hands after `message` was written in these pieces.
    async fn stored(sealing: &Arc<Sealing>, spool: &Spool, message: &[u8], size: usize) -> io::Result<Vec<u8>> {
        let mut body = sealing.body(spool.body(spool.ids().next(NOW)), false);
        let mut rest = message;
        while !rest.is_empty() {
            // A CRLF is never cut in two.
            let end = size.min(rest.len());
            let (piece, after) = rest.split_at(if rest[end - 1] == b'\r' { end + 1 } else { end });
            body.write(piece).await?;
            rest = after;
        }
        let writer = body.signed().await.map_err(io::Error::other)?.writer;
        let length = writer.size_bytes();
        let content = writer.finish().await?;
        let text = match (&content.body, &content.file) {
            (crate::types::Body::Inline(bytes), _) => bytes.to_vec(),
            (_, file) => std::fs::read(file.as_ref().unwrap().path())?,
        };
        assert_eq!(text.len() as u64, length);
        Ok(text)
    }

    #[tokio::test(start_paused = true)]
    async fn the_signature_is_that_of_the_whole_message_wherever_its_place_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, sealing) = (spool(folder.path()), Sealing::new(signers(), Clock::starting_at(NOW)));
        let header = "Received: x\r\nFrom: a@example.com\r\nTo: b@c.example\r\nSubject: s\r\n";
        let long = "X-Filler: 0123456789abcdef\r\n".repeat(6000);
        let body = "Hello. \r\n".repeat(40_000);
        for (header, body, memory, is_first) in [
            (header.to_string(), "Hello.\r\n", Memory::Ample, true),
            (header.to_string(), body.as_str(), Memory::Ample, true),
            (header.to_string(), "Hello.\r\n", Memory::Short, false),
            (format!("{header}{long}"), body.as_str(), Memory::Ample, false),
        ] {
            spool.set_memory(memory);
            let message = format!("{header}\r\n{body}").into_bytes();
            let ready = sealing.signers().prepare(&message, sealing.seconds()).unwrap();
            let signature = ready.sign().unwrap();
            for size in [1000, 70_000] {
                let text = stored(&sealing, &spool, &message, size).await.unwrap();
                let at = if is_first { 0 } else { header.len() };
                assert!(text[at..].starts_with(&signature), "{}", String::from_utf8_lossy(&text[at..at + 80]));
                assert!([&text[..at], &text[at + signature.len()..]].concat() == message);
            }
        }
        sealing.set(Signers::default());
        let plain = stored(&sealing, &spool, header.as_bytes(), 9).await.unwrap();
        assert_eq!(plain, header.as_bytes(), "nobody signs");
    }

    #[tokio::test(start_paused = true)]
    async fn all_messages_together_keep_so_much_of_their_headers_and_give_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, sealing) = (spool(folder.path()), Sealing::new(signers(), Clock::starting_at(NOW)));
        let to = format!("To: x\r\n{}", " somebody@c.example,\r\n".repeat(10_000));
        let mut bodies = Vec::new();
        let refused = loop {
            let mut body = sealing.body(spool.body(spool.ids().next(NOW)), false);
            match body.write(to.as_bytes()).await {
                Ok(()) => bodies.push(body),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert!((20..60).contains(&bodies.len()), "{}", bodies.len());
        drop(bodies);
        assert_eq!(sealing.headers.load(Ordering::Relaxed), 0);
    }
}
