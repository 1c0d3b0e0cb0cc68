//! Tables of rules as people write them (`verdict/file`, `[[provider.rule]]`): a table that is taken keeps the laws of the room for every
//! reply; one that is not is refused with words. The input: words of a reply, 0xFF, a table in TOML.

use weir::types::{Class, Reply, Scope, Stage, Verdict};
use weir::verdict::Rules;

use super::kit;

pub fn check(mut bytes: &[u8]) {
    let words = kit::part(&mut bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(rules) = of_the_program(text) {
        keeps_the_laws(&rules, words);
    }
    if let Some(rules) = of_an_operator(text) {
        keeps_the_laws(&rules, words);
    }
}

/// As one of the files that ship with weir: it reads for everybody.
fn of_the_program(text: &str) -> Option<Rules> {
    match Rules::from_tables(&[("default", text)]) {
        Ok(rules) => Some(rules),
        Err(error) => {
            assert!(!error.fault.is_empty() && error.to_string().contains(&error.file));
            None
        }
    }
}

/// As the rules of a `[[provider]]`, before the shipped ones.
fn of_an_operator(text: &str) -> Option<Rules> {
    let table: toml::Table = text.parse().ok()?;
    let rules: Vec<toml::Table> =
        table.get("rule")?.as_array()?.iter().filter_map(|rule| rule.as_table().cloned()).collect();
    match Rules::with_own([("outlook", rules.as_slice())]) {
        Ok(own) => {
            let names: Vec<&str> = own.list("outlook").map(|rule| rule.name).collect();
            for (at, rule) in rules.iter().enumerate() {
                let name = rule.get("name").and_then(toml::Value::as_str);
                assert_eq!(names.get(at).copied(), name, "own rules stand in front, in their order");
            }
            Some(own)
        }
        Err(error) => {
            assert!(!error.fault.is_empty());
            None
        }
    }
}

fn keeps_the_laws(rules: &Rules, words: &[u8]) {
    for provider in ["outlook", "mx.somewhere.test"] {
        for stage in Stage::ALL.iter().copied() {
            for code in [250, 421, 452, 550, 554] {
                let reply = Reply::new(code, words);
                let reading = rules.read(provider, stage, &reply);
                let by_the_code = match code / 100 {
                    2 => Verdict::Delivered,
                    4 => Verdict::Retry,
                    _ => Verdict::Bounce,
                };
                assert_eq!(reading.verdict, by_the_code, "{reply}");
                assert_eq!(reading.class == Class::Delivered, code == 250, "{reply}");
                assert!(!reading.breaker || reading.scope == Scope::Source, "{reading:?}");
                if reading.suppress {
                    assert!(code >= 500 && reading.scope == Scope::Recipient, "{reading:?}");
                    assert!(matches!(stage, Stage::Rcpt | Stage::Data), "{reading:?}");
                }
            }
        }
    }
}
