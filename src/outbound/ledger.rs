//! What is known about each recipient of a transaction while it runs.
//!
//! - A refusal is final: nothing that comes later changes it, so the first error is the cause and a 503 behind it only
//!   a consequence.
//! - An acceptance at RCPT is none yet: what becomes of it is said at the end of the content, or by the end of the
//!   connection.

use super::Outcome;
use crate::types::{Reply, Stage};

#[derive(Debug)]
pub(super) struct Ledger(Vec<Standing>);

#[derive(Clone, Debug)]
enum Standing {
    Open,
    Accepted,
    Settled(Outcome),
}

impl Ledger {
    pub(super) fn new(recipients: usize) -> Ledger {
        Ledger(vec![Standing::Open; recipients])
    }

    pub(super) fn accept(&mut self, recipient: usize) {
        if let Some(standing @ Standing::Open) = self.0.get_mut(recipient) {
            *standing = Standing::Accepted;
        }
    }

    pub(super) fn refuse(&mut self, recipient: usize, reply: Reply) {
        if let Some(standing @ (Standing::Open | Standing::Accepted)) = self.0.get_mut(recipient) {
            *standing = Standing::Settled(Outcome::Replied { stage: Stage::Rcpt, reply });
        }
    }

    /// The outcome of all who have none yet.
    pub(super) fn settle(&mut self, outcome: &Outcome) {
        for standing in &mut self.0 {
            if !matches!(standing, Standing::Settled(_)) {
                *standing = Standing::Settled(outcome.clone());
            }
        }
    }

    pub(super) fn reply(&mut self, stage: Stage, reply: Reply) {
        self.settle(&Outcome::Replied { stage, reply });
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.0.iter().any(|standing| matches!(standing, Standing::Accepted))
    }

    pub(super) fn is_settled(&self) -> bool {
        self.0.iter().all(|standing| matches!(standing, Standing::Settled(_)))
    }

    /// One for each recipient; the transaction must have settled all.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.0
            .into_iter()
            .map(|standing| match standing {
                Standing::Settled(outcome) => outcome,
                Standing::Open | Standing::Accepted => unreachable!("a transaction ends with an outcome for everybody"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replied(stage: Stage, text: &str) -> Outcome {
        Outcome::Replied { stage, reply: Reply::parse(text).unwrap() }
    }

    #[test]
    fn the_first_error_is_the_cause() {
        let mut ledger = Ledger::new(3);
        ledger.refuse(1, Reply::new(550, "no such user"));
        ledger.accept(0);
        ledger.refuse(1, Reply::new(503, "later"));
        ledger.accept(1);
        assert!(ledger.has_accepted() && !ledger.is_settled());
        ledger.reply(Stage::Data, Reply::new(250, "ok"));
        assert!(!ledger.has_accepted() && ledger.is_settled());
        ledger.reply(Stage::Data, Reply::new(451, "too late"));
        assert_eq!(
            ledger.into_outcomes(),
            [replied(Stage::Data, "250 ok"), replied(Stage::Rcpt, "550 no such user"), replied(Stage::Data, "250 ok")]
        );
    }
}
