//! Whether a sender is told that a message was passed on to another host (RFC 3461 section 5.2.2, RFC 2852 section 4.1.4).

use crate::types::{ByMode, DeliverBy, Notify};

/// What the host that took a message has offered of what its sender asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// It makes reports of success itself.
    pub dsn: bool,
    /// It was told the time by which the message is to be delivered.
    pub deliver_by: bool,
}

/// Why a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOn {
    /// The host makes no reports of success.
    WithoutReports,
    /// It knows of no time by which the message is to be delivered.
    WithoutTime,
    /// The sender wants to hear of each host.
    Traced,
}

impl PassedOn {
    /// None: the sender of a message to this recipient is told nothing.
    pub(super) fn why(notify: &Notify, by: Option<DeliverBy>, offered: Offered) -> Option<PassedOn> {
        if notify.success && !offered.dsn {
            return Some(PassedOn::WithoutReports);
        }
        let by = by.filter(|_| *notify != Notify::NEVER)?;
        match by.mode {
            ByMode::Notify if !offered.deliver_by => Some(PassedOn::WithoutTime),
            _ => by.trace.then_some(PassedOn::Traced),
        }
    }

    /// For the sender.
    pub(super) fn cause(self) -> &'static str {
        match self {
            PassedOn::WithoutReports => {
                "The message was passed on to a mail server that sends no confirmation of its own."
            }
            PassedOn::WithoutTime => {
                "The message was passed on to a mail server that knows nothing of the time by which it is to be delivered \
                 (DELIVERBY), and sends no word if it becomes late there."
            }
            PassedOn::Traced => {
                "The message was passed on to the next mail server, as you wanted to hear (DELIVERBY with T)."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_told_and_who_wants_nothing_hears_nothing() {
        let by = |mode, trace| Some(DeliverBy { secs: 60, mode, trace });
        let (none, both) = (Offered::default(), Offered { dsn: true, deliver_by: true });
        let notify = |text: &str| Notify::parse(text).unwrap();
        for (given, by, offered, expected) in [
            (Notify::default(), None, none, None),
            (notify("SUCCESS"), None, none, Some(PassedOn::WithoutReports)),
            (notify("SUCCESS"), None, both, None),
            (Notify::default(), by(ByMode::Notify, false), none, Some(PassedOn::WithoutTime)),
            (notify("FAILURE"), by(ByMode::Notify, false), none, Some(PassedOn::WithoutTime)),
            (Notify::default(), by(ByMode::Notify, false), both, None),
            (Notify::default(), by(ByMode::Notify, true), both, Some(PassedOn::Traced)),
            (Notify::default(), by(ByMode::Return, false), none, None),
            (Notify::default(), by(ByMode::Return, true), none, Some(PassedOn::Traced)),
            (Notify::NEVER, by(ByMode::Notify, true), none, None),
        ] {
            assert_eq!(PassedOn::why(&given, by, offered), expected, "{given:?} {by:?} {offered:?}");
        }
    }
}
