//! Quoted-printable and base64 as a stream (RFC 2045 sections 6.7 and 6.8).
//!
//! Rules that always hold: lines have at most 76 octets; in quoted-printable a CRLF of the body is a line end, and a CR or LF that stands
//! alone is encoded, so that decoding gives the very octets; the last line has no line end of the encoding's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Octets of a line, without its end.
const LINE_MAX: usize = 76;
/// Octets that a line of base64 stands for.
const BASE64_LINE: usize = LINE_MAX / 4 * 3;

pub(super) enum Encoder {
    AsIs,
    QuotedPrintable(QuotedPrintable),
    Base64(Base64),
}

impl Encoder {
    pub(super) fn quoted_printable() -> Encoder {
        Encoder::QuotedPrintable(QuotedPrintable::default())
    }

    pub(super) fn base64() -> Encoder {
        Encoder::Base64(Base64::default())
    }

    pub(super) fn take(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        match self {
            Encoder::AsIs => out.extend_from_slice(octets),
            Encoder::QuotedPrintable(encoder) => octets.iter().for_each(|&octet| encoder.take(octet, out)),
            Encoder::Base64(encoder) => encoder.take(octets, out),
        }
    }

    /// The body is complete; true: its last line has no end yet.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Encoder::AsIs => false,
            Encoder::QuotedPrintable(encoder) => encoder.finish(out),
            Encoder::Base64(encoder) => encoder.finish(out),
        }
    }
}

#[derive(Default)]
pub(super) struct QuotedPrintable {
    /// Octets of the line so far.
    length: usize,
    /// A blank or a CR whose form depends on what comes next.
    held: Option<u8>,
}

impl QuotedPrintable {
    fn take(&mut self, octet: u8, out: &mut Vec<u8>) {
        match (self.held.take(), octet) {
            (Some(b'\r'), b'\n') => {
                out.extend_from_slice(b"\r\n");
                self.length = 0;
                return;
            }
            (Some(b'\r'), _) => self.escape(b'\r', out),
            // A blank at the end of a line would be lost on the way (rule 3).
            (Some(blank), b'\r') => self.escape(blank, out),
            (Some(blank), _) => self.push(&[blank], out),
            (None, _) => {}
        }
        match octet {
            b' ' | b'\t' | b'\r' => self.held = Some(octet),
            b'=' => self.escape(octet, out),
            b'!'..=b'~' => self.push(&[octet], out),
            _ => self.escape(octet, out),
        }
    }

    fn escape(&mut self, octet: u8, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        self.push(&[b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]], out);
    }

    /// One octet's form, on this line or the next; a place is kept for the `=` of a soft line end (rule 5).
    fn push(&mut self, form: &[u8], out: &mut Vec<u8>) {
        if self.length + form.len() >= LINE_MAX {
            out.extend_from_slice(b"=\r\n");
            self.length = 0;
        }
        // A line that begins anew must not look like a delimiter.
        let form = if self.length == 0 && form == b"-" { b"=2D" } else { form };
        out.extend_from_slice(form);
        self.length += form.len();
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(held) = self.held.take() {
            self.escape(held, out);
        }
        if self.length == 0 {
            return false;
        }
        self.length = 0;
        true
    }
}

#[derive(Default)]
pub(super) struct Base64 {
    line: Vec<u8>,
    has_lines: bool,
}

impl Base64 {
    fn take(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
        while !octets.is_empty() {
            if self.line.len() == BASE64_LINE {
                self.write(out);
            }
            let (now, later) = octets.split_at(octets.len().min(BASE64_LINE - self.line.len()));
            self.line.extend_from_slice(now);
            octets = later;
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if self.has_lines {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(STANDARD.encode(&self.line).as_bytes());
        self.line.clear();
        self.has_lines = true;
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.line.is_empty() {
            self.write(out);
        }
        self.has_lines
    }
}
