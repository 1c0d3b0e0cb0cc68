//! Peers that say anything at all.

use proptest::prelude::*;

use super::*;

/// Bytes that look like replies often enough to get far into a dialogue.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => Just(b"250 ok\r\n".to_vec()),
        2 => Just(b"220 go\r\n".to_vec()),
        2 => Just(b"354 go\r\n".to_vec()),
        2 => Just(b"250-mx\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 CHUNKING\r\n".to_vec()),
        1 => Just(b"550 5.1.1 no\r\n".to_vec()),
        1 => Just(b"421 bye\r\n".to_vec()),
        1 => Just(b"250-".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(word, 0..14).prop_map(|words| words.concat())
}

/// Says all of `words` whatever it is told, then closes or falls silent; returns what it was told.
async fn babble(mut far: DuplexStream, words: &[u8], closes: bool) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(&mut far);
    let mut heard = Vec::new();
    let talk = async {
        say(&mut writer, words).await;
        if !closes {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = talk => {}
        _ = reader.read_to_end(&mut heard) => {}
    }
    heard
}

async fn meet(words: &[u8], closes: bool, size: usize, tls: TlsMode) -> (Vec<Report>, Vec<u8>) {
    let (connector, far) = pipe(size);
    let client = async {
        let mut reports = Vec::new();
        if let Ok(mut connection) = connector.open(&plan(tls)).await {
            for _ in 0..2 {
                let transaction = transaction(&["a@x.test", "b@x.test"], inline("Subject: x\r\n\r\nhi\r\n"));
                reports.push(connection.transact(&transaction).await);
            }
            connection.close().await;
        }
        reports
    };
    tokio::join!(Box::pin(client), babble(far, words, closes))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_a_peer_says_each_recipient_has_one_outcome(words in words(), closes: bool, size in 1usize..100, is_tls: bool) {
        let tls = if is_tls { TlsMode::Opportunistic } else { TlsMode::Off };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (reports, heard) = runtime.block_on(Box::pin(meet(&words, closes, size, tls)));
        for report in &reports {
            prop_assert_eq!(report.outcomes.len(), 2);
            for outcome in &report.outcomes {
                if let Outcome::Replied { reply, .. } = outcome {
                    // A yes that nobody said, or one to another question, would lose a message.
                    prop_assert!(matches!(reply.code() / 100, 2 | 4 | 5));
                    let code = reply.code().to_string();
                    prop_assert!(words.windows(3).any(|w| w == code.as_bytes()));
                }
            }
        }
        let is_delivered = |o: &Outcome| matches!(o, Outcome::Replied { reply, .. } if reply.is_positive());
        if reports.iter().any(|report| report.outcomes.iter().any(is_delivered)) && !closes {
            prop_assert!(heard.windows(4).any(|w| w == b"hi\r\n"));
        }
    }
}
