//! `weir completions`: what a shell needs to complete our command line, on standard output.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::output::Output;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For this shell
    shell: Shell,
}

pub(super) fn completions(command: &Completions, output: &mut Output) -> anyhow::Result<ExitCode> {
    output.program(&script(command.shell)?)?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "weir", &mut script);
    Ok(String::from_utf8(script)?)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn each_shell_gets_the_commands_and_their_options() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            for word in ["suppress", "confirm", "older-than"] {
                assert!(script.contains(word), "{shell}: {word} is missing");
            }
        }
    }
}
