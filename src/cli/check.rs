//! `weir check`: reads the configuration and says every fault.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::output::{self, Output};
use super::{config, human, usage};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Print the effective configuration: file, environment and defaults put together; secrets are not shown
    #[arg(long)]
    print: bool,
    /// Take warnings for faults: exit code 2 where there is one
    #[arg(long)]
    strict: bool,
}

pub(super) fn check(check: &Check, file: Option<&Path>, output: &mut Output) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    config.rules()?;
    config.users()?;
    config.webhooks()?;
    config.authorities()?;
    config.logins()?;
    let certificate = config.certificate()?;
    let keys = config.keys()?;
    let warnings: Vec<&String> = config.warnings.iter().chain(&certificate).chain(&keys).collect();
    for warning in &warnings {
        output::say(&format!("warning: {warning}"));
    }
    if check.print {
        output.text(&config.effective)?;
    } else {
        let also = match warnings.len() as u64 {
            0 => String::new(),
            many => format!(", {}", human::count(many, "warning")),
        };
        output.line(&format!("{}: no fault{also}", config.origin))?;
    }
    output.flush()?;
    end(check.strict, warnings.len())
}

fn end(strict: bool, warnings: usize) -> anyhow::Result<ExitCode> {
    match strict && warnings > 0 {
        true => Err(usage("with --strict a warning is a fault")),
        false => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_counted_and_fail_a_strict_check() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weir.toml");
        // A name without a dot works and is refused by many.
        std::fs::write(&file, "hostname = \"relay\"\n").unwrap();
        let run = |strict| check(&Check { print: false, strict }, Some(&file), &mut Output::to(std::io::sink()));
        assert_eq!(run(false).unwrap(), ExitCode::SUCCESS);
        assert!(run(true).unwrap_err().is::<super::super::Usage>());
        // The variables of this process may be worth warnings, too.
        assert_eq!(end(true, 0).unwrap(), ExitCode::SUCCESS);
    }
}
