//! How far an endpoint has got, in a small file of its own: `data_dir/webhooks/NAME.cursor`.
//!
//! One line of a fixed length, written over in its place. Rules that always hold:
//! - a killed process has written it whole or not at all, and it is written only after the endpoint's 2xx: what a crash
//!   makes of it is an older place, from which events are repeated, never one further on;
//! - before a batch is sent its end stands there: after a restart the same batch is sent again;
//! - a file that cannot be read means that everything in the log is sent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::Deserialize;

/// Longer than the line.
const LENGTH_MAX: u64 = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Position {
    /// The number of the last line that is settled.
    pub(super) done: u64,
    /// The last line of the batch that is under way; not beyond `done`: there is none.
    pub(super) until: u64,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: this endpoint is new.
    New,
    Known,
    /// Something that is no cursor.
    Unreadable,
}

#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
}

impl Cursor {
    /// Opens the cursor of the endpoint `name`; one that is new begins behind the line `end`. Folder and file are made if need be.
    pub(super) fn open(folder: &Path, name: &str, end: u64) -> io::Result<(Cursor, Position, Found)> {
        if let Err(error) = DirBuilder::new().mode(0o700).create(folder)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let path = folder.join(format!("{name}.cursor"));
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(mut file) => {
                let mut text = String::new();
                let read = Read::by_ref(&mut file).take(LENGTH_MAX).read_to_string(&mut text);
                let position = read.ok().and_then(|_| serde_json::from_str(text.trim_end_matches('\0')).ok());
                let found = if position.is_some() { Found::Known } else { Found::Unreadable };
                let cursor = Cursor { file };
                if found == Found::Unreadable {
                    cursor.file.set_len(0)?;
                    cursor.write(Position::default())?;
                }
                Ok((cursor, position.unwrap_or_default(), found))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let position = Position { done: end, until: end };
                // Whole under another name first: an empty file would be one that cannot be read.
                let new = folder.join(format!("{name}.cursor.new"));
                let file =
                    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
                let cursor = Cursor { file };
                cursor.write(position)?;
                cursor.file.sync_all()?;
                fs::rename(&new, &path)?;
                File::open(folder)?.sync_all()?;
                Ok((cursor, position, Found::New))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, position: Position) -> io::Result<()> {
        let line = format!("{{\"done\":{:<20},\"until\":{:<20}}}\n", position.done, position.until);
        self.file.write_all_at(line.as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> (Cursor, Position, Found) {
        Cursor::open(&folder.join("webhooks"), "app", 4711).unwrap()
    }

    #[test]
    fn a_new_endpoint_begins_at_the_end_and_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (cursor, position, found) = open(folder.path());
        assert_eq!((position, found), (Position { done: 4711, until: 4711 }, Found::New));
        for position in [Position { done: 4711, until: u64::MAX }, Position { done: 9, until: 10 }] {
            cursor.write(position).unwrap();
            let (_, again, found) = open(folder.path());
            assert_eq!((again, found), (position, Found::Known));
        }
    }

    #[test]
    fn a_cursor_that_cannot_be_read_is_the_beginning() {
        for content in ["", "{\"done\":1", "\0\0\0\0", "done", "{\"done\":-1,\"until\":2}"] {
            let folder = tempfile::tempdir().unwrap();
            drop(open(folder.path()));
            fs::write(folder.path().join("webhooks/app.cursor"), content).unwrap();
            let (_, position, found) = open(folder.path());
            assert_eq!((position, found), (Position::default(), Found::Unreadable), "{content:?}");
            assert_eq!(open(folder.path()).2, Found::Known, "it was mended");
        }
    }
}
