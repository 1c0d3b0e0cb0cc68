//! Logging in at a next hop: what is said in which order, and to whom it is never said.

use super::tls::{acceptor, params, signed};
use super::*;
use crate::types::{Login, Secret};

/// `\0app\0s3cret`, `app` and `s3cret` in base64.
const PLAIN: &str = "AGFwcABzM2NyZXQ=";
const USER: &str = "YXBw";
const PASSWORD: &str = "czNjcmV0";

fn login(password: &str) -> Option<Arc<Login>> {
    let set_in = "username and password_file /x of the [[route]] for \"*\"".to_string();
    Some(Arc::new(Login { username: "app".into(), password: Secret::new(password), set_in }))
}

/// What a peer offers behind EHLO, and its answers to the lines that come then, in order.
struct Peer<'a> {
    offers: &'a str,
    answers: &'a [&'a str],
}

/// Opens in clear text, as somebody may have written it; the lines behind EHLO, and what came of it.
async fn log_in(password: &str, peer: Peer<'_>, size: usize) -> (Vec<String>, Result<(), OpenError>) {
    let (connector, mut far) = pipe(size);
    let mut plan = plan(TlsMode::Off);
    plan.security.login = login(password);
    let server = async {
        say(&mut far, b"220 hop.test\r\n").await;
        read_line(&mut far).await;
        say(&mut far, format!("250-hop.test\r\n250 {}\r\n", peer.offers).as_bytes()).await;
        let mut lines = Vec::new();
        let mut answers = peer.answers.iter();
        loop {
            let line = String::from_utf8(read_line(&mut far).await).unwrap();
            if line.is_empty() || line == "QUIT\r\n" {
                return lines;
            }
            lines.push(line.trim_end().to_string());
            match answers.next() {
                Some(answer) => say(&mut far, format!("{answer}\r\n").as_bytes()).await,
                None => return lines,
            }
        }
    };
    let client = async {
        let connection = connector.open(&plan).await?;
        connection.close().await;
        Ok(())
    };
    let (opened, lines) = tokio::join!(Box::pin(client), server);
    (lines, opened)
}

