//! The server: builds the parts of the relay, starts them, and stops them in order.
//!
//! Start: the data folder is locked, spool and lists are opened, sockets bound; then the relay takes mail, and only then is the
//! backlog read. Stop (SIGTERM): no new connection and no new delivery; sessions past the end of data and
//! transactions under way are waited for, `shutdown_grace` at most; what was settled is written; the spool is closed. A second
//! signal ends at once, which loses nothing either.

mod admitted;
mod alerts;
mod allowances;
mod control;
mod feedback;
mod identity;
mod intake;
mod lanes;
pub(crate) mod listing;
mod preflight;
mod pressure;
mod reconcile;
mod resealing;
mod rules;
mod sealing;
mod seen;
mod site;
mod sts;
mod submission;
pub(crate) mod suppression;
mod threads;
mod walls;
mod web;
mod writers;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::alert::Alerts;
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatch::core::{Core, Settings, SourceAddress};
use crate::dispatch::engine::{self, Engine, Handle, Resources};
use crate::dispatch::message::Input;
use crate::dkim::{self, Signers};
use crate::event::{EventLog, Tail};
use crate::feedback::store::Store;
use crate::inbound::{Bound, Front, Slowed};
use crate::limits::{self, Connections};
use crate::metrics::Meters;
use crate::outbound::{Connector, Tcp, roots, tls};
use crate::post;
use crate::queue::Retry;
use crate::route::identity::{Identity, Reach};
use crate::route::{
    Accesses, Dns, FixedRoutes, HickoryDns, OwnAddresses, ProviderTable, Reachable, Router, Settings as RouterSettings,
    Sts, TlsPolicies,
};
use crate::spool::{self, Journal, Spool};
use crate::state;
use crate::suppress::List;
use crate::throttle::Profiles;
use crate::types::words::{count, count_of};
use crate::types::{Domain, Event, Mailbox, Seldom};
use crate::verdict::Rules;
use crate::webhook::{self, Hooks, Surroundings};
use admitted::Admitted;
use alerts::{RelayMeans, Roads};
use control::{About, RelayControl};
use feedback::Feedback;
use identity::Known;
use intake::SpoolIntake;
use pressure::Pressure;
use resealing::Resealing;
use sealing::Sealing;
use seen::Seen;
use site::RelaySite;
use walls::Walls;
use web::Web;
use writers::Writers;

/// Batches of committed messages on their way to dispatch.
const COMMITTED_MAX: usize = 64;
/// Batches of lines that somebody who looks on may be behind.
const LINES_MAX: usize = 64;
/// Look-ups at once for whoever asks for many domains.
const ASKED_AT_ONCE: usize = 50;
/// How long a stop waits for the last writes, beyond the grace for deliveries.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// How long a stop waits for look-ups and answers of commands that nobody needs any more.
const LAST_TASKS: Duration = Duration::from_millis(500);
const THREADS_MIN: usize = 2;
/// How long the start line waits for our own name.
const IDENTITY_WAIT: Duration = Duration::from_millis(500);
/// How often the routes to the Internet are looked at again.
const REACH_EVERY: Duration = Duration::from_secs(60);

/// Loads the configuration again, for SIGHUP; the text of an error tells every fault.
pub type Reload = Box<dyn Fn() -> Result<Config, String> + Send>;

/// Runs the relay until it is told to stop. `files`: what the configuration was read from.
pub fn run(config: Config, files: Vec<PathBuf>, reload: Reload) -> anyhow::Result<()> {
    // Before there is another thread: it would stay outside.
    let walls = Walls::build(&config, &files)?;
    // Two at least: signals and time limits must be heard beside the loop that decides.
    let threads = std::thread::available_parallelism().map_or(THREADS_MIN, |count| count.get().max(THREADS_MIN));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).enable_all().thread_name("weir").build()?;
    let ended = runtime.block_on(async {
        let dns = Arc::new(HickoryDns::new(&config.dns)?);
        let relay = Relay::start(config, dns, Clock::system(), reload).await?;
        relay.watch_memory();
        Relay { walls, files, ..relay }.work().await
    });
    // Whatever is still at work by now (a look-up of the system, an answer of a million lines) holds up no stop.
    runtime.shutdown_timeout(LAST_TASKS);
    ended
}

