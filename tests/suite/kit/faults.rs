//! A disk that fails when a test says so: a library that is loaded before the relay's own (`faults.c`) stands between it and
//! its files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Relay, skip, until};

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Writes fail with EIO.
    Writes = b'w' as isize,
    /// Syncs fail with EIO; what was written stays to be seen.
    Syncs = b's' as isize,
    /// Syncs fail with EIO, and what was written since the last one is gone.
    LostSyncs = b'l' as isize,
    /// Nothing can be changed (EROFS).
    ReadOnly = b'r' as isize,
    /// No byte is free (ENOSPC).
    Full = b'e' as isize,
}

/// Places in the file through which the library is told what to do.
const MODE: u64 = 0;
const ONCE: u64 = 1;
const HITS: u64 = 8;
const PATTERN: u64 = 64;
const LENGTH: u64 = 4096;

pub struct Faults {
    control: File,
}

impl Faults {
    /// From its next start on this relay's data lies on such a disk; none where there is no C compiler.
    pub fn under(relay: &mut Relay) -> Option<Faults> {
        let shim = shim()?;
        let path = relay.config_file().with_file_name("faults");
        let options = File::options().read(true).write(true).create_new(true).open(&path);
        let control = options.expect("make the file that steers faults");
        control.set_len(LENGTH).expect("make the file that steers faults");
        let data = relay.data_dir();
        fs::create_dir_all(&data).expect("make the data folder");
        relay.environment("LD_PRELOAD", shim);
        relay.environment("FAULTS_CONTROL", &path);
        relay.environment("FAULTS_FOLDER", &data);
        Some(Faults { control })
    }

    /// From now on, for every file in whose path `pattern` stands.
    pub fn begin(&self, fault: Fault, pattern: &str) {
        self.set(fault, pattern, false);
    }

    /// The same, until it has hit once.
    pub fn once(&self, fault: Fault, pattern: &str) {
        self.set(fault, pattern, true);
    }

    /// All is well again.
    pub fn end(&self) {
        self.write(MODE, &[0]);
    }

    /// How many calls have failed.
    pub fn hits(&self) -> u32 {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, HITS).expect("read what failed");
        u32::from_ne_bytes(bytes)
    }

    /// Waits until `n` more calls have failed than `before`.
    #[track_caller]
    pub fn wait_hits(&self, before: u32, n: u32) {
        until("calls that fail", || (self.hits() >= before + n).then_some(()));
    }

    fn set(&self, fault: Fault, pattern: &str, once: bool) {
        self.end();
        self.write(PATTERN, &[pattern.as_bytes(), b"\0"].concat());
        self.write(ONCE, &[u8::from(once)]);
        self.write(MODE, &[fault as u8]);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.control.write_all_at(bytes, at).expect("steer faults");
    }
}

/// Compiles the library, once for all tests.
fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    SHIM.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/kit/faults.c");
        let arguments = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"];
        match Command::new("cc").args(arguments).arg(&library).arg(source).args(["-ldl", "-lpthread"]).status() {
            Ok(status) => {
                assert!(status.success(), "the library of faults does not compile");
                Some(library)
            }
            Err(error) => {
                skip(&format!("there is no C compiler for the library of faults (cc: {error})"));
                None
            }
        }
    })
    .as_deref()
}
