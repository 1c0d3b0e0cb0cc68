//! One connection to a scripted receiver: the server's side of SMTP, plainly, with the script asked at each moment.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConnection, StreamOwned};

use super::mx::{Act, At, Rcpt, Shared, Transaction, Words};
use super::{PATIENCE, now};

/// One connection. An end of the connection is an `Err` all the way up; nobody looks at what it says.
pub(super) struct Session<'a> {
    shared: &'a Shared,
    wire: Wire,
    unread: Vec<u8>,
    number: usize,
    peer: IpAddr,
    helo: String,
    login: Option<String>,
    mail: Option<Mail>,
    has_left: bool,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
    /// Between the two.
    Gone,
}

struct Mail {
    sender: String,
    parameters: Vec<String>,
    recipients: Vec<Rcpt>,
    chunks: Option<Vec<u8>>,
}

struct Closed;
type Dialogue<T = ()> = Result<T, Closed>;

impl From<std::io::Error> for Closed {
    fn from(_: std::io::Error) -> Closed {
        Closed
    }
}

impl<'a> Session<'a> {
    pub(super) fn run(stream: TcpStream, shared: &'a Shared) {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(PATIENCE * 4));
        let number = {
            let mut state = shared.state();
            state.open += 1;
            state.connections += 1;
            state.peak = state.peak.max(state.open);
            shared.crowd.enter();
            state.connections
        };
        let peer = stream.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
        let wire = Wire::Plain(stream);
        let mut session = Session {
            shared,
            wire,
            unread: Vec::new(),
            number,
            peer,
            helo: String::new(),
            login: None,
            mail: None,
            has_left: false,
        };
        let _ = session.dialogue();
        session.leave();
        session.hang_up();
    }