/// A relay inside a program that does more than that: it heeds no signals and ends when it is told to.
pub struct Embedded(Relay);

impl Embedded {
    /// Starts within the present runtime; `dns` answers whatever routing asks, `clock` says when everything is due.
    pub async fn start(config: Config, dns: Arc<dyn Dns>, clock: Clock) -> anyhow::Result<Embedded> {
        let reload: Reload = Box::new(|| Err("an embedded relay has no configuration to load again".into()));
        Ok(Embedded(Relay::start(config, dns, clock, reload).await?))
    }

    /// Where it takes mail: port 0 has become a port.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0.addresses
    }

    /// As on SIGTERM.
    pub async fn stop(mut self) {
        self.0.drain().await;
    }
}

/// The running relay.
struct Relay {
    config: Config,
    /// What it was read from.
    files: Vec<PathBuf>,
    walls: Walls,
    reload: Reload,
    dns: Arc<dyn Dns>,
    clock: Clock,
    spool: Spool,
    front: Arc<Front<SpoolIntake>>,
    admitted: Arc<Admitted>,
    intake: Arc<SpoolIntake>,
    state: state::Store,
    engine: Handle,
    connector: Connector,
    /// For webhooks, alerts and policy hosts.
    tls: post::Tls,
    sts: Arc<Sts>,
    rules: Arc<rules::InForce>,
    alerts: Alerts,
    means: Arc<RelayMeans>,
    preflight: preflight::Counter,
    hooks: Hooks<RelayMeans>,
    addresses: Vec<SocketAddr>,
    sessions: TaskTracker,
    tasks: TaskTracker,
    writers: Writers,
    stop_intake: CancellationToken,
    stop_engine: CancellationToken,
    stop_writers: CancellationToken,
    stop_http: CancellationToken,
    web: Web,
    site: Arc<RelaySite>,
    signals: Signals,
    engine_done: tokio::sync::oneshot::Receiver<()>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Relay {
    async fn start(mut config: Config, dns: Arc<dyn Dns>, clock: Clock, reload: Reload) -> anyhow::Result<Relay> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        };
        let cut = share_descriptors(&mut config);
        let (tasks, writers, sessions) = (TaskTracker::new(), Writers::new(), TaskTracker::new());
        let (stop_intake, stop_engine, stop_writers) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let stop_http = CancellationToken::new();

        let (committed_sender, committed) = mpsc::channel(COMMITTED_MAX);
        let meters = Meters::new(named(&config));
        let (lines, _) = broadcast::channel(LINES_MAX);
        let preflight = preflight::Counter::new(&config);
        let watched =
            Watched { log: Arc::default(), meters: meters.clone(), preflight: preflight.clone(), lines: lines.clone() };
        let opened = open_spool(&config, &clock, committed_sender, watched)?;
        let OpenSpool { spool, writer, tail, last_line } = opened;
        let sealing = Sealing::new(keys(&config).await?, clock.clone());
        writers.spawn("the spool", writer.sealing(sealing.clone()).run(stop_writers.clone()));
        let (suppressions, writer) = List::open(&config.data_dir.join("suppression.sqlite"), clock.clone())?;
        writers.spawn("the suppression list", writer.run(stop_writers.clone()));
        suppressions.set_policy(config.suppression.policy());
        tasks.spawn(suppressions.clone().keep_tidy(stop_engine.clone()));
        tasks.spawn(suppressions.clone().learn(stop_engine.clone()));
        let reconcile::Followed { settled, not_stored } =
            reconcile::follow(&spool, &tail, clock.now()).await.map_err(anyhow::Error::msg)?;
        if settled > 0 {
            tracing::info!("deliveries that had ended just before the last stop are settled now: {settled}");
        }
        if not_stored > 0 {
            tracing::info!(
                "messages the log called accepted, of which no client heard so, were not stored: {not_stored}"
            );
        }
        if settled + not_stored > 0 {
            spool.flush().await?;
        }

