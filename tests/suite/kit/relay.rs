//! The relay under test: the real program, started with a configuration in a folder of its own.
//!
//! It is ready when its start line tells the addresses it listens on. When a test fails, the log, the configuration and
//! the last events are printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, PATIENCE, try_until, until};

/// The program that cargo built for this test.
pub const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// A configuration as text: keys of sections, and what stands behind them as it is.
#[derive(Clone)]
pub struct Config {
    keys: BTreeMap<String, BTreeMap<String, String>>,
    tables: String,
}

impl Config {
    /// Listens on a port of the kernel's choice, delivers to `port` on loopback, tries again within parts of a second.
    pub fn new(dns: SocketAddr, port: u16) -> Config {
        let config = Config { keys: BTreeMap::new(), tables: String::new() };
        config
            .set("", "hostname", "\"relay.test\"")
            .set("dns", "servers", &format!("[\"{dns}\"]"))
            .set("delivery", "port", &port.to_string())
            .set("delivery", "networks", "[\"127.0.0.0/8\"]")
            .set("queue", "retry", "[\"200ms\"]")
            .set("limits", "min_free_disk", "\"1 MiB\"")
            .table("[[listener]]\naddress = \"127.0.0.1:0\"")
    }

    /// Sets `key` of `[section]` ("" for the top) to a TOML value.
    pub fn set(mut self, section: &str, key: &str, value: &str) -> Config {
        self.keys.entry(section.to_string()).or_default().insert(key.to_string(), value.to_string());
        self
    }

    /// Leaves `key` of `[section]` at its default.
    pub fn without(mut self, section: &str, key: &str) -> Config {
        self.keys.entry(section.to_string()).or_default().remove(key);
        self
    }

    /// Appends a table such as `[[provider]]`, as it stands.
    pub fn table(mut self, text: &str) -> Config {
        let _ = writeln!(self.tables, "\n{text}");
        self
    }

    /// Listens on a port that is known beforehand, for commands that read it in the configuration. Taken from an address of
    /// its own, where nobody else looks for one.
    pub fn listen_on_a_known_port(self) -> Config {
        let free = TcpListener::bind((Ipv4Addr::new(127, 0, 3, 1), 0)).and_then(|l| l.local_addr());
        self.listen_at(free.expect("a free port"))
    }

    /// Gives the listener more settings, as lines of its table.
    pub fn with_listener(mut self, settings: &str) -> Config {
        self.tables = self.tables.replacen("[[listener]]\n", &format!("[[listener]]\n{settings}\n"), 1);
        self
    }

    /// Without the listener that is there of itself: another is appended as a table.
    pub fn without_listeners(mut self) -> Config {
        self.tables.clear();
        self
    }

    pub fn listen_at(mut self, address: SocketAddr) -> Config {
        self.tables = self.tables.replace("127.0.0.1:0", &address.to_string());
        self
    }

    pub fn to_toml(&self, data_dir: &Path) -> String {
        let mut text = format!("data_dir = \"{}\"\n", data_dir.display());
        for (section, keys) in &self.keys {
            if !section.is_empty() {
                let _ = writeln!(text, "\n[{section}]");
            }
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text + &self.tables
    }

    pub fn start(self) -> Relay {
        Relay::start(self)
    }
}

pub struct Relay {
    folder: TempDir,
    data: PathBuf,
    /// For the relay alone, not for commands.
    environment: BTreeMap<String, PathBuf>,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
    /// Who reads what it says.
    readers: Vec<JoinHandle<()>>,
    listeners: Vec<SocketAddr>,
    program: PathBuf,
}

impl Relay {
    /// Starts the program in a new folder and waits until it listens.
    pub fn start(config: Config) -> Relay {
        Relay::start_program(PathBuf::from(WEIR), config)
    }

    pub fn start_program(program: PathBuf, config: Config) -> Relay {
        let mut relay = Relay::prepare(program, config);
        relay.run();
        relay
    }

