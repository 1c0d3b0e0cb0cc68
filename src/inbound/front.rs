//! What all sessions share: who may relay, the limits, the intake, the places.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, User};
use crate::clock::Clock;
use crate::smtp::offers::{LogIn, Offers};
use crate::smtp::session::Settings;
use crate::types::{AddressError, Submitter};

use super::admission::Admission;
use super::allowances::Allowances;
use super::complaints::Complaints;
use super::connection::Connection;
use super::door::Door;
use super::held::Held;
use super::intake::Intake;
use super::options::{Limits, Relay};
use super::overload::{Gate, Newcomer, Place, Rank};
use super::rates::Rates;
use super::slowed::Slowed;

/// How long the greeting of an untrusted client that has too many connections waits for one of them to end.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("relay.postmaster: `{text}` is no mail address: {source}")]
    Postmaster { text: String, source: AddressError },
}

/// The front door. One for all listeners.
pub struct Front<I> {
    pub(super) intake: Arc<I>,
    pub(super) clock: Clock,
    pub(super) settings: Arc<Settings>,
    pub(super) limits: Limits,
    pub(super) complaints: Complaints,
    pub(super) headers: Held,
    pub(super) recipients: Held,
    pub(super) slowed: Slowed,
    pub(super) rates: Rates,
    pub(super) allowances: Allowances,
    pub(super) auth: Auth,
    admission: RwLock<Arc<Admission>>,
    gate: Gate,
}

impl<I: Intake> Front<I> {
    /// `hostname` is how weir greets and signs its Received fields.
    pub fn new(
        hostname: &str,
        relay: &Relay,
        limits: &Limits,
        auth: Auth,
        intake: Arc<I>,
        clock: Clock,
    ) -> Result<Front<I>, FrontError> {
        let settings = Settings {
            hostname: hostname.to_string(),
            message_size: limits.message_size.0,
            recipients: limits.recipients.max(1),
        };
        Ok(Front {
            intake,
            settings: Arc::new(settings),
            limits: limits.clone(),
            complaints: Complaints::new(clock.clone()),
            headers: Held::headers(),
            recipients: Held::recipients(),
            slowed: Slowed::default(),
            rates: Rates::new(limits.messages_per_client, clock.clone()),
            allowances: Allowances::default(),
            auth,
            gate: Gate::new(limits.connections, limits.connections_per_client, clock.clone()),
            clock,
            admission: RwLock::new(Arc::new(admission(relay)?)),
        })
    }

    /// Admits by these rules from the next connection on.
    pub fn reload(&self, relay: &Relay) -> Result<(), FrontError> {
        let admission = Arc::new(admission(relay)?);
        *self.admission.write().unwrap_or_else(PoisonError::into_inner) = admission;
        Ok(())
    }

    /// Obeys this list of those who are to come slowly.
    pub fn with_slowed(mut self, slowed: Slowed) -> Front<I> {
        self.slowed = slowed;
        self
    }

    /// Who is kept waiting at MAIL; whoever holds a clone may add to it.
    pub fn slowed(&self) -> &Slowed {
        &self.slowed
    }

    /// What users had of their day; whoever holds a clone may keep it over a restart.
    pub fn allowances(&self) -> &Allowances {
        &self.allowances
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Lets a new connection of `client` stand in the line for a place. Where the line is full of clients we know, when it is not.
    pub async fn line_up(&self, client: IpAddr) -> Newcomer {
        let rank = if self.admission().trusts(client) { Rank::Known } else { Rank::Stranger };
        self.gate.line_up(rank, client).await
    }

    /// A place for a connection of `client`, at once or when one is free. None: it was let go, see [`Newcomer::place`].
    pub async fn enter(&self, client: IpAddr) -> Option<Place> {
        self.line_up(client).await.place().await
    }

    /// What a session of this door may offer: a log-in only where there is somebody who could.
    pub(super) fn offers(&self, door: &Door) -> Offers {
        let log_in = match door.offers.log_in {
            LogIn::Optional if !self.auth.has_users() => LogIn::Off,
            log_in => log_in,
        };
        Offers { log_in, ..door.offers }
    }

    /// Serves one connection from greeting to end. `place` is held until then.
    pub async fn serve<S>(&self, door: &Door, stream: S, client: IpAddr, place: Place, stop: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let client = client.to_canonical();
        let admission = self.admission();
        let mut client_place = None;
        if !admission.trusts(client) {
            client_place = self.gate.try_client(client);
        }
        if !admission.trusts(client) && client_place.is_none() {
            place.set_rank(Rank::Surplus);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = place.asked_to_leave() => return,
                got = tokio::time::timeout(GREETING_WAIT_MAX, self.gate.client(client)) => match got {
                    Ok(got) => {
                        place.set_rank(Rank::Stranger);
                        client_place = Some(got);
                    }
                    // Closed without a word: a refusal here would stop or bounce the client's other mail.
                    Err(_) => {
                        if self.complaints.is_due(Submitter::Client(client)) {
                            tracing::warn!("{client} has more than limits.connections_per_client connections: one was closed");
                        }
                        return;
                    }
                },
            }
        }
        Connection::new(self, door, stream, client, admission, &place, stop).run().await;
        drop(client_place);
    }

    /// Serves one session of somebody who is known already, on a stream of the program's own: `user`, or none for the operator. What
    /// holds for clients that come by the network holds here.
    pub async fn serve_known<S>(&self, stream: S, client: IpAddr, user: Option<Arc<User>>, stop: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let client = client.to_canonical();
        let Some(place) = self.gate.line_up(Rank::Known, client).await.place().await else { return };
        let (admission, door) = (self.admission(), Door::default());
        let mut connection = Connection::new(self, &door, stream, client, admission, &place, stop);
        connection.introduce(user);
        connection.run().await;
    }

    fn admission(&self) -> Arc<Admission> {
        self.admission.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn admission(relay: &Relay) -> Result<Admission, FrontError> {
    Admission::new(relay).map_err(|source| FrontError::Postmaster { text: relay.postmaster.clone(), source })
}