        let state::Opened { store, writer, records, problem } = state::open(&config.data_dir, clock.clone());
        writers.spawn("state.sqlite", writer.run(stop_writers.clone()));
        if let Some(problem) = problem {
            tracing::error!("{problem}");
        }

        let admitted = Arc::new(Admitted::read(&config, clock.clone())?);
        admitted.watch(&tasks, &stop_engine);
        let bound = Bound::bind(&config.listener, admitted.certificate.as_ref())?;
        let addresses = bound.addresses();
        let roots = roots::load(&config.delivery.ca_file)?;
        let tls = post::Tls::new(tls::provider(), &roots)?;
        let (used, records) = allowances::parted(records);
        let (policies, records) = sts::parted(records);
        let life = sts::Life { tasks: tasks.clone(), stop: stop_engine.clone() };
        let sts = sts::start(sts::around(&config, dns.clone()), &tls, &clock, store.clone(), life);
        sts.restore(&policies);
        tasks.spawn(sts.clone().keep_fresh());
        let accesses = Accesses::load(&config.route)?;
        let router = router(&config, &accesses, dns.clone(), &clock, &addresses, Some(&sts))?;
        let known = Arc::new(Known::nothing_yet());
        let roads = Roads { router: router.clone(), dns: dns.clone() };
        let means = RelayMeans::new(spool.clone(), known.clone(), clock.clone(), roads, sealing.clone());
        let alerts::Started { alerts, said } = alerts::start(&config, means.clone(), &tls, &tasks, &stop_engine);
        let endpoints = webhook::load(&config.webhook)?;
        let around = Surroundings {
            names: means.clone(),
            alerts: alerts.clone(),
            clock: clock.clone(),
            tls: tls.clone(),
            lines: last_line,
            events: config.data_dir.join("events"),
            cursors: config.data_dir.join("webhooks"),
        };
        let hooks = Hooks::new(around, &tasks, &stop_engine);
        hooks.serve(endpoints).await;
        admitted.watch_end(alerts.clone(), clock.clone(), &tasks, &stop_engine);
        let rules = rules::of(&config)?;
        let mut core = Core::new(core_settings(&config, &rules, &spool)?, clock.now());
        core.restore(lanes::restored(records), clock.now());
        let rules = Arc::new(rules::InForce::new(rules));
        let (slowed, seen) = (Slowed::default(), Seen::default());
        let connector = Connector::new(Arc::new(Tcp)).and_then(|connector| connector.with_roots(&roots));
        let connector = connector.context("cannot set up TLS")?.with_stop(stop_engine.clone());
        let connector = connector.with_signatures(Arc::new(Resealing(sealing.clone())));
        let resources = Resources {
            connector: connector.clone(),
            router: router.clone(),
            spool: spool.clone(),
            suppressions: suppressions.clone(),
            committed,
            alerts: said,
            memory: Arc::new(lanes::LaneMemory(store.clone())),
            slow: {
                let slowed = slowed.clone();
                Box::new(move |who, reason, until| slowed.slow(who, reason, until))
            },
            greeted: {
                let (seen, alerts, clock) = (seen.clone(), alerts.clone(), clock.clone());
                Box::new(move |local, host, line| {
                    if let Some(alert) = seen.note(local, host, line, clock.now()) {
                        alerts.tell(alert);
                    }
                })
            },
            timed: {
                let meters = meters.clone();
                Box::new(move |waited, took| meters.attempted_in(waited, took))
            },
            throttled: {
                let meters = meters.clone();
                Box::new(move |provider, class| meters.throttled(provider, class))
            },
            clock: clock.clone(),
            tasks: tasks.clone(),
            max_connections: config.delivery.max_connections,
        };
        let (engine, handle) = Engine::new(core, resources);
        let (done, engine_done) = tokio::sync::oneshot::channel();
        let stop = stop_engine.clone();
        tasks.spawn(async move {
            engine.run(stop).await;
            let _ = done.send(());
        });

