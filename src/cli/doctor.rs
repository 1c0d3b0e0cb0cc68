//! `weir doctor`: is this host fit to send to Outlook?
//!
//! Works while the relay runs and while it does not; changes nothing. What is wrong with the configuration itself, `weir check` says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Format;
use super::config::Config;
use super::output::Output;
use super::usage;
use crate::doctor::{self, Asked, Finding, mta};
use crate::types::{Domain, Status};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// A receiver's domain whose MX hosts are tried besides those of outlook.com, hotmail.com and microsoft.com; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    to: Vec<String>,
    /// A domain you send from, besides those that are configured or were seen in the queue and the last day's events; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    from: Vec<String>,
    /// Also ask block lists about our addresses
    #[arg(long)]
    dnsbl: bool,
    /// Look at the Postfix, Exim, sendmail or msmtp on this host instead, and print the lines that hand its mail to weir
    #[arg(long, conflicts_with_all = ["to", "from", "dnsbl"])]
    mta: bool,
    /// With --mta: only mail for Microsoft goes to weir, the rest as before
    #[arg(long, requires = "mta")]
    microsoft_only: bool,
    /// With --mta: the host's files lie below this folder (a container's mount, a chroot)
    #[arg(long, requires = "mta", value_name = "FOLDER")]
    root: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn doctor(doctor: &Doctor, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    if doctor.mta {
        let root = doctor.root.clone().unwrap_or_else(|| PathBuf::from("/"));
        let asked = mta::Asked { root, microsoft_only: doctor.microsoft_only };
        return tell(&mta::look(&config.settings, &asked), doctor.format.json, output);
    }
    let asked = Asked { to: domains(&doctor.to, "--to")?, from: domains(&doctor.from, "--from")?, dnsbl: doctor.dnsbl };
    let findings = doctor::examine(&config.settings, &asked).await;
    tell(&findings, doctor.format.json, output)
}

fn domains(texts: &[String], option: &str) -> anyhow::Result<Vec<Domain>> {
    let parse = |text: &String| match Domain::parse(text) {
        Ok(domain) if domain.literal().is_none() => Ok(domain),
        Ok(_) => Err(usage(format!("{option} {text}: a domain is wanted, as in example.com"))),
        Err(error) => Err(usage(format!("{option} {text}: {error}"))),
    };
    texts.iter().map(parse).collect()
}

fn tell(findings: &[Finding], json: bool, output: &mut Output) -> anyhow::Result<ExitCode> {
    if json {
        for finding in findings {
            output.json(finding)?;
        }
    } else {
        for line in doctor::print::lines(findings) {
            output.line(&line)?;
        }
    }
    let has_failed = findings.iter().any(|finding| finding.status == Status::Fail);
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
