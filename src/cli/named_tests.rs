//! Whatever a text names exists: the documents, the comments of the configuration, the shipped remedies, our own messages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::Cli;

/// What people read, with the name of its file.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md"), root.join("ARCHITECTURE.md")];
    let mut folders: Vec<PathBuf> = ["docs", "docker", "config", "src"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| ["md", "toml", "yaml", "rs"].iter().any(|k| kind == *k)) {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 100, "the texts were not found");
    files.sort();
    let named = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
    let is_test = |path: &PathBuf| path.to_string_lossy().contains("tests");
    files.iter().filter(|path| !is_test(path)).map(|path| (named(path), fs::read_to_string(path).unwrap())).collect()
}

/// What stands between backticks, line by line: a pair never spans two.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Lines of code blocks that are commands of ours.
fn typed(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").skip(1).step_by(2).flat_map(str::lines).filter(|line| line.starts_with("weir "))
}

/// What is wrong with `weir …`: a command or an option that does not exist.
fn fault(line: &str) -> Option<String> {
    let root = Cli::command();
    let (mut command, mut is_command) = (&root, true);
    let mut words = line.split_whitespace().skip(1).take_while(|word| !["|", ">", "#"].contains(word));
    while let Some(word) = words.next() {
        let word = word.trim_end_matches([',', ';']);
        if word == "--config" {
            words.next();
        } else if let Some(option) = word.strip_prefix("--").map(|word| word.split('=').next().unwrap_or_default()) {
            let known = ["help", "version"].contains(&option)
                || command.get_arguments().any(|argument| argument.get_long() == Some(option));
            if !known {
                return Some(format!("{} has no --{option}", command.get_name()));
            }
        } else if is_command && command.has_subcommands() && word.chars().all(|c| c.is_ascii_lowercase()) {
            match command.find_subcommand(word) {
                Some(found) => command = found,
                None => return Some(format!("there is no `weir {word}`")),
            }
        } else {
            is_command = false;
        }
    }
    None
}

#[test]
fn every_command_that_a_text_names_exists() {
    let mut seen = 0;
    for (file, text) in texts() {
        let lines = quoted(&text).filter(|line| line.starts_with("weir ")).chain(typed(&text));
        // An example of a subject, and the answer to HELP.
        for line in lines.filter(|line| !line.contains("blocked") && !line.contains("EHLO")) {
            assert_eq!(fault(line), None, "{file}: `{line}`");
            seen += 1;
        }
    }
    assert!(seen > 150, "only {seen} commands were found");
    assert_eq!(fault("weir barber").as_deref(), Some("there is no `weir barber`"));
    assert_eq!(fault("weir queue list --colour red").as_deref(), Some("list has no --colour"));
}

/// `section.key` and `[section] key`, as `section.key`; `None` for everything else between backticks.
fn key_of(word: &str, sections: &BTreeSet<String>) -> Option<String> {
    let is_name =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || "_.0123456789".contains(c));
    if let Some(rest) = word.strip_prefix('[') {
        let (section, key) = rest.trim_start_matches('[').split_once(']')?;
        let key = key.trim_start_matches(']').split('=').next().unwrap_or_default().trim();
        let known = is_name(section) && (key.is_empty() || is_name(key));
        return known.then(|| if key.is_empty() { section.to_string() } else { format!("{section}.{key}") });
    }
    let (section, rest) = word.split_once('.')?;
    let is_file = ["sqlite", "sock", "toml", "jsonl", "rs", "md"].contains(&rest);
    (sections.contains(section) && is_name(rest) && !is_file).then(|| word.to_string())
}

#[test]
fn every_key_that_a_text_names_exists() {
    let keys: BTreeSet<String> = crate::config::key_paths().map(|path| path.replace("[]", "")).collect();
    let sections: BTreeSet<String> =
        keys.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section.to_string()).collect();
    let exists = |key: &str| {
        keys.iter().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
            // What is in a rule and in a table by class, the verdicts know.
            || key.starts_with("provider.rule.")
            || key.starts_with("suppression.after.")
    };
    let mut seen = 0;
    // Rules have files of their own, with tables of their own; in code a word with a dot may be a field.
    for (file, text) in texts().iter().filter(|(file, _)| file.ends_with(".md") || file == "config/weir.toml") {
        for key in quoted(text).filter_map(|word| key_of(word, &sections)) {
            let is_of_rules = ["profile", "rule", "limits.window", "domains"].contains(&key.as_str());
            assert!(is_of_rules || exists(&key), "{file}: there is no key `{key}`");
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} keys were found");
    assert!(
        exists("limits.connections") && exists("relay.user") && !exists("limits.conections") && !exists("relay.use")
    );
}

#[test]
fn every_document_that_a_text_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (file, text) in texts() {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
        for word in text.split(|c| !is_path(c)).map(|word| word.trim_end_matches('.')) {
            let is_page = ["docs/", "docker/"].iter().any(|folder| word.starts_with(folder));
            if is_page && word.ends_with(".md") && word != "docs/decisions/NNNN-title.md" {
                assert!(root.join(word).exists(), "{file}: there is no {word}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} documents were found");
}