        let parts = (suppressions.clone(), rules.clone(), spool.clone());
        let feedback = way_back(&config, parts, &clock, &tasks, &writers, (&stop_engine, &stop_writers))?;
        let intake = Arc::new(SpoolIntake {
            spool: spool.clone(),
            suppressions: suppressions.clone(),
            clock: clock.clone(),
            drops: AtomicBool::new(false),
            expire: AtomicU64::new(0),
            said: Seldom::minutely(),
            meters: meters.clone(),
            sealing,
            feedback: feedback.clone(),
        });
        intake.set_at_injection(config.suppression.at_injection);
        intake.set_expire(config.queue.expire.0);
        let greeting = if config.hostname.is_empty() { identity::private_name() } else { config.hostname.clone() };
        let front =
            Front::new(&greeting, &config.relay, &config.limits, admitted.auth.clone(), intake.clone(), clock.clone())?;
        let front = Arc::new(front.with_slowed(slowed));
        front.allowances().restore(used);
        allowances::keep(front.allowances().clone(), store.clone(), &tasks, &stop_engine);

        let duty = preflight::Duty {
            counter: preflight.clone(),
            spool: spool.clone(),
            sealing: intake.sealing.clone(),
            means: means.clone(),
            seen: seen.clone(),
            identity: known.clone(),
            engine: handle.clone(),
            alerts: alerts.clone(),
            clock: clock.clone(),
            events: config.data_dir.join("events"),
        };
        tasks.spawn(duty.run(stop_engine.clone()));

        let reading_backlog = Arc::new(AtomicBool::new(true));
        let control = RelayControl {
            about: About {
                since: clock.now(),
                data_dir: config.data_dir.display().to_string(),
                listeners: addresses.iter().map(SocketAddr::to_string).collect(),
                disk_min_bytes: config.limits.min_free_disk.0,
            },
            engine: handle.clone(),
            spool: spool.clone(),
            suppressions: suppressions.clone(),
            state: store.clone(),
            clock: clock.clone(),
            rules: rules.clone(),
            retry: Retry::new(&config.queue),
            identity: known.clone(),
            reading_backlog: reading_backlog.clone(),
            gate: front.gate().clone(),
            seen,
            tasks: tasks.clone(),
            feedback,
        };
        let control = Arc::new(control);
        let socket = admin::Server::bind(&config.data_dir)?;
        let (answers, control_tasks, stop_control) = (control.clone(), tasks.clone(), stop_engine.clone());
        tasks.spawn(async move { socket.serve(answers, control_tasks, stop_control).await });
        let site = Arc::new(RelaySite {
            control,
            meters: meters.clone(),
            lines,
            alerts: alerts.clone(),
            stopping: stop_intake.clone(),
            clock: clock.clone(),
            settings: RwLock::new(site::InForce::of(&config, dns.clone())),
            events: config.data_dir.join("events"),
            history: Mutex::default(),
            oldest: Mutex::default(),
            front: front.clone(),
            auth: admitted.auth.clone(),
            keys: tokio::sync::OnceCell::new(),
            data_dir: config.data_dir.clone(),
            message_size_max: config.limits.message_size.0,
        });
        let web = Web::start(&config, site.clone(), &tasks, &stop_http)?;
        tasks.spawn(bound.serve(front.clone(), sessions.clone(), stop_intake.clone()));

