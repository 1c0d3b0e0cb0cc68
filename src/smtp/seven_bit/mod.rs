//! Eight-bit content made fit for a host that takes seven: part by part, as quoted-printable or base64 (RFC 6152 section 3, RFC 2045).
//!
//! A content is gone through twice: `Survey` finds out what each part takes, `Converter` writes it. Rules that always hold:
//! - what a part decodes to is what it was, octet for octet, and no field of it but Content-Transfer-Encoding changes;
//! - parts without eight-bit octets stay as they are;
//! - what is signed or encrypted is never changed: then there is no conversion at all;
//! - of a content no more is in memory than the header of one part;
//! - how the octets were cut into pieces changes nothing.
//!
//! Octets beyond ASCII in header fields stay: no encoding is right for what no standard allows there. Between the parts of a multipart, where
//! no reader looks (RFC 2046 section 5.1.1), they become question marks.

mod encode;
mod fields;
#[cfg(test)]
mod tests;
mod walk;

use encode::Encoder;
use fields::{Encoding, Field, Kind};
use walk::{Event, Walker};

/// Parts that are remembered; a content of more is not converted.
const PARTS_MAX: usize = 2000;

/// Why a content cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("it carries a DKIM signature, which would break")]
    Signature,
    #[error("a part is signed, which would break")]
    Signed,
    #[error("a part is encrypted")]
    Encrypted,
    #[error("a part has an encoding that eight-bit octets do not belong in")]
    Encoding,
    #[error("a part of its type cannot be encoded")]
    Type,
    #[error("it has too many parts, too deep in each other, or a header that is too long")]
    TooComplex,
}

/// What is done with one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    AsIs,
    QuotedPrintable,
    Base64,
    /// It holds others, which are converted: it says so.
    SevenBit,
    /// The message is none of MIME, and becomes one: with octets in UTF-8, or in nobody knows what (RFC 1428 section 3).
    Plain {
        utf8: bool,
    },
}

/// What is done with all of them.
#[derive(Clone, Debug)]
pub struct Plan {
    steps: Vec<Step>,
    /// The signatures are ours, and made anew.
    takes_signatures_out: bool,
}

impl Plan {
    /// Does the converted content need signatures in place of those that were taken out?
    pub fn is_signed_anew(&self) -> bool {
        self.takes_signatures_out
    }
}

/// Looks through a content. `is_ours`: is this, the value of a DKIM-Signature, one that we make anew?
pub struct Survey<F> {
    walker: Walker,
    found: Found<F>,
}

struct Found<F> {
    is_ours: F,
    parts: Vec<Part>,
    obstacle: Option<Obstacle>,
    has_signature: bool,
    has_foreign_signature: bool,
    /// Octets between parts become question marks.
    changes_outside: bool,
    /// Parts are not told apart any more.
    is_lost: bool,
}

/// What is known of a part.
struct Part {
    kind: Kind,
    encoding: Encoding,
    is_mime: bool,
    /// What surrounds it forbids that it is changed.
    sealed: Option<Obstacle>,
    octets: u64,
    eight_bit: u64,
    utf8: Utf8,
}

impl<F: FnMut(&[u8]) -> bool> Survey<F> {
    pub fn new(is_ours: F) -> Survey<F> {
        let found = Found {
            is_ours,
            parts: Vec::new(),
            obstacle: None,
            has_signature: false,
            has_foreign_signature: false,
            changes_outside: false,
            is_lost: false,
        };
        Survey { walker: Walker::default(), found }
    }

    pub fn take(&mut self, octets: &[u8]) {
        let found = &mut self.found;
        self.walker.feed(octets, &mut |event| found.note(&event));
    }

    /// None: there is nothing to convert.
    pub fn finish(mut self) -> Result<Option<Plan>, Obstacle> {
        let found = &mut self.found;
        self.walker.finish(&mut |event| found.note(&event));
        self.found.plan()
    }
}

