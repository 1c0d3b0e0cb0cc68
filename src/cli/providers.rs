//! Names of providers on the command line.

use super::config::Config;
use super::usage;
use crate::throttle::Profiles;
use crate::types::nearest::nearest;

/// Is `name` one that mail can have? That of a profile; or of a host, by which receivers without a profile are known.
pub(super) fn known(name: &str, config: &Config) -> anyhow::Result<()> {
    let profiles = Profiles::new(&config.settings.provider);
    let names: Vec<&str> = profiles.iter().map(|profile| &*profile.name).collect();
    if names.contains(&name) || name.contains(['.', ':']) {
        return Ok(());
    }
    let meant = nearest(name, names.iter().copied()).map(|near| format!(" (`{near}`?)")).unwrap_or_default();
    Err(usage(format!(
        "no such provider: {name}{meant}; there are {}, and each other receiver under the name of its host",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_and_hosts_are_known() {
        let config = Config::for_tests();
        for name in ["outlook", "gmail", "mx.example.com", "localhost:2525"] {
            known(name, &config).unwrap();
        }
        let said = known("outlok", &config).unwrap_err().to_string();
        assert!(
            said.starts_with("no such provider: outlok (`outlook`?); there are ") && said.contains("yahoo"),
            "{said}"
        );
        assert!(!known("bananas", &config).unwrap_err().to_string().contains('?'));
    }
}
