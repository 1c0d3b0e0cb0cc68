//! TLS and log-ins in the dialogue (RFC 3207, RFC 4954).
//!
//! Rules that always hold:
//! - TLS begins a new dialogue: nothing said before it counts, but the errors and the failed log-ins;
//! - a password is taken inside TLS or from a trusted network, and nowhere else;
//! - a connection has so many failed log-ins and no more.

use std::sync::Arc;

use super::{Action, Session};
use crate::smtp::command::{Auth, Command};
use crate::smtp::offers::{LogIn, Tls};
use crate::smtp::replies::{self, Said};
use crate::smtp::sasl::{Exchange, Step};

/// Failed log-ins on one connection: a person mistypes twice, who guesses comes with a list.
const FAILED_LOG_INS_MAX: u32 = 3;

impl Session {
    pub(super) fn offers_tls(&self) -> bool {
        !self.secure && matches!(self.offers.tls, Tls::Starttls | Tls::Require)
    }

    /// RFC 3207 section 4 lets a server refuse all but these.
    pub(super) fn waits_for_tls(&self, command: &Command) -> bool {
        let may_come = matches!(
            command,
            Command::Ehlo(_) | Command::Helo(_) | Command::StartTls | Command::Noop | Command::Quit | Command::Http
        );
        // The octets of a BDAT have to be counted, whatever is said to it.
        let is_counted = matches!(command, Command::Bdat { .. });
        self.offers.tls == Tls::Require && !self.secure && !may_come && !is_counted
    }

    pub(super) fn start_tls(&mut self, out: &mut Vec<u8>) -> Action {
        if self.secure {
            return self.error(&replies::OUT_OF_ORDER.with("the dialogue is inside TLS already"), out);
        }
        if !self.offers_tls() {
            return self.error(&replies::NOT_OFFERED.with("STARTTLS"), out);
        }
        replies::BEGIN_TLS.plain().write(out);
        Action::StartTls
    }

    /// The handshake is done: the dialogue begins anew (RFC 3207 section 4.2).
    pub fn secured(&mut self) {
        self.secure = true;
        self.user = None;
        self.exchange = None;
        self.hello = None;
        self.transaction = None;
        self.data_refused = false;
    }

    pub(super) fn may_log_in(&self) -> bool {
        self.offers.log_in != LogIn::Off && (self.secure || self.trusted)
    }

    pub(super) fn auth(&mut self, auth: &Auth, out: &mut Vec<u8>) -> Action {
        if self.offers.log_in == LogIn::Off {
            return self.error(&replies::NOT_OFFERED.with("AUTH"), out);
        }
        if !self.may_log_in() {
            return self.error(&replies::LOG_IN_NEEDS_TLS.plain(), out);
        }
        if self.hello.is_none() {
            return self.error(&replies::OUT_OF_ORDER.with("say EHLO first"), out);
        }
        if self.user.is_some() || self.transaction.is_some() {
            return self.error(&replies::OUT_OF_ORDER.with("AUTH comes once, and before MAIL"), out);
        }
        if self.failed_log_ins >= FAILED_LOG_INS_MAX {
            return self.end_with(replies::TOO_MANY_LOG_INS, out);
        }
        let Some(mechanism) = auth.mechanism else {
            return self.error(&replies::UNKNOWN_MECHANISM.plain(), out);
        };
        let mut exchange = Exchange::new(mechanism);
        let step = match &auth.initial {
            Some(initial) => exchange.begin(initial),
            None => Step::Ask(exchange.challenge()),
        };
        self.log_in_step(exchange, step, out)
    }

    pub(super) fn log_in_step(&mut self, exchange: Exchange, step: Step, out: &mut Vec<u8>) -> Action {
        match step {
            Step::Ask(challenge) => {
                self.exchange = Some(exchange);
                self.refuse(&replies::CHALLENGE.with(challenge), out)
            }
            Step::Check(credentials) => Action::LogIn(credentials),
            Step::Refused(said) => self.log_in_refused(&said, out),
        }
    }

    /// It is who it says.
    pub fn logged_in(&mut self, user: Arc<str>, out: &mut Vec<u8>) -> Action {
        replies::LOGGED_IN.with(user.to_string()).write(out);
        self.user = Some(user);
        Action::Listen
    }

    pub fn log_in_refused(&mut self, said: &Said, out: &mut Vec<u8>) -> Action {
        self.failed_log_ins += 1;
        self.error(said, out)
    }
}
