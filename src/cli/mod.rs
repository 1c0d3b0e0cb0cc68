//! The commands: what stands on the command line, and one file for what each of them does.
//!
//! Rules that always hold:
//! - records go to standard output, errors to standard error as one line: what, where, what to do;
//! - exit code 0 done, 1 failed, 2 wrong usage or configuration;
//! - with `--json` each record is one JSON object on a line, with the keys of `admin::record`;
//! - a reader that goes away (`weir queue list | head`) ends a command quietly.

mod check;
mod completions;
mod config;
mod container;
mod demo;
mod dkim;
mod doctor;
mod events;
mod examples;
mod explain;
mod feedback;
mod health;
mod hidden;
mod human;
mod import;
mod lane;
mod man;
mod mcp;
mod offline;
mod output;
mod password;
mod piped;
mod progress;
mod providers;
mod queue;
mod rehearse;
mod relay;
mod report;
mod run;
mod send;
mod simulate;
mod status;
mod suppress;
mod suppressed;
mod table;
mod trace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use output::Output;

/// The command line as a whole.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    about = "An outbound SMTP relay that delivers to Outlook.com as fast as it lets you, and never faster",
    after_help = "Without a configuration file `weir run` listens on 127.0.0.1:2525 and 127.0.0.2:2525 and keeps its data in ./weir-data.",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// The configuration. Default: $WEIR_CONFIG, else ./weir.toml, else /etc/weir/weir.toml, else the built-in defaults
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay in the foreground; SIGTERM drains and ends it
    Run,
    /// Read the configuration and say every fault with file, line and column
    Check(check::Check),
    /// Make the hash of a password, for users who log in
    Password(password::Password),
    /// Say what a receiver's reply means, and what to do about it
    Explain(explain::Explain),
    /// Show and change the queue
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Show and change the suppression list: recipients who are not written to any more
    #[command(subcommand)]
    Suppress(suppress::Suppress),
    /// Show the relay and its lanes: connections, rate, what waits and why
    Status(status::Status),
    /// Print what happened to mail: the event log in words, from its files; also without a running relay
    Events(events::Events),
    /// Tell the whole story of a recipient or a message, from the event log and the queue; also without a running relay
    Trace(trace::Trace),
    /// Send nothing to a provider, a domain or anybody until it is resumed; the mail stays queued
    Pause(lane::Pause),
    /// Ask a paused or blocked provider with one message, and go on if it takes it
    Resume(lane::Resume),
    /// Drop what was learned of a provider's limits: rate, connections, waits, a block
    Forget(lane::Forget),
    /// Say in one line whether the relay lives (for container probes): exit code 0 or 1
    Health(health::Health),
    /// Look whether this host is fit to send to Outlook: names, DNS, port 25, disk, and what mends it
    Doctor(doctor::Doctor),
    /// Make DKIM keys, print their DNS records, compare DNS and keys
    #[command(subcommand)]
    Dkim(dkim::Dkim),
    /// Write the text for a receiver's delisting form: who we are, what was refused, what was done
    Report(report::Report),
    /// Hand one message to the running relay and print what the receiver says
    Send(send::Send),
    /// Take one bounce, complaint or unsubscribe mail on standard input (a pipe from Postfix or Exim)
    Feedback(feedback::Feedback),
    /// Say how long a campaign will take, from what the lanes have learned; sends nothing
    Rehearse(rehearse::Rehearse),
    /// Be a receiver that behaves like Outlook.com (limits, RP-00x, blocks), for trials and tests
    Simulate(simulate::Simulate),
    /// Watch weir find a receiver's limits: relay and receivers in one process on loopback, in less than a minute
    Demo(demo::Demo),
    /// Answer a program that speaks the Model Context Protocol, on standard input and output; it can read and change nothing
    Mcp,
    /// Print what a shell needs to complete these commands
    Completions(completions::Completions),
    /// Print a man page, or write all of them into a folder
    Man(man::Man),
}

