//! One listener's way in: what it offers, and the TLS it does.

use tokio_rustls::TlsAcceptor;

use crate::smtp::offers::Offers;

use super::options::Listener;
use super::tls::{InForce, TlsError};

/// What the sessions of one listener have in common.
#[derive(Clone, Default)]
pub struct Door {
    pub(super) offers: Offers,
    /// There where the listener speaks TLS.
    pub(super) acceptor: Option<TlsAcceptor>,
}

impl Door {
    /// `certificate` is what listeners that speak TLS show.
    pub fn new(listener: &Listener, certificate: Option<&InForce>) -> Result<Door, TlsError> {
        let offers = listener.offers();
        let acceptor = match (offers.tls.is_used(), certificate) {
            (false, _) => None,
            (true, None) => return Err(TlsError::NoCertificate(listener.address)),
            (true, Some(certificate)) => {
                let refused = |source| TlsError::Refused { address: listener.address, source };
                Some(certificate.acceptor().map_err(refused)?)
            }
        };
        Ok(Door { offers, acceptor })
    }
}
