//! What `docker/build-here.sh` and `.ci/run` leave for the tests of container and package: the static program, the image with it, the
//! root of a bare Debian.
//!
//! The rule that always holds: a program that is older than its sources is none. With `WEIR_TEST_IMAGE=required` what is missing is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::{is_long, relay::program};

/// Below the root of the sources.
pub fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name)
}

/// The static program and what else a test `needs` (programs, files below `target`); nothing, with the reason printed, where something is
/// missing.
pub fn static_program(needs: &[&str], files: &[&str]) -> Option<PathBuf> {
    if !is_long() {
        eprintln!("skipped: takes the image of docker/build-here.sh, with WEIR_TEST=long only");
        return None;
    }
    let found = missing(needs, files);
    if let Some(why) = found {
        let is_required = std::env::var("WEIR_TEST_IMAGE").is_ok_and(|v| v == "required");
        assert!(!is_required, "WEIR_TEST_IMAGE=required, but {why}");
        eprintln!("SKIPPED: {why}");
        return None;
    }
    Some(built("image/weir"))
}

fn missing(needs: &[&str], files: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this takes root".to_string());
    }
    if let Some(name) = needs.iter().find(|name| program(name).is_none()) {
        return Some(format!("{name} is not installed; .ci/run installs it"));
    }
    if let Some(name) = files.iter().find(|name| !built(name).exists()) {
        return Some(format!("there is no target/{name}; .ci/run makes it"));
    }
    let Ok(made) = std::fs::metadata(built("image/weir")).and_then(|data| data.modified()) else {
        return Some("there is no target/image/weir; docker/build-here.sh makes it".to_string());
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources =
        ["src", "config", "docker/Dockerfile", "docker/static.sh", "Cargo.lock"].map(|name| newest(&root.join(name)));
    (sources.into_iter().flatten().max() > Some(made))
        .then(|| "target/image/weir is older than its sources; docker/build-here.sh makes it anew".to_string())
}

/// When the youngest file of a folder was changed.
fn newest(path: &Path) -> Option<SystemTime> {
    let data = std::fs::metadata(path).ok()?;
    if !data.is_dir() {
        return data.modified().ok();
    }
    std::fs::read_dir(path).ok()?.flatten().filter_map(|entry| newest(&entry.path())).max()
}

/// Runs a command that must succeed; what it printed, standard error behind standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref();
    assert!(output.status.success(), "{command:?} failed with {}:\n{said}", output.status);
    said
}