    /// Counts the connection as closed: just before the client can know of it, as it may open the next one at once then.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.has_left, true) {
            self.shared.state().open -= 1;
            self.shared.crowd.leave();
        }
    }

    fn dialogue(&mut self) -> Dialogue {
        let greeting = format!("220 {} ESMTP", self.shared.name);
        self.answer(&At::Greeting, &greeting)?;
        loop {
            let line = self.line()?;
            self.shared.state().commands.push(line.clone());
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.ehlo(rest)?,
                "HELO" => {
                    self.helo = rest.to_string();
                    self.write(&format!("250 {}", self.shared.name))?;
                }
                "STARTTLS" => self.start_tls()?,
                "AUTH" => self.auth(rest)?,
                "MAIL" => self.mail(&line)?,
                "RCPT" => self.rcpt(&line)?,
                "DATA" => self.data()?,
                "BDAT" => self.bdat(rest)?,
                "RSET" => {
                    self.mail = None;
                    self.write("250 2.0.0 reset")?;
                }
                "NOOP" => self.write("250 2.0.0 ok")?,
                "QUIT" => return self.quit(),
                _ => self.write("502 5.5.1 not here")?,
            }
        }
    }

    fn ehlo(&mut self, name: &str) -> Dialogue {
        self.helo = name.to_string();
        self.mail = None;
        let mut keywords = self.shared.state().keywords.clone();
        if self.shared.tls.is_some() && matches!(self.wire, Wire::Plain(_)) {
            keywords.push("STARTTLS".to_string());
        }
        if let Some((_, _, mechanism)) = &self.shared.state().login
            && self.is_private()
        {
            keywords.push(format!("AUTH {mechanism}"));
        }
        let mut lines = vec![format!("{} hello {name}", self.shared.name)];
        lines.extend(keywords);
        let last = lines.len() - 1;
        let usual: Vec<String> =
            lines.iter().enumerate().map(|(i, l)| format!("250{}{l}", if i == last { ' ' } else { '-' })).collect();
        self.answer(&At::Ehlo, &usual.join("\n")).map(|_| ())
    }

    /// Would a password said here be heard by nobody else, as far as this host can have it?
    fn is_private(&self) -> bool {
        self.shared.tls.is_none() || matches!(self.wire, Wire::Tls(_))
    }

    fn auth(&mut self, rest: &str) -> Dialogue {
        let wanted = self.shared.state().login.clone();
        let Some((name, password, mechanism)) = wanted.filter(|_| self.is_private()) else {
            return self.write("503 5.5.1 nobody logs in here");
        };
        let (asked, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        if asked != mechanism {
            return self.write("504 5.5.4 not this mechanism");
        }
        let given = match (mechanism, initial) {
            ("PLAIN", "") => self.challenged("334 ")?,
            ("PLAIN", initial) => decoded(initial),
            _ => {
                let given = [self.challenged("334 VXNlcm5hbWU6")?, self.challenged("334 UGFzc3dvcmQ6")?];
                format!("\0{}", given.join("\0"))
            }
        };
        if given != format!("\0{name}\0{password}") {
            return self.write("535 5.7.8 bad credentials");
        }
        if self.answer(&At::Auth, "235 2.7.0 welcome")?.starts_with('2') {
            self.login = Some(name);
        }
        Ok(())
    }

    fn challenged(&mut self, challenge: &str) -> Dialogue<String> {
        self.write(challenge)?;
        self.line().map(|line| decoded(&line))
    }

    fn start_tls(&mut self) -> Dialogue {
        let Some(config) = self.shared.tls.clone() else {
            return self.write("502 5.5.1 no TLS here");
        };
        if !self.answer(&At::StartTls, "220 2.0.0 go ahead")?.starts_with('2') {
            return Ok(());
        }
        if let Some(act) = self.shared.act(&At::Handshake) {
            self.perform(act, "")?;
        }
        self.unread.clear();
        let Wire::Plain(stream) = std::mem::replace(&mut self.wire, Wire::Gone) else { return Err(Closed) };
        if self.shared.state().drops_large_hellos && hello_size(&stream)? > 1200 {
            return Err(Closed);
        }
        let mut tls = StreamOwned::new(ServerConnection::new(config).map_err(|_| Closed)?, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        self.wire = Wire::Tls(Box::new(tls));
        self.helo.clear();
        self.mail = None;
        Ok(())
    }

    fn mail(&mut self, line: &str) -> Dialogue {
        let Some((sender, parameters)) = path(line) else {
            return self.write("501 5.5.4 no path");
        };
        if self.login.is_none() && self.shared.state().login.is_some() {
            return self.write("530 5.7.0 authentication required");
        }
        if self.answer(&At::Mail, "250 2.1.0 sender ok")?.starts_with('2') {
            self.mail = Some(Mail { sender, parameters, recipients: Vec::new(), chunks: None });
        }
        Ok(())
    }

    fn rcpt(&mut self, line: &str) -> Dialogue {
        if self.mail.is_none() {
            return self.write("503 5.5.1 MAIL first");
        }
        let Some((address, parameters)) = path(line) else {
            return self.write("501 5.5.4 no path");
        };
        let own = At::to(&address);
        let at = if self.shared.state().script.contains_key(&own) { own } else { At::Rcpt };
        let is_accepted = self.answer(&at, "250 2.1.5 recipient ok")?.starts_with('2');
        if let (true, Some(mail)) = (is_accepted, &mut self.mail) {
            mail.recipients.push(Rcpt { address, parameters });
        }
        Ok(())
    }

    fn data(&mut self) -> Dialogue {
        if self.mail.as_ref().is_none_or(|m| m.recipients.is_empty() || m.chunks.is_some()) {
            return self.write("503 5.5.1 RCPT first");
        }
        if !self.answer(&At::Data, "354 go on")?.starts_with('3') {
            self.mail = None;
            return Ok(());
        }
        if let Some(act) = self.shared.act(&At::Body) {
            if self.unread.is_empty() {
                self.fill()?;
            }
            self.perform(act, "")?;
        }
        let content = self.content()?;
        self.end(content, false)
    }

    fn bdat(&mut self, arguments: &str) -> Dialogue {
        let mut words = arguments.split_ascii_whitespace();
        let size = words.next().and_then(|n| n.parse::<usize>().ok()).ok_or(Closed)?;
        let is_last = words.next().is_some_and(|w| w.eq_ignore_ascii_case("LAST"));
        let has_mail = self.mail.as_ref().is_some_and(|m| !m.recipients.is_empty());
        let is_first = self.mail.as_ref().is_some_and(|m| m.chunks.is_none());
        if has_mail
            && is_first
            && let Some(act) = self.shared.act(&At::Body)
        {
            if self.unread.is_empty() {
                self.fill()?;
            }
            self.perform(act, "")?;
        }
        let chunk = self.octets(size)?;
        if !has_mail {
            self.mail = None;
            return self.write("503 5.5.1 RCPT first");
        }
        let refusal = if is_first { self.shared.act(&At::Data) } else { None };
        if let Some(act) = refusal
            && !self.perform(act, "")?.is_empty()
        {
            self.mail = None;
            return Ok(());
        }
        let Some(mail) = &mut self.mail else { return Err(Closed) };
        let chunks = mail.chunks.get_or_insert_default();
        chunks.extend_from_slice(&chunk);
        if !is_last {
            return self.write(&format!("250 2.0.0 {size} octets"));
        }
        let content = std::mem::take(chunks);
        self.end(content, true)
    }

    /// The content is here. What the script says now decides.
    fn end(&mut self, content: Vec<u8>, is_chunked: bool) -> Dialogue {
        let Some(mail) = self.mail.take() else { return Err(Closed) };
        let act = self.shared.act(&At::End);
        if let Some(gate) = act.as_ref().and_then(|a| a.gate.as_ref()) {
            gate.pass();
        }
        let reply = match act.as_ref().map_or(&Words::Usual, |a| &a.reply) {
            Words::Usual => Some(format!("250 2.6.0 <{}@{}> queued", self.number, self.shared.name)),
            Words::These(text) => Some(text.clone()),
            Words::None => None,
        };
        let keeps = self.shared.keeps_content.load(Ordering::Relaxed);
        let transaction = Transaction {
            connection: self.number,
            peer: self.peer,
            helo: self.helo.clone(),
            login: self.login.clone(),
            is_tls: matches!(self.wire, Wire::Tls(_)),
            sender: mail.sender,
            mail_parameters: mail.parameters,
            recipients: mail.recipients,
            content: if keeps { content } else { Vec::new() },
            is_chunked,
            reply: reply.clone(),
            replied: now(),
        };
        {
            let mut state = self.shared.state();
            state.accepted += usize::from(transaction.is_accepted());
            if keeps {
                state.transactions.push(transaction);
            } else {
                state.commands.clear();
            }
        }
        let closes = act.is_some_and(|a| a.closes);
        if closes {
            self.leave();
        }
        if let Some(reply) = reply {
            self.write(&reply)?;
        }
        if closes { Err(Closed) } else { Ok(()) }
    }

    fn quit(&mut self) -> Dialogue {
        let Some(act) = self.shared.act(&At::HangUp) else {
            self.leave();
            return self.write("221 2.0.0 bye");
        };
        self.write("221 2.0.0 bye")?;
        if let Some(gate) = act.gate {
            gate.pass();
        }
        Ok(())
    }

    /// Does what the script says at `at`, else answers `usual`. Returns what was answered.
    fn answer(&mut self, at: &At, usual: &str) -> Dialogue<String> {
        match self.shared.act(at) {
            Some(act) => self.perform(act, usual),
            None => self.write(usual).map(|()| usual.to_string()),
        }
    }

    fn perform(&mut self, act: Act, usual: &str) -> Dialogue<String> {
        if act.gate.as_ref().is_some_and(|gate| !gate.pass()) {
            return Err(Closed);
        }
        let reply = match act.reply {
            Words::Usual => usual.to_string(),
            Words::These(text) => text,
            Words::None => String::new(),
        };
        if act.closes {
            self.leave();
        }
        if !reply.is_empty() {
            self.write(&reply)?;
        }
        if act.closes { Err(Closed) } else { Ok(reply) }
    }

    fn write(&mut self, reply: &str) -> Dialogue {
        let mut bytes = reply.replace('\n', "\r\n").into_bytes();
        bytes.extend_from_slice(b"\r\n");
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(&bytes)?,
            Wire::Tls(stream) => {
                stream.write_all(&bytes)?;
                stream.flush()?;
            }
            Wire::Gone => return Err(Closed),
        }
        Ok(())
    }

    /// Reads what is there, at least an octet.
    fn fill(&mut self) -> Dialogue {
        let mut buffer = [0; 16 * 1024];
        let length = match &mut self.wire {
            Wire::Plain(stream) => stream.read(&mut buffer)?,
            Wire::Tls(stream) => stream.read(&mut buffer)?,
            Wire::Gone => 0,
        };
        if length == 0 {
            return Err(Closed);
        }
        self.unread.extend_from_slice(&buffer[..length]);
        Ok(())
    }

    /// A command line without its CRLF.
    fn line(&mut self) -> Dialogue<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Ok(line);
            }
            self.fill()?;
        }
    }

    fn octets(&mut self, size: usize) -> Dialogue<Vec<u8>> {
        while self.unread.len() < size {
            self.fill()?;
        }
        Ok(self.unread.drain(..size).collect())
    }

    /// Reads to CRLF.CRLF and takes the dot-stuffing off (RFC 5321 section 4.5.2).
    fn content(&mut self) -> Dialogue<Vec<u8>> {
        let mut looked = 0;
        let end = loop {
            if self.unread.starts_with(b".\r\n") {
                break 0;
            }
            if let Some(at) = memchr::memmem::find(&self.unread[looked..], b"\r\n.\r\n") {
                break looked + at + 2;
            }
            looked = self.unread.len().saturating_sub(4);
            self.fill()?;
        };
        let stuffed: Vec<u8> = self.unread.drain(..end + 3).take(end).collect();
        Ok(unstuff(&stuffed))
    }

    /// Sends FIN and reads what still comes, so that the last reply is not lost in a reset.
    fn hang_up(&mut self) {
        let stream = match &mut self.wire {
            Wire::Plain(stream) => stream,
            Wire::Tls(tls) => {
                tls.conn.send_close_notify();
                let _ = tls.flush();
                &mut tls.sock
            }
            Wire::Gone => return,
        };
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut rest = [0; 4096];
        while stream.read(&mut rest).is_ok_and(|n| n > 0) {}
    }
}

/// Of the record that comes next, which stays unread.
fn hello_size(stream: &TcpStream) -> Dialogue<u16> {
    let mut head = [0; 5];
    while stream.peek(&mut head)? < head.len() {}
    Ok(u16::from_be_bytes([head[3], head[4]]))
}

fn decoded(text: &str) -> String {
    let octets = STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&octets).into_owned()
}

fn unstuff(stuffed: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(stuffed.len());
    let mut rest = stuffed;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        content.extend_from_slice(rest[..end].strip_prefix(b".").unwrap_or(&rest[..end]));
        rest = &rest[end..];
    }
    content
}

/// The path and the parameters of `MAIL FROM:<…> …` or `RCPT TO:<…> …`.
fn path(line: &str) -> Option<(String, Vec<String>)> {
    let (_, rest) = line.split_once(":<")?;
    let end = if rest.starts_with('"') { rest.rfind('>')? } else { rest.find('>')? };
    let parameters = rest[end + 1..].split_ascii_whitespace().map(str::to_string).collect();
    Some((rest[..end].to_string(), parameters))
}