        let looked_up = find_identity(&config, dns.clone(), known.clone(), handle.clone(), &tasks);
        // Known at once unless the DNS must be asked, and the relay does not wait for a slow name server.
        let _ = tokio::time::timeout(IDENTITY_WAIT, looked_up).await;
        say_start(&config, &addresses, &spool, cut.as_deref(), known.problem().is_some()).await;
        watch_reach(router, &tasks, &stop_engine);
        read_backlog(spool.clone(), handle.clone(), reading_backlog, &tasks);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        Ok(Relay {
            config,
            files: Vec::new(),
            walls: Walls::default(),
            reload,
            dns,
            clock,
            spool,
            front,
            admitted,
            intake,
            state: store,
            engine: handle,
            connector,
            tls,
            sts,
            rules,
            alerts,
            means,
            preflight,
            hooks,
            addresses,
            sessions,
            tasks,
            writers,
            stop_intake,
            stop_engine,
            stop_writers,
            stop_http,
            web,
            site,
            signals,
            engine_done,
        })
    }

    /// The memory of the process is the affair of whoever has a process of its own.
    fn watch_memory(&self) {
        let (spool, engine, clock) = (self.spool.clone(), self.engine.clone(), self.clock.clone());
        Pressure { spool, engine, clock }.watch(&self.tasks, &self.stop_engine);
    }

    /// Until a signal ends it.
    async fn work(mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
                _ = self.signals.reload.recv() => self.reload().await,
                name = self.writers.death() => {
                    anyhow::bail!("what writes {name} has ended by itself: see the log; what was accepted is safe, start weir again")
                }
                _ = &mut self.engine_done => anyhow::bail!("the engine has ended by itself: see the log; start weir again"),
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping: finishing what is past the end of data, at most {}", self.config.shutdown_grace);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            biased;
            _ = terminate.recv() => tracing::warn!("stopped at once by a second signal; the queue is safe on disk"),
            _ = interrupt.recv() => tracing::warn!("stopped at once by a second signal; the queue is safe on disk"),
            () = self.drain() => tracing::info!("stopped"),
        }
        Ok(())
    }

    async fn drain(&mut self) {
        self.stop_intake.cancel();
        self.sessions.close();
        self.stop_engine.cancel();
        let grace = self.config.shutdown_grace.0;
        let quiet = async {
            self.sessions.wait().await;
            let _ = (&mut self.engine_done).await;
        };
        if tokio::time::timeout(grace, quiet).await.is_err() {
            tracing::warn!("some connections did not end within shutdown_grace; their mail stays queued");
        }
        // Until here it was told that we are stopping.
        self.stop_http.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST_TASKS, self.tasks.wait()).await.is_err() {
            tracing::debug!("{} tasks are left to the end of the process", self.tasks.len());
        }
        allowances::save(self.front.allowances(), &self.state);
        let writes = async {
            if let Err(error) = self.spool.flush().await {
                tracing::error!(%error, "the last outcomes could not be written");
            }
            self.stop_writers.cancel();
            self.writers.wait().await;
        };
        if tokio::time::timeout(LAST_WRITES, writes).await.is_err() {
            tracing::error!(
                "the spool did not finish its last writes in time; it is safe, its log is replayed at the next start"
            );
        }
    }

    /// Takes a changed configuration, as far as that is possible without a restart.
    async fn reload(&mut self) {
        let mut config = match (self.reload)() {
            Ok(config) => config,
            Err(faults) => {
                let faults = self.walls.explain(faults);
                tracing::error!("configuration not reloaded, the old one stays: {faults}");
                return;
            }
        };
        if let Some(beyond) = self.walls.beyond(&config, &self.files) {
            tracing::error!("configuration not reloaded, the old one stays: {beyond}");
            return;
        }
        // As at the start: what was cut then is no change now.
        share_descriptors(&mut config);
        let restart = self.config.restart_needed(&config);
        if !restart.is_empty() {
            tracing::warn!("these changes need a restart: {}", restart.join(", "));
        }
        config.delivery.max_connections = self.config.delivery.max_connections;
        config.limits.connections = self.config.limits.connections;
        match self.apply(&config).await {
            Ok(()) => {
                config.keep_until_restart(&self.config);
                self.config = config;
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!("configuration not reloaded, the old one stays: {error:#}"),
        }
    }

    /// The name servers as the system names them now, or those known where it cannot be asked any more.
    fn resolver(&self, config: &Config) -> Arc<dyn Dns> {
        match HickoryDns::new(&config.dns) {
            Ok(dns) => Arc::new(dns),
            Err(error) => {
                tracing::warn!(
                    "{:#}; the name servers stay as they were: restart weir to change them",
                    anyhow::Error::new(error)
                );
                self.dns.clone()
            }
        }
    }

    async fn apply(&self, config: &Config) -> anyhow::Result<()> {
        let dns = self.resolver(config);
        let (accesses, sts) = (Accesses::load(&config.route)?, Some(&self.sts));
        let router = router(config, &accesses, dns.clone(), &self.clock, &self.addresses, sts)?;
        let rules = rules::of(config)?;
        let settings = core_settings(config, &rules, &self.spool)?;
        let endpoints = webhook::load(&config.webhook)?;
        let token = self.web.prepare(config)?;
        let roots = roots::load(&config.delivery.ca_file)?;
        let keys = keys(config).await?;
        let tokens = feedback::prepare(config).map_err(anyhow::Error::msg)?;
        self.admitted.reload(config).await?;
        self.front.reload(&config.relay)?;
        self.connector.set_roots(&roots)?;
        self.tls.set_roots(&roots)?;
        self.sts.set_around(sts::around(config, dns.clone()));
        self.intake.set_at_injection(config.suppression.at_injection);
        self.intake.set_expire(config.queue.expire.0);
        self.intake.sealing.set(keys);
        if let Some(feedback) = &self.intake.feedback {
            feedback.set(tokens);
        }
        self.alerts.reload(&config.alerts);
        self.means.set_roads(Roads { router: router.clone(), dns: dns.clone() });
        self.intake.suppressions.set_policy(config.suppression.policy());
        self.preflight.set(config);
        self.engine.reconfigure(settings, router).await?;
        self.rules.set(rules);
        self.site.reload(config, dns);
        self.web.reload(config, token);
        self.hooks.serve(endpoints).await;
        Ok(())
    }
}

