//! A small disk in memory that a test may fill, to the last byte or the last inode.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::statvfs;
use tempfile::TempDir;

use super::skip;

/// Unmounts when the test ends, however it ends.
pub struct Disk {
    folder: TempDir,
    files: usize,
}

impl Disk {
    /// A tmpfs; none where it may not be mounted.
    pub fn mount(mib: u64, inodes: u64) -> Option<Disk> {
        let folder = tempfile::Builder::new().prefix("weir-disk-").tempdir().expect("a folder to mount on");
        let options = format!("size={mib}m,nr_inodes={inodes}");
        match Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output() {
            Ok(output) if output.status.success() => Some(Disk { folder, files: 0 }),
            Ok(output) => {
                skip(&format!("tmpfs cannot be mounted here: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                skip(&format!("there is no mount command: {error}"));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn free_bytes(&self) -> u64 {
        let found = statvfs(self.path()).expect("ask the disk");
        found.f_bavail * found.f_frsize
    }

    /// Fills it up, or takes away of what filled it, until so many bytes are free.
    pub fn leave_free(&self, bytes: u64) {
        let ballast = self.ballast();
        let held = fs::metadata(&ballast).map_or(0, |m| m.len());
        let wanted = (held + self.free_bytes()).saturating_sub(bytes);
        if wanted < held {
            let file = fs::OpenOptions::new().write(true).open(&ballast).expect("open the ballast");
            return file.set_len(wanted).expect("cut the ballast");
        }
        let mut content = fs::read(&ballast).unwrap_or_default();
        content.resize(usize::try_from(wanted).expect("a small disk"), b'x');
        // Somebody else may have taken the last bytes meanwhile.
        let _ = fs::write(&ballast, content);
    }

    /// Makes empty files until so many inodes are free.
    pub fn leave_inodes(&mut self, inodes: u64) {
        while statvfs(self.path()).expect("ask the disk").f_favail > inodes {
            fs::write(self.path().join(format!("empty-{}", self.files)), b"").expect("make an empty file");
            self.files += 1;
        }
    }

    /// Takes away all that filled it.
    pub fn clear(&mut self) {
        let _ = fs::remove_file(self.ballast());
        for n in 0..std::mem::take(&mut self.files) {
            fs::remove_file(self.path().join(format!("empty-{n}"))).expect("remove an empty file");
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