    /// The folder and the configuration, without the program running.
    pub fn prepare(program: PathBuf, config: Config) -> Relay {
        let folder = tempfile::Builder::new().prefix("weir-test-").tempdir().expect("a folder for the relay");
        let data = folder.path().join("data");
        std::fs::write(folder.path().join("weir.toml"), config.to_toml(&data)).expect("write the configuration");
        let (log, environment) = (Arc::default(), BTreeMap::new());
        Relay { folder, data, environment, child: None, log, readers: Vec::new(), listeners: Vec::new(), program }
    }

    /// A relay that the script `program` runs in a root of its own, with a configuration of its own; its data are seen at `data`.
    pub fn elsewhere(program: PathBuf, data: PathBuf) -> Relay {
        let folder = tempfile::Builder::new().prefix("weir-test-").tempdir().expect("a folder for the relay");
        let (log, environment) = (Arc::default(), BTreeMap::new());
        Relay { folder, data, environment, child: None, log, readers: Vec::new(), listeners: Vec::new(), program }
    }

    /// The program with its data on a disk of its own, and not running yet.
    pub fn prepare_on(disk: &Path, config: &Config) -> Relay {
        let mut relay = Relay::prepare(PathBuf::from(WEIR), config.clone());
        relay.data = disk.join("data");
        std::fs::write(relay.config_file(), config.to_toml(&relay.data)).expect("write the configuration");
        relay
    }

    /// Sets a variable for the relay itself, from its next start on.
    pub fn environment(&mut self, name: &str, value: &Path) {
        self.environment.insert(name.to_string(), value.to_owned());
    }