struct OpenSpool {
    spool: Spool,
    writer: spool::Writer,
    tail: Tail,
    last_line: watch::Receiver<u64>,
}

/// Opens what knows of tokens, where `[feedback]` is on.
fn way_back(
    config: &Config,
    (suppressions, rules, spool): (List, Arc<rules::InForce>, Spool),
    clock: &Clock,
    tasks: &TaskTracker,
    writers: &Writers,
    (stop_tasks, stop_writers): (&CancellationToken, &CancellationToken),
) -> anyhow::Result<Option<Arc<Feedback>>> {
    let prepared = feedback::prepare(config).map_err(anyhow::Error::msg)?;
    if config.feedback.domain().is_none() {
        return Ok(None);
    }
    let (store, writer) = Store::open(&config.data_dir, clock.clone())?;
    writers.spawn("feedback.sqlite", writer.run(stop_writers.clone()));
    let parts = feedback::Parts { store: store.clone(), suppressions, rules, spool, clock: clock.clone() };
    let feedback = Feedback::new(prepared, parts);
    if let Some(feedback) = &feedback {
        let kept = feedback.clone();
        tasks.spawn(store.keep_tidy(clock.clone(), move || kept.keep(), stop_tasks.clone()));
    }
    Ok(feedback)
}

/// The event log, counted as it is written. It is opened only when the data folder is ours: opening mends what a crash has torn.
#[derive(Clone)]
struct Watched {
    log: Arc<Mutex<Option<EventLog>>>,
    meters: Meters,
    preflight: preflight::Counter,
    /// For whoever looks on.
    lines: broadcast::Sender<Bytes>,
}

impl Journal for Watched {
    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        match &mut *self.log.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(log) => log.write(events).inspect(|()| {
                self.meters.count(events);
                self.preflight.count(events);
                if self.lines.receiver_count() > 0 && !events.is_empty() {
                    // Nobody looks on any more: nobody misses it.
                    let _ = self.lines.send(Bytes::copy_from_slice(log.last_batch()));
                }
            }),
            None => Err(io::Error::other("the event log is not open yet")),
        }
    }

    fn committed(&mut self, took: Duration) {
        self.meters.committed_in(took);
    }
}