#[tokio::test(start_paused = true)]
async fn plain_and_login_are_spoken_as_peers_want_them() {
    let (plain, login) = (format!("AUTH PLAIN {PLAIN}"), "AUTH LOGIN".to_string());
    let ok = "235 2.7.0 welcome";
    let dialogues: [(&str, Vec<&str>, Vec<&str>); 7] = [
        ("AUTH PLAIN LOGIN", vec![ok], vec![&plain]),
        // The response is asked for all the same.
        ("AUTH PLAIN", vec!["334 ", ok], vec![&plain, PLAIN]),
        ("AUTH LOGIN", vec!["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", ok], vec![&login, USER, PASSWORD]),
        ("AUTH=LOGIN", vec!["334 whatever", "334", ok], vec![&login, USER, PASSWORD]),
        ("AUTH LOGIN CRAM-MD5", vec!["334 a", "235 the name was enough"], vec![&login, USER]),
        ("AUTH PLAIN LOGIN", vec!["504 5.5.4 not this", "334 a", "334 b", ok], vec![&plain, &login, USER, PASSWORD]),
        ("AUTH PLAIN", vec!["334 ", "235-2.7.0 two\r\n235 2.7.0 lines"], vec![&plain, PLAIN]),
    ];
    for (offers, answers, expected) in dialogues {
        for size in PIPES {
            let (lines, opened) = log_in("s3cret", Peer { offers, answers: &answers }, size).await;
            opened.map_err(|error| error.text).unwrap();
            assert_eq!(lines, expected, "{offers} {answers:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_longer_than_a_command_comes_behind_the_challenge() {
    let password = "x".repeat(400);
    let (lines, opened) = log_in(&password, Peer { offers: "AUTH PLAIN", answers: &["334 ", "235 ok"] }, 64).await;
    opened.map_err(|error| error.text).unwrap();
    assert_eq!(lines[0], "AUTH PLAIN");
    assert!(lines[1].len() > 512, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_about_our_log_in_and_is_not_tried_again_in_another_way() {
    for reply in [
        "535 5.7.8 bad credentials",
        "534 5.7.9 use another mechanism",
        "530 5.7.0 authentication required",
        "538 5.7.11 encryption required",
        "454 4.7.0 temporary authentication failure",
        "501 5.5.2 syntax",
        "432 4.7.12 a password transition is needed",
    ] {
        let (lines, opened) = log_in("s3cret", Peer { offers: "AUTH PLAIN LOGIN", answers: &[reply] }, 64).await;
        let error = opened.unwrap_err();
        assert_eq!((error.stage, lines.len()), (OpenStage::Login, 1), "{reply}");
        assert_eq!(error.reply.as_ref().map(Reply::to_string).as_deref(), Some(reply));
        let told = ["app", reply, "password_file /x", "[[route]] for \"*\""];
        assert!(told.iter().all(|word| error.text.contains(word)), "{}", error.text);
        assert!(!error.text.contains("s3cret") && !error.text.contains(PLAIN));
    }
    let (_, opened) = log_in("s3cret", Peer { offers: "AUTH PLAIN", answers: &["421 4.3.2 too many"] }, 64).await;
    assert_eq!(opened.unwrap_err().stage, OpenStage::Ehlo, "the host closes: that is not about the password");
}

#[tokio::test(start_paused = true)]
async fn a_hop_that_asks_on_and_on_gets_no_more() {
    let answers = ["334 a", "334 b", "334 c", "501 5.0.0 cancelled"];
    let (lines, opened) = log_in("s3cret", Peer { offers: "AUTH LOGIN", answers: &answers }, 64).await;
    assert_eq!(lines, ["AUTH LOGIN", USER, PASSWORD, "*"]);
    assert_eq!(opened.unwrap_err().stage, OpenStage::Login);
}

#[tokio::test(start_paused = true)]
async fn where_no_way_to_log_in_is_offered_nothing_is_sent() {
    for (offers, what) in [("SIZE 1000", "AUTH is not offered"), ("AUTH CRAM-MD5 XOAUTH2", "neither PLAIN nor LOGIN")] {
        let (lines, opened) = log_in("s3cret", Peer { offers, answers: &[] }, 64).await;
        let error = opened.unwrap_err();
        assert_eq!((error.stage, error.reply, lines.len()), (OpenStage::Login, None, 0));
        assert!(error.text.contains(what) && error.text.contains("[[route]] for \"*\""), "{}", error.text);
    }
}

/// A peer with STARTTLS that offers AUTH in clear text, inside, or in both; whether it was given a password.
async fn inside(
    acceptor: tokio_rustls::TlsAcceptor,
    roots: &[rustls::pki_types::CertificateDer<'static>],
    clear: &str,
    within: &str,
) -> (bool, Result<String, OpenError>) {
    let (connector, mut far) = pipe(65_536);
    let connector = connector.with_roots(roots).unwrap();
    let mut plan = plan(TlsMode::Verify);
    plan.security.login = login("s3cret");
    let server = async {
        say(&mut far, b"220 mx.test\r\n").await;
        read_line(&mut far).await;
        let clear = clear.replace("\r\n250 ", "\r\n250-");
        say(&mut far, format!("250-mx.test\r\n250-{clear}\r\n250 HELP\r\n").as_bytes()).await;
        let next = read_line(&mut far).await;
        if next != b"STARTTLS\r\n" {
            return next.starts_with(b"AUTH");
        }
        say(&mut far, b"220 go\r\n").await;
        let Ok(mut inside) = acceptor.accept(far).await else { return false };
        read_line(&mut inside).await;
        say(&mut inside, format!("250-mx.test\r\n250 {within}\r\n").as_bytes()).await;
        let next = read_line(&mut inside).await;
        say(&mut inside, b"235 ok\r\n").await;
        read_line(&mut inside).await;
        next == format!("AUTH PLAIN {PLAIN}\r\n").as_bytes()
    };
    let client = async {
        let connection = connector.open(&plan).await?;
        let tls = connection.tls().unwrap().to_string();
        connection.close().await;
        Ok(tls)
    };
    let (opened, given) = tokio::join!(Box::pin(client), Box::pin(server));
    (given, opened)
}

#[tokio::test(start_paused = true)]
async fn only_what_is_offered_inside_tls_counts() {
    let (host, root) = signed(params("mx.test"));
    let roots = [root];
    let (given, opened) = inside(host.clone(), &roots, "STARTTLS", "AUTH PLAIN").await;
    assert!(given, "{:?}", opened.map_err(|error| error.text));
    for clear in ["STARTTLS", "STARTTLS\r\n250 AUTH PLAIN"] {
        let (given, opened) = inside(host.clone(), &roots, clear, "PIPELINING").await;
        assert_eq!((given, opened.unwrap_err().stage), (false, OpenStage::Login));
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_goes_to_nobody_who_is_not_who_he_says() {
    let (good, root) = signed(params("mx.test"));
    let (other, other_root) = signed(params("other.test"));
    let mut expired = params("mx.test");
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let (expired, expired_root) = signed(expired);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = acceptor(params("mx.test").self_signed(&key).unwrap().der().clone(), &key);
    for (host, roots) in
        [(good.clone(), vec![]), (other, vec![other_root]), (expired, vec![expired_root]), (own, vec![])]
    {
        let (given, opened) = inside(host, &roots, "STARTTLS", "AUTH PLAIN").await;
        assert_eq!((given, opened.unwrap_err().stage), (false, OpenStage::Tls));
    }
    // STARTTLS was taken out on the way.
    let (given, opened) = inside(good, &[root], "AUTH PLAIN", "AUTH PLAIN").await;
    let error = opened.unwrap_err();
    assert_eq!((given, error.stage), (false, OpenStage::Tls));
    assert!(error.text.contains("STARTTLS is not offered"), "{}", error.text);
}

/// Words slipped in behind the reply to STARTTLS, as an offer to log in.
#[tokio::test(start_paused = true)]
async fn an_offer_behind_the_reply_to_starttls_is_tampering() {
    let (connector, mut far) = pipe(65_536);
    let mut plan = plan(TlsMode::Verify);
    plan.security.login = login("s3cret");
    let server = async {
        say(&mut far, b"220 mx.test\r\n").await;
        read_line(&mut far).await;
        say(&mut far, b"250-mx.test\r\n250 STARTTLS\r\n").await;
        read_line(&mut far).await;
        say(&mut far, b"220 go\r\n250-mx.test\r\n250 AUTH PLAIN\r\n").await;
        read_line(&mut far).await
    };
    let (opened, heard) = tokio::join!(Box::pin(connector.open(&plan)), server);
    let error = opened.err().unwrap();
    assert!(error.text.contains("tampered") && heard.is_empty(), "{} {heard:?}", error.text);
}

#[tokio::test(start_paused = true)]
async fn implicit_tls_begins_before_the_greeting() {
    let (host, root) = signed(params("mx.test"));
    let (connector, far) = pipe(65_536);
    let connector = connector.with_roots(&[root]).unwrap();
    let mut plan = plan(TlsMode::Verify);
    plan.security.implicit = true;
    plan.security.login = login("s3cret");
    let server = async {
        let mut inside = host.accept(far).await.unwrap();
        say(&mut inside, b"220 mx.test\r\n").await;
        read_line(&mut inside).await;
        say(&mut inside, b"250-mx.test\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n").await;
        let line = read_line(&mut inside).await;
        say(&mut inside, b"235 ok\r\n").await;
        read_line(&mut inside).await;
        line
    };
    let client = async {
        let connection = connector.open(&plan).await.map_err(|error| error.text).unwrap();
        let tls = connection.tls().unwrap().to_string();
        connection.close().await;
        tls
    };
    let (tls, line) = tokio::join!(Box::pin(client), Box::pin(server));
    assert!(tls.starts_with("TLSv1.3"), "{tls}");
    assert_eq!(String::from_utf8(line).unwrap(), format!("AUTH PLAIN {PLAIN}\r\n"));
}
