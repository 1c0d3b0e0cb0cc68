//! TLS of the listeners: versions 1.2 and 1.3, one certificate, replaced while the relay runs (RFC 3207, RFC 8314).
//!
//! Rules that always hold:
//! - a certificate is taken with the key that fits it or not at all: while one of two files is already the new one, what was read
//!   before stays;
//! - each listener has ticket keys of its own: a session begun on one is not resumed on another;
//! - nothing is sent or taken before the handshake is over (no early data), and no client certificate is asked for.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::expiry;
use super::options::Tls;
use crate::types::Timestamp;
use crate::types::words::count;

/// What a person should do about a certificate that ends.
pub const RENEW: &str = "put a new one in its place: it is in force within seconds";
/// A certificate that ends within this time is told of. Those who renew them by a program do it 30 days before.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);
/// Certificates with their chains take a few kilobytes; what is larger is another file.
const FILE_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {} ({key}): {source}", path.display())]
    Unreadable { key: &'static str, path: PathBuf, source: io::Error },
    #[error("{} (tls.certificate) holds no certificate: it takes PEM, `-----BEGIN CERTIFICATE-----`", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} (tls.key) holds no private key without a passphrase: it takes PEM, `-----BEGIN PRIVATE KEY-----`", .0.display())]
    NoKey(PathBuf),
    #[error("the key {} (tls.key) does not belong to the certificate {} (tls.certificate): {source}", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf, source: rustls::Error },
}

/// A certificate with its chain and its key.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Reads both files of `[tls]`.
    pub fn load(options: &Tls) -> Result<Certificate, CertificateError> {
        let chain = read("tls.certificate", &options.certificate)?;
        let key = read("tls.key", &options.key)?;
        let chain: Result<Vec<CertificateDer<'static>>, pem::Error> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| CertificateError::NoCertificate(options.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| CertificateError::NoKey(options.key.clone()))?;
        Certificate::of(chain, key).map_err(|source| CertificateError::Mismatch {
            key: options.key.clone(),
            certificate: options.certificate.clone(),
            source,
        })
    }

    /// When it ends, or one of those that signed it; none: nobody can say.
    pub fn ends(&self) -> Option<Timestamp> {
        self.0.cert.iter().filter_map(|certificate| expiry::not_after(certificate)).min()
    }

    /// What there is to say of its end, from `EXPIRES_SOON` before it on.
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let ends = self.ends()?;
        if ends <= now {
            return Some(format!(
                "tls.certificate has ended at {ends}: clients that look at it do not come in any more"
            ));
        }
        let left = ends.since(now);
        let days = left.as_secs() / 86_400;
        let in_days = count(days, "day");
        (left <= EXPIRES_SOON).then(|| format!("tls.certificate ends in {in_days}, at {ends}"))
    }

    /// The end of `chain` nearest to us comes first. Fails where the key is another's.
    pub(super) fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Certificate, rustls::Error> {
        CertifiedKey::from_der(chain, key, &provider()).map(|certified| Certificate(Arc::new(certified)))
    }
}

fn read(key: &'static str, path: &PathBuf) -> Result<Vec<u8>, CertificateError> {
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut octets));
    read.map_err(|source| CertificateError::Unreadable { key, path: path.clone(), source })?;
    Ok(octets)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificate in force, which all listeners share. Clones are the same one.
#[derive(Clone, Debug)]
pub struct InForce(Arc<RwLock<Certificate>>);

impl InForce {
    pub fn new(certificate: Certificate) -> InForce {
        InForce(Arc::new(RwLock::new(certificate)))
    }

    /// Handshakes that begin from now on see this one.
    pub fn replace(&self, certificate: Certificate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    /// The one that is shown now.
    pub fn certificate(&self) -> Certificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What does the handshakes of one listener.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(self.clone()));
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for InForce {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone())
    }
}

/// A listener that speaks TLS has no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the listener {0} takes TLS: set tls.certificate and tls.key, or its tls = \"off\"")]
    NoCertificate(SocketAddr),
    #[error("TLS of the listener {address}: {source}")]
    Refused { address: SocketAddr, source: rustls::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_or_has_ended_is_told_of() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_string()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2027, 2, 3);
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let certificate = Certificate::of(chain, key).unwrap();
        let ends = certificate.ends().unwrap();
        let days = |n: u64| Duration::from_secs(n * 86_400);
        assert_eq!(certificate.warning(ends - days(15)), None);
        let said = certificate.warning(ends - days(14)).unwrap();
        assert!(said.starts_with("tls.certificate ends in 14 days, at 2027-02-03"), "{said}");
        assert!(certificate.warning(ends - days(1)).unwrap().contains("in 1 day,"));
        assert!(certificate.warning(ends).unwrap().starts_with("tls.certificate has ended at 2027-02-03"));
    }
}