/// The providers with a profile: those that metrics name.
fn named(config: &Config) -> Vec<Arc<str>> {
    Profiles::new(&config.provider).iter().map(|profile| profile.name.clone()).collect()
}

fn open_spool(
    config: &Config,
    clock: &Clock,
    committed: mpsc::Sender<Vec<spool::Committed>>,
    journal: Watched,
) -> anyhow::Result<OpenSpool> {
    let options = spool::Options {
        folder: config.data_dir.clone(),
        queue_messages: config.limits.queue_messages,
        min_free_bytes: config.limits.min_free_disk.0,
    };
    let (spool, writer) = Spool::open(options, clock.clone(), Box::new(journal.clone()), committed)?;
    let folder = config.data_dir.join("events");
    let tail =
        Tail::read(&folder, reconcile::TAIL_BYTES).with_context(|| format!("cannot read {}", folder.display()))?;
    let log = EventLog::open(&folder, &config.events, clock.clone()).context("cannot open the event log")?;
    spool::keep_private(&folder);
    let last_line = log.last_line();
    *journal.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    Ok(OpenSpool { spool, writer, tail, last_line })
}

/// The keys of `[[dkim]]`, those made that are to be made; what should be said of them goes into the log.
async fn keys(config: &Config) -> anyhow::Result<Signers> {
    let entries = config.dkim.clone();
    let read = tokio::task::spawn_blocking(move || {
        for record in dkim::make_missing(&entries)? {
            tracing::warn!("a DKIM key was made; publish its record, until then its signatures fail: {record}");
        }
        let said = |faults: Vec<dkim::Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        dkim::load(&entries).map_err(said)
    });
    let loaded = read.await?.map_err(anyhow::Error::msg)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.signers)
}

/// Raises the limit of descriptors and cuts what does not fit; says so if it did.
fn share_descriptors(config: &mut Config) -> Option<String> {
    let wanted = Connections { inbound: config.limits.connections, outbound: config.delivery.max_connections };
    let share = limits::share(limits::raise_descriptors(), wanted);
    config.limits.connections = share.connections.inbound;
    config.delivery.max_connections = share.connections.outbound;
    share.cut
}

fn router(
    config: &Config,
    accesses: &Accesses,
    dns: Arc<dyn Dns>,
    clock: &Clock,
    own: &[SocketAddr],
    sts: Option<&Arc<Sts>>,
) -> anyhow::Result<Arc<Router>> {
    let profiles = Profiles::new(&config.provider);
    let providers = ProviderTable::new(profiles.iter().map(|p| (&*p.name, p.mx.as_slice(), p.domains.as_slice())));
    let settings = RouterSettings {
        fixed: FixedRoutes::new(&config.route, config.delivery.port, accesses)?,
        providers,
        reachable: Reachable::new(&config.delivery, OwnAddresses::of_this_host(own.to_vec())),
        reach: Reach::probe(),
        policies: TlsPolicies::new(&config.tls_policy),
        sts: sts.filter(|_| config.delivery.mta_sts).cloned(),
    };
    Ok(Arc::new(Router::new(dns, clock.clone(), settings)))
}

/// The providers whose hosts take the mail of these domains, as the relay would find them; domains without hosts are left out.
pub async fn providers_of(config: &Config, domains: Vec<Domain>) -> anyhow::Result<BTreeMap<Domain, Arc<str>>> {
    let dns = Arc::new(HickoryDns::new(&config.dns)?);
    let router = router(config, &Accesses::unread(&config.route), dns, &Clock::system(), &[], None)?;
    let mut asked: JoinSet<Option<(Domain, Arc<str>)>> = JoinSet::new();
    let mut found = BTreeMap::new();
    let mut take = |ended: Result<Option<(Domain, Arc<str>)>, _>| found.extend(ended.ok().flatten());
    for domain in domains {
        if asked.len() >= ASKED_AT_ONCE
            && let Some(ended) = asked.join_next().await
        {
            take(ended);
        }
        let router = router.clone();
        asked.spawn(async move {
            let route = router.resolve(&domain).await.ok()?;
            Some((domain, route.hosts.first()?.provider.clone()))
        });
    }
    while let Some(ended) = asked.join_next().await {
        take(ended);
    }
    Ok(found)
}

