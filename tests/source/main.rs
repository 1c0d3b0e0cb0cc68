//! The source itself, held to what ARCHITECTURE.md says about it.
//!
//! - Every file begins with `//!`: what it is for.
//! - A room uses only the rooms that [`USES`] allows, and uses each of them; ARCHITECTURE.md shows the same table. To change
//!   the table is a decision: it is written down there with its reason.
//! - What decides is pure: no runtime, clock, file, socket, thread or chance of its own in the rooms and files of [`PURE`].
//!
//! Tests are left out: they may use whatever they need.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who uses whom. `room::options` is the options module of a room, its settings, and nothing else of it.
const USES: &[(&str, &str)] = &[
    ("types", ""),
    ("clock", "types"),
    ("sqlite", ""),
    ("limits", ""),
    ("sandbox", ""),
    ("log", "types"),
    ("memory", ""),
    ("smtp", "types"),
    ("throttle", "types"),
    ("verdict", "types"),
    ("queue", "types"),
    ("dkim", "smtp types"),
    ("spool", "clock sqlite types"),
    ("suppress", "clock sqlite types"),
    ("event", "clock spool types"),
    ("feedback", "clock sqlite types"),
    ("auth", "clock types"),
    ("inbound", "auth clock smtp types"),
    ("outbound", "smtp types"),
    ("post", ""),
    ("alert", "clock post types"),
    ("webhook", "alert clock event post types"),
    ("state", "clock sqlite types"),
    ("metrics", "sqlite types"),
    ("submit", "sqlite types"),
    ("http", "admin event metrics submit types"),
    ("route", "clock outbound::options post types"),
    ("dispatch", "clock outbound queue route spool suppress throttle types verdict"),
    (
        "config",
        "alert::options auth::options dispatch::options dkim::options event::options feedback::options http::options inbound::options log outbound::options \
         queue::options route::options sandbox suppress::options throttle::options types verdict::options webhook::options",
    ),
    ("preflight", "types"),
    ("rehearse", "throttle types"),
    ("report", "config event route types verdict"),
    ("doctor", "clock config dkim event limits memory outbound post route sandbox spool throttle types"),
    ("simulate", "clock types"),
    ("admin", "types"),
    (
        "server",
        "admin alert auth clock config dispatch dkim doctor event feedback http inbound limits memory metrics outbound \
         post preflight queue report route sandbox smtp spool state submit suppress throttle types verdict webhook",
    ),
    ("demo", "admin clock config route server simulate types"),
    (
        "cli",
        "admin auth clock config demo dkim doctor event feedback inbound log outbound rehearse \
         report route server simulate spool state suppress throttle types verdict webhook",
    ),
];

/// Rooms, and files of rooms, that hold decisions and no effects.
const PURE: &[&str] = &[
    "smtp/",
    "throttle/",
    "verdict/",
    "queue/",
    "preflight/",
    "rehearse/",
    "types/",
    "dispatch/",
    "simulate/",
    "dkim/",
    "doctor/spf/",
    "feedback/fields.rs",
    "feedback/judgement.rs",
    "feedback/reading/",
    "feedback/token.rs",
    "doctor/dkim.rs",
    "doctor/dmarc.rs",
    "doctor/finding.rs",
    "doctor/mount.rs",
    "doctor/names.rs",
    "doctor/print.rs",
    "auth/guesses.rs",
    "auth/aging.rs",
    "webhook/batch.rs",
    "webhook/format/",
    "webhook/retry.rs",
    "webhook/sign.rs",
];

/// Their files that act.
const EFFECTS: &[&str] = &["dispatch/engine.rs", "dispatch/carrier.rs", "dkim/load.rs", "simulate/sockets.rs"];

/// Words of runtimes, clocks, files, sockets, threads and chance. A generator made with a seed is none of them.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "crate::clock",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::io::stdout",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "fastrand::Rng::new",
    "fastrand::u",
    "rusqlite",
    "socket2",
];

struct Source {
    /// Relative to `src`, with `/`.
    name: String,
    /// As it stands in the file.
    text: String,
}

