//! Plays the fuzz targets' corpora, and everything that fuzzing ever found, without a fuzzer: `fuzz/README.md` tells how to fuzz.
//!
//! `fuzz/corpus/TARGET/` holds what reaches every corner of the code that was ever reached, `fuzz/found/TARGET/` each input that
//! once broke a promise. With `WEIR_TEST=long` the corpora are played with changes at random, the same ones every time.

#[expect(unreachable_pub, reason = "`pub` is the targets' face to the fuzzer, for which this file stands here")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use targets::{TARGETS, Target};

/// More files than this in a corpus are not looked at by anybody, and take their time in every run of the tests.
const CORPUS_MAX: usize = 60;
/// Inputs made of each file of a corpus in the long run.
const CHANGES: usize = 100;

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
}

/// The files of a folder in the order of their names; none if it is not there.
fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file of the corpus").path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("read the corpus"));
    paths.into_iter().filter(|path| path.is_file()).map(read).collect()
}

/// Plays all files of a target; what fails is told with its file.
fn play((name, check): Target) {
    let corpus = inputs(&folder("corpus", name));
    assert!((1..=CORPUS_MAX).contains(&corpus.len()), "fuzz/corpus/{name} has {} files", corpus.len());
    for (path, bytes) in corpus.iter().chain(&inputs(&folder("found", name))) {
        play_one(check, bytes, &path.display().to_string());
    }
    play_one(check, b"", "nothing");
    if std::env::var("WEIR_TEST").is_ok_and(|v| v == "long") {
        let mut chance = fastrand::Rng::with_seed(7);
        for (path, bytes) in &corpus {
            for number in 0..CHANGES {
                let changed = changed(bytes, &corpus, &mut chance);
                play_one(
                    check,
                    &changed,
                    &format!("change {number} of {}: {}", path.display(), changed.escape_ascii()),
                );
            }
        }
    }
}

fn play_one(check: fn(&[u8]), bytes: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(bytes))) {
        panic!("{what}: {}", said(&*panic));
    }
}

fn said(panic: &dyn Any) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}

/// Some octets changed, doubled, taken out, or put in from another file.
fn changed(bytes: &[u8], corpus: &[(PathBuf, Vec<u8>)], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..chance.usize(1..4) {
        let at = chance.usize(0..=bytes.len());
        let end = (at + chance.usize(0..8)).min(bytes.len());
        let other = &corpus[chance.usize(0..corpus.len())].1;
        let from = chance.usize(0..=other.len());
        let put_in: Vec<u8> = match chance.u8(0..4) {
            0 => vec![chance.u8(..)],
            1 => bytes[at..end].repeat(2),
            2 => Vec::new(),
            _ => other[from..(from + chance.usize(0..32)).min(other.len())].to_vec(),
        };
        bytes.splice(at..end, put_in);
    }
    bytes
}

/// One test a target, so that they run beside each other and a name tells which one failed.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                let target = TARGETS.iter().find(|(name, _)| *name == stringify!($name));
                play(*target.expect("a target of this name"));
            }
        )*

        const PLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets!(
    address,
    chunks,
    command_line,
    config,
    dkim,
    event_log,
    feedback,
    header,
    incoming,
    outgoing,
    reply,
    report,
    rules,
    server_dialogue,
    seven_bit,
    spool,
    state,
    sts,
    submission,
    users,
    verdict,
);

#[test]
fn every_target_is_played_and_can_be_fuzzed() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, PLAYED);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let files = |folder: &str| -> BTreeSet<String> {
        let entries =
            std::fs::read_dir(fuzz.join(folder)).expect("a folder of fuzz/").map(|entry| entry.expect("a file").path());
        entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect()
    };
    let expected: BTreeSet<String> = names.iter().map(|name| name.to_string()).collect();
    assert_eq!(files("fuzz_targets"), expected, "one file of fuzz_targets/ for each target");
    assert_eq!(files("corpus"), expected, "one corpus for each target");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not name {name}");
    }
}
