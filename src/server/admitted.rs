//! What the front door reads from files of its own: the certificate and the users. Read at the start, on SIGHUP, and by itself
//! when a file has changed.
//!
//! Rules that always hold:
//! - what cannot be read changes nothing: what was read before stays in force, and the log says why, once for each change;
//! - a file is known by what it leads to: links that are turned to a new file, as container platforms do it, are a change.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alert::Alerts;
use crate::auth::{Auth, Users};
use crate::clock::Clock;
use crate::config::Config;
use crate::inbound::options::{Relay, Tls};
use crate::inbound::tls::{Certificate, InForce, RENEW};
use crate::types::{Alert, Timestamp};

/// How often the files are looked at: a new certificate is in force long before the old one ends.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked at when the certificate ends, and how often the log says so.
const LOOK_AT_END_EVERY: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_secs(86_400);

/// Certificate and users in force.
pub(super) struct Admitted {
    pub(super) auth: Auth,
    /// None where no listener speaks TLS.
    pub(super) certificate: Option<InForce>,
    /// Where they are read from.
    from: Mutex<From>,
}

#[derive(Clone, Debug, PartialEq)]
struct From {
    relay: Relay,
    tls: Tls,
}

/// What a file looked like: changed in time, size or identity, it is another. None: it is not there.
type Look = Option<(i64, i64, u64, u64)>;

impl Admitted {
    pub(super) fn read(config: &Config, clock: Clock) -> anyhow::Result<Admitted> {
        let auth = Auth::new(users(&config.relay)?, clock);
        let is_used = config.listener.iter().any(|listener| listener.tls.is_used());
        let certificate = is_used.then(|| Certificate::load(&config.tls)).transpose()?.map(InForce::new);
        Ok(Admitted { auth, certificate, from: Mutex::new(From::of(config)) })
    }

    /// Reads both from where `config` says. Nothing is changed where one cannot be read.
    pub(super) async fn reload(self: &Arc<Admitted>, config: &Config) -> anyhow::Result<()> {
        let from = From::of(config);
        self.put_in_force(&from).await?;
        *self.from.lock().unwrap_or_else(PoisonError::into_inner) = from;
        Ok(())
    }

    /// Beside the threads of the sessions: a password that is given as it is takes a while to hash.
    async fn put_in_force(self: &Arc<Admitted>, from: &From) -> anyhow::Result<()> {
        let (admitted, from) = (self.clone(), from.clone());
        tokio::task::spawn_blocking(move || admitted.take(&from)).await.context("users and certificate")?
    }

    fn take(&self, from: &From) -> anyhow::Result<()> {
        let users = users(&from.relay)?;
        if let Some(in_force) = &self.certificate {
            in_force.replace(Certificate::load(&from.tls)?);
        }
        self.auth.replace(users);
        Ok(())
    }

    fn from(&self) -> From {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says it, in the log and as an alert, when the certificate is about to end, until `stop`.
    pub(super) fn watch_end(
        self: &Arc<Admitted>,
        alerts: Alerts,
        clock: Clock,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Some(certificate) = self.certificate.clone() else { return };
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut said_at: Option<Timestamp> = None;
            loop {
                let now = clock.now();
                let warning = certificate.certificate().warning(now);
                let is_due = said_at.is_none_or(|at| now.since(at) >= SAY_EVERY);
                if let Some(warning) = warning.as_ref().filter(|_| is_due) {
                    tracing::warn!("{warning}; {RENEW}");
                    said_at = Some(now);
                }
                alerts.tell(ending(warning));
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK_AT_END_EVERY) => {}
                }
            }
        });
    }

    /// Reads again what has changed, until `stop`.
    pub(super) fn watch(self: &Arc<Admitted>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (admitted, stop) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let mut from = admitted.from();
            let mut looks = from.looks().await;
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let now = admitted.from();
                let seen = now.looks().await;
                if now == from && seen != looks {
                    admitted.take_change(&now, &looks, &seen).await;
                }
                (from, looks) = (now, seen);
            }
        });
    }

    async fn take_change(self: &Arc<Admitted>, from: &From, before: &[Look], after: &[Look]) {
        let paths = from.paths();
        let changed = paths.iter().zip(before.iter().zip(after)).filter(|(_, (before, after))| before != after);
        let names: Vec<String> = changed.map(|(path, _)| path.display().to_string()).collect();
        match self.put_in_force(from).await {
            Ok(()) => tracing::info!("{} changed and is in force", names.join(", ")),
            Err(error) => tracing::error!(
                "{} changed and cannot be taken, what was read before stays: {error:#}",
                names.join(", ")
            ),
        }
    }
}

/// What stands of the certificate's end.
fn ending(warning: Option<String>) -> Alert {
    Alert {
        key: "certificate".to_string(),
        raised: warning.is_some(),
        text: warning.unwrap_or_default(),
        remedy: RENEW.to_string(),
        provider: None,
    }
}

/// The files that `config` has read here.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    From::of(config).paths()
}

fn users(relay: &Relay) -> anyhow::Result<Users> {
    Users::load(&relay.users_file, &relay.user).context("users")
}

impl From {
    fn of(config: &Config) -> From {
        From { relay: config.relay.clone(), tls: config.tls.clone() }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let passwords = self.relay.user.iter().flat_map(|user| [user.password_file.as_str(), user.token_file.as_str()]);
        let users = std::iter::once(self.relay.users_file.as_str()).chain(passwords).map(PathBuf::from);
        let tls = [self.tls.certificate.clone(), self.tls.key.clone()];
        tls.into_iter().chain(users).filter(|path| path != Path::new("")).collect()
    }

    async fn looks(&self) -> Vec<Look> {
        let mut looks = Vec::new();
        for path in self.paths() {
            let seen = tokio::fs::metadata(&path).await.ok();
            looks.push(seen.map(|seen| (seen.mtime(), seen.mtime_nsec(), seen.size(), seen.ino())));
        }
        looks
    }
}
