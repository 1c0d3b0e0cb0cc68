//! One process owns a data folder.
//!
//! The lock is the kernel's (flock on `data_dir/lock`): it ends with the process, however that ends, so no stale lock is
//! ever cleaned up by hand. The file holds the owner's process number, for the text of the one who comes second.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::SpoolError;

/// Takes possession of `folder` for as long as the file is held.
pub(super) fn take(folder: &Path) -> Result<File, SpoolError> {
    let path = folder.join("lock");
    let fault = |error: std::io::Error| SpoolError::Failed(format!("cannot lock {}: {error}", path.display()));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SpoolError::Failed(taken_text(folder, &mut file))),
        Err(TryLockError::Error(error)) => return Err(fault(error)),
    }
    file.set_len(0).map_err(fault)?;
    file.rewind().map_err(fault)?;
    writeln!(file, "{}", std::process::id()).map_err(fault)?;
    Ok(file)
}

fn taken_text(folder: &Path, file: &mut File) -> String {
    let mut owner = String::new();
    // Twenty digits are more than any process number has.
    let _ = file.take(20).read_to_string(&mut owner);
    let owner = match owner.trim() {
        "" => "another weir".to_string(),
        number => format!("another weir (process {number}, perhaps in another container)"),
    };
    format!(
        "the data folder {} is in use by {owner}: stop it, or give this one a data_dir of its own",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first_and_may_come_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        let text = take(folder.path()).unwrap_err().to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains(&folder.path().display().to_string()) && text.contains("data_dir"), "{text}");
        drop(first);
        take(folder.path()).unwrap();
    }
}
