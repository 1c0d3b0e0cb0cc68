//! Clients that hand mail to the relay: a raw one that sends exactly what a test says, and lettre as an independent one.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use lettre::Transport;
use lettre::address::Envelope;
use lettre::transport::smtp::SmtpTransport;
use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// A raw SMTP client. It adds nothing to what it is told to send.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    pub keywords: Vec<String>,
}

impl Client {
    /// Connects and reads the greeting, which must be 220.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client::connect_from(IpAddr::from([127, 0, 0, 1]), address)
    }

    /// The same from a local address of choice.
    #[track_caller]
    pub fn connect_from(local: IpAddr, address: SocketAddr) -> Client {
        let mut client = Client::open(local, address).unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        client.expect("220");
        client
    }

    pub fn open(local: IpAddr, address: SocketAddr) -> std::io::Result<Client> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(local, 0).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, unread: Vec::new(), keywords: Vec::new() })
    }

    /// EHLO; keeps the keywords of the answer.
    #[track_caller]
    pub fn hello(&mut self) {
        self.send("EHLO client.test");
        let reply = self.expect("250");
        self.keywords = reply.lines().skip(1).filter_map(|l| l.get(4..)).map(str::to_string).collect();
    }

    pub fn offers(&self, keyword: &str) -> bool {
        self.keywords.iter().any(|k| k.split(' ').next() == Some(keyword))
    }

    /// Sends a line; CRLF is added.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\r\n").as_bytes());
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|e| panic!("send to the relay: {e}"));
    }

    /// Sends; an error is no failure of the test: the relay may have hung up, and its reply is what counts.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Ends what is said; replies can still be heard.
    pub fn say_no_more(&mut self) {
        // Closed by the other side already: the same to us.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next reply, its lines joined by line feeds; `None` at the end of the connection.
    pub fn try_reply(&mut self) -> Option<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if is_last {
                return Some(lines.join("\n"));
            }
        }
    }

    #[track_caller]
    pub fn reply(&mut self) -> String {
        self.try_reply().expect("the relay closed the connection instead of a reply")
    }

    /// The next reply, which must begin with `code` (`250`, `550 5.1.1`, or just `5`).
    #[track_caller]
    pub fn expect(&mut self, code: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(code), "expected {code}, the relay said: {reply}");
        reply
    }

    /// Sends a line and expects a reply.
    #[track_caller]
    pub fn ask(&mut self, line: &str, code: &str) -> String {
        self.send(line);
        let reply = self.reply();
        assert!(reply.starts_with(code), "expected {code} to `{line}`, the relay said: {reply}");
        reply
    }

    /// One message to recipients that must all be accepted; returns the queue id.
    #[track_caller]
    pub fn submit(&mut self, sender: &str, recipients: &[&str], content: &[u8]) -> String {
        self.envelope(sender, recipients);
        self.data(content)
    }

    #[track_caller]
    pub fn envelope(&mut self, sender: &str, recipients: &[&str]) {
        self.ask(&format!("MAIL FROM:<{sender}>"), "250");
        for recipient in recipients {
            self.ask(&format!("RCPT TO:<{recipient}>"), "250");
        }
    }

    /// DATA and `content`, dots stuffed; returns the queue id.
    #[track_caller]
    pub fn data(&mut self, content: &[u8]) -> String {
        self.ask("DATA", "354");
        self.send_bytes(&stuffed(content));
        queue_id(&self.expect("250"))
    }

    /// The end of the connection, without a reply before it.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let reply = self.try_reply();
        assert_eq!(reply, None, "the relay should have closed the connection");
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Some(line);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(n) if n > 0 => self.unread.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    panic!("the relay said nothing for {PATIENCE:?}");
                }
                _ => return None,
            }
        }
    }
}

/// `content` as DATA carries it: dots stuffed, a line end at the end, CRLF.CRLF behind.
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 64);
    let mut at_line_start = true;
    for &byte in content {
        if at_line_start && byte == b'.' {
            bytes.push(b'.');
        }
        bytes.push(byte);
        at_line_start = bytes.ends_with(b"\r\n");
    }
    if !at_line_start {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b".\r\n");
    bytes
}

/// The id in `250 2.0.0 queued as ID`.
#[track_caller]
pub fn queue_id(reply: &str) -> String {
    let (_, id) = reply.split_once("queued as ").unwrap_or_else(|| panic!("no queue id in `{reply}`"));
    id.split_whitespace().next().unwrap_or_default().to_string()
}

/// Hands in a message with lettre, an SMTP client weir does not share code with.
pub fn send_with_lettre(relay: SocketAddr, sender: &str, recipients: &[&str], content: &[u8]) -> Result<(), String> {
    let transport = SmtpTransport::builder_dangerous(relay.ip().to_string()).port(relay.port()).build();
    let address = |text: &str| text.parse().map_err(|e| format!("{text}: {e}"));
    let recipients: Result<Vec<_>, String> = recipients.iter().map(|r| address(r)).collect();
    let envelope = Envelope::new(Some(address(sender)?), recipients?).map_err(|e| e.to_string())?;
    transport.send_raw(&envelope, content).map(drop).map_err(|e| e.to_string())
}

#[test]
fn stuffing_doubles_the_dots_at_the_beginning_of_lines_alone() {
    assert_eq!(stuffed(b".a\r\n..\r\nb.\r\n"), b"..a\r\n...\r\nb.\r\n.\r\n");
    assert_eq!(stuffed(b"a\n.b"), b"a\n.b\r\n.\r\n");
    assert_eq!(stuffed(b""), b".\r\n");
}
