//! Carries notices to where the operator wants them: webhook, mail, command.
//!
//! Rules that always hold:
//! - each way has a task of its own, so that one that hangs holds up no other;
//! - on one way notices arrive in their order: an end never before its beginning;
//! - what fails for the moment is tried once more, later; what became of it is logged;
//! - word of a provider is never mailed through that provider.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::notice::Notice;
use super::options::{self, Target};
use super::{Means, command, mail};
use crate::clock::Clock;
use crate::post::{Client, Keep, Letter, PostError, Tls};
use crate::types::Mailbox;

/// Until the second and last try.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(30);
/// For one try of a webhook. One that takes longer is tried once more, later.
const POST_TIME: Duration = Duration::from_secs(15);
/// Notices that wait for one way: an hour's worth, and each takes at most a minute and a half.
const WAITING_MAX: usize = super::board::HOUR_MAX + 4;

/// The ways that are configured.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    webhook: Option<Target>,
    mail: Option<Mailbox>,
    command: Option<Vec<String>>,
}

impl Ways {
    /// What cannot be read was refused when the configuration was.
    pub(super) fn of(options: &options::Alerts) -> Ways {
        Ways {
            webhook: Target::parse(&options.webhook),
            mail: Mailbox::parse(&options.mail).ok(),
            command: options::words(&options.command).ok(),
        }
    }
}

/// Where a notice goes.
#[derive(Clone, Debug)]
enum Way {
    Webhook(Target),
    Mail(Mailbox),
    Command(Vec<String>),
}

struct Job {
    way: Way,
    notice: Arc<Notice>,
}

/// Hands notices to the tasks that carry them; never waits.
pub(super) struct Couriers {
    webhook: mpsc::Sender<Job>,
    mail: mpsc::Sender<Job>,
    command: mpsc::Sender<Job>,
}

impl Couriers {
    pub(super) fn start<M: Means>(
        means: &Arc<M>,
        clock: &Clock,
        tls: &Tls,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Couriers {
        let start = || {
            let (sender, jobs) = mpsc::channel(WAITING_MAX);
            let courier = Courier { means: means.clone(), clock: clock.clone(), tls: tls.clone() };
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = courier.work(jobs) => {}
                }
            });
            sender
        };
        Couriers { webhook: start(), mail: start(), command: start() }
    }

    pub(super) fn send(&self, notice: Notice, ways: &Ways) {
        let notice = Arc::new(notice);
        let hand = |sender: &mpsc::Sender<Job>, way: Option<Way>| {
            let Some(way) = way else { return };
            if sender.try_send(Job { way, notice: notice.clone() }).is_err() {
                tracing::error!("an alert is not sent on: too many wait for the one before; see the log for its words");
            }
        };
        hand(&self.webhook, ways.webhook.clone().map(Way::Webhook));
        hand(&self.mail, ways.mail.clone().map(Way::Mail));
        hand(&self.command, ways.command.clone().map(Way::Command));
    }
}

/// Why a notice did not arrive.
struct Trouble {
    text: String,
    is_temporary: bool,
}

struct Courier<M> {
    means: Arc<M>,
    clock: Clock,
    tls: Tls,
}

impl<M: Means> Courier<M> {
    async fn work(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            let name = name(&job.way);
            let mut result = self.carry(&job).await;
            if let Err(trouble) = &result
                && trouble.is_temporary
            {
                tracing::warn!(
                    "{name}: an alert did not arrive ({}); once more in {} s",
                    trouble.text,
                    RETRY_AFTER.as_secs()
                );
                self.clock.wake_at(self.clock.now() + RETRY_AFTER).await;
                result = self.carry(&job).await;
            }
            match result {
                Ok(()) => match job.notice.told.len() {
                    1 => tracing::info!("{name}: told of 1 alert"),
                    many => tracing::info!("{name}: told of {many} alerts"),
                },
                Err(trouble) => tracing::error!("{name}: an alert did not arrive: {}", trouble.text),
            }
        }
    }

    async fn carry(&self, job: &Job) -> Result<(), Trouble> {
        match &job.way {
            Way::Webhook(target) => self.post(target, &job.notice).await,
            // It may have told somebody before it failed: not again.
            Way::Command(words) => command::run(words, &job.notice)
                .await
                .map_err(|error| Trouble { is_temporary: false, text: error.to_string() }),
            Way::Mail(to) => self.mail(to, &job.notice).await,
        }
    }

    /// The operator alone wrote the URL, so it may lead anywhere.
    async fn post(&self, target: &Target, notice: &Notice) -> Result<(), Trouble> {
        let json = notice.json();
        let letter = Letter { target, json: &json, headers: &[], time_limit: POST_TIME, keep: Keep::Close };
        let posted = Client::new(self.tls.clone()).post(&letter, &*self.means, |_| Ok(())).await;
        posted.map_err(|error| Trouble { is_temporary: is_temporary(&error), text: with_cause(&error) })
    }

    async fn mail(&self, to: &Mailbox, notice: &Notice) -> Result<(), Trouble> {
        let provider = self.means.provider_of(to.domain()).await;
        let mut notice = notice.clone();
        let before = notice.told.len();
        notice.told.retain(|told| told.alert.provider.is_none() || told.alert.provider != provider);
        if notice.told.len() < before {
            tracing::warn!(
                "alerts.mail: {to} is at {}: {} alerts about it are not mailed through it; set alerts.webhook or alerts.command",
                provider.as_deref().unwrap_or_default(),
                before - notice.told.len()
            );
        }
        if notice.told.is_empty() {
            return Ok(());
        }
        let id = self.means.next_id(self.clock.now());
        let letter = mail::compose(&notice, to, id);
        self.means.mail(id, letter).await.map_err(|text| Trouble { text, is_temporary: true })
    }
}

/// May the same succeed a little later?
pub(super) fn is_temporary(error: &PostError) -> bool {
    match error {
        PostError::Status { status, .. } => status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
        PostError::Request(_) => false,
        _ => true,
    }
}

/// As the log names it. The webhook's path may hold a secret.
fn name(way: &Way) -> String {
    match way {
        Way::Webhook(target) => format!("alerts.webhook at {}", target.place()),
        Way::Mail(to) => format!("alerts.mail to {to}"),
        Way::Command(words) => format!("alerts.command {}", words.first().map_or("", String::as_str)),
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
