//! The configuration as the commands need it: the one place where it is loaded.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::auth::{UserFault, Users};
use crate::clock::Clock;
use crate::config::{Config as Settings, Fault, Sources};
use crate::dkim;
use crate::inbound::tls::{Certificate, RENEW};
use crate::outbound::roots;
use crate::route::Accesses;
use crate::route::attached::attached_networks;
use crate::throttle::Profiles;
use crate::verdict::Rules;
use crate::webhook;

/// What the commands know of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) data_dir: PathBuf,
    /// The HELO name, if one is set.
    pub(super) hostname: Option<String>,
    pub(super) listeners: Vec<SocketAddr>,
    /// The effective configuration as TOML, its secrets not shown.
    pub(super) effective: String,
    /// Where it comes from: a file, or `the built-in defaults`.
    pub(super) origin: String,
    /// The files it was read from.
    pub(super) files: Vec<PathBuf>,
    /// For people: keys that name nothing, and the like.
    pub(super) warnings: Vec<String>,
    pub(super) settings: Settings,
}

impl Config {
    /// The rules that read replies: the shipped ones, and those of the configuration before them.
    pub(super) fn rules(&self) -> anyhow::Result<Rules> {
        let own = self.settings.provider.iter().map(|provider| (provider.name.as_str(), provider.rule.as_slice()));
        Rules::with_own(own).map_err(|error| super::usage(error.to_string()))
    }

    /// The certificate of listeners that speak TLS, read as the relay reads it; nothing where none does. What is to be said of its end.
    pub(super) fn certificate(&self) -> anyhow::Result<Option<String>> {
        if !self.settings.listener.iter().any(|listener| listener.tls.is_used()) {
            return Ok(None);
        }
        let certificate = Certificate::load(&self.settings.tls).map_err(|error| super::usage(error.to_string()))?;
        let warning = certificate.warning(Clock::system().now());
        Ok(warning.map(|warning| format!("{warning}; {RENEW}")))
    }

    /// The passwords of next hops that stand in files.
    pub(super) fn logins(&self) -> anyhow::Result<()> {
        Accesses::load(&self.settings.route).map_err(|error| super::usage(error.to_string()))?;
        Ok(())
    }

    /// The authorities that are trusted beside the built-in ones.
    pub(super) fn authorities(&self) -> anyhow::Result<()> {
        roots::load(&self.settings.delivery.ca_file).map_err(|error| super::usage(error.to_string()))?;
        Ok(())
    }

    /// The keys of `[[dkim]]`, read as the relay reads them. What is to be said of them.
    pub(super) fn keys(&self) -> anyhow::Result<Vec<String>> {
        let loaded = dkim::load(&self.settings.dkim).map_err(|faults| {
            // One line each.
            super::usage(faults.iter().map(dkim::Fault::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        Ok(loaded.warnings)
    }

    /// The endpoints of events, with the files that hold what is secret of them.
    pub(super) fn webhooks(&self) -> anyhow::Result<()> {
        webhook::load(&self.settings.webhook).map_err(|error| super::usage(error.to_string()))?;
        Ok(())
    }

    /// The users who may log in: what the configuration names, and the files it points to.
    pub(super) fn users(&self) -> anyhow::Result<Users> {
        let relay = &self.settings.relay;
        Users::load(&relay.users_file, &relay.user).map_err(|error| {
            // One line each.
            super::usage(error.0.iter().map(UserFault::to_string).collect::<Vec<_>>().join("\n"))
        })
    }
}

/// Finds and reads the configuration: `--config`, else `$WEIR_CONFIG`, else `./weir.toml`, else `/etc/weir/weir.toml`, else
/// the built-in defaults. Faults are a `Usage` error, one line each.
pub(super) fn load(file: Option<&Path>) -> anyhow::Result<Config> {
    load_with(file, &[])
}

/// The same, with variables that are not in the environment any more.
pub(super) fn load_with(file: Option<&Path>, hidden: &[(String, String)]) -> anyhow::Result<Config> {
    let (settings, file, files, warnings) = read(file, hidden).map_err(|faults| {
        // With the line of the file below each.
        super::usage(faults.iter().map(|fault| format!("{fault:#}")).collect::<Vec<_>>().join("\n"))
    })?;
    Ok(Config {
        data_dir: settings.data_dir.clone(),
        hostname: (!settings.hostname.is_empty()).then(|| settings.hostname.clone()),
        listeners: settings.listener.iter().map(|listener| listener.address).collect(),
        effective: settings.show(),
        origin: file.as_ref().map_or_else(|| "the built-in defaults".to_string(), |path| path.display().to_string()),
        files,
        warnings,
        settings,
    })
}

/// The settings, the file they come from, all files that were read, and warnings.
type Loaded = (Settings, Option<PathBuf>, Vec<PathBuf>, Vec<String>);

/// The settings and where they come from; or all faults.
pub(super) fn read(file: Option<&Path>, hidden: &[(String, String)]) -> Result<Loaded, Vec<Fault>> {
    let profiles: Vec<String> = Profiles::new(&[]).iter().map(|profile| profile.name.to_string()).collect();
    let mut sources = Sources::of_process(file.map(Path::to_path_buf), profiles, &attached_networks);
    sources.environment.extend_from_slice(hidden);
    let file = sources.chosen_file();
    let (mut settings, warnings) = Settings::load(&sources)?;
    if !settings.trusts_attached.is_empty() && shares_host_network(Path::new(INTERFACES)) {
        settings.trusts_attached.push_str(HOST_NETWORK);
    }
    let mut warnings: Vec<String> = warnings.iter().map(|warning| format!("{warning:#}")).collect();
    if sources.in_container() {
        warnings.extend(super::container::warnings(&settings));
    }
    Ok((settings, file, sources.files(), warnings))
}

/// Where the kernel shows the interfaces of our network namespace.
const INTERFACES: &str = "/sys/class/net";
/// For the start line, behind the networks.
const HOST_NETWORK: &str = " - WHICH ARE THE HOST'S: this container shares its network (--network host), so every machine in them can send \
                            mail in your name; set relay.trusted_networks (WEIR_RELAY__TRUSTED_NETWORKS) to those that may";

/// Does this container see the host's own interfaces? A network of its own consists of ends of virtual cables; a card, or a bridge
/// that containers hang on, is the host's.
fn shares_host_network(interfaces: &Path) -> bool {
    let Ok(interfaces) = std::fs::read_dir(interfaces) else { return false };
    interfaces.flatten().any(|interface| {
        let path = interface.path();
        path.join("device").exists() || path.join("bridge").exists()
    })
}

#[cfg(test)]
impl Config {
    pub(super) fn for_tests() -> Config {
        Config {
            data_dir: PathBuf::from("weir-data"),
            hostname: None,
            listeners: Vec::new(),
            effective: String::new(),
            origin: "a test".to_string(),
            files: Vec::new(),
            warnings: Vec::new(),
            settings: Settings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_and_bridges_are_the_hosts() {
        let net = tempfile::tempdir().unwrap();
        let add = |path: &str| std::fs::create_dir_all(net.path().join(path)).unwrap();
        add("lo");
        add("eth0/statistics");
        assert!(!shares_host_network(net.path()) && !shares_host_network(&net.path().join("missing")));
        add("docker0/bridge");
        assert!(shares_host_network(net.path()));
        std::fs::remove_dir_all(net.path().join("docker0")).unwrap();
        add("enp3s0/device");
        assert!(shares_host_network(net.path()));
    }
}