impl<F: FnMut(&[u8]) -> bool> Found<F> {
    fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Header { .. } if self.parts.len() >= PARTS_MAX => self.is_lost = true,
            Event::Header { octets, kind, parent, is_message } => self.begin(octets, *kind, *parent, *is_message),
            Event::Body(octets) | Event::Outside(octets) if self.is_lost => {
                if !octets.is_ascii() {
                    self.obstacle = Some(Obstacle::TooComplex);
                }
            }
            Event::Body(octets) => {
                if let Some(part) = self.parts.last_mut() {
                    part.count(octets);
                }
            }
            Event::Outside(octets) if !octets.is_ascii() => {
                self.changes_outside = true;
                let sealed = self.parts.last().and_then(|part| part.sealed);
                self.obstacle = self.obstacle.or(sealed);
            }
            Event::Outside(_) | Event::Delimiter(_) => {}
            Event::TooComplex => self.is_lost = true,
        }
    }

    fn begin(&mut self, header: &[u8], kind: Kind, parent: Option<usize>, is_message: bool) {
        let around = parent.and_then(|parent| self.parts.get(parent));
        let sealed = around.and_then(|part| part.sealed.or(part.kind.seals()));
        let (mut encoding, mut is_mime) = (Encoding::SevenBit, !is_message);
        for field in fields::fields(header) {
            if field.is("Content-Transfer-Encoding") {
                encoding = Encoding::parse(field.value());
            }
            is_mime |= field.is("MIME-Version") || field.is("Content-Type") || field.is("Content-Transfer-Encoding");
            if parent.is_none() {
                self.note_signature(&field);
            }
        }
        self.parts.push(Part { kind, encoding, is_mime, sealed, octets: 0, eight_bit: 0, utf8: Utf8::default() });
    }

    /// One in a message that is forwarded as a part is nobody's who looks at this one.
    fn note_signature(&mut self, field: &Field<'_>) {
        if field.is("DKIM-Signature") && (self.is_ours)(field.value()) {
            self.has_signature = true;
        } else if field.is("DKIM-Signature") || field.is("ARC-Message-Signature") {
            self.has_foreign_signature = true;
        }
    }

    fn plan(self) -> Result<Option<Plan>, Obstacle> {
        let is_changed = self.changes_outside || self.parts.iter().any(|part| part.eight_bit > 0);
        if !is_changed && self.obstacle.is_none() {
            return Ok(None);
        }
        if self.has_foreign_signature {
            return Err(Obstacle::Signature);
        }
        if let Some(obstacle) = self.obstacle {
            return Err(obstacle);
        }
        let steps = self.parts.iter().map(Part::step).collect::<Result<_, _>>()?;
        Ok(Some(Plan { steps, takes_signatures_out: self.has_signature }))
    }
}

impl Part {
    fn count(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        let beyond = octets.iter().filter(|octet| !octet.is_ascii()).count();
        self.eight_bit += beyond as u64;
        if beyond > 0 || !self.utf8.is_between() {
            self.utf8.take(octets);
        }
    }

    fn step(&self) -> Result<Step, Obstacle> {
        if self.kind.holds_others() {
            let says_so = matches!(self.encoding, Encoding::EightBit | Encoding::Binary) && self.sealed.is_none();
            let is_changed = says_so && self.kind.seals().is_none();
            return Ok(if is_changed { Step::SevenBit } else { Step::AsIs });
        }
        if self.eight_bit == 0 {
            return Ok(Step::AsIs);
        }
        if let Some(obstacle) = self.sealed.or(self.kind.seals()) {
            return Err(obstacle);
        }
        if !self.encoding.is_identity() {
            return Err(Obstacle::Encoding);
        }
        match self.kind {
            Kind::Fixed => Err(Obstacle::Type),
            _ if !self.is_mime => Ok(Step::Plain { utf8: self.utf8.is_good() }),
            // Base64 is shorter from a sixth on; up to a quarter people can still read what stands there.
            Kind::Text if self.eight_bit * 4 <= self.octets => Ok(Step::QuotedPrintable),
            _ => Ok(Step::Base64),
        }
    }
}

