//! Speaks with one server: connects, sends, reads the answer's status, and keeps the connection where more follows.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{LOCALHOST, Names, Target};

/// For one address of several.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Of the answer's header.
const HEADER_MAX: usize = 64 << 10;
/// Of an answer's body, which nobody needs: read so that the connection can be used again.
const BODY_MAX: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_secs(1);
/// As long as any number or date.
const RETRY_AFTER_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("its name cannot be looked up: {0}")]
    Name(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be built: {0}")]
    Request(String),
    /// With the field Retry-After, as it stands there.
    #[error("the answer is longer than {0} octets")]
    Long(usize),
    #[error("it answered {status}")]
    Status { status: StatusCode, retry_after: Option<String> },
}

/// What becomes of the connection behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Close,
    /// It is used again by the next request, which follows at once or never: see [`Client::rest`].
    Open,
}

/// One request.
pub struct Letter<'a> {
    pub target: &'a Target,
    pub json: &'a str,
    /// Beside those that HTTP asks for.
    pub headers: &'a [(&'static str, String)],
    /// Over all of it.
    pub time_limit: Duration,
    pub keep: Keep,
}

/// A client for one server at a time.
pub struct Client {
    tls: Tls,
    /// The connection that is kept, and where it leads.
    open: Option<(Target, Open)>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

type Connection = http1::Connection<TokioIo<Box<dyn Stream>>, String>;

/// A connection. It works as long as somebody waits for something on it.
pub(super) struct Open {
    sender: http1::SendRequest<String>,
    connection: Pin<Box<Connection>>,
    is_open: bool,
}

impl Client {
    pub fn new(tls: Tls) -> Client {
        Client { tls, open: None }
    }

    /// Nothing follows for a while: the connection is closed, before the server does it unheard.
    pub fn rest(&mut self) {
        self.open = None;
    }

    /// Sends `letter`; any 2xx is success. `may_reach` says of an address why it must not be spoken to.
    pub async fn post<N: Names>(
        &mut self,
        letter: &Letter<'_>,
        names: &N,
        may_reach: impl Fn(IpAddr) -> Result<(), String> + Send + Sync,
    ) -> Result<(), PostError> {
        let exchange = Box::pin(self.exchange(letter, names, may_reach));
        timeout(letter.time_limit, exchange).await.map_err(|_| PostError::Late(letter.time_limit))?
    }

    async fn exchange<N: Names>(
        &mut self,
        letter: &Letter<'_>,
        names: &N,
        may_reach: impl Fn(IpAddr) -> Result<(), String> + Send + Sync,
    ) -> Result<(), PostError> {
        // Whatever goes wrong from here on, and a time limit that ends this: the connection is gone with it.
        let kept = self.open.take().filter(|(target, _)| target == letter.target).map(|(_, open)| open);
        if let Some(mut open) = kept
            && let Ok(answer) = open.speak(request(letter)?).await
        {
            return self.end(letter, open, answer).await;
        }
        // None was kept, or the server has closed it meanwhile: whether it has read the request is not known, and it gets it again.
        let mut open = self.connect(letter.target, names, may_reach).await?;
        let answer = open.speak(request(letter)?).await?;
        self.end(letter, open, answer).await
    }

    /// What the answer says, and what becomes of the connection.
    async fn end(&mut self, letter: &Letter<'_>, mut open: Open, answer: Response<Incoming>) -> Result<(), PostError> {
        let status = answer.status();
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.filter(|text| text.len() <= RETRY_AFTER_MAX).map(str::to_string);
        if letter.keep == Keep::Open && open.read_away(answer.into_body()).await {
            self.open = Some((letter.target.clone(), open));
        }
        if status.is_success() { Ok(()) } else { Err(PostError::Status { status, retry_after }) }
    }