fn core_settings(config: &Config, rules: &Rules, spool: &Spool) -> anyhow::Result<Settings> {
    let postmaster = match config.relay.postmaster.as_str() {
        "" => None,
        text => Some(Mailbox::parse(text).with_context(|| format!("relay.postmaster: `{text}`"))?),
    };
    let source = |source: &crate::outbound::options::Source| SourceAddress {
        name: source.name.as_str().into(),
        address: Some(source.address),
        helo: (!source.hostname.is_empty()).then(|| source.hostname.as_str().into()),
        warm_up: source.warm_up.iter().map(|provider| provider.as_str().into()).collect(),
    };
    let mut sources: Vec<SourceAddress> = config.source.iter().map(source).collect();
    if sources.is_empty() {
        sources.push(SourceAddress { name: "default".into(), address: None, helo: None, warm_up: Vec::new() });
    }
    let ids = spool.clone();
    Ok(Settings {
        sources,
        networks: config.delivery.networks.clone(),
        tls: config.delivery.tls,
        chunking: config.delivery.chunking,
        max_connections: config.delivery.max_connections,
        queue: config.queue.clone(),
        bounces: config.bounces.clone(),
        postmaster,
        profiles: Profiles::new(&config.provider),
        rules: rules.clone(),
        ids: Arc::new(move |now| ids.ids().next(now)),
        seed: fastrand::u64(..),
    })
}

/// The one line that says what listens where, where the data is, and how much is queued.
async fn say_start(config: &Config, addresses: &[SocketAddr], spool: &Spool, cut: Option<&str>, is_nameless: bool) {
    let listens: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let queued = spool.reader().counts().await.map_or(0, |counts| counts.messages);
    let mut line = format!(
        "weir {} listens on {}; data in {}; {} queued",
        env!("CARGO_PKG_VERSION"),
        listens.join(", "),
        shown(&config.data_dir),
        count(queued, "message"),
    );
    if !config.trusts_attached.is_empty() {
        line.push_str(&format!("; trusts loopback and the attached networks: {}", config.trusts_attached));
    }
    if let Some(cut) = cut {
        line.push_str(&format!("; {cut}"));
    }
    if is_nameless {
        line.push_str("; nothing is delivered to the Internet, as said above");
    }
    tracing::info!(target: "weir", "{line}");
}

fn shown(folder: &Path) -> String {
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf()).display().to_string()
}

/// Finds our own name in the background; what is returned ends when it is known.
fn find_identity(
    config: &Config,
    dns: Arc<dyn Dns>,
    known: Arc<Known>,
    engine: Handle,
    tasks: &TaskTracker,
) -> tokio::task::JoinHandle<()> {
    let configured = config.hostname.clone();
    tasks.spawn(async move {
        let identity = Identity::of_this_host(&configured, &*dns).await;
        let name = identity.name().map(str::to_string);
        known.set(identity);
        if let Some(problem) = known.problem() {
            tracing::warn!("{problem}");
        }
        let helo = name.clone().unwrap_or_else(identity::private_name);
        let _ = engine.send(Input::Identity { known: name.is_some(), helo: helo.as_str().into() }).await;
    })
}

fn watch_reach(router: Arc<Router>, tasks: &TaskTracker, stop: &CancellationToken) {
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REACH_EVERY) => router.set_reach(Reach::probe()),
            }
        }
    });
}

fn read_backlog(spool: Spool, engine: Handle, reading: Arc<AtomicBool>, tasks: &TaskTracker) {
    tasks.spawn(async move {
        if let Some(found @ 1..) = engine::read_backlog_until_done(&spool, &engine).await {
            let deliveries = count_of(found, "delivery of the last run is", "deliveries of the last run are");
            tracing::info!("{deliveries} taken up again");
        }
        reading.store(false, Ordering::Relaxed);
    });
}