/// For commands that print records.
#[derive(Clone, Copy, Debug, Args)]
struct Format {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Wrong usage or configuration: exit code 2. Everything else that fails is exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// The program. Reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    keep_to_owner();
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return explain_usage(&error),
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) if error.is::<output::ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// Whatever file is made from here on, the databases' own among them, is its owner's alone: who writes to whom, and what.
fn keep_to_owner() {
    use rustix::fs::Mode;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Help and version, which come this way as well, or what is wrong with the command line, as one line.
fn explain_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A reader that went away is no reason to complain.
        let _ = error.print();
    } else {
        output::say(&usage_line(error));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// clap writes a paragraph for the fault, then tips and the usage.
fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let fault = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = fault.trim_start_matches("error: ").split_whitespace().collect();
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let tip = tip.map(|tip| format!(" ({tip})")).unwrap_or_default();
    format!("{}{tip}: see --help", words.join(" "))
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))
}

/// The command line with an example below the help of each command.
fn command() -> clap::Command {
    examples::added(bare_command())
}

fn bare_command() -> clap::Command {
    Cli::command()
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::Check(check) = &cli.command {
        return check::check(check, cli.config.as_deref(), &mut Output::stdout());
    }
    if let Command::Password(command) = &cli.command {
        return password::password(command, &mut Output::stdout());
    }
    if let Command::Dkim(dkim::Dkim::Keygen(command)) = &cli.command {
        return dkim::keygen(command, &mut Output::stdout());
    }
    if let Command::Completions(command) = &cli.command {
        return completions::completions(command, &mut Output::stdout());
    }
    if let Command::Man(command) = &cli.command {
        return man::man(command, &mut Output::stdout());
    }
    if let Command::Simulate(_) | Command::Demo(_) = cli.command {
        // A thousand connections are more than one thread likes.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(play(&cli.command, &mut Output::stdout()));
    }
    if let Command::Run = cli.command {
        let hidden = hidden::take();
        return run::run(config::load_with(cli.config.as_deref(), &hidden)?, cli.config, hidden);
    }
    let config = match (config::load(cli.config.as_deref()), &cli.command) {
        // A configuration that is just being written costs a mail server no mail.
        (Err(error), Command::Feedback(feedback::Feedback { pipe: true, .. })) => {
            output::complain(&error);
            return Ok(ExitCode::from(feedback::LATER));
        }
        (loaded, _) => loaded?,
    };
    if let Command::Explain(explain) = &cli.command {
        return explain::explain(explain, &config, &mut Output::stdout());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let output = &mut Output::stdout();
    if let Command::Mcp = cli.command {
        return runtime.block_on(mcp::mcp(&config, output));
    }
    let code = runtime.block_on(execute(cli.command, &config, output))?;
    output.flush()?;
    Ok(code)
}

/// The commands that play receiver.
async fn play(command: &Command, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Simulate(simulate) => simulate::simulate(simulate, output).await,
        Command::Demo(demo) => demo::demo(demo, output).await,
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The commands that ask a running relay, a data folder or the DNS.
async fn execute(command: Command, config: &config::Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run | Command::Check(_) | Command::Password(_) | Command::Explain(_) => Ok(ExitCode::SUCCESS),
        Command::Simulate(_) | Command::Demo(_) | Command::Completions(_) | Command::Man(_) | Command::Mcp => {
            Ok(ExitCode::SUCCESS)
        }
        Command::Queue(command) => queue::queue(command, config, output).await,
        Command::Suppress(command) => suppress::suppress(command, config, output).await,
        Command::Status(status) => status::status(status, config, output).await,
        Command::Events(events) => events::events(events, config, output).await,
        Command::Trace(trace) => trace::trace(trace, config, output).await,
        Command::Pause(pause) => lane::pause(pause, config, output).await,
        Command::Resume(resume) => lane::resume(resume, config, output).await,
        Command::Forget(forget) => lane::forget(forget, config, output).await,
        Command::Health(health) => health::health(health, config, output).await,
        Command::Doctor(doctor) => doctor::doctor(&doctor, config, output).await,
        Command::Dkim(dkim::Dkim::Keygen(command)) => dkim::keygen(&command, output),
        Command::Dkim(dkim::Dkim::Show(command)) => dkim::show(&command, config, output),
        Command::Dkim(dkim::Dkim::Check(command)) => dkim::check(&command, config, output).await,
        Command::Report(report) => report::report(&report, config, output).await,
        Command::Send(send) => send::send(send, config, output).await,
        Command::Feedback(command) => feedback::feedback(command, config, output).await,
        Command::Rehearse(rehearse) => rehearse::rehearse(rehearse, config, output).await,
    }
}

#[cfg(test)]
mod named_tests;
#[cfg(test)]
mod tests;
