//! Where the control socket lies, and how it is reached however long the path is.
//!
//! The address of a Unix socket holds 108 bytes on Linux, less than many data folders are deep. A longer path is reached
//! through the opened folder: `/proc/self/fd/N/control.sock`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// `sun_path` of Linux less its final zero; the shortest limit of other systems is 103.
const ADDRESS_MAX: usize = 103;

/// A path short enough for a socket address, valid as long as the value lives.
#[derive(Debug)]
pub(super) struct Reach {
    path: PathBuf,
    _folder: Option<File>,
}

impl Reach {
    /// To `name` in `folder`.
    pub(super) fn to(folder: &Path, name: &str) -> io::Result<Reach> {
        let direct = folder.join(name);
        if direct.as_os_str().len() <= ADDRESS_MAX {
            return Ok(Reach { path: direct, _folder: None });
        }
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Reach { path, _folder: Some(folder) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder whose path no socket address can hold.
    pub(crate) fn deep(folder: &Path) -> PathBuf {
        let deep = folder.join("a-data-folder-with-a-long-name".repeat(4)).join("and-one-more".repeat(8));
        std::fs::create_dir_all(&deep).unwrap();
        deep
    }

    #[test]
    fn a_short_path_is_taken_as_it_is() {
        assert_eq!(Reach::to(Path::new("/var/lib/weir"), "x").unwrap().path(), Path::new("/var/lib/weir/x"));
    }

    #[test]
    fn a_long_path_is_reached_through_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let deep = deep(folder.path());
        let reach = Reach::to(&deep, "file").unwrap();
        assert!(reach.path().as_os_str().len() <= ADDRESS_MAX);
        std::fs::write(reach.path(), "here").unwrap();
        assert_eq!(std::fs::read_to_string(deep.join("file")).unwrap(), "here");
    }
}
