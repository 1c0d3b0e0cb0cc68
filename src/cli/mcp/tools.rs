//! What can be asked over the Model Context Protocol: the commands that only read.
//!
//! A call becomes the command line that a person would type, with `--json`, and its records are the answer. So there is nothing here
//! that the commands do not do, and nothing that changes anything: what is not in the table cannot be called.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::rc::Rc;

use serde_json::{Map, Value, json};

use crate::cli::config::Config;
use crate::cli::output::{Output, ReaderGone, with_causes};
use crate::cli::{Command, execute, explain, parse, usage_line};

/// An answer holds so many octets of records at most: what reads it has a memory, too.
const ANSWER_MAX: usize = 128 << 10;

/// A command, and what may be said to it.
pub(super) struct Tool {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    /// Their records one after the other.
    commands: &'static [&'static [&'static str]],
    parameters: &'static [Parameter],
}

struct Parameter {
    name: &'static str,
    about: &'static str,
    takes: Takes,
}

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// What the command is about; without it there is none.
    Subject,
    Text,
    /// So many records, if nothing is said and at most.
    Number {
        usual: u64,
        most: u64,
    },
}

const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, takes: Takes::Text }
}

const fn subject(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, takes: Takes::Subject }
}

const fn number(name: &'static str, about: &'static str, usual: u64, most: u64) -> Parameter {
    Parameter { name, about, takes: Takes::Number { usual, most } }
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "status",
        title: "Relay and lanes",
        about: "The relay (the first record: ready, problems, how much waits) and its lanes (one of our addresses at one receiver: connections, rate, why it is slow or stopped, until when). Begin here.",
        commands: &[&["health"], &["status"]],
        parameters: &[],
    },
    Tool {
        name: "queue_list",
        title: "List the queue",
        about: "What is in the queue, oldest first: one record for each message and recipient domain. All conditions that are given must hold.",
        commands: &[&["queue", "list"]],
        parameters: &[
            text("domain", "recipients' domain"),
            text("sender", "an address, @domain, or <> for reports"),
            text("recipient", "a recipient who still waits: an address or @domain"),
            text("provider", "the receiver, as status names it: outlook, gmail, …"),
            text("state", "waiting, active or held"),
            text("user", "who handed the message in"),
            text("message_id", "the Message-ID field, with or without angle brackets"),
            text("older_than", "received at least this long ago: 90m, 1d"),
            number("limit", "at most so many records", 50, 500),
        ],
    },
    Tool {
        name: "queue_show",
        title: "Show a message",
        about: "One message that is in the queue and why it waits: last reply and what it means, next attempt, its turn.",
        commands: &[&["queue", "show"]],
        parameters: &[subject("id", "the queue id, 13 letters and digits")],
    },
    Tool {
        name: "trace",
        title: "Tell a story",
        about: "The whole story of a recipient or a message from event log and queue: accepted, every attempt with the receiver's reply and what it means, how it stands or how it ended.",
        commands: &[&["trace"]],
        parameters: &[
            subject("subject", "a recipient's address, a queue id, or a Message-ID in angle brackets"),
            number("last", "the newest so many messages", 5, 20),
        ],
    },
    Tool {
        name: "explain",
        title: "Explain a reply",
        about: "What a receiver's SMTP reply means, what the relay does about it, and what a person can do.",
        commands: &[&["explain"]],
        parameters: &[
            subject("reply", "the reply, beginning with its code: 550 5.7.1 …"),
            text("provider", "read it as this receiver's"),
        ],
    },
    Tool {
        name: "suppress_check",
        title: "Look an address up in the suppression list",
        about: "Whether mail to an address is held back, since when and why.",
        commands: &[&["suppress", "check"]],
        parameters: &[subject("address", "the recipient's address")],
    },
    Tool {
        name: "events",
        title: "Read the event log",
        about: "The newest events that match, oldest first. Kinds: accepted, delivered, deferred, bounced, expired, removed, refused, suppressed, throttled, blocked, paused, resumed, returned, complained, unsubscribed, feedback, alert.",
        commands: &[&["events"]],
        parameters: &[
            text("kind", "one kind, or several with commas between them"),
            text("provider", "the receiver, as status names it"),
            text("recipient", "an address or @domain"),
            text("sender", "an address, @domain, or <> for reports"),
            text("id", "the queue id"),
            text("message_id", "the Message-ID field"),
            text("user", "who handed the message in"),
            text("since", "at or after this time (2027-01-31T00:00:00Z), or so long ago (2h)"),
            text("until", "before this time, or longer ago"),
            number("last", "the newest so many", 50, 500),
        ],
    },
];

