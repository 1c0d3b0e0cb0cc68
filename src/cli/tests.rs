//! The command line, and each command against a relay that answers by rote.

use std::io::Write;
use std::sync::{Arc, Mutex};

use clap::CommandFactory;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::admin::record::tests::{delivery, envelope, lane, suppressed};
use crate::admin::{
    Acted, Answer, Changed, Control, Failed, Imported, Input, Ordered, QueueDetail, QueueRecord, RelayRecord, Removed,
    Request, Server, StatusRecord, WaveRecord,
};
use crate::types::Timestamp;

fn read(line: &str) -> Result<Cli, clap::Error> {
    parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn exactly_the_commands_that_work_are_listed() {
    let names = |command: &clap::Command| -> Vec<String> {
        command.get_subcommands().map(|c| c.get_name().to_string()).collect()
    };
    let root = Cli::command();
    assert_eq!(
        names(&root),
        [
            "run",
            "check",
            "password",
            "explain",
            "queue",
            "suppress",
            "status",
            "events",
            "trace",
            "pause",
            "resume",
            "forget",
            "health",
            "doctor",
            "dkim",
            "report",
            "send",
            "feedback",
            "rehearse",
            "simulate",
            "demo",
            "mcp",
            "completions",
            "man"
        ]
    );
    let below = |name: &str| names(root.find_subcommand(name).unwrap());
    assert_eq!(below("queue"), ["list", "show", "flush", "hold", "release", "reroute", "bounce", "remove"]);
    assert_eq!(below("suppress"), ["list", "check", "count", "add", "remove", "confirm", "import", "export"]);
}

#[test]
fn what_people_type_is_read() {
    for line in [
        "weir run",
        "weir run --config /etc/weir/weir.toml",
        "weir --config weir.toml check --print",
        "weir password",
        "weir rehearse --count 60000 --mix outlook=60%,gmail=40% --start 2h --class bulk --plot p.svg --json",
        "weir rehearse --recipients list.txt --start 2030-12-01T18:00:00Z",
        "weir password --user app@example.com",
        "weir queue list --json --domain outlook.com --state held --older-than 2h",
        "weir queue list --sender <> --recipient @outlook.com --provider outlook --user app --message-id <1@x>",
        "weir queue show 0123456789ABC",
        "weir queue flush",
        "weir queue flush 0123456789ABC 0123456789ABD",
        "weir queue bounce --all",
        "weir queue remove --recipient a@outlook.com",
        "weir suppress add a@outlook.com --reason left --class recipient-unknown --expires 90d",
        "weir suppress check a@outlook.com --json",
        "weir suppress remove a@outlook.com b@outlook.com",
        "weir suppress import list.txt",
        "weir suppress remove --wave w7",
        "weir suppress remove --class mailbox-full --tag S775 --provider outlook --since 30d --until 2027-01-31T00:00:00Z",
        "weir suppress confirm w7",
        "weir suppress list --waves",
        "weir suppress import --strict",
        "weir suppress export --format csv --domain outlook.com",
        "weir suppress import",
        "weir suppress export",
        "weir explain 550 --provider gmail --stage rcpt",
        "weir explain --rules --json",
        "weir report outlook --json",
        "weir status --watch",
        "weir events",
        "weir events --follow --kind bounced,expired --provider outlook --sender <> --recipient @outlook.com --user app",
        "weir events --id 0123456789ABC --message-id <1@x> --since 2h --until 2030-12-01T18:00:00Z --last 5 --json",
        "weir trace a@outlook.com --last 3 --json",
        "weir trace 0123456789ABC",
        "weir trace <1@example.com>",
        "weir pause outlook",
        "weir pause --domain example.com --json",
        "weir resume --domain example.com --force",
        "weir pause --all",
        "weir resume --all",
        "weir forget outlook --source b --json",
        "weir health --ready",
        "weir mcp",
        "weir send --from a@example.com --to b@outlook.com --subject hello",
        "weir send --test b@outlook.com",
    ] {
        if let Err(error) = read(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for line in [
        "weir reroute",
        "weir queue show",
        "weir queue show nonsense",
        "weir queue list --state active,held",
        "weir queue list --domain not..a.domain",
        "weir queue list --older-than 5",
        "weir suppress check nobody",
        "weir send --test a@outlook.com --to b@outlook.com",
        "weir status --watch --json --colour",
        "weir run --json",
        "weir trace",
        "weir trace nobody",
        "weir events --last 0",
        "weir events --kind dreamt",
        "weir events --follow --until 2h",
        "weir pause",
        "weir resume --force",
        "weir pause outlook --force",
        "weir pause outlook --all",
        "weir resume --all --domain example.com",
        "weir pause --domain not..a.domain",
        "weir forget",
        "weir queue reroute --provider outlook",
    ] {
        assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert_eq!(read("weir queue").unwrap_err().exit_code(), 2);
    assert_eq!(read("weir --help").unwrap_err().exit_code(), 0);
    assert_eq!(read("weir --version").unwrap_err().exit_code(), 0);
}

#[test]
fn wrong_usage_is_one_line() {
    for (line, text) in [
        ("weir queue show", "the following required arguments were not provided: <ID>: see --help"),
        ("weir queue show x", "invalid value 'x' for '<ID>': `x` is no queue id: expected 13 letters and digits as in"),
        ("weir statsu", "unrecognized subcommand 'statsu' (a similar subcommand exists: 'status'): see --help"),
        ("weir run --json", "unexpected argument '--json' found: see --help"),
    ] {
        let said = usage_line(&read(line).unwrap_err());
        assert!(said.starts_with(text) && !said.contains('\n'), "{said}");
    }
}

/// A relay with one message, one lane, one suppressed recipient, and a full disk.
struct Rote;

impl Control for Rote {
    async fn answer(&self, request: Request, mut input: Input, answer: Answer) -> Result<(), Failed> {
        let known = envelope().id;
        let sick =
            RelayRecord { ready: false, problems: vec!["the disk is full".into()], ..status::tests::relay_record() };
        match request {
            Request::Status => {
                answer.record(&StatusRecord::Relay(sick)).await?;
                answer.record(&StatusRecord::Lane(lane())).await?;
            }
            Request::Health { .. } => answer.record(&sick).await?,
            Request::QueueList { .. } => answer.record(&QueueRecord::of(&envelope(), &delivery())).await?,
            Request::QueueShow { id } if id == known => {
                answer.record(&QueueDetail::of(&envelope(), &delivery())).await?;
            }
            Request::QueueShow { id } => return Err(Failed::new(format!("no message {id} is in the queue"))),
            Request::QueueAct { filter, progress, .. } => {
                if progress {
                    answer.record(&Acted::default()).await?;
                }
                let hits = u64::from(filter.ids.is_empty() || filter.ids.contains(&known));
                answer.record(&Acted { messages: hits, recipients: hits, note: None }).await?;
            }
            Request::QueueReroute { progress, .. } => {
                if progress {
                    answer.record(&Acted { messages: 1, recipients: 1, note: None }).await?;
                }
                answer.record(&Acted { messages: 2, recipients: 3, note: None }).await?;
            }
            Request::Pause { provider } | Request::Resume { provider, .. } if provider != "outlook" => {
                return Err(Failed::new(format!("no such provider: {provider}; there are gmail, outlook")));
            }
            Request::Pause { provider } => {
                let changes = vec!["outlook from default: paused by an operator".to_string()];
                answer.record(&Ordered { provider, domain: None, changes, waiting: 12_400 }).await?;
            }
            Request::Resume { provider, .. } | Request::Forget { provider, .. } => {
                answer.record(&Ordered { provider, ..Ordered::default() }).await?;
            }
            Request::PauseDomain { domain } | Request::ResumeDomain { domain, .. } => {
                let domain = Some(domain.to_string());
                answer.record(&Ordered { provider: "*".into(), domain, ..Ordered::default() }).await?;
            }
            Request::PauseAll | Request::ResumeAll { .. } => {
                answer.record(&Ordered { provider: "*".into(), ..Ordered::default() }).await?;
            }
            Request::SuppressList { .. } | Request::SuppressAdd { .. } => answer.record(&suppressed()).await?,
            Request::SuppressCheck { recipient } if recipient.as_str() == suppressed().recipient => {
                answer.record(&suppressed()).await?;
            }
            Request::SuppressCheck { .. } => {}
            Request::SuppressRemove { recipients } => {
                for recipient in recipients {
                    answer.record(&Removed { recipient, removed: true }).await?;
                }
            }
            Request::SuppressSweep { .. } | Request::SuppressConfirm { .. } => {
                answer.record(&Changed { entries: 2 }).await?;
            }
            Request::SuppressWaves => {
                let (first, last) = (Timestamp::from_secs(1_795_000_000), Timestamp::from_secs(1_795_000_900));
                let provider = Some("outlook".to_string());
                answer
                    .record(&WaveRecord { wave: "w7".into(), provider, entries: 412, first, last, expires: None })
                    .await?;
            }
            Request::SuppressImport => {
                let mut added = 0;
                while input.next().await.is_some() {
                    added += 1;
                }
                answer.record(&Imported { added, updated: 0 }).await?;
            }
            Request::Outcome { .. } | Request::Feedback { .. } => {}
        }
        Ok(())
    }
}

/// What a command wrote.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn run(line: &str, data_dir: &std::path::Path) -> (anyhow::Result<ExitCode>, String) {
    let paper = Paper::default();
    let mut output = Output::to(paper.clone());
    let config = config::Config { data_dir: data_dir.to_path_buf(), ..config::Config::for_tests() };
    let code = execute(read(line).unwrap().command, &config, &mut output).await;
    output.flush().unwrap();
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    (code, text)
}

/// Starts the relay by rote, runs the command, and stops it.
async fn against_rote(line: &str) -> (anyhow::Result<ExitCode>, String) {
    let folder = tempfile::tempdir().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let server = Server::bind(folder.path()).unwrap();
    tasks.spawn(server.serve(Arc::new(Rote), tasks.clone(), stop.clone()));
    let line = line.replace("FOLDER", folder.path().to_str().unwrap());
    std::fs::write(folder.path().join("list"), "a@outlook.com\nb@outlook.com\n").unwrap();
    let answer = run(&line, folder.path()).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    answer
}

#[tokio::test]
async fn every_command_prints_what_the_relay_says() {
    let id = envelope().id;
    for (line, part) in [
        ("weir status".to_string(), "outlook   default  paused"),
        ("weir queue list".into(), "news@example.com  bob@outlook.com"),
        (format!("weir queue show {id}"), "last reply:    451 4.7.650"),
        (format!("weir queue flush {id}"), "made due: 1 message, 1 recipient\n"),
        ("weir queue remove --all".into(), "removed: 1 message, 1 recipient\n"),
        (
            "weir queue reroute --provider outlook --to smart.example.com:25".into(),
            "rerouted to smart.example.com:25: 2 messages, 3 recipients\n",
        ),
        ("weir pause outlook".into(), "outlook from default: paused by an operator\noutlook: 12,400 wait\n"),
        ("weir resume outlook --force".into(), "outlook was neither paused nor blocked: nothing changed\n"),
        ("weir suppress list".into(), "gone@outlook.com  recipient-unknown"),
        ("weir suppress check gone@outlook.com".into(), "reply:      550 5.5.0"),
        ("weir suppress count --domain outlook.com".into(), "1 entry\n"),
        ("weir suppress add gone@outlook.com".into(), "recipient:  gone@outlook.com\n"),
        ("weir suppress add gone@outlook.com left@outlook.com".into(), "it is removed\n\nrecipient:"),
        ("weir suppress remove gone@outlook.com".into(), "gone@outlook.com is off the list\n"),
        ("weir suppress remove --wave w7".into(), "2 entries removed\n"),
        ("weir suppress remove --class mailbox-full --since 7d --dry-run".into(), "2 entries would be removed\n"),
        ("weir suppress confirm w7".into(), "wave w7 is confirmed: 2 entries to stay on the list\n"),
        ("weir suppress list --waves".into(), "w7    outlook"),
        ("weir suppress export --format csv".into(), "gone@outlook.com,recipient-unknown,550 5.5.0"),
        ("weir suppress import FOLDER/list".into(), "2 added, 0 updated\n"),
        ("weir health".into(), "alive\n"),
    ] {
        let (code, text) = against_rote(&line).await;
        assert_eq!(code.unwrap(), ExitCode::SUCCESS, "{line}");
        assert!(text.contains(part), "{line}: {part} is missing in\n{text}");
    }
}

#[tokio::test]
async fn json_is_one_object_a_line() {
    let id = envelope().id;
    for (line, key) in [
        ("weir status --json".to_string(), "connections_allowed"),
        ("weir queue list --json".into(), "next_attempt"),
        (format!("weir queue show {id} --json"), "last"),
        ("weir queue hold --json".into(), "messages"),
        ("weir pause outlook --json".into(), "changes"),
        ("weir suppress list --json".into(), "hits"),
        ("weir suppress export".into(), "recipient"),
        ("weir suppress list --waves --json".into(), "entries"),
        ("weir suppress import FOLDER/list --json".into(), "duplicates"),
        ("weir suppress check gone@outlook.com --json".into(), "suppressed"),
        ("weir suppress count --json".into(), "entries"),
        ("weir suppress remove gone@outlook.com --json".into(), "removed"),
        ("weir health --json".into(), "disk_free_bytes"),
    ] {
        let (code, text) = against_rote(&line).await;
        assert_eq!(code.unwrap(), ExitCode::SUCCESS, "{line}");
        let value: Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert!(value.get(key).is_some() && text.lines().count() == 1, "{line}: {text}");
    }
}

#[tokio::test]
async fn what_failed_is_told_by_the_exit_code() {
    let (code, text) = against_rote("weir health --ready").await;
    assert_eq!((code.unwrap(), text.as_str()), (ExitCode::FAILURE, "not ready: the disk is full\n"));
    let (code, text) = against_rote("weir suppress check bob@outlook.com").await;
    assert_eq!((code.unwrap(), text.as_str()), (ExitCode::FAILURE, "bob@outlook.com is not suppressed\n"));
    let (code, text) = against_rote("weir suppress check bob@outlook.com --json").await;
    assert_eq!(code.unwrap(), ExitCode::FAILURE);
    assert_eq!(text, "{\"recipient\":\"bob@outlook.com\",\"suppressed\":false}\n");
    for (line, words) in [
        ("weir queue list --provider outlok", "no such provider: outlok (`outlook`?); there are"),
        ("weir queue bounce --provider outlok", "no such provider: outlok"),
        ("weir report outlok", "no such provider: outlok"),
        ("weir queue show 0123456789ABC", "no message 0123456789ABC is in the queue"),
        ("weir queue bounce 0123456789ABC", "none of these messages is in the queue"),
        ("weir queue bounce", "would bounce the whole queue"),
        ("weir queue reroute --to 192.0.2.1:25", "would reroute the whole queue"),
        ("weir pause outlok", "no such provider: outlok; there are gmail, outlook"),
        ("weir suppress import FOLDER/missing", "cannot read"),
        ("weir suppress remove", "say what is to be removed"),
        ("weir suppress remove a@outlook.com --wave w7", "either addresses or options"),
    ] {
        let (code, text) = against_rote(line).await;
        let error = code.unwrap_err().to_string();
        assert!(error.contains(words) && text.is_empty(), "{line}: {error}");
    }
}

#[tokio::test]
async fn without_a_relay_every_command_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "weir status",
        "weir health",
        "weir pause outlook",
        "weir queue flush",
        "weir suppress add a@outlook.com",
        "weir send --test a@b.c",
    ] {
        let (code, _) = run(line, folder.path()).await;
        let error = code.unwrap_err().to_string();
        assert!(error.starts_with("no relay is running with data folder"), "{line}: {error}");
    }
}

/// Answers as a relay does that does not know how to say how far it is.
async fn old_relay(listener: tokio::net::UnixListener) -> Vec<String> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut asked = Vec::new();
    for answer in [
        "{\"error\":\"the relay does not understand this request (is it of another version?): unknown field `progress`\"}\n",
        "{\"messages\":3,\"recipients\":4,\"note\":null}\n{\"end\":true}\n",
    ] {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        asked.push(line);
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    asked
}

#[tokio::test]
async fn a_relay_of_an_older_version_is_asked_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let ((code, text), asked) = tokio::join!(run("weir queue flush", folder.path()), old_relay(listener));
    assert_eq!((code.unwrap(), text.as_str()), (ExitCode::SUCCESS, "made due: 3 messages, 4 recipients\n"));
    assert!(asked[0].contains("progress") && !asked[1].contains("progress"), "{asked:?}");
}
