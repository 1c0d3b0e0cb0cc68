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

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::options::Tls;

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