pub(super) fn list() -> Value {
    json!({ "tools": TOOLS.iter().map(Tool::described).collect::<Vec<Value>>() })
}

pub(super) fn named(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

impl Tool {
    fn described(&self) -> Value {
        let property = |parameter: &Parameter| {
            let schema = match parameter.takes {
                Takes::Number { usual, most } => json!({
                    "type": "integer", "minimum": 1, "maximum": most, "default": usual, "description": parameter.about
                }),
                Takes::Subject | Takes::Text => json!({ "type": "string", "description": parameter.about }),
            };
            (parameter.name.to_string(), schema)
        };
        let properties: Map<String, Value> = self.parameters.iter().map(property).collect();
        let needed = self.parameters.iter().filter(|parameter| parameter.takes == Takes::Subject);
        json!({
            "name": self.name,
            "title": self.title,
            "description": self.about,
            "inputSchema": {
                "type": "object",
                "properties": properties,
                "required": needed.map(|parameter| parameter.name).collect::<Vec<&str>>(),
                "additionalProperties": false,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "records": { "type": "array", "items": { "type": "object" } },
                    "cut": { "type": "boolean", "description": "there is more than these records" },
                    "note": { "type": "string" },
                },
                "required": ["records", "cut"],
            },
            "annotations": { "title": self.title, "readOnlyHint": true, "openWorldHint": false },
        })
    }

    /// Runs the command. What it refuses is a result as well: whoever called may mend it.
    pub(super) async fn call(&self, arguments: &Map<String, Value>, config: &Config) -> Value {
        let paper = Paper::default();
        let mut output = Output::to(paper.clone());
        let mut limit = None;
        for command in self.commands {
            let line = match self.line(command, arguments) {
                Ok((line, most)) => {
                    limit = most;
                    line
                }
                Err(fault) => return failed(&fault),
            };
            let command = match parse(line) {
                Ok(cli) => cli.command,
                Err(error) => return failed(&usage_line(&error)),
            };
            let done = match &command {
                Command::Explain(command) => explain::explain(command, config, &mut output),
                _ => execute(command, config, &mut output).await,
            };
            if let Err(error) = done.and_then(|_| output.flush())
                && !error.is::<ReaderGone>()
            {
                return failed(&with_causes(&error));
            }
        }
        answer(&paper.0.borrow(), limit)
    }

    /// The command line, and how many records it gives at most.
    fn line(&self, command: &[&str], arguments: &Map<String, Value>) -> Result<(Vec<OsString>, Option<u64>), String> {
        if let Some(unknown) = arguments.keys().find(|name| self.parameters.iter().all(|of| of.name != *name)) {
            let known: Vec<&str> = self.parameters.iter().map(|of| of.name).collect();
            return Err(format!("{} takes no `{unknown}`; it takes: {}", self.name, known.join(", ")));
        }
        let mut line: Vec<OsString> = vec!["weir".into()];
        line.extend(command.iter().map(OsString::from));
        line.push("--json".into());
        let (mut subject, mut limit) = (None, None);
        for parameter in self.parameters {
            let given = arguments.get(parameter.name).filter(|value| !value.is_null());
            let option = || format!("--{}", parameter.name.replace('_', "-"));
            match (parameter.takes, given) {
                (Takes::Subject, Some(Value::String(value))) => subject = Some(value),
                (Takes::Subject, None) => return Err(format!("{} wants `{}`", self.name, parameter.name)),
                (Takes::Text, Some(Value::String(value))) => line.push(format!("{}={value}", option()).into()),
                (Takes::Subject | Takes::Text, Some(_)) => {
                    return Err(format!("`{}` must be a string", parameter.name));
                }
                (Takes::Text, None) => {}
                (Takes::Number { usual, most }, given) => {
                    let number = given.map_or(Some(usual), Value::as_u64).filter(|number| (1..=most).contains(number));
                    let number =
                        number.ok_or_else(|| format!("`{}` must be a number from 1 to {most}", parameter.name))?;
                    line.push(format!("{}={number}", option()).into());
                    limit = Some(number);
                }
            }
        }
        if let Some(subject) = subject {
            line.extend(["--".into(), subject.into()]);
        }
        Ok((line, limit))
    }
}

fn failed(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": true })
}