    pub(super) async fn connect<N: Names>(
        &self,
        target: &Target,
        names: &N,
        may_reach: impl Fn(IpAddr) -> Result<(), String>,
    ) -> Result<Open, PostError> {
        let stream = tcp(target, names, may_reach).await?;
        let stream: Box<dyn Stream> = if target.is_tls {
            let name = ServerName::try_from(target.host.clone()).map_err(|_| {
                PostError::Tls(std::io::Error::other("the host is no name that a certificate can hold"))
            })?;
            Box::new(self.tls.connector().connect(name, stream).await.map_err(PostError::Tls)?)
        } else {
            Box::new(stream)
        };
        let (sender, connection) =
            http1::Builder::new().max_buf_size(HEADER_MAX).handshake(TokioIo::new(stream)).await?;
        Ok(Open { sender, connection: Box::pin(connection), is_open: true })
    }
}

fn request(letter: &Letter<'_>) -> Result<Request<String>, PostError> {
    let target = letter.target;
    let connection = if letter.keep == Keep::Open { "keep-alive" } else { "close" };
    let mut request = Request::post(&target.path)
        .header(header::HOST, target.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, connection);
    if let Some(authorization) = &target.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    for (name, value) in letter.headers {
        request = request.header(*name, value);
    }
    request.body(letter.json.to_string()).map_err(|error| PostError::Request(error.to_string()))
}

async fn tcp<N: Names>(
    target: &Target,
    names: &N,
    may_reach: impl Fn(IpAddr) -> Result<(), String>,
) -> Result<TcpStream, PostError> {
    let addresses = match target.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        // Always this host, and no name server is asked for it (RFC 6761 section 6.3).
        Err(_) if target.host.eq_ignore_ascii_case(LOCALHOST) => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => names.addresses(&target.host).await.map_err(PostError::Name)?,
    };
    let mut last = PostError::Connect("its name has no address".to_string());
    for address in addresses {
        if let Err(why) = may_reach(address) {
            last = PostError::Forbidden(why);
            continue;
        }
        last = match timeout(CONNECT_TIME, TcpStream::connect(SocketAddr::new(address, target.port))).await {
            Ok(Ok(stream)) => {
                // A head and a body are two writes; the second must not wait for the receipt of the first.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => PostError::Connect(format!("{address}: {error}")),
            Err(_) => PostError::Connect(format!("{address}: no answer within {} s", CONNECT_TIME.as_secs())),
        };
    }
    Err(last)
}

impl Open {
    /// Sends the request and reads the answer's head.
    pub(super) async fn speak(&mut self, request: Request<String>) -> Result<Response<Incoming>, hyper::Error> {
        let Open { sender, connection, is_open } = self;
        let mut answer = pin!(async {
            sender.ready().await?;
            sender.send_request(request).await
        });
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                // Whatever ended it, the answer says so.
                _ = connection.as_mut(), if *is_open => *is_open = false,
            }
        }
    }

    /// Reads the rest of an answer; true: the connection can be used again.
    async fn read_away(&mut self, mut body: Incoming) -> bool {
        let reading = async {
            let mut left = BODY_MAX;
            loop {
                match self.frame(&mut body).await {
                    None => return self.is_open,
                    Some(Ok(data)) => left = left.saturating_sub(data.len()),
                    Some(Err(_)) => return false,
                }
                if left == 0 {
                    return false;
                }
            }
        };
        timeout(BODY_TIME, reading).await.unwrap_or(false)
    }

    /// The next piece of an answer's body; none: it is complete.
    pub(super) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<bytes::Bytes, hyper::Error>> {
        let Open { connection, is_open, .. } = self;
        loop {
            tokio::select! {
                biased;
                frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)) => {
                    // Trailers are no piece of it.
                    return frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()));
                }
                _ = connection.as_mut(), if *is_open => *is_open = false,
            }
        }
    }
}

/// TLS that trusts the public authorities and the operator's own, and checks the name. What is set for one clone holds for all.
#[derive(Clone)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    connector: Arc<RwLock<TlsConnector>>,
}

impl Tls {
    /// `roots`: trusted beside the public authorities.
    pub fn new(provider: Arc<CryptoProvider>, roots: &[CertificateDer<'_>]) -> Result<Tls, rustls::Error> {
        let connector = Arc::new(RwLock::new(connector(&provider, roots)?));
        Ok(Tls { provider, connector })
    }

    /// The same for connections to come.
    pub fn set_roots(&self, roots: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let connector = connector(&self.provider, roots)?;
        *self.connector.write().unwrap_or_else(PoisonError::into_inner) = connector;
        Ok(())
    }

    fn connector(&self) -> TlsConnector {
        self.connector.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn connector(provider: &Arc<CryptoProvider>, roots: &[CertificateDer<'_>]) -> Result<TlsConnector, rustls::Error> {
    let mut trusted = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for root in roots {
        trusted.add(root.clone().into_owned())?;
    }
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
