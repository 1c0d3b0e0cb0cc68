//! Opens connections: TCP, greeting, EHLO, TLS, log-in (RFC 5321 sections 3.1 and 3.2, RFC 3207, RFC 8314, RFC 4954).
//!
//! - Every stage has its time limit; a connection that came to nothing is closed before the error is returned.
//! - TLS that fails is no reason to go on in clear text on the same connection: the caller opens another one with a smaller
//!   hello, and with none only in opportunistic mode.
//! - A shortage of our own (descriptors, memory of the system) is waited out for as long as a connection may take, and
//!   never told as the receiver's fault.
//! - Nothing that was said before the handshake counts after it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustix::io::Errno;
use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::capabilities::Capabilities;
use super::connection::{Connection, State, quit};
use super::lowered::Anew;
use super::network::{Network, Stream};
use super::options::TlsMode;
use super::tls::{self, TlsConfigs};
use super::wire::Wire;
use super::{Bdat, Hello, OpenError, OpenStage, Plan, Security, command};
use crate::types::{Reply, Span};

/// From one try to the next while this process can open no socket.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(250);

/// How long each step may take. The defaults are the least that RFC 5321 section 4.5.3.2 asks of a client, and where it
/// says nothing what other senders use.
#[derive(Clone, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    pub greeting: Duration,
    /// EHLO, HELO, STARTTLS.
    pub ehlo: Duration,
    pub handshake: Duration,
    /// MAIL and RSET.
    pub mail: Duration,
    pub rcpt: Duration,
    pub data: Duration,
    pub data_block: Duration,
    /// Shorter ones cause messages to arrive twice (RFC 1047).
    pub end_of_data: Duration,
    /// The farewell, in all: the permit is held as long.
    pub quit: Duration,
    /// Replies that change nothing any more: behind a refusal, behind 421.
    pub aftermath: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        const MINUTE: u64 = 60;
        Timeouts {
            connect: Duration::from_secs(30),
            greeting: Duration::from_secs(5 * MINUTE),
            ehlo: Duration::from_secs(5 * MINUTE),
            handshake: Duration::from_secs(MINUTE),
            mail: Duration::from_secs(5 * MINUTE),
            rcpt: Duration::from_secs(5 * MINUTE),
            data: Duration::from_secs(2 * MINUTE),
            data_block: Duration::from_secs(3 * MINUTE),
            end_of_data: Duration::from_secs(10 * MINUTE),
            quit: Duration::from_secs(5),
            aftermath: Duration::from_secs(10),
        }
    }
}

/// Holds what all connections share. Cheap to clone; what is set for one clone holds for all.
#[derive(Clone)]
pub struct Connector {
    network: Arc<dyn Network>,
    tls: Arc<RwLock<TlsConfigs>>,
    timeouts: Timeouts,
    stop: CancellationToken,
    anew: Option<Arc<dyn Anew>>,
}

/// A connection on its way: what stays the same while the wire changes.
pub(super) struct Opening<'a> {
    pub(super) plan: &'a Plan,
    pub(super) timeouts: &'a Timeouts,
}

/// Why an opening stopped, and the wire, if there is anything left to close politely.
pub(super) struct Stop {
    pub(super) error: OpenError,
    wire: Option<Wire>,
}

impl Connector {
    pub fn new(network: Arc<dyn Network>) -> Result<Connector, rustls::Error> {
        let (timeouts, stop) = (Timeouts::default(), CancellationToken::new());
        Ok(Connector { network, tls: Arc::new(RwLock::new(TlsConfigs::new(&[])?)), timeouts, stop, anew: None })
    }

    /// Who makes signatures anew where a content has to be converted.
    pub fn with_signatures(self, anew: Arc<dyn Anew>) -> Connector {
        Connector { anew: Some(anew), ..self }
    }

