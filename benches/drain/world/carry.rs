//! Carries the core's actions out, and lets come true what came of them.

use std::time::Duration;

use weir::dispatch::message::{Action, ConnectionId, Done, Excerpt, Input, Job, Resolved, Transacted};
use weir::outbound::{Bdat, OpenError, OpenStage, Outcome, Plan};
use weir::route::Unroutable;
use weir::simulate::Mail;
use weir::types::{Domain, Recipient};

use super::site::{Connected, SOURCE};
use super::{Event, LEAVE, Open, SHORTLY, SIZE_BYTES, World};

/// A domain nobody knows is asked for again after this.
const NO_ROUTE: Duration = Duration::from_secs(60);

impl World {
    pub(super) fn carry_out(&mut self) {
        loop {
            let actions = self.core.actions();
            if actions.is_empty() {
                return;
            }
            self.work.actions += actions.len();
            actions.into_iter().for_each(|action| self.act(action));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Resolve(domain) => self.resolve(domain),
            Action::Open { connection, plan, job } => self.open(connection, &plan, job),
            Action::Start { connection, job } => self.transact(connection, job),
            Action::Close { connection } => self.close(connection),
            Action::Fetch { id } => {
                let stored = self.post.fetch(id);
                self.plan(SHORTLY, Event::Say(Input::Fetched { id, stored }));
            }
            Action::Commit(changes) => {
                let reports: Vec<_> = changes.into_iter().filter_map(|change| self.post.commit(change)).collect();
                if !reports.is_empty() {
                    self.plan(SHORTLY, Event::Say(Input::Accepted(reports)));
                }
            }
            Action::Suppress { key, .. } => self.plan(SHORTLY, Event::Say(Input::Suppressed { key, listed: true })),
            Action::Warn(_) => self.work.warnings += 1,
            Action::Load { until } => {
                self.plan(SHORTLY, Event::Say(Input::Loaded(self.post.due(until))));
            }
            Action::Remember(records) => {
                self.remembered.extend(records.into_iter().map(|record| (record.name, record.state)));
            }
            // Nobody gives commands.
            _ => {}
        }
    }

    fn resolve(&mut self, domain: Domain) {
        let clock = self.clock();
        let route = self.sites.iter().find_map(|site| site.route(&domain, clock));
        let result = route.ok_or_else(|| Unroutable {
            permanent: false,
            status: "4.4.3",
            text: format!("nobody in this world receives mail for {domain}"),
            valid_until: clock + NO_ROUTE,
        });
        self.plan(SHORTLY, Event::Say(Input::Routed { domain, result }));
    }

    fn open(&mut self, connection: ConnectionId, plan: &Plan, job: Job) {
        let (source, host) = (plan.bind.unwrap_or(SOURCE), plan.address.ip());
        let site = self.sites.iter().position(|site| site.has_host(host)).expect("a host of this world");
        self.look_back(site);
        let mut counted = true;
        let (session, wait, event) = match self.sites[site].connect(source, host, self.now) {
            Connected::Open { session, wait } => (Some(session), wait, Event::Opened(connection, job)),
            Connected::Refused { reply, wait } => {
                let text = reply.to_string();
                let error = OpenError { stage: OpenStage::Greeting, reply: Some(reply), text };
                (None, wait, Event::Failed(connection, error))
            }
            Connected::Silent { wait } => {
                counted = false;
                let text = format!("connect to {host}: no answer");
                let error = OpenError { stage: OpenStage::ConnectTimeout, reply: None, text };
                (None, wait, Event::Failed(connection, error))
            }
        };
        self.open.insert(
            connection,
            Open { site, session, counted, transactions: 0, opening: true, busy: true, closing: false },
        );
        self.plan(wait, event);
    }

    /// A stretch without attempts ends, if this is one that counts: at the end of a backlog what was put off alone waits alone.
    fn look_back(&mut self, site: usize) {
        if self.left() * 10 > self.submitted {
            let now = self.now;
            self.sites[site].look_back(&self.addresses, now);
        }
    }

