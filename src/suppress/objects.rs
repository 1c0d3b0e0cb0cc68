//! Finds the entries in a JSON text as another service exports it: an array of objects, or an object around such an array,
//! on one line or on many.
//!
//! Rules that always hold: what is kept is one entry at most, of bounded length; what is no JSON ends the text and is told, and
//! whatever follows is read again as lines.

/// Deeper than any export.
const DEPTH_MAX: usize = 32;

/// What a byte brought to its end.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// An object, as text.
    Object(Vec<u8>),
    /// An object longer than it may be.
    TooLong,
    /// This is no JSON, or too deep.
    Broken,
    /// The text and its line are over.
    End,
}

/// Where in the text we are.
#[derive(Debug)]
pub(super) struct Objects {
    length_max: usize,
    /// What is open: `{` or `[`.
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    /// The last byte outside of strings that is no blank; a string counts as a quote.
    last: u8,
    /// The object that may be an entry, and how deep it lies.
    entry: Option<(usize, Vec<u8>)>,
}

impl Objects {
    pub(super) fn new(length_max: usize) -> Objects {
        Objects { length_max, open: Vec::new(), in_string: false, escaped: false, last: b',', entry: None }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn push(&mut self, byte: u8) -> Option<Found> {
        if byte == b'\n' && self.open.is_empty() {
            return Some(Found::End);
        }
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return None;
        }
        match byte {
            b'{' | b'[' if !self.may_begin() => return Some(Found::Broken),
            b'{' | b'[' => self.begin(byte),
            b'}' | b']' => return self.end(byte),
            _ => {
                self.in_string = byte == b'"';
                self.keep(byte);
            }
        }
        if !byte.is_ascii_whitespace() {
            self.last = byte;
        }
        None
    }

    /// A value stands behind a colon, or in an array behind its bracket or a comma.
    fn may_begin(&self) -> bool {
        let fits = match self.open.last() {
            Some(b'{') => self.last == b':',
            Some(_) => matches!(self.last, b'[' | b','),
            None => true,
        };
        fits && self.open.len() < DEPTH_MAX
    }

    fn begin(&mut self, byte: u8) {
        let depth = self.open.len();
        // An array of objects right in the outermost one: that is the entries, and what is around them is none.
        if byte == b'{' && self.last == b'[' && self.open == [b'{', b'['] {
            self.entry = None;
        }
        let in_array = self.open.last().is_none_or(|around| *around == b'[');
        if byte == b'{' && in_array && self.entry.is_none() {
            self.entry = Some((depth, Vec::new()));
        }
        self.keep(byte);
        self.open.push(byte);
    }

    fn end(&mut self, byte: u8) -> Option<Found> {
        let opened = if byte == b'}' { b'{' } else { b'[' };
        // A bracket of an array whose beginning was passed over as a line.
        if self.open.is_empty() && byte == b']' {
            return None;
        }
        if self.open.pop() != Some(opened) {
            return Some(Found::Broken);
        }
        self.keep(byte);
        self.last = byte;
        let (_, text) = self.entry.take_if(|(depth, _)| *depth == self.open.len())?;
        Some(if text.len() > self.length_max { Found::TooLong } else { Found::Object(text) })
    }

    /// One octet over the limit tells that there were more.
    fn keep(&mut self, byte: u8) {
        if let Some((_, text)) = &mut self.entry
            && text.len() <= self.length_max
        {
            text.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut objects = Objects::new(40);
        let said = |found| match found {
            Found::Object(text) => String::from_utf8(text).unwrap(),
            other => format!("{other:?}"),
        };
        text.bytes().filter_map(|byte| objects.push(byte)).map(said).collect()
    }

    #[test]
    fn entries_are_found_however_they_are_wrapped() {
        for (text, expected) in [
            (r#"[{"a":1},{"b":{"c":[2]}}]"#, vec![r#"{"a":1}"#, r#"{"b":{"c":[2]}}"#]),
            (r#"{"n":2,"items":[{"a":"]}"},{"b":2}],"x":{}}"#, vec![r#"{"a":"]}"}"#, r#"{"b":2}"#]),
            (r#"{"a":"\"{[","tags":["x"]}"#, vec![r#"{"a":"\"{[","tags":["x"]}"#]),
            ("[\n {\n\"a\":1\n }\n]\n", vec!["{\n\"a\":1\n }", "End"]),
            ("{\"a\":1\n{", vec!["Broken"]),
            ("{]", vec!["Broken"]),
            (r#"[{"a":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},{"b":1}]"#, vec!["TooLong", r#"{"b":1}"#]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
        assert_eq!(found(&"[".repeat(40))[0], "Broken");
    }
}