/// Whether octets can be UTF-8, as far as lengths say: enough to name a character set.
#[derive(Default)]
struct Utf8 {
    missing: u8,
    is_bad: bool,
}

impl Utf8 {
    fn take(&mut self, octets: &[u8]) {
        for &octet in octets {
            match (self.missing, octet) {
                (0, 0..=0x7F) => {}
                (0, 0xC2..=0xDF) => self.missing = 1,
                (0, 0xE0..=0xEF) => self.missing = 2,
                (0, 0xF0..=0xF4) => self.missing = 3,
                (1.., 0x80..=0xBF) => self.missing -= 1,
                _ => {
                    self.is_bad = true;
                    self.missing = 0;
                }
            }
        }
    }

    fn is_between(&self) -> bool {
        self.missing == 0
    }

    fn is_good(&self) -> bool {
        !self.is_bad && self.missing == 0
    }
}

/// Writes a content anew, as a plan has it.
pub struct Converter {
    walker: Walker,
    writer: Writer,
}

struct Writer {
    plan: Plan,
    /// The next part.
    next: usize,
    encoder: Encoder,
}

impl Converter {
    pub fn new(plan: Plan) -> Converter {
        Converter { walker: Walker::default(), writer: Writer { plan, next: 0, encoder: Encoder::AsIs } }
    }

    /// Appends to `out` what is certain by now.
    pub fn take(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let writer = &mut self.writer;
        self.walker.feed(octets, &mut |event| writer.write(&event, out));
    }

    /// The content is complete.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let writer = &mut self.writer;
        self.walker.finish(&mut |event| writer.write(&event, out));
        if self.writer.encoder.finish(out) {
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl Writer {
    fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Header { octets, parent, is_message, .. } => {
                let step = self.plan.steps.get(self.next).copied().unwrap_or(Step::AsIs);
                self.next += 1;
                self.header(octets, step, *is_message, parent.is_none(), out);
            }
            Event::Body(octets) => self.encoder.take(octets, out),
            Event::Delimiter(octets) => {
                self.encoder.finish(out);
                self.encoder = Encoder::AsIs;
                out.extend_from_slice(octets);
            }
            Event::Outside(octets) => {
                out.extend(octets.iter().map(|&octet| if octet.is_ascii() { octet } else { b'?' }));
            }
            // No plan was made of such a content.
            Event::TooComplex => {}
        }
    }

    fn header(&mut self, header: &[u8], step: Step, is_message: bool, is_outermost: bool, out: &mut Vec<u8>) {
        let encoding = match step {
            Step::AsIs => None,
            Step::SevenBit => Some("7bit"),
            Step::QuotedPrintable | Step::Plain { .. } => Some("quoted-printable"),
            Step::Base64 => Some("base64"),
        };
        let mut has_version = false;
        let mut end = 0;
        for field in fields::fields(header) {
            end += field.octets().len();
            has_version |= field.is("MIME-Version");
            let is_replaced = encoding.is_some() && field.is("Content-Transfer-Encoding");
            let is_dropped = is_outermost && self.plan.takes_signatures_out && field.is("DKIM-Signature");
            if !is_replaced && !is_dropped {
                out.extend_from_slice(field.octets());
            }
        }
        if encoding.is_some() && is_message && !has_version {
            out.extend_from_slice(b"MIME-Version: 1.0\r\n");
        }
        if let Step::Plain { utf8 } = step {
            let charset = if utf8 { "utf-8" } else { "unknown-8bit" };
            out.extend_from_slice(format!("Content-Type: text/plain; charset={charset}\r\n").as_bytes());
        }
        if let Some(encoding) = encoding {
            out.extend_from_slice(format!("Content-Transfer-Encoding: {encoding}\r\n").as_bytes());
        }
        out.extend_from_slice(&header[end..]);
        self.encoder = match step {
            Step::AsIs | Step::SevenBit => Encoder::AsIs,
            Step::QuotedPrintable | Step::Plain { .. } => Encoder::quoted_printable(),
            Step::Base64 => Encoder::base64(),
        };
    }
}