    /// Certificates that `verify` trusts besides the public roots.
    pub fn with_roots(self, roots: &[CertificateDer<'static>]) -> Result<Connector, rustls::Error> {
        self.set_roots(roots)?;
        Ok(self)
    }

    /// The same for connections to come. Where nothing changes, sessions are resumed as before.
    pub fn set_roots(&self, roots: &[CertificateDer<'static>]) -> Result<(), rustls::Error> {
        if self.tls().trusts(roots) {
            return Ok(());
        }
        let configs = TlsConfigs::new(roots)?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    fn tls(&self) -> TlsConfigs {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Connector {
        self.timeouts = timeouts;
        self
    }

    /// When this is cancelled, nothing is begun any more, and only answers to whole messages are waited for.
    pub fn with_stop(mut self, stop: CancellationToken) -> Connector {
        self.stop = stop;
        self
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// A connection ready for its first transaction, or why there is none; then the socket is closed already.
    pub async fn open(&self, plan: &Plan) -> Result<Connection, OpenError> {
        let opening = Opening { plan, timeouts: &self.timeouts };
        let opened = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                let text = format!("connect to {}: the relay is stopping", plan.host);
                return Err(OpenError { stage: OpenStage::Ours, reply: None, text });
            }
            opened = self.try_open(&opening) => opened,
        };
        match opened {
            Ok(connection) => Ok(connection),
            Err(Stop { error, wire }) => {
                if let Some(wire) = wire {
                    quit(wire, self.timeouts.quit, true, &self.stop).await;
                }
                Err(error)
            }
        }
    }

    async fn try_open(&self, opening: &Opening<'_>) -> Result<Connection, Stop> {
        let stream = self.connect(opening).await?;
        let (mut wire, mut description) = (Wire::new(stream, self.stop.clone()), None);
        let Security { implicit, login, asked_by, .. } = &opening.plan.security;
        if *implicit {
            let (encrypted, tls) = self.shaken(opening, wire).await?;
            (wire, description) = (encrypted, Some(tls));
        }
        let (wire, greeting) = opening.greeted(wire).await?;
        let (mut wire, mut ehlo) = opening.introduced(wire).await?;
        let mut capabilities = Capabilities::parse(&ehlo);
        if !implicit && opening.wants_tls(&capabilities) {
            if !capabilities.starttls {
                let text = format!("STARTTLS is not offered, and {asked_by} asks for it");
                return Err(opening.stop(OpenStage::Tls, &text, Some(wire)));
            }
            let (encrypted, tls) = self.encrypted(opening, wire).await?;
            (wire, ehlo) = opening.introduced_again(encrypted).await?;
            capabilities = Capabilities::parse(&ehlo);
            description = Some(tls);
        }
        if let Some(login) = login {
            wire = opening.logged_in(wire, &capabilities, login).await?;
        }
        Ok(Connection {
            wire,
            host: opening.plan.host.clone(),
            peer: opening.plan.address,
            tls: description.map(Arc::from),
            greeting,
            ehlo,
            capabilities,
            timeouts: self.timeouts.clone(),
            bdat: Bdat::Untold,
            state: State::Ready,
            stop: self.stop.clone(),
            anew: self.anew.clone(),
            lowered: None,
        })
    }

    async fn connect(&self, opening: &Opening<'_>) -> Result<Box<dyn Stream>, Stop> {
        let (plan, limit) = (opening.plan, self.timeouts.connect);
        let stop = |stage, text: String| {
            let text = format!("connect to {} [{}]: {text}", plan.host, plan.address);
            Stop { error: OpenError { stage, reply: None, text }, wire: None }
        };
        let mut short = None;
        match timeout(limit, self.connect_when_possible(plan, &mut short)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::TimedOut => {
                Err(stop(OpenStage::ConnectTimeout, e.to_string()))
            }
            Ok(Err(e)) => Err(stop(OpenStage::Connect, e.to_string())),
            Err(_) => Err(match short {
                Some(error) => stop(OpenStage::Ours, error.to_string()),
                None => stop(OpenStage::ConnectTimeout, format!("no answer within {}", Span(limit))),
            }),
        }
    }

    /// Tries until it is not for a shortage of ours that it fails; what is short at the moment is in `short`.
    async fn connect_when_possible(
        &self,
        plan: &Plan,
        short: &mut Option<std::io::Error>,
    ) -> std::io::Result<Box<dyn Stream>> {
        loop {
            match self.network.connect(plan).await {
                Err(error) if is_shortage(&error) => *short = Some(error),
                other => return other,
            }
            tokio::time::sleep(SHORTAGE_PAUSE).await;
            *short = None;
        }
    }

    /// STARTTLS, then the handshake.
    async fn encrypted(&self, opening: &Opening<'_>, wire: Wire) -> Result<(Wire, String), Stop> {
        let (wire, reply) = opening.ask(wire, OpenStage::Tls, &["STARTTLS"]).await?;
        if reply.code() != 220 {
            return Err(opening.refused(OpenStage::Tls, "STARTTLS", reply, wire));
        }
        if wire.has_unread() {
            // Someone on the way puts words into the encrypted session. That must not be rewarded by clear text.
            let text = "more came behind the reply to STARTTLS: the connection is being tampered with";
            return Err(opening.stop(OpenStage::Ehlo, text, None));
        }
        self.shaken(opening, wire).await
    }

    /// The handshake.
    async fn shaken(&self, opening: &Opening<'_>, wire: Wire) -> Result<(Wire, String), Stop> {
        let name = tls::server_name(&opening.plan.host, opening.plan.address.ip());
        let (tls, security) = (self.tls(), &opening.plan.security);
        let handshake = wire.start_tls(tls.of(security.tls, opening.plan.hello), name.clone());
        let describe = |session: &CommonState| tls.describe(session, security, &name);
        handshake.finish(self.timeouts.handshake, describe).await.map_err(|(text, may_be_size)| {
            let stage = if may_be_size { OpenStage::Handshake } else { OpenStage::Tls };
            opening.stop(stage, &format!("TLS handshake: {text}"), None)
        })
    }
}

/// No descriptor is free in the process or the system, or no memory for a socket.
fn is_shortage(error: &std::io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}

impl Opening<'_> {
    fn wants_tls(&self, offered: &Capabilities) -> bool {
        match self.plan.security.tls {
            TlsMode::Off => false,
            TlsMode::Opportunistic => offered.starttls && self.plan.hello != Hello::Clear,
            TlsMode::Encrypt | TlsMode::Verify => true,
        }
    }

    async fn greeted(&self, mut wire: Wire) -> Result<(Wire, Reply), Stop> {
        match wire.reply(self.timeouts.greeting.min(self.plan.greeting)).await {
            Ok(reply) if reply.code() == 220 => Ok((wire, reply)),
            Ok(reply) => Err(self.refused(OpenStage::Greeting, "the connection", reply, wire)),
            Err(text) => Err(self.stop(OpenStage::Greeting, &format!("{text}, instead of the greeting"), None)),
        }
    }

    /// EHLO, or HELO where the peer does not know EHLO (RFC 5321 section 3.2). Any other refusal is about our name or our
    /// address, and HELO would only say the same again.
    async fn introduced(&self, wire: Wire) -> Result<(Wire, Reply), Stop> {
        let (wire, reply) = self.ask(wire, OpenStage::Ehlo, &["EHLO ", &self.plan.helo]).await?;
        if reply.is_positive() {
            return Ok((wire, reply));
        }
        if !matches!(reply.code(), 500 | 502) {
            return Err(self.refused(OpenStage::Ehlo, "EHLO", reply, wire));
        }
        let (wire, reply) = self.ask(wire, OpenStage::Ehlo, &["HELO ", &self.plan.helo]).await?;
        if reply.is_positive() {
            // What stands behind the first line of an answer to HELO offers nothing.
            let first = reply.lines().next().unwrap_or_default().to_vec();
            return Ok((wire, Reply::new(reply.code(), first)));
        }
        Err(self.refused(OpenStage::Ehlo, "HELO", reply, wire))
    }

    /// EHLO inside TLS. With TLS 1.3 a server's objection to the handshake arrives only now: an end without a reply is a
    /// failure of TLS.
    async fn introduced_again(&self, wire: Wire) -> Result<(Wire, Reply), Stop> {
        self.introduced(wire).await.map_err(|mut stop| {
            if stop.wire.is_none() {
                stop.error.stage = OpenStage::Tls;
            }
            stop
        })
    }

    async fn ask(&self, mut wire: Wire, stage: OpenStage, words: &[&str]) -> Result<(Wire, Reply), Stop> {
        wire.say(|out| command::line(out, words));
        match wire.reply(self.timeouts.ehlo).await {
            Ok(reply) => Ok((wire, reply)),
            Err(text) => {
                let command = words.first().map_or("", |word| word.trim_end());
                Err(self.stop(stage, &format!("{text}, instead of the reply to {command}"), None))
            }
        }
    }

    /// Only a refusal is handed on as a reply: read as one, a yes in the wrong place would be taken for success.
    pub(super) fn refused(&self, stage: OpenStage, what: &str, reply: Reply, wire: Wire) -> Stop {
        let mut stop = self.stop(stage, &format!("{what} was answered by {reply}"), Some(wire));
        stop.error.reply = (reply.is_transient() || reply.is_permanent()).then_some(reply);
        stop
    }

    pub(super) fn stop(&self, stage: OpenStage, text: &str, wire: Option<Wire>) -> Stop {
        let text = format!("{} [{}]: {text}", self.plan.host, self.plan.address.ip());
        Stop { error: OpenError { stage, reply: None, text }, wire }
    }
}
