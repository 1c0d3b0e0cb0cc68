//! What a receiver thinks of those who sent to it.
//!
//! Every number counts what was really said or seen: [`Refused`] has one entry for each refusal spoken, and nothing is inferred.

use std::fmt;

use serde::Serialize;

use crate::types::words::count;

/// So many messages may go to a recipient who does not exist before it is held against the sender: refusals that were under way
/// together are nobody's fault.
pub(super) const UNKNOWN_PATIENCE: u32 = 3;

/// Everything counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Connections that were let in.
    pub connections: u64,
    pub connections_open: u32,
    /// The most that stood at a time, with those that were turned away at the greeting.
    pub connections_peak: u32,
    /// Connections begun while the ceiling over all sources was reached.
    pub ceiling_passed: u64,
    pub messages_accepted: u64,
    pub recipients_accepted: u64,
    pub refused: Refused,
    /// Attempts that were refused because an earlier refusal was ignored.
    pub pressed_on: u64,
    /// How often these were enough to be limited for.
    pub too_often: u64,
    /// Blocks that this brought about.
    pub blocks: u64,
    /// The same message offered to the same recipient again after a 5xx.
    pub retransmitted: u64,
    /// Messages to a recipient who does not exist, beyond the third.
    pub unknown_again: u64,
    /// Transactions given up by RSET or QUIT with recipients accepted and no message: addresses were only tried out.
    pub probed: u64,
}

/// Refusals by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Connections, or messages on connections too many.
    pub connections: u64,
    /// Messages over a rate.
    pub rate: u64,
    /// Messages over the number on one connection.
    pub messages: u64,
    /// Messages of a source that is limited because it pressed on.
    pub limited: u64,
    /// Messages of a blocked source.
    pub block: u64,
    /// Messages while a penalty ran that an earlier refusal started.
    pub penalty: u64,
    /// By a trouble of the profile, by chance: no sender can help it.
    pub noise: u64,
    /// Recipients who do not exist.
    pub unknown: u64,
    /// Recipients whose mailbox is full.
    pub full: u64,
    /// Recipients over the number of one transaction.
    pub recipients: u64,
    /// Messages larger than is taken.
    pub size: u64,
    /// Commands that make no sense or come out of order, and names at EHLO that are none.
    pub protocol: u64,
}

impl Refused {
    /// Connections and transactions refused to the sender for what it is or does: what a good sender keeps low.
    pub fn attempts(&self) -> u64 {
        self.connections + self.rate + self.messages + self.limited + self.block + self.penalty
    }
}

impl Judgement {
    /// What is held against the sender, a sentence each; empty: it behaved.
    pub fn faults(&self) -> Vec<String> {
        let faults = [
            (self.ceiling_passed, "begun over the ceiling", "connection", "connections"),
            (self.too_often, "so insistent after refusals that a receiver limits the sender", "time", "times"),
            (self.blocks, "brought about by pressing on", "block", "blocks"),
            (self.retransmitted, "offered again after a 5xx", "message", "messages"),
            (self.unknown_again, "sent to recipients who had been unknown three times", "message", "messages"),
            (self.probed, "given up after RCPT: addresses were tried without mail", "transaction", "transactions"),
        ];
        let faults = faults.into_iter().filter(|(count, ..)| *count > 0);
        faults
            .map(|(count, what, one, many)| format!("{count} {} {what}", if count == 1 { one } else { many }))
            .collect()
    }
}

/// For people: what was taken, what was refused, and the faults.
impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = &self.refused;
        writeln!(
            f,
            "accepted     {} to {} over {}, {} at the peak",
            count(self.messages_accepted, "message"),
            count(self.recipients_accepted, "recipient"),
            count(self.connections, "connection"),
            self.connections_peak
        )?;
        writeln!(
            f,
            "refused      {}: {} over the connections, {} over a rate, {} over the messages of a connection, {} \
             while limited, {} while blocked, {} in a penalty; {} more by chance",
            count(refused.attempts(), "attempt"),
            refused.connections,
            refused.rate,
            refused.messages,
            refused.limited,
            refused.block,
            refused.penalty,
            refused.noise
        )?;
        writeln!(
            f,
            "recipients   {} unknown, {} full, {} over the number of a transaction",
            refused.unknown, refused.full, refused.recipients
        )?;
        let faults = self.faults();
        match faults.is_empty() {
            true => write!(f, "verdict      a sender that listens"),
            false => write!(f, "verdict      {}", faults.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_without_faults_is_told_so() {
        let judgement = Judgement { messages_accepted: 5, ..Judgement::default() };
        assert!(judgement.faults().is_empty());
        assert!(judgement.to_string().ends_with("a sender that listens"), "{judgement}");
    }

    #[test]
    fn each_fault_is_a_sentence() {
        let judgement = Judgement { retransmitted: 1, too_often: 2, ..Judgement::default() };
        assert_eq!(
            judgement.faults(),
            [
                "2 times so insistent after refusals that a receiver limits the sender",
                "1 message offered again after a 5xx"
            ]
        );
    }
}
