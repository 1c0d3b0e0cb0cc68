//! `weir man`: the man pages, made of what the command line knows.
//!
//! One page a command: `weir(1)`, `weir-queue(1)`, `weir-queue-list(1)`. On standard output one of them, or all as files in a folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, roman};

use super::output::{Output, say};
use super::{examples, usage};

const MANUAL: &str = "weir";

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The page of this command, as in `weir man queue list`; without one the page of weir itself
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write all pages into this folder, which is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(super) fn man(man: &Man, output: &mut Output) -> anyhow::Result<ExitCode> {
    let root = root();
    match &man.out {
        Some(folder) => {
            let pages = write_all(&root, folder)?;
            say(&format!("{pages} pages in {}", folder.display()));
        }
        None => {
            output.program(&page(&found(&root, &man.command)?)?)?;
            output.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands with their full names and the options that hold for all of them, without examples: these get a section.
fn root() -> Command {
    let mut root = super::bare_command().disable_help_subcommand(true);
    root.build();
    root
}

fn found(root: &Command, path: &[String]) -> anyhow::Result<Command> {
    let mut command = root;
    for name in path {
        let of = command.get_display_name().unwrap_or("weir").replace('-', " ");
        command = command
            .find_subcommand(name)
            .ok_or_else(|| usage(format!("`{of}` has no command `{name}`: see `{of} --help`")))?;
    }
    Ok(command.clone())
}

fn write_all(root: &Command, folder: &Path) -> anyhow::Result<usize> {
    let failed = |what: &Path, error: std::io::Error| anyhow::anyhow!("cannot write {}: {error}", what.display());
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let mut left = vec![root.clone()];
    let mut pages = 0;
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().cloned());
        let file = folder.join(format!("{}.1", name(&command)));
        std::fs::write(&file, page(&command)?).map_err(|error| failed(&file, error))?;
        pages += 1;
    }
    Ok(pages)
}

/// `weir-queue-list`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_string()
}

fn page(command: &Command) -> anyhow::Result<String> {
    let name = name(command);
    let source = format!("weir {}", env!("CARGO_PKG_VERSION"));
    let page = Page::new(command.clone()).title(name.to_uppercase()).source(source).manual(MANUAL);
    let mut roff = Vec::new();
    page.render_title(&mut roff)?;
    page.render_name_section(&mut roff)?;
    page.render_synopsis_section(&mut roff)?;
    page.render_description_section(&mut roff)?;
    page.render_options_section(&mut roff)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut roff)?;
    }
    if let Some(path) = name.strip_prefix("weir-") {
        let lines = examples::of(&path.replace('-', " "));
        section(&mut roff, "EXAMPLES", lines, true)?;
        section(&mut roff, "SEE ALSO", &[&above(path)], false)?;
    } else {
        for (title, lines) in OF_WEIR {
            section(&mut roff, title, lines, false)?;
        }
    }
    Ok(ascii(&String::from_utf8(roff)?))
}

/// Other characters by their numbers, which every troff reads, whatever it takes its input for.
fn ascii(roff: &str) -> String {
    roff.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", u32::from(c)) }).collect()
}

/// The page a page belongs to: `queue list` to weir-queue(1), `queue` to weir(1).
fn above(path: &str) -> String {
    match path.rsplit_once('-') {
        Some((group, _)) => format!("weir-{group}(1), weir(1)"),
        None => "weir(1)".to_string(),
    }
}

/// `as_typed`: each line stands as it is.
fn section(roff: &mut Vec<u8>, title: &str, lines: &[&str], as_typed: bool) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut page = Roff::new();
    page.control("SH", [title]);
    if as_typed {
        page.control("nf", []);
    }
    for line in lines {
        if !as_typed {
            page.control("PP", []);
        }
        page.text([roman(*line)]);
    }
    if as_typed {
        page.control("fi", []);
    }
    Ok(page.to_writer(roff)?)
}

/// What the page of weir itself has besides.
const OF_WEIR: [(&str, &[&str]); 4] = [
    ("EXIT STATUS", &["0: done. 1: failed. 2: wrong usage or configuration."]),
    (
        "ENVIRONMENT",
        &[
            "WEIR_CONFIG: the configuration file, where --config names none.",
            "Every key of the configuration is a variable as well: WEIR_ and its path in capitals, joined by two underscores. WEIR_QUEUE__EXPIRE=2d is expire in [queue].",
        ],
    ),
    (
        "FILES",
        &[
            "./weir.toml, /etc/weir/weir.toml: the configuration, the first of them that is there. `weir check --print` shows every key.",
            "data_dir of the configuration (./weir-data, in the Debian package and the container /var/lib/weir): queue, suppression list, event log, control socket.",
        ],
    ),
    (
        "SEE ALSO",
        &[
            "The page of each command, weir-run(1) and so on; the documents in /usr/share/doc/weir where weir came as a package.",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_options_and_examples() {
        let folder = tempfile::tempdir().unwrap();
        let pages = write_all(&root(), &folder.path().join("man1")).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
        assert!(pages > 30 && std::fs::read_dir(folder.path().join("man1")).unwrap().count() == pages);
        let text = read("weir-queue-list.1").replace("\\-", "-");
        for part in [
            "WEIR-QUEUE-LIST",
            "--older-than",
            "--config",
            "FILTERS",
            "weir queue list --provider outlook",
            "weir-queue(1)",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(read("weir.1").contains("EXIT STATUS"));
        assert!(read("weir-simulate.1").is_ascii() && ascii("a…") == "a\\[u2026]");
    }

    #[test]
    fn a_page_is_chosen_by_the_words_of_the_command() {
        let of = |path: &[&str]| found(&root(), &path.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(name(&of(&[]).unwrap()), "weir");
        assert_eq!(name(&of(&["queue", "list"]).unwrap()), "weir-queue-list");
        assert_eq!(
            of(&["queue", "lost"]).unwrap_err().to_string(),
            "`weir queue` has no command `lost`: see `weir queue --help`"
        );
    }
}
