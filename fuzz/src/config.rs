//! The configuration (`config`): whatever stands in file and environment, it is taken or its faults are told in one line each; and what
//! was taken, printed and read again is the same. The input: the file, 0xFF, then `NAME=value` lines of the environment.

use weir::config::{Config, Finding, Sources};

use super::kit;

pub fn check(mut bytes: &[u8]) {
    let file = kit::part(&mut bytes);
    let lines = String::from_utf8_lossy(bytes);
    let variable = |line: &str| {
        let (name, value) = line.split_once('=')?;
        // One that names a file would have it read.
        (!name.contains("FILE")).then(|| (format!("WEIR_{name}"), value.to_string()))
    };
    let environment: Vec<(String, String)> = lines.lines().filter_map(variable).collect();
    match load(file, environment) {
        Ok((config, warnings)) => {
            are_lines(&warnings);
            let printed = config.print();
            if config.relay.user.iter().any(|user| !user.password.is_empty() || !user.password_hash.is_empty()) {
                return shows_no_secret(&config, &printed);
            }
            let (again, warnings) = load(printed.as_bytes(), Vec::new()).unwrap_or_else(|faults| {
                panic!("what was printed does not load: {faults:#?}\n{printed}");
            });
            assert_eq!(Config { trusts_attached: config.trusts_attached.clone(), ..again }, config, "{printed}");
            are_lines(&warnings);
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            are_lines(&faults);
        }
    }
}

fn load(file: &[u8], environment: Vec<(String, String)>) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
    let folder = kit::folder();
    let path = folder.path().join("weir.toml");
    std::fs::write(&path, file).expect("write the configuration");
    let attached =
        || (vec!["172.18.0.0/30".parse().expect("a network")], vec!["172.18.0.1".parse().expect("an address")]);
    let profiles = vec!["gmail".to_string(), "outlook".to_string()];
    let sources = Sources {
        file: Some(path),
        search: Vec::new(),
        environment,
        profiles,
        attached: &attached,
        lowest_port: 1024,
        foreign_keys: "/nowhere".into(),
    };
    Config::load(&sources)
}

/// A configuration with secrets is printed without them, and does not load as it stands then.
fn shows_no_secret(config: &Config, printed: &str) {
    assert!(printed.contains("***"));
    for secret in config.relay.user.iter().flat_map(|user| [&user.password, &user.password_hash]) {
        // Shorter ones stand in other words by chance.
        let text = String::from_utf8_lossy(secret.expose());
        assert!(text.len() < 12 || !printed.contains(&*text), "{text:?} is shown");
    }
}

/// What is said stands on one line of a terminal.
fn are_lines(findings: &[Finding]) {
    for finding in findings {
        let line = finding.to_string();
        assert!(!finding.what.is_empty() && !line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
