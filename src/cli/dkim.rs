//! `weir dkim`: makes a key, prints its DNS record, compares DNS and key.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::Format;
use super::config::Config;
use super::output::{self, Output};
use super::usage;
use crate::dkim::agreement::Told;
use crate::dkim::key::{Key, Kind};
use crate::dkim::options::{Dkim as Entry, is_selector};
use crate::dkim::{self, Signer, record};
use crate::doctor::compared;
use crate::route::HickoryDns;
use crate::types::{Domain, Status};

#[derive(Debug, Subcommand)]
pub(super) enum Dkim {
    /// Make a key and print its DNS record and the [[dkim]] that uses it
    Keygen(Keygen),
    /// Print the DNS records of the configured keys, as a zone file has them
    Show(Show),
    /// Say whether the DNS has the keys that sign, and what to do where it has not; exit code 1 where a signature would fail
    Check(Show),
}

#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// The domain in the From field of the mail that is to be signed
    #[arg(long)]
    domain: String,
    /// A name for this key, never used before in this domain: another one for each key
    #[arg(long)]
    selector: String,
    /// Every receiver knows RSA (2048 bits); many know Ed25519 as well, which goes beside it
    #[arg(long = "type", value_enum, default_value = "rsa")]
    kind: KindName,
    /// Write the private key here (mode 0600; no file is written over). Default: print it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    Rsa,
    Ed25519,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only the keys of this domain
    #[arg(long)]
    domain: Option<String>,
    /// Only the keys of this selector
    #[arg(long)]
    selector: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// A key's record.
#[derive(Serialize)]
struct RecordLine {
    domain: String,
    selector: String,
    #[serde(rename = "type")]
    kind: Kind,
    name: String,
    /// As one text, for forms of DNS providers.
    record: String,
    /// The same as strings of 255 octets at most.
    strings: Vec<String>,
    /// As a zone file has it.
    zone: String,
    /// Of a new key that is written into no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<String>,
}

impl RecordLine {
    fn of(domain: &str, selector: &str, key: &Key) -> RecordLine {
        let (name, record) = (format!("{selector}._domainkey.{domain}"), record::text(key));
        RecordLine {
            domain: domain.to_string(),
            selector: selector.to_string(),
            kind: key.kind(),
            strings: record::strings(&record),
            zone: record::zone_line(&name, &record),
            name,
            record,
            private_key: None,
        }
    }
}

pub(super) fn keygen(asked: &Keygen, output: &mut Output) -> anyhow::Result<ExitCode> {
    let domain = Domain::parse(&asked.domain).ok().filter(|domain| domain.literal().is_none());
    let domain =
        domain.ok_or_else(|| usage(format!("--domain {}: a domain is wanted, as in example.com", asked.domain)))?;
    if !is_selector(&asked.selector) {
        return Err(usage(format!(
            "--selector {}: letters, digits and hyphens are wanted, as in weir1",
            asked.selector
        )));
    }
    let kind = match asked.kind {
        KindName::Rsa => Kind::Rsa,
        KindName::Ed25519 => Kind::Ed25519,
    };
    let (key, pem) = Key::generate(kind)?;
    if let Some(file) = &asked.out {
        dkim::write_key(file, &pem).map_err(|error| anyhow::anyhow!("cannot write {}: {error}", file.display()))?;
    }
    let mut line = RecordLine::of(domain.as_str(), &asked.selector, &key);
    if asked.format.json {
        line.private_key = asked.out.is_none().then_some(pem);
        output.json(&line)?;
    } else {
        if asked.out.is_none() {
            output.program(&pem)?;
            output.line("")?;
        }
        output.line("Publish this record:")?;
        output.line(&line.zone)?;
        output.line("")?;
        output.line("and, when `weir dkim check` sees it, sign with the key:")?;
        output.line(&entry(&line, asked.out.as_deref()))?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn entry(line: &RecordLine, file: Option<&Path>) -> String {
    let file = file.map_or_else(
        || "/etc/weir/dkim/".to_string() + &line.domain + ".pem",
        |file| std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()).display().to_string(),
    );
    format!("[[dkim]]\ndomain = \"{}\"\nselector = \"{}\"\nkey_file = \"{file}\"", line.domain, line.selector)
}

/// The configured keys that are meant, each read by itself: one that is faulty hides no other.
fn chosen(asked: &Show, config: &Config) -> anyhow::Result<Vec<Result<Arc<Signer>, String>>> {
    let is_meant = |entry: &&Entry| {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(text))
        };
        is(&asked.domain, &entry.domain) && is(&asked.selector, &entry.selector)
    };
    let entries: Vec<&Entry> = config.settings.dkim.iter().filter(is_meant).collect();
    if entries.is_empty() {
        anyhow::bail!(
            "no key is configured{}: make one with `weir dkim keygen` and write its [[dkim]]",
            if config.settings.dkim.is_empty() { "" } else { " that is meant" }
        );
    }
    let mut read = Vec::new();
    for entry in entries {
        match dkim::load(std::slice::from_ref(entry)) {
            Ok(loaded) => {
                loaded.warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
                read.extend(loaded.signers.iter().cloned().map(Ok));
            }
            Err(faults) => read.extend(faults.iter().map(|fault| Err(fault.to_string()))),
        }
    }
    Ok(read)
}

pub(super) fn show(asked: &Show, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for read in chosen(asked, config)? {
        match read {
            Ok(signer) => {
                let line = RecordLine::of(signer.domain.as_str(), &signer.selector, &signer.key);
                if asked.format.json { output.json(&line)? } else { output.line(&line.zone)? }
            }
            Err(fault) => {
                output::say(&fault);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// One key beside the DNS.
#[derive(Serialize)]
struct CheckLine {
    domain: String,
    selector: String,
    name: String,
    #[serde(flatten)]
    told: Told,
}

pub(super) async fn check(asked: &Show, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let dns = HickoryDns::new(&config.settings.dns)?;
    let mut code = ExitCode::SUCCESS;
    for read in chosen(asked, config)? {
        let signer = match read {
            Ok(signer) => signer,
            Err(fault) => {
                output::say(&fault);
                code = ExitCode::FAILURE;
                continue;
            }
        };
        let told = compared(&signer, &dns).await;
        if told.status == Status::Fail {
            code = ExitCode::FAILURE;
        }
        tell(&signer, told, asked.format.json, output)?;
    }
    Ok(code)
}

fn tell(signer: &Signer, told: Told, json: bool, output: &mut Output) -> anyhow::Result<()> {
    if json {
        let (domain, selector, name) = (signer.domain.to_string(), signer.selector.clone(), signer.name());
        return output.json(&CheckLine { domain, selector, name, told });
    }
    output.line(&format!("{:<5} {}", told.status.word(), told.text))?;
    for line in told.remedy.iter().flat_map(|remedy| remedy.lines()) {
        output.line(&format!("      {line}"))?;
    }
    Ok(())
}
