//! Two implementations of DKIM that are none of ours: `dkimpy`, where `.ci/run` installs it, and Debian's Mail::DKIM.
//!
//! Where one is not there a test says so and passes; `WEIR_TEST_DKIM=required` makes that a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a verifier said of one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub file: String,
    pub domain: String,
    pub selector: String,
    pub is_good: bool,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// RSA and Ed25519.
    Dkimpy,
    /// RSA.
    MailDkim,
}

pub const ALL: [Verifier; 2] = [Verifier::Dkimpy, Verifier::MailDkim];

impl Verifier {
    /// None where it is not installed.
    pub fn verify(self, keys: &BTreeMap<String, String>, folder: &Path) -> Option<Vec<Said>> {
        let file = tempfile::NamedTempFile::new().expect("a file for keys");
        std::fs::write(file.path(), serde_json::to_string(keys).expect("JSON")).expect("write keys");
        let output = self.run(file.path(), folder);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_missing = errors.contains("No module named 'dkim'")
            || errors.contains("No module named 'nacl'")
            || errors.contains("Can't locate Mail/DKIM");
        if is_missing {
            let required = std::env::var("WEIR_TEST_DKIM").is_ok_and(|v| v == "required");
            assert!(!required, "WEIR_TEST_DKIM=required, but {self:?} is not there: {errors}");
            eprintln!("SKIPPED: {self:?} is not installed (.ci/run does it)");
            return None;
        }
        assert!(output.status.success(), "{self:?}: {errors}");
        Some(String::from_utf8_lossy(&output.stdout).lines().map(said).collect())
    }

    fn run(self, keys: &Path, folder: &Path) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (program, script) = match self {
            Verifier::Dkimpy => ("python3", "tests/dkim/verify.py"),
            Verifier::MailDkim => ("perl", "tests/dkim/verify.pl"),
        };
        let mut command = Command::new(program);
        command.arg(root.join(script)).args([keys, folder]).env("PYTHONPATH", python());
        command.output().unwrap_or_else(|error| panic!("start {program}: {error}"))
    }
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci/python")
}

fn said(line: &str) -> Said {
    let mut words = line.splitn(6, ' ');
    let mut next = || words.next().unwrap_or_default().to_string();
    let (file, _number, domain, selector, verdict, reason) = (next(), next(), next(), next(), next(), next());
    Said { file, domain, selector, is_good: verdict == "ok", reason }
}