    /// Holds a transaction: asks the receiver now, and tells the relay when it would have heard.
    fn transact(&mut self, connection: ConnectionId, job: Job) {
        let Some(open) = self.open.get_mut(&connection) else { return };
        open.transactions += 1;
        open.busy = true;
        let (site, session) = (open.site, open.session);
        let Some((envelope, delivery)) = self.post.content(&job) else {
            return self.plan(SHORTLY, Event::Done(connection, Box::new(Done::Missing { reusable: true }), false));
        };
        let goes_on = job.recipients.is_some();
        let mut offered: Vec<Recipient> = job.recipients.unwrap_or_else(|| delivery.recipients.clone());
        let rest = offered.split_off(job.recipients_max.max(1).min(offered.len()));
        offered.iter().for_each(|recipient| self.post.offer(envelope.id, recipient));
        let Some(session) = session else { return };
        let identity = envelope.id.to_string();
        let mail = Mail { sender: envelope.sender.as_str(), size_bytes: Some(SIZE_BYTES), identity: Some(&identity) };
        let addresses: Vec<&str> = offered.iter().map(|recipient| recipient.address.as_str()).collect();
        self.look_back(site);
        let heard = self.sites[site].transact(session, &mail, &addresses, self.now);
        for (recipient, outcome) in offered.iter().zip(&heard.outcomes) {
            if let Outcome::Replied { reply, .. } = outcome
                && !reply.is_transient()
            {
                self.post.settle(envelope.id, recipient);
            }
        }
        let held = Transacted {
            envelope,
            delivery: (!goes_on).then_some(delivery),
            results: offered.into_iter().zip(heard.outcomes.into_iter().map(Resolved::Outcome)).collect(),
            rest,
            reusable: !heard.closed,
            offered: Default::default(),
            bdat: Bdat::Untold,
            tls: "none".into(),
            excerpt: Some(Excerpt::default()),
        };
        self.plan(heard.wait, Event::Done(connection, Box::new(Done::Held(Box::new(held))), heard.closed));
    }

    fn close(&mut self, connection: ConnectionId) {
        let Some(open) = self.open.get_mut(&connection) else { return };
        assert!(!open.closing, "a connection is closed twice");
        open.closing = true;
        // What is called back while it opens ends when it is open.
        if !open.opening {
            self.plan(LEAVE, Event::Closed(connection));
        }
    }

    /// A connection stands: its first transaction begins, but not if it was called back meanwhile.
    fn opened(&mut self, connection: ConnectionId, job: Job) {
        self.tell(Input::Opened { connection, limits: Default::default() });
        let Some(open) = self.open.get_mut(&connection) else { return };
        open.opening = false;
        if open.closing {
            self.tell(Input::Done { connection, done: Done::NotStarted });
            self.plan(LEAVE, Event::Closed(connection));
        } else {
            self.transact(connection, job);
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Say(input) => self.tell(input),
            Event::Arrive { site, count, mix } => {
                self.to_come -= count;
                self.submit(site, count, mix);
            }
            Event::Clock(ahead_millis) => self.set_clock(ahead_millis),
            Event::Opened(connection, job) => self.opened(connection, job),
            Event::Failed(connection, error) => {
                self.hang_up(connection);
                self.tell(Input::OpenFailed { connection, error });
            }
            Event::Done(connection, done, closed) => self.done(connection, *done, closed),
            Event::Closed(connection) => {
                if self.hang_up(connection) {
                    self.tell(Input::Closed { connection });
                }
            }
            Event::IdleEnds(connection, transactions) => self.idle_ends(connection, transactions),
        }
    }

    fn done(&mut self, connection: ConnectionId, done: Done, closed: bool) {
        let Some(open) = self.open.get_mut(&connection) else { return };
        open.busy = false;
        let (site, transactions) = (open.site, open.transactions);
        if closed && std::mem::take(&mut open.counted) {
            self.sites[site].closed(open.session, self.now);
        } else if let Some(wait) = self.sites[site].idle_patience() {
            self.plan(wait, Event::IdleEnds(connection, transactions));
        }
        self.tell(Input::Done { connection, done });
    }

    fn idle_ends(&mut self, connection: ConnectionId, transactions: u32) {
        let is_idle = |open: &Open| !open.busy && !open.closing && open.transactions == transactions;
        if self.open.get(&connection).is_some_and(is_idle) {
            self.hang_up(connection);
            self.tell(Input::Closed { connection });
        }
    }

    /// Both ends are closed; false if they were before.
    fn hang_up(&mut self, connection: ConnectionId) -> bool {
        let Some(open) = self.open.remove(&connection) else { return false };
        if open.counted {
            self.sites[open.site].closed(open.session, self.now);
        }
        true
    }
}
