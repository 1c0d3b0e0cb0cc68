//! Plays the script files.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::types::{ByMode, DeliverBy, Ret, TransferPriority};

#[derive(Debug, Default)]
struct Script {
    name: String,
    lines: Vec<Line>,
    to: Vec<String>,
    from: String,
    body: Vec<u8>,
    is_file: bool,
    without_chunking: bool,
    /// The peer makes sure that nothing is sent before it has answered.
    lockstep: bool,
    mail: Vec<String>,
    rcpt: Vec<String>,
}

#[derive(Debug)]
enum Line {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Close,
    Silence,
    Expect(Vec<String>),
}

#[tokio::test(start_paused = true)]
async fn every_dialogue_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbound/tests/dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 30, "the scripts are missing");
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for size in PIPES {
            let script = Script::parse(&name, &text);
            faults.extend(
                Box::pin(play(&script, size)).await.into_iter().map(|f| format!("{name}, pipe of {size}: {f}")),
            );
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// What was otherwise than the script says.
async fn play(script: &Script, size: usize) -> Vec<String> {
    let (connector, far) = pipe(size);
    let (mut client, peer) = tokio::join!(run_client(script, &connector), run_peer(script, far));
    client.extend(peer);
    client
}

async fn run_client(script: &Script, connector: &Connector) -> Vec<String> {
    let mut expectations = script.lines.iter().filter_map(|line| match line {
        Line::Expect(expected) => Some(expected),
        _ => None,
    });
    let mut faults = Vec::new();
    let mut connection = match connector.open(&plan(TlsMode::Off)).await {
        Ok(connection) => connection,
        Err(error) => {
            let words = error.reply.map_or(error.text, |reply| reply.to_string());
            compare(expectations.next(), &[format!("open {:?} {words}", error.stage).to_lowercase()], &mut faults);
            return faults;
        }
    };
    let (transaction, _file) = script.transaction();
    for expected in expectations {
        let report = Box::pin(connection.transact(&transaction)).await;
        let recipients = transaction.recipients.iter();
        let mut came: Vec<String> = recipients
            .zip(&report.outcomes)
            .map(|(r, outcome)| format!("{} {}", r.address, describe(outcome)))
            .collect();
        if matches!(report.bdat, Bdat::Refused | Bdat::Lost | Bdat::Suspect) {
            came.push(format!("bdat {:?}", report.bdat).to_lowercase());
        }
        came.push(if report.reusable { "reusable" } else { "over" }.to_string());
        compare(Some(expected), &came, &mut faults);
        // What the peer says of its own accord arrives between two messages.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    connection.close().await;
    faults
}

fn compare(expected: Option<&Vec<String>>, came: &[String], faults: &mut Vec<String>) {
    let Some(expected) = expected else { return faults.push(format!("nothing was expected, but there is {came:?}")) };
    let matches = |(expected, came): (&String, &String)| match expected.split_once(" ~ ") {
        Some((start, part)) => came.starts_with(start) && came.contains(part),
        None => expected == came,
    };
    if expected.len() != came.len() || !expected.iter().zip(came).all(matches) {
        faults.push(format!("\n  expected {expected:#?}\n  but was  {came:#?}"));
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Replied { stage, reply } => format!("replied {stage} {}", reply.to_string().replace('\n', "\\n")),
        Outcome::Unsaid { stage, text } => format!("unsaid {stage} {text}"),
        Outcome::InDoubt { text } => format!("doubt {text}"),
        Outcome::Unsendable { status, text } => format!("unsendable {status} {text}"),
    }
}

async fn run_peer(script: &Script, mut far: DuplexStream) -> Vec<String> {
    let mut was_client = false;
    for line in &script.lines {
        if script.lockstep && was_client && matches!(line, Line::Server(_)) {
            let early = tokio::time::timeout(Duration::from_secs(1), far.read_u8()).await;
            if let Ok(Ok(byte)) = early {
                return vec![format!("{:?} was sent before the answer", char::from(byte))];
            }
        }
        was_client = matches!(line, Line::Client(_));
        match line {
            Line::Server(words) => say(&mut far, words).await,
            Line::Client(expected) => {
                let line = read_line(&mut far).await;
                if line != *expected {
                    return vec![format!("expected {:?} to be sent, but it was {:?}", shown(expected), shown(&line))];
                }
            }
            Line::Close => return Vec::new(),
            Line::Silence => {
                let mut rest = Vec::new();
                let _ = far.read_to_end(&mut rest).await;
                return Vec::new();
            }
            Line::Expect(_) => {}
        }
    }
    let line = read_line(&mut far).await;
    if line == b"QUIT\r\n" {
        say(&mut far, b"221 bye\r\n").await;
    } else if !line.is_empty() {
        return vec![format!("nothing more was to be sent, but there is {:?}", shown(&line))];
    }
    Vec::new()
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

impl Script {
    fn parse(name: &str, text: &str) -> Script {
        let mut script = Script {
            name: name.to_string(),
            to: vec!["a@x.test".to_string()],
            from: "s@example.com".to_string(),
            body: b"Subject: x\r\n\r\nhi\r\n".to_vec(),
            ..Script::default()
        };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            script.take(line);
        }
        script
    }

    fn take(&mut self, line: &str) {
        let words = |value: &str| value.split(' ').map(str::to_string).collect::<Vec<_>>();
        let with_end = |value: &str| [unescape(value), b"\r\n".to_vec()].concat();
        let (key, value) = line.split_once([':', ' ']).unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (key, value) {
            ("S", "<close>") => self.lines.push(Line::Close),
            ("S", "<silence>") => self.lines.push(Line::Silence),
            ("S", _) => self.lines.push(Line::Server(with_end(value))),
            ("C", _) => self.lines.push(Line::Client(with_end(value))),
            ("=", _) => match self.lines.last_mut() {
                Some(Line::Expect(expected)) if !is_whole(expected) => expected.push(value.to_string()),
                _ => self.lines.push(Line::Expect(vec![value.to_string()])),
            },
            ("to", _) => self.to = words(value),
            ("from", _) => self.from = value.to_string(),
            ("body", _) => self.body = unescape(value),
            ("file", "yes") => self.is_file = true,
            ("chunking", "off") => self.without_chunking = true,
            ("lockstep", "yes") => self.lockstep = true,
            ("mail", _) => self.mail = words(value),
            ("rcpt", _) => self.rcpt = words(value),
            _ => panic!("{}: {line:?} is no line of a script", self.name),
        }
    }

    fn transaction(&self) -> (Transaction, Option<tempfile::NamedTempFile>) {
        let mut envelope = Envelope { sender: ReversePath::parse(&self.from).unwrap(), ..envelope() };
        for word in &self.mail {
            match word.split_once('=').unwrap_or((word, "")) {
                ("8bit", _) => envelope.body_type = BodyType::EightBitMime,
                ("7bit", _) => envelope.body_type = BodyType::SevenBit,
                ("utf8", _) => envelope.smtputf8 = true,
                ("ret", "full") => envelope.ret = Some(Ret::Full),
                ("ret", "hdrs") => envelope.ret = Some(Ret::Hdrs),
                ("envid", text) => envelope.envid = Some(String::from_utf8(unescape(text)).unwrap()),
                ("priority", text) => envelope.requests.priority = TransferPriority::new(text.parse().unwrap()),
                ("by", text) => {
                    let mode = if text.contains('R') { ByMode::Return } else { ByMode::Notify };
                    let secs = text.split(';').next().unwrap().parse().unwrap();
                    envelope.requests.by = Some(DeliverBy { secs, mode, trace: text.ends_with('T') });
                }
                _ => panic!("{}: mail: {word:?}", self.name),
            }
        }
        let mut recipients: Vec<Recipient> = self.to.iter().map(|address| recipient(address)).collect();
        for recipient in &mut recipients {
            for word in &self.rcpt {
                match word.split_once('=').unwrap_or((word, "")) {
                    ("notify", text) => recipient.notify = Notify::parse(text).unwrap(),
                    ("orcpt", text) => recipient.orcpt = Some(String::from_utf8(unescape(text)).unwrap()),
                    _ => panic!("{}: rcpt: {word:?}", self.name),
                }
            }
        }
        let (body, file) = self.content();
        let by = envelope.requests.by;
        (Transaction { envelope: Arc::new(envelope), recipients, body, chunking: !self.without_chunking, by }, file)
    }

    fn content(&self) -> (Body, Option<tempfile::NamedTempFile>) {
        if !self.is_file {
            return (inline(self.body.clone()), None);
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.body).unwrap();
        let path = Arc::new(file.path().to_path_buf());
        (Body::File { path, size_bytes: self.body.len() as u64 }, Some(file))
    }
}

/// `reusable` or `over` closes what is expected of one transaction.
fn is_whole(expected: &[String]) -> bool {
    expected.last().is_some_and(|last| matches!(last.as_str(), "reusable" | "over"))
}

/// `\r`, `\n`, `\xNN`.
fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escaped.as_bytes().first() {
            Some(b'r') => (b'\r', 1),
            Some(b'n') => (b'\n', 1),
            Some(b'x') => (u8::from_str_radix(&escaped[1..3], 16).unwrap(), 3),
            _ => (b'\\', 0),
        };
        bytes.push(byte);
        rest = &escaped[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
