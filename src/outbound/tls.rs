//! TLS towards receivers (RFC 3207, RFC 7435).
//!
//! Opportunistic TLS protects against listening, not against impostors: it takes any certificate, also an expired one,
//! one with an odd signature, or one that nobody can parse, because the alternative is clear text. `verify` asks for a
//! name and a chain. Each has one configuration that lives as long as the relay, or sessions could not be resumed.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CommonState, DigitallySignedStruct, NamedGroup, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::options::TlsMode;
use super::{Hello, Security};
use crate::types::StsMode;

/// Hosts whose session is remembered. A few hundred hosts get nearly all mail; one session is some 2 KiB.
const SESSIONS_MAX: usize = 1024;

/// The client configurations: two ways of judging certificates, each with both sizes of hello.
#[derive(Clone)]
pub struct TlsConfigs {
    any_certificate: Sizes,
    verified: Sizes,
    /// Judges afterwards what was taken unseen.
    judge: Arc<WebPkiServerVerifier>,
    roots: Arc<[CertificateDer<'static>]>,
}

#[derive(Clone)]
struct Sizes {
    full: TlsConnector,
    small: TlsConnector,
}

/// The one place that names the cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The same without the keys that make a hello large.
fn small_provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
    Arc::new(provider)
}

impl TlsConfigs {
    /// `verify` trusts the public roots and `roots`.
    pub fn new(roots: &[CertificateDer<'static>]) -> Result<TlsConfigs, rustls::Error> {
        let mut trusted = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in roots {
            trusted.add(root.clone())?;
        }
        let trusted = Arc::new(trusted);
        let any_certificate = |provider: Arc<CryptoProvider>| {
            let any = Arc::new(AnyCertificate { schemes: schemes_of(&provider) });
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            Ok(connector(config.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()))
        };
        let verified = |provider: Arc<CryptoProvider>| {
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            Ok(connector(config.with_root_certificates(trusted.clone()).with_no_client_auth()))
        };
        let judge = WebPkiServerVerifier::builder_with_provider(trusted.clone(), provider()).build();
        let judge = judge.map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(TlsConfigs {
            any_certificate: Sizes::of(any_certificate)?,
            verified: Sizes::of(verified)?,
            judge,
            roots: roots.into(),
        })
    }

    /// Were they made with these?
    pub(super) fn trusts(&self, roots: &[CertificateDer<'static>]) -> bool {
        *self.roots == *roots
    }

    /// `TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768 verified`: version, cipher suite, group, and whether the certificate was verified
    /// or just taken; then what an MTA-STS policy has to do with it.
    pub(super) fn describe(&self, session: &CommonState, security: &Security, name: &ServerName<'_>) -> String {
        let text = describe(session, security.tls);
        match security.sts {
            None => text,
            Some(StsMode::Enforce) => text + " mta-sts",
            Some(StsMode::Testing) if self.would_verify(session, name) => text + " mta-sts-testing-passed",
            Some(StsMode::Testing) => text + " mta-sts-testing-failed",
        }
    }

    fn would_verify(&self, session: &CommonState, name: &ServerName<'_>) -> bool {
        let Some((own, between)) = session.peer_certificates().and_then(<[_]>::split_first) else { return false };
        self.judge.verify_server_cert(own, between, name, &[], UnixTime::now()).is_ok()
    }

    pub(super) fn of(&self, mode: TlsMode, hello: Hello) -> &TlsConnector {
        let sizes = match mode {
            TlsMode::Verify => &self.verified,
            TlsMode::Off | TlsMode::Opportunistic | TlsMode::Encrypt => &self.any_certificate,
        };
        if hello == Hello::Full { &sizes.full } else { &sizes.small }
    }
}

impl Sizes {
    fn of(make: impl Fn(Arc<CryptoProvider>) -> Result<TlsConnector, rustls::Error>) -> Result<Sizes, rustls::Error> {
        Ok(Sizes { full: make(provider())?, small: make(small_provider())? })
    }
}

/// Sessions are never shared between those who verify and those who do not: one that is resumed is not verified again.
fn connector(mut config: ClientConfig) -> TlsConnector {
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Arc::new(config).into()
}

/// Can a smaller hello mend it? Not where the host's certificate or its version of TLS is what does not do.
pub(super) fn may_be_size(error: &std::io::Error) -> bool {
    use rustls::Error::{AlertReceived, InvalidCertificate, PeerIncompatible};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    !matches!(
        inner,
        Some(InvalidCertificate(_) | PeerIncompatible(_) | AlertReceived(AlertDescription::ProtocolVersion))
    )
}

/// The name a host is asked for. What is no DNS name (an address literal) is asked for by its address.
pub(super) fn server_name(host: &str, address: IpAddr) -> ServerName<'static> {
    ServerName::try_from(host.to_string()).unwrap_or_else(|_| ServerName::IpAddress(address.into()))
}

fn describe(session: &CommonState, mode: TlsMode) -> String {
    let version = session.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS").replace('_', ".");
    let suite = session.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("unknown");
    // The library marks the suites of TLS 1.3; the registry names them like all others.
    let suite = suite.replacen("TLS13_", "TLS_", 1);
    // A session of TLS 1.2 that is resumed agrees on none.
    let group = session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()).unwrap_or("resumed");
    let verified = if mode == TlsMode::Verify { "verified" } else { "unverified" };
    format!("{version} {suite} {group} {verified}")
}

/// Offered besides what the provider can check: nothing is checked here, and some old servers have nothing else.
const OLD_SCHEMES: [SignatureScheme; 2] = [SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy];

fn schemes_of(provider: &CryptoProvider) -> Vec<SignatureScheme> {
    let mut schemes = provider.signature_verification_algorithms.supported_schemes();
    schemes.extend(OLD_SCHEMES);
    schemes
}

#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
