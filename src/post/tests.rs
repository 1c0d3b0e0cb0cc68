//! The client against servers of a few lines: what it sends, when it connects, and whom it does not speak to.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

struct Loopback;

impl Names for Loopback {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host {
            "hooks.test" => Ok(vec!["127.0.0.1".parse().unwrap()]),
            "both.test" => Ok(vec!["127.0.0.9".parse().unwrap(), "127.0.0.1".parse().unwrap()]),
            _ => Err("no such name".into()),
        }
    }
}

fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn client() -> Client {
    Client::new(Tls::new(provider(), &[]).unwrap())
}

fn letter<'a>(target: &'a Target, json: &'a str, keep: Keep) -> Letter<'a> {
    Letter { target, json, headers: &[], time_limit: std::time::Duration::from_secs(30), keep }
}

fn anywhere(_: IpAddr) -> Result<(), String> {
    Ok(())
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Takes one request: its head and its body.
async fn take<S: tokio::io::AsyncRead + Unpin>(reader: &mut BufReader<S>) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).await.unwrap() > 0, "cut off: {head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn answer(reader: &mut BufReader<TcpStream>, text: &str) {
    reader.get_mut().write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_used_again_and_one_that_was_closed_meanwhile_is_replaced() {
    let (listener, port) = listener().await;
    let target = Target::parse_with_user(&format!("http://u:p@hooks.test:{port}/h")).unwrap();
    let server = tokio_util::task::TaskTracker::new().spawn(async move {
        let mut reader = BufReader::new(listener.accept().await.unwrap().0);
        let (head, body) = take(&mut reader).await;
        assert!(head.starts_with("POST /h HTTP/1.1\r\n") && head.contains("authorization: Basic dTpw\r\n"), "{head}");
        assert_eq!(body, "1");
        answer(&mut reader, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(take(&mut reader).await.1, "2");
        answer(&mut reader, "HTTP/1.1 204 No Content\r\n\r\n").await;
        drop(reader);
        let mut reader = BufReader::new(listener.accept().await.unwrap().0);
        assert_eq!(take(&mut reader).await.1, "3");
        answer(&mut reader, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let mut reader = BufReader::new(listener.accept().await.unwrap().0);
        let (head, body) = take(&mut reader).await;
        assert!(head.contains("connection: close\r\n") && body == "4", "after a rest it connects anew: {head}");
        answer(&mut reader, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    });
    let mut client = client();
    for json in ["1", "2", "3"] {
        client.post(&letter(&target, json, Keep::Open), &Loopback, anywhere).await.unwrap();
    }
    client.rest();
    client.post(&letter(&target, "4", Keep::Close), &Loopback, anywhere).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_no_success_is_told_and_a_redirection_is_not_followed() {
    let (listener, port) = listener().await;
    let target = Target::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
    let server = tokio_util::task::TaskTracker::new().spawn(async move {
        for text in [
            "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            let mut reader = BufReader::new(listener.accept().await.unwrap().0);
            take(&mut reader).await;
            answer(&mut reader, text).await;
        }
    });
    let mut client = client();
    let mut post = async || client.post(&letter(&target, "{}", Keep::Close), &Loopback, anywhere).await.unwrap_err();
    let PostError::Status { status, retry_after } = post().await else { panic!() };
    assert_eq!((status.as_u16(), retry_after.as_deref()), (503, Some("120")));
    assert_eq!(post().await.to_string(), "it answered 307 Temporary Redirect");
    assert!(matches!(post().await, PostError::Http(_)));
    server.await.unwrap();
}

/// The address that was judged is the one that is connected to: the name is not looked up a second time.
#[tokio::test]
async fn only_addresses_that_may_be_reached_are_spoken_to() {
    let (listener, port) = listener().await;
    let target = Target::parse(&format!("http://both.test:{port}/")).unwrap();
    let server = tokio_util::task::TaskTracker::new().spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.1");
        let mut reader = BufReader::new(stream);
        take(&mut reader).await;
        answer(&mut reader, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    });
    let one = |ip: IpAddr| if ip.to_string() == "127.0.0.1" { Ok(()) } else { Err(format!("{ip} is not ours to ask")) };
    client().post(&letter(&target, "{}", Keep::Close), &Loopback, one).await.unwrap();
    server.await.unwrap();
    let error = client().post(&letter(&target, "{}", Keep::Close), &Loopback, |_| Err("no".into())).await.unwrap_err();
    assert!(matches!(&error, PostError::Forbidden(why) if why == "no"), "{error}");
    let unknown = Target::parse("http://nobody.test/T0KEN").unwrap();
    let error = client().post(&letter(&unknown, "{}", Keep::Close), &Loopback, anywhere).await.unwrap_err();
    assert_eq!(error.to_string(), "its name cannot be looked up: no such name");
}

#[tokio::test]
async fn tls_asks_for_a_certificate_of_the_name_by_an_authority_it_trusts() {
    let (listener, port) = listener().await;
    let made = rcgen::generate_simple_self_signed(vec!["hooks.test".to_string()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let server = tokio_util::task::TaskTracker::new().spawn(async move {
        let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(take(&mut reader).await.1, "{}");
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        for _ in 0..2 {
            assert!(acceptor.accept(listener.accept().await.unwrap().0).await.is_err());
        }
    });
    // What a reload brings holds for those who have it already.
    let trust = Tls::new(provider(), &[]).unwrap();
    let trusting = || Client::new(trust.clone());
    trust.set_roots(&[certificate]).unwrap();
    let right = Target::parse(&format!("https://hooks.test:{port}/")).unwrap();
    trusting().post(&letter(&right, "{}", Keep::Close), &Loopback, anywhere).await.unwrap();
    let other_name = Target::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
    let error = trusting().post(&letter(&other_name, "{}", Keep::Close), &Loopback, anywhere).await.unwrap_err();
    assert!(matches!(error, PostError::Tls(_)), "{error}");
    let error = client().post(&letter(&right, "{}", Keep::Close), &Loopback, anywhere).await.unwrap_err();
    assert!(matches!(error, PostError::Tls(_)), "{error}");
    server.await.unwrap();
}

/// On the paused clock: nothing answers on the listener's backlog.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_has_a_time_limit() {
    let (_listener, port) = listener().await;
    let target = Target::parse(&format!("http://127.0.0.1:{port}/T0KEN")).unwrap();
    let error = client().post(&letter(&target, "{}", Keep::Open), &Loopback, anywhere).await.unwrap_err();
    // On the paused clock the limit of a connection may be the one that is over first.
    assert!(
        matches!(error, PostError::Late(_) | PostError::Connect(_)) && !error.to_string().contains("T0KEN"),
        "{error}"
    );
}
