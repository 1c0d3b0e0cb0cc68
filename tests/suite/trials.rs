//! What people try first: the simulated receiver, and the demo.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::kit::relay::WEIR;
use crate::kit::{World, mail};

/// Ends with the test.
pub(crate) struct Trial(Child);

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Trial {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> (Trial, impl Iterator<Item = Value> + use<>) {
        let mut command = Command::new(WEIR);
        command.args(arguments).current_dir(folder).env("TMPDIR", folder).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        (Trial(child), output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()))
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
    }
}

#[test]
fn a_simulated_receiver_takes_mail_and_judges_when_it_is_interrupted() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("mine.toml");
    std::fs::write(&profile, "mailboxes = { unknown = ['gone@x.test'] }").unwrap();
    let arguments =
        ["simulate", "--profile", "mine.toml", "--listen", "127.0.0.1:0,127.0.0.2:0", "--noise", "0", "--json"];
    let (trial, mut records) = Trial::start(folder.path(), &arguments);
    let start = records.next().unwrap();
    assert_eq!((&start["record"], &start["hosts"][1]["name"]), (&"listening".into(), &"mx2.simulated.example".into()));
    let to = start["hosts"][0]["address"].as_str().unwrap();
    let route = format!("[[route]]\ndomain = \"x.test\"\nto = \"{to}\"");
    let relay = world.config().table(&route).start();
    relay.submit("app@sender.test", &["u@x.test", "gone@x.test"], &mail("trial", "x"));
    relay.wait_event("delivered", "u@x.test");
    relay.wait_event("bounced", "gone@x.test");
    trial.interrupt();
    let end = records.last().unwrap();
    assert_eq!((&end["record"], &end["faults"]), (&"judgement".into(), &Value::Array(Vec::new())));
    assert_eq!((&end["counts"]["messages_accepted"], &end["counts"]["refused"]["unknown"]), (&1.into(), &1.into()));
}

#[test]
fn a_configuration_is_tried_without_touching_what_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("own.toml");
    let text = "data_dir = \"./never\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n[[provider]]\nname = \"outlook\"\npause = \"1m\"\n";
    std::fs::write(&config, text).unwrap();
    let arguments = [
        "simulate",
        "--try",
        config.to_str().unwrap(),
        "--messages",
        "50",
        "--noise",
        "0",
        "--profile",
        "gentle",
        "--json",
    ];
    let (mut trial, records) = Trial::start(folder.path(), &arguments);
    let records: Vec<Value> = records.collect();
    assert!(trial.0.wait().unwrap().success(), "{records:?}");
    let (last, end) = (&records[records.len() - 2], records.last().unwrap());
    assert_eq!((&last["record"], &last["queued"]), (&"trial".into(), &0.into()), "{records:?}");
    let counts = &end["counts"];
    let accepted = counts["messages_accepted"].as_u64().unwrap() + counts["refused"]["unknown"].as_u64().unwrap();
    assert_eq!((&end["record"], accepted), (&"judgement".into(), 50), "{end}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [config], "neither its data folder nor the trial's own is there");
}

#[test]
fn the_demo_delivers_everything_and_leaves_nothing_but_its_plot() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["demo", "--messages", "60", "--json"];
    let (mut trial, records) = Trial::start(folder.path(), &arguments);
    let ends: Vec<Value> = records.filter(|record| record.get("counts").is_some()).collect();
    assert!(trial.0.wait().unwrap().success());
    let accepted = |n: usize| ends[n]["counts"]["recipients_accepted"].as_u64().unwrap();
    let unknown = |n: usize| ends[n]["counts"]["refused"]["unknown"].as_u64().unwrap();
    assert_eq!((accepted(0) + unknown(0), accepted(1) + unknown(1)), (48, 12));
    assert!(ends.iter().all(|end| end["left"] == 0 && end["faults"] == Value::Array(Vec::new())), "{ends:?}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [Path::new(ends[0]["plot"].as_str().unwrap())]);
    assert!(std::fs::read_to_string(&left[0]).unwrap().starts_with("<svg"));
}
