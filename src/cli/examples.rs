//! An example of each command, below its `--help` and in its man page.
//!
//! Rule that always holds: each of these lines is one that works as it stands, but for the names in it. A test reads them all.

use clap::Command;

/// The command, without `weir`, and what somebody would type.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("run", &["weir run", "weir run --config /etc/weir/weir.toml"]),
    ("check", &["weir check --config /etc/weir/weir.toml", "weir check --print"]),
    ("password", &["weir password --user app >> /etc/weir/users"]),
    (
        "explain",
        &[
            "weir explain \"451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited\"",
            "weir explain --rules --provider gmail",
        ],
    ),
    (
        "queue list",
        &["weir queue list --provider outlook --older-than 2h", "weir queue list --domain example.com --json"],
    ),
    ("queue show", &["weir queue show 0123456789ABC"]),
    ("queue flush", &["weir queue flush --domain example.com"]),
    ("queue hold", &["weir queue hold --sender newsletter@example.com"]),
    ("queue release", &["weir queue release --sender newsletter@example.com"]),
    ("queue reroute", &["weir queue reroute --provider outlook --to smarthost.example.com:25"]),
    ("queue bounce", &["weir queue bounce --recipient no.such.user@example.com"]),
    ("queue remove", &["weir queue remove --sender newsletter@example.com --older-than 2d"]),
    ("suppress list", &["weir suppress list --domain outlook.com", "weir suppress list --waves"]),
    ("suppress check", &["weir suppress check someone@outlook.com"]),
    ("suppress count", &["weir suppress count --class recipient-unknown --since 7d"]),
    ("suppress add", &["weir suppress add someone@outlook.com --reason \"asked us to stop\" --expires 90d"]),
    ("suppress remove", &["weir suppress remove someone@outlook.com", "weir suppress remove --wave w7 --dry-run"]),
    ("suppress confirm", &["weir suppress confirm w7"]),
    ("suppress import", &["weir suppress import bounces.csv"]),
    ("suppress export", &["weir suppress export > list.jsonl", "weir suppress export --format csv > list.csv"]),
    ("status", &["weir status", "weir status --watch"]),
    ("events", &["weir events --follow", "weir events --kind bounced,expired --provider outlook --since 1d"]),
    ("trace", &["weir trace someone@outlook.com", "weir trace 0123456789ABC"]),
    ("pause", &["weir pause outlook", "weir pause --domain example.com"]),
    ("resume", &["weir resume outlook"]),
    ("forget", &["weir forget outlook --source a"]),
    (
        "feedback",
        &["cat bounce.eml | weir feedback", "cat wish.eml | weir feedback --pipe --recipient=u-x@fb.example.com"],
    ),
    ("health", &["weir health", "weir health --ready"]),
    ("report", &["weir report outlook > delisting.txt"]),
    (
        "send",
        &[
            "weir send --test you@outlook.com",
            "echo Hello | weir send --from app@example.com --to you@outlook.com --subject Hello",
        ],
    ),
    ("doctor", &["weir doctor --from example.com", "weir doctor --to contoso.com --dnsbl", "weir doctor --mta"]),
    (
        "dkim keygen",
        &[
            "weir dkim keygen --domain example.com --selector weir1 --out /etc/weir/dkim/example.com.pem",
            "weir dkim keygen --domain example.com --selector weir1e --type ed25519 --out /etc/weir/dkim/example.com.ed25519.pem",
        ],
    ),
    ("dkim show", &["weir dkim show", "weir dkim show --domain example.com --json"]),
    ("dkim check", &["weir dkim check"]),
    (
        "rehearse",
        &[
            "weir rehearse --count 60000 --mix outlook=60%,gmail=40% --class bulk",
            "weir rehearse --recipients list.txt --start 2h --plot campaign.svg",
        ],
    ),
    ("simulate", &["weir simulate --profile strict", "weir simulate --try /etc/weir/weir.toml"]),
    ("demo", &["weir demo"]),
    ("mcp", &["weir mcp", "weir mcp --config /etc/weir/weir.toml"]),
    (
        "completions",
        &[
            "weir completions bash > /etc/bash_completion.d/weir",
            "weir completions zsh > /usr/local/share/zsh/site-functions/_weir",
        ],
    ),
    ("man", &["weir man | man -l -", "weir man queue list | man -l -", "weir man --out /usr/local/share/man/man1"]),
];

/// The examples of the command with this path below `weir`.
pub(super) fn of(path: &str) -> &'static [&'static str] {
    EXAMPLES.iter().find(|(of, _)| *of == path).map_or(&[], |(_, lines)| lines)
}

/// Puts the examples below the help of each command.
pub(super) fn added(command: Command) -> Command {
    below(command, "")
}

fn below(mut command: Command, path: &str) -> Command {
    for name in command.get_subcommands().map(|sub| sub.get_name().to_string()).collect::<Vec<_>>() {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |sub| below(sub, &path));
    }
    match of(path) {
        [] => command,
        [line] => command.after_help(format!("Example: {line}")),
        lines => command.after_help(format!("Examples:\n  {}", lines.join("\n  "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    /// The words of a line as a shell would part them, up to where its output or another program goes on.
    fn words(line: &str) -> Vec<String> {
        let own = line.split(" | ").find(|part| part.starts_with("weir ")).unwrap_or_default();
        let own = own.split(" > ").next().unwrap_or_default().split(" >> ").next().unwrap_or_default();
        let pieces = own.split('"').enumerate();
        let of_piece = |(at, piece): (usize, &str)| match at % 2 {
            0 => piece.split_whitespace().map(String::from).collect(),
            _ => vec![piece.to_string()],
        };
        pieces.flat_map(of_piece).collect()
    }

    /// The path of each command that does something.
    fn leaves(command: &Command, path: &str) -> Vec<String> {
        let children = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        let below = children.flat_map(|sub| leaves(sub, format!("{path} {}", sub.get_name()).trim()));
        let below: Vec<String> = below.collect();
        if below.is_empty() { vec![path.to_string()] } else { below }
    }

    #[test]
    fn every_command_has_examples_and_each_of_them_is_read() {
        let known = leaves(&cli::command(), "");
        for path in &known {
            assert!(!of(path).is_empty(), "`weir {path}` has no example: add one to {}", file!());
        }
        for (path, lines) in EXAMPLES {
            assert!(known.iter().any(|k| k == path), "there is no `weir {path}`");
            for line in *lines {
                let words = words(line);
                assert!(words.join(" ").starts_with(&format!("weir {path}")), "{line} is no example of {path}");
                if let Err(error) = cli::parse(words.into_iter().map(Into::into)) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn the_help_of_a_command_ends_with_its_examples() {
        let help = |line: &str| cli::parse(line.split(' ').map(Into::into)).unwrap_err().to_string();
        assert!(help("weir health --help").ends_with("\nExamples:\n  weir health\n  weir health --ready\n"));
        assert!(help("weir suppress confirm --help").ends_with("\nExample: weir suppress confirm w7\n"));
        assert!(help("weir --help").contains("Without a configuration file"));
    }
}