/// The records, and whether there are more.
fn answer(printed: &Printed, limit: Option<u64>) -> Value {
    let text = String::from_utf8_lossy(&printed.bytes);
    // What was cut off is no whole line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let records: Vec<Value> = whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let is_full = limit.is_some_and(|limit| records.len() as u64 >= limit);
    let note = match (printed.is_full, is_full) {
        (true, _) => Some(format!("cut at {} KiB: choose fewer records", ANSWER_MAX >> 10)),
        (false, true) => Some("as many as were asked for: there may be more".to_string()),
        (false, false) if records.is_empty() => Some("nothing matches".to_string()),
        _ => None,
    };
    let mut content = vec![json!({ "type": "text", "text": whole })];
    let mut structured = json!({ "records": records, "cut": printed.is_full || is_full });
    if let Some(note) = note {
        content.push(json!({ "type": "text", "text": note }));
        structured["note"] = note.into();
    }
    json!({ "content": content, "structuredContent": structured, "isError": false })
}

/// What a command prints, up to the limit; behind that nobody reads it any more, which ends the command.
#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Printed>>);

#[derive(Default)]
struct Printed {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut printed = self.0.borrow_mut();
        let n = bytes.len().min(ANSWER_MAX - printed.bytes.len());
        if n == 0 && !bytes.is_empty() {
            printed.is_full = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        printed.bytes.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn words(tool: &str, arguments: Value) -> Result<Vec<String>, String> {
        let arguments = arguments.as_object().unwrap().clone();
        let (line, _) = named(tool).map(|tool| tool.line(tool.commands[0], &arguments)).unwrap()?;
        Ok(line.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn every_tool_is_a_command_with_these_options() {
        let root = Cli::command();
        for (tool, words) in TOOLS.iter().flat_map(|tool| tool.commands.iter().map(move |words| (tool, words))) {
            let command = words.iter().fold(&root, |command, name| {
                command.find_subcommand(name).unwrap_or_else(|| panic!("{}: no `{name}`", tool.name))
            });
            for parameter in tool.parameters.iter().filter(|parameter| parameter.takes != Takes::Subject) {
                let option = parameter.name.replace('_', "-");
                let known = command.get_arguments().any(|argument| argument.get_long() == Some(&option));
                assert!(known, "{} has no --{option}", tool.name);
            }
            assert!(!["flush", "hold", "remove", "bounce", "add", "import"].contains(words.last().unwrap()));
        }
    }

    #[test]
    fn a_call_is_a_command_line_in_which_no_value_becomes_an_option() {
        let line =
            words("queue_list", json!({"sender": "<>", "older_than": "2h", "limit": 7, "domain": null})).unwrap();
        assert_eq!(line, ["weir", "queue", "list", "--json", "--sender=<>", "--older-than=2h", "--limit=7"]);
        let line = words("trace", json!({"subject": "--config=/etc/shadow"})).unwrap();
        assert_eq!(line, ["weir", "trace", "--json", "--last=5", "--", "--config=/etc/shadow"]);
        assert!(parse(line.into_iter().map(Into::into)).is_err());
    }

    #[test]
    fn what_a_tool_does_not_take_is_named() {
        for (tool, arguments, part) in [
            ("status", json!({"watch": true}), "status takes no `watch`"),
            ("queue_list", json!({"limit": 501}), "`limit` must be a number from 1 to 500"),
            ("queue_list", json!({"limit": "5"}), "`limit` must be a number"),
            ("queue_list", json!({"domain": 5}), "`domain` must be a string"),
            ("queue_show", json!({}), "queue_show wants `id`"),
            ("queue_show", json!({"id": ["x"]}), "`id` must be a string"),
        ] {
            let fault = words(tool, arguments).unwrap_err();
            assert!(fault.starts_with(part), "{fault}");
        }
    }

    #[test]
    fn a_long_answer_is_cut_between_records_and_says_so() {
        let paper = Paper::default();
        let mut output = Output::to(paper.clone());
        let mut count = 0;
        while output.json(&json!({ "n": count, "text": "x".repeat(1000) })).is_ok() {
            count += 1;
        }
        let answer = answer(&paper.0.borrow(), Some(1000));
        let records = answer["structuredContent"]["records"].as_array().unwrap();
        assert_eq!((records.len(), &answer["structuredContent"]["cut"]), (count, &true.into()));
        assert!(answer["structuredContent"]["note"].as_str().unwrap().starts_with("cut at 128 KiB"));
    }
}
