//! STARTTLS: which certificates are taken in which mode, and what an attacker on the way may try.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::*;

const CLEAR: &[u8] = b"250-mx.test\r\n250-STARTTLS\r\n250 XCLEAR\r\n";

#[derive(Debug)]
struct Certificate(Arc<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Takes `der` as it is, even where it is no certificate.
pub(super) fn acceptor(der: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let provider = super::super::tls::provider();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certificate = Certificate(Arc::new(CertifiedKey::new(vec![der], key)));
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::new(certificate))).into()
}

pub(super) fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_string()]).unwrap()
}

/// A host whose certificate is signed by an authority of its own; with the authority's certificate.
pub(super) fn signed(params: CertificateParams) -> (TlsAcceptor, CertificateDer<'static>) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (acceptor(certificate.der().clone(), &key), issuer.der().clone())
}

/// Speaks up to STARTTLS, shakes hands, and offers other things inside.
async fn host(mut far: DuplexStream, acceptor: TlsAcceptor) -> bool {
    say(&mut far, b"220 mx.test\r\n").await;
    assert!(read_until(&mut far, b"EHLO relay.test\r\n").await);
    say(&mut far, CLEAR).await;
    if !read_until(&mut far, b"STARTTLS\r\n").await {
        return false;
    }
    say(&mut far, b"220 go\r\n").await;
    let Ok(mut inside) = acceptor.accept(far).await else { return false };
    let said_again = read_until(&mut inside, b"EHLO relay.test\r\n").await;
    say(&mut inside, b"250-mx.test\r\n250 PIPELINING\r\n").await;
    said_again && read_until(&mut inside, b"QUIT\r\n").await
}

