//! Hands the demo's messages to the relay, by SMTP like everybody else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::SHARES;

/// Nothing on loopback takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The recipient of the message with this number; no two are alike.
pub(super) fn recipient(number: u32) -> String {
    let mut place = number % SHARES.iter().map(|(_, share)| share).sum::<u32>();
    for (domain, share) in SHARES {
        if place < share {
            return format!("user{number}@{domain}");
        }
        place -= share;
    }
    unreachable!("the shares add up to their sum")
}

/// Hands in the messages with these numbers, one after another on one connection.
pub(super) async fn hand_in(relay: SocketAddr, numbers: impl Iterator<Item = u32>) -> io::Result<()> {
    let mut client = Client(BufReader::new(TcpStream::connect(relay).await?));
    client.expect(220).await?;
    client.say("EHLO app.example\r\n", &[250]).await?;
    for number in numbers {
        let to = recipient(number);
        let envelope = format!("MAIL FROM:<news@app.example>\r\nRCPT TO:<{to}>\r\nDATA\r\n");
        client.say(&envelope, &[250, 250, 354]).await?;
        client.say(&message(number, &to), &[250]).await?;
    }
    client.say("QUIT\r\n", &[221]).await
}

fn message(number: u32, to: &str) -> String {
    format!(
        "From: News <news@app.example>\r\nTo: <{to}>\r\nSubject: Your order {number} is on its way\r\n\
         Message-ID: <{number}@app.example>\r\n\r\nIt left our house this morning.\r\n.\r\n"
    )
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn say(&mut self, text: &str, codes: &[u16]) -> io::Result<()> {
        timeout(PATIENCE, self.0.get_mut().write_all(text.as_bytes())).await??;
        for code in codes {
            self.expect(*code).await?;
        }
        Ok(())
    }

    async fn expect(&mut self, code: u16) -> io::Result<()> {
        loop {
            let mut line = String::new();
            if timeout(PATIENCE, self.0.read_line(&mut line)).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.get(3..4) == Some("-") {
                continue;
            }
            return match line.get(..3) == Some(code.to_string().as_str()) {
                true => Ok(()),
                false => Err(io::Error::other(format!("the relay said: {}", line.trim_end()))),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_differ_and_every_domain_gets_its_share() {
        let of = |domain: &str| (0..100).filter(|n| recipient(*n).ends_with(domain)).count();
        assert_eq!((of("@outlook.com"), of("@hotmail.com"), of("@contoso.com")), (50, 30, 20));
    }
}