impl Source {
    /// The first folder, or the file's own name where it lies in `src` itself.
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("tests.rs") || self.name.contains("/tests/") || self.name == "inbound/dialogues.rs"
    }

    /// The lines of code: without comments, and without the tests at the foot.
    fn code(&self) -> impl Iterator<Item = &str> {
        let foot = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..foot].lines().filter(|line| !line.trim_start().starts_with("//"))
    }

    /// The rooms it names, `room::options` apart from the rest of a room.
    fn used(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for line in self.code() {
            for (at, _) in line.match_indices("crate::") {
                let is_own_word = line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
                if is_own_word {
                    continue;
                }
                let path = &line[at + "crate::".len()..];
                let mut words = path.split(|c: char| !(c.is_alphanumeric() || c == '_')).take(3);
                let room = words.next().unwrap_or_default();
                assert!(!room.is_empty(), "{}: one `use` for each room: {line}", self.name);
                let options = path[room.len()..].starts_with("::options");
                used.insert(if options { format!("{room}::options") } else { room.to_string() });
            }
        }
        used
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                sources.push(Source { name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    assert!(sources.len() > 100, "the sources were not found");
    sources
}

type Table = BTreeMap<String, BTreeSet<String>>;

fn allowed() -> Table {
    let row = |(room, uses): &(&str, &str)| (room.to_string(), uses.split_whitespace().map(String::from).collect());
    USES.iter().map(row).collect()
}

/// What the sources do: with a whole room, its options are used as well.
fn found() -> Table {
    let mut found = Table::new();
    for source in sources().iter().filter(|source| !source.is_test() && !["lib", "main"].contains(&source.room())) {
        let row = found.entry(source.room().to_string()).or_default();
        row.extend(source.used().into_iter().filter(|used| used != source.room()));
    }
    for (room, row) in &mut found {
        let own_options = format!("{room}::options");
        let whole = row.clone();
        row.retain(|used| *used != own_options && !used.strip_suffix("::options").is_some_and(|r| whole.contains(r)));
    }
    found
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<String> = sources().into_iter().filter(|s| !s.text.starts_with("//! ")).map(|s| s.name).collect();
    assert!(silent.is_empty(), "these begin without `//!`: {silent:?}");
}

#[test]
fn rooms_use_only_whom_the_table_allows() {
    let (allowed, found) = (allowed(), found());
    for (room, uses) in &found {
        let row = allowed.get(room).unwrap_or_else(|| panic!("room {room} is not in the table"));
        let beyond: Vec<_> = uses.difference(row).collect();
        assert!(beyond.is_empty(), "{room} uses {beyond:?}, which the table does not allow");
        let idle: Vec<_> = row.difference(uses).collect();
        assert!(idle.is_empty(), "{room} does not use {idle:?} any more: take it out of the table");
    }
    assert_eq!(allowed.len(), found.len(), "a room of the table is gone");
}

/// So that a row is not widened in passing.
#[test]
fn the_table_keeps_the_design() {
    let table = allowed();
    let knows = |room: &str, other: &str| {
        table[room].iter().any(|used| used == other || used.strip_suffix("::options").is_some_and(|r| r == other))
    };
    let apart = ["smtp", "throttle", "verdict", "queue", "spool"];
    for room in apart {
        for other in apart {
            assert!(!knows(room, other), "{room} knows {other}");
        }
    }
    assert!(!knows("inbound", "outbound") && !knows("outbound", "inbound"));
    assert!(table["types"].is_empty(), "types stands under all");
    for (room, row) in &table {
        let is_top = ["dispatch", "server", "demo", "cli", "rehearse", "doctor", "report"].contains(&room.as_str());
        let deciders = ["queue", "throttle", "route", "outbound"].iter().filter(|name| row.contains(**name)).count();
        assert!(is_top || deciders == 0, "{room} knows queue, throttle, route or outbound");
        let settings = row.iter().any(|used| used.ends_with("::options"));
        assert!(!settings || ["config", "route"].contains(&room.as_str()), "{room} knows the settings of others");
        assert!(is_top || !row.contains("config"), "{room} knows config: options stand beside what they steer");
        let may_start_it = ["cli", "demo"].contains(&room.as_str());
        assert!(may_start_it || !row.contains("server"), "{room} knows server");
    }
}

#[test]
fn what_decides_is_pure() {
    let is_pure = |source: &&Source| {
        PURE.iter().any(|part| source.name.starts_with(part)) && !EFFECTS.contains(&source.name.as_str())
    };
    let mut looked_at = 0;
    for source in sources().iter().filter(is_pure).filter(|source| !source.is_test()) {
        looked_at += 1;
        for line in source.code() {
            let word = FORBIDDEN.iter().find(|word| line.contains(**word));
            assert!(word.is_none(), "{}: {} in a pure file: {line}", source.name, word.unwrap_or(&""));
        }
    }
    assert!(looked_at > 30, "the pure files were not found");
}

#[test]
fn architecture_md_shows_this_table_and_every_room() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let section = page.split("\n## ").find(|part| part.starts_with("Who uses whom\n")).expect("section Who uses whom");
    let shown: Table = section.lines().filter_map(row).collect();
    let allowed = allowed();
    for (room, uses) in &allowed {
        assert_eq!(shown.get(room), Some(uses), "ARCHITECTURE.md, row `{room}` of the table");
    }
    assert_eq!(shown.len(), allowed.len(), "ARCHITECTURE.md shows a room that is none");

    let map = page.split("\n## ").find(|part| part.starts_with("Rooms\n")).expect("section Rooms");
    for room in allowed.keys() {
        let is_there = map.contains(&format!("\n  {room}/ ")) || map.contains(&format!("\n  {room}.rs "));
        assert!(is_there, "ARCHITECTURE.md, section Rooms: {room} is missing");
    }
}

/// ``| `room` | `a` `b` | reason |``
fn row(line: &str) -> Option<(String, BTreeSet<String>)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let room = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    let uses = cells.next()?.split_whitespace().map(|word| word.trim_matches('`').to_string());
    Some((room.to_string(), uses.filter(|word| word != "–").collect()))
}

/// The tests that ARCHITECTURE.md and the decisions name exist.
#[test]
fn the_documents_name_files_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("ARCHITECTURE.md"), root.join("README.md")];
    let decisions = fs::read_dir(root.join("docs/decisions")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(decisions);
    let documents = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(documents.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        for word in quoted.filter(|word| !word.contains(char::is_whitespace)) {
            let page = page.display();
            let (file, test) = word.split_once("::").unwrap_or((word, ""));
            let is_file =
                ["src/", "tests/", "benches/", "docs/", "config/", "docker/"].iter().any(|f| file.starts_with(f));
            if is_file && !file.contains('*') {
                assert!(root.join(file).exists(), "{page}: there is no file {file}");
                let holds = || fs::read_to_string(root.join(file)).unwrap().contains(&format!("fn {test}("));
                assert!(test.is_empty() || holds(), "{page}: {file} has no test {test}");
            }
        }
    }
}