    /// From the next start on, `program` is run instead.
    pub fn use_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Starts the program in its folder and waits until it listens.
    #[track_caller]
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "the relay runs already");
        let start = self.log().len();
        let mut child = without_our_variables(&mut Command::new(&self.program))
            .args(["run", "--config"])
            .arg(self.config_file())
            .env("NO_COLOR", "1")
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", self.program.display()));
        self.readers.extend(child.stdout.take().map(|pipe| collect(pipe, &self.log)));
        self.readers.extend(child.stderr.take().map(|pipe| collect(pipe, &self.log)));
        self.child = Some(child);
        let found = try_until(PATIENCE, || {
            let listeners = listening(&self.log()[start..]);
            (!listeners.is_empty() || self.has_ended().is_some()).then_some(listeners)
        });
        self.listeners = found.unwrap_or_default();
        assert!(!self.listeners.is_empty(), "the relay did not say where it listens; it said:\n{}", self.log());
    }

    /// Where it takes mail.
    pub fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// The same of every listener, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// A client on 127.0.0.1 that has said EHLO.
    #[track_caller]
    pub fn client(&self) -> Client {
        let mut client = Client::connect(self.address());
        client.hello();
        client
    }

    /// Hands in one message and returns its queue id.
    #[track_caller]
    pub fn submit(&self, sender: &str, recipients: &[&str], content: &[u8]) -> String {
        self.client().submit(sender, recipients, content)
    }

    /// What the relay says to MAIL with these parameters, on a connection of its own: a yes, or the refusal that makes a client
    /// come again.
    #[track_caller]
    pub fn reply_to_mail(&self, parameters: &str) -> String {
        let mut client = self.client();
        client.send(&format!("MAIL FROM:<app@sender.test>{parameters}"));
        let reply = client.reply();
        assert!(reply.starts_with("250") || reply.starts_with("452 4.3.1"), "{reply}");
        client.ask("QUIT", "221");
        reply
    }

    /// Says MAIL again and again until it is answered so.
    #[track_caller]
    pub fn until_mail_is(&self, code: &str, parameters: &str) -> String {
        until(&format!("{code} to MAIL"), || {
            Some(self.reply_to_mail(parameters)).filter(|reply| reply.starts_with(code))
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.data.clone()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("weir.toml")
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many lines it has said, without those of outcomes: these are one for each attempt, however many the time allowed.
    pub fn lines_beside_outcomes(&self) -> usize {
        self.log().lines().filter(|line| !line.contains(" weir::mail: ")).count()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|c| Pid::from_raw(i32::try_from(c.id()).unwrap_or(0)));
        kill_process(pid.expect("the relay runs"), signal).expect("send a signal to the relay");
    }

    /// Writes another configuration, sends SIGHUP, and waits until it is in force.
    #[track_caller]
    pub fn reload(&self, config: &Config) {
        const DONE: &str = "configuration reloaded";
        let before = self.log().matches(DONE).count();
        std::fs::write(self.config_file(), config.to_toml(&self.data_dir())).expect("write the configuration");
        self.signal(Signal::HUP);
        until("the new configuration", || (self.log().matches(DONE).count() > before).then_some(()));
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// SIGKILL, and waits until it is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the relay");
            child.wait().expect("wait for the relay");
        }
        self.read_out();
    }

    /// What it said before its end is in the log.
    fn read_out(&mut self) {
        // A program that it started may hold the pipe longer than it lives.
        let _ = try_until(Duration::from_secs(5), || self.readers.iter().all(JoinHandle::is_finished).then_some(()));
        self.readers.clear();
    }

    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let status = until("the end of the relay", || self.has_ended());
        self.child = None;
        self.read_out();
        status
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|c| c.try_wait().expect("ask for the relay's end"))
    }

    /// Runs `weir ARGUMENTS` with this relay's configuration.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.command_with_input(arguments, b"")
    }

    #[track_caller]
    pub fn command_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(self.config_file());
        finish(command, input)
    }

    /// Runs a command that must succeed; what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(
            output.status.success(),
            "weir {} failed with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("a command prints UTF-8")
    }

    /// The objects a command prints with `--json`.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let text = self.ok(&arguments);
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l} is no JSON object: {e}"))).collect()
    }

    #[track_caller]
    pub fn queue(&self) -> Vec<Value> {
        self.json(&["queue", "list"])
    }

    #[track_caller]
    pub fn wait_queue_empty(&self) {
        let mut left = Vec::new();
        let done = try_until(PATIENCE * 2, || {
            left = self.queue();
            left.is_empty().then_some(())
        });
        assert!(done.is_some(), "the queue does not become empty; left: {left:#?}");
    }

    /// The event log so far, rotated files first. A line that is being written is left out.
    pub fn events(&self) -> Vec<Value> {
        let folder = self.data_dir().join("events");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&folder).map(|d| d.flatten().map(|f| f.path()).collect()).unwrap_or_default();
        files.retain(|f| f.extension().is_some_and(|e| e == "jsonl"));
        // "events-TIME" sorts behind "current".
        files.sort_by_key(|f| (f.ends_with("current.jsonl"), f.clone()));
        let mut events = Vec::new();
        for file in files {
            let text = std::fs::read(&file).unwrap_or_default();
            let complete = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
            for line in text[..complete].split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                let event = serde_json::from_slice(line);
                events.push(event.unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(line))));
            }
        }
        events
    }

    /// The events of one kind.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|e| e["event"] == kind).collect()
    }

    /// Waits for `n` events of a kind that `fits`, and returns them.
    #[track_caller]
    pub fn wait_events(&self, n: usize, kind: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        until(&format!("{n} events `{kind}`"), || {
            let found: Vec<Value> = self.events_of(kind).into_iter().filter(&fits).collect();
            (found.len() >= n).then_some(found)
        })
    }

    /// Waits for the first event of a kind about `recipient`.
    #[track_caller]
    pub fn wait_event(&self, kind: &str, recipient: &str) -> Value {
        until(&format!("an event `{kind}` for {recipient}"), || {
            self.events_of(kind).into_iter().find(|e| e["recipient"] == recipient)
        })
    }

    /// Every accepted recipient has exactly one end. Call it when all mail is settled.
    #[track_caller]
    pub fn assert_settled(&self) {
        self.wait_queue_empty();
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
        for event in self.events() {
            let id = event["id"].as_str().unwrap_or("").to_string();
            match event["event"].as_str().unwrap_or("") {
                "accepted" => {
                    let recipients = event["recipients"].as_u64().expect("`accepted` tells the number of recipients");
                    *accepted.entry(id).or_default() += usize::try_from(recipients).unwrap_or(usize::MAX);
                }
                "delivered" | "bounced" | "expired" | "removed" => *ends.entry(id).or_default() += 1,
                _ => {}
            }
        }
        // Reports of the relay's own were not accepted from anybody.
        let reports: Vec<_> = self.events().iter().filter(|e| e["sender"] == "").map(|e| e["id"].clone()).collect();
        ends.retain(|id, _| accepted.contains_key(id) || !reports.iter().any(|r| r == id.as_str()));
        assert_eq!(accepted, ends, "recipients accepted and recipients ended, by message");
    }

    /// Connections of clients that are open.
    #[allow(dead_code, reason = "for the siege")]
    #[track_caller]
    pub fn clients(&self) -> usize {
        let record = self.json(&["health"]).remove(0);
        record["clients"].as_u64().and_then(|n| usize::try_from(n).ok()).expect("a number of clients")
    }

    /// The memory it holds, in bytes (VmRSS).
    #[allow(dead_code, reason = "for the siege")]
    pub fn memory(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    /// The most memory it ever held, in bytes (VmHWM).
    pub fn memory_peak(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    fn memory_line(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read the relay's status");
        let line = status.lines().find(|l| l.starts_with(name)).expect("a line of the relay's status");
        let kib: u64 = line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of kB");
        kib * 1024
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let config = std::fs::read_to_string(self.config_file()).unwrap_or_default();
            eprintln!(
                "---- configuration\n{config}\n---- log\n{}\n---- events, the last of them",
                tail(&self.log(), 200)
            );
            let events = std::fs::read_to_string(self.data.join("events/current.jsonl")).unwrap_or_default();
            eprintln!("{}", tail(&events, 40));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Reads a pipe to its end, so that the relay never waits for a reader.
fn collect(pipe: impl Read + Send + 'static, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let log = log.clone();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// The addresses in the start line: the first complete line that speaks of listening.
fn listening(log: &str) -> Vec<SocketAddr> {
    let complete = log.rfind('\n').map_or(0, |at| at + 1);
    let line = log[..complete].lines().find(|l| l.to_ascii_lowercase().contains("listen"));
    let words = line.into_iter().flat_map(|l| l.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')));
    words.filter_map(|w| w.parse().ok()).filter(|a: &SocketAddr| a.port() != 0).collect()
}

/// Runs the program without a relay: `check`, `explain` and the like.
#[track_caller]
pub fn weir(arguments: &[&str]) -> Output {
    let mut command = Command::new(WEIR);
    command.args(arguments);
    finish(command, b"")
}

/// What steers the tests is nothing of the program's, which warns of variables that name no key.
fn without_our_variables(command: &mut Command) -> &mut Command {
    let names = std::env::vars_os().map(|(name, _)| name);
    let ours = names.filter(|name| name.to_string_lossy().starts_with("WEIR_TEST"));
    ours.fold(command, |command, name| command.env_remove(name))
}

/// Runs a command to its end, which has to come within the patience of a test.
#[track_caller]
pub fn finish(mut command: Command, input: &[u8]) -> Output {
    let command = without_our_variables(&mut command).env("NO_COLOR", "1");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start a command");
    let mut stdin = child.stdin.take().expect("a pipe to the command");
    let input = input.to_vec();
    // A command that reads no input closes the pipe: no error of the test.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let Some(status) = try_until(PATIENCE, || child.try_wait().expect("ask for the end of a command")) else {
        let _ = child.kill();
        panic!("waited {PATIENCE:?} in vain for the end of: {command:?}");
    };
    let _ = feeder.join();
    Output { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.map(|mut p| p.read_to_end(&mut bytes));
        bytes
    })
}

/// A program of the system, by name; none if it is not installed.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.into_iter().map(|f| f.join(name)).find(|f| f.is_file())
}

/// A loopback address that no client of another test has.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

#[test]
fn finds_the_addresses_in_a_start_line() {
    let log = "loading\nINFO weir: listening on 127.0.0.1:40123, 127.0.0.2:40124 (trusts 127.0.0.0/8)\nlistening on 1";
    let found: Vec<String> = listening(log).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["127.0.0.1:40123", "127.0.0.2:40124"]);
    assert!(listening("listening on 127.0.0.1:40").is_empty(), "the line is not complete");
}
