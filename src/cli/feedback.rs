//! `weir feedback`: hands one answer to our mail (a bounce, a complaint, a wish to unsubscribe) to the running relay.
//!
//! For a pipe of another mail server, to whose address such answers come. Exit code 0: it was taken, whatever came of it.

use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;

use super::config::Config;
use super::output::{self, Output};
use super::{Format, human, relay};
use crate::admin::Request;
use crate::admin::record::FeedbackRecord;
use crate::feedback::reading::HEAD_MAX;
use crate::types::Mailbox;

#[derive(Debug, Args)]
pub(super) struct Feedback {
    /// Where it was sent to, if the pipe knows. Default: as its fields say
    #[arg(long, value_name = "ADDRESS", value_parser = Mailbox::parse)]
    recipient: Option<Mailbox>,
    /// End with exit code 75 where it cannot be taken now: the mail server keeps it and tries again
    #[arg(long)]
    pub(super) pipe: bool,
    #[command(flatten)]
    format: Format,
}

/// EX_TEMPFAIL of sysexits.h: what a mail server reads as "later".
pub(super) const LATER: u8 = 75;

pub(super) async fn feedback(command: Feedback, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let is_piped = command.pipe;
    match take(command, config, output).await {
        Err(error) if is_piped => {
            output::complain(&error);
            Ok(ExitCode::from(LATER))
        }
        other => other,
    }
}

async fn take(command: Feedback, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut client = relay::connect(config).await?;
    let head = head(io::stdin().lock(), config.settings.limits.message_size.0)?;
    let request = Request::Feedback { message: BASE64_STANDARD.encode(head), recipient: command.recipient };
    let records: Vec<FeedbackRecord> = client.all(&request).await?;
    let Some(record) = records.first() else { bail!("the relay did not say what became of it: see its log") };
    if command.format.json {
        output.json(record)?;
    } else {
        output.line(&human::clean(&format!("{}: {}", record.event, record.text)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is read of a message; all of it is taken from the pipe, so that nobody there sees it break.
fn head(mut input: impl Read, size_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut head = Vec::new();
    input.by_ref().take(HEAD_MAX as u64).read_to_end(&mut head).context("cannot read standard input")?;
    if head.iter().all(u8::is_ascii_whitespace) {
        bail!("standard input holds no message: write one to it, as in `cat bounce.eml | weir feedback`");
    }
    let rest = io::copy(&mut input.take(size_max), &mut io::sink()).context("cannot read standard input")?;
    if head.len() as u64 + rest > size_max {
        bail!("the message is larger than limits.message_size, {size_max} octets: nothing is done with it");
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_to_its_end_and_its_head_is_kept() {
        let long = vec![b'x'; HEAD_MAX + 500];
        assert_eq!(head(&long[..], 1 << 20).unwrap().len(), HEAD_MAX);
        assert!(head(&long[..], HEAD_MAX as u64 + 499).is_err());
        assert!(head(&b" \r\n"[..], 1 << 20).is_err());
        assert_eq!(head(&b"A: 1\r\n\r\n"[..], 1 << 20).unwrap(), b"A: 1\r\n\r\n");
    }
}
