//! A folder of its own for the demo's relay, removed when it is dropped.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// In the system's folder for temporary files, for this user alone.
    pub(super) fn create() -> anyhow::Result<Folder> {
        let path = std::env::temp_dir().join(format!("weir-demo-{:016x}", fastrand::u64(..)));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Folder(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed lies among other temporary files, and the system removes it one day.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_with_everything_in_it() {
        let folder = Folder::create().unwrap();
        let path = folder.path().to_path_buf();
        fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
