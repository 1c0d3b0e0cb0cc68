//! `[http]` beside the mail: served from the start on, and again from a reload on that changes the token or the names.
//!
//! Whoever is connected then has to ask again: sessions and live lines end with the token they began with. The address holds until
//! a restart.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shown;
use super::site::RelaySite;
use crate::config::Config;
use crate::http;
use crate::http::options::Http;
use crate::http::token::{self, Token};

pub(super) struct Web {
    site: Arc<RelaySite>,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: Mutex<Option<Running>>,
}

/// What is served just now.
struct Running {
    options: Http,
    token: String,
    stop: CancellationToken,
    /// Comes when its port is free again.
    ended: oneshot::Receiver<()>,
}

impl Web {
    /// Serves if `[http]` is set.
    pub(super) fn start(
        config: &Config,
        site: Arc<RelaySite>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Web> {
        let web = Web { site, tasks: tasks.clone(), stop: stop.clone(), running: Mutex::default() };
        if config.http.socket().is_some() {
            let token = read(config)?;
            web.site.keep_history(config.data_dir.clone(), tasks, stop.clone());
            web.serve(&config.http, token);
        }
        Ok(web)
    }

    /// The token of a changed configuration, or why there is none; nothing is changed yet.
    pub(super) fn prepare(&self, config: &Config) -> anyhow::Result<Option<Token>> {
        match config.http.socket() {
            Some(_) if self.is_running() => read(config).map(Some),
            _ => Ok(None),
        }
    }

    /// Serves with this token and the names of `config`, at the address it has had from the start.
    pub(super) fn reload(&self, config: &Config, token: Option<Token>) {
        if let Some(token) = token {
            self.serve(&config.http, token);
        }
    }

    fn is_running(&self) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn serve(&self, options: &Http, token: Token) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = options.clone();
        if let Some(before) = &*running {
            options.address.clone_from(&before.options.address);
            if before.options.hosts == options.hosts && before.token == token.text {
                return;
            }
        }
        let Some(address) = options.socket() else { return };
        let (stop, (tell_end, ended)) = (self.stop.child_token(), oneshot::channel());
        let next = Running { options: options.clone(), token: token.text.clone(), stop: stop.clone(), ended };
        let before = running.replace(next).map(|before| {
            before.stop.cancel();
            before.ended
        });
        let (site, tasks) = (self.site.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            if let Some(ended) = before {
                // An end that is not told is one too.
                let _ = ended.await;
            }
            http::serve(address, options, token.text, site, tasks, stop).await;
            let _ = tell_end.send(());
        });
    }
}

fn read(config: &Config) -> anyhow::Result<Token> {
    let token = token::read_or_make(&config.http, &config.data_dir).map_err(anyhow::Error::msg)?;
    if token.is_new {
        tracing::info!(target: "weir", "the token of the page and the API is in {}", shown(&token.path));
    }
    Ok(token)
}

/// The file that is read again at a reload, where it is none of our own.
pub(super) fn file(config: &Config) -> Option<&Path> {
    let file = config.http.token_file.as_str();
    (!file.is_empty()).then(|| Path::new(file))
}
