//! Logging in at a next hop: AUTH PLAIN (RFC 4616) or LOGIN, as RFC 4954 carries them.
//!
//! - What is sent of the password goes over TLS with a verified host, unless the configuration says otherwise (`Security`).
//! - One try a connection: a second one with the same password only brings nearer the moment at which it is locked.
//! - No log shows what is sent; a refusal is about our log-in, whatever its code, and about no message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::capabilities::Capabilities;
use super::connector::{Opening, Stop};
use super::options::TlsMode;
use super::wire::Wire;
use super::{OpenStage, command};
use crate::types::{Login, Reply, Secret};

/// A command line with its end (RFC 4954 section 4): a longer response comes behind a challenge.
const COMMAND_MAX: usize = 512;
/// "This mechanism is not here": the other one may be.
const NOT_THIS_MECHANISM: u16 = 504;

impl Opening<'_> {
    pub(super) async fn logged_in(&self, wire: Wire, offered: &Capabilities, login: &Login) -> Result<Wire, Stop> {
        if self.plan.security.tls > TlsMode::Opportunistic && !wire.is_encrypted() {
            return Err(self.stop(OpenStage::Login, "no password is sent in clear text", Some(wire)));
        }
        if !offered.auth_plain && !offered.auth_login {
            let lack =
                if offered.auth { "AUTH is offered with neither PLAIN nor LOGIN" } else { "AUTH is not offered" };
            return Err(self.stop(
                OpenStage::Login,
                &format!("{lack}, and we are to log in by {}", login.set_in),
                Some(wire),
            ));
        }
        let (mut wire, mut reply) = (wire, None);
        if offered.auth_plain {
            let (after, said) = self.plain(wire, login).await?;
            (wire, reply) = (after, Some(said));
        }
        let (wire, reply) = match reply {
            Some(reply) if reply.code() != NOT_THIS_MECHANISM || !offered.auth_login => (wire, reply),
            _ => self.login(wire, login).await?,
        };
        if reply.is_positive() {
            return Ok(wire);
        }
        if reply.code() == 421 {
            // The host closes, as it may at any time.
            return Err(self.refused(OpenStage::Ehlo, "AUTH", reply, wire));
        }
        let text = format!("our log-in as {} is refused: {reply} ({})", login.username, login.set_in);
        let mut stop = self.stop(OpenStage::Login, &text, Some(wire));
        stop.error.reply = (reply.is_transient() || reply.is_permanent()).then_some(reply);
        Err(stop)
    }

    /// With the response in the command where it fits; a peer that asks for it all the same gets it then.
    async fn plain(&self, mut wire: Wire, login: &Login) -> Result<(Wire, Reply), Stop> {
        let message = [b"\0", login.username.as_bytes(), b"\0", login.password.expose()].concat();
        let response = encoded(&Secret::new(message));
        let fits = "AUTH PLAIN \r\n".len() + response.len() <= COMMAND_MAX;
        match fits {
            true => wire.say_secret("AUTH PLAIN ***", |out| line(out, b"AUTH PLAIN ", &response)),
            false => wire.say(|out| command::line(out, &["AUTH PLAIN"])),
        }
        let (wire, reply) = self.answer(wire).await?;
        if reply.code() != 334 {
            return Ok((wire, reply));
        }
        let (wire, reply) = self.respond(wire, &response).await?;
        self.ended(wire, reply).await
    }

    /// The name behind the first challenge, the password behind the second; what the challenges say is nowhere laid down.
    async fn login(&self, mut wire: Wire, login: &Login) -> Result<(Wire, Reply), Stop> {
        wire.say(|out| command::line(out, &["AUTH LOGIN"]));
        let (mut wire, mut reply) = self.answer(wire).await?;
        for secret in [Secret::new(login.username.as_bytes()), login.password.clone()] {
            if reply.code() != 334 {
                return Ok((wire, reply));
            }
            (wire, reply) = self.respond(wire, &encoded(&secret)).await?;
        }
        self.ended(wire, reply).await
    }

    /// All is said: who asks for more is told that nothing comes (RFC 4954 section 4).
    async fn ended(&self, wire: Wire, reply: Reply) -> Result<(Wire, Reply), Stop> {
        if reply.code() != 334 {
            return Ok((wire, reply));
        }
        self.respond(wire, &Secret::new("*")).await
    }

    async fn respond(&self, mut wire: Wire, response: &Secret) -> Result<(Wire, Reply), Stop> {
        wire.say_secret("***", |out| line(out, b"", response));
        self.answer(wire).await
    }

    async fn answer(&self, mut wire: Wire) -> Result<(Wire, Reply), Stop> {
        match wire.reply(self.timeouts.ehlo).await {
            Ok(reply) => Ok((wire, reply)),
            Err(text) => Err(self.stop(OpenStage::Ehlo, &format!("{text}, instead of the reply to AUTH"), None)),
        }
    }
}

fn encoded(secret: &Secret) -> Secret {
    Secret::new(STANDARD.encode(secret.expose()))
}

fn line(out: &mut Vec<u8>, before: &[u8], secret: &Secret) {
    out.extend_from_slice(before);
    out.extend_from_slice(secret.expose());
    out.extend_from_slice(b"\r\n");
}