async fn open(
    mode: TlsMode,
    acceptor: TlsAcceptor,
    roots: &[CertificateDer<'static>],
    size: usize,
) -> Result<String, OpenError> {
    open_by(&plan(mode), acceptor, roots, size).await
}

async fn open_by(
    plan: &Plan,
    acceptor: TlsAcceptor,
    roots: &[CertificateDer<'static>],
    size: usize,
) -> Result<String, OpenError> {
    let (connector, far) = pipe(size);
    let connector = connector.with_roots(roots).unwrap();
    let client = async {
        let connection = connector.open(plan).await?;
        assert!(connection.capabilities().pipelining && !connection.capabilities().starttls);
        let tls = connection.tls().unwrap().to_string();
        connection.close().await;
        Ok(tls)
    };
    let (result, served) = tokio::join!(Box::pin(client), Box::pin(host(far, acceptor)));
    assert_eq!(result.is_ok(), served);
    result
}

#[tokio::test(start_paused = true)]
async fn opportunistic_takes_any_certificate() {
    let mut expired = params("mx.test");
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = KeyPair::generate().unwrap();
    let hosts = [
        signed(params("mx.test")).0,
        signed(params("other.test")).0,
        signed(expired).0,
        acceptor(params("mx.test").self_signed(&key).unwrap().der().clone(), &key),
        acceptor(CertificateDer::from(b"nothing anybody can parse".to_vec()), &key),
    ];
    for (i, host) in hosts.into_iter().enumerate() {
        for (mode, size) in [(TlsMode::Opportunistic, 7), (TlsMode::Encrypt, 65_536)] {
            let tls = open(mode, host.clone(), &[], size).await.map_err(|e| format!("{i} {size} {}", e.text)).unwrap();
            assert!(tls.starts_with("TLSv1.3 TLS_") && tls.ends_with(" X25519MLKEM768 unverified"), "{tls}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn verify_asks_for_name_chain_and_date() {
    let (good, root) = signed(params("mx.test"));
    let tls =
        open(TlsMode::Verify, good.clone(), std::slice::from_ref(&root), 65_536).await.map_err(|e| e.text).unwrap();
    assert!(tls.ends_with(" X25519MLKEM768 verified"), "{tls}");
    let mut expired = params("mx.test");
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let (expired, expired_root) = signed(expired);
    let (other, other_root) = signed(params("other.test"));
    for (host, roots) in [(good, vec![]), (expired, vec![expired_root]), (other, vec![other_root])] {
        let error = open(TlsMode::Verify, host, &roots, 65_536).await.unwrap_err();
        assert_eq!((error.stage, error.reply), (OpenStage::Tls, None), "{}", error.text);
        assert!(error.text.contains("TLS handshake"), "{}", error.text);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_mta_sts_policy_makes_of_a_connection_stands_behind_the_rest() {
    let (good, root) = signed(params("mx.test"));
    let (other, other_root) = signed(params("other.test"));
    let key = KeyPair::generate().unwrap();
    let nonsense = acceptor(CertificateDer::from(b"nothing anybody can parse".to_vec()), &key);
    let (enforce, testing) = ((TlsMode::Verify, StsMode::Enforce), (TlsMode::Opportunistic, StsMode::Testing));
    for ((mode, sts), host, roots, ends) in [
        (enforce, good.clone(), vec![root.clone()], " verified mta-sts"),
        (testing, good.clone(), vec![root], " unverified mta-sts-testing-passed"),
        (testing, good, vec![], " unverified mta-sts-testing-failed"),
        (testing, other, vec![other_root], " unverified mta-sts-testing-failed"),
        (testing, nonsense, vec![], " unverified mta-sts-testing-failed"),
    ] {
        let mut plan = plan(mode);
        plan.security.sts = Some(sts);
        let tls = open_by(&plan, host, &roots, 65_536).await.map_err(|e| e.text).unwrap();
        assert!(tls.ends_with(ends), "{tls}");
    }
}

/// What a peer in clear text says to EHLO and to STARTTLS, and what an opening comes to.
async fn clear(mode: TlsMode, hello: Hello, ehlo: &[u8], starttls: &[u8], size: usize) -> Result<bool, OpenError> {
    let (connector, mut far) = pipe(size);
    let plan = Plan { hello, ..plan(mode) };
    let peer = async {
        say(&mut far, b"220 mx.test\r\n").await;
        read_line(&mut far).await;
        say(&mut far, ehlo).await;
        if read_line(&mut far).await == b"STARTTLS\r\n" {
            say(&mut far, starttls).await;
        }
        drop(far);
    };
    let client = async {
        let connection = connector.open(&plan).await?;
        let is_clear = connection.tls().is_none();
        connection.close().await;
        Ok(is_clear)
    };
    tokio::join!(Box::pin(client), peer).0
}

#[tokio::test(start_paused = true)]
async fn clear_text_only_where_the_mode_allows_it() {
    let without: &[u8] = b"250 mx.test\r\n";
    assert!(clear(TlsMode::Opportunistic, Hello::Full, without, b"", 64).await.is_ok_and(|is_clear| is_clear));
    assert!(clear(TlsMode::Opportunistic, Hello::Clear, CLEAR, b"", 64).await.is_ok_and(|is_clear| is_clear));
    assert!(clear(TlsMode::Off, Hello::Full, CLEAR, b"", 64).await.is_ok_and(|is_clear| is_clear));
    for mode in [TlsMode::Encrypt, TlsMode::Verify] {
        let error = clear(mode, Hello::Clear, without, b"", 64).await.unwrap_err();
        assert_eq!(error.stage, OpenStage::Tls);
        assert!(error.text.contains("STARTTLS is not offered"), "{}", error.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_starttls_or_handshake_is_a_failure_of_tls() {
    for (words, stage, code) in [
        (&b"454 4.7.0 not now\r\n"[..], OpenStage::Tls, Some(454)),
        (b"220 go\r\n", OpenStage::Handshake, None),
        (b"250 ok\r\n", OpenStage::Tls, None),
    ] {
        let error = clear(TlsMode::Opportunistic, Hello::Full, CLEAR, words, 64).await.unwrap_err();
        assert_eq!((error.stage, error.reply.map(|r| r.code())), (stage, code), "{}", error.text);
    }
}

/// Answers the hello with `answer`; the size of its first record, and what came of it.
async fn hello(hello: Hello, answer: &[u8]) -> (usize, OpenError) {
    let (connector, mut far) = pipe(65_536);
    let plan = Plan { hello, ..plan(TlsMode::Opportunistic) };
    let peer = async {
        say(&mut far, b"220 mx.test\r\n").await;
        read_line(&mut far).await;
        say(&mut far, CLEAR).await;
        read_line(&mut far).await;
        say(&mut far, b"220 go\r\n").await;
        let mut head = [0; 5];
        far.read_exact(&mut head).await.unwrap();
        let size = usize::from(u16::from_be_bytes([head[3], head[4]]));
        far.read_exact(&mut vec![0; size]).await.unwrap();
        say(&mut far, answer).await;
        drop(far);
        size
    };
    let (opened, size) = tokio::join!(Box::pin(connector.open(&plan)), peer);
    (size, opened.err().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_hello_without_the_large_key_fits_a_packet_and_is_tried_where_size_may_be_the_reason() {
    assert!(hello(Hello::Full, b"").await.0 > 1200);
    assert!(hello(Hello::Small, b"").await.0 < 600);
    // Alerts: handshake_failure, decode_error; then protocol_version, and a ServerHello of TLS 1.0.
    let alert = |code: u8| vec![21, 3, 1, 0, 2, 2, code];
    let old = [&[22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    for (answer, stage) in [
        (vec![], OpenStage::Handshake),
        (alert(40), OpenStage::Handshake),
        (alert(50), OpenStage::Handshake),
        (b"421 we do not know this\r\n".to_vec(), OpenStage::Handshake),
        (alert(70), OpenStage::Tls),
        (old, OpenStage::Tls),
    ] {
        let (_, error) = hello(Hello::Full, &answer).await;
        assert_eq!(error.stage, stage, "{answer:?}: {}", error.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_resumed_and_never_from_one_who_does_not_verify() {
    let (host, root) = signed(params("mx.test"));
    let (connectors, mut fars): (Vec<_>, Vec<_>) = (0..3).map(|_| tokio::io::duplex(65_536)).unzip();
    let connector =
        Connector::new(Arc::new(Pipes(Mutex::new(connectors.into())))).unwrap().with_roots(&[root]).unwrap();
    let mut kinds = Vec::new();
    for mode in [TlsMode::Encrypt, TlsMode::Encrypt, TlsMode::Verify] {
        let (mut far, host, plan) = (fars.remove(0), host.clone(), plan(mode));
        let server = async {
            say(&mut far, b"220 mx.test\r\n").await;
            read_line(&mut far).await;
            say(&mut far, CLEAR).await;
            read_line(&mut far).await;
            say(&mut far, b"220 go\r\n").await;
            let mut inside = host.accept(far).await.unwrap();
            let kind = inside.get_ref().1.handshake_kind();
            read_line(&mut inside).await;
            say(&mut inside, b"250 mx.test\r\n").await;
            read_line(&mut inside).await;
            kind
        };
        let client = async { connector.open(&plan).await.map_err(|error| error.text).unwrap().close().await };
        kinds.push(tokio::join!(Box::pin(client), Box::pin(server)).1.unwrap());
    }
    use rustls::HandshakeKind::{Full, Resumed};
    assert_eq!(kinds, [Full, Resumed, Full]);
}

/// CVE-2011-0411, turned round: what was said in clear text must not be heard inside TLS.
#[tokio::test(start_paused = true)]
async fn words_behind_the_reply_to_starttls_end_the_connection() {
    let error = clear(TlsMode::Opportunistic, Hello::Full, CLEAR, b"220 go\r\n250 hi\r\n", 65_536).await.unwrap_err();
    assert_eq!(error.stage, OpenStage::Ehlo, "no reason for clear text");
    assert!(error.text.contains("tampered"), "{}", error.text);
    // Byte by byte they cannot be told from a broken handshake, and are not heard either.
    assert!(clear(TlsMode::Opportunistic, Hello::Full, CLEAR, b"220 go\r\n250 hi\r\n", 1).await.is_err());
}
