//! The cases of the RFC 7208 test suite, as the source package of pyspf brings them, against `doctor::spf`.
//!
//! The file is read where it lies and is no part of this repository: `$WEIR_TEST_PYSPF` names the unpacked package, else
//! `target/ci/pyspf` is looked at, where `.ci/run` puts it. Without it the test says so and passes;
//! `WEIR_TEST_PYSPF=required` makes that a failure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use weir::doctor::spf;
use weir::route::Dns;
use weir::route::dns::{Answer, Mx, NoAnswer, Records};
use yaml_rust2::{Yaml, YamlLoader};

const FILE: &str = "rfc7208-tests.yml";
/// Cases of the suite of 2014.04; fewer were read wrongly.
const CASES_MIN: usize = 200;

#[test]
fn every_case_of_the_rfc_7208_test_suite_has_one_of_its_results() {
    let Some(file) = suite() else {
        let required = std::env::var("WEIR_TEST_PYSPF").is_ok_and(|v| v == "required");
        assert!(!required, "WEIR_TEST_PYSPF=required, but {FILE} is not there");
        eprintln!("SKIPPED: {FILE} of the source package of pyspf is not there (.ci/run fetches it)");
        return;
    };
    let text = std::fs::read_to_string(&file).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut cases, mut wrong) = (0, Vec::new());
    for scenario in YamlLoader::load_from_str(&text).unwrap() {
        let zone = Zone::read(&scenario["zonedata"]);
        for (id, case) in scenario["tests"].as_hash().unwrap() {
            let text = |key: &str| case[key].as_str().unwrap_or_default();
            let client = spf::Client { ip: text("host").parse().unwrap(), helo: text("helo") };
            let found = runtime.block_on(spf::check(&zone, client, text("mailfrom")));
            let allowed = strings(&case["result"]);
            if !allowed.iter().any(|result| result == found.verdict.as_str()) {
                let (id, verdict, why) = (id.as_str().unwrap_or_default(), found.verdict, found.why);
                wrong.push(format!("{id} (section {}): {verdict} instead of {allowed:?}: {why}", text("spec")));
            }
            cases += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= CASES_MIN, "only {cases} cases were found in {}", file.display());
    eprintln!("{cases} cases of {}", file.display());
}

/// The file, in the unpacked package.
fn suite() -> Option<PathBuf> {
    let named = std::env::var_os("WEIR_TEST_PYSPF").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci/pyspf");
    let folders = [named, Some(usual)].into_iter().flatten();
    let inside = |folder: PathBuf| {
        let packages = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        [folder].into_iter().chain(packages).map(|package| package.join("test").join(FILE)).find(|file| file.is_file())
    };
    folders.into_iter().find_map(inside)
}

/// Names in lower case, with their records in order.
struct Zone(BTreeMap<String, Vec<Row>>);

#[derive(Clone)]
enum Row {
    /// Whoever asks for what does not stand above it waits in vain.
    TimeOut,
    Record(String, Vec<String>),
}

/// A text, or a list of them; numbers as they are written.
fn strings(value: &Yaml) -> Vec<String> {
    let one = |value: &Yaml| match value {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        other => panic!("no text: {other:?}"),
    };
    value.as_vec().map_or_else(|| vec![one(value)], |list| list.iter().map(one).collect())
}

impl Zone {
    /// What is written as SPF stands for TXT as well, unless the name has TXT records of its own.
    fn read(data: &Yaml) -> Zone {
        let mut zone = BTreeMap::new();
        for (name, rows) in data.as_hash().unwrap() {
            let rows = rows.as_vec().unwrap();
            let has_txt = rows.iter().any(|row| !row["TXT"].is_badvalue());
            let mut read = Vec::new();
            for row in rows {
                let Some(record) = row.as_hash() else {
                    assert_eq!(row.as_str(), Some("TIMEOUT"));
                    read.push(Row::TimeOut);
                    continue;
                };
                for (kind, value) in record {
                    let (kind, values) = (kind.as_str().unwrap(), strings(value));
                    let kind = if kind == "SPF" && !has_txt { "TXT" } else { kind };
                    if values != ["NONE"] {
                        read.push(Row::Record(kind.to_string(), values));
                    }
                }
            }
            zone.insert(name.as_str().unwrap().to_ascii_lowercase(), read);
        }
        Zone(zone)
    }

    fn look_up(&self, name: &str, kind: &str) -> Result<Vec<Vec<String>>, NoAnswer> {
        let mut name = name.trim_end_matches('.').to_ascii_lowercase();
        for _ in 0..10 {
            let Some(rows) = self.0.get(&name) else {
                let fails = name.starts_with("error.");
                return Err(if fails { NoAnswer::TimedOut } else { NoAnswer::NoSuchName { ttl: None } });
            };
            let mut found = Vec::new();
            let mut alias = None;
            for row in rows {
                match row {
                    Row::TimeOut if found.is_empty() => return Err(NoAnswer::TimedOut),
                    Row::TimeOut => return Ok(found),
                    Row::Record(other, values) if other == kind && values == &["TIMEOUT"] => {
                        return Err(NoAnswer::TimedOut);
                    }
                    Row::Record(other, values) if other == kind => found.push(values.clone()),
                    Row::Record(other, values) if other == "CNAME" => alias = Some(values[0].clone()),
                    Row::Record(..) => {}
                }
            }
            match alias {
                Some(target) if found.is_empty() => name = target.to_ascii_lowercase(),
                _ if found.is_empty() => return Err(NoAnswer::NoSuchRecord { ttl: None }),
                _ => return Ok(found),
            }
        }
        Err(NoAnswer::ServerFailure)
    }

    fn ask<'a, T: Send + 'a>(&self, name: &str, kind: &str, read: impl Fn(&[String]) -> T) -> Answer<'a, T> {
        let found = self.look_up(name, kind).map(|rows| Records {
            records: rows.iter().map(|values| read(values)).collect(),
            ttl: Duration::from_secs(60),
        });
        Box::pin(async move { found })
    }
}

fn parsed<T: FromStr<Err: std::fmt::Debug>>(values: &[String]) -> T {
    values[0].parse().unwrap_or_else(|e| panic!("{values:?}: {e:?}"))
}

impl Dns for Zone {
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Mx> {
        self.ask(name, "MX", |values| Mx { preference: parsed(values), exchange: values[1].clone() })
    }

    fn v4<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv4Addr> {
        self.ask(name, "A", parsed)
    }

    fn v6<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv6Addr> {
        self.ask(name, "AAAA", parsed)
    }

    fn ptr(&self, address: IpAddr) -> Answer<'_, String> {
        let name = hickory_proto::rr::Name::from(address).to_ascii();
        self.ask(&name, "PTR", |values| values[0].trim_end_matches('.').to_string())
    }

    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        self.ask(name, "TXT", |values| values.concat())
    }
}
