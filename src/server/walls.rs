//! The walls round the relay: what of its configuration decides them, and what a changed one asks beyond them.
//!
//! They are built once, before the runtime, and cannot be moved afterwards: what lies beyond them takes a restart, and a reload that
//! asks for it is refused with that text, so that the old configuration stays instead of one that fails later.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{admitted, web};
use crate::config::Config;
use crate::sandbox::{self, Confined, Needs};
use crate::spool;

/// Where programs expect to be able to keep what they need for a moment. The relay itself keeps nothing there.
const SCRATCH: [&str; 2] = ["/tmp", "/var/tmp"];
/// What the system says where the walls stand.
const DENIED: &str = "Permission denied";

/// The walls as they stand; none where the kernel or the operator has none.
#[derive(Debug, Default)]
pub(super) struct Walls {
    confined: Option<Confined>,
    /// A program of the operator's was foreseen.
    has_command: bool,
}

impl Walls {
    /// Shuts this thread, and all it starts from now on, in. `files`: what is read again when the configuration is.
    pub(super) fn build(config: &Config, files: &[PathBuf]) -> anyhow::Result<Walls> {
        say_root();
        // From inside a folder can only be made where one may write already.
        spool::make_folder(&config.data_dir)?;
        let needs = Needs {
            writes: vec![config.data_dir.clone()],
            reads: all_files(config, files),
            listens: config
                .listener
                .iter()
                .map(|listener| listener.address)
                .chain(config.http.socket())
                .map(|address| address.port())
                .collect(),
            runs_programs: !config.alerts.command.is_empty(),
            scratch: SCRATCH.map(PathBuf::from).to_vec(),
        };
        let confined = sandbox::confine(config.sandbox, &needs).context("cannot start")?;
        if let Some(confined) = &confined {
            tracing::info!("{confined}");
        }
        Ok(Walls { confined, has_command: needs.runs_programs })
    }

    /// What `config` asks that cannot be had in here.
    pub(super) fn beyond(&self, config: &Config, files: &[PathBuf]) -> Option<String> {
        let confined = self.confined.as_ref()?;
        if !self.has_command && !config.alerts.command.is_empty() {
            return Some(
                "alerts.command: no program can be started in the sandbox as it was built: restart weir".into(),
            );
        }
        let files = all_files(config, files);
        let file = confined.outside(files.iter().map(PathBuf::as_path))?;
        Some(format!("{} lies in a folder that the sandbox keeps shut since the start: restart weir", file.display()))
    }

    /// The faults of a configuration that could not be read, with what may be behind them.
    pub(super) fn explain(&self, faults: String) -> String {
        if self.confined.is_some() && faults.contains(DENIED) {
            faults + " (the sandbox lets weir read where its files lay at the start: for other places restart weir)"
        } else {
            faults
        }
    }
}

fn all_files(config: &Config, files: &[PathBuf]) -> Vec<PathBuf> {
    let of_hooks = config.webhook.iter().flat_map(|hook| [&hook.url_file, &hook.secret_file]);
    let of_hooks = of_hooks.filter(|file| !file.is_empty()).map(PathBuf::from);
    let token = web::file(config).map(Path::to_path_buf);
    let authorities = Some(&config.delivery.ca_file).filter(|file| !file.as_os_str().is_empty()).cloned();
    let passwords = config.route.iter().filter(|route| route.enabled).map(|route| &route.password_file);
    let passwords = passwords.filter(|file| !file.is_empty()).map(PathBuf::from);
    let of_keys = config.dkim.iter().map(|entry| &entry.key_file).filter(|file| !file.is_empty()).map(PathBuf::from);
    let tokens = Some(&config.feedback.key_file).filter(|file| !file.is_empty()).map(PathBuf::from);
    let given = files.iter().cloned().chain(admitted::files(config));
    given.chain(of_hooks).chain(token).chain(authorities).chain(passwords).chain(of_keys).chain(tokens).collect()
}

fn say_root() {
    if rustix::process::geteuid().is_root() {
        tracing::warn!(
            "weir runs as root, which it never needs: start it as a user of its own; ports below 1024 take the capability \
             CAP_NET_BIND_SERVICE alone (AmbientCapabilities= in systemd)"
        );
    }
}
